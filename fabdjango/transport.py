"""
The only module that touches a Connection.

A transport runs a phase on one host and hands its events to a listener. There
are three: over SSH, one that only records, and one that shows what would run.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from fabric import Connection
from paramiko import AutoAddPolicy, MissingHostKeyPolicy, RejectPolicy, SSHClient, ssh_exception

from fabdjango.detached import render_detached, render_follow
from fabdjango.escape import Shell, quote
from fabdjango.exceptions import ConnectError, FabdjangoError, UnknownStateError
from fabdjango.plan import Phase
from fabdjango.script import BOOTSTRAP, Event, EventParser, render_script
from fabdjango.settings import Ssh

__all__ = [
    "Account",
    "DryTransport",
    "FabricTransport",
    "PhaseResult",
    "StepResult",
    "Transport",
    "connect",
    "target_of",
]

_CHUNK = 32768
_SSH_PORT = 22
_KEPT_OUTPUT = 400_000
_TAIL_KILLED = 143
"""Status of a follower that somebody ended with TERM; the program it followed goes on."""


@dataclass(frozen=True)
class Account:
    """Who a session logs in as, and who owns the site; empty names mean the same account."""

    owner: str = ""
    login: str = ""


@dataclass
class StepResult:
    """How one step went: ``status`` is its exit status or None, ``output`` what it printed, ``seconds`` how long it took."""

    label: str
    name: str
    status: int | None = None
    output: str = ""
    notes: list[str] = field(default_factory=list)
    unchanged: str | None = None
    seconds: float = 0.0


@dataclass
class PhaseResult:
    """How a phase went: ``status`` is the script's exit status, or None if the link broke before it was told."""

    phase: Phase
    status: int | None = None
    steps: list[StepResult] = field(default_factory=list)

    def step(self, name: str) -> StepResult | None:
        """The result of the step called ``name``, if it began."""
        return next((step for step in self.steps if step.name == name), None)

    @property
    def failed(self) -> StepResult | None:
        """The first step that did not end well."""
        return next((step for step in self.steps if step.status != 0), None)


Listener = Callable[[Event, StepResult | None], None]


def target_of(connection: Connection) -> str:
    """The host as -H takes it, with the account and, if it is not 22, the port."""
    return f"{connection.user}@{connection.host}" + ("" if connection.port == _SSH_PORT else f":{connection.port}")


class Transport(Protocol):
    """Where a phase can be run."""

    host: str

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """Run ``phase`` and tell ``listener`` every event as it happens."""
        ...

    def interact(self, command: Shell) -> int:
        """Run ``command`` with a terminal of its own; its exit status."""
        ...


class Follower:
    """Events to step results, and on to the listener."""

    def __init__(self, phase: Phase, listener: Listener) -> None:
        self.result = PhaseResult(phase)
        self._listener = listener
        self._step: StepResult | None = None
        self._began = 0.0

    def take(self, event: Event) -> None:
        """Account for one event."""
        if event.kind == "begin":
            self._step = StepResult(event.label, event.text)
            self._began = time.monotonic()
            self.result.steps.append(self._step)
        step = self._step
        if step is not None:
            if event.kind == "output" and len(step.output) < _KEPT_OUTPUT:
                step.output += event.text + "\n"
            elif event.kind == "note":
                step.notes.append(event.text)
            elif event.kind == "unchanged":
                step.unchanged = event.text
            elif event.kind == "end":
                step.status = int(event.text) if event.text.isdigit() else None
                step.seconds = time.monotonic() - self._began
                self._step = None
        self._listener(event, step)

    def say(self, text: str) -> None:
        """A word of our own to whoever listens."""
        self._listener(Event("note", "", text), None)


class _Conversation:
    """What has been heard of one run, over however many sessions."""

    def __init__(self, parser: EventParser, follower: Follower) -> None:
        self.follower = follower
        self.offset = 0
        self.status: int | None = None
        self.patient = False
        self._parser = parser

    @property
    def status_or_unknown(self) -> int:
        """The status that the detached program recorded, or -1."""
        return -1 if self.status is None else self.status

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
        else:
            self.follower.take(event)


class FabricTransport:
    """Runs phases over one Fabric Connection, each in one session of its own."""

    def __init__(self, connection: Connection, ssh: Ssh, *, may_ask: bool = False) -> None:
        self.connection = connection
        self.host = connection.host
        self._ssh = ssh
        self._may_ask = may_ask

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """
        Send the phase's script on standard input and follow its reports to the end.

        A phase with a record goes on without us if the link breaks: then we log
        in again and read on. Ctrl-C during one is held back once.
        """
        self.open()
        run = "R" + secrets.token_hex(8)
        script = render_script(phase, run=run, owner=account.owner, login=account.login)
        conversation = _Conversation(EventParser(run), Follower(phase, listener))
        try:
            if phase.record is None:
                status = self._converse(script, conversation)
            else:
                status = self._converse_detached(script, conversation, _record_folder(phase, account), run)
        except KeyboardInterrupt:
            raise _interrupted(self.connection, phase) from None
        conversation.close()
        # -1 is paramiko's word for "the other side never said": unknown, not failed.
        conversation.follower.result.status = None if status == -1 else status
        return conversation.follower.result

    def _converse(self, script: str, conversation: _Conversation) -> int:
        """One session: the script goes in, reports come out; its exit status, or -1 if the link broke."""
        try:
            channel = self.connection.create_session()
        except (OSError, EOFError, ssh_exception.SSHException):
            return -1
        with contextlib.closing(channel):
            try:
                channel.exec_command(BOOTSTRAP)
                channel.sendall(script.encode())
                channel.shutdown_write()
                while chunk := conversation.receive(channel):
                    conversation.take(chunk)
                status = channel.recv_exit_status()
            except (OSError, EOFError, ssh_exception.SSHException):
                status = -1
            # Only stderr of the shell itself comes here: every step's goes with its output.
            if channel.recv_stderr_ready():
                conversation.complain(channel.recv_stderr(_CHUNK))
        return int(status)

    def _converse_detached(self, script: str, conversation: _Conversation, folder: PurePosixPath, run: str) -> int:
        conversation.patient = True
        status = self._converse(render_detached(script, run=run, folder=folder), conversation)
        give_up = time.monotonic() + self._ssh.reconnect
        while conversation.status is None and status in (-1, _TAIL_KILLED) and time.monotonic() < give_up:
            conversation.follower.say("the connection broke; the host goes on by itself, and we log in again")
            if not self._log_in_again(give_up):
                return -1
            conversation.rewind()
            status = self._converse(render_follow(run=run, folder=folder, offset=conversation.offset), conversation)
        return status if conversation.status is None and status != 0 else conversation.status_or_unknown

    def _log_in_again(self, give_up: float) -> bool:
        while time.monotonic() < give_up:
            with contextlib.suppress(Exception):
                self.connection.close()
            try:
                connect(self.connection, self._ssh)
            except ConnectError:
                time.sleep(1)
            else:
                return True
        return False

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

    def interact(self, command: Shell) -> int:
        """Print the command."""
        sys.stdout.write(f"would run with a terminal: {command}\n")
        return 0


def _record_folder(phase: Phase, account: Account) -> PurePosixPath:
    """Where a detached phase reports to: in the site, or at home for an account that may not write in the site."""
    assert phase.record is not None  # noqa: S101 - for the type checker; the caller asked
    # What root writes into the site, the next one to log in as its owner could not replace.
    is_owner = account.owner in ("", account.login)
    return phase.record if is_owner else PurePosixPath("~/.fabdjango") / phase.record.name


def _interrupted(connection: Connection, phase: Phase) -> FabdjangoError:
    if phase.serving:
        return UnknownStateError(
            "you stopped watching; the host goes on by itself, and reverts by itself if the release does not answer",
            host=connection.host,
            step=phase.name,
            cure=f"see what became of it: fab -H {target_of(connection)} status",
        )
    return FabdjangoError(
        "interrupted",
        host=connection.host,
        step=phase.name,
        state="nothing that serves was touched",
        cure="deploy again: what is half-done is cleared first",
    )


# --- logging in --------------------------------------------------------------


class _AskPolicy(MissingHostKeyPolicy):
    def __init__(self, known_hosts: str) -> None:
        self._known_hosts = known_hosts

    def missing_host_key(self, client: SSHClient, hostname: str, key: Any) -> None:
        sys.stderr.write(
            f"The host {hostname} is not known. Its {key.get_name()} key is {key.fingerprint}.\nAccept it? [y/N] "
        )
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            RejectPolicy().missing_host_key(client, hostname, key)
        _SavePolicy(self._known_hosts).missing_host_key(client, hostname, key)


class _SavePolicy(AutoAddPolicy):
    """Accepts an unknown key and appends it to known_hosts; paramiko's own would rewrite the whole file."""

    def __init__(self, known_hosts: str) -> None:
        self._known_hosts = known_hosts

    def missing_host_key(self, client: SSHClient, hostname: str, key: Any) -> None:
        client.get_host_keys().add(hostname, key.get_name(), key)
        path = Path(self._known_hosts)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")


def connect(connection: Connection, ssh: Ssh, *, may_ask: bool = False) -> None:
    """
    Log in with host keys checked; jump hosts are checked the same way.

    Raises ConnectError that says what to do for: a name that does not resolve,
    a port that nobody answers, an unknown or changed host key, a refused key.
    """
    host = connection.host
    files = [Path(ssh.known_hosts).expanduser()] if ssh.known_hosts else [Path("~/.ssh/known_hosts").expanduser()]
    connections = [connection]
    # Jump hosts may stand behind jump hosts.
    while isinstance(connections[0].gateway, Connection):
        connections.insert(0, connections[0].gateway)
    for each in connections:
        _check_host_keys(each.client, ssh, files[0], may_ask=may_ask)
        if each.connect_timeout is None:
            each.connect_timeout = ssh.connect_timeout
        each.connect_kwargs = {"banner_timeout": ssh.connect_timeout, **each.connect_kwargs}
    try:
        with _quiet_paramiko():
            connection.open()
    except Exception as error:  # noqa: BLE001 - whatever comes up while connecting is reported with its cure
        raise _connect_error(error, connection, ssh, files[0]) from None
    transport = connection.transport
    transport.set_keepalive(ssh.keepalive)
    _tune(transport.sock, ssh)
    connection.host = host


def _check_host_keys(client: SSHClient, ssh: Ssh, known_hosts: Path, *, may_ask: bool) -> None:
    # Fabric accepts any key, even a changed one, unless the client is told otherwise before its first use.
    if ssh.known_hosts:
        if known_hosts.exists():
            client.load_system_host_keys(str(known_hosts))
    else:
        for path in (Path("/etc/ssh/ssh_known_hosts"), known_hosts):
            if path.exists():
                client.load_system_host_keys(str(path))
    if ssh.host_keys == "accept-new":
        client.set_missing_host_key_policy(_SavePolicy(str(known_hosts)))
    elif ssh.host_keys == "ask" and may_ask:
        client.set_missing_host_key_policy(_AskPolicy(str(known_hosts)))
    else:
        client.set_missing_host_key_policy(RejectPolicy())


def _tune(sock: Any, ssh: Ssh) -> None:
    # Through a jump host this is a channel, not a socket.
    if not isinstance(sock, socket.socket):
        return
    with contextlib.suppress(OSError):
        # paramiko leaves Nagle's algorithm on: 35 ms more for each round trip.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Keepalive alone leaves a dead link hanging while data waits to be acknowledged.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ssh.keepalive * 2000)


@contextlib.contextmanager
def _quiet_paramiko() -> Iterator[None]:
    # paramiko's thread logs a traceback of errors that we report in words.
    import logging

    logger = logging.getLogger("paramiko")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _connect_error(error: Exception, connection: Connection, ssh: Ssh, known_hosts: Path) -> ConnectError:
    host, port, user = connection.host, connection.port, connection.user
    name = host if port == _SSH_PORT else f"[{host}]:{port}"
    flag = "" if port == _SSH_PORT else f"-p {port} "
    # What is learnt by hand must go into the file that is read here.
    learn = f"-o UserKnownHostsFile={quote(str(known_hosts))} " if ssh.known_hosts else ""
    if isinstance(error, ssh_exception.BadHostKeyException):
        return ConnectError(
            f"the host key of {name} has changed: another machine, or somebody in between",
            host=host,
            output=f"expected {error.expected_key.get_name()} {error.expected_key.fingerprint}\ngot      {error.key.get_name()} {error.key.fingerprint}",
            cure=f"if the machine was set up anew, forget the old key and look at the new one:\nssh-keygen -f {quote(str(known_hosts))} -R {quote(name)}\nssh {learn}{flag}{user}@{host}",
        )
    if isinstance(error, ssh_exception.NoValidConnectionsError) and error.errors:
        # It stands for one error for each address of the host, and says none of them.
        error = next(iter(error.errors.values()))
    text = str(error)
    if isinstance(error, ssh_exception.SSHException) and "not found in known_hosts" in text:
        return ConnectError(
            f"the host key of {name} is not known",
            host=host,
            cure=f"connect once by hand and compare the fingerprint: ssh {learn}{flag}{user}@{host}\nor set fabdjango.ssh.host_keys to accept-new or ask",
        )
    if isinstance(error, ssh_exception.PasswordRequiredException):
        return ConnectError(
            f"the key for {user}@{host} has a passphrase, and no agent holds it",
            host=host,
            cure="hand it to an agent: ssh-add FILE\nor be asked: fab --prompt-for-passphrase …",
        )
    if isinstance(error, ssh_exception.AuthenticationException) or "No authentication methods" in text:
        return ConnectError(
            f"{host} does not let {user} in: no key that was offered is accepted",
            host=host,
            cure=f"see whether this works: ssh {flag}{user}@{host}\nchoose the account with -H user@{host} and the key with -i FILE",
        )
    if isinstance(error, socket.gaierror):
        return ConnectError(
            f"the name {host!r} does not resolve: {error.strerror}",
            host=host,
            cure="check the spelling of -H, or the hosts in fabric.yaml",
        )
    if isinstance(error, (TimeoutError, socket.timeout)):
        return ConnectError(
            f"{host} port {port} does not answer",
            host=host,
            cure="is the host up, and does a firewall let you through?",
        )
    if "protocol banner" in text or "No existing session" in text:
        return ConnectError(
            f"{host} port {port} is open, but no SSH server speaks there",
            host=host,
            cure="is the SSH server well, and is the port right?",
        )
    if isinstance(error, OSError) and error.filename:
        return ConnectError(
            f"cannot read {error.filename}: {error.strerror}",
            host=host,
            cure="check the key of -i, and IdentityFile in ssh_config",
        )
    if isinstance(error, OSError):
        reason = error.strerror or text
        is_refused = isinstance(error, ConnectionRefusedError)
        return ConnectError(
            f"cannot connect to {host} port {port}: {reason}",
            host=host,
            cure="is the SSH server running there, and is the port right?"
            if is_refused
            else "is the host up, and does a firewall let you through?",
        )
    return ConnectError(
        f"cannot connect to {host} port {port}: {text or type(error).__name__}",
        host=host,
        cure=f"see whether this works: ssh {flag}{user}@{host}",
    )
