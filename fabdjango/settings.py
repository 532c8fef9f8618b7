"""
Every setting: its name, form, default and description, in one place.

The form is the type and the metadata of a dataclass field; the reader of config
files and the tables of the documentation are made from them.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args, get_type_hints

__all__ = [
    "PARTS",
    "ROOT_KEY",
    "VARIABLE",
    "Activation",
    "Database",
    "Django",
    "Git",
    "Gunicorn",
    "Health",
    "Job",
    "Nginx",
    "Process",
    "Row",
    "SecretSource",
    "Server",
    "Settings",
    "Ssh",
    "Supervisor",
    "Systemd",
    "Venv",
    "class_of_items",
    "environment_name",
    "hints_of",
    "setting_rows",
]

ROOT_KEY = "fabdjango"
VARIABLE = "FABRIC_FABDJANGO_"
"""What the name of every variable for a setting begins with."""
_PACKAGE = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_SERVED = r"|/([A-Za-z0-9_~-][A-Za-z0-9._~-]*/)+"
"""An address of nginx's own: whole folders, none of which begins with a dot."""
_FOLDER = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?"
_PACKAGE_FORM = "names made of letters, digits, -, _ and ."
PARTS = (
    *("packages", "account", "folders", "uv", "database", "secrets"),
    *("programs", "sudoers", "nginx", "logs", "tls", "firewall", "updates"),
)
"""What setup does to a server, in its order."""


def setting(help: str, default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A dataclass field with its description; lists and mappings get a fresh default each."""
    meta = {"help": help, **metadata}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Git:
    """How the commit reaches the host."""

    transfer: Literal["pull", "push"] = setting(
        "pull lets the host fetch from repository; push sends what it lacks from the operator's clone, so that it needs no "
        "key of the repository, and repository need not be set.",
        "pull",
    )
    clone: str = setting("A folder of the operator's clone, as seen from the fabfile; for push.", ".")
    submodules: Literal["refuse"] = setting(
        "What to do with a commit that has submodules: refuse names them and stops.", "refuse"
    )
    timeout: int = setting("Seconds that one git command over the network may take.", 300, minimum=1)


@dataclass(frozen=True)
class Venv:
    """The virtualenv, keyed by what goes into it and shared by releases with the same key."""

    installer: Literal["auto", "uv", "pip"] = setting(
        "auto takes uv if the host has it or can get it, else pip.", "auto"
    )
    build: Literal["each", "once"] = setting(
        "each host installs for itself; once lets one host of a kind install, and the others get its packages.", "each"
    )
    requirements: tuple[str, ...] = setting(
        "Files of the commit to install from (uv.lock, pylock.toml, requirement files, pyproject.toml), or auto.",
        ("auto",),
    )
    packages: tuple[str, ...] = setting("Packages that the project does not list, as requirement lines.", ("gunicorn",))
    bootstrap: tuple[str, ...] = setting(
        "Packages installed before all others; builds then use them instead of isolated ones.", ()
    )
    install_project: bool = setting(
        "Install the project itself too (pip install .), into a virtualenv of that commit.", False
    )
    extras: tuple[str, ...] = setting("Extras of the project to install.", (), pattern=_PACKAGE, form=_PACKAGE_FORM)
    groups: tuple[str, ...] = setting(
        "Dependency groups to install from uv.lock.", (), pattern=_PACKAGE, form=_PACKAGE_FORM
    )
    index_url: str = setting("Package index instead of the installer's default.", "", secret=True)
    extra_index_urls: tuple[str, ...] = setting(
        "More package indexes.", (), secret=True, pattern=r"\S+", form="addresses without spaces"
    )
    find_links: tuple[str, ...] = setting(
        "Folders or pages on the host's side to look for packages in.",
        (),
        pattern=r"[^\s,]+",
        form="paths or addresses without spaces and commas",
    )
    no_index: bool = setting("Never ask an index; use find_links only.", False)
    options: tuple[str, ...] = setting("More options for the installer's install command, one word each.", ())
    timeout: int = setting("Seconds that one install may take.", 1800, minimum=1)


@dataclass(frozen=True)
class Django:
    """manage.py and what is asked of it."""

    settings: str = setting(
        "Settings module; empty takes the one that manage.py names.",
        "",
        pattern=r"|[^\W\d]\w*(\.[^\W\d]\w*)*",
        form="a module such as blog.settings",
    )
    manage: str = setting(
        "Path of manage.py in the commit; commands run in its folder.",
        "manage.py",
        # PYTHONPATH cannot hold a folder with a colon, and python takes -c for an option.
        pattern=r"([^:]+/)?[^/-][^/]*",
        form="the path of a file, without : in its folder and - before its name",
    )
    migrate: Literal["once", "each", "never"] = setting(
        "Apply migrations in a deploy: once, by the primary host; on each host, if each has a database of its own; or never.",
        "once",
    )
    collectstatic: Literal["auto", "always", "never"] = setting(
        "auto leaves it out, with a note, when STATIC_ROOT is not set.", "auto"
    )
    check: Literal["never", "CRITICAL", "ERROR", "WARNING"] = setting(
        "The level of finding that stops a deploy.", "ERROR"
    )
    check_deploy: bool = setting("Include the checks for deployment settings.", False)
    lock_timeout: int = setting(
        "Seconds that a migration may wait for the lock of another one, and for the lock of a table.", 60, minimum=1
    )
    allow_migrations: tuple[str, ...] = setting(
        "Migrations, as app.name, that may be applied although the release that serves cannot live with them.", ()
    )
    static_days: int = setting("Days that static files of earlier releases stay reachable.", 14, minimum=0)
    timeout: int = setting("Seconds that one management command may take.", 1800, minimum=1)


@dataclass(frozen=True)
class Gunicorn:
    """The application server."""

    app: str = setting(
        "Application as module:name; empty takes application of wsgi (or asgi) in the package of the settings.", ""
    )
    interface: Literal["wsgi", "asgi"] = setting(
        "wsgi, or asgi (with uvicorn's worker unless worker_class says otherwise).", "wsgi"
    )
    bind: str = setting(
        "Address to listen on: host:port, or unix:/path; {run} is the site's run folder. "
        "Empty is unix:{run}/current.sock where nginx.domains are set, else 127.0.0.1:8000.",
        "",
        pattern=r"[^,]*",
        form="one address",
    )
    workers: str = setting(
        "Number of worker processes; auto is two per processor plus one, nine at most.",
        "auto",
        pattern=r"auto|[1-9]\d{0,3}",
    )
    threads: int = setting("Threads of each worker.", 1, minimum=1)
    worker_class: str = setting("gunicorn's worker class; empty fits the interface.", "")
    timeout: int = setting("Seconds after which a silent worker is replaced.", 30, minimum=0)
    graceful_timeout: int = setting(
        "Seconds that running requests may take to finish when a worker stops.", 30, minimum=0
    )
    max_requests: int = setting("Requests after which a worker is replaced; 0 is never.", 0, minimum=0)
    release_header: bool = setting("Answer probes of the health check with the release's id in a header.", True)
    options: Mapping[str, Any] = setting("More settings of gunicorn.conf.py, by name.", {})


@dataclass(frozen=True)
class Process:
    """One more program of the site, run in the release with its environment."""

    command: str = setting(
        "Shell command line; the virtualenv's programs come first in PATH.",
        is_shell=True,
        example="celery -A blog worker",
    )
    stop_timeout: int = setting("Seconds it may take to stop before it is killed.", 30, minimum=1)
    startsecs: int = setting("Seconds it must stay up to count as started.", 2, minimum=0)
    hosts: Literal["all", "primary"] = setting(
        "Where it runs: on all hosts, or on the primary only, as celery beat must.", "all"
    )


@dataclass(frozen=True)
class Job:
    """What runs by the clock, in the release that serves."""

    at: str = setting(
        "When: a calendar form of systemd, such as daily, Mon *-*-* 04:00:00 or *:0/15, or five fields of cron.",
        example="daily",
    )
    command: str = setting("Management command with its arguments, such as clearsessions.", "")
    shell: str = setting("Shell command line instead of a management command.", "", is_shell=True)
    timeout: int = setting("Seconds after which a run is ended.", 3600, minimum=1)
    overlap: bool = setting("Start a run although the one before has not ended; systemd never does.", False)
    hosts: Literal["primary", "all"] = setting("Where it runs: on the primary only, or on all hosts.", "primary")


@dataclass(frozen=True)
class SecretSource:
    """Where one secret variable of the site is from: exactly one of these."""

    short: ClassVar[Mapping[str, Mapping[str, Any]]] = {"generate": {"generate": 50}}
    """Words that stand for a whole entry."""

    generate: int = setting(
        "Length of a value that is made on the host, once, and never shown; the word generate alone makes 50 letters and digits.",
        0,
        minimum=16,
    )
    command: str = setting(
        "Command of the operator's side whose output is the value, without its last newline; split into words, without a shell.",
        "",
        example="pass show blog/mail",
    )
    file: str = setting(
        "File of the operator's side that holds the value, with ~ filled in; not one that git tracks or that others can read.",
        "",
    )
    variable: str = setting("Variable of the operator's environment that holds the value.", "")


@dataclass(frozen=True)
class Supervisor:
    """The process manager."""

    level: Literal["auto", "system", "user", "virtualenv"] = setting(
        "system is Debian's service; user is the host's supervisord run by the owner; virtualenv is one installed under the root; "
        "auto takes the first of these that there is.",
        "auto",
    )


@dataclass(frozen=True)
class Systemd:
    """Units of the host's systemd, where it is the process manager."""

    hardening: Literal["full", "none"] = setting(
        "full shuts the site's programs off from the rest of the host as far as Django allows.", "full"
    )
    options: Mapping[str, str] = setting(
        "More lines of [Service] in every unit of the site, by name, for instance MemoryMax: 512M.", {}
    )


@dataclass(frozen=True)
class Nginx:
    """The web server in front of gunicorn."""

    domains: tuple[str, ...] = setting("Host names of the site; the first one is its own.", ())
    tls: Literal["none", "files", "self-signed", "letsencrypt"] = setting(
        "none serves http; all others serve https and send http there: with files that are on the host, "
        "a certificate made there (self-signed), or one that certbot gets and renews (letsencrypt).",
        "none",
    )
    certificate: str = setting("For files: path on the host of the certificate with its chain.", "", pattern=r"|/.*")
    certificate_key: str = setting("For files: path on the host of its key.", "", pattern=r"|/.*")
    email: str = setting(
        "For letsencrypt: whom the certificate authority may write to; empty registers without an address.",
        "",
        pattern=r"|[^\s@,]+@[^\s@,]+",
        form="an address such as ops@example.com",
    )
    acme_server: str = setting(
        "For letsencrypt: the directory of the ACME server that is asked.",
        "https://acme-v02.api.letsencrypt.org/directory",
        pattern=r"https://[!-~]+",
        form="an address that begins with https://",
    )
    max_body: str = setting("Largest request body, such as 10m.", "10m", pattern=r"\d{1,6}[kmg]?")
    read_timeout: int = setting("Seconds that gunicorn may take for an answer.", 60, minimum=1)
    gzip: bool = setting("Compress answers that are text.", True)
    hsts: int = setting("Seconds of Strict-Transport-Security where there is TLS; 0 sends none.", 0, minimum=0)
    frame_options: Literal["SAMEORIGIN", "DENY", "none"] = setting(
        "X-Frame-Options of pages that Django sends without one and without a Content-Security-Policy.", "SAMEORIGIN"
    )
    static_url: str = setting(
        "Where static files are served; empty leaves them to Django.",
        "/static/",
        pattern=_SERVED,
        form="a path such as /static/",
    )
    media_url: str = setting(
        "Where uploaded files are served; empty serves none.", "/media/", pattern=_SERVED, form="a path such as /media/"
    )
    media: str = setting("Folder of uploaded files: a path below shared, or an absolute one.", "media")
    media_private: tuple[str, ...] = setting(
        "Folders in it that no visitor gets from nginx, such as invoices.",
        (),
        pattern=_FOLDER,
        form="a path such as invoices",
    )
    maintenance_page: str = setting(
        "Template on the operator's side of the maintenance page; empty is a plain one.", ""
    )


_IDENTIFIER = r"|[a-z0-9_][a-z0-9_-]{0,62}"


@dataclass(frozen=True)
class Database:
    """The database, if fabdjango is to make it; backups are taken of whatever the project uses."""

    engine: Literal["none", "postgresql", "mysql", "sqlite"] = setting(
        "What db.create and setup make; none leaves the database to you. mysql is MariaDB too.", "none"
    )
    server: Literal["local", "elsewhere"] = setting(
        "local is the host's own server, with a password that is made there and stays there; elsewhere is one behind url.",
        "local",
    )
    url: str = setting(
        "Address of a database elsewhere, as postgres://user:password@host:5432/name.",
        "",
        secret=True,
        pattern=r"|[!-~]+",
        form="an address without spaces, other characters as %20",
    )
    name: str = setting(
        "Name of the database on the host; empty is the project's.",
        "",
        pattern=_IDENTIFIER,
        form="small letters, digits, _ and -",
    )
    user: str = setting(
        "The role that owns it; empty is the project's name.",
        "",
        pattern=_IDENTIFIER,
        form="small letters, digits, _ and -",
    )
    variables: Mapping[str, Literal["url", "name", "user", "password", "host", "port"]] = setting(
        "Environment variables by which the project's settings learn of it.", {"DATABASE_URL": "url"}
    )
    path: str = setting("The file of an SQLite database: a path below shared.", "db.sqlite3")
    backups: int = setting("Backups to keep.", 10, minimum=1)
    backup_before_migrate: bool = setting("Back up in every deploy that has migrations to apply.", False)
    backup_path: str = setting(
        "Folder of the backups on the host; {root} is the site's.", "{root}/backups", pattern=r"(/|~/|\{root\}/).+"
    )


@dataclass(frozen=True)
class Activation:
    """How traffic goes over from one release to the next."""

    confirm: int = setting(
        "Seconds that the host waits for the deployer's word once the new release has the traffic; then it reverts.",
        60,
        minimum=1,
    )
    drain: int = setting("Seconds that requests may wait for the old release before it is stopped.", 30, minimum=0)
    batch: str = setting(
        "Hosts that switch at once, after the primary by itself: a number, a part such as 25%, or all.",
        "25%",
        pattern=r"all|[1-9]\d{0,3}|[1-9]\d?%|100%",
        form="a number from 1 on, a part such as 25%, or all",
    )


@dataclass(frozen=True)
class Health:
    """How the new release is asked whether it serves."""

    path: str = setting(
        "Path to request.", "/", pattern=r"/[!-~]*", form="a path as in a request line: ASCII, spaces as %20"
    )
    expect: tuple[int, ...] = setting("Status codes that count as healthy.", (200,))
    text: str = setting("Text that the answer's body must hold.", "")
    host: str = setting(
        "Host header; empty takes the first name of ALLOWED_HOSTS.",
        "",
        pattern=r"[!-~]*",
        form="a host name as in a request: ASCII without spaces",
    )
    https: Literal["auto", "yes", "no"] = setting(
        "Ask as a proxy does for https; auto does so when the site redirects there.", "auto"
    )
    static: str = setting("One static file to request too, as in the static tag, for instance css/site.css.", "")
    timeout: int = setting("Seconds in which the release must answer.", 60, minimum=1)
    consecutive: int = setting("Good answers in a row that make it healthy.", 3, minimum=1)
    soak: int = setting(
        "Seconds that the new release must go on answering before it gets the traffic, to find one that dies a little later.",
        0,
        minimum=0,
    )


@dataclass(frozen=True)
class Server:
    """What setup makes of a server."""

    skip: tuple[str, ...] = setting(
        f"Parts of setup that are done by hand, of: {', '.join(PARTS)}.",
        (),
        pattern="|".join(PARTS),
        form=f"one of {', '.join(PARTS)}",
    )
    packages: tuple[str, ...] = setting(
        "More Debian packages to install, such as gcc, python3-dev and libpq-dev where wheels are built.",
        (),
        pattern=r"[a-z0-9][a-z0-9+.-]+",
        form="the name of a Debian package",
    )
    keys: tuple[str, ...] = setting(
        "Public key files on the operator's side whose holders may log in as user; empty takes the keys of the account "
        "that sets up.",
        (),
    )
    disk: int = setting("MB that must be free before anything is installed.", 1000, minimum=0)
    firewall: Literal["none", "ufw", "nftables"] = setting(
        "Shut all ports but 80, 443 and those where sshd listens.", "none"
    )
    updates: bool = setting("Let the host install security updates by itself.", False)


@dataclass(frozen=True)
class Ssh:
    """The connection, and how a host is reached."""

    address: str = setting(
        "What is connected to; empty is the host's name.", "", pattern=r"[^\s,]*", form="a host name or an address"
    )
    user: str = setting(
        "Account to log in as; empty leaves it to ssh_config. Who owns the site is user.",
        "",
        pattern=r"[^\s@:,]*",
        form="the name of an account",
    )
    port: int = setting("Port of the SSH server; 0 leaves it to ssh_config, or is 22.", 0, minimum=0)
    key: tuple[str, ...] = setting("Private key files on the operator's side, beside those of -i and ssh_config.", ())
    jump: str = setting(
        "Jump hosts on the way, as in ssh -J: user@host:port,user@host. Empty leaves it to ssh_config, none takes none.",
        "",
        pattern=r"|[^\s,]+(,[^\s,]+)*",
        form="user@host:port, or several of them with commas between",
    )
    host_keys: Literal["strict", "accept-new", "ask"] = setting(
        "strict refuses a host that known_hosts does not list; accept-new writes it there; ask asks on a terminal.",
        "strict",
    )
    known_hosts: str = setting("File of host keys instead of the user's and the system's.", "")
    connect_timeout: int = setting("Seconds that connecting may take.", 15, minimum=1)
    keepalive: int = setting("Seconds between keepalive packets.", 15, minimum=1)
    reconnect: int = setting(
        "Seconds to try to log in again when the link breaks while a site is switched.", 60, minimum=0
    )


@dataclass(frozen=True)
class Settings:
    """One site, fully resolved for one host."""

    project: str = setting(
        "Name of the site, used in paths and program names.", pattern=r"[a-z0-9][a-z0-9_-]{0,40}", example="blog"
    )
    repository: str = setting(
        "What git clones from, as seen from the host.",
        "",
        example="git@example.com:team/blog.git",
        required_by=("git", "transfer", "pull"),
    )
    branch: str = setting("What is deployed when no commit is named.", "main")
    root: str = setting(
        "The site's folder on the host; ~ and {project} are filled in.", "/srv/{project}", pattern=r"(/|~/).*"
    )
    user: str = setting(
        "Account that owns the files and deploys; empty is the one that logs in.",
        "",
        pattern=r"|[a-z_][a-z0-9_.-]*",
    )
    run_as: str = setting(
        "Account that runs the application, and cannot change a release; empty is user. The owner must be in its group.",
        "",
        pattern=r"|[a-z_][a-z0-9_-]*",
    )
    python: str = setting("Python of the virtualenv: a name or a path on the host.", "python3")
    keep_releases: int = setting("Complete releases to keep, the current one included.", 5, minimum=1)
    shared: tuple[str, ...] = setting("Paths of the commit that outlive releases; a final / marks a folder.", ())
    environment: Mapping[str, str] = setting(
        "Environment of every command and process; for what is not secret.", {}, multiline=True
    )
    secrets: Mapping[str, SecretSource] = setting(
        "Environment of every command and process, by name, each with where its value is had from.", {}
    )
    env_file: str = setting("Template on the operator's side of an environment file, for secrets.", "")
    local_settings: str = setting("Template on the operator's side of a settings module.", "")
    local_settings_path: str = setting(
        "Where it goes in the commit; empty is local_settings.py beside the settings module.",
        "",
        pattern=r"|(.*/)?[^/]+\.py",
        form="the path of a .py file",
    )
    first_deploy: tuple[str, ...] = setting(
        "Shell command lines for the first deploy only, after migrate.", (), is_shell=True
    )
    hooks: Mapping[str, tuple[str, ...]] = setting(
        "Shell command lines by before_STEP or after_STEP.", {}, is_shell=True
    )
    output: Literal["auto", "plain", "rich", "json"] = setting(
        "Form of the report; auto is rich on a terminal, else plain.", "auto"
    )
    manager: Literal["supervisor", "systemd"] = setting("The process manager.", "supervisor")
    slots: Literal["1", "2"] = setting(
        "2 starts the new release beside the old one; 1 is for hosts low on memory: requests wait while it starts.", "2"
    )
    parallel: int = setting("Hosts that are worked on at once.", 20, minimum=1)
    lock_wait: int = setting("Seconds to wait for another deployment to end; 0 refuses at once.", 0, minimum=0)
    git: Git = setting("", Git())
    venv: Venv = setting("", Venv())
    django: Django = setting("", Django())
    gunicorn: Gunicorn = setting("", Gunicorn())
    supervisor: Supervisor = setting("", Supervisor())
    systemd: Systemd = setting("", Systemd())
    nginx: Nginx = setting("", Nginx())
    database: Database = setting("", Database())
    activation: Activation = setting("", Activation())
    processes: Mapping[str, Process] = setting("Programs beside gunicorn, by name.", {})
    schedule: Mapping[str, Job] = setting("What runs by the clock, by name.", {})
    health: Health = setting("", Health())
    server: Server = setting("", Server())
    ssh: Ssh = setting("", Ssh())


# --- the schema as a table -------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One setting as the documentation lists it."""

    key: str
    default: Any
    help: str
    kind: Any
    secret: bool
    required: bool


@functools.cache
def setting_rows() -> tuple[Row, ...]:
    """Every setting that is a plain value, in order of definition; ``*`` stands for a name of the project's choice."""
    return tuple(_rows(Settings, ""))


def _rows(kind: type, prefix: str) -> Iterable[Row]:
    hints = hints_of(kind)
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            yield from _rows(typing.cast("type", hint), f"{prefix}{item.name}.")
            continue
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        else:
            default = None if item.default is dataclasses.MISSING else item.default
        required = (
            item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        ) or "required_by" in item.metadata
        yield Row(prefix + item.name, default, item.metadata["help"], hint, bool(item.metadata.get("secret")), required)
        if named := class_of_items(hint):
            yield from _rows(named, f"{prefix}{item.name}.*.")


def environment_name(path: str) -> str:
    """The variable that sets the key ``path``: ``venv.index_url`` is ``FABRIC_FABDJANGO_VENV_INDEX_URL``."""
    return VARIABLE + path.replace(".", "_").upper()


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields by name, looked up once."""
    return get_type_hints(kind)


def class_of_items(hint: Any) -> type | None:
    """The dataclass of which a mapping's values are, or None."""
    arguments = get_args(hint)
    found = len(arguments) == 2 and dataclasses.is_dataclass(arguments[1])
    return typing.cast("type", arguments[1]) if found else None
