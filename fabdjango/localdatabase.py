"""The operator's own databases: a backup of a host as one of them, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fabdjango.exceptions import ConfigError, FabdjangoError

__all__ = ["check_target", "load", "put_down"]

_TARGET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,50}")
# Names are data: psql and format() quote them.
_EXISTS = "SELECT 1 FROM pg_database WHERE datname = :'name';\n"
_DROP_FRESH = "SELECT format('DROP DATABASE IF EXISTS %I', :'fresh') \\gexec\n"
_CREATE_FRESH = "SELECT format('CREATE DATABASE %I TEMPLATE template0 ENCODING ''UTF8''', :'fresh') \\gexec\n"
_SWAP = """\
SELECT format('DROP DATABASE IF EXISTS %I', :'old') \\gexec
BEGIN;
SELECT format('ALTER DATABASE %I RENAME TO %I', :'name', :'old') WHERE :'there' <> '' \\gexec
SELECT format('ALTER DATABASE %I RENAME TO %I', :'fresh', :'name') \\gexec
COMMIT;
SELECT format('DROP DATABASE IF EXISTS %I', :'old') \\gexec
"""


def put_down(target: Path, write: Callable[[Path], None]) -> None:
    """
    A file for nobody but its owner, at ``target`` only once ``write`` has filled it whole.

    A folder that is made for it is closed to others, and to git: what is in it is nobody else's business.
    """
    if not target.parent.is_dir():
        target.parent.mkdir(mode=0o700, parents=True)
        (target.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        write(Path(name))
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_target(into: str, suffix: str, *, replace: bool) -> None:
    """Raise before anything is fetched: for a kind that cannot be loaded, no name, or one that is taken without ``replace``."""
    if suffix not in (".dump", ".sqlite3"):
        raise ConfigError(
            "a backup of MariaDB or MySQL is not loaded here by itself",
            cure="get the file: fab … db.backup --get\nthen: zcat backups/NAME | mysql DATABASE",
        )
    if not into:
        example = "--into=blog_copy" if suffix == ".dump" else "--into=db.sqlite3"
        what = "database of your own PostgreSQL" if suffix == ".dump" else "file"
        raise ConfigError(f"into which {what}?", cure=f"name it: {example}")
    if suffix == ".dump":
        _check_programs(into)
    taken = Path(into).exists() if suffix == ".sqlite3" else bool(_psql(_EXISTS, into))
    if taken and not replace:
        raise ConfigError(f"{into} is there already", cure="choose another name, or lose what is in it: --replace")


def _check_programs(into: str) -> None:
    if not _TARGET.fullmatch(into):
        raise ConfigError(f"{into!r} is not a name for a database here", cure="use letters, digits, _ and -")
    for program in ("psql", "pg_restore"):
        if not shutil.which(program):
            raise ConfigError(f"{program} is not installed here", cure="apt-get install postgresql-client")


def load(backup: Path, into: str) -> None:
    """The backup as the database or the file ``into``, in the place of what was there; raises FabdjangoError, and all is as before."""
    if backup.suffix == ".sqlite3":
        _load_file(backup, Path(into))
    else:
        _load_postgresql(backup, into)


def _load_file(backup: Path, target: Path) -> None:
    def copy(place: Path) -> None:
        with closing(sqlite3.connect(backup)) as old, closing(sqlite3.connect(place)) as new:
            old.backup(new)

    try:
        if target.exists():
            # In a transaction: whoever has it open sees the one or the other.
            copy(target)
        else:
            put_down(target, copy)
    except (sqlite3.Error, OSError) as error:
        raise FabdjangoError(f"{target} cannot be written: {error}", state=f"{target} is as it was") from None


def _load_postgresql(backup: Path, name: str) -> None:
    _psql(_DROP_FRESH + _CREATE_FRESH, name)
    try:
        _restore(backup, _beside(name)["fresh"])
        _psql(_SWAP, name, there=_psql(_EXISTS, name))
    except FabdjangoError as error:
        _psql(_DROP_FRESH, name)
        error.state = f"the local database {name} is as it was"
        raise


def _restore(backup: Path, name: str) -> None:
    # What belongs to other roles, and to whom it is given, is of no use here.
    words = ["pg_restore", "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", "--no-password"]
    done = subprocess.run(
        [*words, "--dbname", name, backup], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        older = "your pg_restore is older than the host's: install a newer postgresql-client"
        cure = older if "unsupported version" in said else ""
        raise FabdjangoError("the backup cannot be restored here", output=said, cure=cure)


def _beside(name: str) -> dict[str, str]:
    # No name that somebody can have chosen by --into.
    return {"fresh": f"{name}.fabdjango", "old": f"{name}.fabdjango.old"}


def _psql(script: str, name: str, **more: str) -> str:
    """What the operator's own PostgreSQL answers; where it is, the variables of libpq say."""
    given = {"name": name, **_beside(name), **more}
    words = [word for key, value in given.items() for word in ("-v", f"{key}={value}")]
    done = subprocess.run(
        ["psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", *words, "-d", "postgres"],
        input=script.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise FabdjangoError(
            "your own PostgreSQL does not do as it is told",
            output=done.stderr.decode("utf-8", "replace").strip(),
            state="nothing was changed here",
            cure="does it run, may you make databases there (createuser --createdb), and does nobody use this one?\n"
            "PGHOST, PGPORT and PGUSER say which one is meant",
        )
    return done.stdout.decode("utf-8", "replace").strip()
