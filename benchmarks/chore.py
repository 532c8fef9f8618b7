"""What `inv bench` does between its arguments and the rounds: read the words, look for what is missing, write the files."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import plot, results, scenarios, tools
from benchmarks.results import Row
from benchmarks.run import Order, run
from tests import machines

__all__ = ["bench", "order", "render"]


def order(names: str, wanted: str, rounds: str, delay: str) -> Order:
    """Read the words of the command line; raises ValueError with what is wrong."""
    if not rounds.isdigit() or int(rounds) < 1:
        message = f"how many rounds? {rounds!r} is no number"
        raise ValueError(message)
    delays = delay.split(",")
    if not all(word.isdigit() for word in delays):
        message = f"{delay!r} should be milliseconds, such as 0,50"
        raise ValueError(message)
    chosen = [tools.named(name) for name in tools.chosen(names)]
    lacking = [f"{tool.name}: {tool.missing()}" for tool in chosen if tool.missing()]
    if lacking:
        raise ValueError("\n".join(lacking))
    return Order(chosen, scenarios.chosen(wanted), int(rounds), [int(word) for word in delays])


def bench(given: Order, into: Path, command: str, say: Callable[[str], object]) -> int:
    """Measure, and keep it in the folder `into`; the number of runs that failed."""
    reason = machines.missing_tools()
    if reason:
        raise ValueError(reason)
    into.mkdir(parents=True, exist_ok=True)
    kept = into / "runs.csv"
    before = results.from_csv(kept.read_text()) if kept.exists() else []
    rows: list[Row] = []

    def tell(row: Row) -> None:
        say(_line(row))
        rows.append(row)
        kept.write_text(results.to_csv(results.merged(before, rows)))

    said = run(given, tell)
    render(into, about(command))
    say(f"\n{(into / 'table.md').read_text()}\nkept in {into}")
    if said:
        say(f"what the tools said is in {said}")
    return sum(bool(row.taken.failed) for row in rows)


def render(into: Path, heading: str) -> None:
    """Write the table and the picture of the runs that are kept in a folder."""
    rows = results.from_csv((into / "runs.csv").read_text())
    (into / "table.md").write_text(f"{heading}\n\n{results.table(rows)}")
    (into / "times.svg").write_text(plot.svg(rows))


def about(command: str) -> str:
    """On which machine, when, and how."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    day = dt.datetime.now(dt.timezone.utc).date()
    kernel = ".".join(platform.release().split(".")[:2])
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"{day}, by `{command}`: {os.cpu_count()} processors ({found[1] if found else '?'}), "
        f"Linux {kernel}, Python {python}. Operator and hosts share the machine."
    )


def _line(row: Row) -> str:
    taken = row.taken
    start = f"{row.scenario:20} {row.delay:3} ms  {row.round:2}  {row.tool:10}"
    if taken.failed:
        return f"{start}  failed: {taken.failed}"
    return (
        f"{start}  {taken.seconds:6.2f} s  first {taken.first:6.2f}  operator {taken.operator:.2f}  hosts {taken.hosts:.2f}  "
        f"{taken.connections} connections  {taken.sessions} sessions  {taken.bytes / 1000:.0f} KB"
    )
