"""A fleet of many hosts costs the operator what each host costs, and no more: counted, with the figures for the eye."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hosts import light

if TYPE_CHECKING:
    from tests.hosts.workplace import Workplace
    from tests.machines import Machine


@pytest.mark.parametrize("hosts", [25, pytest.param(100, marks=pytest.mark.nightly)])
def test_many_hosts(bookworm: Machine, workplace: Workplace, hosts: int) -> None:
    """One login and four sessions a host, and all serve one id."""
    light.furnish(bookworm, hosts)
    print(light.deploy(workplace, bookworm, 1))
    cursor = bookworm.cursor()

    found = light.deploy(workplace, bookworm, hosts)

    print(found)
    assert found.code == 0, found.said
    assert found.said.splitlines()[-1] == f"deployed: 8-888888888888 serves on {hosts} hosts"
    assert bookworm.sessions_since(cursor) == (hosts, 4 * hosts)


@pytest.mark.nightly
def test_hosts_are_deployed_side_by_side(bookworm: Machine, workplace: Workplace) -> None:
    """
    Ten hosts, each of which needs a second for each script without using a processor, take at most twice as long as one.

    It says so by the clock, so it is for a machine that does nothing else.
    """
    light.furnish(bookworm, 10, seconds=1)

    pairs = [(light.deploy(workplace, bookworm, 1), light.deploy(workplace, bookworm, 10)) for _ in range(3)]

    print(*(line for pair in pairs for line in pair), sep="\n")
    assert [found.code for pair in pairs for found in pair] == [0] * 6
    assert sorted(ten.seconds / one.seconds for one, ten in pairs)[1] <= 2
