"""The tools that fabdjango is compared with have to do right what they are timed for."""

from __future__ import annotations

import pytest

from benchmarks.chore import order
from benchmarks.results import Row
from benchmarks.run import run
from benchmarks.tools import GROUPS

DEEDS = ["code-only", "same", "requirements", "rollback"]


@pytest.mark.nightly
@pytest.mark.parametrize("name", GROUPS["peers"])
def test_a_peer_serves_what_it_is_told_to(name: str) -> None:
    """
    Two first deploys, and then each deed once: the marker and the dependency that answer are those of the commit.

    All of it over one connection: that much all of them can do when they are set up for it.
    """
    rows: list[Row] = []
    said = run(order(name, ",".join(DEEDS), "1", "0"), rows.append)
    assert [(row.scenario, row.taken.failed, row.taken.connections) for row in rows] == [
        (deed, "", 1) for deed in DEEDS
    ]
    assert said is None
