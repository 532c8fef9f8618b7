"""The process manager: which one, what it reads, and what it is told."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Any

import pytest
from supervisor.options import UnhosedConfigParser  # type: ignore[import-untyped]

from fabdjango import onhost
from fabdjango.commands import supervisor
from fabdjango.exceptions import FabdjangoError
from fabdjango.layout import Layout
from fabdjango.plan import Put
from tests.conftest import LAYOUT, sample_facts, sample_settings, sample_templates, shell, shown

SYSTEM = supervisor.find(sample_settings(supervisor={"level": "system"}), sample_facts(), LAYOUT)
OWN = supervisor.find(sample_settings(supervisor={"level": "virtualenv"}), sample_facts(), LAYOUT)


@pytest.mark.parametrize(
    ("level", "facts", "found"),
    [
        ("auto", {}, "system"),
        ("auto", {"sudo": False}, "virtualenv"),
        ("auto", {"supervisor_conf_d": False}, "virtualenv"),
        ("auto", {"sudo": False, "programs": {"supervisord": "/usr/bin/it's"}}, "user"),
        ("auto", {"own_supervisord": True, "programs": {"supervisord": "/usr/bin/it's"}}, "user"),
        ("auto", {"own_supervisord": True, "own_supervisord_installed": True}, "virtualenv"),
        ("system", {}, "system"),
        ("user", {"programs": {"supervisord": "/usr/bin/it's"}}, "user"),
        ("virtualenv", {}, "virtualenv"),
    ],
)
def test_find(level: str, facts: dict[str, Any], found: str) -> None:
    """What the setting says, or what the host allows; once chosen, a level stays."""
    settings = sample_settings(supervisor={"level": level}, environment={"A": "it's"})
    assert supervisor.find(settings, sample_facts(**facts), LAYOUT).level == found


@pytest.mark.parametrize(
    ("level", "facts", "message"),
    [
        ("system", {"supervisor_conf_d": False}, "supervisor is not installed on the host"),
        ("system", {"programs": {"uv": "/it's"}}, "supervisor is not installed on the host"),
        ("system", {"sudo": False}, "the host's supervisor belongs to root, and sudo asks for a password"),
        ("user", {}, "supervisor is not installed on the host"),
    ],
)
def test_a_level_that_is_not_there(level: str, facts: dict[str, Any], message: str) -> None:
    """The cure names the other level."""
    with pytest.raises(FabdjangoError) as caught:
        supervisor.find(sample_settings(supervisor={"level": level}), sample_facts(**facts), LAYOUT, "it's web1")
    assert (caught.value.message, caught.value.host) == (message, "it's web1")
    assert "fabdjango.supervisor.level" in caught.value.cure


def test_who_commands_it() -> None:
    """Root commands the system's, the owner a supervisord of the site's own, whose words are full of quotes."""
    assert (SYSTEM.user, SYSTEM.control, SYSTEM.conf_path) == (
        "root",
        "supervisorctl",
        PurePosixPath("/etc/supervisor/conf.d/blog.conf"),
    )
    own = LAYOUT.supervisor
    assert (OWN.user, OWN.conf_path, OWN.log_dir) == ("", own / "conf.d/blog.conf", LAYOUT.shared / "log")
    assert shlex.split(OWN.control) == [
        f"{own}/venv/bin/python",
        "-m",
        "supervisor.supervisorctl",
        "-c",
        f"{own}/supervisord.conf",
    ]
    assert shlex.split(OWN.daemon) == [
        f"{own}/venv/bin/python",
        "-m",
        "supervisor.supervisord",
        "-c",
        f"{own}/supervisord.conf",
    ]


def test_the_programs() -> None:
    """gunicorn and the other processes as one group; a shell line of several commands is stopped as a whole."""
    settings = sample_settings(
        processes={
            "worker": {"command": "celery -A 'it is' worker", "stop_timeout": 90, "startsecs": 3},
            "beat": {"command": "cd 'a b'; exec beat"},
        }
    )
    put = supervisor.configuration(settings, sample_facts(), LAYOUT, sample_templates(), SYSTEM)
    assert put == Put(SYSTEM.conf_path, put.content)
    parser = UnhosedConfigParser()
    parser.read_string(put.content)
    private = "/srv/it's here/current/.fabdjango"
    found = {
        name: [
            shlex.split(parser.saneget(f"program:{name}", "command", expansions={})),
            *(parser.get(f"program:{name}", key) for key in ("user", "startsecs", "stopwaitsecs", "stopasgroup")),
        ]
        for name in ("blog-web", "blog-worker", "blog-beat")
    }
    assert found == {
        "blog-web": [["/bin/sh", f"{private}/web"], "ada", "2", "40", "false"],
        "blog-worker": [["/bin/sh", f"{private}/process-worker"], "ada", "3", "90", "false"],
        "blog-beat": [["/bin/sh", f"{private}/process-beat"], "ada", "2", "30", "true"],
    }
    assert parser.get("group:blog", "programs") == "blog-web,blog-worker,blog-beat"
    assert "it is" not in put.content


def test_install_system() -> None:
    """Debian's service must run; we do not start other people's."""
    assert shown(*supervisor.install(sample_settings(), sample_facts(), LAYOUT, sample_templates(), SYSTEM)) == shell("""
        # supervisor (as root): supervisor runs
        supervisorctl pid >/dev/null || refuse 'the supervisor service does not run'
        out=$(supervisorctl reread) || { printf '%s\\n' "$out"; exit 1; }
        case $out in *ERROR*) printf "%s\\n" "$out"; exit 1;; esac
    """)


def test_install_own() -> None:
    """Installed once, started once; it does not inherit our lock."""
    assert shown(*supervisor.install(sample_settings(), sample_facts(), LAYOUT, sample_templates(), OWN)) == shell("""
        # supervisor: install supervisor into a virtualenv of its own
        if [ -e '/srv/it'"'"'s here/supervisor/venv/.complete' ]; then
          unchanged 'is there'
        fi
        rm -rf -- '/srv/it'"'"'s here/supervisor/venv'
        export PIP_NO_INPUT=1
        export UV_NO_PROGRESS=1
        export UV_PYTHON_DOWNLOADS=never
        /usr/bin/uv venv --quiet --no-project --python /usr/bin/python3 -- '/srv/it'"'"'s here/supervisor/venv' && /usr/bin/uv pip install --quiet --python '/srv/it'"'"'s here/supervisor/venv/bin/python' -- supervisor
        touch -- '/srv/it'"'"'s here/supervisor/venv/.complete'
        # supervisor: supervisord of the site's own runs
        replace '/srv/it'"'"'s here/supervisor/supervisord.conf' 644 <<'EOF'
        (461 bytes)
        EOF
        mkdir -p -- '/srv/it'"'"'s here/supervisor/conf.d' '/srv/it'"'"'s here/shared/log'
        chmod 750 -- '/srv/it'"'"'s here/shared/log'
        if '/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' pid >/dev/null 2>&1; then
          unchanged 'it runs'
        fi
        '/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisord -c '/srv/it'"'"'s here/supervisor/supervisord.conf' 9>&-
        n=0; until '/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' pid >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 100 ] || refuse 'supervisord does not come up'; sleep 0.1; done
    """)


def test_install_own_with_pip() -> None:
    """Without uv."""
    settings = sample_settings(venv={"installer": "pip", "index_url": "https://it's/"})
    assert shown(supervisor.install(settings, sample_facts(), LAYOUT, sample_templates(), OWN)[0]) == shell("""
        # supervisor: install supervisor into a virtualenv of its own
        if [ -e '/srv/it'"'"'s here/supervisor/venv/.complete' ]; then
          unchanged 'is there'
        fi
        rm -rf -- '/srv/it'"'"'s here/supervisor/venv'
        export PIP_INDEX_URL='https://it'"'"'s/'
        export PIP_NO_INPUT=1
        export UV_DEFAULT_INDEX='https://it'"'"'s/'
        export UV_NO_PROGRESS=1
        export UV_PYTHON_DOWNLOADS=never
        /usr/bin/python3 -m venv -- '/srv/it'"'"'s here/supervisor/venv' && '/srv/it'"'"'s here/supervisor/venv/bin/python' -m pip install --quiet --disable-pip-version-check --no-input -- supervisor
        touch -- '/srv/it'"'"'s here/supervisor/venv/.complete'
    """)


def test_a_root_that_is_too_long_for_a_socket() -> None:
    """The kernel takes 107 bytes."""
    layout = Layout(PurePosixPath("/srv/it's " + "x" * 80), "blog")
    daemon = supervisor.find(sample_settings(supervisor={"level": "virtualenv"}), sample_facts(), layout)
    with pytest.raises(FabdjangoError, match=r"supervisor\.sock is too long for a socket$"):
        supervisor.install(sample_settings(), sample_facts(), layout, sample_templates(), daemon)


def test_check() -> None:
    """supervisor's own parser reads the file first, from standard input."""
    put = Put(OWN.conf_path, "[program:it's]")
    step = supervisor.check(LAYOUT, OWN, put)
    assert step.program == onhost.source("check_supervisor")
    assert step.parameters == {"text": "[program:it's]", "name": "blog.conf"}
    assert shown(step) == shell("""
        # supervisor-check: supervisor reads blog.conf
        '/srv/it'"'"'s here/supervisor/venv/bin/python' - # Read a program file with supervisor's own parser; the words of its complaint are the output.
    """)


def test_check_with_the_systems() -> None:
    """The Python that the system's supervisord is written for."""
    assert shown(supervisor.check(LAYOUT, SYSTEM, Put(SYSTEM.conf_path, "it's"))) == shell(r"""
        # supervisor-check: supervisor reads blog.conf
        "$(sed -n '1s/^#! *\([^ ]*\).*/\1/p' "$(command -v supervisord)")" - # Read a program file with supervisor's own parser; the words of its complaint are the output.
    """)


def test_configure() -> None:
    """As root at the level of the system."""
    assert shown(supervisor.configure(SYSTEM, Put(SYSTEM.conf_path, "it's"))) == shell("""
        # configure (as root): write /etc/supervisor/conf.d/blog.conf
        replace /etc/supervisor/conf.d/blog.conf 644 <<'EOF'
        (4 bytes)
        EOF
        [ "$changed_files" ] || unchanged "as before"
    """)


def test_restart() -> None:
    """One restart, by update if the file has changed, else by restart; other groups are left alone."""
    assert shown(supervisor.restart(sample_settings(), SYSTEM)) == shell(r"""
        # restart (as root): restart blog:*
        out=$(supervisorctl reread) || { printf '%s\n' "$out"; exit 1; }
        case $out in *ERROR*) printf "%s\n" "$out"; exit 1;; esac
        changed=$(supervisorctl update blog) || { printf '%s\n' "$changed"; exit 1; }
        if [ "$changed" ]; then printf "%s\n" "$changed"; else supervisorctl restart 'blog:*'; fi
    """)


def test_restart_own() -> None:
    """The same at a supervisord of the site's own."""
    assert supervisor.restart(sample_settings(), OWN).body == shell(r"""
        out=$('/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' reread) || { printf '%s\n' "$out"; exit 1; }
        case $out in *ERROR*) printf "%s\n" "$out"; exit 1;; esac
        changed=$('/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' update blog) || { printf '%s\n' "$changed"; exit 1; }
        if [ "$changed" ]; then printf "%s\n" "$changed"; else '/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' restart 'blog:*'; fi
    """)


def test_restore() -> None:
    """The file as it was, and the programs with it."""
    previous = Put(OWN.conf_path, "it's")
    assert shown(supervisor.restore(sample_settings(), OWN, previous)).splitlines()[:4] == [
        "# restart-back: restart the previous release",
        "replace '/srv/it'\"'\"'s here/supervisor/conf.d/blog.conf' 644 <<'EOF'",
        "(4 bytes)",
        "EOF",
    ]


def test_restore_nothing() -> None:
    """Before the first deploy there was none."""
    assert shown(supervisor.restore(sample_settings(), OWN, None)) == shell("""
        # restart-back: no program of the site, as before
        rm -f -- '/srv/it'"'"'s here/supervisor/conf.d/blog.conf'
        '/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' reread >/dev/null || :
        '/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' update blog || :
    """)


def test_wait_running() -> None:
    """Until every program has stayed up; a program that cannot is told at once."""
    assert shown(supervisor.wait_running(sample_settings(), OWN, 5)) == shell(r"""
        # running: blog:* stays up
        n=0
        while :; do
          s=$('/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' status 'blog:*') || :
          case $s in *FATAL*|*"no such"*|*refused*) printf '%s\n' "$s"; refuse 'a program of the site does not stay up';; esac
          printf '%s\n' "$s" | grep -qv ' RUNNING ' || break
          n=$((n + 1)); [ $n -lt 25 ] || { printf '%s\n' "$s"; refuse 'the programs of the site do not come up'; }
          sleep 0.2
        done
    """)


def test_tail() -> None:
    """The end of every log, for the report of a failure."""
    step = supervisor.tail(sample_settings(processes={"worker": {"command": "it's"}}), OWN)
    assert step.capture
    assert shown(step) == shell("""
        # log: the end of the log
        tail -q -n 40 -- '/srv/it'"'"'s here/shared/log/blog-web.log' '/srv/it'"'"'s here/shared/log/blog-worker.log' 2>/dev/null || :
    """)


def test_start() -> None:
    """What runs already is no error, and unchanged if nothing else was to do."""
    assert shown(supervisor.start(sample_settings(), OWN)) == shell(r"""
        # start: start blog:*
        out=$('/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' start 'blog:*') && done=1 || done=
        printf "%s\n" "$out"
        [ "$done" ] || [ -z "$(printf "%s\n" "$out" | grep -v 'already started')" ]
        case $out in ''|*'already started'*) unchanged 'already started';; esac
    """)


def test_stop_one() -> None:
    """One program of the group."""
    assert shown(supervisor.stop(sample_settings(), OWN, "worker")) == shell(r"""
        # stop: stop blog:blog-worker
        out=$('/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' stop blog:blog-worker) && done=1 || done=
        printf "%s\n" "$out"
        [ "$done" ] || [ -z "$(printf "%s\n" "$out" | grep -v 'not running')" ]
        case $out in ''|*'not running'*) unchanged 'not running';; esac
    """)


def test_status() -> None:
    """supervisorctl's status 3 only says that something does not run."""
    assert shown(supervisor.status(sample_settings(), OWN)) == shell("""
        # status: supervisor: blog
        '/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' status 'blog:*' || [ $? = 3 ]
    """)


def test_logs() -> None:
    """The end of one log."""
    assert shown(supervisor.logs(sample_settings(), OWN, "web", 7)) == shell("""
        # logs: log of web
        tail -n 7 -- '/srv/it'"'"'s here/shared/log/blog-web.log'
    """)
