"""What a host says before a deployment begins, once nothing of an earlier one is left to do there."""

from __future__ import annotations

from dataclasses import replace

from fabdjango import recipes, switchover
from fabdjango.commands import environment, git
from fabdjango.exceptions import RevertedError, UnderwayError
from fabdjango.facts import Facts, read_commit, read_facts
from fabdjango.localgit import Commit, open_clone
from fabdjango.plan import Phase, Step
from fabdjango.recipes import Site
from fabdjango.runner import Runner
from fabdjango.script import AWAITING, KEPT
from fabdjango.transport import PhaseResult

__all__ = [
    "begun",
    "bring",
    "chosen",
    "found_by",
    "glance",
    "look",
    "look_from_outside",
    "receiving",
    "recovered",
    "show_sending",
    "take_up",
]


def look(runner: Runner, ref: str, *, fetch: bool = True, lock: bool = False) -> Facts:
    """
    The facts of host and commit; with ``fetch`` or ``lock`` under the site's lock, which is kept.

    With ``fetch`` the host gets the commit, if it lacks it: from the repository, or from the operator's clone.
    """
    return _look(runner, ref, chosen(runner, ref) if fetch and ref else None, fetch=fetch, lock=lock)


def glance(runner: Runner) -> Facts:
    """The facts of the host alone, for tasks whose output is somebody else's: nothing is written, and nothing told."""
    return found_by(runner, runner.quietly(recipes.survey(runner.site, "", fetch=False, lock=False)))


def _look(runner: Runner, ref: str, commit: Commit | None, *, fetch: bool, lock: bool, followed: bool = False) -> Facts:
    name = commit.sha if commit else ref
    survey = replace(recipes.survey(runner.site, name, fetch=fetch, lock=fetch or lock), followed=followed)
    facts = found_by(runner, runner.run(survey))
    if commit is None or facts.sha:
        return facts
    received = runner.run(receiving(runner.site, facts, commit))
    look = received.step("survey-commit")
    if look:
        return read_commit(look.output, facts)
    return replace(found_by(runner, received), sudo=facts.sudo, root_programs=facts.root_programs)


def chosen(runner: Runner, ref: str) -> Commit | None:
    """What ``ref`` is in the operator's clone, if commits are pushed from there; raises FabdjangoError for work that is not committed."""
    site = runner.site
    if not site.pushes:
        return None
    clone = open_clone(site.clone)
    commit = clone.resolve(ref, site.settings.branch)
    if not site.allow_dirty:
        clone.refuse_uncommitted()
    return commit


def receiving(site: Site, facts: Facts, commit: Commit) -> Phase:
    """The phase that sends what the host lacks of a commit of the operator's clone."""
    pack = open_clone(site.clone).pack(commit.sha, facts.tips)
    return recipes.receive(site, facts, pack, commit.sha, commit.branch)


def begun(runner: Runner, ref: str, *, fetch: bool = True) -> Facts:
    """
    The facts under the site's lock, once nothing of an earlier deployment is left to do.

    What still goes on without its deployer is confirmed and followed to its end; what died half-way is finished or undone.
    """
    lock = not runner.dry
    commit = chosen(runner, ref) if fetch and ref else None
    try:
        facts = _look(runner, ref, commit, fetch=fetch, lock=lock, followed=lock)
    except UnderwayError as error:
        runner.report.say(f"{error.message}: it is taken up", style="yellow")
        try:
            take_up(runner, error)
        except RevertedError as second:
            runner.report.say(f"{second.message}; {second.state}", style="yellow")
        facts = _look(runner, ref, commit, fetch=fetch, lock=lock, followed=lock)
    return recovered(runner, facts, commit.sha if commit else ref) if lock else facts


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
    The facts without writing anything: the repository, or the operator's clone, is asked what ``ref`` is, but nothing is fetched.

    Of a commit that the host does not have, its files are taken to be as in the one before; a note says so.
    """
    site = runner.site
    commit = chosen(runner, ref)
    if commit:
        return _pushed_from_outside(runner, ref, commit)
    base = recipes.survey(site, ref, fetch=False, lock=False)
    asked = runner.run(replace(base, steps=(base.steps[0], git.list_remote(site.settings), *base.steps[1:])))
    facts = found_by(runner, asked)
    listing = asked.step("fetch")
    sha = git.read_listing(listing.output if listing else "", ref) or facts.sha
    if sha == facts.sha:
        return facts
    runner.report.say(
        f"{ref} is {sha[:12]} in the repository, which the host has not fetched: its files are taken to be as before",
        style="yellow",
    )
    return recipes.assumed(site, facts, sha)


def _pushed_from_outside(runner: Runner, ref: str, commit: Commit) -> Facts:
    facts = look(runner, commit.sha, fetch=False)
    if facts.sha:
        return facts
    if facts.current:
        facts = look(runner, facts.current.partition("-")[2], fetch=False)
    runner.report.say(
        f"{ref} is {commit.sha[:12]} in your clone, which the host does not have: its files are taken to be as before",
        style="yellow",
    )
    subject = open_clone(runner.site.clone).subject(commit.sha)
    return replace(recipes.assumed(runner.site, facts, commit.sha), subject=subject, ref_kind=_TO_BE_SENT)


_TO_BE_SENT = "to be sent"


def show_sending(runner: Runner, facts: Facts, ref: str) -> None:
    """In a dry run, what would be sent of a commit that look_from_outside found only in the operator's clone."""
    commit = chosen(runner, ref) if facts.ref_kind == _TO_BE_SENT else None
    if commit:
        runner.report.show_phase(receiving(runner.site, facts, commit), {})


def bring(runner: Runner, step: Step) -> None:
    """What git.clone and git.fetch do: ``step``, or where commits are pushed, the branch of the settings from the operator's clone."""
    branch = runner.site.settings.branch
    if not runner.site.pushes:
        runner.do(step)
        return
    # Nothing is deployed, so nothing is forgotten.
    runner.site = replace(runner.site, allow_dirty=True)
    if runner.dry:
        show_sending(runner, look_from_outside(runner, branch), branch)
    else:
        runner.report.say(f"the mirror has {branch}: {look(runner, branch).subject}")


def found_by(runner: Runner, result: PhaseResult) -> Facts:
    """The facts that a phase with a survey has found; what is secret of it is hidden in every output from now on."""
    survey, rights = (step.output if step else "" for step in map(result.step, ("survey", "rights")))
    facts = read_facts(survey, rights)
    # The host's own pip settings may hold the password of an index.
    words = " ".join(facts.pip_config.values()).split()
    runner.report.redactor.add(*(word for word in words if "@" in word))
    told = result.step("tell-secrets")
    values = environment.read_told(told.data) if told else {}
    runner.report.redactor.add(*environment.to_hide(runner.site.settings, values))
    return facts
