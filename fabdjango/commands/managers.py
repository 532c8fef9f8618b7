"""Which process manager a site has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from fabdjango.commands import gunicorn, supervisor, systemd
from fabdjango.commands.manager import MARK, SLOTS, WEB, Manager
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = ["check_account", "check_names", "find", "known_program", "places", "refuse_other"]


def find(settings: Settings, facts: Facts, layout: Layout, templates: Templates, host: str = "") -> Manager:
    """The manager that the settings name, with the site's files for it; raises FabdjangoError with the cure if it cannot be."""
    check_names(settings)
    found: Callable[..., Manager] = systemd.find if settings.manager == "systemd" else supervisor.find
    return found(settings, facts, layout, templates, host, held=gunicorn.held(settings, layout))


def places(settings: Settings, layout: Layout) -> tuple[PurePosixPath, ...]:
    """Every file that the site may have with one manager or the other, for the survey to read; sockets by their present name."""
    project = settings.project
    units = [f"{project}-{WEB}@.service", f"{project}-{WEB}-idle.service"]
    units += [f"{project}-{name}.service" for name in settings.processes]
    # Only its name is asked for, also before the home directory is known.
    address = gunicorn.held(settings, layout.at_home("/home"))
    units += [systemd.Systemd(settings, layout, address).socket] if address else []
    name = f"{project}.conf"
    conf = (PurePosixPath("/etc/supervisor/conf.d") / name, layout.supervisor / "conf.d" / name)
    return (*conf, *(systemd.UNITS / unit for unit in units))


def refuse_other(settings: Settings, facts: Facts, layout: Layout, host: str = "") -> None:
    """Raise FabdjangoError if the other manager still runs the site: both at once would be two sites."""
    other = "supervisor" if settings.manager == "systemd" else "systemd"
    for path in places(settings, layout):
        text = (facts.managed.get(str(path)) or {}).get("text") or ""
        if ("supervisor" in path.parts) == (other == "supervisor") and MARK in text:
            msg = f"the site's programs are run by {other} ({path}), and fabdjango.manager is {settings.manager}"
            raise FabdjangoError(
                msg,
                host=host,
                cure=f"take them away first, which stops the site until the deploy is over:\n"
                f"FABRIC_FABDJANGO_MANAGER={other} fab … {other}.remove",
            )


def check_account(settings: Settings) -> None:
    """Raise ConfigError for an account that must not run the application, or that the health check could not see through."""
    if settings.run_as == "root":
        raise ConfigError("fabdjango.run_as is root", cure="name an account of the application's own, such as www-blog")
    if settings.run_as not in ("", settings.user) and not settings.gunicorn.release_header:
        msg = "fabdjango.run_as is another account than user, and gunicorn.release_header is off"
        raise ConfigError(
            msg, cure="leave release_header on: what serves cannot be told from another account's processes"
        )


def check_names(settings: Settings) -> None:
    """Raise ConfigError for a program that would be called as one of gunicorn's is."""
    for name in settings.processes:
        if re.fullmatch(rf"{WEB}(-({'|'.join(SLOTS)}|idle|socket|(\w+-)*\d+))?", name):
            msg = f"fabdjango.processes.{name}: the name is one of gunicorn's own program"
            raise ConfigError(msg, cure="choose another name for the program")


def known_program(settings: Settings, only: str) -> None:
    """Raise ConfigError for a name that is no program of the site; empty means all of them."""
    known = [WEB, *settings.processes]
    if only and only not in known:
        msg = f"the site has no program {only!r}"
        raise ConfigError(msg, cure=f"it has: {', '.join(known)}")
