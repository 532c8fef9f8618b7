"""The steps of setup: packages, the account, folders, services."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from fabdjango.commands.server_found import Found, Situation
from fabdjango.escape import Shell, block, otherwise, quote, quote_path, raw, sh, when
from fabdjango.layout import Layout
from fabdjango.plan import ROOT, Put, Step

__all__ = [
    "authorize",
    "enable_service",
    "install_packages",
    "make_account",
    "make_app_account",
    "make_folders",
    "make_root",
    "open_home",
    "rotate_logs",
    "update_daily",
]

_APT_WAIT = 300
"""Seconds that another apt may take; a server that was just made installs updates first."""
# Nothing asks, nothing that runs is restarted because a library changed, and what somebody changed in /etc stays.
_QUIET = """export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l UCF_FORCE_CONFFOLD=1"""
# What dpkg does goes on if the link breaks: its output is a file, which is shown meanwhile, and our lock is not for it.
# Not everything of apt can wait for another apt by itself.
_PATIENTLY = f"""log=$(mktemp)
run() {{ : >"$log"; "$@" >>"$log" 2>&1 9>&- & pid=$!; tail -n +1 -f -s 0.2 --pid=$pid -- "$log"; wait $pid; }}
patiently() {{
  n=0; until run "$@"; do
    grep -q -e 'Could not get lock' -e 'was locked by' -- "$log" && [ $n -lt {_APT_WAIT // 5} ] || exit 1
    n=$((n + 1)); sleep 5
  done
}}"""
_KEEP = ("--force-confdef", "--force-confold")


def install_packages(names: Iterable[str]) -> Step:
    """``packages``: what dpkg was interrupted in is finished, then these are installed; another apt is waited for."""
    missing = list(names)
    apt = ["patiently", "apt-get", "-q", "-y", *(word for each in _KEEP for word in ("-o", f"Dpkg::Options::={each}"))]
    install = block(
        sh(*apt, "update"),
        # Rather refuse than remove what somebody else needs.
        sh(*apt, "--no-install-recommends", "--no-remove", "install", "--", *missing),
    )
    finish = sh("patiently", "dpkg", "--configure", "-a", *_KEEP)
    return Step(
        "packages",
        f"install {', '.join(missing)}" if missing else "finish what dpkg was interrupted in",
        block(raw(_QUIET), raw(_PATIENTLY), finish, install if missing else raw(""), raw('rm -f -- "$log"')),
        user=ROOT,
        cure="on the host, as root: apt-get update, and see what apt says",
    )


def make_account(name: str, home: str) -> Step:
    """``account``: the account with a home and a login shell; no password opens it."""
    path = quote_path(PurePosixPath(home))
    own_home = ("--create-home", "--home-dir", home, "--key", "HOME_MODE=0750", "--shell", "/bin/bash")
    return Step(
        "account",
        f"make the account {name}",
        block(
            _add(name, "Deploys Django sites", *own_home, "--password", "*"),
            raw(
                f'[ "$(stat -c %U -- {path} 2>/dev/null)" = {quote(name)} ] || '
                f'install -d -o {quote(name)} -g "$(id -gn -- {quote(name)})" -m 750 -- {path}'
            ),
        ),
        user=ROOT,
    )


def make_app_account(name: str, owner: str) -> Step:
    """``application``: the account that runs the application, which nobody logs in to; the owner is in its group."""
    nowhere = ("--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
    return Step(
        "application",
        f"make the account {name}, and {owner} a member of its group",
        block(
            _add(name, "Runs a Django site", *nowhere),
            raw(f'usermod --append --groups "$(id -gn -- {quote(name)})" -- {quote(owner)}'),
        ),
        user=ROOT,
    )


def _add(name: str, comment: str, *words: str) -> Shell:
    add = block(
        # A group of that name may be there already.
        otherwise(
            raw(f"getent group {quote(name)} >/dev/null"), sh("set", "--", "--gid", name), raw("set -- --user-group")
        ),
        raw(f'useradd {sh(*words, "--comment", comment)} "$@" -- {quote(name)}'),
    )
    return when(raw(f"! getent passwd {quote(name)} >/dev/null"), add)


def authorize(name: str, found: Found, lines: Iterable[str]) -> Step:
    """``keys``: more lines in the account's authorized_keys; those that are there stay."""
    path = PurePosixPath(found.home) / ".ssh" / "authorized_keys"
    before = found.text(path) or ""
    text = before + ("" if before.endswith("\n") or not before else "\n") + "".join(f"{line}\n" for line in lines)
    return Step(
        "keys",
        f"let keys log in as {name}",
        sh("chmod", "700", "--", path.parent),
        user=name,
        puts=(Put(path, text, 0o600),),
    )


def make_root(it: Situation) -> Step:
    """``root``: the site's folder; below a folder of the owner's, the owner makes it: root must not follow a link there."""
    path = it.layout.root
    above = it.found.folders.get(it.found.above) or {}
    if it.in_home or above.get("owner") == it.owner:
        return Step("root", f"make {path}", sh("mkdir", "-p", "--", path), user=it.owner)
    return Step(
        "root",
        f"make {path}",
        otherwise(
            raw(f"[ -d {quote_path(path)} ]"),
            sh("chown", f"{it.owner}:{it.group}", "--", path),
            sh("install", "-d", "-o", it.owner, "-g", it.group, "-m", "755", "--", path),
        ),
        user=ROOT,
    )


def make_folders(owner: str, layout: Layout, names: Iterable[str]) -> Step:
    """``folders``: those that a deploy fills."""
    return Step(
        "folders",
        f"make folders in {layout.root}",
        sh("mkdir", "-p", "--", *(layout.root / name for name in names)),
        user=owner,
    )


def open_home(owner: str, home: str) -> Step:
    """``home``: others may pass through the home, and still not list it."""
    return Step("home", f"let nginx pass through {home}", sh("chmod", "o+x", "--", PurePosixPath(home)), user=owner)


def enable_service(name: str) -> Step:
    """``enable-NAME``: Debian's service runs, now and whenever the host boots."""
    return Step(
        f"enable-{name}",
        f"{name} runs, also when the host boots",
        sh("systemctl", "enable", "--quiet", "--now", "--", f"{name}.service"),
        user=ROOT,
        cure=f"see: journalctl -u {name} -n 30",
    )


def rotate_logs(put: Put) -> Step:
    """``logs``: the file for logrotate, read by it."""
    body = raw(f'out=$({sh("logrotate", "--debug", "--state", "/dev/null", put.path)} 2>&1) || refuse "$out"')
    return Step("logs", f"write {put.path}", body, user=ROOT, puts=(put,))


def update_daily(put: Put, timers: Iterable[str]) -> Step:
    """``updates``: security updates every day, by Debian's own timers."""
    return Step(
        "updates",
        "security updates install themselves",
        block(*(sh("systemctl", "enable", "--quiet", "--now", "--", unit) for unit in timers)),
        user=ROOT,
        puts=(put,),
    )
