"""Three sites on one real host, from the first deploy over a reboot to the next release; and one on Debian 13."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.hosts import workplace as ours
from tests.hosts.workplace import Repository, Workplace, answer, program_pid, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.workplace import Daemon
    from tests.machines import Machine

LOCAL = """\
SECRET_KEY = {{ env.SITE_SECRET_KEY | python }}
ALLOWED_HOSTS = ["cms.example.com"]
WAGTAILADMIN_BASE_URL = "http://cms.example.com"
"""
SECRET = {"SITE_SECRET_KEY": 'a secret\'s "key" which is more than fifty characters long'}


@dataclass
class Sites:
    """What the tests of this file, which tell one story in their order, hand on to each other."""

    workplace: Workplace
    repositories: dict[str, Repository] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    other_pid: str = ""
    wagtails_requirements: str = ""


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, bookworm: Machine, daemon: Daemon) -> Sites:
    """The operator's folder for all three sites, and a program of somebody else on their host."""
    workplace = Workplace(tmp_path_factory.mktemp("sites") / "work")
    workplace.know(bookworm)
    workplace.environ.update(SECRET)
    (workplace.folder / "local.py.j2").write_text(LOCAL)
    bookworm.write("/etc/supervisor/conf.d/other.conf", "[program:other]\ncommand=sleep 100000\n")
    bookworm.run("supervisorctl update other")
    pid = program_pid(bookworm, "other")
    return Sites(workplace, {name: daemon.repository(name) for name in ("blog", "cms", "shop")}, other_pid=pid)


def blog(sites: Sites) -> dict[str, object]:
    """The sample project; uv is fetched by the deploy."""
    return {
        "project": "blog",
        "repository": sites.repositories["blog"].url,
        "shared": ["data/", "media/"],
        "environment": {"BLOG_SECRET_KEY": "it's not a secret, but long enough to be accepted as one", "BLOG_ALLOWED_HOSTS": "blog.example.com"},
        "gunicorn": {"bind": "0.0.0.0:8001", "workers": 1},
        "first_deploy": ["python manage.py loaddata initial_posts"],
        "health": {"static": "pages/site.css", "text": "Field Notes"},
    }  # fmt: skip


def cms(sites: Sites) -> dict[str, object]:
    """A project of Wagtail's template."""
    return {
        "project": "cms",
        "repository": sites.repositories["cms"].url,
        "shared": ["db.sqlite3", "media/"],
        "django": {"settings": "mysite.settings.production"},
        "environment": {"DJANGO_SUPERUSER_PASSWORD": "x y"},
        "local_settings": "local.py.j2",
        "local_settings_path": "mysite/settings/local.py",
        "gunicorn": {"bind": "0.0.0.0:8002", "workers": 1},
        "health": {"text": "Welcome to your new Wagtail site"},
    }


def shop(sites: Sites) -> dict[str, object]:
    """manage.py in a folder, and requirements with hashes, installed by pip."""
    return {
        "project": "shop",
        "repository": sites.repositories["shop"].url,
        "root": "/srv/shop with space",
        "django": {"manage": "source/manage.py"},
        "environment": {"SHOP_SECRET_KEY": "$(touch /tmp/never)"},
        "venv": {"installer": "pip", "packages": []},
        "gunicorn": {"bind": "0.0.0.0:8003", "workers": 1},
    }


def serves(machine: Machine, port: int, host: str) -> bool:
    """The site answers from outside."""
    return answer(machine, port, host=host)[0] == 200


def test_the_sample_project_in_one_command(sites: Sites, bookworm: Machine) -> None:
    """One login and at most six sessions, as sshd counts them, bring the sample project to serve."""
    sha = sites.first["blog"] = sites.repositories["blog"].sample(1)
    sites.workplace.configure(**blog(sites))
    cursor = bookworm.cursor()
    outcome = sites.workplace.deploy(bookworm, sha).ended()
    assert outcome.error == ""
    assert outcome.last_line == f"deployed: 1-{sha[:12]} serves on {bookworm.address}"
    logins, sessions = bookworm.sessions_since(cursor)
    assert logins == 1
    assert sessions <= 6
    status, page = answer(bookworm, 8001, host="blog.example.com")
    assert (status, "First edition" in page, "Hello, server" in page) == (200, True, True)


def test_a_second_deploy_of_the_same_commit_changes_nothing(sites: Sites, bookworm: Machine) -> None:
    """It says so, costs three sessions at most, and the processes live on."""
    sites.workplace.configure(**blog(sites))
    before = ours.state_of(bookworm, "/srv/blog")
    cursor = bookworm.cursor()
    outcome = sites.workplace.deploy(bookworm, sites.first["blog"]).ended()
    release = f"1-{sites.first['blog'][:12]}"
    assert outcome.last_line == f"unchanged: {release} serves on {bookworm.address} already, and answers"
    assert ours.state_of(bookworm, "/srv/blog") == before
    logins, sessions = bookworm.sessions_since(cursor)
    assert logins == 1
    assert sessions <= 3


def test_a_project_of_wagtail(sites: Sites, bookworm: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    What `wagtail start` makes is deployed with its own production settings, which want a file local.py.

    Its template may ask for a Django that Debian 12's Python is too old for; then the commit asks for an older one.
    """
    packages = tmp_path_factory.mktemp("wagtail")
    repository = sites.repositories["cms"]
    ours.start_wagtail(repository.tree, packages)
    sites.wagtails_requirements = requirements = (repository.tree / "requirements.txt").read_text()
    repository.write("requirements.txt", re.sub(r"(?m)^Django.*$", "Django>=5.2,<5.3", requirements))
    sha = sites.first["cms"] = repository.commit("wagtail start, for Python 3.11")
    sites.workplace.configure(**cms(sites))
    # A host that has a uv of its own need not fetch one.
    bookworm.run("mkdir -p ~/.local/bin; ln -sf /srv/blog/tools/bin/uv ~/.local/bin/uv", user="deploy")
    sites.workplace.deploy(bookworm, sha).ended()
    assert bookworm.run("ls /srv/cms").stdout.split() == [
        "current",
        "journal.jsonl",
        "releases",
        "repo.git",
        "run",
        "shared",
        "slots",
        "venvs",
    ]
    status, page = answer(bookworm, 8002, host="cms.example.com")
    assert (status, "Welcome to your new Wagtail site" in page) == (200, True)


def test_a_project_in_a_folder_with_hashes(sites: Sites, bookworm: Machine, tmp_path: Path) -> None:
    """manage.py lies in source/, pip checks every hash, the folder has spaces in its name, and root makes the first one."""
    requirements = ours.hashed_requirements(tmp_path, "Django<5.3", "asgiref", "sqlparse", "gunicorn", "packaging")
    sha = sites.first["shop"] = ours.shop_project(sites.repositories["shop"], requirements, "it's open")
    sites.workplace.configure(**shop(sites))
    sites.workplace.deploy(bookworm, sha, login="root", user="deploy").ended()
    assert answer(bookworm, 8003) == (200, "it's open")
    assert bookworm.run("ls /tmp/never", check=False).returncode != 0


def test_a_program_of_somebody_else_keeps_its_process(sites: Sites, bookworm: Machine) -> None:
    """Three sites came, and supervisor did not touch what is not ours."""
    assert program_pid(bookworm, "other") == sites.other_pid


def test_all_three_are_back_after_a_reboot(sites: Sites, bookworm: Machine) -> None:
    """Nothing of a site lives only in memory."""
    bookworm.reboot()
    for port, host in ((8001, "blog.example.com"), (8002, "cms.example.com"), (8003, "")):
        wait_for(partial(serves, bookworm, port, host), 30)
        assert answer(bookworm, port, host=host)[0] == 200


def test_root_may_log_in_and_the_next_commit_replaces_the_first(sites: Sites, bookworm: Machine) -> None:
    """Root works as the account that owns the site: no file of the site belongs to anybody else."""
    sha = sites.repositories["blog"].sample(2)
    sites.workplace.configure(**blog(sites))
    outcome = sites.workplace.deploy(bookworm, sha, login="root", user="deploy").ended()
    assert outcome.last_line == f"deployed: 2-{sha[:12]} serves on {bookworm.address}"
    status, page = answer(bookworm, 8001, host="blog.example.com")
    assert (status, "Edition 2" in page, "Hello, server" in page) == (200, True, True)
    assert bookworm.run("find /srv/blog ! -user deploy").stdout == ""
    assert bookworm.run("ls /srv/blog/venvs | wc -l").stdout == "1\n"


def test_the_next_commit_of_the_others(sites: Sites, bookworm: Machine) -> None:
    """Each site changes by itself, and the others serve on."""
    requirements = (sites.repositories["shop"].tree / "requirements.txt").read_text()
    sha = ours.shop_project(sites.repositories["shop"], requirements, "open again")
    sites.workplace.configure(**shop(sites))
    sites.workplace.deploy(bookworm, sha).ended()
    assert answer(bookworm, 8003) == (200, "open again")
    page = sites.repositories["cms"].tree / "home/templates/home/welcome_page.html"
    page.write_text(page.read_text() + "<p>The second edition</p>\n")
    sha = sites.repositories["cms"].commit("Add a line")
    sites.workplace.configure(**cms(sites))
    sites.workplace.deploy(bookworm, sha).ended()
    assert "The second edition" in answer(bookworm, 8002, host="cms.example.com")[1]
    assert answer(bookworm, 8001, host="blog.example.com")[0] == 200


def test_the_secret_is_in_no_report_and_readable_by_the_owner_only(sites: Sites, bookworm: Machine) -> None:
    """local.py came over the wire, but not onto the terminal, a command line or into a file for everybody."""
    # The words go in by standard input: the journal keeps the command line of whoever logs.
    search = "grep -rlF -f - /srv/cms /var/log /etc/supervisor || :"
    found = bookworm.run(search, given="which is more than fifty").stdout.split()
    assert found
    modes = bookworm.run(f"stat -c '%a %U' {' '.join(found)}").stdout.split("\n")[:-1]
    assert set(modes) == {"640 deploy"}


def test_ssh_config_names_host_account_and_key(sites: Sites, bookworm: Machine) -> None:
    """What `ssh web` would do, `fab -H web` does."""
    sites.workplace.configure(**shop(sites))
    folder = sites.workplace.home / ".ssh"
    folder.mkdir(exist_ok=True)
    config = folder / "config"
    config.write_text(f"Host web\n  HostName {bookworm.address}\n  User deploy\n  IdentityFile {bookworm.key}\n")
    outcome = sites.workplace.fab("-H", "web", "status")
    config.unlink()
    assert outcome.ended().error == ""


def test_the_sample_project_on_debian_13(sites: Sites, trixie: Machine) -> None:
    """Another Debian, another Python, and the same one command."""
    workplace = sites.workplace
    workplace.know(trixie)
    workplace.configure(**blog(sites))
    workplace.deploy(trixie, sites.repositories["blog"].sample(1)).ended()
    status, page = answer(trixie, 8001, host="blog.example.com")
    assert (status, "First edition" in page) == (200, True)


@pytest.mark.nightly
def test_wagtails_own_requirements_on_debian_13(sites: Sites, trixie: Machine, daemon: Daemon) -> None:
    """The template untouched, on the Python that it asks for."""
    repository = daemon.repository("untouched")
    source = sites.repositories["cms"].tree
    for path in source.rglob("*"):
        if path.is_file() and ".git" not in path.relative_to(source).parts:
            repository.write(str(path.relative_to(source)), path.read_text())
    repository.write("requirements.txt", sites.wagtails_requirements)
    sha = repository.commit("wagtail start")
    workplace = sites.workplace
    workplace.know(trixie)
    workplace.configure(**{**cms(sites), "repository": repository.url})
    workplace.deploy(trixie, sha).ended()
    assert answer(trixie, 8002, host="cms.example.com")[0] == 200
