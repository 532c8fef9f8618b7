"""The tutorial's path step by step, every other task once, and dry runs of all that would write."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator

import pytest

from tests.local.conftest import Staged
from tests.local.sample import make_project, make_wheel
from tests.local.stage import Stage, Tools, free_port, listing, processes_below

CANARY = "canary-7d30-of-the-tutorial"
SECRET = {"SHOP_KEY": CANARY}


def prepare(stage: Stage) -> None:
    """A project with a secret in its environment file and in its settings."""
    stage.repository.commit(make_project(users=True), "Start a shop")
    stage.write("live.env.j2", "SHOP_SECRET_KEY='{{ env.SHOP_KEY }}'\n")
    stage.write("local.py.j2", "PRICE = {{ env.SHOP_KEY | python }}\n")
    stage.configure(env_file="live.env.j2", local_settings="local.py.j2", health={"static": "notes/site.css"})


def test_step_by_step(staged: Staged) -> None:
    """Clone, check out, settings, virtualenv, supervisor, activate: nothing serves before the last of them."""
    stage = staged(root="ada's shop")
    prepare(stage)

    def fab(*words: str) -> str:
        return stage.fab(*words, environ=SECRET).out

    assert "ok         clone" in fab("git.clone")
    assert (stage.root / "repo.git/HEAD").exists()
    assert "unchanged  clone" in fab("git.clone")
    sha = stage.repository.git("rev-parse", "HEAD")
    release = f"1-{sha[:12]}"
    assert fab("git.checkout", "--commit", "main").endswith(
        f"checked out: releases/{release} holds {sha[:7]} Start a shop; nothing was switched\n"
    )
    assert (stage.root / "releases" / release / "manage.py").exists()
    assert "ok         write .env and local_settings.py for the next release" in fab("django.settings")
    assert "unchanged  write .env and local_settings.py for the next release (as before)" in fab("django.settings")
    fab("venv.create")
    (venv,) = (stage.root / "venvs").iterdir()
    assert (venv / "bin/python").exists()
    assert not (venv / ".complete").exists()
    fab("venv.install")
    assert (venv / ".complete").exists()
    assert {"django", "gunicorn"} <= set(stage.packages)
    fab("supervisor.install")
    assert (stage.root / "supervisor/supervisord.pid").exists()
    assert "unchanged  supervisord of the site's own runs (it runs)" in fab("supervisor.install")
    assert not stage.current
    assert not stage.listens()
    assert fab("release.activate").endswith(f"activated: {release} serves on 127.0.0.1\n")
    assert stage.current == release
    assert stage.get().page["price"] == CANARY
    assert stage.get("/static/notes/site.css").status == 200
    # The short way finds nothing left to do.
    assert stage.deploy(environ=SECRET).last.startswith("unchanged: ")


@pytest.fixture(scope="module")
def served(tools: Tools) -> Iterator[Stage]:
    """A site that serves, for tasks that look at it."""
    stage = Stage(tools)
    try:
        prepare(stage)
        stage.deploy(environ=SECRET)
        yield stage
    finally:
        stage.close()


def ask(stage: Stage, *words: str, code: int = 0) -> str:
    """What a task prints."""
    return stage.fab(*words, environ=SECRET, code=code).out


def test_git(served: Stage) -> None:
    """Status, head, log, show, diff and fetch read the mirror; only fetch writes there."""
    sha = served.repository.git("rev-parse", "main")
    assert f"{sha[:12]} " in ask(served, "git.status")
    assert f"current: {served.current}" in ask(served, "git.status")
    assert sha in ask(served, "git.head")
    new = served.repository.branch("colour", {"notes/static/notes/site.css": "body { color: gold }\n"})
    assert (
        "there is no branch, tag or commit colour in the mirror"
        in served.fab("git.head", "--ref", "colour", code=1, environ=SECRET).err
    )
    assert "ok         fetch" in ask(served, "git.fetch")
    assert new in ask(served, "git.head", "--ref", "colour")
    assert "Ada: Make colour" in ask(served, "git.log", "--ref", "colour", "--count", "1")
    assert "+body { color: gold }" in ask(served, "git.show", "--ref", "colour")
    out = ask(served, "git.diff", "--new", "colour")
    assert "-body { color: teal }" in out
    assert "+body { color: gold }" in out
    assert served.current == f"1-{sha[:12]}"


def test_venv(served: Stage) -> None:
    """Packages are listed, one is added for trying, and two releases are compared."""
    assert re.search(r"^Django==5\.2", ask(served, "venv.freeze"), re.MULTILINE | re.IGNORECASE)
    assert "the same packages" in ask(served, "venv.diff", "--new", served.current)
    wheel = make_wheel(served.base / "a shelf", "extra", "1.0")
    ask(served, "venv.package", "--names", f"'{wheel}'")
    assert "extra==1.0" in ask(served, "venv.freeze")


def test_django(served: Stage) -> None:
    """Management commands run in the release, with its settings; quoting arrives as it was typed."""
    assert "System check identified no issues" in ask(served, "django.check")
    assert "security.W" in ask(served, "django.check", "--deploy")
    assert "[X] 0001_initial" in ask(served, "django.migrations")
    assert "ok         apply migrations" in ask(served, "django.migrate")
    assert "collectstatic --noinput" in ask(served, "django.collectstatic", "--release", served.current)
    assert "it's $HOME & more" in ask(served, "django.manage", """shell -c 'print("it'"'"'s $HOME & more")'""")
    run = served.fab("django.manage", "no_such_command", code=1, environ=SECRET)
    assert "Unknown command: 'no_such_command'" in run.err
    run = served.fab("django.manage", "shell -c 'no end", code=1, environ=SECRET)
    assert "No closing quotation" in run.err
    password = {"DJANGO_SUPERUSER_PASSWORD": "x"}
    served.configure(environment=password)
    served.deploy(environ=SECRET)
    served.fab("django.createsuperuser", "--username", "ada", "--email", "ada@example.com", environ=SECRET)
    out = ask(
        served, "django.manage", "shell -c 'from django.contrib.auth.models import User; print(User.objects.get())'"
    )
    assert out.endswith("ada\n")


class Terminal:
    """A run of fab on a terminal of its own."""

    def __init__(self, stage: Stage, *words: str) -> None:
        self.text = ""
        # A terminal that belongs to the new process, so that Ctrl-C is a signal.
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.chdir(stage.operator)
            command = stage.command(*words)
            os.execve(command[0], command, stage.environ({**SECRET, "TERM": "dumb"}))  # noqa: S606

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until ``text`` has come."""
        end = time.monotonic() + seconds
        while text not in self.text:
            ready, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            chunk = b""
            if ready:
                try:
                    chunk = os.read(self._master, 65536)
                except OSError:
                    chunk = b""
            assert chunk, f"no {text!r} came, only:\n{self.text}"
            self.text += chunk.decode(errors="replace")

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._master, text.encode())

    def close(self) -> int:
        """The exit code, of which a process that does not end has none."""
        code = -1
        end = time.monotonic() + 30
        while code < 0 and time.monotonic() < end:
            ready, _, _ = select.select([self._master], [], [], 0.1)
            with contextlib.suppress(OSError):
                if ready:
                    self.text += os.read(self._master, 65536).decode(errors="replace")
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if pid else -1
        if code < 0:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._master)
        return code


def test_shells_on_a_terminal(served: Stage) -> None:
    """Django's shell and the database's run on the host with a terminal, in the release with its settings."""
    shell = Terminal(served, "django.shell")
    shell.wait_for(">>> ")
    shell.type("from django.conf import settings; print('price', settings.PRICE[:6], 6 * 7)\r")
    shell.wait_for("price canary 42")
    shell.type("\x04")
    assert shell.close() == 0
    database = Terminal(served, "django.dbshell")
    if not os.access("/usr/bin/sqlite3", os.X_OK):
        # Said by Django in words, and told on by the exit code.
        database.wait_for("sqlite3")
        assert database.close() == 1
        return
    database.wait_for("sqlite> ")
    database.type("select 6 * 7;\r")
    database.wait_for("42")
    database.type(".quit\r")
    assert database.close() == 0


def test_a_superuser_by_hand(served: Stage) -> None:
    """The password is asked on the host and typed without an echo."""
    terminal = Terminal(served, "django.createsuperuser", "--username", "grace", "--email", "grace@example.com")
    for _ in range(2):
        terminal.wait_for("Password")
        time.sleep(0.3)
        terminal.type("very long and unusual 12\r")
        terminal.wait_for("Password (again)")
    terminal.wait_for("Superuser created successfully.")
    assert terminal.close() == 0
    assert "very long and unusual" not in terminal.text


def test_gunicorn(served: Stage) -> None:
    """The configuration is shown and checked, the processes are listed, and a trial runs beside the site until Ctrl-C."""
    out = ask(served, "gunicorn.configure")
    assert "gunicorn.conf.py: unchanged" in out
    served.configure(gunicorn={"timeout": 77})
    out = ask(served, "gunicorn.configure")
    assert "-timeout = 30" in out
    assert "+timeout = 77" in out
    served.configure(gunicorn={"timeout": 30})
    ask(served, "gunicorn.check")
    assert f"/releases/{served.current}" in ask(served, "gunicorn.status")
    port = free_port()
    trial = Terminal(served, "gunicorn.run", "--bind", f"127.0.0.1:{port}")
    trial.wait_for("Booting worker")
    for _ in range(50):
        try:
            assert served.get(port=port).page["release"] == served.current
            break
        except ConnectionError:
            time.sleep(0.1)
    trial.type("\x03")
    assert trial.close() >= 0
    deadline = time.monotonic() + 20
    while any(f"127.0.0.1:{port}" in line for line in processes_below(served.root).values()):
        assert time.monotonic() < deadline, "the trial runs on"
        time.sleep(0.1)
    assert served.get().page["release"] == served.current


def test_supervisor(served: Stage) -> None:
    """Stop, start, restart, status, logs, configure: each twice, and each leaves what it found if it is as it should be."""
    web = "shop-web-[0-9]+:shop-web"
    assert re.search(rf"{web}-[ab] +RUNNING", ask(served, "supervisor.status"))
    ask(served, "supervisor.stop")
    assert not served.listens()
    ask(served, "supervisor.stop")
    assert re.search(rf"{web}-a +STOPPED.*\n{web}-b +STOPPED", ask(served, "supervisor.status"))
    served.fab("status", environ=SECRET, code=1)
    ask(served, "supervisor.start", "--only", "web")
    ask(served, "supervisor.start")
    assert served.get().page["release"] == served.current
    pids = set(processes_below(served.private))
    ask(served, "supervisor.restart")
    assert not pids & set(processes_below(served.private))
    assert "Booting worker" in ask(served, "supervisor.logs")
    shown = [
        line
        for line in ask(served, "supervisor.logs", "--lines", "1").splitlines()
        if line and not line.startswith(("[127.", "==> "))
    ]
    assert len(shown) == 2
    assert "unchanged  write" in ask(served, "supervisor.configure")
    run = served.fab("supervisor.start", "--only", "wep", code=1, environ=SECRET)
    assert "the site has no program 'wep'" in run.err


def test_looking(served: Stage) -> None:
    """What serves, what a deploy would meet, and where each setting comes from."""
    out = ask(served, "status")
    assert f"shop on 127.0.0.1: {served.current}, made by " in out
    assert re.search(rf"^ -> {served.current} +serves, since .*, slot [ab]$", out, re.MULTILINE)
    assert re.search(r"^ok       deploy: a deploy of main .*can begin$", ask(served, "check"), re.MULTILINE)
    out = ask(served, "config")
    assert re.search(r"^project = shop +\(fabric\.yaml\)$", out, re.MULTILINE)


DRY = [
    ["deploy"],
    ["git.clone"],
    ["git.fetch"],
    ["git.checkout"],
    ["django.settings"],
    ["django.migrate"],
    ["django.collectstatic"],
    ["django.createsuperuser"],
    ["venv.create"],
    ["venv.install"],
    ["venv.package", "--names", "idna"],
    ["supervisor.install"],
    ["supervisor.configure"],
    ["supervisor.start"],
    ["supervisor.stop"],
    ["supervisor.restart"],
    ["release.activate"],
    ["gunicorn.run"],
]


def test_dry_runs(served: Stage) -> None:
    """Nothing is written and nothing started; shown are the scripts and what would become of each file, but no secret."""
    served.repository.commit({"notes/edition.py": "EDITION = '2'\n"}, "Another edition")
    served.configure(gunicorn={"timeout": 44}, processes={"worker": {"command": "sleep 1000"}})
    try:
        ask(served, "git.fetch")
        before, pids = listing(served.root), set(processes_below(served.root))
        outs = {words[0]: ask(served, "--dry", *words) for words in DRY}
        assert listing(served.root) == before
        assert set(processes_below(served.root)) == pids
    finally:
        served.configure(gunicorn={"timeout": 30}, processes=None)
    deploy = outs["deploy"]
    sha = served.repository.git("rev-parse", "main")
    assert f"read-tree --reset {sha}" in deploy
    assert "+timeout = 44" in deploy
    assert "+[program:shop-worker]" in deploy
    assert re.search(r"^# .*/env: (new|changes) \(secret, not shown\), mode 640$", deploy, re.MULTILINE)
    assert (
        "- # Apply migrations, or reverse those that an older release lacks, under a lock of the database; the last line is JSON."
        in deploy
    )
    assert "mv -fT -- " in deploy
    assert deploy.endswith("nothing was written: this was a dry run\n")
    assert "+[program:shop-worker]" in outs["supervisor.configure"]
    assert "# Tell supervisord" in outs["supervisor.stop"]
    for task, out in outs.items():
        assert CANARY not in out, task
        assert out.strip(), task


def test_dry_run_on_an_empty_host(stage: Stage) -> None:
    """Before anything is there, a dry deploy tells what it would do and makes not even the folder."""
    prepare(stage)
    run = stage.fab("--dry", "deploy", environ=SECRET)
    assert not stage.root.exists()
    assert "git init --quiet --bare" in run.out
    assert CANARY not in run.text
