"""
Load on a site while it is deployed: keep-alive clients, clients without, slow posts and long requests, all at once.

All of it runs on the host itself, so that a cut network is no failed request, and every answer is read to its end and
compared: what counts is not only that something came back, but that it was one whole release that made it.

    with Load(host, "shop.example.com") as load:
        …deploys…
    report = load.report()
    assert report.failures == []
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from typing_extensions import Self

    from tests.machines import Machine

__all__ = ["FULL", "LIGHT", "Load", "Profile", "Report", "Request", "Window", "percentile"]

HERE = Path(__file__).parent / "onhost"
#: From and to, in seconds since the epoch; hosts have the clock of this machine.
Window = tuple[float, float]


@dataclass(frozen=True)
class Profile:
    """
    Who asks: `kinds` are clients with their number, the pause after each answer (s) and how far their starts are spread (s).

    `wrk` is the number of its connections, each of which waits `wrk_pause` milliseconds before it asks again; 0 is as
    fast as it goes.
    """

    kinds: dict[str, tuple[int, float, float]]
    wrk: int = 16
    wrk_pause: int = 80
    post_seconds: float = 5.0
    slow_seconds: float = 10.0


#: The load of the issue: 16 connections kept open, new ones, posts over 5 s, requests of 10 s.
FULL = Profile(
    {"fresh": (2, 0.04, 0.04), "kept": (1, 0.04, 0.0), "post": (2, 0.1, 5.0), "slow": (3, 0.1, 10.0)}, wrk_pause=100
)
#: A few visitors, for tests whose subject is something else.
LIGHT = Profile({"fresh": (2, 0.05, 0.05), "kept": (1, 0.05, 0.0)}, wrk=0)


@dataclass(frozen=True)
class Request:
    """One request: its kind, when it began (epoch, s), its milliseconds, what was wrong (empty: nothing), the page's line."""

    kind: str
    begun: float
    took: float
    wrong: str
    line: str

    def __str__(self) -> str:
        at = time.strftime("%H:%M:%S", time.gmtime(self.begun))
        return (
            f"{at}{self.begun % 1:.3f}"[:8]
            + f"{self.begun % 1:.3f}"[1:]
            + f" {self.kind} {self.took:.0f} ms: {self.wrong}"
        )


@dataclass
class Report:
    """What the clients saw; `wrk` is what its `done` said (page.lua), empty where it did not run."""

    requests: list[Request]
    wrk: dict[str, Any] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """Every failed request: time, kind, reason; of wrk's broken connections only their number is known."""
        found = [str(each) for each in self.requests if each.wrong]
        counts = {name: self._count(name) for name in ("connect", "read", "write", "timeout")}
        found += [f"wrk: {count} errors of kind {name}" for name, count in counts.items() if count]
        bad = self.wrk.get("bad")
        return found + [f"wrk {line}" for line in (bad if isinstance(bad, list) else [])]

    @property
    def total(self) -> int:
        """How many requests there were."""
        return len(self.requests) + self._count("requests")

    @property
    def lines(self) -> Counter[str]:
        """The page's lines that were seen, with their numbers."""
        seen = Counter(each.line for each in self.requests if each.line)
        of_wrk = self.wrk.get("lines")
        seen.update({str(line): int(count) for line, count in of_wrk.items()} if isinstance(of_wrk, dict) else {})
        return seen

    def mixed(self, judge: Callable[[str], str]) -> list[str]:
        """What `judge` (such as Shop.mixed) says of the lines that are not of one release."""
        return [why for why in map(judge, self.lines) if why]

    def percentile(
        self, share: float, kinds: Sequence[str] = ("fresh", "kept"), within: Iterable[Window] | None = None
    ) -> float:
        """Milliseconds that a share (0 to 1) of the requests that began in the windows took at most."""
        windows = None if within is None else list(within)
        return percentile(
            share,
            [
                each.took
                for each in self.requests
                if each.kind in kinds and (windows is None or any(a <= each.begun < b for a, b in windows))
            ],
        )

    def outside(self, windows: Iterable[Window]) -> list[Window]:
        """The time between these windows, from the first request to the last."""
        times = [each.begun for each in self.requests]
        edges = [min(times), *(edge for window in sorted(windows) for edge in window), max(times) + 0.001]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]

    def __str__(self) -> str:
        parts = []
        for kind in sorted({each.kind for each in self.requests}):
            took = [each.took for each in self.requests if each.kind == kind]
            parts.append(f"{kind} {len(took)} (p50 {percentile(0.5, took):.0f} p99 {percentile(0.99, took):.0f} max {max(took):.0f} ms)")  # fmt: skip
        if self.wrk:
            of_wrk = " ".join(f"{name} {self.wrk[name]:.0f}" for name in ("p50", "p99", "max"))
            parts.append(f"wrk {self.wrk['requests']} ({of_wrk} ms)")
        return f"{', '.join(parts)}, {len(self.failures)} failed"

    def _count(self, name: str) -> int:
        found = self.wrk.get(name, 0)
        return found if isinstance(found, int) else 0


def percentile(share: float, values: Sequence[float]) -> float:
    """The value that a share (0 to 1) of them does not exceed; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Load:
    """Clients on `machine` that ask http://`address`:`port` for the site `host`, from entering the block to leaving it."""

    def __init__(
        self, machine: Machine, host: str, profile: Profile = FULL, *, address: str = "127.0.0.1", port: int = 80
    ) -> None:
        self.machine = machine
        self.profile = profile
        self.host = host
        self.where = (address, port)
        self._place = ""
        self._report: Report | None = None

    def __enter__(self) -> Self:
        """Start the clients; the first answers are there when this returns, or it raises."""
        place = self._place = self.machine.run("mktemp -d /run/load.XXXXXX").stdout.strip()
        address, port = self.where
        parameters = {
            "address": address,
            "port": port,
            "host": self.host,
            "limit": 60,
            "out": f"{place}/requests",
            "stop": f"{place}/stop",
            "kinds": self.profile.kinds,
            "post_seconds": self.profile.post_seconds,
            "slow_seconds": self.profile.slow_seconds,
        }
        self.machine.write(f"{place}/parameters", json.dumps(parameters))
        self.machine.write(f"{place}/client.py", (HERE / "client.py").read_text())
        self.machine.write(f"{place}/page.lua", (HERE / "page.lua").read_text())
        started = f"cd {place}; setsid python3 client.py parameters > client.said 2>&1 & echo $! > client.pid"
        if self.profile.wrk:
            words = f"wrk -t1 -c{self.profile.wrk} -d36000 --timeout 20 -s page.lua -H 'Host: {self.host}'"
            started += f"\nsetsid {words} http://{address}:{port}/ -- {self.profile.wrk_pause} > wrk.said 2>&1 & echo $! > wrk.pid"
        self.machine.run(f"cd {place}\n{started}")
        # Not a wait for the site: whoever is refused is written down too.
        self.machine.run(f"timeout 10 sh -c 'until [ -s {place}/requests ]; do sleep 0.05; done'")
        return self

    def __exit__(self, *_: object) -> None:
        """Let the requests under way end, and read what was written down."""
        place = self._place
        # wrk says its report when it is interrupted; both are given as long as a long request may take.
        said = self.machine.run(
            f"cd {place}; touch stop\n"
            "[ ! -e wrk.pid ] || kill -INT $(cat wrk.pid)\n"
            "for each in client wrk; do [ ! -e $each.pid ] || "
            "timeout 70 tail -s 0.05 --pid=$(cat $each.pid) -f /dev/null || { kill -9 $(cat $each.pid); echo $each was killed; }; done\n"
            "cat client.said",
        ).stdout
        lines = self.machine.run(f"cat {place}/requests").stdout.splitlines()
        wrk = self.machine.run(f"sed -n 's/^REPORT //p' {place}/wrk.said 2>/dev/null", check=False).stdout
        self._report = Report([Request(*json.loads(line)) for line in lines], json.loads(wrk or "{}"))
        if said.strip() or (self.profile.wrk and not wrk):
            trouble = self.machine.run(f"cat {place}/wrk.said", check=False).stdout
            message = f"the load itself failed:\n{said}{trouble}"
            raise AssertionError(message)
        self.machine.run(f"rm -rf {place}")

    def report(self) -> Report:
        """What was seen; only after the block."""
        assert self._report is not None, "the load still runs"
        return self._report
