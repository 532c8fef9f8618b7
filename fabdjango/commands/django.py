"""manage.py, settings files, and the one start of Django in a deploy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.escape import Shell, block, quote_path, raw, sh, split_words
from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout
from fabdjango.plan import Put, Step
from fabdjango.settings import Settings

__all__ = [
    "directory_of",
    "in_release",
    "local_settings_target",
    "manage",
    "manage_words",
    "migrate",
    "plan_reversal",
    "put_settings",
    "reverse",
    "start",
]


def directory_of(settings: Settings, release_path: PurePosixPath) -> PurePosixPath:
    """The folder of manage.py in a release: where every command runs, and the first entry of PYTHONPATH."""
    manage = PurePosixPath(settings.django.manage)
    if manage.is_absolute() or ".." in manage.parts:
        msg = f"fabdjango.django.manage must be a path inside the commit, not {settings.django.manage!r}"
        raise ConfigError(msg, cure="for instance manage: src/manage.py")
    return release_path / manage.parent


def local_settings_target(settings: Settings, settings_module: str) -> PurePosixPath:
    """Where local_settings.py goes, from the top of the commit: beside the settings module unless told otherwise."""
    if settings.local_settings_path:
        target = PurePosixPath(settings.local_settings_path)
        if target.is_absolute() or ".." in target.parts:
            msg = (
                f"fabdjango.local_settings_path must be a path inside the commit, not {settings.local_settings_path!r}"
            )
            raise ConfigError(msg)
        return target
    return PurePosixPath(settings.django.manage).parent.joinpath(*settings_module.split(".")[:-1]) / "local_settings.py"


def in_release(release_path: PurePosixPath) -> Shell:
    """The words before a command that is to run in a release, with its environment and virtualenv."""
    return sh("/bin/sh", release_path / ".fabdjango" / "run")


def manage_words(settings: Settings, command: str) -> list[str]:
    """
    ``command`` split as a shell would split it, for manage.py's argv; nothing in it is expanded.

    Raises ConfigError for quotes that do not close.
    """
    words = split_words(command, 'fab … django.manage "migrate blog 0003"')
    if not words:
        msg = "there is no management command to run"
        raise ConfigError(msg, cure='for instance: fab … django.manage "showmigrations --plan"')
    return ["python", PurePosixPath(settings.django.manage).name, *words]


def manage(settings: Settings, release_path: PurePosixPath, command: str, *, name: str = "manage") -> Step:
    """One management command in a release."""
    words = sh(*manage_words(settings, command))
    timeout = raw(f"timeout -k 10 {settings.django.timeout}")
    body = block(need_release(release_path), raw(f"{timeout} {in_release(release_path)} {words}"))
    return Step(name, f"manage.py {command}", body)


def need_release(release_path: PurePosixPath) -> Shell:
    """Say in words that there is no release, before a path of it gives a riddle."""
    return raw(
        f"[ -e {quote_path(release_path / '.fabdjango' / 'run')} ] || refuse 'there is no such release yet: run deploy, or git.checkout and venv.install'"
    )


def migrate(
    settings: Settings,
    layout: Layout,
    release_path: PurePosixPath,
    expected: Iterable[str] | None,
    entry: Mapping[str, object],
) -> Step:
    """
    Apply the migrations of a release under a lock of the database, and write down those that were applied in fact.

    ``expected`` is the plan that was shown, as app.name; one more than these
    stops it before anything is applied (None: any). ``entry`` is what the
    journal says besides the time, the result and the migrations.
    """
    return _migrations(
        settings,
        layout,
        release_path,
        "apply migrations",
        {"action": "migrate", "expected": None if expected is None else sorted(expected), "target_known": []},
        entry,
        name="migrate",
    )


def reverse(
    settings: Settings,
    layout: Layout,
    release_path: PurePosixPath,
    target_known: Iterable[str],
    expected: Iterable[str] | None,
    entry: Mapping[str, object],
) -> Step:
    """
    Reverse what an older release lacks, from the newer one at ``release_path``, which alone knows how.

    ``target_known`` is the older release's DjangoFacts.known. It is looked at
    once more whether data would be lost; then, or if more is to be reversed
    than ``expected``, the database stays as it is.
    """
    return _migrations(
        settings,
        layout,
        release_path,
        "reverse migrations",
        {
            "action": "reverse",
            "expected": None if expected is None else sorted(expected),
            "target_known": sorted(target_known),
        },
        entry,
        name="reverse",
    )


def _migrations(
    settings: Settings,
    layout: Layout,
    release_path: PurePosixPath,
    title: str,
    parameters: Mapping[str, object],
    entry: Mapping[str, object],
    *,
    name: str,
) -> Step:
    return Step(
        name,
        title,
        need_release(release_path),
        program=onhost.source("migrate"),
        interpreter=_python(settings, release_path),
        parameters={
            **parameters,
            "project": settings.project,
            "by": str(entry.get("by", "")),
            "lock_timeout": settings.django.lock_timeout,
            "lock_file": str(layout.run / "migrate.lock"),
            "mark": str(layout.run / "migrate.json"),
            "journal": str(layout.journal),
            "entry": dict(entry),
        },
        cure="see what is applied: fab … django.migrations; then deploy again",
    )


def plan_reversal(settings: Settings, release_path: PurePosixPath, target_known: Iterable[str]) -> Step:
    """What going back to an older release would do to the database, seen from the newer one; for read_reversal."""
    return Step(
        "plan-reversal",
        "see whether migrations can be reversed",
        need_release(release_path),
        program=onhost.source("reverse_plan"),
        interpreter=_python(settings, release_path),
        parameters={"target_known": sorted(target_known)},
        capture=True,
    )


def _python(settings: Settings, release_path: PurePosixPath) -> Shell:
    return raw(f"timeout -k 10 {settings.django.timeout} {in_release(release_path)} python")


def put_settings(layout: Layout, env_text: str | None, local_settings: str | None) -> Step:
    """Replace the settings files that the next release takes a copy of; readable by the owner and the group at most."""
    puts = []
    if env_text is not None:
        puts.append(Put(layout.env_file, env_text, 0o640, secret=True))
    if local_settings is not None:
        puts.append(Put(layout.local_settings, local_settings, 0o640, secret=True))
    names = " and ".join(put.path.name for put in puts)
    return Step(
        "settings",
        f"write {names} for the next release",
        raw('[ "$changed_files" ] || unchanged "as before"'),
        puts=tuple(puts),
    )


def start(
    settings: Settings,
    release_path: PurePosixPath,
    app: str,
    *,
    collectstatic: bool = True,
    plan: bool = True,
    mirror: PurePosixPath | None = None,
    commit: str = "",
    outgoing: PurePosixPath | None = None,
) -> Step:
    """
    Check, migration plan and collectstatic in one start of Django; its output is for read_django.

    With ``commit`` in ``mirror``, the very files of the release, static files are taken from the release ``outgoing``
    if what they are made of is the same.
    """
    return Step(
        "check",
        "check, migration plan and static files",
        program=onhost.source("django_start"),
        interpreter=_python(settings, release_path),
        parameters={
            "check": settings.django.check,
            "deploy": settings.django.check_deploy,
            "collectstatic": settings.django.collectstatic if collectstatic else "never",
            "plan": plan,
            "mirror": str(mirror or ""),
            "commit": commit,
            "outgoing": str(outgoing or ""),
            "app": app,
            "static": settings.health.static,
            "answer": str(release_path / ".fabdjango" / "django.json"),
        },
        capture=True,
    )
