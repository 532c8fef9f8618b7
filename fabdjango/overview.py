"""What all hosts of a site serve, side by side: who differs, who does not answer, who cannot be reached."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from fabdjango import recipes
from fabdjango.board import columns
from fabdjango.commands import release as releases
from fabdjango.exceptions import ConnectError, FabdjangoError, StepFailedError
from fabdjango.facts import Facts, read_facts
from fabdjango.fleet import Fleet, Member
from fabdjango.surveying import look

__all__ = ["status"]


@dataclass
class _Seen:
    """What one host said: the id it serves, whether it answers, and what is not as it should be."""

    release: str = ""
    answer: str = ""
    odd: tuple[str, ...] = ()
    ill: bool = False


def status(fleet: Fleet) -> None:
    """A line a host; raises FleetError (exit 1) if one cannot be reached, does not answer, or serves something else than most."""
    seen: dict[str, _Seen] = {}

    def ask(member: Member) -> None:
        seen[member.host] = _look_at(member)

    for member in fleet.each(ask):
        away = isinstance(member.error, ConnectError)
        seen[member.host] = _Seen("?", "cannot be reached" if away else "failed", ill=True)
    most = Counter(each.release for each in seen.values() if each.release not in ("", "?")).most_common(1)
    usual = most[0][0] if most else ""
    rows = [("host", "release", "answers", "")]
    for member in fleet.members:
        found = seen[member.host]
        if usual and found.release not in (usual, "?"):
            found = replace(found, odd=(f"most serve {usual}", *found.odd), ill=True)
        seen[member.host] = found
        mark = f"{member.host} (primary)" if member.leads else member.host
        rows.append((mark, found.release or "none", found.answer, "; ".join(found.odd)))
    for number, line in enumerate(columns(rows)):
        fleet.tell.say(
            line, style="bold" if not number else "yellow" if seen[fleet.members[number - 1].host].odd else ""
        )
    ill = [host for host, each in seen.items() if each.ill]
    if ill:
        raise fleet.verdict(
            f"{len(ill)} of {len(seen)} hosts are not as they should be: {', '.join(sorted(ill))}",
            state="",
            exit_code=1,
            cure="look at one: fab -H HOST status\nbring all to one release: fab deploy --catch-up",
            table=[],
        )


def _look_at(member: Member) -> _Seen:
    runner = member.runner
    facts = look(runner, "", fetch=False)
    if not facts.current:
        return _Seen(answer="no", ill=True)
    site = runner.site.on(facts)
    how = facts.current_marker.get("asked")
    # While a deployment waits for its deployer's word, both slots may take from a held socket.
    also = tuple(release for release in facts.slots.values() if release != facts.current)
    health = releases.ask_health(site.settings, site.layout, facts.current, timeout=10, how=how, also=also)
    commit = str(facts.current_marker.get("commit", ""))
    phase = recipes.survey(runner.site, commit, fetch=False, lock=False)
    try:
        again = runner.run(replace(phase, name="status", steps=(*phase.steps, health)))
    except StepFailedError as error:
        return _Seen(facts.current, "no", (error.message, *_odd(member, facts)), ill=True)
    survey, rights = (step.output if step else "" for step in map(again.step, ("survey", "rights")))
    return _Seen(facts.current, "yes", _odd(member, read_facts(survey, rights) if survey else facts))


def _odd(member: Member, facts: Facts) -> tuple[str, ...]:
    """What is out of the ordinary, and does not keep the site from serving."""
    found = []
    if facts.activation:
        found.append(f"an activation of {facts.activation.get('release')} is under way or was left behind")
    # To look at a site asks nobody for a passphrase.
    asks = any(source.command for source in member.runner.site.settings.secrets.values())
    if facts.sha and facts.sha == facts.current_marker.get("commit") and not asks:
        try:
            plan = recipes.deployment(member.runner.site, facts, facts.sha, release=facts.current)
        except FabdjangoError as error:
            found.append(f"could not be deployed now: {error.message}")
        else:
            if plan.fingerprint != facts.current_marker.get("fingerprint"):
                found.append("another configuration than fabric.yaml says now")
            elif not plan.has_files:
                found.append("the programs' files are not as fabric.yaml says")
    return tuple(found)
