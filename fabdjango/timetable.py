"""
When a job runs: systemd's calendar form or the five fields of cron, and from one to the other where that is exact.

Nothing here knows a clock; times are those of the host's own zone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fabdjango.escape import systemd_value
from fabdjango.exceptions import ConfigError

__all__ = ["Times", "calendars", "cron_fields", "is_cron", "read_calendar", "read_cron"]

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@dataclass(frozen=True)
class Times:
    """
    The minutes at which something happens.

    A minute is meant if its minute, hour and month are listed, and its day:
    ``days`` of the month and ``weekdays`` (0 is Sunday), both of them, or with ``either`` one of them.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either: bool = False


class _Unfit(ValueError):  # noqa: N818 - as what it says is told
    """What the other form cannot say, or what is not understood."""


_ALL = {
    "minutes": range(60),
    "hours": range(24),
    "days": range(1, 32),
    "months": range(1, 13),
    "weekdays": range(7),
}


def is_cron(at: str) -> bool:
    """True for five fields; systemd's form never has so many words."""
    return len(at.split()) == len(_ALL)


def calendars(at: str, key: str) -> tuple[str, ...]:
    """
    The values of ``OnCalendar=`` that mean ``at``; several are a union.

    ``key`` names the setting in the ConfigError for what is none. What systemd itself is to judge passes as it is.
    """
    if not is_cron(at):
        if not re.fullmatch(r"[\w*:,./~ @+-]+", at, re.ASCII):
            raise _not_a_time(at, key, "it holds characters that no time has")
        return (systemd_value(at, key),)
    try:
        return _as_calendars(read_cron(at))
    except _Unfit as error:
        raise _not_a_time(at, key, str(error)) from None


def cron_fields(at: str, key: str) -> str:
    """The five fields of cron that mean ``at``; raises ConfigError for what cron cannot do."""
    try:
        if is_cron(at):
            read_cron(at)
            return " ".join(at.split())
        return _as_fields(read_calendar(at))
    except _Unfit as error:
        if is_cron(at):
            raise _not_a_time(at, key, str(error)) from None
        msg = f"{key}: cron cannot carry {at!r}: {error}"
        cure = f"set fabdjango.manager to systemd, which can\nor write {key} as five fields of cron"
        raise ConfigError(msg, cure=cure) from None


def _not_a_time(at: str, key: str, why: str) -> ConfigError:
    cure = 'for instance daily, "Mon *-*-* 04:00:00", "*:0/15", or as in cron "0 4 * * 1"'
    return ConfigError(f"{key}: {at!r} is not a time: {why}", cure=cure)


# --- cron ---------------------------------------------------------------------


def read_cron(text: str) -> Times:
    """Five fields as Debian's cron reads them; raises ValueError with the reason for anything else."""
    minutes, hours, days, months, weekdays = text.split()
    return Times(
        _field("minutes", minutes),
        _field("hours", hours),
        _field("days", days),
        _field("months", months, _MONTHS, 1),
        tuple(sorted({each % 7 for each in _field("weekdays", weekdays, _WEEKDAYS, 0)})),
        # A field that begins with a star restricts the other one; two without are told apart by no "and".
        either=not days.startswith("*") and not weekdays.startswith("*"),
    )


def _field(name: str, text: str, words: tuple[str, ...] = (), first: int = 0) -> tuple[int, ...]:
    allowed = range(8) if name == "weekdays" else _ALL[name]
    found: set[int] = set()
    for part in text.split(","):
        shape = re.fullmatch(r"(?:(?P<all>\*)|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d{1,2}))?", part, re.ASCII)
        if not shape or (shape["step"] and not (shape["all"] or shape["high"])):
            raise _Unfit(f"cron cannot read {part!r} among the {name}")
        low = allowed[0] if shape["all"] else _number(shape["low"], name, words, first)
        high = _ALL[name][-1] if shape["all"] else _number(shape["high"] or shape["low"], name, words, first)
        step = int(shape["step"] or 1)
        if not step or low > high or low not in allowed or high not in allowed:
            raise _Unfit(f"{part!r} is not among the {name}")
        found |= set(range(low, high + 1, step))
    return tuple(sorted(found))


def _number(word: str, name: str, words: tuple[str, ...], first: int) -> int:
    if word.lower() in words:
        return words.index(word.lower()) + first
    if not re.fullmatch(r"\d{1,2}", word, re.ASCII):
        raise _Unfit(f"{word!r} is not among the {name}")
    return int(word)


def _as_fields(times: Times) -> str:
    if _is_all("days", times.days) or _is_all("weekdays", times.weekdays) or times.either:
        return " ".join(
            "*" if _is_all(name, getattr(times, name)) else ",".join(map(str, getattr(times, name))) for name in _ALL
        )
    raise _Unfit("it runs on a day of the month or on a day of the week, never where both must fit")


def _is_all(name: str, values: tuple[int, ...]) -> bool:
    return values == tuple(_ALL[name])


# --- systemd ------------------------------------------------------------------

_SHORT = {
    "minutely": "*:*",
    "hourly": "*:00",
    "daily": "00:00",
    "weekly": "Mon",
    "monthly": "*-01",
    "quarterly": "01,04,07,10-01",
    "semiannually": "01,07-01",
    "yearly": "01-01",
    "annually": "01-01",
}


def read_calendar(text: str) -> Times:
    """A calendar form of systemd with whole minutes in every year; raises ValueError with the reason for anything else."""
    words = _SHORT.get(text.lower(), text).split()
    weekdays = _weekdays(words.pop(0)) if words and words[0][0].isalpha() else tuple(_ALL["weekdays"])
    if words and words[-1][0].isalpha():
        raise _Unfit("it knows the zone of the host only")
    date = words.pop(0) if words and "-" in words[0] else "*-*"
    time = words.pop(0) if words and ":" in words[0] else "0:0"
    if words or not text.split():
        raise _Unfit("it is not understood")
    months, days = _date(date)
    hours, minutes = _time(time)
    return Times(minutes, hours, days, months, weekdays)


def _date(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if "~" in text:
        raise _Unfit("it cannot count days from the end of a month")
    *years, months, days = text.split("-")
    if years not in ([], ["*"]):
        raise _Unfit("it knows no years")
    return _component("months", months), _component("days", days)


def _time(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    hours, minutes, *seconds = text.split(":")
    if seconds and not (len(seconds) == 1 and re.fullmatch(r"0{1,2}(\.0+)?", seconds[0])):
        raise _Unfit("it runs on whole minutes only")
    return _component("hours", hours), _component("minutes", minutes)


def _component(name: str, text: str) -> tuple[int, ...]:
    allowed = _ALL[name]
    if text == "*":
        return tuple(allowed)
    found: set[int] = set()
    for part in text.split(","):
        shape = re.fullmatch(r"(\d{1,2})(?:\.\.(\d{1,2}))?(?:/(\d{1,2}))?", part, re.ASCII)
        if not shape:
            raise _Unfit(f"{part!r} is not understood")
        low, step = int(shape[1]), int(shape[3] or 1)
        high = int(shape[2]) if shape[2] else allowed[-1] if shape[3] else low
        beyond = shape[3] and low + step not in allowed
        if not step or beyond or low > high or low not in allowed or high not in allowed:
            raise _Unfit(f"{part!r} is not among the {name}")
        found |= set(range(low, high + 1, step))
    return tuple(sorted(found))


def _weekdays(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        ends = [_weekday(word) for word in re.split(r"\.\.|-", part)]
        if len(ends) > 2 or ends[0] > ends[-1]:
            raise _Unfit(f"{part!r} is not understood")
        found |= {each % 7 for each in range(ends[0], ends[-1] + 1)}
    return tuple(sorted(found))


def _weekday(word: str) -> int:
    """From 1, Monday, to 7, as systemd counts."""
    long = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
    for names in (_WEEKDAYS, long):
        if word.lower() in names:
            return names.index(word.lower()) or 7
    raise _Unfit(f"{word!r} is not a day of the week")


def _as_calendars(times: Times) -> tuple[str, ...]:
    def form(name: str) -> str:
        values = getattr(times, name)
        return "*" if _is_all(name, values) else ",".join(f"{each:02}" for each in values)

    names = ",".join(_WEEKDAYS[each % 7].capitalize() for each in sorted(each or 7 for each in times.weekdays))
    week = "" if _is_all("weekdays", times.weekdays) else f"{names} "
    month, day, time = form("months"), form("days"), f"{form('hours')}:{form('minutes')}:00"
    if times.either and week and day != "*":
        return f"*-{month}-{day} {time}", f"{week}*-{month}-* {time}"
    # With either, one that is always so leaves nothing to the other.
    if times.either:
        week, day = "", "*"
    return (f"{week}*-{month}-{day} {time}",)
