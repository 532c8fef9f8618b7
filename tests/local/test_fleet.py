"""Many hosts, one decision: all serve the new release or all serve the old one, and what is said of it is true."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.local.fleet import FleetStage
from tests.local.sample import make_project
from tests.local.stage import Tools


@pytest.fixture(scope="module")
def fleet(tools: Tools) -> Iterator[FleetStage]:
    """Three hosts that serve."""
    made = FleetStage(tools, 3)
    try:
        made.repository.commit(make_project())
        made.first.configure(django={"collectstatic": "never"}, activation={"batch": "1"})
        made.fab("deploy")
        yield made
    finally:
        made.close()


def edit(fleet: FleetStage, word: str) -> None:
    """A commit that no host serves yet."""
    fleet.repository.commit({"notes/edition.py": f"EDITION = {word!r}\n"})


def test_one_id_and_one_migration(fleet: FleetStage) -> None:
    """Every host serves the same id; the migrations were the primary's to apply."""
    assert len(set(fleet.current)) == 1
    migrated = [[entry["event"] for entry in each.journal].count("migrate") for each in fleet.hosts]
    assert migrated == [1, 0, 0]
    assert fleet.fab("deploy").last == f"unchanged: {fleet.current[0]} serves on 3 hosts already, and answers"
