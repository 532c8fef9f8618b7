"""What a deploy runs, from the first question to the last line."""

import os
from pathlib import Path

import pytest

import fabdjango
from fabdjango.exceptions import RevertedError, StepFailedError
from fabdjango.recording import RecordingTransport, call, runner
from tests.namespaces.text import SITE, answers

GOLDEN = Path(__file__).parent.parent / "golden"
BLOG = {
    **SITE,
    "shared": ["media/", "db.sqlite3"],
    "hooks": {"before_collectstatic": ["npm ci && npm run build"]},
    "first_deploy": ["python manage.py loaddata 'first posts'"],
}


def test_the_first_deploy_as_a_whole() -> None:
    """Four sessions, and every word that the host's shell gets to read."""
    transport = RecordingTransport(answers())
    call(fabdjango.ns["deploy"], runner(transport, BLOG, env={"SECRET_KEY": "canary-5up3r-53cr3t"}), commit="main")
    golden = GOLDEN / "deploy.txt"
    if os.environ.get("FABDJANGO_GOLDEN"):
        golden.write_text(transport.transcript, encoding="utf-8")

    assert transport.transcript == golden.read_text(encoding="utf-8")
    assert transport.transcript.count("\n== ") + 1 == 4
    assert "canary" not in transport.transcript


def test_a_step_that_fails_before_the_switch_changes_nothing() -> None:
    """The unfinished release is removed, and no other phase follows."""
    transport = RecordingTransport(answers(install=1))

    with pytest.raises(StepFailedError) as caught:
        call(fabdjango.ns["deploy"], runner(transport, BLOG), commit="main")

    assert (caught.value.exit_code, caught.value.state) == (1, "nothing that serves was touched")
    assert transport.transcript.endswith("-- undo: remove the unfinished release 1-0123456789ab\n")


def test_a_release_that_does_not_answer_is_taken_back() -> None:
    """The exit code is 3 and the way back stands in the transcript."""
    transport = RecordingTransport(answers(health=1))

    with pytest.raises(RevertedError) as caught:
        call(fabdjango.ns["deploy"], runner(transport, BLOG), commit="main")

    assert caught.value.exit_code == 3
    undone = transport.transcript.rpartition("-- health")[2]
    assert [line for line in undone.splitlines() if line.startswith("-- undo")] == [
        "-- undo: the end of the log",
        "-- undo: no release is current, as before",
        "-- undo: no program of the site, as before",
        "-- undo: write the journal",
    ]
