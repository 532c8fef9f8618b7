"""Visitors of a site over everything that exchanges its processes: the manager holds the socket, and no request is lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.local.sample import DJANGO, make_project, make_wheel
from tests.local.stage import Run, Stage, Tools, Traffic, listing, processes_below

WORKER = """\
import fcntl
import os
import signal
import sys
import time


def leave(number, frame):
    time.sleep(0.5)
    say("ends")
    sys.exit()


def say(word):
    with open("data/worker.log", "a") as log:
        log.write(f"{word} {os.environ['FABDJANGO_RELEASE']}\\n")


signal.signal(signal.SIGTERM, leave)
lock = open("data/worker.lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    say("second")
else:
    say("begins")
while True:
    time.sleep(1)
"""


def test_no_request_is_lost(stage: Stage) -> None:
    """
    Over another commit, other requirements, other settings, a restart and a rollback, each answered on both sides.

    A worker is stopped to its end before its next one starts, on the release that serves; the old release's hashed
    static files are still there.
    """
    stage.repository.commit({**make_project(), "worker.py": WORKER, "notes/static/notes/old.0123abcd.css": "old\n"})
    stage.configure(processes={"worker": {"command": "exec python worker.py", "startsecs": 0}})
    stage.deploy()
    first = stage.current
    extra = make_wheel(stage.base / "shelf", "extra", "1.0")
    with Traffic(stage) as visitors:
        stage.repository.commit({"notes/edition.py": "EDITION = '2'\n", "notes/static/notes/old.0123abcd.css": None})
        stage.deploy()
        visitors.saw(stage.current)
        second = stage.current
        assert stage.get("/static/notes/old.0123abcd.css").body == "old\n"

        stage.repository.commit({"requirements.txt": f"{DJANGO}\nextra @ file://{extra}\n"})
        stage.deploy()
        visitors.saw(stage.current)
        third = stage.current
        assert list(stage.venv.glob("lib/python*/site-packages/extra.py"))

        stage.configure(environment={"SHOP_GREETING": "hello"})
        stage.deploy()
        visitors.saw(stage.current)
        fourth = stage.current
        assert stage.get().page["greeting"] == "hello"

        pids = web_processes(stage)
        run = stage.fab("restart")
        assert run.last == f"restarted: {fourth} serves on 127.0.0.1"
        visitors.saw(fourth)
        assert pids
        assert not pids & web_processes(stage)

        stage.fab("rollback")
        visitors.saw(third)
    assert visitors.failures == []
    assert list(visitors.answers) == [first, second, third, fourth]
    assert min(visitors.answers.values()) >= 10
    assert [(entry["event"], entry["release"]) for entry in stage.journal[1:]] == [
        ("deploy", first),
        ("deploy", second),
        ("deploy", third),
        ("deploy", fourth),
        ("restart", fourth),
        ("rollback", third),
    ]
    served = [first, second, third, fourth, fourth, third]
    log = "".join(f"begins {release}\nends {release}\n" for release in served).removesuffix(f"ends {third}\n")
    assert (stage.root / "shared/data/worker.log").read_text() == log


def web_processes(stage: Stage) -> set[int]:
    """The gunicorn processes of the site."""
    return {pid for pid, line in processes_below(stage.root / "releases").items() if "gunicorn" in line}


def test_one_slot_loses_no_request(stage: Stage) -> None:
    """On a host with memory for one release only, requests wait in the socket while it is exchanged, or put back."""
    stage.repository.commit(make_project())
    stage.configure(slots="1", django={"collectstatic": "never"})
    stage.deploy()
    first = stage.current
    with Traffic(stage) as visitors:
        stage.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
        stage.deploy()
        visitors.saw(stage.current)
        second = stage.current
        stage.fab("restart")
        visitors.saw(second)
        stage.repository.commit({"notes/views.py": "def front(request):\n    raise SystemError\n"})
        stage.configure(health={"timeout": 5})
        run = stage.deploy(code=3)
        assert " state: reverted: the previous release serves again, and was asked (exit 3)" in run.err
        visitors.saw(second)
    assert visitors.failures == []
    assert list(visitors.answers) == [first, second]
    assert len(list((stage.root / "slots").iterdir())) == 1


# --- releases that do not serve -----------------------------------------------


@pytest.fixture(scope="module")
def visited(tools: Tools) -> Iterator[tuple[Stage, Traffic]]:
    """A site with visitors all the time, to which nothing that is deployed may get through."""
    stage = Stage(tools)
    try:
        stage.repository.commit(make_project())
        stage.configure(health={"timeout": 6}, django={"collectstatic": "never"})
        stage.deploy()
        with Traffic(stage, visitors=1) as visitors:
            yield stage, visitors
    finally:
        stage.close()


BROKEN = {
    "cannot-be-imported": ("shop/urls.py", "import no_such_module\n", "No module named 'no_such_module'"),
    "leaves-at-import": ("shop/wsgi.py", "raise SystemExit(4)\n", "cannot be imported"),
    "leaves-in-the-web": (
        "shop/wsgi.py",
        "import sys\nif 'gunicorn' in sys.argv[0]:\n    sys.exit('not today')\n",
        "not today",
    ),
    "answers-500": ("notes/views.py", "def front(request):\n    raise ValueError('so broken')\n", "so broken"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_release_gets_no_request(visited: tuple[Stage, Traffic], kind: str) -> None:
    """It is found out before anybody asks it: exit code 1, the reason, and the old one has not been touched."""
    stage, visitors = visited
    path, more, reason = BROKEN[kind]
    stage.repository.branch(kind, {path: (stage.repository.path / path).read_text() + more})
    fails(stage, visitors, reason, "--commit", kind)


def test_an_address_that_is_taken(visited: tuple[Stage, Traffic]) -> None:
    """The site moves to an address that another program has: it stays at the old one."""
    stage, visitors = visited
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        stage.configure(gunicorn={"bind": f"127.0.0.1:{other.getsockname()[1]}"})
        try:
            fails(stage, visitors, "is its address in use?")
        finally:
            stage.configure(gunicorn={"bind": f"127.0.0.1:{stage.port}"})


def fails(stage: Stage, visitors: Traffic, reason: str, *words: str) -> Run:
    """A deploy that must leave everything that serves as it is."""
    old, pids = stage.current, web_processes(stage)
    but = ("repo.git", "releases", "journal.jsonl", "run/slot", "shared/static")
    before = listing(stage.root, but=but, times=False)
    run = stage.deploy(*words, code=1)
    assert reason in run.err
    assert " state: nothing that serves was touched (exit 1)" in run.err
    visitors.saw(old)
    assert list(visitors.answers) == [old]
    assert web_processes(stage) == pids
    assert listing(stage.root, but=but, times=False) == before
    return run
