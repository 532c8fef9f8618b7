"""The benchmark, for what it counts and for what it believes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.chore import order, render
from benchmarks.measuring import Measured, measure
from benchmarks.project import SMALL
from benchmarks.results import Row, from_csv, to_csv
from benchmarks.run import run
from benchmarks.stages import open_theatre
from benchmarks.tools import named


def test_one_round_of_code_only(tmp_path: Path) -> None:
    """The new commit serves on the hosts of both tools, and fabdjango took one connection and at most four sessions."""
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


def test_a_tool_that_only_says_so_is_not_believed(tmp_path: Path) -> None:
    """What serves decides: a program that ends well and has done nothing has failed, and one that ends badly has too."""
    with open_theatre(tmp_path) as theatre:
        stage = theatre.set_up(named("skipping"), 1, SMALL)
        commit = theatre.chain(SMALL).next_commit()
        host = stage.site.hosts[0].name

        def measured(words: str) -> Measured:
            log = tmp_path / "said"
            return measure(stage.site, theatre.relays, ["sh", "-c", words], commit, log=log, patience=0)

        idle = measured("true")
        assert idle.failed.startswith(f"{host} answers [(502, ")
        assert (idle.connections, idle.sessions, idle.bytes) == (0, 0, 0)
        refused = measured(f"ssh -F .ssh/config {host} true && echo the disk is full; exit 3")
        assert refused.failed == "it ended with 3: the disk is full"
        assert (refused.connections, refused.sessions) == (1, 1)
