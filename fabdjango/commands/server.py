"""A server from what a hosting company hands over to what deploys need: what is there, and what changes, part by part."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from fabdjango.commands import certificates, database, firewall, managers, sudoers, venv
from fabdjango.commands import server_steps as build
from fabdjango.commands.manager import MARK, mark_of
from fabdjango.commands.public_keys import missing_keys, name_of_key
from fabdjango.commands.server_found import (
    FOLDERS,
    TIMERS,
    UPDATES,
    Found,
    Situation,
    logrotate_file,
    wanted_packages,
    wants_nginx,
)
from fabdjango.commands.server_refused import refuse_full_disk
from fabdjango.escape import logrotate_path
from fabdjango.exceptions import FabdjangoError
from fabdjango.plan import Lock, Phase, Put, Step
from fabdjango.settings import PARTS, Settings

__all__ = ["Part", "base", "decide", "on_site", "python_note", "setup_lock"]


@dataclass(frozen=True)
class Part:
    """
    What is there of one part of a server, and what changes.

    ``there`` is a sentence or empty, ``changes`` are sentences of what ``steps`` will do; without them the part is as
    it should be. ``left_out`` says why it is not seen to. One that is not ``certain`` may come to nothing without
    that being an error. ``shown`` are the files to show, if not those of the steps.
    """

    name: str
    there: str = ""
    changes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    left_out: str = ""
    certain: bool = True
    shown: tuple[Put, ...] | None = None

    @property
    def files(self) -> tuple[Put, ...]:
        """The files whose difference tells somebody something."""
        return self.shown or tuple(put for step in self.steps for put in step.puts)


def decide(it: Situation) -> tuple[Part, ...]:
    """What is there and what will change, part by part in the order of setup, where nothing was refused before."""
    parts = []
    for name in PARTS:
        if name in it.settings.server.skip:
            parts.append(Part(name, left_out="it is done by hand: fabdjango.server.skip"))
        else:
            parts.append(_BUILDERS[name](it))
    if any(part.changes for part in parts):
        refuse_full_disk(it.settings, it.found, it.host)
    return tuple(parts)


def _packages(it: Situation) -> Part:
    # What somebody has installed in another way stays.
    own = {"supervisor": it.has_own_supervisord, "nginx": bool(it.webserver.program)}
    wanted = [name for name in wanted_packages(it.settings) if not own.get(name) or name in it.found.packages]
    missing = [name for name in wanted if name not in it.found.packages]
    there = ", ".join(name for name in wanted if name in it.found.packages)
    changes = [f"install {', '.join(missing)}"] if missing else []
    if it.found.interrupted:
        changes.insert(0, "finish what dpkg was interrupted in")
    return Part("packages", there, tuple(changes), (build.install_packages(missing),) if changes else ())


def _account(it: Situation) -> Part:
    found, owner = it.found, it.owner
    home, deeds = found.folders.get(found.home), []
    if found.account is None:
        deeds.append(
            (
                f"make the account {owner}, at home in {found.home}, without a password",
                build.make_account(owner, found.home),
            )
        )
    elif home is None or home["owner"] != owner:
        deeds.append((f"make the home {found.home}", build.make_account(owner, found.home)))
    deeds += [*_application(it), *_keys(it)]
    keys = len([line for line in found.keys if not line.startswith("#")])
    there = [f"{owner}, with {keys} key{'s' * (keys != 1)}"] if found.account else []
    there += [it.settings.run_as] if found.account and found.app else []
    return Part("account", "; ".join(there), tuple(each for each, _ in deeds), tuple(step for _, step in deeds))


def _application(it: Situation) -> Iterator[tuple[str, Step]]:
    """The account that runs the application, unless it is the owner's own."""
    app, found = it.settings.run_as, it.found.app
    if app in ("", it.owner) or (found and found["member"]):
        return
    change = (
        f"make {it.owner} a member of the group of {app}" if found else f"make the account {app} for the application"
    )
    yield change, build.make_app_account(app, it.owner)


def _keys(it: Situation) -> Iterator[tuple[str, Step]]:
    """Those who may log in as the owner: as the settings say, or as they may for the account that sets up."""
    wanted = it.keys or tuple(line for line in it.found.keys_of_login if not line.startswith("#"))
    missing = missing_keys(wanted, it.found.keys)
    if missing:
        many = f"{len(missing)} more key{'s' * (len(missing) > 1)}"
        change = f"let {many} log in as {it.owner}: {', '.join(map(name_of_key, missing))}"
        yield change, build.authorize(it.owner, it.found, missing)


def _folders(it: Situation) -> Part:
    layout, found = it.layout, it.found
    missing = [name for name in FOLDERS if not found.folders.get(str(layout.root / name))]
    top = found.folders.get(str(layout.root))
    changes, steps = [], []
    if not top or top["owner"] != it.owner:
        changes.append(f"{'give' if top else 'make'} {layout.root} {'to' if top else 'for'} {it.owner}")
        steps.append(build.make_root(it))
    if missing:
        changes.append(f"make {', '.join(missing)} in {layout.root}")
        steps.append(build.make_folders(it.owner, layout, missing))
    if it.opens_home:
        changes.append(f"let nginx pass through {found.home}")
        steps.append(build.open_home(it.owner, found.home))
    return Part("folders", f"{layout.root}" if top else "", tuple(changes), tuple(steps))


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


def _database(it: Situation) -> Part:
    settings = it.settings
    if settings.database.engine == "none":
        return Part("database", left_out="fabdjango.database.engine is none")
    steps = database.create(settings, it.layout, it.owner)
    there = "" if it.lacking else f"{settings.database.engine}, and its variables"
    return Part("database", there, it.lacking, steps if it.lacking else ())


def _secrets(it: Situation) -> Part:
    made = [name for name, source in sorted(it.settings.secrets.items()) if source.generate]
    if not made:
        return Part("secrets", left_out="fabdjango.secrets has none that are made on the host")
    # Of several hosts, setup sees one at a time.
    return Part("secrets", left_out=f"the first deploy makes {', '.join(made)}, the same on every host")


def _programs(it: Situation) -> Part:
    managers.refuse_other(it.settings, it.facts, it.layout, it.host)
    manager = it.manager
    changes = _changed(it, manager.files)
    units = managers.services(it.settings, it.layout) if not it.has_own_supervisord else ()
    first = []
    if it.settings.manager == "supervisor":
        idle = [unit.removesuffix(".service") for unit in units if not it.found.runs(unit)]
        changes[:0] = [f"let {name} run, also when the host boots" for name in idle]
        first = [build.enable_service(name) for name in idle]
    elif not changes:
        # Units that run are a deployment's business.
        asleep = [unit for unit in units if it.found.services.get(unit, ["", "", ""])[1:] != ["enabled", "no"]]
        changes = [f"enable {', '.join(asleep)}"] if asleep else []
    steps = (*first, *manager.install(), manager.check(), manager.configure()) if changes else ()
    return Part("programs", manager.name if it.found.text(manager.files[0].path) else "", tuple(changes), steps)


def _sudoers(it: Situation) -> Part:
    # The list is for programs as they will be on the host.
    files = {str(put.path): {"text": put.content} for put in it.manager.files}
    facts = replace(it.facts, managed={**it.facts.managed, **files})
    manager = managers.find(it.settings, facts, it.layout, it.templates, it.host)
    puts = sudoers.programs(manager, it.layout, it.settings.schedule)
    if not puts:
        return Part("sudoers", left_out=f"nothing is done as root: {manager.name} belongs to {it.owner}")
    rules = sudoers.rules(it.settings.project, it.owner, puts)
    changes = _changed(it, (rules,))
    missing = [put for put in puts if it.found.root_programs.get(str(put.path)) != put.digest]
    if missing and not changes:
        changes.append(f"write {len(missing)} programs of root")
    there = f"{it.owner} may run {len(puts)} programs as root" if not changes else ""
    steps = (sudoers.install(it.settings.project, it.owner, puts),) if changes else ()
    return Part("sudoers", there, tuple(changes), steps, shown=(rules,))


def _nginx(it: Situation) -> Part:
    settings, webserver = it.settings, it.webserver
    if not settings.nginx.domains:
        return Part("nginx", left_out="fabdjango.nginx.domains is empty")
    changes, steps = [], []
    if it.found.systemd and not it.found.runs("nginx.service"):
        changes.append("let nginx run, also when the host boots")
        steps.append(build.enable_service("nginx"))
    if it.serving:
        changes.append(f"serve {', '.join(settings.nginx.domains)} with {webserver.place.file}")
        steps += it.serving.steps
    there = f"nginx {webserver.version}".strip() if webserver.program else ""
    return Part("nginx", there, tuple(changes), tuple(steps))


def _tls(it: Situation) -> Part:
    """What it does stands between the steps of nginx, which has to answer for it."""
    settings, found = it.settings, it.certificate
    if not (wants_nginx(settings) and certificates.is_wanted(settings)):
        return Part("tls", left_out="fabdjango.nginx.tls is none")
    place = certificates.places(settings)[0]
    if not certificates.is_made(settings):
        return Part("tls", place)
    changes = []
    if why := certificates.fault(settings, found):
        deed = "make a certificate" if settings.nginx.tls == "self-signed" else "ask for a certificate"
        changes.append(f"{deed}: {why}")
    elif not certificates.is_kept(settings, found):
        changes.append("let certbot renew the certificate")
    until = f"{place}, good until {found.file.not_after}" if found.file else ""
    return Part("tls", until, tuple(changes))


def _logs(it: Situation) -> Part:
    if it.has_own_supervisord or (it.settings.manager, it.settings.supervisor.level) in _ROTATES_ITSELF:
        return Part("logs", left_out="the site's own supervisord rotates them")
    text = it.templates.render(
        "server/logrotate.conf.j2",
        mark=mark_of(it.settings.project),
        logs=logrotate_path(it.layout.logs / "*.log", "fabdjango.root"),
        user=it.owner,
        # What the application writes is its group's.
        group=str(it.found.app["group"]) if it.found.app else it.settings.run_as or it.group,
    )
    put = Put(logrotate_file(it.settings), text)
    changes = _changed(it, (put,))
    return Part("logs", _if_there(it, put.path), tuple(changes), (build.rotate_logs(put),) if changes else ())


_ROTATES_ITSELF = (("supervisor", "user"), ("supervisor", "virtualenv"))


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
    changes, step = _ufw(it, ports) if kind == "ufw" else _nftables(it, ports)
    if not changes and firewall.REVERT in found.services:
        # Whoever set it up was cut off before they could log in anew; we have.
        changes, step = ["keep it on"], firewall.keep()
    there = "" if changes else f"{kind}: {', '.join(map(str, ports))}"
    return Part("firewall", there, tuple(changes), (step,) if changes else ())


def _ufw(it: Situation, ports: Iterable[int]) -> tuple[list[str], Step]:
    allowed = firewall.allowed_by_ufw(it.found.ufw)
    missing = [port for port in ports if port not in allowed]
    changes = [f"allow {', '.join(map(str, missing))}"] if missing else []
    changes += [] if allowed else ["let ufw shut all others"]
    return changes, firewall.on_ufw(missing, active=bool(allowed))


def _nftables(it: Situation, ports: Iterable[int]) -> tuple[list[str], Step]:
    puts = firewall.files(it.templates, ports)
    changes = _changed(it, puts)
    if not changes and not (it.found.table and it.found.runs(firewall.UNIT.name)):
        changes.append(f"load {firewall.RULES}")
    return changes, firewall.on_nftables(puts)


def _updates(it: Situation) -> Part:
    if not it.settings.server.updates:
        return Part("updates", left_out="fabdjango.server.updates is false")
    put = Put(UPDATES, it.templates.render("server/updates.conf.j2"))
    changes = _changed(it, (put,))
    # One that is masked is not known here: somebody wants it so.
    asleep = [unit for unit in TIMERS if unit in it.found.services and not it.found.runs(unit)]
    changes += [f"enable {', '.join(asleep)}"] if asleep else []
    return Part(
        "updates", _if_there(it, UPDATES), tuple(changes), (build.update_daily(put, asleep),) if changes else ()
    )


def python_note(settings: Settings, found: Found, pyproject: str) -> str:
    """What there is to say if the host's Python is older than a project's pyproject.toml (its text) asks for; empty if not."""
    wanted = re.search(r"""^\s*requires-python\s*=\s*["']([^"']+)["']""", pyproject, re.MULTILINE)
    least = re.search(r"(?:>=|~=|>)\s*(\d+)\.(\d+)", wanted[1]) if wanted else None
    if not (wanted and least and found.python_version) or found.python_version >= (int(least[1]), int(least[2])):
        return ""
    version = ".".join(map(str, found.python_version))
    asks = f"the project's pyproject.toml asks for {wanted[1]}"
    return f"{settings.python} of the host is {version}, and {asks}: a deploy will be refused, and say what to do"


_BUILDERS: Mapping[str, Callable[[Situation], Part]] = {
    "packages": _packages,
    "account": _account,
    "folders": _folders,
    "uv": _uv,
    "database": _database,
    "secrets": _secrets,
    "programs": _programs,
    "sudoers": _sudoers,
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
    if not steps or not it.serving:
        return Phase("site", steps, lock=lock) if steps else None
    after = steps[steps.index(it.serving.steps[-1]) + 1 :]
    return replace(it.serving, name="site", steps=steps, kept_from=after[0].name if after else "", lock=lock)
