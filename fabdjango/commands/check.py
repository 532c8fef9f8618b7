"""What a check asks of a host, how its answers are read, and what it finds; judge_host, judge_site and judge_web say what they mean."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from fabdjango import onhost
from fabdjango.commands import certificates, django, git, gunicorn
from fabdjango.escape import Word, block, raw, sh
from fabdjango.exceptions import FabdjangoError
from fabdjango.facts import Facts, json_line
from fabdjango.layout import Layout
from fabdjango.plan import LOGIN, OWNER, ROOT, Step
from fabdjango.settings import Settings

__all__ = [
    "ERROR",
    "NOTE",
    "OK",
    "WARNING",
    "Case",
    "Finding",
    "Holder",
    "Listener",
    "Look",
    "Severity",
    "Started",
    "as_root",
    "ask_repository",
    "certificate_of",
    "difference",
    "from_error",
    "look_as_root",
    "look_at_host",
    "look_at_site",
    "ports_of",
    "read_look",
    "read_repository",
    "read_started",
    "start_django",
]

Severity = Literal["ok", "note", "warning", "error"]
OK: Severity = "ok"
NOTE: Severity = "note"
WARNING: Severity = "warning"
ERROR: Severity = "error"


@dataclass(frozen=True)
class Finding:
    """
    One thing that was looked at.

    ``subject`` is a word that stays the same, such as ``disk``; several findings may have one. ``text`` is a sentence,
    and below it lines such as a difference. An error would stop a deploy, or keeps the site from its visitors. ``cure``
    is what to type or to change; no warning and no error is without one.
    """

    subject: str
    severity: Severity
    text: str
    cure: str = ""

    def __post_init__(self) -> None:
        if self.severity in (WARNING, ERROR) and not self.cure:
            msg = f"the finding {self.text!r} has no cure"
            raise ValueError(msg)


def from_error(subject: str, error: FabdjangoError) -> Finding:
    """An error that would be raised, as a finding."""
    text = "\n".join([error.message, *error.output.rstrip().splitlines()])
    return Finding(subject, ERROR, text, error.cure or "see where the settings come from: fab config")


def difference(found: str, wanted: str, *, most: int = 40) -> str:
    """The change from what a file says to what it should say, as the lines of a unified diff; empty if there is none."""
    lines = list(
        difflib.unified_diff(found.splitlines(), wanted.splitlines(), "on the host", "fabric.yaml", "", "", 1, "")
    )
    more = [f"… {len(lines) - most} more lines"] if len(lines) > most else []
    return "\n".join([*lines[:most], *more])


# --- what is asked -----------------------------------------------------------


@dataclass(frozen=True)
class Holder:
    """A process that has a listening socket: its name, the folder where it works, and its unit of systemd, if it is one."""

    pid: int
    name: str
    folder: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Listener:
    """A port where somebody listens; only root sees the processes of other accounts."""

    port: int
    user: str
    holders: tuple[Holder, ...] = ()


@dataclass(frozen=True)
class Look:
    """
    What the program check_host saw; each value is that of the function of its name there.
    """

    clock: float = 0.0
    addresses: tuple[str, ...] = ()
    memory: int = 0
    sudo: tuple[str, tuple[str, ...]] = ("none", ())
    owner: str = "here"
    versions: Mapping[str, str] = field(default_factory=dict)
    disk: tuple[int, int, int, int] = (0, 0, 0, 0)
    places: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ports: tuple[Listener, ...] = ()
    lock: str = ""
    slot_memory: int = 0
    changed: tuple[str, ...] | None = None
    database: tuple[str, str] | None = None
    certificate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def may_be_root(self) -> bool:
        """True if any command may be run as root, without a password."""
        return self.sudo[0] in ("root", "all")


def read_look(*outputs: str) -> Look:
    """The lines of JSON of the looks at a host; a later one, of an account that sees more, wins. Empty ones count for nothing."""
    known = {item.name for item in dataclasses.fields(Look)}
    values: dict[str, Any] = {}
    for output in filter(str.strip, outputs):
        values |= {
            name: _frozen(value) for name, value in json_line(output, "look at the host").items() if name in known
        }
    ports = tuple(
        Listener(port, user, tuple(Holder(*each) for each in those)) for port, user, those in values.pop("ports", ())
    )
    return Look(ports=ports, **values)


@dataclass(frozen=True)
class Case:
    """
    One site on one host: what the operator knows of it, and what the host has said.

    ``layout`` has the home directory filled in. ``target`` is what -H takes, ``login`` and ``owner`` are the accounts.
    """

    settings: Settings
    layout: Layout
    facts: Facts
    look: Look
    target: str = ""
    login: str = ""
    owner: str = ""

    def fab(self, words: str) -> str:
        """A command of the operator's for this host."""
        return f"fab -H {self.target} {words}"

    def as_owner(self, *words: Word) -> str:
        """A command to type on the host."""
        return f"on the host, as {self.owner or self.facts.user}: {sh(*words)}"


def as_root(*words: Word) -> str:
    """A command to type on the host."""
    return f"on the host, as root: {sh(*words)}"


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _look(name: str, title: str, user: str, parts: Iterable[str], root: object, **parameters: object) -> Step:
    return Step(
        name,
        title,
        user=user,
        program=onhost.source("check_host"),
        parameters={"parts": list(parts), "root": str(root), **parameters},
        capture=True,
        cure="on the host, as root: apt-get install python3",
    )


def look_at_host(layout: Layout, owner: str) -> Step:
    """``check-host``: as the account that logs in, what any account may see; its output is for read_look."""
    parts = ("clock", "addresses", "memory", "sudo", "owner", "versions")
    return _look("check-host", "look at the host", LOGIN, parts, layout.root, owner=owner)


def look_at_site(settings: Settings, layout: Layout, facts: Facts, database: str) -> Step:
    """
    ``check-site``: as the account that owns the site, what it has there and may do; its output is for read_look.

    ``facts`` are of the release that serves. ``database`` is a DATABASE_URL that the operator's side knows, or empty.
    """
    parts = ["disk", "places", "ports", "lock", "slot_memory", "changed"]
    parts += ["certificate"] if certificate_of(settings) else []
    parts += [] if facts.current else ["database"]
    return _look(
        "check-site",
        "look at the site",
        OWNER,
        parts,
        layout.root,
        places=[str(path) for path in _places(settings, layout)],
        lock=str(layout.lock),
        mirror=str(layout.mirror),
        commit=facts.current_marker.get("commit", ""),
        replaced=_replaced(settings, facts),
        database=_without_password(database),
        env_files=[str(layout.env_file), str(layout.generated_env)],
        **_seen_by_root(settings, layout, facts),
    )


def look_as_root(settings: Settings, layout: Layout, facts: Facts) -> Step:
    """``check-root``: as root, what only root may see; its output is for read_look."""
    parts = ["ports", "slot_memory", *(["certificate"] if certificate_of(settings) else [])]
    return _look(
        "check-root", "look at what is root's", ROOT, parts, layout.root, **_seen_by_root(settings, layout, facts)
    )


def _seen_by_root(settings: Settings, layout: Layout, facts: Facts) -> dict[str, object]:
    return {
        "ports": sorted(ports_of(settings, layout)),
        "release": str(layout.release(facts.current)) if facts.current else "",
        "certificate": list(certificate_of(settings)),
    }


def certificate_of(settings: Settings) -> tuple[str, ...]:
    """Paths on the host of the certificate that nginx uses, and of its key; empty without TLS."""
    return certificates.places(settings) if settings.nginx.domains and certificates.is_wanted(settings) else ()


def ports_of(settings: Settings, layout: Layout) -> dict[int, str]:
    """The ports of the site, each with who is to listen there: nginx or gunicorn."""
    bind = gunicorn.bind_of(settings, layout)
    public = {80: "nginx", **({443: "nginx"} if certificate_of(settings) else {})} if settings.nginx.domains else {}
    own = {} if bind.startswith("unix:") else {int(bind.rpartition(":")[2]): "gunicorn"}
    return {**public, **own}


def _places(settings: Settings, layout: Layout) -> list[PurePosixPath]:
    folders = [layout.root, layout.releases, layout.venvs, layout.shared, layout.run]
    media = [layout.shared / settings.nginx.media] if settings.nginx.domains and settings.nginx.media_url else []
    return [*folders, *media, layout.env_file, layout.generated_env, layout.local_settings]


def _replaced(settings: Settings, facts: Facts) -> list[str]:
    """Paths of a commit in whose place a release has something else."""
    module = str(
        facts.current_marker.get("settings") or settings.django.settings or facts.settings_module or "settings"
    )
    return [*(name.rstrip("/") for name in settings.shared), str(django.local_settings_target(settings, module))]


def _without_password(url: str) -> str:
    if not url:
        return ""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def ask_repository(settings: Settings) -> Step:
    """``repository``: the repository's branches and tags, or why they cannot be read; its output is for read_repository."""
    asked = git.list_remote(settings)
    body = block(raw(f"{asked.body} 2>&1 && status=0 || status=$?"), raw('printf "status %s\\n" "$status"'))
    return replace(asked, name="repository", body=body)


def read_repository(output: str) -> tuple[int, str]:
    """The status of git, and what it said."""
    said, _, status = output.rstrip("\n").rpartition("status ")
    return int(status) if status.isdigit() else 1, said


def start_django(settings: Settings, layout: Layout, release: str, account: str = OWNER) -> Step:
    """``check-django``: the project's Django in the release that serves, as ``account``; its output is for read_started."""
    run = django.in_release(layout.release(release))
    return Step(
        "check-django",
        "start Django as the site does",
        user=account,
        program=onhost.source("check_django"),
        # It must leave nothing in the release.
        interpreter=raw(f"timeout -k 10 {min(settings.django.timeout, 300)} {run} python -B"),
        capture=True,
    )


@dataclass(frozen=True)
class Started:
    """What Django said in the release that serves: its messages, and what is to be said of its databases."""

    messages: tuple[Mapping[str, Any], ...] = ()
    databases: tuple[Mapping[str, Any], ...] = ()


def read_started(output: str) -> Started:
    """The line of JSON of ``start_django``."""
    found = json_line(output, "look at the host")
    return Started(tuple(found["messages"]), tuple(found["databases"]))
