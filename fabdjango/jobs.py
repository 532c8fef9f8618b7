"""What the tasks of schedule do on one host, between their arguments and the steps."""

from __future__ import annotations

from fabdjango.commands import managers, schedule
from fabdjango.commands.schedule import LEFT_OUT
from fabdjango.exceptions import CommandError
from fabdjango.runner import Runner
from fabdjango.surveying import glance

__all__ = ["run", "show"]


def show(runner: Runner) -> None:
    """Print the jobs of a host: when each runs, and how its last run ended."""
    settings = runner.site.settings
    if not settings.schedule:
        elsewhere = "; they are for the primary" if runner.site.elsewhere else ""
        runner.report.say(f"no jobs on {runner.site.host}{elsewhere}")
        return
    layout = runner.site.on(glance(runner)).layout
    runner.ask(schedule.list_jobs(settings, layout))


def run(runner: Runner, name: str) -> None:
    """One run of a job now, started as the clock would start it; raises CommandError with its status."""
    site = runner.site
    if name in site.elsewhere:
        runner.report.say(f"unchanged: {name} is for the primary, and {site.host} is not")
        return
    schedule.known_job(site.settings, name)
    facts = glance(runner)
    site = site.on(facts)
    manager = managers.find(site.settings, facts, site.layout, site.templates, site.host)
    try:
        runner.watch(manager.run_job(name))
    except CommandError as error:
        if error.exit_code == LEFT_OUT:
            error.message = f"{name} runs already, and was not started a second time"
        raise
