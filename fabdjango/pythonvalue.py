"""
What an expression of a settings module is made of: variables of the environment, and its value where none of them is set.

Nothing is run. What the text alone does not tell is UNKNOWN, never an error.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final

from fabdjango.pythonsource import Assigned, Place, Source, dotted

__all__ = [
    "TOP",
    "UNKNOWN",
    "Variable",
    "every_variable",
    "value_of",
    "value_of_name",
    "variables_in",
    "variables_of",
]

TOP: Final = "/top-of-the-commit"
"""What a path of the project begins with, as a value."""


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()


# --- the environment -----------------------------------------------------------


@dataclass(frozen=True)
class Variable:
    """
    A variable of the environment that settings read.

    ``kind`` is str, bool, list, db (a URL of a database) or what else it is
    read as. It is ``required`` if the settings cannot be imported without it.
    """

    name: str
    kind: str
    required: bool
    place: Place
    default: ast.expr | None = field(default=None, compare=False, repr=False)


def variables_of(name: str, source: Source) -> list[Variable]:
    """What the setting ``name`` is made of, also through other names; those of the assignment that counts first."""
    found: list[Variable] = []
    for each in reversed(source.all(name)):
        found += variables_in(each.value, source, each)
    return list(dict.fromkeys(found))


def variables_in(node: ast.expr, source: Source, at: Assigned, depth: int = 0) -> list[Variable]:
    """The same for one expression of the assignment ``at``."""
    found = []
    for part in ast.walk(node):
        if isinstance(part, (ast.Call, ast.Subscript)):
            found.append(_variable(part, source, at))
        elif isinstance(part, ast.Name) and depth < 5:
            below = source.last(part.id, at)
            if below and not _makes_a_reader(below.value):
                found += variables_in(below.value, source, below, depth + 1)
    return [each for each in found if each]


def every_variable(source: Source) -> list[tuple[Variable, Assigned]]:
    """
    All that the module reads, once each, with the assignment that does.

    One that is only read under a condition is not required.
    """
    found: dict[str, tuple[Variable, Assigned]] = {}
    for each in source.assigned:
        for part in ast.walk(each.value) if not each.within else ():
            variable = _variable(part, source, each) if isinstance(part, (ast.Call, ast.Subscript)) else None
            if variable and variable.required and (not each.sure or _is_conditional(part, each.value)):
                variable = replace(variable, required=False)
            if variable and not (variable.name in found and found[variable.name][0].required):
                found[variable.name] = (variable, each)
    return list(found.values())


def _is_conditional(part: ast.AST, whole: ast.expr) -> bool:
    choices = [node for node in ast.walk(whole) if isinstance(node, (ast.IfExp, ast.BoolOp))]
    return any(part is each for choice in choices for each in ast.walk(choice))


_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_READER = re.compile(
    r"_?(get_?)?(os_?)?env(iron)?(_?(var|variable|value|setting))?(_?(?P<kind>str|string|bool|boolean|int|list|json))?|getenv|get_secret"
)
_TYPES = {"str", "bool", "int", "list", "dict", "float", "tuple"}


def _makes_a_reader(node: ast.expr) -> bool:
    """True for ``environ.Env(DEBUG=(bool, False))``, which reads nothing by itself."""
    made = dotted(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    return made in {"Env", "FileAwareEnv", "Config", "AutoConfig"}


def _variable(node: ast.Call | ast.Subscript, source: Source, at: Assigned) -> Variable | None:
    """The variable that a call or a subscript reads, or None."""
    place = Place(at.place.path, node.lineno)
    if isinstance(node, ast.Subscript):
        read = dotted(node.value).rpartition(".")[2] == "environ" or _is_reader(dotted(node.value), source)
        return Variable(_text(node.slice), "str", True, place) if read and _is_name(node.slice) else None
    start, _, function = dotted(node.func).rpartition(".")
    keywords = {each.arg: each.value for each in node.keywords if each.arg}
    default = keywords.get("default")
    if (start, function) == ("dj_database_url", "config"):
        return Variable(_text(keywords.get("env")) or "DATABASE_URL", "db", default is None, place, default)
    if source.imported.get(start.split(".")[0], "").startswith("configurations") and function.endswith("Value"):
        return _of_configurations(function, node, keywords, at, place)
    plain = function == "getenv" or (function == "get" and start.endswith("environ"))
    if not plain and not _is_reader(start or function, source):
        return None
    name = node.args[0] if node.args else keywords.get("name", keywords.get("var"))
    kind = _kind(start, function, keywords.get("cast"))
    if name is None and kind == "db":
        return Variable("DATABASE_URL", kind, default is None, place, default)
    if not _is_name(name):
        return None
    if default is None and len(node.args) > 1 and dotted(node.args[1]) not in _TYPES:
        default = node.args[1]
    # What a function of the project's own does without the variable, only it knows.
    raises = _is_known_reader(start or function, source) or _is_true(keywords.get("required"))
    optional = function in {"get", "getenv"} or not raises or _has_scheme(start or function, _text(name), source)
    return Variable(_text(name), kind, default is None and not optional, place, default)


def _is_name(node: ast.expr | None) -> bool:
    return bool(_NAME.fullmatch(_text(node)))


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _kind(start: str, function: str, cast: ast.expr | None) -> str:
    if cast is not None:
        return "list" if "Csv" in ast.dump(cast) or "split" in ast.dump(cast) else dotted(cast)
    if function in {"db", "db_url", "dj_db_url"}:
        return "db"
    named = _READER.fullmatch(function.lower())
    kind = (named["kind"] if named else function if start else "") or "str"
    return {"get": "str", "string": "str", "boolean": "bool", "tuple": "list"}.get(kind, kind)


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _is_known_reader(name: str, source: Source) -> bool:
    """True for django-environ's or environs' Env, decouple's config, and what is imported under such a name."""
    first = name.split(".", maxsplit=1)[0]
    made = source.last(first)
    libraries = ("decouple.", "starlette.config", "environ.", "environs.")
    return bool(made and _makes_a_reader(made.value)) or source.imported.get(first, "").startswith(libraries)


def _is_reader(name: str, source: Source) -> bool:
    """True if calls of ``name`` or of its methods read the environment."""
    last = name.rpartition(".")[2]
    return _is_known_reader(name, source) or bool(_READER.fullmatch(last.lower())) or name == "config"


def _has_scheme(reader: str, name: str, source: Source) -> bool:
    """True if ``env = Env(NAME=(bool, False))`` has a default for the variable."""
    made = source.last(reader.split(".", maxsplit=1)[0])
    keywords = made.value.keywords if made and isinstance(made.value, ast.Call) else []
    return any(each.arg == name and isinstance(each.value, ast.Tuple) and len(each.value.elts) > 1 for each in keywords)


def _of_configurations(
    function: str, node: ast.Call, keywords: Mapping[str, ast.expr], at: Assigned, place: Place
) -> Variable:
    """``SECRET_KEY = values.SecretValue()`` reads DJANGO_SECRET_KEY."""
    default = node.args[0] if node.args else None
    if function == "DatabaseURLValue":
        return Variable("DATABASE_URL", "db", default is None, place, default)
    prefix = "DJANGO" if "environ_prefix" not in keywords else _text(keywords["environ_prefix"])
    name = "_".join(filter(None, [prefix, _text(keywords.get("environ_name")) or at.name]))
    kind = function.removesuffix("Value").lower()
    return Variable(name, {"boolean": "bool"}.get(kind, kind), kind == "secret", place, default)


# --- values --------------------------------------------------------------------


def value_of_name(name: str, source: Source) -> Any:
    """What the setting ``name`` is where no variable is set; UNKNOWN if it is not assigned, or if nobody can tell."""
    found = source.last(name)
    return value_of(found.value, source, found) if found else UNKNOWN


def value_of(node: ast.expr | None, source: Source, at: Assigned) -> Any:
    """
    What an expression of the assignment ``at`` is where no variable is set.

    A constant, a list or dict of what is known, or a path; one of the project
    is a PurePosixPath, or text, below TOP.
    """
    return _Evaluation(source, at).of(node)


class _Evaluation:
    def __init__(self, source: Source, at: Assigned, depth: int = 0) -> None:
        self.source = source
        self.at = at
        self.depth = depth

    def of(self, node: ast.expr | None) -> Any:
        kind = type(node)
        self.depth += 1
        try:
            return _KINDS[kind](self, node) if kind in _KINDS and self.depth < 60 else UNKNOWN
        except Exception:  # noqa: BLE001 - an odd expression is not known, whatever it does to us
            return UNKNOWN
        finally:
            self.depth -= 1

    def all_of(self, nodes: Sequence[ast.expr]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            value = self.of(node.value if isinstance(node, ast.Starred) else node)
            found += value if isinstance(node, ast.Starred) and isinstance(value, list) else [value]
        return found

    def name(self, node: ast.Name) -> Any:
        if node.id == "__file__":
            return f"{TOP}/{self.at.place.path}"
        found = self.source.last(node.id, self.at)
        return _Evaluation(self.source, found, self.depth).of(found.value) if found else UNKNOWN

    def text(self, node: ast.JoinedStr) -> Any:
        parts = [self.of(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
        return UNKNOWN if UNKNOWN in parts else "".join(map(str, parts))

    def mapping(self, node: ast.Dict) -> Any:
        return {self.of(key): self.of(value) for key, value in zip(node.keys, node.values, strict=True) if key}

    def either(self, node: ast.BoolOp) -> Any:
        value: Any = UNKNOWN
        for part in node.values:
            value = self.of(part)
            if value is UNKNOWN or bool(value) == isinstance(node.op, ast.Or):
                return value
        return value

    def inverse(self, node: ast.UnaryOp) -> Any:
        value = self.of(node.operand)
        return UNKNOWN if value is UNKNOWN or not isinstance(node.op, ast.Not) else not value

    def choice(self, node: ast.IfExp) -> Any:
        test = self.of(node.test)
        return UNKNOWN if test is UNKNOWN else self.of(node.body if test else node.orelse)

    def comparison(self, node: ast.Compare) -> Any:
        left, right = self.of(node.left), self.of(node.comparators[0])
        compare = _COMPARED.get(type(node.ops[0]))
        return UNKNOWN if UNKNOWN in (left, right) or len(node.ops) > 1 or not compare else compare(left, right)

    def operation(self, node: ast.BinOp) -> Any:
        left, right = self.of(node.left), self.of(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) != isinstance(right, list):
            # Of a list that is added to, the part that is known is better than nothing.
            return left if isinstance(left, list) else right
        if UNKNOWN in (left, right):
            return UNKNOWN
        operate = _OPERATIONS.get(type(node.op))
        return operate(left, right) if operate else UNKNOWN

    def item(self, node: ast.Subscript) -> Any:
        return UNKNOWN if _variable(node, self.source, self.at) else self.of(node.value)[self.of(node.slice)]

    def attribute(self, node: ast.Attribute) -> Any:
        value = self.of(node.value)
        known = isinstance(value, PurePosixPath) and node.attr in {"parent", "parents", "name", "stem"}
        return getattr(value, node.attr) if known else UNKNOWN

    def call(self, node: ast.Call) -> Any:
        variable = _variable(node, self.source, self.at)
        if variable:
            return self.unset(variable)
        arguments = self.all_of(node.args)
        if UNKNOWN in arguments:
            return UNKNOWN
        if isinstance(node.func, ast.Attribute):
            on, method = self.of(node.func.value), node.func.attr
            if isinstance(on, PurePosixPath):
                return _of_path(on, method, arguments)
            if isinstance(on, str) and method in _OF_TEXT:
                return getattr(on, method)(*arguments)
        function = dotted(node.func).rpartition(".")[2]
        if function in _FUNCTIONS:
            return _FUNCTIONS[function](*arguments)
        inner = self.of(node.func)
        # django-environ: ROOT_DIR("static")
        return inner.joinpath(*arguments) if isinstance(inner, PurePosixPath) else UNKNOWN

    def unset(self, variable: Variable) -> Any:
        """What reading a variable gives that is not set."""
        if variable.default is None:
            return UNKNOWN if variable.required or variable.kind != "str" else None
        value = self.of(variable.default)
        is_text_of_bool = variable.kind == "bool" and isinstance(value, str)
        return value.lower() in {"1", "true", "yes", "on", "y", "t"} if is_text_of_bool else value


_KINDS: Final[Mapping[type, Callable[[_Evaluation, Any], Any]]] = {
    ast.Constant: lambda _, node: node.value,
    ast.Name: _Evaluation.name,
    ast.List: lambda evaluation, node: [value for value in evaluation.all_of(node.elts) if value is not UNKNOWN],
    ast.Tuple: lambda evaluation, node: [value for value in evaluation.all_of(node.elts) if value is not UNKNOWN],
    ast.Set: lambda evaluation, node: [value for value in evaluation.all_of(node.elts) if value is not UNKNOWN],
    ast.Dict: _Evaluation.mapping,
    ast.JoinedStr: _Evaluation.text,
    ast.BoolOp: _Evaluation.either,
    ast.UnaryOp: _Evaluation.inverse,
    ast.IfExp: _Evaluation.choice,
    ast.Compare: _Evaluation.comparison,
    ast.BinOp: _Evaluation.operation,
    ast.Subscript: _Evaluation.item,
    ast.Attribute: _Evaluation.attribute,
    ast.Call: _Evaluation.call,
}
_COMPARED: Final[Mapping[type, Callable[[Any, Any], bool]]] = {
    ast.Eq: lambda left, right: left == right,
    ast.NotEq: lambda left, right: left != right,
    ast.Is: lambda left, right: left is right,
    ast.IsNot: lambda left, right: left is not right,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def _filled(text: Any, values: Any) -> Any:
    plain = isinstance(text, str) and re.fullmatch(r"(?:[^%]|%s)*", text)
    return text % (tuple(values) if isinstance(values, list) else values) if plain else UNKNOWN


_OPERATIONS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Add: lambda left, right: left + right,
    ast.Div: lambda left, right: left / right if isinstance(left, PurePosixPath) else UNKNOWN,
    # django-environ: Path(__file__) - 3
    ast.Sub: lambda left, right: left.parents[right - 1] if isinstance(left, PurePosixPath) else UNKNOWN,
    ast.Mod: _filled,
}
_OF_TEXT: Final = {"lower", "upper", "strip", "lstrip", "rstrip", "split", "startswith", "endswith", "format"}
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "Path": PurePosixPath,
    "PurePath": PurePosixPath,
    "join": lambda *parts: posixpath.normpath(posixpath.join(*map(str, parts))),
    "dirname": lambda path: posixpath.dirname(str(path)),
    "basename": lambda path: posixpath.basename(str(path)),
    "normpath": lambda path: posixpath.normpath(str(path)),
    "abspath": lambda path: posixpath.normpath(str(path)),
    "realpath": lambda path: posixpath.normpath(str(path)),
    "fspath": str,
    "str": str,
    "bool": bool,
    "int": int,
    "list": list,
}


def _of_path(path: PurePosixPath, method: str, arguments: Sequence[Any]) -> Any:
    if method in {"resolve", "absolute", "expanduser"}:
        return path
    if method in {"joinpath", "path", "file"}:
        return path.joinpath(*arguments)
    return str(path) if method == "as_posix" else UNKNOWN
