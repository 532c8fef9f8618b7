"""Logging in: what the socket is told before the first byte of the handshake."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fabric import Connection

from fabdjango.login import connect
from fabdjango.settings import Ssh
from fabdjango.testing import EmbeddedServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the switches are Linux's")

_UNACKED = 24  # struct tcp_info of linux/tcp.h: eight times one byte, four times four


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """A connection to a host, logged in by us."""
    with EmbeddedServer(tmp_path / "it's home") as server:
        found = Connection(
            server.address,
            user=server.user,
            port=server.port,
            connect_kwargs={"key_filename": str(server.client_key_path), "look_for_keys": False, "allow_agent": False},
        )
        with found:
            connect(found, Ssh(known_hosts=str(server.known_hosts_path), keepalive=7))
            yield found


def test_the_socket_of_a_login(connection: Connection) -> None:
    """Nothing small waits for what was sent before, and a dead link is noticed."""
    sock = connection.transport.sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
    assert connection.run("echo here", hide=True, in_stream=False).stdout == "here\n"


def test_what_is_received_is_acknowledged_at_once(connection: Connection) -> None:
    """A server that holds a small packet back until the one before is acknowledged does not wait for our delay."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        server, _ = listening.accept()
        with server:
            transport = connection.connect_kwargs["transport_factory"](client)
            # Already now: the login itself is what waits most.
            assert transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            transport.sock.settimeout(30)
            waiting = 0
            for _ in range(20):
                # As with a login: question and answer, and then another packet that asks for no answer.
                transport.sock.send(b"question")
                assert server.recv(100) == b"question"
                for packet in (b"answer", b"news"):
                    server.send(packet)
                    assert transport.sock.recv(100) == packet
                    info = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
                    waiting += struct.unpack_from("I", info, _UNACKED)[0]
            transport.sock.close()
    assert waiting == 0
