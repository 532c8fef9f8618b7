"""One host of a deployment: phases run there, and what a phase that did not end well means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fabdjango.commands import activation
from fabdjango.diagnosis import cure_for, excerpt, since_start
from fabdjango.escape import visible
from fabdjango.exceptions import (
    CommandError,
    FabdjangoError,
    RevertedError,
    StepFailedError,
    UnderwayError,
    UnknownStateError,
)
from fabdjango.plan import Phase, Step
from fabdjango.recipes import Site
from fabdjango.report import Report
from fabdjango.script import AWAITING, KEPT, LOCKED, REVERT_FAILED, REVERTED, UNDERWAY, Event
from fabdjango.transport import Account, PhaseResult, StepResult, Transport

__all__ = ["Runner"]


@dataclass
class Runner:
    """One host: where phases run, as whom, and who is told."""

    site: Site
    transport: Transport
    account: Account
    report: Report
    dry: bool = False

    def do(self, *steps: Step) -> PhaseResult:
        """Run steps that write as a phase of their own, under the site's lock."""
        return self.run(Phase(steps[0].name, steps, lock=self.site.lock))

    def ask(self, *steps: Step) -> None:
        """Run steps that only read, and print what they find."""
        self._print(Phase(steps[0].name, _captured(steps), reads_only=True))

    def call(self, *steps: Step) -> None:
        """Run commands of the project's, which may do anything, and print their output."""
        self._print(Phase(steps[0].name, _captured(steps)))

    def watch(self, step: Step, *, reads_only: bool = False) -> StepResult | None:
        """
        Run one step and print each line as it comes, with what would steer the terminal made visible.

        Raises CommandError with its status, and its last note, if it fails. None in a dry run, unless it ``reads_only``.
        """
        phase = Phase(step.name, _captured([step]), reads_only=reads_only)

        def listen(event: Event, _: StepResult | None) -> None:
            if event.kind == "output":
                self.report.show(visible(event.text))

        result = self.transport.run(phase, self.account, listen)
        failed = result.failed
        if result.status == 0 or failed is None or failed.status is None:
            if result.status != 0:
                raise self.error(result)
            return result.step(step.name)
        said = failed.notes[-1] if failed.notes else f"ended with status {failed.status}: {step.title}"
        raise CommandError(self.report.redactor.hide(said), exit_code=failed.status, host=self.site.host)

    def fetch(self, step: Step) -> StepResult:
        """Run a step that only reads, of which nothing is told but its failure."""
        (done,) = self.quietly(Phase(step.name, (step,), reads_only=True)).steps
        return done

    def give(self, step: Step) -> StepResult | None:
        """Run a step that writes something beside the site, of which nothing is told but its failure; None in a dry run."""
        return self.quietly(Phase(step.name, (step,))).step(step.name)

    def quietly(self, phase: Phase) -> PhaseResult:
        """Run a phase of which nothing is told; raises the error that fits if it fails."""
        result = self.transport.run(phase, self.account, lambda *_: None)
        if result.status != 0:
            raise self.error(result)
        return result

    def _print(self, phase: Phase) -> None:
        for step in self.run(phase).steps:
            if step.output:
                self.report.show(step.output)

    def run(self, phase: Phase) -> PhaseResult:
        """
        Run ``phase``; raises the error that fits if a step fails or the link breaks.

        The status may also be AWAITING: then the host waits for settle.
        """
        self.report.begin(phase)
        result = self.transport.run(phase, self.account, self.report.event)
        self.report.end(ok=result.status in (0, AWAITING))
        if result.status not in (0, AWAITING):
            raise self.error(result)
        return result

    def settle(self, result: PhaseResult, tidy: Phase | None) -> None:
        """
        Confirm an activation that waits for it, follow it to its end, and run ``tidy`` in the same session.

        Raises the error that fits; what was left undone is a warning, because the release serves.
        """
        step = activation.confirm(self.site.layout)
        self.report.turn("confirm")
        ended, tidied = self.transport.settle(result, step, tidy, self.account, self.report.event, self.report.begin)
        self.report.end(ok=ended.status in (0, KEPT))
        if ended.status == KEPT and ended.failed:
            self._warn(ended, "the release serves")
        elif ended.status != 0:
            raise self.error(ended)
        if tidied and tidied.status != 0:
            self._warn(tidied, "the release serves, old ones were not removed")

    def take_back(self, result: PhaseResult) -> None:
        """
        Let an activation that waits to be confirmed go back to the release before, and follow it to its end.

        Raises UnknownStateError if that is not how it ended.
        """
        step = activation.revert(self.site.layout)
        self.report.turn("revert")
        ended, _ = self.transport.settle(result, step, None, self.account, self.report.event)
        self.report.end(ok=ended.status == REVERTED)
        if ended.status == REVERTED:
            return
        if ended.status in (0, KEPT):
            target = self.site.target
            raise UnknownStateError(
                "the new release stays: somebody else has confirmed it",
                host=self.site.host,
                state="the new release serves",
                cure=f"fab -H {target} status\nor back: fab -H {target} rollback",
            )
        raise self.error(ended)

    def _warn(self, result: PhaseResult, state: str) -> None:
        step = result.failed
        what = f"{step.name} failed" if step else "the connection broke"
        said = f": {self.report.redactor.hide(excerpt(step.output))}" if step and step.output.strip() else ""
        self.report.say(f"warning: {what}{said}; {state}", style="yellow")

    def error(self, result: PhaseResult) -> FabdjangoError:
        """What a phase that did not end well means."""
        phase, host, target = result.phase, self.site.host, self.site.target
        step = result.failed
        known = phase.labelled.get(step.label) if step else None
        title = known.title if known else step.name if step else ""
        output = self.report.redactor.hide(step.output if step else "")
        if result.status is None:
            return self._lost(phase, title)
        if result.status == LOCKED:
            who = output.strip() or "somebody"
            return StepFailedError(
                f"another deployment of {self.site.settings.project} is running: {who}",
                host=host,
                cure="wait for it to end, or let this one wait: fab … deploy --wait 600\n"
                "the lock goes with its process, nobody has to remove it",
            )
        if result.status == UNDERWAY:
            return UnderwayError(
                f"an activation of {self.site.settings.project} that lost its deployer is still under way",
                run=result.run,
                record=result.record,
                host=host,
                output=output,
                cure=f"it ends by itself; or take it up: fab -H {target} deploy --resume",
            )
        if step is None:
            return FabdjangoError(
                f"the host's shell ended with status {result.status} before a step ran",
                host=host,
                output=output,
                cure="is the account's login shell in order? ssh there and run: sh -c true",
            )
        log = result.step("log")
        logged = since_start(log.output) if log else ""
        cure = cure_for(step.name, output) or cure_for("log", logged) or (known.cure if known else "")
        if step.name == "lock":
            login = self.account.login
            owner = self.account.owner or login
            for word, told in (("HOST", host), ("ACCOUNT", owner), ("FOLDER", str(self.site.layout.root))):
                cure = cure.replace(word, told)
            if login not in ("root", owner):
                # Why sudo refused is not told by the step, and is the likelier reason.
                cure = f"see whether {login} may become {owner} without a password: sudo -n -u {owner} true\n{cure}"
        shown = excerpt(output)
        if logged.strip():
            shown += "\nthe end of the program's log:\n" + self.report.redactor.hide(excerpt(logged))
        message = f"{step.name} failed" + (f" with status {step.status}" if step.status not in (1, None) else "")
        if 0 < len(shown) <= _A_LINE and "\n" not in shown:
            # What our own programs refuse, they refuse in one line: then that is the message.
            message, shown = f"{message}: {shown}", ""
        if result.status == REVERTED:
            return RevertedError(
                message, host=host, step=title, output=shown, state=self._state_after_revert(phase), cure=cure
            )
        if result.status == REVERT_FAILED:
            failed = [each for each in result.steps if each.label.startswith("u") and each.status != 0]
            names = ", ".join(each.name for each in failed)
            shown += "\nthe way back failed too:\n" + "\n".join(
                self.report.redactor.hide(excerpt(each.output)) for each in failed
            )
            return UnknownStateError(
                f"{message}, and so did the way back ({names})",
                host=host,
                step=title,
                output=shown,
                cure=f"fab -H {target} status\nfab -H {target} supervisor.logs",
            )
        state = _state_after(result, step)
        return StepFailedError(message, host=host, step=title, output=shown, state=state, cure=cure)

    def _lost(self, phase: Phase, title: str) -> FabdjangoError:
        host = self.site.host
        cure = f"look: fab -H {self.site.target} status\nthen deploy again: what is half-done is cleared first"
        message = f"the connection broke during {title or phase.name}"
        if phase.serving_from:
            return UnknownStateError(message, host=host, step=title, cure=cure, lost=True)
        error = StepFailedError(message, host=host, step=title, state="nothing that serves was touched", cure=cure)
        error.lost = True
        return error

    def _state_after_revert(self, phase: Phase) -> str:
        back = any(step.name == "health-back" for step in phase.undo)
        return (
            "reverted: the previous release serves again, and was asked"
            if back
            else "reverted: there was no release before, and none is current now"
        )


def _captured(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(replace(step, capture=True) for step in steps)


_A_LINE = 160


def _state_after(result: PhaseResult, step: StepResult) -> str:
    phase = result.phase
    served = not phase.serving_from or any(each.name == "health-back" for each in phase.undo)
    as_before = "the site serves what it did before" if served else "nothing serves, as before"
    migrated = result.step("migrate")
    if migrated and (migrated.status != 0 or not migrated.unchanged):
        applied = "were applied" if migrated.status == 0 else "may have been applied in part"
        return f"{as_before}; migrations {applied}"
    if step.name in ("first-deploy", "before_migrate", "after_migrate"):
        return as_before
    return "nothing that serves was touched"
