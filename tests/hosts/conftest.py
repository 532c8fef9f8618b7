"""
The hosts that the tests of this folder share, each booted once and only when a test asks for it.

On a machine that cannot boot hosts the folder is skipped with the reason; FABDJANGO_REQUIRE_HOSTS=1 makes that a failure.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.hosts.faults import Disk
from tests.hosts.shop import Shop, Stage
from tests.hosts.workplace import Daemon, Workplace, serve_git

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.machines import Machine

HERE = Path(__file__).parent
#: Three workers of pytest-xdist at most boot hosts, each for the files of one group, which share theirs. All of them take about
#: ten minutes: the longest one is what the whole command waits for.
MATRICES = {
    "test_load.py",
    "test_faults.py",
    "test_broken_releases.py",
    "test_disk_full.py",
    "test_held.py",
    "test_instruments.py",
    "test_managers.py",
    "test_nginx.py",
}
SERVERS = {
    "test_bare.py",
    "test_fleet.py",
    "test_letsencrypt.py",
    "test_real_project.py",
    "test_schedule.py",
    "test_setup.py",
    "test_upgrades.py",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the folder, and let three workers of pytest-xdist have it."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.hosts)
            if config.pluginmanager.hasplugin("xdist"):
                name = item.path.name
                group = "matrices" if name in MATRICES else "servers" if name in SERVERS else "hosts"
                item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail, before any host is booted."""
    reason = machines.missing_tools()
    if reason and os.environ.get("FABDJANGO_REQUIRE_HOSTS") == "1":
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def bookworm() -> Iterator[Machine]:
    """A Debian 12 host with git, supervisor and python3-venv."""
    yield from _booted("bookworm", "prepared", "book")


@pytest.fixture(scope="session")
def bare() -> Iterator[Machine]:
    """A Debian 12 host that has Python and sshd, and nothing that a deploy needs beside them."""
    yield from _booted("bookworm", "bare", "bare")


@pytest.fixture(scope="session")
def trixie() -> Iterator[Machine]:
    """A Debian 13 host with git, supervisor and python3-venv."""
    yield from _booted("trixie", "prepared", "trix")


def _booted(suite: str, variant: str, prefix: str) -> Iterator[Machine]:
    booted = machines.up(1, suite, variant, prefix)
    # sshd of Debian 13 shuts out an address for a while after it has sent wrong keys; here that is what is tested.
    booted[0].run("echo 'PerSourcePenalties no' > /etc/ssh/sshd_config.d/no-penalties.conf")
    booted[0].run("sshd -t 2>/dev/null || rm /etc/ssh/sshd_config.d/no-penalties.conf; systemctl reload ssh")
    yield booted[0]
    machines.down(booted)


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A git server on the operator's side that every host reaches."""
    with serve_git(tmp_path_factory.mktemp("repositories")) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def stages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Stage]]:
    """For each process manager a host where the shop serves, made when it is first asked for."""
    made: dict[str, Stage] = {}

    def stage_of(manager: str) -> Stage:
        if manager not in made:
            machine = machines.up(1, "bookworm", "prepared", manager[:5])[0]
            daemon = request.getfixturevalue("daemon")
            workplace = Workplace(tmp_path_factory.mktemp(manager) / "work")
            made[manager] = Stage(machine, workplace, Shop(daemon.repository(f"shop-{manager}")), manager)
            made[manager].install()
        made[manager].whole()
        return made[manager]

    yield stage_of
    machines.down([stage.machine for stage in made.values()])


@pytest.fixture(scope="module")
def stage_on_disk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[Stage, Disk]]]:
    """The same on a host whose /srv is a small disk of its own, which can be filled and lose its power."""
    made: dict[str, tuple[Stage, Disk]] = {}

    def stage_of(manager: str) -> tuple[Stage, Disk]:
        if manager not in made:
            machine = machines.up(1, "bookworm", "prepared", f"d{manager[:4]}")[0]
            disk = Disk(machine).attach()
            daemon = request.getfixturevalue("daemon")
            workplace = Workplace(tmp_path_factory.mktemp(manager) / "work")
            stage = Stage(machine, workplace, Shop(daemon.repository(f"disk-{manager}")), manager)
            made[manager] = stage, disk
            stage.install()
        made[manager][0].whole()
        return made[manager]

    yield stage_of
    for stage, disk in made.values():
        disk.remove()
        machines.down([stage.machine])


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """A fresh folder of an operator, with a fabfile of two lines."""
    return Workplace(tmp_path / "work")
