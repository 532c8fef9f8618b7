"""
The rounds: each tool once, one after the other, and then again.

What is compared was so measured within a minute or two, on the same machine, and each round begins with another tool.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from benchmarks.measuring import Measured
from benchmarks.results import Row
from benchmarks.scenarios import Scenario
from benchmarks.stages import Stage, Theatre, open_theatre
from benchmarks.tools import Tool

__all__ = ["Order", "run"]

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Order:
    """What is to be measured; `delays` are round trips in milliseconds."""

    tools: Sequence[Tool]
    scenarios: Sequence[Scenario]
    rounds: int
    delays: Sequence[int]


def run(order: Order, tell: Callable[[Row], None]) -> Path | None:
    """Do all of it, and tell of each run as soon as it is over. If one has failed, the folder with what was said is kept."""
    folder = Path(tempfile.mkdtemp(prefix="fabdjango-bench-"))
    failed = False
    try:
        with open_theatre(folder) as theatre:
            for row in _rows(order, theatre):
                failed = failed or bool(row.taken.failed)
                tell(row)
    except BaseException:
        failed = True
        raise
    finally:
        if not failed:
            shutil.rmtree(folder)
    return folder if failed else None


def _rows(order: Order, theatre: Theatre) -> Iterator[Row]:
    # Scenarios that can do with the same hosts follow each other on them.
    for (is_first, _, _), group in groupby(order.scenarios, lambda each: (each.deed == "first", each.hosts, each.size)):
        yield from (_on_fresh_hosts if is_first else _on_same_hosts)(order, theatre, list(group))


def _on_fresh_hosts(order: Order, theatre: Theatre, scenarios: list[Scenario]) -> Iterator[Row]:
    over: list[Stage] = []
    theatre.rest()
    for scenario, delay, number in _rounds(order, scenarios):
        for tool in _turned(order.tools, number):
            stage = theatre.set_up(tool, scenario.hosts, scenario.size)
            over.append(stage)
            with theatre.relays.delayed(delay / 1000):
                taken = stage.deploy(theatre.chain(scenario.size).head)
            yield Row(scenario.name, delay, number, tool.name, taken)
            stage.stop()
            if not theatre.has_room():
                over = theatre.strike_but_last(over)
                theatre.rest()
    # Not before, if it can be helped: what is removed between two deploys makes the next one slower.
    theatre.strike_but_last(over)


def _on_same_hosts(order: Order, theatre: Theatre, scenarios: list[Scenario]) -> Iterator[Row]:
    stages = [theatre.set_up(tool, scenarios[0].hosts, scenarios[0].size) for tool in order.tools]
    chain = theatre.chain(scenarios[0].size)
    # Two, so that also the second deploy, for which some prepare what the first one did not need, is over.
    for commit in (chain.head, chain.next_commit()):
        for stage in stages:
            failed = stage.deploy(commit).failed
            if failed:
                message = f"{stage.tool.name} cannot deploy the site: {failed}\nWhat it said is in {stage.folder}"
                raise RuntimeError(message)
    if scenarios[0].is_grown:
        theatre.rest()
    for scenario, delay, number in _rounds(order, scenarios):
        for stage, taken in _once_each(theatre, scenario, delay, _turned(stages, number)):
            yield Row(scenario.name, delay, number, stage.tool.name, taken)
    theatre.strike(stages)


def _once_each(
    theatre: Theatre, scenario: Scenario, delay: int, stages: Sequence[Stage]
) -> Iterator[tuple[Stage, Measured]]:
    """Let each tool do the deed of a scenario once, after whatever has to be there for it."""
    chain = theatre.chain(scenario.size)
    for stage in stages:
        if stage.served is None:
            stage.deploy(chain.head)
    commit = chain.head if scenario.deed == "same" else chain.next_commit(scenario.commits)
    for stage in stages:
        if scenario.deed in ("same", "rollback") and stage.served != commit:
            ready = stage.deploy(commit)
            if ready.failed:
                yield stage, ready
                continue
        with theatre.relays.delayed(delay / 1000):
            taken = stage.rollback() if scenario.deed == "rollback" else stage.deploy(commit)
        yield stage, taken


def _rounds(order: Order, scenarios: Sequence[Scenario]) -> Iterator[tuple[Scenario, int, int]]:
    for delay in order.delays:
        for scenario in scenarios:
            for number in range(1, order.rounds + 1):
                yield scenario, delay, number


def _turned(them: Sequence[_Kind], number: int) -> list[_Kind]:
    first = (number - 1) % len(them)
    return [*them[first:], *them[:first]]
