"""The application server of a release."""

from __future__ import annotations

from fabdjango import operations
from fabdjango.commands import gunicorn as build
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["check", "configure", "run", "status"]


@host_task(help={"release": "Id of a release; newest is the newest one."})
def configure(runner: Runner, release: str = "newest") -> None:
    """
    Write gunicorn.conf.py and the start scripts of a release.

    A release that serves is never changed: for it, the difference to what the
    next one would get is shown. Reads gunicorn, processes and environment.
    """
    operations.configure_gunicorn(runner, release)


@host_task()
def check(runner: Runner) -> None:
    """
    Let gunicorn read its settings and import the application.
    """
    runner.call(build.check(runner.site.layout))


@host_task(help={"bind": "Address for this trial."})
def run(runner: Runner, bind: str = "127.0.0.1:8999") -> None:
    """
    Run gunicorn in the foreground, for trying.

    It serves the current release on another address beside the site, until
    Ctrl-C.
    """
    operations.run_in_foreground(runner, build.run(runner.site.layout, bind))


@host_task()
def status(runner: Runner) -> None:
    """
    List the site's gunicorn processes and their releases.
    """
    runner.ask(build.status(runner.site.layout))
