"""What single tasks do on one host, between their arguments and the steps."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import get_origin

from fabdjango import locking, recipes, rollout
from fabdjango.commands import database, django, git, managers, venv
from fabdjango.commands import release as releases
from fabdjango.configuration import Resolved
from fabdjango.deploying import done, prepared
from fabdjango.escape import env_assignments, raw, sh
from fabdjango.exceptions import ConfigError, FabdjangoError, StepFailedError, UnderwayError
from fabdjango.facts import DjangoFacts, Facts
from fabdjango.fleet import Fleet
from fabdjango.generating import made
from fabdjango.layout import Layout
from fabdjango.plan import OWNER, Phase, Step
from fabdjango.recipes import Deployment
from fabdjango.report import difference
from fabdjango.returning import forward
from fabdjango.runner import Runner
from fabdjango.settings import Row, class_of_items
from fabdjango.surveying import begun, look, look_from_outside, recovered, show_sending, take_up

__all__ = [
    "activate_release",
    "allow_dirty",
    "build_venv",
    "checkout",
    "config_lines",
    "configure_gunicorn",
    "diff_packages",
    "history",
    "interact",
    "migrate",
    "release_name",
    "release_path",
    "restart_site",
    "run_in_foreground",
    "status",
    "upload_settings",
]


# --- which release -----------------------------------------------------------


def release_name(text: str) -> str:
    """``current`` or the id of a release; anything else is a ConfigError."""
    return text if text == "current" else releases.read_id(text)


def release_path(runner: Runner, text: str) -> PurePosixPath:
    """The directory of ``current``, ``newest`` or an id."""
    layout = runner.site.layout
    if text == "current":
        return layout.current
    return layout.release(_newest(look(runner, "", fetch=False)) if text == "newest" else releases.read_id(text))


def _newest(facts: Facts) -> str:
    names = sorted(facts.releases, key=releases.counter)
    if not names:
        msg = "the host has no release yet"
        raise FabdjangoError(msg, cure="run deploy, or git.checkout")
    return names[-1]


def _planned(runner: Runner, text: str) -> Deployment:
    """The plan of a release that is on the host already, complete or not."""
    runner.site.private()
    release = _newest(look(runner, "", fetch=False)) if text == "newest" else releases.read_id(text)
    sha = release.partition("-")[2]
    return recipes.deployment(runner.site, look(runner, sha, fetch=False), sha, release=release)


# --- git, venv ---------------------------------------------------------------


def checkout(runner: Runner, ref: str) -> None:
    """A release directory for ``ref``, with settings and links, but not complete."""
    git.read_ref(ref)
    runner.site.private()
    facts = look_from_outside(runner, ref) if runner.dry else look(runner, ref)
    show_sending(runner, facts, ref)
    facts = made(runner, facts)
    plan = recipes.deployment(runner.site, facts, ref, release=releases.new_id(facts, facts.sha))
    phase = Phase(
        "checkout",
        (releases.still_as_surveyed(facts, plan.layout, plan.release), *recipes.export(plan)),
        undo=(recipes.discard(plan),),
        undo_from="settings",
        lock=plan.site.lock,
    )
    runner.run(phase)
    if not runner.dry:
        runner.report.say(f"checked out: releases/{plan.release} holds {facts.subject}; nothing was switched")


def build_venv(runner: Runner, release: str, *, install: bool) -> None:
    """The virtualenv of a release, empty or filled."""
    plan = _planned(runner, release)
    settings, facts, layout = plan.site.settings, plan.facts, plan.layout
    steps = [venv.get_uv(settings, facts, layout), venv.create_venv(settings, facts, layout, plan.key)]
    if install:
        steps.append(venv.install_requirements(settings, facts, layout, plan.key, plan.path))
        steps.append(Step("complete", f"virtualenv {plan.key} is complete", venv.mark_complete(layout, plan.key)))
    runner.run(Phase("venv", tuple(step for step in steps if step), lock=plan.site.lock))


def diff_packages(runner: Runner, old: str, new: str) -> None:
    """Print the packages that differ, a line each."""
    result = runner.run(Phase("diff", venv.diff(runner.site.layout, old, new), reads_only=True))
    before, after = (
        {name.lower(): version for name, _, version in (line.partition("==") for line in step.output.splitlines())}
        for step in result.steps
    )
    changes = [
        f"{name}: {before.get(name, '-')} -> {after.get(name, '-')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    runner.report.show("\n".join(changes) or "the same packages")


# --- django ------------------------------------------------------------------


def migrate(runner: Runner, release: str) -> None:
    """Apply the migrations of a release, whatever they are."""
    site = runner.site
    entry = {"event": "migrate", "release": release, "by": site.holder}
    path, layout = release_path(runner, release), site.layout
    if str(layout.root).startswith("~"):
        # A program is told of files, and no shell fills that in.
        layout = _at_home(runner)[1]
    step = django.migrate(site.settings, layout, path, None, entry)
    if site.settings.database.backup_before_migrate:
        runner.do(database.backup(site.settings, layout, path, site.holder, before_migrate=True), step)
    else:
        runner.do(step)


def upload_settings(runner: Runner) -> None:
    """local_settings.py and the environment file into shared."""
    site = runner.site
    if not site.settings.env_file and not site.settings.local_settings:
        msg = "there is nothing to upload: neither fabdjango.local_settings nor fabdjango.env_file is set"
        raise ConfigError(
            msg, cure="set one of them in fabric.yaml, for instance local_settings: deploy/local_settings.py.j2"
        )
    private = site.private()
    env = (
        env_assignments({name: secret.reveal() for name, secret in private.env_file.items()})
        if site.settings.env_file
        else None
    )
    runner.do(django.put_settings(site.layout, env, private.local_settings))
    runner.report.say("they serve from the next release on")


def interact(runner: Runner, release: str, words: list[str], *, unattended: str = "") -> None:
    """A command in a release with the operator's terminal; ``unattended`` is added where there is none."""
    path = release_path(runner, release)
    if unattended and not sys.stdin.isatty():
        words = [*words, unattended]
    run_in_foreground(runner, raw(f"exec {django.in_release(path)} {sh(*words)}"))


def run_in_foreground(runner: Runner, command: str) -> None:
    """Shell text with the operator's terminal, as the account that owns the site; a failing one is an error."""
    account = runner.account
    words = raw(command)
    if account.owner != account.login:
        as_owner = ["-H", "-u", account.owner, "--", "sh", "-c"]
        become = ["sudo", "-n", *as_owner]
        if account.password:
            # On a terminal it asks by itself.
            become = ["sudo", *as_owner]
        elif account.login == "root":
            become = ["su", "-s", "/bin/sh", account.owner, "-c"]
        words = raw("exec " + sh(*become, command))
    status = runner.transport.interact(words)
    if status != 0:
        msg = f"the command ended with status {status}"
        raise StepFailedError(msg, host=runner.site.host, state="")


# --- gunicorn, supervisor ----------------------------------------------------


def _at_home(runner: Runner) -> tuple[Facts, Layout]:
    facts = look(runner, "", fetch=False)
    return facts, runner.site.on(facts).layout


def configure_gunicorn(runner: Runner, release: str) -> None:
    """Write gunicorn's configuration and the start scripts into a release that does not serve; of one that does, show the difference."""
    plan = _planned(runner, release)
    if not plan.facts.releases.get(plan.release):
        runner.do(
            releases.write_private(plan.site.settings, plan.layout, plan.release, plan.private, plan.facts.app_group)
        )
        return
    if plan.release != plan.facts.current:
        msg = f"{plan.release} is complete, and a complete release is never changed"
        raise FabdjangoError(msg, host=runner.site.host, cure="deploy: the next release gets the new configuration")
    current = plan.layout.current / ".fabdjango"
    for put in plan.private:
        found = None if put.secret else plan.facts.managed.get(str(current / put.path.name))
        if found is not None:
            runner.report.show("\n".join(difference(put, found)))
    runner.report.say(f"{plan.release} serves and stays as it is: deploy, and the next release gets this")


# --- the lock ----------------------------------------------------------------


def wait_for_lock(fleet: Fleet, seconds: int) -> None:
    """Let this run wait for another deployment; 0 leaves it to the settings."""
    for runner in (member.runner for member in fleet.members if seconds):
        settings = replace(runner.site.settings, lock_wait=seconds)
        runner.site = replace(runner.site, settings=settings)


def allow_dirty(runners: Iterable[Runner], *, allowed: bool) -> None:
    """Let commits be sent from a clone with work that is not in them."""
    for runner in runners:
        runner.site = replace(runner.site, allow_dirty=allowed)


def unlock(runner: Runner, *, force: bool) -> None:
    """Say who holds the lock; with ``force`` end what holds it, as every account that a step may have had."""
    lock, account = runner.site.lock, runner.account
    if not force:
        runner.ask(locking.show(lock))
        return
    users = [OWNER, *([account.login] if account.login not in ("", account.owner) else [])]
    result = runner.run(Phase("unlock", tuple(locking.unlock(lock, user) for user in users)))
    for step in result.steps:
        if step.output:
            runner.report.show(step.output)
    runner.report.say("unlocked: the next deploy sees to what was left")


def resume(fleet: Fleet) -> None:
    """
    Bring to its end what a deployment left that was cut off, on every host.

    Raises RevertedError if that was the release before, of many hosts a FleetError.
    """
    failed = fleet.each(lambda member: _resume(member.runner))
    if failed and not fleet.alone:
        back = all(each.fate == "back" for each in failed)
        raise fleet.verdict(
            f"{len(failed)} of {len(fleet.members)} hosts did not go on to the new release",
            state="the hosts may serve different releases",
            exit_code=3 if back and len(failed) == len(fleet.members) else 2,
            cure="look: fab status\nthen bring all to one release: fab deploy",
            table=[],
        )
    fleet.need(failed, "they cannot be resumed")


def _resume(runner: Runner) -> None:
    report, before = runner.report, ""
    try:
        facts = look(runner, "", fetch=False, lock=True)
    except UnderwayError as error:
        take_up(runner, error)
        facts, before = look(runner, "", fetch=False, lock=True), "resumed"
    if facts.activation:
        facts, before = recovered(runner, facts, ""), "resumed"
    report.say(
        f"{before or 'nothing to resume'}: {facts.current or 'no release'} serves on {runner.site.host}",
        style="bold green",
    )


# --- release -----------------------------------------------------------------


_DONE = {"activate": "activated", "restart": "restarted"}


def _activate(runner: Runner, plan: Deployment, found: DjangoFacts, event: str) -> None:
    fleet = Fleet([runner], runner.report)
    (member,) = fleet.members
    member.facts, member.plan, member.found = plan.facts, plan, found
    rollout.switch(fleet, event)
    if not runner.dry:
        done(fleet, _DONE[event], plan.release)


def activate_release(runner: Runner, release: str) -> None:
    """Complete a release if need be, and let it serve."""
    runner.site.private()
    facts = begun(runner, "", fetch=False)
    release = _newest(facts) if release == "newest" else releases.read_id(release)
    if facts.releases.get(release):
        _activate(runner, recipes.redeployment(runner.site, facts, release), forward(facts, release), "activate")
        return
    sha = release.partition("-")[2]
    plan = recipes.deployment(runner.site, look(runner, sha, fetch=False), sha, release=release)
    _activate(runner, plan, prepared(runner, plan, recipes.finish(plan)), "activate")


def restart_site(runner: Runner) -> None:
    """The current release anew, through the other slot, so that no request is lost; its other programs too."""
    facts = begun(runner, "", fetch=False)
    if not facts.current:
        raise FabdjangoError("no release serves yet", host=runner.site.host, cure="run deploy")
    _activate(runner, recipes.redeployment(runner.site, facts, facts.current), DjangoFacts(), "restart")


def history(runner: Runner, count: int) -> None:
    """The newest entries of the journal, a line each."""
    facts = look(runner, "", fetch=False)
    for entry in facts.journal[-count:]:
        more = f", {len(entry['migrations'])} migrations" if entry.get("migrations") else ""
        more += f", {' '.join(entry['variables'])}" if entry.get("variables") else ""
        runner.report.show(
            f"{entry.get('time')}  {entry.get('event'):<8}  {entry.get('release') or entry.get('file', ''):<18}  {entry.get('result')}"
            f"{more}, by {entry.get('by')}"
        )


def journal(runner: Runner, count: int) -> None:
    """The newest entries of the journal as they are."""
    for entry in look(runner, "", fetch=False).journal[-count:]:
        runner.report.show(json.dumps(entry, sort_keys=True))


def list_releases(runner: Runner) -> None:
    """A line a release, the newest first."""
    for line in _release_lines(look(runner, "", fetch=False)):
        runner.report.say(line)


def _release_lines(facts: Facts) -> Iterator[str]:
    results = {entry.get("release"): entry for entry in facts.journal if entry.get("event") != "migrate"}
    slots = {release: slot for slot, release in facts.slots.items()}
    for name in sorted(facts.releases, key=releases.counter, reverse=True):
        last = results.get(name) or {}
        if not facts.releases[name]:
            what = "not complete"
        elif name in facts.proven:
            what = (
                f"served, {last.get('time', '')}" if name != facts.current else f"serves, since {last.get('time', '')}"
            )
        else:
            what = {"failed": "failed", "reverted": "failed, and was taken back"}.get(
                last.get("result", ""), "never served"
            )
        slot = f", slot {slots[name]}" if name in slots else ""
        pinned = ", pinned" if name in facts.pins else ""
        yield f" {'->' if name == facts.current else '  '} {name:<20} {what}{slot}{pinned}"


def prune(runner: Runner) -> None:
    """What nobody needs any more, as at the end of a deploy."""
    facts = look(runner, "", fetch=False, lock=True)
    if not facts.current:
        raise FabdjangoError("no release serves yet, so none is old", host=runner.site.host, cure="run deploy")
    result = runner.do(releases.prune(runner.site.settings, runner.site.layout, facts.current, facts.proven))
    for step in result.steps:
        runner.report.show(step.output)


def pin(runner: Runner, release: str) -> None:
    """Keep a release for ever."""
    runner.do(releases.pin(runner.site.layout, releases.read_id(release)))


def unpin(runner: Runner, release: str) -> None:
    """Let a release grow old."""
    runner.do(releases.unpin(runner.site.layout, releases.read_id(release)))


# --- looking -----------------------------------------------------------------


def status(runner: Runner) -> None:
    """What serves, its programs and the other releases; raises StepFailedError if the site does not answer."""
    report, site = runner.report, runner.site
    facts, layout = _at_home(runner)
    marker = facts.current_marker
    by = f", made by {marker['by']}" if marker.get("by") else ""
    report.say(
        f"{site.settings.project} on {site.host}: "
        + (f"{facts.current}{by}" if facts.current else "no release serves"),
        style="bold",
    )
    for line in _release_lines(facts):
        report.say(line)
    if facts.activation:
        report.say(
            f"an activation of {facts.activation.get('release')} is under way or was left behind: the next deploy sees to it",
            style="yellow",
        )
    manager = managers.find(site.settings, facts, layout, site.templates, site.host)
    if not facts.current:
        return
    how = facts.current_marker.get("asked")
    # While a deployment waits for its deployer's word, both slots may take from a held socket.
    also = tuple(release for release in facts.slots.values() if release != facts.current)
    health = releases.ask_health(site.settings, layout, facts.current, timeout=10, how=how, also=also)
    runner.ask(manager.status())
    runner.ask(health)


def config_lines(resolved: Resolved, rows: Iterable[Row], only: str) -> Iterator[str]:
    """``key = value  (source)`` lines; secrets hidden, names of the project's choice filled in."""
    lines = [line for row in rows for line in _row_lines(resolved, row)]
    shown = [line for line in lines if not only or line[0] == only or line[0].startswith(only + ".")]
    if not shown:
        msg = f"there is no setting {only}"
        raise ConfigError(msg, cure="see all of them with: fab config")
    width = max(len(f"{key} = {value}") for key, value, _ in shown)
    for key, value, source in shown:
        text = f"{key} = {value}"
        yield f"{text:<{min(width, 70)}}  ({source})"


def _row_lines(resolved: Resolved, row: Row) -> Iterator[tuple[str, str, str]]:
    head, star, tail = row.key.partition(".*.")
    value: object = resolved.settings
    for part in head.split("."):
        value = getattr(value, part)
    if star:
        for name, item in dict(value).items():  # type: ignore[call-overload]
            key = f"{head}.{name}.{tail}"
            yield key, _shown(getattr(item, tail), row), _source(resolved, key)
        return
    if isinstance(value, dict) and get_origin(row.kind) is not None and value:
        if class_of_items(row.kind):
            # Each of its items has lines of its own.
            return
        if all(isinstance(item, (str, int, float, bool, tuple, list)) for item in value.values()):
            for name, item in value.items():
                yield f"{row.key}.{name}", _shown(item, row), _source(resolved, f"{row.key}.{name}")
        return
    yield row.key, _shown(value, row), _source(resolved, row.key)


def _shown(value: object, row: Row) -> str:
    if row.secret and value:
        return "********"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return (
        shlex.quote(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _source(resolved: Resolved, key: str) -> str:
    while key:
        if key in resolved.sources:
            return resolved.sources[key]
        key = key.rpartition(".")[0]
        if key and key in resolved.sources and "." not in key:
            break
    return "default"
