"""
The project that is deployed: the files of `shop`, about 400 static files, and a chain of commits made on demand.

Each commit has a marker of its own, which `/version` answers with the version of the dependency that it is to run with.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import wheels

if TYPE_CHECKING:
    from tests.hosts.workplace import Repository

__all__ = ["GROWN", "KINDS", "SMALL", "Chain", "Commit", "Size"]

SOURCES = Path(__file__).parent / "shop"
KINDS = ("code", "requirements")
LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.pyc", "static_root", "db.sqlite3*")


@dataclass(frozen=True)
class Size:
    """How much there is beside the sources of `shop`; Django's admin and REST framework have 154 static files of their own."""

    static: int
    migrations: int
    modules: int
    made: int


SMALL = Size(static=246, migrations=0, modules=0, made=0)
GROWN = Size(static=10_000, migrations=500, modules=10_000, made=wheels.MADE)


@dataclass(frozen=True)
class Commit:
    """A commit, and what `/version` says where it serves."""

    sha: str
    marker: str


class Chain:
    """The commits of one repository, each a step further than the last."""

    def __init__(self, repository: Repository, size: Size = SMALL) -> None:
        self.repository = repository
        self._size = size
        self._code = 0
        self._dependency = 1
        self._head: Commit | None = None
        shutil.copytree(SOURCES, repository.tree, dirs_exist_ok=True, ignore=LEFTOVERS)
        for path, text in files(size):
            repository.write(path, text)

    @property
    def head(self) -> Commit:
        """The newest commit."""
        return self._head or self.next_commit()

    def next_commit(self, kind: str = "code") -> Commit:
        """Commit a change of code, or of the requirements too."""
        if kind not in KINDS:
            message = f"{kind!r} is none of {', '.join(KINDS)}"
            raise ValueError(message)
        self._code += 1
        self._dependency += kind == "requirements"
        self.repository.write("shop/marker.py", f'MARKER = "commit-{self._code:04}"\n')
        self.repository.write("requirements.txt", requirements(self._dependency, self._size))
        sha = self.repository.commit(f"Change the {kind}, step {self._code}")
        self._head = Commit(sha, f"commit-{self._code:04} {self._dependency}")
        return self._head


def requirements(dependency: int, size: Size) -> str:
    """The lines of requirements.txt; all that they name is in the folder of wheels."""
    made = [f"made{number:03}==1" for number in range(size.made)]
    lines = [*wheels.REQUIRED, f"shopdep=={dependency}", *made]
    return "".join(f"{line}\n" for line in lines)


def files(size: Size) -> list[tuple[str, str]]:
    """Paths and texts of what is made by number: static files, migrations, modules; the same each time."""
    made = [(_static_path(number), _static_text(number)) for number in range(size.static)]
    made += [(f"library/part_{number // 100:03}/module_{number:05}.py", _MODULE) for number in range(size.modules)]
    if size.migrations:
        made += _ledger(size.migrations)
    return made


def _static_path(number: int) -> str:
    kind = ("css", "js", "svg")[number % 3]
    name = {"css": "style", "js": "script", "svg": "picture"}[kind]
    return f"catalogue/static/catalogue/{name}-{number:03}.{kind}"


def _static_text(number: int) -> str:
    """A text of 2 to 10 KB that can be compressed about as well as real ones."""
    chance = random.Random(number)  # noqa: S311 - the same files each time
    words = [f"{chance.choice(_WORDS)}{chance.randrange(1000)}" for _ in range(chance.randrange(250, 1250))]
    if number % 3 == 0:
        rules = "".join(f".{word} {{ margin: {len(word)}px }}\n" for word in words[::3])
        return f"{rules}body {{ background: url(picture-{number + 2:03}.svg) }}\n" if number % 30 == 0 else rules
    if number % 3 == 1:
        return "".join(f"var {word} = '{word}';\n" for word in words[::3])
    return f'<svg xmlns="http://www.w3.org/2000/svg"><desc>{" ".join(words)}</desc></svg>\n'


def _ledger(count: int) -> list[tuple[str, str]]:
    """An app with `count` migrations: models of twenty columns, each column with a migration of its own."""
    models, made = [], [("ledger/__init__.py", ""), ("ledger/migrations/__init__.py", "")]
    before = ""
    for number in range(count):
        model, column = f"Account{number // 20:02}", number % 20
        name = f"{number + 1:04}_step"
        if column == 0:
            models.append(f"\n\nclass {model}(models.Model):\n    name = models.CharField(max_length=100)\n")
            made.append((f"ledger/migrations/{name}.py", _CREATE.format(before=before, model=model)))
        else:
            models.append(f"    column{column} = {_FIELD}\n")
            made.append(
                (f"ledger/migrations/{name}.py", _ADD.format(before=before, model=model.lower(), column=column))
            )
        before = f'("ledger", "{name}")'
    return [*made, ("ledger/models.py", f"from django.db import models\n{''.join(models)}")]


_WORDS = ("banner", "button", "card", "column", "footer", "header", "image", "label", "menu", "price", "row", "title")
_MODULE = "".join(f"def function_{number}(value):\n    return value * {number}\n\n\n" for number in range(20))
_FIELD = "models.CharField(max_length=50, null=True)"
_CREATE = """\
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [{before}]
    operations = [
        migrations.CreateModel(
            "{model}",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False, auto_created=True, verbose_name="ID")),
                ("name", models.CharField(max_length=100)),
            ],
        )
    ]
"""
_ADD = f"""\
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [{{before}}]
    operations = [migrations.AddField("{{model}}", "column{{column}}", {_FIELD})]
"""
