"""Fabric with a fabfile as most people write one, a `run` for each step; all hosts at once, as its documentation has it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.tools.furnishing import copy_files, program, values

if TYPE_CHECKING:
    from benchmarks.site import Site

__all__ = ["tool"]


class Fabric:
    """The fabfile is in the folder `fabric`; hosts and places are in the project's own fabric.yaml beside it."""

    name = "fabric"

    def missing(self) -> str:
        """Nothing: this project stands on Fabric."""
        return ""

    def furnish(self, site: Site) -> None:
        """Lay the fabfile and its configuration down."""
        copy_files(self.name, site)
        hosts = [host.name for host in site.hosts]
        # JSON is YAML.
        (site.workplace / "fabric.yaml").write_text(json.dumps({"site": {**values(site), "hosts": hosts}}, indent=1))

    def deploy(self, site: Site, commit: str) -> list[str]:
        """Name the task that deploys."""
        return [str(program("fab")), "deploy", f"--commit={commit}"]

    def rollback(self, site: Site) -> list[str]:
        """Name the task that goes back."""
        return [str(program("fab")), "rollback"]


tool = Fabric()
