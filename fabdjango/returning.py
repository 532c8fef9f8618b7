"""A rollback: which release served before, what the database has that it lacks, and the way there on every host."""

from __future__ import annotations

from dataclasses import replace

from fabdjango import recipes, rollout
from fabdjango.commands import django
from fabdjango.commands import release as releases
from fabdjango.deploying import done, gather
from fabdjango.escape import sh
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import DjangoFacts, Facts, read_django, read_reversal
from fabdjango.fleet import Fleet, Member
from fabdjango.plan import Phase, Step
from fabdjango.runner import Runner
from fabdjango.switchover import Backwards

__all__ = ["forward", "rollback"]


def rollback(fleet: Fleet, to: str, *, migrations: bool, code_only: bool, skip_unreachable: bool = False) -> None:
    """
    Let an earlier release serve everywhere: ``to``, or the last other one that was proven good on the primary.

    Raises FabdjangoError if a host has not got it, or if the database has migrations that it lacks, unless they are to
    be reversed (``migrations``) and can be, or to be left as they are (``code_only``).
    """
    if migrations and code_only:
        raise ConfigError("--migrations and --code-only are two different ways", cure="choose one of them")
    gather(fleet, "", fetch=False, skip_unreachable=skip_unreachable)
    leader = fleet.leader or fleet.members[0]
    target = releases.read_id(to) if to else _before(leader)
    fleet.need(fleet.each(lambda member: _has(member, target)), f"they have no complete release {target}")
    for member in fleet.members:
        member.serves = member.facts.current == target
    if all(each.serves for each in fleet.members):
        fleet.tell.say(f"unchanged: {target} is current already", style="bold green")
        return
    moving = [each for each in fleet.members if not each.serves]
    leading = [each for each in moving if each.leads or each.runner.site.settings.django.migrate == "each"]
    if not code_only:
        fleet.need(fleet.each(lambda each: _judge(each, target, allowed=migrations), leading), "the database is newer")
    for member in moving:
        member.plan = replace(recipes.redeployment(member.runner.site, member.facts, target), leads=member in leading)
        member.found = forward(member.facts, target)
    # Of hosts that need not move only the id is told.
    for member in fleet.members:
        member.plan = member.plan or recipes.redeployment(member.runner.site, member.facts, target)
    rollout.switch(fleet, "rollback")
    if not fleet.dry:
        done(fleet, "rolled back", target)


def _before(member: Member) -> str:
    earlier = [release for release in member.facts.proven if release != member.facts.current]
    if not earlier:
        raise FabdjangoError("no other release has ever served here", host=member.host, cure=_choices(member.facts))
    return earlier[-1]


def _has(member: Member, target: str) -> None:
    if not member.facts.releases.get(target):
        raise FabdjangoError(f"there is no complete release {target}", host=member.host, cure=_choices(member.facts))


def _choices(facts: Facts) -> str:
    complete = [name for name, marker in facts.releases.items() if marker]
    return f"complete releases: {', '.join(sorted(complete, key=releases.counter)) or 'none'}"


def forward(facts: Facts, release: str) -> DjangoFacts:
    """What a release that was prepared earlier may have to migrate: whatever it has, if it is newer than what serves."""
    newer = releases.counter(release) > releases.counter(facts.current)
    return recipes.ANY_MIGRATION if newer else DjangoFacts()


# --- the schema -----------------------------------------------------------------


def _judge(member: Member, target: str, *, allowed: bool) -> None:
    """Find out what has to be reversed; raise FabdjangoError unless it may and shall be."""
    backwards = _backwards(member.runner, member.facts, target)
    if backwards.migrations:
        _refuse_reversal(member.runner, target, backwards, allowed=allowed)
        member.backwards = backwards


def _backwards(runner: Runner, facts: Facts, target: str) -> Backwards:
    """What the database has that ``target`` lacks, asked of the database with the code of the current release."""
    settings, layout = runner.site.settings, runner.site.on(facts).layout
    if not facts.current or settings.django.migrate == "never":
        return Backwards()
    if facts.schemas.get(target) and facts.schemas.get(target) == facts.schemas.get(facts.current):
        # Whatever the database has, the code that would reverse it knows nothing that the older release lacks.
        return Backwards()
    read = Step(
        "known",
        "the migrations of the older release",
        sh("cat", "--", layout.private(target) / "django.json"),
        capture=True,
    )
    older = runner.run(Phase("known", (read,), reads_only=True)).step("known")
    known = read_django(older.output if older else "").known
    step = django.plan_reversal(settings, layout.release(facts.current), known)
    found = runner.run(Phase("reversal", (step,), reads_only=True)).step(step.name)
    return Backwards(known, read_reversal(found.output if found else ""))


def _refuse_reversal(runner: Runner, target: str, backwards: Backwards, *, allowed: bool) -> None:
    """Name every migration with what would become of it; stop unless all may be reversed and shall be."""
    lines = [f"{each.app}.{each.name}: " + (each.reason or "can be reversed") for each in backwards.migrations]
    barred = [each for each in backwards.migrations if each.reason]
    if allowed and not barred:
        for line in lines:
            runner.report.say(f"  migration {line}")
        return
    lives = "the older code can live with them" if not backwards.first else "the older code may fail on them"
    cures = [] if barred else ["reverse them on the way: fab … rollback --migrations"]
    cures.append(f"leave the database as it is ({lives}): fab … rollback --code-only")
    raise FabdjangoError(
        f"{target} is older than the database: it lacks {len(lines)} migration{'s' if len(lines) > 1 else ''}"
        + (f", of which {len(barred)} must not be reversed" if barred else ""),
        host=runner.site.host,
        output="\n".join(lines),
        cure="\n".join(cures),
    )
