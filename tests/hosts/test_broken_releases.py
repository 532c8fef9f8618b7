"""Twelve ways in which a release is broken: each is refused or reverted, said so, and no visitor ever notices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.hosts import invariants
from tests.hosts.invariants import Watch
from tests.hosts.load import LIGHT
from tests.hosts.shop import CANARY, ROOT, Broken

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hosts.shop import Release, Stage

WSGI = """\
import os
import sys
import threading
import time

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
"""
#: Only where gunicorn runs it: the start of Django before that finds nothing.
IN_GUNICORN = f'{WSGI}\nif "gunicorn" in sys.modules:\n    '
VIEWS = "from django.http import HttpResponse\n\n\ndef page(request):\n    {}\n\n\nslow = echo = items = page\n"
MIGRATION = (
    "from django.db import migrations\n\n\n"
    'class Migration(migrations.Migration):\n    dependencies = [("items", "0000_never")]\n    operations = []\n'
)

#: What is broken, and the exit codes that are true of it: 1 nothing was changed, 3 it had the traffic and lost it.
BROKEN: dict[str, tuple[Broken, set[int]]] = {
    each.name: (each, codes)
    for each, codes in (
        (Broken("import error", (("shop/wsgi.py", f"import nothing_such\n{WSGI}"),)), {1}),
        (Broken("exit at import", (("shop/wsgi.py", f"{IN_GUNICORN}sys.exit(3)\n"),)), {1}),
        (Broken("hangs at import", (("shop/wsgi.py", f"{IN_GUNICORN}time.sleep(3600)\n"),)), {1}),
        (Broken("answers 500", (("shop/views.py", VIEWS.format('raise RuntimeError("broken")')),)), {1}),
        (Broken("dies after 5 s", (("shop/wsgi.py", f"{IN_GUNICORN}threading.Timer(5, lambda: os.kill(os.getppid(), 9)).start()\n"),)), {1, 3}),
        (Broken("wrong settings", environment=f"SHOP_SECRET_KEY={CANARY}\n"), {1}),
        (Broken("missing migration", (("items/migrations/0099_lost.py", MIGRATION),)), {1}),
        (Broken("broken template", templates=(("templates/gunicorn/gunicorn.conf.py.j2", "wsgi_app = {{ app | python }}\nbind = (\n"),)), {1}),
        (Broken("collectstatic fails", (("shop/static/shop/more.css", "body { background: url(nowhere.png) }\n"),)), {1}),
        (Broken("socket path taken"), {1}),
        (Broken("run folder of root"), {1}),
        (Broken("out of memory", (("shop/wsgi.py", f"{IN_GUNICORN}hoard = bytearray(1 << 26); os.kill(os.getpid(), 9)\n"),)), {1}),
    )
}  # fmt: skip
#: One that Django's start finds, one that only gunicorn finds, one of the host, one of the operator's own files.
ALWAYS = ("import error", "socket path taken")


def idle(stage: Stage) -> str:
    """The slot without traffic."""
    live = stage.machine.run(f"readlink {ROOT}/run/current.sock").stdout.strip()
    return "b" if live == "sockets/a.sock" else "a"


def spoil(stage: Stage, name: str) -> str:
    """Break what is broken on the host itself; the shell that mends it."""
    if name == "socket path taken":
        path = f"{ROOT}/run/sockets/{idle(stage)}.sock"
        # Not empty, and root's: nobody who meant well could take it away.
        stage.machine.run(f"rm -f {path}; mkdir {path}; touch {path}/in-the-way")
        return f"rm -r {path}"
    if name == "run folder of root":
        stage.machine.run(f"chown root: {ROOT}/run; chmod 755 {ROOT}/run")
        return f"chown deploy: {ROOT}/run"
    return ":"


def refused(stage: Stage, name: str) -> list[str]:
    """Deploy a broken release; what is wrong with how it was taken."""
    broken, codes = BROKEN[name]
    stage.configure(
        health={"timeout": 8, "soak": 7 if name == "dies after 5 s" else 0},
        django={"timeout": 20},
        activation={"confirm": 10, "drain": 5},
    )
    release = stage.shop.next_broken(broken) if broken.files else stage.shop.next()
    old = stage.site.serving()
    mend = spoil(stage, name)
    try:
        with Watch(stage.site, [CANARY]) as watch, stage.load(LIGHT) as load:
            outcome = stage.deploy(release, broken)
    finally:
        stage.machine.run(mend)
        for path, _ in broken.templates:
            (stage.workplace.folder / path).unlink()
    report = load.report()
    wrong = [*watch.violations(), *report.failures]
    print(f"{stage.manager}, {name}: fab {outcome.code} after {outcome.seconds:.0f} s, {report}: {outcome.complaint.splitlines()[:1]}")  # fmt: skip
    if outcome.code not in codes:
        wrong.append(f"I7: exit {outcome.code}, not one of {codes}")
    wrong += invariants.exit_code(stage.site, outcome.code, outcome.output, old=old, sha=release.sha)
    said = f"{outcome.output}\n{outcome.error}"
    if "Traceback (most recent call last)" in outcome.complaint or not re.search(r"^ state: .+", said, re.MULTILINE):
        wrong.append("the report does not say in words which state the host is in")
    if outcome.code != 3 and {line.split()[0] for line in report.lines} != {old}:
        wrong.append(f"I1: visitors saw {sorted(report.lines)}")
    return [*wrong, *healed(stage, release, broken), *([said[-3000:]] if wrong else [])]


def healed(stage: Stage, release: Release, broken: Broken) -> list[str]:
    """The next whole commit is deployed as if nothing had been."""
    stage.configure()
    good = stage.shop.next() if broken.files else release
    wrong = invariants.next_deploy(stage.site, lambda: stage.deploy(good), good.sha)
    return [*wrong, *invariants.settled(stage.site, within=20), *invariants.secrets(stage.site, CANARY, stage.said)]


@pytest.mark.parametrize(
    ("manager", "name"), [(("systemd", "supervisor")[n % 2], name) for n, name in enumerate(ALWAYS)]
)
def test_a_broken_release_is_refused(stages: Callable[[str], Stage], manager: str, name: str) -> None:
    """One of each kind: found by Django's start, by the health check, on the host, in the operator's own files."""
    invariants.held(refused(stages(manager), name))


@pytest.mark.nightly
@pytest.mark.parametrize("manager", ["supervisor", "systemd"])
@pytest.mark.parametrize("name", BROKEN)
def test_every_broken_release_is_refused(stages: Callable[[str], Stage], manager: str, name: str) -> None:
    """All twelve, on both process managers."""
    invariants.held(refused(stages(manager), name))
