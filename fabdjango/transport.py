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
from pathlib import Path
from typing import Any, Protocol

from fabric import Connection
from paramiko import AutoAddPolicy, MissingHostKeyPolicy, RejectPolicy, SSHClient, ssh_exception

from fabdjango.escape import Shell, quote
from fabdjango.exceptions import ConnectError, UnknownStateError
from fabdjango.plan import Phase
from fabdjango.script import BOOTSTRAP, Event, EventParser, render_script
from fabdjango.settings import Ssh

__all__ = ["Account", "FabricTransport", "PhaseResult", "StepResult", "Transport", "connect"]

_CHUNK = 32768
_KEPT_OUTPUT = 400_000


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


class FabricTransport:
    """Runs phases over one Fabric Connection, each in one session of its own."""

    def __init__(self, connection: Connection, ssh: Ssh, *, may_ask: bool = False) -> None:
        self.connection = connection
        self.host = connection.host
        self._ssh = ssh
        self._may_ask = may_ask

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """Send the phase's script on standard input and follow its reports to the end."""
        self.open()
        run = "R" + secrets.token_hex(8)
        script = render_script(phase, run=run, owner=account.owner, login=account.login)
        follower = Follower(phase, listener)
        parser = EventParser(run)
        try:
            channel = self.connection.create_session()
        except (OSError, EOFError, ssh_exception.SSHException) as error:
            raise _lost(self.host, phase, error) from None
        with contextlib.closing(channel):
            try:
                channel.exec_command(BOOTSTRAP)
                channel.sendall(script.encode())
                channel.shutdown_write()
                while chunk := channel.recv(_CHUNK):
                    for event in parser.feed(chunk):
                        follower.take(event)
                for event in parser.close():
                    follower.take(event)
                status = channel.recv_exit_status()
            except (OSError, EOFError, ssh_exception.SSHException):
                status = -1
            # Only stderr of the shell itself comes here: every step's goes with its output.
            complaint = channel.recv_stderr(_CHUNK).decode("utf-8", "replace") if channel.recv_stderr_ready() else ""
        if complaint:
            listener(Event("output", "", complaint.strip()), None)
        # -1 is paramiko's word for "the other side never said": unknown, not failed.
        follower.result.status = None if status == -1 else status
        return follower.result

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
    """Shows the scripts instead of running them."""

    def __init__(self, host: str, show: Callable[[Phase], None]) -> None:
        self.host = host
        self._show = show

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:  # noqa: ARG002 - the protocol's form
        """Hand the phase to ``show``; every step counts as done."""
        self._show(phase)
        return PhaseResult(phase, 0)

    def interact(self, command: Shell) -> int:
        """Print the command."""
        sys.stdout.write(f"would run with a terminal: {command}\n")
        return 0


def _lost(host: str, phase: Phase, error: Exception) -> UnknownStateError | ConnectError:
    kind = UnknownStateError if phase.serving else ConnectError
    return kind(
        f"the connection broke: {error or type(error).__name__}",
        host=host,
        step=phase.name,
        cure="try again: what is half-done is cleared first",
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
    if isinstance(connection.gateway, Connection):
        connections.insert(0, connection.gateway)
    for each in connections:
        _check_host_keys(each.client, ssh, files[0], may_ask=may_ask)
        if each.connect_timeout is None:
            each.connect_timeout = ssh.connect_timeout
    try:
        with _quiet_paramiko():
            connection.open()
    except Exception as error:  # noqa: BLE001 - whatever comes up while connecting is reported with its cure
        raise _connect_error(error, connection, files[0]) from None
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


def _connect_error(error: Exception, connection: Connection, known_hosts: Path) -> ConnectError:
    host, port, user = connection.host, connection.port, connection.user
    name = host if port == 22 else f"[{host}]:{port}"
    flag = "" if port == 22 else f"-p {port} "
    if isinstance(error, ssh_exception.BadHostKeyException):
        return ConnectError(
            f"the host key of {name} has changed: another machine, or somebody in between",
            host=host,
            output=f"expected {error.expected_key.get_name()} {error.expected_key.fingerprint}\ngot      {error.key.get_name()} {error.key.fingerprint}",
            cure=f"if the machine was set up anew, forget the old key and look at the new one:\nssh-keygen -f {quote(str(known_hosts))} -R {quote(name)}\nssh {flag}{user}@{host}",
        )
    text = str(error)
    if isinstance(error, ssh_exception.SSHException) and "not found in known_hosts" in text:
        return ConnectError(
            f"the host key of {name} is not known",
            host=host,
            cure=f"connect once by hand and compare the fingerprint: ssh {flag}{user}@{host}\nor set fabdjango.ssh.host_keys to accept-new or ask",
        )
    if (
        isinstance(error, (ssh_exception.AuthenticationException, ssh_exception.PasswordRequiredException))
        or "No authentication methods" in text
    ):
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
    if isinstance(error, OSError):
        reason = error.strerror or text
        return ConnectError(
            f"cannot connect to {host} port {port}: {reason}",
            host=host,
            cure="is the SSH server running there, and is the port right?",
        )
    return ConnectError(
        f"cannot connect to {host} port {port}: {text or type(error).__name__}",
        host=host,
        cure=f"see whether this works: ssh {flag}{user}@{host}",
    )
