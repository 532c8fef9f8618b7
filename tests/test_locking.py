"""Two deployers and one site: real shells fight for the locks, and die while they have them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from fabdjango.escape import quote
from fabdjango.locking import LOCKED, unlock
from fabdjango.plan import Lock, Phase
from fabdjango.script import FAILED, Event, render_script
from tests.test_script import AS_ROOT, RUN, Host, events_of, host, shared, step, told

__all__ = ["host", "shared"]


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something that is about to be so."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come to pass"
        time.sleep(0.01)


def lock_of(host: Host, who: str, wait: int = 0) -> Lock:
    """The lock of the site in the host's folder, as ``who`` asks for it."""
    run = PurePosixPath(host.folder / "site" / "run")
    return Lock(run / "lock", run / "steps.lock", f"{who}@it's here", f"T-{who}", wait, "deploy")


def phase(host: Host, who: str, *bodies: str, wait: int = 0, hold: bool = False) -> Phase:
    """One phase of the deployment of ``who``."""
    steps = tuple(step(f"step{number}", body) for number, body in enumerate(bodies))
    return Phase("phase", steps, lock=lock_of(host, who, wait), hold=hold)


class Session:
    """A session whose standard input stays open, as a deployer keeps it."""

    def __init__(self, host: Host, phase: Phase, *, leased: bool = False, owner: str = "", login: str = "") -> None:
        self.out = host.folder / f"out-{time.monotonic_ns()}"
        text = render_script(phase, run=RUN, leased=leased, owner=owner, login=login)
        with self.out.open("wb") as out:
            self.process = host.begin(text, out=out, keep=True)

    @property
    def said(self) -> list[tuple[str, str, str]]:
        """Its reports until now."""
        return told(events_of(self.out.read_bytes()))

    def until(self, *event: str) -> None:
        """Wait until it has said something that begins with these words."""
        until(lambda: any(each[: len(event)] == event for each in self.said))

    def cut(self) -> None:
        """What becomes of a session whose deployer is killed: nobody writes to it any more."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> int:
        """Cut it, and wait for its exit status."""
        self.cut()
        return self.process.wait(timeout=30)


def is_free(path: Path) -> bool:
    """Nobody has the lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    """Whatever is left at the end of a test is ended."""
    kept: list[Session] = []
    yield kept
    for each in kept:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            each.end()


def hold(host: Host, sessions: list[Session], who: str = "ada", *bodies: str) -> Session:
    """A deployment that has won the locks and keeps its lease."""
    sessions.append(Session(host, phase(host, who, *(bodies or (":",)), hold=True)))
    return sessions[-1]


def test_a_lease_outlives_its_steps(host: Host, sessions: list[Session]) -> None:
    """The steps end, the lock stays until the session ends; who comes meanwhile is told by whom it is held, in one line."""
    ada = hold(host, sessions, "ada", "echo 'a b'")
    ada.until("exit", "", "0")
    status, events = host.run(phase(host, "bob", "touch never"))
    assert status == LOCKED
    assert [(event.kind, event.label) for event in events] == [("begin", "lock"), ("output", "lock"), ("end", "lock")]
    assert events[1].text.startswith("ada@it's here, deploy, since 20")
    assert events[1].text.endswith("Z")
    assert ada.end() == 0
    assert host.run(phase(host, "bob", ":"))[0] == 0
    assert not (host.folder / "never").exists()


def test_the_phases_of_one_deployment(host: Host, sessions: list[Session]) -> None:
    """The deployment that has the lease goes on; its phases say nothing of the lock."""
    ada = hold(host, sessions)
    ada.until("exit", "", "0")
    second = Session(host, phase(host, "ada", "echo on"), leased=True)
    sessions.append(second)
    assert second.end() == 0
    assert second.said == [("begin", "0", "step0"), ("output", "0", "on"), ("end", "0", "0")]
    assert not is_free(host.folder / "site/run/lock")


def test_waiting_for_the_lock(host: Host, sessions: list[Session]) -> None:
    """It says for whom it waits, and goes on as soon as the first has ended."""
    ada = hold(host, sessions)
    ada.until("exit")
    bob = Session(host, phase(host, "bob", "echo mine", wait=30))
    sessions.append(bob)
    bob.until("note", "lock")
    assert bob.said[1][2].startswith("waiting for ada@it's here, deploy, since 20")
    ada.end()
    assert bob.end() == 0
    assert bob.said[-4:] == [("end", "lock", "0"), ("begin", "0", "step0"), ("output", "0", "mine"), ("end", "0", "0")]


def test_waiting_in_vain(host: Host, sessions: list[Session]) -> None:
    """When its time is over it is refused as without waiting."""
    hold(host, sessions).until("exit")
    status, events = host.run(phase(host, "bob", "touch never", wait=1))
    assert (status, events[-1]) == (LOCKED, Event("end", "lock", "1"))
    assert events[-2].text.startswith("ada@it's here")


def test_a_failure_frees_the_lock(host: Host, sessions: list[Session]) -> None:
    """A phase that fails keeps no lease, although its deployer is still there."""
    ada = hold(host, sessions, "ada", "false")
    assert ada.process.wait(timeout=10) == FAILED
    assert host.run(phase(host, "bob", ":"))[0] == 0


def test_a_dead_deployer_whose_step_runs_on(host: Host, sessions: list[Session]) -> None:
    """Its lock is free at once; a newcomer ends its step, says so, and only then begins."""
    ada = hold(host, sessions, "ada", "trap '' HUP; sleep 60; touch never")
    ada.until("begin", "0")
    ada.cut()
    until(lambda: is_free(host.folder / "site/run/lock"), 2)
    assert not is_free(host.folder / "site/run/steps.lock")
    status, events = host.run(phase(host, "bob", "echo mine"))
    assert (status, events[-2]) == (0, Event("output", "0", "mine"))
    assert events[1].text.startswith("ended what a dead deployment still ran: ")
    assert "sleep (" in events[1].text
    assert ada.process.wait(timeout=5) != 0
    assert not (host.folder / "never").exists()


def test_a_dead_deployer_of_a_single_phase(host: Host, sessions: list[Session]) -> None:
    """A task that is no deployment frees the lock with its deployer too, and not before its steps are over."""
    ada = Session(host, phase(host, "ada", "sleep 60"))
    sessions.append(ada)
    ada.until("begin", "0")
    assert not is_free(host.folder / "site/run/lock")
    ada.cut()
    until(lambda: is_free(host.folder / "site/run/lock"), 2)
    assert host.run(phase(host, "bob", ":"))[0] == 0


def test_a_dead_deployer_whose_step_is_about_to_end(host: Host, sessions: list[Session]) -> None:
    """It is waited for a moment, and nothing is said of it."""
    ada = hold(host, sessions, "ada", 'sleep 0.7; touch "it\'s done"')
    ada.until("begin", "0")
    ada.cut()
    until(lambda: is_free(host.folder / "site/run/lock"), 2)
    status, events = host.run(phase(host, "bob", '[ -e "it\'s done" ]'))
    assert (status, told(events)) == (0, [("begin", "0", "step0"), ("end", "0", "0")])


def test_a_step_that_ignores_signals(host: Host, sessions: list[Session]) -> None:
    """It is killed."""
    ada = hold(host, sessions, "ada", "trap '' TERM; while :; do sleep 0.1; done")
    ada.until("begin", "0")
    ada.cut()
    until(lambda: is_free(host.folder / "site/run/lock"), 2)
    assert host.run(phase(host, "bob", ":"))[0] == 0


def test_a_lost_lease(host: Host, sessions: list[Session]) -> None:
    """Somebody else has deployed since: the old deployment does nothing more, also when the other one has ended."""
    hold(host, sessions).end()
    bob = hold(host, sessions, "bob")
    bob.until("exit")
    for ended in (False, True):
        if ended:
            bob.end()
        ada = Session(host, phase(host, "ada", "touch never"), leased=True)
        assert ada.end() == LOCKED
        assert ada.said[1][2].startswith("the lock was lost to bob@it's here, deploy, since 20")
    assert not (host.folder / "never").exists()


def test_a_lost_lease_that_nobody_took(host: Host, sessions: list[Session]) -> None:
    """The deployment wins the lock again, for this phase."""
    hold(host, sessions).end()
    ada = Session(host, phase(host, "ada", "flock -n site/run/lock true || echo mine"), leased=True)
    assert ada.end() == 0
    assert ada.said[1] == ("output", "0", "mine")


def test_steps_do_not_keep_the_lock_of_a_deployment(host: Host, sessions: list[Session]) -> None:
    """What a step leaves in the background has the steps' lock at most, at the number that daemons close."""
    body = "sleep 60 9>&- >/dev/null 2>&1 & echo $!; ls -l /proc/self/fd | grep -c '/site/run/lock' || :"
    ada = hold(host, sessions, "ada", body)
    ada.until("exit")
    ada.end()
    pid = int(ada.said[1][2])
    assert ada.said[2] == ("output", "0", "0")
    try:
        assert is_free(host.folder / "site/run/lock")
        assert is_free(host.folder / "site/run/steps.lock")
    finally:
        os.kill(pid, signal.SIGKILL)


@AS_ROOT
def test_the_steps_of_another_account_hold_the_lock(shared: Host, sessions: list[Session]) -> None:
    """Its shell holds the steps' lock by itself, is found when its deployer is dead, and refuses once the lock is lost."""
    body = "exec 3>&9; flock -ns 9 && echo held; sleep 60"
    ada = Session(shared, phase(shared, "ada", body, hold=True), owner="nobody", login="root")
    sessions.append(ada)
    ada.until("output", "0", "held")
    ada.cut()
    until(lambda: is_free(shared.folder / "site/run/lock"), 2)
    status, events = shared.run(phase(shared, "bob", "id -un"), owner="nobody", login="root")
    assert (status, events[-2].text) == (0, "nobody")
    assert "sleep (" in events[1].text
    text = render_script(phase(shared, "ada", ":"), run=RUN, owner="nobody", login="root", leased=True)
    # As if the token had been another's when the outer shell looked.
    process = shared.begin(text.replace("flock -ns 9 && fenced || lost", ":"))
    out, _ = process.communicate(timeout=10)
    assert told(events_of(out))[-2:] == [("output", "0", "this deployment has lost its lock"), ("end", "0", "94")]


@AS_ROOT
def test_a_lock_that_cannot_be_written(shared: Host) -> None:
    """That is what it says, and not that somebody else has it."""
    run = shared.folder / "site" / "run"
    assert shared.run(phase(shared, "ada", ":"), owner="nobody", login="root")[0] == 0
    # Root opens the files by itself; who may not pass the folder cannot sign.
    text = render_script(phase(shared, "bob", ":"), run=RUN, owner="nobody", login="root")
    process = shared.begin(
        text.replace("sign_both 2>/dev/null", f"chmod 700 {quote(str(shared.folder))}; sign_both 2>/dev/null")
    )
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 90
    assert told(events_of(out))[-2:] == [("output", "lock", f"cannot write {run}/lock"), ("end", "lock", "1")]


# --- by force ---------------------------------------------------------------------


def test_there_is_nothing_to_unlock(host: Host) -> None:
    """Where nobody has deployed, and where nobody deploys."""
    it = unlock(lock_of(host, ""))
    assert ("unchanged", "0", "nobody has deployed here") in host.do(it)
    host.run(phase(host, "ada", ":"))
    assert ("unchanged", "0", "nobody holds the lock") in host.do(it)


def test_unlocking(host: Host, sessions: list[Session]) -> None:
    """The lease and the running step are ended; who waited for them goes on."""
    ada = hold(host, sessions)
    ada.until("exit")
    running = Session(host, phase(host, "ada", "sleep 60"), leased=True)
    waiting = Session(host, phase(host, "bob", "echo mine", wait=30))
    sessions.extend((running, waiting))
    running.until("begin", "0")
    waiting.until("note", "lock")
    said = host.do(unlock(lock_of(host, "")))
    assert said[1][2].startswith("held by ada@it's here, deploy, since 20")
    assert said[2][2].startswith("ended: ")
    assert "sleep (" in said[2][2]
    assert running.process.wait(timeout=5) != 0
    assert waiting.end() == 0


def test_what_unlocks() -> None:
    """The program is sent with the paths; the body only looks."""
    it = unlock(Lock(PurePosixPath("/srv/it's/run/lock"), PurePosixPath("/srv/it's/run/steps.lock")), "root")
    assert (it.name, it.user) == ("unlock", "root")
    assert it.parameters == {
        "mode": "unlock",
        "deployment": "/srv/it's/run/lock",
        "steps": "/srv/it's/run/steps.lock",
    }
