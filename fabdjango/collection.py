"""The collections of tasks: all of them, each namespace, and one site with settings of its own."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from invoke import loader
from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import Task
from invoke.vendor import yaml

from fabdjango.configuration import Layer
from fabdjango.namespaces import config as _config
from fabdjango.namespaces import db as _db
from fabdjango.namespaces import deploy as _top
from fabdjango.namespaces import django as _django
from fabdjango.namespaces import env as _env
from fabdjango.namespaces import git as _git
from fabdjango.namespaces import gunicorn as _gunicorn
from fabdjango.namespaces import host as _host
from fabdjango.namespaces import maintenance as _maintenance
from fabdjango.namespaces import nginx as _nginx
from fabdjango.namespaces import release as _release
from fabdjango.namespaces import schedule as _schedule
from fabdjango.namespaces import server as _server
from fabdjango.namespaces import supervisor as _supervisor
from fabdjango.namespaces import systemd as _systemd
from fabdjango.namespaces import tls as _tls
from fabdjango.namespaces import venv as _venv
from fabdjango.session import choose_stage, own_settings, reserve
from fabdjango.settings import ROOT_KEY
from fabdjango.tasking import plain_task

__all__ = [
    "config",
    "db",
    "django",
    "env",
    "git",
    "gunicorn",
    "host",
    "maintenance",
    "nginx",
    "ns",
    "release",
    "schedule",
    "server",
    "site",
    "supervisor",
    "systemd",
    "tls",
    "venv",
]

_NAMESPACES = {
    "git": _git,
    "venv": _venv,
    "django": _django,
    "gunicorn": _gunicorn,
    "supervisor": _supervisor,
    "systemd": _systemd,
    "nginx": _nginx,
    "tls": _tls,
    "maintenance": _maintenance,
    "db": _db,
    "release": _release,
    "server": _server,
    "config": _config,
    "env": _env,
    "schedule": _schedule,
    "host": _host,
}


def _namespace(name: str, layer: Layer | None = None) -> Collection:
    module = _NAMESPACES[name]
    return _collection(name, module, layer)


def _collection(name: str | None, module: Any, layer: Layer | None) -> Collection:
    made = Collection(name) if name else Collection()
    made.__doc__ = (module.__doc__ or "").strip()
    for task_name in module.__all__:
        found = getattr(module, task_name)
        is_default = task_name == getattr(module, "DEFAULT", "")
        made.add_task(_bound(found, layer) if layer else found, name=task_name, default=is_default)
    return made


def _bound(original: Task[Any], layer: Layer) -> Task[Any]:
    """The same task, run with the settings of one site."""
    if getattr(original, "is_of_fleet", False):
        return original.bound(layer)  # type: ignore[attr-defined, no-any-return]

    @functools.wraps(original.body)
    def body(*args: Any, **kwargs: Any) -> Any:
        token = own_settings.set(layer)
        try:
            return original.body(*args, **kwargs)
        finally:
            own_settings.reset(token)

    return Task(body, name=original.name, help=original.help, auto_shortflags=original.auto_shortflags)


git = _namespace("git")
venv = _namespace("venv")
django = _namespace("django")
gunicorn = _namespace("gunicorn")
supervisor = _namespace("supervisor")
systemd = _namespace("systemd")
nginx = _namespace("nginx")
tls = _namespace("tls")
maintenance = _namespace("maintenance")
db = _namespace("db")
release = _namespace("release")
server = _namespace("server")
config = _namespace("config")
env = _namespace("env")
schedule = _namespace("schedule")
host = _namespace("host")

# --- stages ------------------------------------------------------------------

_TAKEN = frozenset(_top.__all__) | frozenset(_NAMESPACES)
"""What a stage cannot be called; the settings are refused when they are read."""
reserve(_TAKEN)


def _settings_file() -> Path | None:
    """
    The project's settings beside the fabfile that is being loaded now, without the suffix; None if none is loaded.

    Invoke reads fabric.yaml only after the fabfile is loaded, and does not tell
    the fabfile where it is: sys.path begins with that folder only if it was not
    in there before. So this looks for the module that Invoke's loader executes.
    """
    frame: FrameType | None = inspect.currentframe()
    module: Mapping[str, Any] = {}
    while frame and frame.f_code.co_filename != loader.__file__:
        if frame.f_code.co_name == "<module>":
            module = frame.f_globals
        frame = frame.f_back
    if not frame or "__file__" not in module:
        return None
    place = Path(module["__file__"]).resolve()
    # A fabfile may be a package; its settings lie beside the package. fab reads fabric.yaml, inv reads invoke.yaml.
    folder = place.parent.parent if "__path__" in module else place.parent
    return folder / str(frame.f_locals["self"].config.prefix)


def _stages_of(file: Path) -> list[str]:
    """The stages of fabric.yaml; none if it cannot be read, which is told when settings are needed."""
    for suffix in ("yaml", "yml", "json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
            text = file.with_suffix(f".{suffix}").read_text(encoding="utf-8")
            if "stages" not in text:
                return []
            return list((yaml.safe_load(text)[ROOT_KEY].get("stages") or {}).keys())  # type: ignore[no-untyped-call]
    return []


def _add_stages(made: Collection, more: Iterable[Any] = ()) -> None:
    file = _settings_file()
    names = [*(_stages_of(file) if file else ()), *more]
    for name in dict.fromkeys(names):
        if isinstance(name, str) and re.fullmatch(r"[A-Za-z]\w*(-\w+)*", name) and name not in _TAKEN:
            made.add_task(_stage_task(name), name=name)


def _stage_task(name: str) -> Task[Any]:
    def stage(_: Context) -> None:
        choose_stage(name)

    stage.__doc__ = f"""
    Choose the stage {name} for the tasks after this one.
    """
    return plain_task(name=name)(stage)


ns = _collection(None, _top, None)
for _each in (
    git,
    venv,
    django,
    gunicorn,
    supervisor,
    systemd,
    nginx,
    tls,
    maintenance,
    db,
    release,
    server,
    config,
    env,
    schedule,
    host,
):
    ns.add_collection(_each)
_add_stages(ns)

# What has been imported stays until the process ends: no collection needs to look at it again, and the one at the very
# end took a quarter of the processor time of a short task.
gc.freeze()


def site(name: str, settings: Mapping[str, Any] | None = None, **more: Any) -> Collection:
    """
    All tasks as a collection called ``name``, for one of several sites in a fabfile.

    ``settings`` is what fabric.yaml has below ``fabdjango:``; keywords say the
    same, with two underscores for a level: ``gunicorn__bind="127.0.0.1:8001"``.
    They win over the files and give way to the environment. The project's name
    is ``name`` unless they say otherwise.
    """
    values: dict[str, Any] = {"project": name, **dict(settings or {})}
    for keyword, value in more.items():
        *parents, leaf = keyword.split("__")
        into = values
        for parent in parents:
            below = into.get(parent)
            into[parent] = dict(below) if isinstance(below, Mapping) else {}
            into = into[parent]
        into[leaf] = value
    layer = Layer(f'the fabfile, site("{name}")', values)
    made = _collection(name, _top, layer)
    for each in _NAMESPACES:
        made.add_collection(_namespace(each, layer))
    stages = values.get("stages")
    _add_stages(made, stages if isinstance(stages, Mapping) else ())
    return made
