"""What single tasks do on one host, between their arguments and the steps."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import get_origin

from fabdjango import recipes
from fabdjango.commands import django, git, supervisor, venv
from fabdjango.commands import release as releases
from fabdjango.configuration import Resolved
from fabdjango.escape import env_assignments, raw, sh
from fabdjango.exceptions import ConfigError, FabdjangoError, StepFailedError
from fabdjango.facts import Facts
from fabdjango.fleet import Runner, look, look_from_outside, prepared, tidy_up
from fabdjango.layout import Layout
from fabdjango.plan import Phase, Step
from fabdjango.recipes import Deployment
from fabdjango.report import difference
from fabdjango.settings import Row

__all__ = [
    "activate_release",
    "build_venv",
    "checkout",
    "config_lines",
    "configure_gunicorn",
    "configure_supervisor",
    "diff_packages",
    "history",
    "install_supervisor",
    "interact",
    "known_program",
    "preflight",
    "release_name",
    "release_path",
    "restart_programs",
    "rollback",
    "run_in_foreground",
    "status",
    "supervise",
    "supervisord",
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
    names = sorted(facts.releases, key=_counter)
    if not names:
        msg = "the host has no release yet"
        raise FabdjangoError(msg, cure="run deploy, or git.checkout")
    return names[-1]


def _counter(release: str) -> int:
    """The number that orders releases; 0 for a folder of somebody else's."""
    number = release.partition("-")[0]
    return int(number) if number.isdigit() else 0


def _planned(runner: Runner, text: str) -> Deployment:
    """The plan of a release that is on the host already, complete or not."""
    release = _newest(look(runner, "", fetch=False)) if text == "newest" else releases.read_id(text)
    sha = release.partition("-")[2]
    return recipes.deployment(runner.site, look(runner, sha, fetch=False), sha, release=release)


# --- git, venv ---------------------------------------------------------------


def checkout(runner: Runner, ref: str) -> None:
    """A release directory for ``ref``, with settings and links, but not complete."""
    git.read_ref(ref)
    facts = look_from_outside(runner, ref) if runner.dry else look(runner, ref)
    plan = recipes.deployment(runner.site, facts, ref, release=releases.new_id(facts, facts.sha))
    phase = Phase(
        "checkout",
        (releases.still_as_surveyed(facts, plan.layout, plan.release), *recipes.export(plan)),
        undo=(recipes.discard(plan),),
        undo_from="settings",
        lock=plan.layout.lock,
        holder=runner.site.holder,
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
    runner.run(Phase("venv", tuple(step for step in steps if step), lock=layout.lock, holder=runner.site.holder))


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


def upload_settings(runner: Runner) -> None:
    """local_settings.py and the environment file into shared."""
    site = runner.site
    if not site.settings.env_file and not site.settings.local_settings:
        msg = "there is nothing to upload: neither fabdjango.local_settings nor fabdjango.env_file is set"
        raise ConfigError(
            msg, cure="set one of them in fabric.yaml, for instance local_settings: deploy/local_settings.py.j2"
        )
    env = (
        env_assignments({name: secret.reveal() for name, secret in site.env.items()})
        if site.settings.env_file
        else None
    )
    runner.do(django.put_settings(site.layout, env, site.local_settings))
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
        become = (
            ["su", "-s", "/bin/sh", account.owner, "-c"]
            if account.login == "root"
            else ["sudo", "-n", "-H", "-u", account.owner, "--", "sh", "-c"]
        )
        words = raw("exec " + sh(*become, command))
    status = runner.transport.interact(words)
    if status != 0:
        msg = f"the command ended with status {status}"
        raise StepFailedError(msg, host=runner.site.host, state="")


# --- gunicorn, supervisor ----------------------------------------------------


def _at_home(runner: Runner) -> tuple[Facts, Layout]:
    facts = look(runner, "", fetch=False)
    return facts, Layout(PurePosixPath(facts.root), runner.site.settings.project)


def configure_gunicorn(runner: Runner, release: str) -> None:
    """Write gunicorn's configuration and the start scripts into a release that does not serve; of one that does, show the difference."""
    plan = _planned(runner, release)
    if not plan.facts.releases.get(plan.release):
        runner.do(releases.write_private(plan.site.settings, plan.layout, plan.release, plan.private))
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


def supervisord(runner: Runner) -> supervisor.Supervisord:
    """The supervisord that runs the site on this host."""
    facts, layout = _at_home(runner)
    return supervisor.find(runner.site.settings, facts, layout, runner.site.host)


def install_supervisor(runner: Runner) -> None:
    """Supervisor there and running, at the level of the settings."""
    facts, layout = _at_home(runner)
    site = runner.site
    daemon = supervisor.find(site.settings, facts, layout, site.host)
    steps: list[Step | None] = []
    if daemon.level == "virtualenv":
        steps.append(venv.get_uv(site.settings, facts, layout))
    steps += supervisor.install(site.settings, facts, layout, site.templates, daemon)
    runner.do(*(step for step in steps if step))


def configure_supervisor(runner: Runner) -> None:
    """The site's program file, checked and installed."""
    facts, layout = _at_home(runner)
    site = runner.site
    daemon = supervisor.find(site.settings, facts, layout, site.host)
    put = supervisor.configuration(site.settings, facts, layout, site.templates, daemon)
    recipes.refuse_foreign(facts, put, site.host)
    runner.do(supervisor.check(layout, daemon, put), supervisor.configure(daemon, put))


def supervise(runner: Runner, verb: Callable[..., Step], only: str) -> None:
    """Start or stop, for one program of the site or all."""
    settings = runner.site.settings
    known_program(runner, only)
    runner.do(verb(settings, supervisord(runner), only))


def known_program(runner: Runner, only: str) -> None:
    """Refuse a name that is no program of the site; empty means all of them."""
    known = ["web", *runner.site.settings.processes]
    if only and only not in known:
        msg = f"the site has no program {only!r}"
        raise ConfigError(msg, cure=f"it has: {', '.join(known)}")


def restart_programs(runner: Runner) -> None:
    """All programs anew, and waited for."""
    settings, daemon = runner.site.settings, supervisord(runner)
    runner.do(supervisor.restart(settings, daemon), supervisor.wait_running(settings, daemon))


# --- release -----------------------------------------------------------------


_DONE = {"activate": "activated", "rollback": "rolled back"}


def activate_release(runner: Runner, release: str, event: str = "activate") -> None:
    """Complete a release if need be, and let it serve; ``event`` is what the journal calls it."""
    plan = _planned(runner, release)
    found = prepared(runner, plan, recipes.finish(plan))
    runner.run(recipes.activate(plan, found, event))
    if not runner.dry:
        tidy_up(runner, plan)
        runner.report.say(f"{_DONE[event]}: {plan.release} serves on {runner.site.host}", style="bold green")


def rollback(runner: Runner, to: str, *, code_only: bool) -> None:
    """
    Let an earlier release serve: ``to``, or the last other one that served.

    Raises FabdjangoError if there is none, or if migrations were applied since, unless ``code_only``.
    """
    host = runner.site.host
    facts = look(runner, "", fetch=False)
    earlier = [release for release in facts.proven if release != facts.current]
    if to and not facts.releases.get(releases.read_id(to)):
        raise FabdjangoError(f"there is no complete release {to}", host=host, cure=_choices(facts))
    if not to and not earlier:
        raise FabdjangoError("no other release has ever served here", host=host, cure=_choices(facts))
    target = to or earlier[-1]
    if target == facts.current:
        runner.report.say(f"unchanged: {target} is current already", style="bold green")
        return
    migrations = facts.migrations_since(target)
    if migrations and not code_only:
        raise FabdjangoError(
            f"{target} is older than the database: since it served, {len(migrations)} migrations were applied",
            host=host,
            output="\n".join(migrations),
            cure="reverse them first, if they can be: fab … django.manage 'migrate APP NAME'\n"
            "or, if the older code can live with them: fab … rollback --code-only",
        )
    activate_release(runner, target, "rollback")


def _choices(facts: Facts) -> str:
    complete = [name for name, marker in facts.releases.items() if marker]
    return f"complete releases: {', '.join(sorted(complete, key=_counter)) or 'none'}"


def history(runner: Runner, count: int) -> None:
    """The newest entries of the journal, a line each."""
    facts = look(runner, "", fetch=False)
    for entry in facts.journal[-count:]:
        migrations = f", {len(entry['migrations'])} migrations" if entry.get("migrations") else ""
        runner.report.show(
            f"{entry.get('time')}  {entry.get('event'):<8}  {entry.get('release'):<18}  {entry.get('result')}"
            f"{migrations}, by {entry.get('by')}"
        )


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
    for name in sorted(facts.releases, key=_counter, reverse=True):
        mark = "->" if name == facts.current else "  "
        report.say(f" {mark} {name}{'' if facts.releases[name] else '  (not complete)'}")
    daemon = supervisor.find(site.settings, facts, layout, site.host)
    if not facts.current:
        return
    health = releases.ask_health(site.settings, layout, facts.current, timeout=10)
    runner.ask(supervisor.status(site.settings, daemon))
    runner.ask(health)


def preflight(runner: Runner, ref: str) -> None:
    """Print findings; raises the first error that would stop a deploy of ``ref``."""
    report, site = runner.report, runner.site
    facts = look_from_outside(runner, ref)
    for line in _findings(facts):
        report.say("ok       " + line)
    recipes.deployment(site, facts, ref)
    report.say(f"ok       a deploy of {ref} ({facts.sha[:12]}) can begin", style="bold green")


def _findings(facts: Facts) -> Iterator[str]:
    free, inodes = facts.disk
    yield f"{facts.os or facts.system}, {facts.processors} processors, {free // 1_000_000_000} GB and {inodes if inodes >= 0 else 'enough'} inodes free"
    yield f"Python {facts.python.get('version', 'none')}, uv {'there' if facts.programs.get('uv') else 'not there (it is fetched, or pip does it)'}"
    yield f"account {facts.user}, sudo {'without a password' if facts.sudo else 'not available'}"
    yield f"site {facts.root}: {len([name for name in facts.releases if facts.releases[name]])} releases, current {facts.current or 'none'}"
    yield "the repository can be read from the host"


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
