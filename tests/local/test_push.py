"""Commits that come from the operator's clone: the server cannot reach any repository."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabdjango import deploying, fleet, rollout, surveying
from tests.local.sample import make_project
from tests.local.stage import Stage, Tools
from tests.relay import Relay

#: They tell one story in their order.
pytestmark = pytest.mark.xdist_group("push")


@pytest.fixture(scope="module")
def pushed(tools: Tools) -> Iterator[Stage]:
    """A site whose commits come from the operator's folder, with a history that is worth to be sent in part only."""
    stage = Stage(tools)
    try:
        stage.repository.path = stage.operator
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


def thin_pack(stage: Stage, sha: str, have: str) -> int:
    """The bytes of git's own thin pack of ``sha`` for somebody who has ``have``."""
    own = subprocess.run(
        ["git", "pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "-q"],
        input=f"{sha}\n^{have}\n".encode(),
        cwd=stage.operator,
        capture_output=True,
        check=True,
    )
    return len(own.stdout)


def refs(stage: Stage) -> list[str]:
    """The refs of the mirror, with what they are."""
    words = ["git", "for-each-ref", "--format=%(objectname) %(refname)"]
    mirror = stage.root / "repo.git"
    return sorted(subprocess.run(words, cwd=mirror, capture_output=True, text=True, check=True).stdout.splitlines())


def test_a_deploy_that_no_repository_is_needed_for(pushed: Stage) -> None:
    """The first deploy sends the history, the second one commit; one session more than a pull, none more if it is there."""
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
    assert sent(run.out) * 1000 <= 2 * thin_pack(pushed, sha, first)
    mirror = pushed.root / "repo.git"
    refs = subprocess.run(
        ["git", "for-each-ref", "--format=%(objectname) %(refname)"],
        cwd=mirror,
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(refs.stdout.splitlines()) == sorted(
        [f"{sha} refs/heads/main", f"{sha} refs/fabdjango/pushed/{sha}", f"{first} refs/fabdjango/pushed/{first}"]
    )
    assert subprocess.run(["git", "fsck", "--strict"], cwd=mirror, check=False).returncode == 0

    sessions = len(pushed.server.sessions)
    assert pushed.deploy().last.startswith("unchanged: ")
    assert len(pushed.server.sessions) - sessions == 2


def test_work_that_is_not_committed(pushed: Stage) -> None:
    """It is refused before the host is asked, by its names; told to, the commit is deployed without it."""
    sessions = len(pushed.server.sessions)
    (pushed.operator / "it's new.txt").write_text("x")
    for words in (("deploy",), ("git.checkout",), ("--dry", "deploy")):
        run = pushed.fab(*words, code=1)
        assert "your clone has work that is not committed, and would not be deployed: 1 path" in run.err
        assert "it's new.txt" in run.err
        assert "--allow-dirty" in run.err
    assert len(pushed.server.sessions) == sessions
    # Everything else is looked at even so.
    checked = pushed.fab("check", code=1)
    assert (
        "error    repository: your clone has work that is not committed, and would not be deployed: 1 path\n"
        in checked.out
    )
    assert "         | it's new.txt\n" in checked.out
    assert checked.last == "1 error, 4 warnings: repository"
    assert pushed.deploy("--allow-dirty").last.startswith("unchanged: ")
    (pushed.operator / "it's new.txt").unlink()


def test_a_dry_run_shows_what_would_be_sent(pushed: Stage) -> None:
    """And sends nothing; neither does a check. What is not in the clone is refused without asking the host."""
    sha = pushed.repository.commit({"data/2.txt": "it's line 2\n" * 50_000 + "one more\n"})
    before = refs(pushed)
    run = pushed.fab("--dry", "deploy")
    assert f"main is {sha[:12]} in your clone, which the host does not have" in run.out
    assert "# reads " in run.out
    assert sent(run.out) < 1
    assert run.out.index("# phase survey") < run.out.index("# phase receive") < run.out.index("# phase prepare")
    assert f"a deploy of main ({sha[:12]}) can begin" in pushed.fab("check").out
    assert refs(pushed) == before
    sessions = len(pushed.server.sessions)
    assert "your clone has no branch, tag or commit its" in pushed.fab("deploy", "--commit=its", code=1).err
    assert len(pushed.server.sessions) == sessions


def test_single_tasks(pushed: Stage) -> None:
    """git.fetch brings the branch, however the folder looks; git.checkout makes a release of it; both say so when it is there."""
    sha = pushed.repository.git("rev-parse", "HEAD")
    (pushed.operator / "it's new.txt").write_text("x")
    assert pushed.fab("git.fetch").last.startswith(f"the mirror has main: {sha[:7]}")
    assert f"{sha} refs/heads/main" in refs(pushed)
    (pushed.operator / "it's new.txt").unlink()
    sessions = len(pushed.server.sessions)
    assert pushed.fab("git.clone").last.startswith(f"the mirror has main: {sha[:7]}")
    assert len(pushed.server.sessions) - sessions == 1
    assert pushed.fab("git.checkout", "--commit=HEAD").last.startswith(f"checked out: releases/3-{sha[:12]} holds ")


def test_a_rewritten_history(pushed: Stage) -> None:
    """The branch goes back and elsewhere, and what serves stays known to the mirror."""
    old = pushed.current
    pushed.repository.git("reset", "--quiet", "--hard", "HEAD~2")
    sha = pushed.repository.commit({"a b": "it's rewritten\n"})
    pushed.deploy()
    assert pushed.current == f"4-{sha[:12]}"
    assert f"{sha} refs/heads/main" in refs(pushed)
    run = pushed.fab("git.diff", f"--old={old.partition('-')[2]}", "--new=current")
    assert "+it's rewritten" in run.out


def test_a_mirror_that_was_fetched_before(pushed: Stage) -> None:
    """A site may go from one way to the other and back."""
    pushed.configure(repository=str(pushed.operator), git={"transfer": "pull"})
    pushed.repository.commit({"data/0.txt": "it's fetched\n"})
    run = pushed.deploy()
    assert "receive" not in run.out
    pushed.configure(repository=None, git={"transfer": "push"})
    sha = pushed.repository.commit({"data/0.txt": "it's pushed again\n"})
    run = pushed.deploy()
    assert sent(run.out) < 1
    assert pushed.current.partition("-")[2] == sha[:12]


def test_a_shallow_clone(pushed: Stage) -> None:
    """Refused where the host lacks what was cut off, with the way to get it."""
    pushed.repository.commit({"data/0.txt": "it's one\n"})
    pushed.repository.commit({"data/0.txt": "it's two\n"})
    words = ["git", "clone", "--quiet", "--depth=1", f"file://{pushed.operator}", str(pushed.base / "it's shallow")]
    subprocess.run(words, check=True, capture_output=True)
    pushed.configure(git={"clone": "../it's shallow"})
    run = pushed.deploy(code=1)
    assert "your clone is shallow, and the host lacks commits that are not in it" in run.err
    assert "git fetch --unshallow" in run.err
    subprocess.run(["git", "fetch", "--quiet", "--unshallow"], cwd=pushed.base / "it's shallow", check=True)
    pushed.deploy()
    pushed.configure(git={"clone": "."})


def test_what_a_push_adds_to_the_wire(pushed: Stage) -> None:
    """
    Every byte of the connection counted, against the same where the host has the commit.

    Of a commit of 20 kB it is at most twice git's own thin pack. One line's pack is smaller than any login, so the
    measure of that is a git push, which takes 7 kB over OpenSSH.
    """
    modules = [Path(str(module.__file__)).read_text()[:5000] for module in (deploying, fleet, rollout, surveying)]
    source = {f"shop/it's {number}.py": text for number, text in enumerate(modules)}
    with Relay(pushed.server.address, pushed.server.port) as relay:
        known = pushed.base / "its hosts"
        known.write_text(relay.known_hosts(pushed.server.known_hosts_path.read_text()))
        pushed.configure(ssh={"known_hosts": str(known)})
        large, pack = added(pushed, relay, source)
        assert pack > 5000
        print(f"{large} bytes for a pack of {pack}")
        assert large <= 2 * pack
        small, pack = added(pushed, relay, {"shop/it's 0.py": f"{modules[0]}# it's one more\n"})
        print(f"{small} bytes for a pack of {pack}")
        assert small <= 2 * 7000


def added(stage: Stage, relay: Relay, files: dict[str, str]) -> tuple[int, int]:
    """What a push of these files adds to the bytes of a connection, and the size of git's own thin pack."""
    have = stage.repository.git("rev-parse", "HEAD")
    sha = stage.repository.commit(files)

    def fetch() -> None:
        at = f"{stage.server.user}@127.0.0.1:{relay.port}"
        assert sha[:7] in stage.fab("-H", at, "git.fetch", host=False).last

    return relay.counted(fetch) - relay.counted(fetch), thin_pack(stage, sha, have)
