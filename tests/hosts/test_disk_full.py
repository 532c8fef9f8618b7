"""A disk without a free block or inode: nothing that serves is hurt, the report says why, and with room the next deploy works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hosts import faults, invariants
from tests.hosts.faults import FAULTS
from tests.hosts.invariants import Managed, Watch
from tests.hosts.load import LIGHT
from tests.hosts.shop import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hosts.faults import Disk
    from tests.hosts.shop import Stage

#: Where the disk fills up, and how a deploy may end then: nothing changed, or, once it serves, a warning at most.
CASES = [
    (fault, point, codes)
    for point, codes in (
        ("during:export", {1}),
        ("during:install", {1}),
        ("before:settings", {1}),
        ("during:journal", {0, 3}),
    )
    for fault in ("disk full", "inodes full")
]
#: The others are nightly.
ALWAYS = (CASES[0],)


def full(stage: Stage, disk: Disk, fault: str, point: str, codes: set[int]) -> list[str]:
    """Fill the disk at one moment of a deploy; what is wrong afterwards."""
    site, old = stage.site, stage.site.serving()
    served = stage.shop.releases[old[-12:]]
    before = Managed(stage.machine, ("/srv/shop/shared/.env", "/srv/shop/releases/*/.fabdjango/*", "/etc/*/conf.d/shop.conf", "/etc/systemd/system/shop*"))  # fmt: skip
    release = stage.shop.next(dep=True, setting=True)
    with Watch(site, [CANARY]) as watch, stage.load(LIGHT) as load:
        done = faults.hit(site, lambda **more: stage.start(release, **more), FAULTS[fault], point, disk=disk)
    wrong = [*done.busy, *watch.violations(), *load.report().failures, *load.report().mixed(stage.shop.mixed)]
    code, said = done.outcome.code, f"{done.outcome.error}\n{done.outcome.output}"
    print(f"{stage.manager}, {fault} {point}: fab {code}, {'; '.join(done.proof)}")
    if code not in codes:
        wrong.append(f"I7: exit {code}, not one of {codes}")
    if code and "No space left on device" not in said and "disk is" not in said:
        wrong.append("the report does not say that the disk is full")
    wrong += invariants.exit_code(site, code, said, old=old, sha=release.sha)
    wrong += invariants.files(site) + invariants.migrations(site)
    # What served keeps its settings, whatever was begun beside it.
    if code:
        folder = f"/srv/shop/releases/{old}/"
        wrong += [
            each for each in before.torn(Managed(stage.machine, before.paths)) if folder in each or "/etc/" in each
        ]
        if old[-12:] != served.sha[:12] or stage.shop.mixed(site.line()):
            wrong.append(f"I1: {site.line()}")
    wrong += invariants.next_deploy(site, lambda: stage.deploy(release), release.sha)
    wrong += invariants.settled(site, within=20) + invariants.secrets(site, CANARY, [*stage.said, said])
    return [*wrong, said[-3000:]] if wrong else []


@pytest.mark.parametrize(("fault", "point", "codes"), ALWAYS)
def test_a_full_disk(
    stage_on_disk: Callable[[str], tuple[Stage, Disk]], fault: str, point: str, codes: set[int]
) -> None:
    """Full of data while files are exported, full of files while the journal is written."""
    invariants.held(full(*stage_on_disk("supervisor"), fault, point, codes))


@pytest.mark.nightly
@pytest.mark.parametrize("manager", ["supervisor", "systemd"])
@pytest.mark.parametrize(("fault", "point", "codes"), CASES)
def test_a_full_disk_at_every_moment(
    stage_on_disk: Callable[[str], tuple[Stage, Disk]], manager: str, fault: str, point: str, codes: set[int]
) -> None:
    """Every case, on both process managers."""
    invariants.held(full(*stage_on_disk(manager), fault, point, codes))
