"""The tasks at the top: a deployment, and what is asked before and after it."""

from __future__ import annotations

import sys

from invoke.context import Context

from fabdjango import fleet, operations
from fabdjango.fleet import Runner
from fabdjango.session import configuration, host_task, plain_task
from fabdjango.settings import setting_rows

__all__ = ["check", "config", "deploy", "history", "rollback", "status"]


@host_task(help={"commit": "Branch, tag, or short or full commit; the branch of the settings if empty."})
def deploy(runner: Runner, commit: str = "") -> None:
    """
    Bring a commit onto the host and let it serve.

    A release is made ready beside the one that serves; then migrations are
    applied, current is switched and the programs are restarted. It counts only
    when the site answers from the new release; if it does not, the old one is
    put back. A second deploy of the same commit changes nothing and says so.

    Exit code: 0 the new release serves, 1 nothing was changed, 2 unknown, look
    with status, 3 the old release was put back. With fab --dry nothing is
    written, and everything that would run is printed.
    """
    ref = commit or runner.site.settings.branch
    if runner.dry:
        fleet.show_deploy(runner, ref)
    else:
        fleet.deploy(runner, ref)


@host_task(
    help={
        "to": "Id of a release; the last other one that served if empty.",
        "code_only": "Go back although migrations were applied since.",
    }
)
def rollback(runner: Runner, to: str = "", code_only: bool = False) -> None:
    """
    Let the release that served before serve again.

    Which one that is, the journal says, not the age of a folder; a release that
    never answered is not chosen. It goes through the same switch and the same
    questions as a deploy. If migrations were applied since it served, it is
    refused and they are named. The database itself is never changed.
    """
    operations.rollback(runner, to, code_only=code_only)


@host_task(help={"count": "Number of entries."})
def history(runner: Runner, count: int = 20) -> None:
    """
    Show the journal: who deployed what, when, and how it ended.
    """
    operations.history(runner, count)


@host_task()
def status(runner: Runner) -> None:
    """
    Show the release that serves, its programs, and the others.

    Only reads. The exit code is 1 if the site does not answer.
    """
    operations.status(runner)


@host_task(help={"commit": "What would be deployed; the branch of the settings if empty."})
def check(runner: Runner, commit: str = "") -> None:
    """
    Look for what would stop a deploy; changes nothing.

    Asks the host for tools, disk, Python, supervisor, the repository and the
    commit. The exit code is 1 if a deploy would fail.
    """
    operations.preflight(runner, commit or runner.site.settings.branch)


@plain_task(help={"key": "Show this key and those below it only.", "host": "Resolve for this host of the inventory."})
def config(c: Context, key: str = "", host: str = "") -> None:
    """
    Show every setting, its value, and the file it came from.

    Secrets are hidden. No host is asked.
    """
    resolved = configuration(c, host or str(getattr(c, "original_host", "")))
    for line in operations.config_lines(resolved, setting_rows(), key):
        sys.stdout.write(line + "\n")
