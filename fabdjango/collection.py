"""The collections of tasks: all of them, each namespace, and one site with settings of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from invoke.collection import Collection
from invoke.tasks import Task

from fabdjango.configuration import Layer
from fabdjango.namespaces import deploy as _top
from fabdjango.namespaces import django as _django
from fabdjango.namespaces import git as _git
from fabdjango.namespaces import gunicorn as _gunicorn
from fabdjango.namespaces import maintenance as _maintenance
from fabdjango.namespaces import nginx as _nginx
from fabdjango.namespaces import release as _release
from fabdjango.namespaces import supervisor as _supervisor
from fabdjango.namespaces import systemd as _systemd
from fabdjango.namespaces import venv as _venv
from fabdjango.session import own_settings

__all__ = [
    "django",
    "git",
    "gunicorn",
    "maintenance",
    "nginx",
    "ns",
    "release",
    "site",
    "supervisor",
    "systemd",
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
    "maintenance": _maintenance,
    "release": _release,
}


def _namespace(name: str, layer: Layer | None = None) -> Collection:
    module = _NAMESPACES[name]
    return _collection(name, module, layer)


def _collection(name: str | None, module: Any, layer: Layer | None) -> Collection:
    made = Collection(name) if name else Collection()
    made.__doc__ = (module.__doc__ or "").strip()
    for task_name in module.__all__:
        found = getattr(module, task_name)
        made.add_task(_bound(found, layer) if layer else found, name=task_name)
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
maintenance = _namespace("maintenance")
release = _namespace("release")

ns = _collection(None, _top, None)
for _each in (git, venv, django, gunicorn, supervisor, systemd, nginx, maintenance, release):
    ns.add_collection(_each)


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
    return made
