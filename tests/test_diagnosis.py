"""From the output of a failed step to what a person needs of it."""

from __future__ import annotations

import pytest

from fabdjango.diagnosis import cure_for, excerpt, since_start


@pytest.mark.parametrize(
    ("step", "output", "words"),
    [
        (
            "fetch",
            "fatal: could not read Username for 'https://it's': terminal prompts disabled",
            "asks for a password",
        ),
        ("fetch", "git@it's: Permission denied (publickey).\nfatal: Could not read from remote", "deploy key"),
        ("fetch", "Host key verification failed.\nfatal: Could not read from remote", "connect once"),
        ("fetch", "fatal: detected dubious ownership in repository at '/srv/it's'", "safe.directory"),
        ("fetch", "fatal: '/it's' does not appear to be a git repository", "check fabdjango.repository"),
        ("fetch", "ssh: Could not resolve hostname it's: Name or service not known", "cannot reach the repository"),
        ("fetch", "", "fabdjango.git.timeout"),
        ("export", "fatal: cannot write it's: No space left on device", "the disk is full"),
        ("restart", "sudo: a password is required", "sudo asks for a password"),
        ("install", "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES of it's.txt", "the hashes do not match"),
        ("install", "ERROR: No matching distribution found for it's==9", "cannot be found"),
        ("install", "error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided", "uv lock"),
        ("install", "error: command '/usr/bin/gcc' failed\nerror: failed building wheel for it's", "compiler"),
        ("venv", "The virtual environment was not created because ensurepip is not available: it's", "python3-venv"),
        ("restart", "unix:///var/run/it's.sock no such file", "systemctl start supervisor"),
    ],
)
def test_a_known_failure(step: str, output: str, words: str) -> None:
    """What to do about it."""
    assert words in cure_for(step, output)


@pytest.mark.parametrize(
    ("step", "output"),
    [("migrate", "it's not found"), ("export", ""), ("install", "it's broken"), ("fetch", "it's odd")],
)
def test_an_unknown_failure(step: str, output: str) -> None:
    """No cure is better than a wrong one; a pattern belongs to its step."""
    assert cure_for(step, output) == ""


def test_a_program_of_ours_knows_better() -> None:
    """Its last word on the cure is taken, whatever else the output looks like."""
    output = "No space left on device\ncure: it's not this\ncure: do 'that'\nmore"
    assert cure_for("check", output) == "do 'that'"


def test_a_short_output_is_shown_whole() -> None:
    """Without empty lines, trailing spaces and the cure, which is told elsewhere."""
    assert excerpt("one  \n\n  it's two\ncure: do that\nthree") == "one\n  it's two\nthree"
    assert excerpt("") == ""


def test_the_compilers_word_survives_a_long_output() -> None:
    """The line with the error and its surroundings, the last lines, and how much was left out."""
    lines = [f"line {number}" for number in range(100)]
    lines[40] = "src/it's.c:7:10: fatal error: Python.h: No such file or directory"
    assert excerpt("\n".join(lines), most=12).splitlines() == [
        "… 39 more lines …",
        "line 39",
        "src/it's.c:7:10: fatal error: Python.h: No such file or directory",
        "line 41",
        "line 42",
        "… 51 more lines …",
        *(f"line {number}" for number in range(94, 100)),
    ]


def test_an_excerpt_is_short() -> None:
    """However many lines speak of errors, and however long they are."""
    lines = [f"Error: it's number {number} " + "x" * 1000 for number in range(1000)]
    shown = excerpt("\n".join(lines)).splitlines()
    assert len([line for line in shown if not line.startswith("…")]) == 24
    assert max(map(len, shown)) == 400
    assert shown[-1].startswith("Error: it's number 999 ")


def test_the_last_start_of_a_log() -> None:
    """A log goes back for weeks; what counts is what the last start wrote."""
    log = "[1] [INFO] Starting gunicorn 23.0.0\nit's old\n[2] [INFO] Starting gunicorn 27.0.1\nit's new\n"
    assert since_start(log) == "[2] [INFO] Starting gunicorn 27.0.1\nit's new\n"
    assert since_start("it's another program's\n") == "it's another program's\n"
