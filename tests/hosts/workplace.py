"""The operator's side of a deploy: a folder to run `fab` in, repositories that hosts can reach, projects to deploy."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from demo import commits
from tests import machines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.machines import Machine

__all__ = [
    "Daemon",
    "Outcome",
    "Repository",
    "Running",
    "Workplace",
    "answer",
    "copy_checkout",
    "hashed_requirements",
    "program_pid",
    "serve_git",
    "shop_project",
    "start_wagtail",
    "state_of",
    "wait_for",
]

FAB = Path(sys.executable).with_name("fab")
CHECKOUT = Path(__file__).parents[2]


@dataclass
class Outcome:
    """How a `fab` ended: exit code, standard output, standard error, seconds."""

    code: int
    output: str
    error: str
    seconds: float

    @property
    def last_line(self) -> str:
        """The last line of standard output."""
        return (self.output.splitlines() or [""])[-1]

    @property
    def complaint(self) -> str:
        """Standard error without the quoted output of the host's programs."""
        return re.sub(r"\n output:(\n   \| .*)+", "", self.error.rstrip())

    @property
    def quoted(self) -> str:
        """What standard error quotes of the host's programs."""
        return "\n".join(re.findall(r"^   \| (.*)$", self.error, re.MULTILINE))

    def ended(self, code: int = 0) -> Outcome:
        """The same, if the exit code is this one and there is no traceback; else a failure with all that was said."""
        if self.code != code or re.search(r"^Traceback", f"{self.output}\n{self.error}", re.MULTILINE):
            message = f"exit {self.code} after {self.seconds:.1f} s, not {code}\n{self.output}\n{self.error}"
            raise AssertionError(message)
        return self


@dataclass
class Running:
    """A `fab` that was started and goes on by itself; what it says is kept in two files of `folder`."""

    process: subprocess.Popen[bytes]
    folder: Path
    began: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float = 300) -> Outcome:
        """Wait until it has ended, by itself or by a signal (then the code is negative), and tell how."""
        code = self.process.wait(seconds)
        taken = time.monotonic() - self.began
        return Outcome(code, self._said("out"), self._said("error"), taken)

    def _said(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")


class Workplace:
    """
    An operator's folder: a fabfile of two lines, a fabric.yaml, and a home without keys of its own.

    `config` is what the next `fab` finds below `fabdjango:`, `environ` what the operator has exported.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.known_hosts = self.home / "hosts_we_know"
        self.known_hosts.touch()
        (folder / "fabfile.py").write_text('"""The tasks."""\nfrom fabdjango import ns\n')
        self.config: dict[str, object] = {}
        self.environ: dict[str, str] = {}

    def know(self, *machines: Machine) -> None:
        """Write the keys of hosts down, as a careful operator did after comparing them."""
        self.known_hosts.write_text("".join(machine.known_hosts.read_text() for machine in machines))

    def configure(self, **settings: object) -> None:
        """Say what fabric.yaml has below `fabdjango:`; known_hosts is ours unless said otherwise."""
        self.config = {"ssh": {"known_hosts": str(self.known_hosts)}, **settings}

    def fab(self, *words: str | Path, typed: str = "") -> Outcome:
        """Run stock `fab` to its end, with `typed` on its standard input, in an environment that has nothing of this machine's user."""
        began = time.monotonic()
        done = subprocess.run(
            [str(FAB), *map(str, words)],
            cwd=self.folder,
            env=self._environ(),
            input=typed,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def start(self, *words: str | Path, **environ: str) -> Running:
        """Start stock `fab` in the background, with more variables in its environment, and in a session of its own."""
        folder = Path(tempfile.mkdtemp(prefix="fab-", dir=self.home))
        with (folder / "out").open("wb") as out, (folder / "error").open("wb") as error:
            process = subprocess.Popen(
                [str(FAB), *map(str, words)],
                cwd=self.folder,
                env={**self._environ(), **environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                start_new_session=True,
            )
        return Running(process, folder)

    def _environ(self) -> dict[str, str]:
        """Write fabric.yaml, and give the environment of an operator who has nothing of this machine's user."""
        # JSON is YAML.
        (self.folder / "fabric.yaml").write_text(json.dumps({"fabdjango": self.config}, indent=1))
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ}
        return {**kept, "HOME": str(self.home), **self.environ}

    def deploy(self, machine: Machine, sha: str, login: str = "deploy", **settings: object) -> Outcome:
        """Deploy with the operator's key on the command line; `settings` are laid over the configuration once."""
        before = self.config
        self.config = {**before, **settings}
        try:
            return self.fab("-i", machine.key, "-H", f"{login}@{machine.address}", "deploy", f"--commit={sha}")
        finally:
            self.config = before


# --- repositories ------------------------------------------------------------


@dataclass
class Repository:
    """A working tree on the operator's side, and the bare repository that hosts fetch from."""

    name: str
    bare: Path
    url: str
    tree: Path = field(init=False)

    def __post_init__(self) -> None:
        """Make both, unless they are there."""
        self.tree = self.bare.with_suffix(".tree")
        _git("init", "--quiet", "--bare", "--initial-branch=main", self.bare)
        _git("init", "--quiet", "--initial-branch=main", self.tree)

    def commit(self, message: str) -> str:
        """Commit the tree as it is and push it; the full id of the commit."""
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        _git("-C", self.tree, "add", "--all", "--force")
        _git("-C", self.tree, *who, "commit", "--quiet", "--allow-empty", "-m", message)
        _git("-C", self.tree, "push", "--quiet", self.bare, "HEAD:main")
        return _git("-C", self.tree, "rev-parse", "HEAD").strip()

    def sample(self, number: int) -> str:
        """Commit `number` of the sample project."""
        return self.commit(commits.write_commit(number, self.tree))

    def write(self, path: str, text: str) -> None:
        """Write a file of the tree."""
        target = self.tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


@dataclass(frozen=True)
class Daemon:
    """A `git daemon` that runs, for the repositories in `folder`."""

    folder: Path
    url: str

    def repository(self, name: str) -> Repository:
        """Make a new repository that hosts can fetch from."""
        return Repository(name, self.folder / f"{name}.git", f"{self.url}/{name}.git")


@contextlib.contextmanager
def serve_git(folder: Path) -> Iterator[Daemon]:
    """Run `git daemon` where every host reaches it, on a free port, until the block ends; hosts may come and go meanwhile."""
    address = machines.GATEWAY
    process = None
    try:
        # The last host of another run, or of a test beside us, may be thrown away at this very moment.
        with machines.network():
            with socket.socket() as free:
                free.bind((address, 0))
                port = free.getsockname()[1]
            where = (f"--listen={address}", f"--port={port}", f"--base-path={folder}")
            # The program itself, not git: a signal to git would leave its child behind.
            program = Path(_git("--exec-path").strip(), "git-daemon")
            process = subprocess.Popen(
                [program, *where, "--export-all", "--reuseaddr", folder], stderr=subprocess.DEVNULL
            )
            wait_for(lambda: _listens(address, port), 10)
        yield Daemon(folder, f"git://{address}:{port}")
    finally:
        if process:
            process.terminate()
            process.wait(10)
        # The address goes too if nobody else needs it.
        machines.down([])


def _git(*words: str | Path) -> str:
    clean = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return _run("git", *words, environ={**environ, **clean})


def _run(*words: str | Path, environ: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program of this machine; its standard output."""
    done = subprocess.run(list(map(str, words)), env=environ, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{' '.join(map(str, words))}: exit status {done.returncode}\n{done.stderr}"
        raise AssertionError(message)
    return done.stdout


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


# --- projects ----------------------------------------------------------------


def start_wagtail(target: Path, packages: Path) -> None:
    """
    Let `wagtail start` make a project called mysite in `target`, as its tutorial does.

    `packages` is a folder for what the command needs on this side.
    """
    options = ("--quiet", "--no-deps", "--no-compile", "--target", packages)
    _run(sys.executable, "-m", "pip", "install", *options, "wagtail>=7", "Django", "asgiref", "sqlparse")
    environ = {**os.environ, "PYTHONPATH": str(packages)}
    _run(sys.executable, "-m", "wagtail.bin.wagtail", "start", "mysite", target, environ=environ, cwd=packages)


def hashed_requirements(folder: Path, *names: str) -> str:
    """
    The lines of a requirement file for Python 3.11 with the hash of each file, for these packages and no others.

    `folder` is an empty one: pip wants to be told a target where the Python is not its own.
    """
    words = ("--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-")
    python = ("--only-binary=:all:", "--python-version", "3.11", "--target", folder)
    report = json.loads(_run(sys.executable, "-m", "pip", "install", *words, *python, *names))
    lines = [
        f"{each['metadata']['name']}=={each['metadata']['version']} --hash={_hash_of(each)}"
        for each in report["install"]
    ]
    return "\n".join(lines) + "\n"


def _hash_of(found: dict[str, dict[str, dict[str, dict[str, str]]]]) -> str:
    kind, digest = next(iter(found["download_info"]["archive_info"]["hashes"].items()))
    return f"{kind}:{digest}"


def shop_project(repository: Repository, requirements: str, greeting: str) -> str:
    """A project whose manage.py is in a folder, and whose requirements are pinned by hash; the id of its commit."""
    repository.write("requirements.txt", requirements)
    repository.write("source/shop/__init__.py", "")
    module = '"DJANGO_SETTINGS_MODULE", "shop.settings"'
    run = "import sys\n    from django.core.management import execute_from_command_line as run\n    run(sys.argv)"
    repository.write(
        "source/manage.py", f'import os\n\nif __name__ == "__main__":\n    os.environ.setdefault({module})\n    {run}\n'
    )
    repository.write("source/shop/wsgi.py", f"import os\nfrom django.core.wsgi import get_wsgi_application\nos.environ.setdefault({module})\napplication = get_wsgi_application()\n")  # fmt: skip
    repository.write(
        "source/shop/settings.py",
        'import os\nSECRET_KEY = os.environ["SHOP_SECRET_KEY"]\nALLOWED_HOSTS = ["*"]\nROOT_URLCONF = "shop.urls"\nINSTALLED_APPS = []\nUSE_TZ = True\n',
    )
    view = f"HttpResponse({greeting!r})"
    repository.write(
        "source/shop/urls.py",
        f'from django.http import HttpResponse\nfrom django.urls import path\nurlpatterns = [path("", lambda request: {view})]\n',
    )
    return repository.commit(greeting)


# --- hosts as the world sees them --------------------------------------------


def answer(machine: Machine, port: int, path: str = "/", host: str = "") -> tuple[int, str]:
    """Ask a host over HTTP from outside: status and body; status 0 and the reason if nothing answers."""
    link = http.client.HTTPConnection(machine.address, port, timeout=10)
    try:
        link.request("GET", path, headers={"Host": host or machine.address})
        reply = link.getresponse()
        return reply.status, reply.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        link.close()


def wait_for(what: Callable[[], object], seconds: float) -> bool:
    """Ask the function `what` again and again for at most `seconds`; tells whether its answer became true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.1)
    return False


def state_of(machine: Machine, root: str) -> str:
    """What is in a site's folder, with the program file: the same text before and after means nothing was changed."""
    name = Path(root).name
    script = f"""
        cd {root} 2>/dev/null || {{ echo no folder; exit; }}
        echo current: $(readlink current)
        ls -1d releases/* venvs/* shared/* 2>/dev/null
        find . -name '*.new' -o -name '.current.*' -o -name '.fabdjango.*'
        sha256sum /etc/supervisor/conf.d/{name}.conf 2>/dev/null
        readlink slots/a slots/b run/current.sock
        # A slot counts as running a second after its start.
        for n in $(seq 100); do supervisorctl status | grep -q STARTING || break; sleep 0.1; done
        supervisorctl status | awk '$1 ~ /(^|:){name}-/ {{ print $1, $2, $2 == "RUNNING" ? $4 : "" }}'
    """
    return machine.run(script).stdout


def program_pid(machine: Machine, program: str) -> str:
    """The process id of a program of the host's supervisor, as it says."""
    return machine.run(f"supervisorctl pid {program}").stdout.strip()


def copy_checkout(target: Path) -> None:
    """Copy the files that git knows or would know of this checkout, and nothing that tools left in it."""
    listed = _git("-C", CHECKOUT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)
