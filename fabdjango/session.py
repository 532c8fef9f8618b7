"""
From a Fabric Context to runners: the settings, the hosts that are meant, and connections that stay open for the run of ``fab``.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import getpass
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fabric
from invoke.context import Context

from fabdjango import recipes
from fabdjango.board import Board
from fabdjango.commands import database, managers
from fabdjango.configuration import Layer, Resolved, environment_layer, resolve
from fabdjango.escape import Redactor, Secret
from fabdjango.exceptions import ConfigError
from fabdjango.fleet import Fleet
from fabdjango.inventory import PRIMARY, Host, leads, literal, primary_of, select, words_of
from fabdjango.inventory_files import twice
from fabdjango.layout import layout_of
from fabdjango.login import connection_to, target_of
from fabdjango.plan import ROOT
from fabdjango.recipes import Private, Site
from fabdjango.render import Templates, read_env
from fabdjango.report import Report
from fabdjango.runner import Runner
from fabdjango.secret_sources import Secrets
from fabdjango.settings import ROOT_KEY, Settings
from fabdjango.transport import Account, DryTransport, FabricTransport, Transport

__all__ = [
    "choose_stage",
    "chosen_hosts",
    "configuration",
    "confirmed",
    "fleet_of",
    "host_of",
    "is_dry",
    "local_root",
    "own_settings",
    "reserve",
    "runners",
]

own_settings: contextvars.ContextVar[Layer | None] = contextvars.ContextVar("own_settings", default=None)
"""The settings that a collection of one site brings with it; above the files, below the environment."""


# --- configuration -----------------------------------------------------------


def local_root(context: Context) -> Path:
    """The folder that local paths start from: where the fabfile is."""
    found = getattr(context.config, "_project_prefix", None)
    return Path(found).resolve() if found else Path.cwd()


def layers(context: Context, environ: Mapping[str, str]) -> list[Layer]:
    """Every level of configuration that speaks of fabdjango, lowest first, with its file."""
    config = context.config
    # Invoke keeps the levels apart in attributes of these names; its merged view does not say where a value is from.
    levels = [
        ("the fabfile", "_collection", None),
        ("", "_system", "_system_path"),
        ("", "_user", "_user_path"),
        ("", "_project", "_project_path"),
    ]
    found = [_layer(config, *level) for level in levels]
    own = own_settings.get()
    late = [
        _layer(config, "", "_runtime", "_runtime_path"),
        _layer(config, "a task before this one", "_modifications", None),
    ]
    return [layer for layer in (*found, own, environment_layer(environ), *late) if layer is not None]


def _layer(config: Any, source: str, values: str, path: str | None) -> Layer | None:
    mapping = getattr(config, values, None) or {}
    if ROOT_KEY not in mapping:
        return None
    place = getattr(config, path, None) if path else None
    content = mapping[ROOT_KEY]
    return Layer(os.path.relpath(place) if place else source, {} if content is None else content)


_stage = ""
_reserved: frozenset[str] = frozenset()


def choose_stage(name: str) -> None:
    """Let ``name`` be the stage for the rest of this run of fab; it wins over FABRIC_FABDJANGO_STAGE."""
    global _stage  # noqa: PLW0603 - a run of fab has one, also in threads
    _stage = name


def reserve(names: Iterable[str]) -> None:
    """No stage may be called so, because tasks are."""
    global _reserved  # noqa: PLW0603 - filled once, by the collection of tasks
    _reserved = frozenset(names)


def configuration(context: Context, host: str = "") -> Resolved:
    """The settings for ``host`` (a name as given to -H, or empty)."""
    stage = _stage or os.environ.get("FABRIC_FABDJANGO_STAGE", "")
    read = functools.partial(_inventory_text, local_root(context))
    _refuse_repetition(context)
    resolved = resolve(layers(context, os.environ), stage=stage, host=host, read=read)
    taken = next((name for name in resolved.stages if name in _reserved), "")
    if taken:
        raise ConfigError(
            f"the stage {taken} has the name of a task, and fab {taken} deploy would run that",
            cure=f"call it something else in fabric.yaml: {ROOT_KEY}: stages: {{{taken}-stage: …}}",
        )
    recipes.check_settings(resolved.settings)
    return resolved


def _refuse_repetition(context: Context) -> None:
    """Raise for a key that stands twice in a file; of two hosts with one name the first would be lost without a word."""
    for level in ("_system_path", "_user_path", "_project_path", "_runtime_path"):
        path = Path(getattr(context.config, level, None) or "")
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = path.read_text(encoding="utf-8") if path.suffix in (".yaml", ".yml", ".json") else ""
            for key, first, second in twice(text, ROOT_KEY):
                lines = f"line {first}" if first == second else f"lines {first} and {second}"
                what = f"{ROOT_KEY}.{key} stands twice in {os.path.relpath(path)} ({lines})"
                is_host = re.fullmatch(r"(stages\..+\.)?hosts\.[^{}]+", key)
                raise ConfigError(
                    f"duplicate hosts: {what}" if is_host else what, cure="take one away, or make one entry of both"
                )


def _inventory_text(root: Path, name: str) -> str:
    path = root / Path(name).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        reason = "it is not text"
    except OSError as error:
        reason = error.strerror or str(error)
    raise ConfigError(
        f"cannot read the inventory {name}: {reason}",
        cure=f"name one file in fabric.yaml, relative to the fabfile: {ROOT_KEY}: inventory: deploy/hosts.ini",
    )


_TOKEN = secrets.token_hex(8)
"""By this word the lock knows whether it is this run of the tool that holds it."""


def _site(context: Context, resolved: Resolved, host: str, target: str, task: str, redactor: Redactor) -> Site:
    settings = managers.local_part(resolved.settings, leads=leads(host, resolved.hosts))
    elsewhere = {*resolved.settings.processes, *resolved.settings.schedule} - {*settings.processes, *settings.schedule}
    root = local_root(context)
    templates = _templates(root)
    redactor.add(*database.secrets_of(settings))
    redactor.add(*(url for url in (settings.venv.index_url, *settings.venv.extra_index_urls) if "@" in url))

    def fetched(asking: bool = True) -> Private:
        had = Secrets(settings.secrets, root, redactor.add, asking=asking)
        return _private(settings, templates, host, had, redactor)

    # Also what a task only shows, such as a log, hides what can be known without asking anybody.
    with contextlib.suppress(ConfigError):
        fetched(asking=False)
    holder = f"{getpass.getuser()}@{socket.gethostname()}"
    clone = root / Path(settings.git.clone).expanduser()
    private = functools.cache(fetched)
    layout, others = layout_of(settings), frozenset(elsewhere)
    site = Site(settings, layout, templates, host, target, holder, task, _TOKEN, private, clone, elsewhere=others)
    return replace(site, folder=root, beside=tuple(each.address for each in resolved.hosts))


def _private(settings: Settings, templates: Templates, host: str, had: Secrets, redactor: Redactor) -> Private:
    """What the operator's side keeps secret, every value of which the redactor learns as soon as it is had."""
    values = {
        "project": settings.project,
        "host": host,
        "settings": settings,
        "environment": dict(settings.environment),
        "secrets": had,
    }
    env: dict[str, Secret] = {}
    local_settings: str | None = None
    own = {name: Secret(had[name]) for name in had}
    if settings.env_file:
        rendered = templates.render_project_file(settings.env_file, "env_file", **values)
        redactor.add(*rendered.secrets)
        env = read_env(rendered.text, settings.env_file)
        redactor.add(*(secret.reveal() for name, secret in env.items() if name not in _NOT_SECRET))
    if settings.local_settings:
        rendered = templates.render_project_file(settings.local_settings, "local_settings", **values)
        local_settings = rendered.text
        redactor.add(*rendered.secrets)
    return Private(own, env, local_settings)


@functools.cache
def _templates(root: Path) -> Templates:
    """The same for all hosts, which saves reading and compiling them for each."""
    return Templates(root)


_NOT_SECRET = frozenset({"DJANGO_SETTINGS_MODULE", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "DEBUG"})


# --- hosts -------------------------------------------------------------------

_open: dict[tuple[int, str, str, str, int], FabricTransport] = {}


@atexit.register
def _close_all() -> None:
    for transport in _open.values():
        with contextlib.suppress(Exception):
            transport.connection.close()


def _connections(context: Context, resolved: Resolved) -> list[fabric.Connection]:
    if isinstance(context, fabric.Connection):
        # The settings may have been resolved for another host of this run; those of an address are its own.
        return [_connection(context, host_of(_name(context), configuration(context, _name(context))), context)]
    return [_connection(context, host) for host in chosen_hosts(context, resolved)]


def _connection(context: Context, host: Host, given: fabric.Connection | None = None) -> fabric.Connection:
    """A connection to a host; the one that Fabric made is ``given``, if there is one, and goes on if it is open."""
    if given is not None and given.is_connected:
        return given
    own = context.config if isinstance(context.config, fabric.Config) else fabric.Config()
    keys = tuple(str(local_root(context) / Path(key).expanduser()) for key in host.key)
    return connection_to(replace(host, key=keys), own, given)


def host_of(name: str, resolved: Resolved) -> Host:
    """The host that -H calls ``name``: one of the inventory, or an address; raises ConfigError if only another stage has it."""
    found = next((host for host in resolved.hosts if host.name == name), None)
    if found or name not in resolved.elsewhere:
        return found or literal(name, resolved.settings.ssh, resolved.stage)
    stages = [stage for stage in resolved.elsewhere[name] if stage]
    if not stages:
        raise ConfigError(
            f"{name} is in no stage, and the chosen one is {resolved.stage}",
            cure=f"choose none: fab -H {name} …\nor list it in fabric.yaml: {ROOT_KEY}: stages: {{{resolved.stage}: {{hosts: {{{name}: {{}}}}}}}}",
        )
    chosen = f"the chosen one is {resolved.stage}" if resolved.stage else "none is chosen"
    raise ConfigError(
        f"{name} is in the stage {' and in '.join(stages)}, and {chosen}",
        cure="choose it: " + "\nor:        ".join(f"fab -H {name} {stage} …" for stage in stages),
    )


def chosen_hosts(context: Context, resolved: Resolved, role: str = "", limit: str = "") -> tuple[Host, ...]:
    """The host that Fabric chose, or those of the inventory, less those that role or limit (names with commas) leave out."""
    if isinstance(context, fabric.Connection):
        hosts: tuple[Host, ...] = (host_of(_name(context), resolved),)
    elif resolved.hosts:
        hosts = resolved.hosts
    else:
        raise _no_host(resolved)
    return select(hosts, role=role, limit=words_of(limit))


def _no_host(resolved: Resolved) -> ConfigError:
    stages = list(dict.fromkeys(stage for places in resolved.elsewhere.values() for stage in places if stage))
    if stages and not resolved.stage:
        lines = "\n".join(f"  fab {stage} …" for stage in stages)
        return ConfigError("every host is in a stage, and none is chosen", cure=f"choose one:\n{lines}")
    return ConfigError(
        "no host is given",
        cure="name one:               fab -H web1.example.com …\nor list them once, in fabric.yaml:\n\nfabdjango:\n  hosts:\n    web1.example.com: {}",
    )


_confirmed: set[tuple[str, str]] = set()


def confirmed(resolved: Resolved, yes: bool, what: str, hosts: Iterable[Host] = ()) -> None:
    """
    Ask before something is done to a stage that wants it; ``what`` is "Deploy to" or "Roll back".

    On a terminal the operator is asked, once in a run; elsewhere ``yes`` has to
    say it. Raises ConfigError if the answer is no, or if there is nobody to ask.
    """
    if not resolved.confirm or yes or (resolved.stage, what) in _confirmed:
        return
    names = ", ".join(host.name for host in (tuple(hosts) or resolved.hosts))
    deed = f"{what} stage {resolved.stage}: {names}"
    if not sys.stdin.isatty():
        raise ConfigError(
            f"the stage {resolved.stage} wants a word before it is touched, and there is no terminal to ask on",
            cure="say it: --yes",
        )
    sys.stderr.write(f"{deed}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError(f"not confirmed: {deed}", cure="answer y, or say --yes")
    _confirmed.add((resolved.stage, what))


def _name(connection: fabric.Connection) -> str:
    return str(getattr(connection, "original_host", "") or connection.host)


def _transport(connection: fabric.Connection, settings: Settings) -> FabricTransport:
    # Fabric makes a new Connection, and so a new login, for every task on the command line.
    # The same address behind another jump host is another machine, and has another name.
    key = (id(connection.config), _name(connection), str(connection.host), str(connection.user), int(connection.port))
    if key not in _open:
        _open[key] = FabricTransport(connection, settings.ssh, may_ask=sys.stdin.isatty())
    return _open[key]


def _account(settings: Settings, login: str, password: str = "") -> Account:
    if login == "root" and not settings.user:
        raise ConfigError(
            "you log in as root, and no account is named that owns the site",
            cure="name one in fabric.yaml:  fabdjango: user: deploy\n(root itself is possible, if you write it there)",
        )
    if password and login != ROOT:
        return Account(settings.user or login, ROOT, password=Secret(password))
    return Account(owner=settings.user or login, login=login)


def is_dry(context: Context) -> bool:
    """True for ``fab --dry``."""
    return bool(context.config.run.dry)


def _form(settings: Settings) -> Any:
    if settings.output == "auto":
        return "rich" if sys.stdout.isatty() else "plain"
    return settings.output


def runners(context: Context, redactor: Redactor, task: str = "") -> Iterator[Runner]:
    """A runner for the host that Fabric chose, or for each of the inventory; ``task`` is what others are told it does."""
    resolved = configuration(context, _name(context) if isinstance(context, fabric.Connection) else "")
    for connection in _connections(context, resolved):
        own = configuration(context, _name(connection))
        verbose = bool(context.config.run.echo)
        report = Report(_name(connection), redactor, form=_form(own.settings), verbose=verbose)
        yield _runner(context, connection, own, report, task)


def _runner(context: Context, connection: fabric.Connection, resolved: Resolved, report: Report, task: str) -> Runner:
    settings = resolved.settings
    fence = layout_of(settings).steps_lock
    # What --prompt-for-sudo-password has asked for, or a config file says.
    password = str(context.config.sudo.password or "")
    account = _account(settings, str(connection.user), password)
    account = replace(account, fence=fence if fence.is_absolute() else None)
    report.redactor.add(password)
    site = _site(context, resolved, _name(connection), target_of(connection), task, report.redactor)
    transport: Transport = _transport(connection, settings)
    dry = is_dry(context)
    if dry:
        transport = DryTransport(transport, functools.partial(report.show_phase, present={}))
    return Runner(site, transport, account, report, dry)


@dataclass(frozen=True)
class Choice:
    """Which hosts a task of a fleet is for: those of a ``role``, those of ``limit`` (names with commas), and ``yes`` to all questions."""

    role: str = ""
    limit: str = ""
    yes: bool = False
    asks: str = ""
    """What is done, if a stage wants to be asked before."""


@contextlib.contextmanager
def fleet_of(
    contexts: Sequence[Context], redactor: Redactor, task: str = "", choice: Choice | None = None
) -> Iterator[Fleet]:
    """The fleet of the hosts that Fabric chose, or of the inventory; locks are let go of when this is over."""
    choice, context = choice or Choice(), contexts[0]
    # Reading the files for a host takes milliseconds, and there may be a hundred of them.
    settings_of = functools.cache(functools.partial(configuration, context))
    resolved = settings_of(_name(context) if isinstance(context, fabric.Connection) else "")
    hosts = _chosen(contexts, settings_of, choice)
    if choice.asks:
        confirmed(resolved, choice.yes, choice.asks, hosts)
    given = {_name(each): each for each in contexts if isinstance(each, fabric.Connection)}
    form, verbose = _form(resolved.settings), bool(context.config.run.echo)
    board = Board(redactor, form=form, verbose=verbose)
    reports = [
        board.report_of(host.name) if len(hosts) > 1 else Report(host.name, redactor, form=form, verbose=verbose)
        for host in hosts
    ]
    members = []
    for host, report in zip(hosts, reports, strict=True):
        connection = _connection(context, host, given.get(host.name))
        members.append(_runner(context, connection, settings_of(host.name), report, task))
    primary = _primary(hosts, resolved) if choice.asks else _any_primary(hosts)
    tell = board if len(hosts) > 1 else reports[0]
    settings = resolved.settings
    fleet = Fleet(members, tell, primary=primary, parallel=settings.parallel, batch=settings.activation.batch)
    try:
        yield fleet
    finally:
        fleet.release()
        for report in reports:
            report.close()
        board.close()


def _chosen(contexts: Sequence[Context], settings_of: Callable[[str], Resolved], choice: Choice) -> tuple[Host, ...]:
    """The hosts of -H, or of the inventory, less those that are left out."""
    if not isinstance(contexts[0], fabric.Connection):
        return chosen_hosts(contexts[0], settings_of(""), choice.role, choice.limit)
    # Settings of an address are its own.
    named = [host_of(_name(each), settings_of(_name(each))) for each in contexts]
    twice = next((host.name for host in named if named.count(host) > 1), "")
    if twice:
        raise ConfigError(f"duplicate hosts: {twice} is named twice", cure="name it once in -H")
    return select(named, role=choice.role, limit=words_of(choice.limit))


def _any_primary(hosts: Sequence[Host]) -> str:
    """For a task that only looks: the first host with the role, if there is one."""
    return next((host.name for host in hosts if PRIMARY in host.roles), "")


def _primary(hosts: Sequence[Host], resolved: Resolved) -> str:
    """The host that does what is done once; empty if it is one of the inventory's that is left out now."""
    listed = all(host in resolved.hosts for host in hosts)
    if len(hosts) > 1 or (listed and any(PRIMARY in host.roles for host in resolved.hosts)):
        primary = primary_of(resolved.hosts if listed else hosts).name
        return primary if primary in {host.name for host in hosts} else ""
    return hosts[0].name
