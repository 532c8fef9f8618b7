"""A deployment from survey to verdict: which phase follows, and what a failure means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from fabdjango import recipes, switchover
from fabdjango.commands import activation, git
from fabdjango.diagnosis import cure_for, excerpt, since_start
from fabdjango.exceptions import FabdjangoError, RevertedError, StepFailedError, UnderwayError, UnknownStateError
from fabdjango.facts import DjangoFacts, Facts, read_django, read_facts
from fabdjango.plan import Phase, Step
from fabdjango.recipes import Deployment, Site
from fabdjango.report import Report
from fabdjango.script import AWAITING, KEPT, LOCKED, REVERT_FAILED, REVERTED, UNDERWAY
from fabdjango.switchover import Backwards
from fabdjango.transport import Account, PhaseResult, StepResult, Transport

__all__ = [
    "Runner",
    "activate",
    "begun",
    "deploy",
    "look",
    "look_from_outside",
    "prepared",
    "recovered",
    "show_deploy",
    "take_up",
]

_MANY = 20
"""More migrations than this are told by app."""


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
        if result.status not in (0, AWAITING):
            raise self.error(result)
        return result

    def activate(self, phase: Phase, tidy: Phase) -> None:
        """
        Run a phase that gives the traffic to a release, confirm it, and run ``tidy`` in the same session.

        Raises the error that fits; what was left undone is a warning, because the release serves.
        """
        result = self.run(phase)
        if result.status == AWAITING:
            self.settle(result, tidy)

    def settle(self, result: PhaseResult, tidy: Phase | None) -> None:
        """Confirm an activation that waits for it, and follow it to its end."""
        step = activation.confirm(self.site.layout)
        ended, tidied = self.transport.settle(result, step, tidy, self.account, self.report.event, self.report.begin)
        if ended.status == KEPT and ended.failed:
            self._warn(ended, "the release serves")
        elif ended.status != 0:
            raise self.error(ended)
        if tidied and tidied.status != 0:
            self._warn(tidied, "the release serves, old ones were not removed")

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
            cure = cure.replace("ACCOUNT", owner).replace("FOLDER", str(self.site.layout.root))
            if login not in ("root", owner):
                # Why sudo refused is not told by the step, and is the likelier reason.
                cure = f"see whether {login} may become {owner} without a password: sudo -n -u {owner} true\n{cure}"
        shown = excerpt(output)
        if logged.strip():
            shown += "\nthe end of the program's log:\n" + self.report.redactor.hide(excerpt(logged))
        message = f"{step.name} failed" + (f" with status {step.status}" if step.status not in (1, None) else "")
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
        return StepFailedError(message, host=host, step=title, state="nothing that serves was touched", cure=cure)

    def _state_after_revert(self, phase: Phase) -> str:
        back = any(step.name == "health-back" for step in phase.undo)
        return (
            "reverted: the previous release serves again, and was asked"
            if back
            else "reverted: there was no release before, and none is current now"
        )


def _captured(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(replace(step, capture=True) for step in steps)


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


def deploy(runner: Runner, ref: str, *, allow_migrations: bool = False) -> None:
    """
    Bring the host to ``ref``; says the verdict as its last line.

    Raises FabdjangoError (1: nothing changed), RevertedError (3) or UnknownStateError (2).
    """
    report = runner.report
    facts = begun(runner, ref)
    plan = recipes.deployment(runner.site, facts, ref)
    report.say(f"{plan.sha[:12]} {facts.subject.partition(' ')[2]}".rstrip())
    if plan.unchanged and _serves(runner, plan):
        report.say(f"unchanged: {plan.release} serves on {runner.site.host} already, and answers", style="bold green")
        return
    found = prepared(runner, plan, recipes.prepare(plan))
    for line in _migration_lines(found):
        report.say(f"  {line}")
    if not allow_migrations:
        _refuse_unsafe(runner, plan, found)
    activate(runner, plan, found, "deploy")
    report.say(f"deployed: {plan.release} serves on {runner.site.host}", style="bold green")


def activate(
    runner: Runner, plan: Deployment, found: DjangoFacts, event: str, backwards: Backwards | None = None
) -> None:
    """
    Give the traffic to a release; if nobody can say how it ended, find out and bring it to an end.

    Raises StepFailedError (1), RevertedError (3) or UnknownStateError (2).
    """
    try:
        runner.activate(switchover.activate(plan, found, event, backwards), recipes.tidy(plan))
    except UnknownStateError as error:
        if not error.lost:
            raise
        _find_out(runner, plan, error)


def _find_out(runner: Runner, plan: Deployment, error: UnknownStateError) -> None:
    """What became of an activation whose end was not told: its script was killed, or the link broke for good."""
    runner.report.say("how it ended was not told: the host is asked", style="yellow")
    # Whoever wins the lock ends what a dead script has left running; that goes for ourselves too.
    runner.transport.release()
    try:
        left = look(runner, "", fetch=False, lock=True)
        facts = recovered(runner, left, "")
    except FabdjangoError as second:
        runner.report.say(f"the host does not tell: {second.message}", style="yellow")
        raise error from None
    last: Mapping[str, object] = next(
        (entry for entry in reversed(facts.journal) if entry.get("release") == plan.release), {}
    )
    if facts.current == plan.release and last.get("result") == "serves":
        return
    kind = RevertedError if left.activation or last.get("result") == "reverted" else StepFailedError
    raise kind(
        error.message,
        host=error.host,
        step=error.step,
        state=f"{facts.current or 'nothing'} serves, as before",
        cure="deploy again",
    )


def _refuse_unsafe(runner: Runner, plan: Deployment, found: DjangoFacts) -> None:
    """Stop before a migration that the release that serves cannot live with; on a first deploy none serves."""
    settings = plan.site.settings
    allowed = settings.django.allow_migrations
    unsafe = [each for each in found.migrations if each.unsafe and f"{each.app}.{each.name}" not in allowed]
    if not unsafe or not plan.facts.current or settings.django.migrate == "never":
        return
    names = ", ".join(f"{each.app}.{each.name}" for each in unsafe)
    raise StepFailedError(
        f"{len(unsafe)} of the migrations would break the release that serves, {plan.facts.current}, until the new one has the traffic",
        host=runner.site.host,
        output="\n".join(line for each in unsafe for line in each.unsafe),
        state="no migration was applied, nothing that serves was touched",
        cure="split the change in two deploys: first code that can live with both, then the migration\n"
        f"or, if a short breakage is fine: fab … deploy --allow-migrations\n"
        f"or for good, in fabric.yaml under fabdjango: django: allow_migrations: [{names}]",
    )


def _migration_lines(found: DjangoFacts) -> list[str]:
    """A line a migration; where there are very many, as on a first deploy, a line an app."""
    if len(found.migrations) <= _MANY:
        return [
            f"migration {each.app}.{each.name}: " + ("; ".join(each.operations) or "no operations")
            for each in found.migrations
        ]
    apps: dict[str, list[str]] = {}
    for each in found.migrations:
        apps.setdefault(each.app, []).append(each.name)
    return [f"migrations of {app}: {len(names)}, up to {max(names)}" for app, names in apps.items()]


def look(runner: Runner, ref: str, *, fetch: bool = True, lock: bool = False) -> Facts:
    """The facts of host and commit; with ``fetch`` or ``lock`` under the site's lock, which is kept."""
    result = runner.run(recipes.survey(runner.site, ref, fetch=fetch, lock=fetch or lock))
    return _found_by(runner, result)


def begun(runner: Runner, ref: str, *, fetch: bool = True) -> Facts:
    """
    The facts under the site's lock, once nothing of an earlier deployment is left to do.

    What still goes on without its deployer is confirmed and followed to its end; what died half-way is finished or undone.
    """
    lock = not runner.dry
    try:
        facts = look(runner, ref, fetch=fetch, lock=lock)
    except UnderwayError as error:
        runner.report.say(f"{error.message}: it is taken up", style="yellow")
        try:
            take_up(runner, error)
        except RevertedError as second:
            runner.report.say(f"{second.message}; {second.state}", style="yellow")
        facts = look(runner, ref, fetch=fetch, lock=lock)
    return recovered(runner, facts, ref) if lock else facts


def take_up(runner: Runner, left: UnderwayError) -> None:
    """Follow an activation that another deployer started, and confirm it if it waits for that; raises what it ended with."""
    runner.report.begin(_SOMEBODYS)
    transport: Transport = runner.transport
    result = transport.follow(PurePosixPath(str(left.record)), left.run, _SOMEBODYS, runner.report.event)
    if result.status == AWAITING:
        runner.settle(result, None)
    elif result.status not in (0, KEPT):
        raise runner.error(result)


_SOMEBODYS = Phase("activate", (), serving_from="arm")


def recovered(runner: Runner, facts: Facts, ref: str) -> Facts:
    """The facts once what a dead activation left has been finished or undone."""
    if not facts.left_behind:
        return facts
    release, state = facts.activation.get("release", "a release"), facts.activation.get("state", "not yet switched")
    end = "finished" if state == "confirmed" else "undone"
    runner.report.say(f"an activation of {release} was left behind ({state}): it is {end} first", style="yellow")
    runner.run(switchover.recover(runner.site, facts))
    # The lock is ours already, and cannot be won a second time.
    return look(runner, ref, fetch=False)


def look_from_outside(runner: Runner, ref: str) -> Facts:
    """
    The facts without writing anything: the repository is asked what ``ref`` is, but nothing is fetched.

    Of a commit that the host does not have, its files are taken to be as in the one before; a note says so.
    """
    site = runner.site
    base = recipes.survey(site, ref, fetch=False, lock=False)
    asked = runner.run(replace(base, steps=(base.steps[0], git.list_remote(site.settings), *base.steps[1:])))
    facts = _found_by(runner, asked)
    listing = asked.step("fetch")
    sha = git.read_listing(listing.output if listing else "", ref) or facts.sha
    if sha == facts.sha:
        return facts
    runner.report.say(
        f"{ref} is {sha[:12]} in the repository, which the host has not fetched: its files are taken to be as before",
        style="yellow",
    )
    return recipes.assumed(site, facts, sha)


def _found_by(runner: Runner, result: PhaseResult) -> Facts:
    step = result.step("survey")
    facts = read_facts(step.output if step else "")
    # The host's own pip settings may hold the password of an index.
    words = " ".join(facts.pip_config.values()).split()
    runner.report.redactor.add(*(word for word in words if "@" in word))
    return facts


def _serves(runner: Runner, plan: Deployment) -> bool:
    try:
        runner.run(recipes.confirm(plan))
    except StepFailedError:
        runner.report.say("the release is current but does not answer: it is started again")
        return False
    return True


def prepared(runner: Runner, plan: Deployment, phase: Phase) -> DjangoFacts:
    """Run the phase that completes a release, unless it is complete, and tell what Django said."""
    if plan.facts.releases.get(plan.release):
        # Only its programs, their file or the symlink are not as they should be.
        return DjangoFacts()
    result = runner.run(phase)
    if runner.dry:
        return recipes.ANY_MIGRATION
    step = next((each for each in result.steps if each.name == "check" and each.output.strip()), None)
    found = read_django(step.output if step else "")
    for note in found.notes:
        runner.report.say(f"  note: {note}")
    for message in found.checks:
        runner.report.say(f"  check: {' '.join(message.split())}")
    return found


def show_deploy(runner: Runner, ref: str) -> None:
    """Print what a deploy of ``ref`` would run; the host is read and nothing is written anywhere."""
    report = runner.report
    facts = look_from_outside(runner, ref)
    plan = recipes.deployment(runner.site, facts, ref)
    report.show_phase(recipes.survey(runner.site, ref), dict(facts.managed))
    if plan.unchanged:
        report.say(f"\n{plan.release} is current already; a deploy would only ask it", style="bold")
        return
    for phase in (recipes.prepare(plan), switchover.activate(plan, recipes.ANY_MIGRATION), recipes.tidy(plan)):
        report.show_phase(phase, dict(facts.managed))
    report.say("\nnothing was written: this was a dry run", style="bold")
