"""What an operator does by hand on all hosts of a site: commands, and files that come, go or are changed."""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

from fabdjango import operations
from fabdjango.commands import host as build
from fabdjango.commands.host import Found
from fabdjango.escape import visible
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.fleet import Fleet
from fabdjango.plan import Step
from fabdjango.runner import Runner

__all__ = ["edit", "get", "read", "run", "send", "shell"]


def run(fleet: Fleet, step: Step, *, reads_only: bool = False) -> None:
    """A step on all hosts at once, its output as it comes; raises with the first exit code that is not 0."""
    fleet.need_all(
        fleet.each(lambda member: member.runner.watch(step, reads_only=reads_only), watching=True), "it failed"
    )


def shell(runner: Runner) -> None:
    """A login shell with the operator's terminal."""
    operations.run_in_foreground(runner, build.SHELL)


# --- files that come --------------------------------------------------------------


def _fetched(runner: Runner, path: str, *, as_root: bool, may_lack: bool = False) -> Found:
    step = build.fetch_file(path, as_root=as_root, may_lack=may_lack)
    result = runner.fetch(step)
    return build.read_found(result.data, result.output)


def read(fleet: Fleet, path: str, *, as_root: bool) -> None:
    """Print a file; into a pipe or a file of the operator's, that of one host goes byte by byte."""
    build.fetch_file(path)

    def act(runner: Runner) -> None:
        data = _fetched(runner, path, as_root=as_root).data
        if fleet.alone and not runner.report.is_json and not sys.stdout.isatty():
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
        elif data:
            runner.report.show(visible(data.decode("utf-8", "replace")))

    fleet.need_all(fleet.each(lambda member: act(member.runner)), "it cannot be read")


def get(fleet: Fleet, path: str, local: str, *, as_root: bool) -> None:
    """A file of each host into one of the operator's; of several hosts, into a folder with each one's name."""
    build.fetch_file(path)
    name = PurePosixPath(path).name
    if not name:
        raise ConfigError(f"{path!r} is not the path of a file", cure="for instance host.get /etc/hosts")
    place = Path(local).expanduser() if local else Path()

    def act(runner: Runner) -> None:
        target = place / runner.site.host / name if not fleet.alone else place / name if place.is_dir() else place
        if runner.dry:
            runner.report.say(f"would get {path} into {target}")
            return
        found = _fetched(runner, path, as_root=as_root)
        if not fleet.alone:
            target.parent.mkdir(parents=True, exist_ok=True)
        same = _keep(target, found)
        runner.report.say(f"{'unchanged' if same else 'got'}: {target}, {len(found.data)} bytes")

    fleet.need_all(fleet.each(lambda member: act(member.runner)), "it cannot be got")


def _keep(target: Path, found: Found) -> bool:
    """Write a file of the operator's as a whole, for nobody whom it was not for on the host; True if it was so already."""
    try:
        if target.is_file() and target.read_bytes() == found.data:
            return True
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".fabdjango.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(found.data)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0o077)
            os.umask(mask)
            Path(temporary).chmod(found.mode & 0o777 & ~mask | 0o600)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        raise FabdjangoError(f"cannot write {target}: {error.strerror}", state="nothing was changed") from None
    return False


# --- files that go ----------------------------------------------------------------


def send(fleet: Fleet, local: str, path: str, mode: str, *, as_root: bool) -> None:
    """A file of the operator's onto all hosts at once, whole or not at all."""
    place = Path(local).expanduser()
    try:
        data, own = place.read_bytes(), place.stat().st_mode & 0o777
    except OSError as error:
        raise ConfigError(f"cannot read {local}: {error.strerror}", cure="name a file on your side") from None
    bits = _bits(mode)
    step = build.put_file(
        data, path, place.name, own if bits is None else bits, as_root=as_root, keep_mode=bits is None
    )
    fleet.need_all(
        fleet.each(lambda member: _send(member.runner, step, f"{path}, {len(data)} bytes")), "it was not put"
    )


def _bits(mode: str) -> int | None:
    if not mode:
        return None
    with contextlib.suppress(ValueError):
        if 0 <= int(mode, 8) <= 0o777:
            return int(mode, 8)
    raise ConfigError(f"--mode: {mode!r} are no permissions", cure="for instance --mode=640")


def _send(runner: Runner, step: Step, what: str) -> None:
    done = runner.give(step)
    if done:
        runner.report.say(f"{'unchanged' if done.unchanged is not None else 'put'}: {what}")


# --- files that are changed ---------------------------------------------------------


def edit(runner: Runner, path: str, *, as_root: bool) -> None:
    """
    A file in the operator's own editor, put back if it is still as it was.

    What was written is kept on the operator's side if it cannot be put back.
    """
    words = _editor()
    if runner.dry:
        runner.report.say(f"would get {path}, open it with {shlex.join(words)} and put it back")
        return
    found = _fetched(runner, path, as_root=as_root, may_lack=True)
    folder = Path(tempfile.mkdtemp(prefix="fabdjango."))
    copy = folder / (PurePosixPath(path).name or "file")
    copy.write_bytes(found.data)
    copy.chmod(0o600)
    status = subprocess.run([*words, str(copy)], check=False).returncode
    data = copy.read_bytes() if copy.is_file() else found.data
    if status or data == found.data:
        _forget(folder)
        if status:
            raise FabdjangoError(f"{words[0]} ended with status {status}", host=runner.site.host)
        runner.report.say(f"unchanged: {path}")
        return
    runner.report.show("\n".join(_difference(path, found, data)))
    step = build.put_file(data, path, copy.name, found.mode or 0o644, as_root=as_root, digest=found.digest)
    try:
        _send(runner, step, f"{path}, {len(data)} bytes")
    except FabdjangoError as error:
        error.cure = f"what you wrote is in {copy}\n{error.cure}".strip()
        raise
    _forget(folder)


def _editor() -> list[str]:
    text = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        return shlex.split(text) or ["vi"]
    except ValueError as error:
        raise ConfigError(f"EDITOR={text!r} cannot be split into words: {error}", cure="export EDITOR=vi") from None


def _forget(folder: Path) -> None:
    """The folder of one file, and of what an editor has left beside it."""
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()


def _difference(path: str, found: Found, data: bytes) -> list[str]:
    """What was changed; of a file that not everybody may read, only how much."""
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (found.data, data))
    lines = list(difflib.unified_diff(old, new, path if found.mode else "/dev/null", path, lineterm=""))
    if found.mode and not found.mode & 0o004:
        added, removed = (sum(line.startswith(sign) for line in lines[2:]) for sign in "+-")
        return [f"# {path}: {added} lines more, {removed} lines less (not shown: mode {found.mode:o})"]
    return [visible(line) for line in lines]
