"""What the tasks of host run, as the owner of the site or as root."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from fabdjango.exceptions import CommandError, ConfigError
from fabdjango.namespaces import host
from fabdjango.recording import RecordingTransport, call, runner
from tests.namespaces.text import SITE, joined


def played(task: Any, answers: dict[str, Any] | None = None, **arguments: object) -> tuple[str, str]:
    """The transcript of a task, and what the operator reads."""
    transport = RecordingTransport(answers)
    target = runner(transport, SITE)
    call(task, target, **arguments)
    stream = target.report._stream
    assert isinstance(stream, io.StringIO)
    return transport.transcript, stream.getvalue()


def test_run_and_sudo() -> None:
    """One command, without a lock: it is not about a deployment."""
    assert played(host.run, command="echo 'it is'")[0] == joined(
        """\
        == command
        -- command: echo 'it is'
        sh -c 'echo '"'"'it is'"'"''
        """
    )
    assert played(host.sudo, command="id -u")[0] == "== command\n-- command as root: id -u\ncd\nsh -c 'id -u'\n"
    with pytest.raises(ConfigError, match="there is no command to run"):
        played(host.run, command=" ")


def test_a_command_that_fails() -> None:
    """The exit code is its own."""
    with pytest.raises(CommandError) as caught:
        played(host.run, {"command": 7}, command="echo 'it is'")
    assert (caught.value.exit_code, caught.value.message) == (7, "ended with status 7: echo 'it is'")


def test_shell() -> None:
    """A login shell with a terminal."""
    assert played(host.shell)[0] == (
        '== terminal\ncd; command -v bash >/dev/null && exec bash -l; exec "${SHELL:-/bin/sh}" -l\n'
    )


def test_put(tmp_path: Path) -> None:
    """What arrives whole replaces what is there; of its content nothing is shown."""
    (tmp_path / "it's").write_bytes(b"canary")
    (tmp_path / "it's").chmod(0o640)
    transcript, told = played(host.put, local=str(tmp_path / "it's"), remote="~/it's here", sudo=True)
    assert transcript == joined(
        """\
        == put
        -- put as root: put ~/it's here
        # reads 6 bytes
        p="$HOME"/'it'"'"'s here'
        [ ! -d "$p" ] || p=$p/'it'"'"'s'
        [ ! -L "$p" ] || refuse "$p is a link to $(readlink -f -- "$p"): give that path"
        [ ! -e "$p" ] || [ -f "$p" ] || refuse "$p is not a file"
        d=$(dirname -- "$p")
        [ -d "$d" ] || refuse "there is no folder $d"
        t=$(umask 077; mktemp -- "$d/.fabdjango.XXXXXX") || refuse "cannot write in $d"
        trap 'rm -f -- "$t"' EXIT
        cat > "$t" || refuse "cannot write $p: the one before is as it was"
        [ "$(sha256sum < "$t")" = 'e100fbce008c04ec40637af0af91fb2f05aeedc23f856a2d3c0b1580625d755e  -' ] || refuse "it did not arrive whole"
        if [ -e "$p" ]; then
        | chown --reference="$p" -- "$t" || refuse "$p belongs to $(stat -c %U:%G -- "$p"), which could not be kept"
        | chmod --reference="$p" -- "$t"
        | if cmp -s -- "$t" "$p" && [ "$(stat -c %a -- "$t")" = "$(stat -c %a -- "$p")" ]; then unchanged "as before"; fi
        else chmod 640 -- "$t"; fi
        sync -- "$t"; mv -fT -- "$t" "$p"; sync -- "$d"
        """
    )
    assert told == "put: ~/it's here, 6 bytes\n"


@pytest.mark.parametrize(("mode", "bad"), [("640", False), ("0o17777", True), ("it's", True), ("-1", True)])
def test_modes(tmp_path: Path, mode: str, bad: bool) -> None:
    """Permissions as chmod takes them, and no others."""
    (tmp_path / "it's").touch()
    if bad:
        with pytest.raises(ConfigError, match=r"^--mode: "):
            played(host.put, local=str(tmp_path / "it's"), remote="x", mode=mode)
    else:
        assert "  chmod 640 --" in played(host.put, local=str(tmp_path / "it's"), remote="x", mode=mode)[0]


def test_get_and_cat(tmp_path: Path) -> None:
    """The bytes that the host gives, and where they go."""
    transcript, told = played(host.get, {"get": b"it's\033[31m\n"}, remote="~/a b", local=str(tmp_path))
    assert transcript == joined(
        """\
        == get
        -- get: get ~/a b
        p="$HOME"/'a b'
        [ -e "$p" ] || refuse "$p is not there"
        [ ! -d "$p" ] || refuse "$p is a folder: pack it first, with host.run and tar"
        [ -f "$p" ] || refuse "$p is not a file"
        exec 5< "$p"; echo mode "$(stat -L -c %a /dev/fd/5)" >&2; cat <&5
        """
    )
    assert told == f"got: {tmp_path}/a b, 10 bytes\n"
    assert (tmp_path / "a b").read_bytes() == b"it's\033[31m\n"


def test_ls() -> None:
    """The site's folder, or another path."""
    assert played(host.ls)[0] == (
        "== ls\n-- ls: list /srv/the blog\nls -lAq --time-style=long-iso -- '/srv/the blog'\n"
    )
    assert played(host.ls, path="~/it's", sudo=True)[0].splitlines()[1:] == [
        "-- ls as root: list ~/it's",
        "cd",
        """ls -lAq --time-style=long-iso -- "$HOME"/'it'"'"'s'""",
    ]
