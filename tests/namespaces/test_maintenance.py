"""What the tasks of the maintenance page run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fabdjango.exceptions import FabdjangoError
from fabdjango.namespaces import maintenance
from fabdjango.recording import RecordingTransport, call, runner
from tests.namespaces.test_nginx import INSTALLED, LOOK, LOOKING, VALUES, transport


def ran(task: Any, look: Mapping[str, Any], **answers: int) -> RecordingTransport:
    """The transport after ``task``; a failure is the host's."""
    host = transport(look, "", **answers)
    try:
        call(task, runner(host, VALUES))
    except FabdjangoError:
        assert answers
    return host


def test_on() -> None:
    """The page, the flag, and the proof, without a reload."""
    said = ran(maintenance.on, INSTALLED).transcript.removeprefix(LOOKING)
    assert [line for line in said.splitlines() if line[:2] in ("==", "--")] == [
        "== maintenance (locked)",
        "-- maintenance-page: write /srv/the blog/shared/maintenance.html",
        "-- maintenance-on: visitors get the maintenance page",
        "-- nginx-proof as root: the site answers 503 and the maintenance page",
    ]


@pytest.mark.parametrize(("was_on", "undone"), [(False, True), (True, False)])
def test_a_flag_that_nginx_does_not_heed_is_taken_away(*, was_on: bool, undone: bool) -> None:
    """If this run has put it there."""
    said = ran(maintenance.on, {**INSTALLED, "maintenance": was_on}, **{"nginx-proof": 1}).transcript
    assert said.endswith("-- undo: visitors get the site\n") is undone


def test_off() -> None:
    """The flag, and the proof."""
    said = ran(maintenance.off, INSTALLED).transcript.removeprefix(LOOKING)
    assert [line for line in said.splitlines() if line[:2] in ("==", "--")] == [
        "== maintenance-off (locked)",
        "-- maintenance-off: visitors get the site",
        "-- nginx-proof as root: the maintenance page is gone",
    ]


@pytest.mark.parametrize("task", [maintenance.on, maintenance.off], ids=["on", "off"])
def test_without_our_file_it_is_refused(task: Any) -> None:
    """Nothing on the host would heed the flag."""
    with pytest.raises(FabdjangoError, match="nginx has no file of the site yet") as caught:
        call(task, runner(transport(LOOK), VALUES))
    assert caught.value.cure == "fab -H deploy@web1.example.com nginx.configure"
