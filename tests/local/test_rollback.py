"""Back to what served before: by the journal, through the same questions as a deploy; and migrations, in both directions."""

from __future__ import annotations

from tests.local.sample import MIGRATION, make_project
from tests.local.stage import Stage

LABEL = MIGRATION.replace("initial = True\n    dependencies = []", 'dependencies = [("notes", "0001_initial")]')
LABEL = LABEL.replace('name="Note"', 'name="Label"')
REMOVAL = """\
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("notes", "0001_initial")]
    operations = [migrations.RemoveField("note", "text")]
"""


def edition(word: str) -> dict[str, str | None]:
    """A change that the site shows."""
    return {"notes/edition.py": f"EDITION = {word!r}\n"}


def test_rollback(stage: Stage) -> None:
    """
    The last other release that served is chosen, also when a newer one was tried and never answered.

    Then forward again. Migrations that came in between are named, and it takes
    a word to go back behind them: to reverse them, or to leave them.
    """
    stage.repository.commit(make_project())
    stage.configure(health={"timeout": 4}, django={"collectstatic": "never"})
    stage.deploy()
    first = stage.current
    assert "no other release has ever served here" in stage.fab("rollback", code=1).err
    stage.repository.commit(edition("2"))
    stage.deploy()
    second = stage.current
    broken = stage.repository.branch("broken", {"notes/views.py": "def front(request):\n    raise SystemError\n"})
    stage.fab("deploy", "--commit=broken", code=1)
    # The newest folder by age and by number is that of the release that never served.
    never_served = f"3-{broken[:12]}"
    assert (stage.root / "releases" / never_served).is_dir()
    assert stage.current == second

    back = stage.fab("rollback")
    assert (stage.current, stage.get().page["edition"]) == (first, "1")
    assert back.last == f"rolled back: {first} serves on 127.0.0.1"
    stage.fab("rollback")
    assert (stage.current, stage.get().page["edition"]) == (second, "2")
    unknown = stage.fab("rollback", "--to=99-0123456789ab", code=1)
    assert "there is no complete release 99-0123456789ab" in unknown.err

    models = stage.repository.edit(
        "notes/models.py",
        "class Note",
        "class Label(models.Model):\n    text = models.CharField(max_length=100)\n\n\nclass Note",
    )
    stage.repository.commit({"notes/models.py": models, "notes/migrations/0002_label.py": LABEL, **edition("4")})
    stage.deploy()
    fourth = stage.current
    refused = stage.fab("rollback", code=1)
    assert "notes.0002_label: can be reversed" in refused.err
    assert "fab … rollback --migrations" in refused.err
    assert "fab … rollback --code-only" in refused.err
    assert (stage.current, stage.get().page["edition"]) == (fourth, "4")
    stage.fab("rollback", "--migrations")
    assert (stage.current, stage.get().page["edition"]) == (second, "2")
    assert "[X] 0001_initial" in applied(stage, fourth)
    assert "[ ] 0002_label" in applied(stage, fourth)
    # What is reversed is applied again on the way forward.
    assert "migration notes.0002_label" in stage.deploy().out
    assert stage.get().page["edition"] == "4"
    stage.fab("rollback", f"--to={first}", "--code-only")
    assert (stage.current, stage.get().page["edition"]) == (first, "1")
    assert "[X] 0002_label" in applied(stage, fourth)

    events = [(entry["event"], entry["release"], entry["result"]) for entry in stage.journal]
    assert [event for event in events if event[0] == "rollback"] == [
        ("rollback", first, "serves"),
        ("rollback", second, "serves"),
        ("rollback", second, "serves"),
        ("rollback", first, "serves"),
    ]
    assert ("deploy", never_served, "failed") in events
    told = stage.fab("history", "--count=3").out.splitlines()[-3:]
    assert [line.replace(",", "").split()[1:4] for line in told] == [list(event) for event in events[-3:]]


def applied(stage: Stage, release: str) -> str:
    """The migrations that a release knows, and which of them the database has."""
    return stage.fab("django.manage", "showmigrations notes", "--release", release).out


def test_a_migration_that_the_old_code_cannot_live_with(stage: Stage) -> None:
    """It is refused with its name and what it breaks, before it is applied; with a word it goes through, and not back."""
    stage.repository.commit(make_project())
    stage.configure(django={"collectstatic": "never"})
    stage.deploy()
    first = stage.current
    stage.fab("django.manage", "loaddata first")
    models = stage.repository.edit("notes/models.py", "    text = models.CharField(max_length=100)\n", "    pass\n")
    stage.repository.commit({"notes/models.py": models, "notes/migrations/0002_removal.py": REMOVAL, **edition("2")})
    refused = stage.deploy(code=1)
    assert "notes.0002_removal: notes.Note.text is removed" in refused.err
    assert " state: no migration was applied, nothing that serves was touched (exit 1)" in refused.err
    assert "fab … deploy --allow-migrations" in refused.err
    assert "allow_migrations: [notes.0002_removal]" in refused.err
    assert (stage.current, stage.get().page["edition"]) == (first, "1")
    stage.deploy("--allow-migrations")
    assert (stage.get().page["edition"], stage.get().page["notes"]) == ("2", 2)
    refused = stage.fab("rollback", "--migrations", code=1)
    assert "notes.0002_removal" in refused.err
    assert "must not be reversed" in refused.err
    assert stage.get().page["edition"] == "2"
