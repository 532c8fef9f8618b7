"""What the peers have in common: their files are copied into the operator's folder, beside one that says where to deploy to."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.site import Site

__all__ = ["copy_files", "program", "values"]

HERE = Path(__file__).parent


def copy_files(tool: str, site: Site) -> None:
    """Lay a copy of the tool's own files into the operator's folder."""
    shutil.copytree(HERE / tool, site.workplace, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


def program(name: str) -> Path:
    """Give the place of a program that is installed beside the Python that runs this."""
    return Path(sys.executable).with_name(name)


def values(site: Site) -> dict[str, str]:
    """Say what differs from site to site, under the names that the tools' files read."""
    return {
        "root": site.root,
        "repository": site.repository,
        "domain": site.domain,
        "python": site.python,
        "service": site.project,
    }
