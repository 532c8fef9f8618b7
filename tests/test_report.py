"""What the operator sees, in every form, and what nobody sees."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fabdjango.escape import Redactor, raw, sh
from fabdjango.plan import Phase, Put, Step
from fabdjango.report import Report, difference
from fabdjango.script import Event
from fabdjango.transport import StepResult
from tests.conftest import shell
from tests.test_escape import texts

HIDDEN = "p'a\"s$s\\wörd\tit is"
PHASE = Phase(
    "prepare",
    (
        Step("fetch", "fetch it's here", sh("ls", "a b")),
        Step("survey", "look", sh("cat"), capture=True),
        Step("links", "link 'media'", sh("ln")),
    ),
    undo=(Step("discard", "remove it's release", sh("rm")),),
)


def run(
    form: Any, *told: tuple[Event, StepResult | None], verbose: bool = False, redactor: Redactor | None = None
) -> str:
    """What a report of these events prints."""
    stream = io.StringIO()
    report = Report("web1", redactor or Redactor([HIDDEN]), form=form, verbose=verbose, stream=stream)
    report.begin(PHASE)
    for event, step in told:
        report.event(event, step)
    report.close()
    return stream.getvalue()


def step(label: str, name: str, status: int | None = 0, **more: Any) -> StepResult:
    """How a step ended."""
    return StepResult(label, name, status, seconds=1.25, **more)


def ended(result: StepResult) -> tuple[Event, StepResult]:
    """The event of it."""
    return Event("end", result.label, str(result.status)), result


EVENTS = (
    (Event("begin", "0", "fetch"), step("0", "fetch")),
    (Event("output", "0", "it's output"), step("0", "fetch")),
    (Event("note", "0", "it's a note"), step("0", "fetch")),
    ended(step("0", "fetch")),
    (Event("output", "1", '{"it": "is data"}'), step("1", "survey")),
    ended(step("1", "survey", unchanged="as 'before'")),
    ended(step("2", "links", 3)),
    ended(step("u0", "discard")),
)


def test_plain() -> None:
    """A line a step; output is not shown, notes are."""
    assert (
        run("plain", *EVENTS)
        == shell("""
        [web1] prepare    note: it's a note
        [web1] prepare    ok         fetch it's here  1.2s
        [web1] prepare    unchanged  look (as 'before')
        [web1] prepare    failed     link 'media'  1.2s
        [web1] prepare    ok         remove it's release  1.2s
    """)
        + "\n"
    )


def test_verbose() -> None:
    """With -e every line that a step prints is shown, but not what is data for a parser."""
    out = run("plain", *EVENTS, verbose=True)
    assert "[web1] prepare    | it's output\n" in out
    assert "is data" not in out


def test_json() -> None:
    """One object a line, for programs."""
    lines = [json.loads(line) for line in run("json", *EVENTS).splitlines()]
    assert [(line["kind"], line["label"], line["step"], line["text"]) for line in lines] == [
        ("begin", "0", "fetch", "fetch"),
        ("output", "0", "fetch", "it's output"),
        ("note", "0", "fetch", "it's a note"),
        ("end", "0", "fetch", "0"),
        ("end", "1", "survey", "0"),
        ("end", "2", "links", "3"),
        ("end", "u0", "discard", "0"),
    ]
    assert {(line["host"], line["phase"]) for line in lines} == {("web1", "prepare")}


def test_rich() -> None:
    """The same words as plain, on whatever terminal."""
    out = run("rich", *EVENTS)
    for line in run("plain", *EVENTS).splitlines():
        assert line in out


def everything(text: str) -> tuple[tuple[Event, StepResult | None], ...]:
    """``text`` wherever something from a host can stand."""
    return (
        (Event("begin", "9", text), step("9", text)),
        (Event("output", "0", text), step("0", "fetch")),
        (Event("output", "0", "x" * 90 + text), step("0", "fetch")),
        (Event("note", "0", text), step("0", "fetch")),
        (Event("output", "", text), None),
        ended(step("2", "links", unchanged=text)),
    )


@pytest.mark.parametrize("form", ["plain", "rich", "json"])
def test_a_secret_is_nowhere(form: Any) -> None:
    """Not in a line, not where a line is cut, not in the form that JSON gives it."""
    out = run(form, *everything(HIDDEN), *everything(f"PASSWORD={HIDDEN};"), verbose=True)
    for shown in (HIDDEN, "wörd", "w\\u00f6rd", "p'a"):
        assert shown not in out


def test_a_spinner_cuts_no_secret() -> None:
    """A live line is cut at a length; half a secret would not be known for one."""
    stream = io.StringIO()
    report = Report("web1", Redactor(["0123456789 it's secret"]), form="rich", stream=stream)
    seen: list[str] = []
    report._spin = seen.append  # type: ignore[method-assign, assignment]
    report.begin(PHASE)
    report.event(Event("output", "0", "x" * 90 + "0123456789 it's secret"), step("0", "fetch"))
    assert seen == ["fetch it's here: " + "x" * 90 + "********"]


@pytest.mark.parametrize("form", ["plain", "rich", "json"])
@given(text=texts)
@example(text="\x1b[2J\x1b]0;it's owned\x07")
@example(text="\r\x08\x9b31m")
def test_a_server_does_not_move_the_cursor(form: Any, text: str) -> None:
    """Whatever a host prints: no control character of it reaches the terminal, and nothing breaks."""
    out = run(form, *everything(text.replace("\n", "")), verbose=True, redactor=Redactor())
    assert not [char for char in out if (char < " " or "\x7f" <= char <= "\x9f") and char not in "\n\t"]


def test_a_terminal_that_cannot_print_everything() -> None:
    """What its encoding lacks becomes a question mark, not a traceback."""
    raw_bytes = io.BytesIO()
    stream = io.TextIOWrapper(raw_bytes, encoding="ascii")
    Report("web1", Redactor(), stream=stream).say("it's ☃")
    assert raw_bytes.getvalue() == b"it's ?\n"


def test_say_and_show() -> None:
    """A sentence of ours, and output that was asked for."""
    stream = io.StringIO()
    report = Report("web1", Redactor([HIDDEN]), stream=stream)
    report.say(f"it's {HIDDEN}")
    report.show(f"one\n{HIDDEN}\nit's three\n")
    assert stream.getvalue() == "it's ********\none\n********\nit's three\n"


def test_say_and_show_as_json() -> None:
    """The same for programs."""
    stream = io.StringIO()
    report = Report("web1", Redactor([HIDDEN]), form="json", stream=stream)
    report.say(f"it's {HIDDEN}")
    report.show(f"one\n{HIDDEN}\n")
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["kind"], line["text"]) for line in found] == [("say", "it's ********"), ("output", "one\n********\n")]


# --- dry runs ---------------------------------------------------------------------


def test_a_dry_run_shows_a_phase() -> None:
    """Every step with its shell, every file with its difference, and the way back."""
    put = Put(PurePosixPath("/srv/it's here/x.conf"), "a\nb\n", 0o644)
    secret = Put(PurePosixPath("/srv/it's here/.env"), "A='it is secret'", 0o640, secret=True)
    phase = Phase(
        "activate",
        (
            Step("configure", "write it", raw("ls -l 'a b'"), user="root", puts=(put, secret)),
            Step("switch", "switch it's link"),
        ),
        undo=(Step("back", "put it back"), Step("tell", "tell it's done")),
        undo_from="switch",
    )
    stream = io.StringIO()
    Report("web1", Redactor(), stream=stream).show_phase(phase, {str(put.path): {"digest": "x", "text": "a\nc\n"}})
    assert stream.getvalue() == (
        shell("""
            # phase activate on web1: one session, one script

            # configure: write it (as root)
            # mode 644
            --- /srv/it's here/x.conf
            +++ /srv/it's here/x.conf
            @@ -1,2 +1,2 @@
             a
            -c
            +b
            # /srv/it's here/.env: new (secret, not shown), mode 640
            replace '/srv/it'"'"'s here/x.conf' 644 <<'EOF'
            (4 bytes)
            EOF
            replace '/srv/it'"'"'s here/.env' 640 <<'EOF'
            (16 bytes, hidden)
            EOF
            ls -l 'a b'

            # switch: switch it's link

            # if switch or a later step fails: put it back; tell it's done
        """).join(("\n", "\n"))
    )


@given(secret=st.text(min_size=4))
def test_a_difference_never_shows_a_secret_file(secret: str) -> None:
    """Only that it changes."""
    put = Put(PurePosixPath("/srv/it's here/.env"), secret.encode("utf-8", "replace").decode(), 0o640, secret=True)
    assert difference(put, None) == ["# /srv/it's here/.env: new (secret, not shown), mode 640"]
    assert difference(put, {"digest": "x", "text": None}) == [
        "# /srv/it's here/.env: changes (secret, not shown), mode 640"
    ]


def test_no_difference() -> None:
    """A file that is there already."""
    put = Put(PurePosixPath("/srv/it's"), "ü\n")
    assert difference(put, {"digest": hashlib.sha256("ü\n".encode()).hexdigest()}) == ["# /srv/it's: unchanged"]
