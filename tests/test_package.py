"""What pip makes of this project: a wheel with everything in it, and an install that can be edited."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.xdist_group("package")


def pip(*words: str | Path, cwd: Path) -> None:
    """Run pip; what it says is the message if it fails."""
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, *quiet], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what belongs to the package, so that a build leaves nothing here."""
    folder = tmp_path_factory.mktemp("it's a source")
    leftovers = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("fabdjango", "templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=leftovers)
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--wheel-dir", folder, ".", cwd=source)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment of its own that sees the packages of this one, but not its fabdjango."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "a venv"], check=True)
    (folder,) = (tmp_path / "a venv" / "lib").glob("python*/site-packages")
    # Files like this one are only read where an environment looks for its own packages: an editable install stays unseen.
    (folder / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return tmp_path / "a venv" / "bin" / "python"


def says(python: Path, program: str) -> str:
    """What a program prints in that environment, away from this checkout."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", program], cwd=python.parent, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


RENDER = """
from pathlib import Path
import fabdjango
from fabdjango import onhost
from fabdjango.render import Templates, template_root

text = Templates(Path("/nonexistent"), {}).render("release/start.j2", run="/srv/it's here/run", words="python -m gunicorn")
print(Path(fabdjango.__file__).parent)
print(template_root())
print(len(onhost.source("survey")) > 1000, "deploy" in fabdjango.ns.task_names)
print(text, end="")
"""
RENDERED = """\
True True
#!/bin/sh
# Managed by fabdjango; local edits are overwritten.
exec /bin/sh '/srv/it'"'"'s here/run' python -m gunicorn
"""


def test_the_wheel_has_all_that_is_read_at_run_time(wheel: Path) -> None:
    """Every module, template, program for the host, and the mark that says there are types; nothing else."""
    parts = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "fabdjango").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    } | {
        f"fabdjango/{path.relative_to(ROOT)}"
        for path in (ROOT / "templates").rglob("*")
        if path.suffix in (".j2", ".py")
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == parts


def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_metadata(wheel: Path) -> None:
    """Name, licence, Python and dependencies, as an index would show them."""
    found = metadata(wheel)
    assert (found["Name"], found["License"], found["License-File"]) == (
        "fabdjango",
        "BSD-2-Clause",
        "LICENSE",
    )
    assert found["Requires-Python"] == ">=3.10"
    assert found.get_all("Provides-Extra") == ["demo", "bench", "dev"]
    plain = sorted(str(each) for each in found.get_all("Requires-Dist", ()) if "extra ==" not in str(each))
    assert plain == ["fabric<4,>=3.2", "invoke<4,>=2.2", "jinja2>=3.1", "rich", 'tomli>=2; python_version < "3.11"']
    assert str(found.get_payload()).startswith("# fabdjango\n")


def test_the_wheel_renders_its_templates(wheel: Path, python: Path) -> None:
    """Installed like any package, without this checkout."""
    pip("--python", python, "install", "--no-deps", wheel, cwd=python.parent)
    package, templates, rest = says(python, RENDER).split("\n", 2)
    assert Path(package).is_relative_to(python.parent.parent)
    assert Path(templates) == Path(package) / "templates"
    assert rest == RENDERED


def test_an_editable_install_renders_them_too(source: Path, python: Path) -> None:
    """Here templates lie beside the package, not in it."""
    pip("--python", python, "install", "--no-deps", "--editable", source, cwd=python.parent)
    package, templates, rest = says(python, RENDER).split("\n", 2)
    assert Path(package) == source / "fabdjango"
    assert Path(templates).resolve() == source / "templates"
    assert rest == RENDERED


@pytest.mark.parametrize(("more", "kept"), [({}, True), ({"PYTHONDONTWRITEBYTECODE": "1"}, False)])
def test_fab_keeps_our_bytecode(tmp_path: Path, more: dict[str, str], *, kept: bool) -> None:
    """It forbids bytecode, and uv installs none; the fabfile gets none, nor does anything if somebody has forbidden it."""
    (tmp_path / "fabfile.py").write_text("from fabdjango import ns\n")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPYCACHEPREFIX": str(tmp_path / "made"), **more}
    words = [sys.executable, "-m", "fabric", "--list"]
    subprocess.run(words, cwd=tmp_path, env=environ, check=True, capture_output=True)
    made = {path.name.split(".")[0] for path in (tmp_path / "made").rglob("*.pyc")}
    assert ("settings" in made, "fabfile" in made) == (kept, False)
