"""A deployment from survey to verdict: which phase follows, and what a failure means."""

from __future__ import annotations

from collections.abc import Mapping

from fabdjango import recipes, switchover
from fabdjango.exceptions import FabdjangoError, RevertedError, StepFailedError, UnknownStateError
from fabdjango.facts import DjangoFacts, read_django
from fabdjango.plan import Phase
from fabdjango.recipes import Deployment
from fabdjango.runner import Runner
from fabdjango.surveying import begun, look, look_from_outside, recovered
from fabdjango.switchover import Backwards

__all__ = ["activate", "deploy", "prepared", "show_deploy"]

_MANY = 20
"""More migrations than this are told by app."""


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
