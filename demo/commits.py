"""
The history of the sample project: what each of its commits looks like.

Only files are written here; making git commits of them is the caller's business. The same number always gives the same files.
"""

from __future__ import annotations

import shutil
from pathlib import Path

PROJECT = Path(__file__).parent / "project"

# Whatever running the sample project leaves behind. None of it is part of a commit.
LEFTOVERS = shutil.ignore_patterns(
    "__pycache__", "*.pyc", "data", "media", "static_root", "local_settings.py", "db.sqlite3*"
)

# Each of them readable under white text, and as text on white.
ACCENTS = ("#0f766e", "#1d4ed8", "#9d174d", "#6d28d9", "#9a3412", "#166534")

SUMMARY_MIGRATION = "posts/migrations/0002_post_summary.py"


def write_commit(number: int, target: Path) -> str:
    """
    Write the files of commit `number`, counted from 1, into the folder `target`; return its commit message.

    Commit 1 is the project as it lies here. Commit 2 adds a column, with its migration. Every commit after the first has a text
    and a colour of its own, so that a page tells which one served it. Files of other commits in `target` are replaced; a `.git`
    there is left alone.

    Raises ValueError if number is less than 1.
    """
    if number < 1:
        message = f"the first commit is number 1, so there is no number {number}"
        raise ValueError(message)
    shutil.copytree(PROJECT, target, ignore=LEFTOVERS, dirs_exist_ok=True)
    (target / SUMMARY_MIGRATION).unlink(missing_ok=True)
    if number == 1:
        return "Start a blog"
    _replace(target / "pages/version.py", '"First edition"', f'"Edition {number}"')
    _replace(target / "pages/static/pages/site.css", ACCENTS[0], ACCENTS[(number - 1) % len(ACCENTS)])
    _add_summary(target)
    return "Give posts a summary" if number == 2 else f"Publish edition {number}"


def _add_summary(target: Path) -> None:
    # The default is the database's own: while both releases serve, the older one goes on adding rows without this column.
    field = 'models.CharField(max_length=300, blank=True, default="", db_default="")'
    title = "    title = models.CharField(max_length=200)\n"
    _replace(target / "posts/models.py", title, f"{title}    summary = {field}\n")
    heading = "    <h1>{{ post.title }}</h1>\n"
    shown = "    {% if post.summary %}<p>{{ post.summary }}</p>{% endif %}\n"
    _replace(target / "posts/templates/posts/post_detail.html", heading, heading + shown)
    (target / SUMMARY_MIGRATION).write_text(
        f"""\
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("posts", "0001_initial")]
    operations = [
        migrations.AddField(
            model_name="post",
            name="summary",
            field={field},
        ),
    ]
""",
        encoding="utf-8",
    )


def _replace(path: Path, old: str, new: str) -> None:
    """Replace the one place where `old` stands; a project that has moved on is an error, not a commit without its change."""
    before = path.read_text(encoding="utf-8")
    if before.count(old) != 1:
        message = f"{path} should contain {old!r} once; bring demo/commits.py up to date with demo/project"
        raise ValueError(message)
    path.write_text(before.replace(old, new), encoding="utf-8")
