"""The web server in front of gunicorn."""

from __future__ import annotations

from fabdjango import webserver
from fabdjango.commands import nginx as build
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["check", "configure", "disable", "enable", "logs", "reload", "status"]


@host_task()
def configure(runner: Runner) -> None:
    """
    Write the site's file for nginx, and let nginx run with it.

    nginx reads the file before it is reloaded, and is asked afterwards whether
    it runs with it; otherwise the old file is put back. Files of others are not
    touched. A second run changes nothing. Reads nginx, gunicorn.bind and root.
    """
    webserver.configure(runner)


@host_task()
def enable(runner: Runner) -> None:
    """
    Let nginx serve the site's file again, after disable.
    """
    webserver.enable(runner)


@host_task()
def disable(runner: Runner) -> None:
    """
    Let nginx no longer serve the site; its file stays.

    The application server runs on. A second run finds it disabled.
    """
    webserver.disable(runner)


@host_task()
def check(runner: Runner) -> None:
    """
    Let nginx read all its files, without using them.
    """
    runner.ask(build.check())


@host_task()
def reload(runner: Runner) -> None:
    """
    Reload nginx, for instance after a new certificate.

    Its files are read first, and it is asked afterwards whether it runs with
    them. An nginx that does not run is started.
    """
    webserver.reload(runner)


@host_task()
def status(runner: Runner) -> None:
    """
    Show whether nginx runs, and whether it serves the site.
    """
    webserver.status(runner)


@host_task(help={"which": "The log: error, or access.", "lines": "Number of lines."})
def logs(runner: Runner, which: str = "error", lines: int = 50) -> None:
    """
    Show the end of the site's log of nginx.
    """
    runner.ask(build.logs(runner.site.settings, which, lines))
