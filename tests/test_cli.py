"""What fab and inv show: every task's help, the lists, and the ways to compose the tasks into a fabfile."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection

import fabdjango
import tasks

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
PROGRAMS = Path(sys.executable).parent


def say(program: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run fab or inv as somebody without any configuration would, 80 columns wide."""
    environ = {"HOME": str(cwd / "nobody"), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [PROGRAMS / program, *words],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def listed(fabfile: str, tmp_path: Path) -> list[str]:
    """The names that ``fab --list`` shows for a fabfile with this text."""
    (tmp_path / "fabfile.py").write_text(fabfile, encoding="utf-8")
    done = say("fab", "--list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    return re.findall(r"^  (\S+)", done.stdout, re.MULTILINE)


def all_tasks(collection: Collection) -> Iterator[tuple[str, Any]]:
    """Every task of a collection, with its name on the command line."""
    for name in sorted(collection.task_names):
        yield name, collection[name]


EVERY_TASK = dict(all_tasks(tasks.ns))


# --- the rules for help ------------------------------------------------------


@pytest.mark.parametrize("name", EVERY_TASK)
def test_the_first_line_says_what_the_task_does(name: str) -> None:
    """It is all that the lists show: one sentence on one line, at most 60 characters, beginning with its verb."""
    first, *rest = EVERY_TASK[name].__doc__.strip("\n").splitlines()
    first = first.strip()
    assert len(first) <= 60, first
    assert re.fullmatch(r"[A-Z][a-z]+\b.*\.", first), first
    assert not first.split()[0].endswith("s"), f"{first.split()[0]}: say it as a command"
    assert not rest or not rest[0].strip(), "the sentence goes on in the second line"


@pytest.mark.parametrize("name", EVERY_TASK)
def test_help_is_plain_text(name: str) -> None:
    """It is printed as it stands: no markup, at most three paragraphs after the first line."""
    text = EVERY_TASK[name].__doc__
    assert "`" not in text
    assert ":param" not in text
    assert len(re.split(r"\n\s*\n", text.strip())) <= 4


@pytest.mark.parametrize("name", EVERY_TASK)
def test_every_argument_has_help_and_no_short_flag(name: str) -> None:
    """A short flag would be a promise that nobody meant to give."""
    task = copy.copy(EVERY_TASK[name])
    # Invoke takes the help out of the task while it makes the arguments.
    task.help = dict(task.help)
    for argument in task.get_arguments():
        assert argument.help, argument.name
        assert argument.help.endswith("."), argument.help
        assert [each for each in argument.names if len(each) == 1] == []


# --- the lists ---------------------------------------------------------------


def same_as_golden(name: str, text: str) -> bool:
    """Compare with a golden file, or write it anew for ``inv golden``."""
    golden = GOLDEN / name
    if os.environ.get("FABDJANGO_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    return True


def test_fab_list(tmp_path: Path) -> None:
    """What a user sees first."""
    (tmp_path / "fabfile.py").write_text("from fabdjango import ns\n", encoding="utf-8")
    done = say("fab", "--list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert same_as_golden("fab-list.txt", done.stdout)


def test_inv_list_in_this_checkout() -> None:
    """The chores beside the tasks, without any configuration."""
    done = say("inv", "--list", cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert same_as_golden("inv-list.txt", done.stdout)


def test_our_own_fabfile_is_what_the_readme_shows() -> None:
    """fab works in this checkout as it does in a user's."""
    assert say("fab", "--list", cwd=ROOT).stdout == (GOLDEN / "fab-list.txt").read_text(encoding="utf-8")


def test_help_of_deploy(tmp_path: Path) -> None:
    """The one task that everybody asks about."""
    (tmp_path / "fabfile.py").write_text("from fabdjango import ns\n", encoding="utf-8")
    done = say("fab", "--help", "deploy", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert same_as_golden("fab-help-deploy.txt", done.stdout)


# --- composed into a fabfile -------------------------------------------------


def test_everything(tmp_path: Path) -> None:
    """One line is a whole fabfile."""
    assert sorted(listed("from fabdjango import ns\n", tmp_path)) == sorted(fabdjango.ns.task_names)


def test_some_namespaces_beside_a_task_of_ones_own(tmp_path: Path) -> None:
    """The namespaces are collections like any other."""
    fabfile = """
from fabric import task
from invoke import Collection
import fabdjango

@task
def mytask(c):
    "Do something else."

ns = Collection(mytask, fabdjango.git, fabdjango.django)
"""
    names = listed(fabfile, tmp_path)
    assert names[0] == "mytask"
    assert {name.partition(".")[0] for name in names[1:]} == {"git", "django"}
    assert "git.log" in names
    assert "django.migrate" in names


def test_a_namespace_under_another_name(tmp_path: Path) -> None:
    """A fabfile that has a git of its own takes ours under a name that is free."""
    fabfile = """
from invoke import Collection
import fabdjango

ns = Collection()
ns.add_collection(fabdjango.git, name="mirror")
"""
    assert "mirror.log" in listed(fabfile, tmp_path)


SITES = """
from invoke import Collection
import fabdjango

ns = Collection(
    fabdjango.site("blog", repository="git@example.com:it's/blog.git"),
    fabdjango.site("shop", repository="git@example.com:a shop.git", gunicorn__bind="127.0.0.1:8001"),
)
"""


def test_two_sites_in_one_fabfile(tmp_path: Path) -> None:
    """The factory makes collections that know nothing of each other."""
    names = listed(SITES, tmp_path)
    assert sorted(names) == sorted(f"{site}.{name}" for site in ("blog", "shop") for name in fabdjango.ns.task_names)


def test_each_site_has_its_own_settings(tmp_path: Path) -> None:
    """Two tasks of one run of fab see the settings of their own site, with the fabfile as their source."""
    (tmp_path / "fabfile.py").write_text(SITES, encoding="utf-8")
    words = (
        "blog.config",
        "--key=repository",
        "shop.config",
        "--key=gunicorn.bind",
        "blog.config",
        "--key=gunicorn.bind",
    )
    done = say("fab", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        """repository = 'git@example.com:it'"'"'s/blog.git'  (the fabfile, site("blog"))""",
        'gunicorn.bind = 127.0.0.1:8001  (the fabfile, site("shop"))',
        "gunicorn.bind = ''  (default)",
    ]


STAGES = """
fabdjango:
  project: blog
  repository: it's a repository
  stages:
    staging: {branch: develop, inventory: "deploy/it's hosts.ini"}
    live-site: {hosts: {web9: {roles: [primary]}}}
"""
HOSTS = "[web]\nweb[1:2] ansible_user=deploy\nweb1 ansible_host=192.0.2.1\n"


def project(folder: Path, fabfile: str = "from fabdjango import ns\n", settings: str = STAGES) -> Path:
    """A folder with a fabfile, its settings and an inventory."""
    (folder / "deploy").mkdir(parents=True)
    (folder / "fabfile.py").write_text(fabfile, encoding="utf-8")
    (folder / "fabric.yaml").write_text(settings, encoding="utf-8")
    (folder / "deploy" / "it's hosts.ini").write_text(HOSTS, encoding="utf-8")
    return folder


def test_a_stage_is_a_task(tmp_path: Path) -> None:
    """It chooses the stage for the tasks after it, also from another folder, and wins over the variable."""
    folder = project(tmp_path / "a project")
    done = say("fab", "staging", "hosts", "live-site", "hosts", "--limit=web9", "config", "--key=branch", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    table = [
        "host  address    user    roles  from",
        "web1  192.0.2.1  deploy  web    deploy/it's hosts.ini",
        "web2  web2       deploy  web    deploy/it's hosts.ini",
    ]
    live = ["host    address  roles    from", "web9 *  web9     primary  fabric.yaml"]
    assert done.stdout.splitlines() == [*table, *live, "branch = main  (default)"]
    done = say("fab", "-r", str(folder), "staging", "hosts", cwd=tmp_path)
    assert done.stdout.splitlines() == table, done.stderr
    done = say("fab", "-H", "web1", "staging", "config", "--key=ssh.address", cwd=folder)
    assert done.stdout == "ssh.address = 192.0.2.1  (deploy/it's hosts.ini)\n"


def test_a_fabfile_that_is_a_package(tmp_path: Path) -> None:
    """Its settings lie beside the package, and the stages are found there although a module below it imports us."""
    folder = project(tmp_path / "a project")
    (folder / "fabfile.py").unlink()
    (folder / "fabfile").mkdir()
    (folder / "fabfile" / "__init__.py").write_text("from .ours import ns\n", encoding="utf-8")
    (folder / "fabfile" / "ours.py").write_text("from fabdjango import ns\n", encoding="utf-8")
    done = say("fab", "staging", "config", "--key=branch", cwd=folder)
    assert done.stdout == "branch = develop  (fabric.yaml, stages.staging)\n", done.stderr


def test_the_stages_of_a_site(tmp_path: Path) -> None:
    """Those of the file, and those that the fabfile gives it."""
    fabfile = """
from invoke import Collection
import fabdjango

ns = Collection(fabdjango.site("blog", stages={"trial": {"branch": "it's"}}))
"""
    folder = project(tmp_path / "a project", fabfile)
    done = say("fab", "blog.trial", "blog.config", "--key=branch", "blog.staging", "blog.hosts", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == """branch = 'it'"'"'s'  (the fabfile, site("blog"), stages.trial)"""
    assert done.stdout.splitlines()[2].startswith("web1  192.0.2.1  deploy  web")


def test_settings_that_cannot_be_read_do_not_hide_the_tasks(tmp_path: Path) -> None:
    """fab says what is wrong with the file; a stage that is called like a task is refused when settings are read."""
    plain = (GOLDEN / "fab-list.txt").read_text(encoding="utf-8")
    for number, settings in enumerate(("fabdjango: {stages: [deploy, 1]}", "fabdjango: stages", "{}  # stages")):
        done = say("fab", "--list", cwd=project(tmp_path / str(number), settings=settings))
        assert (done.stdout, done.stderr) == (plain, "")
    folder = project(tmp_path / "last", settings=STAGES.replace("staging:", "git:"))
    assert "live-site" in say("fab", "--list", cwd=folder).stdout
    done = say("fab", "-H", "web1", "deploy", cwd=folder)
    assert (done.returncode, done.stderr) == (
        1,
        (
            "Error: the stage git has the name of a task, and fab git deploy would run that\n"
            " state: no host was contacted (exit 1)\n"
            " do this: call it something else in fabric.yaml: fabdjango: stages: {git-stage: …}\n"
        ),
    )


@pytest.mark.parametrize(
    ("settings", "words", "error"),
    [
        (
            STAGES,
            ["deploy"],
            (
                "Error: every host is in a stage, and none is chosen\n"
                " state: no host was contacted (exit 1)\n"
                " do this: choose one:\n"
                "            fab staging …\n"
                "            fab live-site …\n"
            ),
        ),
        (
            STAGES.replace("it's hosts.ini", "nothing.ini"),
            ["staging", "deploy"],
            (
                "Error: cannot read the inventory deploy/nothing.ini: No such file or directory\n"
                " state: no host was contacted (exit 1)\n"
                " do this: name one file in fabric.yaml, relative to the fabfile: fabdjango: inventory: deploy/hosts.ini\n"
            ),
        ),
        (
            STAGES + "    it's: {hosts: {a: {}, b: {}, a: {}}}\n",
            ["staging", "deploy"],
            (
                "Error: duplicate hosts: fabdjango.stages.it's.hosts.a stands twice in fabric.yaml (line 8)\n"
                " state: no host was contacted (exit 1)\n"
                " do this: take one away, or make one entry of both\n"
            ),
        ),
        (
            STAGES,
            ["staging", "hosts", "--role=wbe"],
            "Error: no host has the role wbe\n state: no host was contacted (exit 1)\n do this: did you mean web?\n",
        ),
    ],
)
def test_an_inventory_that_is_refused(tmp_path: Path, settings: str, words: list[str], error: str) -> None:
    """Before any host is asked."""
    done = say("fab", *words, cwd=project(tmp_path / "a project", settings=settings))
    assert (done.returncode, done.stderr) == (1, error)


def test_a_mistake_is_told_in_words(tmp_path: Path) -> None:
    """No traceback, the cure, and exit code 1: nothing was changed."""
    (tmp_path / "fabfile.py").write_text("from fabdjango import ns\n", encoding="utf-8")
    (tmp_path / "fabric.yaml").write_text("fabdjango: {project: blog, repository: x, gunicorn: {worker: 3}}\n")
    done = say("fab", "-H", "ann@web1.example.com", "deploy", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: fabdjango.gunicorn.worker is not a setting (in fabric.yaml)\n"
        " state: no host was contacted (exit 1)\n"
        " do this: did you mean workers or worker_class?\n"
    )


def test_a_secret_that_cannot_be_had_stops_a_task_before_it_begins(tmp_path: Path) -> None:
    """What needs it asks for it before any host; what only shows settings does not ask."""
    settings = "fabdjango: {project: blog, repository: x, secrets: {MAIL: {command: cat it-is-not-there}}}"
    folder = project(tmp_path / "a project", settings=settings)
    assert say("fab", "config", "--key=secrets", cwd=folder).returncode == 0
    for words in (["deploy"], ["--dry", "deploy"], ["config.diff"], ["git.checkout"]):
        done = say("fab", "-H", "ada@nowhere.invalid", *words, cwd=folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "Error: fabdjango.secrets.MAIL: the command ended with status 1\n"
            " state: no host was contacted (exit 1)\n"
            " do this: see by hand what it says: cat it-is-not-there\n"
        )


def test_listing_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    """asyncssh takes as long as Fabric itself, and rich is for terminals."""
    (tmp_path / "fabfile.py").write_text("from fabdjango import ns\n", encoding="utf-8")
    program = (
        "import sys; sys.argv = ['fab', '--list']; from fabric.main import program\n"
        "try: program.run()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('loaded:', *sorted({'asyncssh', 'rich', 'supervisor', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr
