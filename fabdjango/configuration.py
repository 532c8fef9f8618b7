"""
Layers of configuration to settings.

A configuration is a stack of layers (a mapping and where it came from), merged
into frozen dataclasses. Mappings merge, everything else replaces. The source of
every value is kept, so that an error can name the file and the key.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from fabdjango.exceptions import ConfigError
from fabdjango.inventory import Host, Listed, hosts_of, suggest
from fabdjango.inventory_files import Entries, files_of, merged, read_inventory
from fabdjango.settings import (
    ROOT_KEY,
    VARIABLE,
    Settings,
    Ssh,
    class_of_items,
    environment_name,
    hints_of,
    setting_rows,
)

__all__ = ["Layer", "Resolved", "environment_layer", "resolve"]

_CONTROL = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True)
class Layer:
    """One level of configuration. ``source`` is how an error names it."""

    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Resolved:
    """
    The settings of one host, and the source of every value by dotted key.

    ``hosts`` are those of the chosen ``stage``, or of no stage. ``elsewhere`` has
    the names of all other hosts and the stages that list them; an empty name is
    the list outside of stages. ``confirm`` is True where a stage wants to be
    asked for.
    """

    settings: Settings
    sources: Mapping[str, str]
    hosts: tuple[Host, ...] = ()
    stages: tuple[str, ...] = ()
    stage: str = ""
    confirm: bool = False
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_INVENTORY_KEYS = ("hosts", "roles", "stages", "inventory")
_STAGE_KEYS = ("hosts", "inventory", "confirm")


def _read_nothing(path: str) -> str:
    raise ConfigError(f"the inventory {path} cannot be read here", cure="list the hosts in fabric.yaml")


def resolve(
    layers: Sequence[Layer], *, stage: str = "", host: str = "", read: Callable[[str], str] = _read_nothing
) -> Resolved:
    """
    Merge ``layers`` (lowest first) into the settings of ``host`` in ``stage``.

    Within a layer a stage wins over what is for all, a role over the stage, an
    inventory file over the role, and the host's own entry over the file. ``read``
    gives the text of an inventory file.

    Raises ConfigError for an unknown key, a value of the wrong form, a missing
    required key, a stage that does not exist, or duplicate hosts.
    """
    everything: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        if not isinstance(layer.values, Mapping):
            raise _wrong_form("", "a mapping of settings", layer.values, layer.source)
        _check_keys(layer.values, Settings, "", layer.source, extra=_INVENTORY_KEYS)
        _merge(everything, layer.values, sources, layer.source)
    stages = _mapping(everything.get("stages") or {}, "stages", sources)
    roles = _mapping(everything.get("roles") or {}, "roles", sources)
    _check_inventory(stages, roles, everything.get("hosts"), sources)
    if stage and stage not in stages:
        msg = f"there is no stage {stage!r}"
        raise ConfigError(msg, cure=suggest(stage, stages) or f"define it in fabric.yaml under {ROOT_KEY}: stages:")
    inventory = _Inventory(layers, everything, sources, read)
    listed = inventory.listed(stage)
    values, found = inventory.values(stage, host)
    settings = _build(Settings, values, "", found)
    return Resolved(
        settings,
        {**sources, **found},
        hosts_of(listed, stage),
        tuple(stages),
        stage,
        _boolean((stages.get(stage) or {}).get("confirm") or False, f"stages.{stage}.confirm", ""),
        inventory.elsewhere({each.name for each in listed}, stages),
    )


class _Inventory:
    """Who the hosts of a stage are, and the values of one of them."""

    def __init__(
        self,
        layers: Sequence[Layer],
        everything: Mapping[str, Any],
        sources: Mapping[str, str],
        read: Callable[[str], str],
    ) -> None:
        self.layers = layers
        self.everything = everything
        self.sources = sources
        self.read = read
        self._files: dict[str, Entries] = {}

    def listed(self, stage: str) -> tuple[Listed, ...]:
        """The hosts of ``stage``: its own if it has any, else those outside of stages."""
        names = (self._names(stage) if stage else {}) or self._names("")
        return tuple(
            Listed(name, self._ssh(stage, name), self._roles(stage, name), source) for name, source in names.items()
        )

    def elsewhere(self, here: Collection[str], stages: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The hosts that are not ``here``, and who lists them."""
        found: dict[str, tuple[str, ...]] = {}
        for stage in ("", *stages):
            # A file of another stage may be missing here, and that does not matter now.
            with contextlib.suppress(ConfigError):
                for name in self._names(stage):
                    if name not in here:
                        found[name] = (*found.get(name, ()), stage)
        return found

    def values(self, stage: str, host: str, only: str = "") -> tuple[dict[str, Any], dict[str, str]]:
        """What the layers say for one host, and their source; of one key, if ``only`` is given."""
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        roles = self._roles(stage, host)
        last = max((n for n, layer in enumerate(self.layers) if self._names_files(layer, stage)), default=-1)
        for number, layer in enumerate(self.layers):
            parts: list[tuple[Any, str]] = [(layer.values, layer.source)]
            staged = _below(layer.values, "stages", stage)
            parts.append((staged, f"{layer.source}, stages.{stage}"))
            parts += [(_below(layer.values, "roles", role), f"{layer.source}, roles.{role}") for role in roles]
            if number == last:
                entry = self._in_files(stage, host)
                parts.append(({"ssh": entry.get("ssh", {})}, str(entry.get("from", ""))))
            parts.append((_below(layer.values, "hosts", host), f"{layer.source}, hosts.{host}"))
            parts.append((_below(staged, "hosts", host), f"{layer.source}, stages.{stage}, hosts.{host}"))
            for part, source in parts:
                wanted = {k: v for k, v in part.items() if k not in _NOT_SETTINGS and (not only or k == only)}
                _merge(values, wanted, sources, source)
        return values, sources

    def _names_files(self, layer: Layer, stage: str) -> bool:
        return "inventory" in layer.values or "inventory" in _below(layer.values, "stages", stage)

    def _part(self, stage: str) -> Mapping[str, Any]:
        """All layers of what a stage says, or of what is outside of stages."""
        return _below(self.everything, "stages", stage) if stage else self.everything

    def _names(self, stage: str) -> dict[str, str]:
        """The hosts that a stage itself lists, or that are listed outside of stages, with where that is."""
        names = {name: str(entry["from"]) for name, entry in self._entries(stage).items()}
        for name in _below(self._part(stage), "hosts"):
            source = _source_of(f"{_prefix(stage)}hosts.{name}", self.sources)
            names[name] = ", ".join(filter(None, [names.get(name), source]))
        return names

    def _entries(self, stage: str) -> Entries:
        """What inventory files list for a stage, or outside of stages."""
        if stage not in self._files:
            key = f"{_prefix(stage)}inventory"
            files = files_of(self._part(stage).get("inventory"), key, _source_of(key, self.sources))
            self._files[stage] = merged([(file, read_inventory(file, self.read(file.path))) for file in files])
        return self._files[stage]

    def _in_files(self, stage: str, host: str) -> Mapping[str, Any]:
        """What inventory files say of a host; those of the stage win."""
        found: dict[str, Any] = {}
        for each in dict.fromkeys(("", stage)):
            entry = self._entries(each).get(host, {})
            ssh = {**found.get("ssh", {}), **entry.get("ssh", {})}
            found = {**found, **entry, "ssh": ssh}
        return found

    def _roles(self, stage: str, host: str) -> tuple[str, ...]:
        for each in dict.fromkeys((stage, "")):
            entry = _below(self._part(each), "hosts", host)
            if "roles" in entry:
                key = f"{_prefix(each)}hosts.{host}.roles"
                return _as_words(entry["roles"], key, self.sources.get(key, ""))
        return tuple(self._in_files(stage, host).get("roles", ()))

    def _ssh(self, stage: str, host: str) -> Ssh:
        values, sources = self.values(stage, host, "ssh")
        return typing.cast("Ssh", _convert(Ssh, values.get("ssh") or {}, "ssh", sources, {}))


_NOT_SETTINGS = frozenset({*_INVENTORY_KEYS, *_STAGE_KEYS})


def _below(values: Any, *keys: str) -> Mapping[str, Any]:
    """The mapping that is reached by ``keys``, or an empty one; forms have been checked where they count."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def _prefix(stage: str) -> str:
    return f"stages.{stage}." if stage else ""


def _check_inventory(
    stages: Mapping[str, Any], roles: Mapping[str, Any], hosts: Any, sources: Mapping[str, str]
) -> None:
    """Raise for a misspelt key of any stage, role or host, so that it does not wait for the one it is for."""
    staged = [(f"stages.{name}.", (values or {}).get("hosts")) for name, values in _named(stages, "stages", sources)]
    for name, values in _named(stages, "stages", sources):
        path = f"stages.{name}"
        _check_keys(values, Settings, path, _source_of(path, sources), extra=_STAGE_KEYS)
        files_of(values.get("inventory"), f"{path}.inventory", _source_of(f"{path}.inventory", sources))
        _boolean(values.get("confirm") or False, f"{path}.confirm", sources.get(f"{path}.confirm", ""))
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


_ONE_OF = "secrets."
"""An entry below it says one thing out of several: one of a higher level replaces it as a whole."""


def _merge(
    base: dict[str, Any], over: Mapping[str, Any], sources: dict[str, str], source: str, prefix: str = ""
) -> None:
    for key, value in over.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            below = base.get(key)
            base[key] = dict(below) if isinstance(below, Mapping) and prefix != _ONE_OF else {}
            sources[path] = source
            _merge(base[key], value, sources, source, path + ".")
        else:
            base[key] = value
            sources[path] = source


def _check_keys(values: Mapping[str, Any], kind: type, prefix: str, source: str, extra: Iterable[str] = ()) -> None:
    known = {f.name: f for f in dataclasses.fields(kind)}
    hints = hints_of(kind)
    for key, value in values.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if key in extra:
            continue
        if key not in known:
            msg = f"{ROOT_KEY}.{path} is not a setting (in {source})"
            cure = suggest(str(key), [*known, *extra]) or "see all of them with: fab config"
            raise ConfigError(msg, cure=cure)
        below = hints[key]
        named = class_of_items(below)
        if dataclasses.is_dataclass(below) and isinstance(value, Mapping):
            _check_keys(value, typing.cast("type", below), path, source)
        elif named and isinstance(value, Mapping):
            for name, item in value.items():
                if isinstance(item, Mapping):
                    _check_keys(item, named, f"{path}.{name}", source)


# --- building ----------------------------------------------------------------


def _build(kind: type, values: Mapping[str, Any], prefix: str, sources: Mapping[str, str]) -> Any:
    hints = hints_of(kind)
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
    for item in dataclasses.fields(kind):
        group, name, value = item.metadata.get("required_by", ("", "", ""))
        if group and not found.get(item.name) and getattr(found.get(group, hints[group]()), name) == value:
            raise _missing(f"{prefix}{item.name}", item)
    return kind(**found)


def _convert(kind: Any, value: Any, path: str, sources: Mapping[str, str], meta: Mapping[str, Any]) -> Any:
    source = sources.get(path, "")
    if dataclasses.is_dataclass(kind):
        if isinstance(value, str):
            value = getattr(kind, "short", {}).get(value, value)
        return _build(typing.cast("type", kind), _mapping(value, path, sources), path + ".", sources)
    origin = get_origin(kind)
    if origin is Literal:
        # YAML reads a bare yes or no as a truth value.
        value = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        value = str(value) if isinstance(value, int) else value
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
    # Who has not read that a secret's source is to be written there may have written the secret.
    return path.startswith(_ONE_OF) or any(path == row.key and row.secret for row in setting_rows())


def _missing(path: str, item: dataclasses.Field[Any]) -> ConfigError:
    example = item.metadata.get("example", "…")
    is_row = any(row.key == path for row in setting_rows())
    variable = f"or in the environment:  {environment_name(path)}='{example}'\n" if is_row else ""
    key = "\n".join(f"{'  ' * depth}{part}:" for depth, part in enumerate([ROOT_KEY, *path.split(".")]))
    keyword = path.replace(".", "__")
    call = f'site("{example}", …)' if path == "project" else f'site("blog", {keyword}="{example}", …)'
    return ConfigError(
        f"{ROOT_KEY}.{path} is not set: {item.metadata['help'][0].lower()}{item.metadata['help'][1:]}",
        cure=f"write it in fabric.yaml beside your fabfile:\n\n{key} {example}\n\n"
        f"{variable}"
        f"or in the fabfile:      ns = fabdjango.{call}",
    )


# --- the environment ---------------------------------------------------------


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """
    The settings in ``environ``, by the schema and not by what a file happens to mention.

    Lists are separated by commas. Mappings have no variable.
    """
    values: dict[str, Any] = {}
    known = {environment_name(row.key): row for row in setting_rows() if "*" not in row.key}
    for name, text in sorted(environ.items()):
        if not name.startswith(VARIABLE) or name == "FABRIC_FABDJANGO_STAGE":
            continue
        row = known.get(name)
        if row is None:
            msg = f"the environment variable {name} is not a setting"
            # Compared without the prefix, which makes all names look alike.
            close = suggest(name.removeprefix(VARIABLE), [each.removeprefix(VARIABLE) for each in known])
            cure = re.sub(r"\b[A-Z_]+\b", rf"{VARIABLE}\g<0>", close)
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
