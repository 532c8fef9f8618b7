"""
What was measured: kept as CSV, and told as medians, and as ratios to the limit pair by pair.

A pair is two tools in the same round. The ratio of a tool is the median of its ratios in all rounds, not the ratio of two medians:
what slows the machine down for a minute slows both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

from benchmarks.measuring import Measured
from benchmarks.scenarios import SCENARIOS
from benchmarks.tools import NAMES

__all__ = ["LIMIT", "Row", "cell", "from_csv", "merged", "ratio", "table", "to_csv", "typical"]

LIMIT = "skipping"
_NONE = "\N{EN DASH}"
_TIMES = "\N{MULTIPLICATION SIGN}"
_KEYS = ("scenario", "delay", "round", "tool")


@dataclass(frozen=True)
class Row:
    """One run of one tool; `delay` is the round trip in milliseconds."""

    scenario: str
    delay: int
    round: int
    tool: str
    taken: Measured


# --- kept --------------------------------------------------------------------


def to_csv(rows: Iterable[Row]) -> str:
    """A line for each run, under a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_KEYS, *(each.name for each in fields(Measured))], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        taken = {
            key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(row.taken).items()
        }
        writer.writerow({key: getattr(row, key) for key in _KEYS} | taken)
    return text.getvalue()


def from_csv(text: str) -> list[Row]:
    """The runs again; raises ValueError for a text of other columns."""
    try:
        return [_row(line) for line in csv.DictReader(io.StringIO(text))]
    except (KeyError, TypeError) as error:
        message = f"this is no table of runs: {error}"
        raise ValueError(message) from None


def _row(line: dict[str, str]) -> Row:
    kinds: dict[str, Callable[[str], Any]] = {"float": float, "int": int, "str": str}
    taken = Measured(**{each.name: kinds[str(each.type)](line[each.name]) for each in fields(Measured)})
    return Row(line["scenario"], int(line["delay"]), int(line["round"]), line["tool"], taken)


def merged(before: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Let new runs take the place of all earlier ones of the same scenario and delay, since pairs are of one time."""
    again = {(row.scenario, row.delay) for row in new}
    kept = [row for row in before if (row.scenario, row.delay) not in again]
    order = list(SCENARIOS)
    return sorted(
        [*kept, *new], key=lambda row: (order.index(row.scenario), row.delay, row.round, NAMES.index(row.tool))
    )


# --- told --------------------------------------------------------------------


def typical(rows: Iterable[Row], scenario: str, delay: int, tool: str, what: str) -> float | None:
    """The median of one figure over the runs that did not fail; None if there is none."""
    found = _figures(rows, scenario, delay, what)
    values = [value for (name, _), value in found.items() if name == tool]
    return median(values) if values else None


def ratio(rows: Iterable[Row], scenario: str, delay: int, tool: str, what: str, other: str = LIMIT) -> float | None:
    """The median, over the rounds in which neither failed, of this tool's figure as a multiple of the other's."""
    found = _figures(rows, scenario, delay, what)
    pairs = [
        value / found[other, number]
        for (name, number), value in found.items()
        if name == tool and found.get((other, number))
    ]
    return median(pairs) if pairs else None


def _figures(rows: Iterable[Row], scenario: str, delay: int, what: str) -> dict[tuple[str, int], float]:
    return {
        (row.tool, row.round): getattr(row.taken, what)
        for row in rows
        if (row.scenario, row.delay) == (scenario, delay) and not row.taken.failed
    }


def cell(rows: Sequence[Row], scenario: str, delay: int, tool: str, what: str) -> str:
    """One cell of the table of times: seconds, and how many times the limit; runs that failed are told."""
    of_tool = [row for row in rows if (row.scenario, row.delay, row.tool) == (scenario, delay, tool)]
    failed = sum(bool(row.taken.failed) for row in of_tool)
    value, times = (tell(rows, scenario, delay, tool, what) for tell in (typical, ratio))
    text = _NONE if value is None else f"{value:.2f}"
    if tool != LIMIT and value is not None and times is not None:
        text += f" ({times:.2f}{_TIMES})"
    return f"{text}, {failed} of {len(of_tool)} failed" if failed else text


def table(rows: Sequence[Row]) -> str:
    """Three tables in Markdown: until the new release answers, in all, and what a deploy of code costs beside time."""
    return "\n".join(
        [
            f"Seconds until the new release first answers everywhere, medians of {_rounds(rows)} (times the limit):",
            "",
            *_times(rows, "first"),
            "",
            "Seconds in all:",
            "",
            *_times(rows, "seconds"),
            "",
            "What else a deploy takes, code only, no delay:",
            "",
            *_costs(rows),
            "",
        ]
    )


def _rounds(rows: Sequence[Row]) -> str:
    """How many rounds there were, where scenarios differ from the fewest to the most."""
    most: dict[tuple[str, int], int] = {}
    for row in rows:
        most[row.scenario, row.delay] = max(row.round, most.get((row.scenario, row.delay), 0))
    counts = sorted({*most.values()})
    return f"{counts[0]} to {counts[-1]} rounds" if len(counts) > 1 else f"{counts[0]} round{'s' * (counts[0] > 1)}"


def _times(rows: Sequence[Row], what: str) -> list[str]:
    tools = _tools(rows)
    lines = []
    for scenario, delay in dict.fromkeys((row.scenario, row.delay) for row in rows):
        # No new release answers where the same commit is deployed again.
        if what == "first" and SCENARIOS[scenario].deed == "same":
            continue
        lines.append([f"{scenario}, {delay} ms", *(cell(rows, scenario, delay, tool, what) for tool in tools)])
    return _markdown(["scenario, round trip", *tools], lines)


_COSTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("operator's processor, s", "operator", "{:.2f}".format),
    ("host's processor, s", "hosts", "{:.2f}".format),
    ("SSH connections", "connections", "{:.0f}".format),
    ("SSH sessions", "sessions", "{:.0f}".format),
    ("KB on the wire", "bytes", lambda value: f"{value / 1000:.0f}"),
)


def _costs(rows: Sequence[Row]) -> list[str]:
    tools = _tools(rows)
    lines = []
    for title, what, show in _COSTS:
        values = [typical(rows, "code-only", 0, tool, what) for tool in tools]
        lines.append([title, *(_NONE if value is None else show(value) for value in values)])
    return _markdown(["", *tools], lines)


def _tools(rows: Sequence[Row]) -> list[str]:
    there = {row.tool for row in rows}
    return [name for name in NAMES if name in there]


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    ruler = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(words)} |" for words in (head, ruler, *lines)]
