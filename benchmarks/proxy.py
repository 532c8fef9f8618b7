"""
Relays between the operator and the hosts: they count connections and bytes, and make the way as long as is asked for.

A relay holds each piece of data back for half the round trip. Connecting takes one and a half: from the first packet until
the host may say something. What TCP itself does on a long way, such as waiting for acknowledgements, is not imitated, so a
program that sends many small pieces looks a little better here than it is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from typing_extensions import Self

__all__ = ["LOCAL", "Relay", "Relays", "Traffic"]

LOCAL = "127.0.0.1"
PIECE = 1 << 16


@dataclass
class Traffic:
    """What went through a relay: connections, bytes to the host, bytes from the host."""

    connections: int = 0
    sent: int = 0
    received: int = 0

    def __sub__(self, before: Traffic) -> Traffic:
        """What came after `before`."""
        return Traffic(self.connections - before.connections, self.sent - before.sent, self.received - before.received)

    def __add__(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(self.connections + other.connections, self.sent + other.sent, self.received + other.received)


@dataclass
class Relay:
    """One address of this machine that leads to one port of one host."""

    target: tuple[str, int]
    port: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    under_way: set[asyncio.Task[None]] = field(default_factory=set)

    def count(self) -> Traffic:
        """What went through until now."""
        return replace(self.traffic)


class Relays:
    """Relays that run in a thread of their own, from `with` to its end; `delay` is the round trip in seconds."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.relays: list[Relay] = []
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait_for(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, host: str, port: int = 22) -> Relay:
        """Open a relay to a port of a host, on a free port of this machine."""
        relay = Relay((host, port))
        self._wait_for(self._listen(relay))
        self.relays.append(relay)
        return relay

    @contextmanager
    def delayed(self, seconds: float) -> Iterator[None]:
        """Make the way to all hosts as long as this for one block."""
        self.delay = seconds
        try:
            yield
        finally:
            self.delay = 0.0

    def drop(self) -> None:
        """End all connections, also those that a tool keeps for its next run."""
        self._wait_for(self._drop())

    def _wait_for(self, deed: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(deed, self._loop).result(30)

    async def _listen(self, relay: Relay) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._relay(relay, reader, writer))
            relay.under_way.add(task)
            # Dropped ones are cancelled, which is no error.
            with suppress(asyncio.CancelledError):
                await task
            relay.under_way.discard(task)
            writer.close()

        server = await asyncio.start_server(connected, LOCAL, 0, limit=PIECE)
        self._servers.append(server)
        relay.port = server.sockets[0].getsockname()[1]

    async def _relay(self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay.traffic.connections += 1
        if self.delay:
            await asyncio.sleep(1.5 * self.delay)
        try:
            host_reader, host_writer = await asyncio.open_connection(*relay.target, limit=PIECE)
        except OSError:
            return  # the operator's side sees a connection that is closed at once

        def sent(count: int) -> None:
            relay.traffic.sent += count

        def received(count: int) -> None:
            relay.traffic.received += count

        ways = [self._one_way(reader, host_writer, sent), self._one_way(host_reader, writer, received)]
        try:
            await asyncio.gather(*ways)
        finally:
            host_writer.close()

    async def _one_way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
    ) -> None:
        """Hand on what comes, each piece at its time, until the end of it, and then hand that on."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write() -> None:
            while True:
                due, piece = await queue.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                if not piece:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(piece)
                await writer.drain()

        async def read() -> None:
            piece = b"first"
            while piece:
                try:
                    piece = await reader.read(PIECE)
                except OSError:
                    piece = b""
                count(len(piece))
                queue.put_nowait((loop.time() + self.delay / 2, piece))

        with suppress(OSError):
            await asyncio.gather(read(), write())

    async def _drop(self) -> None:
        tasks = [task for relay in self.relays for task in relay.under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        await self._drop()
