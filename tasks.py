"""
The chores of this project, beside the tasks that it is about.

    inv --list      all of them, without any configuration
    inv demo        a deploy to this machine, for looking at it
    inv test        every test
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

import fabdjango
from fabdjango.exceptions import FabdjangoError

ROOT = Path(__file__).resolve().parent
PYTHON = shlex.quote(sys.executable)


def _need(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise Exit(f"{' and '.join(missing)} not installed: {PYTHON} -m pip install -e '.[dev]'", 1)


def _run(c: Context, *commands: str, **options: Any) -> None:
    with c.cd(str(ROOT)):
        for command in commands:
            # No input: a chore never asks anything.
            c.run(command, echo=True, pty=sys.stdout.isatty(), in_stream=False, **options)


# --- the demo ----------------------------------------------------------------


@task(
    auto_shortflags=False, help={"stay": "Keep the SSH server up afterwards, until Ctrl-C, for fab commands by hand."}
)
def demo(_c: Context, stay: bool = False) -> None:
    """
    Deploy a sample Django project to this machine.

    Needs no root, no sshd and no configuration: an SSH server inside this process lets the real fab in, into a folder of
    its own below your state folder. A second run deploys the next commit; demo-down removes everything.
    """
    from demo import run

    _in_words(lambda: run.up(stay=stay))


@task
def demo_down(_c: Context) -> None:
    """
    Stop the demo and remove all of its files.

    A second run finds nothing to do.
    """
    from demo import run

    _in_words(run.down)


def _in_words(deed: Any) -> None:
    try:
        deed()
    except FabdjangoError as error:
        sys.stdout.flush()
        raise Exit(error.render(), error.exit_code) from None


# --- test hosts --------------------------------------------------------------


@task(positional=["count"], auto_shortflags=False, help={"count": "How many, such as 3."})
def hosts_up(_c: Context, count: str) -> None:
    """
    Boot Debian hosts on this machine to deploy to.

    Needs root and systemd-nspawn. They stay until hosts-down, and every run adds more of them.
    """
    from tests import machines

    if not count.isdigit() or int(count) < 1:
        raise Exit(f"how many hosts? {count!r} is no number: inv hosts-up 3", 1)
    try:
        booted = machines.up(int(count), keep=True)
    except machines.MachineError as error:
        raise Exit(f"Error: {error}", 1) from None
    for machine in booted:
        ssh = f"ssh -i {machine.key} -o UserKnownHostsFile={machine.known_hosts} deploy@{machine.address}"
        sys.stdout.write(f"{machine.name}  {machine.suite}  {ssh}\n")
    sys.stdout.write("\nfab takes the key with -i and the file of host keys as fabdjango.ssh.known_hosts.\n")


@task
def hosts_down(_c: Context) -> None:
    """
    Throw the test hosts away.

    Hosts of a test run that is going on are left alone. A second run finds nothing to do.
    """
    from tests import machines

    running = machines.running()
    ours = [machine for machine in running if machine.keep]
    try:
        # With none in use by others, also what killed runs have left.
        machines.down(ours if len(ours) < len(running) else None)
    except (machines.MachineError, OSError) as error:
        raise Exit(f"Error: {error}", 1) from None
    sys.stdout.write(f"{', '.join(machine.name for machine in ours) or 'none'} thrown away\n")


# --- tests and texts ---------------------------------------------------------


@task(auto_shortflags=False, help={"args": 'More words for pytest, such as "tests/test_cli.py -k list".'})
def test(c: Context, args: str = "") -> None:  # noqa: PT028 - a task, not one of the tests
    """
    Run every test; those that need test hosts want root.

    On a machine that cannot boot hosts their tests are skipped, with the reason. FABDJANGO_REQUIRE_HOSTS=1 makes that a failure.
    """
    _need("pytest", "xdist", "asyncssh")
    from tests import machines

    reason = machines.missing_tools()
    if reason and os.environ.get("FABDJANGO_REQUIRE_HOSTS", "") not in ("", "0"):
        raise Exit(f"FABDJANGO_REQUIRE_HOSTS is set, but {reason}", 1)
    words = shlex.join(shlex.split(args))
    # Three have hosts of their own, and wait more than they work.
    workers = max(os.cpu_count() or 1, 4)
    _run(c, f"{PYTHON} -m pytest -n {workers} --dist loadgroup {words}".rstrip())


@task
def lint(c: Context) -> None:
    """
    Check style and formatting with ruff; changes nothing.
    """
    _need("ruff")
    _run(c, f"{PYTHON} -m ruff check .", f"{PYTHON} -m ruff format --check .")


@task
def types(c: Context) -> None:
    """
    Check types with mypy, strictly.
    """
    _need("mypy")
    _run(c, f"{PYTHON} -m mypy")


@task
def golden(c: Context) -> None:
    """
    Rewrite the golden files of the tests; review the diff.

    A second run changes nothing.
    """
    _need("pytest")
    variable = "FABDJANGO_GOLDEN"
    files = [
        path for path in sorted((ROOT / "tests").rglob("test_*.py")) if variable in path.read_text(encoding="utf-8")
    ]
    words = shlex.join(str(path.relative_to(ROOT)) for path in files)
    _run(c, f"{PYTHON} -m pytest -q {words}", "git --no-pager diff --stat -- tests/golden", env={variable: "1"})


@task
def docs(_c: Context) -> None:
    """
    Rewrite the README's tables of tasks and settings.

    A second run changes nothing.
    """
    from docs import tables

    before = tables.README.read_text(encoding="utf-8")
    after = tables.renewed(before)
    if after != before:
        tables.README.write_text(after, encoding="utf-8")
    sys.stdout.write(f"{tables.README.name}: {'unchanged' if after == before else 'rewritten'}\n")


# --- the benchmark -----------------------------------------------------------


@task(
    auto_shortflags=False,
    help={
        "tools": "Which, with commas between: fabdjango, plain, skipping (limit is both), capistrano, pyinfra, ansible, fabric (peers), or all.",
        "scenarios": "Which: first, code-only, same, requirements, rollback, ten-hosts, growth-first and so on (growth), or all.",
        "rounds": "How often each tool does each of them.",
        "delay": "Round trips to the hosts in milliseconds, such as 0,50.",
        "into": "Folder for runs.csv, table.md and times.svg; what is there of other scenarios stays.",
    },
)
def bench(
    _c: Context,
    tools: str = "fabdjango,limit",
    scenarios: str = "code-only",
    rounds: str = "5",
    delay: str = "0",
    into: str = "build/bench",
) -> None:
    """
    Time deploys beside other tools, on test hosts of its own.

    Needs root and systemd-nspawn, and a machine that does nothing else meanwhile. Each run deploys the next commit of a sample project.
    """
    _need("matplotlib", "uv")
    from benchmarks import chore

    words = {"tools": tools, "scenarios": scenarios, "rounds": rounds, "delay": delay, "into": into}
    command = " ".join(["inv bench", *(f"--{name} {shlex.quote(value)}" for name, value in words.items())])
    try:
        failed = chore.bench(chore.order(tools, scenarios, rounds, delay), Path(into), command, _say)
    except (ValueError, RuntimeError) as error:
        raise Exit(f"Error: {error}", 1) from None
    if failed:
        raise Exit(f"Error: {failed} runs failed", 1)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


ns = Collection(demo, demo_down, hosts_up, hosts_down, test, lint, types, golden, docs, bench)
for _name, _task in fabdjango.ns.tasks.items():
    ns.add_task(_task, name=_name)
for _collection in fabdjango.ns.collections.values():
    ns.add_collection(_collection)
