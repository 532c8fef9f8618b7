"""What a survey found on a host and in the commit: the answers that decisions take as arguments."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fabdjango.exceptions import FabdjangoError

__all__ = ["DjangoFacts", "Facts", "Migration", "read_django", "read_facts"]


@dataclass(frozen=True)
class Facts:
    """
    One host, seen by the account that owns the site.

    ``disk`` is free bytes and free inodes (-1: not counted). ``releases`` maps
    a release's id to its marker, or to None if it was never completed.
    ``journal`` is its newest entries, oldest first.
    ``managed`` maps a path to its digest and, unless secret, its text.
    """

    user: str = ""
    home: str = ""
    root: str = ""
    root_exists: bool = False
    system: str = ""
    os: str = ""
    processors: int = 1
    disk: tuple[int, int] = (0, 0)
    programs: Mapping[str, str] = field(default_factory=dict)
    sudo: bool = False
    systemd: bool = False
    python: Mapping[str, Any] = field(default_factory=dict)
    pip_config: Mapping[str, str] = field(default_factory=dict, repr=False)
    supervisor_conf_d: bool = False
    own_supervisord: bool = False
    own_supervisord_installed: bool = False
    current: str = ""
    releases: Mapping[str, Any] = field(default_factory=dict)
    highest: int = 0
    journal: tuple[Mapping[str, Any], ...] = ()
    venvs: tuple[str, ...] = ()
    first_deploy_done: bool = False
    mirror: bool = False
    managed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    shared_env: str = ""
    shared_local_settings: str = ""
    sha: str = ""
    ref_kind: str = ""
    near_refs: tuple[str, ...] = ()
    subject: str = ""
    tree_size: int = 0
    tree_files: int = 0
    manage: bool = False
    manage_near: tuple[str, ...] = ()
    settings_module: str = ""
    submodules: tuple[str, ...] = ()
    lfs: bool = False
    requirements: Mapping[str, Any] = field(default_factory=dict)
    tracked_shared: tuple[str, ...] = ()

    @property
    def current_marker(self) -> Mapping[str, Any]:
        """The marker of the release that serves, or an empty mapping."""
        return self.releases.get(self.current) or {}

    @property
    def proven(self) -> tuple[str, ...]:
        """The complete releases that have served, the last one last; by the journal, never by a directory's age."""
        served = [entry.get("release", "") for entry in self.journal if entry.get("result") == "serves"]
        last = {release: number for number, release in enumerate(served)}
        return tuple(release for release in sorted(last, key=last.__getitem__) if self.releases.get(release))

    def migrations_since(self, release: str) -> tuple[str, ...]:
        """The migrations, as app.name, that were applied after ``release`` began to serve for the first time."""
        began = next((n for n, entry in enumerate(self.journal) if entry.get("release") == release), 0)
        return tuple(name for entry in self.journal[began + 1 :] for name in entry.get("migrations", ()))


def read_facts(output: str) -> Facts:
    """The survey's line of JSON as Facts; raises FabdjangoError if it is not there."""
    values = _json_line(output, "survey")
    known = {item.name: item for item in dataclasses.fields(Facts)}
    tuples = {name for name, item in known.items() if str(item.type).startswith("tuple")}
    found: dict[str, Any] = {
        name: tuple(value) if name in tuples else value for name, value in values.items() if name in known
    }
    return Facts(**found)


@dataclass(frozen=True)
class Migration:
    """A migration that is not applied: its app, its name, and what it does, a line an operation."""

    app: str
    name: str
    operations: tuple[str, ...] = ()


@dataclass(frozen=True)
class DjangoFacts:
    """What the one start of Django in a deploy found out; ``static_url`` is the address of the static file to ask for."""

    migrations: tuple[Migration, ...] = ()
    static_root: str = ""
    static_url: str = ""
    host: str = ""
    checks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_django(output: str) -> DjangoFacts:
    """The line of JSON of the Django start as DjangoFacts."""
    values = _json_line(output, "django")
    migrations = tuple(Migration(m["app"], m["name"], tuple(m["operations"])) for m in values["migrations"])
    return DjangoFacts(
        migrations,
        values["static_root"],
        values["static_url"],
        values["host"],
        tuple(values["checks"]),
        tuple(values["notes"]),
    )


def _json_line(output: str, what: str) -> dict[str, Any]:
    # Whatever a project prints at import stands before it.
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    msg = f"the {what} step did not give an answer that can be read"
    raise FabdjangoError(msg, output=output[-2000:])
