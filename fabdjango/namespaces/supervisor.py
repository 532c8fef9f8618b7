"""The process manager of the site."""

from __future__ import annotations

from fabdjango import operations
from fabdjango.commands import supervisor as build
from fabdjango.fleet import Runner
from fabdjango.session import host_task

__all__ = ["configure", "install", "logs", "restart", "start", "status", "stop"]

_ONLY = {"only": "One program of the site, such as web; all of them if empty."}


@host_task()
def install(runner: Runner) -> None:
    """
    Make supervisor be there and run.

    At level system Debian's service is looked for; at level user the host's
    supervisord is run by the owner of the site; at level virtualenv it is
    installed under the root first. A second run changes nothing. Reads
    supervisor.level.
    """
    operations.install_supervisor(runner)


@host_task()
def configure(runner: Runner) -> None:
    """
    Write the site's programs into a file for supervisor.

    The file is read by supervisor's own parser before it is installed. Programs
    of others are not touched, and ours go on until they are restarted. Reads
    gunicorn, processes and supervisor.
    """
    operations.configure_supervisor(runner)


@host_task(help=_ONLY)
def start(runner: Runner, only: str = "") -> None:
    """
    Start the site's programs; those that run are left alone.
    """
    operations.supervise(runner, build.start, only)


@host_task(help=_ONLY)
def stop(runner: Runner, only: str = "") -> None:
    """
    Stop the site's programs; a second run finds them stopped.
    """
    operations.supervise(runner, build.stop, only)


@host_task()
def restart(runner: Runner) -> None:
    """
    Restart the site's programs on the current release.

    A changed file is taken up. Waits until every program stays up.
    """
    operations.restart_programs(runner)


@host_task()
def status(runner: Runner) -> None:
    """
    Show what supervisor says of the site's programs.
    """
    settings = runner.site.settings
    runner.ask(build.status(settings, operations.supervisord(runner)))


@host_task(help={"only": "The program: web, or a name of processes.", "lines": "Number of lines."})
def logs(runner: Runner, only: str = "web", lines: int = 50) -> None:
    """
    Show the end of a program's log.
    """
    operations.known_program(runner, only)
    runner.ask(build.logs(runner.site.settings, operations.supervisord(runner), only, lines))
