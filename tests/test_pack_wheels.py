"""Wheels of what is installed, by the program that makes them, in virtualenvs of the test's own."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fabdjango import onhost
from fabdjango.commands.wheels import read_wheels

WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n"


class Virtualenv:
    """A virtualenv in a folder with a space and a quote in its name, and one package with a file of every kind."""

    def __init__(self, base: Path) -> None:
        self.path = base / "it's here" / "00112233aabbccdd"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.path], check=True)
        (self.site,) = self.path.glob("lib/python*/site-packages")
        headers = f"../../../include/site/{self.site.parent.name}/alpha/alpha.h"
        self.info = self.site / "alpha-1.0.dist-info"
        python = f"{self.path}/bin/python"
        self.install(
            {
                "alpha/__init__.py": "ANSWER = 42\n",
                "alpha/__pycache__/__init__.cpython-311.pyc": "made here",
                "alpha-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Alpha\nVersion: 1.0\n",
                "alpha-1.0.dist-info/WHEEL": WHEEL,
                "alpha-1.0.dist-info/entry_points.txt": "[console_scripts]\nalpha = alpha:main\n",
                "alpha-1.0.dist-info/INSTALLER": "uv",
                "../../../bin/alpha": "made by the installer",
                "../../../bin/alpha.py": f"#!{python}\nprint('it')\n",
                "../../../bin/alpha.sh": f"#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''\nprint('it')\n",
                "../../../bin/other.sh": "#!/bin/sh\nexec true\n",
                "../../../share/it's/alpha.txt": "text",
                headers: "int alpha;\n",
            }
        )
        (self.path / "bin/other.sh").chmod(0o755)
        self.complete()

    def install(self, files: dict[str, str]) -> None:
        """The files of a package, with their list."""
        rows = []
        for name, text in files.items():
            place = self.site / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
            rows.append(f"{name},sha256={digest},{len(text)}\n")
        (self.info / "RECORD").write_text("".join([*rows, "alpha-1.0.dist-info/RECORD,,\n"]), encoding="utf-8")

    def complete(self) -> None:
        """Say that the virtualenv is whole, later than all that is in it."""
        mark = self.path / ".complete"
        mark.touch()
        later = (self.info / "RECORD").stat().st_mtime_ns + 1
        os.utime(mark, ns=(later, later))

    def pack(self) -> tuple[bytes, str]:
        """Run the program: what it gives, and what it says."""
        text = f"PARAMETERS = {{'venv': {str(self.path)!r}}}\n{onhost.source('pack_wheels')}"
        done = subprocess.run(
            [self.path / "bin/python", "-"], input=text.encode(), capture_output=True, check=True, cwd="/"
        )
        return done.stdout, done.stderr.decode()


@pytest.fixture
def virtualenv(tmp_path: Path) -> Virtualenv:
    """One of them."""
    return Virtualenv(tmp_path)


def test_what_is_in_a_wheel(virtualenv: Virtualenv) -> None:
    """What was in the one that was installed: scripts without our Python's path, and nothing that an installer makes."""
    archive, said = virtualenv.pack()
    assert said == ""
    assert read_wheels(archive).packages == ("Alpha==1.0",)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["alpha-1.0-py2.py3-none-any.whl", "wheels.json"]
        file = tar.extractfile("alpha-1.0-py2.py3-none-any.whl")
        assert file
        content = file.read()
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        found = {name: wheel.read(name).decode() for name in wheel.namelist()}
        assert wheel.getinfo("alpha-1.0.data/scripts/other.sh").external_attr >> 16 == 0o100755
    record = found.pop("alpha-1.0.dist-info/RECORD").splitlines()
    assert found == {
        "alpha/__init__.py": "ANSWER = 42\n",
        "alpha-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Alpha\nVersion: 1.0\n",
        "alpha-1.0.dist-info/WHEEL": WHEEL,
        "alpha-1.0.dist-info/entry_points.txt": "[console_scripts]\nalpha = alpha:main\n",
        "alpha-1.0.data/scripts/alpha.py": "#!python\nprint('it')\n",
        "alpha-1.0.data/scripts/alpha.sh": "#!python\nprint('it')\n",
        "alpha-1.0.data/scripts/other.sh": "#!/bin/sh\nexec true\n",
        "alpha-1.0.data/data/share/it's/alpha.txt": "text",
        "alpha-1.0.data/headers/alpha.h": "int alpha;\n",
    }
    assert sorted(line.split(",")[0] for line in record) == sorted([*found, "alpha-1.0.dist-info/RECORD"])
    # The same files make the same wheels, and nothing was left beside the virtualenv.
    assert virtualenv.pack()[0] == archive
    assert list(virtualenv.path.parent.iterdir()) == [virtualenv.path]


def test_what_cannot_be_given_away(virtualenv: Virtualenv) -> None:
    """Nothing is given, and the reason is told."""
    place = virtualenv.site / "alpha/__init__.py"
    place.write_text("ANSWER = 43\n", encoding="utf-8")
    assert virtualenv.pack() == (b"", f"Alpha==1.0 was changed after it was installed: {place}\n")
    place.unlink()
    assert virtualenv.pack() == (b"", f"Alpha==1.0 lacks a file: {place}: No such file or directory\n")
    place.write_text("ANSWER = 42\n", encoding="utf-8")
    (virtualenv.info / "RECORD").touch()
    os.utime(virtualenv.path / ".complete", ns=(1, 1))
    assert virtualenv.pack() == (b"", "Alpha==1.0 was installed after the virtualenv was complete\n")
    virtualenv.complete()
    direct = virtualenv.info / "direct_url.json"
    direct.write_text('{"dir_info":{"editable":true},"url":"file:///srv"}', encoding="utf-8")
    assert virtualenv.pack() == (b"", "Alpha==1.0 is installed as editable\n")
    direct.unlink()
    (virtualenv.site / "old.egg-link").touch()
    assert virtualenv.pack() == (b"", "old.egg-link is installed in a way that cannot be given away\n")
    (virtualenv.site / "old.egg-link").unlink()
    (virtualenv.info / "WHEEL").unlink()
    with (virtualenv.info / "RECORD").open("a", encoding="utf-8") as record:
        record.write("/etc/passwd,,\n")
    virtualenv.complete()
    assert virtualenv.pack()[1].startswith("Alpha==1.0 ")
    (virtualenv.info / "RECORD").unlink()
    assert virtualenv.pack() == (b"", "Alpha==1.0 has no list of its files\n")
