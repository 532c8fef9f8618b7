"""
A deploy to this machine, over SSH, without root, without sshd and without a configuration.

Everything lies in one folder of the user's own, which the embedded SSH server has as its home:

    project/     the sample project with a fabfile.py and a fabric.yaml, a git repository
    site/        what a deploy makes on a server
    keys/        the server's key, the operator's key, and known_hosts
    secret       the sample project's SECRET_KEY, made for this demo
    demo.json    what has to be the same the next time

Every process that the server starts has MARK in its environment, and so have their children: by it they are found again.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from demo import commits
from fabdjango.exceptions import FabdjangoError
from fabdjango.testing import EmbeddedServer

__all__ = ["DemoError", "down", "places", "up"]

MARK = "FABDJANGO_DEMO"
FIRST_PORT = 8000
LAST_PORT = 8099
SOCKET = "site/supervisor/supervisor.sock.1234567"  # the longest name of a socket below the demo's folder
SOCKET_LIMIT = 107  # bytes, the kernel's
INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended

# What makes package installs work for the operator makes them work on the demo's server.
HANDED_ON = ("PIP_", "UV_", "SSL_CERT_")
HANDED_ON_NAMES = frozenset(
    {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    | {name for each in ("http", "https", "ftp", "all", "no") for name in (f"{each}_proxy", f"{each}_PROXY".upper())}
)

FABRIC_YAML = """\
# Written by the demo. A project keeps such a file beside its manage.py, with its own values.
fabdjango:
  project: blog
  repository: {repository}
  root: ~/site
{user}\
  python: {python}
  local_settings: deploy/local_settings.py.j2   # takes BLOG_SECRET_KEY from the operator's environment
  shared: [data/, media/]
  gunicorn:
    bind: 127.0.0.1:{port}
    workers: 2
    graceful_timeout: 5
  supervisor:
    level: virtualenv
  first_deploy:
    - python manage.py loaddata initial_posts
  health:
    static: pages/site.css
  ssh:
    known_hosts: {known_hosts}
"""


class DemoError(FabdjangoError):
    """The demo cannot go on; the message and the cure say why and what to do."""

    state = ""


@dataclass
class Demo:
    """
    One user's demo, in the folder ``place``.

    ``deployed`` is the number of the last commit that a deploy brought to the
    end; the ports are those of the last time, 0 before the first.
    """

    place: Path
    deployed: int = 0
    ssh_port: int = 0
    site_port: int = 0

    @property
    def project(self) -> Path:
        """The git repository, and the folder that fab runs in."""
        return self.place / "project"

    @property
    def keys(self) -> Path:
        """The keys of both sides."""
        return self.place / "keys"

    @property
    def url(self) -> str:
        """Where the site answers."""
        return f"http://127.0.0.1:{self.site_port}/"

    def save(self) -> None:
        """Write down what has to be the same the next time."""
        new = self.place / "demo.json.new"
        new.write_text(json.dumps({key: value for key, value in asdict(self).items() if key != "place"}))
        new.replace(self.place / "demo.json")


def _load(place: Path) -> Demo:
    try:
        return Demo(place, **json.loads((place / "demo.json").read_text()))
    except (OSError, ValueError, TypeError):
        # The first time, or the rest of a demo that was killed: what it deployed is deployed again.
        return Demo(place)


# --- up and down -------------------------------------------------------------


def up(*, stay: bool = False) -> None:
    """
    Commit the next edition of the sample project and deploy it.

    With ``stay`` the SSH server stays up afterwards until Ctrl-C. Raises
    DemoError; its exit code is fab's if the deploy failed.
    """
    _require()
    place = _make_place()
    with _locked(place):
        demo = _load(place)
        supervisord = _supervisord(place)
        if supervisord:
            _let_finish(place, supervisord)
        _end(place, keep=supervisord)
        if not (supervisord and demo.site_port):
            demo.site_port = _free_port(demo.site_port)
        try:
            with _server(demo) as server:
                number = _commit(demo, server)
                _deploy(demo, server)
                demo.deployed = number
                demo.save()
                _tell(demo)
                if stay:
                    _stay(demo, server)
        except KeyboardInterrupt:
            raise _interrupted() from None


def down() -> None:
    """End every process of the demo and remove its folder; a second time there is nothing to do."""
    found = [place for place in places() if place.is_dir() and not place.is_symlink()]
    for place in found:
        _refuse_foreign(place)
        with _locked(place):
            _end(place, keep=0)
            shutil.rmtree(place)
        _remove_empty(place)
        say(f"demo: stopped, and {place} is removed")
    if not found:
        say("demo: there is none, nothing to do")


def _remove_empty(place: Path) -> None:
    """Take away the folders above that were made for the demo, as far as nothing else is in them."""
    ours = [place.parent] if place.parent.name == "fabdjango" else []
    if place.is_relative_to(Path.home()) and not os.environ.get("XDG_STATE_HOME"):
        ours += [place.parents[1], place.parents[2]]
    with contextlib.suppress(OSError):
        for folder in ours:
            folder.rmdir()


def say(text: str) -> None:
    """Print a line of the demo's own, in front of whatever fab prints next."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _tell(demo: Demo) -> None:
    inv = _inv()
    say(f"\nThe site serves: {demo.url}\n")
    say(f"  {inv} demo           deploys the next commit; the page changes its edition and its colour")
    say(f"  {inv} demo --stay    does the same and keeps the SSH server up, for fab commands of your own")
    say(f"  {inv} demo-down      stops everything and leaves no file")


def _stay(demo: Demo, server: EmbeddedServer) -> None:
    fab = shlex.join(_fab(server))
    say(f"\nThe SSH server stays up until Ctrl-C. In another terminal:\n\n  cd {shlex.quote(str(demo.project))}")
    say('  export BLOG_SECRET_KEY="$(cat ../secret)"')
    for words in ("status", "git.log", 'django.manage "count_posts"', "supervisor.logs", "config"):
        say(f"  {fab} {words}")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    say(f"\nThe SSH server is gone; the site serves on: {demo.url}")


def _interrupted() -> DemoError:
    error = DemoError(
        "interrupted",
        state="what was not finished is cleared by the next deploy",
        cure=f"{_inv()} demo        deploys the same commit again\n{_inv()} demo-down   stops everything",
    )
    error.exit_code = INTERRUPTED
    return error


def _inv() -> str:
    """How the operator called us, so that a line can be copied."""
    called = Path(sys.argv[0])
    if called.name not in ("inv", "invoke"):
        return "inv"
    on_path = shutil.which(called.name)
    if on_path and Path(on_path).absolute() == called.absolute():
        return called.name
    return min(str(called), os.path.relpath(called), key=len)


# --- what it needs -----------------------------------------------------------


def _require() -> None:
    if not sys.platform.startswith("linux"):
        raise DemoError("the demo deploys to this machine, which has to be a Linux server", cure="try it on Debian 12")
    for module in ("asyncssh",):
        if importlib.util.find_spec(module) is None:
            raise DemoError(f"{module} is not installed", cure=f"{sys.executable} -m pip install -e '.[demo]'")
    if not shutil.which("git"):
        raise DemoError("git is not installed", cure="as root: apt-get install git")
    if not _fab_program().exists():
        raise DemoError(f"there is no {_fab_program()}", cure=f"{sys.executable} -m pip install -e '.[demo]'")


def _fab_program() -> Path:
    return Path(sys.executable).with_name("fab")


def _fab(server: EmbeddedServer) -> list[str]:
    return [
        str(_fab_program()),
        "-i",
        str(server.client_key_path),
        "-H",
        f"{server.user}@{server.address}:{server.port}",
    ]


# --- the folder --------------------------------------------------------------


def places() -> tuple[Path, ...]:
    """The folders that the demo may be in, best first: the user's state folder, and one in /tmp where that does not do."""
    state = os.environ.get("XDG_STATE_HOME", "")
    home = Path(state) if state.startswith("/") else Path(os.environ.get("HOME") or "/") / ".local" / "state"
    best = home / "fabdjango" / "demo"
    other = Path("/tmp") / f"fabdjango-demo-{os.getuid()}"  # noqa: S108 - made by us, with 0700, and checked to be ours
    fits = home.is_absolute() and len(os.fsencode(best / SOCKET)) <= SOCKET_LIMIT and not set(str(best)) & set(":,%*?[")
    return (best, other) if fits else (other,)


def _make_place() -> Path:
    candidates = places()
    found = next((place for place in candidates if place.is_dir()), None)
    for place in [found] if found else candidates:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        _refuse_foreign(place)
        place.chmod(0o700)
        return place
    tried = " and ".join(map(str, candidates))
    raise DemoError(
        f"no folder can be made for the demo: tried {tried}", cure="set XDG_STATE_HOME to a folder of yours"
    )


def _refuse_foreign(place: Path) -> None:
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise DemoError(f"{place} belongs to somebody else", cure="set XDG_STATE_HOME to a folder of yours")


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(
                "another demo of yours is running", cure="wait for it to end, or end it by Ctrl-C"
            ) from None
        yield
    finally:
        os.close(folder)


# --- its processes -----------------------------------------------------------


def _processes(place: Path) -> dict[int, int]:
    """Every living process that the demo's server started, directly or not: its pid and its parent's."""
    mark = f"{MARK}={place}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def _supervisord(place: Path) -> int:
    """The pid of the demo's supervisord, 0 if it does not run; a file with its pid alone is no proof."""
    try:
        pid = int((place / "site" / "supervisor" / "supervisord.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    return pid if b"supervisord" in words and pid in _processes(place) else 0


def _let_finish(place: Path, supervisord: int) -> None:
    """Wait for what an interrupted deploy is still switching: it ends by itself, one way or the other."""
    if _others(place, supervisord):
        say("demo: the interrupted deploy is still at it; waiting for it to end")
        _wait(place, supervisord, 90)


def _end(place: Path, *, keep: int) -> None:
    """End the demo's processes, at first in good order; ``keep`` is one that stays, with all below it."""
    for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        for pid in _others(place, keep):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        _wait(place, keep, patience)


def _others(place: Path, keep: int) -> list[int]:
    parents = _processes(place)
    return [pid for pid in parents if not _below(pid, keep, parents)]


def _wait(place: Path, keep: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _others(place, keep) and time.monotonic() < deadline:
        time.sleep(0.05)


def _below(pid: int, top: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != top:
        pid = parents[pid]
    return bool(top) and pid == top


# --- the server --------------------------------------------------------------


@contextlib.contextmanager
def _server(demo: Demo) -> Iterator[EmbeddedServer]:
    environ = _environ(demo.place)
    server = EmbeddedServer(demo.place, port=demo.ssh_port, keys=demo.keys, environ=environ)
    try:
        server.start()
    except OSError:
        server = EmbeddedServer(demo.place, keys=demo.keys, environ=environ).start()
    demo.ssh_port = server.port
    demo.save()
    say(f"demo: an SSH server for {server.user} listens on {server.address}:{server.port}; its home is {demo.place}")
    try:
        yield server
    finally:
        server.stop()


def _environ(place: Path) -> dict[str, str]:
    """What the server's sessions know of the operator's environment: how packages can be had, and no more."""
    handed_on = {
        name: value
        for name, value in os.environ.items()
        if value and (name.startswith(HANDED_ON) or name in HANDED_ON_NAMES)
    }
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    for name, files in (
        ("PIP_CONFIG_FILE", (config / "pip" / "pip.conf", Path("~/.pip/pip.conf").expanduser())),
        ("UV_CONFIG_FILE", (config / "uv" / "uv.toml",)),
    ):
        own = next((file for file in files if file.is_file()), None)
        if own and name not in handed_on:
            handed_on[name] = str(own)
    return {**handed_on, "PATH": _path(), MARK: str(place)}


def _path() -> str:
    """A server's PATH, and the folders of git and Python if they are elsewhere."""
    path = "/usr/local/bin:/usr/bin:/bin"
    for program in ("git", _python()):
        if not shutil.which(Path(program).name, path=path):
            found = shutil.which(program)
            path += f":{Path(found).parent}" if found else ""
    return path


def _python() -> str:
    """The Python that our own virtualenv was made with: it can make more of them."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _free_port(wanted: int) -> int:
    ports: list[int] = [wanted] if wanted else []
    for port in ports + list(range(FIRST_PORT, LAST_PORT + 1)):
        with contextlib.closing(socket.socket()) as trial, contextlib.suppress(OSError):
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", port))
            return port
    raise DemoError(f"the ports {FIRST_PORT} to {LAST_PORT} are all taken", cure="end a program that listens on one")


# --- the project -------------------------------------------------------------


def _commit(demo: Demo, server: EmbeddedServer) -> int:
    """Make the next commit, unless the last one was never deployed to the end; its number."""
    project = demo.project
    project.mkdir(exist_ok=True)
    if not (project / ".git").is_dir():
        _git(project, "init", "--quiet", "--initial-branch=main")
    _write_config(demo, server)
    made = _git(project, "rev-list", "--count", "--all")
    number = demo.deployed + 1
    if int(made) < number:
        message = commits.write_commit(number, project)
        _git(project, "add", "--all")
        _git(project, "commit", "--quiet", "--allow-empty", "--message", message)
    say(f"demo: commit {_git(project, 'log', '-1', '--format=%h %s')}\n")
    return max(int(made), number)


def _write_config(demo: Demo, server: EmbeddedServer) -> None:
    # JSON's strings are YAML's, whatever is in them.
    values = {
        "repository": json.dumps(str(demo.project)),
        "python": json.dumps(_python()),
        "user": "  user: root\n" if server.user == "root" else "",
        "known_hosts": json.dumps(str(server.known_hosts_path)),
        "port": demo.site_port,
    }
    (demo.project / "fabric.yaml").write_text(FABRIC_YAML.format(**values), encoding="utf-8")
    (demo.project / "fabfile.py").write_text("from fabdjango import ns\n", encoding="utf-8")


def _git(project: Path, *words: str) -> str:
    """Git without the operator's name, hooks, signatures and other settings, of which the demo needs none."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    isolated = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
    identity = ("-c", "user.name=The demo", "-c", "user.email=demo@localhost")
    done = subprocess.run(
        ["git", *identity, *words],
        cwd=project,
        env={**environ, **isolated},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise DemoError(
            f"git {words[0]} failed in {project}", output=done.stderr, cure=f"start anew: {_inv()} demo-down"
        )
    return done.stdout.strip()


def _secret(place: Path) -> str:
    file = place / "secret"
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(secrets.token_urlsafe(50))
    return file.read_text()


# --- the deploy --------------------------------------------------------------


def _deploy(demo: Demo, server: EmbeddedServer) -> None:
    words = [*_fab(server), "deploy"]
    say(f"$ cd {shlex.quote(str(demo.project))}\n$ {shlex.join(words)}\n")
    status = _run(words, demo)
    if status < 0:
        raise DemoError(f"fab was ended by {signal.Signals(-status).name}", cure=f"try again: {_inv()} demo")
    if status:
        error = DemoError(
            f"the deploy ended with exit code {status}; its own words stand above",
            cure=f"try the same commit again: {_inv()} demo\nstart anew:                {_inv()} demo-down",
        )
        error.exit_code = status
        raise error


def _run(words: list[str], demo: Demo) -> int:
    """Run fab with the operator's terminal as its output, and none of the operator's settings."""
    mine = ("FABRIC_", "INVOKE_", "SSH_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    # With another home, neither ~/.fabric.yaml nor ~/.ssh of the operator takes part.
    environ |= {"HOME": str(demo.place), "BLOG_SECRET_KEY": _secret(demo.place)}
    process = subprocess.Popen(words, cwd=demo.project, env=environ, stdin=subprocess.DEVNULL)
    try:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # It reached fab too, which may let the host finish what it is switching.
            status = process.wait()
            if status:
                raise
            return status
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
            process.kill()
