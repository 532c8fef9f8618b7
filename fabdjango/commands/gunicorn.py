"""The application server: its configuration file, and how it is started."""

from __future__ import annotations

import keyword
import re
from pathlib import PurePosixPath

from fabdjango.escape import Shell, quote_path, raw, sh
from fabdjango.exceptions import ConfigError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import Put, Step
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = [
    "app_of",
    "bind_of",
    "check",
    "check_options",
    "configure",
    "held",
    "run",
    "start_words",
    "status",
    "workers_of",
]


def app_of(settings: Settings, settings_module: str) -> str:
    """The application as gunicorn names it; by default the module beside the settings."""
    app = (
        settings.gunicorn.app
        or f"{settings_module.split('.', maxsplit=1)[0]}.{settings.gunicorn.interface}:application"
    )
    if not re.fullmatch(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?(\(.*\))?", app):
        msg = f"fabdjango.gunicorn.app must be module:name, not {app!r}"
        raise ConfigError(msg, cure="for instance app: blog.wsgi:application")
    return app


def bind_of(settings: Settings, layout: Layout) -> str:
    """Where the site is asked from outside: host:port or unix:/path."""
    # A socket that is held cannot stand where the link to the live slot is.
    path = "unix:{run}/current.sock" if settings.slots == "2" else "unix:{run}/site.sock"
    bind = settings.gunicorn.bind or (path if settings.nginx.domains else "127.0.0.1:8000")
    bind = bind.replace("{run}", str(layout.run)).replace("{project}", settings.project)
    path = bind.removeprefix("unix:")
    if bind.startswith("unix:"):
        # The kernel's limit for the name of a socket is 107 bytes.
        if not path.startswith("/") or len(path.encode()) > 107:
            msg = f"fabdjango.gunicorn.bind: {path!r} is not an absolute path of at most 107 bytes"
            raise ConfigError(msg, cure="leave it empty, or choose a shorter root")
        taken = [layout.private_socket("a"), layout.private_socket("b")]
        if path in map(str, [*taken, *([layout.live_socket] if settings.slots == "1" else [])]):
            msg = f"fabdjango.gunicorn.bind: {path!r} is where the slots listen for themselves"
            raise ConfigError(msg, cure="leave it empty: behind nginx a fitting one is chosen")
    elif not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]*):\d{1,5}", bind):
        msg = f"fabdjango.gunicorn.bind must be host:port or unix:/path, not {bind!r}"
        raise ConfigError(msg, cure="for instance bind: 127.0.0.1:8000")
    if len(str(layout.private_socket("a")).encode()) > 107:
        msg = f"the path {layout.private_socket('a')} is too long for a socket"
        raise ConfigError(msg, cure="choose a shorter fabdjango.root")
    return bind


def held(settings: Settings, layout: Layout) -> str:
    """
    The address whose listening socket the process manager holds, or empty.

    A path can be pointed at another slot by a rename; a port cannot, so both slots take from one socket that outlives
    them. With one slot, requests wait in that socket while the release is exchanged.
    """
    bind = bind_of(settings, layout)
    return "" if bind.startswith("unix:") and settings.slots == "2" else bind


def workers_of(settings: Settings, facts: Facts) -> int:
    """How many workers a slot has."""
    return min(2 * facts.processors + 1, 9) if settings.gunicorn.workers == "auto" else int(settings.gunicorn.workers)


def _worker_class(settings: Settings) -> str:
    gunicorn = settings.gunicorn
    if gunicorn.worker_class:
        return gunicorn.worker_class
    if gunicorn.interface == "asgi":
        return "uvicorn_worker.UvicornWorker"
    return "gthread" if gunicorn.threads > 1 else "sync"


def check_options(settings: Settings) -> None:
    """Raise ConfigError for an option that cannot be a name in a Python file."""
    for name in settings.gunicorn.options:
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", name) or keyword.iskeyword(name):
            msg = f"fabdjango.gunicorn.options: {name!r} is not the name of a gunicorn setting"
            raise ConfigError(msg, cure="see the names in gunicorn's documentation of its settings")
        if name in ("bind", "on_starting", "post_worker_init"):
            msg = f"fabdjango.gunicorn.options: {name} is what the slots and the health check are made with"
            raise ConfigError(msg, cure="for the address there is fabdjango.gunicorn.bind")


def configure(
    settings: Settings, facts: Facts, layout: Layout, templates: Templates, release: str, directory: PurePosixPath
) -> Put:
    """gunicorn.conf.py of one release."""
    gunicorn = settings.gunicorn
    settings_module = settings.django.settings or facts.settings_module
    text = templates.render(
        "gunicorn/gunicorn.conf.py.j2",
        app=app_of(settings, settings_module),
        run=layout.sockets,
        workers=workers_of(settings, facts),
        threads=gunicorn.threads,
        worker_class=_worker_class(settings),
        timeout=gunicorn.timeout,
        graceful_timeout=gunicorn.graceful_timeout,
        max_requests=gunicorn.max_requests,
        directory=directory,
        proc_name=settings.project,
        worker_tmp_dir="/dev/shm" if facts.system.startswith("Linux") else "",  # noqa: S108 - gunicorn's heartbeat files, not ours
        options=gunicorn.options,
        release=release,
        release_header=gunicorn.release_header,
    )
    return Put(layout.private(release) / "gunicorn.conf.py", text)


def start_words(layout: Layout, release: str) -> Shell:
    """The command that serves a release; started as ``python -m`` so that nothing outside its virtualenv takes part."""
    return sh("python", "-m", "gunicorn", "-c", layout.private(release) / "gunicorn.conf.py")


def _in_current(layout: Layout) -> Shell:
    return raw(f"/bin/sh {quote_path(layout.current / '.fabdjango' / 'run')}")


def check(layout: Layout) -> Step:
    """Let gunicorn read its configuration and import the application, without serving."""
    config = layout.current / ".fabdjango" / "gunicorn.conf.py"
    return Step(
        "check",
        "gunicorn --check-config",
        raw(f"{_in_current(layout)} python -m gunicorn --check-config -c {quote_path(config)}"),
    )


def run(layout: Layout, bind: str) -> Shell:
    """Gunicorn in the foreground, on another address than the site's."""
    config = layout.current / ".fabdjango" / "gunicorn.conf.py"
    return raw(f"exec {_in_current(layout)} python -m gunicorn -c {quote_path(config)} {sh('--bind', bind)}")


def status(layout: Layout) -> Step:
    """The processes whose configuration is a release of this site, with their working directory."""
    # Read from /proc: the answer does not depend on who started them.
    body = f"""found=
for p in /proc/[0-9]*; do
  case $(cat "$p/cmdline" 2>/dev/null | tr '\\0' ' ') in
    *gunicorn*{quote_path(layout.releases)}/*) found=1; printf '%s %s %s\\n' "${{p#/proc/}}" "$(stat -c %U "$p")" "$(readlink "$p/cwd" 2>/dev/null || printf '(not readable)')";;
  esac
done
[ "$found" ] || printf 'no gunicorn of this site runs\\n'"""
    return Step("status", "gunicorn processes: pid, account, working directory", raw(body))
