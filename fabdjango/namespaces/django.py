"""manage.py on the host, and Django's settings files."""

from __future__ import annotations

import shlex

from fabdjango import operations
from fabdjango.commands import django as build
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = [
    "check",
    "collectstatic",
    "createsuperuser",
    "dbshell",
    "manage",
    "migrate",
    "migrations",
    "settings",
    "shell",
]

_RELEASE = {"release": "Id of a release; current is the one that serves, newest the newest one."}


@host_task(help={"command": 'The command and its arguments in one string, such as "migrate blog 0003".', **_RELEASE})
def manage(runner: Runner, command: str, release: str = "current") -> None:
    """
    Run a management command on the host and show its output.

    It runs in the release, in the folder of manage.py, with the environment
    and the virtualenv of the site. The string is split into words as a shell
    would; nothing in it is expanded.
    """
    runner.call(build.manage(runner.site.settings, operations.release_path(runner, release), command))


@host_task(help={"deploy": "Include the checks for deployment settings.", **_RELEASE})
def check(runner: Runner, deploy: bool = False, release: str = "current") -> None:
    """
    Run Django's system checks with the settings of the site.
    """
    level = runner.site.settings.django.check
    words = ["check", *(["--deploy"] if deploy else []), *([] if level == "never" else ["--fail-level", level])]
    runner.ask(
        build.manage(runner.site.settings, operations.release_path(runner, release), shlex.join(words), name="check")
    )


@host_task(help=_RELEASE)
def migrate(runner: Runner, release: str = "current") -> None:
    """
    Apply the migrations of a release.

    A second run applies nothing. It runs under a lock of the database, so that
    two never migrate at once, and writes into the journal what was applied.
    """
    operations.migrate(runner, release)


@host_task(help=_RELEASE)
def migrations(runner: Runner, release: str = "current") -> None:
    """
    List migrations and whether they are applied.
    """
    runner.ask(
        build.manage(
            runner.site.settings, operations.release_path(runner, release), "showmigrations", name="migrations"
        )
    )


@host_task(help=_RELEASE)
def collectstatic(runner: Runner, release: str = "newest") -> None:
    """
    Collect the static files of a release.

    A deploy does this by itself, before the release serves. Files that are the
    same are left alone.
    """
    runner.do(
        build.manage(
            runner.site.settings,
            operations.release_path(runner, release),
            "collectstatic --noinput",
            name="collectstatic",
        )
    )


@host_task()
def settings(runner: Runner) -> None:
    """
    Upload local_settings.py and the environment file.

    Both are rendered from templates of the project, written atomically into
    shared, and readable by the owner and the group only. They serve from the
    next release on: a release keeps the settings that it was made with. Reads
    local_settings and env_file; a second run reports unchanged.
    """
    operations.upload_settings(runner)


@host_task(help=_RELEASE)
def shell(runner: Runner, release: str = "current") -> None:
    """
    Open Django's shell on the host, with a terminal.
    """
    operations.interact(runner, release, build.manage_words(runner.site.settings, "shell"))


@host_task(help=_RELEASE)
def dbshell(runner: Runner, release: str = "current") -> None:
    """
    Open the database's own shell on the host, with a terminal.
    """
    operations.interact(runner, release, build.manage_words(runner.site.settings, "dbshell"))


@host_task(help={"username": "Name of the account.", "email": "Its address.", **_RELEASE})
def createsuperuser(runner: Runner, username: str = "", email: str = "", release: str = "current") -> None:
    """
    Create an administrator; the password is asked on the host.

    Without a terminal, give the name and the address, and set
    DJANGO_SUPERUSER_PASSWORD in the site's environment.
    """
    words = ["createsuperuser", *(["--username", username] if username else []), *(["--email", email] if email else [])]
    operations.interact(
        runner, release, build.manage_words(runner.site.settings, shlex.join(words)), unattended="--noinput"
    )
