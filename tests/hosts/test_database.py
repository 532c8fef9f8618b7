"""A site on the host's own PostgreSQL: from db.create by somebody with sudo to a restore while it serves."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.hosts.workplace import Repository, Workplace, answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.workplace import Daemon, Outcome
    from tests.machines import Machine

PORT = 8011
SETTINGS = """\
import os
from urllib.parse import unquote, urlsplit

SECRET_KEY = 50 * "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "notes.urls"
INSTALLED_APPS = ["notes"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
_found = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(_found.path[1:]),
        "USER": unquote(_found.username),
        "PASSWORD": unquote(_found.password),
        "HOST": _found.hostname,
        "PORT": _found.port,
        "CONN_MAX_AGE": 600,
    }
}
"""
FILES = {
    "requirements.txt": "Django>=5.2,<5.3\npsycopg[binary]\n",
    "manage.py": "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'notes.settings')\nfrom django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n",
    "notes/__init__.py": "",
    "notes/settings.py": SETTINGS,
    "notes/wsgi.py": "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n",
    "notes/models.py": "from django.db import models\n\n\nclass Note(models.Model):\n    text = models.TextField()\n",
    "notes/urls.py": "from django.http import HttpResponse\nfrom django.urls import path\nfrom notes.models import Note\n\n\ndef front(request):\n    return HttpResponse(', '.join(Note.objects.order_by('id').values_list('text', flat=True)))\n\n\nurlpatterns = [path('', front)]\n",
    "notes/migrations/__init__.py": "",
    "notes/migrations/0001_initial.py": "from django.db import migrations, models\n\n\nclass Migration(migrations.Migration):\n    operations = [migrations.CreateModel('Note', [('id', models.BigAutoField(primary_key=True)), ('text', models.TextField())])]\n",
}
MORE = "from django.db import migrations, models\n\n\nclass Migration(migrations.Migration):\n    dependencies = [('notes', '0001_initial')]\n    operations = [migrations.AddField('Note', 'number', models.IntegerField(null=True))]\n"
# Every command line that anybody can see, for as long as it runs.
WATCH = """\
import glob, os, time

seen = set()
while os.path.exists("/run/watching"):
    for place in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(place, "rb") as file:
                seen.add(file.read().replace(b"\\0", b" "))
        except OSError:
            pass
    time.sleep(0.001)
with open("/run/seen", "wb") as file:
    file.write(b"\\n".join(sorted(seen)))
"""


class Site:
    """The host, the operator's folder, and the repository."""

    def __init__(self, machine: Machine, workplace: Workplace, repository: Repository) -> None:
        self.machine = machine
        self.workplace = workplace
        self.repository = repository

    def fab(self, *words: str) -> Outcome:
        """Run a task as deploy, who may sudo."""
        return self.workplace.fab("-H", f"deploy@{self.machine.address}", "-i", self.machine.key, *words)

    def sql(self, statement: str) -> str:
        """What the superuser finds in the site's database."""
        return self.machine.run("runuser -u postgres -- psql -XAtq my-notes", given=statement).stdout.strip()

    @property
    def generated(self) -> str:
        """The file of values that were made on the host."""
        return self.machine.run("cat /srv/my-notes/shared/generated.env").stdout

    @property
    def backups(self) -> list[str]:
        """Names in the folder."""
        return self.machine.run("ls /srv/my-notes/backups").stdout.split()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, bookworm: Machine, daemon: Daemon) -> Site:
    """A host with PostgreSQL, and a site that has nothing yet."""
    bookworm.run(
        "command -v pg_dump >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends postgresql; }",
        timeout=300,
    )
    workplace = Workplace(tmp_path_factory.mktemp("database") / "work")
    workplace.know(bookworm)
    repository = daemon.repository("my-notes")
    for path, text in FILES.items():
        repository.write(path, text)
    repository.commit("First")
    workplace.configure(
        project="my-notes",
        repository=repository.url,
        gunicorn={"bind": f"0.0.0.0:{PORT}", "workers": 1},
        database={"engine": "postgresql", "backup_before_migrate": True},
    )
    return Site(bookworm, workplace, repository)


def test_made_once(site: Site) -> None:
    """By an account with sudo; the file is that account's, and a second run changes nothing."""
    outcome = site.fab("db.create").ended()
    assert "note: made the role my-notes" in outcome.output
    kept = site.generated
    assert kept.startswith("export DATABASE_URL='postgres://my-notes:")
    assert site.machine.run("stat -c '%U %a' /srv/my-notes/shared/generated.env").stdout == "deploy 640\n"
    assert "unchanged  database my-notes on the host's PostgreSQL" in site.fab("db.create").ended().output
    assert site.generated == kept
    assert kept.split(":")[2].split("@")[0] not in outcome.output


def test_from_a_deploy_to_a_restore(site: Site) -> None:
    """The site serves from it; a deploy with a migration is preceded by a backup, which is restored while the site serves."""
    site.fab("deploy").ended()
    site.sql("INSERT INTO notes_note (text) VALUES ('it''s the first')")
    assert answer(site.machine, PORT) == (200, "it's the first")
    site.machine.run(": > /run/watching")
    site.machine.write("/run/watch", WATCH)
    site.machine.run("systemd-run -q --unit watch python3 /run/watch")
    site.repository.write("notes/migrations/0002_number.py", MORE)
    site.repository.commit("Second")
    outcome = site.fab("deploy").ended()
    # The first deploy had one too: of a database without tables.
    _, kept = site.backups
    assert f"note: the database is backed up in {kept}, " in outcome.output
    site.sql("INSERT INTO notes_note (text) VALUES ('later')")
    assert answer(site.machine, PORT) == (200, "it's the first, later")

    outcome = site.fab("db.restore", kept, "--yes").ended()
    assert outcome.last_line == f"restored: the database is as in {kept}"
    assert "the database now lacks 1 migrations of the release that serves" in outcome.output
    assert answer(site.machine, PORT) == (200, "it's the first")
    site.fab("django.migrate").ended()
    assert answer(site.machine, PORT) == (200, "it's the first")
    site.machine.run("rm /run/watching; while systemctl is-active -q watch; do sleep 0.1; done")
    seen = site.machine.run("cat /run/seen").stdout
    password = site.generated.split(":")[2].split("@")[0]
    assert ("pg_dump" in seen, "psql" in seen, password in seen) == (True, True, False)
    events = [
        json.loads(line)["event"] for line in site.machine.run("cat /srv/my-notes/journal.jsonl").stdout.splitlines()
    ]
    assert events == [
        *("backup", "migrate", "deploy"),
        *("backup", "migrate", "deploy"),
        *("backup", "restore"),
        *("backup", "migrate"),
    ]


def test_a_copy_for_the_operator(site: Site, tmp_path: Path) -> None:
    """It can be read here."""
    outcome = site.fab("db.backup", "--get", f"--into={tmp_path}").ended()
    (copy,) = tmp_path.glob("*.dump")
    assert outcome.last_line == f"copied: {copy}"
    listing = subprocess.run(["pg_restore", "--list", copy], capture_output=True, text=True, check=True).stdout
    assert "TABLE DATA public notes_note my-notes" in listing
    assert f"{copy.name}  0.0 MB" in site.fab("db.backups", "--whole").ended().output


def test_a_backup_that_cannot_be_made(site: Site) -> None:
    """The deploy stops before the migration, and nothing is changed."""
    before = site.machine.run("readlink /srv/my-notes/current").stdout
    site.repository.write(
        "notes/migrations/0003_more.py", MORE.replace("0001_initial", "0002_number").replace("'number'", "'more'")
    )
    site.repository.commit("Third")
    site.machine.run("chown root: /srv/my-notes/backups")
    outcome = site.fab("deploy").ended(1)
    assert "state: nothing that serves was touched (exit 1)" in outcome.error
    assert "/srv/my-notes/backups belongs to another account" in outcome.error
    assert site.machine.run("readlink /srv/my-notes/current").stdout == before
    assert site.sql("SELECT count(*) FROM django_migrations") == "2"
