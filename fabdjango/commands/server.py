"""A server from what a hosting company hands over to what deploys need: what is there, what changes, and the steps."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from fabdjango import onhost
from fabdjango.commands import firewall, managers, nginx, venv
from fabdjango.commands.manager import MARK, Manager, mark_of
from fabdjango.commands.nginx import Webserver
from fabdjango.escape import block, logrotate_path, otherwise, quote, quote_path, raw, sh, when
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import ROOT, Lock, Phase, Put, Step
from fabdjango.render import Templates
from fabdjango.settings import PARTS, Settings

__all__ = [
    "Found",
    "Part",
    "Situation",
    "base",
    "decide",
    "facts_of",
    "look",
    "on_site",
    "python_note",
    "read_keys",
    "read_look",
    "refuse",
    "setup_lock",
    "wanted_packages",
    "webserver_of",
]

DISTRIBUTIONS = (("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04"))
"""What setup has been made for; id and version as in os-release."""
_SUPPORTED = "Debian 12 and 13, Ubuntu 22.04 and 24.04"
_FOLDERS = ("releases", "venvs", "shared", "run")
_INODES = 20_000
"""What the packages and a first release take, with room to spare."""
_APT_WAIT = 300
"""Seconds that another apt may take; a server that was just made installs updates first."""
_COMMENT = "Deploys Django sites"


# --- what there is -----------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """
    What was found on a server.

    ``privilege`` is root, or else how sudo is: ``password`` or ``none``; then nothing else was asked. ``system`` is id,
    version and name of the distribution. ``packages`` has the installed versions of those that were asked for.
    ``folders`` and ``files`` have None for what is not there. ``listeners`` are port, program, process id, and whether
    the port is for this host only. ``services`` have ActiveState, UnitFileState and whether systemd must read them again.
    ``taken`` are names of ours in files of others.
    """

    privilege: str = ""
    system: tuple[str, ...] = ("", "", "")
    systemd: bool = False
    root: str = ""
    home: str = ""
    above: str = ""
    account: Mapping[str, Any] | None = None
    keys: tuple[str, ...] = ()
    keys_of_login: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False
    files: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict, repr=False)
    folders: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    services: Mapping[str, list[Any]] = field(default_factory=dict)
    listeners: tuple[tuple[int, str, int, bool], ...] = ()
    ssh_ports: tuple[int, ...] = ()
    room: Mapping[str, list[int]] = field(default_factory=dict)
    ipv6: bool = True
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


def look(settings: Settings, layout: Layout, owner: str, login: str) -> Phase:
    """What there is of all that setup sees to; only reads. Its outputs are for read_look and nginx.read_look."""
    steps = [_see(settings, layout, owner)]
    if _wants_nginx(settings):
        steps += [nginx.look(settings, layout, owner), nginx.ask_running(settings)]
    elevated = [
        replace(step, user=login, body=raw(_AS_ROOT), interpreter=raw("$as_root python3")) for step in steps[:2]
    ]
    # The account that owns the site may not be there yet.
    return Phase("look", (*elevated, *(replace(step, user=login) for step in steps[2:])), reads_only=True)


def _see(settings: Settings, layout: Layout, owner: str) -> Step:
    return Step(
        "server-look",
        "look at the server",
        program=onhost.source("server_look"),
        parameters={
            "owner": owner,
            "root": str(layout.root),
            "folders": _FOLDERS,
            "python": settings.python,
            "packages": wanted_packages(settings),
            "files": [str(path) for path in _files(settings, layout)],
            "services": [
                *("nginx.service", *managers.services(settings, layout)),
                *(firewall.UNIT.name, firewall.REVERT, *_TIMERS),
            ],
            "programs": managers.program_names(settings, layout),
            "units": [path.name for path in managers.places(settings, layout) if path.suffix != ".conf"],
            "domains": list(settings.nginx.domains) if _wants_nginx(settings) else [],
            "site": f"{settings.project}.conf",
        },
        capture=True,
        cure="on the host, as root: apt-get install python3",
    )


def _files(settings: Settings, layout: Layout) -> tuple[PurePosixPath, ...]:
    """Every file that setup would write, but for nginx's, which is looked for by nginx.look."""
    return (
        PurePosixPath("~/.ssh/authorized_keys"),
        *managers.places(settings, layout),
        *(_logrotate(settings), firewall.RULES, firewall.UNIT, _UPDATES),
    )


def read_look(output: str) -> Found:
    """The line of JSON of ``look``; raises FabdjangoError if it is not there."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            values = json.loads(line)
            known = {item.name: str(item.type) for item in dataclasses.fields(Found)}
            found: dict[str, Any] = {
                name: _tuples(value) if known[name].startswith("tuple") else value
                for name, value in values.items()
                if name in known
            }
            return Found(**found)
    raise FabdjangoError("the look at the server did not give an answer that can be read", output=output[-2000:])


def _tuples(value: list[Any]) -> tuple[Any, ...]:
    return tuple(_tuples(each) if isinstance(each, list) else each for each in value)


def facts_of(settings: Settings, found: Found, owner: str) -> Facts:
    """What a survey will find once the packages are there, as far as program files and virtualenvs depend on it."""
    supervisor = "supervisor" in found.packages or "supervisor" in wanted_packages(settings)
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
    if webserver.program or not _wants_nginx(settings):
        return webserver
    name = f"{settings.project}.conf"
    return replace(
        webserver,
        root=found.root,
        user="www-data",
        folder="/etc/nginx/sites-enabled",
        file_path=f"/etc/nginx/sites-available/{name}",
        link_path=f"/etc/nginx/sites-enabled/{name}",
        ipv6=found.ipv6,
    )


# --- what is wanted ----------------------------------------------------------


def _wants_nginx(settings: Settings) -> bool:
    return bool(settings.nginx.domains) and "nginx" not in settings.server.skip


def _wants_supervisor(settings: Settings) -> bool:
    return (
        settings.manager == "supervisor"
        and settings.supervisor.level != "virtualenv"
        and "programs" not in settings.server.skip
    )


def wanted_packages(settings: Settings) -> tuple[str, ...]:
    """The Debian packages that a site with these settings needs on its host."""
    names = ["git", "python3-venv", "ca-certificates"]
    names += ["nginx"] if _wants_nginx(settings) else []
    names += ["supervisor"] if _wants_supervisor(settings) else []
    names += ["logrotate"] if "logs" not in settings.server.skip else []
    if settings.server.firewall != "none" and "firewall" not in settings.server.skip:
        names.append(settings.server.firewall)
    if settings.server.updates and "updates" not in settings.server.skip:
        names.append("unattended-upgrades")
    return tuple(dict.fromkeys([*names, *settings.server.packages]))


_KEY = re.compile(r"(?:^|[\s,])((?:ssh|ecdsa|sk)-[a-z0-9@.-]+)\s+(AAAA[A-Za-z0-9+/]+=*)(?:\s+(.*))?$")


def read_keys(text: str, name: str) -> tuple[str, ...]:
    """The lines of a public key file; a ConfigError that names the file if one is no public key."""
    if "PRIVATE KEY-----" in text:
        raise ConfigError(
            f"fabdjango.server.keys names {name}, which is a private key", cure=f"name the public one: {name}.pub"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    for number, line in enumerate(lines, 1):
        if not _KEY.search(line):
            raise ConfigError(
                f"fabdjango.server.keys: key {number} of {name} is not a public key",
                cure="a line looks like: ssh-ed25519 AAAA… ada@laptop",
            )
    return tuple(lines)


# --- what is refused ---------------------------------------------------------


def refuse(it: Situation) -> None:
    """Raise FabdjangoError for a server that setup does not touch, with the cure."""
    _refuse_system(it.found, it.host)
    _refuse_account(it)
    _refuse_folders(it)
    if _wants_nginx(it.settings):
        _refuse_listeners(it)
        if it.webserver.program:
            nginx.refuse_foreign(it.settings, it.layout, it.webserver, it.host)
        nginx.refuse_unreachable(replace(it.webserver, blocked=_blocked(it)), it.host)
    for name, path in it.found.taken.items():
        raise FabdjangoError(
            f"the host has a {name} already, in {path}, which was not written by fabdjango",
            host=it.host,
            cure=f"move it away, or choose another fabdjango.project than {it.settings.project}",
        )


def _refuse_system(found: Found, host: str) -> None:
    if found.privilege != "root":
        raise FabdjangoError(
            "setup needs root, and the account that logs in may not become root",
            host=host,
            cure="log in as root, or as an account with sudo: fab -H root@… setup",
        )
    if found.system[:2] not in DISTRIBUTIONS:
        name = found.system[2] or " ".join(found.system[:2]).strip() or "an unknown distribution"
        raise FabdjangoError(
            f"the host runs {name}, and setup is for {_SUPPORTED}",
            host=host,
            cure="prepare it by hand, see the README; a deploy works on any Linux that has what it needs",
        )


def _refuse_account(it: Situation) -> None:
    if it.owner == ROOT:
        raise FabdjangoError(
            "fabdjango.user is root, and setup gives the site an account of its own",
            host=it.host,
            cure="in fabric.yaml:  fabdjango: user: deploy",
        )
    account = it.found.account
    if account is None:
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
    for path in (it.layout.root, *(it.layout.root / name for name in _FOLDERS)):
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
                cure=f"stop it for good, for instance: systemctl disable --now {program}\n"
                "or do without nginx: leave fabdjango.nginx.domains empty",
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


# --- what is decided ---------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """
    Everything that decisions take.

    ``layout`` has the home directory filled in, ``keys`` are lines of authorized_keys, ``webserver`` is nginx as it is
    or will be, ``running`` the digest that it names.
    """

    settings: Settings
    layout: Layout
    templates: Templates
    owner: str
    found: Found
    webserver: Webserver = field(default_factory=Webserver)
    running: str = ""
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


@dataclass(frozen=True)
class Part:
    """
    What is there of one part of a server, and what changes.

    ``there`` is a sentence or empty, ``changes`` are sentences of what ``steps`` will do; without them the part is as
    it should be. ``left_out`` says why it is not seen to. One that is not ``certain`` may come to nothing without
    that being an error.
    """

    name: str
    there: str = ""
    changes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    left_out: str = ""
    certain: bool = True


def decide(it: Situation) -> tuple[Part, ...]:
    """What is there and what will change, part by part in the order of setup; raises what ``refuse`` does."""
    refuse(it)
    parts = []
    for name in PARTS:
        build = _BUILDERS[name]
        if name in it.settings.server.skip:
            parts.append(Part(name, left_out="it is done by hand: fabdjango.server.skip"))
        elif part := build(it):
            parts.append(part)
    if any(part.changes for part in parts):
        refuse_full_disk(it.settings, it.found, it.host)
    return tuple(parts)


def _packages(it: Situation) -> Part:
    wanted = [name for name in wanted_packages(it.settings) if not (name == "supervisor" and _has_own(it))]
    missing = [name for name in wanted if name not in it.found.packages]
    there = ", ".join(name for name in wanted if name in it.found.packages)
    changes = [f"install {', '.join(missing)}"] if missing else []
    if it.found.interrupted:
        changes.insert(0, "finish what dpkg was interrupted in")
    return Part("packages", there, tuple(changes), (install_packages(missing),) if changes else ())


def _has_own(it: Situation) -> bool:
    """True where a supervisord of the owner's own runs the site already."""
    return it.settings.supervisor.level == "auto" and it.found.own_supervisord[0]


def _account(it: Situation) -> Part:
    found, owner = it.found, it.owner
    home = found.folders.get(found.home)
    missing = _missing_keys(it)
    named = ", ".join(_name_of_key(line) for line in missing)
    changes, steps = [], []
    if found.account is None:
        changes.append(f"make the account {owner}, at home in {found.home}, without a password")
    elif home is None or home["owner"] != owner:
        changes.append(f"make the home {found.home}")
    if changes:
        steps.append(make_account(owner, found.home))
    if missing:
        changes.append(f"let {len(missing)} more key{'s' * (len(missing) > 1)} log in as {owner}: {named}")
        steps.append(authorize(owner, found, missing))
    keys = len([line for line in found.keys if not line.startswith("#")])
    there = f"{owner}, with {keys} key{'s' * (keys != 1)}" if found.account else ""
    return Part("account", there, tuple(changes), tuple(steps))


def _missing_keys(it: Situation) -> list[str]:
    wanted = it.keys or tuple(line for line in it.found.keys_of_login if not line.startswith("#"))
    known = {_blob(line) for line in it.found.keys}
    return list({_blob(line): line for line in wanted if _blob(line) not in known}.values())


def _blob(line: str) -> str:
    """What makes two lines the same key, whatever their options and comments say."""
    found = _KEY.search(line)
    return found[2] if found else line


def _name_of_key(line: str) -> str:
    found = _KEY.search(line)
    return (found[3] if found and found[3] else line[-16:]).strip()


def _folders(it: Situation) -> Part:
    layout, found = it.layout, it.found
    missing = [name for name in _FOLDERS if not found.folders.get(str(layout.root / name))]
    top = found.folders.get(str(layout.root))
    changes, steps = [], []
    if not top or top["owner"] != it.owner:
        changes.append(f"{'give' if top else 'make'} {layout.root} {'to' if top else 'for'} {it.owner}")
        steps.append(make_root(it))
    if missing:
        changes.append(f"make {', '.join(missing)} in {layout.root}")
        steps.append(make_folders(it.owner, layout, missing))
    if _opens_home(it):
        changes.append(f"let nginx pass through {found.home}")
        steps.append(open_home(it.owner, found.home))
    return Part("folders", f"{layout.root}" if top else "", tuple(changes), tuple(steps))


def _in_home(it: Situation) -> bool:
    return it.layout.root.is_relative_to(it.found.home)


def _opens_home(it: Situation) -> bool:
    """True if the site is below a home that nginx may not pass through, which a home usually is."""
    home = it.found.folders.get(it.found.home)
    return _wants_nginx(it.settings) and _in_home(it) and not (home and home["mode"] & 0o001)


def _blocked(it: Situation) -> tuple[str, ...]:
    """The folders that nginx cannot pass through, less those that setup opens."""
    mended = [it.found.home] if _opens_home(it) else []
    return tuple(path for path in it.webserver.blocked if path not in mended)


def _uv(it: Situation) -> Part:
    step = venv.get_uv(it.settings, it.facts, it.layout)
    if step is None:
        is_there = bool(it.found.uv)
        return Part("uv", it.found.uv, left_out="" if is_there else "pip installs: fabdjango.venv.installer")
    optional = it.settings.venv.installer == "auto"
    change = f"install uv in {it.layout.tools}" + (", or let pip install where it cannot be had" if optional else "")
    return Part("uv", "", (change,), (replace(step, user=it.owner),), certain=not optional)


def _changed(it: Situation, puts: Iterable[Put]) -> list[str]:
    """A sentence for each file that is not as it should be; raises FabdjangoError if one is somebody else's."""
    changes = []
    for put in puts:
        text = it.found.text(put.path)
        if text is not None and MARK not in text:
            raise FabdjangoError(
                f"{put.path} is there and was not written by fabdjango",
                host=it.host,
                cure="move it away, choose another fabdjango.project, or see to it by hand: fabdjango.server.skip",
            )
        if text != put.content:
            changes.append(f"{'write' if text is None else 'change'} {put.path}")
    return changes


def _if_there(it: Situation, path: PurePosixPath) -> str:
    return "" if it.found.text(path) is None else str(path)


def _programs(it: Situation) -> Part:
    managers.refuse_other(it.settings, it.facts, it.layout, it.host)
    manager = it.manager
    changes = _changed(it, manager.files)
    units = managers.services(it.settings, it.layout) if not _has_own(it) else ()
    asleep = [unit for unit in units if it.found.services.get(unit, ["", "", "no"])[1:] != ["enabled", "no"]]
    first = []
    if it.settings.manager == "supervisor" and units and not it.found.runs(*units):
        changes.insert(0, "let supervisor run, also when the host boots")
        first.append(enable_service("supervisor"))
    elif asleep and not changes:
        changes.append(f"enable {', '.join(asleep)}")
    steps = (*first, *manager.install(), manager.check(), manager.configure()) if changes else ()
    return Part("programs", manager.name if it.found.text(manager.files[0].path) else "", tuple(changes), steps)


def _nginx(it: Situation) -> Part:
    settings, webserver = it.settings, it.webserver
    if not settings.nginx.domains:
        return Part("nginx", left_out="fabdjango.nginx.domains is empty")
    put = nginx.site_file(settings, it.layout, it.templates, webserver)
    changes, steps = [], []
    if it.found.systemd and not it.found.runs("nginx.service"):
        changes.append("let nginx run, also when the host boots")
        steps.append(enable_service("nginx"))
    if (put, "ours", nginx.digest_in(put.content)) != (webserver.previous, webserver.link, it.running):
        changes.append(f"serve {', '.join(settings.nginx.domains)} with {put.path}")
        proof = nginx.prove(settings, put.content)
        steps += [nginx.write(put, webserver.place), nginx.check(webserver), nginx.reload(), proof]
    return Part(
        "nginx", f"nginx {webserver.version}".strip() if webserver.program else "", tuple(changes), tuple(steps)
    )


def _logs(it: Situation) -> Part:
    if _has_own(it) or (it.settings.manager, it.settings.supervisor.level) in _ROTATES_ITSELF:
        return Part("logs", left_out="the site's own supervisord rotates them")
    group = it.found.account["group"] if it.found.account else it.owner
    text = it.templates.render(
        "server/logrotate.conf.j2",
        mark=mark_of(it.settings.project),
        logs=logrotate_path(it.layout.logs / "*.log", "fabdjango.root"),
        user=it.owner,
        group=group,
    )
    put = Put(_logrotate(it.settings), text)
    changes = _changed(it, (put,))
    return Part("logs", _if_there(it, put.path), tuple(changes), (rotate_logs(put),) if changes else ())


_ROTATES_ITSELF = (("supervisor", "user"), ("supervisor", "virtualenv"))


def _logrotate(settings: Settings) -> PurePosixPath:
    # logrotate passes over names with a dot and some endings, which a project's name does not have.
    return PurePosixPath("/etc/logrotate.d") / f"fabdjango-{settings.project}"


def _firewall(it: Situation) -> Part:
    kind, found = it.settings.server.firewall, it.found
    if kind == "none":
        return Part("firewall", left_out="fabdjango.server.firewall is none")
    if not found.ssh_ports:
        raise FabdjangoError(
            "nobody can tell where sshd listens on this host, and a firewall would lock you out",
            host=it.host,
            cure="leave fabdjango.server.firewall at none",
        )
    ports = sorted({*found.ssh_ports, 80, 443})
    shown = ", ".join(map(str, ports))
    changes: list[str] = []
    if kind == "ufw":
        allowed = firewall.allowed_by_ufw(found.ufw)
        missing = [port for port in ports if port not in allowed]
        changes = [f"allow {', '.join(map(str, missing))}"] if missing else []
        changes += [] if allowed else ["let ufw shut all others"]
        step = firewall.on_ufw(missing, active=bool(allowed))
    else:
        puts = firewall.files(it.templates, ports)
        changes = _changed(it, puts)
        if not changes and not (found.table and found.runs(firewall.UNIT.name)):
            changes.append(f"load {firewall.RULES}")
        step = firewall.on_nftables(puts)
    if changes:
        return Part("firewall", changes=tuple(changes), steps=(step,))
    if firewall.REVERT in found.services:
        # Whoever set it up was cut off before they could log in anew; we have.
        return Part("firewall", changes=("keep it on",), steps=(firewall.keep(),))
    return Part("firewall", f"{kind}: {shown}")


def _updates(it: Situation) -> Part:
    if not it.settings.server.updates:
        return Part("updates", left_out="fabdjango.server.updates is false")
    put = Put(_UPDATES, it.templates.render("server/updates.conf.j2"))
    changes = _changed(it, (put,))
    # One that is masked is not known here: somebody wants it so.
    asleep = [unit for unit in _TIMERS if unit in it.found.services and not it.found.runs(unit)]
    changes += [f"enable {', '.join(asleep)}"] if asleep else []
    return Part("updates", _if_there(it, _UPDATES), tuple(changes), (update_daily(put, asleep),) if changes else ())


_UPDATES = PurePosixPath("/etc/apt/apt.conf.d/52fabdjango-updates")
"""Read after Debian's own, so that it wins."""
_TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")


def python_note(settings: Settings, found: Found, pyproject: str) -> str:
    """What there is to say if the host's Python is older than a project's pyproject.toml (its text) asks for; empty if not."""
    wanted = re.search(r"""^\s*requires-python\s*=\s*["']([^"']+)["']""", pyproject, re.MULTILINE)
    least = re.search(r"(?:>=|~=|>)\s*(\d+)\.(\d+)", wanted[1]) if wanted else None
    if not (wanted and least and found.python_version) or found.python_version >= (int(least[1]), int(least[2])):
        return ""
    version = ".".join(map(str, found.python_version))
    return f"{settings.python} of the host is {version}, and the project's pyproject.toml asks for {wanted[1]}"


# --- seams: parts that are built elsewhere -----------------------------------


def _database(it: Situation) -> Part | None:  # noqa: ARG001 - SEAM: commands/database.py: create(…)
    return None


def _secrets(it: Situation) -> Part | None:  # noqa: ARG001 - SEAM: commands/environment.py: generate(settings, layout)
    return None


def _tls(it: Situation) -> Part | None:  # noqa: ARG001 - SEAM: commands/certificates.py
    return None


_BUILDERS: Mapping[str, Callable[[Situation], Part | None]] = {
    "packages": _packages,
    "account": _account,
    "folders": _folders,
    "uv": _uv,
    "database": _database,
    "secrets": _secrets,
    "programs": _programs,
    "nginx": _nginx,
    "logs": _logs,
    "tls": _tls,
    "firewall": _firewall,
    "updates": _updates,
}


# --- phases ------------------------------------------------------------------

_BASE = ("packages", "account", "folders", "uv")


def setup_lock(holder: str, token: str, wait: int = 0) -> Lock:
    """What makes this run of the tool the only one that sets up the host: before there is a site, there is none to lock."""
    folder = PurePosixPath("/run/fabdjango/setup")
    return Lock(folder / "lock", folder / "steps.lock", holder, token, wait=wait, task="setup")


def base(parts: Iterable[Part], lock: Lock) -> Phase | None:
    """What has to be there before the site can be locked, in one session; None if nothing changes."""
    steps = tuple(step for part in parts if part.name in _BASE for step in part.steps)
    return Phase("server", steps, lock=lock) if steps else None


def on_site(it: Situation, parts: Iterable[Part], lock: Lock) -> Phase | None:
    """
    The rest, under the site's lock; None if nothing changes.

    If nginx does not run with its new file, it gets the old one back; what comes after it is done in any case.
    """
    rest = [part for part in parts if part.name not in _BASE]
    steps = tuple(step for part in rest for step in part.steps)
    names = [step.name for step in steps]
    if "nginx-write" not in names:
        return Phase("site", steps, lock=lock) if steps else None
    after = names[names.index("nginx-proof") + 1 :]
    return Phase(
        "site",
        steps,
        undo=(nginx.restore(it.webserver), nginx.reload_back(it.webserver)),
        undo_from="nginx-write",
        serving_from="nginx-reload",
        kept_from=after[0] if after else "",
        lock=lock,
    )


# --- steps -------------------------------------------------------------------

# Nothing asks, nothing that runs is restarted because a library changed, and what somebody changed in /etc stays.
_QUIET = (
    """export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1 UCF_FORCE_CONFFOLD=1"""
)
# What apt does goes on if the link breaks: its output is a file, which is shown meanwhile. Our lock is not for it.
_APT = f"""log=$(mktemp)
conf='--force-confdef --force-confold'
apt() {{
  set -- -q -y -o DPkg::Lock::Timeout={_APT_WAIT} -o "Dpkg::Options::=${{conf% *}}" -o "Dpkg::Options::=${{conf#* }}" "$@"
  apt-get "$@" >>"$log" 2>&1 9>&- & pid=$!
  tail -n +1 -f -s 0.2 --pid=$pid -- "$log"; : >"$log"; wait $pid
}}
n=0; until out=$(dpkg --configure -a $conf 2>&1 9>&-); do
  case $out in *lock*) ;; *) refuse "$out";; esac
  n=$((n + 1)); [ $n -lt {_APT_WAIT // 5} ] || refuse "$out"; sleep 5
done"""


def install_packages(names: Iterable[str]) -> Step:
    """``packages``: what dpkg was interrupted in is finished, then these are installed; another apt is waited for."""
    missing = list(names)
    install = block(
        sh("apt", "update"),
        # Rather refuse than remove what somebody else needs.
        sh("apt", "--no-install-recommends", "--no-remove", "install", "--", *missing),
    )
    return Step(
        "packages",
        f"install {', '.join(missing)}" if missing else "finish what dpkg was interrupted in",
        block(raw(_QUIET), raw(_APT), install if missing else raw(""), raw('rm -f -- "$log"')),
        user=ROOT,
        cure="on the host, as root: apt-get update, and see what apt says",
    )


def make_account(name: str, home: str) -> Step:
    """``account``: the account with a home and a login shell; no password opens it."""
    path = quote_path(PurePosixPath(home))
    words = sh("--create-home", "--home-dir", home, "--shell", "/bin/bash", "--password", "*", "--comment", _COMMENT)
    add = block(
        # A group of that name may be there already.
        otherwise(
            raw(f"getent group {quote(name)} >/dev/null"), sh("set", "--", "--gid", name), raw("set -- --user-group")
        ),
        raw(f'useradd {words} "$@" -- {quote(name)}'),
    )
    return Step(
        "account",
        f"make the account {name}",
        block(
            when(raw(f"! getent passwd {quote(name)} >/dev/null"), add),
            raw(
                f'[ "$(stat -c %U -- {path} 2>/dev/null)" = {quote(name)} ] || '
                f'install -d -o {quote(name)} -g "$(id -gn -- {quote(name)})" -m 750 -- {path}'
            ),
        ),
        user=ROOT,
    )


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
    if _in_home(it) or above.get("owner") == it.owner:
        return Step("root", f"make {path}", sh("mkdir", "-p", "--", path), user=it.owner)
    group = it.found.account["group"] if it.found.account else it.owner
    return Step(
        "root",
        f"make {path}",
        otherwise(
            raw(f"[ -d {quote_path(path)} ]"),
            sh("chown", f"{it.owner}:{group}", "--", path),
            sh("install", "-d", "-o", it.owner, "-g", group, "-m", "755", "--", path),
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
