"""A TCP relay that counts what goes over the wire, in each direction, with everything that SSH adds."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

__all__ = ["Relay"]


class Relay:
    """Listens on a port of this machine's loopback address, and passes everything on to ``address`` and ``port``."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self._counts: list[int] = []
        self._pumps: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that waits in accept is woken by this only.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def known_hosts(self, line: str) -> str:
        """The ``known_hosts`` line of the server, as that of the relay."""
        return f"[127.0.0.1]:{self.port} {line.split(None, 1)[1]}"

    def counted(self, action: Callable[[], object]) -> int:
        """How many bytes ``action`` sent and received, once all connections that it opened are closed."""
        self._counts, self._pumps = [], []
        action()
        for pump in self._pumps:
            pump.join()
        return sum(self._counts)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                pumps = [
                    threading.Thread(target=self._pump, args=ends, daemon=True) for ends in ((near, far), (far, near))
                ]
                self._pumps += pumps
                for pump in pumps:
                    pump.start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                self._counts.append(len(chunk))
                target.sendall(chunk)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
