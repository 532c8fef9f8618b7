"""Back to what served before: by the journal, through the same questions as a deploy."""

from __future__ import annotations

from tests.local.sample import MIGRATION, make_project
from tests.local.stage import Stage

NEXT_MIGRATION = MIGRATION.replace(
    "initial = True\n    dependencies = []", 'dependencies = [("notes", "0001_initial")]'
)
NEXT_MIGRATION = NEXT_MIGRATION.replace('name="Note"', 'name="Label"')


def test_rollback(stage: Stage) -> None:
    """
    The last other release that served is chosen, also when a newer one was tried and never answered.

    Then forward again, and to a release by its id. Migrations that came in
    between are named, and it takes a word to go back behind them.
    """
    stage.repository.commit(make_project())
    stage.deploy()
    first = stage.current
    assert "no other release has ever served here" in stage.fab("rollback", code=1).err
    stage.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
    stage.deploy()
    second = stage.current
    stage.repository.commit({"notes/views.py": "def front(request):\n    raise SystemError\n"})
    stage.configure(health={"timeout": 5})
    stage.fab("deploy", code=3)
    # The newest folder by age and by number is that of the release that never served.
    never_served = max((stage.root / "releases").iterdir(), key=lambda path: path.stat().st_mtime)
    assert stage.current == second != never_served.name

    back = stage.fab("rollback")

    assert (stage.current, stage.get().page["edition"]) == (first, "1")
    assert back.last == f"rolled back: {first} serves on 127.0.0.1"
    stage.fab("rollback")
    assert (stage.current, stage.get().page["edition"]) == (second, "2")

    models = stage.repository.edit(
        "notes/models.py",
        "class Note",
        "class Label(models.Model):\n    text = models.CharField(max_length=100)\n\n\nclass Note",
    )
    views = "from django.http import JsonResponse\n\n\ndef front(request):\n    return JsonResponse({'edition': '4'})\n"
    stage.repository.commit(
        {"notes/models.py": models, "notes/migrations/0002_label.py": NEXT_MIGRATION, "notes/views.py": views}
    )
    stage.deploy()
    fourth = stage.current
    refused = stage.fab("rollback", f"--to={first}", code=1)
    assert "notes.0002_label" in refused.err
    assert "--code-only" in refused.err
    assert (stage.current, stage.get().page["edition"]) == (fourth, "4")
    stage.fab("rollback", f"--to={first}", "--code-only")
    assert (stage.current, stage.get().page["edition"]) == (first, "1")
    unknown = stage.fab("rollback", "--to=99-0123456789ab", code=1)
    assert "there is no complete release 99-0123456789ab" in unknown.err

    events = [(entry["event"], entry["release"], entry["result"]) for entry in stage.journal]
    assert [event for event in events if event[0] == "rollback"] == [
        ("rollback", first, "serves"),
        ("rollback", second, "serves"),
        ("rollback", first, "serves"),
    ]
    assert ("deploy", never_served.name, "reverted") in events
    told = stage.fab("history", "--count=3").out.splitlines()[-3:]
    assert [line.replace(",", "").split()[1:4] for line in told] == [list(event) for event in events[-3:]]
