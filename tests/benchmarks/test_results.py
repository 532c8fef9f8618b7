"""What was measured, kept and told."""

from __future__ import annotations

import pytest

from benchmarks.measuring import Measured
from benchmarks.plot import svg
from benchmarks.results import Row, cell, from_csv, merged, ratio, table, to_csv, typical


def row(
    tool: str, number: int, seconds: float, *, scenario: str = "code-only", delay: int = 0, failed: str = ""
) -> Row:
    """A run whose new release answered half a second before its end."""
    return Row(scenario, delay, number, tool, Measured(seconds, seconds - 0.5, 0.25, 1.5, 1, 4, 225_400, failed))


ROWS = [
    *(row("fabdjango", 1, 2.0), row("skipping", 1, 1.0), row("ansible", 1, 8.0)),
    # A minute in which the machine was slow: for all of them.
    *(
        row("fabdjango", 2, 30.0),
        row("skipping", 2, 20.0),
        row("ansible", 2, 0.1, failed='it ended with 2: "no", he said\nno'),
    ),
    *(row("fabdjango", 3, 3.0), row("skipping", 3, 1.5), row("ansible", 3, 9.0)),
]


def test_rows_come_back_from_their_csv() -> None:
    """All figures, and words with quotes, commas and line ends."""
    assert from_csv(to_csv(ROWS)) == ROWS


def test_a_row_is_a_line_with_names_above() -> None:
    """Others read the file too."""
    assert to_csv(ROWS[:1]) == (
        "scenario,delay,round,tool,seconds,first,operator,hosts,connections,sessions,bytes,failed\n"
        "code-only,0,1,fabdjango,2.0,1.5,0.25,1.5,1,4,225400,\n"
    )


@pytest.mark.parametrize(
    "text", ["tool,seconds\nfabdjango,1\n", "scenario,delay,round,tool,seconds\ncode-only,0,1,plain\n"]
)
def test_a_table_of_something_else_is_refused(text: str) -> None:
    """Not taken for one without runs."""
    with pytest.raises(ValueError, match="this is no table of runs"):
        from_csv(text)


def test_a_ratio_is_the_median_of_pairs() -> None:
    """Not the ratio of medians, which is the same here by chance for nobody."""
    assert [typical(ROWS, "code-only", 0, tool, "seconds") for tool in ("fabdjango", "skipping", "plain")] == [
        3,
        1.5,
        None,
    ]
    assert ratio(ROWS, "code-only", 0, "fabdjango", "seconds") == 2
    assert ratio(ROWS[:6], "code-only", 0, "fabdjango", "seconds") == 1.75
    assert ratio(ROWS, "code-only", 50, "fabdjango", "seconds") is None


def test_a_failed_run_counts_nowhere_and_is_told() -> None:
    """A tool that is quick to fail is not quick."""
    assert typical(ROWS, "code-only", 0, "ansible", "seconds") == 8.5
    assert cell(ROWS, "code-only", 0, "ansible", "seconds") == "8.50 (7.00\N{MULTIPLICATION SIGN}), 1 of 3 failed"
    assert cell(ROWS[5:6], "code-only", 0, "ansible", "seconds") == "\N{EN DASH}, 1 of 1 failed"


def test_new_runs_replace_those_of_their_scenario_and_delay() -> None:
    """Pairs are of one time; other scenarios stay, and the order is that of the scenarios."""
    kept = [row("plain", 1, 5.0, scenario="rollback"), row("plain", 1, 6.0, delay=50)]
    new = [row("skipping", 1, 1.0), row("fabdjango", 1, 1.0)]
    assert merged([*kept, *ROWS], new) == [new[1], new[0], kept[1], kept[0]]


def test_the_tables() -> None:
    """Whole: times with their ratios, no first answer where nothing new answers, and the costs."""
    same = [row("fabdjango", 1, 0.8, scenario="same", delay=50), row("skipping", 1, 0.4, scenario="same", delay=50)]
    assert table([*(each for each in ROWS if each.tool != "ansible"), *same]).replace(
        "\N{MULTIPLICATION SIGN}", "x"
    ) == (
        "Seconds until the new release first answers everywhere, medians of 1 to 3 rounds (times the limit):\n"
        "\n"
        "| scenario, round trip | fabdjango | skipping |\n"
        "| --- | ---: | ---: |\n"
        "| code-only, 0 ms | 2.50 (2.50x) | 1.00 |\n"
        "\n"
        "Seconds in all:\n"
        "\n"
        "| scenario, round trip | fabdjango | skipping |\n"
        "| --- | ---: | ---: |\n"
        "| code-only, 0 ms | 3.00 (2.00x) | 1.50 |\n"
        "| same, 50 ms | 0.80 (2.00x) | 0.40 |\n"
        "\n"
        "What else a deploy takes, code only, no delay:\n"
        "\n"
        "|  | fabdjango | skipping |\n"
        "| --- | ---: | ---: |\n"
        "| operator's processor, s | 0.25 | 0.25 |\n"
        "| host's processor, s | 1.50 | 1.50 |\n"
        "| SSH connections | 1 | 1 |\n"
        "| SSH sessions | 4 | 4 |\n"
        "| KB on the wire | 225 | 225 |\n"
    )


def test_the_picture_is_the_same_for_the_same_runs() -> None:
    """It is committed: a new one should differ only where a figure does."""
    drawn = svg(ROWS)
    assert drawn == svg(ROWS)
    assert [word in drawn for word in (">code-only, 0 ms<", ">fabdjango<", ">skipping<", "> 1.5<", "> 8.5<")] == [
        True
    ] * 5
