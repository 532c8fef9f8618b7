"""Waiting until nobody waits: a real socket, with real connections in its queue."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabdjango import onhost


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens and accepts nothing, and its path."""
    path = str(tmp_path / "it's a.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(8)
        yield server, path


def drain(path: str, seconds: int) -> subprocess.Popen[str]:
    """The program, told what to wait for."""
    given = {"path": path, "seconds": seconds}
    text = f"PARAMETERS = {given!r}\n{onhost.source('drain')}"
    process = subprocess.Popen(
        [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdin
    process.stdin.write(text)
    process.stdin.close()
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its status and what it said."""
    with process:
        assert process.stdout
        return process.wait(30), process.stdout.read()


def test_nobody_waits(listening: tuple[socket.socket, str], tmp_path: Path) -> None:
    """Neither at a socket with an empty queue nor where nobody listens; a connection that was accepted does not count."""
    server, path = listening
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        accepted, _ = server.accept()
        with accepted:
            assert ended(drain(path, 20)) == (0, "")
    assert ended(drain(str(tmp_path / "none.sock"), 20)) == (0, "")


def test_somebody_waits(listening: tuple[socket.socket, str]) -> None:
    """It goes on until the last one was accepted."""
    server, path = listening
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.connect(path)
        two.connect(path)
        process = drain(path, 20)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        server.accept()[0].close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        server.accept()[0].close()
        assert ended(process) == (0, "")


def test_it_does_not_wait_for_ever(listening: tuple[socket.socket, str]) -> None:
    """A release that hangs is stopped all the same, and the number of those who waited is told."""
    _, path = listening
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        began = time.monotonic()
        assert ended(drain(path, 1)) == (0, f"1 connections still waited for {path} after 1 s\n")
        assert time.monotonic() - began < 5
