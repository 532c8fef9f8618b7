"""Secrets of the operator's side: where they are had from, how often, and what an error tells."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fabdjango import secret_sources
from fabdjango.exceptions import ConfigError
from fabdjango.render import Templates
from fabdjango.secret_sources import Secrets
from fabdjango.settings import SecretSource

CANARY = "c4n4ry it's $HOME"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Each test is a run of the tool of its own."""
    secret_sources._known.clear()
    yield
    secret_sources._known.clear()


def had(root: Path, told: list[str] | None = None, *, asking: bool = True, **source: Any) -> str:
    """The secret MAIL, had from ``source``."""
    tell = [] if told is None else told
    return Secrets({"MAIL": SecretSource(**source)}, root, tell.append, asking=asking)["MAIL"]


def secret_file(folder: Path, text: str = f"{CANARY}\n", mode: int = 0o600) -> Path:
    """A file with a secret."""
    path = folder / "it's mine"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def git(folder: Path, *words: str) -> None:
    """Run git in ``folder``."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *words], cwd=folder, env=environ, check=True, capture_output=True)


# --- where they are had from ----------------------------------------------------


@pytest.mark.parametrize("said", [CANARY, f"{CANARY}\n", f"{CANARY}\n\n", "two\nlines\n", " ü "])
def test_a_value_is_had_without_its_last_newline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Nothing else is stripped; each source gives the same."""
    monkeypatch.setenv("BLOG_MAIL", said)
    path = secret_file(tmp_path, said)
    expected = said.removesuffix("\n")
    told: list[str] = []
    assert had(tmp_path, told, variable="BLOG_MAIL") == expected
    assert had(tmp_path, told, file=str(path)) == expected
    assert had(tmp_path, told, file="it's mine") == expected
    assert had(tmp_path, told, command=shlex.join(["cat", str(path)])) == expected
    assert told == [expected] * 4


def test_a_command_is_no_shell(tmp_path: Path) -> None:
    """Words are split as a shell would, and nothing in them is expanded; it runs beside the fabfile."""
    assert had(tmp_path, command="printf '%s' \"a b\" '$HOME;id'") == "a b$HOME;id"
    assert had(tmp_path, command="pwd") == str(tmp_path)


def test_a_secret_is_fetched_once(tmp_path: Path) -> None:
    """For all hosts and tasks of a run, and each of them hides it."""
    command = "sh -c 'echo x >> asked; echo value'"
    for _ in range(3):
        told: list[str] = []
        assert had(tmp_path, told, command=command) == "value"
        assert told == ["value"]
    assert (tmp_path / "asked").read_text() == "x\n"


def test_without_asking_no_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be had without one is had all the same."""
    monkeypatch.setenv("BLOG_MAIL", CANARY)
    assert had(tmp_path, asking=False, command="sh -c 'echo x > asked'") == ""
    assert had(tmp_path, asking=False, variable="BLOG_MAIL") == CANARY
    assert not (tmp_path / "asked").exists()


def test_those_that_are_made_on_the_host_are_not_here(tmp_path: Path) -> None:
    """They are not listed, and a template that asks for one is told why."""
    found = Secrets({"KEY": SecretSource(generate=50), "MAIL": SecretSource(command="echo a")}, tmp_path, print)
    assert (list(found), len(found)) == (["MAIL"], 1)
    with pytest.raises(ConfigError) as caught:
        found["KEY"]
    assert caught.value.render() == (
        "Error: fabdjango.secrets.KEY is made on the host, and so no template can have it here\n"
        " state: no host was contacted (exit 1)\n"
        " do this: read it from the environment, where the site's programs find it: os.environ['KEY']"
    )


# --- what is refused ------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"sh -c 'echo {CANARY[:6]}; echo {CANARY[:6]} >&2; exit 3'", "the command ended with status 3"),
        ("no-such-command-of-ours", "the command cannot be run: No such file or directory"),
        ("sh -c 'sleep 60 & exec sleep 60'", "the command did not end within 0.2 seconds"),
        ("true", "is empty"),
        ("printf '\\n'", "is empty"),
        ("printf '\\377'", "is not text in UTF-8"),
        ("printf 'a\\000'", "holds a NUL, which no environment can carry"),
    ],
)
def test_a_command_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The name is told, and never what it said."""
    monkeypatch.setattr(secret_sources, "_PATIENCE", 0.2)
    with pytest.raises(ConfigError) as caught:
        had(tmp_path, command=command)
    separator = " " if message.startswith(("is", "holds")) else ": "
    assert caught.value.message == f"fabdjango.secrets.MAIL{separator}{message}"
    assert command in caught.value.cure
    assert capfd.readouterr() == ("", "")


def test_a_variable_that_is_not_set(tmp_path: Path) -> None:
    """Before any host is asked."""
    with pytest.raises(ConfigError) as caught:
        had(tmp_path, variable="NO_SUCH_VARIABLE")
    assert caught.value.render() == (
        "Error: fabdjango.secrets.MAIL: the environment variable NO_SUCH_VARIABLE is not set\n"
        " state: no host was contacted (exit 1)\n"
        " do this: NO_SUCH_VARIABLE='…' fab …"
    )


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_file_that_others_can_touch(tmp_path: Path, mode: int) -> None:
    """Its mode is told, with the cure to type."""
    path = secret_file(tmp_path, mode=mode)
    with pytest.raises(ConfigError) as caught:
        had(tmp_path, file="it's mine")
    assert caught.value.message == f"fabdjango.secrets.MAIL: others can read or write {path} (mode {mode:o})"
    subprocess.run(["sh", "-c", caught.value.cure], check=True)
    assert had(tmp_path, file="it's mine") == CANARY


def test_a_file_that_git_tracks(tmp_path: Path) -> None:
    """It would be in every clone; one that git ignores or does not know is fine, and a link is followed."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    git(folder, "init", "--quiet")
    path = secret_file(folder)
    assert had(tmp_path, file=str(path)) == CANARY
    secret_sources._known.clear()
    git(folder, "add", "--", path.name)
    link = tmp_path / "link"
    link.symlink_to(path)
    for place in (path, link):
        with pytest.raises(ConfigError) as caught:
            had(tmp_path, file=str(place))
        assert caught.value.message == (
            f"fabdjango.secrets.MAIL: git tracks {place}, and so it goes wherever the repository goes"
        )


@pytest.mark.parametrize(
    ("name", "reason"), [("it's nowhere", "No such file or directory"), (".", "Is a directory"), ("a\0b", "null")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    """The path is told as it was looked for."""
    with pytest.raises(ConfigError, match=f"cannot read .*{reason}"):
        had(tmp_path, file=name)
    with pytest.raises(ConfigError, match=r"^fabdjango\.secrets\.MAIL: "):
        had(tmp_path, file="~nobody at all/x")


# --- in templates ---------------------------------------------------------------


def test_a_template_has_them_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the filter of its target, as any other value."""
    monkeypatch.setenv("BLOG_MAIL", CANARY)
    (tmp_path / "it's.j2").write_text("MAIL = {{ secrets.MAIL | python }}\n")
    secrets = Secrets({"MAIL": SecretSource(variable="BLOG_MAIL")}, tmp_path, print)
    rendered = Templates(tmp_path, {}).render_project_file("it's.j2", "local_settings", secrets=secrets)
    assert rendered.text == f'MAIL = "{CANARY}"\n'


def test_a_template_that_asks_for_another_one(tmp_path: Path) -> None:
    """The names that there are stand in the cure."""
    (tmp_path / "it's.j2").write_text("{{ secrets.MALE }}")
    secrets = Secrets({"MAIL": SecretSource(variable="BLOG_MAIL")}, tmp_path, print)
    with pytest.raises(ConfigError) as caught:
        Templates(tmp_path, {}).render_project_file("it's.j2", "local_settings", secrets=secrets)
    assert caught.value.message == "fabdjango.secrets has no MALE, which a template asks for"
    assert caught.value.cure == "those that there are: MAIL"
