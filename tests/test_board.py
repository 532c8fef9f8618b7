"""What the operator sees of many hosts: a line for each phase of each host, and nothing twice."""

import io
import json
import re

from fabdjango.board import Board, columns
from fabdjango.escape import Redactor
from fabdjango.plan import Phase, Step
from fabdjango.script import Event
from fabdjango.transport import StepResult

PHASE = Phase(
    "prepare", (Step("fetch", "fetch it's"), Step("install", "install all"), Step("check", "look", capture=True))
)


def told(form: str, *, verbose: bool = False) -> str:
    """What a board says of two hosts, of which one fails."""
    stream = io.StringIO()
    board = Board(Redactor(["canary-5up3r"]), form=form, verbose=verbose, stream=stream)  # type: ignore[arg-type]
    good, bad = board.report_of("web1"), board.report_of("web2")
    for report, status in ((good, 0), (bad, 1)):
        report.begin(PHASE)
        report.event(Event("begin", "0", "fetch"), StepResult("0", "fetch"))
        report.event(Event("output", "0", "canary-5up3r"), StepResult("0", "fetch"))
        report.event(Event("end", "0", "0"), StepResult("0", "fetch", 0, unchanged="nothing new"))
        report.event(Event("note", "1", "it is slow"), StepResult("1", "install"))
        report.event(Event("end", "1", str(status)), StepResult("1", "install", status))
        report.end(ok=status == 0)
    board.say("batch 1: web1 answered")
    good.say("check: a finding\nof two lines")
    board.close()
    # How long a step took is for the eye.
    return re.sub(r"\d+\.\ds", "0.0s", stream.getvalue())


def test_plain_lines_have_the_name_of_their_host() -> None:
    """A line a phase; a step only if it failed, or has something to say."""
    assert told("plain") == (
        "[web1] prepare    note: it is slow\n"
        "[web1] prepare  ok      0.0s  2 steps, 1 unchanged\n"
        "[web2] prepare    note: it is slow\n"
        "[web2] prepare    failed     install all  0.0s\n"
        "[web2] prepare  failed  0.0s  2 steps, 1 unchanged\n"
        "batch 1: web1 answered\n"
        "[web1] check: a finding\n"
        "[web1] of two lines\n"
    )


def test_every_step_has_its_line_if_that_is_wanted() -> None:
    """And secrets stay hidden in what steps print."""
    lines = told("plain", verbose=True).splitlines()
    assert lines[:3] == [
        "[web1] prepare    | ********",
        "[web1] prepare    unchanged  fetch it's (nothing new)",
        "[web1] prepare    note: it is slow",
    ]


def test_json_is_one_object_a_line() -> None:
    """With the host in each; what is said of all has none."""
    found = [json.loads(line) for line in told("json").splitlines()]
    assert {each["host"] for each in found} == {"web1", "web2", ""}
    assert [each["text"] for each in found if each["kind"] == "phase"] == ["ok", "failed"]
    assert "canary" not in json.dumps(found)


def test_a_terminal_keeps_the_lines_that_a_plain_one_has() -> None:
    """What changes in place is gone at the end."""
    shown = told("rich")
    for line in told("plain").splitlines():
        assert line.rstrip() in shown


def test_columns() -> None:
    """As wide as the widest cell, without spaces at the end."""
    assert columns([("host", "answers"), ("web10.example.com", "no")]) == [
        "host               answers",
        "web10.example.com  no",
    ]
