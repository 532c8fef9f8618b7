"""The plan of a deploy: what each migration does, and what the release that serves cannot live with."""

from __future__ import annotations

import json

from tests.onhost.conftest import Project

MODEL = """migrations.CreateModel("{model}", [
    ("id", models.BigAutoField(primary_key=True)),
    ("title", models.CharField(max_length=100)),
    ("text", models.TextField(null=True)),
    ("number", models.IntegerField(default=0)),
    ("parent", models.ForeignKey("self", models.CASCADE, null=True)),
    ("price", models.DecimalField(max_digits=6, decimal_places=2, db_default=0)),
    ("friends", models.ManyToManyField("self")),
    ("kept", models.CharField(max_length=10, db_column="kept")),
])"""

# The operations of one migration on a model Post that was there before, and what is said about it.
CASES: list[tuple[str, list[str]]] = [
    ('migrations.RemoveField("Post", "title")', ["posts.Post.title is removed; the release that serves still asks for title"]),
    ('migrations.RemoveField("Post", "friends")', ["posts.Post.friends is removed; the release that serves still asks for friends"]),
    ('migrations.DeleteModel("Post")', ["posts.Post is deleted; the release that serves still asks for its table posts_post"]),
    (
        'migrations.RenameField("Post", "title", "headline")',
        ["posts.Post.title is renamed to headline; the release that serves still asks for title"],
    ),
    ('migrations.RenameField("Post", "kept", "held")', []),
    (
        'migrations.RenameModel("Post", "NewPost")',
        ["posts.Post is renamed to NewPost, and its table with it; the release that serves still asks for the table posts_post"],
    ),
    (
        'migrations.AlterModelTable("Post", "articles_post")',
        ["the table of posts.Post is renamed to articles_post; the release that serves still asks for the table posts_post"],
    ),
    ('migrations.AlterModelTable("Post", "posts_post")', []),
    (
        'migrations.AddField("Post", "a", models.IntegerField(default=1))',
        ["posts.Post.a is added, not null and without a default in the database; new rows that the release that serves writes would be refused"],
    ),
    (
        'migrations.AddField("Post", "a", models.ForeignKey("Post", models.CASCADE, default=1, related_name="+"))',
        ["posts.Post.a is added, not null and without a default in the database; new rows that the release that serves writes would be refused"],
    ),
    ('migrations.AddField("Post", "a", models.IntegerField(db_default=1))', []),
    ('migrations.AddField("Post", "a", models.IntegerField(null=True))', []),
    ('migrations.AddField("Post", "a", models.ManyToManyField("Post", related_name="+"))', []),
    # The three steps to a new column: the last one is what hurts.
    (
        'migrations.AddField("Post", "a", models.IntegerField(null=True)), migrations.RunPython(wait), migrations.AlterField("Post", "a", models.IntegerField())',
        ["posts.Post.a is made not null, without a default in the database; new rows that the release that serves writes would be refused"],
    ),
    ('migrations.AddField("Post", "a", models.IntegerField(null=True)), migrations.RemoveField("Post", "a")', []),
    ('migrations.AlterField("Post", "title", models.CharField(max_length=200, help_text="x"))', []),
    ('migrations.AlterField("Post", "title", models.TextField())', []),
    (
        'migrations.AlterField("Post", "title", models.CharField(max_length=50))',
        ["posts.Post.title is narrowed from varchar(100) to varchar(50); the release that serves may still write values that do not fit"],
    ),
    (
        'migrations.AlterField("Post", "text", models.TextField(default="x"))',
        ["posts.Post.text is made not null; the release that serves may still write null"],
    ),
    ('migrations.AlterField("Post", "title", models.CharField(max_length=100, null=True))', []),
    (
        'migrations.AlterField("Post", "title", models.CharField(max_length=100, db_column="t"))',
        ["the column of posts.Post.title is renamed to t; the release that serves still asks for title"],
    ),
    (
        'migrations.AlterField("Post", "number", models.CharField(max_length=10))',
        ["the type of posts.Post.number changes from integer to varchar(10); the release that serves still reads and writes integer"],
    ),
    ('migrations.AlterField("Post", "number", models.BigIntegerField())', []),
    (
        'migrations.AlterField("Post", "price", models.DecimalField(max_digits=6, decimal_places=2))',
        ["posts.Post.price loses its default in the database; new rows that the release that serves writes would be refused"],
    ),
    (
        'migrations.AlterField("Post", "parent", models.BigIntegerField(null=True))',
        ["the column of posts.Post.parent is renamed to parent; the release that serves still asks for parent_id"],
    ),
    (
        'migrations.AlterField("Post", "title", models.CharField(max_length=100, unique=True))',
        ["posts.Post.title is made unique; the release that serves may write values that it refuses"],
    ),
    (
        'migrations.AlterUniqueTogether("Post", {("title", "number")})',
        ["posts.Post must be unique by title, number; the release that serves may write rows that it refuses"],
    ),
    (
        'migrations.AddConstraint("Post", models.UniqueConstraint(fields=["title"], name="one_Post"))',
        ["posts.Post gets the constraint one_Post; the release that serves may write rows that it refuses"],
    ),
    ('migrations.AddIndex("Post", models.Index(fields=["title"], name="index_Post"))', []),
    ('migrations.AlterModelOptions("Post", {"ordering": ["title"]})', []),
    ('migrations.RunSQL("SELECT 1;\\n", "")', ["it runs SQL, which cannot be judged: Raw SQL operation -> SELECT 1;"]),
    ('migrations.RunSQL("")', []),
    ("migrations.RunPython(wait)", []),
    (
        'migrations.SeparateDatabaseAndState([migrations.RemoveField("Post", "title")], [])',
        ["posts.Post.title is removed; the release that serves still asks for title"],
    ),
    ('migrations.SeparateDatabaseAndState([], [migrations.RemoveField("Post", "title")])', []),
    ('migrations.CreateModel("NewPost", [("id", models.AutoField(primary_key=True))]), migrations.DeleteModel("NewPost")', []),
    (
        'migrations.AlterOrderWithRespectTo("Post", "parent")',
        ["posts.Post gets a column _order, not null; new rows that the release that serves writes would be refused"],
    ),
]  # fmt: skip


def test_first_deploy(lite: Project) -> None:
    """Everything is new, so that nobody asks for anything else yet; every migration on disk is known."""
    lite.write("0002_subtitle", 'migrations.AddField("Post", "subtitle", models.IntegerField())', after="0001_initial")
    found = lite.plan()
    assert found["known"] == ["posts.0001_initial", "posts.0002_subtitle"]
    assert [(each["name"], each["operations"], each["unsafe"]) for each in found["migrations"]] == [
        ("0001_initial", ["Create model Post"], []),
        ("0002_subtitle", ["Add field subtitle to Post"], []),
    ]


def test_what_the_release_that_serves_cannot_live_with(project: Project) -> None:
    """A table of operations, each on a model of its own, and the sentences about them."""
    project.write("0001_initial", *(MODEL.format(model=f"Post{n:02}") for n in range(len(CASES))))
    assert project.migrate()[0] == 0
    for number, (operations, _) in enumerate(CASES):
        project.write(
            f"0002_{number:02}",
            operations.replace("Post", f"Post{number:02}").replace("posts_post", f"posts_post{number:02}"),
            after="0001_initial",
        )
    project.write("0003_merge")
    text = (project.path / "posts/migrations/0003_merge.py").read_text()
    leaves = [("posts", f"0002_{number:02}") for number in range(len(CASES))]
    (project.path / "posts/migrations/0003_merge.py").write_text(
        text.replace("dependencies = []", f"dependencies = {leaves}")
    )
    found = {each["name"]: each["unsafe"] for each in project.plan()["migrations"]}
    said = {
        operations: [
            sentence.removeprefix(f"posts.0002_{number:02}: ")
            .replace(f"Post{number:02}", "Post")
            .replace(f"post{number:02}", "post")
            for sentence in found[f"0002_{number:02}"]
        ]
        for number, (operations, _) in enumerate(CASES)
    }
    assert said == dict(CASES)
    assert all(sentence.startswith(f"posts.{name}: ") for name, sentences in found.items() for sentence in sentences)


def test_squashed(lite: Project) -> None:
    """A squash of applied migrations is nothing to do; it is known beside those that it replaces."""
    lite.write(
        "0002_number", 'migrations.AddField("Post", "number", models.IntegerField(null=True))', after="0001_initial"
    )
    assert lite.migrate()[0] == 0
    lite.write("0001_squashed_0002_number", "", replaces=("0001_initial", "0002_number"))
    lite.write("0003_gone", 'migrations.RemoveField("Post", "text")', after="0001_squashed_0002_number")
    text = (lite.path / "posts/migrations/0001_initial.py").read_text()
    operations = text[text.index("operations = [") :].replace("operations = [", "operations = [").rstrip()
    squash = lite.path / "posts/migrations/0001_squashed_0002_number.py"
    squash.write_text(
        squash.read_text().replace(
            "operations = []",
            operations[:-1] + ', migrations.AddField("Post", "number", models.IntegerField(null=True))]',
        )
    )
    found = lite.plan()
    assert found["known"] == [
        "posts.0001_initial",
        "posts.0001_squashed_0002_number",
        "posts.0002_number",
        "posts.0003_gone",
    ]
    assert [each["name"] for each in found["migrations"]] == ["0003_gone"]
    assert found["migrations"][0]["unsafe"] == [
        "posts.0003_gone: posts.Post.text is removed; the release that serves still asks for text"
    ]


def test_no_database(lite: Project) -> None:
    """A project without a database has no migrations, and migrating it does nothing."""
    project = Project(lite.path, {})
    found = project.plan()
    assert (found["migrations"], found["known"]) == ([], [])
    status, _, answer = project.migrate()
    assert (status, answer["result"], answer["notes"]) == (
        0,
        "unchanged",
        ["no migrations: the project has no database"],
    )
    assert project.reversal("posts.0001_initial") == []


def test_more_databases(lite: Project) -> None:
    """Only the default one is migrated; the others are only asked whether their migrations conflict."""
    other = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(lite.path / "other.sqlite3")}
    project = Project(lite.path, {**lite.databases, "other": other})
    assert [each["name"] for each in project.plan()["migrations"]] == ["0001_initial"]
    assert project.migrate()[0] == 0
    assert project.plan()["migrations"] == []
    assert json.loads((project.path / "django.json").read_text())["known"] == ["posts.0001_initial"]


def test_migration_that_cannot_be_judged(lite: Project) -> None:
    """Then that is said, and stops nothing here: to apply it will tell more."""
    lite.write("0002_odd", 'migrations.AlterField("Nobody", "number", models.IntegerField())', after="0001_initial")
    found = {each["name"]: each["unsafe"] for each in lite.plan()["migrations"]}
    assert found["0001_initial"] == []
    assert found["0002_odd"][0].startswith("posts.0002_odd: it cannot be judged: KeyError: ")
