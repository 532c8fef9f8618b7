"""One operator, one server, one repository: where a whole deployment is played, and how its end is looked at."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabdjango.testing import EmbeddedServer
from tests.local.sample import Repository

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Answer", "Run", "Stage", "Tools", "Traffic", "Watch", "free_port", "listing", "processes_below", "until"]

MACHINE = ("PIP_", "UV_", "SSL_", "REQUESTS_CA_BUNDLE")
"""Variables that tell how packages are had on this machine; the server gets them, and none is named in a test."""
PATIENCE = 300  # seconds until a command counts as hanging; never what a passing test takes
SOON = 60  # seconds until something that is about to be so counts as never coming


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Tools:
    """What every server of a test session shares: a folder of programs, and uv's cache."""

    programs: Path
    cache: Path


@dataclass(frozen=True)
class Answer:
    """What the site said to one request."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def page(self) -> dict[str, Any]:
        """The body as the sample project's front page."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Run:
    """One run of fab: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything, as it stands on a terminal."""
        return self.out + self.err

    @property
    def last(self) -> str:
        """The last line of standard output."""
        return (self.out.strip().splitlines() or [""])[-1]


class Stage:
    """
    A server with a home of its own, a repository, and a folder with fabfile and fabric.yaml.

    ``root`` is the site's folder in the home directory. Paths are short: the
    kernel takes 107 bytes for the name of a socket.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        root: str = "shop",
        environ: Mapping[str, str] | None = None,
        **server: Any,
    ) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="fd", dir="/tmp"))
        self.base.chmod(0o755)
        self.home = self.base / "h"
        self.root = self.home / root
        self.operator = self.base / "op"
        self.operator.mkdir()
        self.repository = Repository(self.base / "ada's repo")
        self.port = free_port()
        self.outputs: list[str] = []
        passed_on = {name: value for name, value in os.environ.items() if name.startswith(MACHINE)}
        self.server = EmbeddedServer(
            self.home,
            environ={
                **passed_on,
                "PATH": f"{tools.programs}:/usr/local/bin:/usr/bin:/bin",
                "UV_CACHE_DIR": str(tools.cache),
                **(environ or {}),
            },
            **server,
        ).start()
        (self.operator / "fabfile.py").write_text("from fabdjango import ns\n", encoding="utf-8")
        self.settings: dict[str, Any] = {
            "project": "shop",
            "repository": str(self.repository.path),
            "root": f"~/{root}",
            "user": self.server.user,
            "gunicorn": {"bind": f"127.0.0.1:{self.port}", "workers": 1, "graceful_timeout": 5},
            "supervisor": {"level": "user"},
            "shared": ["data/"],
            "health": {"timeout": 20},
            "ssh": {"known_hosts": str(self.server.known_hosts_path)},
        }

    # --- the operator ---------------------------------------------------------

    def configure(self, **settings: Any) -> None:
        """Change settings, a mapping key by key, and write fabric.yaml; None takes a setting away."""
        for key, value in settings.items():
            if value is None:
                self.settings.pop(key, None)
            elif isinstance(value, dict) and isinstance(self.settings.get(key), dict):
                self.settings[key] = {**self.settings[key], **value}
            else:
                self.settings[key] = value
        # JSON is YAML.
        self.write("fabric.yaml", json.dumps({"fabdjango": self.settings}, indent=2))

    def write(self, name: str, text: str) -> Path:
        """A file of the operator's."""
        place = self.operator / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        return place

    def command(self, *words: str, host: bool = True) -> list[str]:
        """The words of a run of fab."""
        at = ["-H", f"{self.server.user}@{self.server.address}:{self.server.port}"] if host else []
        return [sys.executable, "-m", "fabric", "-i", str(self.server.client_key_path), *at, *words]

    def environ(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The operator's environment: nothing of this machine's but where programs are."""
        return {"HOME": str(self.operator), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(more or {})}

    def fab(
        self,
        *words: str,
        code: int = 0,
        environ: Mapping[str, str] | None = None,
        host: bool = True,
        typed: str = "",
    ) -> Run:
        """Run fab, with ``typed`` on its standard input, hold it to an exit code, and keep its output for a search for secrets."""
        if not (self.operator / "fabric.yaml").exists():
            self.configure()
        done = subprocess.run(
            self.command(*words, host=host),
            cwd=self.operator,
            env=self.environ(environ),
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        run = Run(done.returncode, done.stdout, done.stderr)
        self.outputs.append(run.text)
        assert run.code == code, f"exit code {run.code}, not {code}, of fab {' '.join(words)}:\n{run.text}"
        assert not run.err.startswith("Traceback (most recent call last)"), run.err
        return run

    def begin(self, *words: str, pause: str = "") -> subprocess.Popen[str]:
        """Start fab and do not wait for its end; both of its outputs are pipes. The host pauses at ``pause``, such as before:check."""
        if not (self.operator / "fabric.yaml").exists():
            self.configure()
        return subprocess.Popen(
            self.command(*words),
            cwd=self.operator,
            env=self.environ({"FABDJANGO_TEST_PAUSE": pause} if pause else None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextlib.contextmanager
    def paused(self, *words: str, at: str) -> Iterator[subprocess.Popen[str]]:
        """A run of fab that the host has brought to its pause; it goes on, and the deployer is gone, when this is over."""
        pause = self.root / "run/paused"
        pause.unlink(missing_ok=True)
        with self.begin(*words, pause=at) as process:
            try:
                until(lambda: pause.exists() or process.poll() is not None)
                assert pause.exists(), "".join(process.communicate())
                yield process
            finally:
                pause.unlink(missing_ok=True)
                process.kill()

    def deploy(self, *words: str, code: int = 0, environ: Mapping[str, str] | None = None) -> Run:
        """Run fab deploy; with code 0, the last line names the release that serves now."""
        run = self.fab("deploy", *words, code=code, environ=environ)
        if code == 0 and not run.last.startswith("unchanged: "):
            assert run.last == f"deployed: {self.current} serves on {self.server.address}", run.text
        return run

    # --- the server -----------------------------------------------------------

    @property
    def current(self) -> str:
        """The id of the release that serves; empty if there is none."""
        link = self.root / "current"
        return link.readlink().name if link.is_symlink() else ""

    @property
    def release(self) -> Path:
        """The directory of the release that serves."""
        return self.root / "releases" / self.current

    @property
    def private(self) -> Path:
        """What fabdjango keeps in it."""
        return self.release / ".fabdjango"

    @property
    def venv(self) -> Path:
        """The virtualenv of the release that serves."""
        return Path((self.private / "venv").read_text(encoding="utf-8").strip())

    @property
    def packages(self) -> dict[str, str]:
        """What is installed in the one virtualenv that there is: name in lower case to version."""
        (venv,) = (self.root / "venvs").iterdir()
        found = venv.glob("lib/python*/site-packages/*.dist-info")
        words = [path.name.removesuffix(".dist-info").split("-") for path in found]
        return {name.lower(): version for name, version in words}

    @property
    def journal(self) -> list[dict[str, Any]]:
        """The entries of the journal."""
        lines = (self.root / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def get(self, path: str = "/", *, host: str = "localhost", port: int = 0, **headers: str) -> Answer:
        """Ask the site."""
        link = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=10)
        try:
            link.request("GET", path, headers={"Host": host, **{k.replace("_", "-"): v for k, v in headers.items()}})
            answer = link.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            link.close()

    def listens(self) -> bool:
        """True if somebody takes connections at the site's address."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self) -> None:
        """End whatever the server started, by the pid files and by where processes work, and remove everything."""
        pids = [int(file.read_text(encoding="ascii")) for file in self.home.rglob("supervisord.pid")]
        # The daemon first, or it starts the others again.
        while pids:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
            pids = list(processes_below(self.base))
        self.server.stop()
        # Thousands of files; rm is several times as fast as shutil.
        subprocess.run(["rm", "-rf", "--", self.base], check=False)


# --- looking ------------------------------------------------------------------


def until(condition: Callable[[], object]) -> None:
    """Wait for something that is about to be so."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


class Traffic:
    """Visitors who ask the site again and again, each time over a connection of its own, until closed."""

    def __init__(self, stage: Stage, visitors: int = 2) -> None:
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()
        """Answers by the release that gave them, in the order of the first."""
        self._stage = stage
        self._others = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(visitors)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        until(lambda: self.answers or self.failures)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def saw(self, release: str) -> None:
        """Wait until ``release`` answers visitors and nobody else does; nothing may have failed before."""
        # The whole of one round for each visitor, so that no answer from before is on its way.
        for _ in range(2):
            enough = self.answers[release] + 5 * len(self._threads)
            until(lambda enough=enough: self.answers[release] >= enough or self.failures)  # type: ignore[misc]
            others, self._others = self._others, self.answers.total() - self.answers[release]
        assert self.failures == []
        assert self._others == others, f"answers come from others than {release}: {self.answers}"

    def _ask(self) -> None:
        while not self._over.wait(0.02):
            failure = self._ask_once()
            if failure:
                self.failures.append(failure)

    def _ask_once(self) -> str:
        try:
            answer = self._stage.get(Connection="close")
            if answer.status != 200:
                return f"{answer.status} {answer.body[:200]}"
            self.answers[answer.page["release"]] += 1
        except (OSError, http.client.HTTPException, ValueError) as error:
            return repr(error)
        return ""


def processes_below(folder: Path) -> dict[int, str]:
    """The processes that work in ``folder`` or have it in their command line: pid to command line."""
    found = {}
    for place in Path("/proc").iterdir():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line or (place / "cwd").readlink().is_relative_to(folder):
                found[int(place.name)] = line
    return found


LOGS = (
    "shared/log",
    "supervisor/supervisord.log",
    "run/lock",
    "run/steps.lock",
    "run/activations",
    "repo.git/FETCH_HEAD",
)
GIT_SCRATCH = "repo.git/objects"
"""Where git makes a temporary and removes it, each time it fetches."""


def listing(root: Path, *, but: tuple[str, ...] = (), times: bool = True) -> dict[str, tuple[object, ...]]:
    """
    Everything below ``root``: path to kind, mode, content and time of change.

    Locks, logs, records of activations and git's note of its last fetch are left out, and so is what begins with one of ``but``.
    Of files in virtualenvs, the size stands for the content. Without ``times``,
    two listings are equal if everything reads the same.
    """
    found: dict[str, tuple[object, ...]] = {}
    if not root.exists():
        return found
    for path in sorted([root, *root.rglob("*")]):
        name = str(path.relative_to(root))
        if name.startswith((*LOGS, *but)):
            continue
        status = path.lstat()
        content: object = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file() and name.startswith("venvs/"):
            content = status.st_size
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = (oct(status.st_mode), content, status.st_mtime_ns if times and name != GIT_SCRATCH else 0)
    return found


class Watch:
    """Looks for a word in the command line of every process of this machine, again and again, until closed."""

    def __init__(self, word: str) -> None:
        self.word = word.encode()
        self.found: set[str] = set()
        self.looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            for line in _command_lines():
                if self.word in line:
                    self.found.add(line.decode(errors="replace"))
            self.looks += 1
            time.sleep(0.02)


def _command_lines() -> Iterator[bytes]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of times
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:  # noqa: PTH123
                yield file.read()
