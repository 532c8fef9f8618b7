"""Templates to text. The only module that knows Jinja2, and the only one that reads a file of environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from fabdjango.escape import Redactor, Secret, env_name, python_literal, quote, supervisor_value, yaml_value
from fabdjango.exceptions import ConfigError, FabdjangoError

__all__ = ["Rendered", "Templates", "read_env", "template_root"]


def template_root() -> Path:
    """The folder of the templates that ship with the package: in it when installed, beside it in a checkout."""
    installed = Path(str(files("fabdjango"))) / "templates"
    return installed if (installed / "gunicorn").is_dir() else Path(__file__).resolve().parent.parent / "templates"


class _OperatorEnvironment(Mapping[str, str]):
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
        if isinstance(obj, _OperatorEnvironment):
            hint, exc = str(name), _NotSetError
        super().__init__(hint, obj, name, exc or jinja2.UndefinedError)


@dataclass(frozen=True)
class Rendered:
    """Text from a project's template, and the values of the operator's environment that went into it."""

    text: str
    secrets: frozenset[str]


def _python(value: object) -> str:
    # An undefined name complains by itself, and better, when it is read.
    return python_literal(str(value) if isinstance(value, jinja2.Undefined) else value)


class Templates:
    """
    Renders our templates and the project's; a file in ``local_root``/templates replaces ours of the same name.

    ``environ`` is the operator's environment. An undefined name is a ConfigError that names the template and its line.
    """

    def __init__(self, local_root: Path, environ: Mapping[str, str] | None = None) -> None:
        self._local_root = local_root
        self._environ = os.environ if environ is None else environ
        loader = jinja2.ChoiceLoader(
            [jinja2.FileSystemLoader(str(local_root / "templates")), jinja2.FileSystemLoader(str(template_root()))]
        )
        # autoescape is for HTML; each of our targets has a filter of its own.
        self._jinja = jinja2.Environment(
            loader=loader,
            undefined=_Undefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,  # noqa: S701
        )
        self._jinja.filters.update(sh=quote, python=_python, supervisor=supervisor_value, yaml=yaml_value)

    def render(self, name: str, **values: object) -> str:
        """The template ``name``, such as gunicorn/gunicorn.conf.py.j2, filled with ``values``."""
        return self._rendered(name, lambda: self._jinja.get_template(name), values)

    def render_project_file(self, path: str, key: str, **values: object) -> Rendered:
        """
        A template of the project's own; ``path`` is as the setting ``key`` gives it, from the project's folder.

        In it, ``env`` is the operator's environment.
        """
        place = self._local_root / path
        try:
            place = self._local_root / Path(path).expanduser()
            source = place.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, RuntimeError) as error:
            # A RuntimeError is the ~ of an account that there is not.
            msg = f"fabdjango.{key}: cannot read {place}: {getattr(error, 'strerror', None) or error}"
            raise ConfigError(
                msg, cure=f"paths start at {self._local_root}; change fabdjango.{key} or make the file"
            ) from None
        env = _OperatorEnvironment(self._environ)

        def compiled() -> jinja2.Template:
            template = self._jinja.from_string(source)
            template.filename = path
            return template

        text = self._rendered(path, compiled, {**values, "env": env}, secrets=env.taken)
        return Rendered(text, frozenset(env.taken))

    def _rendered(
        self,
        name: str,
        load: Callable[[], jinja2.Template],
        values: Mapping[str, object],
        secrets: AbstractSet[str] = frozenset(),
    ) -> str:
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
            raise failed(msg, f"templates are looked for in {self._local_root / 'templates'}") from None
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


# --- files of environment variables -------------------------------------------

_LINE = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=(?P<space>[ \t]*)
        (?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<bare>(?:[^\s'"][^\n]*?)?) )
        (?:[ \t]+\#[^\n]*)?[ \t]*\r?(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_SKIP = re.compile(r"[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)")


def read_env(text: str, source: str) -> dict[str, Secret]:
    r"""
    ``NAME=value`` lines as values: bare to the end of the line, or in single or double quotes.

    After a space, # begins a comment. Single quotes mean what they hold. In double quotes a backslash stands
    before ``"``, ``\``, ``$``, a back quote or ``n``. Both may span lines.
    Nothing is expanded. ``export`` before a name, empty lines and lines that
    start with ``#`` are allowed; anything else is a ConfigError with its line.
    """
    values: dict[str, Secret] = {}
    at = 0
    while at < len(text):
        skipped = _SKIP.match(text, at)
        if skipped and skipped.end() > at:
            at = skipped.end()
            continue
        found = _LINE.match(text, at)
        if not found:
            number = text.count("\n", 0, at) + 1
            # The line itself may hold a secret, so it is named and not shown.
            msg = f"{source} line {number} is not NAME=value"
            raise ConfigError(msg, cure="quote a value that holds quotes or spans lines")
        at = found.end()
        value = _value(found)
        if "\0" in value:
            msg = f"{source}: the value of {found['name']} holds a NUL, which no environment can carry"
            raise ConfigError(msg, cure="store it in another form, such as base64")
        values[env_name(found["name"])] = Secret(value)
    return values


def _value(found: re.Match[str]) -> str:
    if found["single"] is not None:
        return found["single"]
    if found["double"] is not None:
        return re.sub(r'\\([\\"$`n])', lambda m: "\n" if m[1] == "n" else m[1], found["double"])
    # A # after a space begins a comment, also where no value stands before it.
    return "" if found["space"] and found["bare"].startswith("#") else str(found["bare"])
