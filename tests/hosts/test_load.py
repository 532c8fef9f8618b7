"""
No request is lost by a deploy or a rollback, none is answered by two releases at once, and answers stay fast.

How fast is said by every run and judged only by the nightly one, which has the machine to itself: beside other tests a
percentile says more of them than of the site.

Sixteen connections that are kept open, clients without, posts in pieces and long requests ask all the while.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.hosts import invariants
from tests.hosts.invariants import Watch
from tests.hosts.load import FULL
from tests.hosts.shop import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hosts.load import Profile, Report
    from tests.hosts.shop import Stage

MANAGERS = ("supervisor", "systemd")
#: Long requests and posts that are over before each deploy is; the nightly ones are as long as the issue says.
SHORT = replace(FULL, post_seconds=3.0, slow_seconds=4.0)
#: Below this many milliseconds a percentile says more of this machine's other work than of the site.
FLOOR = 30.0


def changes(number: int) -> dict[str, bool]:
    """What the deploy of a number changes beside the code: everything at some time, in no fixed company."""
    return {
        "dep": number % 3 == 0,
        "setting": number % 2 == 0,
        "static": number % 4 == 1,
        "migration": number % 10 == 1,
    }


def under_load(
    stage: Stage, acts: str, profile: Profile, quiet: float, *, slower: float | None = None
) -> tuple[Report, list[str]]:
    """
    Deploy (d) and roll back (r) while everybody asks; `quiet` seconds are for comparison, half of them before.

    `slower` is how many times longer the 99th percentile may be while something happens.
    """
    windows = []
    wrong: list[str] = []
    served = [stage.site.serving()]
    with Watch(stage.site, [CANARY]) as watch, stage.load(profile) as load:
        time.sleep(quiet / 2)  # a stretch of time in which nothing happens is what is measured
        for number, act in enumerate(acts):
            began = time.time()
            if act == "d":
                release = stage.shop.next(**changes(number))
                outcome = stage.deploy(release)
                wrong += invariants.exit_code(stage.site, outcome.code, outcome.output, old=served[-1], sha=release.sha)
                served.append(stage.site.serving())
            else:
                outcome = stage.rollback()
                wrong += invariants.rolled_back(stage.site, outcome, to=served[-2])
                served = served[:-1]
            windows.append((began, time.time()))
            wrong += (
                [] if outcome.code == 0 else [f"{act} {number}: exit {outcome.code}\n{outcome.output}\n{outcome.error}"]
            )
        time.sleep(quiet / 2)
    report = load.report()
    busy, calm = (report.percentile(0.99, within=each) for each in (windows, report.outside(windows)))
    print(f"{stage.manager} {acts}: {report}, p99 {calm:.0f} ms without and {busy:.0f} ms during deploys, links were looked at {watch.rate:.0f} times a second")  # fmt: skip
    wrong += [*report.failures, *report.mixed(stage.shop.mixed), *watch.violations()]
    if slower is not None and busy > slower * max(calm, FLOOR):
        wrong.append(f"p99 is {busy:.0f} ms during deploys and {calm:.0f} ms without")
    return report, wrong


@pytest.mark.parametrize("manager", MANAGERS)
def test_no_request_is_lost(stages: Callable[[str], Stage], manager: str) -> None:
    """Three deploys and a rollback: code, dependencies, settings, static files and the schema change."""
    stage = stages(manager)
    report, wrong = under_load(stage, "dddr", SHORT, 8)
    invariants.held(wrong)
    assert invariants.settled(stage.site) == []
    assert invariants.secrets(stage.site, CANARY, stage.said) == []
    # The count is not of one kind alone.
    assert min(len([each for each in report.requests if each.kind == kind]) for kind in FULL.kinds) >= 5
    assert report.total > 1500


@pytest.mark.nightly
@pytest.mark.parametrize("manager", MANAGERS)
def test_no_request_is_lost_in_many_deploys(stages: Callable[[str], Stage], manager: str) -> None:
    """Twenty deploys and five rollbacks, with requests of 10 s and posts over 5 s."""
    stage = stages(manager)
    _, wrong = under_load(stage, "ddddr" * 5, FULL, 30, slower=3)
    invariants.held(wrong)
    assert invariants.settled(stage.site) == []
    assert invariants.releases(stage.site, 4) == []
