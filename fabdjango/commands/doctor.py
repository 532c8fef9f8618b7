"""doctor: whether the account that deploys, and the application, can do no more than they need to."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fabdjango import onhost
from fabdjango.commands.manager import Manager
from fabdjango.exceptions import FabdjangoError
from fabdjango.layout import Layout
from fabdjango.plan import ROOT, Step
from fabdjango.privileged import FOLDER, program
from fabdjango.settings import Settings

__all__ = ["Try", "read_tries", "try_to_escape"]


@dataclass(frozen=True)
class Try:
    """One way to more rights: what it is, whether it was shut, and if not, ``how`` it is open."""

    name: str
    held: bool
    how: str = ""


def try_to_escape(settings: Settings, layout: Layout, manager: Manager) -> Step:
    """Every try, as the account that owns the site; its output is for read_tries. What it makes, it takes away again."""
    status = manager.status()
    return Step(
        "doctor",
        "try to get more rights",
        program=onhost.source("doctor"),
        parameters={
            "root": str(layout.root),
            "app": settings.run_as,
            "folder": str(FOLDER),
            "program": str(program(status, layout.steps_lock).path) if status.user == ROOT else "",
            "files": [str(put.path) for put in manager.files if status.user == ROOT],
        },
        capture=True,
    )


def read_tries(output: str) -> tuple[Try, ...]:
    """The lines of try_to_escape; raises FabdjangoError if there are none."""
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if not found:
        raise FabdjangoError("the doctor did not give an answer that can be read", output=output[-2000:])
    return tuple(Try(each["try"], each["held"], each["how"]) for each in found)
