"""Who builds a virtualenv, and who gets it."""

from __future__ import annotations

from typing import Any

from fabdjango import building, recipes
from fabdjango.commands import venv
from fabdjango.commands.wheels import ANY, Wheels
from fabdjango.recipes import Deployment, Site
from tests.conftest import KEY, LAYOUT, PYTHON, SHA, sample_facts, sample_settings, sample_templates


def plan(host: str, *, build: str = "once", has: bool = False, **facts: Any) -> Deployment:
    """What was decided for one host."""
    settings = sample_settings(venv={"build": build, "packages": ["it's"]}, hooks={"after_install": ["echo done"]})
    found = sample_facts(**{"os": "debian 12", **facts})
    key = venv.key_of(settings, found, SHA)
    found = sample_facts(**{"os": "debian 12", **facts, "venvs": (KEY, key) if has else (KEY,)})
    site = Site(settings, LAYOUT, sample_templates(), host, f"ada@{host}")
    return recipes.deployment(site, found, "main")


def grouped(*plans: Deployment, primary: str = "") -> list[tuple[str, list[str]]]:
    """The groups by the names of their hosts."""
    return [
        (group.builder.site.host, [each.site.host for each in group.receivers])
        for group in building.groups(plans, primary)
    ]


def test_one_builds() -> None:
    """The first by name, or the primary; the others receive, in the order of their names."""
    plans = [plan("web3"), plan("web1"), plan("web2")]
    assert grouped(*plans) == [("web1", ["web2", "web3"])]
    assert grouped(*plans, primary="web2") == [("web2", ["web1", "web3"])]
    assert grouped(*plans, primary="elsewhere") == [("web1", ["web2", "web3"])]


def test_one_that_has_it_builds_for_nobody_but_gives() -> None:
    """A host with the virtualenv from before gives it, even if it is not the primary; whoever has it receives nothing."""
    plans = [plan("web1"), plan("web2", has=True), plan("web3", has=True)]
    assert grouped(*plans, primary="web1") == [("web2", ["web1"])]
    (group,) = building.groups(plans)
    assert group.is_built
    assert group.line == f"virtualenv {plans[0].key}: web2 has it for web1"
    assert grouped(plan("web1", has=True), plan("web2", has=True)) == []


def test_alone() -> None:
    """Nobody builds for others: a single host, one of another Python, platform or system, one with build: each."""
    assert grouped(plan("web1")) == []
    assert grouped() == []
    assert grouped(plan("web1"), plan("web2", python={**PYTHON, "version": "3.12.1", "tag": "cpython-312"})) == []
    assert grouped(plan("web1"), plan("web2", python={**PYTHON, "platform": "linux-aarch64"})) == []
    assert grouped(plan("web1"), plan("web2", python={**PYTHON, "path": "/opt/it's/python"})) == []
    assert grouped(plan("web1"), plan("web2", os="debian 13")) == []
    assert grouped(plan("web1", build="each"), plan("web2")) == []


def test_several_kinds() -> None:
    """Each has its own builder."""
    arm = {**PYTHON, "platform": "linux-aarch64"}
    plans = [plan("web1"), plan("web2"), plan("arm1", python=arm), plan("arm2", python=arm)]
    assert sorted(grouped(*plans, primary="arm2")) == [("arm2", ["arm1"]), ("web1", ["web2"])]
    (group,) = building.groups([plans[1], plans[0]])
    assert group.line == f"virtualenv {plans[0].key}: web1 builds it for web2"


def test_the_key_is_the_same() -> None:
    """Who builds it says nothing about what is in it."""
    assert plan("web1", build="each").key == plan("web1").key


def names(plan: Deployment, wheels: Wheels | None) -> list[str]:
    """The steps from the release's files to its check."""
    found = [step.name for step in recipes.prepare(plan, wheels=wheels).steps]
    return found[found.index("link-settings") + 1 : found.index("check")]


def test_the_order_of_steps() -> None:
    """The wheels come between the empty virtualenv and their installation; no uv is fetched from an index for them."""
    assert names(plan("web1"), None) == ["venv", "install", "after_install"]
    assert names(plan("web1"), ANY) == ["venv", "wheels", "install", "after_install"]
    bare = plan("web1", programs={"git": "/usr/bin/git", "supervisorctl": "/usr/bin/supervisorctl"})
    assert names(bare, None) == ["uv", "venv", "install", "after_install"]
    assert names(bare, ANY) == ["venv", "wheels", "install", "after_install"]
