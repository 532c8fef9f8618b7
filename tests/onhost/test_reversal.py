"""Going back to an older release: what would be lost is counted before, and reversed in fact afterwards."""

from __future__ import annotations

import json

from tests.onhost.conftest import INITIAL, Project
from tests.onhost.test_migrate import go_on, told

NUMBER = 'migrations.AddField("Post", "number", models.IntegerField(null=True))'
TAG = 'migrations.CreateModel("Tag", [("id", models.BigAutoField(primary_key=True)), ("a", models.IntegerField(null=True))])'
COUNT = 'migrations.AddField("Post", "count", models.IntegerField(default=0))'
WORDS = "INSERT INTO posts_post (title, text, count) VALUES ('{}', 'words', 1)"
ROWS = tuple(WORDS.format(title) for title in ("a", "b", "it''s"))

CASES: list[tuple[str, list[str], str]] = [
    # operations after 0001; statements after that; why it must not be reversed
    (NUMBER, [], ""),
    (NUMBER, ["UPDATE posts_post SET number = 7 WHERE title <> 'a'"], "2 rows of posts_post have a number that would be lost"),
    ('migrations.AddField("Post", "n", models.IntegerField(default=5))', [], ""),
    (
        'migrations.AddField("Post", "n", models.IntegerField(default=5))',
        ["UPDATE posts_post SET n = 6 WHERE title = 'a'"],
        "1 row of posts_post has a n that would be lost",
    ),
    ('migrations.AddField("Post", "n", models.CharField(max_length=9, blank=True))', [], ""),
    ('migrations.AddField("Post", "n", models.JSONField(default=dict))', [], ""),
    ('migrations.AddField("Post", "n", models.IntegerField(db_default=5))', [], ""),
    ('migrations.AddField("Post", "friends", models.ManyToManyField("self"))', [], ""),
    (
        'migrations.AddField("Post", "friends", models.ManyToManyField("self"))',
        ["INSERT INTO posts_post_friends (from_post_id, to_post_id) VALUES (1, 2)"],
        "1 row of posts_post_friends would be lost",
    ),
    (TAG, [], ""),
    (
        TAG,
        ["INSERT INTO posts_tag (a) VALUES (1)"],
        "1 row of posts_tag would be lost",
    ),
    # Known under another name today.
    (
        TAG + ', migrations.RenameModel("Tag", "Label"), migrations.RenameField("Label", "a", "b")',
        ["INSERT INTO posts_label (b) VALUES (1)"],
        "1 row of posts_label would be lost",
    ),
    (f'{NUMBER}, migrations.RemoveField("Post", "number")', [], ""),
    ('migrations.RemoveField("Post", "text")', [], "the text of 3 rows of posts_post was removed by it and cannot come back"),
    ('migrations.RemoveField("Post", "text")', ["DELETE FROM posts_post"], ""),
    ('migrations.DeleteModel("Post")', [], "the rows of posts_post were dropped by it and cannot come back"),
    ('migrations.RenameField("Post", "title", "headline")', [], ""),
    ('migrations.RenameModel("Post", "Article")', [], ""),
    ('migrations.AlterField("Post", "title", models.CharField(max_length=200))', [], ""),
    (
        'migrations.AlterField("Post", "title", models.TextField())',
        ["UPDATE posts_post SET title = '" + 101 * "x" + "' WHERE title = 'a'"],
        "1 row of posts_post has a title longer than the 100 characters that would fit",
    ),
    ('migrations.AlterField("Post", "title", models.CharField(max_length=100, null=True))', [], ""),
    (
        'migrations.AlterField("Post", "title", models.CharField(max_length=100, null=True))',
        ["UPDATE posts_post SET title = NULL WHERE title <> 'a'"],
        "2 rows of posts_post have no title, which would be needed again",
    ),
    (
        'migrations.AlterField("Post", "count", models.TextField())',
        [],
        "3 rows of posts_post have a count of the type text, and nobody can say whether they fit into integer again",
    ),
    ('migrations.AlterField("Post", "count", models.TextField())', ["DELETE FROM posts_post"], ""),
    ('migrations.AlterField("Post", "count", models.BigIntegerField())', [], ""),
    (
        'migrations.AlterField("Post", "count", models.BigIntegerField())',
        ["UPDATE posts_post SET count = 5000000000 WHERE title = 'a'"],
        "1 row of posts_post has a count that would not fit",
    ),
    (
        'migrations.AlterUniqueTogether("Post", {("title", "count")}), migrations.AlterUniqueTogether("Post", set())',
        ["UPDATE posts_post SET title = 'a'"],
        "1 value of title, count is in posts_post more than once, and would have to be unique again",
    ),
    ("migrations.RunPython(migrations.RunPython.noop)", [], "Raw Python operation: it cannot be reversed"),
    ("migrations.RunPython(migrations.RunPython.noop, migrations.RunPython.noop)", [], ""),
    ('migrations.RunSQL("SELECT 1;", "")', [], ""),
    ('migrations.RunSQL("SELECT 1;")', [], "Raw SQL operation -> SELECT 1;: it cannot be reversed"),
    (
        f"migrations.SeparateDatabaseAndState([{NUMBER}], [{NUMBER}])",
        ["UPDATE posts_post SET number = 7"],
        "3 rows of posts_post have a number that would be lost",
    ),
]  # fmt: skip


def numbered(text: str, number: int) -> str:
    """The same with models and tables of the case's own."""
    for old in ("Post", "posts_post", "_post_id", "Tag", "posts_tag", "Label", "posts_label"):
        new = old.replace("_id", f"{number:02}_id") if old.endswith("_id") else f"{old}{number:02}"
        text = text.replace(old, new)
    return text


def merge(project: Project, name: str, leaves: list[str]) -> None:
    """A migration after all of these."""
    project.write(name)
    place = project.path / "posts/migrations" / f"{name}.py"
    leaves_text = repr([("posts", leaf) for leaf in leaves])
    place.write_text(place.read_text().replace("dependencies = []", f"dependencies = {leaves_text}"))


def test_what_would_be_lost(project: Project) -> None:
    """A table of migrations and of data that came since; those that lose nothing are then reversed in fact."""
    numbers = range(len(CASES))
    project.write("0001_initial", *(numbered(f"{INITIAL}, {COUNT}", number) for number in numbers))
    leaves = [f"0002_{number:02}" for number in numbers]
    assert project.migrate()[0] == 0
    rows = [numbered(row, number) for number in numbers for row in ROWS]
    project.sql(*rows)
    for name, (operations, _, _) in zip(leaves, CASES, strict=True):
        project.write(name, numbered(operations, int(name[-2:])), after="0001_initial")
    merge(project, "0003_merge", leaves)
    status, output, _ = project.migrate()
    assert status == 0, output
    statements = [numbered(each, number) for number in numbers for each in CASES[number][1]]
    project.sql(*statements)
    found = project.reversal("posts.0001_initial")
    assert found[0]["name"] == "0003_merge"
    reasons = {each["name"]: each["reason"] for each in found if each["name"] != "0003_merge"}
    # Every integer of SQLite has 64 bits.
    roomy = "would not fit" if "sqlite" in project.databases["default"]["ENGINE"] else "nothing"
    expected = {
        name: f"posts.{name}: {numbered(reason, int(name[-2:]))}" if reason and roomy not in reason else ""
        for name, (_, _, reason) in zip(leaves, CASES, strict=True)
    }
    assert reasons == expected
    assert all(each["reversible"] == (not each["reason"]) for each in found)

    kept = ["posts.0001_initial", *(f"posts.{name}" for name, reason in reasons.items() if reason)]
    status, output, answer = project.migrate(action="reverse", target_known=kept)
    assert status == 0, output
    assert set(answer["migrations"]) == {"posts.0003_merge", *(f"posts.{name}" for name in leaves if not reasons[name])}
    assert project.journal()[-1] == ("reversed", answer["migrations"])
    assert set(project.applied()) == {name.removeprefix("posts.") for name in kept}


def test_what_the_older_release_could_not_live_with(lite: Project) -> None:
    """The same words as in a deploy, about the release that would come back."""
    lite.write("0002_n", 'migrations.AddField("Post", "n", models.IntegerField(default=1))', after="0001_initial")
    lite.write("0003_o", 'migrations.AddField("Post", "o", models.IntegerField(null=True))', after="0002_n")
    lite.migrate()
    assert [(each["name"], each["unsafe"]) for each in lite.reversal("posts.0001_initial")] == [
        ("0003_o", []),
        (
            "0002_n",
            [
                "posts.0002_n: posts.Post.n is added, not null and without a default in the database; new rows that the older release writes would be refused"
            ],
        ),
    ]


def test_data_that_came_since(lite: Project) -> None:
    """It is looked at once more under the lock; then nothing is reversed."""
    lite.write("0002_number", NUMBER, after="0001_initial")
    lite.migrate()
    lite.sql("INSERT INTO posts_post (title, number) VALUES ('it''s', 7)")
    status, output, answer = lite.migrate(
        action="reverse", target_known=["posts.0001_initial"], expected=["posts.0002_number"]
    )
    assert (status, answer["result"], answer["migrations"]) == (1, "failed", [])
    assert output.splitlines()[:3] == [
        "these migrations must not be reversed:",
        "posts.0002_number: 1 row of posts_post has a number that would be lost",
        "the database is as it was",
    ]
    assert lite.applied() == ["0001_initial", "0002_number"]


def test_more_than_was_shown(lite: Project) -> None:
    """Nothing is reversed that nobody was told of, and nothing for a release that does not say what it has."""
    lite.write("0002_number", NUMBER, after="0001_initial")
    lite.migrate()
    status, output, _ = lite.migrate(action="reverse", target_known=["posts.0001_initial"], expected=[])
    assert (status, output.splitlines()[0]) == (
        1,
        "the plan has changed since it was shown: it would also reverse posts.0002_number",
    )
    status, output, _ = lite.migrate(action="reverse", target_known=[])
    assert (status, output.splitlines()[0]) == (1, "the older release does not say which migrations it has")
    assert lite.applied() == ["0001_initial", "0002_number"]


def test_reversal_that_fails_half_way(postgres: Project) -> None:
    """The journal has what was reversed in fact."""
    wrong = 'migrations.RunSQL("SELECT 1;", "it\'s wrong")'
    postgres.write("0002_bad", wrong, after="0001_initial")
    postgres.write("0003_number", NUMBER, after="0002_bad")
    postgres.migrate()
    status, output, answer = postgres.migrate(action="reverse", target_known=["posts.0001_initial"])
    assert status == 1, output
    assert (answer["result"], answer["migrations"], answer["failed"]) == (
        "failed",
        ["posts.0003_number"],
        "posts.0002_bad",
    )
    assert postgres.journal()[-1] == ("failed", ["posts.0003_number"])


def test_reversal_killed_half_way(lite: Project) -> None:
    """The next one reverses the rest, and the journal tells both."""
    lite.write("0002_wait", "migrations.RunPython(migrations.RunPython.noop, wait)", after="0001_initial")
    lite.write("0003_number", NUMBER, after="0002_wait")
    lite.migrate()
    words = {"action": "reverse", "target_known": ["posts.0001_initial"]}
    first = lite.start("migrate", **lite.parameters(**words))
    told(lite)
    first.kill()
    first.wait(30)
    second = lite.start("migrate", **lite.parameters(**words))
    told(lite)
    go_on(lite)
    output, _ = second.communicate(timeout=30)
    assert json.loads(output.splitlines()[-1])["migrations"] == ["posts.0002_wait"], output
    assert lite.journal()[-2:] == [("reversed", ["posts.0003_number"]), ("reversed", ["posts.0002_wait"])]


def test_squash(lite: Project) -> None:
    """A squash is no step back if the older release has what it replaces, and cannot be taken back in part."""
    lite.write("0002_number", NUMBER, after="0001_initial")
    lite.migrate()
    lite.write("0001_squashed", INITIAL, NUMBER, replaces=("0001_initial", "0002_number"))
    lite.migrate()
    assert lite.reversal("posts.0001_initial", "posts.0002_number") == []
    (found,) = lite.reversal("posts.0001_initial")
    assert found["reason"].startswith(
        "posts.0001_squashed: it is a squash of migrations that the older release has in part"
    )


def test_needed_by_what_stays(lite: Project) -> None:
    """A migration that one of the older release's depends on stays."""
    lite.write("0002_number", NUMBER, after="0001_initial")
    lite.write("0003_text", 'migrations.AlterModelOptions("Post", {})', after="0002_number")
    lite.migrate()
    (found,) = lite.reversal("posts.0001_initial", "posts.0003_text")
    assert found["reason"] == "posts.0002_number: posts.0003_text, which the older release has, needs it"


def test_gone(lite: Project) -> None:
    """A migration that the older release has and the newer one has no more may be part of any other: nothing goes back."""
    lite.migrate()
    lite.remove("0001_initial")
    lite.write("0001_all", INITIAL)
    lite.sql("INSERT INTO django_migrations (app, name, applied) VALUES ('posts', '0001_all', '2026-01-01')")
    (found,) = lite.reversal("posts.0001_initial")
    assert found["reason"] == (
        "posts.0001_all: the older release has posts.0001_initial, which the newer one has no more"
    )
