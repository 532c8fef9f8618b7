"""
What a Django project says of itself in its files: a snapshot of a folder in, findings with their file and line out.

Everything is found by reading, with ``ast`` where it is Python. Nothing of the
project is imported or run, and what cannot be told is left out.
"""

from __future__ import annotations

import ast
import functools
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fabdjango.pythonsource import Assigned, Place, Source, dotted, module_files, parse, place_in, read_source
from fabdjango.pythonvalue import (
    TOP,
    UNKNOWN,
    Variable,
    every_variable,
    value_of,
    value_of_name,
    variables_in,
    variables_of,
)
from fabdjango.requirements import Requirements, find_requirements, wanted_python

__all__ = ["Database", "Findings", "Found", "Service", "Snapshot", "Worker", "detect", "manage_files"]


@dataclass(frozen=True)
class Snapshot:
    """``paths`` are all files of a project, from the top of its repository; ``read`` gives the text of one, or None."""

    paths: tuple[str, ...]
    read: Callable[[str], str | None] = field(repr=False)

    def has(self, path: str) -> bool:
        """True if there is such a file."""
        return path in self._known

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.paths)


@dataclass(frozen=True)
class Found:
    """One finding and where it stands. An empty ``value`` says that the thing is there."""

    value: str
    place: Place


@dataclass(frozen=True)
class Database:
    """
    The default database.

    ``engine`` is postgresql, mysql, sqlite or another, ``url`` the variable that
    holds its URL. ``parts`` maps variables to what they hold of it: engine (if it has to be told),
    name, user, password, host or port; ``name`` and ``user`` are those that are
    written down. ``path`` is the file of SQLite in the commit, ``gis`` is True for GeoDjango.
    """

    engine: Found | None = None
    url: Found | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    user: str = ""
    path: str = ""
    gis: bool = False


@dataclass(frozen=True)
class Service:
    """
    A server beside the database, redis or amqp, and where settings speak of it.

    ``variable`` is what tells them its address, empty where they look on their own machine by themselves.
    """

    kind: str
    place: Place
    variable: str = ""


@dataclass(frozen=True)
class Worker:
    """A program beside the web server: its name, its command, and where it was found."""

    name: str
    command: str
    place: Place


@dataclass(frozen=True)
class Findings:
    """
    A project as far as its files tell.

    ``named`` is the settings module that a deploy takes from manage.py by
    itself, ``settings`` the one for a server. ``needed`` are variables without which the
    settings cannot be imported. ``https`` is where they send everybody to https. ``media_root`` is a path in the commit, or an absolute one.
    ``translations`` is one that is not compiled, ``compressed`` where django-compressor is told to work ahead of requests.
    """

    manage: str
    named: Found | None = None
    settings: Found | None = None
    settings_file: str = ""
    app: Found | None = None
    interface: Found | None = None
    configuration: Found | None = None
    requirements: Requirements = field(default_factory=Requirements)
    python: Found | None = None
    database: Database = field(default_factory=Database)
    secret: Place | None = None
    secret_key: Variable | None = None
    secret_literal: Place | None = None
    hosts: Variable | None = None
    host_separator: str = ","
    host_names: tuple[str, ...] = ()
    hosts_place: Place | None = None
    debug: Place | None = None
    debug_variable: Variable | None = None
    needed: tuple[Variable, ...] = ()
    https: Place | None = None
    static_root: Found | None = None
    static_url: Found | None = None
    whitenoise: Place | None = None
    manifest: Place | None = None
    media_root: Found | None = None
    media_url: Found | None = None
    translations: Place | None = None
    compressed: Place | None = None
    workers: tuple[Worker, ...] = ()
    broker: Found | None = None
    services: tuple[Service, ...] = ()
    local_settings: Found | None = None
    problems: tuple[str, ...] = ()


def manage_files(snapshot: Snapshot) -> tuple[str, ...]:
    """Every manage.py of Django, those nearest to the top first; one that only calls something has a wsgi.py below to tell."""
    entries = [path for path in snapshot.paths if posixpath.basename(path) in ("manage.py", "wsgi.py", "asgi.py")]
    django = [path for path in entries if "django" in (snapshot.read(path) or "").lower()]
    found = (path for path in entries if posixpath.basename(path) == "manage.py")
    ours = (path for path in found if any(each.startswith(_below(posixpath.dirname(path))) for each in django))
    return tuple(sorted(ours, key=lambda path: (path.count("/"), path)))


def detect(snapshot: Snapshot, manage: str, settings: str = "") -> Findings:
    """Everything about the project that the manage.py at this path belongs to; ``settings`` is the module, if that is known."""
    return _Project(snapshot, manage, settings).findings()


_DEVELOPERS = {"dev", "develop", "development", "local", "test", "tests", "testing", "ci", "example", "debug"}
_SERVERS = ("production", "prod", "product", "live", "deploy", "server")
_VARIABLE = "DJANGO_SETTINGS_MODULE"


class _Project:
    """One project while it is looked at."""

    def __init__(self, snapshot: Snapshot, manage: str, wanted: str) -> None:
        self.snapshot = snapshot
        self.manage = manage
        self.wanted = wanted
        self.folder = posixpath.dirname(manage)
        # src/ beside manage.py is on the path if the project installs itself, or if manage.py sees to it.
        self.folders = [self.folder, posixpath.join(self.folder, "src")]
        self.problems: list[str] = []
        self.source = Source()
        self.requirements = find_requirements(snapshot.read, snapshot.paths, self.folder)

    def findings(self) -> Findings:
        named, class_name = self.named_by(self.manage), self.named_by(self.manage, "DJANGO_CONFIGURATION")
        settings = self.choose_settings(named)
        file = self.file_of(settings.value) if settings else ""
        if file:
            self.source = read_source(file, self.snapshot.read, self.folders, self.snapshot.paths)
            self.problems += [
                f"{path} cannot be read as Python, and nothing was found in it" for path in self.source.broken
            ]
        configuration = self.choose_configuration(class_name)
        app, interface = self.application(settings)
        celery = self.celery()
        return Findings(
            manage=self.manage,
            named=self.seen_by_a_deploy(named),
            settings=settings,
            settings_file=file,
            app=app,
            interface=interface,
            configuration=configuration,
            requirements=self.requirements,
            python=self.python(),
            database=self.database(),
            workers=self.workers(celery),
            broker=self.broker(),
            services=tuple(self.services(celery)),
            local_settings=self.local_settings(),
            **self.security(),
            **self.files(),
            problems=tuple(self.problems),
        )

    # --- the settings module ---------------------------------------------------

    def named_by(self, path: str, variable: str = _VARIABLE) -> Found | None:
        """What a program sets the variable to, the last time it does."""
        tree = parse(self.snapshot.read(path) or "")
        found, texts = None, dict[str, str]()
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Assign) and _string(node.value):
                texts.setdefault(dotted(node.targets[0]), _string(node.value))
            if isinstance(node, ast.Call) and len(node.args) == 2 and dotted(node.func).endswith("environ.setdefault"):
                key, value = node.args
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                key, value = node.targets[0].slice, node.value
            else:
                continue
            text = _string(value) or texts.get(dotted(value), "")
            if _string(key) == variable and text:
                found = Found(text, Place(path, node.lineno))
        return found

    def seen_by_a_deploy(self, named: Found | None) -> Found | None:
        """The survey of a host reads manage.py with this pattern, as it may have to do with an old Python."""
        text = self.snapshot.read(self.manage) or ""
        found = re.search(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""", text)
        if not found:
            return None
        same = named is not None and named.value == found[1]
        return named if same else Found(found[1], place_in(self.manage, text, found.start(1)))

    def file_of(self, module: str) -> str:
        """The file of a module of the project, or an empty string."""
        files = [name for folder in self.folders for name in module_files(module, folder)]
        return next((name for name in files if self.snapshot.has(name)), "")

    def choose_settings(self, named: Found | None) -> Found | None:
        """What wsgi.py or asgi.py name, unless it is for developers; then one called production; then what manage.py names."""
        servers = [found for path in self.entries() if (found := self.named_by(path))]
        if self.wanted:
            return Found(self.wanted, Place(self.file_of(self.wanted) or self.manage))
        real = [found for found in (*servers, *filter(None, [named])) if self.file_of(found.value)]
        for found in real:
            if found.value.rpartition(".")[2] in _SERVERS:
                return found
        for found in real:
            if found.value.rpartition(".")[2] in _DEVELOPERS or self.is_package(found.value):
                better = self.for_servers(found)
                if better:
                    return better
        chosen = next((found for found in real if found.value.rpartition(".")[2] not in _DEVELOPERS), None)
        chosen = chosen or next(iter(real), None) or self.only_settings()
        if chosen is None and (missing := next(iter([*servers, *filter(None, [named])]), None)):
            self.problems.append(self.no_settings(missing))
            return missing
        return chosen

    def no_settings(self, missing: Found) -> str:
        start = posixpath.join(self.folder, *missing.value.split("."))
        near = [path for path in self.snapshot.paths if path.startswith(f"{start}_") and path.endswith(".py")]
        also = f"; beside it are {', '.join(map(posixpath.basename, near))}" if near else ""
        return (
            f"{missing.place} names the settings {missing.value}, and there is no such module in git{also}: "
            f"choose another with --settings, or give it to hosts as local_settings with local_settings_path: {start}.py"
        )

    def is_package(self, module: str) -> bool:
        return self.file_of(module).endswith("/__init__.py")

    def for_servers(self, found: Found) -> Found | None:
        """The module for a server that lies beside, or in, one that is not for it."""
        package = found.value if self.is_package(found.value) else found.value.rpartition(".")[0]
        for name in _SERVERS:
            file = self.file_of(f"{package}.{name}") if package else ""
            if file:
                return Found(f"{package}.{name}", Place(file))
        return None

    def only_settings(self) -> Found | None:
        """Where nothing names a module: the one settings.py that there is."""
        below = [
            path
            for path in self.snapshot.paths
            if re.fullmatch(rf"{re.escape(_below(self.folder))}\w+/settings\.py", path)
        ]
        if len(below) != 1:
            return None
        return Found(f"{posixpath.basename(posixpath.dirname(below[0]))}.settings", Place(below[0]))

    def choose_configuration(self, named: Found | None) -> Found | None:
        """The class of django-configurations for a server."""
        classes = [name for name in self.source.classes if name.lower() in _SERVERS]
        entries = [found for path in self.entries() if (found := self.named_by(path, "DJANGO_CONFIGURATION"))]
        if not named and not entries:
            return None
        chosen = next((found for found in entries if found.value.lower() not in _DEVELOPERS), None)
        if chosen is None and classes:
            chosen = Found(classes[0], Place(self.source.files[0]))
        chosen = chosen or named or entries[0]
        self.source.choose_class(chosen.value)
        return chosen

    # --- the application -------------------------------------------------------

    def entries(self) -> list[str]:
        """Every wsgi.py and asgi.py near manage.py, those nearest first."""
        start = _below(self.folder)
        found = [
            path
            for path in self.snapshot.paths
            if path.startswith(start)
            and posixpath.basename(path) in ("wsgi.py", "asgi.py")
            and path.removeprefix(start).count("/") <= 3
            and not _is_aside(path.removeprefix(start))
        ]
        return sorted(found, key=lambda path: (path.count("/"), posixpath.basename(path) == "asgi.py", path))

    def application(self, settings: Found | None) -> tuple[Found | None, Found | None]:
        """The application as module:name, and, if it is one for asgi, why."""
        why = self.why_asgi()
        wanted = "ASGI_APPLICATION" if why else "WSGI_APPLICATION"
        text = value_of_name(wanted, self.source)
        assigned = self.source.last(wanted)
        if isinstance(text, str) and assigned and self.file_of(text.rpartition(".")[0]):
            module, _, name = text.rpartition(".")
            return Found(f"{module}:{name}", assigned.place), why
        package = settings.value.split(".")[0] if settings else ""
        name = "asgi.py" if why else "wsgi.py"
        files = [path for path in self.entries() if posixpath.basename(path) == name]
        own = [path for path in files if f"/{package}/" in f"/{path}"]
        chosen = next(iter(own or files), None)
        if chosen is None:
            return None, why
        module = chosen.removeprefix(_below(self.folder)).removeprefix("src/").removesuffix(".py").replace("/", ".")
        return Found(f"{module}:application", Place(chosen)), why

    def why_asgi(self) -> Found | None:
        asgi = next((path for path in self.entries() if path.endswith("asgi.py")), "")
        if not asgi:
            return None
        for app in ("channels", "daphne"):
            place = self.source.text_in(r".*APPS", re.escape(app))
            if place:
                return Found(app, place)
        text = self.snapshot.read(asgi) or ""
        routed = re.search(r"\b(ProtocolTypeRouter|FastAPI|Starlette|socketio)\b", text)
        if routed:
            return Found(routed[1], place_in(asgi, text, routed.start()))
        for package in ("uvicorn", "uvicorn-worker", "hypercorn", "channels", "daphne"):
            place = self.requirements.has(package)
            if place:
                return Found(package, place)
        wsgi = any(path.endswith("wsgi.py") for path in self.entries())
        return None if wsgi else Found("there is no wsgi.py", Place(asgi))

    def python(self) -> Found | None:
        found = wanted_python(self.snapshot.read, self.snapshot.paths)
        return Found(*found) if found else None

    # --- what is secret, and who may ask ----------------------------------------

    def security(self) -> dict[str, Any]:
        source = self.source
        secret, hosts, debug = (source.last(name) for name in ("SECRET_KEY", "ALLOWED_HOSTS", "DEBUG"))
        redirect = source.last("SECURE_SSL_REDIRECT")
        secrets, allowed = variables_of("SECRET_KEY", source), variables_of("ALLOWED_HOSTS", source)
        literal = isinstance(secret.value, ast.Constant) and bool(secret.value.value) if secret else False
        listed = value_of_name("ALLOWED_HOSTS", source)
        debugging = value_of_name("DEBUG", source) is True
        settled = {*(variable.name for variable in [*secrets[:1], *allowed[:1]])}
        return {
            "secret": secret.place if secret else None,
            "secret_key": next(iter(secrets), None),
            "secret_literal": secret.place if secret and literal and not secrets else None,
            "hosts": next(iter(allowed), None),
            "host_separator": _separator(hosts),
            "host_names": tuple(each for each in listed if isinstance(each, str) and each)
            if isinstance(listed, list)
            else (),
            "hosts_place": hosts.place if hosts else None,
            "https": redirect.place if redirect and value_of_name("SECURE_SSL_REDIRECT", source) is True else None,
            "debug": debug.place if debug and debugging else None,
            "debug_variable": next(iter(variables_of("DEBUG", source)), None) if debugging else None,
            "needed": tuple(each for each, _ in every_variable(source) if each.required and each.name not in settled),
        }

    def local_settings(self) -> Found | None:
        """A module that the settings take in if it is there."""
        for module, place in self.source.missing.items():
            level = len(module) - len(module.lstrip("."))
            start = posixpath.join(posixpath.dirname(place.path), "../" * (level - 1)) if level else self.folder
            file = posixpath.normpath(posixpath.join(start, *module.lstrip(".").split("."))) + ".py"
            if re.search(r"local|private|secret|host", posixpath.basename(file)):
                return Found(file, place)
        return None

    # --- the database ------------------------------------------------------------

    def database(self) -> Database:
        """The last assignment that names an engine better than SQLite, else the last one."""
        found = [self.one_database(each) for each in self.source.all("DATABASES")]
        known = [each for each in found if each.engine or each.url]
        if not known:
            return Database()
        served = [each for each in known if each.url or (each.engine and each.engine.value != "sqlite")]
        return (served or known)[-1]

    def one_database(self, at: Assigned) -> Database:
        node = at.value
        keys = list(at.keys)
        if not keys and isinstance(node, ast.Dict):
            node, keys = _entry(node, "default") or node, ["default"]
        if keys[:1] not in ([], ["default"]):
            return Database()
        variables = variables_in(node, self.source, at)
        url = next((each for each in variables if each.kind == "db" or each.name.endswith("DATABASE_URL")), None)
        if url:
            return self.by_url(url, at)
        literal = re.search(r"'([a-z0-9+]+)://", ast.dump(node)) if isinstance(node, ast.Call) else None
        if literal:
            return Database(Found(_engine(literal[1]), at.place))
        values = _entries(node, self.source, at) if len(keys) < 2 else {str(keys[1]): node}
        engine, name, user = (value_of(values.get(key), self.source, at) for key in ("ENGINE", "NAME", "USER"))
        found = Found(_engine(engine) if isinstance(engine, str) else "", _place_of(values.get("ENGINE"), at))
        parts = self.parts_of(values, at)
        if "engine" in parts.values():
            # A variable chooses; what a server has is what a driver is installed for.
            chosen = self.driver() if found.value in ("", "sqlite") else None
            parts = {name: part for name, part in parts.items() if part != "engine" or chosen}
            found = Found(chosen.value, found.place) if chosen else found
        is_file = found.value == "sqlite"
        return Database(
            found if found.value else None,
            None,
            parts,
            name if isinstance(name, str) and not is_file and "name" not in parts.values() else "",
            user if isinstance(user, str) and "user" not in parts.values() else "",
            self.sqlite_path(name) if is_file else "",
            "gis" in str(engine),
        )

    def by_url(self, url: Variable, at: Assigned) -> Database:
        """Of a URL, its default or the driver that is installed tells which database it is."""
        default = value_of(url.default, self.source, at) if url.default else UNKNOWN
        scheme = str(default).split(":", 1)[0] if isinstance(default, str) else ""
        driver = self.driver()
        engine = driver or (Found(_engine(scheme), url.place) if scheme else None)
        path = str(default).partition(":///")[2] if scheme.startswith("sqlite") and not driver else ""
        path = self.sqlite_path(path) if path else ""
        return Database(engine, Found(url.name, url.place), path=path, gis="gis" in scheme)

    def driver(self) -> Found | None:
        for engine, packages in _DRIVERS.items():
            place = self.requirements.has(*packages)
            if place:
                return Found(engine, place)
        return None

    def parts_of(self, values: Mapping[str, ast.expr], at: Assigned) -> dict[str, str]:
        parts = {}
        for key in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT"):
            for variable in variables_in(values[key], self.source, at)[:1] if key in values else ():
                parts[variable.name] = key.lower()
        return parts

    def sqlite_path(self, value: Any) -> str:
        text = "" if value in (UNKNOWN, None, ":memory:") else str(value)
        return _in_commit(text if text.startswith("/") else f"{TOP}/{_below(self.folder)}{text}") if text else ""

    # --- static files and uploads --------------------------------------------------

    def files(self) -> dict[str, Any]:
        storages = r"STORAGES|STATICFILES_STORAGE|DEFAULT_FILE_STORAGE"
        return {
            "static_root": self.folder_of("STATIC_ROOT"),
            "static_url": self.text_of("STATIC_URL"),
            "whitenoise": self.source.text_in(r"MIDDLEWARE.*|.*APPS", r"whitenoise\..*"),
            "manifest": self.source.text_in(storages, ".*Manifest.*"),
            "media_root": self.folder_of("MEDIA_ROOT"),
            "media_url": self.text_of("MEDIA_URL"),
            "translations": self.not_compiled(),
            "compressed": self.compressed(),
        }

    def not_compiled(self) -> Place | None:
        """The first translation that Django cannot read before compilemessages."""
        below, form = _below(self.folder), re.compile(r"(.*/)?locale/\w+/LC_MESSAGES/\w+\.po")
        texts = (path for path in self.snapshot.paths if path.startswith(below) and form.fullmatch(path))
        return next((Place(path) for path in texts if not self.snapshot.has(f"{path[:-3]}.mo")), None)

    def compressed(self) -> Place | None:
        """Where style sheets and scripts are said to be compressed by a command of the deploy."""
        assigned = self.source.last("COMPRESS_OFFLINE")
        return assigned.place if assigned and value_of_name("COMPRESS_OFFLINE", self.source) is not False else None

    def text_of(self, name: str) -> Found | None:
        """What is assigned, as text; a value that nobody can tell is empty."""
        assigned, value = self.source.last(name), value_of_name(name, self.source)
        if assigned is None or value is None or value == "":
            return None
        return Found("" if value is UNKNOWN else str(value), assigned.place)

    def folder_of(self, name: str) -> Found | None:
        """The same for a folder, in the commit or an absolute one."""
        found = self.text_of(name)
        return Found(_in_commit(found.value) or found.value, found.place) if found else None

    # --- workers ---------------------------------------------------------------------

    def workers(self, celery: Found | None) -> tuple[Worker, ...]:
        found: list[Worker] = []
        if celery:
            found.append(Worker("worker", f"celery -A {celery.value} worker --loglevel INFO", celery.place))
            beat = self.beat(celery)
            if beat:
                found.append(beat)
        for app, (name, command) in _WORKERS.items():
            place = self.source.text_in(r".*APPS", re.escape(app))
            if place:
                found.append(Worker(name, command, place))
        return tuple(found)

    def broker(self) -> Found | None:
        """The setting that says where the tasks of Celery are kept."""
        names = ("CELERY_BROKER_URL", "CELERY_BROKER", "BROKER_URL")
        return next((Found(name, each.place) for name in names if (each := self.source.last(name))), None)

    def services(self, celery: Found | None) -> Iterator[Service]:
        """By the variables that hold an address, by what is written down, and by what Celery is installed with."""
        found, sources = set[str](), [self.source]
        if celery:
            # Its broker may be named where it is made.
            sources.append(read_source(celery.place.path, self.snapshot.read, self.folders, self.snapshot.paths))
        for variable, default in [each for source in sources for each in _addresses(source)]:
            kind = self.kind_of(default or variable.name)
            if kind:
                found.add(kind)
                yield Service(kind, variable.place, "" if _LOCAL.match(default) else variable.name)
        texts = {"redis": r"rediss?://.*|.*\.RedisCache|channels_redis\..*", "amqp": r"amqps?://.*"}
        for kind in [each for each in texts if each not in found]:
            places = [source.text_in(r"\w+", texts[kind]) for source in sources]
            place = next(filter(None, places), None) or (self.requirements.has(f"celery[{kind}]") if celery else None)
            if place:
                yield Service(kind, place)

    def kind_of(self, address: str) -> str:
        """Redis or amqp, by an address or by the name of its variable; else by the client that is installed."""
        known = re.search(r"redis|amqp|rabbit", address.lower())
        if known:
            return "redis" if known[0] == "redis" else "amqp"
        has_redis = "://" not in address and self.requirements.has("redis", "celery[redis]", "django-redis")
        return "redis" if has_redis else ""

    def celery(self) -> Found | None:
        """The module that makes a Celery application, as celery's -A takes it."""
        start = _below(self.folder)
        for path in sorted(self.snapshot.paths, key=lambda path: (path.count("/"), path)):
            below = path.removeprefix(start).removeprefix("src/")
            if not (path.startswith(start) and re.search(r"(celery\w*|__init__|tasks|worker)\.py$", path)):
                continue
            if _is_aside(below) or (place := self.makes_celery(path)) is None:
                continue
            module = below.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            return Found(module.removesuffix(".celery"), place)
        return None

    def makes_celery(self, path: str) -> Place | None:
        text = self.snapshot.read(path) or ""
        tree = parse(text) if "Celery" in text else None
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.Call) and dotted(node.func) in ("Celery", "celery.Celery"):
                return Place(path, node.lineno)
        return None

    def beat(self, celery: Found) -> Worker | None:
        command = f"celery -A {celery.value} beat --loglevel INFO"
        place = self.source.text_in(r".*APPS", "django_celery_beat")
        if place:
            own = self.source.last("CELERY_BEAT_SCHEDULER")
            scheduler = "" if own else " --scheduler django_celery_beat.schedulers:DatabaseScheduler"
            return Worker("beat", command + scheduler, place)
        scheduled = next((each for each in self.source.assigned if each.name in _SCHEDULES), None)
        text = self.snapshot.read(celery.place.path) or ""
        named = re.search(r"\bbeat_schedule\b|\badd_periodic_task\b", text)
        place = scheduled.place if scheduled else None
        if not place and named:
            place = place_in(celery.place.path, text, named.start())
        # The file in which it keeps what ran last must outlive releases.
        return Worker("beat", f"{command} --schedule celerybeat/schedule", place) if place else None


_ADDRESS = re.compile(r"(\w+_)?(REDIS|BROKER|AMQP|RABBITMQ)(_\w+)?_UR[LI]|(CELERY_)?BROKER")
_LOCAL = re.compile(r"\w+://(\S*@)?(localhost|127\.0\.0\.1)\b")
_SCHEDULES = ("CELERY_BEAT_SCHEDULE", "CELERYBEAT_SCHEDULE")
_DRIVERS = {
    "postgresql": ("psycopg", "psycopg2", "psycopg2-binary", "psycopg-binary", "psycopg-c"),
    "mysql": ("mysqlclient", "pymysql", "mysql-connector-python"),
    "oracle": ("oracledb", "cx-oracle"),
}
_WORKERS = {
    "django_rq": ("worker", "python manage.py rqworker default"),
    "django_q": ("worker", "python manage.py qcluster"),
    "huey.contrib.djhuey": ("worker", "python manage.py run_huey"),
    "django_dramatiq": ("worker", "python manage.py rundramatiq"),
    "procrastinate.contrib.django": ("worker", "python manage.py procrastinate worker"),
}


def _below(folder: str) -> str:
    return f"{folder}/" if folder else ""


def _is_aside(path: str) -> bool:
    """True for what is no part of the site: tests, templates of projects, examples."""
    return bool(re.search(r"(^|/)(tests?|docs?|examples?|project_template|node_modules|site-packages|\.?venv)/", path))


def _string(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _place_of(node: ast.expr | None, at: Assigned) -> Place:
    return Place(at.place.path, node.lineno) if node else at.place


def _entry(node: ast.Dict, key: str) -> ast.expr | None:
    for name, value in zip(node.keys, node.values, strict=True):
        if name is not None and _string(name) == key:
            return value
    return None


def _entries(node: ast.expr, source: Source, at: Assigned) -> dict[str, ast.expr]:
    """The entries of a dict, also of one that is only named here."""
    if isinstance(node, ast.Name):
        below = source.last(node.id, at)
        return _entries(below.value, source, below) if below and below is not at else {}
    if isinstance(node, ast.Call) and dotted(node.func) == "dict":
        return {each.arg: each.value for each in node.keywords if each.arg}
    pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
    return {_string(key): value for key, value in pairs if key is not None and _string(key)}


def _engine(text: str) -> str:
    """A database's name as everybody calls it, from Django's engine or a URL's scheme."""
    known = {
        "postg": "postgresql",
        "mysql": "mysql",
        "mariadb": "mysql",
        "sqlite": "sqlite",
        "spatialite": "sqlite",
        "oracle": "oracle",
    }
    last = text.lower()
    return next((name for part, name in known.items() if part in last), text.rpartition(".")[2])


def _in_commit(text: str) -> str:
    """A path of the commit from an evaluated one, or an empty string for one that is elsewhere."""
    path = posixpath.normpath(text)
    return path.removeprefix(f"{TOP}/") if path.startswith(f"{TOP}/") else ""


def _addresses(source: Source) -> Iterator[tuple[Variable, str]]:
    """The variables that hold the address of a service, with the one that is taken without them."""
    for variable, at in every_variable(source):
        if _ADDRESS.fullmatch(variable.name):
            yield variable, str(value_of(variable.default, source, at)) if variable.default else ""


def _separator(hosts: Assigned | None) -> str:
    """What stands between the names, where ALLOWED_HOSTS is split from one text."""
    for node in ast.walk(hosts.value) if hosts else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "split":
            return (_string(node.args[0]) if node.args else "") or " "
    return ","
