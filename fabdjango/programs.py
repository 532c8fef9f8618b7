"""What single tasks do with the site's programs on one host, whichever process manager runs them."""

from __future__ import annotations

from dataclasses import replace

from fabdjango import operations, recipes
from fabdjango.commands import managers, venv
from fabdjango.commands import sudoers as lists
from fabdjango.commands.doctor import read_tries, try_to_escape
from fabdjango.commands.manager import Manager
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import Phase, Step
from fabdjango.runner import Runner
from fabdjango.surveying import look

__all__ = ["configure", "doctor", "install", "logs", "remove", "restart", "start", "status", "stop", "sudoers"]


def _found(runner: Runner, namespace: str) -> tuple[Manager, Facts, Layout]:
    """The site's manager; raises ConfigError if it is not the one that the task is of."""
    site = runner.site
    if site.settings.manager != namespace:
        msg = f"the programs of {site.settings.project} are run by {site.settings.manager}, not by {namespace}"
        raise ConfigError(
            msg, cure=f"use the tasks of {site.settings.manager}, or set fabdjango.manager to {namespace}"
        )
    facts = look(runner, "", fetch=False)
    layout = site.on(facts).layout
    return managers.find(site.settings, facts, layout, site.templates, site.host), facts, layout


def install(runner: Runner, namespace: str) -> None:
    """The manager itself there and running."""
    manager, facts, layout = _found(runner, namespace)
    first: list[Step | None] = []
    if manager.needs_uv:
        first.append(venv.get_uv(runner.site.settings, facts, layout))
    runner.do(*(step for step in [*first, *manager.install()] if step))


def configure(runner: Runner, namespace: str) -> None:
    """The site's files for it, checked and installed; programs run on."""
    manager, facts, _ = _found(runner, namespace)
    for put in manager.files:
        recipes.refuse_foreign(facts, put, runner.site.host)
    runner.do(manager.check(), manager.configure())


def _is_elsewhere(runner: Runner, only: str) -> bool:
    """True, and said so, for a program that is for the primary only."""
    if only in runner.site.elsewhere:
        runner.report.say(f"unchanged: {only} is for the primary, and {runner.site.host} is not")
    return only in runner.site.elsewhere


def start(runner: Runner, namespace: str, only: str) -> None:
    """The live slot and the processes, or one of them."""
    if _is_elsewhere(runner, only):
        return
    managers.known_program(runner.site.settings, only)
    manager, facts, _ = _found(runner, namespace)
    runner.do(manager.start(only, facts.live_slot or "a"))


def stop(runner: Runner, namespace: str, only: str) -> None:
    """Both slots and the processes, or one of them."""
    if _is_elsewhere(runner, only):
        return
    managers.known_program(runner.site.settings, only)
    runner.do(_found(runner, namespace)[0].stop(only))


def remove(runner: Runner, namespace: str) -> None:
    """The site's programs stopped and their files away; releases and data stay."""
    manager, facts, _ = _found(runner, namespace)
    for put in manager.files:
        recipes.refuse_foreign(facts, put, runner.site.host)
    tidy = manager.tidy()
    runner.do(manager.stop(), manager.restore((None,) * len(manager.files)), *([tidy] if tidy else []))
    runner.report.say(f"removed: {namespace} runs nothing of {runner.site.settings.project} any more")


def restart(runner: Runner, namespace: str) -> None:
    """The release that serves, anew and through the slots, so that no request is lost."""
    _found(runner, namespace)
    operations.restart_site(runner)


def status(runner: Runner, namespace: str) -> None:
    """What the manager says of the site's programs."""
    runner.ask(_found(runner, namespace)[0].status())


def logs(runner: Runner, namespace: str, only: str, lines: int) -> None:
    """The end of one program's log."""
    if _is_elsewhere(runner, only):
        return
    managers.known_program(runner.site.settings, only)
    runner.ask(_found(runner, namespace)[0].logs(only, lines))


def sudoers(runner: Runner, *, install: bool) -> None:
    """The list of what the site's owner may do as root, shown; or with ``install`` brought onto the host."""
    site, facts = runner.site, look(runner, "", fetch=False)
    layout = site.on(facts).layout
    manager = managers.find(site.settings, replace(facts, sudo=True), layout, site.templates, site.host)
    puts = lists.programs(manager, layout, site.settings.schedule)
    if not puts:
        msg = f"nothing is done as root: {manager.name} belongs to {facts.user}"
        raise FabdjangoError(msg, host=site.host, cure="there is nothing to allow")
    if install:
        runner.do(lists.install(site.settings.project, facts.user, puts))
        return
    runner.report.show(lists.rules(site.settings.project, facts.user, puts).content.rstrip())
    missing = [put.path.name for put in puts if not facts.sudo and str(put.path) not in facts.root_programs]
    if missing:
        runner.report.say(f"the host's list lacks {len(missing)} of {len(puts)}: fab -H root@… setup", style="yellow")


def doctor(runner: Runner) -> None:
    """Try to get more rights than the account of the site needs; raises FabdjangoError with what is open."""
    site, facts = runner.site, look(runner, "", fetch=False)
    layout = site.on(facts).layout
    manager = managers.find(site.settings, replace(facts, sudo=True), layout, site.templates, site.host)
    result = runner.run(Phase("doctor", (try_to_escape(site.settings, layout, manager),)))
    if runner.dry:
        return
    tries = read_tries("".join(step.output for step in result.steps))
    for each in tries:
        runner.report.say(f"shut     {each.name}" if each.held else f"OPEN     {each.name}: {each.how}")
    is_open = [each.name for each in tries if not each.held]
    if is_open:
        msg = f"{len(is_open)} of {len(tries)} ways to more rights are open: {', '.join(is_open)}"
        raise FabdjangoError(msg, host=site.host, cure=f"fab -H root@{site.target.rpartition('@')[2]} setup")
    runner.report.say(f"all {len(tries)} ways to more rights are shut", style="bold green")
