"""What the programs of a site say, on all of its hosts at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fabdjango.commands import logs as build
from fabdjango.commands import managers
from fabdjango.commands.manager import Source
from fabdjango.exceptions import CalledOffError, ConfigError
from fabdjango.fleet import Fleet, Member
from fabdjango.runner import Runner
from fabdjango.surveying import glance

__all__ = ["show"]


def show(fleet: Fleet, name: str, which: str, lines: int, since: str, *, follow: bool) -> None:
    """
    Print the logs of one program or of all, or one of nginx's, from every host that has it.

    Following ends with Ctrl-C, which is no error.
    """
    moment = build.read_since(since)
    if lines < 0 or (lines and since):
        raise ConfigError("--lines is a number of lines, without --since", cure="for instance --lines=100")
    if which:
        if name:
            raise ConfigError("--name is for programs, and --which for nginx", cure="give one of them")
        build.nginx_log(fleet.members[0].runner.site.settings.project, which)
    for member in fleet.members:
        managers.known_log(member.runner.site.settings, name, member.runner.site.elsewhere)

    def act(member: Member) -> None:
        runner = member.runner
        if name not in runner.site.elsewhere:
            _show_one(runner, name, which, lines or 50, moment, follow=follow)

    failed = fleet.each(act, watching=True)
    for member in failed:
        if follow and isinstance(member.error, CalledOffError):
            member.error = None
    fleet.need_all([each for each in failed if each.error], "their logs cannot be shown")


def _show_one(runner: Runner, name: str, which: str, lines: int, since: Mapping[str, object], *, follow: bool) -> None:
    facts = glance(runner)
    site = runner.site.on(facts)
    if which:
        sources: tuple[Source, ...] = (build.nginx_log(site.settings.project, which),)
    else:
        sources = managers.find(site.settings, facts, site.layout, site.templates, site.host).sources(name)
    if not facts.sudo:
        # What may be read without root, the groups of the account say.
        sources = tuple(replace(each, user=facts.user) for each in sources)
    runner.watch(build.show(sources, lines=lines, since=since, follow=follow), reads_only=True)
