"""
An SSH server inside this process: for the demo, for our tests, and for people who write plugins.

    with EmbeddedServer(home=tmp_path) as server:
        Connection(server.address, user=server.user, port=server.port, connect_kwargs={...})

It is a stand-in for OpenSSH's sshd, not a recorder: commands really run, as the user who started it, and what they see (a clean
environment, no terminal unless one was asked for, hang-ups, exit signals) is what sshd would show them. Where the two could
differ, sshd is right; each place that copies one of its habits says which.

To try what happens when something dies at a certain step, set FABDJANGO_TEST_PAUSE in the operator's environment to before:STEP,
during:STEP or after:STEP. The host then makes the file ``<root>/run/paused`` there and waits until somebody removes it.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import fcntl
import os
import pwd
import signal
import struct
import subprocess
import tempfile
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from types import ModuleType, TracebackType

    import asyncssh
    from typing_extensions import Self

__all__ = ["SFTP_SESSION", "SHELL_SESSION", "EmbeddedServer"]

SHELL_SESSION = "<shell>"
SFTP_SESSION = "<sftp>"

_CHUNK = 64 * 1024  # bytes; the capacity of a Linux pipe
_TERMINAL_READS = (
    256  # of 4 KiB, which is more than Linux keeps for a terminal; a bound, for who has it open may never be silent
)
_STOP_TIMEOUT = 5.0  # seconds; nothing in `stop` waits for a command, so this is only ever reached by a bug

# The signals that RFC 4254 section 6.10 names. sshd reports all others as "SIG@openssh.com".
_PORTABLE_SIGNALS = frozenset(
    {"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2"},
)


class EmbeddedServer:
    """
    An SSH server on a loopback address, running in a thread of its own.

    home: the directory where sessions start and that HOME names; made if it is missing.
    port: the TCP port to listen on; 0 takes a free one.
    keys: a directory for the host key and the client key. Keys found there are used, missing ones are made, so that the server
        keeps its identity over restarts. Without it, keys are fresh at every start and deleted at stop.
    environ: variables for every command, on top of the clean environment of a non-login shell.
    address: the IP address to listen on, of 127.0.0.0/8.
    latency: seconds that everything is held back in each direction; a round trip takes twice as long.

    Only `user` is let in, and only with the key in `client_key_path`.

    Commands outlive the server as they outlive sshd: `stop` cuts the connections and kills nothing, though whoever had a
    terminal is hung up on.
    """

    address: str
    """The IP address to connect to."""
    port: int
    """The TCP port; known once started, and the same when started again."""
    user: str
    """The login name of whoever runs this process."""
    home: Path
    """Where sessions start; absolute."""
    client_key_path: Path
    """The one private key that is let in: OpenSSH format, no passphrase, mode 0600. Its public half lies beside it as `.pub`."""
    known_hosts_path: Path
    """An OpenSSH known_hosts file with this server's key under its address and port; rewritten by every start."""
    connections: int
    """TCP connections accepted so far, refused logins included."""
    sessions: list[str]
    """One entry for each session channel, in order: its command, or SHELL_SESSION, or SFTP_SESSION."""

    def __init__(
        self,
        home: Path | str,
        *,
        port: int = 0,
        keys: Path | str | None = None,
        environ: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        latency: float = 0.0,
    ) -> None:
        self.address = address
        self.home = Path(home).absolute()
        self.port = port
        self.user = _login_name()
        self.connections = 0
        self.sessions = []
        self._keys = None if keys is None else Path(keys).absolute()
        self._environ = dict(environ or {})
        self._latency = latency
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._open: set[asyncssh.SSHServerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """
        Listen; return this server once it takes connections.

        Raises ImportError without asyncssh, OSError if the port is taken, RuntimeError if it runs already.
        """
        if self._thread is not None:
            message = f"the embedded SSH server runs already, on port {self.port}"
            raise RuntimeError(message)
        _import_asyncssh()
        self.home.mkdir(parents=True, exist_ok=True)
        if self._keys is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="fabdjango-ssh-")
        ready: concurrent.futures.Future[int] = concurrent.futures.Future()
        # A daemon, so that a program that forgets to stop the server can end; atexit then stops it in good order.
        self._thread = threading.Thread(target=self._run, args=(ready,), name="fabdjango-ssh", daemon=True)
        self._thread.start()
        atexit.register(self.stop)
        try:
            self.port = ready.result()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Cut all connections and end the thread. Stopping twice is stopping once."""
        if self._thread is None:
            return
        # The loop is closed already if start failed.
        with contextlib.suppress(AttributeError, RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None
        atexit.unregister(self.stop)
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    # Everything below runs in the server's own thread.

    def _run(self, ready: concurrent.futures.Future[int]) -> None:
        # Not asyncio.run: to end its pool of threads, it starts one more, which fails when atexit is what stops us.
        loop = asyncio.new_event_loop()
        try:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                loop.set_default_executor(pool)
                loop.run_until_complete(self._serve(ready))
                loop.run_until_complete(_cancel_the_rest())
                loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            loop.close()

    async def _serve(self, ready: concurrent.futures.Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        ssh = _import_asyncssh()
        keys = self._keys or Path(cast("tempfile.TemporaryDirectory[str]", self._scratch).name)
        host_key = _load_or_make_key(keys / "ssh_host_ed25519_key")
        client_key = _load_or_make_key(keys / "id_ed25519")

        acceptor = await ssh.listen(
            self.address,
            0 if self._latency else self.port,
            server_factory=lambda: _guard(self, client_key.public_data),
            server_host_keys=[host_key],
            process_factory=self._session,
            sftp_factory=self._sftp_session,
            encoding=None,  # bytes through and through
            line_editor=False,  # the kernel's terminal has one
            agent_forwarding=False,
            config=None,  # the machine's own ssh configuration is none of our business
        )
        port = acceptor.get_port()
        slow: asyncio.Server | None = None
        try:
            if self._latency:
                slow = await asyncio.start_server(self._slow_connection(port), self.address, self.port)
                port = slow.sockets[0].getsockname()[1]
            self.client_key_path = keys / "id_ed25519"
            self.known_hosts_path = keys / "known_hosts"
            self.known_hosts_path.write_text(_known_hosts_line(self.address, port, host_key))
            ready.set_result(port)
            await self._stopping.wait()
        finally:
            acceptor.close()
            if slow is not None:
                slow.close()
            for connection in list(self._open):
                connection.abort()
            await self._settle()

    async def _settle(self) -> None:
        """Let every session see that its connection is gone and put its things away."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_TIMEOUT)
            for task in late:
                task.cancel()

    def _adopt(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _session(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.subsystem is not None:  # sftp never comes here
            process.stderr.write(b"subsystem request failed\n")
            process.exit(1)
            return
        self.sessions.append(SHELL_SESSION if process.command is None else process.command)
        await self._adopt(self._attend(process))

    async def _attend(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run one command or shell and stay with it until it has ended or the client has gone."""
        child = _Child(process, self.home, self._clean_environment())
        await child.connect()
        ended = asyncio.ensure_future(child.ended())
        gone = asyncio.ensure_future(process.channel.wait_closed())
        try:
            await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                _report_exit(process, ended.result())
        finally:
            for task in (ended, gone):
                task.cancel()
            await child.let_go()

    def _clean_environment(self) -> dict[str, str]:
        """Return what sshd gives a non-login shell; nothing of this process's own environment leaks in."""
        return {
            "HOME": str(self.home),
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": "/bin/sh",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            **self._environ,
        }

    def _sftp_session(self, channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        self.sessions.append(SFTP_SESSION)
        return _sftp_at(self.home, channel)

    def _slow_connection(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        """Return a connection handler that passes everything on to `port`, late."""

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection(self.address, port)
            await asyncio.gather(
                _delay(reader, inner_writer, self._latency),
                _delay(inner_reader, writer, self._latency),
            )

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._adopt(forward(reader, writer))

        return accept


class _Child:
    """A process and the channel it talks through, with or without a terminal between them."""

    def __init__(self, channel: asyncssh.SSHServerProcess[bytes], home: Path, environ: dict[str, str]) -> None:
        self._channel = channel
        self._home = home
        self._environ = environ
        self._terminal: int | None = None  # the master's file descriptor
        self._transports: list[asyncio.BaseTransport] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def connect(self) -> None:
        """Start the process and pump its streams."""
        if self._channel.term_type is None:
            await self._connect_pipes()
        else:
            await self._connect_terminal(self._channel.term_type)
        # A thread, because the ways of asyncio would kill a process that outlives the loop. It is a daemon: nobody waits
        # for a command that was left running.
        threading.Thread(
            target=_await_exit,
            args=(self._process, asyncio.get_running_loop(), self._exit),
            name=f"fabdjango-ssh-{self._process.pid}",
            daemon=True,
        ).start()

    async def ended(self) -> int:
        """
        Wait for the process to end and its output to be sent; return its exit code, or minus the signal that ended it.

        Like sshd, this also waits for whoever the process left in the background with its stdout or stderr open, unless that is
        a terminal: then only what was written so far is waited for.
        """
        code = await asyncio.shield(self._exit)
        if self._terminal is not None:
            self._read_rest(self._terminal)
        await asyncio.gather(*self._output)
        return code

    async def let_go(self) -> None:
        """
        Drop our ends of its streams and leave the process alone.

        Closing a terminal makes the kernel send SIGHUP to whoever holds it. A process without a terminal reads EOF, gets SIGPIPE if it
        writes, and otherwise runs on.
        """
        for transport in self._transports:
            if not isinstance(transport, asyncio.WriteTransport):
                transport.close()
            # asyncio cannot abort a pipe that is closed already; one that closes once its buffer is empty has to be aborted.
            elif not transport.is_closing() or transport.get_write_buffer_size():
                transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    async def _connect_pipes(self) -> None:
        self._process = process = self._spawn(subprocess.PIPE, self._environ)
        stdin = await self._writer(process.stdin)
        stdout = await self._reader(process.stdout)
        stderr = await self._reader(process.stderr)
        self._output = [
            self._start(_pump(stdout, self._channel.stdout)),
            self._start(_pump(stderr, self._channel.stderr)),
        ]
        self._start(self._feed(stdin))

    async def _connect_terminal(self, term: str) -> None:
        self._terminal, terminal = os.openpty()
        try:
            self._resize(*self._channel.term_size)
            environ = {**self._environ, "TERM": term, "SSH_TTY": os.ttyname(terminal)}
            self._process = self._spawn(terminal, environ, _take_terminal)
        finally:
            os.close(terminal)
        # Each transport closes the descriptor it was given, so each gets its own.
        stdin = await self._writer(os.fdopen(os.dup(self._terminal), "wb", buffering=0))
        self._stdout = await self._reader(os.fdopen(os.dup(self._terminal), "rb", buffering=0))
        self._output = [self._start(_pump(self._stdout, self._channel.stdout))]
        self._start(self._feed(stdin))

    def _read_rest(self, terminal: int) -> None:
        """Take what the terminal holds and no more; its EOF would only come with the last process that has it open."""
        transport = self._transports[-1]
        if not transport.is_closing():
            with contextlib.suppress(OSError):  # nothing there for now, or nobody at the other side
                for _ in range(_TERMINAL_READS):
                    self._stdout.feed_data(os.read(terminal, _CHUNK))
            transport.close()

    def _spawn(
        self, streams: int, environ: dict[str, str], first: Callable[[], None] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the command, or a shell, in a session of its own, with `streams` as its stdin, stdout and stderr."""
        command = self._channel.command
        return subprocess.Popen(
            [b"-sh"] if command is None else [b"sh", b"-c", command.encode()],
            executable="/bin/sh",
            bufsize=0,
            stdin=streams,
            stdout=streams,
            stderr=streams,
            cwd=self._home,
            env=environ,
            start_new_session=True,
            # Threads make this risky for code that takes locks; what it is used for takes none.
            preexec_fn=first,  # noqa: PLW1509
        )

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    async def _reader(self, pipe: object) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit=_CHUNK)
        protocol = _LenientProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
        self._transports.append(transport)
        return reader

    async def _writer(self, pipe: object) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())  # only for its flow control
        transport, _ = await loop.connect_write_pipe(lambda: protocol, pipe)
        self._transports.append(transport)
        # Kept, because a writer that is forgotten closes its pipe.
        self._stdin = asyncio.StreamWriter(transport, protocol, None, loop)
        return self._stdin

    async def _feed(self, stdin: asyncio.StreamWriter) -> None:
        """Pass on the client's input, signals and window changes until it sends EOF."""
        ssh = _import_asyncssh()
        while True:
            try:
                data = await self._channel.stdin.read(_CHUNK)
            except ssh.TerminalSizeChanged as change:
                self._resize(change.width, change.height, change.pixwidth, change.pixheight)
                continue
            except ssh.SignalReceived as received:
                self._signal(received.signal)
                continue
            except ssh.BreakReceived:
                continue
            if not data:
                break
            # A process that does not want its input is no reason to stall the client: like sshd, read on and discard.
            with contextlib.suppress(OSError):
                if not stdin.is_closing():
                    stdin.write(data)
                    await stdin.drain()
        # A terminal has no half-closed state: its EOF is a key, which the client sends itself.
        if self._terminal is None:
            stdin.close()

    def _resize(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._terminal is not None:
            size = struct.pack("HHHH", height, width, pixwidth, pixheight)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def _signal(self, name: str) -> None:
        """Send a signal to the whole process group, as sshd does; unknown names are ignored."""
        number = signal.Signals.__members__.get(f"SIG{name}")
        if number is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class _LenientProtocol(asyncio.StreamReaderProtocol):
    """Takes an error for EOF: a terminal whose last process has ended gives EIO, and StreamReader would forget what it holds."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        super().connection_lost(None)


def _take_terminal() -> None:
    """Make stdin the controlling terminal of the new session; runs between fork and exec."""
    # Who started us may have it ignored (nohup does), and a command would inherit that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _await_exit(
    process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop, exit_code: asyncio.Future[int]
) -> None:
    code = process.wait()

    def settle() -> None:
        if not exit_code.done():
            exit_code.set_result(code)

    # The loop is closed if the process outlived the server.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(settle)


async def _pump(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    with contextlib.suppress(OSError):  # the channel is gone
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()


def _report_exit(process: asyncssh.SSHServerProcess[bytes], code: int) -> None:
    """Tell the client how the process ended; `code` is as `subprocess.Popen.returncode` has it."""
    if code >= 0:
        process.exit(code)
        return
    try:
        name = signal.Signals(-code).name.removeprefix("SIG")
    except ValueError:  # most real-time signals have no name
        name = ""
    process.exit_with_signal(name if name in _PORTABLE_SIGNALS else "SIG@openssh.com")


async def _cancel_the_rest() -> None:
    """Cancel every task of this loop, asyncssh's own among them."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def _delay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency: float) -> None:
    """Pass everything from reader to writer, each piece `latency` seconds after it came."""
    loop = asyncio.get_running_loop()
    # A queue, because call_later does not keep the order of what falls due at the same instant.
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def collect() -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""
            pieces.put_nowait((loop.time() + latency, data))

    collecting = loop.create_task(collect())
    try:
        while True:
            due, data = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        collecting.cancel()
        writer.close()


def _import_asyncssh() -> ModuleType:
    # Imported late: it takes as long as Fabric itself, and only the demo and tests need it.
    try:
        import asyncssh
    except ImportError as error:
        message = "the embedded SSH server needs asyncssh; get it with: pip install 'fabdjango[demo]'"
        raise ImportError(message, name="asyncssh") from error
    return asyncssh


def _login_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _load_or_make_key(path: Path) -> asyncssh.SSHKey:
    """Return the private key at `path`; if there is none, make an ed25519 pair there first."""
    ssh = _import_asyncssh()
    if path.exists():
        return cast("asyncssh.SSHKey", ssh.read_private_key(path))
    key: asyncssh.SSHKey = ssh.generate_private_key("ssh-ed25519", comment="fabdjango embedded server")
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.export_private_key())
    path.with_name(f"{path.name}.pub").write_bytes(key.export_public_key())
    return key


def _known_hosts_line(address: str, port: int, key: asyncssh.SSHKey) -> str:
    host = address if port == 22 else f"[{address}]:{port}"
    algorithm, data, *_ = key.export_public_key().decode().split()
    return f"{host} {algorithm} {data}\n"


def _guard(server: EmbeddedServer, client_key: bytes) -> asyncssh.SSHServer:
    """Return the callbacks for one connection: who may come in, and what is counted. `client_key` is public, in SSH's wire format."""
    import asyncssh

    class Guard(asyncssh.SSHServer):
        def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
            server.connections += 1
            self._connection = connection
            server._open.add(connection)  # noqa: SLF001

        def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
            server._open.discard(self._connection)  # noqa: SLF001

        def begin_auth(self, username: str) -> bool:  # noqa: ARG002
            return True  # authentication is needed, and an unknown user cannot tell that he is unknown

        def public_key_auth_supported(self) -> bool:
            return True

        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            return username == server.user and key.public_data == client_key

        def connection_requested(self, host: str, port: int, orig_host: str, orig_port: int) -> bool:  # noqa: ARG002
            return True  # sshd lets a client tunnel by default, so this server can stand in for a gateway

    return Guard()


def _sftp_at(home: Path, channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
    """Return an SFTP server for the whole file system, whose relative paths start at `home`."""
    import asyncssh

    class HomeSFTP(asyncssh.SFTPServer):
        def map_path(self, path: bytes) -> bytes:
            return os.path.join(os.fsencode(home), path)  # noqa: PTH118

    return HomeSFTP(channel)
