"""Templates to text. The only module that asks for Jinja2, and the only one that reads a file of environment variables."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from fabdjango.escape import Secret, env_name
from fabdjango.exceptions import ConfigError

if TYPE_CHECKING:
    import jinja2

__all__ = ["Rendered", "Templates", "read_env", "template_root"]

_FREQUENT = (
    "release/run.j2",
    "release/start.j2",
    "release/slot.j2",
    "gunicorn/gunicorn.conf.py.j2",
    "systemd/slot.service.j2",
    "supervisor/program.conf.j2",
)


def template_root() -> Path:
    """The folder of the templates that ship with the package: in it when installed, beside it in a checkout."""
    installed = Path(str(files("fabdjango"))) / "templates"
    return installed if (installed / "gunicorn").is_dir() else Path(__file__).resolve().parent.parent / "templates"


@dataclass(frozen=True)
class Rendered:
    """Text from a project's template, and the values of the operator's environment that went into it."""

    text: str
    secrets: frozenset[str]


class Templates:
    """
    Renders our templates and the project's; a file in ``local_root``/templates replaces ours of the same name.

    ``environ`` is the operator's environment. An undefined name is a ConfigError that names the template and its line.
    """

    def __init__(self, local_root: Path, environ: Mapping[str, str] | None = None) -> None:
        self._local_root = local_root
        self._environ = os.environ if environ is None else environ

    def render(self, name: str, **values: object) -> str:
        """The template ``name``, such as gunicorn/gunicorn.conf.py.j2, filled with ``values``."""
        from fabdjango import jinja

        return jinja.filled(name, lambda: self._jinja.get_template(name), values, self._own)

    def get_ready(self) -> None:
        """Read what nearly every deploy fills in; what is wrong with one of them is said when it is filled."""
        for name in _FREQUENT:
            with contextlib.suppress(Exception):
                self._jinja.get_template(name)

    def render_project_file(self, path: str, key: str, **values: object) -> Rendered:
        """
        A template of the project's own; ``path`` is as the setting ``key`` gives it, from the project's folder.

        In it, ``env`` is the operator's environment.
        """
        from fabdjango import jinja

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
        env = jinja.OperatorEnvironment(self._environ)

        def compiled() -> jinja2.Template:
            template = self._jinja.from_string(source)
            template.filename = path
            return template

        text = jinja.filled(path, compiled, {**values, "env": env}, self._own, secrets=env.taken)
        return Rendered(text, frozenset(env.taken))

    @property
    def _own(self) -> Path:
        return self._local_root / "templates"

    @cached_property
    def _jinja(self) -> jinja2.Environment:
        from fabdjango import jinja

        return jinja.environment(self._own, template_root())


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
