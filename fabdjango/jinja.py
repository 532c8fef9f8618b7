"""
Jinja2 as our templates use it: what they can name, and whatever goes wrong in one told with its line.

render.py imports it when the first template is filled: it is the slowest of all our imports, and few tasks need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import jinja2

from fabdjango.escape import Redactor, python_literal, quote, supervisor_value, yaml_value
from fabdjango.exceptions import ConfigError, FabdjangoError

__all__ = ["OperatorEnvironment", "environment", "filled"]


class OperatorEnvironment(Mapping[str, str]):
    """The operator's environment as ``env`` in a template; remembers what was taken, to hide it in every output."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.taken: set[str] = set()

    def __getitem__(self, name: str) -> str:
        value = self._environ[name]
        self.taken.add(value)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._environ

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


class _NotSetError(jinja2.UndefinedError):
    """A template takes a variable that the operator's environment does not have; its text is the name."""


class _Undefined(jinja2.StrictUndefined):
    """Jinja swallows the KeyError of a mapping, and with it which mapping it was."""

    __slots__ = ()

    def __init__(self, hint: Any = None, obj: Any = jinja2.utils.missing, name: Any = None, exc: Any = None) -> None:
        if isinstance(obj, OperatorEnvironment):
            hint, exc = str(name), _NotSetError
        super().__init__(hint, obj, name, exc or jinja2.UndefinedError)


def _python(value: object) -> str:
    # An undefined name complains by itself, and better, when it is read.
    return python_literal(str(value) if isinstance(value, jinja2.Undefined) else value)


def environment(*folders: Path) -> jinja2.Environment:
    """Looks for templates in ``folders``, the first one first, and has a filter for each of our targets."""
    # autoescape is for HTML.
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.FileSystemLoader(str(folder)) for folder in folders]),
        undefined=_Undefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    made.filters.update(sh=quote, python=_python, supervisor=supervisor_value, yaml=yaml_value)
    return made


def filled(
    name: str,
    load: Callable[[], jinja2.Template],
    values: Mapping[str, object],
    folder: Path,
    secrets: AbstractSet[str] = frozenset(),
) -> str:
    """
    The template that ``load`` gives, filled with ``values``; ``folder`` is where the project has its own.

    Raises ConfigError with the place, in which ``secrets`` are hidden.
    """

    def failed(message: str, cure: str) -> ConfigError:
        hide = Redactor(secrets).hide
        return ConfigError(hide(message), cure=hide(cure))

    try:
        return load().render(**values)
    except _NotSetError as error:
        variable = error.message
        msg = f"{name}{_line_of(error)} needs the environment variable {variable}, which is not set"
        raise failed(msg, f"{variable}='…' fab …") from None
    except jinja2.UndefinedError as error:
        msg = f"the template {name}{_line_of(error)} uses a name that is not defined: {error.message}"
        raise failed(msg, "the names that there are: " + ", ".join(sorted(values))) from None
    except jinja2.TemplateSyntaxError as error:
        msg = f"the template {name} line {error.lineno} cannot be read: {error.message}"
        raise failed(msg, "mend that line") from None
    except jinja2.TemplateNotFound as error:
        msg = f"the template {name}{_line_of(error)} asks for {error.message}, which is not there"
        raise failed(msg, f"templates are looked for in {folder}") from None
    except FabdjangoError:
        raise
    except Exception as error:  # noqa: BLE001 - a template is a program: whatever goes wrong in it is told with its place
        msg = f"the template {name}{_line_of(error)} cannot be filled in: {type(error).__name__}: {error}"
        raise failed(msg, "mend the template") from None


def _line_of(error: Exception) -> str:
    trace = error.__traceback__
    line = ""
    while trace is not None:
        # Jinja gives its own frames the line of the template.
        if "__jinja_exception__" in trace.tb_frame.f_globals:
            line = f" line {trace.tb_lineno}"
        trace = trace.tb_next
    return line
