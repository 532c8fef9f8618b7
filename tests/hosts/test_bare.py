"""
From what a hosting company hands over to a site that serves: two commands, with nothing done by hand.

With PostgreSQL on the host, a worker, a timer, secrets that nobody ever types, and an application of its own account. Every
run does it on Debian 12, the nightly one on Debian 13 too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.hosts.test_database import FILES
from tests.hosts.workplace import Workplace, answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.workplace import Daemon
    from tests.machines import Machine

DOMAIN = "notes.example.com"
JOB = "from django.core.management.base import BaseCommand\nfrom notes.models import Note\n\n\nclass Command(BaseCommand):\n    def handle(self, **_):\n        Note.objects.create(text='by the clock')\n"
MORE = {
    "notes/settings.py": FILES["notes/settings.py"].replace('50 * "x"', 'os.environ["SECRET_KEY"]'),
    "notes/management/__init__.py": "",
    "notes/management/commands/__init__.py": "",
    "notes/management/commands/note.py": JOB,
}
#: What nobody may see, and what must be the same after a second setup.
KEPT = "cat /srv/notes/shared/generated.env; stat -c '%a %U %G' /srv/notes/shared/generated.env"
RUNNING = "systemctl show -p Id,MainPID,ActiveEnterTimestampMonotonic nginx postgresql@* 'notes-*'; stat -c %y /var/log/apt/history.log"


def settings(machine: Machine, repository: str) -> dict[str, object]:
    """All that the operator writes down."""
    return {
        "project": "notes",
        "repository": repository,
        "user": "deploy",
        "run_as": "www-notes",
        "manager": "systemd",
        "nginx": {"domains": [DOMAIN]},
        "database": {"engine": "postgresql"},
        "secrets": {"SECRET_KEY": {"generate": 50}},
        "processes": {"worker": {"command": "exec python -c 'import signal; signal.pause()'", "startsecs": 1}},
        "schedule": {"note": {"command": "note", "at": "*-*-* 03:00:00"}},
        "server": {"updates": True},
        "hosts": {machine.address: {}},
    }


@pytest.mark.parametrize("suite", ["bookworm", pytest.param("trixie", marks=pytest.mark.nightly)])
def test_two_commands(suite: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """setup, deploy, and nginx answers from outside; then setup again, which changes nothing."""
    (machine,) = machines.up(1, suite, "bare", "empty")
    try:
        daemon: Daemon = request.getfixturevalue("daemon")
        repository = daemon.repository(f"notes-{suite}")
        for path, text in {**FILES, **MORE}.items():
            repository.write(path, text)
        commit = repository.commit("Notes")
        machine.run("userdel -r deploy; rm -f /etc/sudoers.d/deploy", check=False)
        workplace = Workplace(tmp_path / "work")
        workplace.know(machine)
        workplace.configure(**settings(machine, repository.url))

        began = time.monotonic()
        root = ("-i", machine.key, "-H", f"root@{machine.address}")
        said = [workplace.fab(*root, "setup").ended()]
        said.append(
            workplace.fab("-i", machine.key, "-H", f"deploy@{machine.address}", "deploy", f"--commit={commit}").ended()
        )
        print(
            f"{suite}: setup {said[0].seconds:.0f} s, deploy {said[1].seconds:.0f} s, {time.monotonic() - began:.0f} s in all"
        )
        assert answer(machine, 80, "/", DOMAIN)[0] == 200
        assert machine.run("systemctl is-active notes-worker.service notes-job-note.timer").stdout == "active\nactive\n"
        assert set(machine.run("ps -o user:20= -C gunicorn,python | sort -u").stdout.split()) == {"www-notes"}
        machine.run("systemctl start notes-job-note.service")
        assert "by the clock" in answer(machine, 80, "/", DOMAIN)[1]

        before, kept, cursor = machine.run(RUNNING).stdout, machine.run(KEPT).stdout, machine.cursor()
        said.append(workplace.fab(*root, "setup").ended())
        print(f"{suite}: setup again {said[2].seconds:.1f} s")
        assert said[2].last_line == f"unchanged: {machine.address} is set up"
        assert (machine.run(RUNNING).stdout, machine.run(KEPT).stdout) == (before, kept)
        assert machine.sessions_since(cursor) == (1, 1)
        said.append(workplace.fab("-i", machine.key, "-H", f"deploy@{machine.address}", "server.doctor").ended())
        secrets = [line.partition("='")[2].rstrip("'") for line in kept.splitlines() if line.startswith("export ")]
        assert len(secrets) == 2
        everything = (
            "".join(each.output + each.error for each in said)
            + machine.run("cat /srv/notes/journal.jsonl; journalctl -o cat").stdout
        )
        assert not [secret for secret in secrets if secret in everything]
    finally:
        machines.down([machine])
