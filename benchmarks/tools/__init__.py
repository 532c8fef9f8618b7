"""
The tools that are compared. Each has a module here, and a folder of the same name for its files, if it has any.

A module has the object `tool`. What it needs beside this project is named by `missing`, and imported by nobody else.
"""

from __future__ import annotations

import importlib
from typing import Protocol

from benchmarks.site import Site

__all__ = ["GROUPS", "NAMES", "Tool", "chosen", "named"]

NAMES = ("fabdjango", "plain", "skipping", "capistrano", "pyinfra", "ansible", "fabric")
GROUPS = {
    "limit": ("plain", "skipping"),
    "peers": ("capistrano", "pyinfra", "ansible", "fabric"),
    "all": NAMES,
}


class Tool(Protocol):
    """
    One way to deploy the site.

    What `deploy` and `rollback` give is run as a process of its own, timed, in `site.workplace` and with `site.environ`
    and nothing else in its environment. It is to end with 0 when the release serves, and with another code when not.
    """

    name: str

    def missing(self) -> str:
        """Say what is to be installed on this machine before it can run, and how; nothing if it can."""
        ...

    def furnish(self, site: Site) -> None:
        """Do what its documentation does once before the first deploy, on both sides; is not timed."""
        ...

    def deploy(self, site: Site, commit: str) -> list[str]:
        """Name the program that lets a full commit id serve on all hosts of the site."""
        ...

    def rollback(self, site: Site) -> list[str]:
        """Name the program that lets the release before serve again."""
        ...


def chosen(words: str) -> tuple[str, ...]:
    """Read names with commas between them; `limit`, `peers` and `all` stand for several. Raises ValueError."""
    names = [name for word in words.split(",") if word for name in GROUPS.get(word, (word,))]
    unknown = sorted({*names} - {*NAMES})
    if unknown or not names:
        message = f"no tool is called {', '.join(map(repr, unknown)) or repr(words)}; there are {', '.join((*NAMES, *GROUPS))}"
        raise ValueError(message)
    return tuple(name for name in NAMES if name in names)


def named(name: str) -> Tool:
    """Give the tool of this name."""
    tool: Tool = importlib.import_module(f"benchmarks.tools.{name}").tool
    return tool
