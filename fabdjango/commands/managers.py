"""Which process manager a site has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from fabdjango.commands import gunicorn, schedule, supervisor, systemd
from fabdjango.commands.manager import JOB, MARK, SLOTS, WEB, Manager, socket_suffix
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = [
    "check_account",
    "check_names",
    "find",
    "known_log",
    "known_program",
    "local_part",
    "places",
    "program_names",
    "refuse_other",
    "services",
]


def find(settings: Settings, facts: Facts, layout: Layout, templates: Templates, host: str = "") -> Manager:
    """The manager that the settings name, with the site's files for it; raises FabdjangoError with the cure if it cannot be."""
    check_names(settings)
    found: Callable[..., Manager] = systemd.find if settings.manager == "systemd" else supervisor.find
    return found(settings, facts, layout, templates, host, held=gunicorn.held(settings, layout))


def places(settings: Settings, layout: Layout) -> tuple[PurePosixPath, ...]:
    """Every file that the site may have with one manager or the other, for the survey to read; sockets by their present name."""
    return (*_of_supervisor(settings, layout), *_of_systemd(settings, layout))


def _of_supervisor(settings: Settings, layout: Layout) -> tuple[PurePosixPath, ...]:
    name = f"{settings.project}.conf"
    conf = (PurePosixPath("/etc/supervisor/conf.d") / name, layout.supervisor / "conf.d" / name)
    return (*conf, schedule.cron_path(settings.project))


def _of_systemd(settings: Settings, layout: Layout) -> tuple[PurePosixPath, ...]:
    project = settings.project
    units = [f"{project}-{WEB}@.service", f"{project}-{WEB}-idle.service"]
    units += [f"{project}-{name}.service" for name in settings.processes]
    units += [f"{project}-{JOB}-{name}.{kind}" for name in settings.schedule for kind in ("service", "timer")]
    address = _held(settings, layout)
    units += [systemd.Systemd(settings, layout, address).socket] if address else []
    return tuple(systemd.UNITS / unit for unit in units)


def _held(settings: Settings, layout: Layout) -> str:
    """The address of a held socket, of which only the name is asked for, also before the home directory is known."""
    return gunicorn.held(settings, layout.at_home("/home"))


def services(settings: Settings, layout: Layout) -> tuple[str, ...]:
    """The units that start the site's programs when the host boots; none for a supervisord of the owner's own."""
    if settings.manager == "systemd":
        return systemd.Systemd(settings, layout, _held(settings, layout)).enabled
    if settings.supervisor.level not in ("auto", "system"):
        return ()
    return ("supervisor.service", *(["cron.service"] if settings.schedule else []))


def program_names(settings: Settings, layout: Layout) -> tuple[str, ...]:
    """What supervisor may call programs and groups of the site; empty with another manager."""
    if settings.manager != "supervisor":
        return ()
    held = _held(settings, layout)
    parts = [f"{WEB}-{each}" for each in (*SLOTS, *([socket_suffix(held)] if held else []))]
    return tuple(f"{settings.project}-{each}" for each in (*parts, *settings.processes))


def refuse_other(settings: Settings, facts: Facts, layout: Layout, host: str = "") -> None:
    """Raise FabdjangoError if the other manager still runs the site: both at once would be two sites."""
    others = {"supervisor": _of_systemd, "systemd": _of_supervisor}[settings.manager]
    other = "supervisor" if settings.manager == "systemd" else "systemd"
    for path in others(settings, layout):
        text = (facts.managed.get(str(path)) or {}).get("text") or ""
        if MARK in text:
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


def local_part(settings: Settings, *, leads: bool) -> Settings:
    """The settings of one host: of the programs and jobs for the primary, only the one that ``leads`` has any."""
    if leads:
        return settings
    processes = {name: each for name, each in settings.processes.items() if each.hosts == "all"}
    jobs = {name: each for name, each in settings.schedule.items() if each.hosts == "all"}
    return replace(settings, processes=processes, schedule=jobs)


def check_names(settings: Settings) -> None:
    """Raise ConfigError for a program that would be called as one of gunicorn's or of another job is, and for a job that is none."""
    for name in settings.processes:
        if re.fullmatch(rf"{WEB}(-({'|'.join(SLOTS)}|idle|socket|(\w+-)*\d+))?", name):
            msg = f"fabdjango.processes.{name}: the name is one of gunicorn's own program"
            raise ConfigError(msg, cure="choose another name for the program")
        if name.startswith(f"{JOB}-"):
            msg = f"fabdjango.processes.{name}: the name is one of a job of fabdjango.schedule"
            raise ConfigError(msg, cure="choose another name for the program")
    if WEB in settings.schedule:
        raise ConfigError(f"fabdjango.schedule.{WEB}: gunicorn's program has this name", cure="choose another one")
    schedule.check_settings(settings)


def known_log(settings: Settings, name: str, elsewhere: Iterable[str] = ()) -> None:
    """Raise ConfigError for a name that is neither a program nor a job of the site; ``elsewhere`` are those of other hosts."""
    known = [WEB, *settings.processes, *settings.schedule, *sorted(elsewhere)]
    if name and name not in known:
        raise ConfigError(f"the site has no program and no job {name!r}", cure=f"it has: {', '.join(known)}")


def known_program(settings: Settings, only: str) -> None:
    """Raise ConfigError for a name that is no program of the site; empty means all of them."""
    known = [WEB, *settings.processes]
    if only and only not in known:
        msg = f"the site has no program {only!r}"
        raise ConfigError(msg, cure=f"it has: {', '.join(known)}")
