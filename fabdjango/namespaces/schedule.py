"""What runs by the clock."""

from __future__ import annotations

from fabdjango import jobs
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["list", "run"]


@host_task()
def list(runner: Runner) -> None:  # noqa: A001 - as it is typed
    """
    List the jobs: when each runs next, and how it ended last.

    Only reads. Times are the host's own. A dash is for what nothing starts, for
    instance since the site was stopped.
    """
    jobs.show(runner)


@host_task(help={"name": "The job, as in fabdjango.schedule."})
def run(runner: Runner, name: str) -> None:
    """
    Run a job now, and show what it says.

    As the clock would start it, in the release that serves. A job that runs
    already is not started a second time. The exit code is the job's own.
    """
    jobs.run(runner, name)
