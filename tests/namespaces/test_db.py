"""What the tasks of db run, on one host and on the primary of several, and what they do on the operator's side."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from fabdjango.commands.database import PIECE
from fabdjango.exceptions import ConfigError, FabdjangoError, StepFailedError, UnknownStateError
from fabdjango.fleet import Fleet
from fabdjango.namespaces import db, django
from fabdjango.recording import RecordingTransport, call, runner
from fabdjango.runner import Runner
from fabdjango.transport import DryTransport, PhaseResult
from tests.namespaces.text import SITE, answers, joined

VALUES = {**SITE, "database": {"engine": "postgresql", "backups": 3}}
NAME = "blog-20260102T030405Z-7-0123456789ab.dump"
OLD = "blog-20260101T030405Z-none.dump"
LISTED = {
    "folder": "/srv/the blog/backups",
    "backups": [
        {"name": NAME, "size": 5, "age": 90, "problem": ""},
        {"name": OLD, "size": 7, "age": 90_000, "problem": ""},
    ],
}
DATA = b"PGDMP"
LOOKING = """\
== backups
-- backups: look at the backups
python3 -I -S - # List the site's backups, and whether each can be read; the last line is JSON. Writes nothing.
"""
NEED = "[ -e '/srv/the blog/current/.fabdjango/run' ] || refuse 'there is no such release yet: run deploy, or git.checkout and venv.install'\nexport FABDJANGO_RUN FABDJANGO_HOME=\"$HOME\"\n"
BACKUP = (
    "-- backup: back the database up\n"
    + NEED
    + "/bin/sh '/srv/the blog/current/.fabdjango/run' python - # Back the project's database up: a file that was read again to its end, or none; the last line is JSON.\n"
)
RESTORE = (
    "-- restore: restore {name}\n"
    + NEED
    + "/bin/sh '/srv/the blog/current/.fabdjango/run' python - # Put a backup in the place of the project's database: all of it, or nothing.\n"
)
FETCHING = f"""\
== measure
-- measure: size and sum of {NAME}
stat -c %s -- '/srv/the blog/backups/{NAME}'
sha256sum < '/srv/the blog/backups/{NAME}'
== get
-- piece: {NAME}, part 1 of 1
dd if='/srv/the blog/backups/{NAME}' bs=1048576 skip=0 count=64 status=none
"""


def transport(**more: str | int | bytes) -> RecordingTransport:
    """A host with two backups, on which another one is made."""
    given: dict[str, str | int | bytes] = {
        "backups": json.dumps(LISTED),
        "backup": json.dumps({"name": NAME}),
        "measure": f"{len(DATA)}\n{hashlib.sha256(DATA).hexdigest()}  -\n",
        "piece": DATA,
        **more,
    }
    return RecordingTransport(given)


def said(target: Runner) -> str:
    """What the operator was told."""
    stream = target.report._stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_create() -> None:
    """One step, under the site's lock."""
    host = transport()
    call(db.create, runner(host, VALUES))
    assert host.transcript == joined(
        """\
        == database (locked)
        -- database as root: database blog on the host's PostgreSQL
        export FABDJANGO_RUN
        python3 -I -S - # Make the site's database and its role, with a password that only this host knows; twice is once.
        """
    )
    host = transport()
    with pytest.raises(ConfigError, match=r"fabdjango\.database\.engine is none"):
        call(db.create, runner(host, SITE))
    assert host.transcript == ""


def test_shell() -> None:
    """Django's own, which hands the password over in the environment."""
    host = transport()
    call(db.shell, runner(host, VALUES))
    assert (
        host.transcript == "== terminal\nexec /bin/sh '/srv/the blog/current/.fabdjango/run' python manage.py dbshell\n"
    )


def test_backup() -> None:
    """Its name is the last word."""
    host = transport()
    target = runner(host, SITE)
    call(db.backup, target)
    assert host.transcript == "== backup (locked)\n" + BACKUP
    assert said(target).splitlines()[-1] == f"backed up: {NAME}"


def test_backup_and_get(tmp_path: Path) -> None:
    """The copy is the operator's alone, in a folder that git does not see; it is there once its sum is right."""
    host, folder = transport(), tmp_path / "it's here"
    call(db.backup, runner(host, SITE), get=True, into=str(folder))
    assert host.transcript == "== backup (locked)\n" + BACKUP + LOOKING + FETCHING
    assert (folder / NAME).read_bytes() == DATA
    assert ((folder / NAME).stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (folder / ".gitignore").read_text() == "*\n"
    with pytest.raises(FabdjangoError, match="did not arrive as it is on the host"):
        call(db.backup, runner(transport(piece=b"PGDM"), SITE), get=True, into=str(tmp_path))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["it's here"]


def test_get_in_pieces(tmp_path: Path) -> None:
    """As many as it takes, in their order."""
    host = transport(measure=f"{2 * PIECE + 1}\n{hashlib.sha256(3 * DATA).hexdigest()}  -\n")
    call(db.backup, runner(host, SITE), get=True, into=str(tmp_path))
    assert [line for line in host.transcript.splitlines() if line.startswith("dd ")] == [
        f"dd if='/srv/the blog/backups/{NAME}' bs=1048576 skip={skip} count=64 status=none" for skip in (0, 64, 128)
    ]
    assert (tmp_path / NAME).read_bytes() == 3 * DATA


def test_nothing_to_back_up() -> None:
    """A backup that was asked for and is not there is an error."""
    with pytest.raises(FabdjangoError, match="there is nothing to back up"):
        call(db.backup, runner(transport(backup='{"name": ""}'), SITE))


def test_backups() -> None:
    """Only reads; a broken one is an error, after the list."""
    host = transport()
    target = runner(host, SITE)
    call(db.backups, target)
    assert host.transcript == LOOKING
    assert said(target).splitlines()[-2:] == [
        f"{NAME}  0.0 MB, 1 minute old  can be read",
        f"{OLD}{10 * ' '}  0.0 MB, 1 day old     can be read",
    ]
    broken = {**LISTED, "backups": [{"name": OLD, "size": 7, "age": 1, "problem": "it's cut short"}]}
    with pytest.raises(FabdjangoError, match=f"1 of 1 backups cannot be read: {OLD}"):
        call(db.backups, runner(transport(backups=json.dumps(broken)), SITE), whole=True)


@pytest.mark.parametrize(("name", "chosen"), [("newest", NAME), (OLD, OLD)])
def test_restore(name: str, chosen: str) -> None:
    """What is there is backed up first, in the same session and under the same lock."""
    host = transport()
    target = runner(host, SITE)
    call(db.restore, target, name=name, yes=True)
    assert host.transcript == LOOKING + "== restore (locked)\n" + BACKUP + RESTORE.format(name=chosen)
    assert said(target).splitlines()[-1] == f"restored: the database is as in {chosen}"


def test_restore_without_a_backup() -> None:
    """For a database that cannot be backed up any more."""
    host = transport()
    call(db.restore, runner(host, SITE), name=OLD, yes=True, no_backup=True)
    assert host.transcript == LOOKING + "== restore (locked)\n" + RESTORE.format(name=OLD)


def test_a_restore_that_is_refused() -> None:
    """One that is not there, or is broken: nothing runs."""
    host = transport()
    with pytest.raises(FabdjangoError, match=r"there is no backup x\.dump"):
        call(db.restore, runner(host, SITE), name="x.dump", yes=True)
    assert host.transcript == LOOKING
    broken = {**LISTED, "backups": [{"name": OLD, "size": 7, "age": 1, "problem": "it's cut short"}]}
    with pytest.raises(FabdjangoError, match=f"{OLD} is broken: it's cut short"):
        call(db.restore, runner(transport(backups=json.dumps(broken)), SITE), name=OLD, yes=True)


@pytest.mark.parametrize(("answer", "terminal"), [("y\n", True), ("n\n", True), ("", False)])
def test_restore_asks(
    answer: str, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is lost and what it is replaced by; without a terminal, --yes has to say it."""
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdin", stdin)
    host = transport()
    if answer == "y\n":
        call(db.restore, runner(host, SITE), name=OLD)
        assert "== restore (locked)" in host.transcript
    else:
        with pytest.raises(ConfigError, match="not confirmed" if terminal else "There is no terminal to ask on"):
            call(db.restore, runner(host, SITE), name=OLD)
        assert host.transcript == LOOKING
    asked = f"Replace the database of blog on web1.example.com by {OLD} (0.0 MB, 1 day old)? [y/N] "
    assert capsys.readouterr().err == (asked if terminal else "")


def test_a_restore_that_fails() -> None:
    """The site's program has said why; the state is the database's."""
    for step in ("backup", "restore"):
        with pytest.raises(StepFailedError) as caught:
            call(db.restore, runner(transport(**{step: 1}), SITE), name=OLD, yes=True)
        assert (caught.value.exit_code, caught.value.state) == (1, "the database is as it was")


class Lost(RecordingTransport):
    """A host whose link breaks in a restore."""

    def run(self, phase: Any, account: Any, listener: Any) -> PhaseResult:
        """As before, but for how it ended."""
        result = super().run(phase, account, listener)
        if phase.name == "restore":
            result.status = None
        return result


def test_a_restore_whose_end_nobody_told() -> None:
    """It may have gone through: the exit code is 2."""
    with pytest.raises(UnknownStateError) as caught:
        call(db.restore, runner(Lost({"backups": json.dumps(LISTED)}), SITE), name=OLD, yes=True)
    assert caught.value.exit_code == 2
    assert caught.value.state == f"the database is either as it was or as in {OLD}, and nothing between"


def test_pull(tmp_path: Path) -> None:
    """Of SQLite, into a file; a new backup unless one is named; what is there is kept unless it may go."""
    source, into = tmp_path / "source.sqlite3", tmp_path / "it's mine.sqlite3"
    with sqlite3.connect(source) as session:
        session.execute("CREATE TABLE post (title)")
    data = source.read_bytes()
    name = NAME.replace(".dump", ".sqlite3")
    listed = {**LISTED, "backups": [{"name": name, "size": len(data), "age": 90, "problem": ""}]}
    more: dict[str, str | int | bytes] = {
        "backups": json.dumps(listed),
        "backup": json.dumps({"name": name}),
        "measure": f"{len(data)}\n{hashlib.sha256(data).hexdigest()}  -\n",
        "piece": data,
    }
    host = transport(**more)
    call(db.pull, runner(host, SITE), into=str(into))
    fetching = FETCHING.replace(".dump", ".sqlite3")
    assert host.transcript == "== backup (locked)\n" + BACKUP + LOOKING + fetching
    assert [row[1] for row in sqlite3.connect(into).execute("SELECT * FROM sqlite_master")] == ["post"]
    host = transport(**more)
    with pytest.raises(ConfigError, match="is there already"):
        call(db.pull, runner(host, SITE), into=str(into), name="newest")
    assert host.transcript == LOOKING
    host = transport(**more)
    call(db.pull, runner(host, SITE), into=str(into), name="newest", replace=True)
    assert host.transcript == LOOKING + LOOKING + fetching


def test_pull_is_refused_before_the_host_is_asked() -> None:
    """Where the settings tell what kind of database it is."""
    for engine, message in (("sqlite", "into which file?"), ("mysql", "is not loaded here by itself")):
        host = transport()
        with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
            call(db.pull, runner(host, {**SITE, "database": {"engine": engine}}))
        assert host.transcript == ""


def test_dry_runs_write_nothing(tmp_path: Path) -> None:
    """Neither here nor there, and nobody is asked."""
    host = RecordingTransport({"backups": json.dumps(LISTED)})
    target = runner(host, SITE, dry=True)
    target.transport = DryTransport(host, lambda _: None)
    call(db.backup, target, get=True, into=str(tmp_path / "x"))
    call(db.restore, target, name=OLD)
    call(db.pull, target, into=str(tmp_path / "y"))
    assert list(tmp_path.iterdir()) == []
    assert said(target).splitlines()[-1] == f"the backup would then be loaded into {tmp_path / 'y'}"


def fleet(
    *hosts: str, primary: str, values: dict[str, Any] = SITE
) -> tuple[Fleet, list[RecordingTransport], io.StringIO]:
    """Several hosts, and what is said about them all."""
    transports = [transport() for _ in hosts]
    runners = []
    for host, each in zip(hosts, transports, strict=True):
        each.host = host
        runners.append(runner(each, values))
    return Fleet(runners, runners[0].report, primary=primary), transports, runners[0].report._stream  # type: ignore[return-value]


def test_the_primary_alone() -> None:
    """A site has one database: the others are left alone, and that is said."""
    found, transports, stream = fleet("web1", "it's web2", primary="it's web2")
    inspect.unwrap(db.backups.body)(found)
    assert [each.transcript for each in transports] == ["", LOOKING]
    assert stream.getvalue().startswith(
        "the database is asked through it's web2, the primary; the others are left alone\n"
    )
    found, transports, _ = fleet("web1", "web2", primary="")
    with pytest.raises(ConfigError, match="none of web1, web2 is the primary"):
        inspect.unwrap(db.backups.body)(found)
    assert [each.transcript for each in transports] == ["", ""]


def test_create_on_several_hosts() -> None:
    """A database elsewhere is made known to all; one of the host's own is the primary's."""
    elsewhere = {"engine": "postgresql", "server": "elsewhere", "url": "postgres://ada:it%27s@db.example.com/blog"}
    for values, found in ((elsewhere, [True, True]), ({"engine": "postgresql"}, [False, True])):
        several, transports, _ = fleet("web1", "web2", primary="web2", values={**SITE, "database": values})
        inspect.unwrap(db.create.body)(several)
        assert ["-- database" in each.transcript for each in transports] == found
        assert "it%27s" not in "".join(each.transcript for each in transports)


def test_migrate_backs_up_before() -> None:
    """By hand too, if the settings want it."""
    host = RecordingTransport(answers())
    call(django.migrate, runner(host, {**SITE, "database": {"backup_before_migrate": True}}))
    assert host.transcript.startswith("== backup (locked)\n" + BACKUP + "-- migrate: apply migrations\n")
