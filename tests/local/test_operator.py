"""The operator's side dies, stops watching, presses Ctrl-C or comes second: the host ends what was begun, one way or the other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.sample import make_project
from tests.local.stage import SOON, Stage, Tools, Traffic, until


@pytest.fixture(scope="module")
def site(tools: Tools) -> Iterator[Stage]:
    """A site that serves, with visitors all the time, none of whose requests may fail."""
    stage = Stage(tools)
    try:
        stage.repository.commit(make_project())
        stage.configure(django={"collectstatic": "never"}, activation={"confirm": 600})
        stage.deploy()
        with Traffic(stage, visitors=1) as visitors:
            yield stage
        assert visitors.failures == []
    finally:
        stage.close()


@pytest.fixture
def edition(site: Stage) -> str:
    """A commit that the site does not serve yet; the word that it shows."""
    word = str(int(site.get().page["edition"]) + 1)
    site.repository.commit({"notes/edition.py": f"EDITION = {word!r}\n"})
    return word


def go_on(stage: Stage) -> None:
    """Let the host go on from its pause."""
    (stage.root / "run/paused").unlink()


def kill(deployer: subprocess.Popen[str]) -> None:
    """End the operator's side without a chance to say anything."""
    deployer.kill()
    assert deployer.wait() == -signal.SIGKILL


def at_rest(stage: Stage) -> None:
    """Nothing is left of an activation, and one slot is in use."""
    assert not list((stage.root / "run").glob("activation.*"))
    (slot,) = (stage.root / "slots").iterdir()
    assert slot.resolve() == (stage.root / "current").resolve()
    assert (stage.root / "run/current.sock").readlink().stem == slot.name


# --- the deployer is gone -----------------------------------------------------


def test_killed_while_it_prepares(site: Stage, edition: str) -> None:
    """The next deploy ends what still runs of it, clears what is half-done, and needs no other word."""
    old = site.current
    with site.paused("deploy", at="during:check") as deployer:
        kill(deployer)
        assert site.current == old
        run = site.deploy()
    assert "ended what a dead deployment still ran" in run.out
    assert "which were never completed" in run.out
    assert (site.get().page["release"], site.get().page["edition"]) == (site.current, edition)
    at_rest(site)


def test_killed_while_the_slot_starts(site: Stage, edition: str) -> None:
    """The host goes on alone; the next deploy finds it, confirms it, and has nothing else to do."""
    old = site.current
    with site.paused("deploy", at="before:health") as deployer:
        kill(deployer)
        assert site.get().page["release"] == old
        go_on(site)
        run = site.deploy()
    assert "lost its deployer is still under way: it is taken up" in run.out
    assert run.last.startswith("unchanged: ")
    assert site.current != old
    assert site.get().page["edition"] == edition
    assert (site.journal[-1]["release"], site.journal[-1]["result"]) == (site.current, "serves")
    at_rest(site)


def test_resume_while_the_host_waits(site: Stage, edition: str) -> None:
    """``deploy --resume`` gives the word that the dead deployer did not, and follows it to its end; then there is nothing to resume."""
    with site.paused("deploy", at="during:await") as deployer:
        kill(deployer)
        assert (site.root / "run/activation.armed").exists()
        go_on(site)
        run = site.fab("deploy", "--resume")
    assert run.last == f"resumed: {site.current} serves on 127.0.0.1"
    assert (site.journal[-1]["release"], site.journal[-1]["result"]) == (site.current, "serves")
    assert site.get().page["edition"] == edition
    at_rest(site)
    assert site.fab("deploy", "--resume").last == f"nothing to resume: {site.current} serves on 127.0.0.1"


def test_nobody_confirms(site: Stage, edition: str) -> None:
    """The host puts the old release back when the time is over, and the next deploy brings the new one."""
    old = site.current
    site.configure(activation={"confirm": 1})
    with site.paused("deploy", at="during:await") as deployer:
        kill(deployer)
        assert site.current != old
        go_on(site)
        until(lambda: site.journal[-1]["result"] == "reverted" and not list((site.root / "run").glob("activation.*")))
    site.configure(activation={"confirm": 600})
    assert site.current == site.get().page["release"] == old
    at_rest(site)
    site.deploy()
    assert site.get().page["edition"] == edition


def test_the_script_on_the_host_is_killed(site: Stage, edition: str) -> None:
    """The deployer lives, asks the host how it ended, puts the old release back, and says so."""
    old = site.current
    with site.paused("deploy", at="after:switch") as deployer:
        assert site.current != old
        (keeper,) = [int(file.read_text()) for file in running(site)]
        os.kill(keeper, signal.SIGKILL)
        told, failed = deployer.communicate(timeout=SOON)
    assert deployer.returncode == 3, told + failed
    assert "how it ended was not told: the host is asked" in told
    assert f" state: {old} serves, as before (exit 3)" in failed
    assert site.current == site.get().page["release"] == old
    assert site.journal[-1]["result"] == "reverted"
    at_rest(site)
    site.deploy()
    assert site.get().page["edition"] == edition


def test_the_script_is_killed_once_it_is_confirmed(site: Stage, edition: str) -> None:
    """There is no way back any more: what is left is finished, and the exit code says so."""
    old = site.current
    with site.paused("deploy", at="before:stop-old") as deployer:
        (keeper,) = [int(file.read_text()) for file in running(site)]
        os.kill(keeper, signal.SIGKILL)
        # What finishes it has a step of that name too.
        go_on(site)
        until((site.root / "run/paused").exists)
        go_on(site)
        told, failed = deployer.communicate(timeout=SOON)
    assert deployer.returncode == 0, told + failed
    assert told.strip().splitlines()[-1] == f"deployed: {site.current} serves on 127.0.0.1"
    assert site.current == site.get().page["release"] != old
    assert site.get().page["edition"] == edition
    at_rest(site)


def running(stage: Stage) -> list[Path]:
    """The pid files of activations that are alive."""
    return [
        file
        for file in (stage.root / "run/activations").glob("*.pid")
        if file.stem.encode() in cmdline(int(file.read_text()))
    ]


def cmdline(pid: int) -> bytes:
    """The words of a process; none if there is none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""


# --- Ctrl-C -------------------------------------------------------------------


def interrupt(deployer: subprocess.Popen[str]) -> None:
    """Press Ctrl-C once, and read what it says."""
    deployer.send_signal(signal.SIGINT)
    assert deployer.stdout is not None
    for line in deployer.stdout:
        if "Ctrl-C again stops watching it" in line:
            return
    pytest.fail("it said nothing")


def test_one_ctrl_c_lets_the_switch_end(site: Stage, edition: str) -> None:
    """It only says what a second one would do, and the exit code is that of the deploy."""
    with site.paused("deploy", at="after:switch") as deployer:
        interrupt(deployer)
        go_on(site)
        rest, _ = deployer.communicate(timeout=SOON)
    assert deployer.returncode == 0
    assert rest.strip().splitlines()[-1] == f"deployed: {site.current} serves on 127.0.0.1"
    assert site.get().page["edition"] == edition


def test_a_second_ctrl_c_stops_watching(site: Stage, edition: str) -> None:
    """The exit code says that nobody knows, and each cure is a command that works."""
    with site.paused("deploy", at="after:switch") as deployer:
        interrupt(deployer)
        deployer.send_signal(signal.SIGINT)
        _, told = deployer.communicate(timeout=SOON)
        assert deployer.returncode == 2
        assert told.startswith("Error: you stopped watching; the host goes on by itself")
        target = f"{site.server.user}@127.0.0.1:{site.server.port}"
        assert f"fab -H {target} status\n" in told
        assert told.rstrip().endswith(f"fab -H {target} deploy --resume")
        assert "is under way or was left behind" in site.fab("status").out
        go_on(site)
        site.fab("deploy", "--resume")
    assert site.get().page["edition"] == edition


def test_ctrl_c_before_the_switch(site: Stage, edition: str) -> None:
    """Nothing that serves was touched, and the next deploy clears what is half-done."""
    before = site.get().page
    with site.paused("deploy", at="during:check") as deployer:
        deployer.send_signal(signal.SIGINT)
        _, told = deployer.communicate(timeout=SOON)
        assert deployer.returncode == 1
        assert "state: nothing that serves was touched (exit 1)" in told
        assert site.get().page == before
        site.deploy()
    assert site.get().page["edition"] == edition


# --- two at once --------------------------------------------------------------


def test_a_second_deployer(site: Stage, edition: str) -> None:
    """It is refused with who, from where and since when; ``unlock`` says the same; with --wait it comes in afterwards."""
    with site.paused("deploy", at="before:check") as deployer:
        refused = site.deploy(code=1)
        assert "Error: another deployment of shop is running: " in refused.err
        who = refused.err.partition("is running: ")[2].splitlines()[0]
        assert ", deploy" in who
        assert ", since 2" in who
        assert f"held by {who}" in site.fab("unlock").out
        with site.begin("deploy", "--wait", "60") as second:
            assert second.stdout is not None
            for line in second.stdout:
                if f"waiting for {who}" in line:
                    break
            go_on(site)
            deployer.communicate(timeout=SOON)
            told, _ = second.communicate(timeout=SOON)
        assert deployer.returncode == second.returncode == 0
    assert told.strip().splitlines()[-1].startswith("unchanged: ")
    assert site.get().page["edition"] == edition
    assert "nobody holds the lock" in site.fab("unlock").out


def test_unlock_by_force(site: Stage, edition: str) -> None:
    """It ends the other's deploy: one that prepares is gone, one that has switched is told to go back first."""
    old = site.current
    for moment, code in (("during:check", 1), ("after:switch", 3)):
        with site.paused("deploy", at=moment) as deployer:
            run = site.fab("unlock", "--force")
            _, told = deployer.communicate(timeout=SOON)
        assert "held by " in run.out
        assert deployer.returncode == code, told
        assert site.current == site.get().page["release"] == old
    assert site.journal[-1]["result"] == "reverted"
    at_rest(site)
    site.deploy()
    assert site.get().page["edition"] == edition
