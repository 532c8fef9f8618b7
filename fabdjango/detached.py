"""
A program that goes on without the session that brought it, and the way to follow it.

Switching a site must end one way or the other even if the operator's machine
or the link dies in the middle. So the program runs in a session of its own and
reports into a file; what the operator sees is that file, read from wherever
reading stopped.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from fabdjango.escape import block, env_name, quote, quote_path, raw, sh

__all__ = ["render_detached", "render_follow"]

_END = "#end of script"
# The whole program is read before any of it runs, and its status is part of the record.
_KEEPER = f'p=$(cat); case $p in *"{_END}") (eval "$p"); s=$?;; *) s=95;; esac; printf "\\036%s exit %s\\n" "$1" "$s"'


def _paths(folder: PurePosixPath, run: str) -> tuple[PurePosixPath, PurePosixPath]:
    return folder / f"{env_name(run)}.log", folder / f"{run}.pid"


def _follow(folder: PurePosixPath, run: str, offset: int) -> str:
    log, pid = _paths(folder, run)
    # tail ends by itself once the program is gone, after a last look at the file.
    return f'tail -c +{offset + 1} -s 0.1 -f --pid="$(cat -- {quote_path(pid)})" -- {quote_path(log)}'


def render_detached(script: str, *, run: str, folder: PurePosixPath) -> str:
    """
    A program that starts ``script`` (a rendered phase) in a session of its own and follows its reports.

    ``folder`` keeps the record, readable by the account that logs in only.
    """
    log, pid = _paths(folder, run)
    mark = f"{run}_DETACHED"
    return block(
        raw("# fabdjango: start a program that outlives this session, and follow it"),
        # The shell runs nothing of a group whose end did not arrive.
        raw("{"),
        raw("set -u; umask 077"),
        raw(f"mkdir -p -- {quote_path(folder)} || exit 90"),
        raw(f"find {quote_path(folder)} -type f -mtime +7 -delete 2>/dev/null"),
        raw(f": > {quote_path(log)} || exit 90"),
        raw(f"setsid sh -c {quote(_KEEPER)} sh {run} > {quote_path(log)} 2>&1 <<'{mark}' &\n{script}\n{mark}"),
        raw(f'printf "%s\\n" "$!" > {quote_path(pid)}'),
        raw(_follow(folder, run, 0)),
        raw("}"),
        raw(_END),
    )


def render_follow(*, run: str, folder: PurePosixPath, offset: int) -> str:
    """A program that reads the record on from ``offset`` (bytes) until the detached program has ended."""
    log, _ = _paths(folder, run)
    return block(
        raw("# fabdjango: follow a program that was started before"),
        raw("{"),
        raw(f"{sh('test', '-e', log)} || exit 96"),
        raw(_follow(folder, run, offset)),
        raw("}"),
        raw(_END),
    )
