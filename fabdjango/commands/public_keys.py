"""Public keys: the lines of authorized_keys."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fabdjango.exceptions import ConfigError

__all__ = ["missing_keys", "name_of_key", "read_keys"]

_KEY = re.compile(r"(?:^|[\s,])((?:ssh|ecdsa|sk)-[a-z0-9@.-]+)\s+(AAAA[A-Za-z0-9+/]+=*)(?:\s+(.*))?$")


def read_keys(text: str, name: str) -> tuple[str, ...]:
    """The lines of a public key file; a ConfigError that names the file if one is no public key."""
    if "PRIVATE KEY-----" in text:
        raise ConfigError(
            f"fabdjango.server.keys names {name}, which is a private key", cure=f"name the public one: {name}.pub"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    for number, line in enumerate(lines, 1):
        if not _KEY.search(line):
            raise ConfigError(
                f"fabdjango.server.keys: key {number} of {name} is not a public key",
                cure="a line looks like: ssh-ed25519 AAAA… ada@laptop",
            )
    return tuple(lines)


def missing_keys(wanted: Iterable[str], there: Iterable[str]) -> list[str]:
    """The lines of ``wanted`` whose keys are in none of the lines that are ``there``."""
    known = {_blob(line) for line in there}
    return list({_blob(line): line for line in wanted if _blob(line) not in known}.values())


def _blob(line: str) -> str:
    """What makes two lines the same key, whatever their options and comments say."""
    found = _KEY.search(line)
    return found[2] if found else line


def name_of_key(line: str) -> str:
    """Whose key it is, as its comment says."""
    found = _KEY.search(line)
    return (found[3] if found and found[3] else line[-16:]).strip()
