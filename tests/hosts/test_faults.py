"""
Whatever dies, wherever: a whole release serves, what fab said is true, and the next plain deploy works unaided.

The matrix has every moment of POINTS with a killed deployer and a dead link, on both process managers; the other faults
of FAULTS have a row of their own. Every run does a representative part of it, the nightly one does all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.hosts import faults, invariants
from tests.hosts.faults import FAULTS, POINTS, STEPS, Disk
from tests.hosts.invariants import Managed, Watch
from tests.hosts.load import LIGHT
from tests.hosts.shop import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.hosts.shop import Release, Stage

MANAGERS = ("supervisor", "systemd")
Cell = tuple[str, str, str]
#: 80 cells, of which those of ALWAYS are done in every run: both managers, from the first moments to the last.
CELLS: list[Cell] = [
    (manager, fault, point) for point in POINTS for manager in MANAGERS for fault in ("kill -9", "link down")
]
ALWAYS: list[Cell] = [
    ("supervisor", "kill -9", "during:settings"),
    ("systemd", "kill -9", "during:health"),
    ("supervisor", "link down", "after:switch"),
    ("systemd", "kill -9", "during:drain"),
]
#: The other faults at the moments where most is at stake.
OTHERS: list[Cell] = [
    (MANAGERS[number % 2], fault, point)
    for fault in FAULTS
    if fault not in {"kill -9", "link down", "disk full", "inodes full", "power cut", "step fails", "step hangs"}
    for number, point in enumerate(("during:export", "during:migrate", "during:health", "after:arm", "after:switch", "during:await", "during:drain"))
]  # fmt: skip
#: A step that fails, or never ends: in each phase. What comes when there is no way back any more has limits of its own.
OTHERS += [
    (MANAGERS[number % 2], fault, f"during:{step}")
    for fault in ("step fails", "step hangs")
    for number, step in enumerate(
        ("survey", "export", "install", "check", "migrate", "start", "health", "arm", "switch")
    )
]
#: Before them a deployer that is gone has confirmed nothing, and the release before comes back.
CONFIRMED = POINTS[POINTS.index("during:await") + 1 :]

#: What the host waits for a word, and the operator for a dead link: short, for tests that wait for both.
IMPATIENT = {
    "activation": {"confirm": 6, "drain": 5},
    "ssh": {"keepalive": 2, "reconnect": 6, "connect_timeout": 3},
}
MANAGED = ("/etc/supervisor/conf.d/shop.conf", "/etc/systemd/system/shop*", "/etc/nginx/sites-available/shop.conf")


def impatient(stage: Stage) -> None:
    """Lay the short times over the configuration."""
    ssh = {**IMPATIENT["ssh"], "known_hosts": str(stage.workplace.known_hosts)}
    stage.configure(**{**IMPATIENT, "ssh": ssh})


def changed(stage: Stage, point: str) -> Release:
    """The commit that has the step of this moment to do."""
    step = point.partition(":")[2]
    return stage.shop.next(dep=step in {"venv", "install"}, migration=step == "migrate", setting=True)


def one_cell(
    stage: Stage,
    fault: str,
    point: str,
    *,
    disk: Disk | None = None,
    back: bool = True,
    confirmed: Sequence[str] = CONFIRMED,
) -> list[str]:
    """One fault at one moment, and all that must hold afterwards; `back` tries a rollback too, `confirmed` are moments after the word."""
    impatient(stage)
    site, old = stage.site, stage.site.serving()
    before = Managed(stage.machine, MANAGED)
    release = changed(stage, point)
    at = STEPS.index(point.partition(":")[2])
    booted: list[str] = []
    watch, load = Watch(site, [CANARY]), stage.load(LIGHT)
    if fault == "power cut":
        done = faults.hit(site, lambda **more: stage.start(release, **more), FAULTS[fault], point, disk=disk)
        booted = invariants.serves_within(site, 30)
    else:
        with watch, load:
            done = faults.hit(
                site,
                lambda **more: stage.start(release, **more),
                FAULTS[fault],
                point,
                # A switch goes on without its deployer, so that only force ends one that hangs.
                force=(lambda: stage.fab("unlock", "--force").ended()) if at >= STEPS.index("migrate") else None,
            )
    report = None if fault == "power cut" else load.report()
    wrong = [*booted, *done.busy]
    wrong += [] if report is None else [*watch.violations(), *report.failures, *report.mixed(stage.shop.mixed)]
    code = done.outcome.code
    wrong += invariants.exit_code(site, code, f"{done.outcome.error}\n{done.outcome.output}", old=old, sha=release.sha)
    wrong += invariants.files(site) + invariants.migrations(site)
    if fault in {"kill -9", "link down"} and (site.serving() == old) is (point in confirmed):
        wrong.append(f"I2: {site.serving()} serves after {fault} {point}; before, it was {old}")
    # The same commit again: what was begun is taken up or cleared away, without a word from anybody.
    wrong += invariants.next_deploy(site, lambda: stage.deploy(release), release.sha)
    wrong += before.torn(Managed(stage.machine, MANAGED))
    wrong += invariants.settled(site, within=20) + invariants.releases(site, 4)
    wrong += invariants.secrets(site, CANARY, [*stage.said, done.said])
    if back and "migrate" not in point:
        outcome = stage.rollback()
        wrong += invariants.rolled_back(site, outcome, to=old)
    print(
        f"{stage.manager}, {fault} {point}: fab {code} after {done.outcome.seconds:.0f} s, quiet {done.quiet:.0f} s later, {'; '.join(done.proof)}"
    )
    last = f"{done.outcome.error.strip()[-1500:]}\n{done.outcome.output.strip()[-1500:]}"
    return [*wrong, f"fab had ended with {code}: {last}"] if wrong else []


@pytest.mark.parametrize(("manager", "fault", "point"), ALWAYS)
def test_a_fault_leaves_a_whole_release(stages: Callable[[str], Stage], manager: str, fault: str, point: str) -> None:
    """The part of the matrix that every run does."""
    invariants.held(one_cell(stages(manager), fault, point, back=point == POINTS[11]))


@pytest.mark.nightly
@pytest.mark.parametrize(("manager", "fault", "point"), [cell for cell in CELLS if cell not in ALWAYS] + OTHERS)
def test_every_fault_at_every_moment(stages: Callable[[str], Stage], manager: str, fault: str, point: str) -> None:
    """The rest of the matrix, and every other fault where most is at stake."""
    invariants.held(one_cell(stages(manager), fault, point))


# --- the power ---------------------------------------------------------------


@pytest.fixture(params=MANAGERS)
def on_disk(request: pytest.FixtureRequest, stage_on_disk: Callable[[str], tuple[Stage, Disk]]) -> tuple[Stage, Disk]:
    """A shop on a disk that can lose its power."""
    return stage_on_disk(request.param)


@pytest.mark.nightly
@pytest.mark.parametrize("point", ["during:install", "during:migrate", "after:arm", "after:switch", "during:drain", "during:prune"])  # fmt: skip
def test_a_power_cut(on_disk: tuple[Stage, Disk], point: str) -> None:
    """All that was never written through is lost; after the boot a whole release serves, and the next deploy works."""
    stage, disk = on_disk
    invariants.held(one_cell(stage, "power cut", point, disk=disk))


# --- many deployers ----------------------------------------------------------


def rounds(stage: Stage, deployers: int, times: int) -> Iterator[str]:
    """Deploy different commits at once, again and again; what is wrong with how it went."""
    site = stage.site
    with Watch(site, [CANARY], pause=0.02) as watch, stage.load(LIGHT) as load:
        for turn in range(times):
            commits = [stage.shop.next() for _ in range(deployers)]
            running = [stage.start(release) for release in commits]
            ended = [each.wait(300) for each in running]
            codes = [each.code for each in ended]
            served = [release for release, code in zip(commits, codes, strict=True) if code == 0]
            yield from (f"round {turn}: exit {each.code}: {each.error}" for each in ended if each.code not in {0, 1})
            yield from (f"round {turn}: {each.error}" for each in ended if "Traceback" in each.error)
            if not served:
                yield f"round {turn}: nobody won: {codes} {ended[0].error}"
            elif site.serving()[-12:] not in {release.sha[:12] for release in served}:
                yield f"round {turn}: {site.serving()} serves, and {codes} were the codes"
    yield from watch.violations()
    yield from load.report().failures
    yield from load.report().mixed(stage.shop.mixed)
    release = stage.shop.next()
    yield from invariants.next_deploy(site, lambda: stage.deploy(release), release.sha)
    yield from invariants.settled(site, within=20)


def test_several_deployers_at_once(stages: Callable[[str], Stage]) -> None:
    """Two rounds of four: never two writers, never a lock that stays."""
    invariants.held(rounds(stages(MANAGERS[0]), 4, 2))


@pytest.mark.nightly
@pytest.mark.parametrize("manager", MANAGERS)
def test_eight_deployers_at_once(stages: Callable[[str], Stage], manager: str) -> None:
    """Twenty-five rounds of eight."""
    invariants.held(rounds(stages(manager), 8, 25))


def test_the_moments_are_those_of_a_real_deploy(stages: Callable[[str], Stage]) -> None:
    """Every step that a pause names is in the dry run of a deploy that has it all to do: nothing is paused in vain."""
    stage = stages(MANAGERS[1])
    release = stage.shop.next(dep=True, migration=True, setting=True)
    stage.shop.hand_over(stage.workplace, release)
    began = time.monotonic()
    shown = stage.workplace.fab("--dry", *stage.words("deploy", f"--commit={release.sha}")).ended().output
    names = {line.removeprefix("# ").partition(":")[0] for line in shown.splitlines() if line.startswith("# ")}
    assert {point.partition(":")[2] for point in POINTS} - names == set(), f"after {time.monotonic() - began:.0f} s"
