"""
The hosts of a stage: who they are, which of them a command is for, and which one is the primary.

Values and choices only; how a host is reached is in login.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fabdjango.exceptions import ConfigError
from fabdjango.settings import Ssh

__all__ = [
    "COMMAND_LINE",
    "PRIMARY",
    "Host",
    "Listed",
    "hosts_of",
    "leads",
    "literal",
    "primary_of",
    "roles_of",
    "select",
    "split_address",
    "suggest",
    "table",
    "words_of",
]

PRIMARY = "primary"
"""The role of the one host that does what is done once for all, such as migrations."""
COMMAND_LINE = "the command line"
"""The source of a host that no inventory lists."""
_ADDRESS = re.compile(
    r"(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:\[\]]+|[^\[\]]*:[^\[\]]*:[^\[\]]*)(?::(?P<port>\d+))?"
)


@dataclass(frozen=True)
class Host:
    """
    One host as the configuration knows it.

    ``address`` is what is connected to. An empty ``user`` or ``jump``, a
    ``port`` of 0 and no ``key`` leave it to ssh_config. ``jump`` is a chain as
    in ssh -J; ``source`` says which files list the host.
    """

    name: str
    address: str
    user: str = ""
    port: int = 0
    key: tuple[str, ...] = ()
    jump: str = ""
    roles: tuple[str, ...] = ()
    stage: str = ""
    source: str = ""


@dataclass(frozen=True)
class Listed:
    """A host as it stands in the files: its name, how to reach it, its roles, and where it is listed."""

    name: str
    ssh: Ssh
    roles: tuple[str, ...] = ()
    source: str = ""


def split_address(text: str) -> tuple[str, str, int]:
    """User, host and port of ``user@host:port``; empty and 0 where they are left out. IPv6 with a port is [::1]:22."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return "", text, 0
    return found["user"] or "", found["host"].strip("[]"), int(found["port"] or 0)


def hosts_of(listed: Iterable[Listed], stage: str = "") -> tuple[Host, ...]:
    """The hosts of ``stage`` in their order; raises ConfigError if two of them are the same machine."""
    hosts = tuple(_host(each, stage) for each in listed)
    seen: dict[tuple[str, int, str], Host] = {}
    for host in hosts:
        # Behind another jump host the same address is another machine.
        place = (host.address.lower(), host.port or 22, host.jump)
        other = seen.setdefault(place, host)
        if other is not host:
            at = f"{host.address}" + (f" port {host.port}" if host.port else "")
            msg = f"duplicate hosts: {other.name} and {host.name} are both {at} (in {_both(other.source, host.source)})"
            raise ConfigError(msg, cure=f"take one of them away, or give {host.name} its own ssh: {{address: …}}")
    return hosts


def _host(listed: Listed, stage: str) -> Host:
    ssh = listed.ssh
    user, address, port = split_address(ssh.address or listed.name)
    return Host(
        listed.name,
        address,
        ssh.user or user,
        ssh.port or port,
        ssh.key,
        ssh.jump,
        listed.roles,
        stage,
        listed.source,
    )


def _both(one: str, other: str) -> str:
    return one if one == other else f"{one}, and in {other}"


def literal(name: str, ssh: Ssh, stage: str = "") -> Host:
    """A host that no inventory lists, called by its address."""
    return _host(Listed(name, ssh, source=COMMAND_LINE), stage)


def select(
    hosts: Sequence[Host], named: Iterable[str] = (), role: str = "", limit: Iterable[str] = ()
) -> tuple[Host, ...]:
    """
    The hosts that a command is for, in their order.

    ``named`` are words of -H: names of the inventory, or addresses, taken as they
    are; without them all hosts are meant. ``role`` and ``limit`` (names) leave
    the others out. Raises ConfigError for a role that no host has, a name in
    ``limit`` that is none of them, and if nobody is left.
    """
    by_name = {host.name: host for host in hosts}
    chosen = tuple(by_name.get(name) or literal(name, Ssh()) for name in named) or tuple(hosts)
    names = [host.name for host in chosen]
    for name in limit:
        if name not in names:
            raise ConfigError(
                f"{name} is none of the hosts that --limit chooses from",
                cure=suggest(name, names) or f"they are: {', '.join(names) or 'none'}",
            )
    if role and not any(role in host.roles for host in chosen):
        known = roles_of(chosen)
        raise ConfigError(
            f"no host has the role {role}",
            cure=suggest(role, known)
            or (
                f"the roles are: {', '.join(known)}"
                if known
                else f"give it to one: hosts: {{{_first(chosen)}: {{roles: [{role}]}}}}"
            ),
        )
    limited = set(limit) or set(names)
    left = tuple(host for host in chosen if (not role or role in host.roles) and host.name in limited)
    if chosen and not left:
        has = ", ".join(host.name for host in chosen if role in host.roles)
        raise ConfigError(f"none of {', '.join(limit)} has the role {role}", cure=f"these have it: {has}")
    return left


def _first(hosts: Sequence[Host]) -> str:
    return hosts[0].name if hosts else "web1.example.com"


def roles_of(hosts: Iterable[Host]) -> tuple[str, ...]:
    """Every role that one of the hosts has, in order of its first."""
    return tuple(dict.fromkeys(role for host in hosts for role in host.roles))


def primary_of(hosts: Sequence[Host]) -> Host:
    """
    The one host with the role primary; a single host needs no role for it.

    Raises ConfigError if several hosts have none among them, or two.
    """
    if len(hosts) == 1:
        return hosts[0]
    found = [host for host in hosts if PRIMARY in host.roles]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(host.name for host in found)
        lines = "\n".join(_line(host, [role for role in host.roles if role != PRIMARY]) for host in found[1:])
        raise ConfigError(
            f"{names} are both primary; there can be only one", cure=f"leave it to {found[0].name}:\n{lines}"
        )
    if not hosts:
        raise ConfigError("there is no host, and so no primary", cure=f"list one: {_line(_EXAMPLE, [PRIMARY])}")
    raise ConfigError(
        f"none of {', '.join(host.name for host in hosts)} is the primary, which migrates for all of them",
        cure=f"give one of them the role in fabric.yaml:\n{_line(hosts[0], [*hosts[0].roles, PRIMARY])}",
    )


def leads(name: str, hosts: Sequence[Host]) -> bool:
    """True for the host that does what is done once: the primary, a host alone, or one that no inventory lists."""
    found = next((host for host in hosts if host.name == name), None)
    return found is None or len(hosts) == 1 or PRIMARY in found.roles


_EXAMPLE = Host("web1.example.com", "web1.example.com")


def _line(host: Host, roles: Sequence[str]) -> str:
    line = f"hosts: {{{host.name}: {{roles: [{', '.join(roles)}]}}}}"
    return f"stages: {{{host.stage}: {{{line}}}}}" if host.stage else line


def table(hosts: Sequence[Host], everyone: Sequence[Host]) -> list[str]:
    """The hosts as lines of columns; with a star, the one that is the primary of ``everyone``."""
    primary = [host for host in everyone if PRIMARY in host.roles] if len(everyone) > 1 else list(everyone)
    rows = [("host", "address", "user", "port", "roles", "jump", "from")]
    for host in hosts:
        name = f"{host.name} *" if primary == [host] else host.name
        columns = (host.user, str(host.port or ""), ", ".join(host.roles), host.jump, host.source)
        rows.append((name, host.address, *columns))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    kept = [index for index, column in enumerate(zip(*rows[1:], strict=True)) if any(column)]
    return ["  ".join(f"{row[index] or '-':<{widths[index]}}" for index in kept).rstrip() for row in rows]


def words_of(text: str) -> tuple[str, ...]:
    """The names in ``a,b``, as -H and --limit take them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def suggest(word: str, known: Iterable[str]) -> str:
    """What ``word`` may have been meant for, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else ""
