"""Files of a real host that belong to others, and a disk that is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hosts.workplace import Outcome, Workplace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machines import Machine


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, bookworm: Machine) -> Workplace:
    """An operator whose site has no release yet."""
    made = Workplace(tmp_path_factory.mktemp("hand") / "work")
    made.know(bookworm)
    made.configure(project="hand", repository="unused", user="deploy")
    (made.folder / "a file").write_bytes(bytes(range(256)))
    return made


def fab(place: Workplace, machine: Machine, *words: str, code: int = 0, login: str = "deploy") -> Outcome:
    """Run fab to its end."""
    return place.fab("-i", machine.key, "-H", f"{login}@{machine.address}", *words).ended(code)


@pytest.mark.parametrize("login", ["deploy", "root"])
def test_a_file_keeps_its_owner(place: Workplace, bookworm: Machine, login: str) -> None:
    """Root replaces what is somebody else's and leaves it to them; the owner of the site could not, and does not."""
    bookworm.run('install -m 644 -o games -g mail /dev/null "/srv/it\'s theirs"; chmod 1777 /srv')
    path = "/srv/it's theirs"
    refused = fab(place, bookworm, "host.put", "a file", path, code=1, login=login)
    assert f"{path} belongs to games:mail, which could not be kept" in refused.error
    fab(place, bookworm, "host.put", "a file", path, "--sudo", "--mode=640", login=login)
    assert bookworm.run(f'stat -c "%U %G %a %s" "{path}"').stdout == "games mail 640 256\n"
    refused = fab(place, bookworm, "host.get", path, code=1, login=login)
    assert "Permission denied" in refused.error
    fab(place, bookworm, "host.get", path, "--sudo", "--local=theirs", login=login)
    got: Path = place.folder / "theirs"
    assert (got.read_bytes(), got.stat().st_mode & 0o777) == (bytes(range(256)), 0o640)
    got.unlink()
    assert fab(place, bookworm, "host.run", "id -un; echo ~", login=login).output == "deploy\n/home/deploy\n"
    assert fab(place, bookworm, "host.sudo", "id -un; echo ~", login=login).output == "root\n/root\n"


def test_a_full_disk(place: Workplace, bookworm: Machine) -> None:
    """The good file stays, and nothing is left beside it."""
    bookworm.run("mkdir -p /mnt/full && mount -t tmpfs -o size=64k,mode=1777 none /mnt/full")
    (place.folder / "large").write_bytes(b"x" * 100_000)
    try:
        fab(place, bookworm, "host.put", "a file", "/mnt/full/it's")
        failed = fab(place, bookworm, "host.put", "large", "/mnt/full/it's", code=1)
        assert "cannot write /mnt/full/it's: the one before is as it was" in failed.error
        assert bookworm.run("ls -A /mnt/full; stat -c %s /mnt/full/*").stdout == "it's\n256\n"
    finally:
        bookworm.run("umount /mnt/full")
