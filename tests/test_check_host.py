"""What a check sees of a host, in folders of the test's own and on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fabdjango import onhost
from tests.local.sample import Repository

GIVEN: dict[str, Any] = {
    "root": "/nowhere",
    "owner": "",
    "ports": [],
    "release": "",
    "commit": "",
    "database": "",
    "env_files": [],
}


def look(part: str, **given: object) -> Any:
    """What one part of the program says."""
    data = json.dumps({**GIVEN, "parts": [part], **given})
    text = f"import json\nPARAMETERS = json.loads({data!r})\n{onhost.source('check_host')}"
    done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)[part]


# --- any account -------------------------------------------------------------


def test_the_host_itself() -> None:
    """This machine: its time is ours, and its addresses are not those of loopback."""
    before = time.time()
    assert before - 1 <= look("clock") <= time.time() + 1
    assert not {"127.0.0.1", "::1"} & set(look("addresses"))
    assert look("memory") > 1_000_000
    assert set(look("versions")) >= {"git"}


def test_the_owner() -> None:
    """Ourselves, nobody, and an account that there is not."""
    assert look("owner", owner="") == "here"
    assert look("owner", owner="it-is-not-there") == "missing"


def test_sudo_of_root() -> None:
    """Root needs none."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    assert look("sudo") == ["root", []]


# --- files -------------------------------------------------------------------


def test_places(tmp_path: Path) -> None:
    """What is there, and whether what is not there could be made."""
    root = tmp_path / "it's here"
    root.mkdir()
    secret = root / ".env"
    secret.touch(0o604)
    secret.chmod(0o604)
    me = pwd.getpwuid(os.getuid()).pw_name
    assert look("places", places=[str(root), str(secret), str(root / "a" / "b")]) == {
        str(root): {"is": "folder", "mode": root.stat().st_mode & 0o7777, "owner": me, "writes": True},
        str(secret): {"is": "file", "mode": 0o604, "owner": me, "writes": True},
        str(root / "a" / "b"): {"is": "missing", "writes": True},
    }


def test_the_disk(tmp_path: Path) -> None:
    """Of the folder, or of what it will be in."""
    free, size, inodes, all_inodes = look("disk", root=str(tmp_path / "not" / "there"))
    assert 0 < free <= size
    assert 0 <= inodes <= all_inodes


def test_the_lock(tmp_path: Path) -> None:
    """Who has it is read, and nothing is taken: not even for a moment."""
    lock = tmp_path / "it's locked"
    assert look("lock", lock=str(lock)) == ""
    lock.write_text("ann@laptop, deploy, since noon\ntoken\n")
    assert look("lock", lock=str(lock)) == ""
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert look("lock", lock=str(lock)) == "ann@laptop, deploy, since noon"
        fcntl.flock(file, fcntl.LOCK_SH)
        assert look("lock", lock=str(lock)) == ""


@pytest.fixture
def release(tmp_path: Path) -> dict[str, Any]:
    """A release as an export makes one, and where its mirror is; attributes give a file other ends of lines."""
    repository = Repository(tmp_path / "a repository")
    (repository.path / "a folder").mkdir()
    (repository.path / "link").symlink_to("it's here.py")
    files = {
        "it's here.py": "1\n",
        "a folder/ends.txt": "one\ntwo\n",
        ".gitattributes": "*.txt eol=crlf\n",
        "media/a.png": "x",
    }
    sha = repository.commit(files)
    mirror, made = tmp_path / "repo.git", tmp_path / "it's a release"
    subprocess.run(["git", "clone", "--quiet", "--bare", repository.path, mirror], check=True)
    made.mkdir()
    words = ["git", f"--git-dir={mirror}", f"--work-tree={made}", "-c", "core.bare=false"]
    environ = {**os.environ, "GIT_INDEX_FILE": str(tmp_path / "index")}
    for command in (["read-tree", sha], ["checkout-index", "--all"]):
        subprocess.run([*words, *command], check=True, env=environ)
    assert (made / "a folder/ends.txt").read_bytes() == b"one\r\ntwo\r\n"
    return {"release": str(made), "mirror": str(mirror), "commit": sha, "replaced": ["media"]}


def test_a_release_as_its_commit_has_it(release: dict[str, Any]) -> None:
    """What was made beside its files counts for nothing, nor do paths that live in shared."""
    made = Path(release["release"])
    (made / "__pycache__").mkdir()
    (made / "media/a.png").unlink()
    before = {str(path): path.lstat().st_mtime_ns for path in [made, *made.rglob("*")]}
    assert look("changed", **release) == []
    assert {str(path): path.lstat().st_mtime_ns for path in [made, *made.rglob("*")]} == before


def test_a_release_that_was_changed_by_hand(release: dict[str, Any]) -> None:
    """A file with other words, one that is gone, and a link that leads elsewhere."""
    made = Path(release["release"])
    (made / "it's here.py").write_text("2\n")
    (made / "a folder/ends.txt").unlink()
    (made / "link").unlink()
    (made / "link").symlink_to("elsewhere")
    assert look("changed", **release) == ["a folder/ends.txt", "it's here.py", "link"]
    assert look("changed", **{**release, "commit": "0" * 40}) is None


# --- the network -------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[int]:
    """A port where this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_who_listens(listener: int) -> None:
    """By the process and where it works; a port where nobody listens is not there."""
    ((port, _, holders),) = look("ports", ports=[listener, 1])
    assert port == listener
    assert [os.getpid(), Path("/proc/self/comm").read_text().strip(), str(Path.cwd())] in [each[:3] for each in holders]


def test_the_memory_of_a_slot(tmp_path: Path) -> None:
    """What runs gunicorn in the release, as far as the kernel tells."""
    release = tmp_path / "it's a release"
    release.mkdir()
    assert look("slot_memory", release=str(release)) == 0
    with subprocess.Popen(["sleep", "60"], cwd=release, executable="/bin/sleep") as plain:
        assert look("slot_memory", release=str(release)) == 0
        plain.kill()
    words = [sys.executable, "-c", "import sys; sys.stdin.read()", "gunicorn"]
    with subprocess.Popen(words, cwd=release, stdin=subprocess.PIPE):
        assert look("slot_memory", release=str(release)) > 1_000_000


def test_a_database_by_its_address(tmp_path: Path, listener: int) -> None:
    """Of the operator, else of the files on the host; it is connected to, and nothing is said."""
    env = tmp_path / "it's.env"
    url = f"postgres://ann:s3cret@127.0.0.1:{listener}/it"
    assert look("database", database=url) == [f"127.0.0.1:{listener}", ""]
    env.write_text(f"export DATABASE_URL='{url}'\n")
    assert look("database", env_files=[str(tmp_path / "none"), str(env)]) == [f"127.0.0.1:{listener}", ""]
    assert look("database", database="postgres://ann@127.0.0.1:9/it") == ["127.0.0.1:9", "Connection refused"]
    place = f"{tmp_path}/.s.PGSQL.5432"
    for url in (f"postgres:///it?host={tmp_path}", f"postgresql://{str(tmp_path).replace('/', '%2F')}/it"):
        assert look("database", database=url) == [place, "No such file or directory"]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        assert look("database", database=f"postgres:///it?host={tmp_path}") == [place, ""]
    assert look("database") is None
    assert look("database", database="sqlite:///it.sqlite3") is None


# --- certificates --------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """A certificate and its key, for two names and 30 days."""
    return make_pair(tmp_path, "it's")


def make_pair(folder: Path, name: str) -> list[str]:
    """Paths of a new certificate and its key."""
    certificate, key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    names = ["-subj", "/CN=it", "-addext", "subjectAltName=DNS:blog.example.com,DNS:*.example.org"]
    words = ["openssl", "req", "-x509", *curve, *names, "-out", certificate, "-keyout", key]
    subprocess.run(words, check=True, capture_output=True)
    return [certificate, key]


def test_a_certificate(pair: list[str]) -> None:
    """Its names, its days, and who may read its key."""
    Path(pair[1]).chmod(0o640)
    found = look("certificate", certificate=pair)
    assert found["names"] == ["blog.example.com", "*.example.org"]
    assert found["mode"] == 0o640
    assert found["begins"] <= time.time() + 60
    assert round((found["ends"] - found["begins"]) / 86400) == 30
    assert "error" not in found


def test_a_certificate_with_the_key_of_another(pair: list[str], tmp_path: Path) -> None:
    """And what is no key, no certificate, or not there."""
    other = make_pair(tmp_path, "other")
    found = look("certificate", certificate=[pair[0], other[1]])
    assert (found["error"], found["path"]) == ("does not belong to the certificate", other[1])
    found = look("certificate", certificate=[pair[0], pair[0]])
    assert (found["error"], found["path"]) == ("cannot be read as a key", pair[0])
    found = look("certificate", certificate=[pair[1], pair[1]])
    assert (found["error"], found["path"]) == ("is no certificate in PEM form", pair[1])
    gone = str(tmp_path / "gone")
    assert look("certificate", certificate=[gone, pair[1]]) == {
        "error": "No such file or directory",
        "path": gone,
        "hidden": False,
    }
