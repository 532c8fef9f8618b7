"""The mirror on the host, and commits to releases."""

from __future__ import annotations

from fabdjango import operations, surveying
from fabdjango.commands import git as build
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["checkout", "clone", "diff", "fetch", "head", "log", "show", "status"]

_REF = "Branch, tag or commit; current is the release that serves."


@host_task()
def clone(runner: Runner) -> None:
    """
    Make the bare mirror of the repository on the host.

    A second run only fetches. Reads repository and root. With git.transfer push,
    the branch comes from your clone.
    """
    surveying.bring(runner, build.clone_mirror(runner.site.settings, runner.site.layout))


@host_task()
def fetch(runner: Runner) -> None:
    """
    Bring the mirror up to date with the repository.

    Branches and tags that are gone there go here too. Nothing that serves changes.
    With git.transfer push, the branch is sent from your clone instead.
    """
    surveying.bring(runner, build.fetch_mirror(runner.site.settings, runner.site.layout))


@host_task(
    help={
        "commit": "Branch, tag, or short or full commit; the branch of the settings if empty.",
        "allow_dirty": "Take the commit though your clone has work that is not in it; matters with git.transfer push only.",
    }
)
def checkout(runner: Runner, commit: str = "", allow_dirty: bool = False) -> None:
    """
    Put a commit into a release directory of its own.

    Nothing switches: current stays what it was. The release gets its settings,
    its links into shared and its start scripts; install packages with
    venv.install and let it serve with release.activate. A second run makes a
    second release.
    """
    operations.allow_dirty([runner], allowed=allow_dirty)
    operations.checkout(runner, commit or runner.site.settings.branch)


@host_task()
def status(runner: Runner) -> None:
    """
    Show the mirror's branches and the commit that serves.
    """
    runner.ask(build.status(runner.site.layout))


@host_task(help={"ref": _REF, "count": "Number of commits."})
def log(runner: Runner, ref: str = "", count: int = 15) -> None:
    """
    Show the newest commits of a branch, tag or commit.
    """
    runner.ask(build.log(runner.site.layout, ref or runner.site.settings.branch, count))


@host_task(help={"ref": _REF})
def head(runner: Runner, ref: str = "current") -> None:
    """
    Show the full id of a commit.
    """
    runner.ask(build.head(runner.site.layout, ref))


@host_task(help={"old": _REF, "new": "The same; the branch of the settings if empty."})
def diff(runner: Runner, old: str = "current", new: str = "") -> None:
    """
    Show what changed between two commits.

    By default from what serves to the branch that would be deployed.
    """
    runner.ask(build.diff(runner.site.layout, old, new or runner.site.settings.branch))


@host_task(help={"ref": _REF})
def show(runner: Runner, ref: str = "current") -> None:
    """
    Show one commit with its changes.
    """
    runner.ask(build.show(runner.site.layout, ref))
