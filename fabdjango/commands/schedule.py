"""What runs by the clock: a script of the release for each job, and how cron or a person starts it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands.django import manage_words
from fabdjango.commands.manager import mark_of
from fabdjango.escape import Shell, block, cron_line, quote_path, raw, sh
from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout
from fabdjango.plan import OWNER, ROOT, Put, Step
from fabdjango.render import Templates
from fabdjango.settings import Job, Settings
from fabdjango.timetable import calendars, cron_fields, read_cron

__all__ = [
    "LEFT_OUT",
    "check_settings",
    "cron_file",
    "cron_path",
    "known_job",
    "list_jobs",
    "log_path",
    "need_cron",
    "run_job",
    "script_path",
    "start_script",
]

LEFT_OUT = 75
"""Status of a run that did not begin, because the one before has not ended."""
_CRON_D = PurePosixPath("/etc/cron.d")


def check_settings(settings: Settings) -> None:
    """Raise ConfigError for a job that could never be started."""
    for name, job in settings.schedule.items():
        key = f"fabdjango.schedule.{name}"
        if bool(job.command) == bool(job.shell.strip()):
            msg = f"{key} needs a command or a shell line, one of them"
            raise ConfigError(msg, cure="for instance command: clearsessions, or shell: ./cleanup.sh")
        if name in settings.processes:
            raise ConfigError(f"{key}: a program of fabdjango.processes has this name too", cure="give it another one")
        if settings.manager == "systemd" and job.overlap:
            msg = f"{key}.overlap: systemd never starts what still runs"
            raise ConfigError(
                msg, cure="leave overlap out, or set fabdjango.manager to supervisor, whose jobs are cron's"
            )
        (calendars if settings.manager == "systemd" else cron_fields)(job.at, f"{key}.at")
        if job.command:
            manage_words(settings, job.command)


def known_job(settings: Settings, name: str) -> Job:
    """The job called so; raises ConfigError if there is none."""
    if name not in settings.schedule:
        msg = f"the site has no job {name!r}"
        raise ConfigError(msg, cure=f"it has: {', '.join(settings.schedule) or 'none, see fabdjango.schedule'}")
    return settings.schedule[name]


# --- the script of a job --------------------------------------------------------


def script_path(layout: Layout, name: str) -> PurePosixPath:
    """What starts a job in the release that serves."""
    return layout.current / ".fabdjango" / f"job-{name}"


def log_path(layout: Layout, name: str) -> PurePosixPath:
    """Where a job's output is, if cron starts it."""
    return layout.jobs / f"{name}.log"


def _record_path(layout: Layout, name: str) -> PurePosixPath:
    return layout.jobs / name


def start_script(settings: Settings, layout: Layout, templates: Templates, release: str, name: str) -> str:
    """The text of ``job-NAME`` in a release: one run with its limit, never two at once, and the record of the last one."""
    job = settings.schedule[name]
    record = _record_path(layout, name)
    words = sh("sh", "-ec", job.shell) if job.shell else sh(*manage_words(settings, job.command))
    return templates.render(
        "release/job.j2",
        log=log_path(layout, name),
        lock="" if job.overlap else record.with_name(f"{name}.lock"),
        mask="002" if settings.run_as else "022",
        record=record,
        release=release,
        run=layout.private(release) / "run",
        words=f"timeout -k 10 {job.timeout} {words}",
    )


# --- cron -----------------------------------------------------------------------


def cron_path(project: str) -> PurePosixPath:
    """The site's file of the host's cron, which takes no name with a dot in it."""
    return _CRON_D / project


def cron_file(settings: Settings, layout: Layout, templates: Templates, user: str) -> Put:
    """A line for each job; it does nothing while the release that serves has no such job."""
    lines = []
    for name, job in settings.schedule.items():
        script = quote_path(script_path(layout, name))
        command = raw(f"[ ! -e {script} ] || exec /bin/sh {script} log")
        lines.append(cron_line(cron_fields(job.at, f"fabdjango.schedule.{name}.at"), user, command))
    project = settings.project
    return Put(cron_path(project), templates.render("supervisor/crontab.j2", mark=mark_of(project), lines=lines))


def need_cron() -> Step:
    """Refuse a host where nobody would ever start a job."""
    running = "grep -qsx -e cron -e crond /proc/[0-9]*/comm"
    body = block(
        raw(
            "command -v cron crond >/dev/null || [ -e /lib/systemd/system/cron.target ] || refuse 'cron is not installed'"
        ),
        raw(f"{running} || systemctl is-active --quiet cron.target 2>/dev/null || refuse 'cron does not run'"),
    )
    cure = "on the host, as root: apt-get install cron && systemctl enable --now cron"
    return Step("cron", "cron runs", body, user=ROOT, cure=cure)


# --- looking, and one run by hand ---------------------------------------------------


def list_jobs(settings: Settings, layout: Layout) -> Step:
    """``jobs``: a line for each job, with its next and last run; nothing is written."""
    by_systemd = settings.manager == "systemd"
    jobs = [
        {
            "name": name,
            "at": job.at,
            "timer": f"{settings.project}-job-{name}.timer" if by_systemd else "",
            "times": {} if by_systemd else asdict(read_cron(cron_fields(job.at, f"fabdjango.schedule.{name}.at"))),
            "record": str(_record_path(layout, name)),
            "lock": "" if job.overlap else f"{_record_path(layout, name)}.lock",
        }
        for name, job in settings.schedule.items()
    ]
    parameters = {"jobs": jobs, "crontab": "" if by_systemd else str(cron_path(settings.project))}
    return Step("jobs", "jobs and their runs", program=onhost.source("jobs"), parameters=parameters)


def run_job(settings: Settings, layout: Layout, name: str) -> Step:
    """``job``: one run, with the output here, by the account that runs the application."""
    script = quote_path(script_path(layout, name))
    missing = raw(f"[ -e {script} ] || refuse 'the release that serves has no such job: deploy first'")
    body = block(missing, Shell(f"/bin/sh {script}"))
    return Step("job", f"run {name}", body, user=settings.run_as or OWNER)
