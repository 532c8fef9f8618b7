"""By hand: a command, and one file that comes or goes, as shell that really runs."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabdjango.commands import host
from fabdjango.commands.host import Found
from fabdjango.escape import Secret
from fabdjango.exceptions import ConfigError
from fabdjango.plan import Phase, Step
from fabdjango.script import EventParser, render_script
from fabdjango.transport import Follower, PhaseResult
from tests.conftest import shell, shown

BYTES = bytes(range(256)) * 3


def play(step: Step, home: Path, **environ: str) -> PhaseResult:
    """Run a step as a host does, by dash, in a home of its own."""
    phase = Phase("test", (step,))
    script = render_script(phase, run="R1")
    given = script.encode() + step.feed
    words = ["dash", "-c", 'p=$(head -c "$1"); eval "$p"', "sh", str(len(script.encode()))]
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), **environ}
    done = subprocess.run(words, input=given, env=environ, cwd=home, capture_output=True, check=False)
    follower = Follower(phase, lambda *_: None)
    parser = EventParser("R1")
    for event in [*parser.feed(done.stdout), *parser.close()]:
        follower.take(event)
    follower.result.status = done.returncode
    return follower.result


def said(result: PhaseResult) -> tuple[int | None, str]:
    """The status of the one step, and what it has said."""
    (step,) = result.steps
    return step.status, step.output


def left_over(folder: Path) -> list[str]:
    """Temporary files that were not taken away."""
    return [path.name for path in folder.rglob(".fabdjango.*")]


# --- commands -----------------------------------------------------------------------------


def test_a_command() -> None:
    """One word of shell, whatever is in it; as the owner, or as root."""
    assert shown(host.run_command("echo 'it is' | cat\nid"), host.run_command("id", as_root=True)) == shell("""
        # command: echo 'it is' | cat
        sh -c 'echo '"'"'it is'"'"' | cat
        id'
        # command (as root): id
        cd
        sh -c id
    """)
    with pytest.raises(ConfigError, match="there is no command to run"):
        host.run_command("  ")


@pytest.mark.parametrize("command", ["exit 7", "false; echo 'it is'", "kill -9 $$", "cat"])
def test_how_a_command_ends(command: str, tmp_path: Path) -> None:
    """Its status is told as it is, and it has nothing to read."""
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, check=False, capture_output=True)
    expected = done.returncode if done.returncode >= 0 else 128 - done.returncode
    assert play(host.run_command(command), tmp_path).steps[0].status == expected


def test_a_list(tmp_path: Path) -> None:
    """What would steer a terminal is a question mark in names; ~ is the home of whoever lists."""
    (tmp_path / "it's here").mkdir()
    (tmp_path / "it's here" / "a\033[31m b").touch()
    status, text = said(play(host.list_folder("~/it's here"), tmp_path))
    assert status == 0
    assert text.splitlines()[1].endswith(" a?[31m b")


# --- a file that comes ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ['~/it\'s "a" file', 'it\'s "a" file', "-n", "~/link"])
@pytest.mark.parametrize("data", [b"", BYTES, b"no line end"])
def test_a_file_comes_as_it_is(path: str, data: bytes, tmp_path: Path) -> None:
    """Any bytes, from any path; a link is followed."""
    for name in ('it\'s "a" file', "-n"):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o640)
    (tmp_path / "link").symlink_to("-n")
    result = play(host.fetch_file(path), tmp_path)
    assert result.status == 0
    assert host.read_found(result.steps[0].data, result.steps[0].output) == Found(data, 0o640)


@pytest.mark.parametrize(
    ("path", "why"), [("it's", "it's is not there"), ("~", "{home} is a folder: pack it first, with host.run and tar"), ("/dev/null", "/dev/null is not a file")]
)  # fmt: skip
def test_what_is_no_file(path: str, why: str, tmp_path: Path) -> None:
    """It is said in words."""
    assert said(play(host.fetch_file(path), tmp_path)) == (1, why.format(home=tmp_path) + "\n")


def test_a_file_that_may_lack(tmp_path: Path) -> None:
    """An editor begins with nothing."""
    step = play(host.fetch_file("it's", may_lack=True), tmp_path).steps[0]
    found = host.read_found(step.data, step.output)
    assert (step.status, found, found.digest) == (0, Found(b"", 0), "")
    assert Found(b"", 0o600).digest == hashlib.sha256(b"").hexdigest()


# --- a file that goes -----------------------------------------------------------------------


@given(data=st.binary(max_size=300), name=st.from_regex(r"[^/\0\ud800-\udfff]{1,20}", fullmatch=True).filter(lambda name: name not in (".", "..")))  # fmt: skip
@settings(max_examples=25)
def test_a_file_goes_as_it_is(data: bytes, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any bytes, to any name, and what has been put can be fetched again."""
    home = tmp_path_factory.mktemp("home")
    # What stands after ~/ is taken as it is, also another ~.
    path = f"~/{name}"
    assert play(host.put_file(data, path, "local", 0o640), home).status == 0
    assert ((home / name).read_bytes(), (home / name).stat().st_mode & 0o777) == (data, 0o640)
    result = play(host.fetch_file(path), home)
    assert result.steps[0].data == data
    assert left_over(home) == []


def test_a_second_time_is_unchanged(tmp_path: Path) -> None:
    """An equal file is left alone; one that is there keeps its permissions, unless others are wanted."""
    (tmp_path / "it's").write_bytes(b"old")
    (tmp_path / "it's").chmod(0o600)
    step = host.put_file(BYTES, "it's", "local", 0o755)
    first = play(step, tmp_path)
    assert (first.steps[0].unchanged, play(step, tmp_path).steps[0].unchanged) == (None, "as before")
    assert (tmp_path / "it's").stat().st_mode & 0o777 == 0o600
    play(host.put_file(BYTES, "it's", "local", 0o755, keep_mode=False), tmp_path)
    assert (tmp_path / "it's").stat().st_mode & 0o777 == 0o755


def test_a_folder_gets_it_under_its_own_name(tmp_path: Path) -> None:
    """As cp and scp do."""
    (tmp_path / "it's").mkdir()
    play(host.put_file(b"x", "~/it's/", "a file", 0o644), tmp_path)
    assert (tmp_path / "it's" / "a file").read_bytes() == b"x"


def test_a_link(tmp_path: Path) -> None:
    """The owner writes what it points to; root, who must not be led anywhere, is told where that is."""
    (tmp_path / "there").write_bytes(b"old")
    (tmp_path / "it's").symlink_to("there")
    step = host.put_file(b"new", "it's", "local", 0o644, as_root=True)
    refused = play(Step(step.name, step.title, step.body, feed=step.feed), tmp_path)
    assert said(refused) == (1, f"it's is a link to {tmp_path}/there: give that path\n")
    play(host.put_file(b"new", "it's", "local", 0o644), tmp_path)
    assert ((tmp_path / "it's").is_symlink(), (tmp_path / "there").read_bytes()) == (True, b"new")


def test_what_cannot_be_replaced(tmp_path: Path) -> None:
    """The reason is said, and nothing is left behind."""
    assert said(play(host.put_file(b"x", "no/it's", "x", 0o644), tmp_path)) == (1, "there is no folder no\n")
    os.mkfifo(tmp_path / "it's")
    assert said(play(host.put_file(b"x", "it's", "x", 0o644), tmp_path)) == (1, "it's is not a file\n")


def test_a_file_that_is_cut_on_its_way(tmp_path: Path) -> None:
    """The good one stays, whatever the link does."""
    (tmp_path / "it's").write_bytes(b"good")
    step = host.put_file(BYTES, "it's", "local", 0o644)
    result = play(Step(step.name, step.title, step.body, feed=step.feed[:-1]), tmp_path)
    assert said(result) == (1, "it did not arrive whole\n")
    assert ((tmp_path / "it's").read_bytes(), left_over(tmp_path)) == (b"good", [])


def test_a_full_disk(tmp_path: Path) -> None:
    """The good one stays; a limit on the size of files stands for the disk."""
    (tmp_path / "it's").write_bytes(b"good")
    step = host.put_file(b"x" * 10_000_000, "it's", "local", 0o644)
    # A write beyond it fails, as one to a full disk does.
    body = f"trap '' XFSZ; ulimit -f 1000\n{step.body}"
    result = play(Step(step.name, step.title, type(step.body)(body), feed=step.feed), tmp_path)
    assert result.steps[0].status == 1
    assert result.steps[0].output.endswith("cannot write it's: the one before is as it was\n")
    assert ((tmp_path / "it's").read_bytes(), left_over(tmp_path)) == (b"good", [])


def test_a_file_that_was_changed_meanwhile(tmp_path: Path) -> None:
    """What was edited goes back only over what was fetched."""
    place = tmp_path / "it's"
    place.write_bytes(b"fetched")
    step = host.put_file(b"edited", "it's", "it's", 0o644, digest=Found(b"fetched", 0o644).digest)
    place.write_bytes(b"theirs")
    refused = (1, "it was changed on the host in the meantime\n")
    assert (said(play(step, tmp_path)), place.read_bytes()) == (refused, b"theirs")
    place.write_bytes(b"fetched")
    assert (play(step, tmp_path).status, place.read_bytes()) == (0, b"edited")
    # One that was not there must still not be there.
    new = host.put_file(b"edited", "it's", "it's", 0o644, digest="")
    assert said(play(new, tmp_path)) == refused
    place.unlink()
    assert (play(new, tmp_path).status, place.read_bytes()) == (0, b"edited")
    assert left_over(tmp_path) == []


def test_nothing_of_a_file_is_shown() -> None:
    """Neither in a dry run nor in a repr."""
    secret = Secret("canary 'it is'").reveal()
    step = host.put_file(secret.encode(), "~/it's", "local", 0o600)
    assert "canary" not in shown(step) + repr(step)
    assert shlex.quote("canary") not in step.body
