"""
The files that are rendered onto servers, as they are for one sample site.

FABDJANGO_GOLDEN=1 writes them anew; the difference is for a person to read.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fabdjango.commands import release
from tests.conftest import KEY, LAYOUT, RELEASE, sample_facts, sample_settings, sample_templates

HERE = Path(__file__).parent
SETTINGS = sample_settings(
    gunicorn={"options": {"forwarded_allow_ips": "it's *", "limit_request_line": 0}},
    processes={"worker": {"command": "celery -A 'it is' worker; echo $HOME"}},
)


def rendered() -> dict[str, str]:
    """Every template's text, by the name of its golden file."""
    facts, templates = sample_facts(home="/home/it's ada"), sample_templates()
    puts = release.private_files(
        SETTINGS, facts, LAYOUT, templates, release=RELEASE, key=KEY, env={}, local_settings=None
    )
    texts = {put.path.name: put.content for put in puts}
    return {
        "gunicorn.conf": texts["gunicorn.conf.py"],
        "run": texts["run"],
        "start": texts["process-worker"],
    }


@pytest.mark.parametrize("name", rendered())
def test_golden(name: str) -> None:
    """The text is what was reviewed."""
    path = HERE / name
    if os.environ.get("FABDJANGO_GOLDEN"):
        path.write_text(rendered()[name], encoding="utf-8")
    assert rendered()[name] == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["run", "start"])
def test_sh_reads_them(name: str) -> None:
    """Both shells that servers have."""
    for shell in ("dash", "bash"):
        subprocess.run([shell, "-n", str(HERE / name)], check=True)


def test_python_reads_it() -> None:
    """gunicorn runs its configuration file."""
    compile((HERE / "gunicorn.conf").read_text(encoding="utf-8"), "gunicorn.conf.py", "exec")
