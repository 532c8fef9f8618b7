"""Activations that outlive their deployer, over a real SSH connection: heard, answered, taken over, interrupted."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from fabric import Connection

from fabdjango.escape import Secret, raw
from fabdjango.exceptions import FabdjangoError, UnknownStateError
from fabdjango.locking import unlock
from fabdjango.plan import Lock, Phase, Step
from fabdjango.recording import RecordingTransport
from fabdjango.script import (
    AWAITING,
    FAILED,
    KEPT,
    LOCKED,
    NO_RECORD,
    PAUSE_VARIABLE,
    REVERT_FAILED,
    REVERTED,
    UNDERWAY,
    Event,
)
from fabdjango.settings import Ssh
from fabdjango.testing import EmbeddedServer
from fabdjango.transport import Account, FabricTransport, PhaseResult, StepResult

HERE = Account()


def until(condition: object, seconds: float = 60) -> None:
    """Wait for something that is about to be so."""
    assert callable(condition)
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come to pass"
        time.sleep(0.01)


def step(name: str, *lines: str) -> Step:
    """A step of these lines of shell."""
    return Step(name, f"it's {name}", raw("\n".join(lines)))


class Deployer:
    """One operator: a connection of their own, and everything that was heard on it."""

    def __init__(self, server: EmbeddedServer, who: str) -> None:
        connection = Connection(
            server.address,
            user=server.user,
            port=server.port,
            connect_kwargs={"key_filename": str(server.client_key_path), "look_for_keys": False, "allow_agent": False},
        )
        self.transport = FabricTransport(connection, Ssh(known_hosts=str(server.known_hosts_path), reconnect=20))
        self.who = who
        self.heard: list[tuple[str, str, str]] = []

    def listen(self, event: Event, _: StepResult | None) -> None:
        """Remember an event."""
        self.heard.append((event.kind, event.label, event.text))

    def lock(self) -> Lock:
        """The lock as this one asks for it."""
        run = PurePosixPath("~/it's here/run")
        return Lock(run / "lock", run / "steps.lock", f"{self.who}@laptop", f"T-{self.who}", task="deploy")

    def do(self, *steps: Step, hold: bool = False) -> PhaseResult:
        """Run steps under the lock."""
        return self.run(Phase("phase", steps, lock=self.lock(), hold=hold))

    def run(self, phase: Phase) -> PhaseResult:
        """Run a phase."""
        return self.transport.run(phase, HERE, self.listen)

    def settle(self, result: PhaseResult, decision: Step) -> tuple[PhaseResult, PhaseResult | None]:
        """Answer an activation, and prune."""
        prune = Phase("prune", (step("prune", "echo pruned"),), lock=self.lock())
        begin = lambda phase: self.heard.append(("phase", "", phase.name))  # noqa: E731
        return self.transport.settle(result, decision, prune, HERE, self.listen, begin)

    def activation(self, seconds: float = 30, **bodies: str) -> Phase:
        """A switch that waits for confirmation and reverts without it; every run of its undo leaves a line."""
        turns = int(seconds * 50)
        bodies = {
            "migrate": ":",
            "arm": "rm -f record.*; : > record.armed",
            "wait": f"report await {int(seconds)}\nn=0\nwhile [ -e record.armed ]; do n=$((n + 1))\n"
            f"if [ $n -gt {turns} ] && mv record.armed record.reverting; then refuse 'nobody confirmed'; fi; sleep 0.02; done\n"
            "[ -e record.confirmed ] || refuse 'told to revert'",
            "stop": ":",
            "journal": "echo serves >> journal",
            **bodies,
        }
        return Phase(
            "activate",
            tuple(step(name, body) for name, body in bodies.items()),
            undo=(step("back", "echo back >> journal"), step("health-back", bodies.get("health", ":"))),
            undo_from="arm",
            serving_from="wait",
            kept_from="stop",
            lock=self.lock(),
            record=PurePosixPath("~/it's here/run/activations"),
        )


CONFIRM = step("confirm", "mv record.armed record.confirmed")
REVERT = step("revert", "mv record.armed record.reverted")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A host."""
    with EmbeddedServer(tmp_path / "it's home") as server:
        yield server


@pytest.fixture
def ada(server: EmbeddedServer) -> Iterator[Deployer]:
    """The first deployer."""
    it = Deployer(server, "ada")
    yield it
    it.transport.release()
    it.transport.connection.close()


@pytest.fixture
def bob(server: EmbeddedServer) -> Iterator[Deployer]:
    """The second one."""
    it = Deployer(server, "bob")
    yield it
    it.transport.release()
    it.transport.connection.close()


def journal(server: EmbeddedServer) -> list[str]:
    """What became of the activations."""
    path = server.home / "journal"
    return path.read_text().split() if path.exists() else []


def cut(server: EmbeddedServer) -> None:
    """Break every connection, as a network does; what runs on the host runs on."""
    for each in list(server._open):
        server._loop.call_soon_threadsafe(each.abort)


def steps_run(server: EmbeddedServer) -> bool:
    """A step holds the steps' lock."""
    path = server.home / "it's here/run/steps.lock"
    return subprocess.run(["flock", "-n", path, "true"], check=False).returncode != 0


# --- a whole deployment ---------------------------------------------------------------


def test_a_deployment_takes_four_sessions(server: EmbeddedServer, ada: Deployer, bob: Deployer) -> None:
    """Survey, prepare, activate, settle: the lock is held over all of them, and no session is needed for it."""
    assert ada.do(step("survey"), hold=True).status == 0
    assert ada.do(step("prepare")).status == 0
    waiting = ada.run(ada.activation())
    assert (waiting.status, waiting.awaits) == (AWAITING, 30)
    assert ada.heard[-1] == ("await", "2", "30")
    assert bob.do(step("never")).status == LOCKED
    done, pruned = ada.settle(waiting, CONFIRM)
    assert done is waiting
    assert (done.status, [each.name for each in done.steps]) == (0, ["migrate", "arm", "wait", "stop", "journal"])
    assert {each.status for each in done.steps} == {0}
    assert pruned is not None
    assert (pruned.status, pruned.steps[0].output) == (0, "pruned\n")
    assert ada.heard[-5:] == [
        ("end", "4", "0"),
        ("phase", "", "prune"),
        ("begin", "0", "prune"),
        ("output", "0", "pruned"),
        ("end", "0", "0"),
    ]
    assert len(server.sessions) == 5  # bob's is one of them
    assert bob.do(step("never")).status == LOCKED
    ada.transport.release()
    ada.transport.release()
    assert bob.do(step("his")).status == 0
    assert journal(server) == ["serves"]


def test_a_second_survey_keeps_what_the_first_has_won(ada: Deployer, bob: Deployer) -> None:
    """It asks for the lock too, and finds it its own; the lock goes when it is let go of once."""
    assert ada.do(step("survey"), hold=True).status == 0
    assert ada.do(step("survey"), hold=True).status == 0
    assert ada.do(step("prepare")).status == 0
    assert bob.do(step("never")).status == LOCKED
    ada.transport.release()
    assert bob.do(step("his")).status == 0


# --- bytes in, bytes out --------------------------------------------------------------

MUCH = os.urandom(20_000_000)
SUM = hashlib.sha256(MUCH).hexdigest()
SUDO = """#!/bin/sh
# Becomes nobody else, but closes what sudo closes.
while [ "$1" != -- ]; do shift; done; shift
exec "$@" 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
"""


@pytest.fixture(params=["as oneself", "by sudo"])
def account(
    request: pytest.FixtureRequest, server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Account:
    """Who owns the site: who logs in, or another account that a stand-in for sudo leads to."""
    if request.param == "as oneself":
        return HERE
    programs = tmp_path / "it's bin"
    programs.mkdir()
    (programs / "sudo").write_text(SUDO)
    (programs / "sudo").chmod(0o755)
    monkeypatch.setitem(server._environ, "PATH", f"{programs}:/usr/local/bin:/usr/bin:/bin")
    return Account("ada", "bob")


def test_much_in_and_much_out(server: EmbeddedServer, ada: Deployer, account: Account) -> None:
    """A step reads 20 MB while it prints as much, under a lock that was won before; another gives a file of 20 MB."""
    assert ada.do(step("survey"), hold=True).status == 0
    talks = replace(step("talks", "tee it | base64 -w 1000 | sed 's/^/it is /'", "sha256sum < it"), feed=MUCH)
    gives = replace(step("gives", "cat it", 'echo "it\'s all" >&2'), fetch=True)
    both = replace(step("both", "cat"), feed=MUCH[:100_001], fetch=True)
    result = ada.transport.run(Phase("p", (talks, gives, both), lock=ada.lock()), account, ada.listen)
    assert (result.status, [each.status for each in result.steps]) == (0, [0, 0, 0])
    assert [text for _, label, text in ada.heard if label == "0" and "-" in text[64:]] == [f"{SUM}  -"]
    assert result.steps[1].data == MUCH
    assert result.steps[1].output == "it's all\n"
    assert result.steps[1].seconds < 10
    assert result.steps[2].data == MUCH[:100_001]
    assert "data" not in repr(result.steps[1])


@pytest.mark.parametrize("body", ["head -c 3 >/dev/null; exit 7", "sleep 0.5; exit 7", "exit 7"])
def test_a_feed_that_is_not_read(server: EmbeddedServer, ada: Deployer, account: Account, body: str) -> None:
    """A step that fails early is told at once, and whoever logs in next is heard."""
    assert ada.do(step("survey"), hold=True).status == 0
    fails = replace(step("fails", body), feed=MUCH)
    never = replace(step("never", "cat"), feed=MUCH)
    began = time.monotonic()
    result = ada.transport.run(Phase("p", (fails, never), lock=ada.lock()), account, ada.listen)
    assert (result.status, [(each.name, each.status) for each in result.steps]) == (FAILED, [("fails", 7)])
    assert time.monotonic() - began < 10
    ignores = replace(step("ignores", "echo 'not read'"), feed=MUCH)
    result = ada.transport.run(Phase("p", (ignores, step("next", "cat")), lock=ada.lock()), account, ada.listen)
    assert (result.status, [each.output for each in result.steps]) == (0, ["not read\n", ""])
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "fabdjango-feed"])


def test_a_feed_without_the_lock_or_with_a_link_that_breaks(server: EmbeddedServer, ada: Deployer) -> None:
    """A phase that is to win the lock cannot be fed; a link that breaks cuts the feed, and the status is unknown."""
    fed = replace(step("fed", "cat > it", "touch 'it is over'"), feed=MUCH)
    with pytest.raises(ValueError, match=r"^the phase phase cannot feed a step: it is to win the lock$"):
        ada.do(fed)
    stuck = replace(step("fed", "head -c 9; touch begun; sleep 60"), feed=MUCH)

    def break_it() -> None:
        until((server.home / "begun").exists)
        cut(server)

    threading.Thread(target=break_it, daemon=True).start()
    assert ada.run(Phase("p", (stuck,))).status is None


# --- sudo that asks for a password ------------------------------------------------------

ASKING = """#!/bin/sh
# As sudo with -S: asks on standard error, reads no more than a line for a try, and runs what stands behind --.
[ "$1 $2 $3 $4" = '-k -S -H -p' ] && prompt=$5 || exit 9
while [ "$1" != -- ]; do shift; done; shift
echo "We trust you have received the usual lecture." >&2
until [ "$CALM" ]; do
  printf %s "$prompt" >&2; IFS= read -r try || { echo 'sudo: no password was provided' >&2; exit 1; }
  printf '%s\\n' "$try" >> ~/tries; printf '\\n' >&2
  [ "$try" = "it's s3cret" ] && break; echo 'Sorry, try again.' >&2
done
[ -z "$STRICT" ] || { echo 'ada is not in the sudoers file.' >&2; exit 1; }
exec "$@"
"""


@pytest.fixture
def asking(server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that gets what a sudo has taken for passwords."""
    programs = tmp_path / "it's bin"
    programs.mkdir()
    (programs / "sudo").write_text(ASKING)
    (programs / "sudo").chmod(0o755)
    monkeypatch.setitem(server._environ, "PATH", f"{programs}:/usr/local/bin:/usr/bin:/bin")
    monkeypatch.setitem(server._environ, "SSH_CONNECTION", "192.0.2.1 40000 192.0.2.2 2222")
    return server.home / "tries"


def asked(password: str) -> Account:
    """Who logs in so that sudo is asked; steps of root need nobody else's shell then."""
    return Account("root", "root", password=Secret(password))


def test_a_password_for_sudo(ada: Deployer, asking: Path) -> None:
    """It goes where it was asked for, before anything else; the script and its feeds arrive whole."""
    telling = replace(step("tells", "sha256sum", 'printf "%s\\n" "$SSH_CONNECTION"'), feed=MUCH, user="root")
    result = ada.transport.run(Phase("p", (telling,)), asked("it's s3cret"), ada.listen)
    assert (result.status, [each.status for each in result.steps]) == (0, [0])
    assert result.steps[0].output == f"{SUM}  -\n192.0.2.1 40000 192.0.2.2 2222\n"
    assert asking.read_text() == "it's s3cret\n"
    assert not [text for _, _, text in ada.heard if "s3cret" in text or "lecture" in text]


@pytest.mark.parametrize("kind", ["leased", "detached"])
def test_every_session_asks_anew(ada: Deployer, asking: Path, kind: str) -> None:
    """That which holds the lock, that of an activation, and that which settles it."""
    account = asked("it's s3cret")
    if kind == "leased":
        phase = Phase("phase", (step("one", "echo one"),), lock=ada.lock(), hold=True)
        assert ada.transport.run(phase, account, ada.listen).status == 0
        ada.transport.release()
        assert asking.read_text() == "it's s3cret\n"
        return
    result = ada.transport.run(ada.activation(), account, ada.listen)
    assert result.status == AWAITING
    ended, _ = ada.transport.settle(result, CONFIRM, None, account, ada.listen)
    assert ended.status == 0
    assert asking.read_text() == "it's s3cret\n" * 2


def test_a_wrong_password_for_sudo(ada: Deployer, asking: Path) -> None:
    """One try, and nothing of the script is taken for another one."""
    with pytest.raises(FabdjangoError) as caught:
        ada.transport.run(Phase("p", (step("one", "touch ~/begun"),)), asked("it's wr0ng"), ada.listen)
    user = ada.transport.connection.user
    assert caught.value.message == f"sudo does not let {user} become root with this password"
    assert caught.value.output.splitlines()[-1] == "Sorry, try again."
    assert "wr0ng" not in caught.value.render()
    assert asking.read_text() == "it's wr0ng\n"
    assert not (asking.parent / "begun").exists()


def test_a_sudo_that_needs_no_password_or_does_not_let_us(
    server: EmbeddedServer, ada: Deployer, asking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that nobody asks for is not sent; one that does not help is told in sudo's own words."""
    monkeypatch.setitem(server._environ, "CALM", "1")
    phase = Phase("p", (step("one", "echo it is"),))
    assert ada.transport.run(phase, asked("it's s3cret"), ada.listen).steps[0].output == "it is\n"
    assert not asking.exists()
    monkeypatch.setitem(server._environ, "STRICT", "1")
    with pytest.raises(FabdjangoError) as caught:
        ada.transport.run(phase, asked("it's s3cret"), ada.listen)
    assert caught.value.output.splitlines()[-1] == "ada is not in the sudoers file."


# --- what is told ---------------------------------------------------------------------


def test_told_to_revert(server: EmbeddedServer, ada: Deployer) -> None:
    """The word may be no; nothing is pruned then."""
    waiting = ada.run(ada.activation())
    done, pruned = ada.settle(waiting, REVERT)
    assert (done.status, pruned, journal(server)) == (REVERTED, None, ["back"])
    assert done.failed is not None
    assert done.failed.output == "told to revert\n"


def test_a_word_that_comes_too_late(server: EmbeddedServer, ada: Deployer) -> None:
    """The host decided first: that is told, and the failing decision is no error."""
    waiting = ada.run(ada.activation(seconds=0.02))
    until(lambda: journal(server))
    done, pruned = ada.settle(waiting, CONFIRM)
    assert (done.status, pruned, journal(server)) == (REVERTED, None, ["back"])


def test_exactly_one_of_confirm_and_revert_wins(server: EmbeddedServer, ada: Deployer) -> None:
    """However close they come, what the deployer is told is what the host did."""
    outcomes = []
    for seconds in (*(turn / 100 for turn in range(30)), 10):
        waiting = ada.run(ada.activation(seconds))
        if not seconds:
            until(lambda: journal(server))
        done, _ = ada.settle(waiting, CONFIRM)
        assert done.status in (0, REVERTED)
        assert (server.home / "record.confirmed").exists() == (done.status == 0)
        assert (server.home / "record.reverting").exists() == (done.status == REVERTED)
        outcomes.append("serves" if done.status == 0 else "back")
    assert journal(server) == outcomes
    assert (outcomes[0], outcomes[-1]) == ("back", "serves")


# --- how an activation fails ----------------------------------------------------------


@pytest.mark.parametrize(
    ("failing", "status", "undone"),
    [("migrate", FAILED, []), ("arm", FAILED, ["back"]), ("wait", REVERTED, ["back"])],
)
def test_how_far_it_came(server: EmbeddedServer, ada: Deployer, failing: str, status: int, undone: list[str]) -> None:
    """Nothing to undo, undone before the site was touched, and reverted."""
    assert ada.run(ada.activation(30, **{failing: "exit 5"})).status == status
    assert journal(server) == undone


@pytest.mark.parametrize("failing", ["arm", "wait"])
def test_a_way_back_that_fails(server: EmbeddedServer, ada: Deployer, failing: str) -> None:
    """Nobody can say what serves; the rest of the way back is still gone."""
    phase = ada.activation(30, **{failing: "exit 5", "health": "exit 6"})
    assert ada.run(phase).status == REVERT_FAILED
    assert journal(server) == ["back"]


def test_no_way_back_any_more(server: EmbeddedServer, ada: Deployer) -> None:
    """A step that fails when the old release is gone is told; what follows still runs, and nothing is undone."""
    waiting = ada.run(ada.activation(stop="echo 'it hangs'; exit 7"))
    done, pruned = ada.settle(waiting, CONFIRM)
    assert (done.status, pruned, journal(server)) == (KEPT, None, ["serves"])
    assert done.failed is not None
    assert (done.failed.name, done.failed.output) == ("stop", "it hangs\n")


def leader(result: PhaseResult, server: EmbeddedServer) -> int:
    """The process of an activation."""
    return int((server.home / "it's here/run/activations" / f"{result.run}.pid").read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reverts_once(server: EmbeddedServer, ada: Deployer, number: int) -> None:
    """It counts as a failure of the step that runs, which is ended at once; a second one changes nothing."""
    waiting = ada.run(ada.activation(wait="report await 60; sleep 60", health="touch going; sleep 0.5"))
    os.kill(leader(waiting, server), number)
    until((server.home / "going").exists)
    os.kill(leader(waiting, server), number)
    began = time.monotonic()
    done, _ = ada.settle(waiting, CONFIRM)
    assert (done.status, journal(server)) == (REVERTED, ["back"])
    assert time.monotonic() - began < 10


def test_a_signal_when_there_is_no_way_back(server: EmbeddedServer, ada: Deployer) -> None:
    """It is not heard."""
    waiting = ada.run(ada.activation(stop="touch stopping; sleep 0.5"))
    (server.home / "record.armed").rename(server.home / "record.confirmed")
    until((server.home / "stopping").exists)
    os.kill(leader(waiting, server), signal.SIGTERM)
    done, _ = ada.settle(waiting, CONFIRM)
    assert (done.status, journal(server)) == (0, ["serves"])


def test_a_signal_while_it_waits_for_the_lock(server: EmbeddedServer, ada: Deployer, bob: Deployer) -> None:
    """It gives up, and the deployment that it waited for is left alone."""
    ada.do(step("survey"), hold=True)
    waiting = ada.run(ada.activation())
    phase = replace(bob.activation(), lock=replace(bob.lock(), wait=30))

    def listen(event: Event, result: StepResult | None) -> None:
        if event.kind == "note":
            folder = server.home / "it's here/run/activations"
            (pid,) = (int(each.read_text()) for each in folder.glob("*.pid") if each.stem != waiting.run)
            os.kill(pid, signal.SIGTERM)

    assert bob.transport.run(phase, HERE, listen).status == FAILED
    assert ada.settle(waiting, CONFIRM)[0].status == 0
    assert journal(server) == ["serves"]


def test_the_record_is_gone_for_good(server: EmbeddedServer, ada: Deployer) -> None:
    """A script that was killed has told no end: unknown, not failed."""
    waiting = ada.run(ada.activation())
    os.killpg(leader(waiting, server), signal.SIGKILL)
    done, pruned = ada.settle(waiting, CONFIRM)
    assert (done.status, pruned) == (None, None)


def test_what_may_go_alongside(server: EmbeddedServer, ada: Deployer) -> None:
    """It begins once the decision is made, and is told after the end of the activation, with its own status."""
    ada.do(step("survey"), hold=True)
    waiting = ada.run(ada.activation(stop="until [ -e pruned ]; do sleep 0.02; done"))
    deed = step("prune", "touch pruned; cat <<'EOF'\nit's pruned\nEOF\nexit 3")
    prune = Phase("prune", (deed,), lock=ada.lock(), alongside=True)
    done, pruned = ada.transport.settle(waiting, CONFIRM, prune, HERE, ada.listen)
    assert pruned is not None
    assert (done.status, pruned.status, [each.output for each in pruned.steps]) == (0, FAILED, ["it's pruned\n"])
    assert ada.heard.index(("end", "4", "0")) < ada.heard.index(("begin", "0", "prune"))


def test_a_word_that_came_too_late_lets_nothing_go_alongside(server: EmbeddedServer, ada: Deployer) -> None:
    """What was reverted has not been confirmed, though the deployer said so."""
    ada.do(step("survey"), hold=True)
    waiting = ada.run(ada.activation(seconds=0.2))
    until((server.home / "record.reverting").exists)
    prune = Phase("prune", (step("prune", "touch pruned"),), lock=ada.lock(), alongside=True)
    done, pruned = ada.transport.settle(waiting, CONFIRM, prune, HERE, ada.listen)
    assert (done.status, pruned, (server.home / "pruned").exists()) == (REVERTED, None, False)


# --- the link ---------------------------------------------------------------------------


def test_the_link_breaks_before_it_waits(server: EmbeddedServer, ada: Deployer) -> None:
    """The deployer logs in again, reads on, and still is asked."""
    phase = ada.activation(migrate="touch begun; while [ ! -e go ]; do sleep 0.02; done; echo 'a b'")
    helper = subprocess.Popen(
        ["sh", "-c", "while [ ! -e begun ]; do sleep 0.02; done; read line; touch go"],
        cwd=server.home,
        stdin=subprocess.PIPE,
        text=True,
    )

    def breaking(event: Event, result: StepResult | None) -> None:
        ada.listen(event, result)
        if event.kind == "begin" and event.text == "migrate":
            until((server.home / "begun").exists)
            cut(server)
        elif event.kind == "note":
            helper.communicate("go\n")

    waiting = ada.transport.run(phase, HERE, breaking)
    assert (waiting.status, server.connections) == (AWAITING, 2)
    assert ("output", "0", "a b") in ada.heard
    assert ada.settle(waiting, CONFIRM)[0].status == 0


@pytest.mark.parametrize("moment", ["before the word", "after the word"])
def test_the_link_breaks_while_it_is_settled(server: EmbeddedServer, ada: Deployer, moment: str) -> None:
    """The word is given again if the record does not show that it was heard; nothing is read twice."""
    go = server.home / "go"
    waiting = ada.run(ada.activation(stop="echo 'a b'; while [ ! -e go ]; do sleep 0.02; done"))

    def break_link() -> None:
        cut(server)
        until(lambda: not server._open)
        go.touch()

    def listen(event: Event, result: StepResult | None) -> None:
        ada.listen(event, result)
        if event == Event("output", "3", "a b") and not go.exists():
            break_link()

    if moment == "before the word":
        break_link()
    prune = Phase("prune", (step("prune"),), lock=ada.lock())
    done, pruned = ada.transport.settle(waiting, CONFIRM, prune, HERE, listen)
    assert (done.status, journal(server), server.connections) == (0, ["serves"], 2)
    assert pruned is not None
    assert pruned.status == 0
    assert ada.heard.count(("output", "3", "a b")) == 1
    assert [each.name for each in done.steps] == ["migrate", "arm", "wait", "stop", "journal"]


def test_a_host_that_does_not_come_back(server: EmbeddedServer, ada: Deployer) -> None:
    """Nobody knows what became of it."""
    waiting = ada.run(ada.activation())
    server.stop()
    ada.transport._ssh = Ssh(known_hosts=ada.transport._ssh.known_hosts, reconnect=1)
    assert ada.settle(waiting, CONFIRM)[0].status is None
    os.kill(leader(waiting, server), signal.SIGTERM)
    until(lambda: not steps_run(server))


# --- another deployer ---------------------------------------------------------------------


def test_an_activation_that_another_deployer_left(server: EmbeddedServer, ada: Deployer, bob: Deployer) -> None:
    """A newcomer is told that it is under way and where its record is, can follow it, and can give the word."""
    ada.do(step("survey"), hold=True)
    waiting = ada.run(ada.activation(health=":", arm='echo "it\'s armed"; : > record.armed'))
    ada.transport.connection.close()
    until(lambda: bob.do(step("never")).status == UNDERWAY)
    found = bob.do(step("never"))
    assert (found.run, found.record) == (waiting.run, PurePosixPath(server.home / "it's here/run/activations"))
    assert found.steps[0].output.startswith("ada@laptop, deploy, since 20")
    assert found.record is not None
    bob.heard.clear()
    followed = bob.transport.follow(found.record, found.run, Phase("activate", ()), bob.listen)
    assert followed.status == AWAITING
    assert ("output", "1", "it's armed") in bob.heard
    assert [each.name for each in followed.steps] == ["migrate", "arm", "wait"]
    done, pruned = bob.settle(followed, CONFIRM)
    assert done.status == 0
    assert pruned is not None
    assert (pruned.status, journal(server)) == (0, ["serves"])
    # The first one has lost nothing by being away, unless it wants to go on.
    assert ada.settle(waiting, CONFIRM)[0].status == 0


def test_following_to_the_end(server: EmbeddedServer, ada: Deployer, bob: Deployer) -> None:
    """One that is over is read from its beginning; one that nobody knows is told from one that failed."""
    waiting = ada.run(ada.activation())
    ada.settle(waiting, CONFIRM)
    assert waiting.record is not None
    followed = bob.transport.follow(waiting.record, waiting.run, Phase("activate", ()), bob.listen)
    assert (followed.status, [each.status for each in followed.steps]) == (0, [0, 0, 0, 0, 0])
    unknown = bob.transport.follow(waiting.record, "R00", Phase("activate", ()), bob.listen)
    assert (unknown.status, unknown.steps) == (NO_RECORD, [])


def test_a_record_that_nobody_ended(server: EmbeddedServer, ada: Deployer) -> None:
    """After a power cut its process number may be anybody's: reading ends, and the status is unknown."""
    waiting = ada.run(ada.activation())
    folder = server.home / "it's here/run/activations"
    os.kill(leader(waiting, server), signal.SIGTERM)
    ada.settle(waiting, CONFIRM)
    (folder / "R11.log").write_text("\036R11 begin 0 arm\n\036R11 end 0 0\n")
    (folder / "R11.pid").write_text(f"{os.getpid()}\n")
    followed = ada.transport.follow(PurePosixPath(folder), "R11", Phase("activate", ()), ada.listen)
    assert (followed.status, [each.name for each in followed.steps]) == (None, ["arm"])


DEPLOYER = """
    import sys
    from tests.test_transport import Deployer, step
    class Server:
        address, user, port, client_key_path, known_hosts_path = "127.0.0.1", *sys.argv[1:5]
    Server.port = int(Server.port)
    it = Deployer(Server, "ada")
    print(it.do(step("survey", "echo hi"), hold=True).status, flush=True)
    it.do(step("fetch", "touch begun; sleep 60; touch never"))
"""


def test_a_deployer_that_is_killed(server: EmbeddedServer, bob: Deployer) -> None:
    """Its lock is free at once; the step that still runs is ended by the next one, which says so."""
    words = [server.user, str(server.port), str(server.client_key_path), str(server.known_hosts_path)]
    here = Path(__file__).parent.parent
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(DEPLOYER), *words], cwd=here)
    until((server.home / "begun").exists)
    lock = server.home / "it's here/run/lock"
    assert bob.do(step("never")).status == LOCKED
    process.kill()
    process.wait()
    until(lambda: subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 0, 2)
    assert steps_run(server)
    done = bob.do(step("his", "[ ! -e never ]"))
    assert (done.status, done.steps[0].name) == (0, "lock")
    assert done.steps[0].notes[0].startswith("ended what a dead deployment still ran: ")


def test_unlocking_an_activation(server: EmbeddedServer, ada: Deployer, bob: Deployer) -> None:
    """It is told to undo, and has ended when that is told; the lease of its deployer is gone too."""
    ada.do(step("survey"), hold=True)
    waiting = ada.run(ada.activation())
    done = bob.run(Phase("unlock", (unlock(bob.lock()),)))
    assert done.status == 0
    assert done.steps[0].notes[0].startswith("held by ada@laptop, deploy, since 20")
    assert done.steps[0].output.splitlines()[1:] == [f"told the activation {waiting.run} to undo", "it has ended"]
    assert journal(server) == ["back"]
    assert ada.settle(waiting, CONFIRM)[0].status == REVERTED
    assert bob.do(step("his")).status == 0
    assert ada.do(step("never", "touch never")).status == LOCKED


# --- Ctrl-C, and the hook for tests ---------------------------------------------------------


def test_ctrl_c(server: EmbeddedServer, ada: Deployer, bob: Deployer) -> None:
    """The first one only says what a second one would do; the second one lets go and says how to go on."""
    ada.do(step("survey"), hold=True)
    phase = ada.activation(migrate="touch begun; sleep 1")

    interrupt = subprocess.Popen(
        [
            "sh",
            "-c",
            "while [ ! -e begun ]; do sleep 0.02; done; kill -INT $0; sleep 0.3; kill -INT $0",
            str(os.getpid()),
        ],
        cwd=server.home,
    )
    with pytest.raises(UnknownStateError) as caught:
        ada.run(phase)
    interrupt.wait()
    assert ("note", "", "the switch goes on to its end on the host; Ctrl-C again stops watching it") in ada.heard
    target = f"{server.user}@127.0.0.1:{server.port}"
    assert caught.value.cure == (
        f"see what became of it: fab -H {target} status\ngo on watching: fab -H {target} deploy --resume"
    )
    found = bob.do(step("never"))
    assert found.status == UNDERWAY
    assert found.record is not None
    followed = bob.transport.follow(found.record, found.run, phase, bob.listen)
    assert bob.settle(followed, CONFIRM)[0].status == 0


def test_ctrl_c_before_the_site_is_touched(server: EmbeddedServer, ada: Deployer, bob: Deployer) -> None:
    """The lock is free at once, although the step still runs; the next deployer ends it."""
    ada.do(step("survey"), hold=True)
    kill = ["sh", "-c", "while [ ! -e begun ]; do sleep 0.02; done; kill -INT $0", str(os.getpid())]
    interrupt = subprocess.Popen(kill, cwd=server.home)
    with pytest.raises(FabdjangoError, match="interrupted") as caught:
        ada.do(step("fetch", "touch begun; sleep 60; touch never"))
    interrupt.wait()
    assert caught.value.state == "nothing that serves was touched"
    assert bob.do(step("his", "[ ! -e never ]")).status == 0


@pytest.mark.parametrize(("moment", "ran"), [("before", False), ("during", False), ("after", True)])
@pytest.mark.parametrize("detached", [False, True])
def test_the_pause(
    server: EmbeddedServer, ada: Deployer, monkeypatch: pytest.MonkeyPatch, moment: str, *, ran: bool, detached: bool
) -> None:
    """The host waits exactly there until the file is gone, and says so."""
    monkeypatch.setenv(PAUSE_VARIABLE, f"{moment}:migrate")
    paused, did = server.home / "it's here/run/paused", server.home / "did it"
    seen: list[bool] = []

    def listen(event: Event, result: StepResult | None) -> None:
        ada.listen(event, result)
        if event.kind == "paused":
            seen.extend((paused.exists(), did.exists()))
            paused.unlink()

    it = step("migrate", "touch 'did it'")
    if detached:
        phase = ada.activation(migrate="touch 'did it'", wait=":", stop=":")
    else:
        phase = Phase("phase", (it,), lock=ada.lock())
    assert ada.transport.run(phase, HERE, listen).status == (0)
    assert seen == [True, ran]
    said = [each for each in ada.heard if each[0] in ("begin", "paused", "end")][:3]
    assert said.index(("paused", "" if moment == "before" else "0", "migrate")) == (0 if moment == "before" else 1)


@pytest.mark.parametrize("moment", ["before:wait", "during:wait", "after:wait"])
def test_a_signal_during_the_pause(
    server: EmbeddedServer, ada: Deployer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It does what it would do without."""
    monkeypatch.setenv(PAUSE_VARIABLE, moment)
    paused = server.home / "it's here/run/paused"

    def listen(event: Event, result: StepResult | None) -> None:
        ada.listen(event, result)
        if event.kind == "paused":
            (record,) = paused.parent.glob("activations/*.pid")
            os.kill(int(record.read_text()), signal.SIGTERM)

    assert ada.transport.run(ada.activation(wait=":"), HERE, listen).status == REVERTED
    assert journal(server) == ["back"]


def test_a_pause_in_the_undo(server: EmbeddedServer, ada: Deployer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of the way back have the hook too, and there a signal is not heard."""
    monkeypatch.setenv(PAUSE_VARIABLE, "during:health-back")
    paused = server.home / "it's here/run/paused"

    def listen(event: Event, result: StepResult | None) -> None:
        ada.listen(event, result)
        if event.kind == "paused":
            (record,) = paused.parent.glob("activations/*.pid")
            os.kill(int(record.read_text()), signal.SIGTERM)
            paused.unlink()

    assert ada.transport.run(ada.activation(wait="false"), HERE, listen).status == REVERTED
    assert ada.heard[-2:] == [("paused", "u1", "health-back"), ("end", "u1", "0")]


# --- the transport of tests ------------------------------------------------------------------


@pytest.mark.parametrize(("decision", "status", "rest"), [(CONFIRM, 0, ["stop", "journal"]), (REVERT, REVERTED, [])])
def test_a_recorded_activation(
    server: EmbeddedServer, ada: Deployer, decision: Step, status: int, rest: list[str]
) -> None:
    """It waits at the step that waits, and goes on as the decision says."""
    transport = RecordingTransport()
    waiting = transport.run(ada.activation(), HERE, ada.listen)
    assert (waiting.status, [each.name for each in waiting.steps]) == (AWAITING, ["migrate", "arm", "wait"])
    done, pruned = transport.settle(waiting, decision, Phase("prune", (step("prune"),)), HERE, ada.listen)
    assert (done.status, [each.name for each in done.steps][3:]) == (status, rest)
    titles = [line for line in transport.transcript.splitlines() if line.startswith(("==", "--"))]
    after = titles[titles.index("== settle") + 1 :]
    if status:
        assert (pruned, after) == (
            None,
            ["-- revert: it's revert", "-- undo: it's back", "-- undo: it's health-back"],
        )
    else:
        assert after == [
            "-- confirm: it's confirm",
            "-- stop: it's stop",
            "-- journal: it's journal",
            "== prune",
            "-- prune: it's prune",
        ]
