"""Hosts and commits for one benchmark, each tool with hosts of its own."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import wheels
from benchmarks.measuring import Measured, measure
from benchmarks.project import Chain, Commit, Size
from benchmarks.proxy import LOCAL, Relays
from benchmarks.site import Host, Site, lay_out, prepare
from benchmarks.tools import Tool
from tests import machines
from tests.hosts.workplace import Daemon, serve_git
from tests.machines import Machine

__all__ = ["Stage", "Theatre", "open_theatre"]

#: Seconds after files were removed in which new ones cost more than ever after: ext4 goes round inodes that were freed lately.
REST = 300
#: Bytes that stay free on the disk of the hosts.
ROOM = 4_000_000_000


@dataclass
class Stage:
    """One tool and its hosts. `served` is the commit that serves there, as far as is known, and `before` the one that did."""

    tool: Tool
    site: Site
    relays: Relays
    folder: Path
    served: Commit | None = None
    before: Commit | None = None
    _runs: int = 0

    def deploy(self, commit: Commit) -> Measured:
        """Deploy a commit, which may be the one that serves, and say what it took."""
        changes = commit != self.served
        taken = self._measure(self.tool.deploy(self.site, commit.sha), commit, changes=changes)
        if not taken.failed and changes:
            self.before = self.served
        self.served = None if taken.failed else commit
        return taken

    def rollback(self) -> Measured:
        """Go back to the commit that served before the one that does."""
        if self.before is None:
            message = f"{self.tool.name} has nothing to go back to"
            raise ValueError(message)
        taken = self._measure(self.tool.rollback(self.site), self.before, changes=True)
        self.served, self.before = (None if taken.failed else self.before), None
        return taken

    def stop(self) -> None:
        """Switch its hosts off; their files stay."""
        for host in self.site.hosts:
            host.machine.kill()

    def _measure(self, words: list[str], commit: Commit, *, changes: bool) -> Measured:
        self._runs += 1
        log = self.folder / f"run-{self._runs:03}.log"
        return measure(self.site, self.relays, words, commit, changes=changes, log=log)


@dataclass
class Theatre:
    """All that the stages share: relays, a git server, and the chains of commits by the project's size."""

    folder: Path
    relays: Relays
    booted: list[Machine] = field(default_factory=list)
    _chains: dict[Size, Chain] = field(default_factory=dict)
    _daemon: Daemon | None = None
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _stages: int = 0

    def chain(self, size: Size) -> Chain:
        """Give the commits of a project of this size."""
        if self._daemon is None:
            (self.folder / "git").mkdir()
            self._daemon = self._open.enter_context(serve_git(self.folder / "git"))
        if size not in self._chains:
            self._chains[size] = Chain(self._daemon.repository(f"shop-{len(self._chains)}"), size)
        return self._chains[size]

    def set_up(self, tool: Tool, count: int, size: Size) -> Stage:
        """Boot hosts for a tool, and do what is done once; nothing is deployed yet."""
        booted = machines.up(count, prefix=f"b-{tool.name[:6]}")
        self.booted += booted
        self._stages += 1
        folder = self.folder / f"{self._stages:03}-{tool.name}"
        folder.mkdir()
        for machine in booted:
            prepare(machine, wheels.folder(), wheels.uv())
        hosts = tuple(Host(machine.name, LOCAL, self.relays.add(machine.address).port, machine) for machine in booted)
        stage = Stage(tool, lay_out(folder / "work", hosts, self.chain(size).repository.url), self.relays, folder)
        tool.furnish(stage.site)
        return stage

    def rest(self) -> None:
        """Wait until the file system has forgotten the hosts that were thrown away, in this run or by an earlier one."""
        time.sleep(max(0.0, machines.last_removal() + REST - time.time()))

    def has_room(self) -> bool:
        """True if the disk has room for more hosts beside those that are switched off."""
        return shutil.disk_usage(machines.FARM).free > ROOM

    def strike_but_last(self, stages: list[Stage]) -> list[Stage]:
        """Throw all away but the last one, and give that: the bridge goes with the last host, and git is served there."""
        self.strike(stages[:-1])
        return stages[-1:]

    def strike(self, stages: list[Stage]) -> None:
        """Throw the hosts of these stages away."""
        over = [host.machine for stage in stages for host in stage.site.hosts]
        self.booted = [machine for machine in self.booted if machine not in over]
        machines.down(over)


@contextlib.contextmanager
def open_theatre(folder: Path) -> Iterator[Theatre]:
    """Have relays, a git server and hosts in a new folder, and leave none of them behind, however the block ends."""
    with contextlib.ExitStack() as stack, Relays() as relays:
        theatre = Theatre(folder, relays, _open=stack)
        try:
            yield theatre
        finally:
            machines.down(theatre.booted)
