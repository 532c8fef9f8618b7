"""What the operator sees of many hosts at once: a line for each host that changes in place, plain lines with prefixes, or JSON."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, Literal, TextIO

from fabdjango.escape import Redactor
from fabdjango.plan import Phase
from fabdjango.report import Report, printable
from fabdjango.script import Event
from fabdjango.transport import StepResult

__all__ = ["Board", "HostReport"]


class Board:
    """
    What all hosts of one run share: the terminal, and what is said of the whole.

    ``form`` is plain, rich or json. With ``verbose`` every step gets its line, else every phase. Safe to be told
    things from many threads.
    """

    def __init__(
        self,
        redactor: Redactor,
        *,
        form: Literal["plain", "rich", "json"] = "plain",
        verbose: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.redactor = redactor
        self.form = form
        self.verbose = verbose
        self.stream = stream or sys.stdout
        self._lock = threading.RLock()
        self._doing: dict[str, tuple[str, float]] = {}
        self._live: Any = None
        self._fleet = Report("", redactor, form="json" if form == "json" else "plain", stream=self.stream)

    def report_of(self, host: str) -> HostReport:
        """The report of one of the hosts."""
        return HostReport(host, self)

    def say(self, text: str, *, style: str = "") -> None:
        """A line about all hosts."""
        if self.form == "json":
            with self._lock:
                self._fleet.say(text)
        else:
            for line in text.split("\n"):
                self.write(self.redactor.hide(line), style)

    def write(self, text: str, style: str = "") -> None:
        """One line that has been through the redactor."""
        with self._lock:
            if self.form != "rich":
                encoding = getattr(self.stream, "encoding", None) or "utf-8"
                self.stream.write(printable(text).encode(encoding, "replace").decode(encoding) + "\n")
                self.stream.flush()
                return
            from rich.text import Text

            self._console().print(Text(printable(text), style=style))

    def doing(self, host: str, text: str) -> None:
        """What a host does now; empty if it does nothing."""
        if self.form != "rich":
            return
        with self._lock:
            if text:
                self._doing[host] = (text, self._doing.get(host, ("", time.monotonic()))[1])
            else:
                self._doing.pop(host, None)
            self._console()

    def began(self, host: str) -> None:
        """Count the seconds of a host anew."""
        with self._lock:
            self._doing[host] = ("", time.monotonic())

    def close(self) -> None:
        """No more is to come."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _console(self) -> Any:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.stream, highlight=False, soft_wrap=True)
            self._live = Live(get_renderable=self._lines, console=console, refresh_per_second=8, transient=True)
            self._live.start()
        return self._live.console

    def _lines(self) -> Any:
        from rich.table import Table

        now = time.monotonic()
        grid = Table.grid(padding=(0, 2))
        with self._lock:
            for host, (text, since) in self._doing.items():
                if text:
                    grid.add_row(printable(host), f"{now - since:4.0f}s", printable(text)[:100])
        return grid


class HostReport(Report):
    """One host on the board: a line when a phase ends, what is out of the ordinary at once."""

    def __init__(self, host: str, board: Board) -> None:
        super().__init__(host, board.redactor, form="json" if board.form == "json" else "plain", stream=board.stream)
        self._board = board
        self._began = time.monotonic()
        self._steps = self._unchanged = 0

    def begin(self, phase: Phase) -> None:
        """A phase is about to run."""
        super().begin(phase)
        self._began = time.monotonic()
        self._steps = self._unchanged = 0
        self._board.began(self.host)

    def turn(self, name: str) -> None:
        """The phase goes on under another name; its steps are counted anew."""
        self._phase = name
        self._began = time.monotonic()
        self._steps = self._unchanged = 0
        self._board.began(self.host)

    def end(self, *, ok: bool) -> None:
        """The phase is over: one line."""
        if self._form == "json":
            self._json("phase", text="ok" if ok else "failed", seconds=round(time.monotonic() - self._began, 3))
            return
        steps = f"{self._steps} steps" + (f", {self._unchanged} unchanged" if self._unchanged else "")
        word = "ok    " if ok else "failed"
        self._line(f"{word}  {time.monotonic() - self._began:.1f}s  {steps}", style="green" if ok else "bold red")
        self._spin("")

    def _ended(self, step: StepResult, title: str) -> None:
        self._steps += 1
        self._unchanged += step.unchanged is not None
        # That it was not confirmed is what a host is told when it shall go back.
        if self._board.verbose or (step.status != 0 and (self._phase, step.name) != ("revert", "await")):
            super()._ended(step, title)

    def event(self, event: Event, step: StepResult | None) -> None:
        """Something that the running script said."""
        self._verbose = self._board.verbose
        super().event(event, step)

    def say(self, text: str, *, style: str = "") -> None:
        """A line of this host's own."""
        if self._form == "json":
            super().say(text)
        else:
            for line in text.strip("\n").split("\n"):
                self._write(self.redactor.hide(f"[{self.host}] {line}"), style)

    def show(self, text: str) -> None:
        """Output that was asked for, behind the host's name."""
        if self._form == "json":
            super().show(text)
            return
        for line in text.rstrip("\n").split("\n"):
            self._write(self.redactor.hide(f"[{self.host}] {line}"))

    def close(self) -> None:
        """No more is to come from this host."""
        self._board.doing(self.host, "")

    def _write(self, text: str, style: str = "") -> None:
        self._board.write(text, style)

    def _json(self, kind: str, **values: object) -> None:
        with self._board._lock:  # noqa: SLF001 - the board's own
            super()._json(kind, **values)

    def _spin(self, text: str) -> None:
        self._board.doing(self.host, self.redactor.hide(f"{self._phase} {text}") if text else "")


def columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Rows of cells as lines, every column as wide as its widest cell."""
    found = list(rows)
    widths = [max(map(len, cells)) for cells in zip(*found, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in found]
