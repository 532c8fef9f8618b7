"""
From what was found in a project, and what its operator answers, to the settings of a first fabric.yaml.

Values only: entries with their reasons, and what has to be mended in the
project before a deploy can go well.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from fabdjango.checkout import Checkout
from fabdjango.detection import Findings, Found, Worker
from fabdjango.escape import yaml_value
from fabdjango.inventory import split_address
from fabdjango.pythonvalue import Variable
from fabdjango.settings import setting_rows

__all__ = ["Answers", "Entry", "Line", "likely_domains", "lines_of", "live_values", "name_of", "problems_of", "propose"]


@dataclass(frozen=True)
class Answers:
    """What only the operator knows: the project's name, the host (user@host:port), and the site's domains."""

    project: str
    host: str = ""
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """
    One key of the file: its value, or the entries below it, and a word why.

    One that is not ``live`` is written as a comment, and so is one of whose entries none is.
    """

    key: str
    value: Any = None
    why: str = ""
    live: bool = True
    below: tuple[Entry, ...] = ()

    @property
    def counts(self) -> bool:
        """True if it says something to a reader of the file."""
        return any(each.counts for each in self.below) if self.below else self.live


@dataclass(frozen=True)
class Line:
    """A line of the file, and the comment at its end."""

    text: str
    why: str = ""


def live_values(entries: Iterable[Entry]) -> dict[str, Any]:
    """What a reader of the file gets."""
    return {each.key: live_values(each.below) if each.below else each.value for each in entries if each.counts}


def lines_of(entries: Iterable[Entry], depth: int = 1, dead: int = 0) -> Iterator[Line]:
    """The entries as lines of YAML; ``dead`` is the depth from which on they are a comment."""
    before = False
    for each in entries:
        off = dead or (0 if each.counts else depth)
        start = "  " * off + "# " + "  " * (depth - off) if off else "  " * depth
        if depth == 1 and (each.below or before):
            yield Line("")
        before = bool(each.below)
        value = "" if each.below else f" {yaml_value(each.value)}"
        yield Line(f"{start}{yaml_value(each.key)}:{value}", _printable(each.why))
        yield from lines_of(each.below, depth + 1, off)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def name_of(text: str) -> str:
    """The name of a repository or a folder as the name of a site."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")
    return plain[:41].rstrip("-_") or "site"


def likely_domains(findings: Findings) -> tuple[str, ...]:
    """The names that the settings allow already."""
    names = (name.lstrip(".") for name in findings.host_names)
    return tuple(dict.fromkeys(name for name in names if _is_domain(name)))


def _is_domain(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        local = name.endswith((".localhost", ".local", ".test", ".internal"))
        return bool(re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", name, re.IGNORECASE)) and not local
    return False


# --- the entries -----------------------------------------------------------------


def propose(findings: Findings, checkout: Checkout, answers: Answers) -> tuple[Entry, ...]:
    """Every entry of the file that there is a setting for, in its order."""
    found = (
        Entry("project", answers.project, f"names /srv/{answers.project} on the host, and the programs"),
        *_source(checkout),
        *_accounts(findings, answers),
        *_python(findings),
        _hosts(answers),
        _nginx(findings, answers),
        _venv(findings),
        _django(findings),
        _gunicorn(findings),
        *_database(findings),
        *_secrets(findings),
        *_environment(findings, answers),
        *_settings_files(findings),
        *_shared(findings, checkout),
        *_hooks(findings),
        *_processes(findings),
        _health(findings),
        _server(findings),
    )
    known = {row.key.split(".")[0] for row in setting_rows()} | {"hosts"}
    return tuple(each for each in found if each.key in known and (each.below or each.value is not None))


def _at(found: Found | Variable | None) -> str:
    return f"found in {found.place}" if found else ""


def _source(checkout: Checkout) -> Iterator[Entry]:
    """Where commits come from, and which branch."""
    remote = checkout.remote
    if remote.address:
        needs = "has to be public" if remote.address.startswith("http") else "needs its deploy key"
        yield Entry("repository", remote.address, f"the remote {remote.name}, as a host fetches from it; {needs}")
        yield Entry(
            "git", {"transfer": "push"}, "or this: commits come from your clone, and hosts need no key", live=False
        )
    else:
        yield Entry("git", {"transfer": "push"}, f"commits come from your clone: {remote.why}")
    branch = (remote.branch if remote.address else "") or checkout.branch or "main"
    why = f"the default of {remote.name}" if branch == remote.branch else "checked out here"
    if branch != checkout.branch and checkout.branch:
        why += f"; checked out is {checkout.branch}"
    yield Entry("branch", branch, why, live=branch != "main")


def _accounts(findings: Findings, answers: Answers) -> Iterator[Entry]:
    yield Entry("user", "deploy", "owns the files and deploys; setup makes the account")
    # Its journal lies beside the file, and the folder shared itself belongs to the owner.
    at_top = findings.database.path and "/" not in findings.database.path
    why = "runs the application, and can write uploads and the database but no code"
    if at_top:
        why = f"only with {findings.database.path} in a folder of its own, where SQLite may write"
    yield Entry("run_as", f"www-{answers.project}"[:32].rstrip("-_"), why, live=not at_top)


def _python(findings: Findings) -> Iterator[Entry]:
    if findings.python:
        number = re.search(r"3\.\d+", findings.python.value)
        name = f"python{number[0]}" if number else "python3"
        yield Entry(
            "python",
            name,
            f"{findings.python.place} wants {findings.python.value}; else the host's python3",
            live=False,
        )


def _hosts(answers: Answers) -> Entry:
    user, address, port = split_address(answers.host)
    if not address:
        return Entry(
            "hosts", below=(Entry("web1.example.com", {}, "your server; or name it each time: fab -H …", live=False),)
        )
    ssh = {**({"user": user} if user else {}), **({"port": port} if port else {})}
    return Entry("hosts", below=(Entry(address, {"ssh": ssh} if ssh else {}, "so that fab needs no -H"),))


def _nginx(findings: Findings, answers: Answers) -> Entry:
    static, media, root = findings.static_url, findings.media_url, findings.media_root
    below = [
        Entry(
            "domains",
            list(answers.domains) or ["blog.example.com"],
            "the first is the site's own",
            bool(answers.domains),
        ),
        Entry("tls", "letsencrypt", "https; or self-signed, or files. Without it there is http only", live=False),
    ]
    for key, found, usual in (("static_url", static, "/static/"), ("media_url", media, "/media/")):
        url = _served(found.value) if found else usual
        if found and url is not None and url != usual:
            below.append(Entry(key, url, _at(found) if url else f"{found.place} has {found.value}: not by this nginx"))
    if findings.whitenoise and not any(each.key == "static_url" for each in below):
        below.append(
            Entry("static_url", "/static/", f"nginx answers before whitenoise, {findings.whitenoise}", live=False)
        )
    if root and root.value not in ("", "media"):
        below.append(Entry("media", root.value, _at(root)))
    return Entry("nginx", below=tuple(below))


def _served(url: str) -> str | None:
    """The path of a URL of Django's settings; empty if another server has it, None if it is not known."""
    if re.match(r"(https?:)?//", url):
        return ""
    path = "/" + url.strip("/") + "/"
    return path if re.fullmatch(r"/([A-Za-z0-9_~-][A-Za-z0-9._~-]*/)+", path) else None


def _venv(findings: Findings) -> Entry:
    listed = findings.requirements
    below = []
    if listed.file:
        why = f"{listed.file}, which lists Django" if "django" in listed.packages else listed.file
        below.append(Entry("requirements", "auto" if listed.auto else [listed.file], why, live=not listed.auto))
    gunicorn = listed.has("gunicorn")
    packages = Entry(
        "packages", ["gunicorn"], f"{gunicorn} has it" if gunicorn else "what the project does not list", live=False
    )
    extras = dict(listed.extras)
    extra, package = _driver(findings)
    if extra:
        extras[extra] = listed.choices[extra][package]
    elif package:
        packages = Entry(
            "packages", ["gunicorn", "psycopg[binary]"], f"for PostgreSQL, and {listed.file} lists no driver"
        )
    below.append(packages)
    if findings.settings_file.startswith(posixpath.join(posixpath.dirname(findings.manage), "src/")):
        below.append(Entry("install_project", True, f"{findings.settings_file} is not beside manage.py"))
    for key, named in (("extras", extras), ("groups", listed.groups)):
        if named:
            below.append(Entry(key, list(named), f"found in {next(iter(named.values()))}"))
    return Entry("venv", below=tuple(below))


_POSTGRESQL = ("psycopg", "psycopg2", "psycopg2-binary", "psycopg-binary", "psycopg-c")


def _driver(findings: Findings) -> tuple[str, str]:
    """
    What PostgreSQL lacks: the smallest extra that has a driver, and its name there; or the name alone.

    Nothing if it is listed. Where nothing is known of the packages, nothing is known to be missing.
    """
    listed, engine = findings.requirements, findings.database.engine
    if not engine or engine.value != "postgresql" or not listed.packages or listed.has(*_POSTGRESQL):
        return "", ""
    found = [
        (len(packages), extra, name)
        for extra, packages in listed.choices.items()
        for name in _POSTGRESQL
        if name in packages
    ]
    return min(found)[1:] if found else ("", "psycopg")


def _django(findings: Findings) -> Entry:
    settings, named = findings.settings, findings.named
    below = [Entry("manage", findings.manage, "its folder is where commands run", live=findings.manage != "manage.py")]
    if settings:
        differs = not named or named.value != settings.value
        why = _at(settings)
        if differs and named:
            why += f"; {named.place} names {named.value}"
        below.append(Entry("settings", settings.value, why, live=differs))
    return Entry("django", below=tuple(below))


def _gunicorn(findings: Findings) -> Entry:
    below = []
    if findings.interface:
        below.append(Entry("interface", "asgi", f"{findings.interface.value}, {_at(findings.interface)}"))
    if findings.app:
        package = findings.settings.value.split(".")[0] if findings.settings else ""
        usual = f"{package}.{'asgi' if findings.interface else 'wsgi'}:application"
        below.append(Entry("app", findings.app.value, _at(findings.app), live=findings.app.value != usual))
    return Entry("gunicorn", below=tuple(below))


def _database(findings: Findings) -> Iterator[Entry]:
    """The database that setup makes, where the settings can be told its password."""
    found = findings.database
    if not found.engine or found.engine.value not in ("postgresql", "mysql"):
        return
    variables = {name: part for name, part in found.parts.items() if part != "engine"}
    if found.url and found.url.value != "DATABASE_URL":
        variables = {found.url.value: "url"}
    below = [Entry("engine", found.engine.value, f"made on the host; {_at(found.engine)}")]
    fixed = {"name": found.name, "user": found.user}
    below += [Entry(key, fixed[key], "as the settings have it") for key in fixed if _IDENTIFIER.fullmatch(fixed[key])]
    if variables or not found.url:
        below.append(Entry("variables", variables, "by which the settings learn of it"))
    if not _takes_a_password(findings):
        below = [replace(each, live=False) for each in below[:1]]
    yield Entry("database", below=tuple(below))


_IDENTIFIER = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}")


def _takes_a_password(findings: Findings) -> bool:
    return bool(findings.database.url) or "password" in findings.database.parts.values()


def _secrets(findings: Findings) -> Iterator[Entry]:
    """Variables that are secret; those that nobody but the operator has are proposed from there."""
    key = findings.secret_key
    below = [Entry(key.name, "generate", f"SECRET_KEY, made on the host; {_at(key)}")] if key else []
    below += [
        Entry(each.name, {"variable": each.name}, f"needed by {each.place}; or {{command: pass show …}}", live=False)
        for each in _needed(findings)
        if _is_secret(each.name)
    ]
    if below:
        yield Entry("secrets", below=tuple(below))


def _needed(findings: Findings) -> list[Variable]:
    """What the settings cannot do without, and nothing else here gives."""
    given = {*findings.database.parts, *(each.variable for each in findings.services)}
    if findings.database.url:
        given.add(findings.database.url.value)
    return [each for each in findings.needed if each.name not in given]


def _is_secret(name: str) -> bool:
    return bool(re.search(r"(^|_)(KEY|SECRET|TOKEN|PASSWORD|PASSWD|PASS|DSN|CREDENTIALS?)(_|$)", name))


_LOCAL = {"redis": "redis://127.0.0.1:6379/0", "amqp": "amqp://127.0.0.1"}


def _environment(findings: Findings, answers: Answers) -> Iterator[Entry]:
    """Variables that are not secret."""
    below = []
    if findings.configuration:
        below.append(Entry("DJANGO_CONFIGURATION", findings.configuration.value, _at(findings.configuration)))
    if findings.hosts:
        names = findings.host_separator.join(answers.domains or ("blog.example.com",))
        below.append(Entry(findings.hosts.name, names, f"ALLOWED_HOSTS, {_at(findings.hosts)}", bool(answers.domains)))
    debug = findings.debug_variable
    if debug:
        below.append(Entry(debug.name, "False", f"DEBUG is on without it, {_at(debug)}", live=debug.kind == "bool"))
    below += [
        Entry(
            name,
            f"django.db.backends.{findings.database.engine.value}",
            f"chosen by it, {_at(findings.database.engine)}",
        )
        for name, part in findings.database.parts.items()
        if part == "engine" and findings.database.engine
    ]
    below += [
        Entry(each.variable, _LOCAL[each.kind], f"on the host; found in {each.place}")
        for each in findings.services
        if each.variable
    ]
    taken = {each.key for each in below}
    below += [
        Entry(each.name, "", f"needed by {each.place}", live=False)
        for each in _needed(findings)
        if each.name not in taken and not _is_secret(each.name)
    ]
    if below:
        yield Entry("environment", below=tuple(below))


def _server(findings: Findings) -> Entry:
    """What setup does beyond its own."""
    reasons: dict[str, str] = {}
    for service in findings.services:
        reasons.setdefault(
            {"redis": "redis-server", "amqp": "rabbitmq-server"}[service.kind], f"{service.kind}, {service.place}"
        )
    for names, packages in _BUILT:
        place = findings.requirements.has(*names)
        if place:
            reasons.update({each: f"{names[0]} is built, {place}" for each in packages if each not in reasons})
    if findings.database.gis:
        reasons["gdal-bin"] = f"GeoDjango, {_at(findings.database.engine)}"
    if findings.translations:
        reasons["gettext"] = "compiles translations"
    below = [Entry("packages", list(reasons), "; ".join(dict.fromkeys(reasons.values())))] if reasons else []
    below.append(Entry("firewall", "ufw", "shuts all ports but 80, 443 and that of SSH", live=False))
    below.append(Entry("updates", True, "lets the host install security updates by itself", live=False))
    return Entry("server", below=tuple(below))


_BUILT = (
    (("psycopg2", "psycopg[c]", "psycopg-c"), ("gcc", "python3-dev", "libpq-dev")),
    (("mysqlclient",), ("gcc", "python3-dev", "pkg-config", "default-libmysqlclient-dev")),
    (("python-ldap",), ("gcc", "python3-dev", "libldap2-dev", "libsasl2-dev")),
)


def _settings_files(findings: Findings) -> Iterator[Entry]:
    """A settings module of the host's own, where the settings import one."""
    local = findings.local_settings
    if local:
        yield Entry("local_settings", "deploy/local_settings.py.j2", f"imported by {local.place}", live=False)
        usual = posixpath.join(posixpath.dirname(findings.settings_file), "local_settings.py")
        if local.value != usual:
            yield Entry("local_settings_path", local.value, "where that goes", live=False)


def _shared(findings: Findings, checkout: Checkout) -> Iterator[Entry]:
    """What must outlive a release: uploads, the file of SQLite, and beat's memory."""
    reasons = {}
    media = findings.media_root
    if media and media.value and not media.value.startswith("/"):
        reasons[f"{media.value}/"] = "uploads"
    path = findings.database.path
    if path:
        folder = posixpath.dirname(path)
        own = folder and not any(each.startswith(f"{folder}/") for each in checkout.tracked)
        reasons[f"{folder}/" if own else path] = "the database"
    if any("celerybeat/" in worker.command for worker in findings.workers):
        reasons[posixpath.join(posixpath.dirname(findings.manage), "celerybeat/")] = "what beat ran last"
    kept = [each for each in reasons if not any(each != other and each.startswith(other) for other in reasons)]
    if kept:
        yield Entry("shared", kept, "outlives releases: " + ", ".join(reasons[each] for each in kept))
    else:
        yield Entry("shared", ["media/"], "what would have to outlive releases, such as uploads", live=False)


def _hooks(findings: Findings) -> Iterator[Entry]:
    """What is made of files of the commit before a release is complete."""
    below = []
    if findings.translations:
        command = "python manage.py compilemessages -v 0"
        below.append(Entry("before_collectstatic", [command], f"git has no {findings.translations.path[:-3]}.mo"))
    if findings.compressed:
        command = "python manage.py compress"
        below.append(Entry("after_collectstatic", [command], f"COMPRESS_OFFLINE, {findings.compressed}"))
    if below:
        yield Entry("hooks", below=tuple(below))


def _processes(findings: Findings) -> Iterator[Entry]:
    below = tuple(
        Entry(worker.name, {"command": worker.command, **_of_one_host(worker)}, f"found in {worker.place}")
        for worker in findings.workers
    )
    if below:
        yield Entry("processes", below=below)
    yield Entry("manager", "systemd", "instead of supervisor", live=False)


def _of_one_host(worker: Worker) -> dict[str, object]:
    """Two that keep the time would send every task twice."""
    return {"hosts": "primary"} if " beat" in worker.command else {}


def _health(findings: Findings) -> Entry:
    path = Entry("path", "/", "a page that needs no login, but the database", live=False)
    names = f", whose names have hashes ({findings.manifest})" if findings.manifest else ""
    return Entry(
        "health", below=(path, Entry("static", "css/site.css", f"a static file to ask for too{names}", live=False))
    )


# --- what to mend ------------------------------------------------------------------


def problems_of(findings: Findings, checkout: Checkout, answers: Answers) -> Iterator[str]:
    """What a deploy would stumble over, each with its place and what to do."""
    yield from findings.problems
    if not checkout.has_commit:
        yield "there is no commit yet, and what is deployed are commits: git add, git commit"
    for path in dict.fromkeys([findings.manage, findings.settings_file, findings.requirements.file]):
        if path and checkout.has_commit and path not in checkout.tracked:
            yield f"{path} is not in git, so that no host would get it: git add {path}"
    yield from _packages_to_mend(findings, checkout)
    yield from _settings_to_mend(findings, answers)


def _packages_to_mend(findings: Findings, checkout: Checkout) -> Iterator[str]:
    listed, has = findings.requirements, checkout.snapshot.has
    if not listed.file and has("Pipfile"):
        yield "a Pipfile is not installed from: pipenv requirements > requirements.txt, and commit it"
    elif not listed.file:
        yield "no file lists the packages: pip freeze > requirements.txt, and commit it"
    elif listed.file != "setup.py" and not listed.has("django", "wagtail", "django-cms"):
        yield f"{listed.file} does not list Django; name the right file as venv: {{requirements: […]}}"
    if has("poetry.lock") and listed.file == "pyproject.toml":
        yield (
            "poetry.lock is not read, so that versions are not those it has: "
            "poetry export -o requirements.txt (or uv lock), and commit it"
        )
    engine = findings.database.engine
    if engine and engine.value == "mysql" and not listed.has("mysqlclient", "pymysql"):
        yield f"{engine.place} takes MySQL, and {listed.file or 'no file'} lists no driver such as mysqlclient"
    if findings.broker and findings.workers and not findings.services:
        yield f"the worker needs its broker on the host: {findings.broker.value}, {_at(findings.broker)}"


def _settings_to_mend(findings: Findings, answers: Answers) -> Iterator[str]:
    if findings.secret_literal:
        yield (
            f"SECRET_KEY stands in {findings.secret_literal}, for everybody who sees the repository: "
            'SECRET_KEY = os.environ["SECRET_KEY"]'
        )
    if findings.settings_file and not findings.secret:
        own = f"; {findings.local_settings.value} may do so" if findings.local_settings else ""
        yield f"SECRET_KEY is not set by {findings.settings_file}, nor by what it imports{own}"
    database = findings.database
    if database.engine and database.engine.value in ("postgresql", "mysql") and not _takes_a_password(findings):
        yield (
            f"DATABASES has no variable for the password, {_at(database.engine)}: take it from the environment, "
            "and name the variable under database: variables:"
        )
    if database.gis and database.engine and database.engine.value == "postgresql":
        yield f"PostGIS has to be made by hand, {_at(database.engine)}: apt-get install postgresql-postgis, CREATE EXTENSION postgis"
    taken = {findings.debug_variable.name} if findings.debug_variable else set()
    lacking = [each.name for each in _needed(findings) if each.name not in taken]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        yield f"the settings cannot be imported without {', '.join(lacking[:5])}{more}: see secrets: and environment:"
    if findings.debug and not findings.debug_variable:
        yield f"DEBUG is True in {findings.debug}: DEBUG = False, at least where a server runs"
    if findings.https:
        yield f"SECURE_SSL_REDIRECT is on in {findings.https}, so that the site needs nginx: {{tls: letsencrypt}} or the like"
    if findings.settings_file and not findings.hosts:
        missing = [name for name in answers.domains if not _allows(findings.host_names, name)]
        where = str(findings.hosts_place or findings.settings_file)
        if missing:
            yield f"ALLOWED_HOSTS lacks {' and '.join(missing)}, and the site would answer 400: {where}"
        elif not findings.host_names and not answers.domains:
            yield f"ALLOWED_HOSTS is empty, and the site would answer 400: {where}"
    if (
        findings.settings_file
        and not findings.static_root
        and not (findings.static_url and "//" in findings.static_url.value)
    ):
        yield (
            f'STATIC_ROOT is not set, so that static files are not collected: STATIC_ROOT = BASE_DIR / "staticfiles" '
            f"in {findings.settings_file}"
        )


def _allows(names: Iterable[str], name: str) -> bool:
    return any(each in ("*", name) or (each.startswith(".") and f".{name}".endswith(each)) for each in names)
