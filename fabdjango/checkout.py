"""The folder that a fabric.yaml is written in: the files that git knows there, and what git says of remotes and branches."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fabdjango.detection import Snapshot
from fabdjango.exceptions import ConfigError
from fabdjango.localgit import Clone, open_clone

__all__ = ["Checkout", "Remote", "address_of", "look"]

_ASIDE = {"site-packages", "node_modules", ".tox", "__pycache__"}
_LIMIT = 2_000_000


@dataclass(frozen=True)
class Remote:
    """
    Where a host can fetch from.

    ``address`` is empty if there is nothing that another machine could reach,
    and ``why`` says then what there is. ``branch`` is its default one, or empty.
    """

    name: str = ""
    address: str = ""
    why: str = ""
    branch: str = ""


@dataclass(frozen=True)
class Checkout:
    """
    A clone with its work tree.

    ``top`` is the work tree's own folder, and ``below`` the path from there to
    the one that was asked for, empty for the same. ``branch`` is checked out,
    ``tracked`` are the files in git's index.
    """

    top: Path
    below: str
    snapshot: Snapshot
    tracked: frozenset[str]
    branch: str
    remote: Remote
    has_commit: bool


def look(folder: Path) -> Checkout:
    """The clone that ``folder`` is in; raises ConfigError if it is in none, with the way to make one."""
    if shutil.which("git") is None:
        raise ConfigError("git is not installed here", state="nothing was written", cure="apt-get install git")
    try:
        clone = open_clone(folder)
    except ConfigError as error:
        raise _no_clone(folder, error) from None
    top = Path(os.fsdecode(clone.read("rev-parse", "--show-toplevel").rstrip(b"\n")))
    whole = replace(clone, folder=top)
    tracked = _paths(whole, "--cached")
    paths = tracked | _paths(whole, "--others", "--exclude-standard")
    files = tuple(sorted(path for path in paths if not _ASIDE & set(path.split("/"))))
    branch = _line(clone, "symbolic-ref", "--quiet", "--short", "HEAD")
    below = folder.resolve().relative_to(top.resolve()).as_posix()
    return Checkout(
        top,
        "" if below == "." else below,
        Snapshot(files, functools.lru_cache(maxsize=None)(functools.partial(_text, top))),
        tracked,
        branch,
        _remote(clone, branch),
        bool(_line(clone, "rev-parse", "--verify", "--quiet", "HEAD")),
    )


def _no_clone(folder: Path, error: ConfigError) -> ConfigError:
    if "not in a work tree" not in error.message or "dubious ownership" in error.output:
        return ConfigError(error.message, output=error.output, state="nothing was written", cure=error.cure)
    return ConfigError(
        f"{folder} is not in a git repository, and what is deployed are commits",
        state="nothing was written",
        cure="make one: git init && git add --all && git commit -m 'First commit'\n"
        "(first list in .gitignore what does not belong there, such as .venv/, *.sqlite3 and files with secrets)",
    )


def _paths(clone: Clone, *options: str) -> frozenset[str]:
    listed = clone.read("ls-files", "-z", *options).split(b"\0")
    return frozenset(os.fsdecode(path) for path in listed if path)


def _line(clone: Clone, *words: str) -> str:
    """What git answers, or an empty string where it has no answer."""
    done = clone.ask(*words)
    return os.fsdecode(done.stdout.rstrip(b"\n")) if done.returncode == 0 else ""


def _text(top: Path, path: str) -> str | None:
    place = top / path
    try:
        # A link that leads out of the repository is none of its files.
        if not place.resolve().is_relative_to(top.resolve()) or place.stat().st_size > _LIMIT:
            return None
        return place.read_text(encoding="utf-8", errors="replace")
    except (OSError, RuntimeError, ValueError):
        return None


# --- the remote ------------------------------------------------------------------


def _remote(clone: Clone, branch: str) -> Remote:
    names = _line(clone, "remote").split("\n")
    own = _line(clone, "config", f"branch.{branch}.remote") if branch else ""
    name = next((each for each in (own, "origin", *names) if each and each in names), "")
    if not name:
        return Remote(why="there is no remote")
    head = _line(clone, "symbolic-ref", "--quiet", f"refs/remotes/{name}/HEAD")
    # As git itself would use it: with what url.….insteadOf makes of it, which no host knows.
    address, why = address_of(_line(clone, "remote", "get-url", name), _hostname)
    why = f"the remote {name} is {why}" if why else ""
    return Remote(name, address, why, head.removeprefix(f"refs/remotes/{name}/"))


_HOST = r"(?P<user>[^@/]*@)?(?P<host>[^/:@\[\]]+|\[[^\]]+\])"
_URL = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_HOST}(?P<port>:\d+)?(?P<path>/.*)")
_SCP = re.compile(rf"(?P<scheme>){_HOST}(?P<port>):(?P<path>(?!//).+)")


def address_of(url: str, real: Callable[[str], tuple[str, str]] = lambda name: (name, "")) -> tuple[str, str]:
    """
    A remote's URL as another machine can use it, or an empty string and what it is instead.

    ``real`` gives the host name and the port that an alias of ~/.ssh/config
    stands for. A password or token is left out, as all accounts of a host could see it.
    """
    full, scp = _URL.fullmatch(url), _SCP.fullmatch(url)
    found = full or scp
    if not found or found["scheme"] == "file":
        return "", "a folder of this machine"
    if found["host"] in ("localhost", "127.0.0.1", "[::1]"):
        return "", "on this machine"
    user, path, port = (found["user"] or "").rstrip("@").split(":")[0], found["path"], found["port"] or ""
    if full and not full["scheme"].endswith("ssh"):
        return f"{full['scheme']}://{full['host']}{port}{path}", ""
    host, own_port = real(found["host"])
    port = port or own_port
    account = f"{user}@" if user else ""
    return (f"ssh://{account}{host}{port}/{path.lstrip('/')}" if full or port else f"{account}{host}:{path}"), ""


def _hostname(name: str) -> tuple[str, str]:
    """What ssh makes of a name, which may be an alias of the operator's own: the host's name, and :port unless that is 22."""
    if name.startswith(("[", "-")):
        return name, ""
    try:
        done = subprocess.run(
            ["ssh", "-G", "--", name], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return name, ""
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    port = said.get("port", "22")
    return said.get("hostname", name), "" if port == "22" else f":{port}"
