"""Debian 13's Python on the operator's side: the wheel in a plain virtualenv, and the pure tests of this checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hosts.workplace import copy_checkout

if TYPE_CHECKING:
    from tests.machines import Machine

TEST_TOOLS = ("pytest", "pytest-xdist", "hypothesis", "asyncssh", "supervisor")
RENDER = """
from pathlib import Path
from fabdjango.render import Templates, template_root
print(template_root().is_relative_to(Path(__import__("sys").prefix)))
print(Templates(Path.cwd()).render("release/start.j2", run="/srv/it's here/run", words="python -V"), end="")
"""
# These need a host, a database, an SSH server or time, or are about the checkout and the wheel, as the tests above are.
ELSEWHERE = (
    *("tests/hosts", "tests/local", "tests/onhost"),
    *("tests/test_package.py", "tests/test_tasks.py", "tests/test_testing.py", "tests/test_transport.py"),
    *("tests/test_locking.py", "tests/test_health.py", "tests/test_survey.py"),
)
# The search goes deep elsewhere; here it is asked whether another Python says the same.
QUICK = "from hypothesis import settings\nsettings.register_profile('quick', deadline=None, derandomize=True, max_examples=15)\n"


@pytest.fixture(scope="module")
def desk(trixie: Machine) -> Machine:
    """The Debian 13 host with a copy of the checkout and, in a virtualenv of its own, the wheel made from it."""
    copy_checkout(trixie.root / "root/checkout")
    trixie.run(
        """
        set -e
        python3 -m venv ~/plain
        ~/plain/bin/pip wheel --quiet --no-deps --wheel-dir ~/wheels ~/checkout
        rm -rf ~/checkout/build ~/checkout/*.egg-info
        ~/plain/bin/pip install --quiet ~/wheels/fabdjango-*.whl
        """,
        timeout=300,
    )
    return trixie


def test_the_wheel_gives_fab_its_tasks(desk: Machine) -> None:
    """A fabfile of two lines in an otherwise empty folder is all there is."""
    fabfile = '"""The tasks."""\nfrom fabdjango import ns\n'
    script = "mkdir ~/empty && cd ~/empty && cat > fabfile.py && ~/plain/bin/fab --list"
    done = desk.run(script, given=fabfile)
    assert done.stderr == ""
    names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert {"deploy", "status", "check", "config.show", "git.clone", "venv.create", "supervisor.restart"} <= set(names)


def test_the_wheel_carries_its_templates(desk: Machine) -> None:
    """They are found in the installed package, far from any checkout."""
    done = desk.run("cd / && ~/plain/bin/python -", given=RENDER)
    assert done.stdout == (
        "True\n"
        "#!/bin/sh\n"
        "# Managed by fabdjango; local edits are overwritten.\n"
        "exec /bin/sh '/srv/it'\"'\"'s here/run' python -V\n"
    )


@pytest.mark.parametrize(
    "tests",
    [
        "tests/test_escape.py tests/test_script.py tests/test_render.py tests/test_fleet.py tests/namespaces",
        pytest.param("tests", marks=pytest.mark.nightly),
    ],
)
def test_the_pure_tests_pass_on_debian_13(desk: Machine, tests: str) -> None:
    """Those that need neither a host nor an SSH server, on the newest Python that a Debian has; every run does a part of them."""
    version = desk.run("~/plain/bin/python -c 'import sys; print(*sys.version_info[:2])'").stdout
    assert version == "3 13\n"
    desk.run(f"~/plain/bin/pip install --quiet {' '.join(TEST_TOOLS)}", timeout=300)
    # Lines for it are read by cron's own parser.
    desk.run("apt-get update -q && apt-get install -q -y --no-install-recommends cron", timeout=300)
    desk.write("/root/quick/quick_profile.py", QUICK)
    ignored = " ".join(f"--ignore={folder}" for folder in ELSEWHERE)
    options = "-q -p no:cacheprovider -p quick_profile --hypothesis-profile=quick --no-header --tb=short -n 2"
    chosen = "-m 'not hosts and not nightly'"
    words = f"cd ~/checkout && PYTHONPATH=~/quick ~/plain/bin/python -m pytest {tests} {options} {chosen} {ignored}"
    done = desk.run(words, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
