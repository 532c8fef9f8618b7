"""What a survey found on a host and in the commit: the answers that decisions take as arguments."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fabdjango.exceptions import FabdjangoError

__all__ = [
    "DjangoFacts",
    "Facts",
    "Migrated",
    "Migration",
    "Reversal",
    "json_line",
    "read_commit",
    "read_django",
    "read_facts",
    "read_migrated",
    "read_reversal",
]


@dataclass(frozen=True)
class Facts:
    """
    One host, seen by the account that owns the site.

    ``disk`` is free bytes and free inodes (-1: not counted). ``releases`` maps
    a release's id to its marker, or to None if it was never completed; ``schemas`` to a digest of the migrations that it has.
    ``slots`` maps the slots in use to their releases, ``live_slot`` is the one that has the traffic.
    ``activation`` is the record of one under way, with its ``state``, or empty.
    ``journal`` is its newest entries, oldest first.
    ``tips`` are commits that the mirror has with all that they stand on, if that was asked.
    ``managed`` maps a path to its digest and, unless secret, its text.
    ``app`` is the account of fabdjango.run_as, if it is there: its ``home``, its ``group``, and whether the owner is a ``member``.
    ``sudo`` says that who logs in may do anything as root, ``root_programs`` are the paths of what it may run else.
    ``pythons`` are the names of those that anybody finds, ``needs`` which Python and which Django the commit asks for.
    ``generated`` names the values that were made on the host.
    """

    user: str = ""
    home: str = ""
    app: Mapping[str, Any] = field(default_factory=dict)
    root: str = ""
    root_exists: bool = False
    system: str = ""
    os: str = ""
    processors: int = 1
    disk: tuple[int, int] = (0, 0)
    programs: Mapping[str, str] = field(default_factory=dict)
    sudo: bool = False
    root_programs: tuple[str, ...] = ()
    systemd: bool = False
    python: Mapping[str, Any] = field(default_factory=dict)
    pythons: tuple[str, ...] = ()
    pip_config: Mapping[str, str] = field(default_factory=dict, repr=False)
    supervisor_conf_d: bool = False
    own_supervisord: bool = False
    own_supervisord_installed: bool = False
    current: str = ""
    live_slot: str = ""
    slots: Mapping[str, str] = field(default_factory=dict)
    activation: Mapping[str, Any] = field(default_factory=dict)
    releases: Mapping[str, Any] = field(default_factory=dict)
    schemas: Mapping[str, str] = field(default_factory=dict)
    highest: int = 0
    pins: tuple[str, ...] = ()
    journal: tuple[Mapping[str, Any], ...] = ()
    venvs: tuple[str, ...] = ()
    first_deploy_done: bool = False
    mirror: bool = False
    tips: tuple[str, ...] = ()
    managed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    shared_env: str = ""
    generated: tuple[str, ...] = ()
    generated_env: str = ""
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
    needs: tuple[str, str] = ("", "")
    tracked_shared: tuple[str, ...] = ()

    @property
    def app_group(self) -> str:
        """The group of an application with an account of its own, or empty."""
        return str(self.app.get("group", ""))

    @property
    def commands_root(self) -> bool:
        """True if who logs in may command the host's services: as root, or by programs that root keeps for it."""
        return self.sudo or bool(self.root_programs)

    @property
    def current_marker(self) -> Mapping[str, Any]:
        """The marker of the release that serves, or an empty mapping."""
        return self.releases.get(self.current) or {}

    @property
    def left_behind(self) -> bool:
        """True if an activation died half-way: its record is there, or a slot that is not live still has a release."""
        live = {self.live_slot} if self.live_slot else set()
        return bool(self.activation) or set(self.slots) != live

    @property
    def proven(self) -> tuple[str, ...]:
        """The complete releases that have served, the last one last; by the journal, never by a directory's age."""
        served = [entry.get("release", "") for entry in self.journal if entry.get("result") == "serves"]
        last = {release: number for number, release in enumerate(served)}
        return tuple(release for release in sorted(last, key=last.__getitem__) if self.releases.get(release))


def read_facts(output: str, rights: str = "") -> Facts:
    """The survey's line of JSON as Facts; raises FabdjangoError if it is not there. ``rights`` is what its step of that name printed."""
    values = json_line(output, "survey step")
    lines = rights.split()
    if lines:
        values.update({"sudo": lines == ["all"], "root_programs": [] if lines == ["all"] else lines})
    return Facts(**_known(values))


def read_commit(output: str, facts: Facts) -> Facts:
    """What was known of the host, with the line of JSON of a later look at the commit alone."""
    return dataclasses.replace(facts, **_known(json_line(output, "survey-commit step")))


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    known = {item.name: item for item in dataclasses.fields(Facts)}
    tuples = {name for name, item in known.items() if str(item.type).startswith("tuple")}
    return {name: tuple(value) if name in tuples else value for name, value in values.items() if name in known}


@dataclass(frozen=True)
class Migration:
    """
    A migration that is not applied: its app, its name, and what it does, a line an operation.

    ``unsafe`` is sentences, each with the migration's name, about what the
    release that serves cannot live with, or may not, once it is applied.
    """

    app: str
    name: str
    operations: tuple[str, ...] = ()
    unsafe: tuple[str, ...] = ()


@dataclass(frozen=True)
class DjangoFacts:
    """
    What the one start of Django in a deploy found out.

    ``static_url`` is the address of the static file to ask for. ``known`` is
    every migration that the release has, as app.name, sorted; empty where it
    was not asked, or by an older fabdjango.
    """

    migrations: tuple[Migration, ...] = ()
    static_root: str = ""
    static_url: str = ""
    host: str = ""
    checks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


def read_django(output: str) -> DjangoFacts:
    """The line of JSON of the Django start, or the release's django.json, as DjangoFacts."""
    values = json_line(output, "django step")
    return DjangoFacts(
        tuple(
            Migration(m["app"], m["name"], tuple(m["operations"]), tuple(m.get("unsafe", ())))
            for m in values["migrations"]
        ),
        values["static_root"],
        values["static_url"],
        values["host"],
        tuple(values["checks"]),
        tuple(values["notes"]),
        tuple(values.get("known", ())),
    )


@dataclass(frozen=True)
class Reversal:
    """
    An applied migration that an older release lacks.

    ``unsafe`` is what that one could not live with, should the migration stay.
    ``reason`` says why it must not be reversed: it cannot be, or data would be
    lost, with their numbers; empty if it may.
    """

    app: str
    name: str
    operations: tuple[str, ...] = ()
    unsafe: tuple[str, ...] = ()
    reversible: bool = True
    reason: str = ""


def read_reversal(output: str) -> tuple[Reversal, ...]:
    """The line of JSON of the reversal's plan, in the order of reversing."""
    return tuple(
        Reversal(m["app"], m["name"], tuple(m["operations"]), tuple(m["unsafe"]), m["reversible"], m["reason"])
        for m in json_line(output, "plan-reversal step")["migrations"]
    )


@dataclass(frozen=True)
class Migrated:
    """
    What a migrate or reverse step did in fact.

    ``result`` is applied, reversed, unchanged, failed, or unknown if the
    database could not be asked afterwards. ``migrations`` is app.name in the
    order in which it was done, also when it failed half-way; ``failed`` is the
    one that did not go through. ``waited`` is the seconds for which another
    process held the lock.
    """

    result: str
    migrations: tuple[str, ...] = ()
    failed: str = ""
    waited: float = 0.0
    notes: tuple[str, ...] = ()


def read_migrated(output: str) -> Migrated:
    """The last line of a migrate or reverse step, whether it failed or not."""
    values = json_line(output, "migrate step")
    return Migrated(
        values["result"], tuple(values["migrations"]), values["failed"], values["waited"], tuple(values["notes"])
    )


def json_line(output: str, what: str) -> dict[str, Any]:
    """The last line of ``output`` that is a JSON object; raises FabdjangoError, which names ``what`` was asked, if there is none."""
    # Whatever a project prints at import stands before it.
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    msg = f"the {what} did not give an answer that can be read"
    raise FabdjangoError(msg, output=output[-2000:])
