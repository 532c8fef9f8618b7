"""The site's database: which settings go together, the steps that make, keep and restore it, and their answers."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabdjango.body import render_body
from fabdjango.commands import database
from fabdjango.commands.database import Backup, Backups
from fabdjango.escape import Secret
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.layout import Layout
from fabdjango.plan import OWNER, ROOT
from fabdjango.recipes import check_settings
from fabdjango.settings import Settings
from tests.conftest import LAYOUT, RELEASE, sample_settings, shell, shown

URL = "postgres://ada:it%27s%20a%3Acanary@db.example.com:5433/the%20blog?sslmode=require"


def settings(values: dict[str, Any], **more: Any) -> Settings:
    """A site; ``values`` are those of fabdjango.database."""
    return sample_settings(database=values, **more)


# --- settings -----------------------------------------------------------------

GOOD: list[dict[str, Any]] = [
    {},
    {"backup_before_migrate": True, "backups": 1, "backup_path": "/var/backups/it's here"},
    {"engine": "postgresql"},
    {"engine": "postgresql", "name": "blog_1", "user": "blog-user", "variables": {"DB_PASSWORD": "password"}},
    {"engine": "postgresql", "server": "elsewhere", "url": URL},
    {"engine": "postgresql", "server": "elsewhere"},
    {"engine": "postgresql", "server": "elsewhere", "url": "postgresql://ada@[::1]/blog"},
    {"engine": "mysql", "server": "elsewhere", "url": "mysql://ada:x@db.example.com/blog"},
    {"engine": "mysql"},
    {"engine": "sqlite", "path": "data/it's a db.sqlite3", "variables": {"DB": "name"}},
    {"engine": "sqlite", "variables": {}},
]


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_what_goes_together(values: dict[str, Any]) -> None:
    """Settings that make a database, or leave it alone."""
    check_settings(settings(values))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"url": URL}, "fabdjango.database names a database elsewhere, and its engine is none"),
    ({"server": "elsewhere"}, "fabdjango.database names a database elsewhere, and its engine is none"),
    (
        {"engine": "postgresql", "url": URL},
        "fabdjango.database.url is the address of a database elsewhere, and server is local",
    ),
    (
        {"engine": "mysql", "server": "elsewhere", "url": URL},
        "fabdjango.database.url does not begin with mysql://, and engine is mysql",
    ),
    (
        {"engine": "postgresql", "server": "elsewhere", "url": URL, "name": "blog"},
        "fabdjango.database.name is set, and the database is elsewhere: its url says it",
    ),
    (
        {"engine": "postgresql", "server": "elsewhere", "url": URL, "user": "blog"},
        "fabdjango.database.user is set, and the database is elsewhere: its url says it",
    ),
    (
        {"engine": "postgresql", "server": "elsewhere", "url": "postgres://db.example.com"},
        "fabdjango.database.url has no user and no name",
    ),
    (
        {"engine": "postgresql", "server": "elsewhere", "url": "postgres://a:b@c:canary/d"},
        "fabdjango.database.url is not an address",
    ),
    (
        {"engine": "postgresql", "variables": {}},
        "none of fabdjango.database.variables carries the password to the project",
    ),
    (
        {"engine": "mysql", "variables": {"DB_USER": "user"}},
        "none of fabdjango.database.variables carries the password to the project",
    ),
    ({"engine": "postgresql", "variables": {"PWD": "url"}}, "the environment variable PWD belongs to the shell itself"),
    ({"engine": "postgresql", "name": "postgres"}, "fabdjango.database.name: postgres belongs to the server itself"),
    ({"engine": "postgresql", "user": "pg_it"}, "fabdjango.database.user: pg_it belongs to the server itself"),
    ({"engine": "mysql", "user": "root"}, "fabdjango.database.user: root belongs to the server itself"),
    ({"engine": "mysql", "user": 33 * "a"}, f"fabdjango.database.user: {33 * 'a'} is longer than 32 characters"),
    ({"engine": "mysql", "name": 41 * "a"}, f"fabdjango.database.name: {41 * 'a'} is longer than 40 characters"),
    (
        {"engine": "sqlite", "server": "elsewhere"},
        "an SQLite database is a file of the host, and cannot be elsewhere",
    ),
    (
        {"engine": "sqlite", "variables": {"DB_HOST": "host"}},
        "fabdjango.database.variables: DB_HOST wants the host, which an SQLite database does not have",
    ),
    *(
        (
            {"engine": "sqlite", "path": path},
            f"fabdjango.database.path must be the path of a file below shared, not {path!r}",
        )
        for path in ("/srv/db", "../db", "", "data/")
    ),
    *(
        ({"backup_path": path}, f"fabdjango.database.backup_path must be a folder of its own, not {path!r}")
        for path in ("/srv/blog", "{root}/shared/media", "{root}/releases/x", "{root}/run", "/srv/blog/x/../shared")
    ),
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=[message for _, message in BAD])
def test_what_does_not_go_together(values: dict[str, Any], message: str) -> None:
    """It is told before a host is asked, with what to change, and without the address."""
    with pytest.raises(ConfigError) as caught:
        check_settings(settings(values))
    assert caught.value.message == message
    assert caught.value.cure
    assert "canary" not in caught.value.render()


def test_a_variable_that_is_set_twice() -> None:
    """Which one would win is nobody's guess."""
    for other, value in (("environment", "it's mine"), ("secrets", "generate")):
        with pytest.raises(ConfigError, match=rf"DATABASE_URL is set twice: by fabdjango\.{other} and by"):
            check_settings(settings({"engine": "postgresql"}, **{other: {"DATABASE_URL": value}}))


def test_secrets() -> None:
    """The address and its password, as written and as meant; none of them is in what is shown of the settings."""
    found = settings({"engine": "postgresql", "server": "elsewhere", "url": URL})
    assert database.secrets_of(found) == (URL, "it%27s%20a%3Acanary", "it's a:canary")
    assert database.secrets_of(settings({})) == ()


# --- making it ------------------------------------------------------------------


def test_create_on_the_host() -> None:
    """As root; names are the project's unless said otherwise, and only names are handed over."""
    (step,) = database.create(settings({"engine": "postgresql", "user": "it-s"}, project="my-blog"), LAYOUT, "ada")
    assert shown(step) == shell("""
        # database (as root): database my-blog on the host's PostgreSQL
        export FABDJANGO_RUN
        python3 -I -S - # Make the site's database and its role, with a password that only this host knows; twice is once.
    """)
    assert step.user == ROOT
    assert step.parameters == {
        "engine": "postgresql",
        "owner": "ada",
        "store": "/srv/it's here/shared/generated.env",
        "variables": {"DATABASE_URL": "url"},
        "name": "my-blog",
        "user": "it-s",
        "path": "/srv/it's here/shared/db.sqlite3",
        "values": {},
        "options": {},
        "look": False,
    }


def test_create_elsewhere() -> None:
    """Without root; what the address says goes along as data, and stands in nothing that is shown."""
    (step,) = database.create(settings({"engine": "postgresql", "server": "elsewhere", "url": URL}), LAYOUT)
    assert step.user == OWNER
    assert (step.parameters["values"], step.parameters["options"]) == (
        {
            "url": Secret(URL),
            "host": "db.example.com",
            "port": "5433",
            "user": "ada",
            "password": Secret("it's a:canary"),
            "name": "the blog",
        },
        {"sslmode": "require"},
    )
    assert shown(step).splitlines()[0] == "# database: database the blog on db.example.com:5433"
    assert "canary" not in shown(step) + repr(step)
    assert "canary" in render_body(step)
    with pytest.raises(ConfigError, match=r"fabdjango\.database\.url is not set") as caught:
        database.create(settings({"engine": "postgresql", "server": "elsewhere"}), LAYOUT)
    assert "FABRIC_FABDJANGO_DATABASE_URL=…" in caught.value.cure


def test_create_others() -> None:
    """A file needs no root; without an engine there is nothing to make."""
    (step,) = database.create(settings({"engine": "sqlite", "path": "it's/db"}), LAYOUT)
    assert (step.user, step.title, step.parameters["path"]) == (
        OWNER,
        "the folder of it's/db",
        "/srv/it's here/shared/it's/db",
    )
    (step,) = database.create(settings({"engine": "mysql"}), LAYOUT)
    assert (step.user, step.title) == (ROOT, "database blog on the host's MariaDB or MySQL")
    assert database.create(settings({}), LAYOUT) == ()
    with pytest.raises(ConfigError, match=r"fabdjango\.database\.engine is none"):
        database.need_engine(settings({}))


# --- backups --------------------------------------------------------------------

SITE = settings({"backups": 3})


def test_backup() -> None:
    """In the release, whose Django says where the database is; no clock cuts it off."""
    step = database.backup(SITE, LAYOUT, LAYOUT.release(RELEASE), "it's ann", before_migrate=True, spare=["b", "a"])
    assert shown(step) == shell("""
        # backup: back the database up
        [ -e '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/run' ] || refuse 'there is no such release yet: run deploy, or git.checkout and venv.install'
        export FABDJANGO_RUN FABDJANGO_HOME="$HOME"
        /bin/sh '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/run' python - # Back the project's database up: a file that was read again to its end, or none; the last line is JSON.
    """)
    assert step.parameters == {
        "project": "blog",
        "folder": "/srv/it's here/backups",
        "lock_timeout": 60,
        "journal": "/srv/it's here/journal.jsonl",
        "entry": {"event": "backup", "release": "", "by": "it's ann"},
        "current": "/srv/it's here/current",
        "keep": 3,
        "spare": ["a", "b"],
        "before_migrate": True,
    }


def test_restore() -> None:
    """In the release that serves; the name is data, and a path is no name."""
    step = database.restore(SITE, LAYOUT, "blog-it.dump", "it's ann")
    assert shown(step) == shell("""
        # restore: restore blog-it.dump
        [ -e '/srv/it'"'"'s here/current/.fabdjango/run' ] || refuse 'there is no such release yet: run deploy, or git.checkout and venv.install'
        export FABDJANGO_RUN FABDJANGO_HOME="$HOME"
        /bin/sh '/srv/it'"'"'s here/current/.fabdjango/run' python - # Put a backup in the place of the project's database: all of it, or nothing.
    """)
    assert step.parameters == {
        "project": "blog",
        "folder": "/srv/it's here/backups",
        "lock_timeout": 60,
        "journal": "/srv/it's here/journal.jsonl",
        "entry": {"event": "restore", "release": "", "by": "it's ann"},
        "name": "blog-it.dump",
    }
    for name in ("../x.dump", "/etc/x.dump", ".x.dump", "-x.dump", "x", "x.dump\n", ""):
        with pytest.raises(ConfigError, match="is not the name of a backup"):
            database.restore(SITE, LAYOUT, name, "")


def test_pieces() -> None:
    """Each as large as memory may hold; size and sum of the whole come before them."""
    folder = PurePosixPath("~/it's here")
    assert shown(database.measure(folder, "it's a.dump"), database.piece(folder, "it's a.dump", 1, 3)) == shell("""
        # measure: size and sum of it's a.dump
        stat -c %s -- "$HOME"/'it'"'"'s here/it'"'"'s a.dump'
        sha256sum < "$HOME"/'it'"'"'s here/it'"'"'s a.dump'
        # piece: it's a.dump, part 2 of 3
        dd if="$HOME"/'it'"'"'s here/it'"'"'s a.dump' bs=1048576 skip=64 count=64 status=none
    """)
    assert database.piece(folder, "a.dump", 0, 1).fetch
    assert database.read_measure(f"12\n{64 * 'a'}  -\n") == (12, 64 * "a")
    with pytest.raises(FabdjangoError, match="the measure step did not give an answer"):
        database.read_measure("12\n")


def test_the_folder() -> None:
    """Below the root unless said otherwise; the root may be in somebody's home."""
    home = Layout(PurePosixPath("~/blog"), "blog")
    assert database.backup_folder(SITE, home) == PurePosixPath("~/blog/backups")
    own = settings({"backup_path": "/var/backups/{root}"})
    assert database.backup_folder(own, Layout(PurePosixPath("x"), "blog")) == PurePosixPath("/var/backups/x")


FOUND = Backups(
    PurePosixPath("/srv/it's here/backups"),
    (
        Backup("blog-20260102T030405Z-none.dump", 12_345_678, 59),
        Backup("it's old.dump", 999, 172_800, "it is cut short"),
    ),
)


def test_answers() -> None:
    """The last line of JSON, whatever the project prints at import."""
    listed = [vars(each) for each in FOUND.all]
    answer = json.dumps({"folder": "/srv/it's here/backups", "backups": listed})
    assert database.read_backups(f"it's here\n{answer}\n") == FOUND
    assert database.read_backup('{"x": 1}\n{"name": "a.dump", "size": 1}\n') == "a.dump"
    with pytest.raises(FabdjangoError, match="the backups step did not give an answer"):
        database.read_backups("it's broken")


def test_lines() -> None:
    """A line a backup; a broken one stands out."""
    assert database.backup_lines(FOUND, whole=False) == [
        "blog-20260102T030405Z-none.dump  12.3 MB, 59 seconds old  can be read",
        "it's old.dump                    0.0 MB, 2 days old       BROKEN: it is cut short",
    ]
    assert database.backup_lines(FOUND, whole=True)[0].endswith("read to its end")
    assert database.backup_lines(Backups(FOUND.folder), whole=False) == ["no backups in /srv/it's here/backups"]


def test_choose() -> None:
    """By name, or the newest one; the cure names what there is."""
    assert database.choose(FOUND, "newest") == FOUND.all[0]
    assert database.choose(FOUND, "it's old.dump") == FOUND.all[1]
    with pytest.raises(FabdjangoError, match=r"there is no backup x\.dump") as caught:
        database.choose(FOUND, "x.dump", "it's web1")
    assert caught.value.cure == "the newest are:\nblog-20260102T030405Z-none.dump\nit's old.dump"
    with pytest.raises(FabdjangoError, match="there is no backup yet"):
        database.choose(Backups(FOUND.folder), "newest")


@given(age=st.integers(0, 10**9))
def test_ages(age: int) -> None:
    """In the largest unit that there is one of."""
    said = database.describe(0, age)
    number, unit = said.removeprefix("0.0 MB, ").removesuffix(" old").split()
    seconds = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[unit.removesuffix("s")]
    assert int(number) == age // seconds
    assert (unit[-1] == "s") == (int(number) != 1)
    assert age < 60 or seconds > 1
