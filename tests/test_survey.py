"""What the survey finds of slots and of an activation that was left behind, in a folder of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fabdjango import onhost
from fabdjango.facts import Facts, read_commit, read_facts
from tests.local.sample import Repository, make_project


def surveyed(root: Path, ref: str = "") -> Facts:
    """Run the program on ``root``."""
    return read_facts(said_by("survey", root, ref))


def said_by(program: str, root: Path, ref: str) -> str:
    """What a program prints of ``root``, with parameters of a survey."""
    given = {
        "root": str(root),
        "ref": ref,
        "python": sys.executable,
        "requirements": ["auto"],
        "manage": "manage.py",
        "shared": [],
        "managed": [[str(root / "it's secret"), True], [str(root / "it's shown"), False]],
        "pushed": False,
        "run_as": "",
    }
    text = f"PARAMETERS = {given!r}\n{onhost.source(program)}"
    return subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A site with a release in slot b, which is live."""
    found = tmp_path / "it's here"
    for folder in ("run", "slots", "pins", "releases/1-000000000001/.fabdjango", "releases/2-000000000002"):
        (found / folder).mkdir(parents=True)
    (found / "releases" / "1-000000000001" / ".fabdjango" / "release.json").write_text('{"commit": "it\'s one"}')
    (found / "slots" / "b").symlink_to("../releases/1-000000000001")
    (found / "current").symlink_to("releases/1-000000000001")
    (found / "run" / "current.sock").symlink_to("sockets/b.sock")
    return found


def test_an_empty_host(tmp_path: Path) -> None:
    """Nothing is there, and nothing is made by looking."""
    found = surveyed(tmp_path / "it's not there")
    assert (found.root_exists, found.current, found.live_slot, found.slots, found.activation) == (False, "", "", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_slots(root: Path) -> None:
    """Which slot has which release, and which is live; with one slot, none is while the release is exchanged."""
    found = surveyed(root)
    assert (found.current, found.live_slot, found.slots) == ("1-000000000001", "b", {"b": "1-000000000001"})
    assert found.releases == {"1-000000000001": {"commit": "it's one"}, "2-000000000002": None}
    (root / "run" / "current.sock").unlink()
    (root / "run" / "current.sock").symlink_to("none.sock")
    assert surveyed(root).live_slot == ""


@pytest.mark.parametrize("state", ["armed", "confirmed", "reverting"])
def test_an_activation_that_was_left_behind(root: Path, state: str) -> None:
    """Its record and its state; a record that cannot be read is one all the same."""
    record = root / "run" / f"activation.{state}"
    record.write_text(json.dumps({"release": "2-000000000002", "by": "it's me"}))
    assert surveyed(root).activation == {"release": "2-000000000002", "by": "it's me", "state": state}
    record.write_text('{"release')
    assert surveyed(root).activation == {"state": state}


def test_the_journal_decides_what_was_proven(root: Path) -> None:
    """Half a line of a power cut is passed over; the counter never goes back."""
    lines = [
        {"event": "deploy", "release": "1-000000000001", "result": "serves"},
        {"event": "deploy", "release": "9-000000000009", "result": "serves"},
        {"event": "deploy", "release": "2-000000000002", "result": "reverted"},
    ]
    (root / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "depl')
    found = surveyed(root)
    assert (found.proven, found.highest, len(found.journal)) == (("1-000000000001",), 9, 3)


def test_secrets_are_not_told(root: Path) -> None:
    """A digest says enough."""
    for name in ("it's secret", "it's shown"):
        (root / name).write_text("canary")
    found = surveyed(root).managed
    assert [found[str(root / name)]["text"] for name in ("it's secret", "it's shown")] == [None, "canary"]
    assert found[str(root / "it's secret")]["digest"] == found[str(root / "it's shown")]["digest"]


def test_what_was_made_on_the_host(root: Path) -> None:
    """Names, and a digest that changes with a value; never a value."""
    assert (surveyed(root).generated, surveyed(root).generated_env) == ((), "")
    (root / "shared").mkdir()
    path = root / "shared" / "generated.env"
    digests = []
    for value in ("it'\\''s", "another"):
        path.write_text(f"export SECRET_KEY='{value}'\nexport A='{value}'\n")
        found = surveyed(root)
        assert found.generated == ("A", "SECRET_KEY")
        assert value not in repr(found)
        digests.append(found.generated_env)
    assert digests[0] != digests[1]


def test_a_later_look_at_the_commit_alone(root: Path, tmp_path: Path) -> None:
    """It says of the commit what a whole survey says; what was known of the host stays."""
    repository = Repository(tmp_path / "its repository")
    sha = repository.commit({**make_project(), "requirements.txt": "-r it's\n", "it's": "Django\n"}, "It's the first")
    before = surveyed(root, "main")
    assert (before.sha, before.ref_kind) == ("", "unknown")
    repository.git("clone", "--quiet", "--bare", str(repository.path), str(root / "repo.git"))
    whole = surveyed(root, "main")
    assert (whole.sha, whole.subject, whole.manage) == (sha, f"{sha[:7]} It's the first", True)
    later = read_commit(said_by("survey_commit", root, "main"), before)
    assert later == replace(whole, mirror=False, disk=before.disk)


@pytest.mark.parametrize(
    ("name", "text", "needs"),
    [
        ("requirements.txt", "# Django>=1\n  Django[argon2] >= 5.2, < 5.3 ; python_version > '3'\n", ["", ">= 5.2, < 5.3"]),
        ("requirements.txt", "django-environ\nDjango\n", ["", ""]),
        ("uv.lock", '[[package]]\nname = "django"\nversion = "5.2.4"\n', ["", "==5.2.4"]),
        ("pyproject.toml", '[project]\nrequires-python = ">=3.12"\ndependencies = [\n  "Django~=6.0",\n]\n', [">=3.12", "~=6.0"]),
        ("setup.cfg", "[options]\npython_requires = >=3.10\n", [">=3.10", ""]),
    ],
)  # fmt: skip
def test_what_a_commit_needs(root: Path, tmp_path: Path, name: str, text: str, needs: list[str]) -> None:
    """In the words of its own files."""
    repository = Repository(tmp_path / "it's a repository")
    repository.commit({name: text})
    repository.git("clone", "--quiet", "--bare", str(repository.path), str(root / "repo.git"))
    assert list(surveyed(root, "main").needs) == needs


def test_the_pythons_of_the_host(root: Path) -> None:
    """By names that anybody finds."""
    assert all(name.startswith("python3.") for name in surveyed(root).pythons)


def test_migrations_of_releases(tmp_path: Path) -> None:
    """Two that have the same have the same digest; one that does not say is left out."""
    said = {
        "1-000000000001": ["it's.0001"],
        "2-000000000002": ["it's.0001"],
        "3-000000000003": ["it's.0001", "it's.0002"],
    }
    said |= {"4-000000000004": []}
    for name, known in said.items():
        folder = tmp_path / "releases" / name / ".fabdjango"
        folder.mkdir(parents=True)
        (folder / "django.json").write_text(json.dumps({"known": known}))
    (tmp_path / "releases" / "5-000000000005").mkdir()
    (tmp_path / "releases" / "4-000000000004" / ".fabdjango" / "django.json").write_text("{")
    found = surveyed(tmp_path).schemas
    assert sorted(found) == ["1-000000000001", "2-000000000002", "3-000000000003"]
    assert found["1-000000000001"] == found["2-000000000002"] != found["3-000000000003"]
