"""What a project lists of packages, and which Python it wants, read from the files that say so. Text in, values out."""

from __future__ import annotations

import ast
import configparser
import posixpath
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fabdjango.pythonsource import Place, dotted, parse, place_in

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["AUTO", "Requirements", "find_requirements", "read_packages", "wanted_python"]

AUTO = (
    "uv.lock",
    "pylock.toml",
    "requirements.txt",
    "requirements/production.txt",
    "requirements/prod.txt",
    "pyproject.toml",
    "setup.py",
)
"""What a deploy looks for at the top of the commit, best first, where venv.requirements is auto."""
_ELSEWHERE = (
    "pylock.toml",
    "requirements.txt",
    "requirements/production.txt",
    "requirements/prod.txt",
    "requirements-production.txt",
    "requirements-prod.txt",
    "requirements_prod.txt",
    "requirements/base.txt",
    "requirements/common.txt",
    "pyproject.toml",
)
_FOR_SERVERS = {"production", "prod", "deploy", "deployment", "server"}

Read = Callable[[str], "str | None"]
Packages = dict[str, Place]


_EXTRAS = re.compile(r"\s*\[([^\]]*)\]")


@dataclass(frozen=True)
class Requirements:
    """
    What a deploy installs.

    ``file`` is empty if nothing was found, and ``auto`` is True if a deploy takes
    it by itself. ``packages`` maps a normalised name to where it is listed,
    ``extras`` and ``groups`` are those that are called after a server;
    ``choices`` are all extras that there are, each with its packages.
    """

    file: str = ""
    auto: bool = True
    packages: Mapping[str, Place] = field(default_factory=dict)
    extras: Mapping[str, Place] = field(default_factory=dict)
    groups: Mapping[str, Place] = field(default_factory=dict)
    choices: Mapping[str, Mapping[str, Place]] = field(default_factory=dict)

    def has(self, *names: str) -> Place | None:
        """Where the first of these packages that is listed is."""
        return next((self.packages[name] for name in names if name in self.packages), None)


def find_requirements(read: Read, paths: Collection[str], folder: str) -> Requirements:
    """
    The file to install from: the first that lists Django, of those that a deploy takes by itself and then of their like.

    ``folder`` is that of manage.py. Where no file lists Django, it is the one that a deploy would take.
    """
    usual = next((name for name in AUTO if name in paths), "")
    below = [posixpath.join(folder, name) for name in _ELSEWHERE] if folder else []
    found = {name: read_packages(name, read) for name in dict.fromkeys([*AUTO, *below, *_ELSEWHERE]) if name in paths}
    chosen = next((name for name in found if "django" in found[name]), usual or next(iter(found), ""))
    if not chosen:
        return Requirements()
    project = posixpath.join(posixpath.dirname(chosen), "pyproject.toml")
    has_extras = posixpath.basename(chosen) in ("uv.lock", "pyproject.toml")
    choices = _optional(project, read, "project", "optional-dependencies") if has_extras else {}
    groups = _optional(project, read, "dependency-groups") if chosen == "uv.lock" else {}
    extras = {name: listed for name, listed in choices.items() if normal(name) in _FOR_SERVERS}
    packages = {name: place for listed in extras.values() for name, place in listed.items()}
    return Requirements(
        chosen,
        chosen == usual,
        {**packages, **found[chosen]},
        _places(extras, project, read),
        _places([name for name in groups if normal(name) in _FOR_SERVERS], project, read),
        choices,
    )


def read_packages(path: str, read: Read, seen: frozenset[str] = frozenset()) -> Packages:
    """The packages that a file lists, with those of the files that it names with -r; of a lock file all that it has."""
    text = read(path) or ""
    name = posixpath.basename(path)
    if name in ("uv.lock", "pylock.toml"):
        return {normal(found[1]): place_in(path, text, found.start(1)) for found in _LOCKED.finditer(text)}
    if name == "pyproject.toml":
        return _listed(_dependencies(_toml(text)), path, text)
    if name == "setup.py":
        return {**_of_setup_cfg(read), **_listed(_of_setup(text), path, text)}
    return {} if path in seen else _of_lines(path, text, read, seen | {path})


_LOCKED = re.compile(r'^\[\[packages?\]\]\s*\nname = "([^"\n]+)"', re.MULTILINE)
_NESTED = re.compile(r"\s*(?:-r|--requirement)[\s=]*([^\s#]+)")
_NAME = re.compile(
    r"\s*(?:(?:-e|--editable)\s*\S*#egg=)?([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:$|[\[<>=!~;@#(\\^,]|\s--)"
)


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _of_lines(path: str, text: str, read: Read, seen: frozenset[str]) -> Packages:
    found: Packages = {}
    for number, line in enumerate(text.splitlines(), 1):
        nested, named = _NESTED.match(line), _NAME.match(line)
        if nested:
            below = posixpath.normpath(posixpath.join(posixpath.dirname(path), nested[1].strip("'\"")))
            found = {**read_packages(below, read, seen), **found}
        elif named:
            _keep(found, line, named, Place(path, number))
    return found


def _keep(found: Packages, requirement: str, named: re.Match[str], place: Place) -> None:
    """Take a package in, and each of its extras as name[extra]."""
    name = normal(named[1])
    found.setdefault(name, place)
    extras = _EXTRAS.match(requirement, named.end(1))
    for extra in extras[1].split(",") if extras else ():
        found.setdefault(f"{name}[{normal(extra.strip())}]", place)


def _listed(names: Iterable[str], path: str, text: str) -> Packages:
    """Requirement lines with the line of the file that they stand in."""
    found: Packages = {}
    for requirement in names:
        named = _NAME.match(requirement)
        if named:
            at = re.search(rf"""(?:["']|^\s*){re.escape(named[1])}\b""", text, re.MULTILINE)
            _keep(found, requirement, named, place_in(path, text, at.end()) if at else Place(path))
    return found


# --- pyproject.toml, setup.py, setup.cfg -----------------------------------------


def _toml(text: str) -> dict[str, Any]:
    try:
        return dict(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return {}


def _table(values: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


def _texts(values: Any) -> list[str]:
    return [each for each in values if isinstance(each, str)] if isinstance(values, list) else []


def _dependencies(project: dict[str, Any]) -> list[str]:
    poetry = _table(project, "tool", "poetry", "dependencies")
    return [*_texts(_table(project, "project").get("dependencies")), *(name for name in poetry if name != "python")]


def _optional(path: str, read: Read, *keys: str) -> dict[str, Packages]:
    """Extras or dependency groups with their packages."""
    text = read(path) or ""
    return {name: _listed(_texts(listed), path, text) for name, listed in _table(_toml(text), *keys).items()}


def _places(named: Iterable[str], path: str, read: Read) -> dict[str, Place]:
    text = read(path) or ""
    found = {name: re.search(rf"""^\s*["']?{re.escape(name)}["']?\s*=""", text, re.MULTILINE) for name in named}
    return {name: place_in(path, text, at.end()) if at else Place(path) for name, at in found.items()}


def _of_setup(text: str) -> list[str]:
    """Every string in install_requires of setup(), or in the list of that name."""
    tree = parse(text)
    if tree is None:
        return []
    values: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func).endswith("setup"):
            values += [each.value for each in node.keywords if each.arg == "install_requires"]
        elif isinstance(node, ast.Assign) and any("require" in dotted(target).lower() for target in node.targets):
            values.append(node.value)
    parts = (part for value in values for part in ast.walk(value))
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def _of_setup_cfg(read: Read) -> Packages:
    text = read("setup.cfg") or ""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
        listed = parser.get("options", "install_requires", fallback="")
    except configparser.Error:
        return {}
    return _listed(listed.splitlines(), "setup.cfg", text)


# --- Python ------------------------------------------------------------------------


def wanted_python(read: Read, paths: Collection[str]) -> tuple[str, Place] | None:
    """Which Python the project asks for, as its file says it, and where; None if it does not say."""
    for path, pattern in _PYTHONS:
        found = re.search(pattern, read(path) or "", re.MULTILINE) if path in paths else None
        if found:
            return found[1].strip(), place_in(path, found.string, found.start(1))
    return None


_PYTHONS = (
    (".python-version", r"^\s*(?:cpython-)?(\d[\d.]*)\s*$"),
    ("runtime.txt", r"^\s*python-(\d[\d.]*)\s*$"),
    ("pyproject.toml", r"""^requires-python\s*=\s*["']([^"'\n]+)["']"""),
    ("pyproject.toml", r"""^python\s*=\s*["']([^"'\n]+)["']"""),
    ("Pipfile", r"""^python_(?:full_)?version\s*=\s*["']([^"'\n]+)["']"""),
    ("setup.cfg", r"^python_requires\s*=\s*(\S.*)$"),
)
