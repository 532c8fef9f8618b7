"""Templates and files of variables: what comes out, and how an error reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fabdjango.commands.manager import mark_of
from fabdjango.escape import env_assignments, quote
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.render import Templates, read_env, template_root
from tests.test_escape import HOSTILE, carried, names


def project_file(folder: Path, text: str, name: str = "it's settings.py.j2", **environ: str) -> str:
    """The text of a project's template, rendered for a sample site."""
    (folder / name).write_text(text, encoding="utf-8")
    return Templates(folder, environ).render_project_file(name, "local_settings", project="blog", host="web1").text


# --- templates ------------------------------------------------------------------


def test_every_template_of_ours_says_who_wrote_it() -> None:
    """Whoever finds one of our files on a server learns from its first lines that edits are lost."""
    # What init writes into a project is the project's from then on.
    found = sorted(path for path in template_root().glob("*/*.j2") if path.parent.name != "project")
    assert found
    for path in found:
        first = "".join(path.read_text(encoding="utf-8").splitlines()[:2])
        # A part of units, which have that line themselves.
        if path.name != "service.j2":
            assert "Managed by fabdjango; local edits are overwritten." in first or "{{ mark }}" in first, path
    assert mark_of("blog") == "Managed by fabdjango for blog; local edits are overwritten."


def test_a_project_file(tmp_path: Path) -> None:
    """Values go in by name, each with the filter of its target; the last newline stays."""
    text = "NAME = {{ project | python }}\nSECRET = {{ env.VALUE | python }}\n{% if host %}\nHOST = 1\n{% endif %}\n"
    assert project_file(tmp_path, text, VALUE='it\'s "$x"\n') == (
        "NAME = 'blog'\nSECRET = 'it\\'s \"$x\"\\n'\nHOST = 1\n"
    )


def test_filters(tmp_path: Path) -> None:
    """One filter per grammar."""
    text = "{{ env.V | sh }}, {{ env.V | python }}, {{ env.V | supervisor }}"
    assert project_file(tmp_path, text, V="it's 100%") == """'it'"'"'s 100%', "it's 100%", it's 100%%"""


def test_nothing_is_escaped_for_html(tmp_path: Path) -> None:
    """Our targets are not HTML."""
    assert project_file(tmp_path, "{{ env.V }}", V='<it\'s> & "so"') == '<it\'s> & "so"'


def test_what_a_template_took_is_secret(tmp_path: Path) -> None:
    """Only what was asked for is remembered, so that it can be hidden in every output."""
    path = tmp_path / "it's.env"
    path.write_text("A='{{ env.ONE }}'\nB={{ env.get('NONE', 'none') }} {{ env.get('TWO') }}\n")
    rendered = Templates(tmp_path, {"ONE": "a b", "TWO": "c'd", "THREE": "e"}).render_project_file(
        "it's.env", "env_file"
    )
    assert rendered.text == "A='a b'\nB=none c'd\n"
    assert rendered.secrets == {"a b", "c'd"}


def test_a_variable_can_have_a_default(tmp_path: Path) -> None:
    """As any other name of a template."""
    assert project_file(tmp_path, "{{ env.NONE | default('a b') }} {{ 'NONE' in env }}") == "a b False"


def test_a_template_of_the_project_wins(tmp_path: Path) -> None:
    """templates/ beside the fabfile replaces ours of the same name, and the others stay ours."""
    (tmp_path / "templates/release").mkdir(parents=True)
    (tmp_path / "templates/release/start.j2").write_text("#!/bin/sh\n# it's ours: {{ run | sh }}\n")
    templates = Templates(tmp_path, {})
    assert templates.render("release/start.j2", run="a b", words="") == "#!/bin/sh\n# it's ours: 'a b'\n"
    assert templates.render("supervisor/supervisord.conf.j2").startswith("; Managed by fabdjango;")


@pytest.mark.parametrize("name", ["settings.py.j2", "plain.env"])
@pytest.mark.parametrize(
    ("text", "message", "cure"),
    [
        (
            "\n\n{{ it_is_missing }}\n",
            "the template {} line 3 uses a name that is not defined: 'it_is_missing' is undefined",
            "the names that there are: env, host, project",
        ),
        (
            "\n{{ project.its_missing }}",
            "the template {} line 2 uses a name that is not defined: 'str object' has no attribute 'its_missing'",
            "the names that there are: env, host, project",
        ),
        ("\n{{ env.TOKEN }}", "{} line 2 needs the environment variable TOKEN, which is not set", "TOKEN='…' fab …"),
        (
            "\n\n{{ env['IT_IS'] }}",
            "{} line 3 needs the environment variable IT_IS, which is not set",
            "IT_IS='…' fab …",
        ),
        (
            "{% if host %}\nit's\n",
            (
                "the template {} line 2 cannot be read: Unexpected end of template. Jinja was looking for the "
                "following tags: 'elif' or 'else' or 'endif'. The innermost block that needs to be closed is 'if'."
            ),
            "mend that line",
        ),
        ("\n{{ host | wrong }}", "the template {} line 2 cannot be read: No filter named 'wrong'.", "mend that line"),
        (
            "\n{{ 1 / 0 }}",
            "the template {} line 2 cannot be filled in: ZeroDivisionError: division by zero",
            "mend the template",
        ),
        (
            "{{ host + 1 }}",
            'the template {} line 1 cannot be filled in: TypeError: can only concatenate str (not "int") to str',
            "mend the template",
        ),
    ],
)
def test_errors_of_a_template(tmp_path: Path, name: str, text: str, message: str, cure: str) -> None:
    """An error names the template, the line and what is missing, and is no traceback."""
    with pytest.raises(ConfigError) as caught:
        project_file(tmp_path, text, name)
    assert caught.value.message == message.format(name)
    assert caught.value.cure == cure
    assert caught.value.__suppress_context__


def test_an_included_template_that_is_missing(tmp_path: Path) -> None:
    """The cure is the folder."""
    with pytest.raises(ConfigError) as caught:
        project_file(tmp_path, '{% include "it\'s.j2" %}', "settings.py.j2")
    assert caught.value.message == "the template settings.py.j2 line 1 asks for it's.j2, which is not there"
    assert caught.value.cure == f"templates are looked for in {tmp_path / 'templates'}"


@pytest.mark.parametrize(
    "text", ["{{ {}[env.VALUE] }}", "{{ [][env.VALUE] }}", "{% include env.VALUE %}", "{{ env[env.VALUE] }}"]
)
def test_an_error_does_not_show_secrets(tmp_path: Path, text: str) -> None:
    """A value of the operator's environment that an error would quote is hidden."""
    with pytest.raises(ConfigError) as caught:
        project_file(tmp_path, text, VALUE="it's secret")
    assert "it's secret" not in caught.value.render()


def test_a_refused_value_in_a_template(tmp_path: Path) -> None:
    """A filter's refusal is told as it is."""
    with pytest.raises(FabdjangoError, match="holds the character"):
        project_file(tmp_path, "{{ 'a\nb' | supervisor }}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names the setting, the place and where paths start."""
    with pytest.raises(ConfigError) as caught:
        Templates(tmp_path, {}).render_project_file("it's/none.j2", "env_file")
    assert caught.value.render() == (
        f"Error: fabdjango.env_file: cannot read {tmp_path}/it's/none.j2: No such file or directory\n"
        " state: no host was contacted (exit 1)\n"
        f" do this: paths start at {tmp_path}; change fabdjango.env_file or make the file"
    )


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"caf\xe9")])
def test_a_file_that_is_no_text(tmp_path: Path, make: object) -> None:
    """A folder, or bytes of another encoding."""
    make(tmp_path / "it's.env")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"^fabdjango\.env_file: cannot read "):
        Templates(tmp_path, {}).render_project_file("it's.env", "env_file")


# --- files of variables ------------------------------------------------------------

GRAMMAR = r"""
# a comment, and an empty line

BARE=it stays  as it is
 INDENTED = value
export EXPORTED=yes
HASH=a#b
COMMENT=a b # c
NOTHING=
NOTHING_BUT=   # a comment
COLOUR=#fff
EQUALS=a=b==
SINGLE='it is $HOME \n "so" # here'  # a comment
DOUBLE="it's \"so\" \\ \$HOME \` \n\x"
SPREAD="one
two"
KEY='-----BEGIN-----
a b
-----END-----'
ADDRESS=postgres://ada:p%40ss@db/blog?x=1&y=2#z"""


def test_the_grammar() -> None:
    """Everything that a file of variables can say."""
    values = {name: secret.reveal() for name, secret in read_env(GRAMMAR, "production.env").items()}
    assert values == {
        "BARE": "it stays  as it is",
        "INDENTED": "value",
        "EXPORTED": "yes",
        "HASH": "a#b",
        "COMMENT": "a b",
        "NOTHING": "",
        "NOTHING_BUT": "",
        "COLOUR": "#fff",
        "EQUALS": "a=b==",
        "SINGLE": 'it is $HOME \\n "so" # here',
        "DOUBLE": 'it\'s "so" \\ $HOME ` \n\\x',
        "SPREAD": "one\ntwo",
        "KEY": "-----BEGIN-----\na b\n-----END-----",
        "ADDRESS": "postgres://ada:p%40ss@db/blog?x=1&y=2#z",
    }


def test_lines_of_windows() -> None:
    """A file with CRLF line ends says the same."""
    values = read_env(GRAMMAR.replace("\n", "\r\n"), "production.env")
    assert values["BARE"].reveal() == "it stays  as it is"
    assert values["SINGLE"].reveal() == 'it is $HOME \\n "so" # here'
    assert values["NOTHING"].reveal() == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\nit's\n", 2),
        ("A=1\n\nB='one\ntwo\n", 3),
        ('B="open', 1),
        ("B='a'b", 1),
        ("B='a'#b", 1),
        ("1B=a b", 1),
        ("=a b", 1),
        ("A\n=it's", 1),
        ("# ok\nA-B=it's", 2),
        ("export", 1),
        ("A=\xa0b", 1),
    ],
)
def test_lines_that_say_nothing(text: str, line: int) -> None:
    """The error names the file and the line; the line itself may hold a secret and is not shown."""
    with pytest.raises(ConfigError) as caught:
        read_env(text, "it's.env")
    assert caught.value.message == f"it's.env line {line} is not NAME=value"
    assert caught.value.cure == "quote a value that holds quotes or spans lines"


def test_a_value_with_a_nul() -> None:
    """No environment can carry it; the value is not shown."""
    with pytest.raises(ConfigError, match=r"^it's\.env: the value of A holds a NUL, which no environment can carry$"):
        read_env("A='a\0b'", "it's.env")


def test_a_name_of_the_shell() -> None:
    """A variable that would not arrive is refused here, before any host is asked."""
    with pytest.raises(ConfigError, match=r"^the environment variable UID belongs to the shell itself$"):
        read_env("UID=it's me", "it's.env")


def test_values_are_hidden() -> None:
    """Whatever is done with them, until somebody asks by name."""
    assert str(read_env("A='it is secret'", "it's.env")) == "{'A': Secret('********')}"


def as_read(text: str) -> str:
    """``text`` in double quotes as read_env takes it."""
    return '"' + "".join("\\" + char if char in '\\"$`' else char for char in text) + '"'


@settings(max_examples=50)
@given(values=st.dictionaries(names, carried, max_size=8))
@example(values={f"V{number}": text for number, text in enumerate(HOSTILE) if text not in ("\0", "\udcff")})
def test_from_the_file_to_the_program(values: dict[str, str]) -> None:
    """What stands in the operator's file is what a program on the host finds, through our parser and a real sh."""
    text = "".join(f"{name}={as_read(value)}\n" for name, value in values.items())
    found = read_env(text, "production.env")
    assert {name: secret.reveal() for name, secret in found.items()} == values
    script = env_assignments({name: secret.reveal() for name, secret in found.items()}) + "exec env -0"
    out = subprocess.run(
        ["dash"], input=script.encode(), env={"PATH": os.environ["PATH"]}, capture_output=True, check=True
    ).stdout.decode()
    told = dict(line.partition("=")[::2] for line in out.split("\0")[:-1])
    assert {name: told[name] for name in values} == values


@given(text=st.text(st.sampled_from("AB='\" \t\n\r\\#$`x\0é"), max_size=20))
def test_any_file_is_read_or_refused(text: str) -> None:
    """Whatever a file says, the answer is values that can be carried, or a ConfigError."""
    try:
        found = read_env(text, "any.env")
    except ConfigError:
        return
    for secret in found.values():
        assert "\0" not in secret.reveal()
        assert quote(secret.reveal())
