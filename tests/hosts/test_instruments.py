"""
The instruments themselves, on a site that a few lines of shell deploy: they pass what is right and catch what is wrong.

Each bug here is one that a deploy tool has had; whoever weakens an instrument finds the test of it red.
"""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.hosts import faults, invariants, shop
from tests.hosts.faults import NotHit
from tests.hosts.invariants import Managed, Site, Watch
from tests.hosts.load import LIGHT, Load, Profile
from tests.hosts.shop import CANARY, DOMAIN, ROOT, Release, Shop
from tests.hosts.workplace import Outcome, Running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.hosts.workplace import Daemon
    from tests.machines import Machine

#: All kinds of clients, with posts and long requests that fit into a test.
BRIEF = Profile({"fresh": (3, 0.03, 0.1), "kept": (1, 0.03, 0.1), "post": (1, 0.1, 0.0), "slow": (2, 0.1, 1.0)}, 16, 80, 1.0, 1.5)  # fmt: skip

NGINX = f"""\
server {{
    listen 80;
    server_name {DOMAIN};
    location / {{ proxy_pass http://unix:{ROOT}/run/current.sock:; proxy_set_header Host $host; proxy_read_timeout 60; }}
}}
"""
UNIT = """\
[Service]
User=deploy
ExecStart=/bin/sh {root}/run/slot {slot}
TimeoutStopSec=30
KillMode=mixed
"""
# The release's folder is entered by its real name: the process never sees the links change.
SLOT = f"""\
cd "$(readlink -f {ROOT}/slots/$1)" && . .fabdjango/env
exec /opt/standin/bin/python -m gunicorn shop.wsgi --workers 2 --threads 12 --bind unix:{ROOT}/run/$1.sock --no-control-socket
"""
SWAP = "ln -s {target} {root}/.new.link && mv -fT {root}/.new.link {link}"
#: What a deployer's script on the host does at its pause.
WAIT = f"mkdir -p {ROOT}/run; touch {ROOT}/run/paused; while [ -e {ROOT}/run/paused ]; do sleep 0.05; done"


class Standin:
    """A site in two slots behind nginx, and the shell that deploys it well, or badly."""

    def __init__(self, machine: Machine, shop: Shop) -> None:
        self.machine = machine
        self.shop = shop
        self.site = Site(machine, ROOT, DOMAIN, shop.repository.bare)
        self.counter = 0
        self.live = "b"
        self.ids: list[str] = []

    def install(self) -> None:
        """Make the host ready."""
        run = self.machine.run
        shop.furnish(self.machine)
        run("/opt/uv/bin/uv venv -q /opt/standin && /opt/uv/bin/uv pip install -q --python /opt/standin 'Django<5.3' gunicorn", timeout=200)  # fmt: skip
        for version in (1, 2):
            run(f"python3 -m zipfile -e {shop.WHEELS}/shopdep-{version}-py3-none-any.whl /opt/dep/{version}")
        run(f"install -d -o deploy {' '.join(f'{ROOT}/{name}' for name in ('', 'run', 'slots', 'releases', 'venvs', 'shared', 'shared/data'))}")  # fmt: skip
        self.machine.write(f"{ROOT}/run/slot", SLOT)
        self.machine.write("/etc/nginx/conf.d/shop.conf", NGINX)
        for slot in "ab":
            self.machine.write(f"/etc/systemd/system/shop-web-{slot}.service", UNIT.format(root=ROOT, slot=slot))
        run("systemctl daemon-reload; systemctl start nginx")

    def prepare(self, release: Release) -> str:
        """Make a release ready; its id."""
        self.counter += 1
        name = f"{self.counter}-{release.sha[:12]}"
        folder = f"{ROOT}/releases/{name}"
        archive = subprocess.run(
            ["git", "-C", self.shop.repository.bare, "archive", release.sha], capture_output=True, check=True
        )
        environment = f"{self.shop.environment(release)}FABDJANGO_RELEASE={name}\nPYTHONPATH=/opt/dep/{release.dep}\nDJANGO_SETTINGS_MODULE=shop.settings\n"
        self.machine.write(f"{folder}/.fabdjango/env", f"set -a\n{environment}set +a\n", 0o600)
        self.machine.run(f"chown -R deploy: {folder}")
        script = f"""
            set -eu; cd {folder}; base64 -d | tar -x
            rm -rf data; ln -s {ROOT}/shared/data data
            chmod 700 .fabdjango
            . .fabdjango/env
            [ -e {ROOT}/shared/data/db.sqlite3 ] || /opt/standin/bin/python manage.py migrate -v0
            /opt/standin/bin/python manage.py collectstatic --noinput -v0
            echo /opt/standin > .fabdjango/venv; echo {{}} > .fabdjango/release.json
        """
        self.machine.run(script, user="deploy", given=base64.b64encode(archive.stdout).decode())
        self.ids.append(name)
        return name

    def deploy(self, release: Release) -> str:
        """As it should be: the idle slot, asked until it answers, two renames, the old one stopped once it is idle."""
        name = self.prepare(release)
        self.activate(name)
        return name

    def activate(self, name: str) -> None:
        """Let a slot with this release take over."""
        old, new = self.live, "a" if self.live == "b" else "b"
        ask = f"curl -sf --unix-socket {ROOT}/run/{new}.sock -H 'Host: {DOMAIN}' http://x/ | grep -q '^HEAD {name} '"
        self.machine.run(f"""
            set -eu; cd {ROOT}
            {SWAP.format(root=ROOT, target=f"../releases/{name}", link=f"slots/{new}")}
            systemctl restart shop-web-{new}
            timeout 30 sh -c {shlex.quote(f"until {ask}; do sleep 0.1; done")}
            {SWAP.format(root=ROOT, target=f"releases/{name}", link="current")}
            {SWAP.format(root=ROOT, target=f"{new}.sock", link="run/current.sock")}
            # The third number of a listening socket is its state, and there is a row for each waiting connection.
            timeout 10 sh -c 'sleep 0.2; while [ "$(ss -xl src {ROOT}/run/{old}.sock | awk "NR > 1 {{print \\$3}}" | head -1)" -gt 0 ] 2>/dev/null; do sleep 0.1; done'
            systemctl stop shop-web-{old}
        """)
        self.live = new


@pytest.fixture(scope="module")
def host() -> Iterator[Machine]:
    """A host of this file's own: its power is cut, and its disk is full."""
    booted = machines.up(1, "bookworm", "prepared", "inst")
    yield booted[0]
    machines.down(booted)


@pytest.fixture(scope="module")
def standin(host: Machine, daemon: Daemon) -> Standin:
    """The stand-in site with one release that serves."""
    made = Standin(host, Shop(daemon.repository("standin")))
    made.install()
    made.deploy(made.shop.next())
    return made


@pytest.fixture
def site(standin: Standin) -> Site:
    """Where the stand-in site is."""
    return standin.site


# --- what is right -----------------------------------------------------------


def test_a_good_deploy_passes_every_instrument(standin: Standin, site: Site) -> None:
    """Code, dependency, setting, static file and schema change under load: nothing is found, and much was looked at."""
    old = site.serving()
    managed = Managed(site.machine, ("/etc/nginx/conf.d/*", "/etc/systemd/system/shop-*"))
    with Watch(site, [CANARY]) as watch, Load(site.machine, DOMAIN, BRIEF) as load:
        release = standin.shop.next(dep=True, setting=True, static=True)
        standin.deploy(release)
        standin.deploy(standin.shop.next(dep=True))
    report = load.report()
    assert [report.failures, report.mixed(standin.shop.mixed), watch.violations()] == [[], [], []], str(report)
    assert report.total > 300
    assert {line.split()[0] for line in report.lines} == {old, *standin.ids[-2:]}
    assert min(len([each for each in report.requests if each.kind == kind]) for kind in BRIEF.kinds) > 2
    assert watch.rate > 300, watch.worst
    print(watch.rate, watch.worst, report)
    assert watch.targets() == [f"releases/{name}" for name in (old, *standin.ids[-2:])]
    assert managed.torn(Managed(site.machine, managed.paths)) == []
    assert [invariants.orphans(site, 10), invariants.files(site), invariants.temporaries(site)] == [[], [], []]
    assert invariants.exit_code(site, 0, f"deployed: {site.serving()}", old=old, sha=site.serving()[-12:]) == []
    assert invariants.secrets(site, CANARY, ["all went well"]) == []


# --- seeded bugs -------------------------------------------------------------


def test_a_link_that_is_made_anew_is_caught(site: Site) -> None:
    """What older ln -sfn does: unlink, then symlink; each time is seen, however short it was."""
    target = f"releases/{site.current()}"
    with Watch(site) as watch:
        site.machine.run(f"cd {ROOT}; for n in $(seq 50); do rm -f current; ln -s {target} current; done")
    assert "I2: current was removed 50 times" in watch.violations()


def test_a_link_that_dangles_is_caught(site: Site) -> None:
    """A link to what is not there."""
    target = site.machine.run(f"readlink {ROOT}/run/current.sock").stdout.strip()
    swap = SWAP.format(root=ROOT, target="{}", link=f"{ROOT}/run/current.sock")
    with Watch(site) as watch:
        site.machine.run(f"{swap.format('c.sock')}; sleep 0.1; {swap.format(target)}")
    assert re.match(r"I2: run/current.sock was dangling \d+ times", watch.violations()[0])


def test_a_restart_loses_requests_and_each_is_told(standin: Standin, site: Site) -> None:
    """A slot that is restarted on its own socket refuses what comes meanwhile; every kind of client notices."""
    with Load(site.machine, DOMAIN, BRIEF) as load:
        began = time.time()
        site.machine.run(f"systemctl restart shop-web-{standin.live}; sleep 2")
    report = load.report()
    assert any(each.wrong.startswith("status 502") and each.begun >= began - 3 for each in report.requests), str(report)
    assert any("status 502" in line for line in report.failures if line.startswith("wrk"))


def test_new_code_with_old_dependencies_is_caught(standin: Standin, site: Site) -> None:
    """What HUP does after the link was swapped: the process lives on with its old path and imports the new code."""
    name = standin.prepare(standin.shop.next(dep=True))
    slot = f"cd {ROOT}/current && . .fabdjango/env\nexec /opt/standin/bin/python -m gunicorn shop.wsgi --chdir {ROOT}/current --bind unix:{ROOT}/run/$1.sock --no-control-socket\n"
    site.machine.write(f"{ROOT}/run/slot", slot)
    site.machine.run(f"systemctl restart shop-web-{standin.live}")
    wait_for(lambda: site.serving() == site.current(), 10)
    try:
        with Load(site.machine, DOMAIN, replace(LIGHT, wrk=4)) as load:
            site.machine.run(f"{SWAP.format(root=ROOT, target=f'releases/{name}', link=f'{ROOT}/current')}; systemctl kill -s HUP --kill-whom=main shop-web-{standin.live}; sleep 2")  # fmt: skip
    finally:
        site.machine.write(f"{ROOT}/run/slot", SLOT)
        standin.activate(name)
    report = load.report()
    assert report.mixed(standin.shop.mixed) != []
    assert any("mixed" in line for line in report.failures)


def test_a_half_release_is_caught(standin: Standin, site: Site) -> None:
    """A file too few, one too many, one changed, no marker."""
    folder = f"{ROOT}/releases/{site.current()}"
    site.machine.run(
        f"cd {folder}; mv shop/urls.py shop/u.py; echo >> manage.py; mv .fabdjango/release.json .fabdjango/r"
    )
    wrong = invariants.files(site)
    site.machine.run(
        f"cd {folder}; mv shop/u.py shop/urls.py; sed -i '$d' manage.py; mv .fabdjango/r .fabdjango/release.json"
    )
    name = site.current()
    assert wrong == [
        f"I2: {name} has no marker",
        f"I2: {name}/shop/urls.py is missing",
        f"I2: {name}/manage.py differs from the commit",
        f"I2: {name}/shop/u.py is not in the commit",
    ]
    assert invariants.files(site) == []


def test_a_lock_that_is_a_file_is_caught(standin: Standin, site: Site) -> None:
    """Killed while it held its lock, the deployer leaves the file, and the next deploy is refused; with flock it is not."""
    release = standin.shop.releases[site.current()[-12:]]
    by_file = f"[ ! -e {ROOT}/run/lock ] || {{ echo locked >&2; exit 1; }}; touch {ROOT}/run/lock; pause; for n in $(seq 20); do echo; sleep 0.05; done; rm {ROOT}/run/lock; echo {site.current()}"
    by_flock = f"exec 9>{ROOT}/run/flock; flock -n 9 || {{ echo locked >&2; exit 1; }}; pause; echo {site.current()}"
    wrong = []
    for script in (by_file, by_flock):
        faults.hit(site, Ssh(site, script), faults.sigkill, "during:lock")
        wrong.append(invariants.next_deploy(site, Ssh(site, script).whole, release.sha))
    site.machine.run(f"rm -f {ROOT}/run/lock")
    assert wrong == [["I3: the next deploy ended with 1: locked"], []]


def test_a_rollback_to_the_last_touched_release_is_caught(standin: Standin, site: Site) -> None:
    """By time of change, the newest one beside the current is not always the one that served before."""
    proven = site.serving()
    standin.deploy(standin.shop.next())
    standin.activate(proven)
    latest = standin.deploy(standin.shop.next())
    site.machine.run(f"touch {ROOT}/releases/{standin.ids[0]}")
    guess = site.machine.run(f"ls -t {ROOT}/releases | grep -vFx {latest} | head -1").stdout.strip()
    standin.activate(guess)
    assert invariants.rolled_back(site, Outcome(0, "", "", 0.0), to=proven) == [
        f"I8: after the rollback {guess} answers, not {proven}"
    ]
    standin.activate(proven)
    assert invariants.rolled_back(site, Outcome(0, "", "", 0.0), to=proven) == []


def test_exit_codes_that_lie_are_caught(site: Site) -> None:
    """0 after a revert, 1 or 3 though the new one serves, 2 without a name, a number that means nothing."""
    old, sha, other = site.serving(), "0123456789abcdef", site.serving()[-12:]
    told = [invariants.exit_code(site, code, f"deployed: 9-{sha[:12]}", old=old, sha=sha) for code in (0, 1, 2, 3, 7)]
    assert told == [
        [f"I7: exit 0, but {old} answers"],
        [],
        ["I7: exit 2, and the host is not named"],
        [],
        ["I7: exit 7 means nothing"],
    ]
    assert invariants.exit_code(site, 3, "", old="1-000000000000", sha=other) == [
        f"I7: exit 3, but the new release answers: {old}"
    ]
    assert invariants.exit_code(site, 0, "it went well", old="", sha=other) == [
        "I7: exit 0, but the last line does not name the release: 'it went well'"
    ]


def test_two_writers_and_an_orphan_are_caught(site: Site) -> None:
    """Two sessions write into the site at once, and one leaves a process behind."""
    script = f"exec 3>{ROOT}/releases/.of-$$; pause; (exec 3>&-; cd {ROOT}/releases; exec sleep 4) > /dev/null 2>&1 & rm -f {ROOT}/releases/.of-*"
    one, two = Ssh(site, script), Ssh(site, script)
    with Watch(site) as watch:
        running = [one(), two()]
        assert wait_for(lambda: len(site.machine.run(f"ls {ROOT}/releases/.of-*", check=False).stdout.split()) == 2, 10)
        assert wait_for(lambda: site.machine.run(f"test -e {ROOT}/run/paused", check=False).returncode == 0, 10)
        site.machine.run("sleep 0.3")
        site.machine.run(f"rm {ROOT}/run/paused")
        assert [each.wait(20).code for each in running] == [0, 0]
    left = invariants.orphans(site, 0.5)
    assert any(wrong.startswith("I4: two writers at once") for wrong in watch.violations())
    assert any("sleep 4" in wrong and wrong.endswith("nobody's") for wrong in left), left
    assert invariants.orphans(site, 20) == []


def test_a_secret_is_found_wherever_it_lies(site: Site) -> None:
    """On a command line, in what fab said, in a log, in a file that everybody can read; not in one of the owner's."""
    with Watch(site, [CANARY]) as watch:
        site.machine.run(f"sh -c 'sleep 0.5' {CANARY}")
    assert any(wrong.startswith("I9: a secret on a command line") for wrong in watch.violations())
    site.machine.write("/var/log/some.log", CANARY)
    site.machine.write(f"{ROOT}/shared/open", CANARY)
    site.machine.write(f"{ROOT}/shared/closed", CANARY, 0o640)
    found = invariants.secrets(site, CANARY, [f"Error: {CANARY}"])
    site.machine.run(f"rm /var/log/some.log {ROOT}/shared/open {ROOT}/shared/closed")
    assert [wrong.partition(" …")[0] for wrong in found if "lines of the system" not in wrong and "/journal/" not in wrong] == [
        "I9: the secret is in what fab said:",
        "I9: the secret is in /var/log/some.log",
        f"I9: everybody can read the secret in {ROOT}/shared/open",
    ]  # fmt: skip


def test_migrations_that_do_not_agree_are_caught(site: Site) -> None:
    """A migration that is in the database and not in the journal, or the other way round."""
    journal = f"{ROOT}/journal.jsonl"
    entry = '{"event": "migrate", "result": "applied", "migrations": ["items.0001_initial"]}'
    assert invariants.migrations(site) == ["I6: the journal tells of [], the database has ['items.0001_initial']"]
    site.machine.write(journal, f"{entry}\n")
    assert invariants.migrations(site) == []
    site.machine.write(journal, f"{entry}\n{entry[:40]}")
    assert invariants.migrations(site)[0].startswith("I6: line 2 of the journal is no JSON")
    site.machine.run(f"rm {journal}")


def test_too_many_releases_are_caught(site: Site) -> None:
    """Old releases and virtualenvs that nobody uses."""
    site.machine.run(f"mkdir {ROOT}/venvs/unused {ROOT}/releases/9{{0,1,2}}-000000000000", check=False)
    site.machine.run(f"mkdir -p {ROOT}/releases/90-000000000000")
    found = invariants.releases(site, 1)
    site.machine.run(f"rm -rf {ROOT}/venvs/unused {ROOT}/releases/9*-000000000000 {ROOT}/releases/9{{0,1,2}}*")
    assert [wrong.partition(":")[0] for wrong in found] == ["I10", "I10"]


# --- faults ------------------------------------------------------------------


class Ssh:
    """A deployer of one script, on stock ssh; `pause` in it is where it waits, as the product's hook does."""

    def __init__(self, site: Site, script: str) -> None:
        self.site = site
        self.script = script

    def __call__(self, **_: str) -> Running:
        """Start it; with our variable in the environment it stops at its pause."""
        machine = self.site.machine
        options = (f"UserKnownHostsFile={machine.known_hosts}", "BatchMode=yes", "ServerAliveInterval=2", "ServerAliveCountMax=2")  # fmt: skip
        words = ["ssh", "-F", "none", "-i", str(machine.key), *(word for each in options for word in ("-o", each))]
        pause = f"pause() {{ {WAIT}; }}"
        folder = machine.place / f"ssh-{time.monotonic_ns()}"
        folder.mkdir()
        (folder / "script").write_text(f"{pause}\n{self.script}\n")
        with (folder / "script").open() as script, (folder / "out").open("wb") as out, (folder / "error").open("wb") as error:  # fmt: skip
            process = subprocess.Popen([*words, f"deploy@{machine.address}", 'sh -c "$(cat)"'], stdin=script, stdout=out, stderr=error)  # fmt: skip
        return Running(process, folder)

    def whole(self) -> Outcome:
        """Run it to its end, without a pause."""
        script = self.script.replace("pause;", ":;")
        return Ssh(self.site, script)().wait(60)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["kill -9", "SIGINT", "SIGTERM", "link down", "link down 5 s", "kill sshd", "kill step", "kill script"])  # fmt: skip
def test_a_fault_proves_that_it_hit(site: Site, name: str) -> None:
    """The deployer meets the fault at its pause, the proof says so, and the host is whole and quiet afterwards."""
    done = faults.hit(site, Ssh(site, "sh -c 'pause() { " + WAIT.replace("'", "") + "; }; pause; echo step'; echo all"), faults.FAULTS[name], "during:step")  # fmt: skip
    assert done.proof[0] == "paused during:step"
    assert len(done.proof) == 2, done.proof
    assert done.busy == []
    code, output = {"kill -9": (-9, ""), "kill step": (0, "all\n")}.get(name, (done.outcome.code, done.outcome.output))
    assert (done.outcome.code, done.outcome.output) == (code, output)
    assert site.ask()[0] == 200


def test_a_fault_that_does_not_hit_is_no_result(site: Site) -> None:
    """A deploy that ends before the moment, and a disk that is not there to be cut off."""
    with pytest.raises(NotHit, match="fab ended first, with 3"):
        faults.hit(site, Ssh(site, "exit 3"), faults.sigkill, "before:never")
    with pytest.raises(NotHit, match="power_cut left no trace"):
        faults.hit(site, Ssh(site, "pause; echo"), faults.power_cut, "before:never")


@pytest.mark.nightly
def test_disks_fill_up_and_lose_what_was_never_synced(site: Site, tmp_path: Path) -> None:
    """A file written in place is truncated on a full disk, and told; after a power cut an unsynced file is gone."""
    machine = site.machine
    disk = faults.Disk(machine, 40, 500).attach()
    try:
        machine.write(f"{ROOT}/settings.py", "GOOD = 1\n" * 900)
        machine.run(f"mkdir -p {ROOT}/run; touch {ROOT}/run/x; chown -R deploy: {ROOT}; sync")
        before = Managed(machine, (f"{ROOT}/settings.py",))
        script = f"pause; yes BETTER | head -c 9000 > {ROOT}/settings.py"
        for fault, free in ((faults.fill_disk, 0), (faults.fill_inodes, 1)):
            done = faults.hit(site, Ssh(site, script), fault, "before:settings")
            assert done.proof[1].startswith("ENOSPC after "), done.proof
            assert ("No space left" in done.outcome.error) is (free == 0)
            machine.run("sync; test ! -e /srv/filler; test ! -e /srv/fillers")
            if free == 0:
                wrong = before.torn(Managed(machine, ()))
                assert [each.partition(": ")[2].partition(" is neither")[0] for each in wrong] == [
                    f"{ROOT}/settings.py"
                ]
        assert min(disk.free()) > 100
        done = faults.hit(site, Ssh(site, f"echo lost > {ROOT}/unsynced; echo kept > {ROOT}/synced; sync {ROOT}/synced; rm -f {ROOT}/run/x; pause"), faults.power_cut, "during:settings", disk=disk)  # fmt: skip
        assert "booted anew from /dev/loop" in done.proof[1]
        assert machine.run(f"cd {ROOT}; ls synced; cat unsynced", check=False).stdout == "synced\n"
    finally:
        disk.detach()
