"""
A program that goes on without the session that brought it, and the way to follow it.

Switching a site must end one way or the other even if the operator's machine
or the link dies in the middle. So the program runs in a session of its own and
reports into a file; what the operator sees is that file, read from wherever
reading stopped.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from fabdjango.escape import Shell, block, env_name, quote, quote_path, raw, sh

__all__ = ["ended_well", "render_detached", "render_follow", "render_reading"]

_END = "#end of script"
_NO_ROOM, _NO_RECORD = 90, 96
_LOOK = 0.01
"""Seconds between two looks at a record where the kernel tells nobody that it grew, as on an overlay; and at whether its writer lives."""
# The whole program is read before any of it runs, and its status is part of the record. It starts with a word that
# orphans.py knows it by. $1 is the run, $2 the record.
_KEEPER = (
    ': fabdjango; record=$2; printf "%s\\n" "$$" > "${2%.log}.pid"; '
    'trap \'s=$?; printf "\\036%s exit %s\\n" "$1" "$s"; sync -- "$2"\' EXIT; '
    f'p=$(cat); case $p in *"{_END}") eval "$p";; *) exit 95;; esac'
)


def _paths(folder: PurePosixPath, run: str) -> tuple[PurePosixPath, PurePosixPath]:
    return folder / f"{env_name(run)}.log", folder / f"{run}.pid"


def render_reading(*, run: str, folder: PurePosixPath, offset: int) -> Shell:
    """Print the record from ``offset`` (bytes) on, until the program has ended."""
    log, pid = _paths(folder, run)
    return block(
        raw(f"pid=$(cat -- {quote_path(pid)} 2>/dev/null)"),
        # The number may be another program's by now, and after a power cut nobody has written the end.
        raw(f'grep -aqs -e {quote(run)} "/proc/${{pid:-0}}/cmdline" || pid='),
        # A container's first process may never fetch a dead program, which kill and tail take for alive.
        raw(
            '[ ! "$pid" ] || { while read -r number name state rest < "/proc/$pid/stat" && [ "$state" != Z ]; '
            f"do sleep {2 * _LOOK}; done; }} >/dev/null 2>&1 &"
        ),
        # tail ends by itself once the program is gone, after a last look at the file.
        raw(f'tail -c +{offset + 1} ${{pid:+-s {_LOOK} -f --pid="$!"}} -- {quote_path(log)}'),
    )


def ended_well(*, run: str, folder: PurePosixPath) -> Shell:
    """A test: the record says that the program ended with status 0."""
    log, _ = _paths(folder, run)
    return raw(f'[ "$(tail -n 1 -- {quote_path(log)} | cut -d " " -f 2-)" = "exit 0" ]')


def render_detached(script: str, *, run: str, folder: PurePosixPath) -> str:
    """
    A program that starts ``script`` (a rendered phase) in a session of its own and follows its reports.

    ``folder`` keeps the record, readable by the account that logs in only.
    """
    log, _ = _paths(folder, run)
    mark = f"{run}_DETACHED"
    return block(
        raw("# fabdjango: start a program that outlives this session, and follow it"),
        # The shell runs nothing of a group whose end did not arrive.
        raw("{"),
        raw("set -u; umask 077"),
        raw(f"mkdir -p -- {quote_path(folder)} || exit {_NO_ROOM}"),
        raw(f"find {quote_path(folder)} -type f -mtime +7 -delete 2>/dev/null"),
        raw(f"log={quote_path(log)}"),
        raw(f': > "$log" && sync -- "$log" {quote_path(folder)} || exit {_NO_ROOM}'),
        # A shell ignores these in what it starts in the background, and nohup a hang-up; what is ignored cannot be trapped.
        raw("heed='env --default-signal=INT,QUIT,HUP'; $heed true 2>/dev/null || heed="),
        raw(f'$heed setsid sh -c {quote(_KEEPER)} sh {run} "$log" > "$log" 2>&1 <<\'{mark}\' &\n{script}\n{mark}'),
        raw(f'tail -c +1 -s {_LOOK} -f --pid="$!" -- "$log"'),
        raw("}"),
        raw(_END),
    )


def render_follow(*, run: str, folder: PurePosixPath, offset: int) -> str:
    """A program that reads the record on from ``offset`` (bytes) until the detached program has ended."""
    log, _ = _paths(folder, run)
    return block(
        raw("# fabdjango: follow a program that was started before"),
        raw("{"),
        raw(f"{sh('test', '-e', log)} || exit {_NO_RECORD}"),
        render_reading(run=run, folder=folder, offset=offset),
        raw("}"),
        raw(_END),
    )
