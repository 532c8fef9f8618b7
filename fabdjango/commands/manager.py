"""What runs the site's programs: supervisor or systemd, with the same verbs and the same guarantees."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from fabdjango.escape import Shell
from fabdjango.plan import ROOT, Put, Step

__all__ = ["JOB", "MARK", "SLOTS", "WEB", "Manager", "Source", "mark_of", "other_slot", "several", "socket_suffix"]

SLOTS = ("a", "b")
"""The two places where an application server can run."""
WEB = "web"
"""What gunicorn's program is called beside the names of fabdjango.processes."""
JOB = "job"
"""What the programs of fabdjango.schedule are called before their names."""
MARK = "Managed by fabdjango"
"""What the first line of every file of ours begins with, after the sign of a comment."""


def mark_of(project: str) -> str:
    """The whole first line of a file of this site's, after the sign of a comment: no other site's begins as it does."""
    return f"{MARK} for {project}; local edits are overwritten."


def several(command: str) -> bool:
    """True for a shell line of more than one command: a shell that waits for its last one does not pass a signal on."""
    return bool(re.search(r"[;&|<>\n()]", command))


def socket_suffix(held: str) -> str:
    """
    What the name of the held socket ends with: another address has another name, so that it can be opened beside the old one.

    ``held`` is host:port or unix:/path.
    """
    if held.startswith("unix:"):
        return "socket"
    host, _, port = held.rpartition(":")
    return port if host in ("127.0.0.1", "localhost") else f"{re.sub('[^0-9a-zA-Z.]', '_', host) or 'any'}-{port}"


def other_slot(slot: str) -> str:
    """The slot beside ``slot``; ``a`` beside none."""
    return "b" if slot == "a" else "a"


@dataclass(frozen=True)
class Source:
    """
    Where a program's output is: a ``unit`` of systemd's journal, or the file at ``path``.

    ``user`` is who may read it.
    """

    name: str
    unit: str = ""
    path: PurePosixPath = PurePosixPath()
    user: str = ROOT


class Manager(Protocol):
    """
    The programs of one site on one host.

    They are a slot ``a`` and a slot ``b`` of gunicorn, one program for each of fabdjango.processes, and what starts
    each job of fabdjango.schedule by the clock. Every method gives steps and runs nothing.

    A slot's program is ``/bin/sh <root>/run/slot SLOT FD``. It runs the release that ``<root>/slots/SLOT`` points
    to, and waits quietly while there is no such link, so that both may be started when the host boots. FD is the
    number of the listening socket that the manager itself holds (``held``, an address such as 127.0.0.1:8000 or
    unix:/path, or empty for none: then a proxy connects to the slot's own socket). A program of fabdjango.processes is
    ``/bin/sh <root>/current/.fabdjango/process-NAME``, a job ``…/job-NAME``; a run of one that has begun is never ended
    by a deploy.
    """

    @property
    def name(self) -> str:
        """What it is called in a report."""
        ...

    @property
    def files(self) -> tuple[Put, ...]:
        """Unit or program files, as they should be on the host."""
        ...

    @property
    def held(self) -> str:
        """The listening address that the manager keeps open, or empty."""
        ...

    @property
    def needs_uv(self) -> bool:
        """True if it is itself installed below the root, which the site's own uv does if there is one."""
        ...

    def install(self) -> tuple[Step, ...]:
        """Make the manager itself be there and run; nothing is applied. Raises FabdjangoError with the cure if it cannot be."""
        ...

    def check(self) -> Step:
        """``manager-check``: let the manager's own parser read ``files`` before they are installed."""
        ...

    def configure(self) -> Step:
        """``configure``: install ``files`` and let the manager know them; no program is started, stopped or restarted by it."""
        ...

    def as_before(self) -> Shell:
        """
        Shell for any account that ends a step as unchanged if the manager has taken ``files`` in as they are on the host.

        Only where no step before it in the same shell has changed one.
        """
        ...

    def restore(self, previous: tuple[Put | None, ...]) -> Step:
        """``configure-back``: ``files`` as they were before, None for one that was not there; programs run on."""
        ...

    def start_slot(self, slot: str, *, name: str = "start") -> Step:
        """Stop what is left in a slot and start it anew, on the newest files; ends when the process is there."""
        ...

    def stop_slot(self, slot: str, *, name: str = "stop-old") -> Step:
        """Stop a slot: TERM, graceful_timeout and 10 more seconds, KILL. One that does not run is unchanged."""
        ...

    def restart_processes(self, *, name: str = "processes", back: tuple[Put | None, ...] | None = None) -> Step | None:
        """
        Every program of fabdjango.processes anew, on the newest files, and the clock for fabdjango.schedule.

        Each is stopped with its own stop_timeout, then started and waited for until it has been up for its startsecs.
        Programs and timers of the site that the settings no longer have are stopped. With ``back``, the files as
        restore has put them back, those run again. None if there is nothing to do.
        """
        ...

    def tidy(self) -> Step | None:
        """``tidy``: what the settings no longer have is taken away, once there is no way back; None if nothing can be."""
        ...

    def run_job(self, name: str) -> Step:
        """``job``: one run of a job as the clock would start it, with its output and its status; LEFT_OUT if it runs."""
        ...

    def start(self, only: str = "", slot: str = "a") -> Step:
        """``start``: the slot and the processes, or one of them (``web`` or a name); those that run are left alone."""
        ...

    def stop(self, only: str = "") -> Step:
        """``stop``: both slots and all processes, or one of them; those that do not run are left alone."""
        ...

    def status(self) -> Step:
        """``status``: what the manager says of the site's programs; status 0 also if some do not run."""
        ...

    def logs(self, only: str, lines: int) -> Step:
        """``logs``: the end of one program's log; ``web`` is both slots."""
        ...

    def sources(self, only: str = "") -> tuple[Source, ...]:
        """Where the output of all programs and jobs is, or of one of them (``web`` or a name)."""
        ...

    def tail(self, count: int = 40, *, slot: str = "") -> Step:
        """``log``: the end of every log of the site, of one ``slot`` only if given, captured for a failure's report; never fails."""
        ...
