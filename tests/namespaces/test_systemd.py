"""What the tasks of systemd run on a host."""

from typing import Any

import pytest

from fabdjango.exceptions import ConfigError
from fabdjango.namespaces import supervisor, systemd
from tests.namespaces.text import SITE, joined, transcript

UNITS: dict[str, Any] = {**SITE, "manager": "systemd", "nginx": {"domains": ["blog.example.com"]}}


def test_configure_checks_the_units_before_they_are_installed() -> None:
    """systemd reads them, then they are installed and enabled; nothing is started."""
    lines = transcript(systemd.configure, UNITS).splitlines()
    assert lines[:3] == [
        "== manager-check (locked)",
        "-- manager-check: systemd reads the units",
        "python3 -I -S - # Let systemd read unit files in a folder of their own; what it says of them is the output.",
    ]
    assert "systemctl daemon-reload" in lines
    assert not [line for line in lines if line.startswith(("systemctl start", "systemctl restart"))]


def test_stop_of_one_program() -> None:
    """Only that one."""
    assert transcript(systemd.stop, UNITS, only="worker") == joined(
        """\
        == stop (locked)
        -- stop as root: stop blog-worker.service
        set --; for u in blog-worker.service; do
        | [ "$(systemctl show --property=LoadState --value -- "$u")" = not-found ] || set -- "$@" "$u"
        done
        systemctl is-active -- "$@" | grep -qvx -e inactive -e failed || unchanged 'not running'
        systemctl stop -- "$@"
        """
    )


@pytest.mark.parametrize(
    ("task", "site", "other"), [(supervisor.status, UNITS, "systemd"), (systemd.status, SITE, "supervisor")]
)
def test_the_tasks_of_the_other_manager_are_refused(task: Any, site: dict[str, Any], other: str) -> None:
    """They would find nothing there, and say that nothing runs."""
    with pytest.raises(ConfigError, match=f"the programs of blog are run by {other}, not by"):
        transcript(task, site)


def test_a_program_that_the_site_does_not_have_is_refused() -> None:
    """A word from the command line never names another's program."""
    with pytest.raises(ConfigError, match="the site has no program 'other; id'"):
        transcript(systemd.stop, UNITS, only="other; id")
