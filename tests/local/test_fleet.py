"""Many hosts, one decision: all serve the new release or all serve the old one, and what is said of it is true."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.local.fleet import FleetStage
from tests.local.sample import make_project
from tests.local.stage import Stage, Tools, until

#: Its hosts are made once.
pytestmark = pytest.mark.xdist_group("fleet")


@pytest.fixture(scope="module")
def fleet(tools: Tools) -> Iterator[FleetStage]:
    """Two hosts that serve."""
    made = FleetStage(tools, 2)
    try:
        made.repository.commit(make_project())
        made.first.configure(
            django={"collectstatic": "never"},
            activation={"batch": "1"},
            health={"timeout": 6},
            processes={
                "beat": {"command": "exec sleep 77777", "hosts": "primary"},
                "worker": {"command": "exec sleep 88888"},
            },
        )
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
    assert migrated == [1, 0]
    assert fleet.fab("deploy").last == f"unchanged: {fleet.current[0]} serves on 2 hosts already, and answers"


def test_what_must_be_there_once(fleet: FleetStage) -> None:
    """Celery's beat, or a job, runs on the primary; no task takes its absence elsewhere for a mistake."""
    programs = [re.findall(r"^\[program:shop-(\w+)\]", conf_of(each), re.MULTILINE) for each in fleet.hosts]
    assert programs == [["beat", "worker"], ["worker"]]
    assert [each.private.joinpath("process-beat").exists() for each in fleet.hosts] == [True, False]
    other = fleet.names[1]
    run = fleet.fab("supervisor.stop", "--only=beat", hosts=fleet.hosts[1:])
    assert run.last == f"unchanged: beat is for the primary, and {other} is not"
    assert "77777" not in fleet.fab("logs", "--name=beat").text


def conf_of(stage: Stage) -> str:
    """The site's programs, as supervisor reads them."""
    return (stage.root / "supervisor/conf.d/shop.conf").read_text()


def test_one_host_that_fails_takes_all_back(fleet: FleetStage) -> None:
    """The last one has something in its way: those that had switched go back, and the table says what each serves."""
    old = fleet.current
    last = fleet.hosts[1]
    blocked = (
        last.root / "run/sockets" / ("b.sock" if (last.root / "run/current.sock").readlink().stem == "a" else "a.sock")
    )
    blocked.unlink(missing_ok=True)
    (blocked / "in-the-way").mkdir(parents=True)
    edit(fleet, "taken back")
    run = fleet.fab("deploy", code=3)
    assert run.err.endswith(
        "Error: 1 of 2 hosts did not switch\n"
        " hosts:\n"
        f"   | {fleet.names[0]}  serves {old[0]} again\n"
        f"   | {fleet.names[1]}  serves {old[1]}, as before\n"
        " state: every host serves again what it did before (exit 3)\n"
    )
    assert fleet.current == old
    assert [each.get().page["release"] for each in fleet.hosts] == old
    (blocked / "in-the-way").rmdir()
    blocked.rmdir()
    new = fleet.fab("deploy").last.split()[1]
    assert fleet.current == [new] * 2
    shown = fleet.fab("status").out.splitlines()
    assert shown[-2:] == [f"{fleet.names[0]} (primary)  {new}  yes", f"{fleet.names[1]}            {new}  yes"]
    assert fleet.fab("rollback").last == f"rolled back: {old[0]} serves on 2 hosts"
    assert fleet.current == old


def interrupted(fleet: FleetStage, at: str) -> subprocess.CompletedProcess[str]:
    """A deploy of both hosts, with Ctrl-C while the second one is at this moment; then that one goes on."""
    last = fleet.hosts[1]
    pause = last.root / "run/paused"
    pause.unlink(missing_ok=True)
    words = fleet.words("deploy")
    environ = fleet.first.environ({"FABDJANGO_TEST_PAUSE": f"{at}@{last.server.address}"})
    with subprocess.Popen(
        words, cwd=fleet.first.operator, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as deployer:  # fmt: skip
        until(lambda: pause.exists() or deployer.poll() is not None)
        deployer.send_signal(signal.SIGINT)
        if at == "during:health":
            until(lambda: any("interrupted" in line for line in iter(deployer.stdout.readline, "")))  # type: ignore[union-attr]
            pause.unlink()
        out, err = deployer.communicate()
        pause.unlink(missing_ok=True)
        return subprocess.CompletedProcess(words, deployer.returncode, out, err)


@pytest.mark.parametrize(("at", "code"), [("during:check", 1), ("during:health", 3)])
def test_ctrl_c_stops_a_whole_fleet(fleet: FleetStage, at: str, code: int) -> None:
    """While releases are made ready nothing changes; once a host has switched, the switch ends, and all go back."""
    old = fleet.current
    edit(fleet, f"stopped {at}")
    done = interrupted(fleet, at)
    assert done.returncode == code, done.stdout + done.stderr
    assert fleet.current == old
    assert [each.get().page["release"] for each in fleet.hosts] == old
    new = fleet.fab("deploy").last.split()[1]
    assert fleet.current == [new] * 2
