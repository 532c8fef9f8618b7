"""pyinfra with a file of operations, from a virtualenv of its own: it asks for an older Paramiko than Fabric takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tools.furnishing import copy_files, values

if TYPE_CHECKING:
    from benchmarks.site import Site

__all__ = ["tool"]


class Pyinfra:
    """deploy.py and rollback.py are in the folder `pyinfra`; inventory and group data are written beside them."""

    name = "pyinfra"

    def missing(self) -> str:
        """Ask for pyinfra in a virtualenv of its own."""
        place = self._place()
        if (place / "bin/pyinfra").exists():
            return ""
        return f"pyinfra is not installed: python3 -m venv {place} && {place}/bin/pip install 'pyinfra>=3,<4'"

    def furnish(self, site: Site) -> None:
        """Lay the operations, the inventory and the group data down."""
        copy_files(self.name, site)
        (site.workplace / "inventory.py").write_text(f"hosts = {[host.name for host in site.hosts]!r}\n")
        data = "".join(f"{key} = {text!r}\n" for key, text in values(site).items())
        (site.workplace / "group_data").mkdir()
        (site.workplace / "group_data/all.py").write_text(data)

    def deploy(self, site: Site, commit: str) -> list[str]:
        """Name the operations that deploy."""
        return [*self._pyinfra(), "--data", f"commit={commit}", "inventory.py", "deploy.py"]

    def rollback(self, site: Site) -> list[str]:
        """Name the operations that go back."""
        return [*self._pyinfra(), "inventory.py", "rollback.py"]

    def _pyinfra(self) -> list[str]:
        # "Execute operations immediately on hosts without prompt or checking for changes", as `pyinfra --help` has it. Each
        # operation runs on all hosts at once by itself: https://docs.pyinfra.com/en/3.x/arguments.html
        # Not --no-wait, which would spare hosts the wait for each other: with it a failed operation ends with 0 (3.10.0).
        return [str(self._place() / "bin/pyinfra"), "--yes"]

    def _place(self) -> Path:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "fabdjango" / "benchmark" / "pyinfra"


tool = Pyinfra()
