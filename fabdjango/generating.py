"""Secrets that are made on hosts, before a release takes a copy of them: once, and of a fleet the same on every host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fabdjango import recipes
from fabdjango.commands import environment
from fabdjango.escape import Secret
from fabdjango.facts import Facts
from fabdjango.fleet import Fleet, Member
from fabdjango.runner import Runner
from fabdjango.surveying import found_by

__all__ = ["made", "make_everywhere"]


def made(runner: Runner, facts: Facts, given: Mapping[str, Secret] = {}) -> Facts:
    """The facts once no secret is missing that is to be made on the host; nothing is done if none was."""
    if not environment.missing(runner.site.settings, facts):
        return facts
    phase = recipes.make_secrets(runner.site, facts, given)
    if runner.dry:
        runner.report.show_phase(phase, {})
        return facts
    return replace(found_by(runner, runner.run(phase)), sudo=facts.sudo, root_programs=facts.root_programs)


def make_everywhere(fleet: Fleet) -> None:
    """
    Make what is missing on any host of the fleet.

    What one host has already the others get from it, so that all agree; what none has, the primary makes.
    """
    wanted = {name for member in fleet.members for name in _missing(member)}
    if not wanted:
        return
    first, *others = sorted(fleet.members, key=lambda member: not member.leads)
    _make(fleet, [first], _told(others, set(_missing(first))))
    _make(fleet, others, _told([first], wanted) if others else {})


def _missing(member: Member) -> tuple[str, ...]:
    return environment.missing(member.runner.site.settings, member.facts)


def _told(members: list[Member], wanted: set[str]) -> dict[str, Secret]:
    """What the members have of it, the first one's if several do; the survey has learned to hide it."""
    found: dict[str, Secret] = {}
    for member in members:
        names = wanted.intersection(member.facts.generated).difference(found)
        if names:
            phase = recipes.tell_secrets(member.runner.site, member.facts, names)
            found |= environment.read_told(member.runner.run(phase).steps[0].data)
    return found


def _make(fleet: Fleet, members: list[Member], given: Mapping[str, Secret]) -> None:
    def make(member: Member) -> None:
        member.facts = made(member.runner, member.facts, given)

    fleet.need(fleet.each(make, members), "what is secret on the host itself could not be made")
