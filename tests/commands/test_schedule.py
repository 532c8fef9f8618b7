"""Jobs: the script of a release, cron's file, and what lists them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from fabdjango import onhost
from fabdjango.commands import activation, managers, schedule, supervisor
from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout
from fabdjango.plan import Put
from fabdjango.settings import Settings
from tests.conftest import LAYOUT, RELEASE, sample_facts, sample_settings, sample_templates, shell, shown

CLEAN = {"at": "daily", "command": "prune 'a b' --older 9"}
SHELL = {"at": "0 0 13 * 5", "shell": "echo 'it is' > \"$HOME/100%\"", "timeout": 9}


def jobs(**jobs: dict[str, Any]) -> Settings:
    """A site with these jobs."""
    return sample_settings(schedule=jobs)


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "more", "message"),
    [
        ({"at": "daily"}, {}, "fabdjango.schedule.it needs a command or a shell line, one of them"),
        ({**CLEAN, "shell": "x"}, {}, "fabdjango.schedule.it needs a command or a shell line, one of them"),
        ({**CLEAN, "at": "it's"}, {}, """fabdjango.schedule.it.at: cron cannot carry "it's": "it's" is not a day of the week"""),
        ({**CLEAN, "at": "it's"}, {"manager": "systemd"}, """fabdjango.schedule.it.at: "it's" is not a time: it holds characters that no time has"""),
        ({**CLEAN, "command": "it's"}, {}, "cannot split \"it's\" into words: No closing quotation"),
        ({**CLEAN, "overlap": True}, {"manager": "systemd"}, "fabdjango.schedule.it.overlap: systemd never starts what still runs"),
        (CLEAN, {"processes": {"it": {"command": "x"}}}, "fabdjango.schedule.it: a program of fabdjango.processes has this name too"),
        (CLEAN, {"processes": {"job-it": {"command": "x"}}}, "fabdjango.processes.job-it: the name is one of a job of fabdjango.schedule"),
    ],
)  # fmt: skip
def test_jobs_that_could_never_run(job: dict[str, Any], more: dict[str, Any], message: str) -> None:
    """They are refused before a host is asked."""
    with pytest.raises(ConfigError) as caught:
        managers.check_names(sample_settings({"schedule": {"it": job}, **more}))
    assert caught.value.message == message


def test_a_job_that_is_not_there() -> None:
    """The ones that there are are named."""
    with pytest.raises(ConfigError, match=r"^the site has no job 'it; id'$") as caught:
        schedule.known_job(jobs(it=CLEAN, other=CLEAN), "it; id")
    assert caught.value.cure == "it has: it, other"


# --- the script of a job ----------------------------------------------------------------


def test_the_script() -> None:
    """A management command runs as django.manage would run it, in the release that the script is of."""
    text = schedule.start_script(jobs(it=CLEAN), LAYOUT, sample_templates(), RELEASE, "it")
    (line,) = [line for line in text.splitlines() if "timeout" in line]
    run = """/bin/sh '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/run'"""
    assert line == f"{run} timeout -k 10 3600 python manage.py prune 'a b' --older 9"
    assert "flock -n 9" in text
    assert "flock" not in schedule.start_script(jobs(it={**CLEAN, "overlap": True}), LAYOUT, sample_templates(), RELEASE, "it")  # fmt: skip


Play = Callable[..., Path]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Make a site with one release, whose one job is ``it``, and give the path of its script."""

    def make(line: str, **more: Any) -> Path:
        root = tmp_path / "it's a site"
        layout = Layout(PurePosixPath(root), "blog")
        private = Path(layout.private(RELEASE))
        private.mkdir(parents=True, exist_ok=True)
        Path(layout.jobs).mkdir(parents=True, exist_ok=True)
        (private / "run").write_text('cd -- "$(dirname "$0")"\nexec "$@"\n')
        settings = jobs(it={"shell": line, "at": "daily", **more})
        script = private / "job-it"
        script.write_text(schedule.start_script(settings, layout, sample_templates(), RELEASE, "it"))
        return script

    return make


def run(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Start a job as cron or a person does."""
    return subprocess.run(["/bin/sh", script, *words], capture_output=True, text=True, check=False)


def root_of(script: Path) -> Path:
    """The site's folder."""
    return script.parents[3]


def test_a_run(play: Play) -> None:
    """What it says comes out, its status is the job's, and the record has both times."""
    script = play("echo 'it is 100%'; false; echo never")
    done = run(script)
    assert (done.returncode, done.stdout) == (1, "it is 100%\n")
    record = (root_of(script) / "run/jobs/it").read_text()
    assert re.fullmatch(rf"began \d+ {RELEASE}\nended \d+ 1\n", record)


def test_a_run_of_cron(play: Play) -> None:
    """What it says goes to its log with the times; a log that has grown too large begins anew."""
    script = play("echo 'it is'")
    assert run(script, "log").stdout == ""
    log = root_of(script) / "run/jobs/it.log"
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4}"
    assert re.fullmatch(rf"{time} begins, in {RELEASE}\nit is\n{time} ended with status 0\n", log.read_text())
    assert log.stat().st_mode & 0o777 == 0o640
    with log.open("a") as file:
        file.truncate(10_000_001)
    run(script, "log")
    assert log.with_suffix(".log.1").stat().st_size == 10_000_001
    assert log.read_text().splitlines()[1] == "it is"


def test_a_run_that_takes_too_long(play: Play) -> None:
    """It is ended with everything that it has started."""
    script = play("sleep 1000 & wait", timeout=1)
    assert run(script).returncode == 124
    assert "ended" in (root_of(script) / "run/jobs/it").read_text()


def test_never_two_at_once(play: Play) -> None:
    """While one runs, also what it has left behind, another is left out, and says so; the kernel frees the lock."""
    script = play("touch began; while [ ! -e enough ]; do sleep 0.05; done")
    first = subprocess.Popen(["/bin/sh", script])
    while not (script.parent / "began").exists():
        assert first.poll() is None
        time.sleep(0.02)
    done = run(script)
    assert (done.returncode, done.stdout) == (75, "the run before has not ended: this one is left out\n")
    (script.parent / "enough").touch()
    assert first.wait() == 0
    assert run(script).returncode == 0


# --- cron -------------------------------------------------------------------------------


def found(level: str = "system", there: str | None = None, **more: Any) -> supervisor.Supervisord:
    """The supervisor of the sample site; ``there`` is the text of its file for cron."""
    managed = {"/etc/cron.d/blog": {"text": there}}
    settings = sample_settings({"supervisor": {"level": level}, **more})
    facts = sample_facts(managed=managed, programs={"supervisorctl": "x", "supervisord": "x"})
    return supervisor.find(settings, facts, LAYOUT, sample_templates(), "web1")


CRONTAB = """\
# Managed by fabdjango for blog; local edits are overwritten.
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
MAILTO=""
0 0 13 * 5 ada [ ! -e '/srv/it'"'"'s here/current/.fabdjango/job-it' ] || exec /bin/sh '/srv/it'"'"'s here/current/.fabdjango/job-it' log
"""


def test_the_file_of_cron() -> None:
    """It goes with supervisor's: written, taken away and put back with it; Debian's cron takes its lines."""
    it = found(schedule={"it": SHELL})
    assert it.files[1] == Put(PurePosixPath("/etc/cron.d/blog"), CRONTAB)
    assert [step.name for step in it.install()] == ["supervisor", "cron"]
    assert it.check().parameters["name"] == "blog.conf"
    assert it.configure().puts == it.files
    assert it.start().puts == it.files[1:]
    assert it.start("web").puts == ()
    assert it.stop().body.splitlines()[0] == "rm -f -- /etc/cron.d/blog"
    assert it.stop("web").body == "export FABDJANGO_RUN"
    assert it.restore((it.files[0], None)).body.splitlines()[0] == "rm -f -- /etc/cron.d/blog"
    assert it.tidy() is None
    # As a crontab of one account has no name in it.
    lines = CRONTAB.replace(" ada [", " [")
    done = subprocess.run(["crontab", "-n", "-"], input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_last_job_goes() -> None:
    """A file of ours that has no job any more stays empty until there is no way back, and then goes."""
    assert len(found().files) == len(found(there="# of somebody else").files) == 1
    it = found(there=CRONTAB)
    assert it.files[1].content == "".join(CRONTAB.splitlines(keepends=True)[:-1])
    assert [step.name for step in it.install()] == ["supervisor"]
    assert shown(it.tidy()) == "# tidy (as root): cron has no job of the site any more\nrm -f -- /etc/cron.d/blog"


@pytest.mark.parametrize("level", ["user", "virtualenv"])
def test_a_supervisor_of_ones_own_has_no_cron(level: str) -> None:
    """The cure names both managers that can."""
    assert len(found(level).files) == 1
    with pytest.raises(
        ConfigError, match=f"^at supervisor.level {level}, nothing of the host's starts jobs: "
    ) as caught:
        found(level, schedule={"it": SHELL})
    assert "manager: systemd" in caught.value.cure


def test_where_logs_are() -> None:
    """Jobs of cron write their own, as the owner; what supervisor keeps is root's."""
    it = found(schedule={"it": SHELL}, processes={"worker": {"command": "x"}})
    assert [(each.name, str(each.path), each.user) for each in it.sources()] == [
        ("web", "/var/log/supervisor/blog-web-a.log", "root"),
        ("web", "/var/log/supervisor/blog-web-b.log", "root"),
        ("worker", "/var/log/supervisor/blog-worker.log", "root"),
        ("it", "/srv/it's here/run/jobs/it.log", "ada"),
    ]
    assert [each.name for each in it.sources("it")] == ["it"]
    own = found("user")
    assert {(str(each.path.parent), each.user) for each in own.sources()} == {("/srv/it's here/shared/log", "ada")}


def test_an_application_with_an_account_of_its_own() -> None:
    """Cron starts its jobs as that, a person too; what one of both accounts has left behind, the other may change."""
    it = found(schedule={"it": SHELL}, run_as="www-it")
    assert it.files[1].content.splitlines()[-1].startswith("0 0 13 * 5 www-it [ ! -e ")
    assert it.run_job("it").user == "www-it"
    assert found(schedule={"it": SHELL}).run_job("it").user == ""
    text = schedule.start_script(it.settings, LAYOUT, sample_templates(), RELEASE, "it")
    assert text.splitlines()[3] == "umask 002"
    place = activation.place(LAYOUT, sample_templates(), "", "www-it", jobs=True)
    assert [line for line in place.body.splitlines() if "jobs" in line] == shell("""
        mkdir -p -- '/srv/it'"'"'s here/run/jobs'
        find '/srv/it'"'"'s here/run/jobs' -user "$(id -un)" -exec chgrp -- www-it '{}' '+'
        find '/srv/it'"'"'s here/run/jobs' -user "$(id -un)" -exec chmod g+w -- '{}' '+'
        chmod 2775 -- '/srv/it'"'"'s here/run/jobs'
    """).splitlines()
    assert "jobs" not in activation.place(LAYOUT, sample_templates(), "", "www-it").body


def test_a_host_without_cron() -> None:
    """Where nobody would ever start a job, a deploy is refused."""
    assert shown(schedule.need_cron()) == shell("""
        # cron (as root): cron runs
        command -v cron crond >/dev/null || [ -e /lib/systemd/system/cron.target ] || refuse 'cron is not installed'
        grep -qsx -e cron -e crond /proc/[0-9]*/comm || systemctl is-active --quiet cron.target 2>/dev/null || refuse 'cron does not run'
    """)


# --- on the primary only ----------------------------------------------------------------


def test_what_is_for_the_primary() -> None:
    """A job is, unless it says otherwise; a program is not, unless it says so, as celery beat must."""
    settings = sample_settings(
        schedule={"it": CLEAN, "each": {**CLEAN, "hosts": "all"}},
        processes={"worker": {"command": "x"}, "beat": {"command": "x", "hosts": "primary"}},
    )
    assert managers.local_part(settings, leads=True) == settings
    other = managers.local_part(settings, leads=False)
    assert (list(other.schedule), list(other.processes)) == (["each"], ["worker"])


# --- the list ---------------------------------------------------------------------------


def listed(script: Path, settings: Settings) -> list[list[str]]:
    """The rows of the list for the site of a script, whose file for cron is there; cells by two spaces."""
    step = schedule.list_jobs(settings, Layout(PurePosixPath(root_of(script)), "blog"))
    parameters = {**step.parameters, "crontab": str(script)}
    program = f"import json\nPARAMETERS = json.loads({json.dumps(parameters)!r})\n{onhost.source('jobs')}"
    done = subprocess.run(["python3", "-"], input=program, capture_output=True, text=True, env={**os.environ, "TZ": "UTC"}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [re.split(" {2,}", line) for line in done.stdout.splitlines()]


def test_the_list(play: Play) -> None:
    """When each runs next, when it ran last, and how that ended."""
    script = play("touch began; while [ ! -e enough ]; do sleep 0.05; done")
    settings = jobs(it={"shell": "x", "at": "0 4 29 2 *"}, broken=CLEAN, slow=CLEAN, well=CLEAN, cut=CLEAN)
    records = root_of(script) / "run/jobs"
    (records / "broken").write_text("began 86400 7-x\nended 86403 3\n")
    (records / "slow").write_text("began 86400 7-x\nended 86460 124\n")
    (records / "well").write_text("began 86400 7-x\nended 86400 0\n")
    (records / "cut").write_text("began 86400 7-x\n")
    job = subprocess.Popen(["/bin/sh", script])
    while not (script.parent / "began").exists():
        time.sleep(0.02)
    head, it, *others = listed(script, settings)
    (script.parent / "enough").touch()
    job.wait()
    assert head == ["job", "at", "next", "last"]
    assert it[:2] == ["it", "0 4 29 2 *"]
    assert re.fullmatch(r"20\d\d-02-29 04:00:00", it[2])
    assert it[4] == "runs"
    assert [(row[0], row[3], row[4]) for row in others] == [
        ("broken", "1970-01-02 00:00:00", "failed with status 3, 3 s"),
        ("slow", "1970-01-02 00:00:00", "took too long and was ended, 60 s"),
        ("well", "1970-01-02 00:00:00", "ok, 0 s"),
        ("cut", "1970-01-02 00:00:00", "was cut off"),
    ]
    assert listed(script, jobs(new=CLEAN))[1][3:] == ["-", "never ran"]
