"""
Secrets that are had on the operator's side: from a command, a file, or the environment.

Each is fetched when a task first needs it, and then no more in this run of the
tool, for however many hosts. No error repeats what a source said.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fabdjango.exceptions import ConfigError
from fabdjango.settings import ROOT_KEY, SecretSource

__all__ = ["Secrets"]

_PATIENCE = 120
"""Seconds that a command may take: somebody may have to type a passphrase, or to touch a key."""


class Secrets(Mapping[str, str]):
    """
    The values of the site's secrets, by name; reading one fetches it.

    ``root`` is where relative paths start and commands run. ``tell`` hears every
    value that is read, to hide it. Without ``asking`` no command is run, and what would come from one
    is empty: enough to learn what can be hidden. Raises ConfigError, also for
    one that is made on the host. Only those of the operator's side are listed.
    """

    def __init__(
        self, sources: Mapping[str, SecretSource], root: Path, tell: Callable[[str], None], *, asking: bool = True
    ) -> None:
        self._sources = sources
        self._root = root
        self._tell = tell
        self._asking = asking

    def __getitem__(self, name: str) -> str:
        source = self._sources.get(name)
        if source is None:
            raise ConfigError(
                f"{ROOT_KEY}.secrets has no {name}, which a template asks for",
                cure="those that there are: " + (", ".join(self._sources) or "none"),
            )
        if source.generate:
            raise ConfigError(
                f"{ROOT_KEY}.secrets.{name} is made on the host, and so no template can have it here",
                cure=f"read it from the environment, where the site's programs find it: os.environ[{name!r}]",
            )
        if source.command and not self._asking:
            return ""
        value = _fetched(name, source, self._root)
        self._tell(value)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name, source in self._sources.items() if not source.generate)

    def __len__(self) -> int:
        return len(list(iter(self)))


_known: dict[tuple[str, SecretSource, Path], str] = {}
_one_at_a_time = threading.Lock()


def _fetched(name: str, source: SecretSource, root: Path) -> str:
    key = (name, source, root)
    with _one_at_a_time:
        if key not in _known:
            _known[key] = _fetch(name, source, root)
        return _known[key]


def _fetch(name: str, source: SecretSource, root: Path) -> str:
    if source.command:
        return _text(name, _output_of(name, source.command, root), f"look what it prints: {source.command}")
    if source.file:
        return _text(name, _content_of(name, root / _expanded(name, source.file)), f"look at {source.file}")
    if source.variable not in os.environ:
        raise ConfigError(
            f"{ROOT_KEY}.secrets.{name}: the environment variable {source.variable} is not set",
            cure=f"{source.variable}='…' fab …",
        )
    value = os.environ[source.variable].encode("utf-8", "surrogateescape")
    return _text(name, value, f"look at {source.variable}")


def _text(name: str, value: bytes, cure: str) -> str:
    what = f"{ROOT_KEY}.secrets.{name}"
    try:
        text = value.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{what} is not text in UTF-8", cure=cure) from None
    if not text:
        raise ConfigError(f"{what} is empty", cure=cure)
    if "\0" in text:
        raise ConfigError(f"{what} holds a NUL, which no environment can carry", cure=cure)
    return text


def _output_of(name: str, command: str, root: Path) -> bytes:
    what, cure = f"{ROOT_KEY}.secrets.{name}: the command", f"see by hand what it says: {command}"
    try:
        # What it says on standard error may be as secret as the value; passphrases are asked for on the terminal itself.
        done = subprocess.run(
            shlex.split(command),
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{what} did not end within {_PATIENCE} seconds", cure=cure) from None
    except OSError as error:
        raise ConfigError(f"{what} cannot be run: {error.strerror}", cure=cure) from None
    if done.returncode != 0:
        raise ConfigError(f"{what} ended with status {done.returncode}", cure=cure)
    return done.stdout


def _expanded(name: str, path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{ROOT_KEY}.secrets.{name}: {error}", cure="write the path without ~") from None


def _content_of(name: str, path: Path) -> bytes:
    what = f"{ROOT_KEY}.secrets.{name}"
    try:
        place = path.resolve()
        content, mode = place.read_bytes(), place.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{what}: cannot read {path}: {reason}", cure="make the file, with chmod 600") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(
            f"{what}: others can read or write {path} (mode {stat.S_IMODE(mode):o})",
            cure=f"chmod 600 {shlex.quote(str(place))}",
        )
    if _is_tracked(place):
        raise ConfigError(
            f"{what}: git tracks {path}, and so it goes wherever the repository goes",
            cure=f"take it out: git rm --cached {shlex.quote(str(path))}\n"
            "keep it outside of the repository, and change the value, as the history still has it",
        )
    return content


def _is_tracked(place: Path) -> bool:
    """True if git lists the file; without git on this side there is nothing that could track it."""
    words = ["git", "-C", str(place.parent), "ls-files", "--error-unmatch", "--", place.name]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            words,
            env={**environ, "GIT_LITERAL_PATHSPECS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0
