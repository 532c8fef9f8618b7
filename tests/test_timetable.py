"""When jobs run: cron's fields and systemd's form, held against both real parsers."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabdjango.exceptions import ConfigError
from fabdjango.timetable import Times, calendars, cron_fields, read_calendar, read_cron

KEY = "fabdjango.schedule.it.at"
# Between two minutes, as the parsers disagree on whether the base itself counts.
BASE = dt.datetime(2026, 1, 1, 0, 0, 30)  # noqa: DTZ001 - the zone is that of whoever asks
LAST_YEAR = 2036
RANGES = {"minutes": (0, 59), "hours": (0, 23), "days": (1, 31), "months": (1, 12), "weekdays": (0, 6)}


# --- the real parsers -----------------------------------------------------------------


def elapses(form: str, count: int = 12) -> list[dt.datetime]:
    """When systemd says that a calendar form is due, from the base time on."""
    words = ["systemd-analyze", "calendar", f"--base-time={BASE}", f"--iterations={count}", "--", form]
    environ = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(?:Next elapse|Iter\. #\d+): \w{3} (\S+ \S+) UTC", done.stdout)
    return [each for each in map(dt.datetime.fromisoformat, found) if each.year < LAST_YEAR]


def cron_takes(*lines: str) -> str:
    """What Debian's cron complains of in a crontab of these fields; empty if it takes them all."""
    with tempfile.NamedTemporaryFile("w", suffix="it's") as file:
        file.write("".join(f"{line} true\n" for line in lines))
        file.flush()
        done = subprocess.run(["crontab", "-n", file.name], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr


def due(times: Times, count: int) -> list[dt.datetime]:
    """The next minutes that are meant, looked for one day after the other."""
    found: list[dt.datetime] = []
    day = BASE.date()
    while len(found) < count and day.year < LAST_YEAR:
        of_month, of_week = day.day in times.days, day.isoweekday() % 7 in times.weekdays
        if day.month in times.months and (of_month or of_week if times.either else of_month and of_week):
            minutes = [dt.time(hour, minute) for hour in times.hours for minute in times.minutes]
            found += [each for each in (dt.datetime.combine(day, time) for time in minutes) if each > BASE]
        day += dt.timedelta(days=1)
    return found[:count]


# --- cron -----------------------------------------------------------------------------


@st.composite
def fields(draw: st.DrawFn, name: str, *, cron: bool) -> tuple[str, set[int]]:
    """One field, and what it means."""
    low, high = RANGES[name]
    parts: list[str] = []
    meant: set[int] = set()
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, 30 if cron else max(1, high - first)))
        dots = "-" if cron else ".."
        shapes = {
            f"{first}": {first},
            f"{first}{dots}{last}": set(range(first, last + 1)),
        }
        if cron:
            shapes[f"*/{step}"] = set(range(low, high + 1, step))
        # systemd wants the second one to be there too.
        elif first + step <= high:
            shapes[f"{first}/{step}"] = set(range(first, high + 1, step))
        if cron or first + step <= high:
            shapes[f"{first}{dots}{last}/{step}"] = set(range(first, last + 1, step))
        text = draw(st.sampled_from(sorted(shapes)))
        parts.append(text)
        meant |= shapes[text]
    if draw(st.booleans()):
        return "*", set(range(low, high + 1))
    return ",".join(parts), meant


@st.composite
def crontabs(draw: st.DrawFn) -> tuple[str, dict[str, set[int]]]:
    """Five fields, and what each means."""
    made = {name: draw(fields(name, cron=True)) for name in RANGES}
    return " ".join(text for text, _ in made.values()), {name: meant for name, (_, meant) in made.items()}


@given(crontabs())
@settings(max_examples=60)
def test_cron_takes_what_is_read(given: tuple[str, dict[str, set[int]]]) -> None:
    """Every field means what it was made from, and the real cron finds no fault with it."""
    text, meant = given
    times = read_cron(text)
    assert {name: set(getattr(times, name)) for name in RANGES} == meant
    assert cron_takes(text) == ""


@given(crontabs())
@settings(max_examples=40)
def test_systemd_is_due_when_cron_is(given: tuple[str, dict[str, set[int]]]) -> None:
    """Also where cron wants a day of the month or one of the week: that is a union of two forms."""
    text, _ = given
    times = read_cron(text)
    forms = calendars(text, KEY)
    assert sorted({each for form in forms for each in elapses(form)})[:12] == due(times, 12)


@pytest.mark.parametrize(
    ("cron", "forms"),
    [
        ("0 4 * * 1", ("Mon *-*-* 04:00:00",)),
        ("*/15 * * * *", ("*-*-* *:00,15,30,45:00",)),
        ("30 2 1 JAN,jul *", ("*-01,07-01 02:30:00",)),
        ("0 0 * * sun-tue,7", ("Mon,Tue,Sun *-*-* 00:00:00",)),
        ("0 0 * * 5-7", ("Fri,Sat,Sun *-*-* 00:00:00",)),
        # A star, also one with a step, lets both count.
        ("0 0 */10 * 1", ("Mon *-*-01,11,21,31 00:00:00",)),
        ("0 0 13 * 5", ("*-*-13 00:00:00", "Fri *-*-* 00:00:00")),
        ("0 0 1-31 * 5", ("*-*-* 00:00:00",)),
        ("  0   4 *  * * ", ("*-*-* 04:00:00",)),
    ],
)
def test_from_cron_to_systemd(cron: str, forms: tuple[str, ...]) -> None:
    """As a person would write it."""
    assert calendars(cron, KEY) == forms
    assert cron_fields(cron, KEY) == " ".join(cron.split())


@pytest.mark.parametrize(
    "text",
    ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "5/15 * * * *", "a * * * *", "* * * * mon-", "1,,2 * * * *", "-1 * * * *"],
)  # fmt: skip
def test_what_cron_does_not_read(text: str) -> None:
    """It is refused here, before cron would pass over the whole file; nor does cron take it."""
    for function in (calendars, cron_fields):
        with pytest.raises(ConfigError, match=rf"^{re.escape(KEY)}: {re.escape(repr(text))} is not a time: "):
            function(text, KEY)
    assert cron_takes(text) != ""


def test_a_range_that_goes_backwards() -> None:
    """Cron takes it, and would never run it."""
    with pytest.raises(ConfigError, match="'5-1' is not among the minutes"):
        cron_fields("5-1 * * * *", KEY)


# --- systemd ----------------------------------------------------------------------------


@st.composite
def forms(draw: st.DrawFn) -> str:
    """A calendar form that cron could carry, or nearly."""
    part = {name: draw(fields(name, cron=False))[0] for name in RANGES}
    names = ["Mon", "tue", "Wednesday", "THU", "Fri", "sat", "Sunday"]
    week = draw(st.sampled_from(["", "Mon..Fri ", "Tue-Thu ", "Sat,Sun ", f"{draw(st.sampled_from(names))} "]))
    date = draw(st.sampled_from(["", f"*-{part['months']}-{part['days']} ", f"{part['months']}-{part['days']} "]))
    time = draw(st.sampled_from(["", f"{part['hours']}:{part['minutes']}", f"{part['hours']}:{part['minutes']}:00"]))
    return f"{week}{date}{time}".strip() or "daily"


@given(forms())
@settings(max_examples=60)
def test_systemd_means_what_is_read(form: str) -> None:
    """Ours finds the same minutes as systemd; what goes on to cron means them too."""
    times = read_calendar(form)
    assert elapses(form) == due(times, 12)
    try:
        fields = cron_fields(form, KEY)
    except ConfigError as error:
        assert "it runs on a day of the month or on a day of the week" in error.message  # noqa: PT017
        return
    assert cron_takes(fields) == ""
    assert due(read_cron(fields), 12) == due(times, 12)


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ("daily", "0 0 * * *"),
        ("Hourly", "0 * * * *"),
        ("weekly", "0 0 * * 1"),
        ("monthly", "0 0 1 * *"),
        ("quarterly", "0 0 1 1,4,7,10 *"),
        ("semiannually", "0 0 1 1,7 *"),
        ("yearly", "0 0 1 1 *"),
        ("minutely", "* * * * *"),
        ("*:0/15", "0,15,30,45 * * * *"),
        ("Mon *-*-* 04:00:00", "0 4 * * 1"),
        ("Sat,Sun 6:30", "30 6 * * 0,6"),
        ("*-12-25", "0 0 25 12 *"),
    ],
)
def test_from_systemd_to_cron(form: str, fields: str) -> None:
    """As a person would write it; systemd takes the form as it is, and means the same."""
    assert (cron_fields(form, KEY), calendars(form, KEY)) == (fields, (form,))
    assert elapses(form) == due(read_cron(fields), 12)


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("Mon *-*-1..7 04:00", "it runs on a day of the month or on a day of the week, never where both must fit"),
        ("*:0/15:30", "it runs on whole minutes only"),
        ("*-*~1", "it cannot count days from the end of a month"),
        ("2027-*-* 04:00", "it knows no years"),
        ("04:00 Europe/Berlin", "it knows the zone of the host only"),
        ("fortnightly", "'fortnightly' is not a day of the week"),
        ("at noon", "'at' is not a day of the week"),
        ("25:00", "'25' is not among the hours"),
        ("0:0 daily", "it knows the zone of the host only"),
        ("4", "it is not understood"),
    ],
)
def test_what_cron_cannot_carry(form: str, why: str) -> None:
    """The reason, and who can; systemd's own parser judges it on the host."""
    with pytest.raises(ConfigError) as caught:
        cron_fields(form, KEY)
    assert caught.value.message == f"{KEY}: cron cannot carry {form!r}: {why}"
    assert caught.value.cure.startswith("set fabdjango.manager to systemd, which can\n")
    assert calendars(form, KEY) == (form,)


@pytest.mark.parametrize("at", ["it's noon", "daily\nExecStartPre=/bin/it", "$(id)", "", "daily;", "%i"])
def test_no_time_at_all(at: str) -> None:
    """A line of another kind is never added to a timer or to a file of cron's."""
    for function in (calendars, cron_fields):
        with pytest.raises(ConfigError, match=f"^{re.escape(KEY)}: "):
            function(at, KEY)
