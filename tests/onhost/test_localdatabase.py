"""A backup as the operator's own database: whole or not at all, on a real PostgreSQL and in files."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fabdjango import localdatabase
from fabdjango.exceptions import ConfigError, FabdjangoError
from tests.onhost.conftest import Strict

OPERATOR = "it's me"
"""A role that may make databases, and no more."""


class Mine:
    """The operator's PostgreSQL, and a backup of a host's database whose owner is nobody here."""

    def __init__(self, strict: Strict, dump: Path) -> None:
        self.strict = strict
        self.dump = dump

    def ask(self, statement: str, database: str = "postgres") -> list[Any]:
        """The first column of the answer, as the superuser."""
        with psycopg.connect(**self.strict.superuser, dbname=database, autocommit=True) as session:
            found = session.execute(statement)
            return [row[0] for row in found] if found.description else []

    @property
    def databases(self) -> list[Any]:
        """Those of the operator's."""
        owner = OPERATOR.replace("'", "''")
        return self.ask(f"SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = '{owner}' ORDER BY 1")  # noqa: S608


@pytest.fixture
def mine(strict: Strict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mine]:
    """With PGHOST, PGPORT and PGUSER saying which one it is."""
    found = Mine(strict, tmp_path / "blog-20260102T030405Z-none.dump")
    found.ask(f'CREATE ROLE "{OPERATOR}" LOGIN CREATEDB')
    found.ask("CREATE ROLE theirs LOGIN")
    found.ask("CREATE DATABASE source OWNER theirs")
    with psycopg.connect(**{**strict.superuser, "user": "theirs"}, dbname="source", autocommit=True) as session:
        session.execute("CREATE EXTENSION citext")
        session.execute("CREATE TABLE post (title citext)")
        session.execute("INSERT INTO post VALUES ('it''s the first')")
        session.execute("GRANT SELECT ON post TO public")
    way = {"PGHOST": str(strict.folder), "PGPORT": strict.port, "PGUSER": "theirs"}
    words = ["pg_dump", "--format=custom", f"--file={found.dump}", "source"]
    subprocess.run(words, check=True, env={**os.environ, **way})
    found.ask("DROP DATABASE source")
    found.ask("DROP ROLE theirs")
    for name, value in {**way, "PGUSER": OPERATOR}.items():
        monkeypatch.setenv(name, value)
    yield found
    for name in found.databases:
        found.ask(f'DROP DATABASE "{name}" WITH (FORCE)')
    found.ask(f'DROP ROLE "{OPERATOR}"')


def test_a_new_database(mine: Mine) -> None:
    """It is the operator's, whoever had it on the host."""
    localdatabase.check_target("blog-copy", ".dump", replace=False)
    localdatabase.load(mine.dump, "blog-copy")
    assert mine.databases == ["blog-copy"]
    assert mine.ask("SELECT title FROM post", "blog-copy") == ["it's the first"]
    assert mine.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'post'", "blog-copy") == [OPERATOR]


def test_one_that_is_there(mine: Mine) -> None:
    """It is lost only if that is wanted, and only when the other one is whole."""
    localdatabase.load(mine.dump, "copy")
    mine.ask("INSERT INTO post VALUES ('mine')", "copy")
    with pytest.raises(ConfigError, match="copy is there already"):
        localdatabase.check_target("copy", ".dump", replace=False)
    localdatabase.check_target("copy", ".dump", replace=True)
    mine.ask(f'CREATE DATABASE "copy.fabdjango" OWNER "{OPERATOR}"')
    localdatabase.load(mine.dump, "copy")
    assert (mine.databases, mine.ask("SELECT title FROM post", "copy")) == (["copy"], ["it's the first"])


def test_what_fails_changes_nothing(mine: Mine) -> None:
    """A backup that is cut short, and a database that somebody uses."""
    localdatabase.load(mine.dump, "copy")
    mine.ask("INSERT INTO post VALUES ('mine')", "copy")
    whole = mine.dump.read_bytes()
    mine.dump.write_bytes(whole[:-100])
    with pytest.raises(FabdjangoError, match="the backup cannot be restored here") as caught:
        localdatabase.load(mine.dump, "copy")
    assert caught.value.state == "the local database copy is as it was"
    mine.dump.write_bytes(whole)
    with (
        psycopg.connect(**mine.strict.superuser, dbname="copy"),
        pytest.raises(FabdjangoError, match="your own PostgreSQL does not do as it is told") as caught,
    ):
        localdatabase.load(mine.dump, "copy")
    assert "is being accessed by other users" in caught.value.output
    assert (mine.databases, mine.ask("SELECT title FROM post ORDER BY 1 DESC", "copy")) == (
        ["copy"],
        ["mine", "it's the first"],
    )


def test_names(mine: Mine) -> None:
    """Only plain ones; none at all is asked for."""
    for name in ("it's", "a b", "a.fabdjango", "-a", "a\n"):
        with pytest.raises(ConfigError, match="is not a name for a database here"):
            localdatabase.check_target(name, ".dump", replace=True)
    with pytest.raises(ConfigError, match="into which database of your own PostgreSQL"):
        localdatabase.check_target("", ".dump", replace=False)


def test_a_server_that_is_not_there(mine: Mine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found before anything is fetched."""
    monkeypatch.setenv("PGHOST", str(mine.dump.parent))
    with pytest.raises(FabdjangoError, match="your own PostgreSQL does not do as it is told") as caught:
        localdatabase.check_target("copy", ".dump", replace=False)
    assert caught.value.state == "nothing was changed here"


# --- files --------------------------------------------------------------------


def titles(path: Path) -> list[str]:
    """What a database of SQLite has."""
    with closing(sqlite3.connect(path)) as session:
        return [row[0] for row in session.execute("SELECT title FROM post ORDER BY 1")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A backup."""
    path = tmp_path / "blog-20260102T030405Z-none.sqlite3"
    with closing(sqlite3.connect(path)) as session:
        session.execute("CREATE TABLE post (title)")
        session.execute("INSERT INTO post VALUES ('it''s the first')")
        session.commit()
    return path


def test_a_new_file(file: Path, tmp_path: Path) -> None:
    """With its folder; nothing is left beside it."""
    into = tmp_path / "it's mine" / "db.sqlite3"
    localdatabase.load(file, str(into))
    assert titles(into) == ["it's the first"]
    assert sorted(each.name for each in into.parent.iterdir()) == [".gitignore", "db.sqlite3"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_file_that_is_used(file: Path, tmp_path: Path, mode: str) -> None:
    """Whoever has it open sees the one or the other; what is in its log does not come back."""
    into = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(into, isolation_level=None)) as used:
        used.execute(f"PRAGMA journal_mode={mode}")
        used.execute("CREATE TABLE post (title)")
        used.execute("INSERT INTO post VALUES ('mine')")
        localdatabase.load(file, str(into))
        assert used.execute("SELECT title FROM post").fetchall() == [("it's the first",)]
    assert titles(into) == ["it's the first"]


def test_a_file_that_cannot_be_written(file: Path, tmp_path: Path) -> None:
    """What was there stays."""
    into = tmp_path / "db.sqlite3"
    into.write_bytes(b"it's no database" * 100)
    with pytest.raises(FabdjangoError, match="cannot be written: file is not a database"):
        localdatabase.load(file, str(into))
    assert into.read_bytes() == b"it's no database" * 100


def test_a_file_that_is_filled_half(tmp_path: Path) -> None:
    """It never gets its name."""
    place = tmp_path / "it's here" / "file"

    def fill(path: Path) -> None:
        path.write_text("half")
        raise OSError

    with pytest.raises(OSError):
        localdatabase.put_down(place, fill)
    assert [each.name for each in place.parent.iterdir()] == [".gitignore"]
