"""MariaDB: account and database made once, and backups that are whole, on the host's own server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.onhost.conftest import begin, free_port, make_project, need_root
from tests.onhost.test_database_backup import Site
from tests.onhost.watching import command_lines

MADE = "unchanged the database is there, and its variables are"


class Server:
    """A MariaDB of our own that lets root in by its socket, and everybody else by password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    @property
    def environment(self) -> dict[str, str]:
        """What points the clients to it: they look for their options at home."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "FABDJANGO_RUN": "R1"}

    def admin(self, *statements: str, database: str = "mysql") -> list[str]:
        """What root is told; the lines of the answer."""
        done = subprocess.run(
            ["mariadb", "--batch", "--skip-column-names", database],
            input=";\n".join(statements),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """It is gone afterwards."""
    program = shutil.which("mariadbd", path="/usr/sbin:" + os.environ["PATH"])
    need_root(there=program, package="mariadb-server")
    assert program
    account = pwd.getpwnam("mysql")
    found = Server(Path(tempfile.mkdtemp(prefix="fabdjango-my-")))
    shutil.chown(found.folder, account.pw_uid, account.pw_gid)
    found.folder.chmod(0o755)
    (found.folder / ".my.cnf").write_text(f"[client]\nsocket={found.folder / 'socket'}\nport={found.port}\n")
    data = f"--datadir={found.folder / 'data'}"
    as_mysql: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    made = subprocess.run(
        ["mariadb-install-db", "--no-defaults", data, "--auth-root-authentication-method=socket", "--skip-test-db"],
        capture_output=True,
        text=True,
        check=False,
        **as_mysql,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    words = [program, "--no-defaults", data, f"--socket={found.folder / 'socket'}", f"--port={found.port}"]
    more = ["--bind-address=127.0.0.1", f"--pid-file={found.folder / 'pid'}", "--innodb-flush-method=nosync"]
    process = subprocess.Popen(
        [*words, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=found.folder, **as_mysql
    )
    try:
        ping = ["mariadb-admin", "--wait=60", "--connect-timeout=60", "ping"]
        subprocess.run(ping, check=True, env=found.environment, capture_output=True)
        yield found
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(found.folder)


class Host:
    """A site's folder beside the server."""

    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        self.path = path
        self.store = path / "shared" / "generated.env"

    def create(self, **more: Any) -> tuple[int, str]:
        """Exit status and output of the program."""
        given: dict[str, Any] = {
            "engine": "mysql",
            "owner": "",
            "store": str(self.store),
            "variables": {"DATABASE_URL": "url"},
            "name": "it's_a `blog`",
            "user": "it's-a",
            "path": "",
            "values": {},
            "options": {},
            **more,
        }
        process = begin("database_create", self.path, self.server.environment, **given)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output.replace("\036R1 ", "")

    def ask(self, *statements: str) -> list[str]:
        """What root finds in the project's database."""
        return self.server.admin(*statements, database="it's_a blog")

    @property
    def database(self) -> dict[str, str]:
        """The address that is kept, as Django has it."""
        found = urlsplit(self.store.read_text().split("'", 1)[1].rsplit("'", 1)[0])
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": unquote(found.path[1:]),
            "USER": unquote(found.username or ""),
            "PASSWORD": unquote(found.password or ""),
            "HOST": found.hostname or "",
            "PORT": str(found.port),
        }


@pytest.fixture
def host(server: Server, tmp_path: Path) -> Iterator[Host]:
    """A site that has nothing yet."""
    before = set(server.admin("SHOW DATABASES"))
    yield Host(server, tmp_path)
    for name in set(server.admin("SHOW DATABASES")) - before:
        server.admin(f"DROP DATABASE `{name.replace('`', '``')}`")
    for user in set(server.admin("SELECT DISTINCT user FROM user WHERE host IN ('localhost', '127.0.0.1')")):
        if user not in ("root", "mysql", "mariadb.sys"):
            quoted = user.replace("'", "''")
            server.admin(*(f"DROP USER IF EXISTS '{quoted}'@'{place}'" for place in ("localhost", "127.0.0.1")))


def test_made_once(host: Host) -> None:
    """The account can do all in its database and in no other; a second run changes nothing; no password is shown."""
    with command_lines() as seen:
        status, output = host.create()
    assert (status, output.splitlines()) == (
        0,
        [
            "note made the account it's-a",
            "note made the database it's_a `blog`",
            f"note kept DATABASE_URL in {host.store}: the next release has it",
        ],
    )
    password = host.database["PASSWORD"]
    assert len(password) > 40
    assert [line for line in [*seen, output] if password in line] == []
    kept = host.store.read_text()
    assert host.create() == (0, MADE + "\n")
    assert host.store.read_text() == kept
    # An underscore is a pattern in a grant, and must not open a database beside it.
    grants = host.server.admin("SELECT Db, Host FROM db WHERE User = 'it''s-a' ORDER BY 1, 2")
    assert grants == [
        f"{name}\t{place}"
        for name in ("it's\\\\_a `blog`", "it's\\\\_a `blog`\\\\_fabdjango\\\\_%")
        for place in ("127.0.0.1", "localhost")
    ]


def test_a_password_that_has_changed(host: Host) -> None:
    """What is kept is what serves."""
    host.create()
    host.server.admin(
        "ALTER USER 'it''s-a'@'127.0.0.1' IDENTIFIED BY 'x'", "ALTER USER 'it''s-a'@'localhost' IDENTIFIED BY 'x'"
    )
    kept = host.store.read_text()
    assert host.create() == (0, "note gave its password to the account it's-a\n")
    assert (host.store.read_text(), host.create()) == (kept, (0, MADE + "\n"))


def test_what_died_half_way(host: Host) -> None:
    """The account without its database, and the other way round: as what is kept says."""
    host.create()
    for loss in ("DROP DATABASE `it's_a ``blog```", "DROP USER 'it''s-a'@'localhost', 'it''s-a'@'127.0.0.1'"):
        kept = host.store.read_text()
        host.server.admin(loss)
        if "USER" in loss:
            # Rights without an account are nobody's.
            host.server.admin("DROP DATABASE `it's_a ``blog```")
        assert host.create()[0] == 0
        assert (host.store.read_text(), host.create()) == (kept, (0, MADE + "\n"))


def test_what_is_somebody_elses(host: Host) -> None:
    """A database of another account, and an account whose password is not known here."""
    host.server.admin(
        "CREATE DATABASE `it's_a ``blog```", "GRANT ALL ON `it's_a ``blog```.* TO ada@localhost IDENTIFIED BY 'x'"
    )
    status, output = host.create()
    assert (status, output.splitlines()[0]) == (
        1,
        "the database it's_a `blog` is there and belongs to ada, not to it's-a",
    )
    status, output = host.create(name="other", user="ada")
    assert (status, output.splitlines()[0]) == (
        1,
        "the account ada is there, and its password is not kept on this host: it may be somebody else's",
    )
    assert not host.store.exists()


@pytest.fixture
def site(host: Host) -> Site:
    """A project on a database that db.create has made."""
    host.create(name="it's_a blog")
    return Site(make_project(host.path / "it's a site", {"default": host.database}), host.ask)


NUMBER = 'migrations.AddField("Post", "number", models.ForeignKey("Post", models.CASCADE, null=True))'


def test_restore(site: Site, host: Host) -> None:
    """All is as it was, foreign keys and all, and nothing of a newer schema or of the work is left."""
    site.project.write("0002_number", NUMBER, after="0001_initial")
    assert site.project.migrate()[0] == 0
    host.ask("UPDATE posts_post SET number_id = id")
    with command_lines() as seen:
        path = site.made()
        assert path.name.endswith("-none.sql.gz")
        assert [(each["name"], each["problem"]) for each in site.listed(whole=True)] == [(path.name, "")]
        site.project.write(
            "0003_table",
            'migrations.CreateModel("Tag", [("id", models.BigAutoField(primary_key=True))])',
            after="0002_number",
        )
        assert site.project.migrate()[0] == 0
        host.ask("UPDATE posts_post SET number_id = NULL", "DELETE FROM posts_post")
        status, output = site.restore(path.name)
    assert status == 0, output
    assert "the database now lacks 1 migrations" in output
    assert site.titles == ["it's the first"]
    assert host.ask("SHOW TABLES") == ["django_migrations", "posts_post"]
    assert [name for name in host.server.admin("SHOW DATABASES") if "fabdjango" in name] == []
    refused = subprocess.run(
        ["mariadb", "it's_a blog"],
        input="UPDATE posts_post SET number_id = 4711",
        text=True,
        capture_output=True,
        check=False,
        env=host.server.environment,
    )
    assert "foreign key constraint fails" in refused.stderr
    assert site.project.migrate()[2]["migrations"] == ["posts.0003_table"]
    assert [line for line in seen if host.database["PASSWORD"] in line] == []


def test_a_broken_backup(site: Site) -> None:
    """A restore of it changes nothing."""
    path = site.made()
    whole = path.read_bytes()
    for content in (b"", b"it's text\n", whole[:-20], whole[:100]):
        path.write_bytes(content)
        assert site.listed(whole=True)[0]["problem"]
        assert site.restore(path.name)[1].startswith("the backup is broken: ")
    assert site.titles == ["it's the first"]


def test_what_cannot_be_exchanged(site: Site, host: Host) -> None:
    """A trigger is bound to its database: the restore is refused, and the way by hand is named."""
    path = site.made()
    host.ask("CREATE TRIGGER t BEFORE INSERT ON posts_post FOR EACH ROW SET NEW.text = 'x'", "DELETE FROM posts_post")
    status, output = site.restore(path.name)
    assert (status, output.splitlines()[0]) == (
        1,
        "the database is as it was: views, triggers and routines cannot be exchanged in one go: t",
    )
    assert site.titles == []
    assert [name for name in host.server.admin("SHOW DATABASES") if "fabdjango" in name] == []


def test_without_the_right_to_a_second_database(site: Site, host: Host) -> None:
    """It says which right that is."""
    path = site.made()
    for place in ("localhost", "127.0.0.1"):
        host.server.admin(f"REVOKE ALL ON `it's\\_a blog\\_fabdjango\\_%`.* FROM 'it''s-a'@'{place}'")
    status, output = site.restore(path.name)
    assert (status, "there is no right to make a database beside this one" in output) == (1, True), output
    assert "GRANT ALL ON `it's_a blog\\_fabdjango\\_%`" in output
    assert site.titles == ["it's the first"]


def test_a_dump_that_fails(site: Site, host: Host) -> None:
    """It leaves nothing but the earlier ones."""
    path = site.made()
    for place in ("localhost", "127.0.0.1"):
        host.server.admin(
            f"REVOKE SELECT ON `it's\\_a blog`.* FROM 'it''s-a'@'{place}'",  # noqa: S608 - a name of ours
            f"GRANT SELECT ON `it's_a blog`.django_migrations TO 'it''s-a'@'{place}'",
        )
    status, output = site.back_up()
    assert (status, "the backup failed, and there is no more of it: " in output) == (1, True), output
    assert site.files == [path.name]
