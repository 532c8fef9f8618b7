"""
The shell of a site's two locks, as text.

``deployment`` is held exclusively for a whole deployment, ``steps`` shared by
each running step. The kernel frees both with their last holder. Whoever wins
``deployment`` must win ``steps`` exclusively too, and leaves its token in that
file: a step of a deployment that has lost the lock finds another's token and
does not begin.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.escape import Shell, block, quote, quote_path, raw, sh
from fabdjango.plan import OWNER, ROOT, Lock, Step
from fabdjango.privileged import steps_program

__all__ = ["LOCKED", "UNDERWAY", "become", "join_steps", "own_locks", "show", "steps_of_others", "take_lock", "unlock"]

LOCKED = 94
"""Another deployment holds the lock, or has taken it over."""
UNDERWAY = 97
"""An activation that a dead deployer left goes on by itself; its run and folder are told in the report ``underway``."""

# Number 9 is ``steps``, which a daemon that a step starts has to close; 8 is ``deployment``, closed before any step begins.
_NO_ROOM = 90
_LEASE = 20  # seconds of silence after which the deployer counts as gone


def become(account: str, *, login: str) -> Shell:
    """The words before one word of shell that is to run as ``account``."""
    if not account or account == login:
        return sh("sh", "-c")
    if login == ROOT:
        return sh("su", "-s", "/bin/sh", account, "-c")
    return sh("sudo", "-n", "-H", "-u", account, "--", "sh", "-c")


def take_lock(
    lock: Lock, *, run: str, task: str, owner: str, login: str, leased: bool, lease: bool, detached: bool = False
) -> str:
    """
    The shell that wins the locks before the first step, or ends the script with LOCKED or UNDERWAY.

    ``leased`` says that this run of the tool has won them before and counts on
    it. With ``lease``, ``deployment`` goes to a process of its own that ends
    with the session's standard input, or when that is silent for too long. A ``detached`` script lets go of it.
    Folder and files are made and written by the owner, and only read by who
    logs in: root must not follow a link that the owner has put there.
    """
    return "\n".join(
        [
            _FUNCTIONS,
            _open_files(lock, owner=owner, login=login),
            _writers(lock, task, owner=owner, login=login),
            steps_of_others(run, lock.steps, owner=owner, login=login) if detached or not leased else "",
            _KEEP_OURS if leased else _WIN.replace("WAIT", str(lock.wait)).replace("NO_ROOM", str(_NO_ROOM)),
            # What goes on without its deployer must not look as if that one were there; ``steps`` keeps others away.
            "exec 8<&-" if detached else "",
            # The change from exclusive to shared is not atomic.
            "flock -ns 9 && fenced || lost",
            '[ ! "$told" ] || report end lock 0',
            _LEASE_IT if lease else "",
        ]
    )


_FUNCTIONS = r"""told= lease=
locking() { [ "$told" ] || { told=1; report begin lock lock; }; }
cannot_lock() { locking; printf '%s\n' "$1"; report end lock 1; exit "$2"; }
holder() { IFS= read -r who < "$lock" || :; }
lost() { holder; cannot_lock "the lock was lost to ${who:-somebody}" 94; }"""


def _open_files(lock: Lock, *, owner: str, login: str) -> str:
    root, account = lock.deployment.parent.parent, owner or login
    make = block(
        raw("set -e"),
        sh("mkdir", "-p", "--", lock.deployment.parent, lock.steps.parent),
        raw(f": >> {quote_path(lock.deployment)}"),
        raw(f": >> {quote_path(lock.steps)}"),
        sh("printf", "%s\\n", lock.deployment, lock.steps),
    )
    made = f"files=$({become(owner, login=login)} {quote(str(make))} 2>/dev/null)"
    privileged = raw("") if login == ROOT else raw("sudo -n ")
    make_root = (
        f"[ ! -e {quote_path(root)} ] && {privileged}{sh('install', '-d', '-o', account, '--', root)} 2>/dev/null"
    )
    fail = f"cannot_lock {quote(f'cannot write {lock.deployment}: permission denied')} {_NO_ROOM}"
    return "\n".join(
        [
            f"{made} || {{ {make_root if account else 'false'} && {made}; }} || {fail}",
            "lock=${files%%\n*} steps=${files#*\n}".replace("\n", "'\n'"),
            f'( exec 8<"$lock" 9<"$steps" ) 2>/dev/null || {fail}',
            'exec 8<"$lock" 9<"$steps"',
        ]
    )


def _writers(lock: Lock, task: str, *, owner: str, login: str) -> str:
    as_owner = become(owner, login=login)
    who = " ".join(f"{lock.holder}, {task}".split())
    token = quote(lock.token)
    text = raw(
        f'printf "%s, since %s\\n%s\\n" {quote(who)} "$(date -u +%Y-%m-%dT%H:%M:%SZ)" {token} > {quote_path(lock.deployment)}'
    )
    fence = raw(f'printf "%s\\n" {token} > {quote_path(lock.steps)}')
    return "\n".join(
        [
            f"sign() {{ {as_owner} {quote(str(text))}; }}",
            f"sign_both() {{ {as_owner} {quote(str(block(text, fence)))}; }}",
            f'signed() {{ {{ read -r who; read -r token; }} < "$lock"; [ "$token" = {token} ]; }}',
            f'fenced() {{ IFS= read -r token < "$steps"; [ "$token" = {token} ]; }}',
        ]
    )


_KEEP_OURS = """flock -ns 9 && fenced || lost
if flock -n 8; then signed || sign; else signed || lost; exec 8<&-; fi"""

# While it waits it says so: writing to a session whose deployer has gone ends this shell.
_WIN = """if ! flock -n 8; then
  holder; left=WAIT
  [ $left -gt 0 ] || cannot_lock "$who" 94
  locking; note "waiting for $who"
  until flock -w $((left < 5 ? left : 5)) 8; do
    left=$((left - 5)); holder; report waiting "$who"
    [ $left -gt 0 ] || cannot_lock "$who" 94
  done
fi
if ! flock -n 9; then
  holder
  found=$(steps_of_others look | head -n 1)
  if [ "$found" ]; then
    locking; report underway "$found"; cannot_lock "$who" 97
  fi
  sign
  flock -w 2 9 || {
    found=$(steps_of_others end)
    flock -w 5 9 || cannot_lock "a step that nobody here may end still runs: $who" 94
    [ ! "$found" ] || { locking; note "ended what a dead deployment still ran: $(echo $found)"; }
  }
fi
sign_both 2>/dev/null || cannot_lock "cannot write $lock" NO_ROOM"""

# A byte comes every few seconds. The lock is this process's alone, so that nothing else can keep it.
_LEASE_IT = f"""exec 7<&0 </dev/null
( while [ "$(exec 8<&-; exec timeout {_LEASE} head -c 1)" ]; do :; done ) <&7 7<&- 9<&- >/dev/null 2>&1 &
lease=$!
exec 7<&- 8<&-"""


def steps_of_others(run: str, steps: PurePosixPath, *, owner: str, login: str) -> str:
    """
    The shell function ``steps_of_others look|end``: what holds ``$steps``, beside this shell.

    ``look`` prints run and folder of activations that are alive, ``end`` ends
    everything and prints its names. It is done as every account that a step may have had; what root has to do, its
    own program does where the host has it. ``steps`` is that file as the settings have it.
    """
    mark = f"{run}_STEPS"
    head = "import sys\nPARAMETERS = dict(zip(('mode', 'steps', 'own'), sys.argv[1:]))\n"
    accounts = dict.fromkeys([login, *([owner] if owner else [])])
    python = quote('exec python3 - "$@"')

    def run_by(account: str) -> str:
        return f'{become(account, login=login)} {python} sh "$1" "$steps" $$ 2>/dev/null <<{mark}\n$program\n{mark}'

    run_as = [run_by(account) for account in accounts]
    if login != ROOT:
        own = quote_path(steps_program(onhost.source("orphans"), steps).path)
        run_as.append(f'if [ -x {own} ]; then sudo -n -- {own} "$1" $$ 2>/dev/null\nelse {run_by(ROOT)}\nfi')
    return "\n".join(
        [
            "steps_of_others() {",
            f"program={quote(head + onhost.source('orphans'))}",
            # Neither this nor what feeds it may be found among the holders.
            "{",
            *run_as,
            "} 8<&- 9<&- || :",
            "}",
        ]
    )


def own_locks() -> str:
    """Positional words for the shell of another account: sudo closes what it would inherit, so it opens them itself."""
    return 'sh "$steps" "$lock"'


def join_steps(lock: Lock) -> str:
    """What that shell does first: it holds ``steps`` too, unless this deployment has lost it."""
    refuse = "{ echo 'this deployment has lost its lock'; exit 94; }"
    return "\n".join(
        [
            'exec 9<"$1"',
            f'flock -ns 9 && IFS= read -r token < "$1" && [ "$token" = {quote(lock.token)} ] || {refuse}',
            "",
        ]
    )


def unlock(lock: Lock, user: str = OWNER) -> Step:
    """
    ``unlock``: end what holds either lock, as far as ``user`` may.

    A detached activation is told to undo what it did, and waited for up to 60
    seconds. Prints who held the locks and what was done.
    """
    files = block(raw(f"exec 6< {quote_path(lock.deployment)}"), raw(f"exec 7< {quote_path(lock.steps)}"))
    there = raw(f"[ -e {quote_path(lock.deployment)} ] && [ -e {quote_path(lock.steps)} ]")
    return Step(
        "unlock",
        "end what holds the lock",
        block(
            raw(f"{{ {there}; }} || unchanged 'nobody has deployed here'"),
            files,
            raw("if flock -n 6 && flock -n 7; then unchanged 'nobody holds the lock'; fi"),
            raw(f'IFS= read -r who < {quote_path(lock.deployment)} || :; note "held by ${{who:-somebody}}"'),
            raw("exec 6<&- 7<&-"),
        ),
        user=user,
        program=onhost.source("orphans"),
        parameters={"mode": "unlock", "deployment": str(lock.deployment), "steps": str(lock.steps)},
        cure="an activation that cannot undo in time goes on by itself: look with status, then unlock again",
    )


def show(lock: Lock) -> Step:
    """``lock``: who holds the site, from where and since when; nobody, if nobody does."""
    path = quote_path(lock.deployment)
    body = raw(
        f"[ -e {path} ] || {{ echo 'nobody has deployed here'; exit 0; }}\n"
        f"exec 6< {path}\n"
        "if flock -n 6; then echo 'nobody holds the lock'; else IFS= read -r who <&6 || :; printf 'held by %s\\n' \"$who\"; fi"
    )
    return Step("lock", "who holds the lock", body)
