"""Django projects in temporary folders, on SQLite and on a PostgreSQL of the tests' own, and the programs that run in them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fabdjango import onhost

REQUIRED = os.environ.get("FABDJANGO_REQUIRE_HOSTS") == "1"

SETTINGS = """\
import json, os

SECRET_KEY = 40 * "x"
ALLOWED_HOSTS = ["blog.example.com"]
INSTALLED_APPS = ["posts"]
DATABASES = json.loads(os.environ["DATABASES"])
if "mysql" in os.environ["DATABASES"]:
    # Django wants mysqlclient, which would have to be compiled.
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""

MIGRATION = """\
import os
from django.db import migrations, models


def wait(apps, schema_editor):
    "Wait until the test says go on."
    with open(os.environ["TOLD"], "w"):
        pass
    with open(os.environ["GO"]):
        pass


class Migration(migrations.Migration):
    dependencies = {dependencies!r}
    replaces = {replaces!r}
    operations = [{operations}]
"""

INITIAL = """migrations.CreateModel("Post", [
    ("id", models.BigAutoField(primary_key=True)),
    ("title", models.CharField(max_length=100)),
    ("text", models.TextField(null=True)),
])"""


def begin(name: str, folder: Path, environment: Mapping[str, str], /, **parameters: object) -> subprocess.Popen[str]:
    """Begin one of the programs as a step does; it is complete in its standard input, and has a process group of its own."""
    data = repr(json.dumps(parameters))
    text = f"import json as _json\nPARAMETERS = _json.loads({data})\n{onhost.source(name)}\n"
    process = subprocess.Popen(
        [sys.executable, "-"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdin
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


@dataclasses.dataclass(frozen=True)
class Project:
    """
    A Django project with one app, called posts; ``databases`` is its DATABASES, ``environ`` more variables.

    ``superuser`` is the way to its PostgreSQL for the test itself.
    """

    path: Path
    databases: Mapping[str, Any]
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict)
    superuser: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def write(self, name: str, *operations: str, after: str = "", replaces: tuple[str, ...] = ()) -> None:
        """A migration made of operations, as Python source, after the one called ``after``."""
        text = MIGRATION.format(
            dependencies=[("posts", after)] if after else [],
            operations=", ".join(operations),
            replaces=[("posts", each) for each in replaces],
        )
        (self.path / "posts" / "migrations" / f"{name}.py").write_text(text, encoding="utf-8")

    def remove(self, name: str) -> None:
        """Take a migration away."""
        (self.path / "posts" / "migrations" / f"{name}.py").unlink()

    @property
    def environment(self) -> dict[str, str]:
        """What a program of the project finds around it."""
        return {
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "blog.settings",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATABASES": json.dumps(self.databases),
            "FABDJANGO_RUN": "R1",
            "TOLD": str(self.path / "told"),
            "GO": str(self.path / "go"),
            **self.environ,
        }

    def start(self, name: str, /, **parameters: object) -> subprocess.Popen[str]:
        """Begin one of the programs as a step does."""
        return begin(name, self.path, self.environment, **parameters)

    def run(self, name: str, /, **parameters: object) -> tuple[int, str]:
        """The exit status and the output of a program."""
        process = self.start(name, **parameters)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def plan(self) -> dict[str, Any]:
        """The answer of the one start of Django."""
        status, output = self.run(
            "django_start",
            check="ERROR",
            deploy=False,
            collectstatic="never",
            commit="",
            plan=True,
            app="",
            static="",
            answer=str(self.path / "django.json"),
        )
        assert status == 0, output
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        assert found == json.loads((self.path / "django.json").read_text())
        return found

    def parameters(self, **more: object) -> dict[str, object]:
        """What migrate.py is told."""
        return {
            "action": "migrate",
            "project": "blog",
            "by": "ada@laptop",
            "lock_timeout": 20,
            "lock_file": str(self.path / "run" / "migrate.lock"),
            "mark": str(self.path / "run" / "migrate.json"),
            "journal": str(self.path / "journal.jsonl"),
            "entry": {"event": "migrate", "release": "7-0123456789ab", "by": "ada@laptop"},
            "expected": None,
            "target_known": [],
            **more,
        }

    def migrate(self, **more: object) -> tuple[int, str, dict[str, Any]]:
        """Exit status, output and answer of migrate.py."""
        status, output = self.run("migrate", **self.parameters(**more))
        return status, output, json.loads(output.splitlines()[-1])

    def reversal(self, *known: str) -> list[dict[str, Any]]:
        """What going back to a release with these migrations would do."""
        status, output = self.run("reverse_plan", target_known=list(known))
        assert status == 0, output
        found: list[dict[str, Any]] = json.loads(output.splitlines()[-1])["migrations"]
        return found

    def journal(self) -> list[tuple[str, list[str]]]:
        """(result, migrations) of every entry."""
        lines = (self.path / "journal.jsonl").read_text().splitlines()
        return [(entry["result"], entry["migrations"]) for entry in map(json.loads, lines)]

    def hold(self, *statements: str) -> Any:
        """A session that has run these, and holds what they have locked until it is closed."""
        database = self.databases["default"]
        if database["ENGINE"].endswith("sqlite3"):
            session: Any = sqlite3.connect(database["NAME"], isolation_level=None)
        else:
            way = {"host": database["HOST"], "user": "postgres", **self.superuser}
            session = psycopg.connect(**way, dbname=database["NAME"], autocommit=True)
        for each in statements:
            session.execute(each)
        return session

    def applied(self) -> list[str]:
        """The migrations that the database says it has."""
        try:
            session = self.hold()
            return [str(name) for (name,) in session.execute("SELECT name FROM django_migrations ORDER BY id")]
        except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
            return []
        finally:
            session.close()

    def sql(self, *statements: str) -> None:
        """Run statements in the project's database."""
        self.hold("BEGIN", *statements, "COMMIT").close()


def make_project(path: Path, databases: Mapping[str, Any], superuser: Mapping[str, Any] | None = None) -> Project:
    """A project with its first migration."""
    for name, text in {
        "blog/__init__.py": "",
        "blog/settings.py": SETTINGS,
        "posts/__init__.py": "",
        "posts/migrations/__init__.py": "",
    }.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, encoding="utf-8")
    (path / "run").mkdir()
    for fifo in ("told", "go"):
        os.mkfifo(path / fifo)
    project = Project(path, databases, superuser=superuser or {})
    project.write("0001_initial", INITIAL)
    return project


@pytest.fixture
def lite(tmp_path: Path) -> Project:
    """A project on SQLite; its folder has a space and a quote in its name."""
    path = tmp_path / "it's a site"
    return make_project(path, {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path / "db.sqlite3")}})


def need_root(*, there: object = True, package: str = "") -> None:
    """Skip, or fail where nothing may be skipped, without root or without what a Debian package brings."""
    why = "needs root" if there else f"not installed: apt-get install {package}"
    if not there or os.getuid() != 0:
        if REQUIRED:
            pytest.fail(why)
        pytest.skip(why)


def free_port() -> str:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return str(held.getsockname()[1])


@contextlib.contextmanager
def server(*options: str, access: str = "") -> Iterator[Path]:
    """
    The folder of the socket of a PostgreSQL of our own, gone afterwards.

    ``options`` are more words for the server; ``access`` is its pg_hba.conf, if not everybody may come in.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    need_root(there=found, package="postgresql")
    programs, account = found[-1].parent, pwd.getpwnam("postgres")
    folder = Path(tempfile.mkdtemp(prefix="fabdjango-pg-"))
    os.chown(folder, account.pw_uid, account.pw_gid)
    folder.chmod(0o755)

    def as_postgres(*words: str | Path) -> None:
        subprocess.run(
            words,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
        )

    data = folder / "data"
    as_postgres(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--no-locale")
    if access:
        (data / "pg_hba.conf").write_text(access)
    control = (programs / "pg_ctl", "-D", data, "-w")
    words = shlex.join(["-k", str(folder), "-c", "fsync=off", *options])
    as_postgres(*control, "-o", words, "-l", folder / "log", "start")
    try:
        yield folder
    finally:
        as_postgres(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """The folder of the socket of a PostgreSQL that lets everybody in."""
    with server("-h", "") as folder:
        yield folder


@pytest.fixture
def postgres(tmp_path: Path, cluster: Path, request: pytest.FixtureRequest) -> Project:
    """A project on a PostgreSQL database of its own."""
    name = f"blog{abs(hash(request.node.nodeid))}"
    subprocess.run(["psql", "-q", "-h", cluster, "-U", "postgres", "-c", f"CREATE DATABASE {name}"], check=True)
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": name, "USER": "postgres", "HOST": str(cluster)}
    return make_project(tmp_path / "it's a site", {"default": database})


@dataclasses.dataclass(frozen=True)
class Strict:
    """A PostgreSQL that wants passwords over TCP, as Debian's does; its superuser needs none on the socket in ``folder``."""

    folder: Path
    port: str

    @property
    def superuser(self) -> dict[str, Any]:
        """How psycopg gets in as the superuser."""
        return {"host": str(self.folder), "port": self.port, "user": "postgres"}


@pytest.fixture(scope="session")
def strict() -> Iterator[Strict]:
    """One for all tests that use it."""
    port = free_port()
    access = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    with server("-c", "listen_addresses=127.0.0.1", "-p", port, access=access) as folder:
        yield Strict(folder, port)


@pytest.fixture
def owned(tmp_path: Path, strict: Strict, request: pytest.FixtureRequest) -> Project:
    """A project whose role owns its database and nothing else, and logs in over TCP with a password."""
    name = f"it's {abs(hash(request.node.nodeid))}"
    with psycopg.connect(**strict.superuser, dbname="postgres", autocommit=True) as session:
        session.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'canary-5up3r'")
        session.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
        session.execute(f'REVOKE CONNECT, TEMPORARY ON DATABASE "{name}" FROM PUBLIC')
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": name,
        "PASSWORD": "canary-5up3r",
        "HOST": "127.0.0.1",
        "PORT": strict.port,
    }
    return make_project(tmp_path / "it's a site", {"default": database}, strict.superuser)


@pytest.fixture(params=["lite", "postgres"])
def project(request: pytest.FixtureRequest) -> Project:
    """The same on both databases."""
    found: Project = request.getfixturevalue(request.param)
    return found
