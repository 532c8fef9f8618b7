"""A canary in every place where an operator keeps a secret is seen by nobody who should not see it."""

from __future__ import annotations

import base64
import http.server
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.conftest import Staged
from tests.local.sample import DJANGO, make_project, make_wheel
from tests.local.stage import Stage, Tools, Watch

CANARY = f"c4n4ry-0f-th3-m1n3-{os.getpid()}-"
"""Of this process alone: another worker of pytest-xdist looks for its own."""
SECRETS = {"SHOP_KEY": f"{CANARY}-env $HOME 'q'", "SHOP_PRICE": f'{CANARY}-local "q"', "SHOP_INDEX": f"{CANARY}-index"}


class _Index(http.server.BaseHTTPRequestHandler):
    """An index of packages that lets in whoever knows the password."""

    shelf: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"ada:{SECRETS['SHOP_INDEX']}".encode()).decode()
        name = self.path.strip("/").rpartition("/")[2]
        if self.headers.get("Authorization") != wanted:
            self._answer(401, b"")
        elif (self.shelf / name).is_file():
            self._answer(200, (self.shelf / name).read_bytes())
        elif list(self.shelf.glob(f"{name}-*")):
            links = "".join(f'<a href="/files/{path.name}">{path.name}</a>' for path in self.shelf.glob(f"{name}-*"))
            self._answer(200, f"<!DOCTYPE html><html><body>{links}</body></html>".encode())
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="shelf"')
        self.send_header("Content-Type", "text/html" if body.startswith(b"<!DOCTYPE") else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The address of an index with one package, alpha, and the password in it."""
    make_wheel(tmp_path, "alpha", "1.0")
    handler = type("Index", (_Index,), {"shelf": tmp_path})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://ada:{SECRETS['SHOP_INDEX']}@127.0.0.1:{server.server_port}/simple/"
        server.shutdown()


def readable_by_others(path: Path, top: Path) -> bool:
    """True if an account that is neither owner nor in the group can open the file."""
    folders = [folder for folder in path.parents if folder.is_relative_to(top)]
    return bool(path.stat().st_mode & stat.S_IROTH) and all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)


def leaks(stage: Stage, *more: Path) -> list[str]:
    """Files with the canary that others can read; the operator's own are not among them."""
    found = []
    for top in (stage.home, *more):
        listed = subprocess.run(["grep", "-rlaF", CANARY, "--", top], capture_output=True, text=True, check=False)
        found += [name for name in listed.stdout.splitlines() if readable_by_others(Path(name), top)]
    return found


@pytest.mark.parametrize("installer", ["uv", pytest.param("pip", marks=pytest.mark.nightly)])
def test_nobody_sees_a_secret(staged: Staged, tools: Tools, index: str, installer: str) -> None:
    """Outputs, journal, command lines, sessions and files; of deploys that work, that fail, and that are reverted."""
    stage = staged()
    files = make_project(requirements=f"{DJANGO}\nalpha\n")
    stage.repository.commit(files)
    stage.write("live.env.j2", 'SHOP_SECRET_KEY="{{ env.SHOP_KEY | replace("$", "\\\\$") }}"\n')
    stage.write("local.py.j2", "PRICE = {{ env.SHOP_PRICE | python }}\n")
    stage.configure(
        env_file="live.env.j2",
        local_settings="local.py.j2",
        venv={"installer": installer, "extra_index_urls": [index]},
        django={"collectstatic": "never"},
        health={"timeout": 6},
        processes={"worker": {"command": "exec sleep 1000", "startsecs": 0}},
    )
    stage.operator.chmod(0o700)
    with Watch(CANARY) as watch:
        stage.deploy(environ=SECRETS)
        assert "alpha" in stage.packages
        answer = stage.get().page
        assert answer["price"] == SECRETS["SHOP_PRICE"]
        if installer == "uv":
            # Every line that steps print, and the machine's form of a report.
            stage.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
            stage.fab("--echo", "deploy", environ=SECRETS)
            stage.fab("--dry", "deploy", environ=SECRETS)
            stage.fab("config", environ=SECRETS)
            stage.fab("venv.package", "--names", "alpha", environ=SECRETS)
            stage.fab("venv.package", "--names", "no-such-package-of-ours", environ=SECRETS, code=1)
            run = stage.fab(
                "django.manage",
                "shell -c 'from django.conf import settings as s; print(s.SECRET_KEY, s.PRICE)'",
                environ=SECRETS,
            )
            assert "********" in run.out
            stage.configure(output="json")
            fail(stage, "check", "shop/settings.py", 'raise ValueError(f"{SECRET_KEY} {PRICE!r}")\n', 1)
            fail(
                stage,
                "log",
                "shop/wsgi.py",
                "import sys\nfrom django.conf import settings\nif 'gunicorn' in sys.argv[0]:\n    raise ValueError(settings.SECRET_KEY, settings.PRICE)\n",
                1,
            )
    assert watch.looks > 100
    assert watch.found == set()
    assert not any(CANARY in command for command in stage.server.sessions)
    for text in stage.outputs:
        assert CANARY not in text
    assert CANARY not in (stage.root / "journal.jsonl").read_text()
    assert leaks(stage, tools.cache) == []
    # The search itself finds what is there to be found.
    (stage.home / "seen").write_text(CANARY)
    assert leaks(stage) == [str(stage.home / "seen")]


def fail(stage: Stage, name: str, path: str, more: str, code: int) -> None:
    """A deploy that ends with the secrets in the words of its failure."""
    stage.repository.branch(name, {path: (stage.repository.path / path).read_text() + more})
    run = stage.deploy("--commit", name, environ=SECRETS, code=code)
    assert "ValueError" in run.err
    assert "********" in run.err


def test_the_watch_sees_command_lines() -> None:
    """What the test above relies on: a process with the word in its command line is noticed."""
    word = f"seen-by-the-watch-{os.getpid()}"
    with Watch(word) as watch:
        subprocess.run(["sh", "-c", f"sleep 0.3 # {word}"], check=True)
    assert any("sleep" in line for line in watch.found)
