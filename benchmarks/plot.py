"""The picture: a row of bars for each scenario, a bar for each tool."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.results import Row, typical
from benchmarks.scenarios import SCENARIOS
from benchmarks.tools import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["svg"]

OURS = "#0f766e"
OTHERS = "#94a3b8"
INK = "#334155"


def svg(rows: Sequence[Row]) -> str:
    """
    Draw the time of each tool in each scenario; the same text for the same rows.

    A full bar is the time until the new release first answers, the pale end of it what the tool does after that. Raises
    ImportError without matplotlib.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row.scenario, row.delay) for row in rows))
    across = min(len(panels), 4)
    down = -(-len(panels) // across)
    tools = [name for name in NAMES if any(row.tool == name for row in rows)]
    # The ids in the file are made from this and not from the clock.
    with mpl.rc_context({"svg.hashsalt": "fabdjango", "svg.fonttype": "none", "font.size": 9, "text.color": INK}):
        figure = Figure(figsize=(3.1 * across, (0.3 * len(tools) + 0.6) * down + 0.4), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False)
        for place, panel in zip(axes.flat, panels, strict=False):
            _draw(place, rows, panel, tools)
        for place in list(axes.flat)[len(panels) :]:
            place.set_axis_off()
        figure.suptitle("Seconds until the new release answers, and (pale) until the tool has ended", fontsize=9)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": "Seconds that a deploy takes"})
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _draw(place: Axes, rows: Sequence[Row], panel: tuple[str, int], tools: Sequence[str]) -> None:
    scenario, delay = panel
    for number, tool in enumerate(reversed(tools)):
        whole = typical(rows, scenario, delay, tool, "seconds")
        if whole is None:
            place.text(0, number, " failed", va="center", color=INK)
            continue
        first = typical(rows, scenario, delay, tool, "first") if SCENARIOS[scenario].deed != "same" else whole
        colour = OURS if tool == "fabdjango" else OTHERS
        place.barh(number, whole, color=colour, alpha=0.4, height=0.7)
        place.barh(number, min(first or whole, whole), color=colour, height=0.7)
        place.text(whole, number, f" {whole:.1f}", va="center", color=INK)
    place.set_yticks(range(len(tools)), list(reversed(tools)))
    place.set_title(f"{scenario}, {delay} ms", loc="left", fontsize=10)
    place.margins(x=0.16)
    place.set_xlim(left=0)
    place.tick_params(length=0, labelcolor=INK)
    place.set_xticks([])
    for side in place.spines.values():
        side.set_visible(False)
