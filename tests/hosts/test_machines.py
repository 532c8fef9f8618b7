"""The farm of test hosts itself: real hosts, ways in, ways to break them, and nothing left of them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.machines import Machine, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(machines.missing_tools()), reason=machines.missing_tools() or "all tools are there"),
]


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Machine]]:
    """Two hosts for the tests of this file."""
    booted = machines.up(2, prefix="farm")
    yield booted
    machines.down(booted)


def ssh(machine: Machine, script: str, user: str = "deploy") -> subprocess.CompletedProcess[str]:
    """Run `script` on a host as an operator would, with OpenSSH and strict checking of the host's key."""
    options = (f"UserKnownHostsFile={machine.known_hosts}", "StrictHostKeyChecking=yes", "BatchMode=yes")
    words = ["ssh", "-F", "none", "-i", str(machine.key), "-o", "ConnectTimeout=15"]
    words += [word for option in options for word in ("-o", option)]
    return subprocess.run([*words, f"{user}@{machine.address}", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("user", ["root", "deploy"])
def test_both_accounts_log_in_and_may_sudo(pair: list[Machine], user: str) -> None:
    """The operator's key opens both accounts, on the host that known_hosts says it is."""
    for machine in pair:
        assert ssh(machine, "hostname; id -un; sudo -n id -u", user).stdout == f"{machine.name}\n{user}\n0\n"


def test_hosts_have_keys_of_their_own(pair: list[Machine]) -> None:
    """A host with the keys of its neighbour would hide a missing check of host keys."""
    one, two = (machine.known_hosts.read_text().split() for machine in pair)
    assert len({*one, *two} - {"ssh-ed25519", "ecdsa-sha2-nistp256"}) == 2 * 3


def test_sshd_counts_logins_and_sessions_but_not_our_own_way_in(pair: list[Machine]) -> None:
    """What a deploy costs is counted by the host itself."""
    machine = pair[0]
    cursor = machine.cursor()
    machine.run("true")
    ssh(machine, "true")
    ssh(machine, "true", "root")
    assert machine.sessions_since(cursor) == (2, 2)


def test_run_has_a_login_environment_and_tells_failure(pair: list[Machine]) -> None:
    """The back door behaves like a login, and a failing command is an error with its output."""
    assert pair[0].run("echo $HOME $PWD; id -un", user="deploy").stdout == "/home/deploy /home/deploy\ndeploy\n"
    with pytest.raises(MachineError, match="exit status 3\nsome words"):
        pair[0].run("echo some words; exit 3")
    with pytest.raises(MachineError, match="took longer than 1 s"):
        pair[0].run("sleep 71", timeout=1)
    assert pair[0].run("pgrep -fx 'sleep 71'", check=False).stdout == ""


def test_write_reaches_tmpfs_and_sets_the_mode(pair: list[Machine]) -> None:
    """The merged folder on this machine lacks /run and /tmp; writing works there all the same."""
    pair[0].write("/run/it's here/a file", "grüß dich\n", 0o640)
    assert pair[0].run("""stat -c %a "/run/it's here/a file"; cat /run/it*/*""").stdout == "640\ngrüß dich\n"


def test_pip_in_a_host_uses_the_index_of_this_machine(pair: list[Machine]) -> None:
    """Certificates, name servers, index and address translation all reach the host."""
    script = "python3 -m venv v && v/bin/pip install --quiet --no-cache-dir six && v/bin/python -c 'import six'"
    done = ssh(pair[1], script)
    assert done.returncode == 0, done.stderr


def test_a_cut_host_is_silent_until_mended(pair: list[Machine]) -> None:
    """The cable is pulled on this side: the host goes on running."""
    machine = pair[1]
    machine.cut()
    assert ssh(machine, "true").returncode == 255
    assert machine.run("systemctl is-active ssh").stdout == "active\n"
    machine.mend()
    assert ssh(machine, "true").returncode == 0


@pytest.mark.parametrize("way", ["reboot", "power cut"])
def test_files_and_address_outlive_a_restart(pair: list[Machine], way: str) -> None:
    """Both kinds of restart keep the file system and lose the processes."""
    machine = pair[1]
    machine.run("touch /root/stays; setsid --fork sleep 72 > /dev/null 2>&1")
    if way == "reboot":
        machine.reboot()
    else:
        machine.kill()
        assert machine.name not in {running.name for running in machines.running()}
        machine.boot()
    assert ssh(machine, "ls ~/stays; pgrep -fxc 'sleep 72'", "root").stdout == "/root/stays\n0\n"
    assert machine in machines.running()


def test_hosts_of_a_killed_process_are_cleared_away(pair: list[Machine]) -> None:
    """A killed test run leaves hosts, the next start removes them, and those of the living stay."""
    script = """
        import os, signal
        from tests import machines
        print(machines.up(1, prefix="orphan")[0].name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    project = Path(__file__).parents[2]
    words = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
    assert done.stdout == "orphan1\n", done.stderr
    assert "orphan1" in {machine.name for machine in machines.running()}
    fresh = machines.up(1, variant="bare", prefix="fresh")
    try:
        assert {machine.name for machine in machines.running()} >= {"farm1", "farm2", "fresh1"}
        assert "orphan1" not in {machine.name for machine in machines.running()}
        assert "orphan1" not in Path("/proc/mounts").read_text()
        assert ssh(fresh[0], "command -v git").returncode == 1
        assert ssh(pair[0], "true").returncode == 0
    finally:
        machines.down(fresh)
    assert not Path("/sys/class/net/vb-fresh1").exists()


def test_a_host_that_cannot_boot_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries the end of systemd-nspawn's log."""
    monkeypatch.setattr(machines, "BRIDGE", "nobridge0")
    monkeypatch.setattr(machines, "_network_up", lambda: None)
    with pytest.raises(MachineError, match="nobridge0"):
        machines.up(1, prefix="broken")
    assert not (machines.FARM / "broken1").exists()
