"""
Deploys that fail on a real host: what is said, the exit code, and what the world outside still gets.

Each test names a site of its own, so that none stands in the way of another.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.hosts.workplace import Repository, Workplace, answer, program_pid, shop_project, state_of, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.hosts.workplace import Daemon, Outcome
    from tests.machines import Machine

PORT = 8100


@pytest.fixture(scope="module")
def host(bookworm: Machine) -> Machine:
    """The prepared host, with a uv that all its accounts can run: fetching one for each site would take minutes."""
    bookworm.run(
        "[ -x /opt/uv/bin/uv ] || { python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet uv; }\n"
        "ln -sf /opt/uv/bin/uv /usr/local/bin/uv",
        timeout=300,
    )
    return bookworm


@pytest.fixture(scope="module")
def repository(daemon: Daemon) -> Repository:
    """A project that has Django and nothing else."""
    return daemon.repository("small")


@pytest.fixture(scope="module")
def good(repository: Repository) -> str:
    """A commit that serves."""
    return small(repository, "good")


@pytest.fixture
def place(workplace: Workplace, host: Machine) -> Workplace:
    """An operator's folder who knows the host."""
    workplace.know(host)
    return workplace


def small(repository: Repository, greeting: str) -> str:
    """A commit of the small project that answers with `greeting`."""
    return shop_project(repository, "Django<5.3\n", greeting)


def site(name: str, url: str, port: int = PORT, **more: object) -> dict[str, object]:
    """The settings of one site of the small project."""
    gunicorn = {"bind": f"0.0.0.0:{port}", "workers": 1}
    environment = {"SHOP_SECRET_KEY": "any"}
    common = {
        "django": {"manage": "source/manage.py"},
        "health": {"timeout": 3},
        "environment": environment,
    }
    return {"project": name, "repository": url, "gunicorn": gunicorn, **common, **more}


def told(outcome: Outcome, machine: Machine, login: str = "deploy") -> list[str]:
    """The error's lines without the host's own words; the host is always named."""
    lines = outcome.complaint.strip().splitlines()
    assert len(outcome.error.splitlines()) <= 45, outcome.error
    host = f" host: {machine.address}", f" host: {login}@{machine.address}"
    assert lines[1] in host, outcome.error
    return [lines[0], *lines[2:]]


# --- the repository ----------------------------------------------------------


def test_a_repository_that_cannot_be_reached(place: Workplace, host: Machine, good: str) -> None:
    """Nobody listens at its address."""
    url = f"git://{machines.GATEWAY}:1/never.git"
    place.configure(**site("unreached", url))
    outcome = place.deploy(host, good).ended(1)
    assert told(outcome, host) == [
        "Error: fetch failed with status 128",
        f" step: fetch from {url}",
        " state: nothing that serves was touched (exit 1)",
        " do this: the host cannot reach the repository: check fabdjango.repository, and the host's way out",
    ]
    assert state_of(host, "/srv/unreached") == "current:\n"


class _Asks(BaseHTTPRequestHandler):
    """Asks everybody for a password."""

    def do_GET(self) -> None:
        """Answer 401."""
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="private"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@contextmanager
def private_server() -> Iterator[str]:
    """The address of a web server that wants a password."""
    server = ThreadingHTTPServer((machines.GATEWAY, 0), _Asks)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{machines.GATEWAY}:{server.server_port}/team/private.git"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_a_repository_that_wants_a_password(place: Workplace, host: Machine, good: str) -> None:
    """Nobody is there to type it: the deploy ends at once instead of hanging."""
    with private_server() as url:
        place.configure(**site("private", url))
        outcome = place.deploy(host, good).ended(1)
    assert outcome.seconds < 15
    assert told(outcome, host) == [
        "Error: fetch failed with status 128",
        f" step: fetch from {url}",
        " state: nothing that serves was touched (exit 1)",
        " do this: the repository asks for a password: use an ssh address with a deploy key, or a token in the host's git credentials",
    ]


def test_a_commit_that_is_not_there(place: Workplace, host: Machine, repository: Repository) -> None:
    """A commit that was never pushed."""
    place.configure(**site("unpushed", repository.url))
    outcome = place.deploy(host, "feedfacefeedfacefeedfacefeedfacefeedface").ended(1)
    assert told(outcome, host) == [
        "Error: the repository has no branch, tag or commit feedfacefeedfacefeedfacefeedfacefeedface",
        " state: nothing was changed (exit 1)",
        " do this: push it first, or check the spelling",
    ]


# --- what the host lacks -----------------------------------------------------


def test_a_bare_host_becomes_ready_by_following_the_cures(
    workplace: Workplace, bare: Machine, repository: Repository, good: str
) -> None:
    """Without git, then without python3-venv; what each message says to type is typed, and the third deploy serves."""
    workplace.know(bare)
    workplace.configure(**site("fresh", repository.url, PORT))
    assert told(workplace.deploy(bare, good).ended(1), bare) == [
        "Error: tools failed: git is not installed on the host",
        " step: the host has what a deployment needs",
        " state: nothing that serves was touched (exit 1)",
        " do this: on the host, as root: apt-get install git python3-venv",
    ]
    assert state_of(bare, "/srv/fresh").splitlines()[0] == "current:"
    install = "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends"
    bare.run(f"{install} git", timeout=300)
    assert told(workplace.deploy(bare, good).ended(1), bare) == [
        "Error: the host's Python cannot make virtualenvs: python3-venv is missing",
        " state: nothing was changed (exit 1)",
        " do this: on the host, as root: apt-get install python3-venv",
    ]
    bare.run(f"{install} python3-venv", timeout=300)
    workplace.deploy(bare, good).ended(0)
    assert answer(bare, PORT) == (200, "good")


def test_a_project_that_wants_a_newer_python(place: Workplace, host: Machine, daemon: Daemon) -> None:
    """Refused before anything of it is made, with the way to one."""
    newer = daemon.repository("newer")
    newer.write("pyproject.toml", "[project]\nname = 'shop'\nversion = '1'\nrequires-python = '>=3.12'\n")
    commit = small(newer, "newer")
    place.configure(**site("newer", newer.url))
    assert told(place.deploy(host, commit).ended(1), host) == [
        "Error: python3 is 3.11.2, and the project wants Python >=3.12 (requires-python)",
        " state: nothing was changed (exit 1)",
        (
            " do this: let uv bring a newer one, on the host, as deploy: UV_PYTHON_INSTALL_DIR=/srv/newer/python "
            "UV_PYTHON_BIN_DIR=/srv/newer/python/bin /usr/local/bin/uv python install 3.12"
        ),
        "          then, in fabric.yaml under fabdjango: python: /srv/newer/python/bin/python3.12",
        "          or take a distribution that has one: Debian 13, Ubuntu 24.04",
    ]
    assert host.run("ls -A /srv/newer/releases /srv/newer/venvs").stdout.split() == [
        "/srv/newer/releases:",
        "/srv/newer/venvs:",
    ]


def test_a_full_disk(place: Workplace, host: Machine, repository: Repository, good: str) -> None:
    """Too few inodes for the packages: all that was begun is gone, and with room the next deploy serves."""
    host.run(
        "mkdir -p /srv/full; mount -t tmpfs -o size=30m,uid=1000 tmpfs /srv/full; chown deploy: /srv/full; df /srv/full"
    )
    try:
        place.configure(**site("full", repository.url, PORT + 1))
        error = told(place.deploy(host, good).ended(1), host)
        assert error == [
            "Error: the disk is too full: 31 MB free, 50 MB needed",
            " state: nothing was changed (exit 1)",
            " do this: make room, for instance with a smaller fabdjango.keep_releases",
        ]
        host.run("mount -o remount,size=300m,nr_inodes=2300 /srv/full")
        outcome = place.deploy(host, good).ended(1)
        assert "No space left on device" in outcome.quoted
        assert told(outcome, host)[-2:] == [
            " state: nothing that serves was touched (exit 1)",
            " do this: the disk is full: make room on the host (df -h, df -i), then deploy again",
        ]
        assert state_of(host, "/srv/full") == "current:\n"
        host.run("mount -o remount,nr_inodes=100000 /srv/full")
        place.deploy(host, good).ended()
        assert answer(host, PORT + 1) == (200, "good")
    finally:
        host.run(
            "supervisorctl stop full:*; rm -f /etc/supervisor/conf.d/full.conf; supervisorctl update full", check=False
        )
        host.run("umount --lazy /srv/full")


def test_requirements_that_have_no_solution(place: Workplace, host: Machine, repository: Repository) -> None:
    """The installer's reason is shown, and nothing of the release stays."""
    sha = shop_project(repository, "Django==1.0.999\n", "never")
    place.configure(**site("unsolved", repository.url))
    outcome = place.deploy(host, sha).ended(1)
    assert told(outcome, host)[-2:] == [
        " state: nothing that serves was touched (exit 1)",
        " do this: a package or version cannot be found: check the requirement files, fabdjango.venv.packages and the index options",
    ]
    assert state_of(host, "/srv/unsolved") == "current:\n"


# --- accounts ----------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(host: Machine) -> str:
    """An account that sudo asks for a password."""
    return _account(host, "plain", "plain ALL=(ALL:ALL) ALL")


@pytest.fixture(scope="module")
def alice(host: Machine) -> str:
    """An administrator with an account of her own, who may sudo."""
    return _account(host, "alice", "alice ALL=(ALL:ALL) NOPASSWD: ALL")


def _account(host: Machine, name: str, rule: str) -> str:
    host.run(
        f"useradd -m -s /bin/bash {name}; cp -a /home/deploy/.ssh /home/{name}/; chown -R {name}: /home/{name}/.ssh"
    )
    host.write(f"/etc/sudoers.d/{name}", f"{rule}\n", 0o440)
    return name


def test_an_account_that_may_not_make_the_folder(place: Workplace, host: Machine, repository: Repository, good: str, plain: str) -> None:  # fmt: skip
    """The cure is a command that can be copied, and does it: at level auto the site then needs no root at all."""
    place.configure(**site("modest", repository.url, PORT + 2))
    error = told(place.deploy(host, good, login=plain).ended(1), host, plain)
    assert error[0] == "Error: lock failed: cannot write /srv/modest/run/lock: permission denied"
    cure = "install -d -o plain /srv/modest"
    assert error[-2:] == [
        f" do this: the folder belongs to another account, or cannot be made: on the host, as root: {cure}",
        f"          or let setup make the site's place: fab -H root@{host.address} setup",
    ]
    host.run(cure)
    place.deploy(host, good, login=plain).ended()
    assert answer(host, PORT + 2) == (200, "good")


def test_sudo_that_asks_for_a_password(place: Workplace, host: Machine, repository: Repository, good: str, plain: str) -> None:  # fmt: skip
    """Debian's supervisor is root's; the prompt of sudo is never waited for."""
    host.run("install -d -o plain /srv/asking")
    place.configure(**site("asking", repository.url, supervisor={"level": "system"}))
    outcome = place.deploy(host, good, login=plain).ended(1)
    assert outcome.seconds < 15
    assert told(outcome, host, plain) == [
        "Error: the host's supervisor belongs to root, and sudo asks for a password",
        " state: nothing was changed (exit 1)",
        " do this: set fabdjango.supervisor.level to virtualenv, or allow sudo without a password",
    ]
    place.configure(**site("asking", repository.url, user="deploy"))
    outcome = place.deploy(host, good, login=plain).ended(1)
    assert outcome.seconds < 15
    assert told(outcome, host, plain) == [
        "Error: lock failed: cannot write /srv/asking/run/lock: permission denied",
        " step: lock",
        " state: nothing that serves was touched (exit 1)",
        " do this: see whether plain may become deploy without a password: sudo -n -u deploy true",
        "          the folder belongs to another account, or cannot be made: on the host, as root: install -d -o deploy /srv/asking",
        f"          or let setup make the site's place: fab -H root@{host.address} setup",
    ]


def test_two_administrators_and_root_deploy_one_site(place: Workplace, host: Machine, repository: Repository, good: str, alice: str) -> None:  # fmt: skip
    """Who logs in changes, who owns the site does not."""
    place.configure(**site("common", repository.url, PORT + 3, user="deploy"))
    for number, login in enumerate((alice, "deploy", "root"), start=1):
        sha = good if number == 1 else small(repository, f"good by {login}")
        outcome = place.deploy(host, sha, login=login).ended()
        assert outcome.last_line.startswith(f"deployed: {number}-{sha[:12]} serves on ")
    assert answer(host, PORT + 3) == (200, "good by root")
    assert host.run("find /srv/common ! -user deploy").stdout == ""


# --- supervisor and the programs ---------------------------------------------


def test_a_port_that_another_program_has(place: Workplace, host: Machine, repository: Repository, good: str) -> None:
    """The socket cannot be held: it is heard of at the start; nothing stays, and the other program goes on."""
    serve = f"python3 -m http.server {PORT + 4} --directory /etc/supervisor"
    host.run(f"setsid --fork {serve} > /dev/null 2>&1")
    wait_for(lambda: answer(host, PORT + 4)[0] == 200, 10)
    place.configure(**site("taken", repository.url, PORT + 4))
    outcome = place.deploy(host, good).ended(1)
    assert told(outcome, host) == [
        (
            "Error: start failed: supervisord cannot take taken-web-0.0.0.0-8104 (is its address in use?): "
            "<ProtocolError for 127.0.0.1/RPC2: 500 Internal Server Error>"
        ),
        " step: start taken-web-a",
        " state: nothing that serves was touched (exit 1)",
        " do this: another program listens on the address: see which with ss -ltnp on the host, or choose another fabdjango.gunicorn.bind",
    ]
    assert "supervisord.conf" in answer(host, PORT + 4)[1]
    assert "taken-web" not in host.run("supervisorctl status", check=False).stdout
    assert host.run("ls /etc/supervisor/conf.d").stdout.split().count("taken.conf") == 0
    host.run(f"pkill -fx '{serve}'")
    place.deploy(host, good).ended()
    assert answer(host, PORT + 4) == (200, "good")


def test_a_program_file_of_somebody_else(place: Workplace, host: Machine, repository: Repository, good: str) -> None:
    """A file of the same name is refused before anything is made, and its program runs on."""
    host.write("/etc/supervisor/conf.d/theirs.conf", "[program:theirs]\ncommand=sleep 200000\n")
    host.run("supervisorctl update theirs")
    pid = program_pid(host, "theirs")
    place.configure(**site("theirs", repository.url))
    assert told(place.deploy(host, good).ended(1), host) == [
        "Error: /etc/supervisor/conf.d/theirs.conf is there and was not written by fabdjango",
        " state: nothing was changed (exit 1)",
        " do this: rename the file, or choose another fabdjango.project",
    ]
    assert host.run("cat /etc/supervisor/conf.d/theirs.conf").stdout == "[program:theirs]\ncommand=sleep 200000\n"
    assert host.run("ls /srv/theirs/releases /srv/theirs/venvs").stdout.split() == ["/srv/theirs/releases:", "/srv/theirs/venvs:"]  # fmt: skip
    assert program_pid(host, "theirs") == pid


def test_a_broken_program_file_of_somebody_else(place: Workplace, host: Machine, repository: Repository, good: str) -> None:  # fmt: skip
    """Supervisor then reads none at all: it is heard of before the switch, and what serves keeps its process."""
    place.configure(**site("beside", repository.url, PORT + 5))
    place.deploy(host, good).ended()
    before = state_of(host, "/srv/beside")
    host.write("/etc/supervisor/conf.d/zbroken.conf", "[program:zbroken]\ncommand=%(nonsense)s\n")
    try:
        outcome = place.deploy(host, small(repository, "better")).ended(1)
    finally:
        host.run("rm /etc/supervisor/conf.d/zbroken.conf")
    assert told(outcome, host)[-2:] == [
        " state: nothing that serves was touched (exit 1)",
        " do this: a program file of the host's supervisor is broken, its name stands above: mend it or move it away, then deploy again",
    ]
    assert "(file: '/etc/supervisor/conf.d/zbroken.conf')" in outcome.quoted
    assert state_of(host, "/srv/beside") == before
    assert answer(host, PORT + 5) == (200, "good")


@pytest.fixture(scope="module")
def serving(host: Machine, repository: Repository, good: str, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A site that serves a good commit, for deploys that are going to be taken back."""
    place = Workplace(tmp_path_factory.mktemp("serving") / "work")
    place.know(host)
    place.configure(**site("steady", repository.url, PORT + 6))
    place.deploy(host, good).ended()
    assert answer(host, PORT + 6) == (200, "good")
    return place


def test_a_program_that_does_not_stay_up(serving: Workplace, host: Machine, repository: Repository, tmp_path: Path) -> None:  # fmt: skip
    """A worker class that does not exist is only heard of when gunicorn starts, in the idle slot: exit 1, the old commit answers."""
    sha = small(repository, "dead on arrival")
    other = program_pid(host, "theirs") if "theirs" in host.run("supervisorctl status", check=False).stdout else ""
    gunicorn = {"bind": f"0.0.0.0:{PORT + 6}", "workers": 1, "worker_class": "no.such.Worker"}
    outcome = serving.deploy(host, sha, gunicorn=gunicorn).ended(1)
    error = told(outcome, host)
    assert error[:3] == [
        "Error: health failed",
        f" step: 2-{sha[:12]} answers / in slot b",
        " state: nothing that serves was touched (exit 1)",
    ]
    assert "no.such.Worker" in outcome.quoted
    assert answer(host, PORT + 6) == (200, "good")
    assert state_of(host, "/srv/steady").startswith("current: releases/1-")
    if other:
        assert program_pid(host, "theirs") == other
    serving.deploy(host, sha).ended()
    assert answer(host, PORT + 6) == (200, "dead on arrival")


def test_a_release_that_answers_with_an_error(serving: Workplace, host: Machine, repository: Repository) -> None:
    """It starts, and every page is an error 500: exit 1, and the release before it never stopped to answer."""
    before = answer(host, PORT + 6)
    small(repository, "broken")
    repository.write(
        "source/shop/urls.py", 'from django.urls import path\nurlpatterns = [path("", lambda request: 1 / 0)]\n'
    )
    outcome = serving.deploy(host, repository.commit("Break every page")).ended(1)
    error = told(outcome, host)
    assert error[0] == "Error: health failed"
    assert error[2:] == [
        " state: nothing that serves was touched (exit 1)",
        " do this: see the program's log, or set fabdjango.health",
    ]
    assert outcome.quoted.splitlines()[0] == "/ answers 500, not 200"
    assert answer(host, PORT + 6) == before


def test_a_commit_that_cannot_be_imported(serving: Workplace, host: Machine, repository: Repository) -> None:
    """It is heard of before the switch; exit 1, and no process was touched."""
    before = state_of(host, "/srv/steady")
    small(repository, "broken")
    repository.write("source/shop/urls.py", "import no_such_module\n")
    outcome = serving.deploy(host, repository.commit("Import nothing")).ended(1)
    assert told(outcome, host)[-1].endswith("nothing that serves was touched (exit 1)") or " do this: " in outcome.error
    assert "no_such_module" in outcome.quoted
    assert state_of(host, "/srv/steady") == before
