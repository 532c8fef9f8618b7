"""Both process managers on a real host: two slots, one held socket, processes, a reboot, and nobody else's programs."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from fabdjango.commands import managers
from fabdjango.commands.manager import Manager
from fabdjango.layout import Layout
from fabdjango.plan import Phase, Step
from fabdjango.script import EventParser, render_script
from tests.conftest import sample_facts, sample_settings, sample_templates

if TYPE_CHECKING:
    from typing_extensions import Self

    from tests.machines import Machine

PORT = 8000
BEAT = {"beat": {"command": "beat", "stop_timeout": 2, "startsecs": 1}}
LAYOUT = Layout(PurePosixPath("/srv/it's the blog"), "blog")
ROOT = LAYOUT.root
# What a deploy writes, as small as can be. A live slot listens at the held socket too.
STARTER = f"""#!/bin/sh
unset LISTEN_FDS LISTEN_PID LISTEN_FDNAMES
[ -e "{ROOT}/slots/$1" ] || exec sleep infinity
cd -P -- "{ROOT}/slots/$1" || exit
SOCKET="{ROOT}/run/$1.sock" FD=
[ "$(readlink "{ROOT}/run/current.sock")" != "$1.sock" ] || FD=$2
export SOCKET FD
exec /opt/gunicorn/bin/python -m gunicorn -c /srv/gunicorn.conf.py app
"""
# gunicorn takes nothing else once it is given a number.
GUNICORN = """
import contextlib, os, socket
workers, graceful_timeout, control_socket_disable = 2, 5, True
private = socket.socket(socket.AF_UNIX)
with contextlib.suppress(FileNotFoundError):
    os.unlink(os.environ["SOCKET"])
private.bind(os.environ["SOCKET"])
bind = [f"fd://{fd}" for fd in [os.environ["FD"], private.detach()] if fd != ""]
def on_starting(server):
    server.systemd = True
"""
APP = """
import os, time
def application(environ, start_response):
    time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.path.basename(os.getcwd()).encode()]
"""
# Says when it begins and ends, and takes its time with TERM if it is told to.
PROCESS = f"""#!/bin/sh
exec python3 -c '
import os, signal, sys, time
log = open("{ROOT.as_posix().replace("'", chr(39) + '"' + chr(39) + '"' + chr(39))}/shared/life", "a", buffering=1)
def end(*_):
    time.sleep(float(open("/srv/patience").read()))
    log.write("end %d %f\\n" % (os.getpid(), time.time())); os._exit(0)
signal.signal(signal.SIGTERM, end)
log.write("begin %d %f\\n" % (os.getpid(), time.time()))
while True: time.sleep(1)
'
"""


class Host:
    """One host, one manager: runs steps, and looks at what they did."""

    def __init__(self, machine: Machine, manager: str) -> None:
        self.machine = machine
        self.name = manager
        self.rebooted = False

    def manager(self, bind: str = f"0.0.0.0:{PORT}", **more: Any) -> Manager:
        """The manager of the site at an address, as the next deploy would find it."""
        given = {"manager": self.name, "gunicorn": {"bind": bind, "graceful_timeout": 5}, **more}
        settings = sample_settings(given)
        places = {str(path): {"text": self.read(str(path))} for path in managers.places(settings, LAYOUT)}
        facts = sample_facts(user="deploy", root=str(ROOT), systemd=True, managed=places)
        return managers.find(settings, facts, LAYOUT, sample_templates())

    def read(self, path: str) -> str | None:
        """Text of a file, or None."""
        found = self.machine.run(f'cat -- "{path}"', check=False)
        return found.stdout if found.returncode == 0 else None

    def do(self, *steps: Step | None, status: int = 0) -> dict[str, list[str]]:
        """Run steps as one script; what each said, by its name. Events other than output stand as ``kind: text``."""
        phase = Phase("test", tuple(step for step in steps if step))
        script = render_script(phase, run="R1", owner="deploy", login="root")
        done = self.machine.run("sh -s", given=script, check=False)
        said: dict[str, list[str]] = {}
        parser = EventParser("R1")
        name = ""
        for event in [*parser.feed(done.stdout.encode()), *parser.close()]:
            if event.kind == "begin":
                name = event.text
            elif event.kind == "output":
                said.setdefault(name, []).append(event.text)
            else:
                said.setdefault(name, []).append(f"{event.kind}: {event.text}")
        assert done.returncode == status, (said, done.stderr)
        return said

    def live(self, slot: str, release: str) -> None:
        """Let a slot have a release, and the traffic."""
        links = f"ln -sfn ../releases/{release} slots/{slot} && ln -sfn {slot}.sock run/current.sock && ln -sfn releases/{release} current"
        self.machine.run(f'cd "{ROOT}" && {links}', "deploy")

    def answers(self, slot: str) -> str:
        """What a slot answers on its private socket, once it does."""
        curl = f'curl -sf --unix-socket "{ROOT}/run/{slot}.sock" http://x/'
        return self.machine.run(f"n=0; until {curl} || [ $n = 200 ]; do n=$((n + 1)); sleep 0.05; done").stdout

    def life(self) -> list[tuple[str, str]]:
        """What the process has written down since the last time: begin or end, and pid."""
        path = f"{ROOT}/shared/life"
        # Its Python may still be starting.
        self.machine.run(f'n=0; until [ -s "{path}" ] || [ $n = 50 ]; do n=$((n + 1)); sleep 0.1; done')
        lines = (self.read(path) or "").splitlines()
        self.machine.run(f': > "{path}"')
        return [(word, pid) for word, pid, _ in map(str.split, lines)]

    def pids(self, pattern: str) -> list[str]:
        """The processes whose command line has a pattern of pgrep; in brackets, or the shell that asks would be one."""
        return self.machine.run(f"pgrep -f -- '[{pattern[0]}]{pattern[1:]}'", check=False).stdout.split()

    def masters(self) -> list[str]:
        """The processes of gunicorn that are no workers."""
        rows = [line.split() for line in self.machine.run("ps -eo pid=,ppid=,args=").stdout.splitlines()]
        parents = {pid: parent for pid, parent, *words in rows if "/opt/gunicorn/bin/python" in words}
        return sorted(pid for pid, parent in parents.items() if parent not in parents)


class Load:
    """Clients without keep-alive, for as long as the block lasts: what they were answered, and what failed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                connection = http.client.HTTPConnection(self.address, PORT, timeout=20)
                connection.request("GET", "/", headers={"Connection": "close"})
                self.answers[connection.getresponse().read().decode()] += 1
                connection.close()
            except (OSError, http.client.HTTPException) as error:  # noqa: PERF203 - a client goes on
                self.failures.append(repr(error))

    def wait_for(self, release: str) -> None:
        """Wait until a release has answered a few more times."""
        enough, deadline = self.answers[release] + 20, time.monotonic() + 20
        while self.answers[release] < enough and time.monotonic() < deadline:
            self._over.wait(0.02)
        assert self.answers[release] >= enough, (release, self.answers, self.failures[:3])

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def machine(bookworm: Machine) -> Machine:
    """The host with the releases of a site, and with programs of somebody else's."""
    bookworm.run("python3 -m venv /opt/gunicorn && /opt/gunicorn/bin/pip install -q gunicorn", timeout=300)
    bookworm.write(f"{ROOT}/releases/4-broken/empty", "")
    for release in ("1-one", "2-two", "3-three"):
        private = f"{ROOT}/releases/{release}/.fabdjango"
        bookworm.write(f"{ROOT}/releases/{release}/app.py", APP)
        bookworm.write(f"{private}/process-beat", PROCESS, 0o755)
        bookworm.write(f"{private}/process-other", "exec sleep infinity", 0o755)
    bookworm.write(f"{ROOT}/run/slot", STARTER, 0o755)
    bookworm.write("/srv/gunicorn.conf.py", GUNICORN)
    bookworm.write("/srv/patience", "0")
    bookworm.run(f'mkdir -p "{ROOT}/slots" "{ROOT}/shared" && chown -R deploy: "{ROOT}"')
    bookworm.write("/etc/supervisor/conf.d/blog-theirs.conf", "[program:blog-theirs]\ncommand=sleep 7777\n")
    bookworm.run("supervisorctl update blog-theirs")
    bookworm.write("/etc/systemd/system/blog-theirs.service", "[Service]\nExecStart=/bin/sleep 8888\n")
    bookworm.run("systemctl daemon-reload && systemctl start blog-theirs")
    return bookworm


@pytest.fixture(params=["supervisor", "systemd"])
def host(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Host]:
    """A host without the site; nothing of it is left, and others' programs have run on."""
    host = Host(machine, request.param)
    machine.run("rm -f /srv/it*/shared/life")
    theirs = host.pids("sleep 7777") + host.pids("sleep 8888")
    yield host
    if not host.rebooted:
        assert host.pids("sleep 7777") + host.pids("sleep 8888") == theirs
    end = host.manager(processes={**BEAT, "other": {"command": "other"}})
    host.do(end.stop())
    host.do(end.restore((None,) * len(end.files)))
    machine.run("supervisorctl update >/dev/null; rm -rf /srv/it*/slots/? /srv/it*/run/*.sock")
    assert host.masters() == []


def test_a_deploy_loses_no_request_at_a_held_socket(host: Host) -> None:
    """The new slot starts beside the old one, is made live, and the old one is stopped: every request is answered."""
    manager = host.manager()
    assert manager.held
    host.live("a", "1-one")
    host.do(*manager.install(), manager.check(), manager.configure(), manager.start_slot("a"))
    assert host.answers("a") == "1-one"
    with Load(host.machine.address) as load:
        load.wait_for("1-one")
        manager = host.manager()
        assert host.do(manager.configure())["configure"] == ["unchanged: as before", "end: 0"]
        host.machine.run(f'ln -sfn ../releases/2-two "{ROOT}/slots/b"', "deploy")
        host.do(manager.start_slot("b"))
        assert host.answers("b") == "2-two"
        host.live("b", "2-two")
        host.do(manager.start_slot("b", name="live"))
        load.wait_for("2-two")
        said = host.do(manager.stop_slot("a"), manager.stop_slot("a", name="again"))
        assert "unchanged: not running" in said["again"]
        load.wait_for("2-two")
    assert load.failures == []


def test_the_only_slot_is_exchanged_after_two_were_used(host: Host) -> None:
    """Nothing sleeps in the other slot any more, whose program would keep the socket open: it is woken first."""
    host.live("a", "1-one")
    manager = host.manager()
    host.do(manager.configure(), manager.start_slot("a"), manager.stop_slot("b"))
    assert host.answers("a") == "1-one"
    assert not host.pids("infinity")
    with Load(host.machine.address) as load:
        load.wait_for("1-one")
        host.do(manager.stop_slot("a"))
        host.machine.run(f'ln -sfn ../releases/2-two "{ROOT}/slots/a"', "deploy")
        host.do(manager.start_slot("a"))
        load.wait_for("2-two")
    assert load.failures == []


def test_a_process_is_never_there_twice(host: Host) -> None:
    """It is stopped to its end before it is started: with TERM, and with KILL when its time is over; then taken away."""
    host.live("a", "1-one")
    manager = host.manager(processes={**BEAT, "other": {"command": "other"}})
    host.do(manager.configure(), manager.start_slot("a"), manager.restart_processes())
    ((word, first),) = host.life()
    assert word == "begin"
    assert host.pids("infinity")

    manager = host.manager(processes=BEAT)
    web = host.masters()
    host.do(manager.configure(), manager.restart_processes())
    (ended, (word, second)) = host.life()
    assert (ended, word) == (("end", first), "begin")
    host.machine.write("/srv/patience", "60")
    begun = time.monotonic()
    host.do(manager.restart_processes())
    ((word, third),) = host.life()
    assert word == "begin"
    assert host.machine.run(f"! kill -0 {second}", check=False).returncode == 0
    assert 2 < time.monotonic() - begun < 40, "not as long as the process would have taken"
    host.machine.write("/srv/patience", "0")

    manager = host.manager(processes={})
    host.do(manager.configure())
    assert f"{third}" in host.pids("life")
    host.do(manager.restart_processes() or manager.status())
    assert host.life() == [("end", third)]
    assert host.masters() == web, "gunicorn goes on"


def test_a_release_that_cannot_start_harms_nothing(host: Host) -> None:
    """It dies again and again beside the one that serves, and is taken away."""
    manager = host.manager()
    host.live("a", "1-one")
    host.do(manager.configure(), manager.start_slot("a"))
    assert host.answers("a") == "1-one"
    host.machine.run(f'ln -sfn ../releases/4-broken "{ROOT}/slots/b"', "deploy")
    with Load(host.machine.address) as load:
        load.wait_for("1-one")
        script = render_script(Phase("test", (manager.start_slot("b"),)), run="R1", owner="deploy", login="root")
        host.machine.run("sh -s", given=script, check=False)
        for _ in range(8):
            load.wait_for("1-one")
        host.do(manager.stop_slot("b"))
        assert any("app" in line for line in host.do(manager.tail())["log"])
        load.wait_for("1-one")
    assert load.failures == []


@pytest.mark.nightly
def test_another_way_of_binding(host: Host) -> None:
    """From a held socket to a symlink and back: the old one serves where it did until it is stopped, also if the new one is not kept."""
    host.live("a", "1-one")
    before = host.manager()
    host.do(before.configure(), before.start_slot("a"))
    assert host.answers("a") == "1-one"
    web = host.masters()
    after = host.manager(bind="", nginx={"domains": ["blog.example.com"]})
    assert (bool(before.held), after.held) == (True, "")
    host.machine.run(f'ln -sfn ../releases/2-two "{ROOT}/slots/b"', "deploy")

    def public() -> str:
        return host.machine.run(f"curl -s http://127.0.0.1:{PORT}/", check=False).stdout

    # The way back.
    previous = tuple(
        put if put in before.files else next((each for each in before.files if each.path == put.path), None)
        for put in after.files
    )
    host.do(after.configure(), after.start_slot("b"))
    assert (host.answers("b"), public()) == ("2-two", "1-one")
    host.do(after.stop_slot("b"), after.restore(previous))
    assert (public(), host.masters()) == ("1-one", web)
    # The way there.
    host.do(after.configure(), after.start_slot("b"))
    host.live("b", "2-two")
    assert host.answers("b") == "2-two"
    host.do(after.stop_slot("a"))
    host.machine.run(f'rm "{ROOT}/slots/a"')
    assert public() == "", "nobody listens at the old address any more"
    assert host.answers("b") == "2-two"
    # And back to the port; the one that serves must not start a second time in its new group.
    web = host.masters()
    host.machine.run(f'ln -sfn ../releases/3-three "{ROOT}/slots/a"', "deploy")
    again = host.manager()
    host.do(again.configure(), again.start_slot("a"))
    assert (host.answers("a"), host.answers("b")) == ("3-three", "2-two")
    assert set(web) <= set(host.masters())
    host.live("a", "3-three")
    host.do(again.start_slot("a"))
    host.do(again.stop_slot("b"))
    host.machine.run(f'rm "{ROOT}/slots/b"')
    assert (host.answers("a"), public()) == ("3-three", "3-three")


def test_the_host_boots_with_the_live_slot(host: Host) -> None:
    """What served serves again; the other slot stays empty."""
    manager = host.manager(processes=BEAT)
    host.live("b", "2-two")
    host.do(manager.configure(), manager.start_slot("b"), manager.restart_processes())
    host.life()
    host.machine.reboot()
    host.rebooted = True
    assert host.answers("b") == "2-two"
    assert not host.pids("slots/a")
    assert [word for word, _ in host.life() if word == "begin"] == ["begin"]
    assert host.do(manager.start("", "b"))["start"][0] == "unchanged: already started"
    host.do(manager.stop())
    assert host.do(manager.stop())["stop"][0] == "unchanged: not running"
    assert host.do(manager.start("", "b"))["start"][0] != "unchanged: already started"
    assert host.answers("b") == "2-two"
    assert "2-two" in host.machine.run(f"curl -s --retry 9 --retry-all-errors http://127.0.0.1:{PORT}/").stdout


def test_a_unit_that_systemd_does_not_know_is_not_installed(machine: Machine) -> None:
    """The check names the file and the line."""
    host = Host(machine, "systemd")
    said = host.do(host.manager(systemd={"options": {"MemoryMux": "512M"}}).check(), status=90)
    assert any("blog-web@.service" in line and "MemoryMux" in line for line in said["manager-check"])
