"""Values of a plan: what will be done on a host, and in which order. Nothing here runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from fabdjango.escape import Shell

__all__ = ["LOGIN", "OWNER", "PYTHON", "ROOT", "Lock", "Phase", "Put", "Step"]

OWNER = ""
"""Run as the account that owns the site."""
ROOT = "root"
"""Run as root."""
LOGIN = "(login)"
"""Run as the account that logs in."""


@dataclass(frozen=True)
class Put:
    """
    A file that a step replaces as a whole: temporary in the same folder, then a rename.

    ``content`` is text; ``mode`` is the permission bits. A ``secret`` file is
    never shown, neither in a dry run nor as a difference.
    """

    path: PurePosixPath
    content: str
    mode: int = 0o644
    secret: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    def __repr__(self) -> str:
        shown = f"{len(self.content)} hidden characters" if self.secret else repr(self.content)
        return f"Put({str(self.path)!r}, {shown}, {self.mode:o})"


PYTHON = Shell("python3 -I -S")
"""The host's Python for what needs nothing but its standard library: half as long to start as with what is installed beside it."""


@dataclass(frozen=True)
class Step:
    """
    One titled deed.

    ``name`` is stable: hooks, the journal and tests use it. ``body`` is shell
    that runs under ``set -e``, with an empty standard input unless there is a ``feed``; it may call
    ``unchanged WHY`` (ends the step, nothing was to do), ``note TEXT``, and
    ``report await SECONDS`` (says that it waits for the deployer's word).
    ``puts`` are written before ``body`` runs. ``program`` is Python source for
    ``interpreter``, run after ``body`` with ``parameters`` as PARAMETERS;
    neither it nor its data, of which a Secret is shown to nobody, ever stand on a command line. Output of a
    ``capture`` step is data for a parser and not shown. ``cure`` is what to do
    if it fails. ``guard`` is shell of the account that logs in, before all else; it may call ``unchanged WHY``.

    ``feed`` is the standard input of ``body``, byte by byte; a link that breaks
    cuts it short, so the body must see that it is whole before it acts on it.
    With ``fetch`` the standard output is a file for the operator's side, of any
    bytes and any size; what is said on standard error is told when it has ended.
    """

    name: str
    title: str
    body: Shell = Shell("")
    user: str = OWNER
    puts: tuple[Put, ...] = ()
    program: str = ""
    interpreter: Shell = PYTHON
    parameters: Mapping[str, object] = field(default_factory=dict)
    capture: bool = False
    cure: str = ""
    guard: Shell = Shell("")
    feed: bytes = field(default=b"", repr=False)
    fetch: bool = False


@dataclass(frozen=True)
class Lock:
    """
    What makes one deployment the only writer of a site.

    ``deployment`` is the file that is locked for a whole deployment, ``steps``
    the one that each running step locks too, shared. ``holder`` says who and
    from where, ``task`` what is done (empty is the phase's name), ``token`` is a
    word of this run of the tool alone, ``wait`` the seconds to wait for another one to end.
    """

    deployment: PurePosixPath
    steps: PurePosixPath
    holder: str = ""
    token: str = ""
    wait: int = 0
    task: str = ""


@dataclass(frozen=True)
class Phase:
    """
    The steps of one session.

    If a step from the one named ``undo_from`` on fails, ``undo`` runs in its
    order; empty ``undo_from`` means from the first step on. From the step named
    ``serving_from`` on, the site itself is touched, so that an undo is a revert
    (exit 3) and a failing undo leaves an unknown state (exit 2). From the one
    named ``kept_from`` on there is no way back any more: a failure is told, and what was reached stays.

    ``lock`` must be won first, unless this run of the tool holds it already;
    with ``hold`` it is kept when the phase has ended, until the transport lets go. ``followed`` says that there is another
    phase if this one ends well, so that its session may be opened meanwhile. One that is ``alongside`` needs not wait
    for the last steps of the activation that it follows, once that is confirmed.
    ``reads_only`` phases run in a dry run too. With a ``record`` folder the phase runs detached: it outlives its session
    and reports into a file there.
    """

    name: str
    steps: tuple[Step, ...]
    undo: tuple[Step, ...] = ()
    undo_from: str = ""
    serving_from: str = ""
    kept_from: str = ""
    lock: Lock | None = None
    hold: bool = False
    followed: bool = False
    alongside: bool = False
    record: PurePosixPath | None = None
    reads_only: bool = False

    @property
    def feeds(self) -> tuple[bytes, ...]:
        """What the steps get on their standard inputs, in their order, without those that get nothing."""
        return tuple(step.feed for step in self.steps if step.feed)

    @property
    def labelled(self) -> dict[str, Step]:
        """Every step by the label that its reports carry: its place, after ``u`` for those of the undo."""
        return {str(n): step for n, step in enumerate(self.steps)} | {f"u{n}": step for n, step in enumerate(self.undo)}

    def __add__(self, other: Phase) -> Phase:
        """Both in one session, under this one's name."""
        return replace(self, steps=self.steps + other.steps)
