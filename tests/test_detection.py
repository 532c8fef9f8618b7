"""What a project's files say of it: every sample in the shape of a real one, and every odd way to say one thing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabdjango.detection import Database, Findings, Found, Service, Snapshot, Worker, detect, manage_files
from fabdjango.pythonsource import Place
from fabdjango.pythonvalue import Variable
from fabdjango.requirements import Requirements
from tests.projects import ENTRY, MANAGE, SAMPLES, read_project, start_project

ROOT = Path(__file__).parent.parent


def snapshot(files: Mapping[str, str]) -> Snapshot:
    """These files as a project."""
    return Snapshot(tuple(sorted(files)), files.get)


def found(files: Mapping[str, str]) -> Findings:
    """Everything about the one project among these files."""
    (manage,) = manage_files(snapshot(files))
    return detect(snapshot(files), manage)


def told(findings: Findings) -> dict[str, Any]:
    """Findings as text, without those that are as of an empty project."""
    empty = Findings(findings.manage)
    values = {name: value for name, value in vars(findings).items() if value != getattr(empty, name)}
    return {name: _told(value) for name, value in values.items()}


def _told(value: Any) -> Any:
    if isinstance(value, (Found, Worker)):
        return f"{value.command if isinstance(value, Worker) else value.value} ({value.place})"
    if isinstance(value, Service):
        return f"{value.kind}{' at ' if value.variable else ''}{value.variable} ({value.place})"
    if isinstance(value, Variable):
        return f"{value.name}, {value.kind}{', required' if value.required else ''} ({value.place})"
    if isinstance(value, Place):
        return str(value)
    if isinstance(value, (Database, Requirements)):
        shown = {name: each for name, each in vars(value).items() if each and name != "choices"}
        return {name: sorted(each) if name == "packages" else _told(each) for name, each in shown.items()}
    if isinstance(value, Mapping):
        return {name: _told(each) for name, each in value.items()}
    return [_told(each) for each in value] if isinstance(value, tuple) else value


# --- whole projects -------------------------------------------------------------

TOLD: dict[str, dict[str, Any]] = {
    "wagtail": {
        "named": "bakery.settings.dev (manage.py line 6)",
        "settings": "bakery.settings.production (bakery/settings/production.py)",
        "settings_file": "bakery/settings/production.py",
        "app": "bakery.wsgi:application (bakery/settings/base.py line 6)",
        "requirements": {"file": "requirements.txt", "auto": True, "packages": ["django", "wagtail"]},
        "database": {"engine": "sqlite (bakery/settings/base.py line 7)", "path": "db.sqlite3"},
        "static_root": "static (bakery/settings/base.py line 12)",
        "static_url": "/static/ (bakery/settings/base.py line 13)",
        "manifest": "bakery/settings/production.py line 4",
        "media_root": "media (bakery/settings/base.py line 14)",
        "media_url": "/media/ (bakery/settings/base.py line 15)",
        "local_settings": "bakery/settings/local.py (bakery/settings/production.py line 7)",
    },
    "cookiecutter": {
        "named": "config.settings.local (manage.py line 6)",
        "settings": "config.settings.production (config/wsgi.py line 5)",
        "settings_file": "config/settings/production.py",
        "app": "config.wsgi:application (config/settings/base.py line 11)",
        "requirements": {
            "file": "uv.lock",
            "auto": True,
            "packages": ["django", "gunicorn", "psycopg"],
            "groups": {"production": "pyproject.toml line 9"},
        },
        "python": ">=3.12,<3.14 (pyproject.toml line 4)",
        "database": {"engine": "postgresql (uv.lock line 12)", "url": "DATABASE_URL (config/settings/base.py line 9)"},
        "secret": "config/settings/production.py line 5",
        "secret_key": "DJANGO_SECRET_KEY, str, required (config/settings/production.py line 5)",
        "hosts": "DJANGO_ALLOWED_HOSTS, list (config/settings/production.py line 6)",
        "host_names": ["shop.example.com"],
        "hosts_place": "config/settings/production.py line 6",
        "needed": [
            "DATABASE_URL, db, required (config/settings/base.py line 9)",
            "MAILGUN_API_KEY, str, required (config/settings/production.py line 8)",
            "DJANGO_ADMIN_URL, str, required (config/settings/production.py line 9)",
        ],
        "https": "config/settings/production.py line 4",
        "static_root": "staticfiles (config/settings/base.py line 18)",
        "static_url": "/static/ (config/settings/base.py line 19)",
        "media_root": "shop/media (config/settings/base.py line 20)",
        "media_url": "/media/ (config/settings/base.py line 21)",
        "workers": [
            "celery -A config.celery_app worker --loglevel INFO (config/celery_app.py line 6)",
            "celery -A config.celery_app beat --loglevel INFO (config/settings/base.py line 15)",
        ],
        "broker": "CELERY_BROKER_URL (config/settings/base.py line 23)",
        "services": ["redis at REDIS_URL (config/settings/base.py line 22)"],
    },
    "below": {
        "named": "core.settings (backend/manage.py line 6)",
        "settings": "core.settings (backend/core/wsgi.py line 5)",
        "settings_file": "backend/core/settings.py",
        "app": "core.wsgi:app (backend/core/settings.py line 9)",
        "requirements": {
            "file": "backend/requirements.txt",
            "packages": ["django", "gunicorn", "psycopg2-binary", "python-decouple"],
        },
        "database": {
            "engine": "postgresql (backend/core/settings.py line 12)",
            "parts": {
                "DB_ENGINE": "engine",
                "DB_NAME": "name",
                "DB_USER": "user",
                "DB_PASSWORD": "password",
                "DB_HOST": "host",
                "DB_PORT": "port",
            },
        },
        "secret": "backend/core/settings.py line 6",
        "secret_key": "APP_SECRET, str, required (backend/core/settings.py line 6)",
        "hosts": "ALLOWED_HOSTS, list (backend/core/settings.py line 8)",
        "hosts_place": "backend/core/settings.py line 8",
        "debug": "backend/core/settings.py line 7",
        "debug_variable": "DEBUG, bool (backend/core/settings.py line 7)",
        "needed": [
            "DB_NAME, str, required (backend/core/settings.py line 13)",
            "DB_USER, str, required (backend/core/settings.py line 14)",
            "DB_PASSWORD, str, required (backend/core/settings.py line 15)",
        ],
        "static_root": "backend/assets (backend/core/settings.py line 21)",
        "static_url": "assets/ (backend/core/settings.py line 20)",
        "media_root": "backend/uploads (backend/core/settings.py line 22)",
        "media_url": "uploads/ (backend/core/settings.py line 23)",
    },
    "channels": {
        "named": "chat.settings (manage.py line 6)",
        "settings": "chat.settings (chat/asgi.py line 6)",
        "settings_file": "chat/settings.py",
        "app": "chat.asgi:application (chat/settings.py line 8)",
        "interface": "channels (chat/settings.py line 7)",
        "requirements": {"file": "requirements.txt", "auto": True, "packages": ["channels", "django"]},
        "python": "3.12 (.python-version line 1)",
        "database": {"engine": "sqlite (chat/settings.py line 9)", "path": "var/chat.db"},
        "secret": "chat/settings.py line 4",
        "secret_key": "CHAT_KEY, str, required (chat/settings.py line 4)",
        "hosts": "CHAT_HOSTS, str (chat/settings.py line 6)",
        "host_separator": " ",
        "hosts_place": "chat/settings.py line 6",
        "static_root": "static (chat/settings.py line 10)",
    },
    "heroku": {
        "named": "ledger.settings (manage.py line 6)",
        "settings": "ledger.settings (ledger/wsgi.py line 5)",
        "settings_file": "ledger/settings.py",
        "app": "ledger.wsgi:application (ledger/wsgi.py)",
        "requirements": {
            "file": "requirements.txt",
            "auto": True,
            "packages": ["celery", "celery[redis]", "dj-database-url", "django", "gunicorn", "psycopg2", "whitenoise"],
        },
        "python": "3.12.4 (runtime.txt line 1)",
        "database": {
            "engine": "postgresql (requirements.txt line 6)",
            "url": "DATABASE_URL (ledger/settings.py line 12)",
        },
        "secret": "ledger/settings.py line 8",
        "secret_key": "SECRET_KEY, str (ledger/settings.py line 8)",
        "host_names": [".ledger.example.com", "localhost"],
        "hosts_place": "ledger/settings.py line 9",
        "static_root": "static (ledger/settings.py line 20)",
        "static_url": "https://cdn.example.com/ (ledger/settings.py line 18)",
        "whitenoise": "ledger/settings.py line 10",
        "manifest": "ledger/settings.py line 19",
        "workers": [
            "celery -A ledger worker --loglevel INFO (ledger/celery.py line 4)",
            "celery -A ledger beat --loglevel INFO --schedule celerybeat/schedule (ledger/celery.py line 5)",
        ],
        "services": ["redis (requirements.txt line 5)"],
    },
    "startproject": {
        "named": "mysite.settings (manage.py line 9)",
        "settings": "mysite.settings (mysite/wsgi.py line 14)",
        "settings_file": "mysite/settings.py",
        "app": "mysite.wsgi:application (mysite/settings.py line 69)",
        "database": {"engine": "sqlite (mysite/settings.py line 77)", "path": "db.sqlite3"},
        "secret": "mysite/settings.py line 23",
        "secret_literal": "mysite/settings.py line 23",
        "hosts_place": "mysite/settings.py line 28",
        "debug": "mysite/settings.py line 26",
        "static_url": "static/ (mysite/settings.py line 117)",
    },
    "demo": {
        "named": "blog.settings (manage.py line 10)",
        "settings": "blog.settings (blog/wsgi.py line 7)",
        "settings_file": "blog/settings.py",
        "app": "blog.wsgi:application (blog/settings.py line 45)",
        "requirements": {"file": "requirements.txt", "auto": True, "packages": ["django", "whitenoise"]},
        "database": {
            "engine": "sqlite (blog/settings.py line 69)",
            "parts": {"BLOG_DATABASE": "name"},
            "path": "data/db.sqlite3",
        },
        "secret": "blog/settings.py line 13",
        "secret_key": "BLOG_SECRET_KEY, str (blog/settings.py line 13)",
        "hosts": "BLOG_ALLOWED_HOSTS, str (blog/settings.py line 16)",
        "hosts_place": "blog/settings.py line 15",
        "static_root": "static_root (blog/settings.py line 93)",
        "static_url": "/static/ (blog/settings.py line 92)",
        "whitenoise": "blog/settings.py line 35",
        "manifest": "blog/settings.py line 98",
        "media_root": "media (blog/settings.py line 95)",
        "media_url": "/media/ (blog/settings.py line 94)",
        "local_settings": "blog/local_settings.py (blog/settings.py line 110)",
    },
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_project(name: str) -> None:
    """Everything that is found, with its file and line, and nothing else."""
    assert told(found(SAMPLES[name])) == TOLD[name]


def test_what_django_itself_makes(tmp_path: Path) -> None:
    """django-admin startproject, as it is; the lines are those of Django 5.2."""
    assert told(found(start_project(tmp_path, "mysite"))) == TOLD["startproject"]


def test_the_demo() -> None:
    """The sample project of this repository, where a test is the place to say so."""
    assert told(found(read_project(ROOT / "demo" / "project"))) == TOLD["demo"]


def test_nothing_of_the_project_is_run(tmp_path: Path) -> None:
    """Not even where every file of it would do harm."""
    harm = f"open({str(tmp_path / 'harm')!r}, 'w')\n"
    files = {name: harm + text for name, text in SAMPLES["cookiecutter"].items() if name.endswith(".py")}
    assert told(found(files))["settings"] == "config.settings.production (config/wsgi.py line 6)"
    assert not (tmp_path / "harm").exists()


# --- manage.py and the settings module --------------------------------------------


def test_which_files_are_a_manage_py_of_django() -> None:
    """Those nearest to the top come first; another framework's is none, and one that says nothing may have a wsgi.py that does."""
    files = {
        "calls/manage.py": "import calls\n",
        "calls/it/wsgi.py": ENTRY.format("wsgi", "it.settings"),
        "it's/manage.py": MANAGE.format("a.settings"),
        "a/b/manage.py": MANAGE.format("a.settings"),
        "manage.py": MANAGE.format("a.settings"),
        "flask/manage.py": "from flask_script import Manager\n",
        "xmanage.py": MANAGE.format("a.settings"),
    }
    assert manage_files(snapshot(files)) == ("manage.py", "calls/manage.py", "it's/manage.py", "a/b/manage.py")


def settings_of(files: Mapping[str, str]) -> tuple[str, str]:
    """The chosen settings module and where it is named, and what a deploy would take by itself."""
    findings = found(files)
    assert findings.settings
    return f"{findings.settings.value} ({findings.settings.place})", findings.named.value if findings.named else ""


def test_one_settings_module() -> None:
    """wsgi.py counts before manage.py, unless it names one for developers."""
    one = {
        "manage.py": MANAGE.format("a.settings"),
        "a/settings.py": "",
        "a/wsgi.py": ENTRY.format("wsgi", "a.settings"),
    }
    assert settings_of(one) == ("a.settings (a/wsgi.py line 5)", "a.settings")
    other = {**one, "a/server.py": "", "a/wsgi.py": ENTRY.format("wsgi", "a.server")}
    assert settings_of(other) == ("a.server (a/wsgi.py line 5)", "a.settings")
    local = {**one, "a/local.py": "", "a/wsgi.py": ENTRY.format("wsgi", "a.local")}
    assert settings_of(local) == ("a.settings (manage.py line 6)", "a.settings")


def test_a_settings_package() -> None:
    """Where nothing for a server is named, the module that is called so is taken; a package may be the settings itself."""
    package = {
        "manage.py": MANAGE.format("a.settings"),
        "a/settings/__init__.py": "from .base import *\n",
        "a/settings/base.py": "",
    }
    assert settings_of(package) == ("a.settings (manage.py line 6)", "a.settings")
    for name in ("production", "prod", "live"):
        with_server = {**package, f"a/settings/{name}.py": ""}
        assert settings_of(with_server) == (f"a.settings.{name} (a/settings/{name}.py)", "a.settings")
    both = {**package, "a/settings/prod.py": "", "a/asgi.py": ENTRY.format("asgi", "a.settings.prod")}
    assert settings_of(both) == ("a.settings.prod (a/asgi.py line 5)", "a.settings")


def test_odd_ways_to_name_the_settings() -> None:
    """By a subscript or a variable, which the deploy's own look at manage.py does not see; or not at all."""
    subscript = 'import os\nos.environ["DJANGO_SETTINGS_MODULE"] = "a.settings"\n'
    assert settings_of({"manage.py": subscript, "a/settings.py": ""}) == ("a.settings (manage.py line 2)", "")
    variable = 'import os\nname = "a.settings"\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", name)\n'
    assert settings_of({"manage.py": variable, "a/settings.py": ""}) == ("a.settings (manage.py line 3)", "")
    nothing = "from django.core.management import execute_from_command_line\n"
    assert settings_of({"manage.py": nothing, "a/settings.py": ""}) == ("a.settings (a/settings.py)", "")


def test_settings_that_are_not_in_git() -> None:
    """It is said, with what lies beside them."""
    files = {"manage.py": MANAGE.format("a.settings"), "a/settings_example.py": "", "a/__init__.py": ""}
    findings = found(files)
    assert findings.problems == (
        (
            "manage.py line 6 names the settings a.settings, and there is no such module in git; beside it are "
            "settings_example.py: choose another with --settings, or give it to hosts as local_settings with "
            "local_settings_path: a/settings.py"
        ),
    )
    given = detect(snapshot(files), "manage.py", "a.settings_example")
    assert (given.settings, given.problems) == (Found("a.settings_example", Place("a/settings_example.py")), ())


def test_settings_in_classes() -> None:
    """django-configurations: the class for a server, with what its bases say."""
    files = {
        "manage.py": MANAGE.format("a.settings") + 'os.environ.setdefault("DJANGO_CONFIGURATION", "Dev")\n',
        "a/settings.py": """\
from configurations import Configuration, values


class Common(Configuration):
    SECRET_KEY = values.SecretValue()
    DATABASES = values.DatabaseURLValue("postgres://localhost/a")
    DEBUG = values.BooleanValue(True)


class Dev(Common):
    ALLOWED_HOSTS = ["*"]


class Production(Common):
    DEBUG = False
    ALLOWED_HOSTS = values.ListValue([], environ_name="HOSTS", environ_prefix="A")
""",
    }
    assert told(found(files)) == {
        "named": "a.settings (manage.py line 6)",
        "settings": "a.settings (manage.py line 6)",
        "settings_file": "a/settings.py",
        "configuration": "Production (a/settings.py)",
        "database": {
            "engine": "postgresql (a/settings.py line 6)",
            "url": "DATABASE_URL (a/settings.py line 6)",
        },
        "secret": "a/settings.py line 5",
        "secret_key": "DJANGO_SECRET_KEY, secret, required (a/settings.py line 5)",
        "hosts": "A_HOSTS, list (a/settings.py line 16)",
        "hosts_place": "a/settings.py line 16",
    }


# --- one setting ----------------------------------------------------------------------


def with_settings(text: str, more: Mapping[str, str] | None = None) -> Findings:
    """A project with these settings, and more files."""
    return found({"manage.py": MANAGE.format("a.settings"), "a/settings.py": text, **(more or {})})


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("import os\nSECRET_KEY = os.environ['KEY']", "KEY, str, required (a/settings.py line 2)"),
        ("from os import environ\nSECRET_KEY = environ['KEY']", "KEY, str, required (a/settings.py line 2)"),
        ("import os\nSECRET_KEY = os.environ.get('KEY')", "KEY, str (a/settings.py line 2)"),
        ("from os import getenv\nSECRET_KEY = getenv('KEY', 'x')", "KEY, str (a/settings.py line 2)"),
        ("from decouple import config\nSECRET_KEY = config('KEY')", "KEY, str, required (a/settings.py line 2)"),
        (
            "from environs import Env\nenv = Env()\nSECRET_KEY = env.str('KEY')",
            "KEY, str, required (a/settings.py line 3)",
        ),
        (
            "import environ\nenv = environ.Env(KEY=(str, 'x'))\nSECRET_KEY = env('KEY')",
            "KEY, str (a/settings.py line 3)",
        ),
        ("from .tools import get_env_value\nSECRET_KEY = get_env_value('KEY')", "KEY, str (a/settings.py line 2)"),
        ("SECRET_KEY = get_env_str('KEY', required=True)", "KEY, str, required (a/settings.py line 1)"),
        (
            "import os\nKEY = os.environ['OTHER']\nSECRET_KEY = KEY.strip()",
            "OTHER, str, required (a/settings.py line 2)",
        ),
        ("import os\nSECRET_KEY = 'x' if 1 else os.environ['KEY']", "KEY, str, required (a/settings.py line 2)"),
        (
            "import os\nDEBUG = 0\nif DEBUG:\n  SECRET_KEY = 'x'\nelse:\n  SECRET_KEY = os.environ['KEY']",
            "KEY, str, required (a/settings.py line 6)",
        ),
    ],
)
def test_the_variable_of_the_secret_key(text: str, variable: str) -> None:
    """Its name, whoever reads it."""
    assert told(with_settings(text))["secret_key"] == variable


def test_a_secret_key_that_no_variable_has() -> None:
    """A literal is everybody's; what is read from elsewhere is nobody's business here."""
    literal = told(with_settings("SECRET_KEY = 'it is \"known\"'"))
    assert (literal["secret"], literal["secret_literal"]) == ("a/settings.py line 1", "a/settings.py line 1")
    read = with_settings("SECRET_KEY = open('/etc/key').read()")
    assert (read.secret, read.secret_literal, read.secret_key) == (Place("a/settings.py", 1), None, None)


def test_names_that_are_imported_from_a_file_of_ones_own() -> None:
    """They count, what they are made of is followed, and what else that file assigns does not count."""
    findings = with_settings(
        "from .paths import BASE, MEDIA as MEDIA_ROOT\nSTATIC_ROOT = BASE / 'static'\n",
        {
            "a/__init__.py": "",
            "a/paths.py": "from pathlib import Path\nBASE = Path(__file__).parent\nUP = 'up loads'\nMEDIA = BASE / UP\nSECRET_KEY = 'x'\n",
        },
    )
    assert told(findings)["static_root"] == "a/static (a/settings.py line 2)"
    assert told(findings)["media_root"] == "a/up loads (a/paths.py line 4)"
    assert findings.secret is None


def test_settings_in_components() -> None:
    """django-split-settings."""
    findings = with_settings(
        "from split_settings.tools import include\ninclude('parts/*.py')\n",
        {"a/parts/one.py": "SECRET_KEY = 'x'\n", "a/parts/two.py": "STATIC_URL = '/it/'\n"},
    )
    assert (told(findings)["secret_literal"], told(findings)["static_url"]) == (
        "a/parts/one.py line 1",
        "/it/ (a/parts/two.py line 1)",
    )


@pytest.mark.parametrize(
    "text",
    [
        "from pathlib import Path\nMEDIA_ROOT = Path(__file__).resolve().parent.parent / 'it is' / 'media'",
        "from pathlib import Path\nBASE = Path(__file__).resolve(strict=True).parents[1]\nMEDIA_ROOT = f'{BASE}/it is/media'",
        "import os\nBASE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))\nMEDIA_ROOT = os.path.join(BASE, 'it is', 'media/')",
        "import os.path as p\nHERE = p.dirname(__file__)\nMEDIA_ROOT = p.normpath(p.join(HERE, '..', 'it is/media'))",
        "import environ\nROOT = environ.Path(__file__) - 2\nMEDIA_ROOT = str(ROOT('it is/media'))",
        "import environ\nROOT = environ.Path(__file__) - 2\nMEDIA_ROOT = ROOT.path('it is').path('media')",
        "from pathlib import Path\nMEDIA_ROOT = str(Path(__file__).parent.parent.joinpath('it is', 'media'))",
        "import os\nfrom pathlib import Path\nTOP = Path(__file__).parent.parent\nMEDIA_ROOT = os.environ.get('M', TOP / 'it is/media')",
        "import os\nfrom pathlib import Path\nTOP = Path(__file__).parent.parent\nMEDIA_ROOT = os.environ.get('M') or TOP / 'it is/media'",
        "import os\nMEDIA_ROOT = '%s/it is/media' % os.path.dirname(os.path.dirname(__file__))",
        "import os\nMEDIA_ROOT = '{}/it is/media'.format(os.path.dirname(os.path.dirname(__file__)))",
    ],
)
def test_paths(text: str) -> None:
    """However a folder of the commit is put together."""
    findings = with_settings(text)
    assert findings.media_root
    assert findings.media_root.value == "it is/media"


def test_paths_elsewhere_and_paths_that_nobody_can_tell() -> None:
    """An absolute one is itself."""
    assert (
        told(with_settings("MEDIA_ROOT = '/srv/it is/media'"))["media_root"]
        == "/srv/it is/media (a/settings.py line 1)"
    )
    assert told(with_settings("MEDIA_ROOT = somewhere()"))["media_root"] == " (a/settings.py line 1)"
    assert with_settings("MEDIA_ROOT = ''").media_root is None


@pytest.mark.parametrize(
    ("text", "is_on"),
    [
        ("DEBUG = True", True),
        ("DEBUG = False", False),
        ("import os\nDEBUG = os.environ.get('DEBUG') == '1'", False),
        ("import os\nDEBUG = os.environ.get('DEBUG', '1') == '1'", True),
        ("import os\nDEBUG = bool(int(os.environ.get('DEBUG', 0)))", False),
        ("import os\nDEBUG = os.getenv('DEBUG', 'False').lower() in ('true', '1')", False),
        ("import os\nDEBUG = os.getenv('DEBUG', 'True').lower() in ('true', '1')", True),
        ("import os\nDEBUG = not os.environ.get('LIVE')", True),
        ("import os\nDEBUG = 'LIVE' not in os.environ", False),
        ("from decouple import config\nDEBUG = config('DEBUG', default='on', cast=bool)", True),
        ("import environ\nenv = environ.Env(DEBUG=(bool, False))\nDEBUG = env('DEBUG')", False),
        ("import sys\nDEBUG = 'runserver' in sys.argv", False),
        ("DEBUG = False\nfrom .local import *", False),
    ],
)
def test_whether_debug_is_on_by_itself(text: str, is_on: bool) -> None:
    """With nothing set in the environment; what nobody can tell is not claimed."""
    assert (with_settings(text).debug is not None) is is_on


@pytest.mark.parametrize(
    ("text", "database"),
    [
        (
            "DATABASES = {'default': {'ENGINE': 'django.contrib.gis.db.backends.postgis', 'NAME': 'a'}}",
            {"engine": "postgresql (a/settings.py line 1)", "name": "a", "gis": True},
        ),
        (
            "DATABASES = {}\nDATABASES['default'] = {'ENGINE': 'django.db.backends.mysql', 'HOST': 'db'}",
            {"engine": "mysql (a/settings.py line 2)"},
        ),
        (
            "import dj_database_url\nDATABASES = {'default': dj_database_url.parse('mysql://a@b/c')}",
            {"engine": "mysql (a/settings.py line 2)"},
        ),
        (
            "import dj_database_url\nfrom decouple import config\nDATABASES = {'default': config('DATABASE_URL', cast=dj_database_url.parse)}",
            {"url": "DATABASE_URL (a/settings.py line 3)"},
        ),
        (
            "import dj_database_url\nDATABASES = {'default': dj_database_url.config(default='sqlite:///it.db', env='DB')}",
            {"engine": "sqlite (a/settings.py line 2)", "url": "DB (a/settings.py line 2)", "path": "it.db"},
        ),
        (
            (
                "import os\nif os.environ.get('PG'):\n  DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql'}}\nelse:\n"
                "  DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'x.db'}}"
            ),
            {"engine": "postgresql (a/settings.py line 3)"},
        ),
        (
            "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}",
            {"engine": "sqlite (a/settings.py line 1)"},
        ),
        (
            "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/var/lib/a.db'}}",
            {"engine": "sqlite (a/settings.py line 1)"},
        ),
        (
            "DB = dict(ENGINE='django.db.backends.mysql')\nDATABASES = {'default': DB}",
            {"engine": "mysql (a/settings.py line 1)"},
        ),
        ("DATABASES = somewhere()", {}),
        (
            (
                "import os\nDATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'it', 'USER': 'us', "
                "'PASSWORD': os.environ['PW']}}"
            ),
            {"engine": "postgresql (a/settings.py line 2)", "parts": {"PW": "password"}, "name": "it", "user": "us"},
        ),
    ],
)
def test_databases(text: str, database: dict[str, str]) -> None:
    """Whichever way the default one is written down; another database than SQLite is what a server has."""
    assert _told(with_settings(text).database) == database


def test_a_local_module() -> None:
    """One that settings import if it is there, also if it is not called so."""
    assert told(with_settings("try:\n  from a.local_settings import *\nexcept ImportError: pass"))[
        "local_settings"
    ] == ("a/local_settings.py (a/settings.py line 2)")
    up = {"a/settings/__init__.py": "try:\n  from ..local import *\nexcept ImportError: pass"}
    assert told(with_settings("", up))["local_settings"] == "a/local.py (a/settings/__init__.py line 2)"
    assert told(with_settings("try:\n  from .settings_local import *\nexcept ImportError: pass"))["local_settings"] == (
        "a/settings_local.py (a/settings.py line 2)"
    )


def test_files_that_are_no_python() -> None:
    """They are passed over, and said."""
    findings = with_settings("print 'Python 2'\n")
    assert findings.problems == ("a/settings.py cannot be read as Python, and nothing was found in it",)
    assert with_settings("A = " + "(" * 3000).problems[0].startswith("a/settings.py cannot be read")


@pytest.mark.parametrize(
    "text",
    [
        "X = Y\nY = X\nMEDIA_ROOT = X",
        "MEDIA_ROOT = MEDIA_ROOT + 'x'",
        "from .settings import *\nA = 1",
        "A = 1 / 0",
        "A = '%s %s' % 1",
    ],
)
def test_riddles(text: str) -> None:
    """Circles and mistakes are nothing to fall over."""
    assert with_settings(text).problems == ()


# --- workers and servers -----------------------------------------------------------------


def test_what_is_made_of_the_files() -> None:
    """Translations that git has only as text, and what django-compressor leaves to a command."""
    german, serbian = "a/locale/de/LC_MESSAGES/django", "a/locale/sr_Latn/LC_MESSAGES/django"
    files = {f"{german}.po": "", f"{german}.mo": "", f"{serbian}.po": "", "docs/other.po": ""}
    it = with_settings("import sys\nCOMPRESS_OFFLINE = 'runserver' not in sys.argv\n", files)
    assert (it.translations, it.compressed) == (Place(f"{serbian}.po"), Place("a/settings.py", 2))
    it = with_settings("COMPRESS_OFFLINE = False", {**files, f"{serbian}.mo": ""})
    assert (it.translations, it.compressed) == (None, None)


def test_other_queues() -> None:
    """By the app that they install."""
    assert with_settings("INSTALLED_APPS = ['django_rq']").workers == (
        Worker("worker", "python manage.py rqworker default", Place("a/settings.py", 1)),
    )


@pytest.mark.parametrize(
    ("text", "requirements", "services"),
    [
        ("import os\nCELERY_BROKER_URL = os.environ['REDIS_URL']", "", ["redis at REDIS_URL (a/settings.py line 2)"]),
        (
            "import os\nBROKER_URL = os.environ.get('BROKER_URL', 'amqp://rabbit')",
            "",
            ["amqp at BROKER_URL (a/settings.py line 2)"],
        ),
        (
            "import os\nCELERY_BROKER_URL = os.environ.get('BROKER_URL', 'redis://localhost:6379/1')",
            "",
            ["redis (a/settings.py line 2)"],
        ),
        ("import os\nCELERY_BROKER_URL = os.environ.get('BROKER_URL', 'memory://')", "redis", []),
        (
            "import os\nCELERY_BROKER_URL = os.environ['BROKER_URL']",
            "redis",
            ["redis at BROKER_URL (a/settings.py line 2)"],
        ),
        ("import os\nCELERY_BROKER_URL = os.environ['BROKER_URL']", "", []),
        (
            "CACHES = {'default': {'BACKEND': 'django.core.cache.backends.redis.RedisCache'}}",
            "",
            ["redis (a/settings.py line 1)"],
        ),
        (
            "CHANNEL_LAYERS = {'default': {'BACKEND': 'channels_redis.core.RedisChannelLayer'}}",
            "",
            ["redis (a/settings.py line 1)"],
        ),
        ("CELERY_BROKER_URL = 'amqp://localhost'", "", ["amqp (a/settings.py line 1)"]),
        ("", "redis", []),
    ],
)
def test_services(text: str, requirements: str, services: list[str]) -> None:
    """What settings ask for beside the database, and by which variable; an address of their own machine needs none."""
    files = {"requirements.txt": f"django\n{requirements}\n"}
    assert _told(with_settings(text, files).services) == services


def test_a_broker_that_is_named_where_celery_is_made() -> None:
    """Settings need not know of it."""
    made = "import os\nfrom celery import Celery\napp = Celery('a', broker=os.environ.get('REDIS_URL'))\n"
    assert _told(with_settings("", {"a/celery.py": made}).services) == ["redis at REDIS_URL (a/celery.py line 3)"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_a_file_that_is_torn_anywhere(name: str, data: st.DataObject) -> None:
    """Whatever is cut out of a file, or written into it, nothing falls over."""
    files = dict(SAMPLES[name])
    path = data.draw(st.sampled_from(sorted(files)))
    text = files[path]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    files[path] = (
        text[:start] + data.draw(st.sampled_from(["", "(", "'", "\n", " = ", "None", "*", "é", "env("])) + text[end:]
    )
    for manage in manage_files(snapshot(files)):
        detect(snapshot(files), manage)


def test_asgi_where_both_are_there() -> None:
    """An asgi.py alone says nothing, as every project has one; what makes it needed does."""
    files = {"a/asgi.py": ENTRY.format("asgi", "a.settings"), "a/wsgi.py": ENTRY.format("wsgi", "a.settings")}
    assert with_settings("", files).interface is None
    assert told(with_settings("", {**files, "requirements.txt": "django\nuvicorn[standard]\n"}))["interface"] == (
        "uvicorn (requirements.txt line 2)"
    )
    files["a/asgi.py"] += "app = ProtocolTypeRouter({})\n"
    assert told(with_settings("", files))["interface"] == "ProtocolTypeRouter (a/asgi.py line 7)"
