"""
From functions of a Runner or a Fleet to the tasks that Fabric knows, and from errors to exit codes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task

from fabdjango.configuration import Layer
from fabdjango.escape import Redactor
from fabdjango.exceptions import FabdjangoError
from fabdjango.session import Choice, fleet_of, own_settings, runners

__all__ = ["fleet_task", "host_task", "plain_task"]


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
    body: Callable[..., None],
    function: Callable[..., None],
    help: Mapping[str, str] | None,
    name: str | None,
    more: Iterable[str] = (),
) -> Task[Any]:
    """``more`` are parameters that the function does not see."""
    parameters = list(inspect.signature(function).parameters.values())
    first = parameters[0].replace(name="c", annotation=inspect.Parameter.empty)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [inspect.Parameter(each, kind, default=False if each == "yes" else "") for each in more]
    body.__signature__ = inspect.Signature([first, *parameters[1:], *added])  # type: ignore[attr-defined]
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


_CHOICE = {
    "role": "Only hosts with this role.",
    "limit": "Only these hosts of the inventory, with commas between them.",
    "yes": "Do not ask, also where the stage wants to be asked.",
}


def fleet_task(
    *, help: Mapping[str, str] | None = None, name: str | None = None, asks: str = ""
) -> Callable[[Callable[..., None]], Task[Any]]:
    """
    Make a task of a function whose first argument is the Fleet of all hosts; flags that choose hosts are added to its own.

    ``asks`` is what it does, such as "Deploy to", if a stage may want to be asked before.

    Fabric calls a task's ``pre`` once, its body for each host, and its ``post``
    once: so the body only gathers, and ``post`` does the work. Called from Python, the body does it at once.
    """
    choice = {name: text for name, text in _CHOICE.items() if name != "yes" or asks}

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
                words = {name: kwargs.pop(name) for name in choice if name in kwargs}
                with fleet_of(contexts, redactor, called, Choice(**words, asks=asks)) as fleet:
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

            made = _as_task(functools.wraps(function)(body), function, {**(help or {}), **choice}, name, choice)
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
