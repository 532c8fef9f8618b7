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
