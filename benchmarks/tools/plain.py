"""A script written by hand, over one connection of OpenSSH, that does everything each time."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.site import Site

__all__ = ["Script", "tool"]

FOLDER = Path(__file__).parent / "limit"


class Script:
    """A program for the host in `limit/NAME.sh`, given to `sh` on its standard input."""

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str:
        """OpenSSH is all it wants."""
        return "" if shutil.which("ssh") else "ssh is not there: apt-get install openssh-client"

    def furnish(self, site: Site) -> None:
        """Nothing: the host is as the script expects it."""

    def deploy(self, site: Site, commit: str) -> list[str]:
        """The program, and what it is to know."""
        return self._words(site, self.name, commit, site.repository, site.root, site.domain)

    def rollback(self, site: Site) -> list[str]:
        """A program of its own."""
        return self._words(site, "rollback", site.root, site.domain)

    def _words(self, site: Site, program: str, *words: str) -> list[str]:
        names = " ".join(host.name for host in site.hosts)
        operator = ["sh", str(FOLDER / "operator.sh"), str(FOLDER / f"{program}.sh")]
        return [*operator, str(site.ssh_config), names, *words]


tool = Script("plain")
