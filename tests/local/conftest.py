"""What whole deployments share: programs and a cache of packages; and a stage for each test."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.local.stage import Stage, Tools

Staged = Callable[..., Stage]


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """
    Programs that a host of the user level has (supervisor, uv), and one cache of packages for all tests.

    Workers of pytest-xdist share it: the folder of all of them is one above the worker's own.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if base.name.startswith("popen-gw") else base
    made = Tools(base / "tools/bin", base / "tools/cache")
    with (base / "tools.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.programs.exists():
            made.programs.mkdir(parents=True)
            for name in ("supervisord", "supervisorctl", "uv"):
                (made.programs / name).symlink_to(_program(name, base))
    return made


def _program(name: str, base: Path) -> Path:
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return beside
    found = shutil.which(name)
    if found:
        return Path(found)
    # What setup.cfg does not ask for comes from the package index, as a server would have it.
    place = base / "tools/more"
    if not place.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "uv", "supervisor"], check=True)
    return place / "bin" / name


@pytest.fixture
def staged(tools: Tools) -> Iterator[Staged]:
    """Make stages, and clear them away at the end, however it ends."""
    stages: list[Stage] = []

    def make(**options: Any) -> Stage:
        stages.append(Stage(tools, **options))
        return stages[-1]

    yield make
    for each in stages:
        each.close()


@pytest.fixture
def stage(staged: Staged) -> Stage:
    """One stage."""
    return staged()
