"""The virtualenvs on the host."""

from __future__ import annotations

from fabdjango import operations, surveying
from fabdjango.commands import venv as build
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["create", "diff", "freeze", "install", "package"]

_RELEASE = "Id of a release; current is the one that serves, newest the newest one."


@host_task(help={"release": _RELEASE})
def create(runner: Runner, release: str = "newest") -> None:
    """
    Make the empty virtualenv that a release needs.

    It is keyed by the requirement files, the packages and the Python. One that
    is complete is left alone. Reads venv and python.
    """
    operations.build_venv(runner, release, install=False)


@host_task(help={"release": _RELEASE})
def install(runner: Runner, release: str = "newest") -> None:
    """
    Install what a release requires into its virtualenv.

    Takes uv.lock, pylock.toml, requirement files or pyproject.toml, with uv if
    the host has it or can get it, else with pip. A complete virtualenv is left
    alone. Reads venv and python.
    """
    operations.build_venv(runner, release, install=True)


@host_task(help={"names": 'Requirements in one string, such as "ipython httpx<1".'})
def package(runner: Runner, names: str) -> None:
    """
    Try packages in the virtualenv that serves.

    The next deploy with other requirements makes a virtualenv without them: to
    keep a package, list it in the project or in venv.packages.
    """
    words = build.read_names(names)
    facts = surveying.look(runner, "", fetch=False)
    runner.do(build.install_package(runner.site.settings, facts, runner.site.layout, words))


@host_task(help={"release": "Id of a release; current is the one that serves."})
def freeze(runner: Runner, release: str = "current") -> None:
    """
    List the packages of a release with their versions.
    """
    runner.ask(build.freeze(runner.site.layout, operations.release_name(release)))


@host_task(help={"old": "Id of a release; current is the one that serves.", "new": "Id of another release."})
def diff(runner: Runner, new: str, old: str = "current") -> None:
    """
    Show how the packages of two releases differ.
    """
    operations.diff_packages(runner, operations.release_name(old), operations.release_name(new))
