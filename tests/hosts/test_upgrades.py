"""Another Python and another gunicorn come by the same way as another commit: beside the one that serves, and no request is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.hosts import invariants
from tests.hosts.invariants import Watch
from tests.hosts.load import LIGHT
from tests.hosts.shop import CANARY, Shop, Stage
from tests.hosts.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts.workplace import Daemon

pytestmark = pytest.mark.nightly

OLDER = "/opt/older/usr/bin/python3.11"
#: Debian 12's Python, unpacked beside that of Debian 13.
FETCH = """\
[ ! -e /opt/older ] || exit 0
cp -r /etc/apt /tmp/apt && sed -i s/trixie/bookworm/g $(grep -rl trixie /tmp/apt/sources.list*) && cd /tmp
cat > apt.conf <<'.'
Dir::Etc "/tmp/apt";
Dir::State::lists "/tmp/lists";
.
export APT_CONFIG=/tmp/apt.conf
mkdir -p lists/partial debs && apt-get update -q && cd debs
apt-get download -q python3.11 python3.11-minimal libpython3.11-stdlib libpython3.11-minimal python3.11-venv
mkdir /opt/older && for each in *.deb; do dpkg -x $each /opt/older; done
"""


@pytest.fixture(params=["supervisor", "systemd"])
def stage(request: pytest.FixtureRequest, daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The shop on a Debian 13 host that has the Python of Debian 12 too."""
    manager = request.param
    (machine,) = machines.up(1, "trixie", "prepared", f"u{manager[:4]}")
    machine.run(FETCH, timeout=300)
    workplace = Workplace(tmp_path_factory.mktemp(manager) / "work")
    stage = Stage(machine, workplace, Shop(daemon.repository(f"upgrades-{manager}")), manager)
    stage.install()
    yield stage
    machines.down([machine])


def test_other_versions(stage: Stage) -> None:
    """An older gunicorn, the newest, an older Python and the way back, each proven by what runs the workers."""
    seen = {stage.site.serving(): runs(stage)}
    wrong: list[str] = []
    with Watch(stage.site, [CANARY]) as watch, stage.load(LIGHT) as load:
        for settings in (
            {"venv": {"packages": ["gunicorn==22.0.0"]}},
            {"venv": {"packages": ["gunicorn"]}},
            {"venv": {"packages": ["gunicorn"]}, "python": OLDER},
        ):
            stage.configure(**settings)
            release = stage.shop.next()
            outcome = stage.deploy(release)
            wrong += (
                [] if outcome.code == 0 else [f"{settings}: exit {outcome.code}\n{outcome.output}\n{outcome.error}"]
            )
            wrong += invariants.exit_code(stage.site, outcome.code, outcome.output, old="", sha=release.sha)
            seen[stage.site.serving()] = runs(stage)
        before = list(seen)[-2]
        wrong += invariants.rolled_back(stage.site, stage.rollback(), to=before)
        wrong += [] if runs(stage) == seen[before] else [f"after the rollback it is {runs(stage)}, not {seen[before]}"]
    report = load.report()
    print(f"{stage.manager}: {report}, {list(seen.values())}")
    wrong += [*report.failures, *report.mixed(stage.shop.mixed), *watch.violations(), *invariants.settled(stage.site)]
    invariants.held(wrong)
    newest = next(iter(seen.values()))[0]
    assert newest != "22.0.0"
    assert list(seen.values()) == [(newest, "3.13"), ("22.0.0", "3.13"), (newest, "3.13"), (newest, "3.11")]


def runs(stage: Stage) -> tuple[str, str]:
    """The versions of gunicorn and of Python that the processes of the site run with, as their own folders say."""
    master = "pgrep -o -f 'python -m gunicorn.*releases/'$(basename \"$(readlink /srv/shop/current)\")"
    said = stage.machine.run(
        f"pid=$({master}); v=$(readlink /proc/$pid/exe); echo ${{v##*python}}\n"
        "cd $(tr '\\0' '\\n' < /proc/$pid/environ | sed -n 's/^VIRTUAL_ENV=//p'); echo lib/python*/site-packages/gunicorn-*.dist-info"
    ).stdout.split()
    return said[1].rpartition("/gunicorn-")[2].removesuffix(".dist-info"), said[0]
