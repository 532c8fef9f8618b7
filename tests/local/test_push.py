"""Commits that come from the operator's clone: the server cannot reach any repository."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.sample import make_project
from tests.local.stage import Stage, Tools


@pytest.fixture(scope="module")
def pushed(tools: Tools) -> Iterator[Stage]:
    """A site whose commits come from the operator's folder, with a history that is worth to be sent in part only."""
    stage = Stage(tools)
    try:
        stage.repository.path = stage.operator  # type: ignore[misc]
        stage.repository.git("init", "--quiet", "--initial-branch=main")
        stage.configure(repository=None, git={"transfer": "push"}, django={"collectstatic": "never"})
        (stage.operator / ".gitignore").write_text("__pycache__/\n.fabric*\n")
        for number in range(3):
            stage.repository.commit({**make_project(), f"data/{number}.txt": f"it's line {number}\n" * 50_000})
        yield stage
    finally:
        stage.close()


def sent(text: str) -> float:
    """How many kB the report says were sent."""
    found = re.findall(r"from the operator's clone \(([\d.]+) kB\)", text)
    assert len(found) == 1, text
    return float(found[0])


def test_a_deploy_that_no_repository_is_needed_for(pushed: Stage) -> None:
    """
    The first deploy sends the history, the second one commit; one session more than a pull, none more if it is there.

    On the wire goes at most twice git's own thin pack.
    """
    sessions = len(pushed.server.sessions)
    run = pushed.deploy()
    assert len(pushed.server.sessions) - sessions == 5
    assert pushed.get().page["edition"] == "1"
    assert sent(run.out) > 1
    first = pushed.repository.git("rev-parse", "HEAD")

    sha = pushed.repository.commit({"data/1.txt": "it's line 1\n" * 50_000 + "one more\n"})
    sessions = len(pushed.server.sessions)
    run = pushed.deploy()
    assert len(pushed.server.sessions) - sessions == 5
    assert pushed.current == f"2-{sha[:12]}"
    own = subprocess.run(
        ["git", "pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "-q"],
        input=f"{sha}\n^{first}\n".encode(),
        cwd=pushed.operator,
        capture_output=True,
        check=True,
    )
    print("sent", sent(run.out), "own", len(own.stdout))
    assert sent(run.out) * 1000 <= 2 * len(own.stdout)
    mirror = pushed.root / "repo.git"
    refs = subprocess.run(["git", "for-each-ref", "--format=%(objectname) %(refname)"], cwd=mirror, capture_output=True, text=True, check=True)
    assert sorted(refs.stdout.splitlines()) == sorted(
        [f"{sha} refs/heads/main", f"{sha} refs/fabdjango/pushed/{sha}", f"{first} refs/fabdjango/pushed/{first}"]
    )
    assert subprocess.run(["git", "fsck", "--strict"], cwd=mirror, check=False).returncode == 0

    sessions = len(pushed.server.sessions)
    assert pushed.deploy().last.startswith("unchanged: ")
    assert len(pushed.server.sessions) - sessions == 2
