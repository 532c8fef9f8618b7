"""A virtualenv that one host builds and another gets: two servers, of which the second reaches no index."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fabric import Connection

from fabdjango import building, recipes
from fabdjango.commands.wheels import Wheels
from fabdjango.configuration import Layer, resolve
from fabdjango.escape import Redactor
from fabdjango.exceptions import StepFailedError
from fabdjango.layout import layout_of
from fabdjango.recipes import Deployment, Site
from fabdjango.render import Templates
from fabdjango.report import Report
from fabdjango.runner import Runner
from fabdjango.surveying import begun
from fabdjango.transport import Account, FabricTransport
from tests.local.fleet import FleetStage
from tests.local.sample import BACKEND, DJANGO, make_project, make_wheel
from tests.local.stage import Stage, Tools

Staged = Callable[..., Stage]

NOWHERE = "http://127.0.0.1:1/simple/"
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "oldstone"
version = "0.9"
"""


def make_sdist(folder: Path) -> None:
    """A package that has to be built, by a backend that it brings with it."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND,
        "PKG-INFO": "Metadata-Version: 2.1\nName: oldstone\nVersion: 0.9\n",
    }
    with tarfile.open(folder / "oldstone-0.9.tar.gz", "w:gz") as tar:
        for name, text in parts.items():
            info = tarfile.TarInfo(f"oldstone-0.9/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


class Operator:
    """Whoever deploys to one host of several: a runner, and what it finds there."""

    def __init__(self, stage: Stage, shared: Stage, host: str) -> None:
        server = stage.server
        given = {**shared.settings, "root": f"~/{stage.root.name}"}
        given["ssh"] = {"known_hosts": str(server.known_hosts_path)}
        settings = resolve([Layer("fabric.yaml", given)]).settings
        keys = {"key_filename": str(server.client_key_path), "look_for_keys": False, "allow_agent": False}
        connection = Connection(server.address, user=server.user, port=server.port, connect_kwargs=keys)
        site = Site(settings, layout_of(settings), Templates(stage.operator), host, token=f"T{server.port}")
        self.report = Report(host, Redactor(), form="plain")
        transport = FabricTransport(connection, settings.ssh)
        self.runner = Runner(site, transport, Account(server.user, server.user), self.report)
        self.stage = stage

    def plan(self) -> Deployment:
        """What is decided once the host has been looked at; its lock is kept."""
        return recipes.deployment(self.runner.site, begun(self.runner, "main"), "main")

    def packages(self) -> str:
        """Name and version of all that is installed."""
        (venv,) = (self.stage.root / "venvs").iterdir()
        program = "import importlib.metadata as m; print(sorted((d.metadata['Name'], d.version) for d in m.distributions() if d.metadata['Name'] not in ('pip', 'setuptools')))"
        return subprocess.run([venv / "bin/python", "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def first(staged: Staged) -> Stage:
    """The host that builds, and the settings of all: a site with a package that has to be built."""
    stage = staged()
    make_sdist(stage.base / "shelf")
    stage.repository.commit(make_project(requirements=f"{DJANGO}\noldstone\n"))
    stage.configure(venv={"find_links": [str(stage.base / "shelf")], "build": "once"})
    return stage


def without_index(cache: Path) -> dict[str, str]:
    """The environment of a host that reaches no index, and has nothing in its cache."""
    environ = {"PIP_INDEX_URL": NOWHERE, "UV_DEFAULT_INDEX": NOWHERE, "PIP_EXTRA_INDEX_URL": "", "UV_INDEX": ""}
    return {**environ, "UV_CACHE_DIR": str(cache)}


@pytest.fixture
def second(staged: Staged, tmp_path: Path) -> Stage:
    """A host that has no index, and a root of another name, with a space in it."""
    return staged(root="the other", environ=without_index(tmp_path))


def test_one_builds_for_the_other(first: Stage, second: Stage) -> None:
    """The other host, which has another installer, gets the same packages without asking anybody, and Django starts there."""
    builder = Operator(first, first, "web1")
    first.configure(venv={"installer": "pip"})
    receiver = Operator(second, first, "web2")
    plans = [receiver.plan(), builder.plan()]
    (group,) = building.groups(plans)
    assert (group.builder, group.receivers) == (plans[1], (plans[0],))
    assert group.line == f"virtualenv {plans[0].key}: web1 builds it for web2"

    builder.runner.run(recipes.prepare(group.builder))
    wheels = building.fetch(builder.runner, group.builder)
    assert wheels
    assert "oldstone==0.9" in wheels.packages
    # What nobody can reach any more.
    (first.base / "shelf").rename(first.base / "gone")
    result = receiver.runner.run(recipes.prepare(group.receivers[0], wheels=wheels))

    check = result.step("check")
    assert check
    assert json.loads(check.output)["notes"] is not None
    assert receiver.packages() == builder.packages()
    venv = second.root / "venvs" / plans[0].key
    assert (venv / ".complete").exists()
    assert not (venv / ".wheels").exists()
    builder.runner.transport.release()
    receiver.runner.transport.release()


def test_wheels_that_changed(first: Stage, second: Stage, tools: Tools) -> None:
    """One byte is another: refused before it is unpacked, and nothing is left; the next attempt is a good one."""
    first.configure(venv={"packages": ["alpha", "gunicorn"]})
    make_wheel(first.base / "shelf", "alpha", "1.0")
    builder, receiver = Operator(first, first, "web1"), Operator(second, first, "web2")
    built, plan = builder.plan(), receiver.plan()
    builder.runner.run(recipes.prepare(built))
    wheels = building.fetch(builder.runner, built)
    assert wheels
    half = len(wheels.archive) // 2
    flipped = bytes([*wheels.archive[:half], wheels.archive[half] ^ 1, *wheels.archive[half + 1 :]])

    for archive in (flipped, wheels.archive[:half]):
        with pytest.raises(StepFailedError) as caught:
            receiver.runner.run(recipes.prepare(plan, wheels=replace(wheels, archive=archive)))
        assert "the wheels have changed on their way, or did not arrive whole" in caught.value.render()
        assert list((second.root / "venvs").iterdir()) == []
        assert list((second.root / "releases").iterdir()) == []
    receiver.runner.run(recipes.prepare(plan, wheels=wheels))
    assert receiver.packages() == builder.packages()

    # The builder has it, so that it could give it again; but not with what was tried there by hand.
    again = replace(built, facts=replace(built.facts, venvs=(built.key,)))
    (group,) = building.groups([again, plan])
    assert group.is_built
    python = first.root / "venvs" / built.key / "bin/python"
    shelf = make_wheel(first.base / "tried", "tried", "1.0")
    subprocess.run([tools.programs / "uv", "pip", "install", "--quiet", "--python", python, shelf], check=True)
    found: Wheels | None = building.fetch(builder.runner, again)
    assert found is None
    builder.runner.transport.release()
    receiver.runner.transport.release()


def test_a_fleet(tools: Tools, tmp_path: Path) -> None:
    """One deploy of two hosts, of which only the primary reaches an index; the next one builds nothing."""
    fleet = FleetStage(tools, 2, others=without_index(tmp_path))
    try:
        fleet.repository.commit(make_project())
        fleet.first.configure(venv={"build": "once"})
        dry = fleet.fab("--dry", "deploy")
        assert "# reads 3 bytes" in dry.out
        run = fleet.fab("deploy")
        (key,) = [path.name for path in (fleet.first.root / "venvs").iterdir()]
        primary, other = fleet.names
        assert f"virtualenv {key}: {primary} builds it for {other}\n" in run.out
        assert fleet.hosts[1].packages == fleet.first.packages
        assert fleet.hosts[1].get().page["prefix"] == str(fleet.hosts[1].venv)
        fleet.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
        assert "builds it for" not in fleet.fab("deploy").out
        assert [each.get().page["edition"] for each in fleet.hosts] == ["2", "2"]
    finally:
        fleet.close()
