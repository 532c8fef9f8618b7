"""Several servers behind one operator: where the deployment of a whole fleet is played."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.local.stage import PATIENCE, Run, Stage, Tools

__all__ = ["FleetStage"]


class FleetStage:
    """
    One operator, one repository, ``count`` servers with addresses of their own and one database.

    The first server is the primary; its stage is where settings and commits are made.
    ``others`` is what the environment of the other servers has more.
    """

    def __init__(self, tools: Tools, count: int, *, others: Mapping[str, str] | None = None) -> None:
        self.keys = Path(tempfile.mkdtemp(prefix="fk", dir="/tmp"))
        # One key lets the operator in everywhere, as one account's key does.
        self.hosts: list[Stage] = []
        known = ""
        for number in range(11, 11 + count):
            more = others if self.hosts else None
            self.hosts.append(Stage(tools, address=f"127.0.0.{number}", keys=self.keys, environ=more))
            known += self.hosts[-1].server.known_hosts_path.read_text(encoding="utf-8")
        self.first = self.hosts[0]
        self.repository = self.first.repository
        self._words = [sys.executable, "-m", "fabric", "-i", str(self.first.server.client_key_path)]
        self.first.configure(
            ssh={"known_hosts": str(self.first.write("known_hosts", known))},
            environment={"SHOP_DB": str(self.first.base / "db.sqlite3")},
            hosts={
                each.server.address: {
                    "roles": ["web", "primary"] if each is self.first else ["web"],
                    "gunicorn": {"bind": f"127.0.0.1:{each.port}"},
                }
                for each in self.hosts
            },
        )

    @property
    def names(self) -> list[str]:
        """What the hosts are called."""
        return [each.server.address for each in self.hosts]

    @property
    def current(self) -> list[str]:
        """What each host serves."""
        return [each.current for each in self.hosts]

    def words(self, *words: str, hosts: list[Stage] | None = None) -> list[str]:
        """The words of a run of fab for some of the hosts; for all if none are named."""
        chosen = self.hosts if hosts is None else hosts
        at = ",".join(f"{each.server.user}@{each.server.address}:{each.server.port}" for each in chosen)
        return [*self._words, "-H", at, *words]

    def fab(
        self, *words: str, code: int = 0, hosts: list[Stage] | None = None, environ: Mapping[str, str] | None = None
    ) -> Run:
        """Run fab for some of the hosts to its end, and hold it to an exit code."""
        done = subprocess.run(
            self.words(*words, hosts=hosts),
            cwd=self.first.operator,
            env=self.first.environ(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        run = Run(done.returncode, done.stdout, done.stderr)
        assert run.code == code, f"exit code {run.code}, not {code}, of fab {' '.join(words)}:\n{run.text}"
        assert not re.search("^Traceback", run.err, re.MULTILINE), run.err
        return run

    def close(self) -> None:
        """Clear all of them away."""
        for each in self.hosts:
            each.close()
        shutil.rmtree(self.keys)
