"""The host's own PostgreSQL: role and database are made once, whatever dies, and nobody else's are touched."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pytest

from tests.onhost.conftest import Strict, begin, free_port
from tests.onhost.watching import command_lines

# psql, but for one word it stops before or after it has done what it was told, until somebody kills it.
SLOW = """\
#!/bin/sh
text=$(cat; echo x)
case $text in *"$STOP_WORD"*) ;; *) STOP= ;; esac
[ "$STOP" != before ] || { : > "$STOPPED"; exec sleep 60; }
printf '%s' "${text%x}" | REAL "$@" || exit
[ "$STOP" != after ] || { : > "$STOPPED"; exec sleep 60; }
"""


@dataclass
class Host:
    """A PostgreSQL as Debian has it, and the folder of a site."""

    folder: Path
    port: str
    site: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the program finds around it, in place of the default cluster."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {"PATH": path, "PGHOST": str(self.folder), "PGPORT": self.port, "FABDJANGO_RUN": "R1"}

    def start(self, environment: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        """Begin it."""
        given = {
            "engine": "postgresql",
            "owner": "",
            "store": str(self.site / "shared" / "generated.env"),
            "variables": {"DATABASE_URL": "url"},
            "name": 'it\'s a "blog"',
            "user": "it's-a",
            "path": "",
            "values": {},
            "options": {},
            **more,
        }
        return begin("database_create", self.site, {**self.environment, **(environment or {})}, **given)

    def create(self, **more: Any) -> tuple[int, str]:
        """Exit status and output."""
        process = self.start(**more)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    @property
    def stored(self) -> str:
        """The file of values."""
        return (self.site / "shared" / "generated.env").read_text()

    @property
    def password(self) -> str:
        """The one in the address that is kept."""
        return unquote(urlsplit(self.stored.split("'", 1)[1]).password or "")

    def admin(self, *statements: str) -> list[Any]:
        """What the superuser is told; the rows of the last one."""
        commands = ";\n".join(statements)
        done = subprocess.run(
            ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres"],
            input=commands,
            capture_output=True,
            text=True,
            check=True,
            env={**self.environment, "PATH": os.environ["PATH"]},
            cwd="/",
        )
        return done.stdout.splitlines()

    def log_in(self, password: str = "", user: str = "it's-a", name: str = 'it\'s a "blog"') -> psycopg.Connection[Any]:
        """A session over TCP."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, password=password or self.password, dbname=name
        )


@pytest.fixture
def host(strict: Strict, tmp_path: Path) -> Iterator[Host]:
    """A site that has nothing yet; afterwards the server has nothing of it."""
    programs = strict.folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "psql").write_text(SLOW.replace("REAL", str(shutil.which("psql"))))
    (programs / "psql").chmod(0o755)
    found = Host(strict.folder, strict.port, tmp_path)
    names = found.admin(_DATABASES), found.admin(_ROLES)
    yield found
    for name in set(found.admin(_DATABASES)) - set(names[0]):
        found.admin(f'DROP DATABASE "{name.replace(chr(34), 2 * chr(34))}" WITH (FORCE)')
    for name in set(found.admin(_ROLES)) - set(names[1]):
        found.admin(f'DROP ROLE "{name}"')


_DATABASES = "SELECT datname FROM pg_database"
_ROLES = "SELECT rolname FROM pg_roles"


def said(output: str) -> list[str]:
    """What was reported."""
    return [line.removeprefix("\036R1 ") for line in output.rstrip("\n").split("\n")]


MADE = [
    "note made the role it's-a",
    'note made the database it\'s a "blog"',
    'note closed the database it\'s a "blog" to other roles',
]


def test_made_once(host: Host) -> None:
    """The role can log in with what is kept and may do all in its database; a second run finds it so and changes nothing."""
    status, output = host.create()
    assert (status, said(output)) == (
        0,
        [*MADE, f"note kept DATABASE_URL in {host.site}/shared/generated.env: the next release has it"],
    )
    assert stat.S_IMODE((host.site / "shared" / "generated.env").stat().st_mode) == 0o640
    before = host.stored, host.admin("SELECT rolname, rolpassword FROM pg_authid")
    assert len(host.password) > 40
    assert host.password not in output
    with host.log_in() as session:
        session.execute("CREATE TABLE post (title text)")
        found = session.execute("SHOW server_encoding").fetchone()
        assert found == ("UTF8",)
        assert session.execute("SELECT upper('straße ç')").fetchone() == ("STRAßE Ç",)
    assert said(host.create()[1]) == ["unchanged the database is there, and its variables are"]
    assert (host.stored, host.admin("SELECT rolname, rolpassword FROM pg_authid")) == before


def test_the_address_is_read_back(host: Host) -> None:
    """By those who read it: percent signs stand for what an address cannot carry."""
    host.create(variables={"URL": "url", "N": "name", "U": "user", "P": "password", "H": "host", "PORT": "port"})
    values = dict(line.removeprefix("export ").split("=", 1) for line in host.stored.splitlines())
    found = urlsplit(values["URL"].strip("'"))
    assert (found.scheme, found.hostname, str(found.port)) == ("postgres", "127.0.0.1", host.port)
    assert (unquote(found.username or ""), unquote(found.path)) == ("it's-a", '/it\'s a "blog"')
    assert [values[name] for name in ("N", "U", "P", "H", "PORT")] == [
        "'it'\\''s a \"blog\"'",
        "'it'\\''s-a'",
        f"'{found.password}'",
        "'127.0.0.1'",
        f"'{host.port}'",
    ]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("word", ["CREATE ROLE", "CREATE DATABASE", "REVOKE"])
def test_killed(host: Host, moment: str, word: str) -> None:
    """The next run finishes, with the password that was kept first."""
    # psql runs as postgres, and may write there.
    stopped = host.folder / "stopped"
    process = host.start({"STOP": moment, "STOP_WORD": word, "STOPPED": str(stopped)})
    while not stopped.exists():
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stopped.unlink()
    kept = host.password
    status, output = host.create()
    assert status == 0, output
    assert host.password == kept
    host.log_in(kept).close()
    assert said(host.create()[1]) == ["unchanged the database is there, and its variables are"]


def test_a_database_of_somebody_else(host: Host) -> None:
    """It is named, and nothing is changed: no role, no password."""
    host.admin("CREATE ROLE ada LOGIN", 'CREATE DATABASE "it\'s a ""blog""" OWNER ada')
    before = host.admin("SELECT rolname, rolpassword FROM pg_authid")
    status, output = host.create()
    assert (status, output.splitlines()) == (
        1,
        [
            "the database it's a \"blog\" is there and belongs to ada, not to it's-a",
            "cure: choose another fabdjango.database.name; or if it is the site's, leave it as it is, with fabdjango.database.engine: none, and give the project its address by env_file or secrets",
        ],
    )
    assert host.admin("SELECT rolname, rolpassword FROM pg_authid") == before
    assert not (host.site / "shared").exists()


def test_a_role_of_somebody_else(host: Host) -> None:
    """Another program may log in with its password, which is not known here."""
    host.admin("CREATE ROLE \"it's-a\" LOGIN PASSWORD 'theirs'", 'CREATE DATABASE "it\'s a ""blog""" OWNER "it\'s-a"')
    status, output = host.create()
    assert (status, output.splitlines()[0]) == (
        1,
        "the role it's-a is there, and its password is not kept on this host: it may be somebody else's",
    )
    host.log_in("theirs").close()
    assert not (host.site / "shared").exists()


def test_a_password_that_has_changed(host: Host) -> None:
    """What is kept is what serves, so the role gets it again; a role that may not log in may do so again."""
    host.create()
    kept = host.stored
    for spoil in ("PASSWORD 'another'", "NOLOGIN"):
        host.admin(f'ALTER ROLE "it\'s-a" {spoil}')
        status, output = host.create()
        assert (status, said(output)) == (0, ["note gave the role it's-a the password that is kept here"])
        assert host.stored == kept
        host.log_in().close()


def test_another_variable(host: Host) -> None:
    """The password stays what it was, also if the address is now called otherwise; other values stay."""
    (host.site / "shared").mkdir()
    (host.site / "shared" / "generated.env").write_text("export SECRET_KEY='it'\\''s'\n")
    host.create()
    kept = host.stored
    assert kept.startswith("export SECRET_KEY='it'\\''s'\n")
    status, output = host.create(variables={"DB_URL": "url", "DB_PASSWORD": "password"})
    assert (status, said(output)) == (
        0,
        [f"note kept DB_URL, DB_PASSWORD in {host.site}/shared/generated.env: the next release has them"],
    )
    assert host.stored.startswith(kept)
    password = host.stored.split("DB_PASSWORD='")[1].split("'")[0]
    host.log_in(password).close()


def test_the_password_is_on_no_command_line(host: Host) -> None:
    """Neither while it is made nor while it is tried."""
    with command_lines() as seen:
        assert host.create()[0] == 0
    assert any("psql" in line for line in seen)
    assert [line for line in seen if host.password in line] == []


def test_the_owner_gets_the_file(host: Host) -> None:
    """Root writes nothing itself in a folder of the owner's, and reads nothing there that the owner could not."""
    account = "nobody"
    host.site.chmod(0o755)
    for parent in host.site.parents:
        if parent.stat().st_mode & 0o7 < 5 and parent != Path("/"):
            parent.chmod(0o755)
    (host.site / "shared").mkdir()
    shutil.chown(host.site / "shared", account)
    secret = host.site / "secret.env"
    secret.write_text("export DATABASE_URL='postgres://it%27s-a:stolen@127.0.0.1/x'\n")
    secret.chmod(0o600)
    (host.site / "shared" / "generated.env").symlink_to(secret)
    status, output = host.create(owner=account)
    assert (status, "cannot be read or written: PermissionError" in output) == (1, True)
    (host.site / "shared" / "generated.env").unlink()
    assert host.create(owner=account)[0] == 0
    assert (host.site / "shared" / "generated.env").owner() == account


def test_a_server_that_is_not_there(host: Host) -> None:
    """Nothing is kept for it."""
    process = host.start({"PGPORT": free_port()})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.startswith("PostgreSQL on the host does not do as it is told: ")
    assert not (host.site / "shared").exists()


def elsewhere(host: Host, password: str) -> dict[str, Any]:
    """What a url of another host's database says."""
    values = {
        "url": f"postgres://ada:{password}@127.0.0.1:{host.port}/theirs",
        "host": "127.0.0.1",
        "port": host.port,
        "user": "ada",
        "password": password,
        "name": "theirs",
    }
    return {"values": values, "variables": {"DATABASE_URL": "url"}}


def test_elsewhere(host: Host) -> None:
    """Its address is kept once it lets this host in; nothing is made there."""
    host.admin("CREATE ROLE ada LOGIN PASSWORD 'it''s'", "CREATE DATABASE theirs OWNER ada")
    databases = host.admin(_DATABASES)
    with command_lines() as seen:
        status, output = host.create(**elsewhere(host, "wrong-canary"))
    assert status == 1
    assert output.startswith(f"the database at 127.0.0.1:{host.port} does not let this host in: ")
    assert not (host.site / "shared").exists()
    assert [line for line in seen if "wrong-canary" in line] == []
    status, output = host.create(**elsewhere(host, "it's"))
    assert (status, len(said(output))) == (0, 1)
    assert said(host.create(**elsewhere(host, "it's"))[1]) == ["unchanged the database is there, and its variables are"]
    assert host.admin(_DATABASES) == databases


def test_sqlite(host: Host) -> None:
    """Its folder, and its address; the file is the project's to make."""
    path = host.site / "shared" / "it's here" / "db+1.sqlite3"
    status, output = host.create(engine="sqlite", path=str(path), variables={"DATABASE_URL": "url", "FILE": "name"})
    assert status == 0, output
    url, name = (line.split("=", 1)[1] for line in host.stored.splitlines())
    quoted = str(path).replace("'", "%27").replace(" ", "%20").replace("+", "%2B")
    assert url == f"'sqlite:///{quoted}'"
    assert name == "'" + str(path).replace("'", "'\\''") + "'"
    assert list(path.parent.iterdir()) == []
    assert said(host.create(engine="sqlite", path=str(path), variables={"FILE": "name"})[1]) == [
        "unchanged the database is there, and its variables are"
    ]
