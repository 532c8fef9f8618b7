"""Events to what the operator sees: a line a step, live on a terminal, plain elsewhere, or JSON. Every word is redacted."""

from __future__ import annotations

import difflib
import json
import re
import sys
from typing import Any, Literal, TextIO

from fabdjango.body import render_body
from fabdjango.escape import Redactor
from fabdjango.plan import Phase, Put
from fabdjango.script import Event
from fabdjango.transport import StepResult

__all__ = ["Report", "difference", "printable"]


class Report:
    """
    What one run tells its operator about one host.

    ``form`` is plain, rich or json. ``verbose`` shows every line that steps
    print. Nothing leaves without passing ``redactor``.
    """

    def __init__(
        self,
        host: str,
        redactor: Redactor,
        *,
        form: Literal["plain", "rich", "json"] = "plain",
        verbose: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.host = host
        self.redactor = redactor
        self._form = form
        self._verbose = verbose
        self._stream = stream or sys.stdout
        self._titles: dict[str, str] = {}
        self._capture: set[str] = set()
        self._phase = ""
        self._status: Any = None
        self._console: Any = None
        if form == "rich":
            from rich.console import Console

            self._console = Console(file=self._stream, highlight=False, soft_wrap=True)

    @property
    def is_json(self) -> bool:
        """True if a program reads it."""
        return self._form == "json"

    def begin(self, phase: Phase) -> None:
        """A phase is about to run."""
        self._phase = phase.name
        self._titles = {label: step.title for label, step in phase.labelled.items()} | {"lock": "lock the site"}
        self._capture = {label for label, step in phase.labelled.items() if step.capture}

    def turn(self, name: str) -> None:
        """The phase goes on under another name, because of what was decided; of one host its steps tell it."""

    def end(self, *, ok: bool) -> None:
        """The phase is over; of one host its steps have told it all."""

    def event(self, event: Event, step: StepResult | None) -> None:
        """Something that the running script said."""
        if self._form == "json":
            if event.kind != "output" or event.label not in self._capture:
                self._json(event.kind, step=step.name if step else "", label=event.label, text=event.text)
            return
        title = self._titles.get(event.label, event.text)
        if event.kind == "begin":
            self._spin(title)
        elif event.kind == "output":
            if self._verbose and event.label not in self._capture:
                self._line("  | " + event.text, style="dim")
            elif event.label not in self._capture:
                # Cut after hiding: half a secret would not be known for one.
                self._spin(f"{title}: {self.redactor.hide(event.text)[:100]}")
        elif event.kind == "note":
            self._line("  note: " + event.text, style="yellow")
        elif event.kind == "end" and step is not None:
            self._spin("")
            self._ended(step, title)

    def _ended(self, step: StepResult, title: str) -> None:
        if step.status != 0:
            self._line(f"  failed     {title}  {step.seconds:.1f}s", style="bold red")
        elif step.unchanged is not None:
            self._line(f"  unchanged  {title} ({step.unchanged})", style="dim")
        else:
            self._line(
                f"  ok         {title}  {step.seconds:.1f}s", style="yellow" if step.label.startswith("u") else "green"
            )

    def say(self, text: str, *, style: str = "") -> None:
        """A line of the deployment's own."""
        if self._form == "json":
            self._json("say", text=text)
        else:
            self._line(text, style=style, prefix=False)

    def show(self, text: str) -> None:
        """Output that was asked for, such as a log: as it is, line by line."""
        if self._form == "json":
            self._json("output", text=text)
            return
        for line in text.rstrip("\n").split("\n"):
            self._write(self.redactor.hide(line))

    def doing(self, text: str) -> None:
        """What goes on at this moment; only a terminal shows it."""
        self._spin(text)

    def close(self) -> None:
        """No more is to come."""
        self._spin("")

    def _json(self, kind: str, **values: object) -> None:
        told = {"host": self.host, "phase": self._phase, "kind": kind, **values}
        shown = {name: self.redactor.hide(value) if isinstance(value, str) else value for name, value in told.items()}
        self._stream.write(self.redactor.hide(json.dumps(shown)) + "\n")
        self._stream.flush()

    def _line(self, text: str, *, style: str = "", prefix: bool = True) -> None:
        text = self.redactor.hide(f"[{self.host}] {self._phase:<9}{text}" if prefix else text)
        self._write(text, style)

    def _write(self, text: str, style: str = "") -> None:
        if self._console is not None:
            from rich.text import Text

            self._console.print(Text(printable(text), style=style))
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(printable(text).encode(encoding, "replace").decode(encoding) + "\n")
        self._stream.flush()

    def _spin(self, text: str) -> None:
        if self._console is None:
            return
        if not text:
            if self._status is not None:
                self._status.stop()
                self._status = None
            return
        from rich.text import Text

        shown = Text(printable(self.redactor.hide(f"[{self.host}] {self._phase} {text}")))
        if self._status is None:
            self._status = self._console.status(shown)
            self._status.start()
        else:
            self._status.update(shown)

    # --- dry runs ------------------------------------------------------------

    def show_phase(self, phase: Phase, present: dict[str, Any]) -> None:
        """What a phase would run: every step's shell, and what would become of every file."""
        self.say(f"\n# phase {phase.name} on {self.host}: one session, one script", style="bold")
        for step in phase.steps:
            account = f" (as {step.user})" if step.user else ""
            self.say(f"\n# {step.name}: {step.title}{account}", style="bold")
            for put in step.puts:
                self.show("\n".join(difference(put, present.get(str(put.path)))))
            body = render_body(step, shown=True)
            if body:
                self.show(body)
        if phase.undo:
            since = f"{phase.undo_from} or a later step" if phase.undo_from else "a step"
            self.say(f"\n# if {since} fails: " + "; ".join(step.title for step in phase.undo))


def difference(put: Put, found: Any) -> list[str]:
    """The change that a Put makes to a file, as a unified diff; of a secret file only that it changes."""
    path = str(put.path)
    before = (found or {}).get("digest") or ""
    if before == put.digest:
        return [f"# {path}: unchanged"]
    if put.secret:
        return [f"# {path}: {'changes' if before else 'new'} (secret, not shown), mode {put.mode:o}"]
    text = (found or {}).get("text") or ""
    lines = difflib.unified_diff(
        text.splitlines(), put.content.splitlines(), path if before else "/dev/null", path, lineterm=""
    )
    return [f"# mode {put.mode:o}", *lines]


def printable(text: str) -> str:
    """``text`` without what would steer the terminal."""
    # What a server prints must not move the operator's cursor or recolour the terminal.
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
