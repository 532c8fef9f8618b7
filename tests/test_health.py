"""Asking a release whether it serves: the program itself, against small servers of several processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fabdjango import onhost

RELEASE = "7-0123456789ab"
# Each process answers with its number, as gunicorn's workers do; ``script`` says what each answer is, the last one for ever.
SERVER = """
import os, socket, sys, json
path, workers, script = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(64)
for _ in range(workers - 1):
    if os.fork() == 0:
        break
if os.getppid() == int(sys.argv[4]):
    print("ready", flush=True)
answers = list(script)
while True:
    link, _ = server.accept()
    asked = b""
    while b"\\r\\n\\r\\n" not in asked:
        more = link.recv(4096)
        if not more:
            break
        asked += more
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    body = (answer.get("body") or "it's fine").encode()
    head = {"X-Fabdjango-Release": "7-0123456789ab", "X-Fabdjango-Worker": str(os.getpid()), **answer.get("headers", {})}
    if answer.get("needs") and answer["needs"].encode() not in asked:
        answer = {"status": 302}
        head["Location"] = "https://blog.example.com/"
    lines = [f"HTTP/1.1 {answer.get('status', 200)} It", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in head.items() if value]
    link.sendall("\\r\\n".join(lines).encode() + b"\\r\\n\\r\\n" + body)
    link.close()
"""


@contextmanager
def serving(folder: Path, script: list[dict[str, Any]], workers: int = 1) -> Iterator[str]:
    """A server whose processes answer by ``script``; the path of its socket."""
    path = folder / "it's a.sock"
    words = [
        sys.executable,
        "-c",
        textwrap.dedent(SERVER),
        str(path),
        str(workers),
        json.dumps(script),
        str(os.getpid()),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield f"unix:{path}"
        finally:
            os.killpg(process.pid, 9)
    path.unlink()


def asked(bind: str, **more: Any) -> tuple[int, str]:
    """The status of the program and what it says."""
    given: dict[str, Any] = {
        "bind": bind,
        "path": "/it's",
        "expect": [200],
        "text": "",
        "host": "blog.example.com",
        "https": "auto",
        "static": "",
        "workers": 1,
        "also": [],
        "consecutive": 3,
        "timeout": 20,
        "release": RELEASE,
        "releases": "/srv/it's here/releases",
        "answer": "/nonexistent",
        **more,
    }
    text = f"PARAMETERS = {given!r}\n{onhost.source('health')}"
    done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.removesuffix("\n")


def test_every_worker_is_heard(tmp_path: Path) -> None:
    """Not three times the same one: each of them imported the application for itself."""
    with serving(tmp_path, [{}], workers=3) as bind:
        assert asked(bind, workers=3) == (0, f"{RELEASE} serves on {bind}, 3 of 3 workers")
        # The public address is asked for one of them, and no count is told.
        assert asked(bind, workers=1) == (0, f"{RELEASE} serves on {bind}")


def test_a_good_answer_is_not_enough(tmp_path: Path) -> None:
    """Several in a row: one bad answer between them begins the count anew."""
    bad = {"status": 404}
    with serving(tmp_path, [{}, {}, bad, {}, {}, bad]) as bind:
        assert asked(bind)[0] == 1
    with serving(tmp_path, [{}, {}, bad, {}, {}, {}, bad]) as bind:
        assert asked(bind) == (0, f"{RELEASE} serves on {bind}")


def test_a_worker_that_fails_is_not_outvoted(tmp_path: Path) -> None:
    """Three bad answers in a row are the release's opinion, and the first line of the reason is what it was."""
    with serving(tmp_path, [{"status": 500}], workers=2) as bind:
        status, said = asked(bind, workers=2)
    assert (status, said.splitlines()[0]) == (1, "/it's answers 500, not 200")


def test_the_answer_of_another_release(tmp_path: Path) -> None:
    """It does not count, unless it may answer as well; then it is no proof of a worker either."""
    with serving(tmp_path, [{"headers": {"X-Fabdjango-Release": "6-666666666666"}}]) as bind:
        assert asked(bind, timeout=1) == (1, f"the answer comes from 6-666666666666, not from {RELEASE}")
        assert asked(bind, also=["6-666666666666"]) == (0, f"{RELEASE} serves on {bind}")


def test_a_static_file_that_the_other_release_does_not_have(tmp_path: Path) -> None:
    """At a held socket the second request may go to the old release, which cannot know the new file; its own 404 counts."""
    (tmp_path / "django.json").write_text(json.dumps({"static_url": "/static/it's.css"}))
    more = {"static": "it's.css", "answer": str(tmp_path / "django.json"), "timeout": 2}
    old = {"status": 404, "headers": {"X-Fabdjango-Release": "6-666666666666"}}
    with serving(tmp_path, [{}, old, {}]) as bind:
        assert asked(bind, also=["6-666666666666"], **more) == (0, f"{RELEASE} serves on {bind}")
    with serving(tmp_path, [{}, {"status": 404}]) as bind:
        assert asked(bind, **more) == (
            1,
            "/it's answers 404, not 200\ncure: see the program's log, or set fabdjango.health",
        )
    with serving(tmp_path, [{}, {"status": 404}, {}, {"status": 404}, {}, {"status": 404}]) as bind:
        assert asked(bind, **more) == (1, "the static file /static/it's.css answers 404")


@pytest.mark.parametrize(
    ("answer", "values", "line"),
    [
        ({"status": 400}, {}, "the site answers 400 Bad Request to the host name 'blog.example.com'"),
        ({"status": 302, "headers": {"Location": "/login"}}, {}, "/it's answers 302 to /login, not 200"),
        ({"body": "it's empty"}, {"text": "a post"}, "the answer to /it's does not hold the text 'a post'"),
    ],
)
def test_what_is_not_healthy(tmp_path: Path, answer: dict[str, Any], values: dict[str, Any], line: str) -> None:
    """Told in words, with the setting that is the cure."""
    with serving(tmp_path, [answer]) as bind:
        status, said = asked(bind, timeout=2, **values)
    assert (status, said.splitlines()[0]) == (1, line)


def test_a_site_that_wants_https(tmp_path: Path) -> None:
    """It is asked as a proxy would ask for a visitor who came by https."""
    with serving(tmp_path, [{"needs": "X-Forwarded-Proto: https"}]) as bind:
        assert asked(bind) == (0, f"{RELEASE} serves on {bind}")
        assert asked(bind, https="no", timeout=1)[0] == 1


def test_nobody_answers(tmp_path: Path) -> None:
    """Until the time is over, as a slot may still be starting; a port as well as a socket."""
    status, said = asked(f"unix:{tmp_path}/none.sock", timeout=1)
    assert (status, said.partition(":")[0]) == (1, "nothing answers on unix")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert asked(f"127.0.0.1:{port}", timeout=1)[0] == 1


def test_a_release_that_turns_bad_a_little_later_is_found_by_soaking(tmp_path: Path) -> None:
    """Without it, three good answers are enough."""
    script: list[dict[str, Any]] = [*[{}] * 5, {"status": 500}]
    with serving(tmp_path, script) as bind:
        assert asked(bind) == (0, f"{RELEASE} serves on {bind}")
    with serving(tmp_path, script) as bind:
        status, said = asked(bind, soak=30, recycles=False)
    assert (status, said.splitlines()[0]) == (1, "/it's answers 500, not 200")


def test_a_program_that_was_started_again_begins_its_soaking_anew(tmp_path: Path) -> None:
    """However fast it was: whoever listens is another process."""
    place = tmp_path / "it's a.sock"
    with ThreadPoolExecutor(1) as pool:
        with serving(tmp_path, [{}]) as bind:
            began = time.monotonic()
            found = pool.submit(asked, bind, soak=2, recycles=False)
            time.sleep(1.2)  # so long the first one lives
        with serving(tmp_path, [{}]):
            assert found.result() == (0, f"{RELEASE} serves on unix:{place}")
    assert time.monotonic() - began > 3


def test_a_worker_that_dies_while_it_soaks(tmp_path: Path) -> None:
    """More workers were heard than there are: one was replaced; where workers are replaced on purpose, that is no sign."""
    with serving(tmp_path, [{}], workers=2) as bind:
        status, said = asked(bind, workers=1, soak=3, recycles=False, timeout=2)
        assert (status, said[:22]) == (1, "a worker died within 0")
        assert asked(bind, workers=1, soak=1, recycles=True)[0] == 0
