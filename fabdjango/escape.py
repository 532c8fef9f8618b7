"""
Values to text: shell words quoted by default, and one encoder for each grammar we write.

Nothing here runs anything. A value that a grammar cannot carry is refused
with :class:`~fabdjango.exceptions.RefusedValueError`, never mended.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePath

from fabdjango.exceptions import ConfigError, RefusedValueError

__all__ = [
    "Redactor",
    "Secret",
    "Shell",
    "Word",
    "all_of",
    "any_of",
    "block",
    "cron_line",
    "env_assignments",
    "env_name",
    "esc1",
    "esc2",
    "indent",
    "logrotate_path",
    "nginx_domain",
    "nginx_name",
    "nginx_value",
    "otherwise",
    "printable",
    "python_literal",
    "quote",
    "quote_path",
    "raw",
    "sh",
    "split_words",
    "supervisor_value",
    "supervisor_words",
    "systemd_path",
    "systemd_value",
    "systemd_words",
    "to_file",
    "visible",
    "when",
    "with_env",
    "yaml_value",
]


class Shell(str):
    """Text that already is shell: the only kind of string that is not quoted again."""

    __slots__ = ()


class Secret:
    """
    A string that hides in every sink but the one that asks for it by name.

    ``str``, ``repr`` and ``format`` give asterisks; only :meth:`reveal` gives the value.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __str__(self) -> str:
        return "********"

    def __repr__(self) -> str:
        return "Secret('********')"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        msg = "a Secret is not pickled"
        raise TypeError(msg)


class Redactor:
    """
    Replaces known secret values in any text that leaves for a terminal, a log or an exception.

    Values shorter than ``shortest`` characters are not masked: they would blot
    out ordinary words.
    """

    shortest = 6

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Longest first. Replaced as a whole, never changed: many hosts report at once.
        self._values: tuple[str, ...] = ()
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Mask these values from now on, also where they stand quoted, line by line, in JSON or in a Python repr."""
        values = set(self._values)
        for secret in secrets:
            for text in (secret, *secret.splitlines()):
                forms = {text, esc1(text), esc2(text), shlex.quote(text).strip("'")}
                forms |= {encode(text)[1:-1] for encode in (repr, ascii, json.dumps, _json_text)}
                values |= {form for form in forms if len(form) >= self.shortest}
        self._values = tuple(sorted(values, key=len, reverse=True))

    def hide(self, text: str) -> str:
        """``text`` with every known secret replaced by asterisks; longest first."""
        for value in self._values:
            if value in text:
                text = text.replace(value, "********")
        return text


def _json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


Word = str | int | PurePath | Shell
"""What may stand as one shell word."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")


def printable(value: str, what: str) -> str:
    """
    ``value`` as it is, if it is one line without control characters.

    ``what`` names it in the error, for instance ``gunicorn.bind``.
    """
    found = _CONTROL.search(value) or _SURROGATE.search(value)
    if found:
        msg = f"{what} holds the character {found.group()!r}, which cannot be carried there"
        raise RefusedValueError(msg, cure=f"write {what} as one line of printable text")
    return value


# --- shell -------------------------------------------------------------------


def quote(word: Word) -> str:
    """One POSIX shell word that means exactly ``word``; :class:`Shell` text passes as it is."""
    if isinstance(word, Shell):
        return str(word)
    text = str(word)
    if "\0" in text or _SURROGATE.search(text):
        msg = f"{text!r} cannot be a shell word: it holds a NUL or is not text"
        raise RefusedValueError(msg)
    return shlex.quote(text)


def quote_path(path: PurePath | str) -> Shell:
    """A path as one shell word; a leading ``~/`` becomes ``"$HOME"/`` of whoever runs it."""
    text = str(path)
    if text == "~":
        return Shell('"$HOME"')
    if text.startswith("~/"):
        return Shell('"$HOME"/' + quote(text[2:]))
    # A path is never an option, whatever it is called.
    return Shell(quote(f"./{text}" if text.startswith("-") else text))


def raw(text: str) -> Shell:
    """Shell text of our own making. Never for a value from config or command line."""
    return Shell(text)


def sh(*words: Word) -> Shell:
    """A simple command: every word quoted, paths with ``~`` expanded by the shell that runs it."""
    return Shell(" ".join(quote_path(w) if isinstance(w, PurePath) else quote(w) for w in words))


def all_of(*commands: Shell) -> Shell:
    """One after the other while they succeed."""
    return Shell(" && ".join(commands))


def any_of(*commands: Shell) -> Shell:
    """One after the other until one succeeds."""
    return Shell(" || ".join(commands))


def block(*commands: Shell) -> Shell:
    """One command a line; under ``set -e`` the first failure ends the step."""
    return Shell("\n".join(command for command in commands if command))


def when(test: Shell, *commands: Shell) -> Shell:
    """Run ``commands`` if ``test`` succeeds."""
    return Shell(f"if {test}; then\n{_aligned(block(*commands))}\nfi")


def otherwise(test: Shell, yes: Shell, no: Shell) -> Shell:
    """Run ``yes`` if ``test`` succeeds, else ``no``."""
    return Shell(f"if {test}; then\n{_aligned(yes)}\nelse\n{_aligned(no)}\nfi")


def to_file(command: Shell, path: PurePath) -> Shell:
    """Standard output of ``command`` into ``path``, which is emptied first."""
    return Shell(f"{command} > {quote_path(path)}")


def with_env(values: Mapping[str, Word], command: Shell) -> Shell:
    """``command`` with these variables set for it alone."""
    words = [f"{env_name(name)}={quote_path(v) if isinstance(v, PurePath) else quote(v)}" for name, v in values.items()]
    return Shell(" ".join([*words, command]))


def split_words(text: str, example: str) -> list[str]:
    """``text`` split as a shell would split it, and nothing expanded; a ConfigError with ``example`` if it cannot be."""
    try:
        return shlex.split(text)
    except ValueError as error:
        msg = f"cannot split {text!r} into words: {error}"
        raise ConfigError(msg, cure=f"quote it as one argument: {example}") from None


def esc1(text: str) -> str:
    """``text`` for use between single quotes in a shell script."""
    return text.replace("'", "'\\''")


def esc2(text: str) -> str:
    """``text`` for use between double quotes in a shell script."""
    return re.sub(r'(["\\$`])', r"\\\1", text)


def indent(text: str, prefix: str = "  ") -> str:
    """Every line of ``text`` that is not empty, after ``prefix``."""
    return "\n".join(prefix + line if line else line for line in text.split("\n"))


def _aligned(text: Shell) -> str:
    # Moving the later lines of a quoted string or a here-document would change what it says.
    spans_lines = "\n" in text and any(mark in text for mark in ("'", '"', "<<"))
    return str(text) if spans_lines else indent(text)


# --- environment -------------------------------------------------------------


_SHELLS_OWN = frozenset(
    [
        "_",
        "BASHOPTS",
        "BASH_VERSINFO",
        "DIRSTACK",
        "EUID",
        "FUNCNAME",
        "GROUPS",
        "HISTCMD",
        "LINENO",
        "OLDPWD",
        "OPTIND",
        "PPID",
        "PWD",
        "RANDOM",
        "SECONDS",
        "SHELLOPTS",
        "SHLVL",
        "UID",
    ]
)
"""What dash or bash sets itself, refuses to set, or takes as a number: no value of ours would arrive."""


def env_name(name: str) -> str:
    """``name``, if every shell takes it as the name of a variable and leaves its value alone."""
    if name in _SHELLS_OWN:
        msg = f"the environment variable {name} belongs to the shell itself"
        raise RefusedValueError(msg, cure="use another name")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        msg = f"{name!r} is not a name for an environment variable"
        raise RefusedValueError(msg, cure="use letters, digits and _ only, and start with a letter")
    return name


def env_assignments(values: Mapping[str, str]) -> str:
    """``export NAME='value'`` lines that ``sh`` reads back exactly, newlines included."""
    return "".join(f"export {env_name(name)}='{esc1(_no_nul(value, name))}'\n" for name, value in values.items())


def _no_nul(value: str, name: str) -> str:
    if "\0" in value or _SURROGATE.search(value):
        msg = f"the value of {name} holds a NUL or is not text"
        raise RefusedValueError(msg)
    return value


# --- Python ------------------------------------------------------------------


def python_literal(value: object) -> str:
    """
    Python source for ``value``: str, Secret, int, float, bool, None, and lists, tuples and dicts of them.

    ASCII only, so that the encoding of the file it lands in does not matter.
    """
    if isinstance(value, Secret):
        return ascii(value.reveal())
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, str):
        return ascii(str(value))
    if isinstance(value, PurePath):
        return ascii(str(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(python_literal(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{python_literal(k)}: {python_literal(v)}" for k, v in value.items()) + "}"
    msg = f"{value!r}, a {type(value).__name__}, cannot be written as a Python literal"
    raise RefusedValueError(msg, cure="use text, a number, true or false, or a list or mapping of them")


# --- YAML ----------------------------------------------------------------------

# Whatever YAML may take for a number, a date, a truth value or nothing begins with a digit or a sign, or is one of these words.
_PLAIN = re.compile(
    r"(?!(?:true|false|yes|no|on|off|null|y|n)\Z)[A-Za-z/][A-Za-z0-9_./@+~-]*(?::[A-Za-z0-9_./@+~-]+)*", re.IGNORECASE
)


def yaml_value(value: object) -> str:
    """YAML on one line, for a block or within brackets: text, whole numbers, truth values, and lists and mappings of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else f'"{"".join(map(_yaml_character, value))}"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{yaml_value(k)}: {yaml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(yaml_value, value)) + "]"
    msg = f"{value!r}, a {type(value).__name__}, cannot be written as YAML"
    raise RefusedValueError(msg, cure="use text, a number, true or false, or a list or mapping of them")


def _yaml_character(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"


# --- supervisor --------------------------------------------------------------


def supervisor_value(value: str | PurePath, what: str = "a value for supervisor") -> str:
    """
    A value of a supervisor file that is taken as it stands (a path, a user).

    Supervisor cuts a value at white space followed by ``;`` or ``#`` and knows
    no escape for it, strips both ends, and expands ``%``.
    """
    text = printable(str(value), what)
    if text != text.strip() or re.search(r"(^|\s)[;#]", text):
        msg = f"{what} {text!r} cannot stand in a supervisor file: it would be cut or stripped there"
        raise RefusedValueError(msg, cure="use a value without spaces before ; or # and at the ends")
    return text.replace("%", "%%")


def supervisor_words(*words: str | PurePath) -> str:
    """A ``command=`` of a supervisor file; each word arrives in the program's argv unchanged."""
    encoded = []
    for word in words:
        quoted = "'" + printable(str(word), "a word of a supervisor command").replace("'", "'\"'\"'") + "'"
        # shlex joins 'a ' and ';b' again; the parser of the file no longer sees a space before the ; of a comment.
        encoded.append(
            re.sub(r"([;#])", r"''\1", quoted)
            if re.search(r"[^\w@%+=:,./-]", str(word)) or not str(word)
            else str(word)
        )
    return " ".join(encoded).replace("%", "%%")


# --- logrotate ---------------------------------------------------------------


def logrotate_path(path: PurePath, what: str) -> str:
    """A pattern of absolute paths, as the head of a block of logrotate."""
    text = printable(str(path), what)
    # It looks for the brace that opens a block before it minds quotes, and glob() takes a backslash for its own.
    found = re.search(r'["\\{}]', text)
    if found:
        msg = f"{what} {text!r} holds {found.group()!r}, which logrotate cannot carry"
        raise RefusedValueError(
            msg, cure='use a path without " \\ { and }, or leave it out: fabdjango.server.skip: [logs]'
        )
    return f'"{text}"'


# --- nginx -------------------------------------------------------------------


def nginx_value(value: str | PurePath, what: str = "a value for nginx") -> str:
    """
    One parameter of a directive, in double quotes, that nginx reads as it stands.

    A ``$`` begins a variable in most directives and cannot be escaped in any.
    """
    text = printable(str(value), what)
    if "$" in text:
        msg = f"{what} {text!r} holds a $, which nginx takes for a variable"
        raise RefusedValueError(msg, cure="use a value without $")
    # nginx reads its files through a buffer of 4096 bytes, and a parameter must fit into it.
    if len(text.encode()) > 2000:
        msg = f"{what} is {len(text.encode())} bytes long, which nginx cannot read"
        raise RefusedValueError(msg, cure="use a shorter value")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def nginx_name(text: str) -> str:
    """``text``, made of letters, digits, - and _, as a part of a variable's name; different texts stay different."""
    if not re.fullmatch(r"[a-z0-9_-]+", text):
        msg = f"{text!r} cannot be part of the name of a variable of nginx"
        raise RefusedValueError(msg, cure="use small letters, digits, - and _ only")
    return text.replace("_", "__").replace("-", "_m")


_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def nginx_domain(name: str) -> str:
    """A host name, or ``*.`` before one, in small letters; names in other scripts as DNS has them (xn--…)."""
    text = name.lower()
    if len(text) > 253 or not re.fullmatch(rf"(\*\.)?({_LABEL}\.)*{_LABEL}", text):
        try:
            known = name.encode("idna").decode()
        except UnicodeError:
            known = ""
        msg = f"fabdjango.nginx.domains: {name!r} is not a host name"
        raise RefusedValueError(
            msg, cure=f"write it as DNS has it: {known}" if known not in ("", name) else "for instance www.example.com"
        )
    return text


# --- systemd -----------------------------------------------------------------


def systemd_value(value: str | PurePath, what: str = "a value for systemd") -> str:
    """
    A value of a unit file that is taken as it stands (a path, an account, an option); ``%`` begins nothing in it.

    Some settings strip quotes and some keep them, so a value with quotes is
    refused, and so is a backslash, which can swallow the end of the line.
    """
    text = printable(str(value), what)
    found = re.search(r"""^\s|\s$|["'\\]""", text)
    if found:
        msg = f"{what} holds {found.group()!r}, which a unit of systemd cannot carry there: {text!r}"
        raise RefusedValueError(msg, cure="use a value without quotes, backslashes and spaces at its ends")
    return text.replace("%", "%%")


def systemd_path(path: str | PurePath, what: str = "a path for systemd") -> str:
    """An absolute path of a condition or a socket, where quotes and spaces are taken as they stand."""
    text = printable(str(path), what)
    if not text.startswith("/") or re.search(r"[\s\\]$", text):
        msg = (
            f"{what} {text!r} cannot stand in a unit of systemd: it is not absolute, or its end would be stripped there"
        )
        raise RefusedValueError(msg, cure="use an absolute path that does not end in a space or a backslash")
    return text.replace("%", "%%")


def systemd_words(*words: str | PurePath) -> str:
    """Words of an ``ExecStart=`` or of a list of paths; each one arrives unchanged."""
    encoded = []
    for word in words:
        text = printable(str(word), "a word of a unit of systemd").replace("\\", "\\\\").replace('"', '\\"')
        text = text.replace("%", "%%").replace("$", "$$")
        encoded.append(text if re.fullmatch(r"[\w@%+=:,./-]+", text) else f'"{text}"')
    return " ".join(encoded)


# --- cron --------------------------------------------------------------------


def cron_line(fields: str, user: str, command: Shell) -> str:
    """
    A line of a file in /etc/cron.d: five fields, the account, and shell that cron hands to ``sh`` as it is.

    cron takes a bare % for a line end, and shortens what is too long for it.
    """
    if not re.fullmatch(r"[a-zA-Z0-9*,/-]+( [a-zA-Z0-9*,/-]+){4}", fields):
        msg = f"{fields!r} are not the five fields of cron"
        raise RefusedValueError(msg)
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.-]*", user):
        msg = f"{user!r} cannot be the account of a line of cron"
        raise RefusedValueError(msg, cure="use an account whose name has letters, digits, _, . and - only")
    text = printable(command, "a command for cron").replace("%", "\\%")
    if len(text.encode()) > 900:
        msg = f"a command for cron is {len(text.encode())} bytes long, which cron would cut"
        raise RefusedValueError(msg, cure="choose a shorter fabdjango.root")
    return f"{fields} {user} {text}"


# --- the terminal ------------------------------------------------------------


def visible(text: str) -> str:
    r"""``text`` with control characters and marks of direction as escapes such as ``\x1b``; tabs stay, and line ends."""
    return re.sub(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
        lambda found: found.group().encode("unicode_escape", "surrogatepass").decode("ascii"),
        text,
    )
