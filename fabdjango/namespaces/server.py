"""
The host itself, beside the site that it serves: what setup finds there, and who may do what.
"""

from __future__ import annotations

from fabdjango import programs, provisioning
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["doctor", "plan", "sudoers"]


@host_task()
def plan(runner: Runner) -> None:
    """
    Show what is there, and what setup would change.

    Part by part, with the difference to every file. Writes nothing, and needs
    root as setup does.
    """
    provisioning.show(runner)


@host_task(help={"install": "Bring the list onto the host; needs a login as root, or full sudo."})
def sudoers(runner: Runner, install: bool = False) -> None:
    """
    Show what the site's owner may do as root.

    The list names programs that belong to root, one for each deed that a
    deployment needs root for; sudo lets the owner run these and nothing else.
    With --install the programs and the list come onto the host; a second run
    changes nothing. A change of the settings makes another list.
    """
    programs.sudoers(runner, install=install)


@host_task()
def doctor(runner: Runner) -> None:
    """
    Try to get more rights than a deployment needs.

    From the account that owns the site: by sudo, by what root reads and runs,
    and by the services of root. Nothing that serves is touched, and what is
    made for a try is taken away. The exit code is 1 if one of them is open.
    """
    programs.doctor(runner)
