"""Releases beside the one that serves."""

from __future__ import annotations

from fabdjango import operations
from fabdjango.fleet import Runner
from fabdjango.session import host_task

__all__ = ["activate"]


@host_task(help={"release": "Id of a release; newest is the newest one."})
def activate(runner: Runner, release: str = "newest") -> None:
    """
    Let a release serve, and believe it only when it answers.

    Switches current, restarts the programs, and asks the site until the answer
    comes from this release; otherwise everything is put back and the exit code
    is 3. The last step after git.checkout and venv.install; deploy does it all.
    """
    operations.activate_release(runner, release)
