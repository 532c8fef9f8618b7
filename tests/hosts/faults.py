"""
Faults, injected at an exact moment of a deploy on a real host, each with the proof that it hit.

The moment is a pause of the product's test hook: the operator's FABDJANGO_TEST_PAUSE="before:STEP" (during, after)
makes the script on the host stop there until `<root>/run/paused` is removed. `hit` starts `fab` so, waits for that
file, injects the fault, removes the file, waits until nothing of the deploy runs any more, and gives what `fab` said
and the proof. A fault without a proof raises NotHit: such a case was not run, however green all else looks.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.hosts import invariants
from tests.hosts.workplace import wait_for
from tests.machine_image import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.hosts.invariants import Site
    from tests.hosts.workplace import Outcome, Running
    from tests.machines import Machine

__all__ = ["FAULTS", "PAUSE", "POINTS", "STEPS", "Disk", "Hit", "NotHit", "Scene", "hit"]

#: The variable of the operator's environment that names the moment.
PAUSE = "FABDJANGO_TEST_PAUSE"

#: The steps of a deploy in their order, by the names that `fab --dry deploy` shows. `open` is only there where the
#: manager holds the listening socket, `processes` only where the site has some.
STEPS = (
    *("tools", "fetch", "survey"),
    *("recover", "still", "settings", "export", "link-settings", "links", "venv", "install", "check", "static"),
    *("manager-check", "complete"),
    *("migrate", "slots", "configure", "slot", "start", "health", "arm", "switch", "open", "answer", "processes"),
    *("await", "journal", "drain", "stop-old", "empty-slot", "publish", "forget"),
    "prune",
)

#: The 20 moments of the matrix: each step where it hurts most.
POINTS = (
    *("during:fetch", "during:survey", "during:settings", "during:export", "after:venv", "during:install"),
    *("during:check", "during:migrate", "before:configure", "after:configure", "during:start", "during:health"),
    *("before:arm", "after:arm", "after:switch", "during:processes", "during:await"),
    *("during:drain", "during:stop-old", "during:prune"),
)


class NotHit(AssertionError):  # noqa: N818 - it says what happened
    """The fault did not hit: the case was not run."""


@dataclass
class Scene:
    """A deploy that has stopped at its pause: where it runs, and the operator's process."""

    site: Site
    running: Running
    disk: Disk | None = None
    #: What is done to mend the fault, once `fab` has ended.
    mends: list[Callable[[], object]] = field(default_factory=list)
    #: The script stays where it is for ever.
    hangs: bool = False

    @property
    def machine(self) -> Machine:
        """The host."""
        return self.site.machine

    @property
    def pause_file(self) -> str:
        """The file that the script waits for."""
        return f"{self.site.root}/run/paused"

    def paused(self) -> bool:
        """Look through the host's PID 1 rather than log in: a cut host is looked at too."""
        return Path(f"/proc/{self.machine.leader_pid}/root{self.pause_file}").exists()

    def go_on(self) -> None:
        """Let the script go on, if it waits and its host still runs."""
        if self.paused():
            self.machine.run(f"rm -f {shlex.quote(self.pause_file)}", check=False)


@dataclass
class Hit:
    """How a deploy under a fault ended; `proof` says how we know that the fault hit, `quiet` is how long the host took (s)."""

    outcome: Outcome
    proof: list[str]
    mended: float
    quiet: float
    busy: list[str]

    @property
    def said(self) -> str:
        """All that the operator read."""
        return f"{self.outcome.error}{self.outcome.output}"


def hit(
    site: Site,
    start: Callable[..., Running],
    fault: Callable[[Scene], list[str]],
    pause: str,
    *,
    disk: Disk | None = None,
    patience: float = 90,
    force: Callable[[], object] | None = None,
) -> Hit:
    """
    Run a deploy under a fault at a moment such as "before:switch".

    `start` starts it, with more environment variables as keywords. Raises NotHit if the moment never came, or the
    fault cannot be proved; the host is mended in any case. `force` ends what hangs for ever and did not end with `fab`;
    without it that is left for the next deploy.
    """
    site.machine.run(f"rm -f {shlex.quote(site.root)}/run/paused")
    scene = Scene(site, start(**{PAUSE: pause}), disk)
    try:
        if not wait_for(lambda: scene.paused() or scene.running.process.poll() is not None, patience):
            message = f"{pause}: not reached in {patience:.0f} s"
            raise NotHit(message)
        if not scene.paused():
            outcome = scene.running.wait()
            message = f"{pause}: fab ended first, with {outcome.code}\n{outcome.output}\n{outcome.error}"
            raise NotHit(message)
        proof = fault(scene)
        if not proof:
            message = f"{pause}: {getattr(fault, '__name__', fault)} left no trace"
            raise NotHit(message)
        # The same step comes again in an undo, or where fab takes up what it lost: only the first time was asked for.
        _wait_and_go_on(scene, lambda: scene.running.process.poll() is not None, patience + 60)
        hung = scene.running.process.poll() is None
        if hung:
            scene.running.process.kill()
        outcome = scene.running.wait()
    finally:
        if scene.running.process.poll() is None:
            scene.running.process.kill()
            scene.running.process.wait()
        for mend in scene.mends:
            mend()
    if scene.hangs:
        left = not wait_for(lambda: not invariants.orphans(site, 0), 5)
        proof.append("nothing was left" if not left else "it was ended by force" if force else "it still hangs")
        if left:
            if not force:
                return Hit(outcome, [f"paused {pause}", *proof], time.monotonic(), 0.0, [])
            force()
    mended = time.monotonic()
    _wait_and_go_on(scene, lambda: not invariants.orphans(site, 0), patience)
    busy = invariants.orphans(site, 0)
    if hung:
        busy.append(f"I7: fab had said nothing final after {patience + 60:.0f} s, and was killed")
    return Hit(outcome, [f"paused {pause}", *proof], mended, time.monotonic() - mended, busy)


def _wait_and_go_on(scene: Scene, what: Callable[[], object], seconds: float) -> None:
    """Wait until `what` is true, and let the script go on wherever it stops meanwhile."""

    def look() -> object:
        if not scene.hangs:
            scene.go_on()
        return what()

    wait_for(look, seconds)


# --- the operator's process --------------------------------------------------


def _signalled(number: signal.Signals) -> Callable[[Scene], list[str]]:
    def fault(scene: Scene) -> list[str]:
        process = scene.running.process
        if process.poll() is not None:
            return []
        process.send_signal(number)
        if number is signal.SIGKILL:
            process.wait(10)
            return [f"fab is gone with {process.returncode}"] if process.returncode == -number else []
        # It may go on to the end of what it must not leave: that it took the signal shows in what it does next.
        return [f"{number.name} was sent to fab, process {process.pid}, while it waited"]

    fault.__name__ = number.name
    return fault


# --- the link ----------------------------------------------------------------


def _carrier_losses(machine: Machine) -> int:
    return int(Path(f"/sys/class/net/vb-{machine.name}/carrier_down_count").read_text())


def _cut(scene: Scene) -> list[str]:
    machine = scene.machine
    before = _carrier_losses(machine)
    scene.mends.append(machine.mend)
    machine.cut()
    state = Path(f"/sys/class/net/vb-{machine.name}/operstate").read_text().strip()
    lost = _carrier_losses(machine) - before
    return [f"link {state}, carrier lost {lost} times"] if state == "down" and lost else []


def link_down(scene: Scene) -> list[str]:
    """The cable is out until fab has given up."""
    return _cut(scene)


def link_down_5s(scene: Scene) -> list[str]:
    """The cable is out for 5 seconds, while the host goes on."""
    proof = _cut(scene)
    scene.go_on()
    time.sleep(5)  # the length of the fault itself
    scene.machine.mend()
    return proof


# --- the host's processes ----------------------------------------------------


def kill_session(scene: Scene) -> list[str]:
    """The sshd processes of the deployer's session are killed."""
    words = "pgrep -f '^sshd(-session)?: deploy'"
    pids = scene.machine.run(words, check=False).stdout.split()
    if not pids:
        return []
    scene.machine.run(f"kill -9 {' '.join(pids)}", check=False)
    gone = wait_for(lambda: not set(pids) & set(scene.machine.run(words, check=False).stdout.split()), 10)
    return [f"sshd {' '.join(pids)} was killed"] if gone else []


def _waiting_shells(machine: Machine) -> list[tuple[int, str]]:
    """The shell that sleeps in the pause, and above it those of the same script: pid and words, the innermost first."""
    script = """
import json, os, sys
parent, comm, words = {}, {}, {}
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        before, _, after = open("/proc/%s/stat" % name).read().rpartition(")")
        parent[int(name)], comm[int(name)] = int(after.split()[1]), before.partition("(")[2]
        words[int(name)] = open("/proc/%s/cmdline" % name, "rb").read().replace(b"\\0", b" ").decode("utf-8", "replace")
    except OSError:
        pass
found = []
for pid in parent:
    if comm[pid] == "sleep" and "infinity" not in words[pid] and comm.get(parent[pid]) in ("sh", "dash", "bash"):
        while comm.get(parent[pid]) in ("sh", "dash", "bash", "sudo", "su", "timeout"):
            pid = parent[pid]
            found.append([pid, words[pid][:100]])
        break
print(json.dumps(found))
"""
    return [(int(pid), str(words)) for pid, words in json.loads(machine.run("python3 -", given=script).stdout)]


def _kill_shell(which: int) -> Callable[[Scene], list[str]]:
    def fault(scene: Scene) -> list[str]:
        found: list[tuple[int, str]] = []

        def look() -> bool:
            found[:] = _waiting_shells(scene.machine)
            return bool(found)

        # Between two sleeps there is none.
        if not wait_for(look, 10):
            return []
        pid, words = found[which]
        scene.machine.run(f"kill -9 {pid}", check=False)
        gone = wait_for(lambda: scene.machine.run(f"kill -0 {pid}", check=False).returncode, 10)
        return [f"process {pid} was killed: {words}"] if gone else []

    return fault


def kill_step(scene: Scene) -> list[str]:
    """The step's own shell is killed."""
    return _kill_shell(0)(scene)


def kill_script(scene: Scene) -> list[str]:
    """The shell of the whole script is killed; its step lives on."""
    return _kill_shell(-1)(scene)


def step_fails(scene: Scene) -> list[str]:
    """A command of the step fails, and so the step does: what it waits with is killed, and nothing else."""
    found: list[str] = []

    def strike() -> bool:
        # Each is over soon: it is found and ended in one go.
        found[:] = scene.machine.run(r"pkill -9 -e -f '^sleep 0\.05$'", check=False).stdout.splitlines()
        return bool(found)

    return found[:1] if wait_for(strike, 10) else []


def step_hangs(scene: Scene) -> list[str]:
    """The step never ends, until the operator has seen enough and presses Ctrl-C, twice if it is a switch that goes on."""
    process = scene.running.process
    scene.hangs = True
    time.sleep(3)  # the length of the operator's patience
    if process.poll() is not None or not scene.paused():
        return []
    process.send_signal(signal.SIGINT)
    times = 1 if wait_for(lambda: process.poll() is not None, 3) else 2
    if times == 2:
        process.send_signal(signal.SIGINT)
    return [f"nothing had gone on after 3 s when SIGINT was sent to fab, process {process.pid}, {times} times"]


# --- the disk ----------------------------------------------------------------

_FILL = """
import os
made, size = 0, 1 << 26
with open("/srv/filler", "wb") as file:
    while size:
        try:
            os.posix_fallocate(file.fileno(), made, size)
            made += size
        except OSError as error:
            if error.errno != 28:
                raise
            size //= 4
os.sync()
print(made)
"""
_FILL_INODES = """
import os
os.makedirs("/srv/fillers")
number = 0
try:
    while True:
        os.close(os.open("/srv/fillers/%d" % number, os.O_CREAT))
        number += 1
except OSError as error:
    if error.errno != 28:
        raise
print(number)
"""


class Disk:
    """
    A small ext4 of its own below /srv of a host, in a file of this machine: it can be filled, and lose its power.

    It writes back only when it is told to (commit=300), so that a power cut shows every fsync that is missing.
    Attaching and detaching switches the host off and on.
    """

    def __init__(self, machine: Machine, megabytes: int = 700, inodes: int = 60000) -> None:
        self.machine = machine
        self.image = machine.place / "srv.img"
        with self.image.open("wb") as file:
            file.truncate(megabytes << 20)
        command("mkfs.ext4", "-q", "-m", "0", "-N", str(inodes), self.image)

    @property
    def where(self) -> Path:
        """Where it is mounted, as this machine sees it; hosts get it with their root when they boot."""
        return self.machine.root / "srv"

    def attach(self) -> Disk:
        """Boot the host with it."""
        self.machine.kill()
        self._mount()
        self.machine.boot()
        return self

    def detach(self) -> None:
        """Boot the host without it."""
        self.machine.kill()
        self._unmount()
        self.image.unlink(missing_ok=True)
        self.machine.boot()

    def remove(self) -> None:
        """Let go of it; the host stays off."""
        self.machine.kill()
        self._unmount()

    def cut_power(self) -> None:
        """Switch off; what was never written through is lost. The host stays off."""
        self.machine.kill()
        # What has reached the file is what has reached the disk; unmounting would write the rest.
        survivor = self.image.with_suffix(".survivor")
        command("cp", "--sparse=always", self.image, survivor)
        self._unmount()
        survivor.rename(self.image)
        self._mount()

    def free(self) -> tuple[int, int]:
        """The free blocks and inodes."""
        found = os.statvfs(f"/proc/{self.machine.leader_pid}/root/srv")
        return found.f_bavail, found.f_favail

    def _mount(self) -> None:
        self.where.mkdir(exist_ok=True)
        command("mount", "-o", "loop,commit=300", self.image, self.where)

    def _unmount(self) -> None:
        for _ in range(50):
            if not command("umount", self.where, check=False).returncode:
                return
            time.sleep(0.1)
        command("umount", "--lazy", self.where)


def _fill(scene: Scene, program: str, rest: str) -> list[str]:
    machine = scene.machine
    scene.mends.append(lambda: machine.run("rm -rf /srv/filler /srv/fillers", check=False))
    made = machine.run("python3 -", given=program).stdout.strip()
    probe = machine.run("dd if=/dev/zero of=/srv/probe bs=4k count=1 conv=fsync", check=False)
    machine.run("rm -f /srv/probe", check=False)
    return [f"ENOSPC after {made} {rest}"] if "No space left on device" in probe.stderr else []


def fill_disk(scene: Scene) -> list[str]:
    """Not a block is free on the site's disk, until fab has ended."""
    return _fill(scene, _FILL, "bytes")


def fill_inodes(scene: Scene) -> list[str]:
    """Not an inode is free on the site's disk, until fab has ended."""
    return _fill(scene, _FILL_INODES, "files")


def power_cut(scene: Scene) -> list[str]:
    """The power goes, with all that was not written through, and comes again."""
    if scene.disk is None:
        return []
    leader = scene.machine.leader_pid
    scene.disk.cut_power()
    gone = not Path(f"/proc/{leader}").exists()
    scene.machine.boot()
    scene.machine.run(f"rm -f {shlex.quote(scene.pause_file)}")
    said = scene.machine.run("findmnt -no SOURCE /srv && uptime -s").stdout.split()
    return [f"PID 1 ({leader}) is gone, booted anew from {said[0]}"] if gone else []


sigkill = _signalled(signal.SIGKILL)
sigint = _signalled(signal.SIGINT)
sigterm = _signalled(signal.SIGTERM)

FAULTS: dict[str, Callable[[Scene], list[str]]] = {
    "kill -9": sigkill,
    "SIGINT": sigint,
    "SIGTERM": sigterm,
    "link down": link_down,
    "link down 5 s": link_down_5s,
    "kill sshd": kill_session,
    "kill step": kill_step,
    "kill script": kill_script,
    "step fails": step_fails,
    "step hangs": step_hangs,
    "disk full": fill_disk,
    "inodes full": fill_inodes,
    "power cut": power_cut,
}


def cells(managers: tuple[str, ...] = ("supervisor", "systemd"), faults: tuple[str, ...] = ("kill -9", "link down")) -> Iterator[tuple[str, str, str]]:  # fmt: skip
    """Every cell of the matrix: manager, fault, moment."""
    return ((manager, fault, point) for point in POINTS for manager in managers for fault in faults)
