"""What a project lists of packages, in every form that it may be written in."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

from fabdjango import onhost
from fabdjango.pythonsource import Place
from fabdjango.requirements import AUTO, find_requirements, read_packages, wanted_python


def test_the_same_order_as_a_deploy() -> None:
    """The survey of a host decides for itself; what is written into a fabric.yaml must agree with it."""
    (names,) = (
        ast.literal_eval(node.iter)
        for function in ast.parse(onhost.source("survey")).body
        if isinstance(function, ast.FunctionDef) and function.name == "auto_requirements"
        for node in ast.walk(function)
        if isinstance(node, ast.For)
    )
    assert names == AUTO


def lines(files: Mapping[str, str], path: str) -> dict[str, str]:
    """Packages with where they are listed."""
    return {name: str(place) for name, place in read_packages(path, files.get).items()}


def test_requirement_files() -> None:
    """With those that they name, markers, hashes, links and comments."""
    files = {
        "it's/req.txt": """\
-r base.txt
--requirement=../other.txt  # why
-c constraints.txt
Django_Extensions[x]>=1 ; python_version < "4"
foo.bar==1 --hash=sha256:abc
plain
# comment
-e git+https://example.com/x.git#egg=Own_Thing
quoted @ https://example.com/x.whl
""",
        "it's/base.txt": "django>=5\n-r req.txt\n",
        "other.txt": "psycopg[binary]\n",
    }
    assert lines(files, "it's/req.txt") == {
        "psycopg": "other.txt line 1",
        "psycopg[binary]": "other.txt line 1",
        "django": "it's/base.txt line 1",
        "django-extensions": "it's/req.txt line 4",
        "django-extensions[x]": "it's/req.txt line 4",
        "foo-bar": "it's/req.txt line 5",
        "plain": "it's/req.txt line 6",
        "own-thing": "it's/req.txt line 8",
        "quoted": "it's/req.txt line 9",
    }


@pytest.mark.parametrize(
    ("path", "text", "packages"),
    [
        (
            "pyproject.toml",
            '[project]\ndependencies = [\n  "Django>=5",  # it\'s "this"\n  "psycopg[c]",\n]\n',
            {
                "django": "pyproject.toml line 3",
                "psycopg": "pyproject.toml line 4",
                "psycopg[c]": "pyproject.toml line 4",
            },
        ),
        (
            "pyproject.toml",
            '[tool.poetry.dependencies]\npython = "^3.12"\ndjango = "^5"\ngunicorn = {version = "*"}\n',
            {"django": "pyproject.toml line 3", "gunicorn": "pyproject.toml line 4"},
        ),
        ("pyproject.toml", "[project\n", {}),
        ("pyproject.toml", 'project = "it\'s text"\n', {}),
        (
            "uv.lock",
            'version = 1\n\n[[package]]\nname = "django"\nversion = "5"\n\n[[package]]\nname = "its-own"\n',
            {"django": "uv.lock line 4", "its-own": "uv.lock line 8"},
        ),
        ("pylock.toml", '[[packages]]\nname = "django"\n', {"django": "pylock.toml line 2"}),
        (
            "setup.py",
            "from setuptools import setup\n\nsetup(\n    name='x',\n    install_requires=['Django>=5'],\n)\n",
            {"django": "setup.py line 5"},
        ),
        ("setup.py", "requires = ['Django']\nsetup(install_requires=requires)\n", {"django": "setup.py line 1"}),
        ("setup.py", "print 'Python 2'\n", {}),
    ],
)
def test_other_files(path: str, text: str, packages: dict[str, str]) -> None:
    """A file that cannot be read lists nothing."""
    assert lines({path: text}, path) == packages


def test_setup_cfg() -> None:
    """It belongs to setup.py."""
    files = {"setup.py": "setup()", "setup.cfg": "[options]\ninstall_requires =\n    Django>=5\n    its-own\n"}
    assert lines(files, "setup.py") == {"django": "setup.cfg line 3", "its-own": "setup.cfg line 4"}
    assert lines({**files, "setup.cfg": "it's nothing"}, "setup.py") == {}


def chosen(files: Mapping[str, str], folder: str = "") -> tuple[str, bool]:
    """The file to install from, and whether a deploy takes it by itself."""
    found = find_requirements(files.get, files, folder)
    return found.file, found.auto


def test_which_file() -> None:
    """The first that lists Django, so that a pyproject.toml for tools alone, or pins of the documentation, do not win."""
    tools = {"pyproject.toml": "[tool.ruff]\n"}
    assert chosen({**tools, "requirements.txt": "django\n"}) == ("requirements.txt", True)
    assert chosen({**tools, "requirements/base.txt": "django\n"}) == ("requirements/base.txt", False)
    assert chosen({"requirements.txt": "sphinx\n", "requirements/prod.txt": "Django==5\n"}) == (
        "requirements/prod.txt",
        False,
    )
    assert chosen({"it's/requirements.txt": "django\n"}, "it's") == ("it's/requirements.txt", False)
    assert chosen({"requirements.txt": "own-framework\n"}) == ("requirements.txt", True)
    assert chosen({"Pipfile": ""}) == ("", True)
    # Only at the top can uv take its lock file.
    assert chosen({"it's/uv.lock": '[[package]]\nname = "django"\n'}, "it's") == ("", True)


def test_extras_and_groups_for_servers() -> None:
    """By their names; groups only count where uv.lock has them."""
    project = """\
[project]
dependencies = ["django"]

[project.optional-dependencies]
production = ["gunicorn"]
dev = ["pytest"]

[dependency-groups]
prod = ["sentry-sdk"]
dev = ["ruff"]
"""
    found = find_requirements({"pyproject.toml": project}.get, ["pyproject.toml"], "")
    assert (found.extras, found.groups) == ({"production": Place("pyproject.toml", 5)}, {})
    assert found.packages == {"django": Place("pyproject.toml", 2), "gunicorn": Place("pyproject.toml", 5)}
    assert found.has("uvicorn", "gunicorn") == Place("pyproject.toml", 5)
    files = {"pyproject.toml": project, "uv.lock": '[[package]]\nname = "django"\n'}
    found = find_requirements(files.get, files, "")
    assert (found.file, found.groups) == ("uv.lock", {"prod": Place("pyproject.toml", 9)})


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({".python-version": "# it's\n3.12.4\n"}, ("3.12.4", Place(".python-version", 2))),
        ({"runtime.txt": "python-3.11.9\n"}, ("3.11.9", Place("runtime.txt", 1))),
        ({"pyproject.toml": '[project]\nrequires-python = ">=3.12"\n'}, (">=3.12", Place("pyproject.toml", 2))),
        ({"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.12"\n'}, ("^3.12", Place("pyproject.toml", 2))),
        ({"Pipfile": '[requires]\npython_version = "3.11"\n'}, ("3.11", Place("Pipfile", 2))),
        ({"setup.cfg": "[options]\npython_requires = >=3.10\n"}, (">=3.10", Place("setup.cfg", 2))),
        ({".python-version": "pypy\n"}, None),
        ({}, None),
    ],
)
def test_which_python(files: dict[str, str], wanted: tuple[str, Place] | None) -> None:
    """As the file says it."""
    assert wanted_python(files.get, files) == wanted


def test_the_demo_and_this_project() -> None:
    """Real files."""
    root = Path(__file__).parent.parent

    def read(path: str) -> str | None:
        place = root / path
        return place.read_text(encoding="utf-8") if place.is_file() else None

    assert "fabric" in read_packages("setup.py", read)
    assert "django" in read_packages("demo/project/requirements.txt", read)
