"""The site's programs in supervisor."""

from __future__ import annotations

from fabdjango import programs
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["configure", "install", "logs", "remove", "restart", "start", "status", "stop"]

_NAMESPACE = "supervisor"
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
    programs.install(runner, _NAMESPACE)


@host_task()
def configure(runner: Runner) -> None:
    """
    Write the site's programs into a file for supervisor.

    The file is read by supervisor's own parser before it is installed. Programs
    of others are not touched, and ours go on until they are restarted. Reads
    gunicorn, processes and supervisor.
    """
    programs.configure(runner, _NAMESPACE)


@host_task(help=_ONLY)
def start(runner: Runner, only: str = "") -> None:
    """
    Start the site's programs; those that run are left alone.
    """
    programs.start(runner, _NAMESPACE, only)


@host_task(help=_ONLY)
def stop(runner: Runner, only: str = "") -> None:
    """
    Stop the site's programs; a second run finds them stopped.
    """
    programs.stop(runner, _NAMESPACE, only)


@host_task()
def remove(runner: Runner) -> None:
    """
    Stop the site's programs and take their files away.

    The site is down then; releases, settings and data stay. For a change of
    fabdjango.manager, or for good.
    """
    programs.remove(runner, _NAMESPACE)


@host_task()
def restart(runner: Runner) -> None:
    """
    Restart the current release without losing a request.

    It is started in the idle slot, asked, and given the traffic before the
    other one is stopped, as in a deploy. A changed file is taken up. The
    processes are restarted too.
    """
    programs.restart(runner, _NAMESPACE)


@host_task()
def status(runner: Runner) -> None:
    """
    Show what supervisor says of the site's programs.
    """
    programs.status(runner, _NAMESPACE)


@host_task(help={"only": "The program: web, or a name of processes.", "lines": "Number of lines."})
def logs(runner: Runner, only: str = "web", lines: int = 50) -> None:
    """
    Show the end of a program's log.
    """
    programs.logs(runner, _NAMESPACE, only, lines)
