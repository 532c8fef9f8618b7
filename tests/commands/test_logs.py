"""Logs: which ones, since when, and how a file is read while it is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabdjango import onhost
from fabdjango.commands import logs
from fabdjango.commands.manager import Source
from fabdjango.exceptions import ConfigError

# --- since when ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", {}),
        ("10 min", {"ago": 600}),
        ("10 minutes ago", {"ago": 600}),
        ("90s", {"ago": 90}),
        ("2h 30min", {"ago": 9000}),
        ("1 day", {"ago": 86400}),
        ("2 weeks", {"ago": 1209600}),
        ("5 m", {"ago": 300}),
        ("2026-11-01", {"at": [2026, 11, 1, 0, 0, 0]}),
        ("2026-11-01 12:00", {"at": [2026, 11, 1, 12, 0, 0]}),
        ("2026-11-01T12:00:30", {"at": [2026, 11, 1, 12, 0, 30]}),
        ("2026-11-01T12:00:30.5Z", {"at": [2026, 11, 1, 12, 0, 30], "zone": 0}),
        ("2026-11-01 12:00 UTC", {"at": [2026, 11, 1, 12, 0, 0], "zone": 0}),
        ("2026-11-01T12:00-03:30", {"at": [2026, 11, 1, 12, 0, 0], "zone": -210}),
    ],
)
def test_since(text: str, meant: Mapping[str, object]) -> None:
    """Some time ago, or a time by the host's clock, unless it names a zone."""
    assert logs.read_since(text) == meant


@pytest.mark.parametrize("text", ["it's", "10", "-5 min", "noon", "2026-11", "2026-11-01 12", "@0", "10 min; id"])
def test_no_time(text: str) -> None:
    """Journald would take some of them, and nobody else."""
    with pytest.raises(ConfigError, match=f"^--since: {re.escape(repr(text))} is not a time$"):
        logs.read_since(text)


# --- which ones ---------------------------------------------------------------------------


def test_sources() -> None:
    """Root reads what is root's; what belongs to another account, it reads with that one's rights."""
    sources = (
        Source("it's", path=PurePosixPath("/var/log/a b"), user="root"),
        Source("job", path=PurePosixPath("/srv/it's/log"), user="ada"),
        Source("web", unit="blog-web@a.service"),
    )
    step = logs.show(sources, lines=7, since={"ago": 9}, follow=True)
    assert (step.user, step.title, step.parameters) == (
        "root",
        "log of it's, job, web",
        {
            "units": ["blog-web@a.service"],
            "files": [["it's", "/var/log/a b", ""], ["job", "/srv/it's/log", "ada"]],
            "named": True,
            "lines": 7,
            "since": {"ago": 9},
            "follow": True,
        },
    )
    assert logs.show(sources[1:2], lines=7, since={}, follow=False).user == ""


def test_logs_of_nginx() -> None:
    """It has two of the site."""
    assert str(logs.nginx_log("blog", "access").path) == "/var/log/nginx/blog.access.log"
    with pytest.raises(ConfigError, match=r"nginx has no log '\.\./it' of the site") as caught:
        logs.nginx_log("blog", "../it")
    assert caught.value.cure == "it has: access, error"


# --- the program on the host ----------------------------------------------------------------


def program(*files: Path, **more: Any) -> str:
    """The program as it is sent, for some files."""
    given = {
        "units": [],
        "files": [[path.stem, str(path), ""] for path in files],
        "named": len({path.stem for path in files}) > 1,
        "lines": 50,
        "since": {},
        "follow": False,
        **more,
    }
    return f"import json\nPARAMETERS = json.loads({json.dumps(given)!r})\n{onhost.source('show_logs')}"


ENVIRON = {**os.environ, "TZ": "UTC", "FABDJANGO_RUN": "R1"}


def shown(*files: Path, **more: Any) -> str:
    """What is shown of some files."""
    done = subprocess.run([sys.executable, "-"], input=program(*files, **more).encode(), env=ENVIRON, capture_output=True, check=False)  # fmt: skip
    assert done.stderr == b""
    return done.stdout.decode("utf-8", "surrogateescape")


@given(data=st.binary(max_size=60), lines=st.integers(1, 9))
@settings(max_examples=25)
def test_the_last_lines(data: bytes, lines: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As tail shows them, whatever bytes there are; a last line without an end gets one."""
    path = tmp_path_factory.mktemp("logs") / "it's.log"
    path.write_bytes(data)
    done = subprocess.run(["tail", "-n", str(lines), "--", path], capture_output=True, check=True)
    expected = done.stdout + (b"" if not done.stdout or done.stdout.endswith(b"\n") else b"\n")
    assert shown(path, lines=lines).encode("utf-8", "surrogateescape") == expected


def test_the_last_lines_of_a_large_file(tmp_path: Path) -> None:
    """It is read from its end, over more than one block."""
    path = tmp_path / "it's.log"
    path.write_text("".join(f"{number} {'x' * 90}\n" for number in range(9000)))
    said = shown(path, lines=3000).splitlines()
    assert (len(said), said[0].split()[0], said[-1].split()[0]) == (3000, "6000", "8999")


STAMPS = [
    "[2026-11-01 12:00:00 +0000] [7] [INFO] it's gunicorn",
    "[2026-11-01 12:00:00,123: INFO/MainProcess] it's celery",
    "WARNING 2026-11-01 12:00:00,123 it's logging",
    "2026-11-01T12:00:00.5Z it's ISO",
    "2026-11-01 14:00:00+0200 begins, in 7-0123456789ab",
    "2026/11/01 12:00:00 [error] 7#7: it's nginx",
    '198.18.0.1 - - [01/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "it\'s nginx"',
]


@pytest.mark.parametrize("line", STAMPS)
def test_lines_since(tmp_path: Path, line: str) -> None:
    """By the times of the lines; those without one belong to the line before."""
    path = tmp_path / "it's.log"
    path.write_text(
        f"[2026-11-01 11:00:00 +0000] before\n  more\n{line}\n  more of it\n[2026-11-01 13:00:00 +0000] after\n"
    )
    after = "[2026-11-01 13:00:00 +0000] after\n"
    assert shown(path, since={"at": [2026, 11, 1, 12, 0, 0], "zone": 0}) == f"{line}\n  more of it\n{after}"
    assert shown(path, since={"at": [2026, 11, 1, 12, 0, 1]}) == after
    assert shown(path, since={"ago": 1}) == ""


def test_lines_since_in_a_large_file(tmp_path: Path) -> None:
    """The beginning is found from the end, in the file before it too, if that was rotated meanwhile."""
    path = tmp_path / "it's.log"
    lines = [
        f"2026-11-01 {hour:02}:{minute:02}:{second:02} {'x' * 60}\n"
        for hour in range(12)
        for minute in range(60)
        for second in range(60)
    ]
    path.with_name("it's.log.1").write_text("".join(lines[:20000]))
    path.write_text("".join(lines[20000:]))
    said = shown(path, since={"at": [2026, 11, 1, 2, 0, 0]}).splitlines(keepends=True)
    assert said == lines[2 * 3600 :]


def test_lines_that_have_no_time(tmp_path: Path) -> None:
    """Nobody could say which they are; an empty log is none of those."""
    path = tmp_path / "it's.log"
    path.write_text("no time\n")
    assert (
        shown(path, since={"ago": 9}) == f"\036R1 note the lines of {path} have no time in front: leave out --since\n"
    )
    path.write_text("")
    assert shown(path, since={"ago": 9}) == ""


def test_several_files(tmp_path: Path) -> None:
    """Each line says which one it is of; one that is not there yet is passed over, all of them are not."""
    one, two = tmp_path / "one.log", tmp_path / "it's two.log"
    assert shown(one, two) == "\036R1 note there is no log yet\n"
    one.write_text("a\nb")
    assert shown(one, two) == "one | a\none | b\n"
    two.write_text("c\n")
    assert shown(one, two) == "one | a\none | b\nit's two | c\n"


def test_what_is_no_log(tmp_path: Path) -> None:
    """A pipe would make it wait for ever."""
    os.mkfifo(tmp_path / "it's.log")
    assert shown(tmp_path / "it's.log") == f"\036R1 note {tmp_path}/it's.log is not a file\n"


# --- following ------------------------------------------------------------------------------


class Follower:
    """The program while it follows, and what it has said so far."""

    def __init__(self, *files: Path, **more: Any) -> None:
        text = program(*files, follow=True, **more)
        self.process = subprocess.Popen(
            [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRON
        )
        assert self.process.stdin
        self.process.stdin.write(text.encode())
        self.process.stdin.close()
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        self.lines += []
        for line in self.process.stdout:
            self.lines.append(line.decode().rstrip("\n"))

    def says(self, *lines: str) -> None:
        """Wait until it has said these lines, and no others."""
        end = time.monotonic() + 20
        while len(self.lines) < len(lines) and time.monotonic() < end:
            time.sleep(0.02)
        assert self.lines == list(lines)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a log is, or will be."""
    return tmp_path / "it's.log"


@pytest.fixture
def follower(path: Path) -> Iterator[Follower]:
    """What follows it from its last line on."""
    path.write_text("first\nlast\n")
    made = Follower(path, lines=1)
    made.says("last")
    yield made
    made.process.kill()
    made.process.wait()


def add(path: Path, text: str) -> None:
    """Write more into a log."""
    with path.open("a") as file:
        file.write(text)


def test_a_file_that_grows(path: Path, follower: Follower) -> None:
    """Whole lines, as they come."""
    add(path, "one\nhalf")
    follower.says("last", "one")
    add(path, " and half\n")
    follower.says("last", "one", "half and half")


def test_a_file_that_is_rotated(path: Path, follower: Follower) -> None:
    """What was written before is not lost, and the new file is read from its start."""
    add(path, "before\n")
    path.rename(f"{path}.1")
    path.write_text("after\n")
    follower.says("last", "before", "after")
    add(path, "more\n")
    follower.says("last", "before", "after", "more")


def test_a_file_that_is_emptied(path: Path, follower: Follower) -> None:
    """It is read from its new start."""
    path.write_text("new\n")
    follower.says("last", "new")


def test_a_file_that_comes(path: Path) -> None:
    """A program that has said nothing yet has no log."""
    made = Follower(path)
    path.write_text("first\n")
    made.says("first")
    made.process.kill()
    made.process.wait()


def test_it_ends_when_nobody_listens(path: Path) -> None:
    """Also while nothing is written: nothing of it may stay behind on a host."""
    path.write_text("it's\n")
    with subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRON) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(program(path, follow=True).encode())
        process.stdin.close()
        assert process.stdout.readline() == b"it's\n"
        process.stdout.close()
        assert process.wait(20) == 0
