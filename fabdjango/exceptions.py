"""
The error tree. Every error is a few lines a person can act on.

    FabdjangoError            exit 1: nothing was changed
     ├ ConfigError            a value in a config file, the environment or a flag
     ├ RefusedValueError      a value that a target's grammar cannot carry
     ├ ConnectError           no session with the host
     ├ CalledOffError         Ctrl-C, while nothing that serves was touched
     ├ StepFailedError        a step ended with an error; what was begun has been undone
     │  ├ CommandError        exit as it did: a command that the operator gave
     │  ├ RevertedError       exit 3: the switch was made and taken back
     │  └ UnderwayError       an activation that lost its deployer goes on by itself
     ├ UnknownStateError      exit 2: nobody can say what the host serves now
     └ FleetError             some of many hosts failed: each one's error, and what every host serves
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

__all__ = [
    "CalledOffError",
    "CommandError",
    "ConfigError",
    "ConnectError",
    "FabdjangoError",
    "FleetError",
    "RefusedValueError",
    "RevertedError",
    "StepFailedError",
    "UnderwayError",
    "UnknownStateError",
]


class FabdjangoError(Exception):
    """
    What went wrong, where, and what to do about it.

    ``message`` is one line. ``host`` is the host's name or empty, ``step`` the
    title of the step or empty, ``output`` the lines of output that explain the
    failure, ``state`` one sentence about what the host serves now, and
    ``cure`` what to type or to change next (may have several lines).
    """

    exit_code = 1
    state = "nothing was changed"

    def __init__(
        self,
        message: str,
        *,
        host: str = "",
        step: str = "",
        output: str = "",
        state: str | None = None,
        cure: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.host = host
        self.step = step
        self.output = output
        self.cure = cure
        if state is not None:
            self.state = state

    def render(self) -> str:
        """The error as the operator reads it: labelled lines, no traceback."""
        return "\n".join([*self.told(cured=False), *self.ending()])

    def told(self, *, cured: bool = True) -> list[str]:
        """What went wrong and where, without a verdict; with the cure, unless that follows."""
        lines = [f"Error: {self.message}"]
        if self.host:
            lines.append(f" host: {self.host}")
        if self.step:
            lines.append(f" step: {self.step}")
        if self.output.strip():
            lines.append(" output:")
            lines += [f"   | {line}" for line in self.output.rstrip().splitlines()]
        return [*lines, *self._cure()] if cured else lines

    def ending(self) -> list[str]:
        """The verdict, and what to do."""
        verdict = [f" state: {self.state} (exit {self.exit_code})"] if self.state else []
        return [*verdict, *self._cure()]

    def _cure(self) -> list[str]:
        return [f" {'        ' if n else 'do this:'} {line}" for n, line in enumerate(self.cure.splitlines())]


class ConfigError(FabdjangoError):
    """A setting is missing, misspelt or of the wrong form; no host was asked."""

    state = "no host was contacted"


class RefusedValueError(ConfigError):
    """A value holds a character that the file or command it is meant for cannot carry."""


class ConnectError(FabdjangoError):
    """The host cannot be reached, or one side does not accept the other's key."""


class CalledOffError(FabdjangoError):
    """The operator has pressed Ctrl-C."""


class StepFailedError(FabdjangoError):
    """A step on the host ended with an error before anything that serves was touched."""

    lost = False
    """True if the link broke, so that nobody told how it ended."""


class CommandError(StepFailedError):
    """A command of the operator's own ended with ``exit_code``; what it did is not for us to say."""

    state = ""

    def __init__(self, message: str, *, exit_code: int, **more: str) -> None:
        super().__init__(message, **more)
        self.exit_code = exit_code


class RevertedError(StepFailedError):
    """The new release did not serve; the old state has been put back."""

    exit_code = 3
    state = "the previous release serves again"


class UnderwayError(StepFailedError):
    """
    An activation that lost its deployer goes on by itself.

    ``run`` and ``record`` say where it reports: its word, and a folder on the host.
    """

    def __init__(self, message: str, *, run: str = "", record: PurePosixPath | None = None, **more: str) -> None:
        super().__init__(message, **more)
        self.run = run
        self.record = record or PurePosixPath()


class UnknownStateError(FabdjangoError):
    """The link broke, or the way back failed: the host may serve either release, or none."""

    exit_code = 2
    state = "unknown: the host may serve the old or the new release"

    def __init__(self, message: str, *, lost: bool = False, **more: str) -> None:
        super().__init__(message, **more)
        self.lost = lost
        """True if the host may well know how it ended, but did not tell."""


class FleetError(FabdjangoError):
    """
    Some hosts of a fleet failed.

    ``errors`` are theirs, ``table`` is lines that say what every host serves,
    ``exit_code`` is 1 if nothing that serves was touched on any host, 3 if
    all serve again what they did before, and 2 if hosts differ or nobody knows.
    """

    def __init__(
        self, message: str, errors: Sequence[FabdjangoError], *, exit_code: int, table: Sequence[str] = (), **more: str
    ) -> None:
        super().__init__(message, **more)
        self.errors = tuple(errors)
        self.exit_code = exit_code
        self.table = tuple(table)

    def render(self) -> str:
        """Every host's own error, then the table, then the verdict."""
        lines = []
        for error in self.errors:
            lines += [*error.told(), ""]
        lines.append(f"Error: {self.message}")
        if self.table:
            lines.append(" hosts:")
            lines += [f"   | {line}" for line in self.table]
        return "\n".join([*lines, *self.ending()])
