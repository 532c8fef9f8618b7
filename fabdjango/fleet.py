"""
The hosts of one deployment: work on all of them at once, and one verdict.

Every host has its Runner, and is worked on by one thread at a time. A fleet of
one host works in the caller's thread, and its errors are told as they are.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from fabdjango.exceptions import ConnectError, FabdjangoError, FleetError, RevertedError, UnknownStateError
from fabdjango.facts import DjangoFacts, Facts
from fabdjango.recipes import Deployment
from fabdjango.runner import Runner
from fabdjango.switchover import Backwards
from fabdjango.transport import PhaseResult

__all__ = ["Fleet", "Member", "Teller"]

T = TypeVar("T")


class Teller(Protocol):
    """Where a line about all hosts goes: the report of the only one, or the board."""

    def say(self, text: str, *, style: str = "") -> None:
        """Tell a line."""
        ...


@dataclass
class Member:
    """
    One host on its way to a release: what is known of it so far.

    ``leads`` is the primary: it migrates, and switches first. ``waiting`` is an
    activation that has the traffic and waits to be confirmed. ``fate`` is one
    word for how it ended: empty for not touched, new, back, unknown.
    """

    runner: Runner
    leads: bool = False
    facts: Facts = field(default_factory=Facts)
    plan: Deployment | None = None
    found: DjangoFacts = field(default_factory=DjangoFacts)
    backwards: Backwards | None = None
    serves: bool = False
    """It serves what it shall already."""
    waiting: PhaseResult | None = None
    error: FabdjangoError | None = None
    fate: str = ""

    @property
    def host(self) -> str:
        """Its name."""
        return self.runner.site.host

    @property
    def planned(self) -> Deployment:
        """Its plan; every member has one once all have been surveyed."""
        assert self.plan is not None  # noqa: S101 - for the type checker
        return self.plan

    @property
    def state(self) -> str:
        """What it serves, for the table."""
        old, new = self.facts.current or "nothing", self.plan.release if self.plan else ""
        if self.fate == "new" or self.serves:
            return f"serves {new}" + (", as before" if self.serves and self.fate != "new" else "")
        if self.fate == "back":
            return f"serves {old} again"
        if self.fate == "unknown":
            return f"unknown: {old} or {new}"
        if isinstance(self.error, ConnectError):
            return "cannot be reached, and was not touched"
        return f"serves {old}, as before"


class Fleet:
    """
    All hosts of one deployment.

    ``parallel`` is how many are worked on at once, ``batch`` how many switch at
    once once the primary has. ``tell`` hears what concerns them all.
    """

    def __init__(
        self, runners: Sequence[Runner], tell: Teller, *, primary: str = "", parallel: int = 20, batch: str = "25%"
    ) -> None:
        self.members = [Member(each, leads=each.site.host == primary or len(runners) == 1) for each in runners]
        self.tell = tell
        self.skipped: list[Member] = []
        self.interrupted = False
        """Ctrl-C was pressed: nothing new begins, and what has switched goes back."""
        self._parallel = parallel
        self._batch = batch

    @property
    def alone(self) -> bool:
        """True for one host, whose errors and lines need no table."""
        return len(self.members) + len(self.skipped) == 1

    @property
    def leader(self) -> Member | None:
        """The primary, unless it was left out."""
        return next((each for each in self.members if each.leads), None)

    @property
    def dry(self) -> bool:
        """Nothing is written anywhere."""
        return self.members[0].runner.dry

    def batches(self, members: Iterable[Member]) -> list[list[Member]]:
        """Who switches together: the primary by itself, then as many at once as ``batch`` says."""
        rest = [each for each in members if not each.leads]
        first = [[each] for each in members if each.leads]
        size = batch_size(self._batch, len(self.members))
        return [*first, *(rest[at : at + size] for at in range(0, len(rest), size))]

    def each(
        self,
        deed: Callable[[Member], object],
        members: Iterable[Member] | None = None,
        *,
        watching: bool = False,
    ) -> list[Member]:
        """
        Do something on every host at once, and wait for all; those on which it failed, with their ``error``.

        Ctrl-C ends what may end at any time; a switch goes on to its end. A second one stops watching. With
        ``watching``, that is all there is to it: no host waits for another one, and Ctrl-C is not worth a word.
        """
        todo = list(self.members if members is None else members)
        if self.alone:
            for member in todo:
                _attempt(deed, member)
        elif todo:
            # Threads that a second Ctrl-C has left behind must not keep the process.
            with _Pool(len(todo) if watching else min(self._parallel, len(todo))) as pool:
                futures = [pool.submit(_attempt_among_others, deed, member) for member in todo]
                pool.finish(futures, todo, (lambda: None) if watching else self._interrupt)
        return [member for member in todo if member.error]

    def _interrupt(self) -> None:
        self.tell.say(
            "you stop watching: hosts that have switched go back by themselves"
            if self.interrupted
            else "interrupted: a switch that has begun goes on to its end, then all go back; Ctrl-C again stops watching",
            style="yellow",
        )
        self.interrupted = True

    def need(self, failed: Sequence[Member], what: str) -> None:
        """Raise if hosts have failed before anything that serves was touched: of one host its own error, else all of them."""
        if not failed:
            return
        if self.alone:
            assert failed[0].error is not None  # noqa: S101 - for the type checker
            raise failed[0].error
        message = f"{len(failed)} of {len(self.members)} hosts: {what}"
        raise self.verdict(message, state="nothing that serves was touched on any host", exit_code=1)

    def need_all(self, failed: Sequence[Member], what: str) -> None:
        """Raise if something that the operator asked for has failed: of one host its own error, else all of them, and the first exit code."""
        if not failed:
            return
        if self.alone:
            assert failed[0].error is not None  # noqa: S101 - for the type checker
            raise failed[0].error
        codes = [each.error.exit_code for each in failed if each.error]
        raise self.verdict(
            f"{len(failed)} of {len(self.members)} hosts: {what}", state="", exit_code=codes[0], table=[]
        )

    def verdict(
        self, message: str, *, state: str, exit_code: int, cure: str = "", table: Sequence[str] | None = None
    ) -> FleetError:
        """All that failed, with a table of every host unless another one is given."""
        errors = [each.error for each in self.members if each.error]
        table = self.table() if table is None else table
        return FleetError(message, errors, table=table, exit_code=exit_code, state=state, cure=cure)

    def table(self) -> list[str]:
        """A line a host: what it serves."""
        width = max(len(each.host) for each in (*self.members, *self.skipped))
        lines = [f"{each.host:<{width}}  {each.state}" for each in self.members]
        return [*lines, *(f"{each.host:<{width}}  skipped: it cannot be reached" for each in self.skipped)]

    def skip(self, members: Iterable[Member]) -> None:
        """Go on without these."""
        for member in members:
            self.members.remove(member)
            self.skipped.append(member)

    def release(self) -> None:
        """Let go of every host's lock, at once."""
        failed = [member for member in self.members if member.error]
        errors = [member.error for member in failed]
        self.each(lambda member: member.runner.transport.release())
        for member, error in zip(failed, errors, strict=True):
            member.error = error


def batch_size(batch: str, hosts: int) -> int:
    """``1``, ``25%`` or ``all`` as a number of hosts; of a part there is always at least one."""
    if batch == "all":
        return max(hosts, 1)
    if batch.endswith("%"):
        return max(1, hosts * int(batch[:-1]) // 100)
    return int(batch)


def _attempt(deed: Callable[[Member], object], member: Member) -> None:
    try:
        deed(member)
    except FabdjangoError as error:
        member.error = error
    if isinstance(member.error, UnknownStateError):
        member.fate = "unknown"
    elif isinstance(member.error, RevertedError):
        member.fate = "back"


def _attempt_among_others(deed: Callable[[Member], object], member: Member) -> None:
    """The same; what nobody foresaw on one host must not keep the others from being put back."""
    try:
        _attempt(deed, member)
    except Exception as error:  # noqa: BLE001 - told with its traceback
        member.fate = "unknown"
        member.error = UnknownStateError(
            f"a mistake of fabdjango's own: {error!r}", host=member.host, output=traceback.format_exc()
        )


class _Pool(ThreadPoolExecutor):
    """Threads whose work can be called off: by the first Ctrl-C what may end at any time, by the second the watching."""

    def finish(self, futures: Sequence[Future[None]], members: Sequence[Member], interrupt: Callable[[], None]) -> None:
        """Wait until all are done; ``interrupt`` hears of each Ctrl-C."""
        while True:
            try:
                wait(futures)
                break
            except KeyboardInterrupt:
                interrupt()
                for future in futures:
                    future.cancel()
                for member in members:
                    threading.Thread(target=member.runner.transport.interrupt, daemon=True).start()
        for future, member in zip(futures, members, strict=True):
            if future.cancelled():
                kind = UnknownStateError if member.waiting else FabdjangoError
                member.error = kind("interrupted before it began", host=member.host)
                member.fate = "unknown" if member.waiting else member.fate
