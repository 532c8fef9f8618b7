"""
A step of root's as a program of its own, that root owns and the owner of a site may run.

Where a host has the program, an account needs no more of sudo than to run that one file. Its name ends in a digest of its
text, so that a step which has become another one finds no program, and is refused.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

from fabdjango.body import PRELUDE, render_body
from fabdjango.escape import quote_path, sh
from fabdjango.plan import Put, Step

__all__ = ["FOLDER", "program", "run_program", "steps_program"]

FOLDER = PurePosixPath("/opt/fabdjango/root")
"""Where the programs of all sites are; root's alone, with all folders above it, which /usr/local is not on Debian."""

_HEAD = """#!/bin/sh
# Managed by fabdjango; local edits are overwritten.
# {title}
# Its arguments, of which none is trusted: a word that marks reports, and the token of the deployment's lock."""

# Whoever runs it chooses the environment, the folder and the arguments.
_GUARD = r"""case $1$2 in *[!A-Za-z0-9]*) exit 64;; esac
FABDJANGO_RUN=$1 token=$2 HOME=/root
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH HOME
unset ENV BASH_ENV CDPATH IFS"""

_JOIN = """if [ "$token" ]; then
  {{ [ -f {steps} ] && exec 9< {steps} && flock -ns 9 && IFS= read -r held < {steps} && [ "$held" = "$token" ]; }} ||
    {{ echo 'this deployment has lost its lock'; exit 94; }}
fi"""


def program(step: Step, steps_lock: PurePosixPath) -> Put:
    """
    The program of a step; ``steps_lock`` is the file that it locks while it runs, if it is given a token.

    The same step under another name has the same program.
    """
    lines = [_HEAD.format(title=step.title), _GUARD, PRELUDE.strip(), "cd /"]
    lines += [_JOIN.format(steps=quote_path(steps_lock)), "set -e", str(render_body(step, "FABDJANGO")), ""]
    return _named(step.title, "\n".join(lines))


def _named(title: str, text: str) -> Put:
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60]
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Put(FOLDER / f"{slug}.{digest}", text, 0o755)


def run_program(put: Put, run: str, token: str) -> str:
    """The words that run it as root."""
    return str(sh("sudo", "-n", "--", put.path, run, token))


def steps_program(source: str, steps_lock: PurePosixPath) -> Put:
    """
    The program that looks at or ends what root's programs of a deployment have left running: ``look`` or ``end`` is its argument.

    ``source`` is the program ``orphans``; it sees only what holds ``steps_lock``.
    """
    head = _HEAD.format(title=f"see to steps that hold {steps_lock}").replace(
        "a word that marks reports, and the token of the deployment's lock", "look or end, and the caller's process"
    )
    lines = [
        head,
        "case $1 in look|end) ;; *) exit 64;; esac",
        'case $2 in *[!0-9]*|"") exit 64;; esac',
        *_GUARD.splitlines()[2:],
        "cd /",
        f'exec python3 -I - "$1" {quote_path(steps_lock)} "$2" <<\'FABDJANGO_PY\'',
        "import sys",
        "PARAMETERS = dict(zip(('mode', 'steps', 'own'), sys.argv[1:]))",
        source,
        "FABDJANGO_PY",
        "",
    ]
    return _named(f"steps of {steps_lock.parent.parent}", "\n".join(lines))
