"""What the tasks of supervisor run on a host with Debian's supervisor."""

import re

import pytest

import fabdjango
from fabdjango.exceptions import ConfigError
from tests.namespaces.text import SITE, joined, transcript

PYTHON = r""""$(sed -n '1s/^#! *\([^ ]*\).*/\1/p' "$(command -v supervisord)")" - # """
PYTHON_OF_ROOT = PYTHON.replace(" - # ", " -I - # ")
SUPERVISE = f"""\
export FABDJANGO_RUN
{PYTHON_OF_ROOT}Tell supervisord, over its own interface, what becomes of the site's programs; nobody else's are touched.
"""


def test_configure_checks_the_file_before_it_is_written() -> None:
    """One bad file would make supervisor refuse everybody's; nothing is started or stopped by it."""
    assert re.sub(r"\(\d+ bytes\)", "(… bytes)", transcript(fabdjango.supervisor["configure"])) == joined(
        rf"""
        == manager-check (locked)
        -- manager-check: supervisor reads blog.conf
        {PYTHON}Read a program file with supervisor's own parser; the words of its complaint are the output.
        -- configure as root: write /etc/supervisor/conf.d/blog.conf
        replace /etc/supervisor/conf.d/blog.conf 644 <<'EOF'
        (… bytes)
        EOF
        [ "$changed_files" ] || unchanged "as before"
        out=$(supervisorctl reread) || {{ printf '%s\n' "$out"; exit 1; }}
        case $out in *ERROR*) printf "%s\n" "$out"; exit 1;; esac
        """.removeprefix("\n")
    )


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_start_and_stop_one(verb: str) -> None:
    """As root, by a program that knows what is so already."""
    assert transcript(fabdjango.supervisor[verb], only="worker") == (
        f"== {verb} (locked)\n-- {verb} as root: {verb} worker\n{SUPERVISE}"
    )


def test_restart_goes_through_the_slots() -> None:
    """The task of supervisor is the task at the top: no request is lost by it."""
    assert transcript(fabdjango.supervisor["restart"]) == transcript(fabdjango.ns["restart"])


@pytest.mark.parametrize(("manager", "other"), [("supervisor", "systemd"), ("systemd", "supervisor")])
def test_the_tasks_of_the_other_manager_are_refused(manager: str, other: str) -> None:
    """No host is asked, and the cure names both ways."""
    with pytest.raises(ConfigError, match=f"the programs of blog are run by {manager}, not by {other}") as caught:
        transcript(getattr(fabdjango, other)["start"], {**SITE, "manager": manager})
    assert caught.value.cure == f"use the tasks of {manager}, or set fabdjango.manager to {other}"


def test_a_program_that_the_site_does_not_have_is_refused() -> None:
    """A word from the command line never names another's program."""
    with pytest.raises(ConfigError, match="the site has no program 'other; id'"):
        transcript(fabdjango.supervisor["stop"], only="other; id")
