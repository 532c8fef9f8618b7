"""
Logging in: host keys checked, jump hosts too, and every failure told with its cure.

With transport, the only module that touches a Connection.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fabric import Config, Connection
from paramiko import AutoAddPolicy, HostKeys, MissingHostKeyPolicy, RejectPolicy, SSHClient, Transport, ssh_exception

from fabdjango.escape import quote
from fabdjango.exceptions import ConnectError
from fabdjango.inventory import COMMAND_LINE, Host
from fabdjango.settings import Ssh

__all__ = ["connect", "connection_to", "name_of", "target_of"]

_SSH_PORT = 22


class _HostConnection(Connection):  # type: ignore[misc]
    """A connection that knows what the command line calls its host."""

    target = ""


def target_of(connection: Connection) -> str:
    """The host as -H takes it: a name of the inventory, else the account, the address and, if it is not 22, the port."""
    if isinstance(connection, _HostConnection) and connection.target:
        return str(connection.target)
    return f"{connection.user}@{connection.host}" + ("" if connection.port == _SSH_PORT else f":{connection.port}")


def name_of(connection: Connection) -> str:
    """What reports call the host: its name in the inventory, else its address."""
    is_listed = isinstance(connection, _HostConnection) and connection.target
    return str(connection.original_host if is_listed else connection.host)


def connection_to(host: Host, config: Config, given: Connection | None = None) -> Connection:
    """
    A connection to ``host``, not yet open, with its address, account, port, keys and jump hosts.

    ``given`` is the connection that Fabric made for the same host: a user or port
    that was asked for by hand, and arguments of its own, win. What neither says
    is left to ssh_config, which is asked about the host's name if it has an entry
    of that name, else about the address.
    """
    user, port = _by_hand(given) if given else ("", 0)
    own = dict(_own_arguments(given) or config.connect_kwargs)
    keys = _listed(_own_arguments(given).get("key_filename") or _keys_of_the_run(config))
    keys += [str(Path(key).expanduser()) for key in host.key]
    asked = host.name if host.name in config.base_ssh_config.get_hostnames() else host.address
    gateway = _gateway(host.jump, config, own, keys)
    if gateway is None and given is not None:
        gateway = given.gateway
    connection = _made(
        asked, config, own, keys, gateway=gateway, user=user or host.user or None, port=port or host.port or None
    )
    if host.address not in (host.name, asked):
        connection.host = host.address
    connection.original_host = host.name
    if host.source != COMMAND_LINE:
        place = (f"{user}@" if user else "") + host.name + (f":{port}" if port else "")
        connection.target = f"{place} {host.stage}" if host.stage else place
    return connection


def _made(asked: str, config: Config, own: Mapping[str, Any], keys: Iterable[str], **more: Any) -> _HostConnection:
    # Fabric collects the keys of all hosts of a run in a list that belongs to the run, and offers each host those of the
    # ones before. With arguments of its own a Connection leaves that list alone, but still starts from it.
    connection = _HostConnection(asked, config=config, connect_kwargs={**own, "key_filename": []}, **more)
    own_keys = [*keys, *_listed(connection.ssh_config.get("identityfile"))]
    connection.connect_kwargs = {**own, "key_filename": list(dict.fromkeys(own_keys))}
    return connection


def _gateway(jump: str, config: Config, own: Mapping[str, Any], keys: Iterable[str]) -> Connection | bool | None:
    """The last of a chain of jump hosts, False to go straight, or None to leave it to ssh_config."""
    if jump in ("", "none"):
        return False if jump else None
    made: Connection | None = None
    for hop in jump.split(","):
        # As ssh does: the first is the one that is logged in to from here.
        made = _made(hop, config, own, keys, gateway=made)
    return made


def _by_hand(given: Connection) -> tuple[str, int]:
    """The account and the port that were asked for by hand; empty and 0 if they are what ssh_config or Fabric says."""
    usual = given.config.base_ssh_config.lookup(given.original_host)
    user = "" if given.user == usual.get("user", given.config.user) else given.user
    port = 0 if given.port == int(usual.get("port", given.config.port)) else given.port
    return str(user), int(port)


def _own_arguments(given: Connection | None) -> Mapping[str, Any]:
    """Arguments that a caller gave to this Connection alone."""
    found = given.connect_kwargs if given is not None else None
    return found if isinstance(found, dict) else {}


def _keys_of_the_run(config: Config) -> Any:
    """The keys of -i or of a config file, without what Fabric has added for each host."""
    levels = ("_overrides", "_runtime", "_env", "_project", "_user", "_system", "_collection")
    for level in levels:
        found = ((getattr(config, level, None) or {}).get("connect_kwargs") or {}).get("key_filename")
        if found:
            return found
    return None


def _listed(keys: Any) -> list[str]:
    return [keys] if isinstance(keys, str) else [str(key) for key in keys or ()]


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
        _check_host_keys(each, ssh, files[0], may_ask=may_ask)
        if each.connect_timeout is None:
            each.connect_timeout = ssh.connect_timeout
        usual = {
            "banner_timeout": ssh.connect_timeout,
            "transport_factory": functools.partial(_transport_over, ssh=ssh),
        }
        each.connect_kwargs = {**usual, **each.connect_kwargs}
    try:
        with _quiet_paramiko():
            connection.open()
    except Exception as error:  # noqa: BLE001 - whatever comes up while connecting is reported with its cure
        raise _connect_error(error, connection, ssh, files[0]) from None
    connection.transport.set_keepalive(ssh.keepalive)
    connection.host = host


def _check_host_keys(connection: Connection, ssh: Ssh, known_hosts: Path, *, may_ask: bool) -> None:
    # Fabric accepts any key, even a changed one, unless the client is told otherwise before its first use.
    client, host, port = connection.client, connection.host, connection.port
    name = host if port == _SSH_PORT else f"[{host}]:{port}"
    files = [known_hosts] if ssh.known_hosts else [Path("/etc/ssh/ssh_known_hosts"), known_hosts]
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            for kind, key in (_keys_in(path, path.stat().st_mtime_ns).lookup(name) or {}).items():
                client.get_host_keys().add(name, kind, key)
    if ssh.host_keys == "accept-new":
        client.set_missing_host_key_policy(_SavePolicy(str(known_hosts)))
    elif ssh.host_keys == "ask" and may_ask:
        client.set_missing_host_key_policy(_AskPolicy(str(known_hosts)))
    else:
        client.set_missing_host_key_policy(RejectPolicy())


@functools.cache
def _keys_in(path: Path, changed: int) -> HostKeys:  # noqa: ARG001 - a file that was changed is another one
    """The keys of a file, which is read once for all hosts: of a hundred hosts it has a hundred lines."""
    return HostKeys(str(path))


class _PromptSocket(socket.socket):
    """
    A socket that acknowledges at once what it has received.

    An SSH server sends small packets one after the other (what its host keys are,
    that a session is open) and leaves Nagle's algorithm on until a session runs a
    command: each packet waits for the acknowledgement of the one before, which
    Linux delays by 40 ms in case an answer can carry it.
    """

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        data = super().recv(bufsize, flags)
        # Linux leaves this mode by itself, soon and without a word.
        with contextlib.suppress(OSError):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data


def _transport_over(sock: Any, *, ssh: Ssh, **more: Any) -> Transport:
    """Paramiko's Transport, over a socket that neither holds back what it sends nor what it acknowledges."""
    # Through a jump host this is a channel, not a socket.
    if isinstance(sock, socket.socket):
        with contextlib.suppress(OSError):
            # paramiko leaves Nagle's algorithm on: 40 ms more to log in, and 35 ms for each round trip.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                # Keepalive alone leaves a dead link hanging while data waits to be acknowledged.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ssh.keepalive * 1000)
            sock = _PromptSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    return Transport(sock, **more)


@contextlib.contextmanager
def _quiet_paramiko() -> Iterator[None]:
    # paramiko's thread logs a traceback of errors that we report in words.
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
    called = name_of(connection)
    flag = "" if port == _SSH_PORT else f"-p {port} "
    # What is learnt by hand must go into the file that is read here.
    learn = f"-o UserKnownHostsFile={quote(str(known_hosts))} " if ssh.known_hosts else ""
    if isinstance(error, ssh_exception.BadHostKeyException):
        return ConnectError(
            f"the host key of {name} has changed: another machine, or somebody in between",
            host=called,
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
            host=called,
            cure=f"connect once by hand and compare the fingerprint: ssh {learn}{flag}{user}@{host}\nor set fabdjango.ssh.host_keys to accept-new or ask",
        )
    if isinstance(error, ssh_exception.PasswordRequiredException):
        return ConnectError(
            f"the key for {user}@{host} has a passphrase, and no agent holds it",
            host=called,
            cure="hand it to an agent: ssh-add FILE\nor be asked: fab --prompt-for-passphrase …",
        )
    if isinstance(error, ssh_exception.AuthenticationException) or "No authentication methods" in text:
        return ConnectError(
            f"{host} does not let {user} in: no key that was offered is accepted",
            host=called,
            cure=f"see whether this works: ssh {flag}{user}@{host}\nchoose the account with -H user@{called} and the key with -i FILE",
        )
    if isinstance(error, socket.gaierror):
        return ConnectError(
            f"the name {host!r} does not resolve: {error.strerror}",
            host=called,
            cure="check the spelling of -H, or the hosts in fabric.yaml",
        )
    if isinstance(error, (TimeoutError, socket.timeout)):
        return ConnectError(
            f"{host} port {port} does not answer",
            host=called,
            cure="is the host up, and does a firewall let you through?",
        )
    if "protocol banner" in text or "No existing session" in text:
        return ConnectError(
            f"{host} port {port} is open, but no SSH server speaks there",
            host=called,
            cure="is the SSH server well, and is the port right?",
        )
    if isinstance(error, OSError) and error.filename:
        return ConnectError(
            f"cannot read {error.filename}: {error.strerror}",
            host=called,
            cure="check the key of -i, and IdentityFile in ssh_config",
        )
    if isinstance(error, OSError):
        reason = error.strerror or text
        is_refused = isinstance(error, ConnectionRefusedError)
        return ConnectError(
            f"cannot connect to {host} port {port}: {reason}",
            host=called,
            cure="is the SSH server running there, and is the port right?"
            if is_refused
            else "is the host up, and does a firewall let you through?",
        )
    return ConnectError(
        f"cannot connect to {host} port {port}: {text or type(error).__name__}",
        host=host,
        cure=f"see whether this works: ssh {flag}{user}@{host}",
    )
