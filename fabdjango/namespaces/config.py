"""Settings: what they are, and what serves otherwise."""

from __future__ import annotations

import sys

from invoke.context import Context

from fabdjango import comparing, operations
from fabdjango.runner import Runner
from fabdjango.session import configuration
from fabdjango.settings import setting_rows
from fabdjango.tasking import host_task, plain_task

__all__ = ["diff", "show"]

DEFAULT = "show"
"""The task that the name of the namespace alone means."""


@plain_task(help={"key": "Show this key and those below it only.", "host": "Resolve for this host of the inventory."})
def show(c: Context, key: str = "", host: str = "") -> None:
    """
    Show every setting, its value, and the file it came from.

    Secrets are hidden. No host is asked.
    """
    resolved = configuration(c, host or str(getattr(c, "original_host", "")))
    for line in operations.config_lines(resolved, setting_rows(), key):
        sys.stdout.write(line + "\n")


@host_task()
def diff(runner: Runner) -> None:
    """
    Show what serves otherwise than it is configured now.

    Of environment and local settings the names, never the values; of
    gunicorn's configuration and the files of programs the lines. Only reads,
    and asks the sources of secrets. A deploy makes all of it serve.
    """
    comparing.compare(runner)
