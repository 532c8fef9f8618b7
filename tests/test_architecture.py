"""The table of rooms: who may import whom, and what nobody may do."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabdjango import onhost

PACKAGE = Path(__file__).resolve().parent.parent / "fabdjango"
TOOLS = PACKAGE.parent / "benchmarks" / "tools"
ONHOST = sorted(path for path in (PACKAGE / "onhost").glob("*.py") if path.name != "__init__.py")
MODULES = sorted(
    ".".join(("fabdjango", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path not in ONHOST
)

# The rooms of DESIGN.md, and those that have been added since. Everybody may import exceptions.
_VALUES = {"escape", "plan"}
_PURE = {"settings", "timetable", "layout", "facts", "render", "onhost", "privileged"} | _VALUES
_DECIDED = _PURE | {"commands", "recipes", "switchover"}
_RUNNING = {
    "configuration",
    "inventory",
    "inventory_files",
    "locking",
    "body",
    "privileged",
    "script",
    "detached",
    "login",
    "transport",
    "report",
    "diagnosis",
}
_HOST = {"runner", "surveying"}
_WHOLE = {"fleet", "rollout", "deploying", "returning"}
ROOMS: dict[str, set[str]] = {
    "exceptions": set(),
    "version": set(),
    "diagnosis": set(),
    "onhost": set(),
    "escape": set(),
    "timetable": {"escape"},
    "settings": set(),
    "inventory": {"settings"},
    "inventory_files": {"inventory"},
    "configuration": {"settings", "inventory", "inventory_files"},
    "facts": set(),
    "layout": {"settings"},
    "plan": {"escape"},
    "render": {"settings", "layout", "escape", "jinja"},
    "jinja": {"escape"},
    "commands": {"commands"} | _PURE,
    "recipes": {"commands"} | _PURE,
    "switchover": {"commands", "recipes"} | _PURE,
    "body": _VALUES,
    "privileged": {"body"} | _VALUES,
    "locking": {"onhost", "privileged"} | _VALUES,
    "script": {"body", "privileged", "locking"} | _VALUES,
    "detached": {"escape"},
    "login": {"escape", "settings", "inventory"},
    "transport": {"login", "script", "detached", "settings"} | _VALUES,
    "report": {"body", "script", "transport"} | _VALUES,
    "recording": {"runner", "fleet"} | _RUNNING | _DECIDED,
    "localgit": {"commands"},
    "secret_sources": {"settings"},
    "runner": _RUNNING | _DECIDED,
    "surveying": {"runner", "localgit"} | _RUNNING | _DECIDED,
    "building": {"runner"} | _RUNNING | _DECIDED,
    "board": {"report", "script", "transport"} | _VALUES,
    "fleet": {"runner"} | _RUNNING | _DECIDED,
    "generating": {"fleet"} | _HOST | _RUNNING | _DECIDED,
    "rollout": {"fleet"} | _HOST | _RUNNING | _DECIDED,
    "deploying": {"fleet", "rollout", "building", "generating"} | _HOST | _RUNNING | _DECIDED,
    "returning": {"fleet", "rollout", "deploying"} | _HOST | _DECIDED,
    "overview": {"fleet", "board"} | _HOST | _DECIDED,
    "checking": {"fleet"} | _HOST | _RUNNING | _DECIDED,
    "operations": {"locking", "generating"} | _WHOLE | _HOST | _RUNNING | _DECIDED,
    "programs": {"operations"} | _HOST | _DECIDED,
    "localdatabase": set(),
    "databases": {"operations", "localdatabase", "fleet"} | _HOST | _DECIDED,
    "webserver": _HOST | _DECIDED,
    "comparing": {"report"} | _HOST | _DECIDED,
    "variables": {"fleet", "deploying", "generating", "board"} | _HOST | _DECIDED,
    "provisioning": {"webserver", "checking"} | _RUNNING | _HOST | _DECIDED,
    "session": {"fleet", "board", "secret_sources"} | _HOST | _RUNNING | _DECIDED,
    "jobs": _HOST | _DECIDED,
    "logs": {"fleet"} | _HOST | _DECIDED,
    "handwork": {"operations", "fleet"} | _HOST | _DECIDED,
    "namespaces": {
        *{
            "operations",
            "programs",
            "webserver",
            "databases",
            "overview",
            "checking",
            "jobs",
            "logs",
            "handwork",
            "provisioning",
            "session",
            "tasking",
            "commands",
            "settings",
            "inventory",
        },
        *{"comparing", "variables"},
        *_WHOLE,
        *_HOST,
    },
    "tasking": {"session", "configuration", "escape"},
    "collection": {"namespaces", "session", "tasking", "configuration", "settings"},
    "testing": {"transport", "recording"},
    "pythonsource": set(),
    "pythonvalue": {"pythonsource"},
    "requirements": {"pythonsource"},
    "detection": {"pythonsource", "pythonvalue", "requirements"},
    "checkout": {"detection", "localgit"},
    "proposal": {"checkout", "detection", "pythonvalue", "escape", "inventory", "settings"},
    "scaffold": {
        *{"checkout", "detection", "proposal", "configuration", "inventory", "inventory_files", "settings"},
        *{"recipes", "render", "escape"},
    },
    "__main__": {"scaffold", "version"},
    "fabdjango": {"collection", "version"},
}
# What comes from elsewhere, and in which rooms.
GUESTS = {
    "fabric": {"login", "transport", "session"},
    "paramiko": {"login", "transport", "inventory_files"},
    "invoke": {"session", "tasking", "collection", "namespaces", "recording", "inventory_files", "scaffold"},
    "jinja2": {"jinja", "render"},
    "rich": {"report", "board"},
    "asyncssh": {"testing"},
    "tomli": {"requirements"},
}


# The benchmark's own rooms, of which nobody else knows anything.
BENCHMARK: dict[str, set[str]] = {
    "wheels": set(),
    "site": set(),
    "proxy": set(),
    "project": {"wheels"},
    "scenarios": {"project"},
    "tools": {"site", "tools"},
    "measuring": {"project", "proxy", "site"},
    "results": {"measuring", "scenarios", "tools"},
    "plot": {"results", "scenarios", "tools"},
    "stages": {"wheels", "project", "proxy", "site", "measuring", "tools"},
    "run": {"measuring", "results", "scenarios", "stages", "tools"},
    "chore": {"plot", "results", "run", "scenarios", "tools"},
}
BENCHMARK_MODULES = [
    f"benchmarks.{room}" for room in [*BENCHMARK, *(f"tools.{path.stem}" for path in TOOLS.glob("[a-z]*.py"))]
]


def path_of(module: str) -> Path:
    """The file of a module."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    # A folder of the same name may hold what the module is about.
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def room_of(module: str) -> str:
    """The room that a module belongs to; a namespace's subject is not one."""
    return [*module.split("."), "fabdjango"][1]


def imports(module: str) -> Iterator[str]:
    """Every module that ``module`` imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            if node.module in ("fabdjango", "benchmarks"):
                yield from (f"{node.module}.{name.name}" for name in node.names)
            else:
                yield str(node.module)


def test_every_room_is_in_the_table() -> None:
    """A new room gets its row here, and in the README's table."""
    assert sorted({room_of(module) for module in MODULES} - ROOMS.keys()) == []


@pytest.mark.parametrize("module", MODULES)
def test_nothing_points_left(module: str) -> None:
    """A module imports only from the rooms that its own may know."""
    own = room_of(module)
    found = {room_of(name) for name in imports(module) if name.split(".")[0] == "fabdjango"}
    assert sorted(found - ROOMS.get(own, set()) - {own, "exceptions"}) == []


@pytest.mark.parametrize("module", BENCHMARK_MODULES)
def test_nothing_points_left_in_the_benchmark(module: str) -> None:
    """A tool knows what it is given, and not how it is measured; and nobody is measured by his own code."""
    own = room_of(module)
    found = {name.split(".")[1] for name in imports(module) if name.startswith("benchmarks.")}
    assert sorted(found - BENCHMARK[own] - {own}) == []
    assert [name for name in imports(module) if name.split(".")[0] == "fabdjango"] == []


def test_every_room_of_the_benchmark_is_in_the_table() -> None:
    """A new room gets its row here."""
    assert {path.stem for path in TOOLS.parent.glob("[a-z]*.py")} | {"tools"} == BENCHMARK.keys()


@pytest.mark.parametrize("module", MODULES)
def test_guests_stay_in_their_rooms(module: str) -> None:
    """Only login.py and transport.py touch a Connection, and session.py makes it; only jinja.py, and render.py in a type, knows Jinja2."""
    own = room_of(module)
    tops = {name.split(".")[0] for name in imports(module)} - {"fabdjango"} - sys.stdlib_module_names
    assert sorted(top for top in tops if own not in GUESTS.get(top, set()) and top != "typing_extensions") == []


def test_commands_do_not_know_each_other_in_circles() -> None:
    """A namespace may build on another, but never both on each other."""
    known = {
        module: {name for name in imports(module) if name.startswith("fabdjango.commands.")}
        for module in MODULES
        if room_of(module) == "commands"
    }
    assert [(one, two) for one in known for two in known[one] if one in known.get(two, ())] == []


def test_each_module_imports_alone() -> None:
    """No module needs another to have been imported first, nor what the package itself imports."""
    program = """
        import fabric, invoke, jinja2, importlib, os, sys, types
        for name in sys.argv[2:]:
            if os.fork() == 0:
                package = types.ModuleType("fabdjango")
                package.__path__ = [sys.argv[1]]
                package.__spec__ = importlib.machinery.ModuleSpec("fabdjango", None, is_package=True)
                sys.modules["fabdjango"] = package
                importlib.import_module(name)
                os._exit(0)
            if os.wait()[1]:
                sys.exit(name)
    """
    words = [sys.executable, "-c", textwrap.dedent(program), str(PACKAGE), *MODULES]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", MODULES)
def test_all_is_pinned(module: str) -> None:
    """__all__ is written down, sorted, without repetition, and every name in it is there."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    written = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if not tree.body[1:]:
        return
    (names,) = written
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []


@pytest.mark.parametrize("module", MODULES)
def test_hands_off_the_wire(module: str) -> None:
    """cd, prefix, sudo, put and env= of a Connection inject or ignore a dry run; nobody uses them."""
    found = []
    for node in ast.walk(ast.parse(path_of(module).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"cd", "prefix", "sudo", "put", "local"}:
            found.append((node.lineno, node.func.attr))
        if room_of(module) in ("namespaces", "transport", "session") and any(
            each.arg == "env" for each in node.keywords
        ):
            found.append((node.lineno, "env="))
    assert found == []


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) == "namespaces"])
def test_a_task_body_is_thin(module: str) -> None:
    """A task fits in eight lines, without its docstring."""
    for node in ast.parse(path_of(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            body = node.body[1:]
            assert body[-1].end_lineno is not None
            assert body[-1].end_lineno - body[0].lineno < 9, f"{module}.{node.name}"


def test_no_drawers() -> None:
    """A room is called after what is in it."""
    drawers = {"utils", "util", "helpers", "helper", "common", "base", "misc", "core"}
    assert [module for module in MODULES if module.split(".")[-1] in drawers] == []


def test_builders_read_no_clock_and_no_environment() -> None:
    """Pure code gives the same text for the same values: no clock, no randomness, no environment, no network, no files."""
    impure = {
        "os",
        "time",
        "datetime",
        "random",
        "secrets",
        "socket",
        "subprocess",
        "getpass",
        "uuid",
        "tempfile",
        "shutil",
    }
    pure = {
        "escape",
        "settings",
        "inventory",
        "inventory_files",
        "configuration",
        "timetable",
        "layout",
        "plan",
        "commands",
        "recipes",
        "switchover",
        "locking",
        "body",
        "privileged",
        "script",
        "detached",
        "diagnosis",
        "facts",
        "pythonsource",
        "pythonvalue",
        "requirements",
        "detection",
        "proposal",
    }
    found = {module: sorted(set(imports(module)) & impure) for module in MODULES if room_of(module) in pure}
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize("path", ONHOST, ids=lambda path: path.stem)
def test_parts_keep_out_of_each_others_way(path: Path) -> None:
    """A program stands behind its parts in one text: none of them may define what another one has defined."""
    found = []
    for node in ast.parse(onhost.source(path.stem)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [each.id for each in node.targets if isinstance(each, ast.Name) and each.id.isupper()]
    assert [name for name in found if found.count(name) > 1] == []


@pytest.mark.parametrize("path", ONHOST, ids=lambda path: path.stem)
def test_programs_for_the_host(path: Path) -> None:
    """What runs on the server is Python 3.8, alone, and needs the standard library only, or what it is there to start."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    compile(text, str(path), "exec")
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    assert sorted(found - sys.stdlib_module_names - {"django", "configurations", "supervisor"}) == []
    # Newer than Python 3.8, and so not on every server.
    assert not {"tomllib", "zoneinfo", "graphlib"} & found
    assert not any(
        isinstance(node, ast.Attribute) and node.attr in {"removeprefix", "removesuffix"} for node in ast.walk(tree)
    )
    assert ast.get_docstring(tree), "its first line is what a dry run shows"
