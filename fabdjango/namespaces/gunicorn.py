"""The application server of a release."""

from __future__ import annotations

from fabdjango import operations
from fabdjango.commands import gunicorn as build
from fabdjango.fleet import Runner
from fabdjango.session import host_task

__all__ = ["check", "configure", "run", "status"]


@host_task()
def configure(runner: Runner) -> None:
    """
    Show the gunicorn.conf.py that the next release gets.

    The file belongs to its release and is never changed in one that serves:
    change the settings under gunicorn and deploy. Shown is the difference to
    the release that serves.
    """
    operations.show_gunicorn(runner)


@host_task()
def check(runner: Runner) -> None:
    """
    Let gunicorn read its configuration and import the application.
    """
    runner.ask(build.check(runner.site.layout))


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
    List the site's gunicorn processes and the release each works in.
    """
    runner.ask(build.status(runner.site.layout))
