"""A Django project of the smallest kind that has everything a deployment meets, and the git repository that it lies in."""

from __future__ import annotations

import os
import subprocess
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["BACKEND", "DJANGO", "Repository", "make_project", "make_wheel"]

DJANGO: Final = "Django>=5.2,<5.3"

MANAGE = """\
#!/usr/bin/env python
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""

SETTINGS = """\
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "only-for-trying-" + 40 * "x")
ALLOWED_HOSTS = ["shop.example.com", "localhost"]
INSTALLED_APPS = ["notes", "django.contrib.staticfiles"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "shop.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(os.environ.get("SHOP_DB") or BASE_DIR / "data/db.sqlite3")}}
DATABASES["default"]["NAME"].parent.mkdir(exist_ok=True)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "collected"
MEDIA_ROOT = BASE_DIR / "media"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
PRICE = "1.00"
try:
    from .local_settings import *
except ModuleNotFoundError as error:
    if error.name != f"{__package__}.local_settings":
        raise
"""

USERS = '"django.contrib.auth", "django.contrib.contenttypes", '

URLS = """\
from django.conf import settings
from django.urls import path, re_path
from django.views.static import serve

from notes.views import front

urlpatterns = [
    path("", front),
    re_path(r"^static/(?P<path>.*)$", lambda request, path: serve(request, path, document_root=settings.STATIC_ROOT)),
]
"""

VIEWS = """\
import os
import sys

from django.conf import settings
from django.http import JsonResponse

from notes.edition import EDITION
from notes.models import Note


def front(request):
    return JsonResponse(
        {
            "edition": EDITION,
            "notes": Note.objects.count(),
            "release": os.environ.get("FABDJANGO_RELEASE"),
            "settings": os.environ["DJANGO_SETTINGS_MODULE"],
            "directory": os.getcwd(),
            "python_path": os.environ["PYTHONPATH"],
            "price": settings.PRICE,
            "greeting": os.environ.get("SHOP_GREETING"),
            "interface": type(request).__name__,
            "prefix": sys.prefix,
        }
    )
"""

MODELS = """\
from django.db import models


class Note(models.Model):
    text = models.CharField(max_length=100)
"""

MIGRATION = """\
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Note",
            fields=[("id", models.BigAutoField(primary_key=True)), ("text", models.CharField(max_length=100))],
        ),
    ]
"""

FIXTURE = """\
[{"model": "notes.note", "pk": 1, "fields": {"text": "the first"}},
 {"model": "notes.note", "pk": 2, "fields": {"text": "the second"}}]
"""


def make_project(
    *,
    folder: str = "",
    settings: str = "shop.settings",
    manage_names: str = "",
    requirements: str | None = f"{DJANGO}\n",
    edition: str = "1",
    users: bool = False,
) -> dict[str, str]:
    """
    The files of a project: path in the commit to text.

    ``folder`` is where manage.py lies, ``settings`` the module to write,
    ``manage_names`` the one that manage.py and wsgi.py name (the same if
    empty), ``requirements`` the text of requirements.txt, or None for no such
    file, ``edition`` a word that the site shows, ``users`` whether there are
    accounts (which makes the first deploy slower).
    """
    named = manage_names or settings
    application = "import os\n\nfrom django.core.{0} import get_{0}_application\n\n"
    application += (
        f'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{named}")\napplication = get_{{0}}_application()\n'
    )
    files = {
        "manage.py": MANAGE.format(settings=named),
        "shop/__init__.py": "",
        settings.replace(".", "/") + ".py": SETTINGS.replace('["notes", ', f'["notes", {USERS}') if users else SETTINGS,
        "shop/urls.py": URLS,
        "shop/wsgi.py": application.format("wsgi"),
        "shop/asgi.py": application.format("asgi"),
        "notes/__init__.py": "",
        "notes/edition.py": f"EDITION = {edition!r}\n",
        "notes/models.py": MODELS,
        "notes/views.py": VIEWS,
        "notes/migrations/__init__.py": "",
        "notes/migrations/0001_initial.py": MIGRATION,
        "notes/fixtures/first.json": FIXTURE,
        "notes/static/notes/site.css": "body { color: teal }\n",
    }
    files = {f"{folder}/{name}" if folder else name: text for name, text in files.items()}
    return files if requirements is None else {**files, "requirements.txt": requirements}


class Repository:
    """A git repository with a working tree, to commit files into; its name has a space and a quote in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str) -> str:
        """Run git here, steered by nothing that this machine has configured; its output."""
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.com",
        }
        done = subprocess.run(["git", *words], cwd=self.path, env=environ, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str | None] = {}, message: str = "Change") -> str:
        """Write ``files`` (None removes one), commit everything that lies here, and return the commit's id."""
        for name, text in files.items():
            place = self.path / name
            if text is None:
                place.unlink()
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(textwrap.dedent(text), encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, files: Mapping[str, str | None]) -> str:
        """Commit ``files`` on a new branch off main, come back to main, and return the commit's id."""
        self.git("checkout", "--quiet", "-b", name, "main")
        try:
            return self.commit(files, f"Make {name}")
        finally:
            self.git("checkout", "--quiet", "main")

    def edit(self, name: str, old: str, new: str) -> str:
        """The text of a committed file with ``old``, which must be in it, replaced by ``new``."""
        text = (self.path / name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}"
        return text.replace(old, new)


# --- packages -----------------------------------------------------------------

BACKEND = """\
import os
import zipfile


def build_wheel(directory, config_settings=None, metadata_directory=None):
    import tomllib

    with open("pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    name, version = project["name"], project["version"]
    needs = "".join(f"Requires-Dist: {each}\\n" for each in project.get("dependencies", []))
    for extra, names in project.get("optional-dependencies", {}).items():
        needs += f"Provides-Extra: {extra}\\n"
        needs += "".join(f'Requires-Dist: {each}; extra == "{extra}"\\n' for each in names)
    info, wheel = f"{name}-{version}.dist-info", f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, wheel), "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n{needs}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\\n{info}/METADATA,,\\n{info}/WHEEL,,\\n{info}/RECORD,,\\n")
    return wheel
"""
"""A build backend that needs nothing from any index; it lies in the commit as backend.py."""


def make_wheel(folder: Path, name: str, version: str, *, needs: tuple[str, ...] = ()) -> Path:
    """A wheel of a package with one empty module, in ``folder``; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {each}\n" for each in needs)
    parts = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(place, "w") as archive:
        for path, text in parts.items():
            # A fixed time, so that the same wheel always has the same hash.
            archive.writestr(zipfile.ZipInfo(path), text)
        archive.writestr(
            zipfile.ZipInfo(f"{info}/RECORD"), "".join(f"{path},,\n" for path in [*parts, f"{info}/RECORD"])
        )
    return place
