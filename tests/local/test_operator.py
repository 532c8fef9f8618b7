"""The operator's side dies, stops watching or presses Ctrl-C: the host ends what was begun, one way or the other."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.local.sample import make_project
from tests.local.stage import Stage

PATIENCE = 60  # seconds


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is about to be so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def pause(stage: Stage, moment: str) -> None:
    """A site that serves, and a next commit whose deploy pauses at ``moment`` until the file ``go`` is there."""
    stage.repository.commit(make_project())
    stage.deploy()
    stage.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
    reached, go = stage.base / "reached", stage.base / "go"
    stage.configure(hooks={moment: [f"touch {reached}; while [ ! -e {go} ]; do sleep 0.02; done"]})


@pytest.fixture
def paused(stage: Stage) -> Stage:
    """A site whose next deploy pauses after the switch."""
    pause(stage, "after_switch")
    return stage


def begin(stage: Stage) -> subprocess.Popen[str]:
    """Start a deploy, and return when it is at its pause."""
    process = stage.begin("deploy")
    until((stage.base / "reached").exists)
    return process


def go_on(stage: Stage) -> None:
    """Let the paused step end."""
    Path(stage.base / "go").touch()


def test_the_deployer_is_killed_while_the_site_is_switched(paused: Stage) -> None:
    """
    The host finishes: the new release serves and the journal says so.

    The lock went with the process that held it, and the next deploy finds
    nothing to do.
    """
    before = paused.current
    deployer = begin(paused)
    deployer.send_signal(signal.SIGKILL)
    assert deployer.wait() == -signal.SIGKILL
    held = paused.fab("deploy", code=1)
    assert "another deployment of shop is running" in held.err
    assert paused.get().page["edition"] == "1"
    go_on(paused)

    until(lambda: paused.journal[-1]["release"] == paused.current != before)

    assert paused.get().page["edition"] == "2"
    assert paused.deploy().last.startswith("unchanged: ")


def test_one_ctrl_c_lets_the_switch_end(paused: Stage) -> None:
    """It only says what a second one would do, and the exit code is that of the deploy."""
    deployer = begin(paused)
    deployer.send_signal(signal.SIGINT)
    assert deployer.stdout is not None
    for line in deployer.stdout:
        if "Ctrl-C again stops watching it" in line:
            break
    else:
        pytest.fail("it said nothing")
    go_on(paused)

    rest, _ = deployer.communicate(timeout=PATIENCE)

    assert deployer.returncode == 0
    assert rest.strip().splitlines()[-1] == f"deployed: {paused.current} serves on 127.0.0.1"
    assert paused.get().page["edition"] == "2"


def test_a_second_ctrl_c_stops_watching(paused: Stage) -> None:
    """The exit code says that nobody knows, the cure is a command that works, and the host finishes."""
    deployer = begin(paused)
    assert deployer.stdout is not None
    deployer.send_signal(signal.SIGINT)
    for line in deployer.stdout:
        if "Ctrl-C again" in line:
            deployer.send_signal(signal.SIGINT)
            break
    _, told = deployer.communicate(timeout=PATIENCE)
    assert deployer.returncode == 2
    assert told.startswith("Error: you stopped watching; the host goes on by itself")
    target = f"{paused.server.user}@127.0.0.1:{paused.server.port}"
    assert told.rstrip().endswith(f"fab -H {target} status")
    go_on(paused)

    until(lambda: paused.journal[-1]["release"] == paused.current)

    assert paused.get().page["edition"] == "2"


def test_ctrl_c_before_the_switch(stage: Stage) -> None:
    """Nothing that serves was touched, and the next deploy clears what is half-done."""
    pause(stage, "before_check")
    before = stage.current
    deployer = begin(stage)
    deployer.send_signal(signal.SIGINT)
    _, told = deployer.communicate(timeout=PATIENCE)

    assert deployer.returncode == 1
    assert "state: nothing that serves was touched (exit 1)" in told
    assert (stage.current, stage.get().page["edition"]) == (before, "1")
    go_on(stage)
    stage.configure(hooks=None)
    # The step that Ctrl-C left behind holds the lock until it ends.
    until(lambda: subprocess.run(["flock", "--nonblock", stage.root / "run/lock", "true"], check=False).returncode == 0)
    stage.deploy()
    assert stage.get().page["edition"] == "2"
