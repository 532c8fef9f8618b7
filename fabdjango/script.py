"""
A phase as one POSIX sh program that reports each step while it runs, and the parser of those reports.

The program reaches ``sh`` on standard input, never on a command line. A report
is a line that starts with a record separator and a word that changes with each
run, so that no program's output can be taken for one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from fabdjango.escape import Shell, block, env_name, python_literal, quote, quote_path, raw, sh
from fabdjango.plan import OWNER, ROOT, Phase, Put, Step

__all__ = [
    "BOOTSTRAP",
    "FAILED",
    "LOCKED",
    "REVERTED",
    "REVERT_FAILED",
    "Event",
    "EventParser",
    "render_body",
    "render_put",
    "render_script",
]

FAILED = 90
"""A step failed; what the phase had begun was undone, or did not need it."""
REVERTED = 93
"""A step failed after the site was touched; the old state was put back."""
REVERT_FAILED = 92
"""A step failed after the site was touched, and so did the way back."""
LOCKED = 94
"""Another deployment holds the lock."""
_CUT = 95

# The whole program is read before any of it runs: a link that breaks while it is sent leaves nothing half-done.
BOOTSTRAP = "sh -c " + quote(f'p=$(cat); case $p in *"#end of script") eval "$p";; *) exit {_CUT};; esac')

_PRELUDE = r"""
LC_ALL=C.UTF-8; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH
umask 022
cd -- "$HOME" 2>/dev/null || cd /
report() { printf '\036%s %s\n' "$FABDJANGO_RUN" "$*"; }
note() { report note "$*"; }
unchanged() { report unchanged "$*"; exit 0; }
refuse() { printf '%s\n' "$*"; exit 1; }
replace() { # FILE MODE < content: an atomic replacement that leaves an equal file alone
  mkdir -p -- "$(dirname -- "$1")"
  t=$(umask 077; mktemp -- "$(dirname -- "$1")/.fabdjango.XXXXXX")
  if base64 -d > "$t" && chmod "$2" -- "$t" && sync -- "$t"; then
    if [ -f "$1" ] && [ ! -L "$1" ] && cmp -s -- "$t" "$1" && [ "$(stat -c %a -- "$1")" = "$(stat -c %a -- "$t")" ]; then
      rm -f -- "$t"; return 0
    fi
    mv -fT -- "$t" "$1" && changed_files=1 && return 0
  fi
  rm -f -- "$t"; printf 'cannot write %s\n' "$1"; return 1
}
changed_files=
"""


def render_put(put: Put, *, shown: bool = False) -> Shell:
    """
    The shell that replaces one file; the content is a here-document and so never an argument.

    ``shown`` is for a reader: the content gives way to its size.
    """
    size = len(put.content.encode())
    content = f"({size} bytes, hidden)" if put.secret else f"({size} bytes)"
    return raw(
        f"replace {quote_path(put.path)} {put.mode:o} <<'EOF'\n{content if shown else _base64(put.content)}\nEOF"
    )


def _base64(content: str) -> str:
    import base64

    text = base64.b64encode(content.encode()).decode()
    return "\n".join(text[at : at + 76] for at in range(0, len(text), 76))


def _program(step: Step, run: str, *, shown: bool) -> Shell:
    if not step.program:
        return Shell("")
    if shown:
        return raw(f"{step.interpreter} - # {step.program.strip().splitlines()[0].strip(chr(34))}")
    data = python_literal(json.dumps(dict(step.parameters), sort_keys=True))
    mark = f"{run}_PY"
    return raw(
        f"{step.interpreter} - <<'{mark}'\nimport json as _json\nPARAMETERS = _json.loads({data})\n{step.program}\n{mark}"
    )


def render_body(step: Step, run: str = "", *, shown: bool = False) -> Shell:
    """What a step runs; ``shown`` is the form for a reader, without contents of files and programs."""
    puts = (render_put(put, shown=shown) for put in step.puts)
    return block(*puts, step.body, _program(step, run, shown=shown))


def _as_user(step: Step, run: str, *, owner: str, login: str) -> str:
    """The step as a subshell, or read from a here-document by the shell of another account."""
    target = owner if step.user == OWNER else step.user
    body = block(raw("set -e"), render_body(step, run))
    if not target or target == login:
        return f"(\n{body}\n) </dev/null 2>&1"
    become = f"{_become(target, login=login)} " + quote('eval "$(cat)"')
    mark = f"{run}_AS"
    return f"{become} 2>&1 <<'{mark}'\nFABDJANGO_RUN={run}\n{_PRELUDE}{body}\n{mark}"


def _become(account: str, *, login: str) -> Shell:
    """The words before one word of shell that is to run as ``account``."""
    if not account or account == login:
        return sh("sh", "-c")
    if login == ROOT:
        return sh("su", "-s", "/bin/sh", account, "-c")
    return sh("sudo", "-n", "-H", "-u", account, "--", "sh", "-c")


def _run_step(step: Step, run: str, label: str, *, owner: str, login: str) -> str:
    return f"report begin {label} {step.name}\n{_as_user(step, run, owner=owner, login=login)}\nrc=$?\nreport end {label} $rc\n"


def render_script(phase: Phase, *, run: str, owner: str = "", login: str = "") -> str:
    """
    The whole program for ``phase``.

    ``run`` is a fresh word of letters and digits, ``owner`` the account that
    owns the site and ``login`` the one that the session runs as; empty names
    mean that they are the same. Its exit status is 0, or one of FAILED,
    REVERTED, REVERT_FAILED and LOCKED.
    """
    env_name(run)
    # In braces, as the shell runs nothing of a group whose end did not arrive, even where the text was cut after
    # a value that looks like our last line.
    out = [f"# fabdjango: {phase.name}", "{", f"FABDJANGO_RUN={run}", _PRELUDE.strip()]
    names = [step.name for step in phase.steps]
    first_undo = names.index(phase.undo_from) if phase.undo_from else 0
    has_undo = bool(phase.undo)
    if has_undo:
        out += ["undo() {", "undone=0"]
        for number, step in enumerate(phase.undo):
            out += [_run_step(step, run, f"u{number}", owner=owner, login=login) + "[ $rc = 0 ] || undone=$rc"]
        out += ["}"]
    failed = REVERTED if phase.serving else FAILED
    lost = REVERT_FAILED if phase.serving else FAILED
    if phase.lock:
        out += [_take_lock(phase.lock, phase.holder, owner=owner, login=login)]
    for number, step in enumerate(phase.steps):
        out += [_run_step(step, run, str(number), owner=owner, login=login).rstrip("\n")]
        if has_undo and number >= first_undo:
            out += [f'[ $rc = 0 ] || {{ undo; [ "$undone" = 0 ] && exit {failed}; exit {lost}; }}']
        else:
            out += [f"[ $rc = 0 ] || exit {FAILED}"]
    return "\n".join([*out, "exit 0", "}", "#end of script"])


def _take_lock(path: PurePosixPath, holder: str, *, owner: str, login: str) -> str:
    """
    Hold the site's lock until this shell and its children are gone; the kernel sees to that.

    Folder and file are made and written by the owner, and only read by who
    logs in: root must not follow a link that the owner has put there.
    """
    root, account = path.parent.parent, owner or login
    as_owner = _become(account, login=login)
    make = block(sh("mkdir", "-p", "--", path.parent), raw(f": >> {quote_path(path)}"), sh("printf", "%s", path))
    made = f"lock=$({as_owner} {quote('set -e; ' + make)} 2>/dev/null)"
    privileged = raw("") if login == ROOT else raw("sudo -n ")
    make_root = (
        f"[ ! -e {quote_path(root)} ] && {privileged}{sh('install', '-d', '-o', account, '--', root)} 2>/dev/null"
    )
    say = raw('printf "%s, since %s\\n" ' + f'{quote(holder)} "$(date -u +%Y-%m-%dT%H:%M:%SZ)" > {quote_path(path)}')
    fail = f"cannot_lock {quote(f'cannot write {path}: permission denied')} {FAILED}"
    return "\n".join(
        [
            "cannot_lock() { report begin lock lock; printf '%s\\n' \"$1\"; report end lock 1; exit $2; }",
            f"{made} || {{ {make_root if account else 'false'} && {made}; }} || {fail}",
            f'( exec 9<"$lock" ) 2>/dev/null || {fail}',
            'exec 9<"$lock"',
            f'flock -n 9 || cannot_lock "$(cat -- "$lock")" {LOCKED}',
            f"{as_owner} {quote(str(say))}",
        ]
    )


# --- reports -----------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """
    Something that a running script said.

    ``kind`` is ``begin``, ``output``, ``note``, ``unchanged`` or ``end``.
    ``label`` is the step's place in the phase (``u0``… in its undo, ``lock``),
    ``text`` the name, the line of output, or the exit status.
    """

    kind: str
    label: str
    text: str


class EventParser:
    """Chunks of a script's output to events; a report may be split over chunks or follow half a line."""

    def __init__(self, run: str) -> None:
        self._mark = f"\036{run} ".encode()
        self._rest = b""
        self._label = ""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that ``chunk`` (bytes) completes."""
        # A program that redraws its line with carriage returns still gives lines.
        *lines, self._rest = re.split(rb"\r?\n", self._rest + chunk)
        for line in lines:
            yield from self._line(line)

    def forget(self) -> int:
        """Drop a line that has only begun, as it will be read again; its length in bytes."""
        rest, self._rest = self._rest, b""
        return len(rest)

    def close(self) -> Iterator[Event]:
        """The events of what was left without a line end."""
        rest, self._rest = self._rest, b""
        if rest:
            yield from self._line(rest)

    def _line(self, line: bytes) -> Iterator[Event]:
        before, mark, report = line.partition(self._mark)
        if before or not mark:
            yield Event("output", self._label, before.decode("utf-8", "replace"))
        if mark:
            kind, _, text = report.decode("utf-8", "replace").partition(" ")
            if kind in ("begin", "end"):
                label, _, text = text.partition(" ")
                self._label = label if kind == "begin" else ""
                yield Event(kind, label, text)
            else:
                yield Event(kind, self._label, text)
