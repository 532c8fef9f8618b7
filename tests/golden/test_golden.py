"""
The files that are rendered onto servers, as they are for one sample site.

FABDJANGO_GOLDEN=1 writes them anew; the difference is for a person to read.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from supervisor.options import ServerOptions  # type: ignore[import-untyped]

from fabdjango.commands import release, supervisor
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
    found = {
        level: supervisor.find(sample_settings(supervisor={"level": level}), facts, LAYOUT)
        for level in ("system", "virtualenv")
    }
    system, own = (
        supervisor.configuration(SETTINGS, facts, LAYOUT, templates, daemon).content for daemon in found.values()
    )
    daemon_file = supervisor.install(SETTINGS, facts, LAYOUT, templates, found["virtualenv"])[-1].puts[0]
    return {
        "gunicorn.conf": texts["gunicorn.conf.py"],
        "run": texts["run"],
        "start": texts["process-worker"],
        "program.conf": system,
        "program.own.conf": own,
        "supervisord.conf": daemon_file.content,
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


def test_supervisor_reads_them(tmp_path: Path) -> None:
    """A whole supervisord takes its own file and, through its include, the program file."""
    (tmp_path / "it's conf.d").mkdir()
    (tmp_path / "conf.d").symlink_to("it's conf.d")
    (tmp_path / "supervisord.conf").write_text((HERE / "supervisord.conf").read_text(encoding="utf-8"))
    # The account of the sample is not on this machine.
    text = (HERE / "program.own.conf").read_text(encoding="utf-8")
    (tmp_path / "conf.d" / "blog.conf").write_text(text.replace(f"{LAYOUT.logs}/", f"{tmp_path}/"))
    options = ServerOptions()
    options.realize(["-n", "-c", str(tmp_path / "supervisord.conf")])
    (group,) = options.process_group_configs
    assert (group.name, [each.name for each in group.process_configs]) == ("blog", ["blog-web", "blog-worker"])
    assert options.logfile == str(tmp_path / "supervisord.log")
    (server,) = options.server_configs
    assert (server["file"], server["chmod"]) == (str(tmp_path / "supervisor.sock"), 0o700)
