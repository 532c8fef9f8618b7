"""A deployment from survey to verdict: which phase follows, on every host of a fleet at once."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

from fabdjango import building, generating, recipes, rollout, switchover
from fabdjango.commands import release as releases
from fabdjango.commands.environment import Change
from fabdjango.commands.wheels import ANY, Wheels
from fabdjango.exceptions import ConnectError, FabdjangoError, StepFailedError
from fabdjango.facts import DjangoFacts, Migration, read_django
from fabdjango.fleet import Fleet, Member
from fabdjango.plan import Phase
from fabdjango.recipes import Deployment
from fabdjango.runner import Runner
from fabdjango.surveying import begun, look, look_from_outside, show_sending

__all__ = ["decide", "deploy", "gather", "one_id", "prepared", "serve", "show"]

_MANY = 20
"""More migrations than this are told by app."""


def deploy(
    fleet: Fleet, ref: str, *, allow_migrations: bool = False, skip_unreachable: bool = False, catch_up: bool = False
) -> None:
    """
    Bring every host to ``ref`` (the branch of the settings, if empty), under one id; says the verdict as its last line.

    In a dry run it only shows what would run. With ``catch_up`` nothing new is deployed: hosts that do not serve what
    most of them do are brought to that. Raises FabdjangoError (1: nothing
    changed), RevertedError (3) or UnknownStateError (2), of many hosts a FleetError with one of these codes.
    """
    ref = ref or fleet.members[0].runner.site.settings.branch
    for member in fleet.members:
        member.runner.site.private()
    if fleet.dry:
        _show_all(fleet, ref)
        return
    gather(fleet, ref, skip_unreachable=skip_unreachable)
    release, ref = _of_the_others(fleet) if catch_up else ("", ref)
    if fleet.leader is None:
        _same_commit(fleet)
    generating.make_everywhere(fleet)
    fleet.need(fleet.each(lambda member: decide(member, ref)), "what shall be deployed cannot be")
    _subject(fleet)
    serve(fleet, "deploy", "deployed", release=release, allow_migrations=allow_migrations)


def serve(fleet: Fleet, event: str, word: str, *, release: str = "", allow_migrations: bool = False) -> None:
    """
    Let what every member has planned serve, under one id, ``release`` if that is given; says the verdict, with ``word``.

    ``event`` is what the journal calls it. Raises as deploy does.
    """
    _one_id_for_all(fleet, release)
    fleet.each(_answers)
    if all(each.serves for each in fleet.members):
        done(fleet, "unchanged", fleet.members[0].planned.release, " already, and answers")
        return
    moving = [each for each in fleet.members if not each.serves]
    _prepare_all(fleet, moving)
    _tell_migrations(fleet, moving)
    if not allow_migrations:
        _refuse_unsafe(fleet, moving)
    rollout.switch(fleet, event)
    done(fleet, word, fleet.members[0].planned.release)


def gather(fleet: Fleet, ref: str, *, fetch: bool = True, skip_unreachable: bool = False) -> None:
    """
    Log in everywhere, take every host's lock, bring to an end what an earlier deployment left, and learn the facts.

    The primary comes first: of two deployments that begin at once, one gets no lock at all, and ``ref`` is what it is
    there, though somebody pushes meanwhile. A host that cannot be reached is refused, or left out if that is wanted.
    """
    chosen = ref
    # While the hosts are asked, this side gets ready to say what they shall have.
    threading.Thread(target=fleet.members[0].runner.site.templates.get_ready, daemon=True).start()

    def begin(member: Member) -> None:
        member.facts = begun(member.runner, chosen, fetch=fetch)

    first = [each for each in fleet.members if each.leads]
    failed = fleet.each(begin, first)
    if not failed or all(isinstance(each.error, ConnectError) for each in failed):
        chosen = next((each.facts.sha for each in first if each.facts.sha), ref)
        failed += fleet.each(begin, [each for each in fleet.members if not each.leads])
    away = [each for each in failed if isinstance(each.error, ConnectError)]
    if skip_unreachable and away and len(away) < len(fleet.members):
        for each in away:
            fleet.tell.say(f"{each.host} is skipped: {each.error}", style="yellow")
        fleet.skip(away)
        failed = [each for each in failed if each not in away]
    if failed and len(away) == len(failed) and not fleet.alone:
        message = f"{len(away)} of {len(fleet.members)} hosts cannot be reached"
        cure = "mend them, or go on without them: fab … deploy --skip-unreachable\nthey are brought up later by: fab deploy --catch-up"
        raise fleet.verdict(message, state="nothing was changed on any host", exit_code=1, cure=cure)
    fleet.need(failed, "they cannot be deployed to")


# --- which commit, which id ----------------------------------------------------


def _same_commit(fleet: Fleet) -> None:
    """Without a primary that was asked first, a push may have come in between two hosts: all look at what the first one found."""
    chosen = fleet.members[0].facts.sha

    def look_again(member: Member) -> None:
        member.facts = look(member.runner, chosen)

    others = [each for each in fleet.members if chosen and each.facts.sha != chosen]
    fleet.need(fleet.each(look_again, others), f"they cannot be asked for {chosen}")


def _of_the_others(fleet: Fleet) -> tuple[str, str]:
    """The release that most hosts serve, and its commit; of two that as many serve, the primary's."""
    served = Counter(each.facts.current for each in fleet.members if each.facts.current)
    if not served:
        raise FabdjangoError("no host serves a release that the others could catch up with", cure="run deploy")
    leader = fleet.leader.facts.current if fleet.leader else ""
    release = max(served, key=lambda each: (served[each], each == leader, releases.counter(each)))
    marker = next(each.facts.current_marker for each in fleet.members if each.facts.current == release)
    sha = str(marker.get("commit", ""))
    fleet.tell.say(f"{served[release]} of {len(fleet.members)} hosts serve {release}")

    def look_at(member: Member) -> None:
        found = look(member.runner, sha, fetch=False)
        # A branch that was rewritten since does not bring it.
        member.facts = found if found.sha else look(member.runner, sha)

    fleet.need(fleet.each(look_at), f"they cannot be asked for {release}")
    return release, sha


def decide(member: Member, ref: str, change: Change | None = None) -> None:
    """Decide what becomes of ``ref`` on a host, with variables of shared/.env changed, if the facts speak of them so."""
    found = recipes.deployment(member.runner.site, member.facts, ref)
    member.plan = replace(found, leads=member.leads or _own_database(member), change=change or {})
    if found.touched:
        told = f"files of {member.facts.current} were changed by hand: a new release takes its place"
        member.runner.report.say(told, style="yellow")


def _own_database(member: Member) -> bool:
    return member.runner.site.settings.django.migrate == "each"


def _subject(fleet: Fleet) -> None:
    first = (fleet.leader or fleet.members[0]).planned
    fleet.tell.say(f"{first.sha[:12]} {first.facts.subject.partition(' ')[2]}".rstrip())


def _one_id_for_all(fleet: Fleet, given: str) -> None:
    plans = [each.planned for each in fleet.members]
    if given:
        # What serves it already is left as it is, whatever fabric.yaml says by now.
        for member in fleet.members:
            member.serves = member.facts.current == given
            member.plan = recipes.renamed(member.planned, given)
        return
    chosen = one_id(plans)
    different = sorted({plan.facts.current for plan in plans if plan.unchanged} - {chosen})
    if different:
        fleet.tell.say(f"hosts serve this commit under different ids ({', '.join(different)}): all get {chosen}")
    for member in fleet.members:
        member.plan = recipes.renamed(member.planned, chosen)
        member.serves = member.planned.unchanged


def one_id(plans: list[Deployment]) -> str:
    """
    The id that every host's release gets.

    It is the one that hosts serve this very commit and configuration under, if
    they agree, no other host has something else of that name, and nobody has changed its files by hand; else a new
    one, above all that any host has ever had: the order of releases is the counter's, whatever clocks say.
    """
    reused = {plan.release for plan in plans if plan.release == plan.facts.current}
    if len(reused) == 1 and not any(plan.touched for plan in plans):
        (release,) = reused
        markers = [(plan, plan.facts.releases.get(release)) for plan in plans]
        if all(not marker or marker.get("fingerprint") == plan.fingerprint for plan, marker in markers):
            return release
    highest = max(plan.facts.highest for plan in plans)
    return f"{highest + 1}-{plans[0].sha[:12]}"


# --- phases ---------------------------------------------------------------------


def _answers(member: Member) -> None:
    if not member.serves:
        return
    try:
        member.runner.run(recipes.confirm(member.planned))
    except StepFailedError:
        member.runner.report.say("the release is current but does not answer: it is started again")
        member.serves = False


def _builders(fleet: Fleet) -> dict[str, str]:
    """The hosts that get their virtualenv from another one, with that one's name; says who they are."""
    groups = building.groups([each.planned for each in fleet.members], fleet.leader.host if fleet.leader else "")
    for group in groups:
        fleet.tell.say(group.line)
    return {each.site.host: group.builder.site.host for group in groups for each in group.receivers}


def _prepare_all(fleet: Fleet, moving: list[Member]) -> None:
    """All at once; hosts that get their virtualenv from another one, when that one has it."""
    builder_of = _builders(fleet)
    wheels: dict[str, Wheels | None] = {}

    def fetch(member: Member) -> None:
        wheels[member.host] = building.fetch(member.runner, member.planned)

    def prepare(member: Member) -> None:
        phase = recipes.prepare(member.planned, wheels=wheels.get(builder_of.get(member.host, "")))
        member.found = prepared(member.runner, member.planned, phase)

    failed = "the release could not be made ready"
    fleet.need(fleet.each(prepare, [each for each in moving if each.host not in builder_of]), failed)
    fleet.need(fleet.each(fetch, [each for each in fleet.members if each.host in builder_of.values()]), failed)
    fleet.need(fleet.each(prepare, [each for each in moving if each.host in builder_of]), failed)


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


# --- migrations -----------------------------------------------------------------


def _tell_migrations(fleet: Fleet, moving: list[Member]) -> None:
    """Say what is to be applied, and by whom; refuse what nobody here would apply."""
    if _never(fleet):
        return
    applied = {_name(each) for member in moving if member.planned.leads for each in member.found.migrations}
    for member in moving:
        left = [_name(each) for each in member.found.migrations if _name(each) not in applied]
        if left:
            missing = (
                "the primary, which does it, is not among these hosts"
                if not fleet.leader
                else f"not on the primary, {fleet.leader.host}"
            )
            raise FabdjangoError(
                f"migrations are to be applied on {member.host} ({', '.join(left[:5])}), and {missing}",
                state="nothing that serves was touched on any host",
                cure="deploy to the primary too: it is the host with the role primary\n"
                "or, if every host has a database of its own: django: {migrate: each}",
            )
    for member in moving:
        if member.planned.leads:
            for line in migration_lines(member.found):
                (fleet.tell if member.leads else member.runner.report).say(f"  {line}")


def _never(fleet: Fleet) -> bool:
    return fleet.members[0].runner.site.settings.django.migrate == "never"


def _name(migration: Migration) -> str:
    return f"{migration.app}.{migration.name}"


def _refuse_unsafe(fleet: Fleet, moving: list[Member]) -> None:
    """Stop before a migration that a release that serves cannot live with; on a first deploy none serves."""
    serving = next((each.facts.current for each in fleet.members if each.facts.current), "")
    if _never(fleet) or not serving:
        return
    for member in moving:
        if member.planned.leads:
            _refuse_unsafe_on(member, serving)


def _refuse_unsafe_on(member: Member, serving: str) -> None:
    allowed = member.runner.site.settings.django.allow_migrations
    unsafe = [each for each in member.found.migrations if each.unsafe and _name(each) not in allowed]
    if not unsafe:
        return
    names = ", ".join(map(_name, unsafe))
    raise StepFailedError(
        f"{len(unsafe)} of the migrations would break the release that serves, {serving}, until the new one has the traffic",
        host=member.host,
        output="\n".join(line for each in unsafe for line in each.unsafe),
        state="no migration was applied, nothing that serves was touched",
        cure="split the change in two deploys: first code that can live with both, then the migration\n"
        f"or, if a short breakage is fine: fab … deploy --allow-migrations\n"
        f"or for good, in fabric.yaml under fabdjango: django: allow_migrations: [{names}]",
    )


def migration_lines(found: DjangoFacts) -> list[str]:
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


# --- the last line ----------------------------------------------------------------


def done(fleet: Fleet, word: str, release: str, more: str = "") -> None:
    """The verdict in one line; which hosts were left out, if any."""
    where = fleet.members[0].host if fleet.alone else f"{len(fleet.members)} hosts"
    left_out = ", ".join(each.host for each in fleet.skipped)
    skipped = f"; skipped: {left_out} (later: fab deploy --catch-up)" if left_out else ""
    fleet.tell.say(f"{word}: {release} serves on {where}{more}{skipped}", style="bold green")


def _show_all(fleet: Fleet, ref: str) -> None:
    """Print what a deploy of ``ref`` would run; the hosts are read and nothing is written anywhere."""
    for member in fleet.members:
        member.facts = look_from_outside(member.runner, ref)
        member.plan = recipes.deployment(member.runner.site, member.facts, ref)
    builder_of = _builders(fleet)
    for member in fleet.members:
        builder = builder_of.get(member.host)
        wheels = replace(ANY, builder=builder) if builder else None
        _show(member, ref, wheels, gives=member.host in builder_of.values())


def _show(member: Member, ref: str, wheels: Wheels | None, *, gives: bool) -> None:
    runner, facts, plan = member.runner, member.facts, member.planned
    report = runner.report
    report.show_phase(recipes.survey(runner.site, ref), dict(facts.managed))
    show_sending(runner, facts, ref)
    generating.made(runner, facts)
    if plan.unchanged:
        report.say(f"\n{plan.release} is current already; a deploy would only ask it", style="bold")
        return
    show(member, "deploy", wheels, gives=gives)


def show(member: Member, event: str, wheels: Wheels | None = None, *, gives: bool = False) -> None:
    """The phases that would make a host's release and let it serve."""
    report, plan = member.runner.report, member.planned
    prepare = (recipes.prepare(plan, wheels=wheels), *([recipes.give_wheels(plan)] if gives else []))
    for phase in (*prepare, switchover.activate(plan, recipes.ANY_MIGRATION, event), recipes.tidy(plan)):
        report.show_phase(phase, dict(member.facts.managed))
    report.say("\nnothing was written: this was a dry run", style="bold")
