"""
The only module that touches a Connection.

A transport runs a phase on one host and hands its events to a listener. There
are three: over SSH, one that only records, and one that shows what would run.
"""

from __future__ import annotations

import binascii
import contextlib
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

from fabric import Connection
from paramiko import ssh_exception

from fabdjango.detached import ended_well, render_detached, render_follow, render_reading
from fabdjango.escape import Secret, Shell, quote
from fabdjango.exceptions import CalledOffError, ConnectError, FabdjangoError, UnknownStateError
from fabdjango.login import connect, name_of, target_of
from fabdjango.plan import Phase, Step
from fabdjango.script import (
    AWAITING,
    PAUSE_VARIABLE,
    Event,
    EventParser,
    bootstrap,
    bootstrap_as_root,
    framed,
    render_script,
    render_settling,
)
from fabdjango.settings import Ssh

__all__ = [
    "Account",
    "DryTransport",
    "FabricTransport",
    "PhaseResult",
    "StepResult",
    "Transport",
]

# Its thread would tell the terminal of a broken link, which we tell as what it means.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_CHUNK = 32768
_KEPT_OUTPUT = 400_000
_BEAT = 5.0  # seconds; the host takes 20 of silence for our end
_SUDO_WAIT = 60.0  # seconds; a wrong password alone takes some
_TAIL_KILLED = 143
"""Status of a follower that somebody ended with TERM; the program it followed goes on."""


@dataclass(frozen=True)
class Account:
    """
    Who a session logs in as, and who owns the site; empty names mean the same account.

    ``fence`` is the file that every step of the site locks, if its path is known: with it root's steps are done by
    programs of root's own, where the host has them.

    With a ``password``, which is sudo's, every session runs as root from its first line on, and ``login`` is root.
    """

    owner: str = ""
    login: str = ""
    fence: PurePosixPath | None = None
    password: Secret | None = None


@dataclass
class StepResult:
    """
    How one step went.

    ``status`` is its exit status or None, ``output`` what it printed, ``seconds``
    how long it took, ``data`` the file that it gave, if it is one that fetches and has ended.
    """

    label: str
    name: str
    status: int | None = None
    output: str = ""
    notes: list[str] = field(default_factory=list)
    unchanged: str | None = None
    seconds: float = 0.0
    data: bytes = field(default=b"", repr=False)


@dataclass
class PhaseResult:
    """
    How a phase went: ``status`` is the script's exit status, or None if the link broke before it was told.

    AWAITING means that the host waits for the deployer's word, for ``awaits``
    seconds. ``run`` and ``record`` say where a detached activation reports: this
    phase's own, or with UNDERWAY the one that another deployer left.
    """

    phase: Phase
    status: int | None = None
    steps: list[StepResult] = field(default_factory=list)
    run: str = ""
    record: PurePosixPath | None = None
    awaits: int | None = None
    heard: Any = field(default=None, repr=False, compare=False)
    """What a transport needs to read on."""

    def step(self, name: str) -> StepResult | None:
        """The result of the step called ``name``, if it began."""
        return next((step for step in self.steps if step.name == name), None)

    @property
    def failed(self) -> StepResult | None:
        """The first step that did not end well."""
        return next((step for step in self.steps if step.status != 0), None)


Listener = Callable[[Event, StepResult | None], None]


class Transport(Protocol):
    """Where a phase can be run."""

    host: str

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """Run ``phase`` and tell ``listener`` every event as it happens; an activation may end as AWAITING."""
        ...

    def settle(
        self,
        result: PhaseResult,
        decision: Step,
        then: Phase | None,
        account: Account,
        listener: Listener,
        begin: Callable[[Phase], None] | None = None,
    ) -> tuple[PhaseResult, PhaseResult | None]:
        """
        Give an activation that is AWAITING the deployer's word, follow it to its end, and run ``then`` if it ended with 0.

        All in one session. A ``decision`` that fails came too late, which is no
        error: the first of the two results has what became of the activation.
        The second is None if ``then`` did not run. ``begin`` hears of ``then`` before the first of its events.
        """
        ...

    def follow(self, record: PurePosixPath, run: str, phase: Phase, listener: Listener) -> PhaseResult:
        """Hear an activation that another deployer has started, from its beginning until it waits or ends."""
        ...

    def release(self) -> None:
        """Let go of the lock that a phase with ``hold`` has won; nothing to do is not an error."""
        ...

    def interrupt(self) -> None:
        """
        Ctrl-C, told by another thread: a phase that may end at any time ends, and no other begins.

        A switch goes on to its end; the second time it is no longer watched.
        """
        ...

    def reconnect(self) -> None:
        """Log in anew, by another connection; locks that were kept go with the old one. Raises ConnectError."""
        ...

    def interact(self, command: Shell) -> int:
        """Run ``command`` with a terminal of its own; its exit status."""
        ...


class Follower:
    """Events to step results, and on to the listener."""

    def __init__(self, phase: Phase, listener: Listener) -> None:
        self.result = PhaseResult(phase)
        self.listener = listener
        self._step: StepResult | None = None
        self._began = 0.0
        self._file: list[bytes] | None = None

    def take(self, event: Event) -> None:
        """Account for one event."""
        if event.kind == "output" and self._file is not None:
            self._file.append(event.text.encode())
            return
        if event.kind == "begin":
            self._step = StepResult(event.label, event.text)
            self._began = time.monotonic()
            self.result.steps.append(self._step)
            known = self.result.phase.labelled.get(event.label)
            self._file = [] if known and known.fetch else None
        elif event.kind == "fetched" and self._step and self._file is not None:
            # Every line but the last is a whole number of threes; one that was cut comes with a status of its own.
            with contextlib.suppress(binascii.Error):
                self._step.data = b"".join(map(binascii.a2b_base64, self._file))
            self._file = None
        elif event.kind == "underway":
            run, _, folder = event.text.partition(" ")
            self.result.run, self.result.record = run, PurePosixPath(folder)
        step = self._step
        if step is not None:
            if event.kind == "output" and len(step.output) < _KEPT_OUTPUT:
                step.output += event.text + "\n"
            elif event.kind == "note":
                step.notes.append(event.text)
            elif event.kind == "unchanged":
                step.unchanged = event.text
            elif event.kind == "await":
                self.result.awaits = int(event.text) if event.text.isdigit() else None
            elif event.kind == "end":
                step.status = int(event.text) if event.text.isdigit() else None
                step.seconds = time.monotonic() - self._began
                self._step = None
        self.listener(event, step)

    def say(self, text: str) -> None:
        """A word of our own to whoever listens."""
        self.listener(Event("note", "", text), None)


class _Conversation:
    """What has been heard of one run, over however many sessions."""

    def __init__(self, run: str, follower: Follower) -> None:
        self.run = run
        self.follower = follower
        self.offset = 0
        self.status: int | None = None
        self.awaiting = ""
        """The label of the step that waits for the deployer's word."""
        self.waited = False
        self.patient = False
        self._parser = EventParser(run)

    @property
    def over(self) -> bool:
        """Nothing more is to be heard."""
        return self.status is not None

    def receive(self, channel: Any) -> bytes:
        """The next chunk; the first Ctrl-C while a site is switched only says what it would do."""
        while True:
            try:
                return bytes(channel.recv(_CHUNK))
            except KeyboardInterrupt:  # noqa: PERF203 - a loop of two turns
                if not self.patient:
                    raise
                self.patient = False
                self.follower.say("the switch goes on to its end on the host; Ctrl-C again stops watching it")

    def take(self, chunk: bytes) -> None:
        """Account for bytes that arrived."""
        self.offset += len(chunk)
        for event in self._parser.feed(chunk):
            self._event(event)

    def rewind(self) -> None:
        """Go back to the start of a line that the link cut."""
        self.offset -= self._parser.forget()

    def close(self) -> None:
        """Account for a last line without an end."""
        for event in self._parser.close():
            self._event(event)

    def complain(self, complaint: bytes) -> None:
        """What the host's shell itself has to say."""
        self.follower.take(Event("output", "", complaint.decode("utf-8", "replace").strip()))

    def _event(self, event: Event) -> None:
        if event.kind == "exit":
            self.status = int(event.text) if event.text.isdigit() else None
            return
        if event.kind == "await":
            self.awaiting = event.label
        elif event.kind == "end" and event.label == self.awaiting:
            self.awaiting, self.waited = "", True
        self.follower.take(event)


class _Settlement:
    """
    What one session says that settles an activation.

    Our own reports come first and last, and the activation's record between two
    of them, byte by byte as it stands on the host.
    """

    def __init__(self, run: str, record: _Conversation, then: Follower | None, begin: Callable[[Phase], None]) -> None:
        self.then = then
        self.began = False
        self.followed = False
        self._marks = [f"\036{run} {word}\n".encode() for word in ("follow", "followed")]
        self._record = record
        self._begin = begin
        self._parser = EventParser(run)
        self._rest = b""

    over = False

    def receive(self, channel: Any) -> bytes:
        """The next chunk; Ctrl-C as while the activation ran."""
        return self._record.receive(channel)

    def take(self, chunk: bytes) -> None:
        """Account for bytes that arrived."""
        data = self._rest + chunk
        while self._marks:
            before, found, data = _cut(data, self._marks[0])
            in_record = len(self._marks) == 1
            if in_record:
                self._record.take(before)
            else:
                self._hear(before)
            if not found:
                self._rest = data
                return
            self._marks.pop(0)
        self.followed, self._rest = True, b""
        self._hear(data)

    def complain(self, complaint: bytes) -> None:
        """What the host's shell itself has to say."""
        self._record.complain(complaint)

    def _hear(self, data: bytes) -> None:
        for event in self._parser.feed(data):
            if not self.followed or self.then is None:
                # The decision: whether it was in time stands in the record.
                continue
            if not self.began:
                self.began = True
                self._begin(self.then.result.phase)
            self.then.take(event)


def _cut(data: bytes, mark: bytes) -> tuple[bytes, bool, bytes]:
    """What stands before ``mark``, whether it is there, and the rest; what may be its beginning counts as the rest."""
    before, found, after = data.partition(mark)
    if found:
        return before, True, after
    keep = next((n for n in range(min(len(mark), len(data)), 0, -1) if data.endswith(mark[:n])), 0)
    return data[: len(data) - keep], False, data[len(data) - keep :]


class _Lease:
    """
    The lock of a deployment: a program on the host has it while it hears from us.

    It hears a byte every few seconds, and frees the lock when its session ends or is silent.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._over = threading.Event()
        threading.Thread(target=self._beat, name="fabdjango-lease", daemon=True).start()

    def _beat(self) -> None:
        with contextlib.suppress(OSError, EOFError, ssh_exception.SSHException):
            while not self._over.wait(_BEAT):
                self._channel.sendall(b".")

    def stop(self) -> None:
        """Be silent from now on."""
        self._over.set()

    def end(self) -> None:
        """Free the lock, and wait a moment until it is free."""
        self.stop()
        with contextlib.suppress(OSError, EOFError, ssh_exception.SSHException):
            self._channel.shutdown_write()
            self._channel.status_event.wait(_BEAT)
        with contextlib.suppress(OSError, EOFError, ssh_exception.SSHException):
            self._channel.close()


def _send(channel: Any, feeds: tuple[bytes, ...]) -> None:
    """Send bytes that a host may never read, to the end or until the session is over."""
    with contextlib.suppress(OSError, EOFError, ssh_exception.SSHException):
        for feed in feeds:
            # sendall copies what is left with every packet.
            for start in range(0, len(feed), _CHUNK):
                channel.sendall(feed[start : start + _CHUNK])
        channel.shutdown_write()


class FabricTransport:
    """Runs phases over one Fabric Connection, each in one session of its own."""

    def __init__(self, connection: Connection, ssh: Ssh, *, may_ask: bool = False) -> None:
        self.connection = connection
        self.host = name_of(connection)
        self._ssh = ssh
        self._may_ask = may_ask
        self._lease: _Lease | None = None
        self._leased: set[str] = set()
        self._phase: Phase | None = None
        self._channel: Any = None
        self._next: Any = None
        self._warned = False
        self._called_off = False
        self._password: Secret | None = None

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """
        Send the phase's script on standard input and follow its reports to the end.

        A phase with a record goes on without us if the link breaks: then we log
        in again and read on, until it waits for our word or has ended. Ctrl-C during one is held back once.
        """
        self.open()
        self._password = account.password
        conversation = _Conversation(_new_run(), Follower(phase, listener))
        script = self._render(phase, account, conversation.run)
        with self._interruptible(phase):
            if phase.record is None:
                beat = phase.lock is not None and not phase.feeds
                status = self._converse(script, conversation, beat=beat, feeds=phase.feeds, ahead=phase.followed)
                conversation.close()
                # -1 is paramiko's word for "the other side never said": unknown, not failed.
                conversation.follower.result.status = None if status == -1 else status
                return conversation.follower.result
            folder = _record_folder(phase, account)
            starter = render_detached(script, run=conversation.run, folder=folder)
            return self._watch(starter, conversation, folder)

    def follow(
        self,
        record: PurePosixPath,
        run: str,
        phase: Phase,
        listener: Listener,
    ) -> PhaseResult:
        """Hear an activation that another deployer has started; NO_RECORD if the host does not know it."""
        self.open()
        conversation = _Conversation(run, Follower(phase, listener))
        with self._interruptible(phase):
            return self._watch(render_follow(run=run, folder=record, offset=0), conversation, record)

    def settle(
        self,
        result: PhaseResult,
        decision: Step,
        then: Phase | None,
        account: Account,
        listener: Listener,
        begin: Callable[[Phase], None] | None = None,
    ) -> tuple[PhaseResult, PhaseResult | None]:
        """Tell an activation that waits what we decided, and read on to its end; repeated while the link breaks."""
        if then and then.feeds:
            msg = f"the phase {then.name} cannot feed a step: it shares its session"
            raise ValueError(msg)
        self._password = account.password
        record: _Conversation = result.heard
        assert result.record is not None  # noqa: S101 - for the type checker; it was AWAITING
        record.patient, record.follower.listener = True, listener
        with self._interruptible(result.phase):
            give_up = 0.0
            while True:
                run = _new_run()
                settlement = _Settlement(
                    run, record, Follower(then, listener) if then else None, begin or (lambda _: None)
                )
                script = render_settling(
                    None if record.waited else decision,
                    render_reading(run=record.run, folder=result.record, offset=record.offset),
                    run=run,
                    done=ended_well(run=record.run, folder=result.record),
                    owner=account.owner,
                    login=account.login,
                    then=self._render(then, account, run) if then else "",
                    # What has the lock to win first has to wait for the steps that run.
                    alongside=bool(then and then.alongside and self._is_leased(then)),
                )
                status = self._converse(script, settlement, beat=True)
                if settlement.followed or status not in (-1, _TAIL_KILLED):
                    break
                give_up = give_up or time.monotonic() + self._ssh.reconnect
                record.rewind()
                record.follower.say("the connection broke; the host goes on by itself, and we log in again")
                if not self._log_in_again(give_up):
                    break
        record.close()
        result.status = record.status
        if settlement.then is None or not settlement.began:
            return result, None
        settlement.then.result.status = None if status == -1 else status
        return result, settlement.then.result

    def release(self) -> None:
        """End the program that holds the lock; it also ends with this connection, and so does a session that was opened ahead."""
        channel, self._next = self._next, None
        if channel is not None:
            with contextlib.suppress(OSError, EOFError, ssh_exception.SSHException):
                channel.close()
        self._end_lease()

    def _end_lease(self) -> None:
        lease, self._lease = self._lease, None
        self._leased.clear()
        if lease is not None:
            lease.end()

    def _is_leased(self, phase: Phase) -> bool:
        return phase.lock is not None and phase.lock.token in self._leased

    def _render(self, phase: Phase, account: Account, run: str) -> str:
        pause, _, where = os.environ.get(PAUSE_VARIABLE, "").partition("@")
        pause = pause if where in ("", self.host) else ""
        return render_script(
            phase,
            run=run,
            owner=account.owner,
            login=account.login,
            leased=self._is_leased(phase),
            pause=pause,
            fence=account.fence,
        )

    def interrupt(self) -> None:
        """What may end at any time ends, by closing its session; a switch only the second time."""
        if self._phase and self._phase.record and not self._warned:
            self._warned = True
            return
        self._called_off = True
        channel = self._channel
        if channel is not None:
            with contextlib.suppress(OSError, EOFError, ssh_exception.SSHException):
                channel.close()

    @contextlib.contextmanager
    def _interruptible(self, phase: Phase) -> Iterator[None]:
        self._phase = phase
        try:
            if self._called_off:
                raise KeyboardInterrupt  # noqa: TRY301 - as if it came now
            yield
            if self._called_off:
                raise KeyboardInterrupt  # noqa: TRY301
        except KeyboardInterrupt:
            self.release()
            raise _interrupted(self.connection, phase) from None
        finally:
            self._phase = self._channel = None

    def _converse(
        self,
        script: str,
        hearer: _Conversation | _Settlement,
        *,
        beat: bool = False,
        feeds: tuple[bytes, ...] = (),
        ahead: bool = False,
    ) -> int:
        """
        One session: the script goes in, reports come out; its exit status, or -1 if the link broke.

        It returns early when the script waits for us. With ``beat``, it hears
        that we live; if the script has said that its steps are over and goes on, the session stays open as the lease.
        ``feeds`` are sent while we listen. With ``ahead``, the session of the next script is opened while this one runs.
        """
        try:
            channel = self._begin_session()
        except (OSError, EOFError, ssh_exception.SSHException):
            return -1
        with contextlib.ExitStack() as stack:
            stack.callback(channel.close)
            self._channel = channel
            try:
                if self._password:
                    self._become_root(channel, self._password)
                channel.sendall(framed(script))
                if beat:
                    lease = _Lease(channel)
                    stack.callback(lease.stop)
                elif feeds:
                    send = threading.Thread(target=_send, args=(channel, feeds), name="fabdjango-feed", daemon=True)
                    send.start()
                else:
                    channel.shutdown_write()
                if ahead and not self._password:
                    self._open_ahead()
                while not hearer.over and (chunk := hearer.receive(channel)):
                    hearer.take(chunk)
                    if isinstance(hearer, _Conversation) and hearer.awaiting:
                        return AWAITING
                if isinstance(hearer, _Conversation) and hearer.status is not None:
                    if beat:
                        stack.pop_all()
                        self._keep(lease, hearer.follower.result.phase)
                    return hearer.status
                status = channel.recv_exit_status()
            except (OSError, EOFError, ssh_exception.SSHException):
                status = -1
            # Only stderr of the shell itself comes here: every step's goes with its output.
            with contextlib.suppress(OSError):
                if channel.recv_stderr_ready():
                    hearer.complain(channel.recv_stderr(_CHUNK))
        return int(status)

    def _begin_session(self) -> Any:
        """A session that waits for a script, or for a password first: the one that was opened ahead if it can be had."""
        channel, self._next = self._next, None
        if channel is not None and not channel.closed and not channel.exit_status_ready() and not self._password:
            return channel
        channel = self.connection.create_session()
        if not self._password:
            channel.exec_command(bootstrap())
        return channel

    def _open_ahead(self) -> None:
        """Two round trips, and the time that the server needs for a session, while the host has something to do anyway."""
        with contextlib.suppress(OSError, EOFError, ssh_exception.SSHException):
            self._next = self._begin_session()

    def _become_root(self, channel: Any, password: Secret) -> None:
        """Answer sudo's own question and no other; raises FabdjangoError if it does not take the password."""
        prompt, ready = (f"{secrets.token_hex(8)} {word}" for word in ("password:", "ready"))
        # sudo asks on standard error.
        channel.set_combine_stderr(True)
        channel.settimeout(_SUDO_WAIT)
        channel.exec_command(bootstrap_as_root(prompt, ready))
        heard, answered = "", False
        while ready not in heard:
            try:
                chunk = channel.recv(_CHUNK)
            except TimeoutError:
                chunk = b""
            heard += chunk.decode("utf-8", "replace")
            if not chunk or heard.count(prompt) > answered:
                if answered or not chunk:
                    raise _refused_by_sudo(self.connection, heard.replace(prompt, ""))
                channel.sendall(f"{password.reveal()}\n".encode())
                answered = True
        channel.settimeout(None)
        channel.set_combine_stderr(False)

    def _keep(self, lease: _Lease, phase: Phase) -> None:
        self._end_lease()
        self._lease = lease
        if phase.lock and phase.lock.token:
            self._leased.add(phase.lock.token)

    def _watch(self, script: str, conversation: _Conversation, folder: PurePosixPath) -> PhaseResult:
        """A detached program from here to its end, or until it waits for us, over as many sessions as it takes."""
        result = conversation.follower.result
        result.run, result.record, result.heard = conversation.run, folder, conversation
        conversation.patient = True
        status = self._converse(script, conversation, ahead=result.phase.followed)
        give_up = time.monotonic() + self._ssh.reconnect
        while not conversation.over and status in (-1, _TAIL_KILLED) and time.monotonic() < give_up:
            conversation.follower.say("the connection broke; the host goes on by itself, and we log in again")
            if not self._log_in_again(give_up):
                break
            conversation.rewind()
            read_on = render_follow(run=conversation.run, folder=folder, offset=conversation.offset)
            status = self._converse(read_on, conversation)
        if status == AWAITING:
            result.status = AWAITING
            return result
        conversation.close()
        # A reader that ended well has read to an end that nobody wrote, if there was no status.
        result.status = conversation.status if conversation.over or status in (0, -1, _TAIL_KILLED) else status
        return result

    def _log_in_again(self, give_up: float) -> bool:
        while time.monotonic() < give_up and not self._called_off:
            with contextlib.suppress(Exception):
                self.connection.close()
            try:
                connect(self.connection, self._ssh)
            except ConnectError:
                time.sleep(1)
            else:
                return True
        return False

    def reconnect(self) -> None:
        """Log in anew."""
        self.release()
        self.connection.close()
        self.open()

    def interact(self, command: Shell) -> int:
        """Run ``command`` with the operator's terminal; its exit status."""
        self.open()
        pty = sys.stdin.isatty()
        result = self.connection.run(
            f"sh -c {quote(str(command))}", pty=pty, warn=True, hide=False, echo=False, dry=False
        )
        return int(result.exited)

    def open(self) -> None:
        """Log in, unless that was done; raises ConnectError with the cure."""
        if self.connection.is_connected:
            return
        connect(self.connection, self._ssh, may_ask=self._may_ask)


class DryTransport:
    """Runs the phases that only read, over ``real``; shows all others instead of running them."""

    def __init__(self, real: Transport, show: Callable[[Phase], None]) -> None:
        self.host = real.host
        self._real = real
        self._show = show

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """What is shown counts as done, without output."""
        if phase.reads_only:
            return self._real.run(phase, account, listener)
        self._show(phase)
        return PhaseResult(phase, 0)

    def settle(
        self,
        result: PhaseResult,
        decision: Step,
        then: Phase | None,
        account: Account,  # noqa: ARG002 - the protocol's form
        listener: Listener,  # noqa: ARG002
        begin: Callable[[Phase], None] | None = None,  # noqa: ARG002
    ) -> tuple[PhaseResult, PhaseResult | None]:
        """Show the decision and what would follow it."""
        self._show(Phase("settle", (decision,)))
        if then is None:
            return result, None
        self._show(then)
        return result, PhaseResult(then, 0)

    def follow(self, record: PurePosixPath, run: str, phase: Phase, listener: Listener) -> PhaseResult:
        """Reading a record changes nothing, so it is read."""
        return self._real.follow(record, run, phase, listener)

    def release(self) -> None:
        """Pass it on."""
        self._real.release()

    def interrupt(self) -> None:
        """Pass it on."""
        self._real.interrupt()

    def reconnect(self) -> None:
        """Pass it on."""
        self._real.reconnect()

    def interact(self, command: Shell) -> int:
        """Print the command."""
        sys.stdout.write(f"would run with a terminal: {command}\n")
        return 0


def _refused_by_sudo(connection: Connection, said: str) -> FabdjangoError:
    target = target_of(connection)
    return FabdjangoError(
        f"sudo does not let {connection.user} become root with this password",
        host=name_of(connection),
        output=said.strip(),
        cure=f"see whether this works: ssh -t {connection.user}@{connection.host} sudo -k true\n"
        f"then be asked again: fab --prompt-for-sudo-password -H {target} …\n"
        f"or log in as root: fab -H root@{connection.host} …",
    )


def _new_run() -> str:
    return "R" + secrets.token_hex(8)


def _record_folder(phase: Phase, account: Account) -> PurePosixPath:
    """Where a detached phase reports to: in the site, or at home for an account that may not write in the site."""
    assert phase.record is not None  # noqa: S101 - for the type checker; the caller asked
    # What root writes into the site, the next one to log in as its owner could not replace.
    is_owner = account.owner in ("", account.login)
    return phase.record if is_owner else PurePosixPath("~/.fabdjango") / phase.record.name


def _interrupted(connection: Connection, phase: Phase) -> FabdjangoError:
    target = target_of(connection)
    if phase.serving_from:
        return UnknownStateError(
            "you stopped watching; the host goes on by itself, and reverts by itself if the release does not answer "
            "or nobody confirms it",
            host=name_of(connection),
            step=phase.name,
            cure=f"see what became of it: fab -H {target} status\ngo on watching: fab -H {target} deploy --resume",
        )
    return CalledOffError(
        "interrupted",
        host=name_of(connection),
        step=phase.name,
        state="nothing that serves was touched",
        cure="deploy again: what is half-done is cleared first",
    )
