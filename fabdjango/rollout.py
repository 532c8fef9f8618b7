"""
From one release to the next on a whole fleet: the primary first, then in batches, then everywhere or nowhere.

Every host that has switched waits for its deployer's word, which comes once all
have. If one fails, those that wait are told to go back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fabdjango import recipes, switchover
from fabdjango.exceptions import FabdjangoError, RevertedError, StepFailedError, UnknownStateError
from fabdjango.fleet import Fleet, Member
from fabdjango.runner import Runner
from fabdjango.script import AWAITING
from fabdjango.surveying import look, recovered

__all__ = ["switch"]


def switch(fleet: Fleet, event: str) -> None:
    """
    Give the traffic to the release of every member's plan, unless it serves it already; ``event`` is for the journal.

    Of one host the error is its own: StepFailedError (1), RevertedError (3) or
    UnknownStateError (2). Of many it is a FleetError with all of them.
    """
    moving = [each for each in fleet.members if not each.serves]
    for number, batch in enumerate(fleet.batches(moving), 1):
        failed = fleet.each(_activates(event), batch)
        if failed or fleet.interrupted:
            _give_up(fleet, failed)
        if not fleet.alone:
            fleet.tell.say(_progress(batch, number, moving), style="bold")
    confirmed = fleet.each(_confirm, [each for each in moving if each.waiting])
    if confirmed:
        _half_way(fleet, confirmed)


def _progress(batch: list[Member], number: int, moving: list[Member]) -> str:
    done = len([each for each in moving if each.waiting or each.fate == "new"])
    names = ", ".join(each.host for each in batch[:5]) + (f" and {len(batch) - 5} more" if len(batch) > 5 else "")
    return f"batch {number}: {names} answered; {done} of {len(moving)} hosts have switched"


def _activates(event: str) -> Callable[[Member], None]:
    def activate(member: Member) -> None:
        phase = switchover.activate(member.planned, member.found, event, member.backwards)

        def run() -> None:
            result = member.runner.run(phase)
            if result.status == AWAITING:
                member.waiting = result
            else:
                member.fate = "new"

        _found_out(member, run)

    return activate


def _confirm(member: Member) -> None:
    waiting, member.waiting = member.waiting, None
    if waiting is not None:
        _found_out(member, lambda: member.runner.settle(waiting, recipes.tidy(member.planned)))
        member.fate = "new"


def _take_back(member: Member) -> None:
    waiting, member.waiting = member.waiting, None
    if waiting is not None:
        member.runner.take_back(waiting)
        member.fate = "back"


def _found_out(member: Member, deed: Callable[[], None]) -> None:
    """Do it; if nobody told how it ended, ask the host and bring it to an end."""
    try:
        deed()
    except UnknownStateError as error:
        if not error.lost:
            raise
        _find_out(member.runner, member.planned, error)
        member.fate = "new"


def _find_out(runner: Runner, plan: recipes.Deployment, error: UnknownStateError) -> None:
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


# --- what a failure means -----------------------------------------------------


def _give_up(fleet: Fleet, failed: list[Member]) -> None:
    """A host did not switch: those that have are put back, and the verdict is raised."""
    if fleet.alone:
        assert failed[0].error is not None  # noqa: S101 - for the type checker
        raise failed[0].error
    waiting = [each for each in fleet.members if each.waiting]
    if waiting:
        why = f"{_names(failed)} failed" if failed else "interrupted"
        fleet.tell.say(f"{why}: {_names(waiting)} go back", style="yellow")
        fleet.each(_take_back, waiting)
    fates = {each.fate for each in fleet.members}
    message = f"{len(failed)} of {len(fleet.members)} hosts did not switch" if failed else "interrupted"
    if "unknown" in fates or "new" in fates:
        raise fleet.verdict(message, state=_unsure(fleet), exit_code=2, cure=_look(fleet))
    if "back" in fates:
        raise fleet.verdict(message, state="every host serves again what it did before", exit_code=3)
    raise fleet.verdict(message, state="nothing that serves was touched on any host", exit_code=1)


def _half_way(fleet: Fleet, failed: list[Member]) -> None:
    """All had switched, and some hosts did not hear that they may stay so."""
    if fleet.alone:
        assert failed[0].error is not None  # noqa: S101 - for the type checker
        raise failed[0].error
    message = f"{len(failed)} of {len(fleet.members)} hosts switched and could not be told to stay so"
    raise fleet.verdict(message, state=_unsure(fleet), exit_code=2, cure=_look(fleet))


def _names(members: list[Member]) -> str:
    return ", ".join(each.host for each in members)


def _unsure(fleet: Fleet) -> str:
    unknown = [each for each in fleet.members if each.fate == "unknown"]
    if unknown:
        return f"unknown: {_names(unknown)}; a host that nobody reaches goes back by itself"
    old = [each for each in fleet.members if each.fate == "back"]
    return f"mixed: the old release serves on {_names(old)}"


def _look(fleet: Fleet) -> str:
    hosts = ",".join(each.runner.site.target for each in fleet.members)
    return f"look: fab -H {hosts} status\nonce they can be reached, bring all to one release: fab -H {hosts} deploy"
