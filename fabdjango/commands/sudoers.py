"""sudo: what the owner of a site may do as root, as a list of programs that belong to root, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands.manager import MARK, SLOTS, Manager
from fabdjango.escape import block, quote_path, raw, sh
from fabdjango.exceptions import FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import ROOT, Put, Step
from fabdjango.privileged import FOLDER, program, steps_program

__all__ = ["install", "programs", "refuse_unlisted", "rules", "rules_path"]


def programs(manager: Manager, layout: Layout, jobs: Iterable[str] = ()) -> tuple[Put, ...]:
    """
    The programs of root that deployments of the site need, and runs by hand of its ``jobs``.

    ``layout`` has the home directory filled in.
    """
    steps = [
        *manager.install(),
        manager.configure(),
        manager.restore(manager.files),
        *(manager.start_slot(slot) for slot in SLOTS),
        *(manager.stop_slot(slot) for slot in SLOTS),
        *(manager.start(slot=slot) for slot in SLOTS),
        *(manager.tail(slot=slot) for slot in ("", *SLOTS)),
        manager.restart_processes(),
        manager.restart_processes(back=manager.files),
        manager.tidy(),
        *map(manager.run_job, jobs),
        manager.stop(),
        manager.status(),
    ]
    puts = [program(step, layout.steps_lock) for step in steps if step and step.user == ROOT]
    if not puts:
        return ()
    return tuple(
        {put.path: put for put in (*puts, steps_program(onhost.source("orphans"), layout.steps_lock))}.values()
    )


def rules_path(project: str) -> PurePosixPath:
    """The site's file for sudo."""
    return PurePosixPath("/etc/sudoers.d") / f"fabdjango-{project}"


def rules(project: str, owner: str, puts: Iterable[Put]) -> Put:
    """Exactly these programs, with no password, and no other word of sudo's grammar from anybody's settings."""
    lines = [
        f"# {MARK}",
        f"# What {owner} may do as root for {project}: run these programs, which belong to root, and nothing else.",
        *sorted(f"{owner} ALL=(root) NOPASSWD: {put.path}" for put in puts),
    ]
    return Put(rules_path(project), "\n".join(lines) + "\n", 0o440)


def install(project: str, owner: str, puts: Sequence[Put]) -> Step:
    """
    ``sudoers``: the programs and the rules, which sudo's own parser has read before; programs of earlier rules go.

    Rules that are refused leave everything as it was.
    """
    put = rules(project, owner, puts)
    # sudo reads no file with a dot in its name.
    staged = put.path.with_name(f".{put.path.name}.new")
    old, new, named = quote_path(put.path), quote_path(staged), f"grep -ho {sh(f'{FOLDER}/[^ ,]*')}"
    body = block(
        raw(f"visudo -cqf {new} >/dev/null || {{ rm -f -- {new}; refuse 'sudo cannot read the rules'; }}"),
        raw(f"if cmp -s -- {new} {old}; then rm -f -- {new}; unchanged 'as before'; fi"),
        raw(f"before=$({named} -- {old} 2>/dev/null) || :"),
        sh("mv", "-fT", "--", staged, put.path),
        raw("for each in $before; do"),
        raw('  grep -qsF -- "$each" /etc/sudoers.d/* || rm -f -- "$each"'),
        raw("done"),
    )
    staging = Put(staged, put.content, put.mode)
    return Step(
        "sudoers",
        f"{owner} may run the site's programs of root",
        block(raw(_owned(FOLDER)), body),
        user=ROOT,
        puts=(*puts, staging),
    )


def _owned(folder: PurePosixPath) -> str:
    """Refuse a folder that somebody else than root could change; who does, could change the programs."""
    above = sh(*reversed((folder, *folder.parents)))
    return (
        f"for d in {above}; do\n"
        "  case $(stat -c '%u %A' -- \"$d\") in '0 d'????-??-?) ;; *) refuse \"$d must belong to root, and nobody else may write there\";; esac\n"
        "done"
    )


def refuse_unlisted(
    manager: Manager, facts: Facts, layout: Layout, previous: Sequence[Put | None], target: str, host: str = ""
) -> None:
    """
    Raise FabdjangoError if a deployment would have to do something as root that the list of the host does not have.

    Nothing is refused where who logs in may do anything, or nothing as root is needed.
    """
    puts = () if facts.sudo else programs(manager, layout)
    missing = [put for put in puts if str(put.path) not in facts.root_programs]
    cure = f"renew it, as root or with full sudo: fab -H root@{target.rpartition('@')[2]} setup"
    if missing:
        msg = f"what {facts.user} may do as root is a list for other settings than these: {len(missing)} programs are not in it"
        raise FabdjangoError(msg, host=host, state="nothing was changed", cure=cure)
    changed = [put.path for put, old in zip(manager.files, previous, strict=True) if put != old]
    if puts and changed:
        msg = f"{changed[0]} is not as these settings say, and {facts.user} may not change it"
        raise FabdjangoError(msg, host=host, state="nothing was changed", cure=cure)
