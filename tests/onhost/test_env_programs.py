"""The programs that change, list and compare files of variables, run here in folders of the test's own."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fabdjango import onhost
from fabdjango.body import render_body
from fabdjango.commands import environment
from fabdjango.escape import Secret
from fabdjango.layout import Layout
from fabdjango.plan import Step
from tests.conftest import sample_settings

CANARY = "it's c4n4ry $HOME"
PROGRAMS = Path(onhost.__file__).parent
PLAIN = "c4n4ry $HOME"
"""The same for between single quotes."""
RELEASE = "7-0123456789ab"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A site with a release that serves, and nothing in shared."""
    found = Layout(tmp_path / "it's here", "blog")  # type: ignore[arg-type]
    Path(found.private(RELEASE)).mkdir(parents=True)
    Path(found.shared).mkdir()
    Path(found.current).symlink_to(found.release(RELEASE))
    return found


def ran(step: Step, *, code: int = 0) -> str:
    """What the step printed; no value is in it."""
    done = subprocess.run(["sh", "-s"], input=render_body(step, "R1"), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "c4n4ry" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def shared(layout: Layout, text: str) -> Path:
    """shared/.env with this text."""
    path = Path(layout.env_file)
    path.write_text(text, encoding="utf-8")
    return path


# --- change -------------------------------------------------------------------------


def test_a_trial_writes_nothing(layout: Layout) -> None:
    """It tells the digest that the file would have, also where there is none yet."""
    trial = environment.try_change(layout, {"MAIL": Secret("x")})
    assert environment.read_trial(ran(trial)) == (True, hashlib.sha256(b"MAIL='x'\n").hexdigest())
    assert list(Path(layout.shared).iterdir()) == []
    path = shared(layout, "MAIL=x\n")
    assert environment.read_trial(ran(trial)) == (False, hashlib.sha256(b"MAIL=x\n").hexdigest())
    assert path.read_text() == "MAIL=x\n"


def test_a_release_first_and_then_shared(layout: Layout) -> None:
    """The release has the change, shared follows, with the mode that it had."""
    path = shared(layout, "A=1\nMAIL=x\n")
    path.chmod(0o600)
    change: dict[str, Secret | None] = {"MAIL": Secret(CANARY), "A": None}
    ran(environment.change_release(layout, RELEASE, change))
    copy = Path(layout.private(RELEASE)) / "shared.env"
    assert path.read_text() == "A=1\nMAIL=x\n"
    assert copy.read_text() == "MAIL='it'\\''s c4n4ry $HOME'\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o640
    ran(environment.publish(layout, RELEASE))
    assert path.read_text() == copy.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(Path(layout.shared).iterdir()) == [path]


def test_a_file_elsewhere_is_changed_where_it_is(layout: Layout, tmp_path: Path) -> None:
    """What is a link stays one."""
    elsewhere = tmp_path / "it's elsewhere"
    elsewhere.write_text("A=1\n")
    elsewhere.chmod(0o604)
    Path(layout.env_file).symlink_to(elsewhere)
    ran(environment.change_shared(layout, {"A": Secret("2")}, keep=False))
    assert Path(layout.env_file).is_symlink()
    assert elsewhere.read_text() == "A='2'\n"
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o604


@pytest.mark.parametrize("before", ["A=1\n", None])
def test_the_way_back(layout: Layout, before: str | None) -> None:
    """The file as it was, or none; or what was kept is forgotten."""
    if before is not None:
        shared(layout, before)
    ran(environment.change_shared(layout, {"A": Secret(CANARY)}, keep=True))
    ran(environment.put_back(layout))
    left = {path.name: path.read_text() for path in Path(layout.shared).iterdir()}
    assert left == ({} if before is None else {".env": before})
    ran(environment.change_shared(layout, {"A": Secret("2")}, keep=True))
    ran(environment.forget_kept(layout))
    assert [path.name for path in Path(layout.shared).iterdir()] == [".env"]


def test_a_file_that_cannot_be_followed_is_left_alone(layout: Layout) -> None:
    """The line is told, by its number."""
    path = shared(layout, f'A=1\nB="{CANARY}\n')
    told = ran(environment.change_shared(layout, {"A": Secret("2")}, keep=False), code=1)
    assert told == f"{path}, line 2: what is quoted there is not closed\n"
    assert path.read_text() == f'A=1\nB="{CANARY}\n'


def test_the_group_of_the_application_stays(layout: Layout) -> None:
    """A file for an application with an account of its own is its group's; so is one that is new in such a folder."""
    private = Path(layout.private(RELEASE))
    group = 12345 if os.geteuid() == 0 else os.getgroups()[-1]
    os.chown(private, -1, group)
    ran(environment.change_release(layout, RELEASE, {"A": Secret("1")}))
    assert (private / "shared.env").stat().st_gid == group


# --- list ---------------------------------------------------------------------------


def test_names_are_listed(layout: Layout) -> None:
    """Of every file, also those in lines that do more; a file that cannot be followed is read as far as it goes."""
    shared(layout, f"# C=1\nA='{PLAIN}'\nexport B=1\n[ -e x ] && D=1\nE=$F/x\n")
    Path(layout.generated_env).write_text(f"export KEY='{CANARY}\n")
    (Path(layout.private(RELEASE)) / "env").write_text("export LANG='C'\n")
    assert json.loads(ran(environment.list_names(layout))) == {
        "generated": ["KEY"],
        "shared": ["A", "B", "D", "E"],
        "serves generated": [],
        "serves shared": [],
        "serves env": ["LANG"],
    }


# --- compare ------------------------------------------------------------------------


def compared(layout: Layout, values: dict[str, Any], env: dict[str, str], local_settings: str | None) -> list[str]:
    """The lines of a comparison."""
    hidden = {name: Secret(value) for name, value in env.items()}
    step = environment.compare(sample_settings(values), layout, RELEASE, hidden, local_settings)
    assert "c4n4ry" not in repr(step)
    return list(environment.difference_lines(ran(step)))


def serves(layout: Layout, **files: str) -> None:
    """What the release that serves was made with."""
    for name, text in files.items():
        (Path(layout.private(RELEASE)) / name.replace("_env", ".env")).write_text(text, encoding="utf-8")


def test_variables_are_compared_by_what_counts(layout: Layout) -> None:
    """A later file hides an earlier one; another way to write the same value is no difference."""
    serves(layout, generated_env=f"export KEY='{PLAIN}'\n", shared_env='A=1\nB="x"\nC=$HOME\n', env="export D='1'\n")
    Path(layout.generated_env).write_text("export KEY='c4n4ry two'\nexport A='hidden'\n")
    shared(layout, "A='1'\nB=x\nC=$HOME\nE=1\n")
    assert compared(layout, {}, {"D": "1"}, None) == ["environment: added E", "environment: changed KEY"]
    shared(layout, "A=1\nC=$PATH\nD=hidden\nif true; then A=2; fi\n")
    assert compared(layout, {"environment": {"D": "2"}, "secrets": {"NEW": "generate"}}, {}, None) == [
        "environment: added (lines that do more than to assign)",
        "environment: added NEW",
        "environment: removed B",
        "environment: changed C",
        "environment: changed D",
        "environment: changed KEY",
    ]


def test_an_environment_file_hides_shared(layout: Layout) -> None:
    """A release with one has no copy of what lies there."""
    shared(layout, f"A='{PLAIN}'\n")
    assert compared(layout, {"env_file": "it's"}, {"B": CANARY}, None) == ["environment: added B"]


def test_settings_are_compared_by_name(layout: Layout) -> None:
    """What is written otherwise and means the same is no difference; what is no assignment counts as one."""
    serves(
        layout, **{"local_settings.py": f"A = '{PLAIN}'\nB = 1\nD['x'] = {{}}\nimport os\nE: int = 1\nF, G = 1, 2\n"}
    )
    new = f"# a comment\nA = \"{PLAIN}\"\nC = 1\nD['x'] = 'c4n4ry'\nimport sys\nE: int = 1\nF, G = 1, 3\ndef f(): 1\n"
    assert compared(layout, {}, {}, new) == [
        "local_settings.py: added C",
        "local_settings.py: added f",
        "local_settings.py: removed B",
        "local_settings.py: changed (other lines)",
        "local_settings.py: changed D",
        "local_settings.py: changed F",
        "local_settings.py: changed G",
    ]


def test_settings_that_are_kept_by_hand(layout: Layout) -> None:
    """Then those of shared are what the next release has; a Python that cannot read them compares them whole."""
    Path(layout.local_settings).write_text("A = 1\n")
    assert compared(layout, {}, {}, None) == ["local_settings.py: added A"]
    serves(layout, **{"local_settings.py": "A = = 1\n"})
    Path(layout.local_settings).write_text("A = = 2\n")
    assert compared(layout, {}, {}, None) == ["local_settings.py: changed (the whole file)"]


@pytest.mark.parametrize("name", ["change_env", "compare_env", "generate_secrets", "list_env", "tell_secrets"])
def test_a_program_says_what_it_does(name: str) -> None:
    """Its first line is its own, whatever it is made of; and all of it is one program."""
    text = onhost.source(name)
    assert text.splitlines()[0] in (PROGRAMS / f"{name}.py").read_text(encoding="utf-8")
    subprocess.run([sys.executable, "-c", f"compile({text!r}, 'it', 'exec')"], check=True)
