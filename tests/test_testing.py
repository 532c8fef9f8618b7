"""The embedded SSH server behaves like sshd, as far as a deployment can tell."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import select
import shlex
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import asyncssh
import fabric
import paramiko
import pytest

from fabdjango.testing import SFTP_SESSION, SHELL_SESSION, EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = (
    20  # seconds until a test that waits for another process gives up; never a duration that a passing test takes
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Start a server; its home has a space and a quote in its name."""
    with EmbeddedServer(tmp_path / "ada's home") as running:
        yield running


def ssh(server: EmbeddedServer, **options: Any) -> Any:
    """Connect with asyncssh, checking the host key and ignoring whatever this machine has configured."""
    words = {
        "username": server.user,
        "client_keys": [str(server.client_key_path)],
        "known_hosts": str(server.known_hosts_path),
        "config": None,
        "agent_path": None,
        **options,
    }
    return asyncssh.connect(server.address, server.port, **words)


def run(server: EmbeddedServer, command: str, **options: Any) -> asyncssh.SSHCompletedProcess:
    """Run one command over a connection of its own."""

    async def once() -> asyncssh.SSHCompletedProcess:
        async with ssh(server) as connection:
            return await asyncio.wait_for(connection.run(command, **options), PATIENCE)

    return asyncio.run(once())


def until(name: str, then: str) -> str:
    """
    Return a command that prints `ready`, waits for the signal called `name`, and runs the Python statement `then`.

    Python, because a shell can miss a signal that comes just before it starts to wait.
    """
    program = (
        f"import os, signal; wanted = [signal.{name}]; signal.pthread_sigmask(signal.SIG_BLOCK, wanted); "
        f"print('ready', flush=True); signal.sigwait(wanted); {then}"
    )
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"


@pytest.fixture
def connection(server: EmbeddedServer) -> Iterator[fabric.Connection]:
    """Make a Fabric connection that knows the host key and refuses all others."""
    with fabric.Connection(
        server.address,
        user=server.user,
        port=server.port,
        connect_kwargs={
            "key_filename": str(server.client_key_path),
            "look_for_keys": False,
            "allow_agent": False,
        },
    ) as connection:
        assert connection.client is not None
        connection.client.load_host_keys(str(server.known_hosts_path))
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        yield connection


class Witness:
    """
    Two named pipes, to learn without sleeping whether a process on the other side is alive.

    The process runs `script` and waits in it; `answers` is true if it then repeats what it is told.
    """

    script = "read line <ask && echo $line >answer"

    def __init__(self, home: Path) -> None:
        os.mkfifo(home / "ask")
        os.mkfifo(home / "answer")
        # Open for reading and writing, a pipe never blocks in open and never reads EOF.
        self._ask = os.open(home / "ask", os.O_RDWR)
        self._answer = os.open(home / "answer", os.O_RDWR)

    def answers(self) -> bool:
        """Speak to the process; return whether it answered."""
        os.write(self._ask, b"hello\n")
        return self.hears(b"hello\n")

    def hears(self, line: bytes) -> bool:
        """Return whether the process wrote `line`, waiting for it if need be."""
        readable, _, _ = select.select([self._answer], [], [], PATIENCE)
        return bool(readable) and os.read(self._answer, 100) == line

    def close(self) -> None:
        """Close both pipes."""
        os.close(self._ask)
        os.close(self._answer)


@pytest.fixture
def witness(server: EmbeddedServer) -> Iterator[Witness]:
    """Put a witness into the server's home."""
    witness = Witness(server.home)
    yield witness
    witness.close()


class TestCommands:
    """Exec requests."""

    def test_streams_and_exit_code_through_fabric(self, connection: fabric.Connection) -> None:
        """Fabric gets stdout, stderr and the exit code apart."""
        result = connection.run("echo out; echo err >&2; exit 7", hide=True, warn=True, in_stream=False)

        assert (result.stdout, result.stderr, result.exited) == ("out\n", "err\n", 7)

    def test_clean_environment(self, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A command sees a non-login shell's environment and nothing of ours; PWD is the shell's own doing."""
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "leaked")

        lines = run(server, "env | sort").stdout

        assert lines == textwrap.dedent(f"""\
            HOME={server.home}
            LOGNAME={server.user}
            PATH=/usr/local/bin:/usr/bin:/bin
            PWD={server.home}
            SHELL=/bin/sh
            USER={server.user}
            """)

    def test_environ_adds_and_overrides(self, tmp_path: Path) -> None:
        """Who starts the server can add variables and put a directory on PATH."""
        with EmbeddedServer(tmp_path, environ={"PATH": "/opt/my python/bin:/bin", "LANG": "C.UTF-8"}) as server:
            assert run(server, 'echo "$PATH $LANG $HOME"').stdout == f"/opt/my python/bin:/bin C.UTF-8 {tmp_path}\n"

    def test_starts_in_home(self, server: EmbeddedServer) -> None:
        """The working directory is the home."""
        assert run(server, "pwd").stdout == f"{server.home}\n"

    @pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 255])
    def test_exit_codes(self, server: EmbeddedServer, code: int) -> None:
        """Exit codes arrive as they are."""
        assert run(server, f"exit {code}").exit_status == code

    def test_large_input_comes_back(self, server: EmbeddedServer) -> None:
        """Ten megabytes of bytes, valid UTF-8 or not, pass through both ways at once."""
        data = os.urandom(10_000_000)

        result = run(server, "cat", input=data, encoding=None)

        # Digests, for a failure's message would be ten megabytes long.
        assert _digest(result.stdout) == _digest(data)

    def test_large_output_on_both_streams(self, server: EmbeddedServer) -> None:
        """Neither stream has to wait for the other to be read."""
        result = run(server, "head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero", encoding=None)

        assert (len(result.stdout or ""), len(result.stderr or "")) == (5_000_000, 5_000_000)

    def test_input_that_nobody_reads(self, server: EmbeddedServer) -> None:
        """A command that closes its stdin and works on does not stall a client that is still sending."""
        result = run(server, "exec <&-; sleep 0.1; echo done", input="x" * 10_000_000)

        assert (result.stdout, result.exit_status) == ("done\n", 0)

    def test_input_ends(self, connection: fabric.Connection) -> None:
        """EOF is passed on, so that a program which reads to the end of its input ends."""
        _, stdout, _ = _exec(connection, "wc -c", b"12345")

        assert stdout == b"5\n"

    def test_death_by_signal_through_asyncssh(self, server: EmbeddedServer) -> None:
        """A shell that is killed reports the signal and no exit code."""
        result = run(server, "kill -s TERM $$")

        assert result.exit_signal is not None
        assert (result.exit_signal[0], result.exit_status) == ("TERM", -1)

    def test_death_by_signal_through_fabric(self, connection: fabric.Connection) -> None:
        """Fabric, too, is not told that a killed command succeeded."""
        assert connection.run("kill -s KILL $$", hide=True, warn=True, in_stream=False).exited == -1

    def test_signal_with_a_name_of_its_own(self, server: EmbeddedServer) -> None:
        """Signals outside RFC 4254 get the name that sshd gives them."""
        result = run(server, "kill -s XCPU $$")

        assert result.exit_signal is not None
        assert result.exit_signal[0] == "SIG@openssh.com"

    def test_client_sends_a_signal(self, server: EmbeddedServer) -> None:
        """A signal from the client reaches the command's children, too."""

        async def terminate() -> Any:
            async with ssh(server) as connection:
                process = await connection.create_process("trap : TERM; " + until("SIGTERM", "exit(3)") + "; exit $?")
                await process.stdout.readline()
                process.terminate()
                return (await asyncio.wait_for(process.wait(), PATIENCE)).exit_status

        assert asyncio.run(terminate()) == 3

    def test_no_file_descriptor_leaks(self, server: EmbeddedServer) -> None:
        """A command holds its three streams and nothing of the server's, even what was made inheritable by mistake."""
        leak, other = os.pipe()
        os.set_inheritable(leak, True)
        try:
            assert run(server, "ls /proc/$$/fd").stdout == "0\n1\n2\n"
        finally:
            os.close(leak)
            os.close(other)

    def test_shell_request(self, server: EmbeddedServer) -> None:
        """Without a command, a shell reads its commands from stdin."""

        async def talk() -> Any:
            async with ssh(server) as connection:
                return await connection.run(input="echo $0; exit 4\n")

        result = asyncio.run(talk())

        assert (result.stdout, result.exit_status) == ("-sh\n", 4)
        assert server.sessions == [SHELL_SESSION]

    def test_many_at_once(self, server: EmbeddedServer) -> None:
        """Sessions share a connection without waiting for each other."""

        async def crowd() -> list[Any]:
            async with ssh(server) as connection:
                commands = (connection.run(f"cat; echo {number}", input="x" * 300_000) for number in range(8))
                return [result.stdout for result in await asyncio.gather(*commands)]

        assert asyncio.run(crowd()) == ["x" * 300_000 + f"{number}\n" for number in range(8)]


class TestLifetimes:
    """What ends with what."""

    def test_daemon_does_not_hold_the_channel(self, server: EmbeddedServer, witness: Witness) -> None:
        """A process in the background that closed its output lets the command end, and lives on."""
        result = run(server, f"({witness.script}) >/dev/null 2>&1 </dev/null & echo started")

        assert result.stdout == "started\n"
        assert witness.answers()

    def test_background_output_holds_the_channel(self, server: EmbeddedServer, witness: Witness) -> None:
        """Like sshd, the session stays open for a background process that can still write to it."""

        async def watch() -> Any:
            async with ssh(server) as connection:
                process = await connection.create_process(f"({witness.script} && echo late) & echo early")
                early = await process.stdout.readline()
                assert witness.answers()
                return early + await asyncio.wait_for(process.stdout.read(), PATIENCE)

        assert asyncio.run(watch()) == "early\nlate\n"

    def test_daemon_outlives_the_server_process(self, tmp_path: Path) -> None:
        """A daemon is no child of the server: it is there after the program that ran the server has ended."""
        witness = Witness(tmp_path)
        program = textwrap.dedent("""
            import asyncio, asyncssh, sys
            from fabdjango.testing import EmbeddedServer

            async def start_daemon(server):
                async with asyncssh.connect(server.address, server.port, username=server.user, config=None,
                    client_keys=[str(server.client_key_path)], known_hosts=str(server.known_hosts_path)) as connection:
                    await connection.run(sys.argv[2])

            with EmbeddedServer(sys.argv[1]) as server:
                asyncio.run(start_daemon(server))
            """)
        daemon = f"setsid sh -c '{witness.script}' >/dev/null 2>&1 </dev/null &"

        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", program, str(tmp_path), daemon],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert witness.answers()
        witness.close()

    @pytest.mark.parametrize("leave", ["abort", "close"])
    def test_command_outlives_its_client(self, server: EmbeddedServer, witness: Witness, leave: str) -> None:
        """Without a terminal, a client that goes away, politely or not, leaves its command running."""

        async def start_and_leave() -> None:
            connection = await ssh(server)
            process = await connection.create_process(f"echo started; {witness.script}")
            await process.stdout.readline()
            getattr(connection, leave)()
            await connection.wait_closed()

        asyncio.run(start_and_leave())

        assert witness.answers()

    def test_command_outlives_the_server(self, server: EmbeddedServer, witness: Witness) -> None:
        """Stopping the server cuts the connection; the command does not notice."""

        async def start_and_stop() -> None:
            connection = await ssh(server)
            process = await connection.create_process(f"echo started; {witness.script}")
            await process.stdout.readline()
            server.stop()
            await asyncio.wait_for(connection.wait_closed(), PATIENCE)

        asyncio.run(start_and_stop())

        assert witness.answers()

    @pytest.mark.parametrize("cut", ["client", "server"])
    def test_terminal_hangs_up(self, server: EmbeddedServer, witness: Witness, cut: str) -> None:
        """With a terminal, whichever side goes away, the command gets SIGHUP."""

        async def start_and_cut() -> None:
            connection = await ssh(server)
            command = until("SIGHUP", "open('answer', 'w').write('hung up\\n')")
            process = await connection.create_process(command, term_type="xterm")
            await process.stdout.readline()
            if cut == "client":
                connection.abort()
            else:
                server.stop()
            await connection.wait_closed()

        asyncio.run(start_and_cut())

        assert witness.hears(b"hung up\n")

    def test_closed_channel_is_let_go(self, server: EmbeddedServer, witness: Witness) -> None:
        """A client that closes one channel keeps its connection, and the command runs on."""

        async def close_one() -> Any:
            async with ssh(server) as connection:
                process = await connection.create_process(f"echo started; {witness.script}")
                await process.stdout.readline()
                process.close()
                await process.wait_closed()
                return (await connection.run("echo next")).stdout

        assert asyncio.run(close_one()) == "next\n"
        assert witness.answers()


class TestTerminals:
    """Requests for a pty."""

    def test_streams_are_a_terminal(self, connection: fabric.Connection) -> None:
        """Fabric's pty=True gives a real terminal, of which the command is in control."""
        result = connection.run(
            "test -t 0 && test -t 1 && test -t 2 && : </dev/tty && tty", pty=True, hide=True, in_stream=False
        )

        assert result.stdout.startswith("/dev/")

    def test_streams_are_none_without_a_request(self, server: EmbeddedServer) -> None:
        """Without a request there is no terminal, not even through /dev/tty."""
        assert run(server, "test -t 0 || test -t 1 || test -t 2 || (: </dev/tty) 2>&-").exit_status != 0

    def test_kind_and_size(self, server: EmbeddedServer) -> None:
        """TERM and the window size are the client's."""
        assert (
            run(server, 'echo "$TERM"; stty size', term_type="xterm-256color", term_size=(132, 43)).stdout
            == "xterm-256color\r\n43 132\r\n"
        )

    def test_size_changes(self, server: EmbeddedServer) -> None:
        """A program in the terminal is told when the window changes, and reads its new size."""

        async def resize() -> Any:
            async with ssh(server) as connection:
                command = until("SIGWINCH", "print(*os.get_terminal_size())")
                process = await connection.create_process(command, term_type="xterm", term_size=(80, 24))
                await process.stdout.readline()
                process.change_terminal_size(100, 30)
                return await asyncio.wait_for(process.stdout.readline(), PATIENCE)

        assert asyncio.run(resize()) == "100 30\r\n"

    def test_interrupt_key(self, server: EmbeddedServer) -> None:
        """Ctrl-C is the terminal's to turn into a signal."""

        async def interrupt() -> Any:
            async with ssh(server) as connection:
                process = await connection.create_process("echo ready; exec sleep 300", term_type="xterm")
                await process.stdout.readline()
                process.stdin.write("\x03")
                return await asyncio.wait_for(process.wait(), PATIENCE)

        result = asyncio.run(interrupt())

        assert result.exit_signal[0] == "INT"

    def test_python_prompt(self, server: EmbeddedServer) -> None:
        """An interactive Python, as behind `manage.py shell`, prompts, answers and ends at Ctrl-D."""

        async def converse() -> tuple[str, int | None]:
            async with ssh(server) as connection:
                process = await connection.create_process(f"TERM=dumb exec '{sys.executable}' -q -i", term_type="dumb")
                await asyncio.wait_for(process.stdout.readuntil(">>> "), PATIENCE)
                process.stdin.write("6 * 7\n")
                answer = await asyncio.wait_for(process.stdout.readuntil(">>> "), PATIENCE)
                process.stdin.write("\x04")
                result = await asyncio.wait_for(process.wait(), PATIENCE)
                return str(answer), result.exit_status

        answer, status = asyncio.run(converse())

        assert "42\r\n" in answer
        assert status == 0

    def test_output_before_the_end_is_kept(self, server: EmbeddedServer) -> None:
        """What a program wrote just before it ended arrives in full, then its exit code."""
        result = run(server, "head -c 300000 /dev/zero | tr '\\0' x; exit 9", term_type="xterm")

        assert (len(str(result.stdout)), result.exit_status) == (300_000, 9)

    def test_ends_although_a_daemon_kept_the_terminal(self, server: EmbeddedServer, witness: Witness) -> None:
        """A session with a terminal ends with its shell, whoever else has the terminal open."""
        os.mkfifo(server.home / "up")
        daemon = f"setsid sh -c 'echo >up; {witness.script}' & read line <up; exit 6"

        assert run(server, daemon, term_type="xterm").exit_status == 6
        assert witness.answers()


class TestFiles:
    """The SFTP subsystem."""

    def test_put_and_get_from_home(self, server: EmbeddedServer, connection: fabric.Connection, tmp_path: Path) -> None:
        """Fabric's put and get start in the home, as the commands do."""
        (tmp_path / "here.txt").write_text("Grüße\n", encoding="utf-8")

        connection.put(str(tmp_path / "here.txt"), "there.txt")
        connection.get("there.txt", str(tmp_path / "back.txt"))

        assert (server.home / "there.txt").read_text(encoding="utf-8") == "Grüße\n"
        assert (tmp_path / "back.txt").read_text(encoding="utf-8") == "Grüße\n"

    def test_whole_file_system(self, connection: fabric.Connection, tmp_path: Path) -> None:
        """There is no chroot: absolute paths are what they are, and `.` is the home."""
        sftp = connection.sftp()
        with sftp.open(str(tmp_path / "absolute"), "w") as file:
            file.write("x")

        assert (tmp_path / "absolute").read_text() == "x"
        assert sftp.normalize(".") == str((tmp_path / "ada's home").resolve())

    def test_links_and_modes(self, server: EmbeddedServer, connection: fabric.Connection) -> None:
        """A relative link stays relative, a mode is kept, and POSIX rename replaces."""
        sftp = connection.sftp()
        sftp.mkdir("releases")
        with sftp.open("new", "w") as file:
            file.chmod(0o600)
        sftp.symlink("releases/1", "current")
        sftp.open("old", "w").close()
        sftp.posix_rename("new", "old")

        assert str((server.home / "current").readlink()) == "releases/1"
        assert stat.S_IMODE((server.home / "old").stat().st_mode) == 0o600


class TestLogins:
    """Who is let in, and how the client knows the server."""

    def test_other_key_is_refused(self, server: EmbeddedServer) -> None:
        """Only the client key made for this server opens it."""
        with pytest.raises(asyncssh.PermissionDenied):
            asyncio.run(_login(server, client_keys=[asyncssh.generate_private_key("ssh-ed25519")]))

    def test_other_user_is_refused(self, server: EmbeddedServer) -> None:
        """The right key does not help another user."""
        with pytest.raises(asyncssh.PermissionDenied):
            asyncio.run(_login(server, username=f"not-{server.user}"))

    @pytest.mark.parametrize("password", ["", "secret"])
    def test_password_is_refused(self, server: EmbeddedServer, password: str) -> None:
        """There are no passwords."""
        with pytest.raises(asyncssh.PermissionDenied):
            asyncio.run(_login(server, client_keys=None, password=password))

    def test_refused_through_fabric(self, server: EmbeddedServer, tmp_path: Path) -> None:
        """Paramiko sees a refusal as the authentication error that sshd would cause."""
        other = tmp_path / "other"
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(other)
        connection = fabric.Connection(
            server.address,
            user=server.user,
            port=server.port,
            connect_kwargs={"key_filename": str(other), "look_for_keys": False, "allow_agent": False},
        )

        with pytest.raises(paramiko.AuthenticationException):
            connection.open()

    def test_host_key_is_the_known_one(self, server: EmbeddedServer, tmp_path: Path) -> None:
        """A client that knows another key for this address and port turns away."""
        stranger = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        wrong = tmp_path / "known_hosts"
        wrong.write_text(f"[{server.address}]:{server.port} {stranger}")

        with pytest.raises(asyncssh.HostKeyNotVerifiable):
            asyncio.run(_login(server, known_hosts=str(wrong)))

    def test_files_for_openssh(self, server: EmbeddedServer) -> None:
        """The private key is readable for its owner alone, and known_hosts is a line that OpenSSH understands."""
        assert stat.S_IMODE(server.client_key_path.stat().st_mode) == 0o600
        assert server.known_hosts_path.read_text().startswith(f"[127.0.0.1]:{server.port} ssh-ed25519 AAAA")

    def test_unknown_subsystem_is_refused(self, server: EmbeddedServer) -> None:
        """No subsystem but SFTP is served, least of all with a shell."""

        async def ask() -> Any:
            async with ssh(server) as connection:
                return (await connection.run(subsystem="netconf")).exit_status

        assert asyncio.run(ask()) == 1
        assert server.sessions == []


class TestCounters:
    """What a client cost."""

    def test_connections_and_sessions(self, server: EmbeddedServer, connection: fabric.Connection) -> None:
        """Two commands and one transfer of one Fabric connection are one login and three sessions."""
        connection.run("echo 'one  two'", hide=True, in_stream=False)
        connection.sftp().listdir(".")
        connection.run("true", hide=True, in_stream=False)

        assert server.connections == 1
        assert server.sessions == ["echo 'one  two'", SFTP_SESSION, "true"]

    def test_refused_logins_count(self, server: EmbeddedServer) -> None:
        """A connection is one even if it is turned away; a session it is not."""
        with pytest.raises(asyncssh.PermissionDenied):
            asyncio.run(_login(server, username="nobody"))

        assert (server.connections, server.sessions) == (1, [])


class TestServer:
    """Starting and stopping."""

    def test_stops_without_a_trace(self, tmp_path: Path) -> None:
        """After stop, the port is closed, the thread has ended and the keys are gone; a second stop does nothing."""
        threads = set(threading.enumerate())
        server = EmbeddedServer(tmp_path).start()
        run(server, "true")

        server.stop()
        server.stop()

        assert set(threading.enumerate()) <= threads
        assert not server.client_key_path.exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.address, server.port))

    def test_starts_again_as_itself(self, tmp_path: Path) -> None:
        """With a directory for its keys, a server comes back at the same port with the same identity."""
        server = EmbeddedServer(tmp_path / "home", keys=tmp_path / "keys")
        with server:
            run(server, "true")
            known, key, port = server.known_hosts_path.read_text(), server.client_key_path.read_text(), server.port
        with server:
            assert (server.known_hosts_path.read_text(), server.client_key_path.read_text(), server.port) == (
                known,
                key,
                port,
            )
            assert run(server, "echo back").stdout == "back\n"
        assert server.connections == 2

    def test_starting_twice_is_an_error(self, server: EmbeddedServer) -> None:
        """A running server says so, with its port."""
        with pytest.raises(RuntimeError, match=f"runs already, on port {server.port}"):
            server.start()

    def test_port_in_use(self, server: EmbeddedServer, tmp_path: Path) -> None:
        """A port that is taken is an OSError in the caller's thread, and leaves nothing to stop."""
        second = EmbeddedServer(tmp_path, port=server.port)

        with pytest.raises(OSError, match="in use"):
            second.start()

        second.stop()

    def test_without_asyncssh(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the optional dependency, the error is the command that installs it."""
        monkeypatch.setitem(sys.modules, "asyncssh", None)

        with pytest.raises(ImportError, match=r"pip install 'fabdjango\[demo\]'"):
            EmbeddedServer(tmp_path).start()

    def test_import_does_not_load_asyncssh(self) -> None:
        """Importing the module is free of its optional dependency."""
        check = "import sys, fabdjango.testing; sys.exit('asyncssh' in sys.modules)"

        assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0

    def test_forgotten_server_lets_the_program_end(self, tmp_path: Path) -> None:
        """A program that never stops its server ends all the same, in silence."""
        program = "import sys, fabdjango.testing as t; t.EmbeddedServer(sys.argv[1]).start()"

        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("terminal", [None, "xterm"])
    @pytest.mark.parametrize("command", ["cat", "cat; :", "sleep 0.5", "head -c 9000000 /dev/zero; cat"])
    def test_no_warnings(self, tmp_path: Path, terminal: str | None, command: str) -> None:
        """A server that is stopped with a session open leaves no pending task and no unclosed pipe."""

        async def leave_open(server: EmbeddedServer) -> None:
            connection = await ssh(server)
            process = await connection.create_process(f"echo ready; {command}", term_type=terminal)
            await process.stdout.readline()
            process.stdin.write("x" * 500_000)  # more than a pipe holds
            server.stop()
            await connection.wait_closed()

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with EmbeddedServer(tmp_path) as server:
                asyncio.run(leave_open(server))
            gc.collect()

        assert [str(warning.message) for warning in caught] == []

    def test_latency(self, tmp_path: Path) -> None:
        """A command on an open connection takes at least two round trips, and large data keep their order."""
        data = os.urandom(1_000_000)

        async def measure(server: EmbeddedServer) -> tuple[float, object]:
            async with ssh(server) as connection:
                begin = time.monotonic()
                await connection.run("true")
                took = time.monotonic() - begin
                return took, (await connection.run("cat", input=data, encoding=None)).stdout

        with EmbeddedServer(tmp_path, latency=0.02) as server:
            took, echoed = asyncio.run(measure(server))

        assert took >= 2 * 2 * 0.02
        assert echoed == data

    def test_gateway(self, server: EmbeddedServer, connection: fabric.Connection, tmp_path: Path) -> None:
        """One server can be the gateway to another, as with ProxyJump."""
        with (
            EmbeddedServer(tmp_path / "behind") as behind,
            fabric.Connection(
                behind.address,
                user=behind.user,
                port=behind.port,
                gateway=connection,
                connect_kwargs={
                    "key_filename": str(behind.client_key_path),
                    "look_for_keys": False,
                    "allow_agent": False,
                },
            ) as inner,
        ):
            assert inner.run("pwd", hide=True, in_stream=False).stdout == f"{behind.home}\n"
        assert (server.connections, server.sessions) == (1, [])


def _digest(data: str | bytes | None) -> str:
    assert isinstance(data, bytes)
    return hashlib.sha256(data).hexdigest()


def _exec(connection: fabric.Connection, command: str, data: bytes) -> tuple[int, bytes, bytes]:
    """Run a command through Fabric's Paramiko client with bytes on stdin; return exit code, stdout, stderr."""
    connection.open()
    assert connection.client is not None
    stdin, stdout, stderr = connection.client.exec_command(command, timeout=PATIENCE)
    stdin.write(data)
    stdin.channel.shutdown_write()
    return stdout.channel.recv_exit_status(), stdout.read(), stderr.read()


async def _login(server: EmbeddedServer, **options: Any) -> None:
    async with ssh(server, **options) as connection:
        await connection.run("true")
