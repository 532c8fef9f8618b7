"""The host's firewall: open are the ports of ssh, http and https, and it opens again if nobody can log in any more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from fabdjango.escape import block, quote, raw, sh, when
from fabdjango.plan import ROOT, Put, Step
from fabdjango.render import Templates

__all__ = ["REVERT", "RULES", "UNIT", "allowed_by_ufw", "files", "keep", "on_nftables", "on_ufw"]

RULES = PurePosixPath("/etc/fabdjango/firewall.nft")
UNIT = PurePosixPath("/etc/systemd/system/fabdjango-firewall.service")
REVERT = "fabdjango-firewall-revert.timer"
"""While this unit is there, the firewall waits for somebody to log in anew; otherwise it is taken back."""
_PATIENCE = 120
"""Seconds that it waits."""


def files(templates: Templates, ports: Iterable[int]) -> tuple[Put, Put]:
    """The rules for nftables, and the unit that loads them when the host boots."""
    rules = templates.render("server/firewall.nft.j2", ports=", ".join(map(str, ports)))
    unit = templates.render("server/fabdjango-firewall.service.j2", rules=RULES)
    return Put(RULES, rules, 0o644), Put(UNIT, unit, 0o644)


def allowed_by_ufw(status: str) -> frozenset[int]:
    """The ports that ufw, if it is active, lets anybody reach; ``status`` is what ``ufw status`` prints."""
    if not re.search(r"^Status: active$", status, re.MULTILINE):
        return frozenset()
    found = re.findall(r"^(\d+)(?:/tcp)?\s+(?:ALLOW|LIMIT)(?: IN)?\s+Anywhere\b", status, re.MULTILINE)
    return frozenset(map(int, found))


def _armed(revert: str) -> tuple[str, ...]:
    """Lines that let systemd take the firewall back in a while, unless ``keep`` comes before."""
    name = REVERT.removesuffix(".timer")
    words = sh("systemd-run", "--quiet", f"--unit={name}", f"--on-active={_PATIENCE}", "--", "/bin/sh", "-c", revert)
    return (
        f"systemctl stop -- {REVERT} 2>/dev/null || :",
        f"systemctl reset-failed -- {name}.service 2>/dev/null || :",
        words,
    )


def on_ufw(ports: Iterable[int], *, active: bool) -> Step:
    """``firewall``: allow ``ports``; an ufw that is off is switched on, once they are allowed."""
    allow = [sh("ufw", "allow", f"{port}/tcp") for port in ports]
    on = [*map(raw, _armed("ufw --force disable")), sh("ufw", "--force", "enable")]
    return Step(
        "firewall", "let ufw open what is needed, and nothing else", block(*allow, *([] if active else on)), user=ROOT
    )


def on_nftables(puts: tuple[Put, Put]) -> Step:
    """``firewall``: a table of our own beside those of others."""
    return Step(
        "firewall",
        "let nftables open what is needed, and nothing else",
        block(
            sh("nft", "--check", "--file", RULES),
            *map(raw, _armed(f"systemctl disable --now {UNIT.name}")),
            sh("systemctl", "daemon-reload"),
            sh("systemctl", "enable", "--quiet", "--", UNIT.name),
            sh("systemctl", "restart", "--", UNIT.name),
        ),
        user=ROOT,
        puts=puts,
    )


def keep() -> Step:
    """``firewall-keep``: somebody has logged in through it, so it stays."""
    return Step(
        "firewall-keep",
        "somebody could log in: the firewall stays",
        block(
            when(raw(f"! systemctl is-active --quiet -- {quote(REVERT)}"), raw("unchanged 'it was kept before'")),
            sh("systemctl", "stop", "--", REVERT),
        ),
        user=ROOT,
    )
