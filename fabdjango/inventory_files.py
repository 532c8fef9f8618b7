"""
The hosts that other tools know: an Ansible inventory (INI or YAML), or ssh_config.

Text in, entries out, in the form that ``hosts:`` has in fabric.yaml. Only how a
host is reached and which groups it is in is read; other variables are ignored.
"""

from __future__ import annotations

import fnmatch
import functools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from invoke.vendor import yaml
from paramiko import SSHConfig

from fabdjango.exceptions import ConfigError
from fabdjango.inventory import suggest

__all__ = ["Entries", "InventoryFile", "files_of", "merged", "read_inventory", "twice"]

_FORMS = (
    'one of: deploy/hosts.ini, {ansible: deploy/hosts.ini, group: web}, {ssh_config: ~/.ssh/config, match: "blog-*"}'
)
_VARIABLES = {
    "ansible_host": "address",
    "ansible_ssh_host": "address",
    "ansible_port": "port",
    "ansible_ssh_port": "port",
    "ansible_user": "user",
    "ansible_ssh_user": "user",
    "ansible_ssh_private_key_file": "key",
    "ansible_private_key_file": "key",
    "ansible_ssh_common_args": "jump",
    "ansible_ssh_extra_args": "jump",
    "ansible_connection": "connection",
}
_IMPLICIT = ("all", "ungrouped")
"""Groups that Ansible makes itself; they say nothing of what a host is for."""

Entries = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class InventoryFile:
    """A file to read hosts from: its ``kind`` (ansible or ssh_config), and the group or the pattern of names to take."""

    kind: str
    path: str
    only: str = ""


def files_of(value: Any, key: str, source: str) -> tuple[InventoryFile, ...]:
    """The files that the key ``inventory`` names; ``key`` and ``source`` are how an error calls it."""
    items = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return tuple(_file_of(item, key, source) for item in items)


def _file_of(item: Any, key: str, source: str) -> InventoryFile:
    if isinstance(item, str) and item:
        return InventoryFile("ansible", item)
    if isinstance(item, Mapping) and all(isinstance(word, str) and word for word in item.values()):
        for kind, chooser in (("ansible", "group"), ("ssh_config", "match")):
            if kind in item and not set(item) - {kind, chooser}:
                return InventoryFile(kind, item[kind], item.get(chooser, ""))
    raise ConfigError(f"fabdjango.{key} must name a file, not {item!r} (in {source})", cure=f"write it as {_FORMS}")


@functools.lru_cache(maxsize=64)
def read_inventory(file: InventoryFile, text: str) -> Entries:
    """
    The hosts in the text of ``file``, by name, each as an entry of ``hosts:``.

    Raises ConfigError for what cannot be read: a program, a vault, a grammar
    that is broken, a group that is not there, a host with contradicting values.
    """
    if file.kind == "ssh_config":
        return _read_ssh_config(file, text)
    if text.startswith("#!"):
        _refuse(
            file,
            "is a program; only inventories that are text can be read",
            "save what it lists: ansible-inventory --list --yaml --output FILE",
        )
    if text.startswith("$ANSIBLE_VAULT"):
        _refuse(
            file, "is encrypted by ansible-vault", "keep secrets in a file of their own, and the hosts in plain text"
        )
    inventory = _Ansible(file)
    if file.path.endswith((".yml", ".yaml", ".json")):
        _read_yaml(inventory, text)
    else:
        _read_ini(inventory, text)
    return inventory.entries()


def merged(read: Iterable[tuple[InventoryFile, Entries]]) -> Entries:
    """The entries of several files as one; raises ConfigError where two of them contradict each other."""
    result: Entries = {}
    origin: dict[str, str] = {}
    for file, entries in read:
        for name, entry in entries.items():
            if name not in result:
                result[name] = {"roles": list(entry["roles"]), "ssh": dict(entry["ssh"])}
                origin[name] = file.path
                continue
            known = result[name]
            for key, value in entry["ssh"].items():
                if known["ssh"].setdefault(key, value) != value:
                    _duplicate(name, key, known["ssh"][key], value, f"{origin[name]} and {file.path}")
            known["roles"] = list(dict.fromkeys([*known["roles"], *entry["roles"]]))
            origin[name] += f", {file.path}"
    return {name: {**entry, "from": origin[name]} for name, entry in result.items()}


@functools.lru_cache(maxsize=8)
def twice(text: str, root: str) -> tuple[tuple[str, int, int], ...]:
    """
    Keys that stand twice in one mapping below ``root`` of a YAML text, and both lines.

    A loader takes the last of them and says nothing. Text that is not YAML has
    none; whoever loads it says so.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)  # type: ignore[no-untyped-call]
    except yaml.YAMLError:
        return ()
    below = [value for name, value in _pairs(node) if name.value == root]
    return tuple(_repeated(below[-1], "", set())) if below else ()


def _repeated(node: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, int, int]]:
    if id(node) in seen:  # an alias may stand for what it is part of
        return
    seen.add(id(node))
    lines: dict[str, int] = {}
    for name, value in _pairs(node):
        key, line = str(name.value), name.start_mark.line + 1
        if key in lines and key != "<<":
            yield f"{prefix}{key}", lines[key], line
        lines[key] = line
        yield from _repeated(value, f"{prefix}{key}.", seen)


def _pairs(node: Any) -> list[tuple[Any, Any]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _refuse(file: InventoryFile, what: str, cure: str, line: int = 0) -> Any:
    at = f" line {line}" if line else ""
    raise ConfigError(f"the inventory {file.path}{at} {what}", cure=cure)


def _duplicate(name: str, key: str, one: Any, other: Any, where: str) -> Any:
    shown = [", ".join(value) if isinstance(value, list) else value for value in (one, other)]
    msg = f"duplicate hosts: {name} has two values of {key}, {shown[0]} and {shown[1]} (in {where})"
    raise ConfigError(msg, cure="take one of them away, or give the other host its own name")


# --- Ansible -----------------------------------------------------------------


@dataclass
class _Group:
    hosts: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)


class _Ansible:
    """An inventory while it is read."""

    def __init__(self, file: InventoryFile) -> None:
        self.file = file
        self.groups: dict[str, _Group] = {}
        self.variables: dict[str, dict[str, Any]] = {}

    def group(self, name: str) -> _Group:
        return self.groups.setdefault(name, _Group())

    def add(self, group: str, pattern: str, variables: Mapping[str, Any], line: int = 0) -> None:
        """Put the hosts of ``pattern`` (a name, or names with ranges) into a group."""
        for name in _expand(pattern, self.file, line):
            if name not in self.group(group).hosts:
                self.group(group).hosts.append(name)
            known = self.variables.setdefault(name, {})
            for key, value in variables.items():
                if key in _VARIABLES and known.setdefault(key, value) != value:
                    _duplicate(name, key, known[key], value, self.file.path)

    def entries(self) -> Entries:
        above = {name: self._above(name) for name in self.groups}
        groups_of: dict[str, list[str]] = {name: [] for name in self.variables}
        for group, content in self.groups.items():
            for host in content.hosts:
                groups_of[host] += [group, *above[group]]
        only = self.file.only
        if only and only not in self.groups:
            known = [name for name in self.groups if name not in _IMPLICIT]
            _refuse(
                self.file,
                f"has no group {only}",
                suggest(only, known) or f"its groups are: {', '.join(known) or 'none'}",
            )
        result: Entries = {}
        for name in self.variables:
            groups = list(dict.fromkeys(groups_of[name]))
            if only and only not in groups and only != "all":
                continue
            # A group nearer to the host wins over one that is farther, as in Ansible; of equals, the later by name.
            nearest = sorted(groups, key=lambda each: (each != "all", len(above[each]), each))
            variables: dict[str, Any] = dict(self.groups["all"].variables) if "all" in self.groups else {}
            for group in nearest:
                variables.update(self.groups[group].variables)
            variables.update(self.variables[name])
            ssh = self._ssh(name, variables)
            if ssh is not None:
                result[name] = {"roles": sorted(set(groups) - set(_IMPLICIT)), "ssh": ssh}
        return result

    def _above(self, name: str) -> list[str]:
        """Every group that has ``name`` below it."""
        found: list[str] = []
        waiting = [name]
        while waiting:
            child = waiting.pop()
            for group, content in self.groups.items():
                if child in content.children and group not in found:
                    found.append(group)
                    waiting.append(group)
        if name in found:
            _refuse(self.file, f"has the group {name} below itself", "take it out of the children of one of its own")
        return found

    def _ssh(self, name: str, variables: Mapping[str, Any]) -> dict[str, Any] | None:
        ssh: dict[str, Any] = {}
        for variable, key in _VARIABLES.items():
            value = variables.get(variable)
            if value is None or value == "":
                continue
            if isinstance(value, _Vault) or not isinstance(value, (str, int)):
                _refuse(
                    self.file,
                    f"has no plain text as {variable} of {name}",
                    "write it in plain text, or in fabric.yaml under hosts:",
                )
            text = str(value)
            if "{{" in text and key != "connection":
                _refuse(
                    self.file,
                    f"has a template as {variable} of {name}: {text}",
                    "write what it stands for, there or in fabric.yaml under hosts:",
                )
            if key == "connection" and text == "local":
                # The operator's own machine, which is no host to log in to.
                return None
            if key == "connection" and text not in ("ssh", "smart", "paramiko", "paramiko_ssh"):
                _refuse(
                    self.file,
                    f"reaches {name} by {text}, not by ssh",
                    "take a group without it: inventory: {ansible: FILE, group: NAME}",
                )
            if key == "jump":
                text = self._jump(name, variable, text) or ssh.get("jump", "")
            if key != "connection" and text:
                ssh[key] = [text] if key == "key" else text
        return ssh

    def _jump(self, name: str, variable: str, text: str) -> str:
        try:
            options = dict(_options(shlex.split(text)))
        except ValueError as error:
            _refuse(self.file, f"has a {variable} of {name} that cannot be read: {error}", "close its quotes")
        if "proxyjump" in options:
            return options["proxyjump"]
        if "proxycommand" in options:
            jump = _jump_of_command(options["proxycommand"])
            return jump or str(
                _refuse(
                    self.file,
                    f"reaches {name} by a ProxyCommand: {options['proxycommand']}",
                    "write it as a ProxyJump: ansible_ssh_common_args='-J bastion'",
                )
            )
        return ""


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """The options of ssh's command line that say which way to go, by their names in ssh_config."""
    rest = iter(words)
    for word in rest:
        if word.startswith("-J"):
            yield "proxyjump", word[2:] or next(rest, "")
        elif word.startswith("-o"):
            name, _, value = (word[2:] or next(rest, "")).strip().partition("=")
            if not _:
                name, _, value = name.partition(" ")
            yield name.strip().lower(), value.strip().strip('"')


def _jump_of_command(command: str) -> str:
    """The jump host of ``ssh -W %h:%p -q user@host``, which is how a jump was written before there was ProxyJump; or nothing."""
    words = shlex.split(command)
    if not words or words[0].rpartition("/")[2] != "ssh" or "%h:%p" not in command:
        return ""
    port, user, hosts = "", "", []
    rest = iter(words[1:])
    for word in rest:
        if word[:2] in ("-W", "-p", "-l", "-o", "-i", "-F"):
            value = word[2:] or next(rest, "")
            port = value if word[:2] == "-p" else port
            user = value if word[:2] == "-l" else user
        elif not word.startswith("-"):
            hosts.append(word)
    if len(hosts) != 1:
        return ""
    return (f"{user}@" if user else "") + hosts[0] + (f":{port}" if port else "")


_RANGE = re.compile(r"\[(\w+):(\w+)(?::(\d+))?\]")


def _expand(pattern: str, file: InventoryFile, line: int) -> Iterator[str]:
    """Every name that ``web[01:10].example.com`` or ``db-[a:c]`` stands for."""
    found = _RANGE.search(pattern)
    if not found:
        yield pattern
        return
    begin, end, step = found[1], found[2], int(found[3] or 1)
    if begin.isdigit() and end.isdigit() and int(begin) <= int(end) and step:
        width = len(begin) if begin.startswith("0") else 0
        values = [f"{number:0{width}d}" for number in range(int(begin), int(end) + 1, step)]
    elif len(begin) == len(end) == 1 and begin.isalpha() and end.isalpha() and begin <= end and step:
        values = [chr(number) for number in range(ord(begin), ord(end) + 1, step)]
    else:
        values = _refuse(
            file, f"has a range that counts nothing: {found[0]}", "write it as [01:50], [1:9:2] or [a:f]", line
        )
    for value in values:
        yield from _expand(pattern[: found.start()] + value + pattern[found.end() :], file, line)


def _read_ini(inventory: _Ansible, text: str) -> None:
    file = inventory.file
    group, kind = "ungrouped", ""
    declared: dict[str, int] = {}
    needed: dict[str, int] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        header = re.fullmatch(r"\[\s*([^:\]\s]+)\s*(?::(\w+))?\s*\]\s*(?:[#;].*)?", line)
        if header:
            group, kind = header[1], header[2] or ""
            if kind not in ("", "children", "vars"):
                _refuse(
                    file,
                    f"has a section that Ansible does not know: {line}",
                    "it takes [name], [name:children] and [name:vars]",
                    number,
                )
            (needed if kind == "vars" else declared).setdefault(group, number)
            inventory.group(group)
        elif kind == "vars":
            name, separator, value = line.partition("=")
            if not separator:
                _refuse(file, f"has a variable without a value: {line}", "write it as name=value", number)
            inventory.group(group).variables[name.strip()] = _unquoted(value.strip())
        elif kind == "children":
            child = line.split("#")[0].strip()
            inventory.group(group).children.append(child)
            needed.setdefault(child, number)
        else:
            _read_host(inventory, group, line, number)
    for name, number in needed.items():
        if name not in declared and name not in _IMPLICIT:
            _refuse(
                file,
                f"names a group that it does not have: {name}",
                suggest(name, declared) or f"write its section: [{name}]",
                number,
            )


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _read_host(inventory: _Ansible, group: str, line: str, number: int) -> None:
    file = inventory.file
    try:
        name, *words = shlex.split(line, comments=True)
    except ValueError as error:
        _refuse(file, f"cannot be read: {error}", "close its quotes", number)
    variables: dict[str, Any] = {}
    if name.lower() in ("host", "match") and words and not any("=" in word for word in words):
        _refuse(file, "looks like ssh_config", f"write it as inventory: {{ssh_config: {file.path}}}", number)
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            _refuse(
                file,
                f"has a word that is no variable: {word}",
                "write variables as name=value, one host a line",
                number,
            )
        variables[key] = value
    # A port may follow the name. Brackets hold a range, or an IPv6 address.
    if re.search(r":\d+$", name) and re.sub(r"\[[^\]]*\]", "", name).count(":") == 1:
        name, _, port = name.rpartition(":")
        variables.setdefault("ansible_port", port)
    if re.fullmatch(r"\[[^\[\]]*\]", name) and not _RANGE.fullmatch(name):
        name = name[1:-1]
    inventory.add(group, name, variables, number)


class _Vault:
    """A value that only ansible-vault can read."""


class _Loader(yaml.SafeLoader):
    """Takes the tags of Ansible for values that are not read, so that a secret beside a host does no harm."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: _Vault())  # type: ignore[no-untyped-call]


def _read_yaml(inventory: _Ansible, text: str) -> None:
    file = inventory.file
    try:
        content = yaml.load(text, Loader=_Loader)  # type: ignore[no-untyped-call]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        _refuse(
            file, f"is not YAML: {getattr(error, 'problem', error)}", "correct it there", mark.line + 1 if mark else 0
        )
    if isinstance(content, Mapping) and "plugin" in content:
        _refuse(
            file,
            f"asks the inventory plugin {content['plugin']}",
            "save what it lists: ansible-inventory --list --yaml --output FILE",
        )
    for name, group in _named(file, content, "the file"):
        _read_group(inventory, name, group)


def _read_group(inventory: _Ansible, name: str, content: Any) -> None:
    file = inventory.file
    group = inventory.group(name)
    parts = dict(_named(file, content, name))
    unknown = set(parts) - {"hosts", "children", "vars"}
    if unknown:
        _refuse(
            file,
            f"has a key in the group {name} that Ansible does not know: {min(unknown)}",
            "a group has hosts, children and vars",
        )
    for host, variables in _named(file, parts.get("hosts"), f"{name}.hosts"):
        inventory.add(name, host, dict(_named(file, variables, host)))
    group.variables.update(_named(file, parts.get("vars"), f"{name}.vars"))
    for child, below in _named(file, parts.get("children"), f"{name}.children"):
        group.children.append(child)
        _read_group(inventory, child, below)


def _named(file: InventoryFile, value: Any, what: str) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        _refuse(file, f"has no mapping as {what}", "see how Ansible writes an inventory in YAML")
    return [(str(key), item) for key, item in value.items()]


# --- ssh_config --------------------------------------------------------------


def _read_ssh_config(file: InventoryFile, text: str) -> Entries:
    try:
        config = SSHConfig.from_text(text)
        names = sorted(config.get_hostnames(), key=lambda name: _place(text, name))
        found = {name: dict(config.lookup(name)) for name in names if not set(name) & set("*?!")}
    except Exception as error:  # noqa: BLE001 - paramiko has many, and all mean that the text is not ssh_config
        _refuse(file, f"is not ssh_config: {error}", "see whether ssh itself can read it: ssh -F FILE -G HOST")
    chosen = {name: values for name, values in found.items() if fnmatch.fnmatchcase(name, file.only or "*")}
    if file.only and not chosen:
        _refuse(file, f"has no host like {file.only}", f"its hosts are: {', '.join(found) or 'none'}")
    return {name: {"roles": [], "ssh": _of_ssh_config(name, values)} for name, values in chosen.items()}


def _place(text: str, name: str) -> int:
    found = re.search(rf"(?im)^\s*host\b.*?(?<!\S){re.escape(name)}(?!\S)", text)
    return found.end() if found else len(text)


def _of_ssh_config(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    ssh: dict[str, Any] = {}
    for option, key in (
        ("hostname", "address"),
        ("user", "user"),
        ("port", "port"),
        ("identityfile", "key"),
        ("proxyjump", "jump"),
    ):
        value = values.get(option)
        if value and not (key == "address" and value == name) and not (key == "jump" and value == "none"):
            ssh[key] = value
    return ssh
