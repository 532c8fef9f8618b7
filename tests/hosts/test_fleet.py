"""
Many hosts, one decision: all old, all new, or exit 2 with exactly the hosts named that differ or are not known.

Every run does a representative part of the matrix of hosts, faults and moments, with three hosts; the nightly one does
all of it with five.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.hosts import faults, invariants
from tests.hosts.faults import FAULTS
from tests.hosts.fleet import BALANCER, FleetStage
from tests.hosts.load import FULL, Load
from tests.hosts.shop import CANARY, ROOT, Shop
from tests.hosts.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts.workplace import Daemon

HOSTS, FEW = 5, 3
#: Ten moments from the first session to the last.
POINTS = (
    *("during:survey", "during:export", "during:check", "before:configure", "during:start"),
    *("during:health", "after:arm", "after:switch", "during:await", "during:drain"),
)
FAULT_NAMES = ("kill step", "kill -9", "link down")
Cell = tuple[int, str, str]
CELLS: list[Cell] = [(number, fault, point) for point in POINTS for fault in FAULT_NAMES for number in range(HOSTS)]
ALWAYS: list[Cell] = [(2, "kill step", "during:health"), (1, "link down", "after:switch")]
#: Short, for tests that wait for both.
IMPATIENT = {"activation": {"confirm": 6, "drain": 5, "batch": "2"}}
IMPATIENT_SSH = {"keepalive": 2, "reconnect": 6, "connect_timeout": 3}


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetStage]:
    """Three hosts where the shop serves, and five if nightly tests were chosen."""
    nightly = any(item.get_closest_marker("nightly") for item in request.session.items)
    booted = machines.up(HOSTS if nightly else FEW, "bookworm", "prepared", "fleet")
    # The git server's address is that of the bridge, which the first host makes.
    daemon: Daemon = request.getfixturevalue("daemon")
    stage = FleetStage(booted, Workplace(tmp_path_factory.mktemp("fleet") / "work"), Shop(daemon.repository("fleet")))
    stage.install()
    yield stage
    machines.down(booted)


def one_fate(stage: FleetStage, code: int, said: str, old: list[str], sha: str, struck: str) -> list[str]:
    """All old or all new, or exit 2 and the one host that was struck is named; a deployer that died said nothing."""
    serving = stage.serving
    new = [release.endswith(f"-{sha[:12]}") for release in serving]
    wrong = [f"I1: {release} answers" for release, before, is_new in zip(serving, old, new, strict=True) if not is_new and release != before]  # fmt: skip
    if code == 0 and not all(new):
        wrong.append(f"I7: exit 0, and {serving}")
    if code in {1, 3} and any(new):
        wrong.append(f"I7: exit {code}, and {serving}")
    if code == 2:
        state = re.search(r"^ state: (.*)$", said, re.MULTILINE)
        named = set(re.findall(r"198\.18\.\d+\.\d+", state[1] if state else ""))
        odd = [site.machine.address for site, is_new in zip(stage.sites, new, strict=True) if is_new is not (new.count(True) > len(new) / 2)]  # fmt: skip
        if named != {struck} or not set(odd) <= named:
            wrong.append(f"I7: exit 2 names {sorted(named)}; struck was {struck}, and {odd} are not like the others")
    return wrong


def one_cell(stage: FleetStage, number: int, fault: str, point: str) -> list[str]:
    """One fault on one host at one moment, and all that must hold on every host."""
    stage.configure(**IMPATIENT, ssh=IMPATIENT_SSH)
    old, release = stage.serving, stage.shop.next(setting=True)
    site = stage.sites[number]
    at = f"{point}@{site.machine.address}"
    done = faults.hit(site, lambda **more: stage.start(release, **more), FAULTS[fault], at, patience=120)
    code, said = done.outcome.code, done.said
    for each in stage.sites:
        done.busy.extend(invariants.orphans(each, 60))
    wrong = [*done.busy, *one_fate(stage, code, said, old, release.sha, site.machine.address)]
    for each in stage.sites:
        wrong += invariants.files(each) + invariants.migrations(each)
    outcome = stage.deploy(release)
    if outcome.code:
        wrong.append(f"I3: the next deploy ended with {outcome.code}: {outcome.error[-1500:]}")
    ids = stage.serving
    if len(set(ids)) != 1 or not ids[0].endswith(release.sha[:12]):
        wrong.append(f"I3: after the next deploy {ids}")
    for each in stage.sites:
        wrong += invariants.settled(each, within=20) + invariants.temporaries(each)
    print(f"host {number}, {fault} {point}: fab {code} after {done.outcome.seconds:.0f} s; {'; '.join(done.proof)}")
    return [*wrong, f"fab had ended with {code}: {said[-3000:]}"] if wrong else []


@pytest.mark.parametrize(("number", "fault", "point"), ALWAYS)
def test_a_fault_on_one_host(fleet: FleetStage, number: int, fault: str, point: str) -> None:
    """The part of the matrix that every run does."""
    invariants.held(one_cell(fleet, number, fault, point))


@pytest.mark.nightly
@pytest.mark.parametrize(("number", "fault", "point"), [cell for cell in CELLS if cell not in ALWAYS])
def test_every_fault_on_every_host(fleet: FleetStage, number: int, fault: str, point: str) -> None:
    """The rest of the matrix."""
    invariants.held(one_cell(fleet, number, fault, point))


def rolling(stage: FleetStage, deploys: int) -> list[str]:
    """Deploys under load through the load balancer; what is wrong with how they went."""
    stage.configure(activation={"batch": "2", "drain": 20})
    wrong: list[str] = []
    profile = replace(FULL, post_seconds=3.0, slow_seconds=4.0, wrk=8)
    with Load(stage.machines[0], BALANCER, profile) as load:
        for _ in range(deploys):
            release = stage.shop.next(dep=False, setting=True, static=True)
            outcome = stage.deploy(release)
            wrong += [] if outcome.code == 0 else [f"exit {outcome.code}: {outcome.error[-1500:]}"]
            ids = stage.serving
            wrong += [] if len(set(ids)) == 1 and ids[0].endswith(release.sha[:12]) else [f"{ids} serve"]
        time.sleep(1)  # requests after the last deploy count too
    report = load.report()
    print(f"{deploys} rolling deploys of {len(stage.machines)} hosts: {report}")
    wrong += [*report.failures, *report.mixed(stage.shop.mixed)]
    wrong += [] if report.total > 100 * deploys else [f"only {report.total} requests"]
    return wrong


def test_no_request_is_lost_behind_a_load_balancer(fleet: FleetStage) -> None:
    """Two rolling deploys."""
    invariants.held(rolling(fleet, 2))
    for site in fleet.sites:
        assert invariants.secrets(site, CANARY, fleet.said) == []


@pytest.mark.nightly
def test_no_request_is_lost_in_ten_rolling_deploys(fleet: FleetStage) -> None:
    """Ten of them."""
    invariants.held(rolling(fleet, 10))


def test_a_host_that_is_down(fleet: FleetStage) -> None:
    """It stops a deploy; skipped, it is brought up to the others later, under their id."""
    fleet.configure(ssh={"connect_timeout": 3})
    away, others = fleet.machines[-1], len(fleet.machines) - 1
    old, release = fleet.serving, fleet.shop.next()
    away.cut()
    try:
        refused = fleet.deploy(release)
        assert refused.code == 1
        assert f"1 of {others + 1} hosts cannot be reached" in refused.error
        assert fleet.serving[:-1] == old[:-1]
        skipped = fleet.deploy(release, "--skip-unreachable")
    finally:
        away.mend()
    assert skipped.code == 0
    new = fleet.serving[0]
    assert (
        skipped.last_line
        == f"deployed: {new} serves on {others} hosts; skipped: {away.address} (later: fab deploy --catch-up)"
    )
    assert fleet.serving == [new] * others + [old[-1]]
    drift = fleet.fab("status")
    assert drift.code == 1
    assert re.search(rf"^{re.escape(away.address)} +{old[-1]} +yes +most serve {new}", drift.output, re.MULTILINE)
    caught = fleet.deploy(release, "--catch-up")
    assert (caught.code, caught.last_line) == (0, f"deployed: {new} serves on {others + 1} hosts")
    assert fleet.serving == [new] * (others + 1)


@pytest.mark.nightly
def test_hosts_whose_clocks_differ(fleet: FleetStage) -> None:
    """One is a day ahead and one a day behind; releases are in the order of their deploys all the same."""
    fleet.configure()
    shifted = ((fleet.machines[1], "+1 day"), (fleet.machines[2], "-1 day"))
    try:
        # Hosts of one machine have one clock; what is written down on them is what their date says.
        for machine, by in shifted:
            machine.write("/usr/local/bin/date", f"#!/bin/sh\nexec /usr/bin/date -d '{by}' \"$@\"\n", 0o755)
        made = [fleet.shop.next() for _ in range(3)]
        for release in made:
            fleet.deploy(release).ended()
        assert len(set(fleet.serving)) == 1
        fleet.fab("rollback").ended()
        assert {each.rpartition("-")[2] for each in fleet.serving} == {made[1].sha[:12]}
        fleet.deploy(made[2]).ended()
        days = []
        for site in fleet.sites[:3]:
            assert invariants.releases(site, 4) == []
            days.append(site.machine.run(f"tail -n 1 {ROOT}/journal.jsonl").stdout.partition('"time": "')[2][:10])
        assert days[2] < days[0] < days[1]
    finally:
        for machine, _ in shifted:
            machine.run("rm -f /usr/local/bin/date")
