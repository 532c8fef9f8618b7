"""What a virtualenv is built from, by both installers. Packages are tiny and lie in a folder, so no index is asked."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.sample import BACKEND, DJANGO, make_project, make_wheel
from tests.local.stage import Stage

INSTALLERS = pytest.mark.parametrize("installer", ["uv", "pip"])
#: Where pip does nothing that it does not do in the others too.
UV_FIRST = pytest.mark.parametrize("installer", ["uv", pytest.param("pip", marks=pytest.mark.nightly)])
PIP_ITSELF = {"pip", "setuptools", "wheel"}
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "shop"
version = "0.9"
dependencies = ["alpha>=1"]
optional-dependencies = { mail = ["beta"] }
"""


@pytest.fixture
def shelf(stage: Stage) -> Path:
    """A folder of wheels on the host; settings so that nothing else is looked at."""
    shelf = stage.base / "shelf"
    make_wheel(shelf, "alpha", "1.0")
    make_wheel(shelf, "alpha", "1.5")
    make_wheel(shelf, "beta", "2.0", needs=("alpha",))
    make_wheel(shelf, "gamma", "3.0")
    make_wheel(shelf, "delta", "4.0")
    stage.configure(venv={"packages": [], "find_links": [str(shelf)], "no_index": True})
    return shelf


def commit(stage: Stage, **files: str) -> None:
    """A commit of these files (dots and slashes of their names as __ and ___) beside a manage.py."""
    names = {name.replace("___", "/").replace("__", "."): text for name, text in files.items()}
    stage.repository.commit({"manage.py": make_project()["manage.py"], **names})


def installed(stage: Stage) -> dict[str, str]:
    """The packages of a fresh release, without the installer's own."""
    stage.fab("git.checkout", "venv.install")
    return {name: version for name, version in stage.packages.items() if name not in PIP_ITSELF}


@UV_FIRST
def test_several_sources(stage: Stage, shelf: Path, installer: str) -> None:
    """Files that name files, a constraint, the project itself with an extra, and packages that the project does not list."""
    commit(
        stage,
        requirements___base__txt="-r deeper/more.txt\ngamma\n",
        requirements___deeper___more__txt="alpha\n-c ../limits.txt\n",
        requirements___limits__txt="alpha<1.5\n",
        extra__txt="# nothing but a comment\n",
        pyproject__toml=PYPROJECT,
        backend__py=BACKEND,
    )
    stage.configure(
        venv={
            "installer": installer,
            "requirements": ["requirements/base.txt", "extra.txt"],
            "install_project": True,
            "extras": ["mail"],
            "packages": ["delta>=4,<5"],
        }
    )
    assert installed(stage) == {"alpha": "1.0", "beta": "2.0", "gamma": "3.0", "delta": "4.0", "shop": "0.9"}
    # The project in it ties the virtualenv to its commit; nothing else would.
    (key,) = [path.name for path in (stage.root / "venvs").iterdir()]
    stage.repository.commit(message="Only the commit differs")
    run = stage.fab("git.checkout", "venv.create")
    assert key not in run.out


@UV_FIRST
def test_pyproject_only(stage: Stage, shelf: Path, installer: str) -> None:
    """Its dependencies are installed; with pip, which knows no other way, the project too."""
    commit(stage, pyproject__toml=PYPROJECT, backend__py=BACKEND)
    stage.configure(venv={"installer": installer})
    own = {"shop": "0.9"} if installer == "pip" else {}
    assert installed(stage) == {"alpha": "1.5", **own}


@INSTALLERS
def test_hashes(stage: Stage, shelf: Path, installer: str) -> None:
    """With hashes everything needs one; packages of the settings come on top; a file that differs is refused."""
    digest = hashlib.sha256((shelf / "alpha-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    commit(stage, requirements__txt=f"alpha==1.0 \\\n    --hash=sha256:{digest}\n")
    stage.configure(venv={"installer": installer, "packages": ["gamma"]})
    assert installed(stage) == {"alpha": "1.0", "gamma": "3.0"}
    commit(stage, requirements__txt=f"alpha==1.0 \\\n    --hash=sha256:{64 * '0'}\n")
    run = stage.fab("git.checkout", "venv.install", code=1)
    assert "install failed" in run.err
    assert " do this: the hashes do not match the files: lock the requirements again and commit the result\n" in run.err


def test_uv_lock(stage: Stage, shelf: Path) -> None:
    """Exactly what is locked, with a group and an extra; a lock that does not fit any more is refused, with the cure."""
    pyproject = PYPROJECT + '\n[dependency-groups]\nlive = ["gamma"]\ndev = ["delta"]\n'
    commit(stage, pyproject__toml=pyproject, backend__py=BACKEND)
    lock(stage, shelf)
    stage.configure(venv={"extras": ["mail"], "groups": ["live"]})
    assert installed(stage) == {"alpha": "1.5", "beta": "2.0", "gamma": "3.0"}
    commit(stage, pyproject__toml=pyproject.replace("alpha>=1", "alpha<1.5"))
    run = stage.fab("git.checkout", "venv.install", code=1)
    assert " do this: uv.lock does not fit pyproject.toml: run uv lock and commit the result\n" in run.err


def lock(stage: Stage, shelf: Path) -> None:
    """What a developer does: uv lock, and a commit of it."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv if uv.exists() else shutil.which("uv") or "uv", "lock", "--quiet", "--no-index", "--find-links", shelf],
        cwd=stage.repository.path,
        check=True,
    )
    stage.repository.commit(message="Lock")


def test_pylock(stage: Stage, shelf: Path) -> None:
    """The standard's own form of a lock."""
    wheel = shelf / "alpha-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    commit(
        stage,
        pylock__toml=f"""\
            lock-version = "1.0"
            created-by = "tests"
            [[packages]]
            name = "alpha"
            version = "1.0"
            wheels = [{{ name = "{wheel.name}", url = "{wheel.as_uri()}", hashes = {{ sha256 = "{digest}" }} }}]
            """,
    )
    assert installed(stage) == {"alpha": "1.0"}
    stage.configure(venv={"installer": "pip"})
    run = stage.fab("git.checkout", code=1)
    assert "Error: pylock.toml can only be installed by uv, and fabdjango.venv.installer is pip\n" in run.err


OLD_SETUP = """\
from setuptools import setup
from setuptools.command.test import test  # gone since setuptools 72

setup(name="oldie", version="0.1", py_modules=["oldie"], cmdclass={"test": test})
"""


@INSTALLERS
def test_bootstrap(stage: Stage, installer: str) -> None:
    """A package that only an older setuptools builds is built with the one that is installed before all others."""
    commit(
        stage, requirements__txt="./vendor/oldie\n", vendor___oldie___setup__py=OLD_SETUP, vendor___oldie___oldie__py=""
    )
    stage.configure(venv={"installer": installer, "packages": [], "bootstrap": ["setuptools<72", "wheel"]})
    found = installed(stage)
    assert found["oldie"] == "0.1"
    (venv,) = (stage.root / "venvs").iterdir()
    code = "import setuptools; print(setuptools.__version__)"
    version = subprocess.run([venv / "bin/python", "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(version.split(".")[0]) < 72


def test_compiler_error_is_shown(stage: Stage) -> None:
    """A package that cannot be compiled: the compiler's own line is in the report, and what to install."""
    setup = 'from setuptools import Extension, setup\n\nsetup(name="native", version="0.1", ext_modules=[Extension("native", ["native.c"])])\n'
    commit(
        stage,
        requirements__txt="./native\n",
        native___setup__py=setup,
        native___native__c="#include <stdio.h>\nint answer(void) { return 42 }\n",
    )
    stage.configure(venv={"packages": []})
    run = stage.fab("git.checkout")
    run = stage.fab("venv.install", code=1)
    assert "native.c:2:" in run.err
    assert "error: expected" in run.err
    assert "a package has to be compiled and cannot be: install the compiler or the headers" in run.err
    assert not list((stage.root / "venvs").glob("*/.complete"))


def test_a_deploy_with_pip(stage: Stage) -> None:
    """The whole way with pip; a later deploy of the same requirements asks nobody for packages."""
    stage.repository.commit(make_project(requirements=f"{DJANGO}\n"))
    stage.configure(venv={"installer": "pip"})
    stage.deploy()
    assert stage.get().page["prefix"] == str(stage.venv)
    assert (stage.venv / "bin/pip").exists()
    stage.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
    # Whoever asked an index now would fail.
    stage.configure(venv={"timeout": 1})
    run = stage.deploy()
    assert "unchanged  install requirements.txt (same requirements)" in run.out
    assert stage.get().page["edition"] == "2"


def test_the_project_is_installed(stage: Stage) -> None:
    """A site whose code comes from its own package, installed into the virtualenv of its commit."""
    pyproject = (
        PYPROJECT.replace('"alpha>=1"', f'"{DJANGO}"').replace("optional-dependencies", "#").replace('"shop"', '"ours"')
    )
    stage.repository.commit({**make_project(requirements=None), "pyproject.toml": pyproject, "backend.py": BACKEND})
    stage.configure(venv={"install_project": True})
    stage.deploy()
    assert stage.packages["ours"] == "0.9"
    assert {"django", "gunicorn"} <= set(stage.packages)
    assert stage.get().page["edition"] == "1"
