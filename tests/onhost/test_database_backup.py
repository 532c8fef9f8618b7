"""Backups of PostgreSQL and SQLite: whole or not there, and back in one transaction."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.onhost.conftest import Project, need_root
from tests.onhost.watching import command_lines

NUMBER = 'migrations.AddField("Post", "number", models.IntegerField(null=True))'


class Site:
    """A project that is deployed, as far as its database is concerned."""

    def __init__(self, project: Project, ask: Callable[[str], list[str]] | None = None) -> None:
        self.project = project
        self.folder = project.path / "the backups"
        self.ask = ask or self._ask
        status, output, _ = project.migrate()
        assert status == 0, output
        self.ask("INSERT INTO posts_post (title) VALUES ('it''s the first')")

    def parameters(self, **more: object) -> dict[str, object]:
        """What both programs are told."""
        return {
            "project": "blog-1",
            "folder": str(self.folder),
            "lock_timeout": 5,
            "journal": str(self.project.path / "journal.jsonl"),
            "entry": {"event": "backup", "release": "", "by": "ada@laptop"},
            "current": str(self.project.path / "current"),
            "keep": 10,
            "spare": [],
            "before_migrate": False,
            **more,
        }

    def back_up(self, **more: object) -> tuple[int, str]:
        """Exit status and output of a backup."""
        return self.project.run("database_backup", **self.parameters(**more))

    def made(self, **more: object) -> Path:
        """A backup that was made."""
        status, output = self.back_up(**more)
        assert status == 0, output
        return self.folder / str(json.loads(output.splitlines()[-1])["name"])

    def restore(self, name: str, **more: object) -> tuple[int, str]:
        """Exit status and output of a restore."""
        return self.project.run("database_restore", **self.parameters(name=name, **more))

    def listed(self, *, whole: bool = False) -> list[dict[str, Any]]:
        """What the list says."""
        status, output = self.project.run("database_backups", project="blog-1", folder=str(self.folder), whole=whole)
        assert status == 0, output
        found: list[dict[str, Any]] = json.loads(output.splitlines()[-1])["backups"]
        return found

    @property
    def files(self) -> list[str]:
        """All that is in the folder."""
        return sorted(each.name for each in self.folder.iterdir())

    @property
    def titles(self) -> list[str]:
        """What the database has."""
        return self.ask("SELECT title FROM posts_post ORDER BY id")

    def _ask(self, statement: str) -> list[str]:
        """The first column of the answer."""
        session = self.project.hold()
        try:
            found = session.execute(statement)
            return [str(row[0]) for row in found] if found.description else []
        finally:
            session.close()


@pytest.fixture(params=["lite", "owned"])
def site(request: pytest.FixtureRequest) -> Site:
    """On SQLite, and on PostgreSQL as a role that owns the database and no more."""
    return Site(request.getfixturevalue(request.param))


@pytest.fixture
def pg(owned: Project) -> Site:
    """On PostgreSQL, as it should be."""
    return Site(owned)


def notes(output: str) -> list[str]:
    """What was reported."""
    return re.findall(r"^\036R1 (.*)$", output, re.MULTILINE)


def test_backup(site: Site) -> None:
    """One file, for its owner alone, named by project, time and release, and written into the journal."""
    release = site.project.path / "releases" / "7-0123456789ab"
    release.mkdir(parents=True)
    (site.project.path / "current").symlink_to(release)
    path = site.made()
    assert re.fullmatch(r"blog-1-\d{8}T\d{6}Z-7-0123456789ab\.(dump|sqlite3)", path.name)
    assert site.files == [path.name]
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(site.folder.stat().st_mode)) == (0o600, 0o700)
    entry = json.loads((site.project.path / "journal.jsonl").read_text().splitlines()[-1])
    assert entry.pop("time")
    assert entry == {
        "event": "backup",
        "release": "",
        "by": "ada@laptop",
        "result": "made",
        "file": path.name,
        "size": path.stat().st_size,
    }


def test_several_in_one_second(file: Site) -> None:
    """None takes the name of another one; the newest stay, one that is to be restored, and what somebody has put there."""
    own = file.made()
    shutil.copy(own, own.with_name("before the change.sqlite3"))
    names = [own.name, *(file.made(keep=3, spare=[own.name]).name for _ in range(5))]
    assert len(set(names)) == 6
    assert file.files == sorted([own.name, "before the change.sqlite3", *names[-3:]])
    assert [each["name"] for each in file.listed()] == [*reversed(names[-3:]), own.name, "before the change.sqlite3"]


def test_restore(site: Site) -> None:
    """All is as it was, and nothing of a newer schema is left; the code is told what the database now lacks."""
    path = site.made()
    site.project.write("0002_number", NUMBER, after="0001_initial")
    site.project.write(
        "0003_table",
        'migrations.CreateModel("Tag", [("id", models.BigAutoField(primary_key=True))])',
        after="0002_number",
    )
    assert site.project.migrate()[0] == 0
    site.project.sql("INSERT INTO posts_post (title) VALUES ('the second')", "INSERT INTO posts_tag (id) VALUES (1)")
    status, output = site.restore(path.name, entry={"event": "restore", "release": "", "by": "ada@laptop"})
    assert (status, notes(output)) == (
        0,
        ["note the database now lacks 2 migrations of the release that serves: fab … django.migrate"],
    ), output
    assert site.titles == ["it's the first"]
    assert site.project.applied() == ["0001_initial"]
    assert site.project.migrate()[2]["migrations"] == ["posts.0002_number", "posts.0003_table"]
    site.project.sql("INSERT INTO posts_post (title) VALUES ('after it')")
    assert site.titles == ["it's the first", "after it"]
    lines = (site.project.path / "journal.jsonl").read_text().splitlines()
    assert json.loads(lines[-2])["event"] == "restore"
    assert json.loads(lines[-2])["file"] == path.name


def test_restore_as_the_superuser(postgres: Project) -> None:
    """What the superuser has cannot be dropped as its own; all in the database is replaced, owners and rights included."""
    site = Site(postgres)
    name = postgres.databases["default"]["NAME"]
    postgres.sql(
        f"CREATE ROLE {name}_reader", f"ALTER TABLE posts_post OWNER TO {name}_reader", "SELECT lo_create(4711)"
    )
    path = site.made()
    postgres.sql("DELETE FROM posts_post", "CREATE SCHEMA more", "CREATE TABLE more.new (id int)")
    status, output = site.restore(path.name)
    assert status == 0, output
    assert site.titles == ["it's the first"]
    session = postgres.hold()
    rows = session.execute("SELECT tableowner FROM pg_tables WHERE schemaname = 'public' OR schemaname = 'more'")
    assert sorted(rows.fetchall()) == [(f"{name}_reader",), ("postgres",)]
    session.close()


def broken(path: Path) -> Iterator[tuple[str, bytes]]:
    """Ways in which a file can be broken."""
    whole = path.read_bytes()
    middle = len(whole) // 2
    yield "nothing", b""
    yield "another file", b"it's text\n" * 100
    yield "cut short", whole[: -len(whole) // 10]
    yield (
        "a few bytes are others",
        whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40]) + whole[middle + 40 :],
    )


def test_a_broken_backup(site: Site) -> None:
    """It is told by the list, at the latest when it is read to its end, and a restore of it changes nothing."""
    site.project.sql(
        "INSERT INTO posts_post (title, text) SELECT 'x', hex(n) FROM (SELECT 1 AS n)"
        if site.project.databases["default"]["ENGINE"].endswith("sqlite3")
        else "INSERT INTO posts_post (title, text) SELECT 'x', md5(n::text) FROM generate_series(1, 3000) n"
    )
    path = site.made()
    before = site.titles
    for what, content in broken(path):
        path.write_bytes(content)
        (found,) = site.listed(whole=True)
        assert found["problem"], what
        status, output = site.restore(path.name)
        assert (status, output.startswith("the backup is broken: ")) == (1, True), (what, output)
        assert site.titles == before


def test_no_such_backup(site: Site) -> None:
    """Nor one of another kind of database."""
    other = ".sqlite3" if site.made().suffix == ".dump" else ".dump"
    (site.folder / f"x{other}").write_bytes(b"x")
    assert site.restore("y" + other)[1].splitlines() == [
        f"there is no backup y{other}",
        "cure: see them with: fab … db.backups",
    ]
    status, output = site.restore("x" + other)
    assert (status, "is not of this kind of database" in output) == (1, True)
    assert site.titles == ["it's the first"]


def test_only_before_migrations(site: Site) -> None:
    """A deploy backs up if there is one to apply, and the database is as before it."""
    status, output = site.back_up(before_migrate=True)
    assert (status, notes(output), site.folder.exists()) == (0, ["unchanged no migration is to be applied"], False)
    site.project.write("0002_number", NUMBER, after="0001_initial")
    path = site.made(before_migrate=True)
    assert site.project.migrate()[0] == 0
    assert site.restore(path.name)[0] == 0
    assert site.project.applied() == ["0001_initial"]


def test_what_a_dead_one_left(site: Site) -> None:
    """It goes with the next backup, and counts as none."""
    path = site.made()
    for name in (f".{path.name}.part", f".{path.name}.part-journal"):
        (site.folder / name).write_text("x")
    assert [each["name"] for each in site.listed()] == [path.name]
    assert site.files == [f".{path.name}.part", f".{path.name}.part-journal", path.name]
    second = site.made()
    assert site.files == sorted([path.name, second.name])


def test_a_folder_of_somebody_else(site: Site) -> None:
    """It would let others read, or be read by nobody."""
    need_root()
    site.folder.mkdir(mode=0o755)
    shutil.chown(site.folder, "nobody")
    status, output = site.back_up()
    assert (status, output.splitlines()[0]) == (1, f"{site.folder} belongs to another account")
    shutil.chown(site.folder, "root")
    site.made()
    assert stat.S_IMODE(site.folder.stat().st_mode) == 0o700


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own of a size like 30m."""
    need_root()
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
        return place

    yield mount
    subprocess.run(["umount", place], check=False)


def test_too_little_room(site: Site, small_disk: Callable[[str], Path]) -> None:
    """It is not even begun."""
    site.folder = small_disk("10m") / "backups"
    status, output = site.back_up()
    assert (status, output.startswith("the disk is too full for a backup: 10 MB are free, ")) == (1, True), output
    assert site.files == []


def fill(site: Site) -> None:
    """Some 30 MB that do not compress."""
    lite = site.project.databases["default"]["ENGINE"].endswith("sqlite3")
    session = site.project.hold()
    for _ in range(60):
        word = base64.b64encode(os.urandom(750_000)).decode()
        session.execute(f"INSERT INTO posts_post (title, text) VALUES ('big', '{word}')")  # noqa: S608 - base64
    session.close()
    assert lite or site.titles


def test_a_full_disk(site: Site, small_disk: Callable[[str], Path]) -> None:
    """What was there is all that there is; it can be as long as a dump is larger than the one before it."""
    site.folder = small_disk("30m") / "backups"
    path = site.made()
    kept = path.read_bytes()
    fill(site)
    status, output = site.back_up()
    assert (status, "the backup failed, and there is no more of it: " in output) == (1, True), output
    assert (site.files, path.read_bytes()) == ([path.name], kept)


# --- PostgreSQL ---------------------------------------------------------------


def processes(pg: Site, program: str) -> list[int]:
    """Those of a program of PostgreSQL that are told of this database, by their environment."""
    mark = f"PGDATABASE={pg.project.databases['default']['NAME']}\0".encode()
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                if (place / "comm").read_text().strip() == program and mark in (place / "environ").read_bytes():
                    found.append(int(place.name))
    return found


def waiting(pg: Site, process: subprocess.Popen[str], program: str) -> int:
    """The process of a program of PostgreSQL that ``process`` has started, once it waits for a lock."""
    name = pg.project.databases["default"]["NAME"]
    with psycopg.connect(**pg.project.superuser, dbname="postgres", autocommit=True) as session:
        while not session.execute(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock' AND datname = %s",
            [program, name],
        ).fetchone():
            assert process.poll() is None, process.communicate()
    (found,) = processes(pg, program)
    return found


@pytest.mark.parametrize("victim", ["pg_dump", "program", "stopped"])
def test_a_dump_that_is_killed(pg: Site, victim: str) -> None:
    """Of pg_dump, nothing is left at once; of our own program, with the next backup."""
    path = pg.made()
    held = pg.project.hold("BEGIN", "LOCK TABLE posts_post")
    process = pg.project.start("database_backup", **pg.parameters(lock_timeout=60))
    dumper = waiting(pg, process, "pg_dump")
    if victim == "pg_dump":
        os.kill(dumper, signal.SIGKILL)
    elif victim == "program":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.terminate()
    output, _ = process.communicate(timeout=30)
    held.close()
    assert process.returncode != 0
    if victim == "pg_dump":
        assert output.splitlines()[-1] == "the backup failed, and there is no more of it: pg_dump ended with status -9"
    if victim == "program":
        second = pg.made()
        assert pg.files == sorted([path.name, second.name])
    else:
        assert pg.files == [path.name]


def test_a_table_that_is_locked(pg: Site) -> None:
    """A dump waits for lock_timeout and no longer."""
    held = pg.project.hold("BEGIN", "LOCK TABLE posts_post")
    status, output = pg.back_up(lock_timeout=1)
    held.close()
    assert (status, "cure: a table is locked for longer than fabdjango.django.lock_timeout" in output) == (1, True), (
        output
    )
    assert pg.files == []


def test_the_password_is_on_no_command_line(pg: Site) -> None:
    """Of a dump, of the reading of it, and of a restore."""
    with command_lines() as seen:
        path = pg.made()
        assert pg.restore(path.name)[0] == 0
    assert {word for word in ("pg_dump", "pg_restore", "psql") if any(word in line for line in seen)} == {
        "pg_dump",
        "pg_restore",
        "psql",
    }
    assert [line for line in seen if "canary-5up3r" in line] == []
    assert "canary-5up3r" not in path.read_bytes().decode("latin-1")


def schema(pg: Site) -> str:
    """Everything in the database, as SQL."""
    database = pg.project.databases["default"]
    env = {**os.environ, "PGPASSWORD": database["PASSWORD"]}
    words = ["pg_dump", "-h", database["HOST"], "-p", database["PORT"], "-U", database["USER"], database["NAME"]]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    return re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)


RICH = [
    "CREATE EXTENSION citext",
    "CREATE SCHEMA more",
    "CREATE TABLE more.kept (id serial PRIMARY KEY, post bigint REFERENCES posts_post, name citext UNIQUE)",
    "CREATE VIEW seen AS SELECT title FROM posts_post",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM posts_post",
    "CREATE TYPE mood AS ENUM ('fine', 'it''s bad')",
    "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 2 * n; END $$",
    "COMMENT ON TABLE posts_post IS 'it''s \\. here'",
    "SELECT lo_from_bytea(4711, 'large')",
    "INSERT INTO more.kept (post, name) SELECT id, 'it''s \t\\.' FROM posts_post",
]


def test_everything_comes_back(pg: Site) -> None:
    """Tables, views, types, functions, extensions, comments, large objects, sequences; and rights given to others."""
    own = Project(
        pg.project.path,
        pg.project.databases,
        superuser={**pg.project.superuser, "user": pg.project.databases["default"]["USER"]},
    )
    own.sql(*RICH)
    with psycopg.connect(**pg.project.superuser, dbname="postgres", autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS reader")
        admin.execute("CREATE ROLE reader")
    pg.project.sql("GRANT SELECT ON posts_post TO reader")
    path, before = pg.made(), schema(pg)
    own.sql("DROP VIEW seen", "DROP TYPE mood", "DELETE FROM more.kept", "CREATE TABLE new (id int)")
    assert schema(pg) != before
    status, output = pg.restore(path.name)
    assert status == 0, output
    assert schema(pg) == before
    pg.project.sql("DROP OWNED BY reader", "DROP ROLE reader")


def test_a_restore_that_fails_half_way(pg: Site) -> None:
    """All of it is undone: here a role is missing to which rights were given."""
    with psycopg.connect(**pg.project.superuser, dbname="postgres", autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS lost")
        admin.execute("CREATE ROLE lost")
    pg.project.sql("GRANT SELECT ON posts_post TO lost")
    path = pg.made()
    pg.project.sql("DROP OWNED BY lost", "DROP ROLE lost", "INSERT INTO posts_post (title) VALUES ('the second')")
    before = schema(pg)
    status, output = pg.restore(path.name)
    assert (status, output.startswith("the database is as it was: ")) == (1, True)
    assert 'role "lost" does not exist' in output
    assert schema(pg) == before


@pytest.mark.parametrize("victim", ["psql", "pg_restore", "program", "stopped"])
def test_a_restore_that_is_killed(pg: Site, victim: str) -> None:
    """The database is as it was, and can be restored afterwards."""
    # More than a pipe holds, so that pg_restore has not come to its end.
    pg.project.sql("INSERT INTO posts_post (title, text) SELECT 'x', repeat('x', 1000) FROM generate_series(1, 2000)")
    path = pg.made()
    pg.project.sql("DELETE FROM posts_post WHERE title = 'x'")
    before = schema(pg)
    held = pg.project.hold("BEGIN", "SELECT * FROM posts_post")
    process = pg.project.start("database_restore", **pg.parameters(name=path.name, lock_timeout=60))
    psql = waiting(pg, process, "psql")
    if victim == "psql":
        os.kill(psql, signal.SIGKILL)
    elif victim == "program":
        process.kill()
    elif victim == "stopped":
        process.terminate()
    else:
        (victim_of_all,) = processes(pg, "pg_restore")
        os.kill(victim_of_all, signal.SIGKILL)
    process.wait(timeout=30)
    held.close()
    while processes(pg, "psql"):
        pass
    assert process.returncode != 0
    assert schema(pg) == before
    assert pg.restore(path.name, lock_timeout=30)[0] == 0
    assert len(pg.titles) == 2001


def test_a_database_that_is_used(pg: Site) -> None:
    """After lock_timeout it gives up, and says what to do."""
    path = pg.made()
    held = pg.project.hold("BEGIN", "SELECT * FROM posts_post")
    status, output = pg.restore(path.name, lock_timeout=1)
    held.close()
    assert (status, output.splitlines()[-1]) == (
        1,
        "cure: something uses the database for longer than fabdjango.django.lock_timeout: stop it, or wait; then restore again",
    )
    assert pg.titles == ["it's the first"]


def test_a_role_that_does_not_own_the_database(pg: Site) -> None:
    """It has what it needs by rights that were given to it, and keeps them."""
    name = pg.project.databases["default"]["NAME"]
    path = pg.made()
    with psycopg.connect(**pg.project.superuser, dbname=name, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" OWNER TO postgres')
        admin.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{name}"')
        admin.execute(f'GRANT ALL ON SCHEMA public TO "{name}"')
    before = schema(pg)
    pg.project.sql("DELETE FROM posts_post")
    status, output = pg.restore(path.name)
    assert status == 0, output
    assert schema(pg) == before


def test_a_role_that_would_lose_its_rights(pg: Site) -> None:
    """As a member of the owner's role it may take its own rights away, and not give them back: nothing is changed."""
    name = pg.project.databases["default"]["NAME"]
    path = pg.made()
    with psycopg.connect(**pg.project.superuser, dbname=name, autocommit=True) as admin:
        for statement in (
            f'CREATE ROLE "owners of {name}"',
            f'GRANT "owners of {name}" TO "{name}"',
            f'ALTER DATABASE "{name}" OWNER TO "owners of {name}"',
            f'GRANT CONNECT ON DATABASE "{name}" TO "{name}"',
        ):
            admin.execute(statement)
    before = schema(pg)
    status, output = pg.restore(path.name)
    assert (status, "is not the owner of the database" in output) == (1, True), output
    assert output.splitlines()[-1] == (
        "cure: as the superuser of the database: ALTER DATABASE … OWNER TO …; then restore again"
    )
    assert schema(pg) == before


# --- SQLite -------------------------------------------------------------------


@pytest.fixture
def file(lite: Project) -> Site:
    """On SQLite."""
    return Site(lite)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_while_it_is_used(file: Site, mode: str) -> None:
    """A backup is one state of it, with what is in its log; a restore is seen by who has it open."""
    used = file.project.hold(f"PRAGMA journal_mode={mode}", "PRAGMA wal_autocheckpoint=0")
    used.execute("INSERT INTO posts_post (title) VALUES ('in the log')")
    path = file.made()
    assert file.files == [path.name]
    used.execute("INSERT INTO posts_post (title) VALUES ('later')")
    status, output = file.restore(path.name)
    assert status == 0, output
    assert [row[0] for row in used.execute("SELECT title FROM posts_post ORDER BY id")] == [
        "it's the first",
        "in the log",
    ]
    used.execute("INSERT INTO posts_post (title) VALUES ('after it')")
    used.close()
    assert file.titles == ["it's the first", "in the log", "after it"]


def test_sqlite_that_is_locked(file: Site) -> None:
    """It waits for lock_timeout and no longer."""
    path = file.made()
    held = file.project.hold("BEGIN EXCLUSIVE")
    for status, output in (file.back_up(lock_timeout=1), file.restore(path.name, lock_timeout=1)):
        assert (status, "locked" in output or "in vain" in output) == (1, True), output
    held.close()
    assert (file.files, file.titles) == ([path.name], ["it's the first"])


def test_no_file_yet(lite: Project) -> None:
    """Before the first deploy there is nothing to keep."""
    site = Site(lite)
    Path(lite.databases["default"]["NAME"]).unlink()
    status, output = site.back_up()
    assert (status, notes(output), json.loads(output.splitlines()[-1])) == (
        0,
        ["unchanged there is no database yet"],
        {"name": ""},
    )


def test_no_database(lite: Project) -> None:
    """A project without one is told so."""
    status, output = Project(lite.path, {}).run("database_backup", **Site(lite).parameters())
    assert (status, output.splitlines()[0]) == (
        1,
        "the project has no database that can be backed up: its engine is django.db.backends.dummy",
    )
