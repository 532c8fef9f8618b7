"""Migrations applied under a lock: once, no more than was told, and written down as they were in fact."""

from __future__ import annotations

import json

from tests.onhost.conftest import Project

NUMBER = 'migrations.AddField("Post", "number", models.IntegerField(null=True))'


def test_applied(project: Project) -> None:
    """What was applied stands in the journal and in the last line; a second run does nothing and writes nothing."""
    project.write("0002_number", NUMBER, after="0001_initial")
    status, output, answer = project.migrate(expected=["posts.0001_initial", "posts.0002_number"])
    assert status == 0, output
    assert answer == {
        "result": "applied",
        "migrations": ["posts.0001_initial", "posts.0002_number"],
        "failed": "",
        "waited": 0.0,
        "notes": [],
    }
    (line,) = (project.path / "journal.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry.pop("time")
    assert entry == {
        "event": "migrate",
        "release": "7-0123456789ab",
        "by": "ada@laptop",
        "result": "applied",
        "migrations": ["posts.0001_initial", "posts.0002_number"],
    }
    assert project.migrate()[2]["result"] == "unchanged"
    assert len(project.journal()) == 1
    assert sorted(each.name for each in (project.path / "run").iterdir()) in ([], ["migrate.lock"])


def test_unplanned(lite: Project) -> None:
    """A migration that nobody was told of stops it before anything is applied; one that is there already is fine."""
    status, output, answer = lite.migrate(expected=[])
    assert (status, answer["result"], answer["migrations"]) == (1, "failed", [])
    assert output.splitlines()[:3] == [
        "the plan has changed since it was shown: it would also apply posts.0001_initial",
        "the database is as it was",
        "cure: deploy again, to see the plan as it is now",
    ]
    assert lite.applied() == []
    assert lite.migrate()[0] == 0
    status, _, answer = lite.migrate(expected=["posts.0001_initial"])
    assert (status, answer["result"]) == (0, "unchanged")
    assert answer["notes"] == ["applied already by another process: posts.0001_initial"]


def test_failed_half_way(postgres: Project) -> None:
    """The journal has what was applied before the failure, and the one that failed is undone and named."""
    postgres.write("0002_number", NUMBER, after="0001_initial")
    postgres.write(
        "0003_bad",
        'migrations.RunSQL("CREATE TABLE x (id int)")',
        'migrations.RunSQL("it\'s wrong")',
        after="0002_number",
    )
    status, output, answer = postgres.migrate()
    assert (status, answer["result"], answer["failed"]) == (1, "failed", "posts.0003_bad")
    assert answer["migrations"] == ["posts.0001_initial", "posts.0002_number"]
    assert postgres.journal() == [("failed", ["posts.0001_initial", "posts.0002_number"])]
    assert output.splitlines()[-4:-1] == [
        "applied: posts.0001_initial, posts.0002_number",
        "posts.0003_bad is undone",
        "cure: mend the migration, then deploy again",
    ]
    postgres.write("0003_bad", 'migrations.RunSQL("CREATE TABLE x (id int)")', after="0002_number")
    assert postgres.migrate()[2]["migrations"] == ["posts.0003_bad"]


def told(project: Project) -> None:
    """Return once the migration that waits has begun."""
    with (project.path / "told").open():
        pass


def go_on(project: Project) -> None:
    """Let the migration that waits go on."""
    with (project.path / "go").open("w"):
        pass


def test_two_at_once(project: Project) -> None:
    """The second waits for the first, applies nothing twice, and says that it waited and for whom."""
    project.write("0002_wait", "migrations.RunPython(wait)", NUMBER, after="0001_initial")
    first = project.start("migrate", **project.parameters())
    told(project)
    second = project.start(
        "migrate", **project.parameters(by="bob@desk", expected=["posts.0001_initial", "posts.0002_wait"])
    )
    assert second.stdout
    said = second.stdout.readline()
    assert said.startswith("waiting for another migration of this database to end: ")
    assert "ada@laptop" in said
    go_on(project)
    assert first.wait(30) == 0
    assert second.wait(30) == 0
    assert first.stdout
    assert json.loads(first.stdout.read().splitlines()[-1])["migrations"] == ["posts.0001_initial", "posts.0002_wait"]
    answer = json.loads(second.stdout.read().splitlines()[-1])
    assert (answer["result"], answer["waited"] > 0) == ("unchanged", True)
    assert project.journal() == [("applied", ["posts.0001_initial", "posts.0002_wait"])]


def test_waits_only_so_long(postgres: Project) -> None:
    """Then it says who holds the lock, and what to do."""
    postgres.write("0002_wait", "migrations.RunPython(wait)", after="0001_initial")
    first = postgres.start("migrate", **postgres.parameters())
    told(postgres)
    status, output, answer = postgres.migrate(lock_timeout=1)
    assert (status, answer["result"]) == (1, "failed")
    lines = output.splitlines()
    assert lines[1].startswith("another migration of this database is under way, and did not end in 1 seconds: ")
    assert "ada@laptop" in lines[1]
    assert lines[2:4] == [
        "the database is as it was",
        "cure: deploy again when it has ended; or set fabdjango.django.lock_timeout above its time",
    ]
    go_on(postgres)
    assert first.wait(30) == 0


def test_killed_half_way(project: Project) -> None:
    """After kill -9 the lock is free, the next one applies the rest, and the journal has what the dead one did."""
    project.write("0002_wait", "migrations.RunPython(wait)", NUMBER, after="0001_initial")
    first = project.start("migrate", **project.parameters())
    told(project)
    first.kill()
    first.wait(30)
    project.write("0002_wait", NUMBER, after="0001_initial")
    status, output, answer = project.migrate()
    assert (status, answer["migrations"]) == (0, ["posts.0002_wait"]), output
    assert answer["notes"] == ["an earlier process was killed after it had applied posts.0001_initial"]
    assert project.journal() == [("applied", ["posts.0001_initial"]), ("applied", ["posts.0002_wait"])]


def test_stopped_half_way(postgres: Project) -> None:
    """A signal to end is a failure that is written down."""
    postgres.write("0002_wait", "migrations.RunPython(wait)", after="0001_initial")
    first = postgres.start("migrate", **postgres.parameters())
    told(postgres)
    first.terminate()
    output, _ = first.communicate(timeout=30)
    assert (first.returncode, json.loads(output.splitlines()[-1])["failed"]) == (1, "posts.0002_wait")
    assert postgres.journal() == [("failed", ["posts.0001_initial"])]


def test_table_that_is_locked(postgres: Project) -> None:
    """A migration gives up after lock_timeout, so that traffic does not queue behind it; who holds the table is named."""
    assert postgres.migrate()[0] == 0
    postgres.write("0002_number", NUMBER, after="0001_initial")
    reader = postgres.hold("BEGIN", "SELECT * FROM posts_post")
    status, output, answer = postgres.migrate(lock_timeout=1)
    reader.close()
    assert (status, answer["failed"]) == (1, "posts.0002_number")
    lines = [line for line in output.splitlines() if line.startswith(("waited", "it is held by"))]
    assert lines[0].startswith("waited 1 seconds for a lock of the table posts_post, in vain: ALTER TABLE")
    assert lines[1].endswith("idle in transaction: SELECT * FROM posts_post")


def test_database_that_is_locked(lite: Project) -> None:
    """SQLite's one lock, likewise."""
    assert lite.migrate()[0] == 0
    lite.write("0002_number", NUMBER, after="0001_initial")
    writer = lite.hold("BEGIN IMMEDIATE")
    status, output, answer = lite.migrate(lock_timeout=1)
    writer.close()
    assert (status, answer["failed"]) == (1, "posts.0002_number")
    assert "waited 1 seconds for a lock of the database, in vain" in output


def test_journal_that_cannot_be_written(lite: Project) -> None:
    """Nothing is begun that could not be written down."""
    (lite.path / "journal.jsonl").mkdir()
    status, output, _ = lite.migrate()
    assert status == 1
    assert output.startswith("the journal cannot be written: ")
    assert lite.applied() == []


def test_torn_journal(lite: Project) -> None:
    """Half a line that a power cut left stays alone."""
    (lite.path / "journal.jsonl").write_text('{"time": "20')
    assert lite.migrate()[0] == 0
    torn, whole = (lite.path / "journal.jsonl").read_text().splitlines()
    assert torn == '{"time": "20'
    assert json.loads(whole)["migrations"] == ["posts.0001_initial"]


def test_key(postgres: Project) -> None:
    """The lock belongs to a project and a database: another project does not wait for it."""
    postgres.write("0002_wait", "migrations.RunPython(wait)", after="0001_initial")
    first = postgres.start("migrate", **postgres.parameters())
    told(postgres)
    status, output, _ = postgres.migrate(
        project="shop", mark=str(postgres.path / "shop.json"), lock_timeout=1, expected=[]
    )
    assert (status, output.splitlines()[0]) == (
        1,
        "the plan has changed since it was shown: it would also apply posts.0002_wait",
    )
    go_on(postgres)
    assert first.wait(30) == 0


def test_migration_that_cannot_be_read(lite: Project) -> None:
    """The project's own line stands there, and nobody is sent to look at the database for it."""
    lite.write("0002_odd", "it's wrong")
    status, output, answer = lite.migrate()
    assert (status, answer["result"], answer["migrations"]) == (1, "failed", [])
    assert "the migrations cannot be read: SyntaxError: " in output
    assert "cure: mend them: " in output


def test_database_that_is_away(postgres: Project) -> None:
    """Nothing is done, and both the plan and the migration say where to look."""
    away = {"default": {**postgres.databases["default"], "HOST": str(postgres.path)}}
    project = Project(postgres.path, away)
    status, output, answer = project.migrate()
    assert (status, answer["result"]) == (1, "failed")
    assert "the database cannot be asked for its migrations: OperationalError: " in output
    assert "cure: is it up, and are its address and password in the settings right?" in output
    assert not (project.path / "journal.jsonl").exists()


def test_index_built_while_others_write(postgres: Project) -> None:
    """CREATE INDEX CONCURRENTLY waits for every transaction that looks at an older state: our lock is none of them."""
    options = {"options": "-c default_transaction_isolation=repeatable\\ read"}
    project = Project(postgres.path, {"default": {**postgres.databases["default"], "OPTIONS": options}})
    index = 'AddIndexConcurrently("Post", models.Index(fields=["title"], name="it_s"))'
    project.write("0002_index", index, after="0001_initial")
    place = project.path / "posts/migrations/0002_index.py"
    imported = "from django.contrib.postgres.operations import AddIndexConcurrently\n"
    place.write_text(imported + place.read_text().replace("    replaces", "    atomic = False\n    replaces"))
    assert project.migrate(expected=["posts.0001_initial", "posts.0002_index"])[0] == 0


def test_migration_that_is_not_atomic(lite: Project) -> None:
    """Nobody is told that it is undone."""
    lite.write("0002_bad", 'migrations.RunSQL("it is wrong")', after="0001_initial")
    place = lite.path / "posts/migrations/0002_bad.py"
    place.write_text(place.read_text().replace("    replaces", "    atomic = False\n    replaces"))
    assert "posts.0002_bad may be applied in part: its atomic is False" in lite.migrate()[1].splitlines()
