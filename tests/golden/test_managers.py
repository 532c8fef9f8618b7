"""
The files of both process managers, as they are for one sample site.

FABDJANGO_GOLDEN=1 writes them anew; the difference is for a person to read.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from supervisor.options import ServerOptions  # type: ignore[import-untyped]

from fabdjango.commands import schedule, supervisor, systemd
from fabdjango.settings import Supervisor
from tests.conftest import LAYOUT, RELEASE, sample_facts, sample_settings, sample_templates

HERE = Path(__file__).parent
HELD = "127.0.0.1:8000"
SETTINGS = sample_settings(
    processes={"worker": {"command": "celery -A 'it is' worker; echo $HOME"}},
    systemd={"options": {"MemoryMax": "512M"}},
)
JOBS = sample_settings(schedule={"clean": {"command": "prune 'it is'", "at": "0 4 13 * 5"}})


def rendered() -> dict[str, str]:
    """Every file's text, by the name of its golden file."""
    facts, templates = sample_facts(systemd=True), sample_templates()
    found = {
        kind.level: supervisor.find(replace(SETTINGS, supervisor=kind), facts, LAYOUT, templates, held=held)
        for kind, held in ((Supervisor("system"), ""), (Supervisor("virtualenv"), ""), (Supervisor("auto"), HELD))
    }
    units = systemd.find(SETTINGS, facts, LAYOUT, templates, held=HELD).files
    jobs = [put for put in systemd.find(JOBS, facts, LAYOUT, templates).files if "job" in put.path.name]
    return {
        "program.conf": found["system"].files[0].content,
        "program.own.conf": found["virtualenv"].files[0].content,
        "program.held.conf": found["auto"].files[0].content,
        "supervisord.conf": found["virtualenv"].own[0].content,
        "crontab": supervisor.find(JOBS, facts, LAYOUT, templates).files[1].content,
        "job": schedule.start_script(JOBS, LAYOUT, templates, RELEASE, "clean"),
        **{put.path.name: put.content for put in (*units, *jobs)},
    }


@pytest.mark.parametrize("name", rendered())
def test_golden(name: str) -> None:
    """The text is what was reviewed."""
    path = HERE / name
    if os.environ.get("FABDJANGO_GOLDEN"):
        path.write_text(rendered()[name], encoding="utf-8")
    assert rendered()[name] == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("program.own.conf", {each: [each] for each in ("blog-web-a", "blog-web-b", "blog-worker")}),
        ("program.held.conf", {"blog-web-8000": ["blog-web-a", "blog-web-b"], "blog-worker": ["blog-worker"]}),
    ],
)
def test_supervisor_reads_them(tmp_path: Path, name: str, groups: dict[str, list[str]]) -> None:
    """A whole supervisord takes its own file and, through its include, the program file: a group each, or both slots in one."""
    (tmp_path / "it's conf.d").mkdir()
    (tmp_path / "conf.d").symlink_to("it's conf.d")
    (tmp_path / "supervisord.conf").write_text((HERE / "supervisord.conf").read_text(encoding="utf-8"))
    # Neither the account nor the folders of the sample are on this machine.
    text = (HERE / name).read_text(encoding="utf-8").replace("user=ada\n", "")
    text = text.replace(f"{LAYOUT.logs}/", f"{tmp_path}/").replace("/var/log/supervisor/", f"{tmp_path}/")
    (tmp_path / "conf.d" / "blog.conf").write_text(text)
    options = ServerOptions()
    options.realize(["-n", "-c", str(tmp_path / "supervisord.conf")])
    found = {group.name: [each.name for each in group.process_configs] for group in options.process_group_configs}
    assert found == groups
    assert options.logfile == str(tmp_path / "supervisord.log")
    (server,) = options.server_configs
    assert (server["file"], server["chmod"]) == (str(tmp_path / "supervisor.sock"), 0o700)
