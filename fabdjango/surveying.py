"""What a host says before a deployment begins, once nothing of an earlier one is left to do there."""

from __future__ import annotations

from dataclasses import replace

from fabdjango import recipes, switchover
from fabdjango.commands import git
from fabdjango.exceptions import RevertedError, UnderwayError
from fabdjango.facts import Facts, read_facts
from fabdjango.plan import Phase
from fabdjango.runner import Runner
from fabdjango.script import AWAITING, KEPT
from fabdjango.transport import PhaseResult

__all__ = ["begun", "look", "look_from_outside", "recovered", "take_up"]


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
    result = runner.transport.follow(left.record, left.run, _SOMEBODYS, runner.report.event)
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
