"""By hand: commands and files on the hosts."""

from __future__ import annotations

from fabdjango import handwork
from fabdjango.commands import host as build
from fabdjango.fleet import Fleet
from fabdjango.runner import Runner
from fabdjango.tasking import fleet_task, host_task

__all__ = ["cat", "edit", "get", "ls", "put", "run", "shell", "sudo"]

_SUDO = {"sudo": "As root."}
_PATH = {"path": 'Path on the host; "~/x" in quotes is in the account\'s home there.'}


@fleet_task(help={"command": 'Shell, in one string, such as "df -h /srv".'})
def run(fleet: Fleet, command: str) -> None:
    """
    Run a shell command as the owner of the site.

    On all hosts at once; of several, each line has the host's name in front.
    The exit code is the command's own, of several hosts the first that is not
    0. It has no standard input.
    """
    handwork.run(fleet, build.run_command(command))


@fleet_task(help={"command": 'Shell, in one string, such as "systemctl restart redis".'})
def sudo(fleet: Fleet, command: str) -> None:
    """
    Run a shell command as root.

    As run does. A login that is not root needs sudo without a password.
    """
    handwork.run(fleet, build.run_command(command, as_root=True))


@host_task()
def shell(runner: Runner) -> None:
    """
    Open a shell as the owner of the site, with a terminal.

    Of several hosts, one after the other.
    """
    handwork.shell(runner)


@fleet_task(
    help={
        "local": "File on your side.",
        "remote": 'File or folder on the host; "~/x" in quotes is in the account\'s home there.',
        "mode": "Permissions, such as 640; otherwise those of the file that is there, or of yours.",
        **_SUDO,
    }
)
def put(fleet: Fleet, local: str, remote: str, mode: str = "", sudo: bool = False) -> None:
    """
    Put a file onto the hosts, whole or not at all.

    A file that is there keeps its owner, and is replaced by one rename once the
    new one has arrived whole. A second run changes nothing.
    """
    handwork.send(fleet, local, remote, mode, as_root=sudo)


@fleet_task(
    help={
        "remote": 'File on the host; "~/x" in quotes is in the account\'s home there.',
        "local": "File or folder on your side; the working folder if empty.",
        **_SUDO,
    }
)
def get(fleet: Fleet, remote: str, local: str = "", sudo: bool = False) -> None:
    """
    Get a file from the hosts.

    Of several hosts, each one's file goes into a folder with the host's name.
    """
    handwork.get(fleet, remote, local, as_root=sudo)


@fleet_task(help={**_PATH, **_SUDO})
def cat(fleet: Fleet, path: str, sudo: bool = False) -> None:
    """
    Print a file of the hosts.

    On a terminal, what would steer it is made visible. From one host into a
    pipe it goes as it is, byte by byte.
    """
    handwork.read(fleet, path, as_root=sudo)


@host_task(help={**_PATH, **_SUDO})
def edit(runner: Runner, path: str, sudo: bool = False) -> None:
    """
    Edit a file of a host in your own editor.

    It is fetched, opened with VISUAL or EDITOR, and put back with its owner and
    permissions, if nobody has changed it in the meantime. The difference is
    shown, unless the file is not for everybody to read.
    """
    handwork.edit(runner, path, as_root=sudo)


@fleet_task(help={"path": "Folder or file on the host; the site's folder if empty.", **_SUDO})
def ls(fleet: Fleet, path: str = "", sudo: bool = False) -> None:
    """
    List a folder of the hosts.
    """
    root = str(fleet.members[0].runner.site.layout.root)
    handwork.run(fleet, build.list_folder(path or root, as_root=sudo), reads_only=True)
