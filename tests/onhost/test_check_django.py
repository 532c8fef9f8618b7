"""What a check learns from a start of Django: its own checks, and whether the databases can be written; nothing is left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fabdjango import onhost
from tests.onhost.conftest import Project, make_project

SQLITE = "django.db.backends.sqlite3"


def started(project: Project) -> dict[str, Any]:
    """The answer of the program."""
    status, output = project.run("check_django")
    assert status == 0, output
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def database(project: Project) -> dict[str, Any]:
    """What is said of the one database, without where it is."""
    (found,) = started(project)["databases"]
    return {name: value for name, value in found.items() if name not in ("alias", "vendor", "name", "place")}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in [folder, *folder.rglob("*")]}


def with_setting(project: Project, text: str) -> Project:
    """The same with one more line in its settings."""
    settings = project.path / "blog/settings.py"
    settings.write_text(settings.read_text() + text)
    return project


def test_a_database_that_can_be_written(project: Project) -> None:
    """On SQLite and on PostgreSQL; nothing is in it afterwards, and no file was touched."""
    if project.databases["default"]["ENGINE"].endswith("sqlite3"):
        sqlite3.connect(project.databases["default"]["NAME"]).execute("CREATE TABLE it (s)").connection.close()
    before = files(project.path)
    assert database(project) == {}
    assert files(project.path) == before
    assert project.applied() == []


def test_what_the_checks_say(lite: Project) -> None:
    """Those for deployments too, each with its id; what is silenced is not told."""
    with_setting(lite, 'SILENCED_SYSTEM_CHECKS = ["security.W003"]\n')
    found = {each["id"]: each for each in started(lite)["messages"]}
    assert "security.W003" not in found
    assert (found["security.W002"]["level"], found["security.W002"]["about"]) == (30, "")
    assert found["security.W002"]["text"].startswith("You do not have 'django.middleware.clickjacking")


# --- SQLite ------------------------------------------------------------------


def test_a_file_that_is_not_there_is_not_made(lite: Project) -> None:
    """Opening it would."""
    place = lite.databases["default"]["NAME"]
    assert database(lite) == {"error": f"there is no file {place}", "missing": True}
    assert not Path(place).exists()


# What another account may not read is loaded before.
BECOME = """import json, os, re, socket, sys
sys.path.insert(0, os.getcwd())
import django
django.setup()
from django.core import checks
from django.db import connections
checks.run_checks(include_deployment_checks=True)
connections["default"].vendor
os.setgroups([])
os.setgid({gid})
os.setuid({uid})
PARAMETERS = {{}}
"""


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_file_that_may_not_be_written(which: str) -> None:
    """By the account that the site runs as; SQLite writes beside its file too."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become an account that may not write")
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="it's a site") as folder:
        place = Path(folder, "data", "db.sqlite3")
        project = make_project(Path(folder, "site"), {"default": {"ENGINE": SQLITE, "NAME": str(place)}})
        place.parent.mkdir()
        project.hold("CREATE TABLE it (s)").close()
        Path(folder).chmod(0o755)
        place.chmod(0o644 if which == "file" else 0o666)
        place.parent.chmod(0o777 if which == "file" else 0o755)
        done = subprocess.run(
            [sys.executable, "-"],
            input=BECOME.format(uid=nobody.pw_uid, gid=nobody.pw_gid) + onhost.source("check_django"),
            cwd=project.path,
            env=project.environment,
            capture_output=True,
            text=True,
            check=True,
        )
    (found,) = json.loads(done.stdout.splitlines()[-1])["databases"]
    blocked = place if which == "file" else place.parent
    assert (found["error"], found["path"]) == (f"may not write {blocked}", str(blocked))


def test_a_file_that_somebody_has_locked(lite: Project) -> None:
    """The driver's own words."""
    lite.databases["default"]["OPTIONS"] = {"timeout": 0.1}
    session = lite.hold("CREATE TABLE it (s)", "BEGIN EXCLUSIVE")
    assert database(lite) == {"error": "database is locked"}
    session.close()


def test_a_file_with_a_log_is_opened_only_if_it_is_open(lite: Project) -> None:
    """The first to open one makes two files beside it, and the last takes them away again."""
    session = lite.hold("PRAGMA journal_mode=WAL", "CREATE TABLE it (s)")
    assert database(lite) == {}
    session.close()
    before = files(lite.path)
    assert database(lite) == {"note": "nobody has it open, and it was not opened either"}
    assert files(lite.path) == before


# --- a server ----------------------------------------------------------------


def moved(project: Project, **values: object) -> Project:
    """The same with another default database."""
    return dataclasses.replace(project, databases={"default": {**project.databases["default"], **values}})


def test_a_role_that_may_not_make_tables(postgres: Project) -> None:
    """As in the schema public of PostgreSQL 15 and later: it can be written, but migrations cannot run."""
    role = f"it{postgres.databases['default']['NAME']}"
    postgres.sql(f'CREATE ROLE "{role}" LOGIN', "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        assert database(moved(postgres, USER=role)) == {"schema": "public", "user": role}
        postgres.sql(f'GRANT CREATE ON SCHEMA public TO "{role}"')
        assert database(moved(postgres, USER=role)) == {}
    finally:
        postgres.sql(f'DROP OWNED BY "{role}"', f'DROP ROLE "{role}"')


def test_a_database_that_is_read_only(postgres: Project) -> None:
    """As a standby is."""
    name = postgres.databases["default"]["NAME"]
    session = postgres.hold()
    session.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    session.close()
    assert database(postgres) == {"error": "cannot execute CREATE TABLE in a read-only transaction"}


def test_nothing_listens(postgres: Project) -> None:
    """A driver could wait for minutes."""
    found = database(moved(postgres, HOST="127.0.0.1", PORT="9"))
    assert found == {"error": "127.0.0.1:9: Connection refused"}


def test_a_password_in_the_drivers_words_is_hidden(postgres: Project) -> None:
    """Whatever else a driver says."""
    name = "canary-5up3r"
    found = database(moved(postgres, NAME=name, PASSWORD=name))
    assert name not in found["error"]
    assert 'database "********" does not exist' in found["error"]


def test_settings_that_miss_a_variable(lite: Project) -> None:
    """The error names it."""
    with_setting(lite, 'SECRET_KEY = os.environ["BLOG_SECRET_KEY"]\n')
    status, output = lite.run("check_django")
    assert status == 1
    assert (
        output.splitlines()[-1] == "the settings module blog.settings cannot be imported: KeyError: 'BLOG_SECRET_KEY'"
    )
