"""
Every setting: its name, form, default and description, in one place.

A configuration is a stack of layers (a mapping and where it came from), merged
into frozen dataclasses. Mappings merge, everything else replaces. The source of
every value is kept, so that an error can name the file and the key.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fabdjango.exceptions import ConfigError

__all__ = [
    "ROOT_KEY",
    "Django",
    "Git",
    "Gunicorn",
    "Health",
    "Layer",
    "Process",
    "Resolved",
    "Settings",
    "Ssh",
    "Supervisor",
    "Venv",
    "environment_layer",
    "resolve",
    "setting_rows",
]

ROOT_KEY = "fabdjango"
_VARIABLE = "FABRIC_FABDJANGO_"
_CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
_PACKAGE = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_PACKAGE_FORM = "names made of letters, digits, -, _ and ."


def setting(help: str, default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A dataclass field with its description; lists and mappings get a fresh default each."""
    meta = {"help": help, **metadata}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Git:
    """How the commit reaches the host."""

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
    migrate: Literal["once", "never"] = setting("Apply migrations in a deploy: once, or never.", "once")
    collectstatic: Literal["auto", "always", "never"] = setting(
        "auto leaves it out, with a note, when STATIC_ROOT is not set.", "auto"
    )
    check: Literal["never", "CRITICAL", "ERROR", "WARNING"] = setting(
        "The level of finding that stops a deploy.", "ERROR"
    )
    check_deploy: bool = setting("Include the checks for deployment settings.", False)
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
        "Address to listen on: host:port, or unix:/path; {run} is the site's run folder.",
        "127.0.0.1:8000",
        pattern=r"[^,]+",
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


@dataclass(frozen=True)
class Supervisor:
    """The process manager."""

    level: Literal["auto", "system", "user", "virtualenv"] = setting(
        "system is Debian's service; user is the host's supervisord run by the owner; virtualenv is one installed under the root; "
        "auto takes the first of these that there is.",
        "auto",
    )
    startsecs: int = setting("Seconds that gunicorn must stay up to count as started.", 2, minimum=0)


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


@dataclass(frozen=True)
class Ssh:
    """The connection."""

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
    repository: str = setting("What git clones from, as seen from the host.", example="git@example.com:team/blog.git")
    branch: str = setting("What is deployed when no commit is named.", "main")
    root: str = setting(
        "The site's folder on the host; ~ and {project} are filled in.", "/srv/{project}", pattern=r"(/|~/).*"
    )
    user: str = setting(
        "Account that owns the files and runs the application; empty is the one that logs in.",
        "",
        pattern=r"|[a-z_][a-z0-9_.-]*",
    )
    python: str = setting("Python of the virtualenv: a name or a path on the host.", "python3")
    keep_releases: int = setting("Complete releases to keep, the current one included.", 5, minimum=1)
    shared: tuple[str, ...] = setting("Paths of the commit that outlive releases; a final / marks a folder.", ())
    environment: Mapping[str, str] = setting(
        "Environment of every command and process; for what is not secret.", {}, multiline=True
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
    manager: Literal["supervisor"] = setting("The process manager.", "supervisor")
    git: Git = setting("", Git())
    venv: Venv = setting("", Venv())
    django: Django = setting("", Django())
    gunicorn: Gunicorn = setting("", Gunicorn())
    supervisor: Supervisor = setting("", Supervisor())
    processes: Mapping[str, Process] = setting("Programs beside gunicorn, by name.", {})
    health: Health = setting("", Health())
    ssh: Ssh = setting("", Ssh())


@dataclass(frozen=True)
class Layer:
    """One level of configuration. ``source`` is how an error names it; ``local_dir`` is where its local paths start."""

    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Resolved:
    """The settings of one host, and the source of every value by dotted key."""

    settings: Settings
    sources: Mapping[str, str]
    hosts: Mapping[str, Mapping[str, Any]]
    stages: tuple[str, ...] = ()


_INVENTORY_KEYS = ("hosts", "roles", "stages")


def resolve(layers: Sequence[Layer], *, stage: str = "", host: str = "") -> Resolved:
    """
    Merge ``layers`` (lowest first) into the settings of ``host`` in ``stage``.

    Raises ConfigError for an unknown key, a value of the wrong form, a missing
    required key, or a stage that does not exist.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        if not isinstance(layer.values, Mapping):
            raise _wrong_form("", "a mapping of settings", layer.values, layer.source)
        _check_keys(layer.values, Settings, "", layer.source, extra=_INVENTORY_KEYS)
        _merge(merged, layer.values, sources, layer.source)
    stages = _mapping(merged.pop("stages", None) or {}, "stages", sources)
    roles = _mapping(merged.pop("roles", None) or {}, "roles", sources)
    _check_inventory(stages, roles, merged.get("hosts"), sources)
    if stage and stage not in stages:
        msg = f"there is no stage {stage!r}"
        raise ConfigError(msg, cure=_suggest(stage, stages) or f"define it in fabric.yaml under {ROOT_KEY}: stages:")
    if stage:
        _overlay(merged, stages[stage], f"stages.{stage}", sources, allow_hosts=True)
    hosts = _mapping(merged.pop("hosts", None) or {}, "hosts", sources)
    own = dict(_mapping(hosts.get(host) or {}, f"hosts.{host}", sources))
    for role in _as_words(own.pop("roles", ()), f"hosts.{host}.roles", sources.get(f"hosts.{host}.roles", "")):
        if role in roles:
            _overlay(merged, roles[role], f"roles.{role}", sources)
    if own:
        _overlay(merged, own, f"hosts.{host}", sources)
    settings = _build(Settings, merged, "", sources)
    return Resolved(settings, sources, {name: values or {} for name, values in hosts.items()}, tuple(stages))


def _check_inventory(
    stages: Mapping[str, Any], roles: Mapping[str, Any], hosts: Any, sources: Mapping[str, str]
) -> None:
    """Raise for a misspelt key of any stage, role or host, so that it does not wait for the one it is for."""
    staged = [(f"stages.{name}.", (values or {}).get("hosts")) for name, values in _named(stages, "stages", sources)]
    for name, values in _named(stages, "stages", sources):
        _check_keys(values or {}, Settings, f"stages.{name}", _source_of(f"stages.{name}", sources), extra=("hosts",))
    for name, values in _named(roles, "roles", sources):
        _check_keys(values or {}, Settings, f"roles.{name}", _source_of(f"roles.{name}", sources))
    for prefix, inventory in [("", hosts), *staged]:
        for name, values in _named(inventory or {}, f"{prefix}hosts", sources):
            path = f"{prefix}hosts.{name}"
            _check_keys(values or {}, Settings, path, _source_of(path, sources), extra=("roles",))


def _named(values: Any, path: str, sources: Mapping[str, str]) -> Iterable[tuple[str, Any]]:
    for name, item in _mapping(values, path, sources).items():
        if not isinstance(name, str):
            raise _wrong_form(
                path, "a mapping by names (quote one that YAML takes for a number)", name, _source_of(path, sources)
            )
        yield name, _mapping(item or {}, f"{path}.{name}", sources)


def _source_of(prefix: str, sources: Mapping[str, str]) -> str:
    return next((sources[k] for k in sources if k == prefix or k.startswith(prefix + ".")), prefix)


def _overlay(
    merged: dict[str, Any], values: Any, prefix: str, sources: dict[str, str], *, allow_hosts: bool = False
) -> None:
    values = _mapping(values or {}, prefix, sources)
    source = _source_of(prefix, sources)
    _check_keys(values, Settings, prefix, source, extra=_INVENTORY_KEYS[:1] if allow_hosts else ())
    _merge(merged, values, sources, f"{source}, {prefix}")


def _merge(
    base: dict[str, Any], over: Mapping[str, Any], sources: dict[str, str], source: str, prefix: str = ""
) -> None:
    for key, value in over.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            below = base.get(key)
            base[key] = dict(below) if isinstance(below, Mapping) else {}
            sources[path] = source
            _merge(base[key], value, sources, source, path + ".")
        else:
            base[key] = value
            sources[path] = source


def _check_keys(values: Mapping[str, Any], kind: type, prefix: str, source: str, extra: Iterable[str] = ()) -> None:
    known = {f.name: f for f in dataclasses.fields(kind)}
    hints = _hints(kind)
    for key, value in values.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if key in extra:
            continue
        if key not in known:
            msg = f"{ROOT_KEY}.{path} is not a setting (in {source})"
            cure = _suggest(str(key), [*known, *extra]) or "see all of them with: fab config"
            raise ConfigError(msg, cure=cure)
        below = hints[key]
        named = _class_of_items(below)
        if dataclasses.is_dataclass(below) and isinstance(value, Mapping):
            _check_keys(value, typing.cast("type", below), path, source)
        elif named and isinstance(value, Mapping):
            for name, item in value.items():
                if isinstance(item, Mapping):
                    _check_keys(item, named, f"{path}.{name}", source)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _class_of_items(hint: Any) -> type | None:
    """The dataclass of which a mapping's values are, or None."""
    arguments = get_args(hint)
    found = len(arguments) == 2 and dataclasses.is_dataclass(arguments[1])
    return typing.cast("type", arguments[1]) if found else None


def _suggest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else ""


# --- building ----------------------------------------------------------------


def _build(kind: type, values: Mapping[str, Any], prefix: str, sources: Mapping[str, str]) -> Any:
    hints = _hints(kind)
    found: dict[str, Any] = {}
    for item in dataclasses.fields(kind):
        path = f"{prefix}{item.name}"
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if item.name not in values or (values[item.name] is None and not required):
            if required:
                raise _missing(path, item)
            continue
        value = values[item.name]
        if required and value in (None, ""):
            raise _missing(path, item)
        found[item.name] = _convert(hints[item.name], value, path, sources, item.metadata)
    return kind(**found)


def _convert(kind: Any, value: Any, path: str, sources: Mapping[str, str], meta: Mapping[str, Any]) -> Any:
    source = sources.get(path, "")
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast("type", kind), _mapping(value, path, sources), path + ".", sources)
    origin = get_origin(kind)
    if origin is Literal:
        # YAML reads a bare yes or no as a truth value.
        value = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        if value not in get_args(kind):
            raise _wrong_form(path, "one of " + ", ".join(map(str, get_args(kind))), value, source)
        return value
    if origin is tuple:
        inner = get_args(kind)[0]
        items = [value] if isinstance(value, (str, int)) and not isinstance(value, bool) else value
        if isinstance(items, Mapping) or not isinstance(items, Iterable):
            raise _wrong_form(path, "a list", value, source)
        return tuple(_convert(inner, item, path, sources, meta) for item in items)
    if origin in (Mapping, types.MappingProxyType) or getattr(origin, "__name__", "") == "Mapping":
        inner = get_args(kind)[1]
        mapping = _mapping(value, path, sources)
        if inner is Any:
            return {_name(key, path, source): item for key, item in mapping.items()}
        return {
            _name(k, path, source): _convert(inner, v, f"{path}.{k}", {**sources, path: source}, meta)
            for k, v in mapping.items()
        }
    if kind is bool:
        return _boolean(value, path, source)
    if kind is int:
        return _integer(value, path, source, meta)
    return _text(value, path, source, meta)


def _name(key: Any, path: str, source: str) -> str:
    if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", key):
        raise _wrong_form(path, "names made of letters, digits, _ and -", key, source)
    return key


def _boolean(value: Any, path: str, source: str) -> bool:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
        "": False,
    }
    if isinstance(value, bool):
        return value
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise _wrong_form(path, "true or false", value, source)


def _integer(value: Any, path: str, source: str, meta: Mapping[str, Any]) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,9}", str(value)):
        raise _wrong_form(path, "a whole number", value, source)
    if int(value) < meta.get("minimum", int(value)):
        raise _wrong_form(path, f"{meta['minimum']} or more", value, source)
    return int(value)


def _text(value: Any, path: str, source: str, meta: Mapping[str, Any]) -> str:
    # Of 1.10 or 2024-01-01 00:00 YAML does not keep what was written.
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _wrong_form(path, "text (quote it, if YAML takes it for something else)", value, source)
    text = str(value)
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise _wrong_form(path, "text without NUL characters", value, source)
    if _CONTROL.search(text) and not meta.get("is_shell") and not meta.get("multiline"):
        raise _wrong_form(path, "one line without control characters", value, source)
    if "pattern" in meta and not re.fullmatch(meta["pattern"], text):
        raise _wrong_form(path, meta.get("form", f"text like {meta['pattern']}"), value, source)
    return text


def _mapping(value: Any, path: str, sources: Mapping[str, str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong_form(path, "a mapping", value, sources.get(path, ""))
    return value


def _as_words(value: Any, path: str, source: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise _wrong_form(path, "a list of names", value, source)


def _wrong_form(path: str, wanted: str, value: Any, source: str) -> ConfigError:
    shown = "********" if _is_secret(path) else repr(value)
    name = f"{ROOT_KEY}.{path}" if path else ROOT_KEY
    msg = f"{name} must be {wanted}, not {shown}" + (f" (in {source})" if source else "")
    return ConfigError(msg, cure=f"change {name} in {source}" if source else "")


def _is_secret(path: str) -> bool:
    return any(path == row.key and row.secret for row in setting_rows())


def _missing(path: str, item: dataclasses.Field[Any]) -> ConfigError:
    example = item.metadata.get("example", "…")
    is_row = any(row.key == path for row in setting_rows())
    variable = f"or in the environment:  {environment_name(path)}='{example}'\n" if is_row else ""
    key = "\n".join(f"{'  ' * depth}{part}:" for depth, part in enumerate([ROOT_KEY, *path.split(".")]))
    keyword = path.replace(".", "__")
    return ConfigError(
        f"{ROOT_KEY}.{path} is not set: {item.metadata['help'][0].lower()}{item.metadata['help'][1:]}",
        cure=f"write it in fabric.yaml beside your fabfile:\n\n{key} {example}\n\n"
        f"{variable}"
        f'or in the fabfile:      ns = fabdjango.site({keyword}="{example}", …)',
    )


# --- the environment, and the tables ----------------------------------------


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
    hints = _hints(kind)
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            yield from _rows(typing.cast("type", hint), f"{prefix}{item.name}.")
            continue
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        else:
            default = None if item.default is dataclasses.MISSING else item.default
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        yield Row(prefix + item.name, default, item.metadata["help"], hint, bool(item.metadata.get("secret")), required)
        if named := _class_of_items(hint):
            yield from _rows(named, f"{prefix}{item.name}.*.")


def environment_name(path: str) -> str:
    """The variable that sets the key ``path``: ``venv.index_url`` is ``FABRIC_FABDJANGO_VENV_INDEX_URL``."""
    return _VARIABLE + path.replace(".", "_").upper()


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """
    The settings in ``environ``, by the schema and not by what a file happens to mention.

    Lists are separated by commas. Mappings have no variable.
    """
    values: dict[str, Any] = {}
    known = {environment_name(row.key): row for row in setting_rows() if "*" not in row.key}
    for name, text in sorted(environ.items()):
        if not name.startswith(_VARIABLE) or name == "FABRIC_FABDJANGO_STAGE":
            continue
        row = known.get(name)
        if row is None:
            msg = f"the environment variable {name} is not a setting"
            # Compared without the prefix, which makes all names look alike.
            close = _suggest(name.removeprefix(_VARIABLE), [each.removeprefix(_VARIABLE) for each in known])
            cure = re.sub(r"\b[A-Z_]+\b", rf"{_VARIABLE}\g<0>", close)
            raise ConfigError(msg, cure=cure or "unset it, or see the settings with: fab config")
        if "Mapping" in str(row.kind):
            msg = f"{ROOT_KEY}.{row.key} is a mapping and cannot be set by the environment variable {name}"
            raise ConfigError(msg, cure=f"write it in fabric.yaml: {ROOT_KEY}: {row.key}:")
        value: Any = (
            [part.strip() for part in text.split(",") if part.strip()] if get_origin(row.kind) is tuple else text
        )
        *parents, leaf = row.key.split(".")
        into = values
        for parent in parents:
            into = into.setdefault(parent, {})
        into[leaf] = value
    return Layer("the environment", values)
