"""Static files are taken from the release before if, and only if, what they are made of is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from fabdjango import onhost
from tests.onhost.conftest import begin

SETTINGS = """\
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = 40 * "x"
ALLOWED_HOSTS = ["blog.example.com"]
INSTALLED_APPS = ["django.contrib.staticfiles", "posts"]
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "var" / "static"
STATICFILES_DIRS = [BASE_DIR / "assets"]
STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}}
"""
FILES = {
    "blog/__init__.py": "",
    "blog/settings.py": SETTINGS,
    "posts/__init__.py": "",
    "posts/static/posts/it's a site.css": "body { background: url('dot.png') }",
    "posts/static/posts/dot.png": "png",
    "assets/app.js": "1",
    ".gitattributes": "",
}
WITH_MANIFEST = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"


@dataclass
class Site:
    """A mirror and the releases beside it."""

    path: Path

    def git(self, *words: str | Path, tree: Path | None = None) -> str:
        """What git says."""
        where = ["--git-dir", str(self.path / "repo.git"), *(["--work-tree", str(tree)] if tree else [])]
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
        return subprocess.run(["git", *where, *who, *words], check=True, capture_output=True, text=True).stdout.strip()

    def release(self, number: int, files: dict[str, str]) -> tuple[Path, str]:
        """A commit of ``files`` and its release, in which each file has just been written."""
        release = self.path / "releases" / f"{number}-{12 * 'a'}"
        for name, text in files.items():
            place = release / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        self.git("add", "--all", tree=release)
        self.git("commit", "--quiet", "--allow-empty", "-m", str(number), tree=release)
        commit = self.git("rev-parse", "HEAD")
        (release / ".fabdjango").mkdir()
        (release / ".fabdjango" / "venv").write_text(f"{sys.prefix}\n")
        (release / ".fabdjango" / "release.json").write_text(json.dumps({"commit": commit}))
        return release, commit

    def collect(self, release: Path, commit: str, outgoing: Path | None) -> str:
        """Start Django there, and give its note."""
        (note,) = self.start(release, commit, outgoing)["notes"]
        return str(note)

    def start(self, release: Path, commit: str, outgoing: Path | None, **more: object) -> dict[str, Any]:
        """Start Django there, and give its answer."""
        process = self.begin(release, commit, outgoing, **more)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found

    def begin(self, release: Path, commit: str, outgoing: Path | None, **more: object) -> subprocess.Popen[str]:
        """Begin to start Django there."""
        parameters = {"check": "never", "plan": False, "app": "", "static": "", **more}
        return begin(
            "django_start",
            release,
            {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "blog.settings", "PYTHONDONTWRITEBYTECODE": "1"},
            deploy=False,
            collectstatic="auto",
            mirror=str(self.path / "repo.git"),
            commit=commit,
            outgoing=str(outgoing or ""),
            answer=str(release / ".fabdjango" / "django.json"),
            **parameters,
        )


def make_site(folder: Path) -> Site:
    """One without a release."""
    made = Site(folder / "it's here")
    made.path.mkdir()
    subprocess.run(["git", "init", "--quiet", "--bare", made.path / "repo.git"], check=True)
    return made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """One without a release."""
    return make_site(tmp_path)


def content(release: Path) -> dict[str, str]:
    """Every collected file."""
    root = release / "var" / "static"
    return {str(place.relative_to(root)): place.read_text() for place in root.rglob("*") if place.is_file()}


def test_the_same(site: Site) -> None:
    """Other code: the very files of the release before, also of the one before that; nothing is left over."""
    first = site.release(1, FILES)
    assert site.collect(*first, None) == "3 static files copied to STATIC_ROOT, 3 post-processed."
    made = content(first[0])

    second = site.release(2, {**FILES, "posts/models.py": "# more"})
    third = site.release(3, {**FILES, "posts/models.py": "# even more"})

    said = "7 static files as in {}-aaaaaaaaaaaa: what they are made of is the same"
    assert site.collect(*second, first[0]) == said.format(1)
    assert site.collect(*third, second[0]) == said.format(2)
    assert content(second[0]) == content(third[0]) == made
    linked = second[0] / "var" / "static" / "app.js"
    assert linked.stat().st_nlink == 3
    assert [place.name for place in (second[0] / "var").iterdir()] == ["static"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"assets/app.js": "2"}, id="content"),
        pytest.param({"assets/more.js": "1"}, id="another-file"),
        pytest.param({"assets/app.js": None, "assets/App.js": "1"}, id="name"),
        pytest.param({"blog/settings.py": SETTINGS.replace("static/", "s/")}, id="setting"),
        pytest.param({"blog/settings.py": SETTINGS + "DEBUG = True\n"}, id="debug"),
        pytest.param({".gitattributes": "*.css text eol=crlf"}, id="attributes"),
        pytest.param(
            {"blog/settings.py": SETTINGS + f"STATICFILES_DIRS.append(('it', {str(Path(sys.prefix) / 'bin')!r}))\n"},
            id="folder",
        ),
    ],
)
def test_not_the_same(site: Site, change: dict[str, str | None]) -> None:
    """One thing that they are made of is another: they are collected anew."""
    first = site.release(1, FILES)
    site.collect(*first, None)
    files = {name: text for name, text in {**FILES, **change}.items() if text is not None}

    second = site.release(2, files)

    assert "post-processed" in site.collect(*second, first[0])


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(
            {
                "posts/storage.py": f"from django.contrib.staticfiles.storage import {WITH_MANIFEST.rpartition('.')[2]}\n"
                f"class Own({WITH_MANIFEST.rpartition('.')[2]}): pass\n",
                "blog/settings.py": SETTINGS.replace(WITH_MANIFEST, "posts.storage.Own"),
            },
            id="storage",
        ),
        pytest.param(
            {
                "posts/finders.py": "from django.contrib.staticfiles.finders import FileSystemFinder\n"
                "class Own(FileSystemFinder): pass\n",
                "blog/settings.py": SETTINGS + "STATICFILES_FINDERS = ['posts.finders.Own']\n",
            },
            id="finder",
        ),
        pytest.param(
            {
                "posts/management/commands/collectstatic.py": "from django.contrib.staticfiles.management.commands import collectstatic\n"
                "class Command(collectstatic.Command): pass\n",
                "blog/settings.py": SETTINGS.replace(
                    '"django.contrib.staticfiles", "posts"', '"posts", "django.contrib.staticfiles"'
                ),
            },
            id="command",
        ),
        pytest.param({"blog/settings.py": SETTINGS + "STATICFILES_TEST = lambda: 1\n"}, id="function"),
    ],
)
def test_the_projects_own_way(site: Site, more: dict[str, str]) -> None:
    """What the project collects in a way of its own is collected each time."""
    first = site.release(1, {**FILES, **more})
    site.collect(*first, None)

    second = site.release(2, {**FILES, **more, "posts/models.py": "# more"})

    assert "copied to STATIC_ROOT" in site.collect(*second, first[0])


def test_files_that_were_touched(site: Site) -> None:
    """Neither what somebody has changed in the earlier release is taken over, nor what is gone there."""
    first = site.release(1, FILES)
    site.collect(*first, None)
    made = content(first[0])
    (first[0] / "var" / "static" / "app.js").write_text("by hand")

    second = site.release(2, {**FILES, "posts/models.py": "# more"})
    assert "post-processed" in site.collect(*second, first[0])
    (second[0] / "var" / "static" / "posts" / "dot.png").unlink()
    third = site.release(3, {**FILES, "posts/models.py": "# even more"})

    assert "post-processed" in site.collect(*third, second[0])
    assert content(third[0]) == made


def test_files_that_are_not_committed(site: Site) -> None:
    """A file that something has written into the release counts by its content."""
    first = site.release(1, FILES)
    (first[0] / "assets" / "built.js").write_text("1")
    site.collect(*first, None)

    second = site.release(2, {**FILES, "posts/models.py": "# more"})
    third = site.release(3, {**FILES, "posts/models.py": "# even more"})
    (second[0] / "assets" / "built.js").write_text("1")
    (third[0] / "assets" / "built.js").write_text("2")

    assert "as in 1-" in site.collect(*second, first[0])
    assert "post-processed" in site.collect(*third, second[0])


def test_a_folder_that_is_there(site: Site) -> None:
    """A commit that has a file in STATIC_ROOT keeps it, as collectstatic does."""
    files = {**FILES, "var/static/robots.txt": "none"}
    first = site.release(1, files)
    site.collect(*first, None)

    second = site.release(2, {**files, "posts/models.py": "# more"})

    assert "copied to STATIC_ROOT" in site.collect(*second, first[0])
    assert content(second[0])["robots.txt"] == "none"


# --- many of them ----------------------------------------------------------------

MANY = {**FILES, **{f"assets/many/{number}.js": str(number) for number in range(3000)}}
# Django starts no further before the other process has come so far.
WAITING = """
import time

AHEAD = BASE_DIR / ".fabdjango" / "static.linked"
for _ in range(2000):
    if (AHEAD / {name!r}).exists():
        break
    time.sleep(0.01)
else:
    raise RuntimeError("nothing was linked ahead")
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Path]:
    """A site with a release of many static files."""
    made = make_site(tmp_path_factory.mktemp("grown"))
    first = made.release(1, MANY)
    assert made.collect(*first, None).startswith("3003 static files copied")
    return made, first[0]


def test_many_are_linked_while_django_starts(grown: tuple[Site, Path]) -> None:
    """They are the same then, and nothing else is left of it."""
    site, first = grown
    wait = WAITING.format(name="staticfiles.json")
    second = site.release(2, {**MANY, "blog/settings.py": SETTINGS + wait, "posts/models.py": "# more"})
    assert "as in 1-" in site.collect(*second, first)
    assert content(second[0]) == content(first)
    assert not (second[0] / ".fabdjango" / "static.linked").exists()


def test_many_that_were_linked_in_vain(grown: tuple[Site, Path]) -> None:
    """What Django says counts: they are removed again, and static files are collected."""
    site, first = grown
    other = SETTINGS.replace("static/", "s/") + WAITING.format(name="staticfiles.json")
    third = site.release(3, {**MANY, "blog/settings.py": other})
    assert "post-processed" in site.collect(*third, first)
    assert content(third[0]) == content(first)
    assert (third[0] / "var" / "static" / "app.js").stat().st_nlink == 1
    assert not (third[0] / ".fabdjango" / "static.linked").exists()


def test_many_and_a_django_that_does_not_start(grown: tuple[Site, Path]) -> None:
    """Nobody goes on in a release that will be removed."""
    site, first = grown
    broken = SETTINGS + WAITING.format(name="") + "raise RuntimeError('it is broken')\n"
    fourth = site.release(4, {**MANY, "blog/settings.py": broken})
    process = site.begin(*fourth, first)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "it is broken" in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert not (fourth[0] / ".fabdjango" / "static.linked").exists()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        pytest.param({"posts/models.py": "# it's other code"}, True, id="code"),
        pytest.param({"posts/templates/app.html": "it's app.js"}, True, id="template"),
        pytest.param({"assets/many/7.js": "it's changed"}, False, id="a static file"),
        pytest.param({"posts/static/new.js": "it's new"}, False, id="a new static file"),
    ],
)
def test_when_linking_ahead_is_tried(site: Site, change: dict[str, str], *, wanted: bool) -> None:
    """Not for a commit that changes static files, nor one with other packages, whose Django is another one perhaps."""
    files = {**FILES, "assets/many/7.js": "7"}
    first, _ = site.release(1, files)
    site.collect(first, site.git("rev-parse", "HEAD"), None)
    second = site.release(2, {**files, **change})
    words = (str(first), str(site.path / "repo.git"), second[1])

    def tried() -> str:
        parameters = {"collectstatic": "never", "answer": str(second[0] / ".fabdjango" / "django.json")}
        parts = "\n".join(
            resources.files(onhost).joinpath(f"{name}.py").read_text() for name in ("reading", "static_ahead")
        )
        text = f"PARAMETERS = {parameters!r}\n{parts}\nprint(link_ahead(*{words!r}))"
        return subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True).stdout.strip()

    assert tried() == str(wanted)
    (first / ".fabdjango" / "venv").write_text("/srv/it's another")
    assert tried() == "False"
