"""A site's SQLite database through fab: made, backed up before migrations and by hand, put back, and copied down."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.local.sample import MIGRATION, make_project
from tests.local.stage import Stage, listing

LABEL = MIGRATION.replace("initial = True\n    dependencies = []", 'dependencies = [("notes", "0001_initial")]')
LABEL = LABEL.replace('name="Note"', 'name="Label"')


def ask(path: Path, statement: str) -> list[str]:
    """The first column of the answer."""
    with closing(sqlite3.connect(path)) as session:
        found = [str(row[0]) for row in session.execute(statement)]
        session.commit()
        return found


TABLES = "SELECT name FROM sqlite_master WHERE name LIKE 'notes_%' ORDER BY 1"


def add_label(stage: Stage, edition: str) -> None:
    """A commit with a migration."""
    stage.repository.commit({"notes/migrations/0002_label.py": LABEL, "notes/edition.py": f"EDITION = {edition!r}\n"})


@pytest.fixture
def site(stage: Stage) -> Stage:
    """A site that has been deployed, its database made by db.create, below a root at home."""
    stage.configure(
        django={"collectstatic": "never"},
        database={
            "engine": "sqlite",
            "path": "data/it's a db.sqlite3",
            "variables": {"SHOP_DB": "name"},
            "backup_before_migrate": True,
        },
    )
    stage.repository.commit(make_project())
    stage.fab("db.create")
    generated = (stage.root / "shared" / "generated.env").read_text()
    assert generated == f"export SHOP_DB='{stage.root}/shared/data/it'\\''s a db.sqlite3'\n"
    assert "unchanged  the folder of data/it's a db.sqlite3" in stage.fab("db.create").out
    stage.deploy()
    return stage


def test_a_deploy_with_migrations(site: Stage) -> None:
    """What was there before is kept, named in the report and in the journal; without a backup nothing is changed."""
    database, backups = site.root / "shared/data/it's a db.sqlite3", site.root / "backups"
    assert ask(database, TABLES) == ["notes_note"]
    assert not backups.exists()
    first = site.current
    add_label(site, "2")
    backups.write_text("it's no folder")
    failed = site.deploy(code=1)
    assert "backups cannot be kept in" in failed.err
    assert "state: nothing that serves was touched (exit 1)" in failed.err
    assert (site.current, ask(database, TABLES)) == (first, ["notes_note"])

    backups.unlink()
    run = site.deploy()
    (kept,) = backups.iterdir()
    assert re.fullmatch(rf"shop-\d{{8}}T\d{{6}}Z-{first}\.sqlite3", kept.name)
    assert f"note: the database is backed up in {kept.name}, " in run.out
    assert (ask(kept, TABLES), ask(database, TABLES)) == (["notes_note"], ["notes_label", "notes_note"])
    assert [entry["event"] for entry in site.journal][-3:] == ["backup", "migrate", "deploy"]
    assert kept.name in site.fab("history").out
    site.repository.commit({"notes/edition.py": "EDITION = '3'\n"})
    site.deploy()
    site.fab("django.migrate")
    assert list(backups.iterdir()) == [kept]
    assert [place.name for place in site.release.iterdir() if "~" in place.name] == []


def test_there_and_back(site: Stage) -> None:
    """By hand: a backup that is copied down, a restore that keeps what it replaces, and a pull into a file of one's own."""
    database, backups = site.root / "shared/data/it's a db.sqlite3", site.root / "backups"
    ask(database, "INSERT INTO notes_note (text) VALUES ('it''s the first')")
    before = listing(site.root)
    site.fab("--dry", "db.backup", "--get")
    site.fab("--dry", "db.restore", "newest", code=1)
    assert listing(site.root) == before

    run = site.fab("db.backup", "--get")
    (kept,) = backups.iterdir()
    assert run.last == f"copied: backups/{kept.name}"
    copy = site.operator / "backups" / kept.name
    assert copy.read_bytes() == kept.read_bytes()
    assert "can be read" in site.fab("db.backups").last

    ask(database, "DELETE FROM notes_note")
    refused = site.fab("db.restore", kept.name, code=1)
    assert "There is no terminal to ask on" in refused.err
    assert ask(database, "SELECT text FROM notes_note") == []
    run = site.fab("db.restore", "newest", "--yes")
    assert run.last == f"restored: the database is as in {kept.name}"
    assert ask(database, "SELECT text FROM notes_note") == ["it's the first"]
    assert site.get().status == 200
    assert len(list(backups.iterdir())) == 2

    site.fab("db.pull", code=1)
    run = site.fab("db.pull", "--into=mine.sqlite3", f"--name={kept.name}")
    assert run.last == f"pulled: mine.sqlite3 here is as in {kept.name}"
    assert ask(site.operator / "mine.sqlite3", "SELECT text FROM notes_note") == ["it's the first"]

    (backups / kept.name).write_bytes(b"SQLite format 3\0")
    listed = site.fab("db.backups", code=1)
    assert f"{kept.name}  0.0 MB" in listed.out
    assert "BROKEN: it is no database of SQLite" in listed.out
    assert f"1 of 2 backups cannot be read: {kept.name}" in listed.err
    broken = site.fab("db.restore", kept.name, "--yes", code=1)
    assert f"{kept.name} is broken" in broken.err
    shutil.rmtree(backups)
    assert site.fab("db.backups").last == f"no backups in {backups}"


def test_the_address_of_a_database_elsewhere(stage: Stage) -> None:
    """It comes from the operator's environment, and is in no output, however that ends."""
    stage.configure(database={"engine": "postgresql", "server": "elsewhere"})
    assert "fabdjango.database.url is not set" in stage.fab("db.create", code=1).err
    environ = {"FABRIC_FABDJANGO_DATABASE_URL": "postgres://ada:canary%205up3r@127.0.0.1:1/it%27s"}
    refused = stage.fab("db.create", code=1, environ=environ)
    assert "the database at 127.0.0.1:1 does not let this host in: " in refused.err
    assert "url = ********" in stage.fab("config", "--key=database.url", environ=environ).out
    assert "canary" not in "".join(stage.outputs)
