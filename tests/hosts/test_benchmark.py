"""One round of the benchmark, for what it counts and for what is served at its end."""

from __future__ import annotations

from pathlib import Path

from benchmarks.chore import order, render
from benchmarks.results import Row, from_csv, to_csv
from benchmarks.run import run


def test_one_round_of_code_only(tmp_path: Path) -> None:
    """
    The new commit serves on the hosts of both tools, and fabdjango took one connection and at most four sessions.

    A run after which anything else than its commit answers is a failed one, with the reason.
    """
    rows: list[Row] = []
    said = run(order("fabdjango,skipping", "code-only", "1", "0"), rows.append)
    assert [(row.tool, row.taken.failed) for row in rows] == [("fabdjango", ""), ("skipping", "")]
    assert said is None
    ours, limit = (row.taken for row in rows)
    assert ours.connections == limit.connections == 1
    assert (ours.sessions <= 4, limit.sessions) == (True, 1)
    (tmp_path / "runs.csv").write_text(to_csv(rows))
    render(tmp_path, "One round.")
    assert [row.tool for row in from_csv((tmp_path / "runs.csv").read_text())] == ["fabdjango", "skipping"]
    assert "code-only, 0 ms" in (tmp_path / "table.md").read_text()
