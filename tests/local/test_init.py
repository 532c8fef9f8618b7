"""From a project to a site that answers, with the configuration that init writes."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.local.sample import make_project
from tests.local.stage import Stage


def test_what_init_writes_is_enough_for_a_deploy(stage: Stage) -> None:
    """The project lies in a folder of its own with a space, and its SQLite beside it; only what is this server's own is added."""
    stage.repository.path = stage.operator
    stage.repository.git("init", "--quiet", "--initial-branch=trunk")
    (stage.operator / "fabfile.py").unlink()
    (stage.operator / ".gitignore").write_text("nobody/\n.*\n!.gitignore\n__pycache__/\n")
    stage.repository.commit(make_project(folder="back end"), "It's a shop")
    words = [sys.executable, "-m", "fabdjango", "init", "--project=shop"]
    subprocess.run(words, cwd=stage.operator, env=stage.environ(), check=True, capture_output=True)
    stage.repository.commit(message="Deploy with fab")
    of_this_server = {
        **{key: stage.settings[key] for key in ("root", "user", "gunicorn", "supervisor", "health", "ssh")},
        "run_as": "",
    }
    more = stage.base / "this server.json"
    more.write_text(json.dumps({"fabdjango": of_this_server}))
    run = stage.fab("-f", str(more), "deploy")
    assert run.last == f"deployed: {stage.current} serves on {stage.server.address}", run.text
    page = stage.get().page
    assert page["directory"] == str(stage.release / "back end")
    assert (stage.root / "shared/back end/data/db.sqlite3").exists()
    assert (stage.root / "shared/back end/media").is_dir()
