"""The maintenance page."""

from __future__ import annotations

from fabdjango import webserver
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["off", "on"]


@host_task()
def on(runner: Runner) -> None:
    """
    Answer every visitor with 503 and the maintenance page.

    Static files stay reachable. nginx is not reloaded; it is asked whether it
    shows the page. A second run changes nothing. Reads nginx.maintenance_page.
    """
    webserver.maintenance_on(runner)


@host_task()
def off(runner: Runner) -> None:
    """
    Answer visitors with the site again.

    nginx is asked whether the maintenance page is gone. A second run changes
    nothing.
    """
    webserver.maintenance_off(runner)
