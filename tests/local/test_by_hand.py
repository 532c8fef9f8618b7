"""By hand, through the embedded server: commands, files and logs of two hosts at once."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.fleet import FleetStage
from tests.local.stage import SOON, Stage, Tools, until

#: Its hosts are made once.
pytestmark = pytest.mark.xdist_group("by-hand")
BYTES = bytes(range(256)) * 999


@pytest.fixture(scope="module")
def fleet(tools: Tools) -> Iterator[FleetStage]:
    """Two hosts without a release; each has a log."""
    made = FleetStage(tools, 2)
    try:
        for each in made.hosts:
            log_of(each).parent.mkdir(parents=True)
        yield made
    finally:
        made.close()


def log_of(stage: Stage, name: str = "shop-web-a") -> Path:
    """A log of the supervisor of one's own."""
    return stage.root / f"shared/log/{name}.log"


@pytest.fixture
def stage(fleet: FleetStage) -> Iterator[Stage]:
    """The first host, called by its address."""
    yield fleet.first
    for each in fleet.hosts:
        for path in each.home.glob("it's*"):
            path.unlink()


def editor(stage: Stage, text: str) -> dict[str, str]:
    """The environment of an operator whose editor is this shell text; $1 is the file."""
    stage.write("my editor", f"#!/bin/sh\n{text}\n").chmod(0o755)
    return {"EDITOR": f"'{stage.operator}/my editor'"}


# --- commands -----------------------------------------------------------------------------


def test_a_command(stage: Stage) -> None:
    """What it says is shown and nothing else; the exit code is its own."""
    run = stage.fab("host.run", "echo 'it is'; pwd; printf 'a\\033[31m\\n'; exit 7", code=7)
    assert run.out == f"it is\n{stage.home}\na\\x1b[31m\n"
    assert run.err.splitlines()[0].startswith("Error: ended with status 7: echo 'it is'; ")


def test_a_command_on_several_hosts(fleet: FleetStage) -> None:
    """Each line has its host in front; the exit code is the first that is not 0, and all are told."""
    one, two = fleet.names
    run = fleet.fab("host.run", f'echo "it is"; [ "$HOME" != "{fleet.hosts[1].home}" ] || exit 9', code=9)
    assert sorted(run.out.splitlines()) == [f"[{one}] it is", f"[{two}] it is"]
    assert (
        f'Error: ended with status 9: echo "it is"; [ "$HOME" != "{fleet.hosts[1].home}" ] || exit 9\n host: {two}\n'
        in run.err
    )
    assert run.err.rstrip().endswith("Error: 1 of 2 hosts: it failed")
    dry = fleet.fab("--dry", "host.run", "touch 'it is'")
    assert "sh -c 'touch '\"'\"'it is'\"'\"''" in dry.out
    assert not any((each.home / "it is").exists() for each in fleet.hosts)


# --- files ----------------------------------------------------------------------------------


def test_a_file_goes_and_comes(fleet: FleetStage, stage: Stage) -> None:
    """Onto all hosts at once, from each into a folder of its own; a second time changes nothing."""
    (stage.operator / "a 'file'").write_bytes(BYTES)
    sent = fleet.fab("host.put", "a 'file'", '~/it\'s "there"')
    assert sorted(sent.out.splitlines()) == [
        f'[{name}] put: ~/it\'s "there", {len(BYTES)} bytes' for name in fleet.names
    ]
    assert [(each.home / 'it\'s "there"').read_bytes() == BYTES for each in fleet.hosts] == [True, True]
    again = fleet.fab("host.put", "a 'file'", '~/it\'s "there"', "--mode=600")
    assert "unchanged" not in again.out
    assert [(each.home / 'it\'s "there"').stat().st_mode & 0o777 for each in fleet.hosts] == [0o600, 0o600]
    assert "[127.0.0.11] unchanged: " in fleet.fab("host.put", "a 'file'", '~/it\'s "there"').out
    fleet.fab("host.get", '~/it\'s "there"', "--local=got")
    for name in fleet.names:
        place = stage.operator / "got" / name / 'it\'s "there"'
        assert (place.read_bytes() == BYTES, place.stat().st_mode & 0o777) == (True, 0o600)
    stage.fab("host.get", '~/it\'s "there"', "--local=one file")
    assert (stage.operator / "one file").read_bytes() == BYTES
    assert (
        stage.fab("host.get", '~/it\'s "there"', "--local=one file").out == f"unchanged: one file, {len(BYTES)} bytes\n"
    )


def test_a_file_is_printed(stage: Stage) -> None:
    """Into a pipe byte by byte, of one host."""
    (stage.home / "it's").write_bytes(BYTES)
    done = subprocess.run(stage.command("host.cat", "~/it's"), cwd=stage.operator, env=stage.environ(), capture_output=True, check=True)  # fmt: skip
    assert done.stdout == BYTES
    assert "it's" in stage.fab("host.ls", "--path=~").out
    assert "shared" in stage.fab("host.ls").out


def test_what_is_not_there(fleet: FleetStage, stage: Stage) -> None:
    """It is said of each host, and nothing is written on the operator's side."""
    (stage.home / "it's").write_bytes(b"x")
    run = fleet.fab("host.get", "~/it's", "--local=half", code=1)
    assert f"{fleet.hosts[1].home}/it's is not there" in run.err
    assert [path.parent.name for path in (stage.operator / "half").rglob("it's")] == [fleet.names[0]]
    assert "Error: cannot read no: No such file or directory" in stage.fab("host.put", "no", "~/it's", code=1).err


def test_an_edit(stage: Stage) -> None:
    """The operator's editor, the difference, and the file replaced with its permissions."""
    place = stage.home / "it's"
    place.write_text("one\ntwo\n")
    place.chmod(0o644)
    run = stage.fab("host.edit", "~/it's", environ=editor(stage, 'sed -i s/two/2/ "$1"'))
    assert run.out.splitlines() == [
        "--- ~/it's",
        "+++ ~/it's",
        "@@ -1,2 +1,2 @@",
        " one",
        "-two",
        "+2",
        "put: ~/it's, 6 bytes",
    ]
    assert place.read_text() == "one\n2\n"
    assert stage.fab("host.edit", "~/it's", environ=editor(stage, "true")).out == "unchanged: ~/it's\n"
    assert "Error: " in stage.fab("host.edit", "~/it's", environ=editor(stage, 'echo x > "$1"; exit 1'), code=1).err
    assert place.read_text() == "one\n2\n"
    dry = stage.fab("--dry", "host.edit", "~/it's", environ=editor(stage, "exit 1"))
    assert dry.out == f"would get ~/it's, open it with '{stage.operator}/my editor' and put it back\n"


def test_an_edit_of_what_is_not_for_all_to_read(stage: Stage) -> None:
    """Its lines are not shown."""
    place = stage.home / "it's"
    place.write_text("KEY=canary-1\n")
    place.chmod(0o640)
    run = stage.fab("host.edit", "~/it's", environ=editor(stage, 'echo KEY=canary-2 > "$1"'))
    assert run.out == "# ~/it's: 1 lines more, 1 lines less (not shown: mode 640)\nput: ~/it's, 13 bytes\n"
    assert (place.read_text(), place.stat().st_mode & 0o777) == ("KEY=canary-2\n", 0o640)


def test_an_edit_that_came_too_late(stage: Stage) -> None:
    """Somebody has changed the file meanwhile: theirs stays, and what was written is kept on this side."""
    place = stage.home / "it's"
    place.write_text("one\n")
    run = stage.fab("host.edit", "~/it's", environ=editor(stage, f'echo mine > "$1"; echo theirs > "{place}"'), code=1)
    assert "it was changed on the host in the meantime" in run.err
    assert place.read_text() == "theirs\n"
    kept = Path(run.err.partition("what you wrote is in ")[2].splitlines()[0])
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("mine\n", 0o600)
    kept.unlink()
    kept.parent.rmdir()


# --- logs -----------------------------------------------------------------------------------


def test_logs_of_all_hosts(fleet: FleetStage) -> None:
    """Each line behind its host, and of several programs behind the program; what would steer the terminal is visible."""
    for each in fleet.hosts:
        log_of(each).write_text(
            "[2026-11-01 12:00:00 +0000] it's one\n[2026-11-01 13:00:00 +0000] \033[31mtwo\033[0m\n"
        )
    run = fleet.fab("logs", "--since=2026-11-01 12:30Z")
    line = r"[2026-11-01 13:00:00 +0000] \x1b[31mtwo\x1b[0m"
    assert sorted(run.out.splitlines()) == [f"[{name}] {line}" for name in fleet.names]
    run = fleet.fab("logs", "--lines=1")
    assert sorted(run.out.splitlines()) == [f"[{name}] {line}" for name in fleet.names]
    assert 'Error: the site has no program and no job "it\'s"' in fleet.fab("logs", "--name=it's", code=1).err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_following_ends_on_both_sides(fleet: FleetStage, how: signal.Signals) -> None:
    """Lines come as they are written; after Ctrl-C and after kill -9 nothing of it is left on a host."""
    for each in fleet.hosts:
        log_of(each).write_text("it's the first\n")
    words = fleet.words("logs", "--follow")
    with subprocess.Popen(
        words, cwd=fleet.first.operator, env=fleet.first.environ(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stdout
        seen = sorted(process.stdout.readline() for _ in range(2))
        assert seen == [f"[{name}] it's the first\n" for name in fleet.names]
        for each in fleet.hosts:
            with log_of(each).open("a") as file:
                file.write("and more\n")
        assert sorted(process.stdout.readline() for _ in range(2)) == [f"[{name}] and more\n" for name in fleet.names]
        assert of_hosts(fleet)
        process.send_signal(how)
        assert process.communicate(timeout=SOON) == ("", "")
    assert process.returncode == (0 if how == signal.SIGINT else -how)
    until(lambda: not of_hosts(fleet))


def of_hosts(fleet: FleetStage) -> list[str]:
    """Processes that the servers have started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes()
        except OSError:
            continue
        if any(f"HOME={each.home}\0".encode() in environ for each in fleet.hosts):
            found.append(process.name)
    return found
