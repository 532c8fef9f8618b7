"""
A project that others made, from an empty server to a site that serves: the second screen of the README, as it stands there.

pretix, whole as PyPI has it, with PostgreSQL, Redis, a Celery worker and a job by the clock. Of 302 migrations most of the
time is theirs, so that it is a nightly test.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from invoke.vendor import yaml

from tests import machines
from tests.hosts.workplace import CHECKOUT, Workplace, answer

if TYPE_CHECKING:
    from tests.hosts.workplace import Daemon, Outcome, Repository
    from tests.machines import Machine

PROJECT = "pretix==2026.8.0"
DOMAIN = "tickets.example.com"
LOGIN = "src/pretix/control/templates/pretixcontrol/auth/login.html"
#: A test tells nobody that it runs, and asks no bank for its rates.
QUIET = {
    "environment": {"PRETIX_PRETIX_ECB_RATES": "off"},
    "schedule": {
        "periodic": {"command": "runperiodic --exclude=pretix.base.services.update_check.run_update_check"},
    },
}
RUNNING = "systemctl show -p Id,MainPID,ActiveEnterTimestampMonotonic nginx redis-server postgresql@* 'tickets-*'; stat -c %y /var/log/apt/history.log"
KEPT = "cat /srv/tickets/shared/generated.env; stat -c '%a %U %G' /srv/tickets/shared/generated.env"
HIDDEN = ("PRETIX_DJANGO_SECRET", "PRETIX_DATABASE_PASSWORD")


def unpack(requirement: str, target: Path, packages: Path) -> None:
    """
    Lay the source distribution of a project out in a folder, as PyPI has it.

    pip asks the project's build backend for its name, which needs ``packages``; built it is not.
    """
    pip = (sys.executable, "-m", "pip", "--quiet")
    subprocess.run([*pip, "install", "--target", packages, "setuptools", "wheel", "tomli"], check=True)
    name = requirement.partition("=")[0]
    words = ("download", "--no-deps", "--no-build-isolation", "--no-binary", name, "--dest", packages / "sdist")
    environ = {**os.environ, "PYTHONPATH": str(packages)}
    subprocess.run([*pip, *words, requirement], check=True, env=environ)
    (archive,) = (packages / "sdist").glob("*.tar.gz")
    with tarfile.open(archive) as found:
        for member in found.getmembers():
            member.name = member.name.partition("/")[2]
            if member.name:
                found.extract(member, target, filter="data")


def shown() -> dict[str, Any]:
    """What the README shows below ``fabdjango:``."""
    section = (CHECKOUT / "README.md").read_text(encoding="utf-8").partition("\n## A real project")[2]
    text = re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[0]
    found = yaml.safe_load(text)["fabdjango"]  # type: ignore[no-untyped-call]
    assert isinstance(found, dict)
    return found


def proposed(repository: Repository) -> dict[str, Any]:
    """What ``init`` finds in the project by itself."""
    subprocess.run(["git", "-C", repository.tree, "remote", "add", "origin", repository.url], check=True)
    words = ("init", "--host=tickets1.example.com", f"--domain={DOMAIN}", "--yes")
    subprocess.run([sys.executable, "-m", "fabdjango", *words], cwd=repository.tree, check=True, capture_output=True)
    found = yaml.safe_load((repository.tree / "fabric.yaml").read_text())["fabdjango"]  # type: ignore[no-untyped-call]
    assert isinstance(found, dict)
    return found


def is_part(small: Any, large: Any) -> bool:
    """Whether everything in one is in the other as well."""
    if isinstance(small, dict):
        return isinstance(large, dict) and all(key in large and is_part(small[key], large[key]) for key in small)
    if isinstance(small, list):
        return isinstance(large, list) and all(each in large for each in small)
    return bool(small == large)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """One mapping over the other."""
    both = {key: merged(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(above[key], dict)}
    return {**below, **above, **both}


def running(workplace: Workplace, machine: Machine, user: str, *words: str) -> Outcome:
    """A task by that account; a first deploy takes its time."""
    return workplace.start("-i", machine.key, "-H", f"{user}@{machine.address}", *words).wait(900)


@pytest.mark.nightly
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_two_commands(suite: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It serves, the worker works, the clock runs; a second setup changes nothing, and a small change is a deploy like any other."""
    (machine,) = machines.up(1, suite, "bare", "real")
    try:
        daemon: Daemon = request.getfixturevalue("daemon")
        repository = daemon.repository(f"{suite}/tickets")
        unpack(PROJECT, repository.tree, tmp_path / "packages")
        found = proposed(repository)
        settings = shown()
        own = ("repository", "hosts")
        assert is_part({key: value for key, value in found.items() if key not in own}, settings)
        commit = repository.commit(PROJECT)
        machine.run("userdel -r deploy; rm -f /etc/sudoers.d/deploy", check=False)
        workplace = Workplace(tmp_path / "work")
        workplace.know(machine)
        here = {"repository": repository.url, "hosts": {machine.address: {}}}
        workplace.configure(**{**merged(settings, QUIET), **here})

        said = [running(workplace, machine, "root", "setup").ended()]
        said.append(running(workplace, machine, "deploy", "deploy").ended())
        print(f"setup {said[0].seconds:.0f} s, deploy {said[1].seconds:.0f} s")
        assert said[1].last_line == f"deployed: 1-{commit[:12]} serves on {machine.address}"
        it_serves(machine)
        it_works(workplace, machine)

        before, kept, cursor = machine.run(RUNNING).stdout, machine.run(KEPT).stdout, machine.cursor()
        said.append(running(workplace, machine, "root", "setup").ended())
        assert said[2].last_line == f"unchanged: {machine.address} is set up"
        assert (machine.run(RUNNING).stdout, machine.run(KEPT).stdout) == (before, kept)
        assert machine.sessions_since(cursor) == (1, 1)
        print(f"setup again {said[2].seconds:.1f} s")

        said.append(a_small_change(workplace, machine, repository))
        print(f"deploy of a small change {said[3].seconds:.0f} s")
        values = dict(line.removeprefix("export ").split("=", 1) for line in kept.splitlines() if "=" in line)
        everything = "".join(each.output + each.error for each in said) + machine.run("cat /srv/tickets/journal.jsonl; journalctl -o cat").stdout  # fmt: skip
        assert [name for name in HIDDEN if values[name].strip("'") in everything] == []
    finally:
        machines.down([machine])


def it_serves(machine: Machine) -> None:
    """Through nginx, from outside: a page of the database, its style sheet, a logo of a visitor's, and no invoice."""
    assert answer(machine, 80, "/healthcheck/", DOMAIN)[0] == 200
    status, page = answer(machine, 80, "/control/login", DOMAIN)
    assert (status, 'class="form-signin"' in page) == (200, True)
    sheet = style_sheet(page)
    assert "body" in answer(machine, 80, sheet, DOMAIN)[1]
    media = "/srv/tickets/shared/src/data/media"
    machine.run(
        f"cd {media} && umask 022 && mkdir pub invoices && echo logo > pub/logo.txt && echo 100 > invoices/1.txt"
    )
    assert answer(machine, 80, "/media/pub/logo.txt", DOMAIN) == (200, "logo\n")
    assert answer(machine, 80, "/media/invoices/1.txt", DOMAIN)[0] == 404


def style_sheet(page: str) -> str:
    """What django-compressor has made for a page."""
    found = re.search(r'"(/static/CACHE/css/[^"]+)"', page)
    assert found, page
    return found[1]


def it_works(workplace: Workplace, machine: Machine) -> None:
    """The job gives its tasks to the worker, which does them; both as the application's account, which owns no code."""
    running(workplace, machine, "deploy", "schedule.run", "periodic").ended()
    done = "journalctl -u tickets-worker -o cat | grep -q 'Task pretix.base.services.datasync.sync_all.* succeeded'"
    machine.run(f'timeout 60 sh -c "until {done}; do sleep 0.2; done"')
    assert machine.run("ps -o user:20= -C gunicorn,celery,python | sort -u").stdout.split() == ["www-tickets"]
    assert machine.run("systemctl is-active tickets-job-periodic.timer").stdout == "active\n"


def a_small_change(workplace: Workplace, machine: Machine, repository: Repository) -> Outcome:
    """The new page is served, and one that is open still finds its old style sheet; nothing is installed anew."""
    sheet = style_sheet(answer(machine, 80, "/control/login", DOMAIN)[1])
    text = (repository.tree / LOGIN).read_text()
    repository.write(LOGIN, text.replace("{% block content %}", "{% block content %}<p>It's sold out</p>"))
    style = "src/pretix/static/pretixcontrol/scss/auth.scss"
    repository.write(style, (repository.tree / style).read_text() + "\n.sold-out { color: red }\n")
    commit = repository.commit("Sold out")
    outcome = running(workplace, machine, "deploy", "deploy").ended()
    assert outcome.last_line == f"deployed: 2-{commit[:12]} serves on {machine.address}"
    assert re.search(r"unchanged +install pyproject.toml", outcome.output)
    page = answer(machine, 80, "/control/login", DOMAIN)[1]
    assert ("It's sold out" in page, style_sheet(page) == sheet) == (True, False)
    assert [answer(machine, 80, path, DOMAIN)[0] for path in (sheet, style_sheet(page))] == [200, 200]
    return outcome
