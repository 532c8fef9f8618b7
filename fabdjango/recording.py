"""
A transport that runs nothing: for tests of tasks, ours and those of people who write plugins.

    transport = RecordingTransport({"survey": facts})
    call(fabdjango.git["status"], runner(transport), ref="main")
    assert transport.transcript == "…"
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from invoke.tasks import Task

from fabdjango.body import render_body
from fabdjango.configuration import Layer, resolve
from fabdjango.escape import Redactor, Secret, Shell
from fabdjango.fleet import Fleet
from fabdjango.layout import layout_of
from fabdjango.plan import Phase, Step
from fabdjango.recipes import Private, Site
from fabdjango.render import Templates
from fabdjango.report import Report
from fabdjango.runner import Runner
from fabdjango.script import AWAITING, FAILED, KEPT, REVERTED, Event
from fabdjango.transport import Account, Listener, PhaseResult, StepResult

__all__ = ["RecordingTransport", "call", "runner"]


class RecordingTransport:
    """
    Keeps the shell of every step, in the form for a reader, and answers from a table.

    ``answers`` maps a step's name to its output, or to an exit status if it is
    to fail, or to the bytes that it fetches. Steps without an answer end well and print nothing.
    """

    host = "web1.example.com"

    def __init__(self, answers: Mapping[str, str | int | bytes] | None = None) -> None:
        self._answers = dict(answers or {})
        self._lines: list[str] = []

    @property
    def transcript(self) -> str:
        """Everything that would have run: phases, steps and their shell."""
        return "\n".join(self._lines) + "\n" if self._lines else ""

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:  # noqa: ARG002 - the protocol's form
        """
        Record ``phase`` and answer; after a step that fails, the undo is recorded too.

        A detached phase ends as AWAITING at a step that waits for the deployer's word.
        """
        result = PhaseResult(phase, 0, run="R0" if phase.record else "", record=phase.record)
        self._lines.append(f"== {phase.name}" + (" (locked)" if phase.lock else ""))
        self._go_on(result, listener)
        return result

    def settle(
        self,
        result: PhaseResult,
        decision: Step,
        then: Phase | None,
        account: Account,
        listener: Listener,
        begin: Callable[[Phase], None] | None = None,
    ) -> tuple[PhaseResult, PhaseResult | None]:
        """Record the decision, the rest of the activation (its undo, if the decision is called ``revert``) and ``then``."""
        self._lines.append("== settle")
        self._record(decision)
        if decision.name == "revert":
            self._undo(result, REVERTED)
        else:
            self._go_on(result, listener, settled=True)
        if then is None or result.status != 0:
            return result, None
        if begin:
            begin(then)
        return result, self.run(then, account, listener)

    def follow(self, record: PurePosixPath, run: str, phase: Phase, listener: Listener) -> PhaseResult:
        """Record that an activation would be followed, and answer for its steps."""
        self._lines.append(f"== follow {run} in {record}")
        result = PhaseResult(phase, 0, run=run, record=record)
        self._go_on(result, listener)
        return result

    def release(self) -> None:
        """Nothing is held."""

    def interrupt(self) -> None:
        """Nothing takes long enough."""

    def reconnect(self) -> None:
        """Record that somebody logs in anew."""
        self._lines.append("== log in anew")

    def _go_on(self, result: PhaseResult, listener: Listener, *, settled: bool = False) -> None:
        phase, result.status = result.phase, 0
        names = [step.name for step in phase.steps]
        for number in range(len(result.steps), len(phase.steps)):
            step = phase.steps[number]
            self._record(step)
            answer = self._answers.get(step.name, "")
            status = answer if isinstance(answer, int) else 0
            done = StepResult(str(number), step.name, status, answer if isinstance(answer, str) else "")
            done.data = answer if isinstance(answer, bytes) else b""
            result.steps.append(done)
            listener(Event("end", str(number), str(status)), done)
            if status and phase.kept_from and number >= names.index(phase.kept_from):
                result.status = KEPT
            elif status:
                serving = phase.serving_from and number >= names.index(phase.serving_from)
                undone = number >= (names.index(phase.undo_from) if phase.undo_from else 0)
                self._undo(result, REVERTED if serving else FAILED, undone=undone or bool(serving))
                break
            elif phase.record and not settled and "report await" in step.body:
                result.status, result.awaits = AWAITING, 0
                break

    def _record(self, step: Step) -> None:
        who = f" as {step.user}" if step.user else ""
        self._lines.append(f"-- {step.name}{who}: {step.title}")
        body = render_body(step, shown=True)
        if body:
            self._lines.append(str(body))

    def _undo(self, result: PhaseResult, status: int, *, undone: bool = True) -> None:
        result.status = status
        self._lines += [f"-- undo: {each.title}" for each in result.phase.undo if undone]

    def interact(self, command: Shell) -> int:
        """Record a command that would get a terminal."""
        self._lines.append(f"== terminal\n{command}")
        return 0


def runner(
    transport: RecordingTransport,
    values: Mapping[str, Any],
    *,
    env: Mapping[str, str] | None = None,
    own: Mapping[str, str] | None = None,
    local_settings: str | None = None,
    account: Account | None = None,
    dry: bool = False,
) -> Runner:
    """
    A Runner for ``transport``; ``values`` is what fabric.yaml has below ``fabdjango:``.

    ``env`` is what the environment file says, ``own`` the secrets of the operator's side, ``local_settings`` the module.
    """
    settings = resolve([Layer("fabric.yaml", values)]).settings
    secrets, file = ({name: Secret(value) for name, value in (each or {}).items()} for each in (own, env))
    site = Site(
        settings,
        layout_of(settings),
        Templates(Path(), {}),
        transport.host,
        f"deploy@{transport.host}",
        "ann@laptop",
        private=lambda: Private(secrets, file, local_settings),
    )
    report = Report(transport.host, Redactor([*(env or {}).values(), *(own or {}).values()]), stream=io.StringIO())
    return Runner(site, transport, account or Account("deploy", "deploy"), report, dry)


def call(task: Task[Any], *targets: Runner, **arguments: object) -> None:
    """
    Run the function behind a task for ``targets``, without Fabric and without turning errors into exit codes.

    A task of a fleet takes them all, the first one as the primary; any other takes one.
    """
    function: Any = inspect.unwrap(task.body)
    if getattr(task, "is_of_fleet", False):
        primary = targets[0]
        fleet = Fleet(targets, primary.report, primary=primary.site.host, parallel=1, batch="1")
        function(fleet, **arguments)
        return
    (target,) = targets
    function(target, **arguments)
