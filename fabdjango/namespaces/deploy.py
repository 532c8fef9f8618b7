"""The tasks at the top: a deployment, and what is asked before and after it."""

from __future__ import annotations

import sys

from invoke.context import Context
from invoke.exceptions import Exit

from fabdjango import checking, deploying, operations, overview, provisioning, returning
from fabdjango.fleet import Fleet
from fabdjango.inventory import table
from fabdjango.logs import show as show_logs
from fabdjango.runner import Runner
from fabdjango.session import chosen_hosts, configuration
from fabdjango.tasking import fleet_task, host_task, plain_task

__all__ = [
    "check",
    "deploy",
    "history",
    "hosts",
    "journal",
    "logs",
    "prune",
    "releases",
    "restart",
    "rollback",
    "setup",
    "status",
    "unlock",
]

_WAIT = {"wait": "Seconds to wait for another deployment to end; lock_wait of the settings if 0."}


@fleet_task(
    help={
        "commit": "Branch, tag, or short or full commit; the branch of the settings if empty.",
        "resume": "Bring to its end what a deployment left that was cut off, and deploy nothing new.",
        "allow_migrations": "Apply migrations that the release that serves cannot live with.",
        "allow_dirty": "Deploy the commit though your clone has work that is not in it; matters with git.transfer push only.",
        "skip_unreachable": "Go on without hosts that cannot be reached, and name them.",
        "catch_up": "Deploy nothing new: bring hosts that were left out to what most of them serve.",
        **_WAIT,
    },
    asks="Deploy to",
)
def deploy(
    fleet: Fleet,
    commit: str = "",
    resume: bool = False,
    allow_migrations: bool = False,
    allow_dirty: bool = False,
    skip_unreachable: bool = False,
    catch_up: bool = False,
    wait: int = 0,
) -> None:
    """
    Bring a commit onto the hosts and let it serve.

    A release is made ready beside the one that serves and started in the idle
    slot; it gets the traffic once every worker has answered a health check. The
    old one finishes its requests and stops. If the new one does not answer, or
    this command dies half-way, the old one goes on or is put back, by the host
    itself. Of many hosts, the primary switches first, then the others in
    batches; if one fails, all go back. A second deploy of the same commit
    changes nothing and says so.

    Exit code: 0 the new release serves, 1 nothing was changed, 2 unknown or
    mixed, look with status, 3 the old release was put back. With fab --dry
    nothing is written, and everything that would run is printed.
    """
    operations.wait_for_lock(fleet, wait)
    operations.allow_dirty((each.runner for each in fleet.members), allowed=allow_dirty)
    how = {"allow_migrations": allow_migrations, "skip_unreachable": skip_unreachable, "catch_up": catch_up}
    if resume:
        operations.resume(fleet)
    else:
        deploying.deploy(fleet, commit, **how)


@host_task()
def setup(runner: Runner) -> None:
    """
    Make a bare Debian or Ubuntu server ready for deploys.

    Shows first what is there and what changes, file by file, and touches
    nothing if something is in the way: another distribution, another program on
    port 80, files of that name that are not ours. Then packages, the account
    and its folders, uv, the database, programs, nginx, log rotation, and what
    else server says. fab --dry setup shows the shell and writes nothing.

    A second run changes nothing and restarts nothing; one that was cut off goes
    on where it was. Needs root: as that account, or with sudo, which may ask
    for a password.
    """
    provisioning.setup(runner)


@fleet_task(
    help={
        "to": "Id of a release; the last other one that served if empty.",
        "migrations": "Reverse the migrations that the older release does not know, with the newer code.",
        "code_only": "Go back although the older release lacks migrations that were applied.",
        "skip_unreachable": "Go on without hosts that cannot be reached, and name them.",
        **_WAIT,
    },
    asks="Roll back",
)
def rollback(
    fleet: Fleet,
    to: str = "",
    migrations: bool = False,
    code_only: bool = False,
    skip_unreachable: bool = False,
    wait: int = 0,
) -> None:
    """
    Let the release that served before serve again.

    Which one that is, the journal says, not the age of a folder; a release that
    never answered is not chosen. It goes through the same slots and the same
    questions as a deploy, on many hosts all or none. If migrations were applied
    that it lacks, it is refused and they are named, each with whether it can be
    reversed.
    """
    operations.wait_for_lock(fleet, wait)
    returning.rollback(fleet, to, migrations=migrations, code_only=code_only, skip_unreachable=skip_unreachable)


@host_task(help=_WAIT)
def restart(runner: Runner, wait: int = 0) -> None:
    """
    Start the current release anew, without losing a request.

    It is started in the idle slot and gets the traffic once it answers, as in a
    deploy; then the other programs of the site are restarted.
    """
    operations.wait_for_lock(Fleet([runner], runner.report), wait)
    operations.restart_site(runner)


@host_task(help={"count": "Number of entries."})
def history(runner: Runner, count: int = 20) -> None:
    """
    Show who deployed what, when, and how it ended.
    """
    operations.history(runner, count)


@host_task(help={"count": "Number of entries."})
def journal(runner: Runner, count: int = 100) -> None:
    """
    Print the newest entries of the host's journal as JSON.

    One object a line, the oldest first, as they stand in the file.
    """
    operations.journal(runner, count)


@fleet_task(
    help={
        "name": "One program or job of the site, such as web; all of them if empty.",
        "which": "A log of nginx instead: access, or error.",
        "follow": "Go on until Ctrl-C.",
        "lines": "Number of lines of each log; 50 if neither this nor since is given.",
        "since": 'All lines since then, such as "10 min", "2026-11-01 12:00" or 2026-11-01T12:00:00Z.',
    }
)
def logs(fleet: Fleet, name: str = "", which: str = "", follow: bool = False, lines: int = 0, since: str = "") -> None:
    """
    Show the logs of the site's programs, from all hosts.

    Of several hosts each line has the host's name in front, in the order in
    which they come. A time without a zone is the host's own; the lines of a file
    are chosen by the time that they begin with.
    """
    show_logs(fleet, name, which, lines, since, follow=follow)


@host_task()
def releases(runner: Runner) -> None:
    """
    List the releases on the host, the newest first.

    Each with what became of it: it serves, it has served, it failed, or it
    never had its turn.
    """
    operations.list_releases(runner)


@host_task()
def prune(runner: Runner) -> None:
    """
    Remove releases and virtualenvs that nobody needs any more.

    Every deploy does it at its end. The current release stays, the last one
    that served before it, pinned ones, and those that a process still uses.
    """
    operations.prune(runner)


@host_task(help={"force": "End the processes of whoever holds the lock."})
def unlock(runner: Runner, force: bool = False) -> None:
    """
    Show who holds the site's lock, or end what holds it.

    There is never a stale lock to remove: it goes with its processes. A switch
    that is under way is told to go back, and is waited for.
    """
    operations.unlock(runner, force=force)


@fleet_task()
def status(fleet: Fleet) -> None:
    """
    Show the release that serves, its programs, and the others.

    Only reads. Of many hosts, a line each: who serves something else, or with
    another configuration, who does not answer, who cannot be reached. The exit
    code is 1 if a site does not answer, or serves something else than most.
    """
    if fleet.alone:
        operations.status(fleet.members[0].runner)
    else:
        overview.status(fleet)


@fleet_task(
    help={
        "commit": "What would be deployed; the branch of the settings if empty.",
        "json": "Print one JSON object and nothing else.",
        "strict": "End with 1 for warnings too.",
    }
)
def check(fleet: Fleet, commit: str = "", json: bool = False, strict: bool = False) -> None:
    """
    Look for what would stop a deploy; changes nothing.

    From the login, sudo, disk, clock, ports and the repository to the database,
    certificates, the DNS, and files that somebody has changed by hand. Works
    before the first deploy and before any other, on all hosts at once. What
    only root may see is left out, and named, where sudo asks for a password.

    Every warning and every error comes with what mends it. The exit code is 1
    if a deploy would fail on any host.
    """
    found = checking.look_at_all(fleet, commit, quiet=json)
    if json:
        sys.stdout.write(checking.as_json(found, fleet.members[0].runner.report.redactor.hide) + "\n")
    else:
        checking.tell(fleet, found)
    if found.of("error") or (strict and found.of("warning")):
        raise Exit(code=1)


@plain_task(help={"role": "Show those with this role only.", "limit": "Show these only: names with commas between."})
def hosts(c: Context, role: str = "", limit: str = "") -> None:
    """
    List the hosts of the chosen stage, and how each is reached.

    What fab deploy without -H would be for; the primary has a star. A column
    that nobody fills is left out, and a dash leaves it to ssh_config. No host is
    asked.
    """
    resolved = configuration(c, str(getattr(c, "original_host", "")))
    for line in table(chosen_hosts(c, resolved, role, limit), resolved.hosts):
        sys.stdout.write(line + "\n")
