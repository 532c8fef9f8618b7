"""Answers of programs that ran on a host, as values."""

from __future__ import annotations

import json

import pytest

from fabdjango.exceptions import FabdjangoError
from fabdjango.facts import DjangoFacts, Migrated, Migration, Reversal, read_django, read_migrated, read_reversal


def test_read_django() -> None:
    """What a project prints at import stands before the answer; a release made by an older fabdjango lacks some of it."""
    values = {"static_root": "/it's", "static_url": "", "host": "localhost", "checks": ["W1"], "notes": []}
    migration = {"app": "posts", "name": "0001_it", "operations": ["Create model It's"]}
    old = json.dumps({**values, "migrations": [migration]})
    assert read_django(f'{{"hello": \n{old}\n') == DjangoFacts(
        (Migration("posts", "0001_it", ("Create model It's",)),), "/it's", "", "localhost", ("W1",)
    )
    new = json.dumps({**values, "migrations": [{**migration, "unsafe": ["it's gone"]}], "known": ["posts.0001_it"]})
    assert read_django(new).known == ("posts.0001_it",)
    assert read_django(new).migrations[0].unsafe == ("it's gone",)


def test_read_reversal() -> None:
    """In the order of reversing."""
    item = {"app": "posts", "name": "0002", "operations": ["it's"], "unsafe": [], "reversible": False, "reason": "rows"}
    assert read_reversal(json.dumps({"migrations": [item]})) == (
        Reversal("posts", "0002", ("it's",), (), reversible=False, reason="rows"),
    )


def test_read_migrated() -> None:
    """The last line, also of a step that failed half-way."""
    answer = {"result": "failed", "migrations": ["a.1"], "failed": "a.2", "waited": 0.5, "notes": ["it's"]}
    assert read_migrated(f"Applying a.1... OK\ncure: wait\n{json.dumps(answer)}\n") == Migrated(
        "failed", ("a.1",), "a.2", 0.5, ("it's",)
    )


def test_no_answer() -> None:
    """The output stands with the error."""
    with pytest.raises(FabdjangoError) as caught:
        read_migrated("Killed\n")
    assert caught.value.output == "Killed\n"
