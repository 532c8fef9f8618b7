"""
The sample site of the load and fault tests: its pages say which release made each part of them.

A page starts with what the process holds in memory and ends with what lies on the disk at that moment:

    HEAD 7-0123456789ab code=3 dep=2 setting=s1 static=d41d8cd98f00
    …
    TAIL 7-0123456789ab code=3 dep=2 setting=s1 static=d41d8cd98f00

so that a page of two releases gives itself away, and `Shop.mixed` knows which values belong to which commit.
"""

from __future__ import annotations

import base64
import hashlib
import re
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.wheels import made_wheel
from tests.hosts.invariants import Site
from tests.hosts.load import Load

if TYPE_CHECKING:
    from tests.hosts.load import Profile
    from tests.hosts.workplace import Outcome, Repository, Running, Workplace
    from tests.machines import Machine

__all__ = ["CANARY", "DOMAIN", "PROJECT", "ROOT", "Broken", "Release", "Shop", "Stage", "furnish", "wheel"]

PROJECT = "shop"
ROOT = "/srv/shop"
DOMAIN = "shop.example.com"
WHEELS = "/var/lib/shop-wheels"
#: A secret of the env_file; no output, log, journal, argument or file for all may ever hold it.
CANARY = "canary-7d1c9a4f20b8"

LINE = re.compile(r"(?P<id>\d+-(?P<sha>[0-9a-f]{12})) (?P<parts>code=\d+ dep=\d+ setting=\w+ static=[0-9a-f]{12})")


@dataclass(frozen=True)
class Release:
    """What one commit, with the settings that are deployed with it, must answer; `broken` says what is wrong with it."""

    sha: str
    code: int
    dep: int
    static: int
    setting: str
    broken: str = ""
    #: The commit that changed the requirements last: a virtualenv of its own for each such change.
    locked: int = 0

    @property
    def parts(self) -> str:
        """What every whole page of it says after its id."""
        return f"code={self.code} dep={self.dep} setting={self.setting} static={_css_hash(self.static)}"


class Stage:
    """An operator, a host of one process manager, and the shop that is deployed there by `fab`."""

    def __init__(self, machine: Machine, workplace: Workplace, shop: Shop, manager: str) -> None:
        self.machine = machine
        self.workplace = workplace
        self.shop = shop
        self.manager = manager
        self.site = Site(machine, ROOT, DOMAIN, shop.repository.bare)
        #: All that `fab` ever said, for the search for secrets.
        self.said: list[str] = []
        workplace.know(machine)
        self.configure()

    def configure(self, **more: object) -> None:
        """Set fabric.yaml back to what it is for every test, with `more` laid over it."""
        self.workplace.configure(**self.shop.settings(self.manager, **more))

    def install(self) -> None:
        """The first deploy, with nginx in front."""
        furnish(self.machine)
        self.machine.run("rm -f /etc/nginx/sites-enabled/default; systemctl enable --now nginx")
        release = self.shop.next()
        self.shop.hand_over(self.workplace, release)
        self.fab("nginx.configure").ended()
        self.deploy(release).ended()
        assert self.site.serving() == f"1-{release.sha[:12]}"

    def words(self, *task: str) -> tuple[str, ...]:
        """The words of a `fab` for the host."""
        return ("-i", str(self.machine.key), "-H", f"deploy@{self.machine.address}", *task)

    def fab(self, *task: str) -> Outcome:
        """Run a task on the host."""
        return self._heard(self.workplace.fab(*self.words(*task)))

    def deploy(self, release: Release, broken: Broken | None = None) -> Outcome:
        """Deploy a release to the end."""
        self.shop.hand_over(self.workplace, release, broken)
        return self.fab("deploy", f"--commit={release.sha}")

    def start(self, release: Release, **environ: str) -> Running:
        """Begin to deploy a release."""
        self.shop.hand_over(self.workplace, release)
        return self.workplace.start(*self.words("deploy", f"--commit={release.sha}"), **environ)

    def load(self, profile: Profile) -> Load:
        """Visitors of the site, asking where it listens."""
        return Load(self.machine, DOMAIN, profile, port=self.site.port)

    def rollback(self) -> Outcome:
        """Go back to the release before."""
        return self.fab("rollback")

    def whole(self) -> str:
        """See to it that a whole release serves, as every test expects; its id."""
        self.configure()
        serves = self.site.serving()
        if self.shop.mixed(self.site.line()):
            self.deploy(self.shop.next()).ended()
            serves = self.site.serving()
        return serves

    def _heard(self, outcome: Outcome) -> Outcome:
        self.said += [outcome.output, outcome.error]
        return outcome


@dataclass(frozen=True)
class Broken:
    """
    One way in which a release is broken.

    `files` are laid over the commit, `settings` over fabric.yaml, `templates` over the operator's own folder; `environment` replaces the env_file.
    """

    name: str
    files: tuple[tuple[str, str], ...] = ()
    templates: tuple[tuple[str, str], ...] = ()
    environment: str | None = None


class Shop:
    """The commits of one shop, each a step further than the last."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.releases: dict[str, Release] = {}
        self.migrations = 1
        self._last = Release("", 0, 1, 1, "s1")
        for path, text in _FILES.items():
            repository.write(path, text)

    def next(
        self, *, dep: bool = False, setting: bool = False, static: bool = False, migration: bool = False
    ) -> Release:
        """Commit a change of the code, and of what else is asked for."""
        last = self._last
        made = Release(
            "",
            last.code + 1,
            3 - last.dep if dep else last.dep,
            last.static + static,
            f"s{int(last.setting[1:]) + setting}",
            locked=last.code + 1 if dep else last.locked,
        )
        self.migrations += migration
        self._write(made)
        self._last = replace(made, sha=self.repository.commit(f"Version {made.code}"))
        self.releases[self._last.sha[:12]] = self._last
        return self._last

    def next_broken(self, broken: Broken) -> Release:
        """Commit a release that is broken in one way; the commit after it is whole again."""
        before = {path: (self.repository.tree / path) for path, _ in broken.files}
        kept = {path: place.read_text() if place.exists() else None for path, place in before.items()}
        last = self._last
        made = replace(last, code=last.code + 1, broken=broken.name)
        self._write(made)
        for path, text in broken.files:
            self.repository.write(path, text)
        made = replace(made, sha=self.repository.commit(f"Version {made.code}: {broken.name}"))
        self.releases[made.sha[:12]] = made
        for path, former in kept.items():
            if former is None:
                before[path].unlink()
            else:
                self.repository.write(path, former)
        self._last = replace(last, code=made.code)
        return made

    def mixed(self, line: str) -> str:
        """Why this line (without HEAD or TAIL) is not of one whole release that we know; empty if it is."""
        found = LINE.fullmatch(line)
        if not found:
            return f"no line of a page: {line!r}"
        release = self.releases.get(found["sha"])
        if release is None:
            return f"a commit that never was: {line}"
        if found["parts"] != release.parts:
            return f"{line}, but the commit has {release.parts}"
        return f"broken on purpose ({release.broken}), but served: {line}" if release.broken else ""

    def environment(self, release: Release) -> str:
        """The env_file that is deployed with a release."""
        return f"SHOP_SETTING={release.setting}\nSHOP_SECRET_KEY={CANARY}\n"

    def hand_over(self, workplace: Workplace, release: Release, broken: Broken | None = None) -> None:
        """Lay the operator's own files out for the deploy of a release."""
        given = broken.environment if broken else None
        target = workplace.folder / "deploy" / "production.env"
        target.parent.mkdir(exist_ok=True)
        target.write_text(self.environment(release) if given is None else given)
        target.chmod(0o600)
        for path, text in broken.templates if broken else ():
            place = workplace.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def settings(self, manager: str, **more: object) -> dict[str, object]:
        """What fabric.yaml says of the site; `more` is laid over it."""
        return {
            "project": PROJECT,
            "repository": self.repository.url,
            "root": ROOT,
            "user": "deploy",
            "manager": manager,
            "shared": ["data/"],
            "processes": {"worker": {"command": "exec python worker.py", "startsecs": 1, "stop_timeout": 5}},
            "keep_releases": 4,
            "env_file": "deploy/production.env",
            "nginx": {"domains": [DOMAIN]},
            "gunicorn": {"workers": "2", "threads": 16, "graceful_timeout": 20},
            "health": {"timeout": 15},
            **more,
        }

    def _write(self, release: Release) -> None:
        write = self.repository.write
        write("shop/version.py", f"CODE = {release.code}\n")
        write(
            "requirements.txt",
            f"# of version {release.locked}\n--find-links {WHEELS}\nDjango<5.3\nshopdep=={release.dep}\n",
        )
        write("shop/static/shop/site.css", _css(release.static))
        for number in range(2, self.migrations + 1):
            before = "0001_initial" if number == 2 else f"{number - 1:04}_note"
            write(f"items/migrations/{number:04}_note.py", _MIGRATION.format(before=before, number=number))
        notes = "".join(f"    note{number} = {_FIELD}\n" for number in range(2, self.migrations + 1))
        write("items/models.py", f"{_MODEL}{notes}")


def furnish(machine: Machine) -> None:
    """Give a host what a deploy of the shop needs and what is not its subject: wheels, and a uv for all accounts."""
    for version in (1, 2):
        content = base64.b64encode(wheel(version)).decode()
        path = f"{WHEELS}/shopdep-{version}-py3-none-any.whl"
        machine.run(f"mkdir -p {WHEELS}; base64 -d > {path}", given=content)
    machine.run(
        "[ -x /opt/uv/bin/uv ] || { python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet uv; }\n"
        "ln -sf /opt/uv/bin/uv /usr/local/bin/uv",
        timeout=300,
    )


def wheel(version: int) -> bytes:
    """A package shopdep of one module that knows its version; the same bytes each time."""
    return made_wheel("shopdep", str(version), {"shopdep.py": f"VERSION = {version}\n"})


def _css(number: int) -> str:
    return f"body {{ margin: {number}px }}\n"


def _css_hash(number: int) -> str:
    """What Django's manifest adds to the name of the style sheet."""
    return hashlib.md5(_css(number).encode(), usedforsecurity=False).hexdigest()[:12]


# --- the files ---------------------------------------------------------------

_MODEL = """\
from django.db import models


class Item(models.Model):
    name = models.CharField(max_length=100)
"""

_FIELD = 'models.TextField(blank=True, default="", db_default="")'

_MIGRATION = f"""\
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("items", "{{before}}")]
    operations = [migrations.AddField("item", "note{{number}}", {_FIELD})]
"""

_FILES = {
    ".gitignore": "__pycache__/\n/data/\n/static_root/\n",
    "manage.py": textwrap.dedent("""\
        import os
        import sys

        if __name__ == "__main__":
            os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
            from django.core.management import execute_from_command_line

            execute_from_command_line(sys.argv)
        """),
    "worker.py": textwrap.dedent("""\
        import signal

        signal.signal(signal.SIGTERM, lambda number, frame: exit(0))
        while True:
            signal.pause()
        """),
    "shop/__init__.py": "",
    "shop/wsgi.py": textwrap.dedent("""\
        import os

        from django.core.wsgi import get_wsgi_application

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
        application = get_wsgi_application()
        """),
    "shop/settings.py": textwrap.dedent("""\
        import os
        from pathlib import Path

        BASE_DIR = Path(__file__).parent.parent
        SECRET_KEY = os.environ["SHOP_SECRET_KEY"]
        SHOP_SETTING = os.environ["SHOP_SETTING"]
        ALLOWED_HOSTS = ["shop.example.com", "localhost", "127.0.0.1"]
        ROOT_URLCONF = "shop.urls"
        WSGI_APPLICATION = "shop.wsgi.application"
        INSTALLED_APPS = ["shop", "items", "django.contrib.staticfiles"]
        DATA = BASE_DIR / "data"
        DATA.mkdir(exist_ok=True)
        DATABASES = {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": DATA / "db.sqlite3",
                "OPTIONS": {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL;"},
                "CONN_MAX_AGE": 60,
            }
        }
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        USE_TZ = True
        STATIC_URL = "/static/"
        STATIC_ROOT = BASE_DIR / "static_root"
        STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}}
        """),
    "shop/urls.py": textwrap.dedent("""\
        from django.urls import path

        from shop import views

        urlpatterns = [path("", views.page), path("slow", views.slow), path("echo", views.echo), path("items", views.items)]
        """),
    "shop/views.py": textwrap.dedent("""\
        import hashlib
        import importlib.metadata
        import json
        import os
        import re
        import time
        from pathlib import Path

        import shopdep
        from django.conf import settings
        from django.contrib.staticfiles.storage import staticfiles_storage
        from django.http import HttpResponse
        from items.models import Item

        from shop.version import CODE

        FILLER = "\\n".join(f"{number:04} " + "x" * 60 for number in range(64))


        def in_memory():
            static = staticfiles_storage.stored_name("shop/site.css").split(".")[-2]
            release = os.environ.get("FABDJANGO_RELEASE", "")
            return f"{release} code={CODE} dep={shopdep.VERSION} setting={settings.SHOP_SETTING} static={static}"


        def on_disk():
            here = Path(__file__).resolve().parent
            code = re.search("[0-9]+", (here / "version.py").read_text()).group()
            manifest = json.loads((here.parent / "static_root" / "staticfiles.json").read_text())
            static = manifest["paths"]["shop/site.css"].split(".")[-2]
            dep = importlib.metadata.version("shopdep")
            return f"{here.parent.name} code={code} dep={dep} setting={os.environ['SHOP_SETTING']} static={static}"


        def page(request):
            Item.objects.first()
            return HttpResponse(f"HEAD {in_memory()}\\n{FILLER}\\nTAIL {on_disk()}\\n", content_type="text/plain")


        def slow(request):
            time.sleep(float(request.GET.get("s", 10)))
            return page(request)


        def echo(request):
            return HttpResponse(hashlib.sha256(request.body).hexdigest(), content_type="text/plain")


        def items(request):
            if request.GET.get("add"):
                Item.objects.create(name=request.GET["add"])
            return HttpResponse(str(Item.objects.count()), content_type="text/plain")
        """),
    "items/__init__.py": "",
    "items/migrations/__init__.py": "",
    "items/migrations/0001_initial.py": textwrap.dedent("""\
        from django.db import migrations, models


        class Migration(migrations.Migration):
            initial = True
            dependencies = []
            operations = [
                migrations.CreateModel(
                    "Item", [("id", models.BigAutoField(primary_key=True)), ("name", models.CharField(max_length=100))]
                )
            ]
        """),
}
