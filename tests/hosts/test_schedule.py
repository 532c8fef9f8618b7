"""
Jobs by the clock of a real host, with systemd and with cron; and logs that nobody reads any more.

Every run looks at Debian 12, the nightly one at Debian 13 too.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.hosts.workplace import Repository, Workplace, wait_for

if TYPE_CHECKING:
    from tests.hosts.workplace import Daemon, Outcome
    from tests.machines import Machine

ROOT = "/srv/it's the clock"
UNITS = "/etc/systemd/system"
TICK = {"shell": "echo \"$FABDJANGO_RELEASE $(id -un)\" >> data/ticks; echo 'it is 100%'"}
JOBS: dict[str, Any] = {
    "tick": {**TICK, "at": "*:*:0/2"},
    "fails": {"shell": "echo 'it fails'; exit 3", "at": "yearly"},
    "check": {"command": "check", "at": "yearly"},
    "long": {"shell": "touch data/began; while [ ! -e data/enough ]; do sleep 0.1; done", "at": "yearly"},
    "slow": {"shell": "sleep 1000", "at": "yearly", "timeout": 1},
}


@dataclass
class Site:
    """One site on the shared host, and its operator."""

    machine: Machine
    workplace: Workplace
    repository: Repository
    commits: int = 0

    def configure(self, **more: Any) -> None:
        """The settings; ``more`` replaces some of them."""
        self.workplace.configure(
            **{
                "project": "clock",
                "repository": self.repository.url,
                "root": ROOT,
                "user": "deploy",
                "shared": ["data/"],
                "environment": {
                    "BLOG_SECRET_KEY": "it's not a secret, but long enough to be accepted as one",
                    "BLOG_ALLOWED_HOSTS": "*",
                },
                "gunicorn": {"bind": "127.0.0.1:8055", "workers": 1},
                "manager": "systemd",
                "schedule": JOBS,
                **more,
            }
        )

    def words(self, *words: str, login: str = "deploy") -> list[str]:
        """The words of a run of fab."""
        return ["-i", str(self.machine.key), "-H", f"{login}@{self.machine.address}", *words]

    def fab(self, *words: str, code: int = 0, login: str = "deploy") -> Outcome:
        """Run fab to its end."""
        return self.workplace.fab(*self.words(*words, login=login)).ended(code)

    def commit(self) -> str:
        """One more commit, which is not yet deployed."""
        self.commits += 1
        return self.repository.sample(min(self.commits, 2)) if self.commits < 3 else self.repository.commit("again")

    def ticks(self) -> set[str]:
        """The lines that the job has written since this was last asked, each once."""
        path = f'"{ROOT}/shared/data/ticks"'
        return set(self.machine.run(f"cat {path}; rm -f {path}", check=False).stdout.splitlines())

    def current(self) -> str:
        """The release that serves."""
        return self.machine.run(f'readlink "{ROOT}/current"').stdout.strip().rpartition("/")[2]

    def ticks_of(self, release: str) -> bool:
        """Wait until a release ticks, and nobody else does any more."""
        self.ticks()
        return wait_for(lambda: self.ticks() == {f"{release} deploy"}, 20)

    def units(self) -> list[str]:
        """The site's units of jobs, and those of them that wait."""
        found = self.machine.run(
            f"cd {UNITS} && ls | grep ^clock-job- ; systemctl list-timers --no-legend 'clock-*' | wc -l"
        )
        return found.stdout.split()


@pytest.fixture(scope="module", params=["bookworm", pytest.param("trixie", marks=pytest.mark.nightly)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that serves, with its timers."""
    machine: Machine = request.getfixturevalue(request.param)
    daemon: Daemon = request.getfixturevalue("daemon")
    workplace = Workplace(tmp_path_factory.mktemp("clock") / "work")
    workplace.know(machine)
    made = Site(machine, workplace, daemon.repository(f"clock-{request.param}"))
    machine.run(f'install -d -o deploy "{ROOT}"')
    made.configure()
    made.commit()
    made.fab("deploy")
    return made


def names(*jobs: str) -> list[str]:
    """The units of jobs, and how many timers wait."""
    return [*sorted(f"clock-job-{job}.{kind}" for job in jobs for kind in ("service", "timer")), str(len(jobs))]


def test_timers(site: Site) -> None:
    """A timer fires, as the owner of the site and in the release that serves, and what it says is in the logs."""
    assert site.units() == names(*JOBS)
    assert site.ticks_of(site.current())
    assert wait_for(lambda: "it is 100%" in site.fab("logs", "--name=tick").output, 20)
    rows = {line.split()[0]: line for line in site.fab("schedule.list").output.splitlines()}
    assert ", 0 s" in rows["tick"]
    assert rows["fails"].endswith("-01-01 00:00:00  -                    never ran")


def test_a_run_by_hand(site: Site) -> None:
    """It runs as the timer would run it; what it says is shown, and the exit code is its own."""
    assert "System check identified no issues" in site.fab("schedule.run", "check").output
    failed = site.fab("schedule.run", "fails", code=3)
    assert (failed.output, failed.error.splitlines()[0]) == ("it fails\n", "Error: ended with status 3: run fails")
    site.fab("schedule.run", "slow", code=124)
    rows = {line.split()[0]: line for line in site.fab("schedule.list").output.splitlines()}
    assert "failed with status 3" in rows["fails"]
    assert "took too long and was ended" in rows["slow"]


def test_a_deploy_ends_no_run(site: Site) -> None:
    """A run that has begun goes on in its release; it is not started a second time; the next ones run the new release."""
    running = site.workplace.start(*site.words("schedule.run", "long"))
    assert wait_for(lambda: site.machine.run(f'test -e "{ROOT}/shared/data/began"', check=False).returncode == 0, 20)
    old = site.current()
    twice = site.fab("schedule.run", "long", code=75)
    assert twice.error.startswith("Error: long runs already, and was not started a second time")
    site.commit()
    # Also if the new release has no such job any more.
    site.configure(schedule={name: job for name, job in JOBS.items() if name != "long"})
    site.fab("deploy")
    assert site.current() != old
    assert site.ticks_of(site.current())
    assert site.units() == names(*(name for name in JOBS if name != "long"))
    assert running.process.poll() is None
    site.machine.run(f'touch "{ROOT}/shared/data/enough"')
    running.wait(30).ended()


def test_a_reverted_deploy_puts_timers_back(site: Site) -> None:
    """Nobody confirms a deploy that has other jobs, at other times: the old ones wait again, and the new ones are gone."""
    old, units = site.current(), site.units()
    before = site.machine.run(f"cat {UNITS}/clock-*").stdout
    site.configure(
        schedule={"fails": {**JOBS["fails"], "at": "0 4 13 * 5"}, "new": {"shell": "true", "at": "daily"}},
        processes={"more": {"command": "exec sleep 7777"}},
        activation={"confirm": 1},
    )
    site.commit()
    pause = f"{ROOT}/run/paused"
    deployer = site.workplace.start(*site.words("deploy"), FABDJANGO_TEST_PAUSE="during:await")
    assert wait_for(lambda: site.machine.run(f'test -e "{pause}"', check=False).returncode == 0, 60)
    assert site.current() != old
    asked = "systemctl is-active clock-job-new.timer clock-more clock-job-tick.timer"
    assert site.machine.run(asked, check=False).stdout.split() == ["active", "active", "inactive"]
    deployer.process.kill()
    deployer.wait()
    site.machine.run(f'rm "{pause}"')
    over = f'test ! -e "{ROOT}/run/activation.armed" && test ! -e "{ROOT}/run/activation.reverting"'
    assert wait_for(lambda: site.machine.run(over, check=False).returncode == 0, 60)
    assert site.current() == old
    assert site.units() == units
    assert site.machine.run(f"cat {UNITS}/clock-*").stdout == before
    assert site.ticks_of(old)
    site.configure()
    site.fab("deploy")
    assert site.units() == names(*JOBS)


@pytest.mark.parametrize("login", ["deploy", "root"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nobody_reads_logs_that_nobody_wants(site: Site, login: str, how: signal.Signals) -> None:
    """What follows a log on the host ends with whoever follows it: after Ctrl-C, and after kill -9."""
    running = site.workplace.start(*site.words("logs", "--follow", "--name=tick", login=login))
    assert wait_for(lambda: (running.folder / "out").read_text().count("it is 100%") > 5, 30)
    assert followers(site)
    running.process.send_signal(how)
    ended = running.wait(30)
    assert ended.code == (0 if how == signal.SIGINT else -how)
    assert wait_for(lambda: not followers(site), 20)


def followers(site: Site) -> str:
    """What reads a journal, or was sent to a host to do so."""
    return site.machine.run("pgrep -a -x journalctl; pgrep -a -f '^python3 -$'", check=False).stdout


def test_stop_and_remove(site: Site) -> None:
    """Nothing starts a job of a site that was stopped; start waits again, and remove leaves no unit."""
    site.fab("systemd.stop")
    assert site.units()[-1] == "0"
    site.ticks()
    site.fab("systemd.start")
    assert site.ticks_of(site.current())
    site.fab("systemd.remove")
    assert site.machine.run(f"ls {UNITS} /var/lib/systemd/timers | grep clock", check=False).stdout == ""


def test_cron(site: Site) -> None:
    """Without cron a deploy is refused; with it, the site's file is there for as long as the site is not stopped."""
    site.configure(manager="supervisor", schedule={"tick": {**TICK, "at": "minutely"}})
    refused = site.fab("deploy", code=1)
    assert "cron is not installed" in refused.error
    assert "apt-get install cron" in refused.error
    site.machine.run("apt-get update -q && apt-get install -q -y --no-install-recommends cron", timeout=300)
    site.fab("deploy")
    line = site.machine.run("tail -n 1 /etc/cron.d/clock").stdout
    script = """'/srv/it'"'"'s the clock/current/.fabdjango/job-tick'"""
    assert line == f"* * * * * deploy [ ! -e {script} ] || exec /bin/sh {script} log\n"
    site.fab("supervisor.stop")
    assert site.machine.run("ls /etc/cron.d").stdout.count("clock") == 0
    site.fab("supervisor.start")
    assert site.machine.run("tail -n 1 /etc/cron.d/clock").stdout == line
    assert site.fab("schedule.run", "tick").output == "it is 100%\n"
    assert site.fab("deploy").last_line.startswith("unchanged: ")


@pytest.mark.nightly
def test_cron_starts_a_job(site: Site) -> None:
    """Within a minute, in the release that serves; what it says is in its log, with the times."""
    if not site.machine.run("ls /etc/cron.d", check=False).stdout.count("clock"):
        # The tests before were not among the chosen ones.
        site.fab("systemd.remove")
        test_cron(site)
    site.ticks()
    assert wait_for(lambda: f"{site.current()} deploy" in site.ticks(), 90)
    said = [line.split(" ", 2)[-1] for line in site.fab("logs", "--name=tick", "--since=5 min").output.splitlines()]
    # While the site came from systemd to cron, the release before may have had a run too.
    begin = said.index(f"begins, in {site.current()}")
    assert said[begin + 1 : begin + 3] == ["100%", "ended with status 0"]


def test_without_jobs(site: Site) -> None:
    """The file goes with the last job, and everything with the site."""
    site.configure(manager="supervisor", schedule={})
    site.fab("deploy")
    assert site.machine.run("ls /etc/cron.d").stdout.count("clock") == 0
    site.fab("supervisor.remove")
