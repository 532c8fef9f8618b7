"""
Settings modules as ``ast`` sees them: what is assigned and imported, in which line. Nothing of a project is imported or run.

What a server does not take is left out: branches for DEBUG and for tests, and what stands in where an import fails.
"""

from __future__ import annotations

import ast
import fnmatch
import posixpath
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

__all__ = ["Assigned", "Place", "Source", "dotted", "module_files", "parse", "place_in", "read_source"]


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file, as a path from the top of the commit; line 0 is the file as a whole."""

    path: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.path} line {self.line}" if self.line else self.path


def place_in(path: str, text: str, offset: int) -> Place:
    """The line of a file's text that an offset is in."""
    return Place(path, text.count("\n", 0, offset) + 1)


@dataclass(frozen=True)
class Assigned:
    """
    One assignment: ``DATABASES["default"]["NAME"] = …`` has the name DATABASES and two keys.

    ``adds`` is True for ``+=``, ``append`` and their like. ``within`` is the class
    it stands in, or an empty string. ``sure`` is False below an ``if`` or ``try``. ``scope`` is the file whose names it is made
    of, if that was imported by name, and ``hidden`` says that it is not one of those names itself.
    """

    name: str
    keys: tuple[object, ...]
    value: ast.expr
    place: Place
    number: int
    adds: bool = False
    within: str = ""
    sure: bool = True
    scope: str = ""
    hidden: bool = False


@dataclass
class Source:
    """
    Everything that a settings module assigns, with what it imports by ``*`` or by name, in order.

    ``imported`` maps a name to what it is imported from. ``missing`` are modules of
    the project's own that are no files here. ``broken`` are files that Python
    cannot read, ``classes`` maps a class to its bases.
    """

    assigned: list[Assigned] = field(default_factory=list)
    imported: dict[str, str] = field(default_factory=dict)
    missing: dict[str, Place] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)

    def all(self, name: str) -> list[Assigned]:
        """Everything that says something about ``name``, in order."""
        return [each for each in self.assigned if each.name == name and not each.within and not each.hidden]

    def last(self, name: str, before: Assigned | None = None) -> Assigned | None:
        """The assignment of ``name`` as a whole that counts, as seen from the assignment ``before``; or None."""
        whole = [each for each in self.assigned if each.name == name and not (each.adds or each.keys or each.within)]
        if before:
            whole = [each for each in whole if each.number < before.number]
            whole = [each for each in whole if each.scope == before.scope] or whole
        seen = [each for each in whole if not each.hidden or (before and each.scope == before.scope)]
        return seen[-1] if seen else None

    def text_in(self, names: str, texts: str) -> Place | None:
        """Where a string that matches the pattern ``texts`` stands in what is assigned to a name that matches ``names``."""
        for each in self.assigned:
            if re.fullmatch(names, each.name):
                for text, line in _strings(each.value):
                    if re.fullmatch(texts, text):
                        return Place(each.place.path, line)
        return None

    def choose_class(self, name: str) -> None:
        """Take what a class of django-configurations and its bases assign for the module's own."""
        lineage = self._lineage(name)
        self.assigned = [replace(each, within="") if each.within in lineage else each for each in self.assigned]

    def _lineage(self, name: str, depth: int = 0) -> set[str]:
        bases = self.classes.get(name, []) if depth < 10 else []
        return {name}.union(*(self._lineage(base, depth + 1) for base in bases))


def parse(text: str) -> ast.Module | None:
    """The tree of a Python file, or None if it is none for the Python that runs here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def dotted(node: ast.AST) -> str:
    """``os.environ.get`` as text, or an empty string for anything but names with dots between."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return f"{start}.{node.attr}" if start else ""
    return ""


def module_files(module: str, folder: str) -> tuple[str, str]:
    """The two files that a module may be, as seen from a folder that imports start from; as in Python, a package wins."""
    base = posixpath.join(folder, *module.split(".")) if module else folder or "."
    return posixpath.normpath(f"{base}/__init__.py"), posixpath.normpath(f"{base}.py")


def read_source(path: str, read: Callable[[str], str | None], folders: Sequence[str], paths: Iterable[str]) -> Source:
    """
    The settings module in the file ``path``.

    ``read`` gives a file's text, ``folders`` are those that imports start from,
    ``paths`` are all files that there are.
    """
    reader = _Reader(read, folders, frozenset(paths))
    reader.file(path)
    return reader.source


class _Reader:
    def __init__(self, read: Callable[[str], str | None], folders: Sequence[str], paths: frozenset[str]) -> None:
        self.source = Source()
        self.read = read
        self.folders = folders
        self.paths = paths
        self.open: list[str] = []
        self.unsure = 0

    def file(self, path: str, only: Mapping[str, str] | None = None) -> None:
        """Take in a file; of one that is imported by name, only these names, under those that they get."""
        if path in self.open or len(self.open) > 20:
            return
        tree = parse(self.read(path) or "")
        self.source.files.append(path)
        if tree is None:
            self.source.broken.append(path)
            return
        self.open.append(path)
        before = len(self.source.assigned)
        self.block(tree.body, path)
        self.open.pop()
        if only is not None:
            added = self.source.assigned[before:]
            self.source.assigned[before:] = [_imported(each, only, path) for each in added]

    def block(self, body: Iterable[ast.stmt], path: str, within: str = "") -> None:
        for statement in body:
            self.statement(statement, path, within)

    def statement(self, node: ast.stmt, path: str, within: str) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self.assign(target, node.value, path, within)
        elif isinstance(node, ast.AnnAssign) and node.value:
            self.assign(node.target, node.value, path, within)
        elif isinstance(node, ast.AugAssign):
            self.assign(node.target, node.value, path, within, adds=True)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self.call(node.value, path, within)
        elif isinstance(node, ast.ImportFrom):
            self.import_from(node, path)
        elif isinstance(node, ast.Import):
            self.source.imported.update({each.asname or each.name: each.name for each in node.names})
        elif isinstance(node, ast.ClassDef):
            self.source.classes[node.name] = [dotted(base).rpartition(".")[2] for base in node.bases]
            self.block(node.body, path, node.name)
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            self.unsure += isinstance(node, (ast.If, ast.Try))
            for body in _branches(node):
                self.block(body, path, within)
            self.unsure -= isinstance(node, (ast.If, ast.Try))

    def assign(self, target: ast.expr, value: ast.expr, path: str, within: str, *, adds: bool = False) -> None:
        if isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
            for each, part in zip(target.elts, value.elts, strict=False):
                self.assign(each, part, path, within, adds=adds)
            return
        keys: list[object] = []
        while isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            keys.insert(0, target.slice.value)
            target = target.value
        if isinstance(target, ast.Name):
            number, place = len(self.source.assigned), Place(path, value.lineno)
            found = Assigned(target.id, tuple(keys), value, place, number, adds, within, not self.unsure)
            self.source.assigned.append(found)

    def call(self, node: ast.Call, path: str, within: str) -> None:
        """``NAME.append(…)`` and its like, and django-split-settings."""
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"append", "insert", "extend", "update"}:
            for argument in node.args[-1:]:
                self.assign(node.func.value, argument, path, within, adds=True)
        elif dotted(node.func) == "include" and self.source.imported.get("include", "").startswith("split_settings"):
            for name, _ in (each for argument in node.args for each in _strings(argument)):
                pattern = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
                for found in sorted(fnmatch.filter(self.paths, pattern)):
                    self.file(found)

    def import_from(self, node: ast.ImportFrom, path: str) -> None:
        module = "." * node.level + (node.module or "")
        names = {each.name: each.asname or each.name for each in node.names if each.name != "*"}
        self.source.imported.update({new: f"{module}.{name}".lstrip(".") for name, new in names.items()})
        found = self.resolve(node.module or "", node.level, path)
        if found:
            self.file(found, names or None)
        elif self.is_ours(module):
            self.source.missing[module] = Place(path, node.lineno)

    def is_ours(self, module: str) -> bool:
        """True if a module that is not there would be one of the project's."""
        start = module.split(".", maxsplit=1)[0]
        folders = [posixpath.join(folder, start) + "/" for folder in self.folders]
        return (
            module.startswith(".")
            or "local_settings" in module
            or any(path.startswith(tuple(folders)) for path in self.paths)
        )

    def resolve(self, module: str, level: int, path: str) -> str:
        """The file that an import takes, if it is one of the project's."""
        starts = [PurePosixPath(path).parents[level - 1].as_posix()] if level else self.folders
        files = [name for start in starts for name in module_files(module, start)]
        return next((name for name in files if name in self.paths), "")


def _imported(assigned: Assigned, only: Mapping[str, str], path: str) -> Assigned:
    name = only.get(assigned.name, assigned.name)
    hidden = assigned.hidden or (assigned.name not in only and assigned.within not in only)
    return replace(assigned, name=name, scope=assigned.scope or path, hidden=hidden)


def _branches(node: ast.If | ast.Try | ast.With | ast.For | ast.While) -> list[list[ast.stmt]]:
    """The parts of a statement that a server may take, the likeliest last, as the last assignment counts."""
    if isinstance(node, ast.If):
        body = [] if _is_for_developers(node.test) else node.body
        return [node.orelse, body] if "environ" in ast.dump(node.test).lower() else [body, node.orelse]
    if isinstance(node, ast.Try):
        return [*(handler.body for handler in node.handlers), node.body, node.orelse, node.finalbody]
    return [node.body]


_DEVELOPERS = {"dev", "develop", "development", "local", "debug", "test", "tests", "testing", "ci"}


def _is_for_developers(test: ast.expr) -> bool:
    """True for ``DEBUG``, ``"test" in sys.argv``, ``ENVIRONMENT == "development"`` and what is and-ed with one of them."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(_is_for_developers, test.values))
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], (ast.Eq, ast.In)):
        sides = [test.left, *test.comparators]
        return any(isinstance(side, ast.Constant) and str(side.value).lower() in _DEVELOPERS for side in sides)
    return dotted(test).rpartition(".")[2] in {"DEBUG", "TESTING", "TEST", "TYPE_CHECKING"}


def _strings(node: ast.expr) -> Iterator[tuple[str, int]]:
    """Every string below an expression, and its line."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value, part.lineno
