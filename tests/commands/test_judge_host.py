"""What is said of the way to a host and of the host itself, line by line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fabdjango.commands import judge_host
from fabdjango.commands.check import Holder, Listener, Look
from tests.commands.told import case, told
from tests.conftest import LAYOUT, RELEASE, SHA, shell

CURRENT: dict[str, Any] = {"current": RELEASE, "releases": {RELEASE: {"commit": SHA}}}
GOOD = Look(
    memory=4_000_000_000,
    versions={"git": "2.39.5", "supervisor": "4.2.5"},
    disk=(9_000_000_000, 20_000_000_000, 900_000, 1_000_000),
    sudo=("all", ()),
)


def host(look: Look = GOOD, settings: dict[str, Any] | None = None, **facts: Any) -> str:
    """What is said of a host with the tools that it needs."""
    tools = {name: f"/usr/bin/{name}" for name in ("git", "flock", "base64", "timeout", "uv")}
    return told(judge_host.host(case(look, settings, **{"programs": tools, "os": "debian 12", **facts})))


def line(text: str, subject: str) -> str:
    """The lines of one subject."""
    found: list[str] = []
    keep = False
    for each in text.splitlines():
        keep = (keep and each.startswith("    ")) or each[9:].startswith(f"{subject}: ")
        found += [each] if keep else []
    return "\n".join(found)


# --- the way there -----------------------------------------------------------


def test_the_way_there() -> None:
    """How long it took, whose the site is, and what sudo allows."""
    assert told(judge_host.link(case(GOOD), 0.34)) == shell("""
        ok       ssh: ada is let in within 0.3 s, its key is known
        ok       account: ada owns the site
        ok       sudo: sudo asks for no password
    """)
    slow = case(replace(GOOD, sudo=("root", ())), {"ssh": {"host_keys": "accept-new"}})
    assert told(judge_host.link(replace(slow, login="root"), 7)) == shell("""
        warning  ssh: root is let in within 7.0 s, a host that was never seen is believed (ssh.host_keys)
                 do this: on the host: is it busy (uptime), and does sshd wait for the DNS (UseDNS no)?
        ok       account: ada owns the site, and root may become it
        ok       sudo: root logs in
    """)


@pytest.mark.parametrize(
    ("owner", "lines"),
    [
        (
            "missing",
            """
            error    account: there is no account ada, which is to own the site
                     do this: on the host, as root: adduser --disabled-password --gecos '' ada
            """,
        ),
        (
            "refused",
            """
            error    account: an.n may not become ada, who is to own the site, without a password
                     do this: log in as ada: -H ada@…
                              or on the host, as root: printf '%s\\n' 'an.n ALL=(ada) NOPASSWD: ALL' > /etc/sudoers.d/an_n
            """,
        ),
    ],
)
def test_an_owner_that_one_cannot_be(owner: str, lines: str) -> None:
    """Nothing else can be looked at then."""
    given = replace(case(Look(owner=owner)), login="an.n")
    assert line(told(judge_host.link(given, 0)), "account") == shell(lines)


@pytest.mark.parametrize(
    ("sudo", "lines"),
    [
        (
            ("list", ("(root) NOPASSWD: /usr/bin/systemctl reload it's",)),
            """
            note     sudo: sudo allows ada a list of commands: (root) NOPASSWD: /usr/bin/systemctl reload it's
                     | not looked at, as it takes root: what listens for other accounts, nginx
            """,
        ),
        (
            ("list", tuple(f"(root) NOPASSWD: /opt/fabdjango/root/it-s.{number}" for number in range(9))),
            """
            note     sudo: sudo allows ada a list of commands: 9 programs in /opt/fabdjango/root
                     | not looked at, as it takes root: what listens for other accounts, nginx
            """,
        ),
        (
            ("password", ()),
            """
            note     sudo: sudo asks for a password
                     | not looked at, as it takes root: what listens for other accounts, nginx
            """,
        ),
        (
            ("none", ()),
            """
            note     sudo: ada may not use sudo
                     | not looked at, as it takes root: what listens for other accounts, nginx
            """,
        ),
    ],
)
def test_what_is_not_looked_at(sudo: tuple[str, tuple[str, ...]], lines: str) -> None:
    """Without root, and why; a deploy that needs root is refused by itself."""
    given = case(Look(sudo=sudo), {"nginx": {"domains": ["it.example.com"]}})
    assert line(told(judge_host.link(given, 0)), "sudo") == shell(lines)


# --- the clock -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("told_by_host", "lines"),
    [
        (1_000_000, "ok       clock: the clock is that of this machine"),
        (1_000_035, "ok       clock: the clock is that of this machine"),
        (999_955, "warning  clock: the clock is 45 s behind that of this machine"),
        (1_000_010 + 7000, "warning  clock: the clock is 117 min ahead of that of this machine"),
        (1_000_010 + 86401, "error    clock: the clock is 24 h ahead of that of this machine"),
        (0, "error    clock: the clock is 278 h behind that of this machine"),
    ],
)
def test_the_clock(told_by_host: int, lines: str) -> None:
    """Against what this machine's was before and after the answer: how long that took counts for nothing."""
    found = judge_host.clock(case(Look(clock=told_by_host)), 1_000_000, 1_000_010)
    assert told(found).splitlines()[0] == lines
    if found.severity != "ok":
        assert found.cure == "on the host, as root: apt-get install systemd-timesyncd && timedatectl set-ntp true"


# --- the host ------------------------------------------------------------------


def test_a_host_in_order() -> None:
    """A line for everything that was looked at."""
    assert host() == shell("""
        ok       system: debian 12
        ok       tools: git 2.39.5, flock, timeout
        ok       python: Python 3.11.2
        ok       uv: uv is there
        ok       manager: supervisor 4.2.5
        ok       disk: 9.0 GB of 20.0 GB are free
        ok       inodes: 900,000 of 1,000,000 inodes are free
        ok       memory: 4.0 GB of memory and swap can be had
        ok       ports: nobody listens on port 8000
    """)


def test_a_host_without_anything() -> None:
    """What is missing, with its package; of a Python that is not there, the refusal speaks."""
    text = host(Look(), os="it's an os 1", programs={"git": "/usr/bin/git"}, python={})
    assert text == shell("""
        note     system: it's an os 1: tried are debian 12, debian 13, ubuntu 22.04, ubuntu 24.04
        error    tools: flock is not installed
                 do this: on the host, as root: apt-get install -y util-linux
        error    tools: base64 is not installed
                 do this: on the host, as root: apt-get install -y coreutils
        error    tools: timeout is not installed
                 do this: on the host, as root: apt-get install -y coreutils
        ok       uv: uv is not there: it is fetched, or pip installs
        note     memory: 0 MB of memory and swap can be had, which may be too little for two releases of 5 workers
                 do this: in fabric.yaml under fabdjango: slots: 1
                          or fewer workers: gunicorn: {workers: 2}
        ok       ports: nobody listens on port 8000
    """)


def test_a_python_that_is_too_old() -> None:
    """By the project's own word, for which a deploy is refused too, or as the Django that it wants seems to have it."""
    found: dict[str, Any] = {"pythons": ("python3.11", "python3.12", "python3.9")}
    assert line(host(needs=(">=3.12", ""), **found), "python") == shell("""
        error    python: python3 is 3.11.2, and the project wants Python >=3.12 (requires-python)
                 do this: the host has another one; in fabric.yaml under fabdjango: python: python3.12
    """)
    assert line(host(needs=("", ">=6.0,<6.1"), **found), "python") == shell("""
        error    python: python3 is 3.11.2, and Django >=6.0,<6.1 needs Python 3.12
                 do this: the host has another one; in fabric.yaml under fabdjango: python: python3.12
    """)
    assert line(host(needs=(">=3.10", "~=5.2")), "python") == "ok       python: Python 3.11.2"


def test_a_disk_that_is_nearly_full() -> None:
    """A warning early, an error where a deploy would not begin; old releases are what one can do without."""
    nearly = replace(GOOD, disk=(400_000_000, 20_000_000_000, 9_000, 1_000_000))
    assert line(host(nearly), "disk") == shell("""
        warning  disk: 400 MB of 20.0 GB are free
                 do this: make room on the host: df -h, df -i
    """)
    full = replace(GOOD, disk=(10_000_000, 20_000_000_000, 400, 1_000_000))
    text = host(
        full, **{**CURRENT, "releases": {RELEASE: {"commit": SHA}, "6-666666666666": {}, "5-5": {"commit": "5"}}}
    )
    assert line(text, "disk") == shell("""
        error    disk: 10 MB of 20.0 GB are free
                 do this: fab -H ada@web1 prune
                          or make room on the host: df -h, df -i
    """)
    assert line(text, "inodes").startswith("error    inodes: 400 of 1,000,000 inodes are free")
    # A file system such as btrfs counts none.
    assert line(host(replace(GOOD, disk=(9, 10, 0, 0))), "inodes") == ""


def test_memory_for_two_releases() -> None:
    """Measured by the one that serves; with one slot there are never two."""
    tight = replace(GOOD, memory=100_000_000, slot_memory=300_000_000)
    assert line(host(tight), "memory").startswith(
        "warning  memory: 100 MB of memory and swap can be had, and the release that serves takes 300 MB: the next one starts beside it\n"
        "         do this: in fabric.yaml under fabdjango: slots: 1"
    )
    assert (
        line(host(tight, {"slots": "1"}), "memory")
        == "ok       memory: 100 MB of memory and swap can be had, and there is one slot"
    )


# --- ports ---------------------------------------------------------------------


NGINX = {"nginx": {"domains": ["it.example.com"], "tls": "files", "certificate": "/c", "certificate_key": "/k"}}


def listening(*ports: Listener) -> Look:
    """A host where these listen."""
    return replace(GOOD, ports=ports)


def test_a_port_that_somebody_else_has() -> None:
    """With his name, and how he is stopped."""
    apache = Listener(80, "root", (Holder(7, "apache2", "/", "apache2.service"),))
    assert line(host(listening(apache), NGINX), "ports") == shell("""
        error    ports: apache2 (process 7) listens on port 80, which is for nginx
                 do this: on the host, as root: systemctl disable --now apache2.service
        ok       ports: nobody listens on port 443
    """)
    other = Listener(8000, "ann", (Holder(8, "it's python", "/home/ann"),))
    assert line(host(listening(other)), "ports") == shell("""
        error    ports: it's python (process 8) listens on port 8000, which is for gunicorn
                 do this: on the host, as root: kill 8
                          or in fabric.yaml under fabdjango: gunicorn: {bind: 127.0.0.1:8001}
    """)


def test_a_port_of_ours() -> None:
    """By the name of nginx, by a folder of the site, or by the manager that holds the socket of a site that serves."""
    servers = listening(Listener(80, "root", (Holder(7, "nginx"),)), Listener(443, "root", (Holder(7, "nginx"),)))
    assert (
        line(host(servers, NGINX), "ports")
        == "ok       ports: nginx listens on port 80\nok       ports: nginx listens on port 443"
    )
    ours = listening(Listener(8000, "ada", (Holder(8, "python", f"{LAYOUT.root}/releases/{RELEASE}"),)))
    assert line(host(ours), "ports") == "ok       ports: python listens on port 8000"
    held = listening(Listener(8000, "root", (Holder(1, "systemd", "/"),)))
    assert line(host(held, **CURRENT), "ports") == "ok       ports: systemd listens on port 8000"
    assert line(host(held), "ports").startswith(
        "error    ports: systemd (process 1) listens on port 8000, which is for gunicorn"
    )


def test_a_port_whose_holder_cannot_be_seen() -> None:
    """Only root sees the processes of others."""
    unseen = listening(Listener(8000, "it's root"))
    text = "note     ports: a program of it's root, whose name only root may see, listens on port 8000"
    assert line(host(unseen), "ports") == text
    seen = listening(Listener(8000, "root"), Listener(8000, "ann", (Holder(8, "it"),)))
    assert line(host(seen), "ports").startswith("error    ports: it (process 8)")


def test_a_site_where_nobody_listens() -> None:
    """Once a release serves, somebody should."""
    assert line(host(**CURRENT), "ports") == shell("""
        error    ports: nobody listens on port 8000, where the site is to answer
                 do this: fab -H ada@web1 supervisor.start
    """)
