"""Variables of the site's environment that are kept on the hosts."""

from __future__ import annotations

from fabdjango import variables
from fabdjango.fleet import Fleet
from fabdjango.runner import Runner
from fabdjango.tasking import fleet_task, host_task

__all__ = ["list", "set", "unset"]

_NAME = {"name": "Name of the variable.", "no_restart": "Leave it to the next release; what serves goes on as it is."}


@fleet_task(help=_NAME, asks="Change the environment of")
def set(fleet: Fleet, name: str, no_restart: bool = False) -> None:  # noqa: A001 - the name of the task
    """
    Set a variable of the environment; the value is asked for.

    It is typed unseen, or comes on standard input, and is kept in shared/.env
    on every host. The commit that serves is made into a new release with it,
    which must answer before it gets the traffic, as in a deploy; otherwise
    everything stays as it was. Without a change, nothing is done.

    Exit code: as of deploy. Refused where the operator's settings set it.
    """
    variables.set_variable(fleet, name, restart=not no_restart)


@fleet_task(help=_NAME, asks="Change the environment of")
def unset(fleet: Fleet, name: str, no_restart: bool = False) -> None:
    """
    Remove a variable from the environment.

    The same way as set. One that was made on the host, or that the settings
    give, is not removed.
    """
    variables.unset_variable(fleet, name, restart=not no_restart)


@host_task()
def list(runner: Runner) -> None:  # noqa: A001 - the name of the task
    """
    List the site's variables, and where each is from.

    Names only. A variable that what serves has not got, or that the next
    release will not have, is marked. Only reads.
    """
    variables.list_variables(runner)
