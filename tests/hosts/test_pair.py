"""Two booted hosts of one site: commits are pushed to each as it lacks them, and a variable serves on both or on none."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fabdjango import deploying, fleet, rollout, surveying
from tests import machines
from tests.hosts import invariants
from tests.hosts.fleet import FleetStage
from tests.hosts.shop import ROOT, Shop
from tests.hosts.workplace import Repository, Workplace
from tests.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts.workplace import Outcome
    from tests.machines import Machine

pytestmark = pytest.mark.nightly

#: A worker that does not start on the host that the variable names.
WORKER = '[ "$SHOP_NOT_ON" != "$(uname -n)" ] && exec python worker.py'
SETTINGS: dict[str, Any] = {
    "processes": {"worker": {"command": WORKER, "startsecs": 1, "stop_timeout": 5}},
    "activation": {"batch": "1", "drain": 5},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetStage]:
    """Two hosts that can reach no repository: all that they have was pushed to them."""
    booted = machines.up(2, "bookworm", "prepared", "pair")
    try:
        folder = tmp_path_factory.mktemp("pair")
        repository = Repository("pair", folder / "its clone.git", "git://nowhere/pair.git")
        stage = FleetStage(booted, Workplace(folder / "work"), Shop(repository))
        configure(stage)
        stage.install()
        yield stage
    finally:
        machines.down(booted)


def configure(stage: FleetStage, **more: object) -> None:
    """The settings of every test here."""
    push = {"transfer": "push", "clone": str(stage.shop.repository.tree)}
    stage.configure(**SETTINGS, git=push, **more)


def git(stage: FleetStage, *words: str, **environ: str) -> str:
    """Run git in the operator's clone."""
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    done = subprocess.run(
        ["git", *who, *words],
        cwd=stage.shop.repository.tree,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- pushes --------------------------------------------------------------------


def test_hosts_that_lack_different_commits(pair: FleetStage) -> None:
    """One has a branch that the other lacks, and the other way round; of the merge, each gets what it lacks."""
    first, second = pair.machines
    one = pair.shop.next()
    pair.deploy(one, f"--limit={first.address}").ended()
    git(pair, "switch", "--quiet", "--create", "it's-another", "HEAD~1")
    pair.shop.repository.write("a b", "it's on the other branch\n" * 3)
    git(pair, "add", "--all")
    git(pair, "commit", "--quiet", "-m", "It's another")
    other = git(pair, "rev-parse", "HEAD")
    pair.fab("deploy", "--commit=it's-another", f"--limit={second.address}").ended()
    assert [release.rpartition("-")[2] for release in pair.serving] == [one.sha[:12], other[:12]]
    assert [lacks(machine, one.sha, other) for machine in pair.machines] == [[other], [one.sha]]

    git(pair, "switch", "--quiet", "main")
    git(pair, "merge", "--quiet", "--no-edit", "it's-another")
    both = pair.shop.next()
    outcome = pair.deploy(both).ended()
    assert len(re.findall(r"^\[[\d.]+\] receive +ok ", outcome.output, re.MULTILINE)) == 2
    assert set(pair.serving) == {outcome.last_line.split()[1]}
    assert pair.serving[0].endswith(both.sha[:12])
    for machine, site in zip(pair.machines, pair.sites, strict=True):
        assert lacks(machine, one.sha, other, both.sha) == []
        assert machine.run(f"su deploy -c 'git --git-dir={ROOT}/repo.git fsck --strict'", check=False).returncode == 0
        assert invariants.settled(site, within=20) == []


def lacks(machine: Machine, *commits: str) -> list[str]:
    """Which of these commits a host's mirror does not have."""
    mirror = f"su deploy -c 'git --git-dir={ROOT}/repo.git cat-file -e"
    return [sha for sha in commits if machine.run(f"{mirror} {sha}'", check=False).returncode]


def test_a_push_beside_git_push(pair: FleetStage) -> None:
    """
    What a push adds to the bytes of a connection, and what git push takes for the same commit: at most twice that.

    Of 20 kB of code it is at most twice git's own thin pack, too.
    """
    machine = pair.machines[0]
    modules = [Path(str(module.__file__)).read_text()[:5000] for module in (deploying, fleet, rollout, surveying)]
    large = {f"shop/its_{number}.py": text for number, text in enumerate(modules)}
    with Relay(machine.address, 22) as relay:
        known = relay.known_hosts(machine.known_hosts.read_text().splitlines()[0])
        pair.workplace.known_hosts.write_text(pair.workplace.known_hosts.read_text() + known)
        for name, files in (("20 kB of code", large), ("one line", {"shop/its_0.py": f"{modules[0]}# it's more\n"})):
            before = git(pair, "rev-parse", "HEAD")
            for path, text in files.items():
                pair.shop.repository.write(path, text)
            sha = pair.shop.repository.commit(name)
            words = ["pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "-q"]
            pack = len(
                subprocess.run(
                    ["git", *words],
                    cwd=pair.shop.repository.tree,
                    input=f"{sha}\n^{before}\n".encode(),
                    capture_output=True,
                    check=True,
                ).stdout
            )
            # Where fab's own push leaves nothing to be sent, git's must come first, to a mirror that is then put back.
            theirs = relay.counted(lambda sha=sha: git_push(pair, relay, sha))  # type: ignore[misc]
            machine.run(f"cd {ROOT} && rm -rf repo.git && mv repo.before repo.git")
            with_it = relay.counted(lambda: fetch(pair, relay))
            ours = with_it - relay.counted(lambda: fetch(pair, relay))
            print(f"{name}: thin pack {pack} bytes, git push {theirs}, fab adds {ours} to {with_it - ours}")
            assert ours <= 2 * theirs
            assert ours <= 2 * pack or name == "one line"


def git_push(pair: FleetStage, relay: Relay, sha: str) -> None:
    """Push a commit by git itself, over OpenSSH."""
    machine = pair.machines[0]
    machine.run(f"cp -a {ROOT}/repo.git {ROOT}/repo.before")
    ssh = f"ssh -F none -i {machine.key} -o IdentitiesOnly=yes -o UserKnownHostsFile={pair.workplace.known_hosts}"
    address = f"ssh://deploy@127.0.0.1:{relay.port}{ROOT}/repo.git"
    git(pair, "push", "--quiet", "--thin", address, f"{sha}:refs/heads/its-own", GIT_SSH_COMMAND=ssh)


def fetch(pair: FleetStage, relay: Relay) -> None:
    """Bring the branch to the host by fab."""
    machine = pair.machines[0]
    pair.workplace.fab("-i", machine.key, "-H", f"deploy@127.0.0.1:{relay.port}", "git.fetch").ended()


# --- variables -----------------------------------------------------------------


def test_a_variable_of_both_hosts(pair: FleetStage) -> None:
    """Set, it serves on both in one new release, beside what a file of the operator's has brought them before."""
    configure(pair, env_file="")
    outcome = env_set(pair, "SHOP_GREETING", "it's $HOME").ended()
    assert outcome.last_line == f"SHOP_GREETING is set: {pair.serving[0]} serves on 2 hosts"
    assert len(set(pair.serving)) == 1
    assert [variable(machine, "SHOP_GREETING") for machine in pair.machines] == ["it's $HOME"] * 2


def test_a_variable_that_one_host_fails_with(pair: FleetStage) -> None:
    """The first has switched when the second fails: both serve what they did, and neither keeps the variable."""
    configure(pair, env_file="")
    kept = f"cat {ROOT}/shared/.env"
    before, files = pair.serving, [machine.run(kept).stdout for machine in pair.machines]
    outcome = env_set(pair, "SHOP_NOT_ON", pair.machines[1].name)
    assert outcome.code == 3, outcome.error
    assert pair.machines[1].address in outcome.error
    assert pair.serving == before
    assert [machine.run(kept).stdout for machine in pair.machines] == files
    assert [variable(machine, "SHOP_NOT_ON") for machine in pair.machines] == ["", ""]
    env_set(pair, "SHOP_NOT_ON", "nobody").ended()
    assert [variable(machine, "SHOP_NOT_ON") for machine in pair.machines] == ["nobody"] * 2


def env_set(pair: FleetStage, name: str, value: str) -> Outcome:
    """Set a variable on all hosts."""
    return pair.workplace.fab("env.set", name, typed=f"{value}\n")


def variable(machine: Machine, name: str) -> str:
    """What a variable is in every gunicorn of the site, as the kernel says; empty if none has it."""
    script = f"cat $(pgrep -f '[g]unicorn -c' | sed 's|.*|/proc/&/environ|') | tr '\\0' '\\n' | sed -n 's/^{name}=//p' | sort -u"
    return machine.run(script).stdout.rstrip("\n")
