"""What the tasks of schedule run, with either manager."""

from __future__ import annotations

import io
from typing import Any

import pytest

from fabdjango.exceptions import CommandError, ConfigError
from fabdjango.namespaces import schedule
from fabdjango.recording import RecordingTransport, call, runner
from tests.namespaces.text import CURRENT, SITE, answers, joined, transcript

JOBS = {**SITE, "schedule": {"clean": {"at": "daily", "command": "prune 'a b'"}}}
UNITS = {**JOBS, "manager": "systemd"}


def test_list() -> None:
    """One look, by a program that writes nothing."""
    assert transcript(schedule.list, JOBS) == joined(
        """\
        == jobs
        -- jobs: jobs and their runs
        python3 -I -S - # List the jobs of the schedule: when each runs next, when it ran last, and how that ended. Writes nothing.
        """
    )
    assert transcript(schedule.list, SITE) == ""


def test_run() -> None:
    """As cron would start it, by the owner; as its timer would, by systemd."""
    assert transcript(schedule.run, JOBS, name="clean") == joined(
        """\
        == job
        -- job: run clean
        [ -e '/srv/the blog/current/.fabdjango/job-clean' ] || refuse 'the release that serves has no such job: deploy first'
        /bin/sh '/srv/the blog/current/.fabdjango/job-clean'
        """
    )
    assert transcript(schedule.run, UNITS, name="clean").splitlines()[1] == "-- job as root: run clean"


@pytest.mark.parametrize(
    ("status", "message"),
    [(7, "ended with status 7: run clean"), (75, "clean runs already, and was not started a second time")],
)
def test_a_run_that_fails(status: int, message: str) -> None:
    """The exit code is the job's; one that runs already is no failure of the job."""
    with pytest.raises(CommandError) as caught:
        call(schedule.run, runner(RecordingTransport({**answers(CURRENT), "job": status}), JOBS), name="clean")
    assert (caught.value.message, caught.value.exit_code) == (message, status)


def test_a_job_that_is_none() -> None:
    """A word from the command line never names a script."""
    with pytest.raises(ConfigError, match=r"^the site has no job '\.\./it'$"):
        transcript(schedule.run, JOBS, name="../it")


@pytest.mark.parametrize(
    ("task", "arguments", "said"),
    [
        (schedule.list, {}, "no jobs on web1.example.com; they are for the primary\n"),
        (schedule.run, {"name": "clean"}, "unchanged: clean is for the primary, and web1.example.com is not\n"),
    ],
)
def test_a_host_that_is_not_the_primary(task: Any, arguments: dict[str, str], said: str) -> None:
    """It has nothing to run, and that is no mistake."""
    target = runner(RecordingTransport(), SITE)
    target.site = type(target.site)(**{**vars(target.site), "elsewhere": frozenset({"clean"})})
    call(task, target, **arguments)
    assert isinstance(target.report._stream, io.StringIO)
    assert target.report._stream.getvalue() == said
