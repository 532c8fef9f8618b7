"""Hosts by their names in the inventory, with stock fab against a real server: how they are reached, and by which stage."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tests.local.conftest import Staged
from tests.local.sample import make_project
from tests.local.stage import PATIENCE, Stage

NOBODY = "deploy-nobody"


def listed(stage: Stage, **more: Any) -> dict[str, Any]:
    """How the server is reached, as an entry of ``hosts:``."""
    server = stage.server
    reached = {"address": server.address, "port": server.port, "user": server.user, "key": [_beside(stage)]}
    return {"ssh": {**reached, **more}}


def _beside(stage: Stage) -> str:
    """The key, in a file beside the fabfile."""
    name = "it's a key"
    stage.write(name, stage.server.client_key_path.read_text(encoding="utf-8")).chmod(0o600)
    return name


def fab(stage: Stage, *words: str, code: int = 0) -> str:
    """Run fab without -i, so that only the inventory knows the key; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "fabric", *words],
        cwd=stage.operator,
        env=stage.environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def test_a_host_of_the_inventory(staged: Staged) -> None:
    """Named by -H or by its stage it is one and the same host, and a deploy calls it by its name."""
    stage = staged()
    stage.repository.commit(make_project())
    hosts = {"web1": {**listed(stage), "roles": ["web", "primary"]}}
    stage.configure(stages={"staging": {"hosts": hosts}, "live": {"hosts": {"web9": {"ssh": {"user": NOBODY}}}}})
    text = fab(stage, "staging", "deploy")
    assert text.splitlines()[-1] == f"deployed: {stage.current} serves on web1", text
    assert stage.get().status == 200
    assert f"{stage.current} " in fab(stage, "-H", "web1", "staging", "releases")
    stage.server.sessions.clear()
    refused = fab(stage, "-H", "web1", "deploy", code=1)
    assert refused == (
        "Error: web1 is in the stage staging, and none is chosen\n"
        " state: no host was contacted (exit 1)\n"
        " do this: choose it: fab -H web1 staging …\n"
    )
    assert len(stage.server.sessions) == 0
    wrong = fab(stage, "-H", f"{NOBODY}@web1", "staging", "status", code=1)
    assert f"{stage.server.address} does not let {NOBODY} in" in wrong, wrong
    assert " host: web1\n" in wrong


def test_an_ansible_inventory_and_a_jump(staged: Staged) -> None:
    """One line of configuration; the way leads through the server itself, twice."""
    stage = staged()
    server = stage.server
    hop = f"{server.user}@{server.address}:{server.port}"
    stage.write(
        "deploy/hosts.ini",
        f"[web]\nweb1 ansible_host={server.address} ansible_port={server.port} ansible_user={server.user} "
        f'ansible_ssh_private_key_file="{_beside(stage)}" ansible_ssh_common_args="-J {hop},{hop}"\n',
    )
    stage.configure(inventory="deploy/hosts.ini")
    text = fab(stage, "releases")
    assert text.startswith("[web1] survey     ok         the host has what a deployment needs"), text
