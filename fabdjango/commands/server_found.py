"""What is found on a server, and what a site wants of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from fabdjango import onhost
from fabdjango.commands import certificates, database, firewall, managers, sudoers
from fabdjango.commands.manager import Manager
from fabdjango.commands.nginx import Webserver
from fabdjango.escape import raw
from fabdjango.facts import Facts, json_line
from fabdjango.layout import Layout
from fabdjango.plan import LOGIN, ROOT, Phase, Step
from fabdjango.privileged import FOLDER
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = [
    "FOLDERS",
    "TIMERS",
    "UPDATES",
    "Found",
    "Situation",
    "as_login",
    "facts_of",
    "logrotate_file",
    "look",
    "read_look",
    "serves_as_root",
    "wanted_packages",
    "wants_nginx",
    "webserver_of",
]

FOLDERS = ("releases", "venvs", "shared", "run")
"""What a deploy finds below the root."""
UPDATES = PurePosixPath("/etc/apt/apt.conf.d/52fabdjango-updates")
"""Read after Debian's own, so that it wins."""
TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")
"""What updates a host every day."""


@dataclass(frozen=True)
class Found:
    """
    What was found on a server.

    ``privilege`` is root, or else how sudo is: ``password`` or ``none``; then nothing else was asked. ``system`` is id,
    version and name of the distribution. ``packages`` has the installed versions of those that were asked for.
    ``folders`` and ``files`` have None for what is not there. ``listeners`` are port, program, process id, and whether
    the port is for this host only. ``services`` have ActiveState, UnitFileState and whether systemd must read them again.
    ``taken`` are names of ours in files of others. ``app`` is the account of fabdjango.run_as, with whether the owner
    is a ``member`` of its group, ``root_programs`` are paths and digests of what the owner may run as root.
    """

    privilege: str = ""
    system: tuple[str, ...] = ("", "", "")
    systemd: bool = False
    root: str = ""
    home: str = ""
    above: str = ""
    account: Mapping[str, Any] | None = None
    app: Mapping[str, Any] | None = None
    keys: tuple[str, ...] = ()
    keys_of_login: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False
    files: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict, repr=False)
    root_programs: Mapping[str, str] = field(default_factory=dict, repr=False)
    folders: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    services: Mapping[str, list[Any]] = field(default_factory=dict)
    listeners: tuple[tuple[int, str, int, bool], ...] = ()
    ssh_ports: tuple[int, ...] = ()
    room: Mapping[str, list[int]] = field(default_factory=dict)
    ipv6: bool = True
    addresses: tuple[str, ...] = ()
    python: str = ""
    python_version: tuple[int, ...] = ()
    uv: str = ""
    own_supervisord: tuple[bool, ...] = (False, False)
    ufw: str = ""
    table: bool = False
    taken: Mapping[str, str] = field(default_factory=dict)

    def text(self, path: PurePosixPath | str) -> str | None:
        """The text of a file, or None if it is not there."""
        found = self.files.get(str(path))
        return found["text"] if found else None

    def runs(self, *units: str) -> bool:
        """True if units run and come back when the host boots."""
        return all(self.services.get(unit, ["", ""])[:2] == ["active", "enabled"] for unit in units)


# Sets as_root to the words before a program that is to run as root, or says how sudo is and ends. Which port the
# session came to is told, as sudo keeps none of its variables.
_AS_ROOT = """port=${SSH_CONNECTION##* }; case $port in ''|*[!0-9]*) port=0;; esac
command -v python3 >/dev/null || refuse 'python3 is not installed on the host'
if [ "$(id -u)" = 0 ]; then as_root="env FABDJANGO_PORT=$port"
elif ! command -v sudo >/dev/null; then echo '{"privilege": "none"}'; exit 0
elif sudo -n true 2>/dev/null; then as_root="sudo -n -H env FABDJANGO_PORT=$port"
else echo '{"privilege": "password"}'; exit 0
fi"""


def as_login(step: Step) -> Step:
    """A step that looks, done by the account that logs in: as root where it needs that, if sudo lets it without a password."""
    if step.user != ROOT:
        # The account that owns the site may not be there yet.
        return replace(step, user=LOGIN)
    return replace(step, user=LOGIN, body=raw(_AS_ROOT), interpreter=raw("$as_root python3 -I -S"))


def look(settings: Settings, layout: Layout, owner: str) -> Step:
    """What there is of all that setup sees to, beside nginx and its certificate; its output is for read_look."""
    return Step(
        "server-look",
        "look at the server",
        user=ROOT,
        program=onhost.source("server_look"),
        parameters={
            "owner": owner,
            "run_as": settings.run_as,
            "programs_of_root": str(FOLDER),
            "root": str(layout.root),
            "folders": FOLDERS,
            "python": settings.python,
            "packages": wanted_packages(settings),
            "files": [str(path) for path in _files(settings, layout)],
            "services": [
                *("nginx.service", *managers.services(settings, layout)),
                *(firewall.UNIT.name, firewall.REVERT, *TIMERS),
            ],
            "programs": managers.program_names(settings, layout),
            "units": [path.name for path in managers.places(settings, layout) if path.suffix != ".conf"],
            "domains": list(settings.nginx.domains) if wants_nginx(settings) else [],
            "site": f"{settings.project}.conf",
        },
        capture=True,
        cure="on the host, as root: apt-get install python3",
    )


def _files(settings: Settings, layout: Layout) -> tuple[PurePosixPath, ...]:
    """Every file that setup would write; that of an nginx that is there already is found by nginx.look."""
    return (
        PurePosixPath("~/.ssh/authorized_keys"),
        *managers.places(settings, layout),
        *(sudoers.rules_path(settings.project), _site_file(settings), logrotate_file(settings)),
        *(firewall.RULES, firewall.UNIT, UPDATES),
    )


def read_look(output: str) -> Found:
    """The line of JSON of ``look``; raises FabdjangoError if it is not there."""
    known = {item.name: str(item.type) for item in dataclasses.fields(Found)}
    found: dict[str, Any] = {
        name: _tuples(value) if known[name].startswith("tuple") else value
        for name, value in json_line(output, "look at the server").items()
        if name in known
    }
    return Found(**found)


def _tuples(value: list[Any]) -> tuple[Any, ...]:
    return tuple(_tuples(each) if isinstance(each, list) else each for each in value)


def facts_of(settings: Settings, found: Found, owner: str) -> Facts:
    """What a survey will find once the packages are there, as far as program files and virtualenvs depend on it."""
    to_come = () if "packages" in settings.server.skip else wanted_packages(settings)
    supervisor = "supervisor" in found.packages or "supervisor" in to_come
    names = ("supervisord", "supervisorctl") if supervisor else ()
    return Facts(
        user=owner,
        home=found.home,
        root=found.root,
        programs={**{name: f"/usr/bin/{name}" for name in names}, "uv": found.uv},
        sudo=True,
        systemd=found.systemd,
        python={"path": found.python} if found.python else {},
        supervisor_conf_d=supervisor,
        own_supervisord=found.own_supervisord[0],
        own_supervisord_installed=found.own_supervisord[1],
        managed={path: each for path, each in found.files.items() if each},
    )


def webserver_of(settings: Settings, webserver: Webserver, found: Found) -> Webserver:
    """Nginx as it was found, or as Debian's package will bring it."""
    # One that is unpacked and not configured is there, and has no configuration.
    is_there = webserver.program and (webserver.folder or "nginx" in found.packages)
    if is_there or not wants_nginx(settings) or "packages" in settings.server.skip:
        return webserver
    path = _site_file(settings)
    return replace(
        webserver,
        program="",
        test="",
        root=found.root,
        user="www-data",
        folder=str(_ENABLED),
        file_path=str(path),
        link_path=str(_ENABLED / path.name),
        text=found.text(path),
        ipv6=found.ipv6,
    )


_ENABLED = PurePosixPath("/etc/nginx/sites-enabled")


def _site_file(settings: Settings) -> PurePosixPath:
    """Where Debian's nginx has a site."""
    return PurePosixPath("/etc/nginx/sites-available") / f"{settings.project}.conf"


def logrotate_file(settings: Settings) -> PurePosixPath:
    """Where logrotate reads of the site's logs."""
    # logrotate passes over names with a dot and some endings, which a project's name does not have.
    return PurePosixPath("/etc/logrotate.d") / f"fabdjango-{settings.project}"


# --- what is wanted ----------------------------------------------------------


def wants_nginx(settings: Settings) -> bool:
    """True if setup sees to nginx, and so to port 80."""
    return bool(settings.nginx.domains) and "nginx" not in settings.server.skip


def serves_as_root(settings: Settings) -> bool:
    """True if root's own supervisor or systemd runs the site's programs."""
    return settings.manager == "systemd" or settings.supervisor.level in ("auto", "system")


def _wants_supervisor(settings: Settings) -> bool:
    return settings.manager == "supervisor" and settings.supervisor.level != "virtualenv"


def wanted_packages(settings: Settings) -> tuple[str, ...]:
    """The Debian packages that a site with these settings needs on its host."""
    own = settings.server
    of_parts: dict[str, tuple[str, ...]] = {
        "nginx": ("nginx",) if settings.nginx.domains else (),
        "tls": certificates.packages(settings) if wants_nginx(settings) else (),
        "programs": ("supervisor", *(["cron"] if settings.schedule else [])) if _wants_supervisor(settings) else (),
        "sudoers": ("sudo",) if serves_as_root(settings) else (),
        "logs": ("logrotate",),
        "database": database.packages(settings),
        "firewall": (own.firewall,) if own.firewall != "none" else (),
        "updates": ("unattended-upgrades",) if own.updates else (),
    }
    names = ["git", "python3-venv", "ca-certificates"]
    names += [name for part, found in of_parts.items() if part not in own.skip for name in found]
    return tuple(dict.fromkeys([*names, *own.packages]))


# --- everything that decisions take --------------------------------------------


@dataclass(frozen=True)
class Situation:
    """
    Everything that decisions take.

    ``layout`` has the home directory filled in, ``keys`` are lines of authorized_keys, ``webserver`` is nginx as it is
    or will be, ``serving`` what brings it to the site's file and certificate, or None if it is so already. ``lacking``
    is what is still to be done of the database, in words.
    """

    settings: Settings
    layout: Layout
    templates: Templates
    owner: str
    found: Found
    webserver: Webserver = field(default_factory=Webserver)
    certificate: certificates.Found = field(default_factory=certificates.Found)
    serving: Phase | None = None
    lacking: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    host: str = ""

    @property
    def facts(self) -> Facts:
        """What a survey will find."""
        return facts_of(self.settings, self.found, self.owner)

    @property
    def manager(self) -> Manager:
        """The site's process manager."""
        return managers.find(self.settings, self.facts, self.layout, self.templates, self.host)

    @property
    def has_own_supervisord(self) -> bool:
        """True where a supervisord of the owner's own runs the site already."""
        return self.settings.supervisor.level == "auto" and self.found.own_supervisord[0]

    @property
    def in_home(self) -> bool:
        """True if the site is below its owner's home."""
        return self.layout.root.is_relative_to(self.found.home)

    @property
    def opens_home(self) -> bool:
        """True if nginx may not pass through the home that the site is in, which is usual."""
        home = self.found.folders.get(self.found.home)
        return wants_nginx(self.settings) and self.in_home and not (home and home["mode"] & 0o001)

    @property
    def group(self) -> str:
        """The group of the account that owns the site."""
        return str(self.found.account["group"]) if self.found.account else self.owner

    @property
    def expected(self) -> Webserver:
        """Nginx as it will be when its turn comes: installed, and let through to the site."""
        server, passed = self.webserver, self.found.home if self.opens_home else ""
        to_come = "" if "packages" in self.settings.server.skip else "nginx"
        blocked = tuple(path for path in server.blocked if path != passed)
        return replace(server, program=server.program or to_come, blocked=blocked)
