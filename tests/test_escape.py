"""What goes through an encoder comes out of the real reader of its target as it went in."""

from __future__ import annotations

import ast
import json
import logging
import os
import pickle
import shlex
import string
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from invoke.vendor import yaml
from supervisor.options import ServerOptions, UnhosedConfigParser  # type: ignore[import-untyped]

from fabdjango import escape
from fabdjango.escape import (
    Redactor,
    Secret,
    Shell,
    all_of,
    any_of,
    block,
    cron_line,
    env_assignments,
    env_name,
    esc1,
    esc2,
    nginx_domain,
    nginx_name,
    nginx_value,
    otherwise,
    printable,
    python_literal,
    quote,
    quote_path,
    raw,
    sh,
    supervisor_value,
    supervisor_words,
    systemd_path,
    systemd_value,
    systemd_words,
    to_file,
    visible,
    when,
    with_env,
    yaml_value,
)
from fabdjango.exceptions import RefusedValueError

SHELLS = ("dash", "bash")
HOSTILE = (
    "a b",
    "it's",
    'say "hi"',
    "$(touch /tmp/owned)",
    "`id`",
    "a\nb",
    "\n",
    "trailing\n\n",
    "-rf",
    "--",
    "übung ☃",
    "",
    "*",
    "~",
    "~root",
    "a;b",
    "a&b|c>d<e",
    "!!",
    "\\",
    "\\n",
    "#c",
    "%s%%d",
    "{a,b}",
    "$HOME",
    "${IFS}",
    "=x",
    "\t",
    "\r",
    "\x1b[31m",
    "'\"'\"'",
    "\udcff",
    "\0",
)
# Text with a strong taste for what shells and parsers find special.
special = st.text(st.sampled_from("ab \t\n'\"\\$`;#&|<>(){}[]*?!~%=-,:@/éß☃\r"), max_size=12)
YAML_WORDS = (
    "true",
    "Yes",
    "OFF",
    "null",
    "~",
    "=",
    "<<",
    "1_0",
    "0x1f",
    "1:30",
    "2024-01-01",
    ".inf",
    "-",
    "- a",
    "a: b",
    "a #b",
)
texts = st.one_of(st.sampled_from(HOSTILE), special, st.text(max_size=12))
carried = texts.filter(lambda text: "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text))
names = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=8).map("V".__add__)


def run(shell: str, script: str, environ: Mapping[str, str] | None = None) -> str:
    """Standard output of ``script``, which the shell reads as a deployment sends it: on standard input."""
    words = [shell] if shell == "dash" else [shell, "--posix"]
    clean = {"PATH": os.environ["PATH"], "HOME": "/home/it's $HOME", "LC_ALL": "C.UTF-8", **(environ or {})}
    done = subprocess.run(words, input=script.encode(), env=clean, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def words_of(shell: str, command: str) -> list[str]:
    """The words that ``command`` gives to the program it runs."""
    script = f"show() {{ for each do printf '%s\\0' \"$each\"; done; }}\nshow {command}\n"
    return run(shell, script).split("\0")[:-1]


# --- shell --------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=25)
@given(words=st.lists(carried, min_size=1, max_size=20))
@example(words=[word for word in HOSTILE if word not in ("\0", "\udcff")])
def test_words_arrive(shell: str, words: list[str]) -> None:
    """A command has exactly the words it was made of."""
    assert words_of(shell, sh(*words)) == words


@pytest.mark.parametrize("word", ["\0", "a\0b", "\udcff"])
def test_words_that_no_command_line_carries(word: str) -> None:
    """NUL and what is not text are refused, and the error says so."""
    with pytest.raises(RefusedValueError, match="cannot be a shell word: it holds a NUL or is not text"):
        quote(word)
    with pytest.raises(RefusedValueError):
        sh("echo", PurePosixPath(f"/srv/{word}"))


def test_numbers_and_shell_text() -> None:
    """A number is a word, and what is already shell is not quoted again."""
    assert sh("head", "-n", 5, raw('"$file"'), "it's") == """head -n 5 "$file" 'it'"'"'s'"""
    assert sh(sh("echo", "a b"), Shell("&")) == "echo 'a b' &"


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=25)
@given(paths=st.lists(carried.filter(bool), min_size=1, max_size=10))
def test_paths_arrive(shell: str, paths: list[str]) -> None:
    """Only ~ and ~/ mean the home of whoever runs the command, and no path is an option."""
    home = "/home/it's $HOME"
    wanted = [
        home if path == "~" else home + path[1:] if path.startswith("~/") else f"./{path}" if path[0] == "-" else path
        for path in paths
    ]
    assert words_of(shell, " ".join(quote_path(path) for path in paths)) == wanted


def test_paths_in_a_command() -> None:
    """A path is quoted as a path, a string as a string: only the path has a home."""
    assert sh("ls", PurePosixPath("~/a b"), "~/a b") == "ls \"$HOME\"/'a b' '~/a b'"
    assert to_file(sh("date"), PurePosixPath("~/a b")) == "date > \"$HOME\"/'a b'"


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=25)
@given(values=st.dictionaries(names, carried, min_size=1, max_size=8))
def test_environment_of_one_command(shell: str, values: dict[str, str]) -> None:
    """with_env sets variables for its command alone."""
    script = with_env(values, sh("env", "-0")) + "\n" + sh("env", "-0")
    lines = [line.partition("=") for line in run(shell, script).split("\0")]
    # Twice in the output would mean that the second command has it too.
    assert sorted((name, text) for name, _, text in lines if name in values) == sorted(values.items())


def test_environment_with_a_path() -> None:
    """A path in the environment is relative to the home of whoever runs the command."""
    command = with_env({"GIT_DIR": PurePosixPath("~/it's.git")}, sh("git", "gc"))
    assert command == """GIT_DIR="$HOME"/'it'"'"'s.git' git gc"""


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=25)
@given(values=st.lists(carried, min_size=1, max_size=10))
def test_between_quotes(shell: str, values: list[str]) -> None:
    """esc1 is for between single quotes, esc2 for between double quotes."""
    single = " ".join(f"'{esc1(value)}'" for value in values)
    double = " ".join(f'"{esc2(value)}"' for value in values)
    assert words_of(shell, f"{single} {double}") == values * 2


def test_joints() -> None:
    """How commands are put together."""
    one, two = sh("echo", "it's"), sh("false")
    assert all_of(one, two) == """echo 'it'"'"'s' && false"""
    assert any_of(two, one) == """false || echo 'it'"'"'s'"""
    assert block(one, Shell(""), two) == """echo 'it'"'"'s'\nfalse"""
    assert when(two, sh("ls"), two) == "if false; then\n  ls\n  false\nfi"
    assert otherwise(two, sh("ls"), two) == "if false; then\n  ls\nelse\n  false\nfi"


@pytest.mark.parametrize("shell", SHELLS)
def test_indenting_leaves_values_alone(shell: str) -> None:
    """A value of several lines inside a condition says the same as outside of it."""
    value = "one\n  two\n\nthree"
    assert run(shell, when(sh("true"), sh("printf", "%s", value))) == value
    assert run(shell, when(sh("true"), otherwise(sh("false"), sh("ls"), sh("printf", "%s", value)))) == value


def test_indent() -> None:
    """Empty lines get no trailing spaces."""
    assert escape.indent("it's\n\nhere", "| ") == "| it's\n\n| here"


# --- files of variables -----------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=25)
@given(values=st.dictionaries(names, carried, max_size=8))
@example(values={f"V{number}": text for number, text in enumerate(HOSTILE) if text not in ("\0", "\udcff")})
def test_assignments_are_read_back(
    shell: str, values: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A file of variables, read by . under set -a, gives a program exactly these values."""
    path = Path(tmp_path_factory.getbasetemp()) / "it's env"
    path.write_bytes(env_assignments(values).encode())
    out = run(shell, f"set -a; . {quote(str(path))}; set +a; exec env -0")
    found = dict(line.partition("=")[::2] for line in out.split("\0")[:-1])
    assert {name: text for name, text in found.items() if name in values} == values


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", ["PATH", "IFS", "PS4", "HOME", "MAIL", "LANG", "TZ", "ENV", "CDPATH", "x"])
def test_names_that_shells_know_but_leave_alone(shell: str, name: str) -> None:
    """A variable that a shell also uses arrives all the same."""
    env = "/usr/bin/env"
    out = run(shell, f"set -a\n{env_assignments({name: 'a b'})}set +a\nexec {env} -0")
    assert f"{name}=a b" in out.split("\0")


@pytest.mark.parametrize("name", ["OPTIND", "PPID", "_", "PWD", "OLDPWD", "UID", "EUID", "RANDOM", "SHLVL", "LINENO"])
def test_names_that_belong_to_the_shell(name: str) -> None:
    """What dash or bash would not set, or set to something else, is refused."""
    with pytest.raises(RefusedValueError, match=f"the environment variable {name} belongs to the shell itself"):
        env_assignments({name: "a b"})


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "A\n", "É", "A;id", "$(id)", "A'"])
def test_names_that_are_none(name: str) -> None:
    """A name that could be anything but a name is refused."""
    with pytest.raises(RefusedValueError, match="is not a name for an environment variable"):
        env_name(name)
    with pytest.raises(RefusedValueError):
        with_env({name: "a b"}, sh("ls"))


@pytest.mark.parametrize("value", ["a\0b", "\udcff"])
def test_values_that_no_environment_carries(value: str) -> None:
    """The error names the variable and does not show its value."""
    with pytest.raises(RefusedValueError, match=r"^the value of TOKEN holds a NUL or is not text$"):
        env_assignments({"TOKEN": value})


# --- Python -----------------------------------------------------------------------

plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)
literals = st.recursive(
    plain, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)), max_leaves=8
)


@given(value=literals)
@example(value={"it's": ['a "quoted" \\ word', "two\nlines", "☃", "\udcff", -1.5e300, None, True]})
def test_python_reads_literals_back(value: Any) -> None:
    """Python's own reader gives back what was written, and the text is ASCII on one line."""
    text = python_literal(value)
    assert ast.literal_eval(text) == value
    assert text.isascii()
    assert "\n" not in text


def test_python_literals_of_our_own_values() -> None:
    """A path is its text, a tuple a list, and a Secret shows itself here because the file is the place for it."""
    assert (
        python_literal((PurePosixPath("/srv/it's"), Secret("p'w"), Shell("a b"))) == """["/srv/it's", "p'w", 'a b']"""
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), b"a b", {1, 2}, object, 1j])
def test_what_python_cannot_read_back(value: object) -> None:
    """A value without a literal is refused, also deep inside; nan and inf would be names that nobody defined."""
    with pytest.raises(RefusedValueError, match="cannot be written as a Python literal"):
        python_literal([{"it's": value}])


# --- YAML -------------------------------------------------------------------------

yaml_texts = st.one_of(
    texts, st.text(" :,#[]{}&*!|>'\"%@`-?~.0123456789eExyYnNoOtrues/\n", max_size=10), st.sampled_from(YAML_WORDS)
)
yaml_values = st.recursive(
    st.one_of(yaml_texts, st.integers(-(10**9), 10**9), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(yaml_texts, inner, max_size=3)),
    max_leaves=6,
)


@given(value=yaml_values)
@example(value={"it's": ['a "quoted" \\ word', "two\nlines", "☃", "😀", "\x85\u2028", 7, True, {"a:b": []}]})
def test_yaml_reads_values_back(value: Any) -> None:
    """The reader that fab takes for its files gives back what was written, on a line of its own and within brackets."""
    text = yaml_value(value)
    assert "\n" not in text
    assert yaml.safe_load(  # type: ignore[no-untyped-call]
        f"key: {text}  # it's a comment\nlist: [{text}, {{{yaml_value('it')}: {text}}}]\n"
    ) == {
        "key": value,
        "list": [value, {"it": value}],
    }


def test_yaml_as_a_person_would_write_it() -> None:
    """What needs no quotes has none."""
    value = {"repository": "git@example.com:team/it's.git", "app": "blog.wsgi:application", "root": "/srv/b"}
    assert yaml_value(value) == (
        '{repository: "git@example.com:team/it\'s.git", app: blog.wsgi:application, root: /srv/b}'
    )
    assert yaml_value(["media/", 80, True, "yes", "3.10", ""]) == '[media/, 80, true, "yes", "3.10", ""]'


@pytest.mark.parametrize("value", [1.5, None, b"a b", {1, 2}])
def test_what_is_not_written_as_yaml(value: object) -> None:
    """Nobody needs it in a setting."""
    with pytest.raises(RefusedValueError, match="cannot be written as YAML"):
        yaml_value([{"it's": value}])


# --- supervisor -------------------------------------------------------------------

supervisor_texts = st.one_of(texts, st.text(" ;#%'\"\\=[]:-ab", max_size=10))


def supervisor_reads(text: str) -> str:
    """The value of ``command`` after supervisor's own parser and its expansion of %."""
    parser = UnhosedConfigParser()
    parser.read_string(f"[program:it]\ncommand={text}\nuser=nobody\n")
    assert parser.options("program:it") == ["command", "user"]
    return str(parser.saneget("program:it", "command", expansions={"here": "/etc"}))


@settings(max_examples=400)
@given(words=st.lists(supervisor_texts, min_size=1, max_size=4))
@example(words=["a ;b", ";", "#", "%(here)s", "%%", "it's", 'a"b', "", "\\", "a\xa0;b"])
def test_supervisor_gives_the_words_to_the_program(words: list[str]) -> None:
    """What supervisor splits a command into is what was meant, or the word was refused."""
    try:
        text = supervisor_words(*words)
    except RefusedValueError:
        assert any(escape._CONTROL.search(word) or escape._SURROGATE.search(word) for word in words)
        return
    assert shlex.split(supervisor_reads(text)) == words


@settings(max_examples=400)
@given(value=supervisor_texts.filter(bool))
def test_supervisor_takes_the_value(value: str) -> None:
    """What supervisor reads is what was meant, or the value was refused."""
    try:
        text = supervisor_value(value)
    except RefusedValueError:
        return
    assert supervisor_reads(text) == value


@pytest.mark.parametrize(
    "value", ["a ;b", "a #b", "; a", "#a", " a", "a ", "a\nb", "a\nuser=root", "a\u2028b", "\udcff"]
)
def test_supervisor_values_that_would_be_cut(value: str) -> None:
    """Supervisor cuts at a comment and strips both ends, and a newline would add an option of its own."""
    with pytest.raises(RefusedValueError, match=r"^fabdjango\.user"):
        supervisor_value(value, "fabdjango.user")


@pytest.mark.parametrize("value", ["a;b", "a#b", "it's", 'a "b" c', "100%", "%(here)s", "ü ☃", "a=b: c", "[x]"])
def test_supervisor_values_that_are_fine(value: str) -> None:
    """What can be carried is not refused."""
    assert supervisor_reads(supervisor_value(value)) == value


def test_the_whole_of_supervisor_agrees(tmp_path: Path) -> None:
    """supervisord itself, reading a file of ours, would start this argv."""
    words = ["/bin/sh", "it's here; #1", "100%", "ü"]
    config = tmp_path / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nlogfile=/dev/null\n[program:blog]\ncommand={supervisor_words(*words)}\n", encoding="utf-8"
    )
    options = ServerOptions()
    options.realize(["-n", "-c", str(config)])
    (group,) = options.process_group_configs
    assert shlex.split(group.process_configs[0].command) == words


# --- one printable line --------------------------------------------------------------


@given(text=texts)
def test_printable(text: str) -> None:
    """A printable value is one line to everybody's idea of a line."""
    try:
        line = printable(text, "gunicorn.bind")
    except RefusedValueError:
        return
    assert line == text
    assert len(line.splitlines()) <= 1
    assert not set(line) & {"\0", "\x1b", "\udcff"}


def test_not_printable() -> None:
    """The error says which setting and which character."""
    with pytest.raises(
        RefusedValueError, match=r"^gunicorn\.bind holds the character '\\n', which cannot be carried there$"
    ):
        printable("it's\nhere", "gunicorn.bind")


# --- secrets ------------------------------------------------------------------------

HIDDEN = "p'a\"s$s\\w`ö rd"
LINES = 'first "line"\nsecond $line\nöther\n'


@pytest.mark.parametrize(
    "shown",
    [
        str(Secret(HIDDEN)),
        repr(Secret(HIDDEN)),
        f"{Secret(HIDDEN)}",
        f"{Secret(HIDDEN)!r:>40}",
        f"{Secret(HIDDEN):>20}",
        "%s %r" % (Secret(HIDDEN), Secret(HIDDEN)),  # noqa: UP031 - that way too
        f"{Secret(HIDDEN)} {Secret(HIDDEN)!s} {Secret(HIDDEN)!r}",
        ascii(Secret(HIDDEN)),
        str([Secret(HIDDEN)]),
        str({"password": Secret(HIDDEN)}),
        repr(ValueError(Secret(HIDDEN))),
        str(ValueError(Secret(HIDDEN))),
        logging.LogRecord("x", 1, "x", 1, "%s", (Secret(HIDDEN),), None).getMessage(),
        json.dumps({"password": Secret(HIDDEN)}, default=str),
    ],
)
def test_a_secret_hides(shown: str) -> None:
    """Every way of making text of a Secret gives asterisks."""
    assert "********" in shown
    assert "p'a" not in shown
    assert "w`" not in shown


def test_a_secret_is_not_serialized() -> None:
    """JSON and pickle refuse it, and their errors do not show it."""
    with pytest.raises(TypeError, match=r"^Object of type Secret is not JSON serializable$"):
        json.dumps(Secret(HIDDEN))
    with pytest.raises(TypeError, match=r"^a Secret is not pickled$"):
        pickle.dumps(Secret(HIDDEN))


def test_a_secret_gives_itself_by_name_only() -> None:
    """It can be compared and asked, and nothing else."""
    assert Secret(HIDDEN).reveal() == HIDDEN
    assert Secret(HIDDEN) == Secret(HIDDEN)
    assert Secret(HIDDEN) != HIDDEN
    assert len({Secret(HIDDEN), Secret(HIDDEN)}) == 1
    assert not hasattr(Secret(HIDDEN), "__dict__")


def test_a_secret_cannot_be_a_word() -> None:
    """By mistake in a command it is asterisks, not the value."""
    assert sh("echo", Secret(HIDDEN)) == "echo '********'"  # type: ignore[arg-type]


FORMS: dict[str, Callable[[str], str]] = {
    "itself": str,
    "a shell word": shlex.quote,
    "single quotes": lambda text: f"'{esc1(text)}'",
    "double quotes": lambda text: f'"{esc2(text)}"',
    "repr": repr,
    "ascii": ascii,
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "python_literal": python_literal,
    "env_assignments": lambda text: env_assignments({"PASSWORD": text}),
}


@pytest.mark.parametrize("form", FORMS)
@given(secret=carried.filter(lambda text: len(text) >= Redactor.shortest), around=texts)
@example(secret=HIDDEN, around="PASSWORD=")
@example(secret=LINES, around="")
def test_no_known_secret_survives(form: str, secret: str, around: str) -> None:
    """In whatever form a secret stands in a text, it is not there afterwards."""
    written = FORMS[form](secret)
    inside = written.strip("'\"") if form != "env_assignments" else f"'{esc1(secret)}'"
    assume(secret not in around and not set(secret) <= set("*"))
    hidden = Redactor([secret]).hide(f"{around}{written}{around}")
    assert secret not in hidden
    assert len(inside) < Redactor.shortest or inside not in hidden


def test_every_line_of_a_secret_is_hidden() -> None:
    """Output comes line by line, and each line of a key is as secret as the whole."""
    hide = Redactor([LINES]).hide
    assert hide('found first "line" there') == "found ******** there"
    assert hide("found second $line there") == "found ******** there"
    assert hide('{"text": "first \\"line\\""}') == '{"text": "********"}'


def test_the_longer_secret_goes_first() -> None:
    """A secret that begins another does not leave the other's end behind."""
    assert Redactor(["it's secret", "it's secret, really"]).hide("it's secret, really") == "********"


def test_short_values_are_left_alone() -> None:
    """Hiding "1" or "ada" would blot out ordinary words."""
    assert Redactor(["ada", "1", ""]).hide("ada's 1st") == "ada's 1st"


def test_a_redactor_learns() -> None:
    """Secrets that come up later are hidden from then on."""
    redactor = Redactor()
    assert redactor.hide("it's secret") == "it's secret"
    redactor.add("it's secret")
    assert redactor.hide("it's secret") == "********"


# --- nginx --------------------------------------------------------------------------


def nginx_reads(text: str) -> list[str]:
    """The parameters of one directive, by the rules of ngx_conf_read_token: quotes, backslashes, ends and comments."""
    words: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char in " \t\r\n":
            at += 1
            continue
        if char == ";":
            assert at == len(text) - 1, f"the directive ends before {text[at + 1 :]!r}"
            return words
        assert char not in "{}#", f"{char} outside of quotes"
        quote = char if char in "\"'" else ""
        at += len(quote)
        word = ""
        while text[at] != quote if quote else text[at] not in " \t\r\n;{":
            if text[at] == "\\":
                escaped = text[at + 1]
                word += {"t": "\t", "r": "\r", "n": "\n"}.get(
                    escaped, escaped if escaped in "\"'\\" else f"\\{escaped}"
                )
                at += 2
            else:
                word += text[at]
                at += 1
        at += len(quote)
        assert text[at] in " \t\r\n;{)", "nothing may follow a quote"
        words.append(word)
    raise AssertionError("the directive has no end")


@given(first=texts, second=texts)
@example(first='a"; } server { #', second="\\")
@example(first="\\n", second="a\\")
@example(first="it's {here}", second="/srv/the blog")
def test_nginx_values(first: str, second: str) -> None:
    """What is not refused stands in nginx as it was; it neither ends its directive nor begins a variable."""
    try:
        line = f"root {nginx_value(first)} {nginx_value(second)};"
    except RefusedValueError:
        return
    assert nginx_reads(line) == ["root", first, second]
    assert "$" not in line


@pytest.mark.parametrize("value", ["$host", "a$", "a\nb", "\0", "x" * 2001])
def test_values_that_nginx_cannot_carry(value: str) -> None:
    """A variable cannot be escaped, and a line is a line."""
    with pytest.raises(RefusedValueError, match=r"^nginx\.media "):
        nginx_value(value, "nginx.media")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("blog.example.com", "blog.example.com"),
        ("Blog.Example.COM", "blog.example.com"),
        ("*.example.com", "*.example.com"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("localhost", "localhost"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_domains(name: str, written: str) -> None:
    """Names as DNS has them, and a wildcard for the first part."""
    assert nginx_domain(name) == written


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("münchen.example", "write it as DNS has it: xn--mnchen-3ya.example"),
        ("_", "for instance www.example.com"),
        ("", "for instance www.example.com"),
        ("a b.example.com", "for instance www.example.com"),
        ("a.example.com; return 200", "for instance www.example.com"),
        ("www.*.example.com", "for instance www.example.com"),
        ("~^(.+)$", "for instance www.example.com"),
        ("-a.example.com", "for instance www.example.com"),
        ("a..example.com", "for instance www.example.com"),
        ("$host", "for instance www.example.com"),
        ("a" * 64 + ".example.com", "for instance www.example.com"),
    ],
)
def test_no_domains(name: str, cure: str) -> None:
    """The catch-all of others, patterns and what would end the directive are refused."""
    with pytest.raises(RefusedValueError, match="is not a host name") as caught:
        nginx_domain(name)
    assert caught.value.cure == cure


@given(one=st.text("ab_m-", min_size=1), two=st.text("ab_m-", min_size=1))
def test_names_of_two_sites_differ(one: str, two: str) -> None:
    """Variables of nginx are shared by all its sites, and cannot hold a hyphen."""
    assert (nginx_name(one) == nginx_name(two)) == (one == two)
    assert set(nginx_name(one)) <= set("ab_m")


# --- systemd -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["/bin/sh", "/srv/blog/run/slot"], "/bin/sh /srv/blog/run/slot"),
        (["/srv/it's here"], '"/srv/it\'s here"'),
        (['a "b" \\'], '"a \\"b\\" \\\\"'),
        (["100%", "$HOME", ""], '100%% "$$HOME" ""'),
    ],
)
def test_systemd_words(words: list[str], text: str) -> None:
    """Nothing in a word is expanded, and no word becomes two."""
    assert systemd_words(*words) == text


def test_systemd_path() -> None:
    """A condition takes quotes and spaces as they stand."""
    assert systemd_path("/srv/it's here/100%") == "/srv/it's here/100%%"


@pytest.mark.parametrize("path", ["srv/blog", "/srv/blog ", "/srv/blog\\", "/srv/blog\nExecStartPre=/bin/it"])
def test_not_a_systemd_path(path: str) -> None:
    """The end of a line would swallow or strip it, or begin another setting."""
    with pytest.raises(RefusedValueError):
        systemd_path(path)


def test_systemd_value() -> None:
    """A value that stands alone begins no specifier."""
    assert systemd_value("50% of it") == "50%% of it"


@pytest.mark.parametrize("value", ["it's", '"it"', "it\\", " it", "it ", "it\nUser=root", "it\0"])
def test_not_a_systemd_value(value: str) -> None:
    """Some settings strip quotes and some keep them, and a new line would be a setting of its own."""
    with pytest.raises(RefusedValueError, match=r"^fabdjango\.systemd\.options\.X holds"):
        systemd_value(value, "fabdjango.systemd.options.X")


# --- cron ----------------------------------------------------------------------------


def cron_hands_on(line: str) -> str:
    """The command of a line as Debian's cron hands it to the shell, by its own rules for % and backslashes (do_command.c)."""
    command, escaped, given = line.split(" ", 6)[6], False, ""
    for char in command:
        if escaped and char != "%":
            given += "\\"
        elif not escaped and char == "%":
            return given
        escaped = char == "\\"
        given += "" if escaped else char
    return given + ("\\" if escaped else "")


@given(
    words=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12), min_size=1, max_size=4
    )
)
def test_cron_hands_the_command_on(words: list[str]) -> None:
    """The shell gets every character, a % too; and cron finds the line in order."""
    command = sh("echo", *words)
    line = cron_line("0,30 4 * * 1-5", "it-is", command)
    assert cron_hands_on(line) == command
    assert line.startswith("0,30 4 * * 1-5 it-is echo")


def test_the_whole_of_cron_agrees() -> None:
    """Debian's own reader takes such lines; a crontab of one account has no name in it."""
    lines = "".join(f"{cron_line('0 4 * * *', 'ada', sh('echo', text))}\n" for text in HOSTILE if text.isprintable())
    done = subprocess.run(
        ["crontab", "-n", "-"], input=lines.replace(" ada echo", " echo"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(lines.splitlines()) > 9) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("fields", "user", "command"),
    [
        ("* * * *", "ada", "true"),
        ("* * * * *\n0 0 * * *", "ada", "true"),
        ("@daily", "ada", "true"),
        ("* * * * *", "ada root", "true"),
        ("* * * * *", "", "true"),
        ("* * * * *", "ada", "true\n* * * * * root id"),
        ("* * * * *", "ada", "x" * 901),
    ],
)
def test_not_a_line_of_cron(fields: str, user: str, command: str) -> None:
    """Nothing adds a line, or another account; what cron would cut is refused."""
    with pytest.raises(RefusedValueError):
        cron_line(fields, user, raw(command))


# --- the terminal ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("it's\t☃ fine\n", "it's\t☃ fine\n"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb\x07\x7f\x9b", "a\\rb\\x07\\x7f\\x9b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    """What would steer a terminal, or turn the direction of writing, is seen and does nothing."""
    assert visible(text) == shown
