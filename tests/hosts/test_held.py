"""Without nginx: the process manager holds the socket that the site listens on, with two slots behind it or with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.hosts import invariants
from tests.hosts.invariants import Watch
from tests.hosts.load import Profile
from tests.hosts.shop import CANARY, DOMAIN, ROOT, Shop, Stage, furnish
from tests.hosts.test_faults import one_cell
from tests.hosts.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.hosts.load import Load
    from tests.hosts.workplace import Daemon

PORT = 8000
MANAGERS = ("supervisor", "systemd")
#: Whoever keeps a connection open is told to close it by a server that stops, and may be too late: no nginx is there to hide it.
FRESH = Profile({"fresh": (3, 0.04, 0.04), "slow": (1, 0.1, 2.0)}, wrk=0, slow_seconds=2.0)


class HeldStage(Stage):
    """The shop on a port of its own."""

    slots = "2"

    def configure(self, **more: object) -> None:
        """Leave nginx out."""
        bind = {"bind": f"0.0.0.0:{PORT}", "workers": "2", "threads": 16, "graceful_timeout": 20}
        super().configure(**{"nginx": {}, "gunicorn": bind, "slots": self.slots, **more})

    def install(self) -> None:
        """Deploy for the first time."""
        furnish(self.machine)
        release = self.shop.next()
        self.deploy(release).ended()
        assert self.site.serving().endswith(release.sha[:12])

    def load(self, profile: Profile) -> Load:  # noqa: ARG002 - there is but one kind of visitor
        """Visitors without kept connections."""
        return super().load(FRESH)


@pytest.fixture(scope="module")
def held(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], HeldStage]]:
    """For each process manager a host where the shop serves on its port."""
    made: dict[str, HeldStage] = {}

    def stage_of(manager: str, slots: str) -> HeldStage:
        if manager not in made:
            machine = machines.up(1, "bookworm", "prepared", f"h{manager[:4]}")[0]
            workplace = Workplace(tmp_path_factory.mktemp(manager) / "work")
            stage = HeldStage(machine, workplace, Shop(daemon.repository(f"held-{manager}")), manager)
            stage.site = invariants.Site(
                machine, ROOT, DOMAIN, stage.shop.repository.bare, port=PORT, links=("current",)
            )
            made[manager] = stage
            stage.install()
        made[manager].slots = slots
        made[manager].whole()
        return made[manager]

    yield stage_of
    machines.down([stage.machine for stage in made.values()])


def deployed(stage: HeldStage) -> list[str]:
    """Two deploys and a rollback while visitors ask; what is wrong with it."""
    wrong, served = [], [stage.site.serving()]
    with Watch(stage.site, [CANARY]) as watch, stage.load(FRESH) as load:
        for act in "ddr":
            if act == "d":
                release = stage.shop.next(dep=True, setting=True)
                outcome = stage.deploy(release)
                served.append(stage.site.serving())
                wrong += invariants.exit_code(stage.site, outcome.code, outcome.output, old="", sha=release.sha)
            else:
                outcome = stage.rollback()
                wrong += invariants.rolled_back(stage.site, outcome, to=served[-2])
            wrong += [] if outcome.code == 0 else [f"{act}: exit {outcome.code}\n{outcome.output}\n{outcome.error}"]
    report = load.report()
    print(f"{stage.manager}, slots {stage.slots}: {report}")
    wrong += [*report.failures, *report.mixed(stage.shop.mixed), *watch.violations()]
    return [*wrong, *invariants.settled(stage.site), *invariants.releases(stage.site, 4)]


@pytest.mark.parametrize(
    ("manager", "slots"),
    [
        ("systemd", "1"),
        *(
            pytest.param(*each, marks=pytest.mark.nightly)
            for each in (("supervisor", "1"), ("systemd", "2"), ("supervisor", "2"))
        ),
    ],
)
def test_nothing_is_refused(held: Callable[[str, str], HeldStage], manager: str, slots: str) -> None:
    """Whoever asks while the site changes hands waits in the socket, and is answered."""
    invariants.held(deployed(held(manager, slots)))


#: The moments that only a held socket has, and with one slot those in which nothing runs.
CELLS = [
    (manager, slots, fault, point)
    for manager in MANAGERS
    for slots, points in (
        ("2", ("during:open", "after:open")),
        ("1", ("after:arm", "during:stop-old", "during:start", "during:health", "after:switch")),
    )
    for point in points
    for fault in ("kill -9", "link down", "step fails")
    if fault != "step fails" or point.startswith("during")
]


@pytest.mark.nightly
@pytest.mark.parametrize(("manager", "slots", "fault", "point"), CELLS)
def test_every_fault(held: Callable[[str, str], HeldStage], manager: str, slots: str, fault: str, point: str) -> None:
    """The old release comes back, and whoever asks meanwhile is answered late, not refused."""
    invariants.held(one_cell(held(manager, slots), fault, point, confirmed=()))
