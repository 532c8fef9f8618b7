"""The project that every tool deploys, and its commits."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import scenarios, tools
from benchmarks.chore import order
from benchmarks.project import SMALL, Chain, Commit, Size, files, requirements
from benchmarks.wheels import REQUIRED, made_wheel
from tests.hosts.workplace import Repository

LITTLE = Size(static=4, migrations=45, modules=3, made=2)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A small project of everything."""
    folder = tmp_path_factory.mktemp("it's a project")
    return Chain(Repository("shop", folder / "shop.git", "unused"), LITTLE)


def test_the_files_that_are_made() -> None:
    """As many as asked for, in their folders, and the same each time."""
    made = files(LITTLE)
    assert Counter(path.rpartition("/")[0] for path, _ in made) == {
        "catalogue/static/catalogue": 4,
        "library/part_000": 3,
        "ledger": 2,
        "ledger/migrations": 46,
    }
    assert made == files(LITTLE)
    assert len(files(SMALL)) == SMALL.static


def test_migrations_make_the_models(chain: Chain) -> None:
    """Otherwise a deploy would be told of changes that have no migration."""
    chain.next_commit()
    program = (
        "import django; from django.conf import settings; from django.core.management import call_command\n"
        "settings.configure(INSTALLED_APPS=['ledger'], DEFAULT_AUTO_FIELD='django.db.models.BigAutoField',"
        " DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}})\n"
        "django.setup(); call_command('makemigrations', check=True, dry_run=True)"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=chain.repository.tree, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("No changes detected\n", 0), done.stderr


def test_a_commit_changes_what_its_kind_says(chain: Chain) -> None:
    """Nothing else: a tool that looks at what has changed is to find only that."""
    first, code, other = chain.next_commit(), chain.next_commit("code"), chain.next_commit("requirements")
    assert chain.head == other
    number, version = (int(word.removeprefix("commit-")) for word in first.marker.split())
    assert [code.marker, other.marker] == [f"commit-{number + 1:04} {version}", f"commit-{number + 2:04} {version + 1}"]
    assert changed(chain, first, code) == ["shop/marker.py"]
    assert changed(chain, code, other) == ["requirements.txt", "shop/marker.py"]


def changed(chain: Chain, old: Commit, new: Commit) -> list[str]:
    """The paths that two commits have otherwise, in the repository that hosts fetch from."""
    words = ["git", "--git-dir", str(chain.repository.bare), "diff", "--name-only", old.sha, new.sha]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def test_an_unknown_kind_of_commit(chain: Chain) -> None:
    """Refused before anything is written."""
    with pytest.raises(ValueError, match=r"^'growth' is none of code, requirements$"):
        chain.next_commit("growth")


def test_the_requirements() -> None:
    """The real packages, one that changes, and as many made ones as the project has."""
    assert requirements(7, LITTLE).splitlines() == [*REQUIRED, "shopdep==7", "made000==1", "made001==1"]


def test_a_made_wheel_can_be_installed(tmp_path: Path) -> None:
    """By an installer that compares every file with the record; and the same bytes each time."""
    content = made_wheel("shopdep", "3", {"shopdep.py": "VERSION = 3\n"})
    assert content == made_wheel("shopdep", "3", {"shopdep.py": "VERSION = 3\n"})
    assert zipfile.ZipFile(io.BytesIO(content)).namelist()[0] == "shopdep.py"
    wheel = tmp_path / "shopdep-3-py3-none-any.whl"
    wheel.write_bytes(content)
    words = ("install", "--quiet", "--no-index", "--no-deps", "--target", tmp_path / "target")
    subprocess.run([sys.executable, "-m", "pip", *words, wheel], check=True)
    assert (tmp_path / "target" / "shopdep.py").read_text() == "VERSION = 3\n"


def test_names_of_tools_and_scenarios() -> None:
    """Groups stand for several, each once, in an order that does not hang on that of the words."""
    assert tools.chosen("skipping,fabdjango,limit") == ("fabdjango", "plain", "skipping")
    assert [each.name for each in scenarios.chosen("rollback,code-only")] == ["code-only", "rollback"]
    assert {each.size for each in scenarios.chosen("growth")} != {SMALL}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fabdjango,mina", "same", "1", "0"), "no tool is called 'mina'; there are fabdjango, plain, "),
        ((",", "same", "1", "0"), "no tool is called ','; there are "),
        (("plain", "some", "1", "0"), "no scenario is called 'some'; there are first, code-only, "),
        (("plain", "same", "none", "0"), "how many rounds? 'none' is no number"),
        (("plain", "same", "0", "0"), "how many rounds? '0' is no number"),
        (("plain", "same", "1", "0,fast"), "'0,fast' should be milliseconds, such as 0,50"),
    ],
)
def test_words_that_are_no_order(words: tuple[str, str, str, str], message: str) -> None:
    """Said before a host is booted, with what may be said instead."""
    with pytest.raises(ValueError, match=r".") as raised:
        order(*words)
    assert str(raised.value).startswith(message)
