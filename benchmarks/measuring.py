"""
One deploy, measured from outside: what it took, and whether the site is afterwards what it should be.

A thread asks each host for `/version` all the time, through its own address and not through the relay.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.project import Commit
from benchmarks.proxy import Relays, Traffic
from benchmarks.site import DOMAIN, Host, Site

__all__ = ["Measured", "measure"]

#: Between two questions, and as many times that as there are hosts: asking costs the machine some time too.
INTERVAL = 0.02
#: How long the new release may take to answer when the tool has ended.
PATIENCE = 15.0
LONGEST = 900


@dataclass(frozen=True)
class Measured:
    """
    What one run took.

    `seconds` from the start of the program to its end, `first` until every host had answered from the new release (0 where
    there is no new one). Processor seconds are those of the program with its children, and of all hosts together. `failed`
    says in words what is wrong; then nothing else counts.
    """

    seconds: float = 0.0
    first: float = 0.0
    operator: float = 0.0
    hosts: float = 0.0
    connections: int = 0
    sessions: int = 0
    bytes: int = 0
    failed: str = ""


def measure(
    site: Site,
    relays: Relays,
    words: Sequence[str],
    expected: Commit,
    *,
    log: Path,
    changes: bool = True,
    patience: float = PATIENCE,
) -> Measured:
    """
    Run a tool once to its end, with what it says in the file `log`.

    `changes` says whether `expected` is another release than the one that serves now; it is given `patience` seconds to answer
    after the tool has ended.
    """
    machines = [host.machine for host in site.hosts]
    relays.drop()
    cursors = [machine.cursor() for machine in machines]
    work = [machine.processor_seconds() for machine in machines]
    traffic = _traffic(site, relays)
    with watched(site.hosts, expected.marker) as watch:
        began = time.monotonic()
        code, operator = _run(words, site, log)
        seconds = time.monotonic() - began
        watch.wait(patience if changes and code == 0 else 0)
    first = max(watch.answered.values(), default=began) - began if changes else 0.0
    hosts = sum(machine.processor_seconds() for machine in machines) - sum(work)
    moved = _traffic(site, relays) - traffic
    relays.drop()
    counted = [machine.sessions_since(cursor) for machine, cursor in zip(machines, cursors, strict=True)]
    logins, sessions = (sum(each[number] for each in counted) for number in (0, 1))
    return Measured(
        *(seconds, first, operator, hosts, logins, sessions, moved.sent + moved.received),
        failed=_wrong(site, code, expected, log),
    )


def _traffic(site: Site, relays: Relays) -> Traffic:
    ports = {host.port for host in site.hosts}
    return sum((relay.count() for relay in relays.relays if relay.port in ports), Traffic())


def _run(words: Sequence[str], site: Site, log: Path) -> tuple[int, float]:
    """Run the program with nothing to read; its exit code, and the processor seconds of it and its children."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            list(words),
            cwd=site.workplace,
            env=site.environ,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        # With all that it has started: it has a session of its own, and would outlive us.
        timer = threading.Timer(LONGEST, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            # wait4 tells of this child alone, and of the children that it has waited for itself.
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime


# --- what the world sees -----------------------------------------------------


@dataclass
class Watch:
    """When each host first answered with what is waited for, as time.monotonic counts."""

    hosts: Sequence[Host]
    text: str
    answered: dict[str, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    complete: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float) -> None:
        """Wait until all hosts have answered, at most so long."""
        self.complete.wait(seconds)

    def ask(self, host: Host) -> None:
        """Ask one host until it answers with the text, or nobody waits any more."""
        while not self.over.wait(INTERVAL * len(self.hosts)):
            if get(host, "/version") == (200, self.text):
                self.answered[host.name] = time.monotonic()
                break
        if len(self.answered) == len(self.hosts):
            self.complete.set()


@contextlib.contextmanager
def watched(hosts: Sequence[Host], text: str) -> Iterator[Watch]:
    """Ask all hosts, each in a thread of its own, while the block runs."""
    watch = Watch(hosts, text)
    threads = [threading.Thread(target=watch.ask, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        watch.over.set()
        for thread in threads:
            thread.join()


def get(host: Host, path: str) -> tuple[int, str]:
    """Ask a host's nginx as a visitor does: status and body; 0 and the reason if nothing answers."""
    link = http.client.HTTPConnection(host.machine.address, 80, timeout=10)
    try:
        link.request("GET", path, headers={"Host": DOMAIN})
        reply = link.getresponse()
        return reply.status, reply.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        link.close()


def _wrong(site: Site, code: int, expected: Commit, log: Path) -> str:
    """What is not as it should be after a run; nothing if all is well."""
    if code:
        said = " / ".join(log.read_text(errors="replace").split("\n")[-4:]).rstrip(" /")
        return f"it ended with {code}: {said}"
    for host in site.hosts:
        # More than once: one of two workers may still be an old one.
        answers = {get(host, "/version") for _ in range(8)}
        if answers != {(200, expected.marker)}:
            return f"{host.name} answers {sorted(answers)} instead of {expected.marker}"
        status, page = get(host, "/")
        sheet = re.search(r'href="(/static/[^"]*)"', page)
        if status != 200 or not sheet or get(host, sheet[1])[0] != 200:
            return f"{host.name} has no front page with a style sheet: {status} {page[:200]}"
    return ""
