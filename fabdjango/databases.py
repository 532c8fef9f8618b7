"""What the tasks of db do, between their arguments and the steps: on one host, as a site has one database."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path, PurePosixPath

from fabdjango import localdatabase, operations
from fabdjango.commands import database, django
from fabdjango.commands.database import Backup, Backups
from fabdjango.exceptions import ConfigError, FabdjangoError, StepFailedError, UnknownStateError
from fabdjango.fleet import Fleet
from fabdjango.plan import Phase
from fabdjango.runner import Runner

__all__ = ["back_up", "create", "list_backups", "pull", "restore", "shell"]


def _primary(fleet: Fleet) -> Runner:
    """The host that the database is asked through: the primary of several, and they are told so."""
    leader = fleet.leader
    hosts = [each.host for each in fleet.members]
    if leader is None:
        raise ConfigError(
            f"none of {', '.join(hosts)} is the primary, through which the database is asked",
            cure=f"name one host: fab -H {hosts[0]} …\nor give one of them the role: hosts: {{{hosts[0]}: {{roles: [primary]}}}}",
        )
    if not fleet.alone:
        fleet.tell.say(f"the database is asked through {leader.host}, the primary; the others are left alone")
    return leader.runner


# --- making it, and looking into it ----------------------------------------------


def create(fleet: Fleet) -> None:
    """Database, role and variables, as the settings want them; the variables of one elsewhere on every host."""
    settings = fleet.members[0].runner.site.settings
    database.need_engine(settings)
    if settings.database.server == "elsewhere":
        failed = fleet.each(lambda member: _create(member.runner))
        fleet.need(failed, "the database cannot be used from them")
    else:
        _create(_primary(fleet))


def _create(runner: Runner) -> None:
    site, account = runner.site, runner.account
    runner.do(*database.create(site.settings, site.layout, account.owner or account.login))


def shell(fleet: Fleet) -> None:
    """The database's own shell with the operator's terminal; Django hands the password over in the environment."""
    runner = _primary(fleet)
    operations.interact(runner, "current", django.manage_words(runner.site.settings, "dbshell"))


# --- backups ----------------------------------------------------------------------


def _look(runner: Runner, *, whole: bool = False) -> Backups:
    step = database.look(runner.site.settings, runner.site.layout, whole=whole)
    result = runner.run(Phase("backups", (step,), reads_only=True)).step(step.name)
    return database.read_backups(result.output if result else "")


def list_backups(fleet: Fleet, *, whole: bool) -> None:
    """A line a backup; raises FabdjangoError (exit 1) if one is broken."""
    runner = _primary(fleet)
    found = _look(runner, whole=whole)
    runner.report.show("\n".join(database.backup_lines(found, whole=whole)))
    broken = [each.name for each in found.all if each.problem]
    if broken:
        raise FabdjangoError(
            f"{len(broken)} of {len(found.all)} backups cannot be read: {', '.join(broken)}",
            host=runner.site.host,
            state="",
            cure=f"make a new one: fab -H {runner.site.target} db.backup\nthen remove them from {found.folder}",
        )


def _made(runner: Runner) -> str:
    """Make a backup; its name, or an empty string in a dry run."""
    site = runner.site
    step = database.backup(site.settings, site.layout, site.layout.current, site.holder)
    result = runner.do(step).step("backup")
    if result is None:
        return ""
    name = database.read_backup(result.output)
    if not name:
        raise FabdjangoError(
            f"there is nothing to back up: {result.unchanged or 'the database is empty'}", host=site.host
        )
    return name


def back_up(fleet: Fleet, *, get: bool, into: str) -> None:
    """A backup on the host; with ``get`` it is copied into the operator's folder ``into`` too."""
    runner = _primary(fleet)
    name = _made(runner)
    if runner.dry:
        if get:
            runner.report.say(f"the file would then be copied into {into}")
        return
    runner.report.say(f"backed up: {name}", style="bold green")
    if get:
        target = Path(into) / name
        _fetch(runner, _look(runner).folder, name, target)
        runner.report.say(f"copied: {target}", style="bold green")


def _fetch(runner: Runner, folder: PurePosixPath, name: str, target: Path) -> None:
    """Copy a backup down, in pieces that fit into memory; the file is there once its sum is right."""
    step = database.measure(folder, name)
    found = runner.run(Phase("measure", (step,), reads_only=True)).step(step.name)
    size, digest = database.read_measure(found.output if found else "")
    count = max(1, -(-size // database.PIECE))

    def write(place: Path) -> None:
        total = hashlib.sha256()
        with place.open("wb") as file:
            for number in range(count):
                part = database.piece(folder, name, number, count)
                got = runner.run(Phase("get", (part,), reads_only=True)).step(part.name)
                data = got.data if got else b""
                total.update(data)
                file.write(data)
        if total.hexdigest() != digest:
            raise FabdjangoError(
                f"{name} did not arrive as it is on the host", host=runner.site.host, cure="get it again"
            )

    localdatabase.put_down(target, write)


# --- and back ---------------------------------------------------------------------


def restore(fleet: Fleet, name: str, *, yes: bool, no_backup: bool) -> None:
    """
    A backup in the place of the database, after one of the database as it is, unless ``no_backup``.

    Asks, unless ``yes``. Raises StepFailedError if the database is as it was, UnknownStateError if nobody told.
    """
    runner = _primary(fleet)
    site = runner.site
    chosen = database.choose(_look(runner), name, site.host)
    if chosen.problem:
        raise FabdjangoError(f"{chosen.name} is broken: {chosen.problem}", host=site.host, cure="fab … db.backups")
    if not runner.dry:
        _confirm(runner, chosen, yes=yes)
    before = database.backup(site.settings, site.layout, site.layout.current, site.holder, spare=[chosen.name])
    deed = database.restore(site.settings, site.layout, chosen.name, site.holder)
    phase = Phase("restore", (deed,) if no_backup else (before, deed), lock=site.lock)
    try:
        runner.run(phase)
    except StepFailedError as error:
        if not error.lost:
            error.state = "the database is as it was"
            raise
        raise UnknownStateError(
            error.message,
            host=site.host,
            step=error.step,
            state=f"the database is either as it was or as in {chosen.name}, and nothing between",
            cure=f"the journal has a restore that went through: fab -H {site.target} history\nif it has not, restore again",
        ) from None
    if not runner.dry:
        runner.report.say(f"restored: the database is as in {chosen.name}", style="bold green")


def _confirm(runner: Runner, chosen: Backup, *, yes: bool) -> None:
    """Ask whether the database is to go; raises ConfigError if the answer is no, or if there is nobody to ask."""
    if yes:
        return
    deed = (
        f"Replace the database of {runner.site.settings.project} on {runner.site.host} "
        f"by {chosen.name} ({database.describe(chosen.size, chosen.age)})"
    )
    if not sys.stdin.isatty():
        raise ConfigError(f"{deed}? There is no terminal to ask on", host=runner.site.host, cure="say it: --yes")
    sys.stderr.write(f"{deed}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("not confirmed: the database stays as it is", cure="answer y, or say --yes")


def pull(fleet: Fleet, into: str, *, name: str, replace: bool) -> None:
    """A backup of the host, a fresh one unless ``name`` says which, as the operator's own database or file ``into``."""
    runner = _primary(fleet)
    if name:
        name = database.choose(_look(runner), name, runner.site.host).name
    if runner.dry:
        if not name:
            _made(runner)
        runner.report.say(f"the backup would then be loaded into {into or 'what --into names'}")
        return
    # What can be known before the host is asked for everything.
    suffix = _suffix(name) or _SUFFIXES.get(runner.site.settings.database.engine, "")
    if suffix:
        localdatabase.check_target(into, suffix, replace=replace)
    if not name:
        name = _made(runner)
        localdatabase.check_target(into, _suffix(name), replace=replace)
    with tempfile.TemporaryDirectory(prefix="fabdjango-") as folder:
        file = Path(folder) / name
        _fetch(runner, _look(runner).folder, name, file)
        localdatabase.load(file, into)
    runner.report.say(f"pulled: {into} here is as in {name}", style="bold green")


_SUFFIXES = {"postgresql": ".dump", "sqlite": ".sqlite3", "mysql": ".sql.gz"}


def _suffix(name: str) -> str:
    return next((each for each in _SUFFIXES.values() if name.endswith(each)), "")
