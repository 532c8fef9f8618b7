"""No way into a host: a few lines that say which, why and what to do, exit code 1, and nothing touched."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.hosts.workplace import Workplace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.workplace import Outcome
    from tests.machines import Machine


@pytest.fixture
def door(workplace: Workplace, bookworm: Machine) -> Workplace:
    """An operator who knows the host; nothing is deployed in this file, so the repository need not exist."""
    workplace.know(bookworm)
    workplace.configure(project="door", repository="git://198.18.0.1:1/never.git")
    return workplace


def complaint(outcome: Outcome) -> str:
    """What is said of a login that failed; nothing else was said or done."""
    assert outcome.ended(1).output == ""
    return outcome.complaint.strip()


def arrived(outcome: Outcome) -> bool:
    """The login succeeded: it is the repository that cannot be reached."""
    return outcome.ended(1).complaint.strip().startswith("Error: fetch failed with status 128")


def make_key(path: Path, passphrase: str = "") -> Path:
    """A key that no host has seen."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(words, check=True)
    return path


def test_a_name_that_does_not_resolve(door: Workplace, bookworm: Machine) -> None:
    """The name is shown as it was looked up."""
    outcome = door.fab("-i", bookworm.key, "-H", "deploy@web1.invalid", "deploy")
    said = re.sub("resolve: .*", "resolve: WHY", complaint(outcome))
    assert said == (
        "Error: the name 'web1.invalid' does not resolve: WHY\n"
        " host: web1.invalid\n"
        " state: nothing was changed (exit 1)\n"
        " do this: check the spelling of -H, or the hosts in fabric.yaml"
    )


def test_an_address_without_a_host(door: Workplace, bookworm: Machine) -> None:
    """Nobody in the network answers for this address: the benchmarking range has no other hosts than ours."""
    assert complaint(door.fab("-i", bookworm.key, "-H", "deploy@198.18.9.9", "deploy")) == (
        "Error: cannot connect to 198.18.9.9 port 22: No route to host\n"
        " host: 198.18.9.9\n"
        " state: nothing was changed (exit 1)\n"
        " do this: is the host up, and does a firewall let you through?"
    )


def test_a_host_that_does_not_answer(door: Workplace, bookworm: Machine) -> None:
    """Silence is waited for, and not for ever."""
    # A stopped sshd has its socket open and says nothing, as behind a firewall that lets only the first packet through.
    bookworm.run("kill -STOP $(systemctl show --property MainPID --value ssh)")
    try:
        door.config["ssh"] = {"known_hosts": str(door.known_hosts), "connect_timeout": 1}
        outcome = door.fab("-i", bookworm.key, "-H", f"deploy@{bookworm.address}", "deploy")
        said = complaint(outcome)
    finally:
        bookworm.run("kill -CONT $(systemctl show --property MainPID --value ssh)")
    assert outcome.seconds < 10
    assert said == (
        f"Error: {bookworm.address} port 22 is open, but no SSH server speaks there\n"
        f" host: {bookworm.address}\n"
        " state: nothing was changed (exit 1)\n"
        " do this: is the SSH server well, and is the port right?"
    )


def test_a_port_that_refuses(door: Workplace, bookworm: Machine) -> None:
    """The host is there, its SSH server is not."""
    assert complaint(door.fab("-i", bookworm.key, "-H", f"deploy@{bookworm.address}:2", "deploy")) == (
        f"Error: cannot connect to {bookworm.address} port 2: Connection refused\n"
        f" host: {bookworm.address}\n"
        " state: nothing was changed (exit 1)\n"
        " do this: is the SSH server running there, and is the port right?"
    )


@pytest.mark.parametrize("user", ["deploy", "nobody-here"])
def test_a_key_or_an_account_that_is_refused(door: Workplace, bookworm: Machine, user: str) -> None:
    """sshd does not tell a wrong account from a wrong key, so neither can we."""
    key = make_key(door.home / "new key") if user == "deploy" else bookworm.key
    assert complaint(door.fab("-i", key, "-H", f"{user}@{bookworm.address}", "deploy")) == (
        f"Error: {bookworm.address} does not let {user} in: no key that was offered is accepted\n"
        f" host: {bookworm.address}\n"
        " state: nothing was changed (exit 1)\n"
        f" do this: see whether this works: ssh {user}@{bookworm.address}\n"
        f"          choose the account with -H user@{bookworm.address} and the key with -i FILE"
    )


def test_a_key_that_is_not_there(door: Workplace, bookworm: Machine) -> None:
    """A slip in -i is not taken for a fault of the host."""
    assert complaint(door.fab("-i", door.home / "gone", "-H", f"deploy@{bookworm.address}", "deploy")) == (
        f"Error: cannot read {door.home}/gone: No such file or directory\n"
        f" host: {bookworm.address}\n"
        " state: nothing was changed (exit 1)\n"
        " do this: check the key of -i, and IdentityFile in ssh_config"
    )


def test_a_key_with_a_passphrase(door: Workplace, bookworm: Machine) -> None:
    """Without an agent and a terminal nobody can open it."""
    key = make_key(door.home / "locked", "open sesame")
    assert complaint(door.fab("-i", key, "-H", f"deploy@{bookworm.address}", "deploy")) == (
        f"Error: the key for deploy@{bookworm.address} has a passphrase, and no agent holds it\n"
        f" host: {bookworm.address}\n"
        " state: nothing was changed (exit 1)\n"
        " do this: hand it to an agent: ssh-add FILE\n"
        "          or be asked: fab --prompt-for-passphrase …"
    )


@pytest.mark.parametrize("policy", ["strict", "ask"])
def test_an_unknown_host(door: Workplace, bookworm: Machine, policy: str) -> None:
    """It is refused; where nobody sits at a terminal, to ask is to refuse. What the cure says is tried."""
    door.known_hosts.write_text("")
    door.config["ssh"] = {"known_hosts": str(door.known_hosts), "host_keys": policy}
    words = ("-i", bookworm.key, "-H", f"deploy@{bookworm.address}", "deploy")
    said = complaint(door.fab(*words))
    by_hand = f"ssh -o UserKnownHostsFile={door.known_hosts} deploy@{bookworm.address}"
    assert said == (
        f"Error: the host key of {bookworm.address} is not known\n"
        f" host: {bookworm.address}\n"
        " state: nothing was changed (exit 1)\n"
        f" do this: connect once by hand and compare the fingerprint: {by_hand}\n"
        "          or set fabdjango.ssh.host_keys to accept-new or ask"
    )
    assert door.known_hosts.read_text() == ""
    unattended = ["-o", "StrictHostKeyChecking=accept-new", "-i", str(bookworm.key), "-F", "none"]
    subprocess.run([*by_hand.split()[:1], *unattended, *by_hand.split()[1:], "true"], check=True, capture_output=True)
    assert arrived(door.fab(*words))


def test_accept_new_writes_the_key_down(door: Workplace, bookworm: Machine) -> None:
    """The file is made, with its folder, and from then on the key is known; lines that are there stay."""
    door.known_hosts = door.home / "a new folder" / "known hosts"
    for policy in ("accept-new", "strict"):
        door.config["ssh"] = {"known_hosts": str(door.known_hosts), "host_keys": policy}
        assert arrived(door.fab("-i", bookworm.key, "-H", f"deploy@{bookworm.address}", "deploy"))
    host, kind, _ = door.known_hosts.read_text().split()
    assert (host, kind) == (bookworm.address, "ssh-ed25519")


def test_a_host_that_is_known_by_another_kind_of_key(door: Workplace, bookworm: Machine) -> None:
    """The host offers several kinds, and is asked for the one that we know it by."""
    lines = bookworm.known_hosts.read_text().splitlines(keepends=True)
    door.known_hosts.write_text("".join(line for line in lines if "ecdsa" in line))
    assert arrived(door.fab("-i", bookworm.key, "-H", f"deploy@{bookworm.address}", "deploy"))


def test_a_hashed_known_hosts_file(door: Workplace, bookworm: Machine) -> None:
    """Debian's ssh writes names hashed."""
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(door.known_hosts)], check=True, capture_output=True)
    assert bookworm.address not in door.known_hosts.read_text()
    assert arrived(door.fab("-i", bookworm.key, "-H", f"deploy@{bookworm.address}", "deploy"))


@pytest.mark.parametrize("policy", ["strict", "accept-new"])
def test_a_changed_host_key(door: Workplace, bookworm: Machine, policy: str) -> None:
    """No policy accepts it, and the cure names the very command that forgets the old key."""
    other = make_key(door.home / "host key").with_suffix(".pub").read_text().split()[1]
    door.known_hosts.write_text(f"{bookworm.address} ssh-ed25519 {other}\n")
    door.config["ssh"] = {"known_hosts": str(door.known_hosts), "host_keys": policy}
    words = ("-i", bookworm.key, "-H", f"deploy@{bookworm.address}", "deploy")
    outcome = door.fab(*words)
    assert complaint(outcome) == (
        f"Error: the host key of {bookworm.address} has changed: another machine, or somebody in between\n"
        f" host: {bookworm.address}\n"
        " state: nothing was changed (exit 1)\n"
        " do this: if the machine was set up anew, forget the old key and look at the new one:\n"
        f"          ssh-keygen -f {door.known_hosts} -R {bookworm.address}\n"
        f"          ssh -o UserKnownHostsFile={door.known_hosts} deploy@{bookworm.address}"
    )
    pattern = r"expected ssh-ed25519 SHA256:\S+\ngot      ssh-ed25519 SHA256:\S+"
    assert re.fullmatch(pattern, outcome.quoted)
    forget = ["ssh-keygen", "-f", str(door.known_hosts), "-R", bookworm.address]
    subprocess.run(forget, check=True, capture_output=True)
    door.config["ssh"] = {"known_hosts": str(door.known_hosts), "host_keys": "accept-new"}
    assert arrived(door.fab(*words))


def test_root_without_an_account_for_the_site(door: Workplace, bookworm: Machine) -> None:
    """Whose files they would be has to be said; the host is not even asked."""
    cursor = bookworm.cursor()
    assert complaint(door.fab("-i", bookworm.key, "-H", f"root@{bookworm.address}", "deploy")) == (
        "Error: you log in as root, and no account is named that owns the site\n"
        " state: no host was contacted (exit 1)\n"
        " do this: name one in fabric.yaml:  fabdjango: user: deploy\n"
        "          (root itself is possible, if you write it there)"
    )
    assert bookworm.sessions_since(cursor) == (0, 0)


def test_no_host_at_all(door: Workplace) -> None:
    """Without -H and without an inventory nothing happens, on this machine least of all."""
    assert complaint(door.fab("deploy")).splitlines()[0] == "Error: no host is given"
