"""A deployment from survey to verdict: which phase follows, and what a failure means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fabdjango import recipes
from fabdjango.commands import git
from fabdjango.diagnosis import cure_for, excerpt, since_start
from fabdjango.exceptions import FabdjangoError, RevertedError, StepFailedError, UnknownStateError
from fabdjango.facts import DjangoFacts, Facts, read_django, read_facts
from fabdjango.plan import Phase, Step
from fabdjango.recipes import Deployment, Site
from fabdjango.report import Report
from fabdjango.script import LOCKED, REVERT_FAILED, REVERTED
from fabdjango.transport import Account, PhaseResult, StepResult, Transport

__all__ = ["Runner", "deploy", "look", "look_from_outside", "prepared", "show_deploy", "tidy_up"]

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
        return self.run(Phase(steps[0].name, steps, lock=self.site.layout.lock, holder=self.site.holder))

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
        """Run ``phase``; raises the error that fits if a step fails or the link breaks."""
        self.report.begin(phase)
        result = self.transport.run(phase, self.account, self.report.event)
        if result.status != 0:
            raise self.error(result)
        return result

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
                cure="wait for it to end; the lock goes with its process, nobody has to remove it",
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
        return StepFailedError(message, host=host, step=title, output=shown, state=_state_after(step), cure=cure)

    def _lost(self, phase: Phase, title: str) -> FabdjangoError:
        host = self.site.host
        cure = f"look: fab -H {self.site.target} status\nthen deploy again: what is half-done is cleared first"
        message = f"the connection broke during {title or phase.name}"
        if phase.serving:
            return UnknownStateError(message, host=host, step=title, cure=cure)
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


def _state_after(step: StepResult) -> str:
    if step.name in ("migrate", "first-deploy", "before_migrate", "after_migrate"):
        return "the site serves what it did before; migrations may have been applied in part"
    return "nothing that serves was touched"


def deploy(runner: Runner, ref: str) -> None:
    """
    Bring the host to ``ref``; says the verdict as its last line.

    Raises FabdjangoError (1: nothing changed), RevertedError (3) or UnknownStateError (2).
    """
    report = runner.report
    facts = look(runner, ref)
    plan = recipes.deployment(runner.site, facts, ref)
    report.say(f"{plan.sha[:12]} {facts.subject.partition(' ')[2]}".rstrip())
    if plan.unchanged and _serves(runner, plan):
        report.say(f"unchanged: {plan.release} serves on {runner.site.host} already, and answers", style="bold green")
        return
    found = prepared(runner, plan, recipes.prepare(plan))
    for line in _migration_lines(found):
        report.say(f"  {line}")
    runner.run(recipes.activate(plan, found))
    tidy_up(runner, plan)
    report.say(f"deployed: {plan.release} serves on {runner.site.host}", style="bold green")


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


def look(runner: Runner, ref: str, *, fetch: bool = True) -> Facts:
    """The facts of host and commit."""
    result = runner.run(recipes.survey(runner.site, ref, fetch=fetch, lock=fetch))
    return _found_by(runner, result)


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


def tidy_up(runner: Runner, plan: Deployment) -> None:
    """Prune; a failure is a warning, because the release serves."""
    try:
        runner.run(recipes.tidy(plan))
    except FabdjangoError as error:
        runner.report.say(f"warning: {error.message}; the release serves, old ones were not removed", style="yellow")


def show_deploy(runner: Runner, ref: str) -> None:
    """Print what a deploy of ``ref`` would run; the host is read and nothing is written anywhere."""
    report = runner.report
    facts = look_from_outside(runner, ref)
    plan = recipes.deployment(runner.site, facts, ref)
    report.show_phase(recipes.survey(runner.site, ref), dict(facts.managed))
    if plan.unchanged:
        report.say(f"\n{plan.release} is current already; a deploy would only ask it", style="bold")
        return
    for phase in (recipes.prepare(plan), recipes.activate(plan, recipes.ANY_MIGRATION), recipes.tidy(plan)):
        report.show_phase(phase, dict(facts.managed))
    report.say("\nnothing was written: this was a dry run", style="bold")
