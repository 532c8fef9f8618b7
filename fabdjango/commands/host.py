"""What an operator does on a host by hand: a command, or one file that comes, goes or is changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fabdjango.escape import Shell, block, quote, quote_path, raw, sh
from fabdjango.exceptions import ConfigError
from fabdjango.plan import OWNER, ROOT, Step

__all__ = ["SHELL", "Found", "fetch_file", "list_folder", "put_file", "read_found", "run_command"]

SHELL = raw('cd; command -v bash >/dev/null && exec bash -l; exec "${SHELL:-/bin/sh}" -l')
"""A login shell of the account, also of one that may not log in."""


def run_command(command: str, *, as_root: bool = False) -> Step:
    """``command``: shell of the operator's own, in the account's home, with nothing on its standard input."""
    if not command.strip():
        raise ConfigError("there is no command to run", cure='for instance: fab … host.run "df -h"')
    title = command.strip().splitlines()[0]
    return Step("command", title, _at_home(sh("sh", "-c", command), as_root=as_root), user=ROOT if as_root else OWNER)


def list_folder(path: str, *, as_root: bool = False) -> Step:
    """``ls``: a folder or a file; what would steer a terminal is a question mark in its names."""
    words = Shell(f"ls -lAq --time-style=long-iso -- {_path(path)}")
    return Step("ls", f"list {path}", _at_home(words, as_root=as_root), user=ROOT if as_root else OWNER)


def _at_home(words: Shell, *, as_root: bool) -> Shell:
    """Where a relative path means the same to every step of this room; root's programs begin at the top."""
    return block(raw("cd" if as_root else ""), words)


def _path(path: str) -> Shell:
    if not path:
        raise ConfigError("there is no path", cure="give one; ~/ is the account's home on the host")
    return quote_path(path)


# --- a file that comes ----------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A file of a host: its bytes, and its permission bits; ``mode`` is 0 if there is none."""

    data: bytes
    mode: int

    @property
    def digest(self) -> str:
        """What put_file compares with; empty if there is none."""
        return hashlib.sha256(self.data).hexdigest() if self.mode else ""


def fetch_file(path: str, *, as_root: bool = False, may_lack: bool = False) -> Step:
    """``get``: the bytes of a file; with ``may_lack`` one that is not there is no error. For read_found."""
    body = block(
        raw(f"p={_path(path)}"),
        raw('[ -e "$p" ] || [ -L "$p" ] || { echo mode 0 >&2; exit 0; }' if may_lack else ""),
        raw('[ -e "$p" ] || refuse "$p is not there"'),
        raw('[ ! -d "$p" ] || refuse "$p is a folder: pack it first, with host.run and tar"'),
        raw('[ -f "$p" ] || refuse "$p is not a file"'),
        raw('exec 5< "$p"; echo mode "$(stat -L -c %a /dev/fd/5)" >&2; cat <&5'),
    )
    return Step("get", f"get {path}", body, user=ROOT if as_root else OWNER, fetch=True)


def read_found(data: bytes, output: str) -> Found:
    """What the step has given, and has said beside it."""
    mode = next((line.split()[1] for line in output.splitlines() if line.startswith("mode ")), "0")
    return Found(data, int(mode, 8))


# --- a file that goes -------------------------------------------------------------


def put_file(
    data: bytes,
    path: str,
    name: str,
    mode: int,
    *,
    as_root: bool = False,
    keep_mode: bool = True,
    digest: str | None = None,
) -> Step:
    """
    ``put``: a file replaced as a whole, or made; a folder gets it as ``name``.

    One that is there keeps its owner, and with ``keep_mode`` its permissions; otherwise they are ``mode``. With
    ``digest`` it must still be what fetch_file gave, or still not be there.
    """
    changed = "it was changed on the host in the meantime"
    before = raw("")
    if digest is not None:
        same = f'[ "$(sha256sum < "$p")" = {quote(f"{digest}  -")} ]' if digest else '[ ! -e "$p" ]'
        before = raw(f"{same} 2>/dev/null || refuse {quote(changed)}")
    owner = (
        'chown --reference="$p" -- "$t"'
        if as_root
        else '{ [ -O "$p" ] && chgrp --reference="$p" -- "$t"; } 2>/dev/null'
    )
    bits = '--reference="$p"' if keep_mode else f"{mode:o}"
    # Root must not write through a link that another account has put there.
    link = 'refuse "$p is a link to $(readlink -f -- "$p"): give that path"' if as_root else 'p=$(readlink -f -- "$p")'
    body = block(
        raw(f"p={_path(path)}"),
        raw(f'[ ! -d "$p" ] || p=$p/{quote(name)}') if digest is None else raw(""),
        raw(f'[ ! -L "$p" ] || {link}'),
        raw('[ ! -e "$p" ] || [ -f "$p" ] || refuse "$p is not a file"'),
        raw('d=$(dirname -- "$p")'),
        raw('[ -d "$d" ] || refuse "there is no folder $d"'),
        raw('t=$(umask 077; mktemp -- "$d/.fabdjango.XXXXXX") || refuse "cannot write in $d"'),
        raw("trap 'rm -f -- \"$t\"' EXIT"),
        raw('cat > "$t" || refuse "cannot write $p: the one before is as it was"'),
        raw(
            f'[ "$(sha256sum < "$t")" = {quote(f"{hashlib.sha256(data).hexdigest()}  -")} ] || refuse "it did not arrive whole"'
        ),
        before,
        raw('if [ -e "$p" ]; then'),
        raw(f'  {owner} || refuse "$p belongs to $(stat -c %U:%G -- "$p"), which could not be kept"'),
        raw(f'  chmod {bits} -- "$t"'),
        raw(
            '  if cmp -s -- "$t" "$p" && [ "$(stat -c %a -- "$t")" = "$(stat -c %a -- "$p")" ]; then unchanged "as before"; fi'
        ),
        raw(f'else chmod {mode:o} -- "$t"; fi'),
        raw('sync -- "$t"; mv -fT -- "$t" "$p"; sync -- "$d"'),
    )
    return Step("put", f"put {path}", body, user=ROOT if as_root else OWNER, feed=data)
