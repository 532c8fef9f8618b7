"""How the site is served and asked: interfaces, https, sockets, and a release known by its process alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.local.sample import make_project
from tests.local.stage import Stage, free_port, processes_below


@pytest.fixture
def site(stage: Stage) -> Stage:
    """A stage with the sample project committed; static files are left out, for speed."""
    stage.repository.commit(make_project())
    stage.configure(django={"collectstatic": "never"})
    return stage


@pytest.mark.parametrize("worker_class", ["", "asgi"])
def test_asgi(site: Stage, worker_class: str) -> None:
    """Under uvicorn's worker and under gunicorn's own; the second deploy is told from the first by its answer."""
    site.configure(gunicorn={"interface": "asgi", "worker_class": worker_class})
    site.deploy()
    assert site.get().page["interface"] == "ASGIRequest"
    assert ("uvicorn" in site.packages) is (worker_class == "")
    probe = site.get(X_Fabdjango_Probe="1")
    assert {name.lower(): value for name, value in probe.headers.items()}["x-fabdjango-release"] == site.current
    assert "x-fabdjango-release" not in {name.lower() for name in site.get().headers}
    if not worker_class:
        return
    site.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
    site.deploy()
    assert site.get().page["edition"] == "2"


def test_without_the_header(site: Stage) -> None:
    """A release is known by the directory of the process that listens, on a port and on a socket."""
    site.configure(gunicorn={"release_header": False})
    site.deploy()
    assert "X-Fabdjango-Release" not in site.get(X_Fabdjango_Probe="1").headers
    site.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
    site.deploy()
    assert site.get().page["release"] == site.current
    # The same release at another address.
    site.configure(gunicorn={"bind": "unix:{run}/web.sock"})
    site.deploy()
    assert site.current.startswith("2-")
    assert (site.root / "run/web.sock").is_socket()
    assert not site.listens()
    assert any(site.current in line for line in processes_below(site.private).values())


@pytest.mark.parametrize("header", [True, False])
def test_https(site: Stage, header: bool) -> None:
    """A site that redirects to https is asked as its proxy would ask; if it redirects even that, the cure is named."""
    more = 'SECURE_SSL_REDIRECT = True\nPRICE = "1.00"'
    if header:
        more += '\nSECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")'
    site.repository.commit({"shop/settings.py": site.repository.edit("shop/settings.py", 'PRICE = "1.00"', more)})
    # gunicorn believes the header of a local proxy by itself, unless it is told not to.
    site.configure(health={"text": "edition"}, gunicorn={"options": {"forwarded_allow_ips": ""}})
    if not header:
        run = site.deploy(code=3)
        assert "the site redirects to https even a request that a proxy marked as https (X-Forwarded-Proto)" in run.err
        cure = (
            "set SECURE_PROXY_SSL_HEADER = ('HTTP_X_FORWARDED_PROTO', 'https') in the settings, or health.expect to 301"
        )
        assert f" do this: {cure}\n" in run.err
        assert not site.current
        site.configure(gunicorn={"options": {}})
    site.deploy()
    assert site.get().status == 301
    assert site.get(X_Forwarded_Proto="https").page["release"] == site.current


def test_what_counts_as_healthy(site: Stage) -> None:
    """Status, text and a static file, each of which a release can fail; the old one is asked as it was asked then."""
    site.configure(
        health={"path": "/static/notes/site.css", "text": "teal", "static": "notes/site.css", "timeout": 6},
        django={"collectstatic": "auto"},
    )
    site.deploy()
    old = site.current
    untouched = " state: nothing that serves was touched (exit 1)\n"
    site.configure(environment={"SHOP_GREETING": "hello"}, health={"text": "crimson"})
    run = site.deploy(code=1)
    assert "the answer to /static/notes/site.css does not hold the text 'crimson'" in run.err
    assert untouched in run.err
    # On another address too, where the old one does not listen.
    site.configure(gunicorn={"bind": f"127.0.0.1:{free_port()}"}, health={"text": "", "static": "notes/gone.css"})
    run = site.deploy(code=1)
    assert "the static file /static/notes/gone.css answers 404" in run.err
    assert untouched in run.err
    assert site.get().page["release"] == old == site.current
    site.configure(health={"static": "", "expect": [404, 410], "path": "/gone"})
    site.deploy()
    assert site.current != old


def test_a_port_that_another_program_has(site: Stage) -> None:
    """An answer from something else is not taken for the new release's."""
    other = site.repository.path
    program = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(site.port)]
    process = subprocess.Popen(program, cwd=other, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        site.configure(health={"timeout": 6})
        run = site.deploy(code=1)
    finally:
        process.kill()
        process.wait()
    assert "supervisord cannot take" in run.err
    assert "is its address in use?" in run.err
    assert not site.current
    site.deploy()
