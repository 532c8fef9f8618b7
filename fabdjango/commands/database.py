"""The site's database: made once, backed up, and put back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from fabdjango import onhost
from fabdjango.commands import django
from fabdjango.escape import Secret, block, env_name, quote_path, raw, sh
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import json_line
from fabdjango.layout import Layout
from fabdjango.plan import OWNER, ROOT, Step
from fabdjango.settings import Settings, environment_name

__all__ = [
    "PIECE",
    "Backup",
    "Backups",
    "backup",
    "backup_folder",
    "backup_lines",
    "check_settings",
    "choose",
    "create",
    "describe",
    "find_lacking",
    "has_password",
    "look",
    "measure",
    "need_engine",
    "packages",
    "piece",
    "plain_variables",
    "read_backup",
    "read_backups",
    "read_lacking",
    "read_measure",
    "restore",
    "secret_parts",
    "secrets_of",
]

_SCHEMES = {
    "postgresql": ("postgres", "postgresql", "psql", "pgsql", "postgis"),
    "mysql": ("mysql", "mysql2", "mariadb"),
}
_PORTS = {"postgresql": "5432", "mysql": "3306"}
_SERVERS = {"postgresql": "PostgreSQL", "mysql": "MariaDB or MySQL"}
_KEYS = {"name": "fabdjango.database.name", "user": "fabdjango.database.user"}
#: What the servers keep for themselves.
_TAKEN = {
    "postgresql": re.compile(r"pg_.*|postgres|template[01]|public|none"),
    "mysql": re.compile(r"mysql|root|sys|information_schema|performance_schema|mariadb\.sys|debian-sys-maint"),
}
#: A name of MySQL leaves room for what a backup is restored into beside it.
_LONGEST = {"postgresql": {"name": 63, "user": 63}, "mysql": {"name": 40, "user": 32}}
_KINDS = {"sqlite": ("url", "name")}
_HIDDEN = ("url", "password")
_FILES = (".dump", ".sqlite3", ".sql.gz")
_NAME = re.compile(r"[^/.\x00-\x1f-][^/\x00-\x1f]*")

PIECE = 64 * 1024 * 1024
"""Bytes of a backup that are fetched in one session, and so held in memory."""
_BLOCK = 1024 * 1024


# --- settings -----------------------------------------------------------------


def check_settings(settings: Settings, layout: Layout) -> None:
    """Raise ConfigError for settings of the database that do not go together."""
    database = settings.database
    backup_folder(settings, layout)
    if database.engine == "none":
        if database.url or database.server == "elsewhere":
            raise ConfigError(
                "fabdjango.database names a database elsewhere, and its engine is none",
                cure="say which it is: database: {engine: postgresql, server: elsewhere}",
            )
        return
    _check_variables(settings)
    if database.engine == "sqlite":
        _check_file(settings)
    elif database.server == "elsewhere":
        # Only who makes it known to a host has to have the address.
        if database.url:
            _values_elsewhere(settings)
    else:
        _check_names(settings)


def _check_variables(settings: Settings) -> None:
    database = settings.database
    kinds = _KINDS.get(database.engine)
    for name, kind in database.variables.items():
        env_name(name)
        for other, given in (("environment", settings.environment), ("secrets", settings.secrets)):
            if name in given:
                raise ConfigError(
                    f"{name} is set twice: by fabdjango.{other} and by fabdjango.database.variables",
                    cure="take it out of one of them",
                )
        if kinds and kind not in kinds:
            raise ConfigError(
                f"fabdjango.database.variables: {name} wants the {kind}, which an SQLite database does not have",
                cure=f"it has: {' and '.join(kinds)}",
            )
    if not kinds and not {"url", "password"} & set(database.variables.values()):
        raise ConfigError(
            "none of fabdjango.database.variables carries the password to the project",
            cure="for instance variables: {DATABASE_URL: url}, or {DB_PASSWORD: password, DB_USER: user, …}",
        )


def _check_file(settings: Settings) -> None:
    database, path = settings.database, PurePosixPath(settings.database.path)
    if database.server == "elsewhere" or database.url:
        raise ConfigError(
            "an SQLite database is a file of the host, and cannot be elsewhere",
            cure="leave fabdjango.database.server and url out",
        )
    if not database.path or path.is_absolute() or ".." in path.parts or database.path.endswith("/"):
        raise ConfigError(
            f"fabdjango.database.path must be the path of a file below shared, not {database.path!r}",
            cure="for instance path: db.sqlite3",
        )


def _check_names(settings: Settings) -> None:
    database, engine = settings.database, settings.database.engine
    if database.url:
        raise ConfigError(
            "fabdjango.database.url is the address of a database elsewhere, and server is local",
            cure="set database: {server: elsewhere}, or leave url out: the host's own needs none",
        )
    for kind, name in (("name", _name(settings)), ("user", _user(settings))):
        if _TAKEN[engine].fullmatch(name):
            raise ConfigError(
                f"{_KEYS[kind]}: {name} belongs to the server itself", cure=f"set {_KEYS[kind]} to another"
            )
        longest = _LONGEST[engine][kind]
        if len(name) > longest:
            raise ConfigError(
                f"{_KEYS[kind]}: {name} is longer than {longest} characters", cure=f"set {_KEYS[kind]} to a shorter one"
            )


def _name(settings: Settings) -> str:
    return settings.database.name or settings.project


def _user(settings: Settings) -> str:
    return settings.database.user or settings.project


def _address(settings: Settings) -> SplitResult:
    found = urlsplit(settings.database.url)
    # A port that is none is only found when it is asked for.
    _ = found.port
    return found


def _values_elsewhere(settings: Settings) -> dict[str, str]:
    """What is behind the url, by its kind; raises ConfigError, without the url in it, for one that says too little."""
    database, engine = settings.database, settings.database.engine
    example = f"{_SCHEMES[engine][0]}://user:password@db.example.com:{_PORTS[engine]}/{settings.project}"
    if not database.url:
        raise ConfigError(
            "fabdjango.database.url is not set: the address of the database elsewhere",
            cure=f"it is like {example}\nin the environment it is seen by nobody: {environment_name('database.url')}=…",
        )
    for kind, given in (("name", database.name), ("user", database.user)):
        if given:
            raise ConfigError(
                f"{_KEYS[kind]} is set, and the database is elsewhere: its url says it", cure=f"leave {_KEYS[kind]} out"
            )
    try:
        found = _address(settings)
    except ValueError:
        raise ConfigError("fabdjango.database.url is not an address", cure=f"it is like {example}") from None
    if found.scheme not in _SCHEMES[engine]:
        raise ConfigError(
            f"fabdjango.database.url does not begin with {_SCHEMES[engine][0]}://, and engine is {engine}",
            cure=f"it is like {example}",
        )
    values = {
        "url": database.url,
        "host": found.hostname or "",
        "port": str(found.port or _PORTS[engine]),
        "user": unquote(found.username or ""),
        "password": unquote(found.password or ""),
        "name": unquote(found.path[1:]),
    }
    missing = [kind for kind in ("host", "user", "name") if not values[kind]]
    if missing:
        raise ConfigError(f"fabdjango.database.url has no {' and no '.join(missing)}", cure=f"it is like {example}")
    return values


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """What of the settings must never be seen."""
    return secret_parts(settings.database.url)


def secret_parts(value: str) -> tuple[str, ...]:
    """A value that must never be seen; of a url also the password in it, as written and as meant."""
    try:
        password = urlsplit(value).password or ""
    except ValueError:
        password = ""
    return tuple(each for each in dict.fromkeys((value, password, unquote(password))) if each)


def plain_variables(settings: Settings) -> frozenset[str]:
    """Those of the database's variables whose values anybody may see: its name, its role, its address."""
    return frozenset(name for name, kind in settings.database.variables.items() if kind not in _HIDDEN)


def has_password(settings: Settings) -> bool:
    """Whether fabdjango makes a database that has one, or makes one known to hosts."""
    return settings.database.engine not in ("none", "sqlite")


def need_engine(settings: Settings) -> None:
    """Raise ConfigError unless fabdjango is to care for the database."""
    if settings.database.engine == "none":
        raise ConfigError(
            "fabdjango.database.engine is none, so there is no database to make",
            cure="set it in fabric.yaml under fabdjango: database: {engine: postgresql}; or mysql, or sqlite",
        )


# --- making it ------------------------------------------------------------------


def create(settings: Settings, layout: Layout, owner: str = "") -> tuple[Step, ...]:
    """
    ``database``: role and database on the host's own server, or the way to one elsewhere, and the variables in generated_env.

    The password is made on the host and kept there before the role gets it, so
    that whatever dies half-way is mended by the next run; one that is kept is
    never changed. What belongs to somebody else is refused. ``owner`` is the
    account that owns the site. Nothing if the engine is none.
    """
    database = settings.database
    if database.engine == "none":
        return ()
    elsewhere = database.engine != "sqlite" and database.server == "elsewhere"
    values = _values_elsewhere(settings) if elsewhere else {}
    step = Step(
        "database",
        _title(settings, values),
        raw("export FABDJANGO_RUN"),
        # Only the host's own server asks for its superuser.
        user=OWNER if elsewhere or database.engine == "sqlite" else ROOT,
        program=onhost.source("database_create"),
        parameters={
            "engine": database.engine,
            "owner": owner,
            "store": str(layout.generated_env),
            "variables": dict(database.variables),
            "name": _name(settings),
            "user": _user(settings),
            "path": str(layout.shared / database.path),
            "values": {kind: Secret(value) if kind in _HIDDEN else value for kind, value in values.items()},
            "options": dict(parse_qsl(_address(settings).query)) if elsewhere else {},
            "look": False,
        },
    )
    return (step,)


def find_lacking(settings: Settings, layout: Layout, owner: str = "") -> tuple[Step, ...]:
    """``database-look``: what create would do, for read_lacking; what it would refuse is refused. Writes nothing."""
    return tuple(
        replace(
            step,
            name="database-look",
            title="look at the database",
            user=ROOT,
            capture=True,
            parameters={**step.parameters, "look": True},
        )
        for step in create(settings, layout, owner)
    )


def read_lacking(output: str) -> tuple[str, ...]:
    """What is still to be done, in words; raises FabdjangoError for an output that is none of find_lacking's."""
    return tuple(json_line(output, "look at the database")["lacking"])


def packages(settings: Settings) -> tuple[str, ...]:
    """The Debian packages of the site's database: its server, or what asks one elsewhere."""
    database = settings.database
    names = {"postgresql": ("postgresql", "postgresql-client"), "mysql": ("mariadb-server", "mariadb-client")}
    server, client = names.get(database.engine, ("", ""))
    return (server if database.server == "local" else client,) if server else ()


def _title(settings: Settings, values: Mapping[str, str]) -> str:
    engine = settings.database.engine
    if engine == "sqlite":
        return f"the folder of {settings.database.path}"
    where = f"{values['host']}:{values['port']}" if values else f"the host's {_SERVERS[engine]}"
    return f"database {values.get('name') or _name(settings)} on {where}"


# --- backups --------------------------------------------------------------------


@dataclass(frozen=True)
class Backup:
    """One backup on the host: bytes, seconds since it was made, and what is wrong with it, or an empty string."""

    name: str
    size: int
    age: int
    problem: str = ""


@dataclass(frozen=True)
class Backups:
    """The folder, as the host has it, and what is in it, the newest first."""

    folder: PurePosixPath
    all: tuple[Backup, ...] = ()


def backup_folder(settings: Settings, layout: Layout) -> PurePosixPath:
    """Where backups are kept; raises ConfigError for a folder that others read or that is cleared."""
    path = PurePosixPath(settings.database.backup_path.replace("{root}", str(layout.root)))
    ours = (layout.releases, layout.venvs, layout.mirror, layout.shared, layout.run, layout.current, layout.slots)
    if ".." in path.parts or path == layout.root or any(path.is_relative_to(each) for each in ours):
        raise ConfigError(
            f"fabdjango.database.backup_path must be a folder of its own, not {settings.database.backup_path!r}",
            cure="for instance backup_path: '{root}/backups', which is the default",
        )
    return path


def backup(
    settings: Settings,
    layout: Layout,
    release_path: PurePosixPath,
    by: str,
    *,
    before_migrate: bool = False,
    spare: Iterable[str] = (),
) -> Step:
    """
    ``backup``: the database that the release at ``release_path`` uses, in a file that was read again; for read_backup.

    With ``before_migrate``, only if that release has a migration to apply. Older
    backups than the newest ones go, but for those named in ``spare``.
    """
    return _in_django(
        settings,
        layout,
        release_path,
        "backup",
        "back the database up",
        {
            "event": "backup",
            "current": str(layout.current),
            "keep": settings.database.backups,
            "spare": sorted(spare),
            "before_migrate": before_migrate,
        },
        by,
        capture=True,
    )


def restore(settings: Settings, layout: Layout, name: str, by: str) -> Step:
    """
    ``restore``: a backup in the place of the database that the current release uses, in one transaction.

    The whole of PostgreSQL's restore is one transaction of the site's own role:
    what it has is dropped, and comes from the backup. So no second database, no
    superuser and no renaming under open sessions is needed, and no moment is
    without a database. SQLite copies pages in a transaction too. MySQL has none
    for tables: there it is restored beside the database, and one statement exchanges all tables.
    """
    return _in_django(
        settings,
        layout,
        layout.current,
        "restore",
        f"restore {name}",
        {"event": "restore", "name": read_name(name)},
        by,
    )


def _in_django(
    settings: Settings,
    layout: Layout,
    release_path: PurePosixPath,
    deed: str,
    title: str,
    parameters: Mapping[str, object],
    by: str,
    *,
    capture: bool = False,
) -> Step:
    """Django itself says where its database is and how it is opened: also where fabdjango did not make it."""
    given = dict(parameters)
    return Step(
        deed,
        title,
        block(django.need_release(release_path), raw('export FABDJANGO_RUN FABDJANGO_HOME="$HOME"')),
        program=onhost.source(f"database_{deed}"),
        # As long as it takes: what is cut off by a clock is no backup.
        interpreter=raw(f"{django.in_release(release_path)} python"),
        parameters={
            "project": settings.project,
            "folder": str(backup_folder(settings, layout)),
            "lock_timeout": settings.django.lock_timeout,
            "journal": str(layout.journal),
            "entry": {"event": given.pop("event"), "release": "", "by": by},
            **given,
        },
        capture=capture,
    )


def look(settings: Settings, layout: Layout, *, whole: bool = False) -> Step:
    """What backups there are; each is read to its end if ``whole``. For read_backups."""
    return Step(
        "backups",
        "look at the backups",
        program=onhost.source("database_backups"),
        parameters={"project": settings.project, "folder": str(backup_folder(settings, layout)), "whole": whole},
        capture=True,
    )


def measure(folder: PurePosixPath, name: str) -> Step:
    """Size and SHA-256 of a backup; for read_measure."""
    path = folder / read_name(name)
    return Step(
        "measure",
        f"size and sum of {name}",
        block(sh("stat", "-c", "%s", "--", path), raw(f"sha256sum < {quote_path(path)}")),
        capture=True,
    )


def piece(folder: PurePosixPath, name: str, number: int, count: int) -> Step:
    """One of ``count`` pieces of a backup, counted from 0, for the operator's side."""
    words = raw(f"dd if={quote_path(folder / read_name(name))}")
    blocks = PIECE // _BLOCK
    return Step(
        "piece",
        f"{name}, part {number + 1} of {count}",
        raw(f"{words} {sh(f'bs={_BLOCK}', f'skip={number * blocks}', f'count={blocks}', 'status=none')}"),
        fetch=True,
    )


# --- answers --------------------------------------------------------------------


def read_name(text: str) -> str:
    """``text``, if it can be the name of a backup; a path is a ConfigError."""
    if not _NAME.fullmatch(text) or not text.endswith(_FILES):
        raise ConfigError(f"{text!r} is not the name of a backup", cure="see them with: fab … db.backups")
    return text


def read_backup(output: str) -> str:
    """The name of the backup that was made; empty if there was nothing to keep."""
    return str(json_line(output, "backup step").get("name", ""))


def read_backups(output: str) -> Backups:
    """The answer of look."""
    found = json_line(output, "backups step")
    rows = (Backup(each["name"], each["size"], each["age"], each["problem"]) for each in found["backups"])
    return Backups(PurePosixPath(found["folder"]), tuple(rows))


def read_measure(output: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a backup; raises FabdjangoError if they are not there."""
    found = re.fullmatch(r"(\d+)\n([0-9a-f]{64})  -\n?", output)
    if not found:
        raise FabdjangoError("the measure step did not give an answer that can be read", output=output[-2000:])
    return int(found[1]), found[2]


def choose(found: Backups, name: str, host: str = "") -> Backup:
    """The backup called ``name``, or the ``newest``; raises FabdjangoError if there is none."""
    if name == "newest" and found.all:
        return found.all[0]
    chosen = next((each for each in found.all if each.name == name), None)
    if chosen is None:
        names = "\n".join(each.name for each in found.all[:5])
        raise FabdjangoError(
            f"there is no backup {name}" if found.all else "there is no backup yet",
            host=host,
            cure=f"the newest are:\n{names}" if found.all else "make one: fab … db.backup",
        )
    return chosen


def describe(size: int, age: int) -> str:
    """Size and age in words."""
    number, unit = next(
        ((age // each, name) for each, name in ((86400, "day"), (3600, "hour"), (60, "minute")) if age >= each),
        (age, "second"),
    )
    return f"{size / 1e6:.1f} MB, {number} {unit}{'' if number == 1 else 's'} old"


def backup_lines(found: Backups, *, whole: bool) -> list[str]:
    """A line a backup: name, size, age, and whether it can be read."""
    if not found.all:
        return [f"no backups in {found.folder}"]
    width = max(len(each.name) for each in found.all)
    words = [describe(each.size, each.age) for each in found.all]
    widest = max(map(len, words))
    good = "read to its end" if whole else "can be read"
    return [
        f"{each.name:<{width}}  {said:<{widest}}  {f'BROKEN: {each.problem}' if each.problem else good}"
        for each, said in zip(found.all, words, strict=True)
    ]
