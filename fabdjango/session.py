"""
From a Fabric Context to runners, and from errors to exit codes.

Every task is a function of a Runner; :func:`host_task` gives it the form that
Fabric knows, one call per host, over connections that stay open for the whole
run of ``fab``.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import getpass
import inspect
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fabric
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task

from fabdjango import recipes
from fabdjango.board import Board
from fabdjango.configuration import Layer, Resolved, environment_layer, resolve
from fabdjango.escape import Redactor, Secret
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.fleet import Fleet
from fabdjango.layout import layout_of
from fabdjango.login import target_of
from fabdjango.recipes import Site
from fabdjango.render import Templates, read_env
from fabdjango.report import Report
from fabdjango.runner import Runner
from fabdjango.settings import ROOT_KEY, Settings
from fabdjango.transport import Account, DryTransport, FabricTransport, Transport

__all__ = [
    "configuration",
    "fleet_of",
    "fleet_task",
    "host_task",
    "is_dry",
    "local_root",
    "own_settings",
    "plain_task",
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


def configuration(context: Context, host: str = "") -> Resolved:
    """The settings for ``host`` (a name as given to -H, or empty)."""
    stage = os.environ.get("FABRIC_FABDJANGO_STAGE", "")
    resolved = resolve(layers(context, os.environ), stage=stage, host=host)
    recipes.check_settings(resolved.settings)
    return resolved


_TOKEN = secrets.token_hex(8)
"""By this word the lock knows whether it is this run of the tool that holds it."""


def _site(context: Context, settings: Settings, host: str, target: str, task: str, redactor: Redactor) -> Site:
    templates = Templates(local_root(context))
    env: dict[str, Secret] = {}
    local_settings: str | None = None
    values = {
        "project": settings.project,
        "host": host,
        "settings": settings,
        "environment": dict(settings.environment),
    }
    if settings.env_file:
        rendered = templates.render_project_file(settings.env_file, "env_file", **values)
        env = read_env(rendered.text, settings.env_file)
        redactor.add(*rendered.secrets, *(secret.reveal() for name, secret in env.items() if name not in _NOT_SECRET))
    if settings.local_settings:
        rendered = templates.render_project_file(settings.local_settings, "local_settings", **values)
        local_settings = rendered.text
        redactor.add(*rendered.secrets)
    redactor.add(*(url for url in (settings.venv.index_url, *settings.venv.extra_index_urls) if "@" in url))
    holder = f"{getpass.getuser()}@{socket.gethostname()}"
    clone = local_root(context) / Path(settings.git.clone).expanduser()
    return Site(
        settings, layout_of(settings), templates, host, target, holder, task, _TOKEN, env, local_settings, clone
    )


_NOT_SECRET = frozenset({"DJANGO_SETTINGS_MODULE", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "DEBUG"})


# --- hosts -------------------------------------------------------------------

_open: dict[tuple[int, str, str, int], FabricTransport] = {}


@atexit.register
def _close_all() -> None:
    for transport in _open.values():
        with contextlib.suppress(Exception):
            transport.connection.close()


def _connections(context: Context, resolved: Resolved) -> list[fabric.Connection]:
    if isinstance(context, fabric.Connection):
        return [context]
    if not resolved.hosts:
        raise ConfigError(
            "no host is given",
            cure="name one:               fab -H web1.example.com …\nor list them once, in fabric.yaml:\n\nfabdjango:\n  hosts:\n    web1.example.com: {}",
        )
    own = context.config if isinstance(context.config, fabric.Config) else None
    return [fabric.Connection(host, config=own) for host in resolved.hosts]


def _name(connection: fabric.Connection) -> str:
    return str(getattr(connection, "original_host", "") or connection.host)


def _transport(connection: fabric.Connection, settings: Settings) -> FabricTransport:
    # Fabric makes a new Connection, and so a new login, for every task on the command line.
    key = (id(connection.config), str(connection.host), str(connection.user), int(connection.port))
    if key not in _open:
        keys = connection.connect_kwargs.get("key_filename")
        if isinstance(keys, list):
            # The list is shared by all Connections of a run and grows with each.
            connection.connect_kwargs = {**connection.connect_kwargs, "key_filename": list(dict.fromkeys(keys))}
        _open[key] = FabricTransport(connection, settings.ssh, may_ask=sys.stdin.isatty())
    return _open[key]


def _account(settings: Settings, login: str) -> Account:
    if login == "root" and not settings.user:
        raise ConfigError(
            "you log in as root, and no account is named that owns the site",
            cure="name one in fabric.yaml:  fabdjango: user: deploy\n(root itself is possible, if you write it there)",
        )
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
        settings = configuration(context, _name(connection)).settings
        verbose = bool(context.config.run.echo)
        report = Report(_name(connection), redactor, form=_form(settings), verbose=verbose)
        yield _runner(context, connection, settings, report, task)


def _runner(context: Context, connection: fabric.Connection, settings: Settings, report: Report, task: str) -> Runner:
    account = _account(settings, str(connection.user))
    site = _site(context, settings, _name(connection), target_of(connection), task, report.redactor)
    transport: Transport = _transport(connection, settings)
    dry = is_dry(context)
    if dry:
        transport = DryTransport(transport, functools.partial(report.show_phase, present={}))
    return Runner(site, transport, account, report, dry)


@contextlib.contextmanager
def fleet_of(contexts: Sequence[Context], redactor: Redactor, task: str = "") -> Iterator[Fleet]:
    """The fleet of the hosts that Fabric chose, or of the inventory; locks are let go of when this is over."""
    context = contexts[0]
    first = configuration(context, _name(context) if isinstance(context, fabric.Connection) else "")
    connections = [connection for each in contexts for connection in _connections(each, first)]
    resolved = {_name(each): configuration(context, _name(each)) for each in connections}
    settings = first.settings
    form, verbose = _form(settings), bool(context.config.run.echo)
    board = Board(redactor, form=form, verbose=verbose)
    reports: list[Report] = (
        [board.report_of(_name(each)) for each in connections]
        if len(connections) > 1
        else [Report(_name(each), redactor, form=form, verbose=verbose) for each in connections]
    )
    members = [
        _runner(context, connection, resolved[_name(connection)].settings, report, task)
        for connection, report in zip(connections, reports, strict=True)
    ]
    fleet = Fleet(
        members,
        board if len(connections) > 1 else reports[0],
        primary=_primary([_name(each) for each in connections], first),
        parallel=settings.parallel,
        batch=settings.activation.batch,
    )
    try:
        yield fleet
    finally:
        fleet.release()
        for report in reports:
            report.close()
        board.close()


def _primary(names: Sequence[str], resolved: Resolved) -> str:
    primaries = [name for name in names if "primary" in (resolved.hosts.get(name) or {}).get("roles", ())]
    if len(names) > 1 and len(primaries) != 1:
        raise ConfigError("which host is the primary?")
    return primaries[0] if primaries else names[0]


# --- tasks -------------------------------------------------------------------


def _reporting_errors(body: Callable[..., None]) -> Callable[..., None]:
    """Errors as lines on standard error, and as the exit code."""

    @functools.wraps(body)
    def wrapped(context: Context, *args: Any, **kwargs: Any) -> None:
        redactor = Redactor()
        try:
            body(context, redactor, *args, **kwargs)
        except FabdjangoError as error:
            sys.stdout.flush()
            raise Exit(redactor.hide(error.render()), error.exit_code) from None

    return wrapped


def _as_task(
    body: Callable[..., None], function: Callable[..., None], help: Mapping[str, str] | None, name: str | None
) -> Task[Any]:
    parameters = list(inspect.signature(function).parameters.values())
    first = parameters[0].replace(name="c", annotation=inspect.Parameter.empty)
    body.__signature__ = inspect.Signature([first, *parameters[1:]])  # type: ignore[attr-defined]
    # Every automatic short flag would become a promise, and -c, -H or -r clash with Fabric's own in a reader's mind.
    return Task(body, name=name, help=dict(help or {}), auto_shortflags=False)


def host_task(
    *, help: Mapping[str, str] | None = None, name: str | None = None
) -> Callable[[Callable[..., None]], Task[Any]]:
    """Make a task of a function whose first argument is the Runner of one host."""

    def decorate(function: Callable[..., None]) -> Task[Any]:
        def body(context: Context, redactor: Redactor, *args: Any, **kwargs: Any) -> None:
            for runner in runners(context, redactor, name or function.__name__):
                with contextlib.closing(runner.report):
                    try:
                        function(runner, *args, **kwargs)
                    finally:
                        runner.transport.release()

        wrapped = _reporting_errors(functools.wraps(function)(body))
        return _as_task(wrapped, function, help, name)

    return decorate


def fleet_task(
    *, help: Mapping[str, str] | None = None, name: str | None = None
) -> Callable[[Callable[..., None]], Task[Any]]:
    """
    Make a task of a function whose first argument is the Fleet of all hosts.

    Fabric calls a task's ``pre`` once, its body for each host, and its ``post``
    once: so the body only gathers, and ``post`` does the work. Called from Python, the body does it at once.
    """

    def decorate(function: Callable[..., None]) -> Task[Any]:
        def bound(layer: Layer | None) -> Task[Any]:
            gathering: list[list[tuple[Context, tuple[Any, ...], dict[str, Any]]]] = []
            called = name or function.__name__

            def act(contexts: Sequence[Context], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                token = own_settings.set(layer)
                try:
                    _reporting_errors(on_all)(contexts, *args, **kwargs)
                finally:
                    own_settings.reset(token)

            def on_all(contexts: Sequence[Context], redactor: Redactor, *args: Any, **kwargs: Any) -> None:
                with fleet_of(contexts, redactor, called) as fleet:
                    function(fleet, *args, **kwargs)

            def begin(_c: Context) -> None:
                gathering.append([])

            def body(context: Context, *args: Any, **kwargs: Any) -> None:
                if gathering:
                    gathering[-1].append((context, args, kwargs))
                else:
                    act([context], args, kwargs)

            def end(_c: Context) -> None:
                calls = gathering.pop()
                if calls:
                    _, args, kwargs = calls[0]
                    act([context for context, _, _ in calls], args, kwargs)

            made = _as_task(functools.wraps(function)(body), function, help, name)
            # Invoke leaves out a call that it takes for one that was made before: by name and code.
            owner = f"{layer.source}: " if layer else ""
            made.pre = [Task(begin, name=f"{owner}{called}, begin")]  # type: ignore[list-item]
            made.post = [Task(end, name=f"{owner}{called}, end")]  # type: ignore[list-item]
            made.is_of_fleet = True  # type: ignore[attr-defined]
            made.bound = bound  # type: ignore[attr-defined]
            return made

        return bound(None)

    return decorate


def plain_task(
    *, help: Mapping[str, str] | None = None, name: str | None = None
) -> Callable[[Callable[..., None]], Task[Any]]:
    """Make a task of a function whose first argument is the Context; it asks no host."""

    def decorate(function: Callable[..., None]) -> Task[Any]:
        def body(context: Context, _redactor: Redactor, *args: Any, **kwargs: Any) -> None:
            function(context, *args, **kwargs)

        return _as_task(_reporting_errors(functools.wraps(function)(body)), function, help, name)

    return decorate
