"""A deploy from a commit to an answer: everything works by configuration, and the server is what is asserted."""

from __future__ import annotations

import json
import stat
import subprocess
import time
from pathlib import Path

import pytest

from fabdjango.recipes import HOOKABLE
from tests.local.conftest import Staged
from tests.local.sample import DJANGO, make_project
from tests.local.stage import Stage, free_port, listing, processes_below

CANARY = "canary-'\"$(id)-5f1e"
"""A secret with everything in it that a shell could trip over."""

ENV_FILE = "SHOP_SECRET_KEY='a long enough key that nobody has to know'\nSHOP_GREETING=\"{{ env.GREETING }}\"\n"
LOCAL_SETTINGS = "PRICE = {{ env.PRICE | python }}\nWHERE = {{ host | python }}\n"
WORKER = "import os, json, time; json.dump(dict(os.environ), open(os.path.join('data', 'worker.json'), 'w')); time.sleep(9999)"


def mode(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def wait_for(path: Path) -> str:
    """The text of a file that a program of the site is about to write."""
    for _ in range(100):
        if path.exists() and path.read_text(encoding="utf-8").endswith(("}", "\n")):
            break
        time.sleep(0.05)
    return path.read_text(encoding="utf-8")


def test_a_site_with_everything(staged: Staged) -> None:  # noqa: PLR0915 - the life of one site
    """
    manage.py in a subdirectory, settings that nobody names, one environment, shared paths, first deploy, a worker.

    The root has a space and a quote in its name. The second deploy is of other
    settings, the third of another commit: what is for the first is not repeated.
    """
    stage = staged(root="ada's shop")
    files = make_project(folder="src/site", settings="conf.live", manage_names="shop.settings", users=True)
    files["src/site/conf/__init__.py"] = ""
    files["src/site/media/readme.txt"] = "kept\n"
    stage.repository.commit(files)
    stage.write("deploy/live.env.j2", ENV_FILE)
    stage.write("deploy/local settings.j2", LOCAL_SETTINGS)
    secrets = {"GREETING": CANARY.replace('"', '\\"').replace("$", "\\$"), "PRICE": 'it\'s "2"'}
    stage.configure(
        django={"manage": "src/site/manage.py", "settings": "conf.live", "collectstatic": "always"},
        shared=["src/site/data/", "src/site/media/"],
        environment={"SHOP_MOTTO": "two words & more"},
        env_file="deploy/live.env.j2",
        local_settings="deploy/local settings.j2",
        gunicorn={"app": "shop.wsgi:application"},
        processes={"worker": {"command": f"exec python -c {quoted(WORKER)}", "startsecs": 1}},
        first_deploy=[
            "python manage.py loaddata first",
            "DJANGO_SUPERUSER_PASSWORD=x python manage.py createsuperuser --noinput --username ada --email a@example.com",
        ],
        health={"text": '"edition": "1"', "static": "notes/site.css", "host": "shop.example.com"},
    )
    stage.deploy(environ=secrets)

    place = stage.release / "src/site"
    page = stage.get().page
    assert page == {
        "edition": "1",
        "notes": 2,
        "release": stage.current,
        "settings": "conf.live",
        "directory": str(place),
        "python_path": str(place),
        "price": 'it\'s "2"',
        "greeting": CANARY,
        "interface": "WSGIRequest",
        "prefix": str(stage.venv),
    }
    assert stage.current == "1-" + stage.repository.git("rev-parse", "HEAD")[:12]
    assert (place / "data").readlink() == stage.root / "shared/src/site/data"
    assert (place / "media").readlink() == stage.root / "shared/src/site/media"
    assert (place / "media/readme.txt").read_text() == "kept\n"
    assert stage.get("/static/notes/site.css").body == "body { color: teal }\n"
    assert (place / "conf/local_settings.py").resolve() == stage.private / "local_settings.py"
    for secret in (stage.private / "local_settings.py", stage.private / "env"):
        assert mode(secret) == 0o640
        assert mode(stage.root / "shared" / secret.name.replace("env", ".env")) == 0o640
    # Passable for the web server, but not to be listed.
    assert mode(stage.private) == 0o751

    worker = json.loads(wait_for(place / "data/worker.json"))
    web = web_environment(stage)
    run = stage.fab("django.manage", "shell -c 'import os, json; print(json.dumps(dict(os.environ)))'", environ=secrets)
    command = json.loads(next(line for line in run.out.splitlines() if line.startswith("{")))
    names = [
        "SHOP_GREETING",
        "SHOP_MOTTO",
        "DJANGO_SETTINGS_MODULE",
        "PYTHONPATH",
        "PATH",
        "HOME",
        "USER",
        "FABDJANGO_RELEASE",
    ]
    wanted = {name: web[name] for name in names}
    assert wanted["SHOP_MOTTO"] == "two words & more"
    assert wanted["PATH"].startswith(f"{stage.venv}/bin:")
    # What a person asks for is shown without secrets.
    assert {name: command[name] for name in names} == {**wanted, "SHOP_GREETING": "********"}
    assert {name: worker[name] for name in names} == wanted

    Path(place / "media/upload.txt").write_text("from a visitor\n")
    first = stage.current
    stage.deploy(environ={**secrets, "PRICE": "3"})
    assert stage.current == "2-" + first.partition("-")[2]
    assert stage.get().page["price"] == "3"
    assert stage.get().page["notes"] == 2, "loaddata ran again, or the database is another"
    assert (stage.release / "src/site/media/upload.txt").read_text() == "from a visitor\n"
    assert "PRICE = '3'" in (stage.root / "shared/local_settings.py").read_text()
    assert "PRICE = 'it" in (stage.root / "releases" / first / ".fabdjango/local_settings.py").read_text()

    stage.fab(
        "django.manage", "shell -c 'from notes.models import Note; Note.objects.get(pk=1).delete()'", environ=secrets
    )
    stage.configure(health={"text": '"edition": "2"'})
    stage.repository.commit({"src/site/notes/edition.py": "EDITION = '2'\n"})
    stage.deploy(environ=secrets)
    page = stage.get().page
    assert (page["edition"], page["notes"]) == ("2", 1)
    run = stage.fab(
        "django.manage",
        "shell -c 'from django.contrib.auth.models import User; print(User.objects.get())'",
        environ=secrets,
    )
    assert run.out.endswith("ada\n")
    events = [(entry["event"], entry["result"]) for entry in stage.journal]
    assert events == [("migrate", "applied"), *3 * [("deploy", "serves")]]


def quoted(program: str) -> str:
    """A Python program as one word between double quotes of a shell; it has none itself."""
    assert '"' not in program
    assert "$" not in program
    return f'"{program}"'


def web_environment(stage: Stage) -> dict[str, str]:
    """The environment of a gunicorn process of the release that serves."""
    pid = next(pid for pid, line in processes_below(stage.private).items() if "gunicorn" in line)
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.partition("=")[::2] for entry in entries if entry)


def test_second_deploy_changes_nothing(stage: Stage) -> None:
    """The same commit with the same settings leaves every file as it was, and says so; other settings make a release."""
    stage.repository.commit(make_project())
    stage.deploy()
    before = listing(stage.root)
    pids = set(processes_below(stage.root))
    sessions = len(stage.server.sessions)
    run = stage.deploy()
    assert run.last == f"unchanged: {stage.current} serves on {stage.server.address} already, and answers"
    assert listing(stage.root) == before
    assert set(processes_below(stage.root)) == pids
    assert len(stage.server.sessions) - sessions == 2

    first = stage.current
    connections = stage.server.connections
    sessions = len(stage.server.sessions)
    stage.configure(environment={"SHOP_GREETING": "hello"})
    run = stage.deploy()
    assert stage.current == "2-" + first.partition("-")[2]
    assert stage.get().page["greeting"] == "hello"
    assert "unchanged  virtualenv" in run.out
    assert stage.server.connections - connections == 1
    assert len(stage.server.sessions) - sessions == 4


def test_hooks_stand_around_every_step(stage: Stage) -> None:
    """Each hook runs on the host in its order, in the folder of manage.py, with the site's environment."""
    stage.repository.commit(make_project(folder="src", settings="shop.settings"))
    record = stage.home / "record"
    moments = [f"{when}_{step}" for step in HOOKABLE for when in ("before", "after")]
    tell = 'printf \'%s %s %s %s\\n\' {0} "$PWD" "${{FABDJANGO_RELEASE:--}}" "${{SHOP_GREETING:--}}" >> {1}'
    stage.configure(
        django={"manage": "src/manage.py"},
        shared=["src/data/"],
        environment={"SHOP_GREETING": "hello"},
        hooks={moment: [tell.format(moment, record)] for moment in moments},
    )

    def recorded() -> list[list[str]]:
        lines = [line.split(" ") for line in record.read_text().splitlines()]
        record.unlink()
        return lines

    stage.deploy()
    order = [
        "before_fetch", "after_fetch", "before_settings", "after_settings", "before_export", "after_export",
        "before_links", "after_links", "before_venv", "after_venv", "before_install", "after_install",
        "before_check", "before_collectstatic", "after_check", "after_collectstatic", "before_migrate", "after_migrate",
        "before_health", "after_health", "before_switch", "after_switch", "before_restart", "after_restart",
        "before_prune", "after_prune",
    ]  # fmt: skip
    assert sorted(order) == sorted(moments)
    lines = recorded()
    assert [line[0] for line in lines] == order
    # The first of them run before there is any release.
    without = [[name, str(stage.root), "-", "-"] for name in order[:3]]
    within = [[name, str(stage.release / "src"), stage.current, "hello"] for name in order[3:]]
    assert lines == without + within

    # Later, the first of them run in the release that serves; nothing is to be migrated.
    first, old = stage.current, str(stage.release / "src")
    stage.repository.commit(message="Another")
    stage.deploy()
    lines = recorded()
    assert [line[0] for line in lines] == [name for name in order if not name.endswith("_migrate")]
    assert lines[:3] == [[name, old, first, "hello"] for name in order[:3]]
    assert {line[2] for line in lines[3:]} == {stage.current}


def test_a_hook_that_fails_stops_the_deploy(stage: Stage) -> None:
    """A failing command of the project's own ends the deploy, and its words are in the report."""
    stage.repository.commit(make_project())
    stage.configure(hooks={"after_links": ["true", "echo the dog ate it; exit 7"]})
    run = stage.deploy(code=1)
    assert "after_links failed with status 7: the dog ate it" in run.err
    assert "it is the project's own command: fabdjango.hooks.after_links" in run.err
    assert not stage.current
    assert not list((stage.root / "releases").iterdir())
    stage.configure(hooks={"after_lynx": ["true"]})
    run = stage.deploy(code=1)
    assert "fabdjango.hooks.after_lynx is not a moment of a deploy" in run.err
    assert "did you mean" in run.err


def test_steps_are_reported_as_they_happen(stage: Stage) -> None:
    """The line of a step arrives while a later one of the same phase still runs."""
    stage.repository.commit(make_project(requirements=""))
    stage.configure(venv={"packages": []}, hooks={"after_links": ["while ! [ -e ../../go ]; do sleep 0.05; done"]})
    process = subprocess.Popen(
        stage.command("deploy"),
        cwd=stage.operator,
        env=stage.environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "  ok         link data/" in line:
                break
        assert process.poll() is None
        (stage.root / "go").touch()
        rest = process.stdout.read()
    finally:
        process.kill()
        process.wait()
    assert "  ok         after_links" in rest


@pytest.mark.parametrize("collect", ["never", "auto", "always"])
def test_static_files(stage: Stage, collect: str) -> None:
    """Off; left out with a note where STATIC_ROOT is not set; an error there if they were asked for. Hooks stand around it."""
    files = make_project()
    if collect != "never":
        files["shop/settings.py"] = files["shop/settings.py"].replace('STATIC_ROOT = BASE_DIR / "collected"\n', "")
        files["shop/urls.py"] = files["shop/urls.py"].replace("settings.STATIC_ROOT", "None")
    stage.repository.commit(files)
    stage.configure(
        django={"collectstatic": collect},
        hooks={"before_collectstatic": ["echo built > built"], "after_collectstatic": ["echo more >> built"]},
    )
    if collect == "always":
        run = stage.deploy(code=1)
        assert "STATIC_ROOT is not set, so collectstatic has nowhere to write" in run.err
        assert "do this: set STATIC_ROOT in the settings, or fabdjango.django.collectstatic to auto" in run.err
        assert not stage.current
        return
    run = stage.deploy()
    note = "note: no static files collected: STATIC_ROOT is not set"
    assert (note in run.out) is (collect == "auto")
    assert not (stage.release / "collected").exists()
    assert (stage.release / "built").read_text() == "built\nmore\n"


def test_shared_file_and_settings_by_hand(stage: Stage) -> None:
    """A SQLite file is shared as one file, and settings that a person keeps in shared are taken into each release."""
    files = make_project()
    files["shop/settings.py"] = files["shop/settings.py"].replace('"data/db.sqlite3"', '"db.sqlite3"')
    stage.repository.commit(files)
    shared = stage.root / "shared"
    shared.mkdir(parents=True)
    (shared / "local_settings.py").write_text("PRICE = 'by hand'\n")
    (shared / ".env").write_text("SHOP_GREETING='by hand too'\n")
    stage.configure(shared=["db.sqlite3"], first_deploy=["python manage.py loaddata first"])
    stage.deploy()
    assert (stage.release / "db.sqlite3").readlink() == shared / "db.sqlite3"
    page = stage.get().page
    assert (page["price"], page["greeting"], page["notes"]) == ("by hand", "by hand too", 2)
    assert mode(stage.private / "local_settings.py") == 0o640
    (shared / "local_settings.py").write_text("PRICE = 'changed by hand'\n")
    assert stage.get().page["price"] == "by hand"
    stage.deploy()
    assert stage.current.startswith("2-")
    assert stage.get().page["price"] == "changed by hand"
    assert stage.get().page["notes"] == 2


def test_two_sites_in_one_fabfile(stage: Stage) -> None:
    """Each has settings, a folder and programs of its own; what is done to one does not touch the other."""
    stage.repository.commit(make_project())
    ports = {"blue": stage.port, "green": free_port()}
    sites = "\n".join(
        f'ns.add_collection(fabdjango.site("{name}", root="~/{name}", environment={{"SHOP_GREETING": "{name}"}}, '
        f'gunicorn__bind="127.0.0.1:{port}"))'
        for name, port in ports.items()
    )
    stage.write("fabfile.py", f"import fabdjango\nfrom invoke import Collection\n\nns = Collection()\n{sites}\n")
    stage.configure(project=None, root=None)
    stage.fab("blue.deploy", "green.deploy")
    assert {name: stage.get(port=port).page["greeting"] for name, port in ports.items()} == {
        "blue": "blue",
        "green": "green",
    }
    before, pids = listing(stage.home / "green"), set(processes_below(stage.home / "green"))
    stage.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
    run = stage.fab("blue.deploy")
    assert run.last.startswith("deployed: 2-")
    assert stage.get(port=ports["blue"]).page["edition"] == "2"
    assert stage.get(port=ports["green"]).page["edition"] == "1"
    assert listing(stage.home / "green") == before
    assert set(processes_below(stage.home / "green")) == pids
    run = stage.fab("green.status")
    assert f"green on {stage.server.address}: 1-" in run.out


def test_supervisor_in_a_virtualenv(staged: Staged) -> None:
    """On a host with neither supervisor nor uv, both are had under the root, and one command is enough."""
    stage = staged(environ={"PATH": "/usr/local/bin:/usr/bin:/bin"})
    stage.repository.commit(make_project(requirements=f"{DJANGO}\n"))
    stage.configure(supervisor={"level": "virtualenv"})
    stage.deploy()
    assert stage.get().page["release"] == stage.current
    (daemon,) = [line for line in processes_below(stage.root).values() if "supervisor.supervisord" in line]
    assert daemon.startswith(f"{stage.root}/supervisor/venv/bin/python -m supervisor.supervisord")
    assert mode(stage.root / "supervisor/supervisor.sock") == 0o700
    assert (stage.root / "tools/bin/uv").exists()
