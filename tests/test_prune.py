"""What is removed from a host, by the program that removes it, in a folder of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fabdjango import onhost


def name(number: int) -> str:
    """The id of the release with this number."""
    return f"{number}-{number:012x}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A site with six complete releases, each with a virtualenv of its own but the last two, which share one."""
    for number in range(1, 7):
        add(tmp_path / "it's here", number)
    return tmp_path / "it's here"


def add(root: Path, number: int, *, complete: bool = True) -> None:
    """One more release."""
    private = root / "releases" / name(number) / ".fabdjango"
    private.mkdir(parents=True)
    key = f"venv{min(number, 5)}"
    (root / "venvs" / key).mkdir(parents=True, exist_ok=True)
    if complete:
        (private / "release.json").write_text(json.dumps({"venv": key}))


def prune(
    root: Path, current: int, proven: list[int], keep: int = 3, before: str = ""
) -> tuple[str, list[int], list[str]]:
    """Run the program, after the Python ``before``: what it says, the numbers of the releases that are left, and the virtualenvs."""
    given: dict[str, Any] = {
        "root": str(root),
        "keep": keep,
        "current": name(current),
        "proven": [name(each) for each in proven],
    }
    text = f"{before}\nPARAMETERS = {given!r}\n{onhost.source('prune')}"
    done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, check=True)
    left = sorted(int(path.name.split("-")[0]) for path in (root / "releases").glob("[0-9]*"))
    return done.stdout, left, sorted(path.name for path in (root / "venvs").iterdir())


def test_the_newest_that_served_stay(root: Path) -> None:
    """With the virtualenvs that they use; a second run finds nothing."""
    said, left, venvs = prune(root, 6, [1, 2, 3, 4, 5, 6])
    assert (left, venvs) == ([4, 5, 6], ["venv4", "venv5"])
    assert sorted(said.removeprefix("removed ").strip().split(", ")) == sorted(
        [name(1), name(2), name(3), "virtualenv venv1", "virtualenv venv2", "virtualenv venv3"]
    )
    assert prune(root, 6, [1, 2, 3, 4, 5, 6]) == ("nothing to remove\n", left, venvs)


def test_what_never_served_counts_for_nothing(root: Path) -> None:
    """However new they are, failed releases do not push out those that can be gone back to."""
    assert prune(root, 6, [1, 2, 6])[1] == [1, 2, 6]


def test_a_removal_that_is_cut_short(root: Path) -> None:
    """What it leaves does not count as a release or as a virtualenv that could be used again."""
    for venv in (root / "venvs").iterdir():
        (venv / ".complete").touch()
    _, left, venvs = prune(root, 6, [1, 2, 3, 4, 5, 6], before="import shutil; shutil.rmtree = lambda *a, **k: None")
    whole = sorted(int(path.parts[-3].split("-")[0]) for path in root.glob("releases/*/.fabdjango/release.json"))
    assert (left, whole) == ([1, 2, 3, 4, 5, 6], [4, 5, 6])
    assert len(venvs) == 5
    assert sorted(path.parent.name for path in root.glob("venvs/*/.complete")) == ["venv4", "venv5"]


def test_with_one_to_keep_there_is_still_a_way_back(root: Path) -> None:
    """The last one that served before the current one stays, too."""
    assert prune(root, 6, [1, 3, 6], keep=1)[1] == [3, 6]


def test_after_a_rollback_to_an_old_one(root: Path) -> None:
    """It is the current one, and so it stays; the one that it was taken back from stays as the last good one."""
    assert prune(root, 1, [2, 3, 4, 5, 6, 1])[1] == [1, 5, 6]


def test_a_newer_one_that_waits_for_its_turn(root: Path) -> None:
    """What git.checkout made, complete or not, is for release.activate."""
    add(root, 7)
    add(root, 8, complete=False)
    assert prune(root, 6, [4, 5, 6])[1] == [4, 5, 6, 7, 8]


def test_pinned(root: Path) -> None:
    """For as long as there is its pin."""
    (root / "pins").mkdir()
    (root / "pins" / name(1)).touch()
    assert prune(root, 6, [1, 2, 3, 4, 5, 6])[1:] == ([1, 4, 5, 6], ["venv1", "venv4", "venv5"])
    (root / "pins" / name(1)).unlink()
    assert prune(root, 6, [1, 2, 3, 4, 5, 6])[1] == [4, 5, 6]


@pytest.mark.parametrize("how", ["cwd", "argv"])
def test_what_a_process_uses_stays(root: Path, how: str) -> None:
    """One that works in it, or was started with a file of it: an old worker may run for hours."""
    folder = root / "releases" / name(1)
    words = ["sh", "-c", "echo; read line", str(folder / "a b") if how == "argv" else "x"]
    with subprocess.Popen(
        words, cwd=folder if how == "cwd" else "/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        assert prune(root, 6, [1, 2, 3, 4, 5, 6])[1:] == ([1, 4, 5, 6], ["venv1", "venv4", "venv5"])
        process.communicate(b"\n")
    assert prune(root, 6, [1, 2, 3, 4, 5, 6])[1] == [4, 5, 6]


def test_folders_of_other_names_are_left_alone(root: Path) -> None:
    """They are somebody else's."""
    (root / "releases" / "it's mine").mkdir()
    assert "it's mine" not in prune(root, 6, [6], keep=1)[0]
    assert (root / "releases" / "it's mine").is_dir()
