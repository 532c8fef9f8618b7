"""What a host serves, compared with what is configured now."""

from __future__ import annotations

from collections.abc import Iterator

from fabdjango import recipes
from fabdjango.commands import environment
from fabdjango.exceptions import FabdjangoError
from fabdjango.plan import Phase
from fabdjango.recipes import Deployment
from fabdjango.report import difference
from fabdjango.runner import Runner
from fabdjango.surveying import look

__all__ = ["compare"]


def compare(runner: Runner) -> None:
    """Print which variables and settings the next release would have otherwise, by name, and the differences of other files."""
    site, report = runner.site, runner.report
    private = site.private()
    current = look(runner, "", fetch=False)
    if not current.current:
        raise FabdjangoError("no release serves yet, to compare with", host=site.host, cure="run deploy")
    sha = str(current.current_marker.get("commit", ""))
    plan = recipes.deployment(site, look(runner, sha, fetch=False), sha, release=current.current)
    step = environment.compare(site.settings, plan.layout, plan.release, private.env, private.local_settings)
    found = runner.run(Phase(step.name, (step,), reads_only=True)).steps[0]
    lines = [*environment.difference_lines(found.output), *_files(plan)]
    if not lines:
        report.say(f"unchanged: {plan.release} serves on {site.host} with what is configured now", style="bold green")
        return
    report.say(f"{plan.release} serves on {site.host}; with the next release", style="bold")
    report.show("\n".join(lines))


def _files(plan: Deployment) -> Iterator[str]:
    """Differences of what is no secret: gunicorn's configuration, start scripts, and the files of programs."""
    current = plan.layout.current / ".fabdjango"
    places = {current / put.path.name: put for put in plan.private if not put.secret}
    # What is not among the facts, such as the scripts of processes, was not asked for.
    asked = {place: put for place, put in places.items() if str(place) in plan.facts.managed}
    for place, put in [*asked.items(), *((put.path, put) for put in plan.manager.files)]:
        lines = difference(put, plan.facts.managed.get(str(place)))
        yield from lines if len(lines) > 1 else ()
