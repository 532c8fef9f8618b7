"""python -m fabdjango init: the files that it writes, for every sample project, and what fab makes of them."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke.vendor import yaml

from fabdjango import proposal, scaffold
from fabdjango.checkout import look
from fabdjango.configuration import Layer, resolve
from fabdjango.exceptions import ConfigError
from fabdjango.proposal import Entry
from fabdjango.recipes import check_settings
from fabdjango.scaffold import Draft, Wishes, checked, draft
from fabdjango.settings import setting_rows
from tests.projects import SAMPLES, commit, read_project, start_project
from tests.test_cli import say

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
ALL = (*SAMPLES, "startproject", "demo")
KNOWN = Wishes(host="web1.example.com", domain="it.example.com")


def sample(name: str, folder: Path, remote: str = "git@example.com:it's team/{}.git") -> Path:
    """A sample project in a clone; its folder."""
    if name == "startproject":
        files = start_project(folder.parent, "mysite")
    else:
        files = read_project(ROOT / "demo" / "project") if name == "demo" else dict(SAMPLES[name])
    folder.mkdir()
    return commit(folder, files, remote.format(name))


def drafted(folder: Path, wishes: Wishes = KNOWN) -> Draft:
    """What would be written there."""
    return draft(look(folder), folder, wishes)


def values(made: Draft) -> dict[str, Any]:
    """What fab reads out of a draft."""
    found: dict[str, Any] = yaml.safe_load(made.files["fabric.yaml"])["fabdjango"]  # type: ignore[no-untyped-call]
    return found


def same_as_golden(name: str, text: str) -> bool:
    """Compare with a golden file, or write it anew for ``inv golden``."""
    golden = GOLDEN / name
    if os.environ.get("FABDJANGO_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    return True


KEYS = {row.key.split(".")[0] for row in setting_rows()} | {"hosts"}


def known(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of them that there are."""
    return {key: value for key, value in settings.items() if key in KEYS}


# --- what is proposed -----------------------------------------------------------

COMMON = {
    "user": "deploy",
    "hosts": {"web1.example.com": {}},
}
LIVE: dict[str, dict[str, Any]] = {
    "wagtail": {
        "nginx": {"domains": ["it.example.com"]},
        "django": {"settings": "bakery.settings.production"},
        "shared": ["media/", "db.sqlite3"],
    },
    "cookiecutter": {
        "run_as": "www-cookiecutter",
        "nginx": {"domains": ["it.example.com"], "media": "shop/media"},
        "venv": {"groups": ["production"]},
        "django": {"settings": "config.settings.production"},
        "database": {"engine": "postgresql"},
        "secrets": {"DJANGO_SECRET_KEY": "generate"},
        "environment": {"DJANGO_ALLOWED_HOSTS": "it.example.com", "REDIS_URL": "redis://127.0.0.1:6379/0"},
        "shared": ["shop/media/"],
        "processes": {
            "worker": {"command": "celery -A config.celery_app worker --loglevel INFO"},
            "beat": {"command": "celery -A config.celery_app beat --loglevel INFO", "hosts": "primary"},
        },
        "server": {"packages": ["redis-server"]},
    },
    "below": {
        "run_as": "www-below",
        "nginx": {
            "domains": ["it.example.com"],
            "static_url": "/assets/",
            "media_url": "/uploads/",
            "media": "backend/uploads",
        },
        "venv": {"requirements": ["backend/requirements.txt"]},
        "django": {"manage": "backend/manage.py"},
        "gunicorn": {"app": "core.wsgi:app"},
        "database": {
            "engine": "postgresql",
            "variables": {
                "DB_NAME": "name",
                "DB_USER": "user",
                "DB_PASSWORD": "password",
                "DB_HOST": "host",
                "DB_PORT": "port",
            },
        },
        "secrets": {"APP_SECRET": "generate"},
        "environment": {
            "ALLOWED_HOSTS": "it.example.com",
            "DEBUG": "False",
            "DB_ENGINE": "django.db.backends.postgresql",
        },
        "shared": ["backend/uploads/"],
    },
    "channels": {
        "run_as": "www-channels",
        "nginx": {"domains": ["it.example.com"]},
        "gunicorn": {"interface": "asgi"},
        "secrets": {"CHAT_KEY": "generate"},
        "environment": {"CHAT_HOSTS": "it.example.com"},
        "shared": ["var/"],
    },
    "heroku": {
        "run_as": "www-heroku",
        "nginx": {"domains": ["it.example.com"], "static_url": ""},
        "database": {"engine": "postgresql"},
        "secrets": {"SECRET_KEY": "generate"},
        "shared": ["celerybeat/"],
        "processes": {
            "worker": {"command": "celery -A ledger worker --loglevel INFO"},
            "beat": {
                "command": "celery -A ledger beat --loglevel INFO --schedule celerybeat/schedule",
                "hosts": "primary",
            },
        },
        "server": {"packages": ["redis-server", "gcc", "python3-dev", "libpq-dev"]},
    },
    "startproject": {"nginx": {"domains": ["it.example.com"]}, "shared": ["db.sqlite3"]},
    "demo": {
        "run_as": "www-demo",
        "nginx": {"domains": ["it.example.com"]},
        "secrets": {"BLOG_SECRET_KEY": "generate"},
        "environment": {"BLOG_ALLOWED_HOSTS": "it.example.com"},
        "shared": ["media/", "data/"],
    },
}


@pytest.mark.parametrize("name", ALL)
def test_the_settings_of_a_project(name: str, tmp_path: Path) -> None:
    """Only what differs from a default says something; our own reader takes all of it."""
    made = drafted(sample(name, tmp_path / name))
    own = {"project": name, "repository": f"git@example.com:it's team/{name}.git"}
    assert values(made) == known({**COMMON, **own, **LIVE[name]})
    settings = resolve([Layer("fabric.yaml", values(made))]).settings
    check_settings(settings)
    assert settings.project == name


@pytest.mark.parametrize("name", ALL)
def test_a_comment_is_a_proposal_that_can_be_taken(name: str, tmp_path: Path) -> None:
    """Every line that is a comment is YAML, and a setting that there is, once its # is taken away."""
    folder = sample(name, tmp_path / name)
    checkout = look(folder)
    made = drafted(folder)
    entries = proposal.propose(made.findings, checkout, made.answers)

    def taken(entry: Entry) -> Entry:
        # One of the two ways to get commits, and of two entries for one key the first.
        below = {each.key: taken(each) for each in reversed(entry.below)}
        return Entry(entry.key, entry.value, entry.why, True, tuple(below.values()))

    every = [taken(entry) for entry in entries]
    text = "fabdjango:\n" + "".join(f"{line.text}\n" for line in proposal.lines_of(every))
    assert checked(text, every) == text


def test_the_file_as_a_person_reads_it(tmp_path: Path) -> None:
    """Each line with a word why, and the file and line that it was found in."""
    made = drafted(sample("below", tmp_path / "below", "https://ada:token@git.example.com/team/{}.git"))
    assert same_as_golden("init-below.yaml", made.files["fabric.yaml"])
    assert same_as_golden(
        "init-cookiecutter.yaml", drafted(sample("cookiecutter", tmp_path / "c")).files["fabric.yaml"]
    )
    assert made.files["fabfile.py"] == (
        '"""The tasks of fab; fabric.yaml says what is deployed where."""\nfrom fabdjango import ns  # noqa: F401\n'
    )


def test_what_has_to_be_mended(tmp_path: Path) -> None:
    """A new project is not fit for a server, and init says which lines keep it from that."""
    made = drafted(sample("startproject", tmp_path / "it"))
    assert made.problems == (
        "no file lists the packages: pip freeze > requirements.txt, and commit it",
        (
            "SECRET_KEY stands in mysite/settings.py line 23, for everybody who sees the repository: "
            'SECRET_KEY = os.environ["SECRET_KEY"]'
        ),
        "DEBUG is True in mysite/settings.py line 26: DEBUG = False, at least where a server runs",
        "ALLOWED_HOSTS lacks it.example.com, and the site would answer 400: mysite/settings.py line 28",
        (
            "STATIC_ROOT is not set, so that static files are not collected: "
            'STATIC_ROOT = BASE_DIR / "staticfiles" in mysite/settings.py'
        ),
    )
    assert drafted(sample("demo", tmp_path / "demo")).problems == ()
    assert drafted(sample("heroku", tmp_path / "h"), Wishes(domain="x.ledger.example.com")).problems == ()


# --- where commits come from ------------------------------------------------------


def test_without_a_remote(tmp_path: Path) -> None:
    """Commits are pushed, of the branch that is checked out, and the folder gives the name."""
    folder = sample("channels", tmp_path / "It's a Chat!", "")
    subprocess.run(["git", "checkout", "--quiet", "-b", "it's"], cwd=folder, check=True)
    found = values(drafted(folder))
    assert (found["project"], found["git"], found["branch"]) == ("it-s-a-chat", {"transfer": "push"}, "it's")
    assert "repository" not in found


def test_work_that_is_not_in_git(tmp_path: Path) -> None:
    """It is found, and said: a host would not get it."""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for path, text in SAMPLES["channels"].items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    assert drafted(tmp_path).problems == (
        "there is no commit yet, and what is deployed are commits: git add, git commit",
    )
    (tmp_path / "x").write_text("")
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    subprocess.run(["git", "add", "x"], cwd=tmp_path, check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "-m", "x"], cwd=tmp_path, check=True)
    assert drafted(tmp_path).problems == (
        "manage.py is not in git, so that no host would get it: git add manage.py",
        "chat/settings.py is not in git, so that no host would get it: git add chat/settings.py",
        "requirements.txt is not in git, so that no host would get it: git add requirements.txt",
    )


# --- packages -------------------------------------------------------------------------


def with_files(tmp_path: Path, *without: str, **more: str) -> Draft:
    """The sample heroku with other files."""
    files = {name: text for name, text in SAMPLES["heroku"].items() if name not in without}
    files.update({name.replace("___", "."): text for name, text in more.items()})
    return drafted(commit(tmp_path / "shop", files), Wishes(domain="x.ledger.example.com"))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()


def test_poetry(tmp_path: Path) -> None:
    """Its pyproject.toml is installed from, and its lock file is not read."""
    project = '[tool.poetry.dependencies]\npython = "^3.12"\ndjango = "^5"\npsycopg2 = "*"\n'
    made = with_files(tmp_path, "requirements.txt", pyproject___toml=project, poetry___lock="")
    assert "venv" not in values(made)
    assert made.problems == (
        (
            "poetry.lock is not read, so that versions are not those it has: "
            "poetry export -o requirements.txt (or uv lock), and commit it"
        ),
    )


def test_pipenv(tmp_path: Path) -> None:
    """It has a way out."""
    made = with_files(tmp_path, "requirements.txt", Pipfile="", Pipfile___lock="{}")
    assert made.problems == ("a Pipfile is not installed from: pipenv requirements > requirements.txt, and commit it",)


def test_a_driver_that_is_not_listed(tmp_path: Path) -> None:
    """It is added; where an extra of the project has it, that is taken."""
    settings = 'SECRET_KEY = open("/x").read()\nDATABASES = {"default": {"ENGINE": "django.db.backends.postgresql"}}\n'
    more = {"requirements___txt": "django\n"}
    files = {"ledger/settings.py": settings}
    assert values(with_files(tmp_path, **more, **files))["venv"] == {"packages": ["gunicorn", "psycopg[binary]"]}
    (tmp_path / "shop").rename(tmp_path / "before")
    (tmp_path / "shop").mkdir()
    project = '[project]\ndependencies = ["django"]\n[project.optional-dependencies]\nall = ["x", "psycopg"]\npg = ["psycopg"]\n'
    made = with_files(tmp_path, "requirements.txt", pyproject___toml=project, **files)
    assert values(made)["venv"] == {"extras": ["pg"]}


def test_what_is_made_of_the_files(tmp_path: Path) -> None:
    """By commands of the project before a release is complete, and with what they need."""
    text = SAMPLES["heroku"]["ledger/settings.py"]
    more = {"ledger/locale/de/LC_MESSAGES/django___po": "", "ledger/settings.py": f"{text}\nCOMPRESS_OFFLINE = True\n"}
    found = values(with_files(tmp_path, **more))
    assert found["hooks"] == {
        "before_collectstatic": ["python manage.py compilemessages -v 0"],
        "after_collectstatic": ["python manage.py compress"],
    }
    assert "gettext" in found["server"]["packages"]


def test_a_database_whose_password_is_written_down(tmp_path: Path) -> None:
    """None is made, as the settings could not learn of it; the line is named."""
    settings = """\
SECRET_KEY = open("/x").read()
DATABASES = {"default": {"ENGINE": "django.contrib.gis.db.backends.postgis", "NAME": "it's", "PASSWORD": "secret"}}
STATIC_ROOT = "/srv/static"
ALLOWED_HOSTS = ["*"]
"""
    made = with_files(tmp_path, **{"ledger/settings.py": settings})
    packages = ["redis-server", "gcc", "python3-dev", "libpq-dev", "gdal-bin"]
    found = {key: value for key, value in values(made).items() if key in ("database", "server")}
    assert found == known({"server": {"packages": packages}})
    assert made.problems == (
        (
            "DATABASES has no variable for the password, found in ledger/settings.py line 2: take it from the environment, "
            "and name the variable under database: variables:"
        ),
        (
            "PostGIS has to be made by hand, found in ledger/settings.py line 2: "
            "apt-get install postgresql-postgis, CREATE EXTENSION postgis"
        ),
    )


def test_secrets_and_what_is_none(tmp_path: Path) -> None:
    """The key is made on the host, a name and a user that are written down are taken over, and the rest is proposed."""
    settings = """\
import os
SECRET_KEY = os.environ["IT_IS_A_KEY"]
MAIL = os.environ["MAIL_TOKEN"], os.environ["MAIL_SERVER"]
DATABASES = {"default": {"ENGINE": "django.db.backends.mysql", "NAME": "it", "USER": "ada", "PASSWORD": os.environ["PW"]}}
"""
    made = with_files(tmp_path, requirements___txt="django\nmysqlclient\n", **{"ledger/settings.py": settings})
    found = values(made)
    assert {key: found[key] for key in found if key in ("secrets", "database", "environment")} == known(
        {
            "secrets": {"IT_IS_A_KEY": "generate"},
            "database": {"engine": "mysql", "name": "it", "user": "ada", "variables": {"PW": "password"}},
        }
    )
    lines = [" ".join(line.split()[:5]) for line in made.files["fabric.yaml"].splitlines() if "MAIL_S" in line]
    assert lines == ['# MAIL_SERVER: "" # needed']


# --- the command -------------------------------------------------------------------------


def run(folder: Path, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, without any configuration."""
    environ = {"HOME": str(folder / "nobody"), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "COLUMNS": "100"}
    command = [sys.executable, "-m", "fabdjango", *words]
    return subprocess.run(command, cwd=folder, env=environ, stdin=stdin, capture_output=True, text=True, check=False)


TOLD = """\
written: fabric.yaml and fabfile.py
  manage.py     manage.py
  settings      config.settings.production (config/wsgi.py line 5)
  application   config.wsgi:application (config/settings/base.py line 11)
  packages      uv.lock
  database      postgresql (uv.lock line 12)
                from DATABASE_URL (config/settings/base.py line 9)
  SECRET_KEY    from DJANGO_SECRET_KEY (config/settings/production.py line 5)
  redis         from REDIS_URL (config/settings/base.py line 22)
  worker        celery -A config.celery_app worker --loglevel INFO (config/celery_app.py line 6)
  beat          celery -A config.celery_app beat --loglevel INFO (config/settings/base.py line 15)

To mend before the first deploy:
  - the settings cannot be imported without MAILGUN_API_KEY, DJANGO_ADMIN_URL: see secrets: and environment:
  - SECURE_SSL_REDIRECT is on in config/settings/production.py line 4, so that the site needs nginx: {tls: letsencrypt} or the like

Look through fabric.yaml and commit both files. Then:
  fab -H web1.example.com setup
  fab -H web1.example.com deploy
"""


def test_init_and_then_fab(tmp_path: Path) -> None:
    """Two files for fab, which knows all settings and tasks by them."""
    folder = sample("cookiecutter", tmp_path / "it's a shop")
    done = run(folder, "init", "--host", "ada@web1.example.com:2222", "--domain", "it.example.com")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", TOLD)
    assert stat.S_IMODE((folder / "fabric.yaml").stat().st_mode) == 0o644
    new = subprocess.run(["git", "status", "--porcelain"], cwd=folder, check=True, capture_output=True, text=True)
    assert new.stdout == "?? fabfile.py\n?? fabric.yaml\n"
    assert say("fab", "--list", cwd=folder).stdout == (GOLDEN / "fab-list.txt").read_text(encoding="utf-8")
    keys = ["project", "django.settings", "ssh.user", "ssh.port", "processes"]
    words = [word for key in keys for word in ("config", "--host=web1.example.com", f"--key={key}")]
    shown = say("fab", *words, cwd=folder)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[:4] == [
        "project = cookiecutter  (fabric.yaml)",
        "django.settings = config.settings.production  (fabric.yaml)",
        "ssh.user = ada  (fabric.yaml, hosts.web1.example.com)",
        "ssh.port = 2222  (fabric.yaml, hosts.web1.example.com)",
    ]


def test_nobody_to_ask(tmp_path: Path) -> None:
    """What is not known is a comment, and is said."""
    folder = sample("demo", tmp_path / "demo")
    done = run(folder, "init")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-5:] == [
        "No host is in it yet: name one under hosts:, or each time in place of HOST.",
        "No domain is in it yet: without nginx: domains: there is no web server in front.",
        "Look through fabric.yaml and commit both files. Then:",
        "  fab -H HOST setup",
        "  fab -H HOST deploy",
    ]
    text = (folder / "fabric.yaml").read_text(encoding="utf-8")
    assert "\n  # hosts:\n  #   web1.example.com: {}  " in text
    assert "\n  # nginx:\n  #   domains: [blog.example.com]  " in text


def answer(folder: Path, text: str, *words: str) -> tuple[int, str, str]:
    """Run init on a terminal on which somebody types; exit code, standard output, questions."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, text.encode())
        done = run(folder, "init", *words, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout, done.stderr


def test_questions(tmp_path: Path) -> None:
    """Three of them, with what is likely in brackets; an answer that cannot be taken is asked for again."""
    folder = sample("heroku", tmp_path / "heroku")
    code, out, questions = answer(folder, "\na b\n192.0.2.7\nit's\n\n")
    assert (code, questions) == (
        0,
        (
            "Name of the project [heroku]: "
            "Server, as in ssh (empty: later): "
            "  'a b' is not a host; such as web1.example.com, or ada@192.0.2.7:2222\n"
            "Server, as in ssh (empty: later): "
            "Domains of the site (empty: later) [ledger.example.com]: "
            '  "it\'s" is not a host name; such as blog.example.com\n'
            "Domains of the site (empty: later) [ledger.example.com]: "
        ),
    )
    assert out.endswith("  fab -H 192.0.2.7 setup\n  fab -H 192.0.2.7 deploy\n")
    found = yaml.safe_load((folder / "fabric.yaml").read_text())["fabdjango"]  # type: ignore[no-untyped-call]
    assert (found["hosts"], found["nginx"]["domains"]) == ({"192.0.2.7": {}}, ["ledger.example.com"])


def test_no_questions(tmp_path: Path) -> None:
    """--yes takes what is likely; so does everybody who says all of it."""
    code, _, questions = answer(sample("heroku", tmp_path / "heroku"), "", "--yes")
    assert (code, questions) == (0, "")
    words = ("--project=x", "--host=web1", "--domain=x.example.com,y.example.com")
    folder = sample("channels", tmp_path / "c")
    assert answer(folder, "", *words)[0::2] == (0, "")
    found = yaml.safe_load((folder / "fabric.yaml").read_text())["fabdjango"]  # type: ignore[no-untyped-call]
    assert found["environment"] == {"CHAT_HOSTS": "x.example.com y.example.com"}


def test_the_end_of_input_is_no_answer(tmp_path: Path) -> None:
    """Nothing is written."""
    folder = sample("channels", tmp_path / "c")
    code, out, questions = answer(folder, "\n\x04")
    assert (code, out) == (1, "")
    assert questions.endswith(
        "Error: no answer\n state: nothing was written (exit 1)\n do this: answer, or say --host, --domain and --yes\n"
    )
    assert not (folder / "fabric.yaml").exists()


@pytest.mark.parametrize("there", ["fabric.yaml", "fabfile.py", "fabric.yml", "fabfile"])
def test_nothing_is_overwritten(there: str, tmp_path: Path) -> None:
    """Not by a hair; --print shows what it would have been, and still says so."""
    folder = sample("channels", tmp_path / "c")
    (folder / there).write_text("it's mine")
    before = sorted(folder.iterdir())
    rest = {"fabric.yaml": "fabfile.py", "fabfile.py": "fabric.yaml"}.get(there)
    others = f"; {rest} was not written either" if rest else ""
    error = (
        f"Error: {there} is there already, and stays as it is{others}\n state: nothing was written (exit 1)\n"
        " do this: see what would have been written: python -m fabdjango init --print\n"
    )
    done = run(folder, "init", "--host=web1", "--domain=x.example.com")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", error)
    shown = run(folder, "init", "--host=web1", "--domain=x.example.com", "--print")
    assert (shown.returncode, shown.stderr) == (1, error)
    made = drafted(folder, Wishes(host="web1", domain="x.example.com")).files
    assert shown.stdout == "".join(f"# --- {name}\n{text}" for name, text in made.items())
    assert (folder / there).read_text() == "it's mine"
    assert sorted(folder.iterdir()) == before


def test_print_writes_nothing(tmp_path: Path) -> None:
    """What it prints can be read by fab."""
    folder = sample("channels", tmp_path / "c")
    before = sorted(folder.iterdir())
    done = run(folder, "init", "--print")
    assert (done.returncode, done.stderr, sorted(folder.iterdir())) == (0, "", before)
    text = done.stdout.partition("# --- fabfile.py\n")[0]
    assert yaml.safe_load(text)["fabdjango"]["gunicorn"] == {"interface": "asgi"}  # type: ignore[no-untyped-call]


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    """It is somebody's, too."""
    folder = sample("channels", tmp_path / "c")
    (folder / "fabfile.py").symlink_to("nothing")
    assert run(folder, "init").returncode == 1
    assert not (folder / "nothing").exists()


def test_both_files_or_neither(tmp_path: Path) -> None:
    """One that appears in the meantime stays, and ours is taken away again; so is every temporary file."""
    (tmp_path / "two").write_text("it's mine")
    with pytest.raises(ConfigError, match=r"^two is there already, and stays as it is$"):
        scaffold._write(tmp_path, {"one": "x", "two": "y"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"two": "it's mine"}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """It is said in words."""
    with pytest.raises(ConfigError, match=rf"^cannot write {tmp_path}/nothing/one: No such file or directory$"):
        scaffold._write(tmp_path / "nothing", {"one": "x"})


# --- where there is nothing to do ------------------------------------------------------


def refused(folder: Path, *words: str) -> str:
    """The error of an init that fails."""
    done = run(folder, "init", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert not (folder / "fabric.yaml").exists()
    return done.stderr


def test_no_django_project(tmp_path: Path) -> None:
    """It says where it looked, and where one is."""
    folder = commit(tmp_path / "shop", {"a b/c/manage.py": "import django\n", "x/y.txt": ""})
    assert refused(folder) == (
        f"Error: no Django project: there is no manage.py in {folder}, nor one folder below it\n"
        " state: nothing was written (exit 1)\n"
        " do this: name it: python -m fabdjango init --manage 'a b/c/manage.py'\n"
    )
    assert refused(folder / "x") == (
        f"Error: no Django project: there is no manage.py in {folder}/x, nor one folder below it\n"
        " state: nothing was written (exit 1)\n"
        " do this: name it: python -m fabdjango init --manage '../a b/c/manage.py'\n"
    )
    (folder / "a b/c/manage.py").unlink()
    assert refused(folder).endswith(
        " do this: go to the folder of your manage.py, and see that .gitignore does not list it\n"
    )


def test_several_projects(tmp_path: Path) -> None:
    """One has to be named; on a terminal it is asked for."""
    files = {f"{name}/{path}": text for name in ("it's", "b") for path, text in SAMPLES["channels"].items()}
    folder = commit(tmp_path / "shop", files)
    assert refused(folder) == (
        "Error: there are several projects here: b/manage.py, it's/manage.py\n"
        " state: nothing was written (exit 1)\n"
        " do this: name it: python -m fabdjango init --manage b/manage.py\n"
        """          or:      python -m fabdjango init --manage 'it'"'"'s/manage.py'\n"""
    )
    assert refused(folder, "--manage=b/x.py").startswith("Error: b/x.py is no manage.py of Django in git\n")
    code, _, questions = answer(folder, "3\n2\n\n\n\n")
    assert (code, questions.startswith("  1  b/manage.py\n  2  it's/manage.py\nWhich manage.py [1]: ")) == (0, True)
    found = yaml.safe_load((folder / "fabric.yaml").read_text())["fabdjango"]  # type: ignore[no-untyped-call]
    assert (found["django"], found["venv"]) == (
        {"manage": "it's/manage.py"},
        {"requirements": ["it's/requirements.txt"]},
    )


def test_from_the_folder_of_manage_py(tmp_path: Path) -> None:
    """Paths are those of the commit all the same."""
    folder = sample("below", tmp_path / "below")
    assert run(folder / "backend", "init", "--yes").returncode == 0
    found = yaml.safe_load((folder / "backend/fabric.yaml").read_text())["fabdjango"]  # type: ignore[no-untyped-call]
    assert (found["django"], found["shared"]) == ({"manage": "backend/manage.py"}, ["backend/uploads/"])


def test_no_repository(tmp_path: Path) -> None:
    """What is deployed are commits."""
    assert refused(tmp_path).startswith(
        f"Error: {tmp_path} is not in a git repository, and what is deployed are commits\n"
    )


@pytest.mark.parametrize("word", ["--host=a b", "--host=-x", "--domain=it's", "--project=It's"])
def test_words_that_cannot_be_taken(word: str, tmp_path: Path) -> None:
    """They are refused before anything is written."""
    assert "state: nothing was written (exit 1)" in refused(sample("channels", tmp_path / "c"), word)


def test_a_project_that_no_deploy_could_take(tmp_path: Path) -> None:
    """Our own reader of settings has the last word: PYTHONPATH cannot hold a folder with a colon."""
    folder = commit(tmp_path / "shop", {f"a:b/{path}": text for path, text in SAMPLES["channels"].items()})
    assert refused(folder).startswith(
        "Error: fabdjango.django.manage must be the path of a file, without : in its folder and - before its name, "
        "not 'a:b/manage.py' (in fabric.yaml)\n state: nothing was written (exit 1)\n"
    )


def test_a_file_that_would_say_something_else() -> None:
    """It is never written: the text is read back and compared."""
    with pytest.raises(ConfigError, match=r"^fabric.yaml would not say what it is meant to"):
        checked("fabdjango: {project: blog, project: blog}", [Entry("project", "blog")])


def test_version_and_help(tmp_path: Path) -> None:
    """Both are told without a project; no command at all is a mistake."""
    assert run(tmp_path, "--version").stdout == "fabdjango 0.1.0\n"
    shown = run(tmp_path, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert same_as_golden("init-help.txt", shown.stdout + run(tmp_path, "init", "--help").stdout)
    assert run(tmp_path).returncode == 2


def test_no_connection_is_thought_of(tmp_path: Path) -> None:
    """Nothing listens for what init does not say: it opens no socket."""
    program = (
        "import json, socket, sys\n"
        "made = []\n"
        "sys.addaudithook(lambda name, _: made.append(name) if name.startswith('socket.connect') else None)\n"
        "from fabdjango.__main__ import main\n"
        "code = main(['init', '--yes'])\n"
        "print(json.dumps([code, made]))"
    )
    folder = sample("channels", tmp_path / "c")
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []], done.stderr
