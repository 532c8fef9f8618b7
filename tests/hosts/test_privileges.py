"""
Deployments of an account that may run a list of programs as root and nothing else, of an application with an account of its own.

Every run does it with supervisor, the nightly one with systemd too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.hosts import faults, invariants
from tests.hosts.faults import FAULTS
from tests.hosts.shop import ROOT, Broken, Shop, Stage
from tests.hosts.workplace import Workplace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts.workplace import Daemon, Outcome

APP = "www-shop"


@pytest.fixture(scope="module", params=["supervisor", pytest.param("systemd", marks=pytest.mark.nightly)])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The shop, where deploy may do as root what root has listed, and the application is another account."""
    manager = request.param
    machine = machines.up(1, "bookworm", "prepared", f"p{manager[:4]}")[0]
    try:
        daemon: Daemon = request.getfixturevalue("daemon")
        shop = Shop(daemon.repository(f"privileges-{manager}"))
        made = Stage(machine, Workplace(tmp_path_factory.mktemp("privileges") / "work"), shop, manager)
        made.install()
        configure(made)
        refused = made.deploy(shop.next())
        assert refused.code == 1
        assert f"the host has no account {APP}, which is to run the application" in refused.error
        machine.run(f"adduser --quiet --system --group {APP}; adduser --quiet deploy {APP}")
        machine.run(f"chgrp -R {APP} {ROOT}/shared/data; chmod -R g+w {ROOT}/shared/data")
        made.deploy(shop.next()).ended()
        as_root(made, "server.sudoers", "--install").ended()
        machine.run("rm /etc/sudoers.d/deploy")
        assert machine.run("su deploy -c 'sudo -n true'", check=False).returncode == 1
        yield made
    finally:
        machines.down([machine])


def configure(stage: Stage, **more: object) -> None:
    """The settings of every test here."""
    jobs = {"who": {"shell": 'id -un >> data/who; echo "it is $(id -un)"', "at": "*:*:0/5"}}
    # Supervisor would need cron on the host, which tests/hosts/test_schedule.py brings.
    schedule = {"schedule": jobs} if stage.manager == "systemd" else {}
    stage.configure(run_as=APP, activation={"confirm": 6, "drain": 5}, **{**schedule, **more})


def as_root(stage: Stage, *task: str) -> Outcome:
    """Run a task on the host, logged in as root."""
    return stage.workplace.fab("-i", str(stage.machine.key), "-H", f"root@{stage.machine.address}", *task)


def accounts(stage: Stage) -> set[str]:
    """Who runs what the site consists of."""
    said = stage.machine.run("ps -eo user:20,args | grep -E '[g]unicorn -c|[w]orker.py$'").stdout
    return {line.split()[0] for line in said.splitlines()}


def test_the_list_is_installed_once(stage: Stage) -> None:
    """A second time nothing changes; the list shows what sudo says, and nothing that takes an argument of its own choice."""
    again = as_root(stage, "server.sudoers", "--install").ended()
    assert "unchanged" in again.output
    shown = stage.fab("server.sudoers").ended().output
    allowed = stage.machine.run("su deploy -c 'sudo -n -l'").stdout
    listed = [line.split()[-1] for line in allowed.splitlines() if "NOPASSWD" in line]
    assert listed
    assert all(path.startswith("/opt/fabdjango/root/") and path in shown for path in listed)
    assert shown.count("NOPASSWD") == len(listed)


def test_deploy_rollback_restart_and_status(stage: Stage) -> None:
    """All that a deployment does, with these programs alone; the application is who it should be."""
    configure(stage)
    before = stage.site.serving()
    release = stage.shop.next(dep=True, setting=True, static=True, migration=True)
    stage.deploy(release).ended()
    assert stage.site.serving().endswith(release.sha[:12])
    assert accounts(stage) == {APP}
    assert stage.site.ask("/items?add=one") == (200, "1")
    stage.fab("restart").ended()
    assert accounts(stage) == {APP}
    stage.fab("status").ended()
    assert stage.fab("rollback", "--code-only").code == 0
    assert stage.site.serving() == before
    assert invariants.settled(stage.site) == []


def test_a_check_needs_no_more(stage: Stage) -> None:
    """What only root may see is left out; root sees it, and Django starts as the application then."""
    configure(stage)
    stage.whole()
    configure(stage)
    said = stage.fab("check").ended().output
    assert re.search(
        r"^note     sudo: sudo allows deploy a list of commands: \d+ programs in /opt/fabdjango/root$",
        said,
        re.MULTILINE,
    )
    assert said.splitlines()[-1].startswith("0 errors, ")
    said = as_root(stage, "check").ended().output
    assert re.search(r"^ok       database: the database default \(sqlite .*\) can be written", said, re.MULTILINE)
    assert re.search(r"^ok       nginx-file: ", said, re.MULTILINE)


def test_jobs(stage: Stage) -> None:
    """The clock starts them as the application, and so may the owner of the site; their output needs a group, and says so."""
    configure(stage)
    if stage.manager == "supervisor":
        assert stage.fab("schedule.list").ended().output.startswith("no jobs on ")
        return
    stage.machine.run(f"rm -f {ROOT}/shared/data/who")
    stage.fab("schedule.run", "who").ended()
    assert set(stage.machine.run(f"cat {ROOT}/shared/data/who").stdout.split()) == {APP}
    assert stage.machine.run(f"stat -c %U {ROOT}/run/jobs/who").stdout.strip() == APP
    assert "ok, 0 s" in stage.fab("schedule.list").ended().output
    refused = stage.fab("logs", "--name=who")
    assert (refused.code, refused.complaint.splitlines()[0]) == (
        1,
        "Error: the journal is root's: let the account into the group systemd-journal, or log in as root",
    )
    stage.machine.run("adduser --quiet deploy systemd-journal")
    # A session has the groups that it began with.
    assert f"it is {APP}" in stage.fab("logs", "--name=who").ended().output


def test_a_broken_release_is_taken_back(stage: Stage) -> None:
    """The slot is emptied again, and the old release serves."""
    configure(stage)
    before = stage.site.serving()
    broken = Broken("import error", (("shop/wsgi.py", "import nothing_such\n"),))
    assert stage.deploy(stage.shop.next_broken(broken), broken).code == 1
    assert stage.site.serving() == before
    assert invariants.settled(stage.site) == []


@pytest.mark.parametrize(
    ("fault", "point"), [("kill -9", "during:await"), ("kill step", "during:health"), ("kill script", "after:switch")]
)
def test_what_is_left_is_cleared(stage: Stage, fault: str, point: str) -> None:
    """Old or new, and the next deploy goes through, with no right that the first one did not have."""
    configure(stage, ssh={"known_hosts": str(stage.workplace.known_hosts), "reconnect": 6})
    stage.whole()
    configure(stage, ssh={"known_hosts": str(stage.workplace.known_hosts), "reconnect": 6})
    release = stage.shop.next()
    done = faults.hit(stage.site, lambda **more: stage.start(release, **more), FAULTS[fault], point)
    done.busy.extend(invariants.orphans(stage.site, 60))
    assert done.busy == []
    configure(stage)
    stage.deploy(release).ended()
    assert stage.site.serving().endswith(release.sha[:12])
    assert invariants.settled(stage.site) == []
    assert invariants.temporaries(stage.site) == []


def test_other_settings_need_another_list(stage: Stage) -> None:
    """A program more is refused before anything is changed, until root has allowed it."""
    processes = {"worker": {"command": "exec python worker.py", "startsecs": 1, "stop_timeout": 5}}
    configure(stage, processes={**processes, "second": {"command": "exec python worker.py", "startsecs": 1}})
    before, release = stage.site.serving(), stage.shop.next()
    refused = stage.deploy(release)
    assert refused.code == 1
    assert "what deploy may do as root is a list for other settings than these" in refused.error
    assert stage.site.serving() == before
    for task in (f"{stage.manager}.configure", "server.sudoers"):
        as_root(stage, task, *(["--install"] if task.startswith("server") else [])).ended()
    stage.deploy(release).ended()
    assert stage.site.serving().endswith(release.sha[:12])
    left = stage.machine.run("ls /opt/fabdjango/root").stdout.split()
    assert len(left) == stage.machine.run("su deploy -c 'sudo -n -l'").stdout.count("NOPASSWD")


def test_the_doctor_finds_every_way_shut(stage: Stage) -> None:
    """Twenty and more tries; with one of them open, it is named."""
    configure(stage)
    stage.whole()
    configure(stage)
    found = stage.fab("server.doctor").ended().output
    assert found.count("shut  ") >= 20
    assert "OPEN" not in found
    stage.machine.write("/etc/sudoers.d/more", "deploy ALL=(root) NOPASSWD: /usr/bin/tail\n", 0o440)
    stage.machine.run(f"chmod g+w {ROOT}/releases; chgrp {APP} {ROOT}/releases; chmod o+w /etc/cron.d")
    try:
        ill = stage.fab("server.doctor")
    finally:
        stage.machine.run(f"rm /etc/sudoers.d/more; chgrp deploy {ROOT}/releases; chmod o-w /etc/cron.d")
    assert ill.code == 1
    assert [line.split("  ")[-1].strip() for line in ill.output.splitlines() if "OPEN" in line] == [
        "a rule of sudo beside the site's programs: (root) NOPASSWD: /usr/bin/tail",
        "changing what root runs at a time: /etc/cron.d",
        f"the application changes a release: {ROOT}/releases",
    ]
