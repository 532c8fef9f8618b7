"""What the answers of a check mean for the way to a host and for the host itself: facts to findings, each with its cure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from fabdjango.commands import gunicorn, pythons
from fabdjango.commands.check import ERROR, NOTE, OK, WARNING, Case, Finding, Holder, as_root, from_error, ports_of
from fabdjango.escape import raw, sh
from fabdjango.exceptions import FabdjangoError
from fabdjango.privileged import FOLDER

__all__ = ["TRIED", "clock", "host", "link"]

TRIED = ("debian 12", "debian 13", "ubuntu 22.04", "ubuntu 24.04")
"""Distributions that this is tried on."""
_SLOW = 5.0  # seconds to log in
_MB, _GB = 1_000_000, 1_000_000_000


def _size(count: float) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB else f"{count / _MB:.0f} MB"


# --- the way there -----------------------------------------------------------


def link(case: Case, seconds: float) -> Iterator[Finding]:
    """The login itself: ``seconds`` is how long it took until a program ran there."""
    policy = case.settings.ssh.host_keys
    known = "its key is known" if policy != "accept-new" else "a host that was never seen is believed (ssh.host_keys)"
    text = f"{case.login or 'the account'} is let in within {seconds:.1f} s, {known}"
    if seconds > _SLOW:
        yield Finding(
            "ssh", WARNING, text, "on the host: is it busy (uptime), and does sshd wait for the DNS (UseDNS no)?"
        )
    else:
        yield Finding("ssh", OK, text)
    yield _account(case)
    yield _sudo(case)


def _account(case: Case) -> Finding:
    owner, login = case.owner or case.login, case.login
    if case.look.owner == "missing":
        cure = as_root("adduser", "--disabled-password", "--gecos", "", owner)
        return Finding("account", ERROR, f"there is no account {owner}, which is to own the site", cure)
    if case.look.owner == "refused":
        line = sh("printf", "%s\\n", f"{login} ALL=({owner}) NOPASSWD: ALL")
        # sudo passes over files with a dot in their names.
        granted = as_root(raw(f"{line} > {sh(PurePosixPath('/etc/sudoers.d') / login.replace('.', '_'))}"))
        cure = f"log in as {owner}: -H {owner}@…\nor {granted}"
        return Finding(
            "account", ERROR, f"{login} may not become {owner}, who is to own the site, without a password", cure
        )
    return Finding("account", OK, f"{owner} owns the site" + ("" if owner == login else f", and {login} may become it"))


def _sudo(case: Case) -> Finding:
    word, lines = case.look.sudo
    if word in ("root", "all"):
        return Finding("sudo", OK, "root logs in" if word == "root" else "sudo asks for no password")
    text = {
        "list": f"sudo allows {case.login} a list of commands: {_listed(lines)}",
        "password": "sudo asks for a password",
        "missing": "sudo is not installed",
    }.get(word, f"{case.login} may not use sudo")
    unseen = ["what listens for other accounts"]
    unseen += ["nginx"] if case.settings.nginx.domains else []
    unseen += ["the key of the certificate"] if case.settings.nginx.tls != "none" else []
    return Finding("sudo", NOTE, "\n".join([text, f"not looked at, as it takes root: {', '.join(unseen)}"]))


def _listed(lines: Sequence[str]) -> str:
    if all(f" {FOLDER}/" in line for line in lines):
        return f"{len(lines)} programs in {FOLDER}"
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")


# --- the host ----------------------------------------------------------------


def host(case: Case) -> Iterator[Finding]:
    """The machine, whatever is to run there."""
    facts, look = case.facts, case.look
    known = facts.os in TRIED
    text = facts.os or facts.system
    yield Finding("system", OK if known else NOTE, text if known else f"{text}: tried are {', '.join(TRIED)}")
    yield from _tools(case)
    if facts.python:
        # That there is none is a refusal.
        yield _python(case)
    uv = "is there" if facts.programs.get("uv") else "is not there: it is fetched, or pip installs"
    yield Finding("uv", OK, f"uv {uv}")
    manager = case.settings.manager
    if manager in look.versions:
        yield Finding("manager", OK, f"{manager} {look.versions[manager]}")
    yield from _disk(case)
    yield _memory(case)
    yield from _ports(case)


def clock(case: Case, earliest: float, latest: float) -> Finding:
    """``earliest`` and ``latest`` are the operator's time before and after the host told its own, in seconds since 1970."""
    now = case.look.clock
    behind, ahead = max(0.0, earliest - now), max(0.0, now - latest)
    off = max(behind, ahead)
    if off <= 30:
        return Finding("clock", OK, "the clock is that of this machine")
    amount = f"{off:.0f} s" if off < 120 else f"{off / 60:.0f} min" if off < 7200 else f"{off / 3600:.0f} h"
    text = f"the clock is {amount} {'behind' if behind else 'ahead of'} that of this machine"
    cure = "on the host, as root: apt-get install systemd-timesyncd && timedatectl set-ntp true"
    return Finding("clock", ERROR if off > 86400 else WARNING, text, cure)


_PACKAGES = {"git": "git", "flock": "util-linux", "base64": "coreutils", "timeout": "coreutils"}


def _tools(case: Case) -> Iterator[Finding]:
    missing = [name for name in _PACKAGES if not case.facts.programs.get(name)]
    for name in missing:
        cure = as_root("apt-get", "install", "-y", _PACKAGES[name])
        yield Finding("tools", ERROR, f"{name} is not installed", cure)
    if not missing:
        yield Finding("tools", OK, f"git {case.look.versions.get('git', '')}".rstrip() + ", flock, timeout")


def _python(case: Case) -> Finding:
    try:
        pythons.refuse_unwanted(case.settings, case.facts, case.layout, "", also_django=True)
    except FabdjangoError as error:
        return from_error("python", error)
    return Finding("python", OK, f"Python {case.facts.python.get('version', '')}")


def _disk(case: Case) -> Iterator[Finding]:
    free, size, inodes, all_inodes = case.look.disk
    old = len([name for name, marker in case.facts.releases.items() if marker]) > 1
    cure = (f"{case.fab('prune')}\nor " if old else "") + "make room on the host: df -h, df -i"
    if size:
        text = f"{_size(free)} of {_size(size)} are free"
        severity = ERROR if free < 20 * 1_048_576 else WARNING if free < max(500 * _MB, size // 20) else OK
        yield Finding("disk", severity, text, "" if severity == OK else cure)
    if all_inodes:
        severity = ERROR if inodes < 500 else WARNING if inodes < max(10_000, all_inodes // 20) else OK
        yield Finding(
            "inodes", severity, f"{inodes:,} of {all_inodes:,} inodes are free", "" if severity == OK else cure
        )


def _memory(case: Case) -> Finding:
    free = case.look.memory
    text = f"{_size(free)} of memory and swap can be had"
    if case.settings.slots == "1":
        return Finding("memory", OK, f"{text}, and there is one slot")
    cure = "in fabric.yaml under fabdjango: slots: 1\nor fewer workers: gunicorn: {workers: 2}"
    slot = case.look.slot_memory
    if slot > free:
        return Finding(
            "memory",
            WARNING,
            f"{text}, and the release that serves takes {_size(slot)}: the next one starts beside it",
            cure,
        )
    workers = gunicorn.workers_of(case.settings, case.facts)
    if not slot and free < workers * 60 * _MB:
        return Finding("memory", NOTE, f"{text}, which may be too little for two releases of {workers} workers", cure)
    return Finding("memory", OK, text)


def _ports(case: Case) -> Iterator[Finding]:
    # The same port of another address may be somebody else's: what has a name says more.
    listening = {found.port: found for found in sorted(case.look.ports, key=lambda each: bool(each.holders))}
    for port, whose in ports_of(case.settings, case.layout).items():
        found = listening.get(port)
        if found is None:
            yield _silent(case, port, whose)
        elif not found.holders:
            text = f"a program of {found.user}, whose name only root may see, listens on port {port}"
            yield Finding("ports", NOTE, text)
        elif _is_ours(case, whose, found.holders):
            yield Finding("ports", OK, f"{found.holders[0].name} listens on port {port}")
        else:
            yield _taken(port, whose, found.holders[0])


def _silent(case: Case, port: int, whose: str) -> Finding:
    if case.facts.current and whose == "gunicorn":
        start = case.fab(f"{case.settings.manager}.start")
        return Finding("ports", ERROR, f"nobody listens on port {port}, where the site is to answer", start)
    return Finding("ports", OK, f"nobody listens on port {port}")


def _taken(port: int, whose: str, holder: Holder) -> Finding:
    end = as_root("systemctl", "disable", "--now", holder.unit) if holder.unit else as_root("kill", holder.pid)
    other = (
        f"\nor in fabric.yaml under fabdjango: gunicorn: {{bind: 127.0.0.1:{port + 1}}}" if whose == "gunicorn" else ""
    )
    text = f"{holder.name} (process {holder.pid}) listens on port {port}, which is for {whose}"
    return Finding("ports", ERROR, text, end + other)


def _is_ours(case: Case, whose: str, holders: Iterable[Holder]) -> bool:
    names = {each.name for each in holders}
    if whose == "nginx":
        return "nginx" in names
    root = f"{case.layout.root}/"
    if any(f"{each.folder}/".startswith(root) for each in holders):
        return True
    # A socket that the process manager holds for the site, whose slots may all be empty.
    return bool(case.facts.current) and bool(names & {"systemd", "supervisord"})
