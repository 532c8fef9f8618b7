"""The logs of the site's programs and of nginx."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands.manager import Source
from fabdjango.escape import raw
from fabdjango.exceptions import ConfigError
from fabdjango.plan import OWNER, ROOT, Step

__all__ = ["NGINX", "nginx_log", "read_since", "show"]

NGINX = ("access", "error")
"""The logs that nginx keeps of the site."""
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"(\d{1,6}) ?(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)")
_AT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?(?: ?(?:(Z|UTC)|([+-])(\d\d):?(\d\d)))?)?"
)


def read_since(text: str) -> Mapping[str, object]:
    """
    What ``--since`` means: ``ago`` in seconds, or ``at`` (year to second, by the host's clock) with ``zone`` in minutes if it has one.

    Raises ConfigError for anything else; empty means nothing.
    """
    if not text:
        return {}
    words = text.strip().removesuffix(" ago")
    if re.fullmatch(rf"{_AGO.pattern}( {_AGO.pattern})*", words):
        return {"ago": sum(int(number) * _seconds(unit) for number, unit in _AGO.findall(words))}
    found = _AT.fullmatch(words)
    if not found:
        msg = f"--since: {text!r} is not a time"
        raise ConfigError(msg, cure='for instance "10 min", "2 h", "2026-11-01 12:00" or 2026-11-01T12:00:00Z')
    at = [int(each or 0) for each in found.groups()[:6]]
    if found[7]:
        return {"at": at, "zone": 0}
    if found[8]:
        return {"at": at, "zone": int(found[8] + "1") * (int(found[9]) * 60 + int(found[10]))}
    return {"at": at}


def _seconds(unit: str) -> int:
    return 60 if unit.startswith("m") else _UNITS[unit[0]]


def nginx_log(project: str, which: str) -> Source:
    """One of nginx's logs of the site; raises ConfigError for another word."""
    if which not in NGINX:
        raise ConfigError(f"nginx has no log {which!r} of the site", cure=f"it has: {', '.join(NGINX)}")
    return Source(which, path=PurePosixPath("/var/log/nginx") / f"{project}.{which}.log")


def show(sources: Sequence[Source], *, lines: int, since: Mapping[str, object], follow: bool) -> Step:
    """``logs``: the last ``lines`` of each, or all ``since`` a time; with ``follow`` for as long as somebody listens."""
    as_root = any(each.user == ROOT for each in sources)
    # Root must not open what another account may put a link in place of.
    files = [[each.name, str(each.path), each.user if each.user != ROOT else ""] for each in sources if not each.unit]
    names = dict.fromkeys(each.name for each in sources)
    return Step(
        "logs",
        f"log of {', '.join(names)}",
        raw("export FABDJANGO_RUN"),
        user=ROOT if as_root else OWNER,
        program=onhost.source("show_logs"),
        parameters={
            "units": [each.unit for each in sources if each.unit],
            "files": files,
            "named": len({name for name, _, _ in files}) > 1,
            "lines": lines,
            "since": since,
            "follow": follow,
        },
        capture=True,
    )
