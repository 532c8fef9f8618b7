"""What all tests share: how hypothesis searches, and the sample site that the builders are tried on."""

from __future__ import annotations

import signal
import textwrap
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from hypothesis import HealthCheck
from hypothesis import settings as profiles

from fabdjango.body import render_body
from fabdjango.configuration import Layer, resolve
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import Step
from fabdjango.render import Templates
from fabdjango.settings import Settings

profiles.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=False
)
profiles.load_profile("ci")

# What is started in the background ignores Ctrl-C, with all that it starts; the tests send it to others.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHA = "0123456789abcdef0123456789abcdef01234567"
RELEASE = "7-0123456789ab"
PYTHON = {
    "version": "3.11.2",
    "tag": "cpython-311",
    "platform": "linux-x86_64",
    "path": "/usr/bin/python3",
    "ensurepip": True,
}
KEY = "00112233aabbccdd"
# Every path of the sample has a space and a quote in it.
LAYOUT = Layout(PurePosixPath("/srv/it's here"), "blog")


def sample_settings(values: Mapping[str, Any] | None = None, /, **more: Any) -> Settings:
    """The settings of a small site; ``values`` and ``more`` stand as they would in fabric.yaml."""
    given = {"project": "blog", "repository": "git@example.com:it's/blog.git", **(values or {}), **more}
    return resolve([Layer("fabric.yaml", given)]).settings


def sample_facts(**more: Any) -> Facts:
    """A Debian host with uv and supervisor, and a commit with a requirements.txt."""
    found: dict[str, Any] = {
        "user": "ada",
        "home": "/home/ada",
        "root": str(LAYOUT.root),
        "root_exists": True,
        "system": "Linux x86_64",
        "processors": 2,
        "disk": (10_000_000_000, 1_000_000),
        "programs": {"git": "/usr/bin/git", "uv": "/usr/bin/uv", "supervisorctl": "/usr/bin/supervisorctl"},
        "sudo": True,
        "python": PYTHON,
        "supervisor_conf_d": True,
        "sha": SHA,
        "ref_kind": "branch",
        "subject": "0123456 It's a post",
        "manage": True,
        "settings_module": "blog.settings",
        "requirements": {"sources": ["requirements.txt"], "missing": [], "digest": "d" * 64, "hashed": False},
    }
    return Facts(**{**found, **more})


def sample_templates(local_root: Path = Path("/nonexistent")) -> Templates:
    """Our own templates, and those of a project in ``local_root``; the operator's environment is empty."""
    return Templates(local_root, {})


def shown(*steps: Step | None) -> str:
    """Steps as a reader of a dry run sees them: a line for the title, then the shell."""
    return "\n".join(
        f"# {step.name}{f' (as {step.user})' if step.user else ''}: {step.title}\n{render_body(step, shown=True)}".rstrip()
        for step in steps
        if step
    )


def shell(text: str) -> str:
    """The lines of ``text`` without the indentation they all share, and without the line ends around them."""
    return textwrap.dedent(text).strip("\n")
