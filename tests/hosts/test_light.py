"""A fleet of many hosts costs the operator what each host costs, and no more: counted, with the figures for the eye."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.hosts import light

if TYPE_CHECKING:
    from tests.hosts.workplace import Workplace
    from tests.machines import Machine

HOSTS = 100


def test_a_hundred_hosts(bookworm: Machine, workplace: Workplace) -> None:
    """One login and four sessions a host, and all serve one id."""
    light.furnish(bookworm, HOSTS)
    print(light.deploy(workplace, bookworm, 1))
    cursor = bookworm.cursor()

    found = light.deploy(workplace, bookworm, HOSTS)

    print(found)
    assert found.code == 0, found.said
    assert found.said.splitlines()[-1] == f"deployed: 8-888888888888 serves on {HOSTS} hosts"
    assert bookworm.sessions_since(cursor) == (HOSTS, 4 * HOSTS)
