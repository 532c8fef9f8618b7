"""The application server: what it is told, and how it is started."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path, PurePosixPath
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fabdjango.commands import gunicorn
from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout
from fabdjango.plan import Put
from tests.conftest import LAYOUT, RELEASE, sample_facts, sample_settings, sample_templates, shell, shown


def configured(values: dict[str, Any], layout: Layout = LAYOUT, **facts: Any) -> dict[str, Any]:
    """gunicorn's settings, read as gunicorn reads them."""
    directory = layout.release(RELEASE)
    put = gunicorn.configure(
        sample_settings(values), sample_facts(**facts), layout, sample_templates(), RELEASE, directory
    )
    assert put == Put(directory / ".fabdjango" / "gunicorn.conf.py", put.content)
    found: dict[str, Any] = {}
    exec(compile(put.content, "gunicorn.conf.py", "exec"), found)  # noqa: S102 - gunicorn does
    return found


@pytest.fixture(autouse=True)
def arbiter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that gunicorn's master is in, as far as the file touches it; the sites of the other tests have the real one."""
    module: Any = ModuleType("gunicorn.arbiter")
    module.time = time
    package: Any = ModuleType("gunicorn")
    package.arbiter = module
    monkeypatch.setitem(sys.modules, "gunicorn", package)
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", module)
    return module


def test_the_master_does_not_dawdle(monkeypatch: pytest.MonkeyPatch, arbiter: Any) -> None:
    """It looks sooner than each 0.1 s whether its workers have ended; every other program's clock stays as it is."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    configured({})["on_starting"](SimpleNamespace())
    for seconds in (0.1, 0.001):
        arbiter.time.sleep(seconds)
    assert slept == [0.002, 0.001]
    assert arbiter.time.monotonic is time.monotonic
    assert time.sleep == slept.append


def test_the_defaults() -> None:
    """What a small site gets; the file itself is tests/golden/gunicorn.conf."""
    found = configured({"environment": {"A": "it's"}})
    names = (
        "wsgi_app",
        "bind",
        "workers",
        "threads",
        "worker_class",
        "timeout",
        "chdir",
        "proc_name",
        "worker_tmp_dir",
    )
    assert [found[name] for name in names] == [
        "blog.wsgi:application",
        ["unix:/srv/it's here/run/sockets/manual.sock"],
        5,
        1,
        "sync",
        30,
        "/srv/it's here/releases/7-0123456789ab",
        "blog",
        "/dev/shm",  # noqa: S108 - gunicorn's heartbeat files
    ]
    assert found["control_socket_disable"] is True


@pytest.mark.parametrize(
    ("values", "facts", "name", "value"),
    [
        ({"workers": 3}, {}, "workers", 3),
        ({"workers": "auto"}, {"processors": 1}, "workers", 3),
        ({"workers": "auto"}, {"processors": 64}, "workers", 9),
        ({"threads": 4}, {}, "worker_class", "gthread"),
        ({"interface": "asgi"}, {}, "worker_class", "uvicorn_worker.UvicornWorker"),
        ({"interface": "asgi"}, {}, "wsgi_app", "blog.asgi:application"),
        ({"worker_class": "it's"}, {}, "worker_class", "it's"),
        ({"app": "it.is:make('a b')"}, {}, "wsgi_app", "it.is:make('a b')"),
        ({"max_requests": 1000}, {}, "max_requests_jitter", 100),
        ({"options": {"keepalive": 5}}, {}, "keepalive", 5),
        ({"options": {"timeout": 99}}, {}, "timeout", 99),
        ({"options": {"secure_scheme_headers": {"X-IT'S": "a b"}}}, {}, "secure_scheme_headers", {"X-IT'S": "a b"}),
    ],
)
def test_a_setting(values: dict[str, Any], facts: dict[str, Any], name: str, value: object) -> None:
    """From fabric.yaml to gunicorn."""
    assert configured({"gunicorn": values}, **facts)[name] == value


def test_where_a_slot_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a socket of its own; what the settings call bind is for the process manager and the switch."""
    monkeypatch.setenv("FABDJANGO_SLOT", "b")
    found = configured({"gunicorn": {"bind": "127.0.0.1:9000"}})
    assert found["bind"] == ["unix:/srv/it's here/run/sockets/b.sock"]


def test_a_live_slot_takes_from_the_held_socket_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """gunicorn gets both as numbers, and must not unlink what others listen on; a socket that was left behind is no obstacle."""
    (tmp_path / "it's here").mkdir()
    monkeypatch.setenv("FABDJANGO_SLOT", "a")
    monkeypatch.setenv("FABDJANGO_FD", "3")
    layout = Layout(PurePosixPath(tmp_path / "it's here"), "blog")
    Path(layout.sockets).mkdir(parents=True)
    for _ in range(2):
        found = configured({}, layout)
        held, private = found["bind"]
        assert held == "fd://3"
        with socket.socket(fileno=int(private.removeprefix("fd://"))) as listening:
            assert listening.getsockname() == str(layout.private_socket("a"))
        server = SimpleNamespace(systemd=False)
        found["on_starting"](server)
        assert server.systemd


@pytest.mark.parametrize(
    ("values", "bind", "held"),
    [
        ({}, "127.0.0.1:8000", "127.0.0.1:8000"),
        ({"gunicorn": {"bind": "[::1]:8000"}}, "[::1]:8000", "[::1]:8000"),
        ({"nginx": {"domains": ["blog.example.com"]}}, "unix:/srv/it's here/run/current.sock", ""),
        ({"gunicorn": {"bind": "unix:{run}/{project}.sock"}}, "unix:/srv/it's here/run/blog.sock", ""),
        (
            {"nginx": {"domains": ["blog.example.com"]}, "slots": "1"},
            "unix:/srv/it's here/run/site.sock",
            "unix:/srv/it's here/run/site.sock",
        ),
        ({"nginx": {"domains": ["blog.example.com"]}, "gunicorn": {"bind": ":80"}}, ":80", ":80"),
    ],
)
def test_where_the_site_is_asked_and_who_holds_it(values: dict[str, Any], bind: str, held: str) -> None:
    """A path is pointed at another slot by a rename; a port, and the only slot's address, are held by the process manager."""
    settings = sample_settings(values)
    assert (gunicorn.bind_of(settings, LAYOUT), gunicorn.held(settings, LAYOUT)) == (bind, held)


def test_the_socket_of_a_slot_is_no_address_of_the_site() -> None:
    """It would be gone with the slot."""
    with pytest.raises(ConfigError, match=r"is where the slots listen for themselves$"):
        gunicorn.bind_of(sample_settings(gunicorn={"bind": "unix:{run}/sockets/a.sock"}), LAYOUT)


def test_a_root_that_is_too_long_for_the_sockets_of_slots() -> None:
    """Also where the site itself has a port."""
    with pytest.raises(ConfigError, match=r"run/sockets/a\.sock is too long for a socket$"):
        gunicorn.bind_of(sample_settings(), Layout(PurePosixPath("/srv/it's " + "x" * 90), "blog"))


def test_without_the_header() -> None:
    """A project that wants no header of ours gets no code of ours."""
    found = configured({"gunicorn": {"release_header": False}, "environment": {"A": "it's"}})
    assert "post_worker_init" not in found
    assert "worker_tmp_dir" not in configured({}, system="FreeBSD amd64")


@pytest.mark.parametrize("app", ["it's", "a b:c", "a:b;c", "a:", ":b", "-x", "a-b:c", "a:b()()x", "a\u00a0b"])
def test_no_application(app: str) -> None:
    """The error shows the form."""
    with pytest.raises(ConfigError) as caught:
        gunicorn.app_of(sample_settings(gunicorn={"app": app}), "blog.settings")
    assert caught.value.message == f"fabdjango.gunicorn.app must be module:name, not {app!r}"
    assert caught.value.cure == "for instance app: blog.wsgi:application"


@pytest.mark.parametrize("bind", ["8000", "it's:x", "a b:80", "localhost:123456", "unix:it's.sock", "fd://3", "unix:"])
def test_no_address(bind: str) -> None:
    """Neither host:port nor the absolute path of a socket."""
    with pytest.raises(ConfigError, match=r"^fabdjango\.gunicorn\.bind"):
        gunicorn.bind_of(sample_settings(gunicorn={"bind": bind}), LAYOUT)


def test_a_socket_with_too_long_a_name() -> None:
    """The kernel takes 107 bytes, and an ü is two."""
    fits = "unix:/run/it's/" + "ü" * 48
    assert gunicorn.bind_of(sample_settings(gunicorn={"bind": fits}), LAYOUT) == fits
    with pytest.raises(ConfigError, match=r"is not an absolute path of at most 107 bytes$"):
        gunicorn.bind_of(sample_settings(gunicorn={"bind": fits + "é"}), LAYOUT)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), {"it's": {1, 2}}])
def test_an_option_that_python_cannot_say(value: object) -> None:
    """YAML has values that a Python file has not."""
    with pytest.raises(ConfigError, match="cannot be written as a Python literal"):
        configured({"gunicorn": {"options": {"it_is": value}}})


def test_start_words() -> None:
    """As a module, so that nothing outside the virtualenv takes part."""
    assert gunicorn.start_words(LAYOUT, RELEASE) == shell("""
        python -m gunicorn -c '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/gunicorn.conf.py'
    """)


def test_check() -> None:
    """gunicorn itself reads the file and imports the application."""
    assert shown(gunicorn.check(LAYOUT)) == shell("""
        # check: gunicorn --check-config
        /bin/sh '/srv/it'"'"'s here/current/.fabdjango/run' python -m gunicorn --check-config -c '/srv/it'"'"'s here/current/.fabdjango/gunicorn.conf.py'
    """)


def test_run() -> None:
    """In the foreground, beside the site."""
    assert gunicorn.run(LAYOUT, "[::1]:80 it's") == shell("""
        exec /bin/sh '/srv/it'"'"'s here/current/.fabdjango/run' python -m gunicorn -c '/srv/it'"'"'s here/current/.fabdjango/gunicorn.conf.py' --bind '[::1]:80 it'"'"'s'
    """)


def test_status() -> None:
    """Read from /proc, so that it does not matter who started them."""
    assert shown(gunicorn.status(LAYOUT)) == shell(r"""
        # status: gunicorn processes: pid, account, working directory
        found=
        for p in /proc/[0-9]*; do
          case $(cat "$p/cmdline" 2>/dev/null | tr '\0' ' ') in
            *gunicorn*'/srv/it'"'"'s here/releases'/*) found=1; printf '%s %s %s\n' "${p#/proc/}" "$(stat -c %U "$p")" "$(readlink "$p/cwd" 2>/dev/null || printf '(not readable)')";;
          esac
        done
        [ "$found" ] || printf 'no gunicorn of this site runs\n'
    """)
