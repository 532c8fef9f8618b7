"""What config.diff asks a host, and what it tells."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest

import fabdjango
from fabdjango.commands import managers
from fabdjango.exceptions import FabdjangoError
from fabdjango.facts import read_facts
from fabdjango.namespaces import config
from fabdjango.recording import RecordingTransport, call, runner
from fabdjango.runner import Runner
from tests.namespaces.text import CURRENT, SITE, SURVEY, answers

NOTHING: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
SAME = {"environment": NOTHING, "local_settings.py": NOTHING}


def host(found: dict[str, Any], survey: dict[str, Any]) -> Runner:
    """A host that serves, and what a comparison there gives."""
    transport = RecordingTransport(answers(survey, compare=json.dumps(found)))
    return runner(transport, SITE, env={"KEY": "it's c4n4ry"}, local_settings="A = 'it is c4n4ry'\n")


def managed(**texts: str) -> dict[str, Any]:
    """The programs' file as it is to be, and other files of the release that serves."""
    site = host(SAME, CURRENT).site
    facts = read_facts(json.dumps({**SURVEY, **CURRENT}), "all")
    (put,) = managers.find(site.settings, facts, site.layout, site.templates, site.host).files
    files = {f"/srv/the blog/current/.fabdjango/{name}": text for name, text in texts.items()}
    return {
        path: {"digest": hashlib.sha256(text.encode()).hexdigest(), "text": text}
        for path, text in {**files, str(put.path): put.content}.items()
    }


def told(target: Runner) -> list[str]:
    """What its report says of the comparison itself."""
    found = target.report._stream
    assert isinstance(found, io.StringIO)
    assert isinstance(target.transport, RecordingTransport)
    assert "c4n4ry" not in found.getvalue() + target.transport.transcript
    return [line for line in found.getvalue().splitlines() if not line.startswith("[")]


def test_names_of_secrets_and_lines_of_files() -> None:
    """Only reads; of gunicorn's configuration the difference."""
    found = {
        "environment": {"added": ["NEW"], "removed": ["OLD"], "changed": ["KEY", "MAIL"]},
        "local_settings.py": {"added": [], "removed": [], "changed": ["A"]},
    }
    target = host(found, {**CURRENT, "managed": managed(web="exec it's old\n")})
    call(config.diff, target)
    assert told(target)[:6] == [
        "7-0123456789ab serves on web1.example.com; with the next release",
        "environment: added NEW",
        "environment: removed OLD",
        "environment: changed KEY",
        "environment: changed MAIL",
        "local_settings.py: changed A",
    ]
    assert told(target)[6:10] == [
        "# mode 755",
        "--- /srv/the blog/releases/7-0123456789ab/.fabdjango/web",
        "+++ /srv/the blog/releases/7-0123456789ab/.fabdjango/web",
        "@@ -1 +1,3 @@",
    ]
    assert "-exec it's old" in told(target)
    assert isinstance(target.transport, RecordingTransport)
    assert "(locked)" not in target.transport.transcript
    assert target.transport.transcript.endswith(
        "== compare\n-- compare: compare the settings with those that serve\n"
        "python3 -I -S - # Compare what a release was made with and what the next one would be; "
        "print names as one line of JSON, and nothing of any value.\n"
    )


def test_no_difference() -> None:
    """It is said, and that is all."""
    target = host(SAME, {**CURRENT, "managed": managed()})
    call(fabdjango.ns["config.diff"], target)
    assert told(target) == ["unchanged: 7-0123456789ab serves on web1.example.com with what is configured now"]


def test_a_programs_file_that_is_not_there() -> None:
    """It would be new, line by line."""
    target = host(SAME, CURRENT)
    call(config.diff, target)
    assert told(target)[1:4] == ["# mode 644", "--- /dev/null", "+++ /etc/supervisor/conf.d/blog.conf"]


def test_nothing_serves() -> None:
    """There is nothing to compare with."""
    with pytest.raises(FabdjangoError) as caught:
        call(config.diff, host(SAME, {}))
    assert (caught.value.message, caught.value.cure) == ("no release serves yet, to compare with", "run deploy")
