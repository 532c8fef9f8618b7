"""Jump hosts are held to known_hosts as the host itself is."""

from __future__ import annotations

from pathlib import Path

import pytest
from fabric import Connection

from fabdjango.exceptions import ConnectError
from fabdjango.login import connect
from fabdjango.settings import Ssh
from fabdjango.testing import EmbeddedServer


def through_two(server: EmbeddedServer) -> Connection:
    """A connection to the server through itself and again through itself."""
    keys = {"key_filename": str(server.client_key_path), "look_for_keys": False, "allow_agent": False}
    made: Connection | None = None
    for _ in range(3):
        made = Connection(server.address, user=server.user, port=server.port, connect_kwargs=keys, gateway=made)
    return made


def test_a_chain_of_jump_hosts(tmp_path: Path) -> None:
    """Known, it carries a command; unknown, nothing is sent to the first of them."""
    nothing_known = tmp_path / "it's empty"
    nothing_known.touch()
    with EmbeddedServer(tmp_path / "home") as server:
        connection = through_two(server)
        connect(connection, Ssh(known_hosts=str(server.known_hosts_path)))
        assert connection.run("echo arrived", hide=True, in_stream=False).stdout == "arrived\n"
        connection.close()
        before = len(server.sessions)
        with pytest.raises(ConnectError, match="is not known"):
            connect(through_two(server), Ssh(known_hosts=str(nothing_known)))
        assert len(server.sessions) == before
