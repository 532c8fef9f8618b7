"""How transcripts are made and written in tests."""

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from invoke.tasks import Task

from fabdjango.recording import RecordingTransport, call, runner
from tests.conftest import PYTHON, SHA

SITE: dict[str, Any] = {
    "project": "blog",
    "repository": "ssh://git@example.com/it's here.git",
    "root": "/srv/the blog",
    "processes": {"worker": {"command": "celery -A blog worker --loglevel 'info'"}},
}
SURVEY: dict[str, Any] = {
    "user": "deploy",
    "home": "/home/deploy",
    "root": "/srv/the blog",
    "processors": 2,
    "disk": [9_000_000_000, 500_000],
    "programs": {"uv": "/usr/bin/uv", "supervisorctl": "/usr/bin/supervisorctl", "supervisord": "/usr/bin/supervisord"},
    "system": "Linux x86_64",
    "sudo": True,
    "systemd": True,
    "python": PYTHON,
    "supervisor_conf_d": True,
    "sha": SHA,
    "subject": "0123456 Say it's done",
    "manage": True,
    "settings_module": "blog.settings",
    "requirements": {
        "sources": ["requirements.txt"],
        "missing": [],
        "digest": "d" * 64,
        "hashed": False,
        "local": False,
    },
}
CURRENT: dict[str, Any] = {
    "current": "7-0123456789ab",
    "releases": {"7-0123456789ab": {"release": "7-0123456789ab", "commit": SHA, "venv": "it's one"}},
    "slots": {"b": "7-0123456789ab"},
    "live_slot": "b",
    "highest": 7,
}
DJANGO: dict[str, Any] = {
    "migrations": [{"app": "posts", "name": "0001_initial", "operations": ["Create model Post"]}],
    "static_root": "/srv/the blog/static",
    "static_url": "",
    "host": "example.com",
    "checks": [],
    "notes": [],
}


def answers(survey: Mapping[str, Any] | None = None, **more: str | int) -> dict[str, str | int]:
    """What a host answers; one without a release unless ``survey`` says otherwise."""
    return {"survey": json.dumps({**SURVEY, **(survey or {})}), "check": json.dumps(DJANGO), **more}


def transcript(task: Task[Any], values: Mapping[str, Any] = SITE, **arguments: object) -> str:
    """Everything that ``task`` would run on a host that has a release, after the survey."""
    transport = RecordingTransport(answers(CURRENT))
    settings = runner(transport, values, env={"KEY": "canary-5up3r"}, local_settings="KEY = 'canary-5up3r'\n")
    call(task, settings, **arguments)
    assert "canary" not in transport.transcript
    return re.sub(r"\A== survey\n(?:(?!== ).*\n)*", "", transport.transcript)


def joined(text: str) -> str:
    """``text`` without its common indent; a line that is indented goes on the one before, ``|`` keeps its indent."""
    lines = re.sub(r"\n {4,}", " ", textwrap.dedent(text))
    return re.sub(r"^\|", " ", lines, flags=re.MULTILINE)
