"""Small Django projects in the shapes that real ones have: path to text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["SAMPLES", "commit", "start_project"]

MANAGE = """\
#!/usr/bin/env python
import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{}")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""
ENTRY = """\
import os

from django.core.{0} import get_{0}_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{1}")
application = get_{0}_application()
"""
SQLITE = 'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}'

# What wagtail start makes: settings for a server say little, and leave the secrets to a module that is not in git.
WAGTAIL: Final = {
    "manage.py": MANAGE.format("bakery.settings.dev"),
    "requirements.txt": "Django>=5.2,<5.3\nwagtail>=7.0,<7.1\n",
    "bakery/__init__.py": "",
    "bakery/wsgi.py": ENTRY.format("wsgi", "bakery.settings.dev"),
    "bakery/settings/__init__.py": "",
    "bakery/settings/base.py": f"""\
import os

PROJECT_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASE_DIR = os.path.dirname(PROJECT_DIR)
INSTALLED_APPS = ["home", "wagtail", "django.contrib.staticfiles"]
WSGI_APPLICATION = "bakery.wsgi.application"
{SQLITE.replace('BASE_DIR / "db.sqlite3"', 'os.path.join(BASE_DIR, "db.sqlite3")')}
STORAGES = {{
    "default": {{"BACKEND": "django.core.files.storage.FileSystemStorage"}},
    "staticfiles": {{"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}},
}}
STATIC_ROOT = os.path.join(BASE_DIR, "static")
STATIC_URL = "/static/"
MEDIA_ROOT = os.path.join(BASE_DIR, "media")
MEDIA_URL = "/media/"
""",
    "bakery/settings/dev.py": """\
from .base import *

DEBUG = True
SECRET_KEY = "django-insecure-of-developers"
ALLOWED_HOSTS = ["*"]
""",
    "bakery/settings/production.py": """\
from .base import *

DEBUG = False
STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"

try:
    from .local import *
except ImportError:
    pass
""",
}

# The layout of cookiecutter-django: django-environ, settings by kind of machine, celery with its schedule in the database.
COOKIECUTTER: Final = {
    "manage.py": """\
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.local")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        raise
    sys.path.append(str(Path(__file__).parent.resolve() / "shop"))
    execute_from_command_line(sys.argv)
""",
    "pyproject.toml": """\
[project]
name = "shop"
version = "1"
requires-python = ">=3.12,<3.14"
dependencies = ["django==5.2", "celery", "psycopg[c]"]

[dependency-groups]
dev = ["pytest"]
production = ["gunicorn"]
""",
    "uv.lock": """\
version = 1

[[package]]
name = "django"
version = "5.2"

[[package]]
name = "gunicorn"
version = "23.0.0"

[[package]]
name = "psycopg"
version = "3.2"
""",
    "config/__init__.py": 'from .celery_app import app as celery_app\n\n__all__ = ("celery_app",)\n',
    "config/celery_app.py": """\
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.local")
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
""",
    "config/wsgi.py": ENTRY.format("wsgi", "config.settings.production"),
    "config/settings/__init__.py": "",
    "config/settings/base.py": """\
from pathlib import Path

import environ

BASE_DIR = Path(__file__).resolve(strict=True).parent.parent.parent
APPS_DIR = BASE_DIR / "shop"
env = environ.Env()
DEBUG = env.bool("DJANGO_DEBUG", False)
DATABASES = {"default": env.db("DATABASE_URL")}
DATABASES["default"]["ATOMIC_REQUESTS"] = True
WSGI_APPLICATION = "config.wsgi.application"
DJANGO_APPS = ["django.contrib.auth", "django.contrib.staticfiles"]
THIRD_PARTY_APPS = [
    "crispy_forms",
    "django_celery_beat",
]
INSTALLED_APPS = DJANGO_APPS + THIRD_PARTY_APPS
STATIC_ROOT = str(BASE_DIR / "staticfiles")
STATIC_URL = "/static/"
MEDIA_ROOT = str(APPS_DIR / "media")
MEDIA_URL = "/media/"
REDIS_URL = env("REDIS_URL", default="redis://redis:6379/0")
CELERY_BROKER_URL = REDIS_URL
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
""",
    "config/settings/local.py": """\
from .base import *
from .base import env

DEBUG = True
SECRET_KEY = env("DJANGO_SECRET_KEY", default="of developers")
ALLOWED_HOSTS = ["localhost"]
""",
    "config/settings/production.py": """\
from .base import *
from .base import env

SECURE_SSL_REDIRECT = env.bool("DJANGO_SECURE_SSL_REDIRECT", default=True)
SECRET_KEY = env("DJANGO_SECRET_KEY")
ALLOWED_HOSTS = env.list("DJANGO_ALLOWED_HOSTS", default=["shop.example.com"])
INSTALLED_APPS += ["anymail"]
ANYMAIL = {"MAILGUN_API_KEY": env("MAILGUN_API_KEY"), "API": env("MAILGUN_API_URL", default="https://api")}
ADMIN_URL = env("DJANGO_ADMIN_URL")
""",
}

# A site in a folder of its own beside the rest; decouple, and the parts of a database's address one by one.
BELOW: Final = {
    "README.md": "",
    "package.json": "{}",
    "backend/manage.py": MANAGE.format("core.settings"),
    "backend/requirements.txt": "-r base.txt\ngunicorn==23.0.0\n",
    "backend/base.txt": "django>=5\npython-decouple\npsycopg2-binary\n",
    "backend/core/__init__.py": "",
    "backend/core/wsgi.py": ENTRY.format("wsgi", "core.settings"),
    "backend/core/asgi.py": ENTRY.format("asgi", "core.settings"),
    "backend/core/settings.py": """\
from pathlib import Path

from decouple import Csv, config

BASE_DIR = Path(__file__).resolve().parents[1]
SECRET_KEY = config("APP_SECRET")
DEBUG = config("DEBUG", default=True, cast=bool)
ALLOWED_HOSTS = config("ALLOWED_HOSTS", default="localhost", cast=Csv())
WSGI_APPLICATION = "core.wsgi.app"
DATABASES = {
    "default": {
        "ENGINE": config("DB_ENGINE", default="django.db.backends.sqlite3"),
        "NAME": config("DB_NAME"),
        "USER": config("DB_USER"),
        "PASSWORD": config("DB_PASSWORD"),
        "HOST": config("DB_HOST", default="localhost"),
        "PORT": config("DB_PORT", default="5432"),
    }
}
STATIC_URL = "assets/"
STATIC_ROOT = BASE_DIR / "assets"
MEDIA_ROOT = BASE_DIR / "uploads"
MEDIA_URL = "uploads/"
""",
}

# Channels, in a project without wsgi.py; sqlite beside code in a folder of its own.
CHANNELS: Final = {
    "manage.py": MANAGE.format("chat.settings"),
    "requirements.txt": "Django\nchannels\n",
    ".python-version": "3.12\n",
    "chat/__init__.py": "",
    "chat/asgi.py": """\
import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "chat.settings"
application = ProtocolTypeRouter({"http": get_asgi_application()})
""",
    "chat/settings.py": """\
import os

BASE_DIR = os.path.dirname(os.path.dirname(__file__))
SECRET_KEY = os.environ["CHAT_KEY"]
DEBUG = os.getenv("CHAT_DEBUG", "") == "yes"
ALLOWED_HOSTS = os.environ.get("CHAT_HOSTS", "").split(" ")
INSTALLED_APPS = ["daphne", "channels", "rooms"]
ASGI_APPLICATION = "chat.asgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(BASE_DIR, "var", "chat.db")}}
STATIC_ROOT = os.path.join(BASE_DIR, "static")
""",
}

# dj-database-url, settings that depend on where they run, and celery with a schedule of its own.
HEROKU: Final = {
    "manage.py": MANAGE.format("ledger.settings"),
    "requirements.txt": "django==5.2\ndj-database-url\ngunicorn\nwhitenoise\ncelery[redis]\npsycopg2\n",
    "runtime.txt": "python-3.12.4\n",
    "ledger/__init__.py": "from .celery import app\n",
    "ledger/celery.py": """\
from celery import Celery
from celery.schedules import crontab

app = Celery("ledger")
app.conf.beat_schedule = {"nightly": {"task": "ledger.close", "schedule": crontab(hour=1)}}
""",
    "ledger/wsgi.py": ENTRY.format("wsgi", "ledger.settings"),
    "ledger/settings.py": f"""\
import os
from pathlib import Path

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = "DEBUG" in os.environ
SECRET_KEY = os.environ.get("SECRET_KEY", "only for trying")
ALLOWED_HOSTS = [".ledger.example.com", "localhost"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "whitenoise.middleware.WhiteNoiseMiddleware"]
if "DATABASE_URL" in os.environ:
    DATABASES = {{"default": dj_database_url.config(conn_max_age=600)}}
else:
    {SQLITE}
if DEBUG:
    MEDIA_ROOT = "/tmp/of-developers"
    SECRET_KEY = os.environ["NOT_ON_A_SERVER"]
STATIC_URL = "https://cdn.example.com/"
STATICFILES_STORAGE = "whitenoise.storage.CompressedManifestStaticFilesStorage"
STATIC_ROOT = BASE_DIR.joinpath("static")
""",
}

SAMPLES: Final = {
    "wagtail": WAGTAIL,
    "cookiecutter": COOKIECUTTER,
    "below": BELOW,
    "channels": CHANNELS,
    "heroku": HEROKU,
}


def start_project(folder: Path, name: str) -> dict[str, str]:
    """What django-admin makes here."""
    subprocess.run([sys.executable, "-m", "django", "startproject", name, folder], check=True, capture_output=True)
    return read_project(folder)


def read_project(folder: Path) -> dict[str, str]:
    """Every text of a project on disk."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


def commit(folder: Path, files: dict[str, str], remote: str = "") -> Path:
    """A git repository with one commit of these files."""
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    commands = [
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        [*identity, "commit", "--quiet", "-m", "It's the first"],
    ]
    if remote:
        commands.append(["remote", "add", "origin", remote])
    for words in commands:
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return folder
