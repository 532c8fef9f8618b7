"""Virtualenvs that are built once for several hosts: who builds, who receives, and how wheels come from one to the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fabdjango import recipes
from fabdjango.commands import wheels
from fabdjango.commands.wheels import Wheels
from fabdjango.recipes import Deployment
from fabdjango.runner import Runner

__all__ = ["Group", "fetch", "groups"]


@dataclass(frozen=True)
class Group:
    """Hosts with the same virtualenv: ``builder`` has or builds it, ``receivers`` lack it and get its packages."""

    key: str
    builder: Deployment
    receivers: tuple[Deployment, ...]

    @property
    def is_built(self) -> bool:
        """True if the builder has it already, from an earlier deployment: then nobody asks an index at all."""
        return _has(self.builder)

    @property
    def line(self) -> str:
        """Who does what, for the report."""
        others = ", ".join(each.site.host for each in self.receivers)
        return f"virtualenv {self.key}: {self.builder.site.host} {'has' if self.is_built else 'builds'} it for {others}"


def groups(plans: Iterable[Deployment], primary: str = "") -> tuple[Group, ...]:
    """
    The virtualenvs of one deployment that one host builds for others, by the setting ``venv.build`` of each host.

    A host that has the virtualenv already is the builder before one that lacks
    it; then the one called ``primary``, then the first by name. Hosts in no
    group build for themselves, or have nothing to build.
    """
    alike: dict[tuple[str, str, str], list[Deployment]] = {}
    for plan in plans:
        if plan.site.settings.venv.build == "once":
            # What is compiled on one distribution may not run on another, whatever Python says.
            alike.setdefault((plan.key, plan.facts.os, plan.facts.system), []).append(plan)
    found = []
    for (key, *_), members in sorted(alike.items(), key=lambda item: item[0]):
        first, *others = sorted(members, key=lambda plan: (not _has(plan), plan.site.host != primary, _name(plan)))
        receivers = tuple(plan for plan in others if not _has(plan))
        if receivers:
            found.append(Group(key, first, receivers))
    return tuple(found)


def _has(plan: Deployment) -> bool:
    return plan.key in plan.facts.venvs


def _name(plan: Deployment) -> tuple[str, str]:
    return plan.site.host, plan.site.target


def fetch(runner: Runner, plan: Deployment) -> Wheels | None:
    """
    The wheels of a builder whose virtualenv is complete.

    None, with a line in the report, where they cannot be given away: then each
    host builds for itself. Raises FabdjangoError if the step fails or what comes is broken.
    """
    step = runner.run(recipes.give_wheels(plan)).step("pack")
    if runner.dry:
        return wheels.ANY
    if step is None or not step.data:
        why = step.output.strip() if step else "it was not asked"
        runner.report.say(f"  note: every host builds for itself: {why}", style="yellow")
        return None
    return wheels.read_wheels(step.data, plan.site.host)
