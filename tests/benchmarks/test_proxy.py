"""Relays between a client and a server on this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.proxy import Relays, Traffic

HELLO = b"SSH-2.0-it's me\r\n"


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """Says hello, reads to the end, and then says how much it was."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    link, _ = listening.accept()
                except OSError:
                    return
                with link:
                    link.sendall(HELLO)
                    count = 0
                    while piece := link.recv(1 << 16):
                        count += len(piece)
                    link.sendall(b"%d" % count)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()
        # Closing alone does not wake whoever waits for a connection.
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def talk(port: int, sent: bytes) -> bytes:
    """Connect, send, and give everything that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(sent)
        link.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: link.recv(1 << 16), b""))


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_everything_goes_through_and_is_counted(server: tuple[str, int], delay: float) -> None:
    """Whole and in order, also when it is more than one piece, and to the end of one side before that of the other."""
    many = bytes(range(256)) * 4000
    with Relays() as relays, relays.delayed(delay):
        relay = relays.add(*server)
        before = relay.count()
        assert talk(relay.port, many) == HELLO + b"1024000"
        assert talk(relay.port, b"") == HELLO + b"0"
        assert relay.count() - before == Traffic(2, 1_024_000, 2 * len(HELLO) + 8)


def test_the_way_is_at_least_as_long_as_asked_for(server: tuple[str, int]) -> None:
    """Two round trips until the hello is here, and one more for an answer, however quick the machine is."""
    with Relays() as relays:
        relay = relays.add(*server)
        with relays.delayed(0.05):
            began = time.monotonic()
            talk(relay.port, b"and?")
            assert time.monotonic() - began >= 0.1


def test_a_dropped_connection_ends(server: tuple[str, int]) -> None:
    """So does whatever a tool keeps open for its next run; the relay takes the next connection."""
    with Relays() as relays:
        relay = relays.add(*server)
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as kept:
            assert kept.recv(len(HELLO)) == HELLO
            relays.drop()
            assert kept.recv(1) == b""
        assert talk(relay.port, b"again") == HELLO + b"5"
        assert relay.count().connections == 2


def test_a_host_that_is_down_closes_at_once() -> None:
    """As far as the operator can see through a relay."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Relays() as relays:
        relay = relays.add("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as link:
            assert link.recv(1) == b""
