"""Variables that are kept on the hosts: set or removed on all of them, and made to serve as a release is."""

from __future__ import annotations

import getpass
import sys
from dataclasses import replace

from fabdjango import deploying, generating
from fabdjango.board import columns
from fabdjango.commands import environment
from fabdjango.commands.environment import Change
from fabdjango.escape import Secret, env_assignments
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.fleet import Fleet, Member
from fabdjango.layout import Layout
from fabdjango.plan import Phase, Step
from fabdjango.runner import Runner
from fabdjango.surveying import look

__all__ = ["list_variables", "set_variable", "unset_variable"]


def set_variable(fleet: Fleet, name: str, *, restart: bool) -> None:
    """
    Ask for the value of ``name``, and let it count on every host.

    Raises ConfigError if the operator's side sets it, or there is no value;
    otherwise as a deployment does. With ``restart`` off, the next release is the first that has it.
    """
    _refuse_managed(fleet, name)
    value = Secret("") if fleet.dry else _asked(name)
    for member in fleet.members:
        member.runner.report.redactor.add(value.reveal())
    _change(fleet, "env.set", {name: value}, restart=restart)


def unset_variable(fleet: Fleet, name: str, *, restart: bool) -> None:
    """Remove ``name`` on every host; the same in all else."""
    _refuse_managed(fleet, name)
    _change(fleet, "env.unset", {name: None}, restart=restart)


def list_variables(runner: Runner) -> None:
    """Print the names of all variables of the site, and where each is from."""
    step = environment.list_names(runner.site.layout)
    done = runner.run(Phase(step.name, (step,), reads_only=True)).steps[0]
    rows = list(environment.source_lines(runner.site.settings, done.output))
    runner.report.show("\n".join(columns(rows)) if rows else "there are none")


def _refuse_managed(fleet: Fleet, name: str) -> None:
    for member in fleet.members:
        environment.refuse_managed(member.runner.site.settings, name)


def _asked(name: str) -> Secret:
    """The value: typed unseen on a terminal, else all of standard input but a last newline."""
    try:
        text = getpass.getpass(f"{name}: ") if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n")
        env_assignments({name: text})
    except UnicodeDecodeError:
        raise ConfigError(f"the value of {name} is not text", cure="store it in another form, such as base64") from None
    except EOFError:
        text = ""
    if not text:
        raise ConfigError(
            f"no value was given for {name}",
            cure=f"type it when it is asked for, or give it on standard input\nto take it away: fab … env.unset {name}",
        )
    return Secret(text)


def _change(fleet: Fleet, event: str, change: Change, *, restart: bool) -> None:
    names, done = ", ".join(change), "is set" if event == "env.set" else "is removed"
    for member in fleet.members if restart else ():
        member.runner.site.private()
    deploying.gather(fleet, "", fetch=False)
    digests: dict[str, str] = {}

    def attempt(member: Member) -> None:
        step = environment.try_change(_layout(member), change)
        result = member.runner.run(Phase(step.name, (step,), reads_only=True)).steps[0]
        changes, digest = environment.read_trial(result.output)
        if changes:
            digests[member.host] = digest

    fleet.need(fleet.each(attempt), f"their shared/.env cannot be changed, and so {names} stays as it was")
    if not digests:
        fleet.tell.say(f"unchanged: {names} {done} already", style="bold green")
    elif not restart or not any(member.facts.current for member in fleet.members):
        _for_the_next_release(fleet, change, digests)
        fleet.tell.say(f"{names} {done}, from the next release on", style="bold green")
    else:
        _for_a_new_release(fleet, event, change, digests)


def _layout(member: Member) -> Layout:
    return member.runner.site.on(member.facts).layout


# --- without a release ------------------------------------------------------------


def _for_the_next_release(fleet: Fleet, change: Change, digests: dict[str, str]) -> None:
    """Change the file on all hosts, or on none."""
    changing = [member for member in fleet.members if member.host in digests]

    def run(member: Member, step: Step) -> None:
        member.runner.do(step)

    failed = fleet.each(
        lambda member: run(member, environment.change_shared(_layout(member), change, keep=not fleet.alone)), changing
    )
    if failed:
        fleet.each(
            lambda member: run(member, environment.put_back(_layout(member))),
            [member for member in changing if member not in failed],
        )
    elif not fleet.alone:
        failed = fleet.each(lambda member: run(member, environment.forget_kept(_layout(member))), changing)
    fleet.need(failed, "their shared/.env could not be changed, and that of the others is as it was")


# --- with one ---------------------------------------------------------------------


def _for_a_new_release(fleet: Fleet, event: str, change: Change, digests: dict[str, str]) -> None:
    """The commit that serves in a new release, whose copy of the file is changed; shared follows once it serves."""
    sha = _commit(fleet)

    def look_at(member: Member) -> None:
        member.facts = look(member.runner, sha, fetch=False)

    def decide(member: Member) -> None:
        digest = digests.get(member.host, member.facts.shared_env)
        member.facts = replace(member.facts, shared_env=digest)
        deploying.decide(member, sha, change)

    fleet.need(fleet.each(look_at), f"they cannot be asked for {sha}")
    if not fleet.dry:
        generating.make_everywhere(fleet)
    fleet.need(fleet.each(decide), "a new release cannot be made")
    if fleet.dry:
        for member in fleet.members:
            deploying.show(member, event)
    elif all(member.planned.unchanged for member in fleet.members):
        _for_the_next_release(fleet, change, digests)
        fleet.tell.say(f"{fleet.members[0].planned.release} serves with it already", style="bold green")
    else:
        deploying.serve(fleet, event, f"{', '.join(change)} {'is set' if event == 'env.set' else 'is removed'}")


def _commit(fleet: Fleet) -> str:
    """The commit that all hosts serve; raises FabdjangoError if they serve different releases."""
    served = sorted({member.facts.current or "no release" for member in fleet.members})
    if len(served) > 1:
        raise FabdjangoError(
            f"hosts serve different releases ({', '.join(served)}), of which no new one can be made",
            cure="bring all to one first: fab … deploy\nor leave it to the next deploy: --no-restart",
        )
    return str(fleet.members[0].facts.current_marker.get("commit", ""))
