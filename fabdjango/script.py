"""
A phase as one POSIX sh program that reports each step while it runs, and the parser of those reports.

The program reaches ``sh`` on standard input, never on a command line. A report
is a line that starts with a record separator and a word that changes with each
run, so that no program's output can be taken for one.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from fabdjango import privileged
from fabdjango.body import PRELUDE, render_body
from fabdjango.escape import Shell, block, env_name, quote, quote_path, raw, sh
from fabdjango.locking import LOCKED, UNDERWAY, become, join_steps, own_locks, take_lock
from fabdjango.plan import LOGIN, OWNER, ROOT, Phase, Step

__all__ = [
    "AWAITING",
    "FAILED",
    "KEPT",
    "LOCKED",
    "NO_RECORD",
    "PAUSE_VARIABLE",
    "REVERTED",
    "REVERT_FAILED",
    "UNDERWAY",
    "Event",
    "EventParser",
    "bootstrap",
    "bootstrap_as_root",
    "framed",
    "render_script",
    "render_settling",
]

FAILED = 90
"""A step failed; what the phase had begun was undone, or did not need it."""
KEPT = 91
"""The site was touched and stays so; a step failed when there was no way back any more."""
REVERT_FAILED = 92
"""A step failed after the site was touched, and so did the way back."""
REVERTED = 93
"""A step failed after the site was touched; the old state was put back."""
NO_RECORD = 96
"""The host has no record of the activation that was asked for."""
AWAITING = 98
"""Not the status of a script: an activation waits on the host for the deployer's word."""
_CUT = 95

PAUSE_VARIABLE = "FABDJANGO_TEST_PAUSE"
"""
For tests: before:STEP, during:STEP or after:STEP makes a host wait there while the file ``paused`` exists.

With @ADDRESS behind it, it is meant for that host only.
"""

_END = "#end of script"


def framed(script: str) -> bytes:
    """
    ``script`` as it is sent: a line that says how long it is, and what is compressed to a quarter, the most of a deploy's traffic.

    Not by SSH's own compression, which would try its hand at packs and wheels too.
    """
    data = gzip.compress(script.encode(), mtime=0)
    return b"%d\n" % len(data) + data


def bootstrap() -> str:
    """
    The command that reads a script (``framed``, on its standard input) and runs it.

    The whole program is read before any of it runs: a link that breaks while it
    is sent leaves nothing half-done. It reads so many bytes and no more, as what follows them keeps a lease alive.
    """
    return str(sh("sh", "-c", _READ))


def bootstrap_as_root(prompt: str, ready: str) -> str:
    """
    The same as root, by a sudo that asks for a password.

    It asks with ``prompt``, hears the answer on standard input, and the script may follow once ``ready`` has been
    printed: what is sent before that, sudo would take for another try. Words of its own must be neither.
    """
    # An old answer does not count, so that it asks now or not at all.
    sudo = raw('exec sudo -k -S -H -p "$1" -- env "SSH_CONNECTION=$SSH_CONNECTION" sh -c "$2"')
    read = f"printf %s {quote(ready)}; {_READ}"
    return str(sh("sh", "-c", f"LC_ALL=C; export LC_ALL; {sudo}", "sh", prompt, read))


_READ = (
    f'read -r n && p=$(head -c "$n" | gzip -d) || exit {_CUT}; case $p in *"{_END}") eval "$p";; *) exit {_CUT};; esac'
)


# In a step whose standard output is a file.
_REPORT_ASIDE = r"""report() { printf '\036%s %s\n' "$FABDJANGO_RUN" "$*" >&2; }
refuse() { printf '%s\n' "$*" >&2; exit 1; }"""

# A line of base64 must not be torn by what is said meanwhile: that is kept, with the status as its last line.
_FETCH = r"""nl='
'
fetch() {
  { said=$({ { fetched 2>&3 3>&- 4>&-; printf '\n%s' $? >&3; } | base64 -w 8192 >&4 3>&- || printf '\n1' >&3; } 3>&1); } 4>&1
  report fetched; rc=${said##*"$nl"}; said=${said%"$nl"*}
  [ ! "$said" ] || printf '%s\n' "${said%"$nl"}"
  return "$rc"
}"""


@dataclass(frozen=True)
class _Renderer:
    """What all steps of one script have in common."""

    phase: Phase
    run: str
    owner: str
    login: str
    pause: str = ""
    fence: PurePosixPath | None = None

    def step(self, step: Step, label: str, *, durable: bool = False) -> str:
        """One step with its reports; ``rc`` is its status."""
        lines = [f"report begin {label} {step.name}"]
        if durable:
            # What was begun must be known after a power cut too.
            lines.append('[ -z "${record-}" ] || sync -- "$record"')
        if self.pause == f"before:{step.name}":
            lines.insert(0, f"pause {step.name}")
        lines += [self._as_user(step), "attend" if self.phase.record else "rc=$?"]
        if self.pause == f"after:{step.name}":
            lines.append(f"pause {step.name}")
        return "\n".join([*lines, *(["judge"] if self.phase.record else []), f"report end {label} $rc"])

    def _as_user(self, step: Step) -> str:
        """The step as a subshell, or read from a here-document by the shell of another account."""
        target = {OWNER: self.owner, LOGIN: self.login}.get(step.user, step.user)
        lock = self.phase.lock
        # The lock of the deployment is for no step, nor is what the others are fed; a detached script must hear
        # signals while one runs.
        end = "2>&1 8<&-" if not step.fetch else "8<&-"
        end += (" 6<&-" if self.phase.feeds else "") + (" &" if self.phase.record else "")
        during = self.pause == f"during:{step.name}" and lock is not None
        if step.guard:
            guarded = self._as_user(replace(step, guard=Shell("")))
            waits = "wait $!" if self.phase.record else ""
            return f"(\nset -e\n{block(step.guard, raw('set +e'), raw(guarded), raw(waits))}\n) {end}"
        if target == ROOT != self.login and self.fence and not (during or step.feed or step.fetch):
            return self._as_root(step, end)
        body = block(
            raw("set -e"),
            raw(_REPORT_ASIDE if step.fetch else ""),
            raw(f"pause_here {step.name}" if during else ""),
            render_body(step, self.run),
        )
        if not target or target == self.login:
            source = "" if step.feed else "</dev/null "
            return self._carried(step, f"(\n{body}\n) {source}{end}")
        joined, words = "", ""
        if lock:
            words = f" {own_locks()}"
            joined = join_steps(lock) + ("paused=${2%/*}/paused\n" + _PAUSE_HERE if during else "")
        mark = f"{self.run}_AS"
        text = f"FABDJANGO_RUN={self.run}\n{PRELUDE}{joined}{body}\n"
        read = f"head -c {len(text.encode())}" if step.feed else "cat"
        words = f"""{become(target, login=self.login)} {quote(f'eval "$({read})"')}{words}"""
        if step.feed:
            return self._carried(step, f"{words} {end}", f"cat <<'{mark}'\n{text}{mark}\n")
        here = end.replace("8<&-", f"8<&- <<'{mark}'")
        return self._carried(step, f"{words} {here}\n{text}{mark}")

    def _as_root(self, step: Step, end: str) -> str:
        """The step as root's own program, where the host has that; else its text, if sudo lets the login run any."""
        lock = self.phase.lock
        put = privileged.program(step, lock.steps if lock else self.fence or PurePosixPath("/"))
        mark, token = f"{self.run}_AS", lock.token if lock else ""
        own = f"{privileged.run_program(put, self.run, token)} </dev/null {end}"
        words = f"""{become(ROOT, login=self.login)} {quote('eval "$(cat)"')} {sh("sh", self.run, token)}"""
        here = end.replace("8<&-", f"8<&- <<'{mark}'")
        return f"if [ -x {quote_path(put.path)} ]; then {own}\nelse {words} {here}\n{put.content}{mark}\nfi"

    def _carried(self, step: Step, command: str, before: str = "") -> str:
        """``command`` with the step's feed on its standard input, after what ``before`` prints; its output fetched."""
        if step.fetch:
            # Not in $( ), where shells disagree about here-documents.
            command = f"fetched() {{\n{command}\n}}\nfetch"
        if not step.feed:
            return command
        # A shell waits for all of a pipe. What the step leaves unread is read here, as the next feed comes behind it.
        drain = "cat >/dev/null" if self.phase.kept_from else "[ $rc != 0 ] || cat >/dev/null"
        return (
            f"{{ {before}head -c {len(step.feed)}; }} <&6 2>/dev/null | {{\n"
            f"{command}\nrc=$?; {drain}; exit $rc; }} 6<&-"
        )

    def pausing(self) -> str:
        """What the hook for tests needs."""
        if not self.pause:
            return ""
        if not self.phase.lock:
            return "pause() { :; }"
        touch = quote(str(raw(f": > {quote_path(self.phase.lock.deployment.parent / 'paused')}")))
        return (
            "paused=${lock%/*}/paused\n"
            f'pause() {{ {become(self.owner, login=self.login)} {touch}; report paused "$1"; paused_still; }}\n'
            'paused_still() { while [ -e "$paused" ] && [ ! "$signalled" ]; do sleep 0.05; done; }\n' + _PAUSE_HERE
        )


_PAUSE_HERE = """pause_here() { : > "$paused"; report paused "$1"; while [ -e "$paused" ]; do sleep 0.05; done; }
"""

# A detached script is told to stop by a signal to it alone, also while a step of another account runs. It ends what
# runs of the step, which then has failed. During an undo and when there is no way back, it goes on.
_ATTENDING = """trap 'interrupted' TERM HUP INT
interrupted() { [ $stage = run ] || return 0; signalled=1; end_step; }
end_step() { [ ! "${step-}" ] || kill "$step" 2>/dev/null; STEPS_END; }
attend() {
  step=$!
  [ ! "$signalled" ] || [ $stage != run ] || end_step
  wait "$step"; rc=$?
  while [ $rc -gt 128 ] && kill -0 "$step" 2>/dev/null; do wait "$step"; rc=$?; done
  step=
}
judge() { [ ! "$signalled" ] || [ $stage != run ] || [ $rc != 0 ] || rc=143; }"""


def render_script(
    phase: Phase,
    *,
    run: str,
    owner: str = "",
    login: str = "",
    leased: bool = False,
    pause: str = "",
    fence: PurePosixPath | None = None,
) -> str:
    """
    The whole program for ``phase``.

    ``run`` is a fresh word of letters and digits, ``owner`` the account that
    owns the site and ``login`` the one that the session runs as; empty names
    mean that they are the same. ``leased`` says that this run of the tool has
    won the phase's lock before. ``pause`` is what PAUSE_VARIABLE holds. With ``fence``, the site's file that every
    step locks, root's steps are done by programs of root's own where the host has them.

    Its exit status is 0, or one of FAILED, KEPT, REVERTED, REVERT_FAILED,
    LOCKED and UNDERWAY. What has won the deployment's lock ends with the
    session's standard input, or its silence. With ``phase.hold`` it stays when
    the steps are over: the status is told in the report ``exit``. A detached
    script takes TERM, HUP and INT for a failure of the step that runs.

    The feeds of the steps follow the program on standard input. Raises
    ValueError for a feed where something else is heard there, or nothing: with
    a record, in an undo, and in a phase that is to win the lock itself.
    """
    env_name(run)
    lease = phase.lock is not None and not phase.record and not leased
    _check_carried(phase, lease=lease)
    it = _Renderer(phase, run, owner, login, pause, fence)
    names = [step.name for step in phase.steps]
    first_undo = names.index(phase.undo_from) if phase.undo_from else 0
    serving = names.index(phase.serving_from) if phase.serving_from else len(names)
    kept = names.index(phase.kept_from) if phase.kept_from else len(names)
    # In braces, as the shell runs nothing of a group whose end did not arrive, even where the text was cut after
    # a value that looks like our last line.
    out = [f"# fabdjango: {phase.name}", "{", f"FABDJANGO_RUN={run}", PRELUDE.strip(), "stage=run signalled= kept="]
    if phase.feeds:
        out.append("exec 6<&0 </dev/null")
    if any(step.fetch for step in phase.steps):
        out.append(_FETCH)
    if phase.record:
        out.append(f"trap 'exit {FAILED}' TERM HUP INT")
    if phase.lock:
        task = phase.lock.task or phase.name
        out.append(
            take_lock(
                phase.lock,
                run=run,
                task=task,
                owner=owner,
                login=login,
                leased=leased,
                lease=lease,
                detached=phase.record is not None,
            )
        )
    if phase.record:
        # Not before: while it waits for the locks, the steps that run are another deployment's.
        out.append(_ATTENDING.replace("STEPS_END", "steps_of_others end >/dev/null" if phase.lock else ":"))
    if pause:
        out.append(it.pausing())
    out.append('leave() { kill "$lease" 2>/dev/null; exit "$1"; }' if lease else 'leave() { exit "$1"; }')
    if phase.undo:
        out += ["undo() {", "stage=undo undone=0"]
        for number, step in enumerate(phase.undo):
            out += [it.step(step, f"u{number}", durable=bool(phase.serving_from)), "[ $rc = 0 ] || undone=$rc"]
        out += ["}"]
    for number, step in enumerate(phase.steps):
        if number == kept:
            out.append("stage=kept")
        out.append(it.step(step, str(number), durable=number >= serving))
        if number >= kept:
            out.append(f"[ $rc = 0 ] || kept={KEPT}")
        else:
            out.append(_verdict(phase, undone=number >= first_undo, serving=number >= serving))
    if phase.hold and lease:
        out += ['report exit "${kept:-0}"', "exec 9<&-", 'wait "$lease"']
    return "\n".join(line for line in [*out, 'leave "${kept:-0}"', "}", _END] if line)


def _check_carried(phase: Phase, *, lease: bool) -> None:
    fed, fetched = (any(getattr(step, name) for step in phase.steps) for name in ("feed", "fetch"))
    if (fed and (phase.record or lease)) or (fetched and phase.record):
        what = "feed a step" if fed else "fetch from a step"
        msg = f"the phase {phase.name} cannot {what}: {'it is detached' if phase.record else 'it is to win the lock'}"
        raise ValueError(msg)
    if any(step.feed or step.fetch for step in phase.undo):
        msg = f"the undo of the phase {phase.name} can neither feed a step nor fetch from one"
        raise ValueError(msg)


def _verdict(phase: Phase, *, undone: bool, serving: bool) -> str:
    """What follows a step that is not kept."""
    if phase.undo and (undone or serving):
        # A phase that never touches the site leaves nothing unknown.
        lost = REVERT_FAILED if phase.serving_from else FAILED
        return f'[ $rc = 0 ] || {{ undo; [ "$undone" = 0 ] && leave {REVERTED if serving else FAILED}; leave {lost}; }}'
    return f"[ $rc = 0 ] || leave {REVERT_FAILED if serving else FAILED}"


def render_settling(
    decision: Step | None,
    following: Shell,
    *,
    run: str,
    done: Shell,
    owner: str,
    login: str,
    then: str,
    alongside: bool = False,
) -> str:
    """
    The program that makes a decision, reads a record to its end, and goes on with ``then`` (a rendered phase, or nothing).

    Its own reports carry ``run``; between ``follow`` and ``followed`` stands the record, which ``following``
    prints. ``then`` only runs if ``done`` says that the activation ended well; if it is ``alongside``, it begins as soon
    as the decision is made, and is told after the record.
    """
    _check_carried(Phase("settle", (decision,) if decision else ()), lease=True)
    it = _Renderer(Phase("settle", ()), env_name(run), owner, login)
    out = ["# fabdjango: settle an activation", "{", f"FABDJANGO_RUN={run}", PRELUDE.strip()]
    if decision is not None:
        out.append(it.step(decision, "decision"))
    out += ["told() {", "report follow", str(following), "report followed", str(done), "}"]
    # Functions, as shells disagree about here-documents in $( ).
    out += ["aside() (", then or ":", ")"]
    if decision is not None and then and alongside:
        out.append(_ALONGSIDE)
    out += ["told || exit 0", "aside", "exit $?", "}", _END]
    return "\n".join(out)


# What the one says waits in a pipe until the other has ended; its status comes on a way of its own.
_ALONGSIDE = """if [ $rc = 0 ]; then
  exec 4>&1
  status=$({ { aside 2>&1 3>&- 4>&-; printf %s $? >&3; } | { ! told || cat; } >&4 3>&-; } 3>&1)
  exit "${status:-0}"
fi"""


# --- reports -----------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """
    Something that a running script said.

    ``kind`` is ``begin``, ``output``, ``note``, ``unchanged``, ``await`` or ``end``; ``waiting`` (for the lock),
    ``paused``, ``underway`` and ``exit`` are told of the script itself. ``fetched`` follows the
    lines of base64 of a step that fetches.
    ``label`` is the step's place in the phase (``u0``… in its undo, ``lock``),
    ``text`` the name, the line of output, the seconds, or the exit status.
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
