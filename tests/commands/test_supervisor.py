"""supervisor as the process manager: which one, what it reads, and what it is told."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Any

import pytest
from supervisor.options import UnhosedConfigParser  # type: ignore[import-untyped]

from fabdjango import onhost
from fabdjango.commands import supervisor
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.layout import Layout
from fabdjango.plan import Put
from tests.conftest import LAYOUT, sample_facts, sample_settings, sample_templates, shell, shown

PROCESSES = {
    "worker": {"command": "celery -A 'it is' worker", "stop_timeout": 90, "startsecs": 3},
    "beat": {"command": "cd 'a b'; exec beat"},
}


def found(
    level: str = "system", held: str = "", layout: Layout = LAYOUT, facts: dict[str, Any] | None = None, **more: Any
) -> supervisor.Supervisord:
    """The sample site's supervisord; ``more`` is settings."""
    settings = sample_settings({"supervisor": {"level": level}, **more})
    return supervisor.find(settings, sample_facts(**(facts or {})), layout, sample_templates(), held=held)


SYSTEM = found(processes=PROCESSES)
OWN = found("virtualenv", processes=PROCESSES)


@pytest.mark.parametrize(
    ("level", "facts", "level_found"),
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
def test_find(level: str, facts: dict[str, Any], level_found: str) -> None:
    """What the setting says, or what the host allows; once chosen, a level stays."""
    settings = sample_settings(supervisor={"level": level}, environment={"A": "it's"})
    assert supervisor.level_of(settings, sample_facts(**facts)) == level_found


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
        supervisor.level_of(sample_settings(supervisor={"level": level}), sample_facts(**facts), "it's web1")
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


def programs_of(daemon: supervisor.Supervisord) -> dict[str, list[object]]:
    """What supervisor's own parser reads: command, account, seconds and whether a signal goes to the whole group."""
    (put,) = daemon.files
    assert put == Put(daemon.conf_path, put.content)
    parser = UnhosedConfigParser()
    parser.read_string(put.content)
    return {
        section: [
            shlex.split(parser.saneget(section, "command", expansions={"process_num": 97})),
            *(parser.get(section, key) for key in ("user", "startsecs", "stopwaitsecs", "stopasgroup")),
        ]
        for section in parser.sections()
    }


START = "/srv/it's here/run/slot"
PRIVATE = "/srv/it's here/current/.fabdjango"


def test_the_programs() -> None:
    """A program a slot and a process, none in a group; a shell line of several commands is stopped as a whole."""
    assert programs_of(SYSTEM) == {
        "program:blog-web-a": [["/bin/sh", START, "a"], "ada", "1", "40", "false"],
        "program:blog-web-b": [["/bin/sh", START, "b"], "ada", "1", "40", "false"],
        "program:blog-worker": [["/bin/sh", f"{PRIVATE}/process-worker"], "ada", "3", "90", "false"],
        "program:blog-beat": [["/bin/sh", f"{PRIVATE}/process-beat"], "ada", "2", "30", "true"],
    }
    assert "it is" not in SYSTEM.files[0].content


@pytest.mark.parametrize(
    ("held", "name", "socket"),
    [
        ("127.0.0.1:8000", "blog-web-8000", "tcp://127.0.0.1:8000"),
        ("0.0.0.0:80", "blog-web-0.0.0.0-80", "tcp://0.0.0.0:80"),
        (":80", "blog-web-any-80", "tcp://0.0.0.0:80"),
    ],
)
def test_a_held_socket(held: str, name: str, socket: str) -> None:
    """One group for both slots, which a longer graceful_timeout does not change: that would start both anew."""
    daemon = found(held=held, gunicorn={"graceful_timeout": 120})
    assert programs_of(daemon) == {f"fcgi-program:{name}": [["/bin/sh", START, "a", "0"], "ada", "1", "300", "false"]}
    assert f"socket={socket}\n" in daemon.files[0].content
    assert daemon.files == found(held=held).files


def test_supervisor_cannot_hold_ipv6() -> None:
    """The cure names what can."""
    with pytest.raises(ConfigError, match=r"cannot hold a socket of IPv6, such as \[::1\]:8000$") as caught:
        found(held="[::1]:8000")
    assert "fabdjango.manager to systemd" in caught.value.cure


def test_install_system() -> None:
    """Debian's service must run; we do not start other people's."""
    assert shown(*SYSTEM.install()) == shell("""
        # supervisor (as root): supervisor runs
        supervisorctl pid >/dev/null || refuse 'the supervisor service does not run'
        out=$(supervisorctl reread) || { printf '%s\\n' "$out"; exit 1; }
        case $out in *ERROR*) printf "%s\\n" "$out"; exit 1;; esac
    """)


def test_install_own() -> None:
    """Installed once, started once; it does not inherit our lock."""
    assert shown(*OWN.install()) == shell("""
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
        '/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisord -c '/srv/it'"'"'s here/supervisor/supervisord.conf' 8>&- 9>&-
        n=0; until '/srv/it'"'"'s here/supervisor/venv/bin/python' -m supervisor.supervisorctl -c '/srv/it'"'"'s here/supervisor/supervisord.conf' pid >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 100 ] || refuse 'supervisord does not come up'; sleep 0.1; done
    """)


def test_install_own_with_pip() -> None:
    """Without uv."""
    daemon = found("virtualenv", venv={"installer": "pip", "index_url": "https://it's/"})
    assert shown(daemon.install()[0]) == shell("""
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
    with pytest.raises(FabdjangoError, match=r"supervisor\.sock is too long for a socket$"):
        found("virtualenv", layout=layout).install()


def test_check() -> None:
    """supervisor's own parser reads the file first, from standard input; the Python is the one that it is written for."""
    step = SYSTEM.check()
    assert step.program == onhost.source("check_supervisor")
    assert step.parameters == {"text": SYSTEM.files[0].content, "name": "blog.conf"}
    assert shown(step, OWN.check()) == shell(r"""
        # manager-check: supervisor reads blog.conf
        "$(sed -n '1s/^#! *\([^ ]*\).*/\1/p' "$(command -v supervisord)")" - # Read a program file with supervisor's own parser; the words of its complaint are the output.
        # manager-check: supervisor reads blog.conf
        '/srv/it'"'"'s here/supervisor/venv/bin/python' - # Read a program file with supervisor's own parser; the words of its complaint are the output.
    """)


def test_configure() -> None:
    """The file, and let supervisor read it: that does nothing to any program."""
    assert shown(found().configure()) == shell(r"""
        # configure (as root): write /etc/supervisor/conf.d/blog.conf
        replace /etc/supervisor/conf.d/blog.conf 644 <<'EOF'
        (1016 bytes)
        EOF
        [ "$changed_files" ] || unchanged "as before"
        out=$(supervisorctl reread) || { printf '%s\n' "$out"; exit 1; }
        case $out in *ERROR*) printf "%s\n" "$out"; exit 1;; esac
    """)


TOLD = "python' - # Tell supervisord, over its own interface, what becomes of the site's programs; nobody else's are touched."


def test_restore() -> None:
    """The file as it was; without one before, none."""
    assert shown(OWN.restore((Put(OWN.conf_path, "it's"),)), OWN.restore((None,))) == shell(f"""
        # configure-back: /srv/it's here/supervisor/conf.d/blog.conf as it was
        replace '/srv/it'"'"'s here/supervisor/conf.d/blog.conf' 644 <<'EOF'
        (4 bytes)
        EOF
        export FABDJANGO_RUN
        '/srv/it'"'"'s here/supervisor/venv/bin/{TOLD}
        # configure-back: /srv/it's here/supervisor/conf.d/blog.conf as it was
        rm -f -- '/srv/it'"'"'s here/supervisor/conf.d/blog.conf'
        export FABDJANGO_RUN
        '/srv/it'"'"'s here/supervisor/venv/bin/{TOLD}
    """)


def test_what_supervisord_is_told() -> None:
    """Names and times as data; every program has its own time to stop, and only our groups are named."""
    step = found(held="127.0.0.1:8000", processes=PROCESSES).start_slot("b")
    assert (step.name, step.title, step.user) == ("start", "start blog-web-b", "root")
    assert step.parameters == {
        "verb": "start_slot",
        "project": "blog",
        "config": "",
        "limits": {"blog-web-a": 40, "blog-web-b": 40, "blog-worker": 90, "blog-beat": 30},
        "previous": ("blog-web-8000", "blog-worker", "blog-beat"),
        "patience": 33,
        "group": "blog-web-8000",
        "program": "blog-web-b",
        "other": "blog-web-a",
        "link": "/srv/it's here/slots/a",
        "held": True,
    }
    stop = OWN.stop_slot("a")
    assert (stop.name, stop.user, stop.parameters["verb"], stop.parameters["group"]) == (
        "stop-old",
        "",
        "stop_slot",
        "blog-web-a",
    )
    assert stop.parameters["config"] == "/srv/it's here/supervisor/supervisord.conf"


def test_the_processes() -> None:
    """Those of the settings; and where there are none, those that the file on the host had."""
    step = SYSTEM.restart_processes()
    assert step
    assert step.parameters["programs"] == ["blog-worker", "blog-beat"]
    assert found().restart_processes() is None
    path = "/etc/supervisor/conf.d/blog.conf"
    before = {"managed": {path: {"text": "[program:blog-web-a]\n[program:blog-it's]\n"}}}
    after = found(facts=before).restart_processes()
    assert after
    assert after.parameters["previous"] == ("blog-web-a", "blog-it's", "blog-web-b")


def test_start_and_stop() -> None:
    """The live slot and the processes, or one of them; stop is for both slots."""
    worker, beat = ["blog-worker"] * 2, ["blog-beat"] * 2
    assert SYSTEM.start("", "b").parameters["targets"] == [["blog-web-b"] * 2, worker, beat]
    assert SYSTEM.stop().parameters["targets"] == [["blog-web-a"] * 2, ["blog-web-b"] * 2, worker, beat]
    assert SYSTEM.stop("worker").parameters["targets"] == [worker]
    assert found(held="127.0.0.1:8000").stop("web").parameters["targets"] == [
        ["blog-web-8000", "blog-web-a"],
        ["blog-web-8000", "blog-web-b"],
    ]


def test_status() -> None:
    """What does not run is no error, and a slot that was never used is left out."""
    assert shown(found(held="127.0.0.1:8000").status()) == shell(r"""
        # status (as root): supervisor: blog
        supervisorctl pid >/dev/null || refuse 'supervisord does not run'
        out=$(supervisorctl status blog-web-8000:blog-web-a blog-web-8000:blog-web-b) || :
        printf '%s\n' "$out" | grep -v 'no such process' || :
    """)


def test_logs() -> None:
    """The end of one log, or of both slots'; and all of them for the report of a failure."""
    assert OWN.tail().capture
    assert shown(OWN.logs("worker", 7), OWN.logs("web", 7), found("virtualenv").tail()) == shell("""
        # logs: log of worker
        tail -n 7 -- '/srv/it'"'"'s here/shared/log/blog-worker.log' 2>/dev/null || [ 0 != 0 ]
        # logs: log of web
        tail -n 7 -- '/srv/it'"'"'s here/shared/log/blog-web-a.log' '/srv/it'"'"'s here/shared/log/blog-web-b.log' 2>/dev/null || [ 1 != 0 ]
        # log: the end of the log
        tail -q -n 40 -- '/srv/it'"'"'s here/shared/log/blog-web-a.log' '/srv/it'"'"'s here/shared/log/blog-web-b.log' 2>/dev/null || :
    """)


def test_the_way_back_starts_what_was_taken_away() -> None:
    """Programs that only the file of before has run again, beside those that both have."""
    it = found(processes={"worker": {"command": "it's"}})
    before = Put(it.conf_path, "[program:blog-web-a]\n[program:blog-old]\n[program:blog-worker]\n")
    step = it.restart_processes(name="processes-back", back=(before,))
    assert step
    assert step.parameters["programs"] == ["blog-worker", "blog-old"]
    assert it.restart_processes(back=(None,)) is not None
