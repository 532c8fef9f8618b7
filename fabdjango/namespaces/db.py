"""The site's database: made, backed up, put back, and copied to your own machine."""

from __future__ import annotations

from fabdjango import databases
from fabdjango.fleet import Fleet
from fabdjango.tasking import fleet_task

__all__ = ["backup", "backups", "create", "pull", "restore", "shell"]


@fleet_task()
def create(fleet: Fleet) -> None:
    """
    Make the database and its role, with a password of its own.

    The password is made on the host, never shown, and handed to the project
    by the variables of the settings, from the next release on. A second run
    changes nothing. What belongs to somebody else is refused. Of several hosts,
    the primary has it; one elsewhere is made known to all. Reads database.
    """
    databases.create(fleet)


@fleet_task()
def shell(fleet: Fleet) -> None:
    """
    Open the database's own shell on the host, with a terminal.

    As manage.py dbshell does it, in the release that serves. Of several hosts,
    on the primary.
    """
    databases.shell(fleet)


@fleet_task(
    help={"get": "Copy the file down to your machine too.", "into": "Folder on your machine that it is copied into."}
)
def backup(fleet: Fleet, get: bool = False, into: str = "backups") -> None:
    """
    Back the database up, into a file on the host.

    The database is what Django says it is. The file is read again to its end
    before it counts; a dump that fails leaves nothing. Then older ones than
    the newest go. Of several hosts, the primary does it. Reads
    database.backups and database.backup_path.
    """
    databases.back_up(fleet, get=get, into=into)


@fleet_task(help={"whole": "Read every backup to its end, which takes its time."})
def backups(fleet: Fleet, whole: bool = False) -> None:
    """
    List the backups: size, age, and whether each can be read.

    Only reads. The exit code is 1 if one is broken.
    """
    databases.list_backups(fleet, whole=whole)


@fleet_task(
    help={
        "name": "Name of a backup, as backups lists it; newest is the newest one.",
        "yes": "Do not ask.",
        "no_backup": "Do not back up first; for a database that is beyond it.",
    }
)
def restore(fleet: Fleet, name: str, yes: bool = False, no_backup: bool = False) -> None:
    """
    Put a backup in the place of the database.

    The backup is read to its end first, and the database as it is is backed
    up. Then all of it is replaced, in one transaction, or nothing is. The site
    waits meanwhile; it is not restarted. Asks, unless told not to.
    """
    databases.restore(fleet, name, yes=yes, no_backup=no_backup)


@fleet_task(
    help={
        "into": "A database of your own PostgreSQL, or for SQLite a file.",
        "name": "A backup that is there, or newest; a new one is made if empty.",
        "replace": "Lose what is in it now.",
    }
)
def pull(fleet: Fleet, into: str = "", name: str = "", replace: bool = False) -> None:
    """
    Copy the host's database into one on your own machine.

    It is whole before it gets its name, and what was there is gone only then.
    PGHOST, PGPORT and PGUSER say which PostgreSQL is yours. Owners and rights
    are not taken along.
    """
    databases.pull(fleet, into, name=name, replace=replace)
