"""A file of variables that sh sources: what it says, and how one of them is changed in it; sh itself is the judge."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fabdjango import onhost

SCOPE: dict[str, Any] = {}
exec(compile(onhost.source("env_lines"), "env_lines", "exec"), SCOPE)  # noqa: S102 - our own program
changed, lines_of, values_in = SCOPE["changed"], SCOPE["lines_of"], SCOPE["values_in"]

BASE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}


def sourced(text: str, shell: str = "dash") -> dict[str, str]:
    """The variables after sh has read ``text`` as a release does, but for those that are there anyway."""
    program = "set -a\n. /dev/stdin\nset +a\nexec /usr/bin/env -0"
    done = subprocess.run(
        [shell, "-c", program],
        input=text.encode("utf-8", "surrogateescape"),
        env=BASE,
        capture_output=True,
        check=True,
    )
    pairs = (each.decode("utf-8", "surrogateescape").partition("=") for each in done.stdout.split(b"\0") if each)
    return {name: value for name, _, value in pairs if name not in {*BASE, "PWD", "_", "SHLVL", "OLDPWD"}}


# --- every form that people write -------------------------------------------------

FORMS = {
    "A=plain": "plain",
    "A=": "",
    "export A=b": "b",
    "  A=indented": "indented",
    "export\tA=tab": "tab",
    "A='it is $HOME # \"x\"'": 'it is $HOME # "x"',
    'A="it\'s a \\"b\\" \\$c \\\\ \\n"': 'it\'s a "b" $c \\ \\n',
    "A='two\nlines'": "two\nlines",
    'A="two\nlines"': "two\nlines",
    'A="joined\\\nlines"': "joinedlines",
    "A=joined\\\nlines": "joinedlines",
    "A=a\\ b\\'c": "a b'c",
    "A='it'\\''s'": "it's",
    "A='a'\"b\"c\\d": "abcd",
    "A=a#b": "a#b",
    "A=#b": "#b",
    "A=b # a comment with 'a quote": "b",
    "A=b\t#c": "b",
    "A= # nothing": "",
    "A=postgres://ada:s3cret@db:5432/blog?sslmode=require": None,
    "A='postgres://ada:s3cret@db/blog?x=1&y=2'": "postgres://ada:s3cret@db/blog?x=1&y=2",
    "A=*": "*",
    "A=x=y==": "x=y==",
    "A=100%": "100%",
    "A={a,b}": "{a,b}",
    "A=ünïcode": "ünïcode",
    "A=no\u00a0break": "no\u00a0break",
    "A=carriage\r": "carriage\r",
    "A='quoted'\r": "quoted\r",
    "A=\udcff": "\udcff",
}
FORMS["A=postgres://ada:s3cret@db:5432/blog?sslmode=require"] = "postgres://ada:s3cret@db:5432/blog?sslmode=require"


@pytest.mark.parametrize("text", FORMS, ids=repr)
@pytest.mark.parametrize("end", ["\n", ""])
def test_a_form_is_read_as_sh_reads_it(text: str, end: str) -> None:
    """Its value, and that it is one line; and it is set to another value in place."""
    assert sourced(text + end) == {"A": FORMS[text]}
    assert values_in(text + end) == {"A": FORMS[text]}
    (line,) = lines_of(text + end)
    assert line.text == text + end
    new = changed(f"B=1\n{text}{end}", "A", "it's $new")
    assert sourced(new) == {"A": "it's $new", "B": "1"}
    assert new.count("\n") == text.count("\n") - text.partition("#")[0].rstrip().count("\n") + 1 + bool(end)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("A=$HOME/x", "$HOME/x"),
        ('A="a $HOME"', '"a $HOME"'),
        ("A=`pwd`", "`pwd`"),
        ("A=~/x", "~/x"),
        ("A=/bin:~/bin", "/bin:~/bin"),
        ("export A=*", "*"),
        ("A=$'a'", "$'a'"),
        ('A="\\\\$HOME"', '"\\\\$HOME"'),
    ],
)
def test_what_sh_works_out_is_not_guessed(text: str, word: str) -> None:
    """It can be replaced all the same, and two of them compared."""
    assert values_in(text) == {"A": (word,)}
    assert sourced(changed(text, "A", "x")) == {"A": "x"}


WILD = [
    "if [ -e /nonexistent ]; then",
    "A=1 B=2",
    "A=1; B=2",
    "export A=1 B=2",
    "A=$(echo 'x y')",
    "[ -e /nonexistent ] && A=1",
    ". ./other.env",
    "A=1 true",
    "A+=1",
    "f() { A=1; }",
]


@pytest.mark.parametrize("text", WILD)
def test_a_line_that_does_more(text: str) -> None:
    """It has no name of ours, and is kept as it is."""
    (line,) = lines_of(f"{text}\n")
    assert (line.wild, line.name, line.text) == (True, "", f"{text}\n")


# --- changing ---------------------------------------------------------------------


def test_the_last_one_is_set_in_place() -> None:
    """It is the one that counts; what stands around it stays, its comment too."""
    text = "# it's ours\nA=1\nexport  A='2' # why\nB=$A/x\n"
    assert changed(text, "A", "it's 3") == "# it's ours\nA=1\nexport  A='it'\\''s 3' # why\nB=$A/x\n"
    assert changed(text, "A", "2") == text


def test_a_new_one_comes_last() -> None:
    """Also behind a line that has no end."""
    assert changed("", "A", "1") == "A='1'\n"
    assert changed("B=2\n", "A", "1") == "B=2\nA='1'\n"
    assert changed("# B=2", "A", "1") == "# B=2\nA='1'\n"


def test_among_lines_that_do_more() -> None:
    """Within an if it would not be sure to count, nor before what may set it too: another one at the end does."""
    text = "if [ -e /nonexistent ]; then\n  A=1\nfi\n"
    once = changed(text, "A", "2")
    assert once == f"{text}A='2'\n"
    assert changed(once, "A", "3") == f"{text}A='3'\n"
    assert changed(". ./other.env\nA=1\n", "A", "2") == ". ./other.env\nA='2'\n"
    assert changed("A=1\n. ./other.env\n", "A", "2") == "A=1\n. ./other.env\nA='2'\n"
    assert changed("A=1\n[ $A ] && B=1\n", "A", "2") == "A=1\n[ $A ] && B=1\nA='2'\n"
    assert changed("A=1\n[ $AA ] && B=1\n", "A", "2") == "A='2'\n[ $AA ] && B=1\n"
    assert changed("A=1\n[ $AA ] && B=1\n", "A", None) == "[ $AA ] && B=1\n"


def test_one_is_removed() -> None:
    """All of its lines, and no other; a comment that names it is no line of it."""
    assert changed("# A=0\nA=1\nAA=2\nexport A='x\ny'\nB=A\n", "A", None) == "# A=0\nAA=2\nB=A\n"
    assert changed("B=1\n", "A", None) == "B=1\n"


@pytest.mark.parametrize("text", ["if true; then\nA=1\nfi\n", "B=1\nA=1 B=2\n", "A+=1\n", "export A=1 B=2\n"])
def test_what_cannot_be_removed_safely(text: str) -> None:
    """An if without its only line is a mistake for sh, and then the whole file is."""
    with pytest.raises(ValueError, match=r"^line [12]: A is in lines that do more than to assign$"):
        changed(text, "A", None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("B=1\nA='s3cret\nC=2\n", "line 2: what is quoted there is not closed"),
        ('A="s3cret\\"', "line 1: what is quoted there is not closed"),
        ("A=s3cret\\", "line 1: what is quoted there is not closed"),
        ("A=s3cret\\\n", "line 1: it goes on after the end of the file"),
        ("\ncat <<END\nA=s3cret\nEND\n", "line 2: a here-document begins there"),
    ],
)
def test_a_file_that_nobody_can_follow(text: str, told: str) -> None:
    """It is left alone, and no word of it is told."""
    with pytest.raises(ValueError, match=f"^{told}$"):
        changed(text, "D", "1")


# --- any file -----------------------------------------------------------------------

VALUES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)
CHARS = st.text(st.sampled_from(list("aB1 \t\n'\"\\$#;=`~*\r{}ü")), max_size=8)


@st.composite
def assignments(draw: st.DrawFn) -> str:
    """A line that assigns, in one of the forms that people write."""
    name = draw(st.sampled_from(["A", "B", "C"]))
    word = draw(
        st.one_of(
            VALUES.map(lambda text: "'" + text.replace("'", "'\\''") + "'"),
            CHARS.map(lambda text: '"' + "".join(f"\\{c}" if c in '\\"$`' else c for c in text) + '"'),
            st.from_regex(r"[a-z0-9/:@.%+=_-]{0,6}", fullmatch=True).map(lambda text: text.replace(":~", "")),
            CHARS.map(lambda text: "".join(f"\\{c}" for c in text if c != "\n")),
        )
    )
    before = draw(st.sampled_from(["", " ", "export ", "\texport\t"]))
    return before + f"{name}={word}" + draw(st.sampled_from(["", " ", " # it's", "\t#"])) + "\n"


FILES = st.lists(
    st.one_of(
        assignments(),
        st.sampled_from(
            ["# a comment, it's\n", "\n", "  \n", "export A\n", "set -a\n", "true; D=1 true\n", "D='1'; D=2\n"]
        ),
    ),
    max_size=6,
).map("".join)


@given(text=FILES, value=VALUES)
@example(text="A='1'", value="it's")
def test_sh_reads_what_was_set(text: str, value: str) -> None:
    """The one variable has its value, every other the one that it had, and all lines but one are the same."""
    before, new = sourced(text), changed(text, "A", value)
    assert sourced(new) == {**before, "A": value}
    assert changed(new, "A", value) == new
    old_lines, new_lines = [line.text for line in lines_of(text)], [line.text for line in lines_of(new)]
    assert len([line for line in old_lines if line not in new_lines]) <= 1
    read = values_in(text)
    assert {name: read[name] for name in read if name in before} == {name: before[name] for name in read}


@given(text=FILES)
def test_sh_misses_what_was_removed(text: str) -> None:
    """Or it is refused, and then nothing is changed."""
    before = sourced(text)
    try:
        new = changed(text, "A", None)
    except ValueError:
        return
    before.pop("A", None)
    assert sourced(new) == before


@given(text=st.text(st.sampled_from(list("AB='\"\\$# \t\n;(){}<>`~é")), max_size=24))
def test_any_text_is_kept(text: str) -> None:
    """Lines are the text again, whatever it is; or it is refused."""
    try:
        lines = lines_of(text)
    except ValueError:
        return
    assert "".join(line.text for line in lines) == text
    for line in lines:
        assert not line.name or line.text[line.begins - 1] == "="
