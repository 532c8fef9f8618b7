"""This project's own chores, the demo, and the documentation that must not grow stale."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.vendor import yaml

from demo import commits, run
from docs import tables
from fabdjango.configuration import Layer, resolve
from fabdjango.settings import setting_rows
from tests.test_cli import listed

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = Path(sys.executable).parent


def inv(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one of the chores, with these variables on top of our own environment."""
    return subprocess.run(
        [PROGRAMS / "inv", *words],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


# --- the README --------------------------------------------------------------


def blocks(language: str) -> list[str]:
    """The README's examples in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_tables_are_those_of_the_code() -> None:
    """Whoever changes a task or a setting runs ``inv docs``."""
    assert tables.renewed(README) == README, "stale: run inv docs"


def test_a_readme_without_a_place_for_a_table_is_an_error() -> None:
    """A lost marker must not pass for a table that is up to date."""
    with pytest.raises(ValueError, match="settings: written by inv docs"):
        tables.renewed(README.replace("<!-- settings: written by inv docs -->", ""))


def test_every_setting_and_every_task_is_in_its_table() -> None:
    """One line each."""
    settings = README.partition("<!-- settings")[2].partition("<!-- end of settings")[0]
    for row in setting_rows():
        assert settings.count(f"\n| `{row.key.replace('*', 'NAME')}` |") == 1, row.key


def test_the_two_commands_of_the_first_screen() -> None:
    """The demo and the tests, one line each, early enough to be found."""
    demo, test = (
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[demo]' && .venv/bin/inv demo\n",
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/inv test\n",
    )
    assert blocks("sh")[:2] == [demo, test]
    assert README.partition(test)[0].count("\n") < 30


def test_ci_runs_the_command_of_the_readme() -> None:
    """It takes the line from there, with a pattern that fits this line alone."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"^command=\$\(grep -m 1 -E '(.*)' README\.md\)$", script, re.MULTILINE)
    assert pattern
    assert [line for line in README.splitlines() if re.search(pattern[1], line)] == [blocks("sh")[1].strip()]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def test_every_room_is_in_the_table_of_rooms() -> None:
    """A new module gets its line there, and a line goes with its module."""
    told = set(re.findall(r"^\| `(fabdjango/[\w./]+)` \|", README, re.MULTILINE))
    modules = {f"fabdjango/{path.name}" for path in (ROOT / "fabdjango").glob("*.py")} - {"fabdjango/__init__.py"}
    folders = {f"fabdjango/{path.parent.name}/" for path in (ROOT / "fabdjango").glob("*/__init__.py")}
    assert told == modules | folders


def test_the_fabfiles_of_the_readme_work(tmp_path: Path) -> None:
    """Copied as they stand, each of them lists its tasks."""
    examples = blocks("python")
    assert len(examples) == 4
    for number, example in enumerate(examples):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert len(listed(example, folder)) > 10, example


def test_the_configurations_of_the_documentation_are_valid() -> None:
    """Every key and value in the README's fabric.yaml and in the commented example is one that there is."""
    texts = [*blocks("yaml"), (ROOT / "examples" / "fabric.yaml").read_text(encoding="utf-8")]
    assert len(texts) == 9
    for text in texts:
        values = yaml.safe_load(text)["fabdjango"]  # type: ignore[no-untyped-call]
        for stage in ("", *values.get("stages", ())):
            for host in ("", *values.get("hosts", ())):
                assert resolve([Layer("fabric.yaml", values)], stage=stage, host=host).settings.project in (
                    "blog",
                    "tickets",
                )


def test_links_in_the_readme_lead_somewhere() -> None:
    """Those to files of this project."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


# --- chores ------------------------------------------------------------------


def test_docs_is_done_when_nothing_is_stale() -> None:
    """A second run changes nothing and says so."""
    done = inv("docs")
    assert (done.returncode, done.stdout) == (0, "README.md: unchanged\n")


def test_hosts_up_wants_a_number() -> None:
    """Told in words, before anything is booted."""
    done = inv("hosts-up", "many")
    assert (done.returncode, done.stderr) == (1, "how many hosts? 'many' is no number: inv hosts-up 3\n")


def test_required_hosts_that_cannot_run_are_a_failure() -> None:
    """CI must not pass because a tool was missing."""
    done = inv("test", PATH="/nonexistent", FABDJANGO_REQUIRE_HOSTS="1")
    assert done.returncode == 1
    assert re.fullmatch(r"FABDJANGO_REQUIRE_HOSTS is set, but test hosts need .*\n", done.stderr)


def test_groups_of_tests_stay_together(tmp_path: Path) -> None:
    """The tests on real hosts build on each other; a pytest that scatters them does so without a word."""
    text = """
        import pytest
        @pytest.mark.xdist_group("one")
        @pytest.mark.parametrize("number", range(8))
        def test_it(number, worker_id): print("worker", worker_id)
    """
    (tmp_path / "test_it.py").write_text(textwrap.dedent(text), encoding="utf-8")
    words = ("-m", "pytest", "-n", "2", "--dist", "loadgroup", "-rP", "-p", "no:cacheprovider")
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len(set(re.findall(r"^worker (\w+)$", done.stdout, re.MULTILINE))) == 1, "see the dev extra in setup.cfg"


# --- the demo's decisions ----------------------------------------------------


def test_the_demo_lies_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless its sockets would get a path that the kernel refuses, or a character that programs stumble over."""
    other = Path(f"/tmp/fabdjango-demo-{os.getuid()}")  # noqa: S108 - the name, not a file
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada's place")
    assert run.places() == (Path("/home/ada's place/.local/state/fabdjango/demo"), other)
    monkeypatch.setenv("XDG_STATE_HOME", "/var/ada")
    assert run.places() == (Path("/var/ada/fabdjango/demo"), other)
    for bad in (f"/{'x' * 60}", "/it:has a colon", "/50%"):
        monkeypatch.setenv("XDG_STATE_HOME", bad)
        assert run.places() == (other,)


def test_the_demos_server_gets_the_operators_package_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where packages come from is handed on, the rest of the environment is not."""
    for name in list(os.environ):
        if name.upper().startswith(("PIP_", "UV_", "SSL_CERT_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {
        "PIP_INDEX_URL": "https://ann:it's@example.com/simple",
        "UV_OFFLINE": "1",
        "https_proxy": "http://proxy.example.com:3128",
        "NO_PROXY": "localhost",
        "SSL_CERT_FILE": "/etc/ssl/a bundle.pem",
    }
    for name, value in {**given, "SECRET_KEY": "not for the server"}.items():
        monkeypatch.setenv(name, value)
    handed_on = run._environ(tmp_path)
    path = handed_on.pop("PATH")
    assert path.startswith("/usr/local/bin:/usr/bin:/bin")
    assert handed_on == {**given, run.MARK: str(tmp_path)}

    config = tmp_path / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text("[global]\n")
    assert run._environ(tmp_path)["PIP_CONFIG_FILE"] == str(config)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/another/pip.conf")
    assert run._environ(tmp_path)["PIP_CONFIG_FILE"] == "/another/pip.conf"


def test_the_demo_takes_a_port_that_is_free() -> None:
    """The one of the last time if it can, otherwise the first from 8000 on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run._free_port(port) in range(run.FIRST_PORT, run.LAST_PORT + 1)
    assert run._free_port(port) == port


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """In /tmp anybody can make the name first, as a link too."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(run.DemoError, match="belongs to somebody else"):
        run._refuse_foreign(tmp_path / "link")


def test_commits_are_the_same_every_time(tmp_path: Path) -> None:
    """The first two and a later one: their messages, and what tells them apart."""
    assert [commits.write_commit(number, tmp_path) for number in (1, 2, 7)] == [
        "Start a blog",
        "Give posts a summary",
        "Publish edition 7",
    ]
    assert 'EDITION = "Edition 7"' in (tmp_path / "pages" / "version.py").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no number 0"):
        commits.write_commit(0, tmp_path)


# --- the demo as a whole -----------------------------------------------------


@pytest.fixture
def state() -> Iterator[Path]:
    """A short folder for the demo, of which nothing is left, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
    yield folder
    inv("demo-down", XDG_STATE_HOME=str(folder))
    shutil.rmtree(folder, ignore_errors=True)


def processes(state: Path) -> set[int]:
    """Every living process that has the folder on its command line."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(state) in words and b"pytest" not in words:
            found.add(int(folder.name))
    return found


def served(state: Path) -> dict[str, str]:
    """What the demo's site says of itself."""
    port = json.loads((state / "fabdjango" / "demo" / "demo.json").read_text())["site_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/release.json", timeout=20) as answer:
        found: dict[str, str] = json.load(answer)
    return found


def begun(*words: str, **environ: str) -> subprocess.Popen[str]:
    """A chore in a process group of its own, as a terminal would start it."""
    return subprocess.Popen(
        [PROGRAMS / "inv", *words],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Of a shell's background jobs SIGINT is ignored, and pytest may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )


def until(text: str, process: subprocess.Popen[str]) -> str:
    """Everything that it says up to the line with ``text``."""
    assert process.stdout
    seen = ""
    while text not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    return seen


def test_the_demo_from_nothing_to_nothing(state: Path) -> None:
    """
    Up, a crash, up again, a Ctrl-C, up with a server that stays, down, and down again.

    git has neither a name nor an address to commit with, and the operator's own fabric.yaml has no say.
    """
    environ = {"XDG_STATE_HOME": str(state), "GIT_CONFIG_GLOBAL": os.devnull, "FABRIC_FABDJANGO_PROJECT": "not-blog"}
    place = state / "fabdjango" / "demo"

    first = inv("demo", **environ)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (
        f"\nThe site serves: {run.Demo(place, site_port=json.loads((place / 'demo.json').read_text())['site_port']).url}\n"
        in first.stdout
    )
    assert first.stdout.index("$ cd ") < first.stdout.index(" deploy\n") < first.stdout.index("deployed: 1-")
    assert served(state)["edition"] == "First edition"
    assert place.stat().st_mode & 0o777 == 0o700

    # Killed as by a crash: a stale pid file, a stale socket, and workers without a master.
    pid = int((place / "site" / "supervisor" / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    second = inv("demo", **environ)
    assert second.returncode == 0, second.stdout + second.stderr
    assert served(state)["edition"] == "Edition 2"

    # Interrupted while a release is prepared: told in words, and the next one deploys the same commit.
    with begun("demo", **environ) as third:
        seen = until("survey", third)
        other = inv("demo-down", **environ)
        assert other.returncode == 1
        assert other.stderr.startswith("Error: another demo of yours is running\n")
        os.killpg(third.pid, signal.SIGINT)
        seen += third.communicate()[0]
    assert third.returncode == run.INTERRUPTED, seen
    assert "Error: interrupted\n" in seen
    assert served(state)["edition"] == "Edition 2"

    # While the server stays up, the lines that it shows work as they stand.
    with begun("demo", "--stay", **environ) as fourth:
        seen = until("In another terminal:", fourth) + until(" config\n", fourth)
        lines = seen.partition("In another terminal:")[2].split("\n  ")[1:4]
        typed = subprocess.run(["sh", "-e"], input="\n".join(lines), capture_output=True, text=True, check=False)
        assert typed.returncode == 0, typed.stdout + typed.stderr
        assert re.search(r"^blog-web-\S+ +RUNNING ", typed.stdout, re.MULTILINE)
        os.killpg(fourth.pid, signal.SIGINT)
        seen += fourth.communicate()[0]
    assert fourth.returncode == 0, seen
    assert served(state)["edition"] == "Edition 3"

    down = inv("demo-down", **environ)
    assert (down.returncode, down.stdout) == (0, f"demo: stopped, and {place} is removed\n")
    assert list(state.iterdir()) == []
    deadline = time.monotonic() + 5
    while processes(state) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(state) == set()
    again = inv("demo-down", **environ)
    assert (again.returncode, again.stdout) == (0, "demo: there is none, nothing to do\n")
