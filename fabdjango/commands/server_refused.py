"""What setup refuses: a server that it would not leave in order, or on which it would step on what others made."""

from __future__ import annotations

from pathlib import PurePosixPath

from fabdjango.commands import nginx
from fabdjango.commands.server_found import FOLDERS, Found, Situation, wants_nginx
from fabdjango.escape import sh
from fabdjango.exceptions import FabdjangoError
from fabdjango.plan import ROOT
from fabdjango.settings import Settings

__all__ = ["refuse", "refuse_full_disk"]

DISTRIBUTIONS = (("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04"))
"""What setup has been made for; id and version as in os-release."""
_SUPPORTED = "Debian 12 and 13, Ubuntu 22.04 and 24.04"
_INODES = 20_000
"""What the packages and a first release take, with room to spare."""


def refuse(it: Situation) -> None:
    """Raise FabdjangoError for a server that setup does not touch, with the cure."""
    _refuse_system(it.found, it.host)
    _refuse_account(it)
    _refuse_folders(it)
    if wants_nginx(it.settings):
        _refuse_listeners(it)
        nginx.refuse_foreign(it.settings, it.layout, it.expected, it.host)
        nginx.refuse_unreachable(it.expected, it.host)
    for name, path in it.found.taken.items():
        setting = "nginx.domains" if name.startswith("domain") else f"project than {it.settings.project}"
        raise FabdjangoError(
            f"the {name} is taken on the host, by {path}",
            host=it.host,
            cure=f"take it out of there, or choose another fabdjango.{setting}",
        )


def _refuse_system(found: Found, host: str) -> None:
    if found.privilege != "root":
        raise FabdjangoError(
            "setup needs root: the account that logs in is not root, and sudo is not installed on the host",
            host=host,
            cure=f"log in as root: fab -H root@{host} setup",
        )
    if found.system[:2] not in DISTRIBUTIONS:
        name = found.system[2] or " ".join(found.system[:2]).strip() or "an unknown distribution"
        raise FabdjangoError(
            f"the host runs {name}, and setup is for {_SUPPORTED}",
            host=host,
            cure="prepare it by hand, see the README; a deploy works on any Linux that has what it needs",
        )


def _refuse_account(it: Situation) -> None:
    if it.found.app and it.found.app["uid"] == 0:
        raise FabdjangoError(
            f"the account {it.settings.run_as} is root by another name",
            host=it.host,
            cure="choose another fabdjango.run_as",
        )
    if it.owner == ROOT:
        raise FabdjangoError(
            "fabdjango.user is root, and setup gives the site an account of its own",
            host=it.host,
            cure="in fabric.yaml:  fabdjango: user: deploy",
        )
    account = it.found.account
    if account is None:
        if "account" in it.settings.server.skip:
            raise FabdjangoError(
                f"the account {it.owner} is not there, and fabdjango.server.skip leaves it to you",
                host=it.host,
                cure=f"as root: {sh('adduser', '--disabled-password', '--gecos', '', it.owner)}",
            )
        return
    home = it.found.folders.get(it.found.home)
    shell = PurePosixPath(account["shell"]).name
    if account["uid"] == 0:
        why = "is root by another name"
    elif it.found.home in ("/", "/root", "/nonexistent") or (home and not home["folder"]):
        why = f"has the home {it.found.home}"
    elif home and home["owner"] not in (it.owner, *([ROOT] if home["empty"] else [])):
        why = f"has the home {it.found.home}, which belongs to {home['owner']}"
    elif shell in ("nologin", "false", "sync"):
        why = f"may not log in: its shell is {account['shell']}"
    else:
        return
    raise FabdjangoError(
        f"the account {it.owner} is there and {why}", host=it.host, cure="choose another one as fabdjango.user"
    )


def _refuse_folders(it: Situation) -> None:
    for path in (it.layout.root, *(it.layout.root / name for name in FOLDERS)):
        found = it.found.folders.get(str(path))
        if found and not found["folder"]:
            raise FabdjangoError(f"{path} is there and is no folder", host=it.host, cure="move it away")
        may = (it.owner, ROOT) if path == it.layout.root else (it.owner,)
        if found and found["owner"] not in may:
            raise FabdjangoError(
                f"{path} belongs to {found['owner']}, and the site is {it.owner}'s",
                host=it.host,
                cure=f"as root: {sh('chown', '-R', f'{it.owner}:', it.layout.root)}\nor choose another fabdjango.root",
            )

    above = it.found.folders.get(it.found.above)
    if above and above["owner"] not in (it.owner, ROOT) and not it.found.folders.get(str(it.layout.root)):
        raise FabdjangoError(
            f"{it.found.above} belongs to {above['owner']}, so setup makes no folder for {it.owner} there",
            host=it.host,
            cure=f"make it by hand, as root: {sh('install', '-d', '-o', it.owner, '--', it.layout.root)}\n"
            "or choose another fabdjango.root",
        )


def _refuse_listeners(it: Situation) -> None:
    ports = (80,) if it.settings.nginx.tls == "none" else (80, 443)
    for port, program, pid, _ in it.found.listeners:
        if port in ports and program != "nginx":
            raise FabdjangoError(
                f"port {port} is taken by {program or 'a program that cannot be named'} (process {pid}), "
                "and nginx is to listen there",
                host=it.host,
                cure="if nobody needs what it serves, stop it for good; on the host, as root, for instance: "
                f"systemctl disable --now {program or 'UNIT'}\n"
                "or let it serve the site: leave fabdjango.nginx.domains empty, and proxy from it to fabdjango.gunicorn.bind",
            )


def refuse_full_disk(settings: Settings, found: Found, host: str) -> None:
    """Raise FabdjangoError where there is not enough room for what is to be installed."""
    for path, (megabytes, inodes) in found.room.items():
        if megabytes < settings.server.disk:
            raise FabdjangoError(
                f"the disk of {path} is too small: {megabytes} MB are free, and {settings.server.disk} are wanted",
                host=host,
                cure="make room (df -h), or ask for less: fabdjango.server.disk",
            )
        if 0 <= inodes < _INODES:
            raise FabdjangoError(
                f"the file system of {path} has {inodes} inodes left, and {_INODES} are wanted",
                host=host,
                cure="remove small files; df -i shows where",
            )
