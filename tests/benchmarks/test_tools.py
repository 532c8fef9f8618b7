"""What the tools of the benchmark are started with, and the files that the peers find in their folder."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.site import Host, Site
from benchmarks.tools import GROUPS, NAMES, named
from benchmarks.tools.furnishing import program
from tests.machines import Machine

COMMIT = "c0ffee" * 6 + "beef"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Two hosts behind relays, and an operator's folder with a space in its name."""
    workplace = tmp_path / "the operator"
    ssh = workplace / ".ssh"
    ssh.mkdir(parents=True)
    machine = Machine("web1", "198.18.1.1", "bookworm", "prepared", "")
    hosts = (Host("web1", "127.0.0.1", 40001, machine), Host("web2", "127.0.0.1", 40002, machine))
    environ = {"HOME": str(workplace), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    url = "git://198.18.0.1:9418/shop.git"
    return Site(workplace, hosts, ssh / "config", ssh / "key", ssh / "known_hosts", environ, url)


def said(site: Site, *words: str | Path) -> str:
    """What a program says in the operator's folder, as a tool is run there; it has to end well."""
    done = subprocess.run(
        list(map(str, words)), cwd=site.workplace, env=site.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_module_has_the_tool_of_its_name(name: str) -> None:
    """Results are kept under this name."""
    assert named(name).name == name


def test_what_a_peer_is_started_with(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its users start it: the commit of a deploy on the command line, and nothing asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    deploys = {name: named(name).deploy(site, COMMIT) for name in GROUPS["peers"]}
    assert deploys == {
        "capistrano": ["cap", "production", "deploy", f"COMMIT={COMMIT}"],
        "pyinfra": [
            *("/cache/fabdjango/benchmark/pyinfra/bin/pyinfra", "--yes"),
            *("--data", f"commit={COMMIT}", "inventory.py", "deploy.py"),
        ],
        "ansible": [
            *(str(program("ansible-playbook")), "--forks", "5"),
            *("--extra-vars", f"commit={COMMIT}", "deploy.yml"),
        ],
        "fabric": [str(program("fab")), "deploy", f"--commit={COMMIT}"],
    }
    assert {name: named(name).rollback(site)[1:] for name in GROUPS["peers"]} == {
        "capistrano": ["production", "deploy:rollback"],
        "pyinfra": ["--yes", "inventory.py", "rollback.py"],
        "ansible": ["--forks", "5", "rollback.yml"],
        "fabric": ["rollback"],
    }


def test_ansible_has_a_fork_for_each_of_many_hosts(site: Site) -> None:
    """Its default of five would make ten hosts wait for each other."""
    many = Site(**{**vars(site), "hosts": site.hosts * 5})
    assert named("ansible").deploy(many, COMMIT)[1:3] == ["--forks", "10"]


def test_what_is_missing_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has neither Ruby nor a cache."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = tmp_path / "fabdjango/benchmark/pyinfra"
    assert {name: named(name).missing() for name in ("capistrano", "pyinfra", "fabric")} == {
        "capistrano": "Capistrano is not installed: apt-get install capistrano",
        "pyinfra": f"pyinfra is not installed: python3 -m venv {place} && {place}/bin/pip install 'pyinfra>=3,<4'",
        "fabric": "",
    }


def test_capistrano_is_told_of_the_hosts_in_its_stage(site: Site) -> None:
    """What `cap install` makes is there, and the stage that it leaves empty is filled in."""
    named("capistrano").furnish(site)
    assert (site.workplace / "config/deploy/production.rb").read_text() == (
        'server "web1", user: "deploy", roles: %w{app db web}\n'
        'server "web2", user: "deploy", roles: %w{app db web}\n'
        'set :domain, "shop.example.com"\n'
        'set :python, "python3"\n'
        'set :service, "shop"\n'
        'set :repo_url, "git://198.18.0.1:9418/shop.git"\n'
        'set :deploy_to, "/srv/shop"\n'
    )
    assert sorted(path.name for path in site.workplace.iterdir()) == [".ssh", "Capfile", "config", "lib"]


def test_pyinfra_finds_hosts_and_their_data(site: Site) -> None:
    """In the inventory and in the data of the group of all."""
    named("pyinfra").furnish(site)
    assert (site.workplace / "inventory.py").read_text() == "hosts = ['web1', 'web2']\n"
    assert (site.workplace / "group_data/all.py").read_text() == (
        "root = '/srv/shop'\n"
        "repository = 'git://198.18.0.1:9418/shop.git'\n"
        "domain = 'shop.example.com'\n"
        "python = 'python3'\n"
        "service = 'shop'\n"
    )


@pytest.mark.parametrize("playbook", ["deploy.yml", "rollback.yml"])
def test_ansible_reads_its_playbooks_and_its_inventory(site: Site, playbook: str) -> None:
    """Ansible itself finds all hosts in them, and the settings that make it fast."""
    named("ansible").furnish(site)
    hosts = said(site, program("ansible-playbook"), "--list-hosts", playbook)
    assert sorted(hosts.split()[-2:]) == ["web1", "web2"]
    variables = json.loads(said(site, program("ansible-inventory"), "--host", "web2"))
    assert variables == {
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_common_args": f"-F '{site.ssh_config}'",
        "domain": "shop.example.com",
        "python": "python3",
        "repository": "git://198.18.0.1:9418/shop.git",
        "root": "/srv/shop",
        "service": "shop",
    }
    changed = said(site, program("ansible-config"), "dump", "--only-changed", "-t", "all")
    assert "ANSIBLE_PIPELINING(" in changed
    assert "ControlPersist=60s" in changed


def test_fab_reads_the_fabfile(site: Site) -> None:
    """And knows the two tasks, with the hosts in the project's configuration."""
    named("fabric").furnish(site)
    listed = said(site, program("fab"), "--list").split("\n")
    assert [" ".join(line.split()) for line in listed if line.startswith("  ")] == [
        "deploy Let a commit serve.",
        "rollback Let the release before serve again.",
    ]
    assert json.loads((site.workplace / "fabric.yaml").read_text())["site"]["hosts"] == ["web1", "web2"]
