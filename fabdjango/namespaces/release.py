"""Releases beside the one that serves."""

from __future__ import annotations

from fabdjango import operations
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["activate", "pin", "unpin"]


@host_task(help={"release": "Id of a release; newest is the newest one."})
def activate(runner: Runner, release: str = "newest") -> None:
    """
    Let a release serve, and believe it only when it answers.

    It is started in the idle slot and gets the traffic once it answers; if it
    does not, nothing was changed, and if it fails later, everything is put back
    and the exit code is 3. The last step after git.checkout and venv.install;
    deploy does it all.
    """
    operations.activate_release(runner, release)


@host_task(help={"release": "Id of a release."})
def pin(runner: Runner, release: str) -> None:
    """
    Keep a release for ever, whatever keep_releases says.
    """
    operations.pin(runner, release)


@host_task(help={"release": "Id of a release."})
def unpin(runner: Runner, release: str) -> None:
    """
    Let a pinned release be pruned again when it is old.
    """
    operations.unpin(runner, release)
