"""supervisor: Debian's service, or a supervisord of the owner's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands import schedule
from fabdjango.commands import venv as venvs
from fabdjango.commands.manager import MARK, SLOTS, WEB, Source, mark_of, other_slot, several, socket_suffix
from fabdjango.escape import Shell, all_of, block, quote_path, raw, sh, supervisor_value, supervisor_words, when
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import OWNER, ROOT, Put, Step
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = ["Supervisord", "find", "level_of"]

_HELD_WAIT = 300
"""Seconds in the file of a held socket's group: a change of graceful_timeout must not start both slots anew."""


@dataclass(frozen=True)
class Supervisord:
    """
    The supervisord that runs the site; see :class:`fabdjango.commands.manager.Manager`.

    ``level`` is system, user or virtualenv; ``user`` is who may command it; ``control`` and ``daemon`` are the words
    of its programs and ``python`` the one that they are written for; ``conf_path`` is the file of this site.
    ``previous`` names the groups of the file that is on the host, and of the one that will be.
    """

    settings: Settings
    layout: Layout
    facts: Facts = field(repr=False)
    level: str
    user: str
    control: Shell
    daemon: Shell
    python: Shell
    conf_path: PurePosixPath
    log_dir: PurePosixPath
    held: str = ""
    files: tuple[Put, ...] = ()
    own: tuple[Put, ...] = ()
    previous: tuple[str, ...] = ()

    # --- names ---

    @property
    def name(self) -> str:
        """What it is called in a report; a virtualenv is filled by the site's installer."""
        return {"system": "supervisor", "user": "supervisor of the owner's own"}.get(
            self.level, "supervisor in a virtualenv"
        )

    @property
    def needs_uv(self) -> bool:
        """True for a supervisor in a virtualenv of its own."""
        return self.level == "virtualenv"

    @property
    def _project(self) -> str:
        return self.settings.project

    def _program(self, name: str) -> str:
        return f"{self._project}-{name}"

    def _group(self, slot: str) -> str:
        """What supervisor calls the group of a slot: both share one where it holds their socket."""
        return self._program(f"{WEB}-{socket_suffix(self.held) if self.held else slot}")

    def _targets(self, only: str, slots: tuple[str, ...] = SLOTS) -> list[list[str]]:
        """Group and program of the slots and processes, or of one of them."""
        web = [[self._group(slot), self._program(f"{WEB}-{slot}")] for slot in slots]
        processes = [[self._program(name)] * 2 for name in self.settings.processes if only in ("", name)]
        return (web if only in ("", WEB) else []) + processes

    @property
    def _crontab(self) -> tuple[Put, ...]:
        """The file for the host's cron, if there is one."""
        return tuple(put for put in self.files if put.path != self.conf_path)

    def _logs(self, only: str = "") -> tuple[PurePosixPath, ...]:
        return tuple(self.log_dir / f"{name}.log" for _, name in self._targets(only))

    # --- the manager itself ---

    def install(self) -> tuple[Step, ...]:
        """Debian's service must run; a supervisord of the owner's own is installed and started."""
        if self.level == "system":
            body = block(
                raw(f"{self.control} pid >/dev/null || refuse 'the supervisor service does not run'"),
                # One broken file of anybody's would stop us after the switch; nothing is applied by reading.
                self._reread(),
            )
            runs = Step("supervisor", "supervisor runs", body, user=ROOT, cure="systemctl enable --now supervisor")
            return (runs, schedule.need_cron()) if self.settings.schedule else (runs,)
        base = self.layout.supervisor
        if len(f"{base}/supervisor.sock.123456") > 107:
            msg = f"the path {base}/supervisor.sock is too long for a socket"
            raise FabdjangoError(msg, cure="choose a shorter fabdjango.root")
        first = (_install_in_virtualenv(self.settings, self.facts, self.layout),) if self.level == "virtualenv" else ()
        body = block(
            sh("mkdir", "-p", "--", base / "conf.d", self.layout.logs),
            # Whatever a program says of itself, a secret in a traceback too, stands there.
            sh("chmod", "750", "--", self.layout.logs),
            when(raw(f"{self.control} pid >/dev/null 2>&1"), raw("unchanged 'it runs'")),
            # The daemon must not inherit our locks.
            raw(f"{self.daemon} 8>&- 9>&-"),
            raw(
                f"n=0; until {self.control} pid >/dev/null 2>&1; do n=$((n + 1)); "
                "[ $n -lt 100 ] || refuse 'supervisord does not come up'; sleep 0.1; done"
            ),
        )
        return (*first, Step("supervisor", "supervisord of the site's own runs", body, puts=self.own))

    def _reread(self) -> Shell:
        """Let supervisor read all its files; it says 0 when it cannot read one."""
        return block(
            raw(f"out=$({self.control} reread) || {{ printf '%s\\n' \"$out\"; exit 1; }}"),
            raw('case $out in *ERROR*) printf "%s\\n" "$out"; exit 1;; esac'),
        )

    # --- its file ---

    def check(self) -> Step:
        """Let supervisor's own parser read the new file before it can harm the programs of others."""
        put = next(each for each in self.files if each.path == self.conf_path)
        return Step(
            "manager-check",
            f"supervisor reads {put.path.name}",
            program=onhost.source("check_supervisor"),
            interpreter=self.python,
            parameters={"text": put.content, "name": put.path.name},
        )

    def as_before(self) -> Shell:
        """Ends a step unless it has changed a file."""
        return raw('[ "$changed_files" ] || unchanged "as before"')

    def configure(self) -> Step:
        """Replace the site's file and let supervisor read it, which does nothing to any program."""
        body = block(self.as_before(), self._reread())
        paths = ", ".join(str(put.path) for put in self.files)
        return Step("configure", f"write {paths}", body, user=self.user, puts=self.files)

    def restore(self, previous: tuple[Put | None, ...]) -> Step:
        """The site's file as it was before; what it does not have is stopped, the rest runs on."""
        gone = [put.path for put, old in zip(self.files, previous, strict=True) if not old]
        body = sh("rm", "-f", "--", *gone) if gone else raw("")
        told = self._tell("configure-back", f"{self.conf_path} as it was", "restore")
        return replace(told, body=block(body, told.body), puts=tuple(put for put in previous if put))

    # --- its programs ---

    def _tell(self, name: str, title: str, verb: str, cure: str = "", **parameters: object) -> Step:
        graceful = self.settings.gunicorn.graceful_timeout + 10
        limits = {self._program(f"{WEB}-{slot}"): graceful for slot in SLOTS}
        limits |= {self._program(each): process.stop_timeout for each, process in self.settings.processes.items()}
        return Step(
            name,
            title,
            raw("export FABDJANGO_RUN"),
            user=self.user,
            program=onhost.source("supervise"),
            interpreter=self.python,
            parameters={
                "verb": verb,
                "project": self._project,
                "config": "" if self.level == "system" else str(self.layout.supervisor / "supervisord.conf"),
                "limits": limits,
                "previous": self.previous,
                "patience": 30 + max((each.startsecs for each in self.settings.processes.values()), default=0),
                **parameters,
            },
            cure=cure,
        )

    def _tell_slot(self, name: str, slot: str, verb: str) -> Step:
        return self._tell(
            name,
            f"{verb} {self._program(f'{WEB}-{slot}')}",
            f"{verb}_slot",
            group=self._group(slot),
            program=self._program(f"{WEB}-{slot}"),
            other=self._program(f"{WEB}-{other_slot(slot)}"),
            link=str(self.layout.slot(other_slot(slot))),
            held=bool(self.held),
        )

    def start_slot(self, slot: str, *, name: str = "start") -> Step:
        """The slot anew, on the newest file."""
        return self._tell_slot(name, slot, "start")

    def stop_slot(self, slot: str, *, name: str = "stop-old") -> Step:
        """The slot empty."""
        return self._tell_slot(name, slot, "stop")

    def restart_processes(self, *, name: str = "processes", back: tuple[Put | None, ...] | None = None) -> Step | None:
        """Every process stopped to its end, then started and waited for; cron reads its files by itself."""
        web = self._program(f"{WEB}-")
        programs = [self._program(each) for each in self.settings.processes]
        # What only the settings of before have.
        before = [each for put in back or () if put and put.path == self.conf_path for each in _groups_in(put.content)]
        programs += [each for each in before if not each.startswith(web) and each not in programs]
        if not programs and not [each for each in self.previous if not each.startswith(web)]:
            return None
        return self._tell(
            name, f"restart {', '.join(programs) or 'no process'}", "processes", _LOOK_ABOVE, programs=programs
        )

    def tidy(self) -> Step | None:
        """A file of cron's without a job; programs are taken away as they are stopped."""
        if not self._crontab or self.settings.schedule:
            return None
        body = sh("rm", "-f", "--", *(put.path for put in self._crontab))
        return Step("tidy", "cron has no job of the site any more", body, user=ROOT)

    def run_job(self, name: str) -> Step:
        """The script that cron starts."""
        return schedule.run_job(self.settings, self.layout, name)

    def start(self, only: str = "", slot: str = "a") -> Step:
        """What does not run."""
        targets = self._targets(only, (slot,))
        told = self._tell("start", f"start {only or 'the site'}", "start", _LOOK_ABOVE, targets=targets)
        return told if only else replace(told, puts=self._crontab)

    def stop(self, only: str = "") -> Step:
        """What runs; cron starts no job any more, until start or a deploy."""
        told = self._tell("stop", f"stop {only or 'the site'}", "stop", targets=self._targets(only))
        if only or not self._crontab:
            return told
        return replace(told, body=block(sh("rm", "-f", "--", *(put.path for put in self._crontab)), told.body))

    # --- looking ---

    def status(self) -> Step:
        """What supervisorctl says; a slot that was never used is unknown to it, which is no error."""
        names = sh(*(program if group == program else f"{group}:{program}" for group, program in self._targets("")))
        body = block(
            raw(f"{self.control} pid >/dev/null || refuse 'supervisord does not run'"),
            raw(f"out=$({self.control} status {names}) || :"),
            raw("printf '%s\\n' \"$out\" | grep -v 'no such process' || :"),
        )
        return Step("status", f"supervisor: {self._project}", body, user=self.user)

    def logs(self, only: str, lines: int) -> Step:
        """The end of one program's log, or of both slots'."""
        files = self._logs(only)
        # A slot that was never used has none.
        body = raw(f"tail -n {lines:d} -- {sh(*files)} 2>/dev/null || [ {len(files) - 1} != 0 ]")
        return Step("logs", f"log of {only}", body, user=self.user)

    def sources(self, only: str = "") -> tuple[Source, ...]:
        """Files of supervisor's, and of jobs."""
        names = [*((WEB, f"{WEB}-{slot}") for slot in SLOTS), *((each, each) for each in self.settings.processes)]
        owner = self.facts.user
        reader = ROOT if self.user == ROOT else owner
        programs = (Source(each, path=self.log_dir / f"{self._program(log)}.log", user=reader) for each, log in names)
        logs = {name: schedule.log_path(self.layout, name) for name in self.settings.schedule}
        jobs = (Source(name, path=path, user=owner) for name, path in logs.items())
        return tuple(each for each in (*programs, *jobs) if only in ("", each.name))

    def tail(self, count: int = 40, *, slot: str = "") -> Step:
        """The end of every log, of the one slot only if it is given."""
        logs = [self.log_dir / f"{name}.log" for _, name in self._targets("", (slot,) if slot else SLOTS)]
        body = raw(f"tail -q -n {count:d} -- {sh(*logs)} 2>/dev/null || :")
        return Step("log", "the end of the log", body, user=self.user, capture=True)


_LOOK_ABOVE = "the end of the program's log says why"


# --- finding it ---


def level_of(settings: Settings, facts: Facts, host: str = "") -> str:
    """The level, as the setting says or as the host allows; raises FabdjangoError if it is not there."""
    level = settings.supervisor.level
    system_ready = facts.supervisor_conf_d and bool(facts.programs.get("supervisorctl"))
    if level == "auto":
        if facts.own_supervisord:
            level = "virtualenv" if facts.own_supervisord_installed else "user"
        elif system_ready and facts.commands_root:
            level = "system"
        else:
            level = "user" if facts.programs.get("supervisord") else "virtualenv"
    if (level == "system" and not system_ready) or (level == "user" and not facts.programs.get("supervisord")):
        msg = "supervisor is not installed on the host"
        cure = "on the host, as root: apt-get install supervisor\nor set fabdjango.supervisor.level to virtualenv"
        raise FabdjangoError(msg, host=host, cure=cure)
    if level == "system" and not facts.commands_root:
        msg = "the host's supervisor belongs to root, and sudo asks for a password"
        cure = "set fabdjango.supervisor.level to virtualenv, or allow sudo without a password"
        raise FabdjangoError(msg, host=host, cure=cure)
    return level


def find(
    settings: Settings, facts: Facts, layout: Layout, templates: Templates, host: str = "", *, held: str = ""
) -> Supervisord:
    """The supervisord for the site and what it is to run; raises FabdjangoError if it is not there."""
    level = level_of(settings, facts, host)
    if level != "system" and settings.run_as not in ("", facts.user):
        msg = f"a supervisor of {facts.user}'s own cannot run the application as {settings.run_as}"
        raise ConfigError(msg, host=host, cure="leave out fabdjango.run_as, or take the host's supervisor or systemd")
    if level == "system" and held.startswith("unix:"):
        # It would make and own the socket as root, in a folder where the owner of the site may put a link in its way.
        msg = "with one slot, the host's supervisor would have to hold a unix socket in a folder that is not root's"
        cure = "set fabdjango.gunicorn.bind to host:port, or fabdjango.manager to systemd"
        raise ConfigError(msg, host=host, cure=cure)
    base = layout.supervisor
    found = (_system if level == "system" else _own)(settings, facts, layout, level)
    own: tuple[Put, ...] = ()
    if level != "system":
        own = (Put(base / "supervisord.conf", templates.render("supervisor/supervisord.conf.j2")),)
    text = (facts.managed.get(str(found.conf_path)) or {}).get("text") or ""
    found = replace(found, held=held, own=own)
    put = _configuration(found, templates)
    cron = _crontab(found, templates, host)
    previous = tuple(dict.fromkeys([*_groups_in(text), *_groups_in(put.content)]))
    return replace(found, files=(put, *cron), previous=previous)


def _crontab(found: Supervisord, templates: Templates, host: str) -> tuple[Put, ...]:
    """The site's file for cron, if it has jobs, or had some."""
    settings, facts = found.settings, found.facts
    if found.level != "system":
        # The account's own crontab is a person's: lines of theirs stand in it, and it can be put back as a whole only.
        if settings.schedule:
            msg = f"at supervisor.level {found.level}, nothing of the host's starts jobs: fabdjango.schedule"
            cure = "use supervisor: {level: system} or manager: systemd, which need root or sudo\n"
            cure += "or start them from the account's crontab yourself, and leave schedule out"
            raise ConfigError(msg, host=host, cure=cure)
        return ()
    there = (facts.managed.get(str(schedule.cron_path(settings.project))) or {}).get("text")
    if not settings.schedule and MARK not in (there or ""):
        return ()
    return (schedule.cron_file(settings, found.layout, templates, settings.run_as or facts.user),)


def _groups_in(text: str) -> list[str]:
    return re.findall(r"^\[(?:group|program|fcgi-program):([^\]]+)\]", text, re.MULTILINE)


def _system(settings: Settings, facts: Facts, layout: Layout, level: str) -> Supervisord:
    return Supervisord(
        settings,
        layout,
        facts,
        level,
        ROOT,
        sh("supervisorctl"),
        sh("supervisord"),
        _PYTHON_OF_SUPERVISORD,
        PurePosixPath("/etc/supervisor/conf.d") / f"{settings.project}.conf",
        PurePosixPath("/var/log/supervisor"),
    )


def _own(settings: Settings, facts: Facts, layout: Layout, level: str) -> Supervisord:
    base = layout.supervisor
    installed = sh(base / "venv" / "bin" / "python")
    programs = ("supervisorctl", "supervisord")
    control, daemon = (
        raw(
            f"{installed} -m supervisor.{each} {sh('-c', base / 'supervisord.conf')}"
            if level == "virtualenv"
            else f"{each} {sh('-c', base / 'supervisord.conf')}"
        )
        for each in programs
    )
    python = installed if level == "virtualenv" else _PYTHON_OF_SUPERVISORD
    conf = base / "conf.d" / f"{settings.project}.conf"
    return Supervisord(settings, layout, facts, level, OWNER, control, daemon, python, conf, layout.logs)


_PYTHON_OF_SUPERVISORD = raw('"$(sed -n \'1s/^#! *\\([^ ]*\\).*/\\1/p\' "$(command -v supervisord)")"')


# --- its file ---


def _configuration(found: Supervisord, templates: Templates) -> Put:
    """The site's programs; their commands are constant paths, so a release's values never stand in it."""
    settings, project = found.settings, found.settings.project
    account = settings.run_as or found.facts.user
    user = supervisor_value(account, "fabdjango.run_as") if found.level == "system" else ""

    def program(name: str, log: str, **values: object) -> dict[str, object]:
        path = supervisor_value(found.log_dir / log, "the path of a log")
        return {"name": name, "user": user, "log": f"{path}.log", "socket": "", "stopasgroup": False, **values}

    programs = _slots(found, program)
    for each, process in settings.processes.items():
        words = supervisor_words("/bin/sh", found.layout.current / ".fabdjango" / f"process-{each}")
        name = f"{project}-{each}"
        programs.append(
            program(
                name,
                name,
                command=words,
                startsecs=process.startsecs,
                stopwaitsecs=process.stop_timeout,
                stopasgroup=several(process.command),
            )
        )
    return Put(
        found.conf_path,
        templates.render("supervisor/program.conf.j2", programs=programs, project=project, mark=mark_of(project)),
    )


def _slots(found: Supervisord, program: Callable[..., dict[str, object]]) -> list[dict[str, object]]:
    name = f"{found.settings.project}-{WEB}"
    starter = supervisor_words("/bin/sh", found.layout.slot_starter)
    wait = found.settings.gunicorn.graceful_timeout + 10
    if not found.held:
        return [
            program(f"{name}-{slot}", f"{name}-{slot}", command=f"{starter} {slot}", startsecs=1, stopwaitsecs=wait)
            for slot in SLOTS
        ]
    each = program(
        f"{name}-{socket_suffix(found.held)}",
        "",
        socket=_socket(found.held),
        command=f"{starter} %(process_num)c 0",
        startsecs=1,
        stopwaitsecs=max(wait, _HELD_WAIT),
    )
    path = supervisor_value(found.log_dir, "the path of a log")
    return [{**each, "log": f"{path}/{name}-%(process_num)c.log"}]


def _socket(held: str) -> str:
    """The address as supervisor writes it; it has no IPv6."""
    if held.startswith("unix:"):
        return "unix://" + supervisor_value(held.removeprefix("unix:"), "fabdjango.gunicorn.bind")
    host, _, port = held.rpartition(":")
    if ":" in host:
        msg = f"fabdjango.gunicorn.bind: supervisor cannot hold a socket of IPv6, such as {held}"
        cure = "set fabdjango.manager to systemd, or put nginx in front: fabdjango.nginx.domains"
        raise ConfigError(msg, cure=cure)
    return f"tcp://{supervisor_value(host, 'fabdjango.gunicorn.bind') or '0.0.0.0'}:{port}"  # noqa: S104 - an empty host means that


# --- a supervisor of the site's own ---


def _install_in_virtualenv(settings: Settings, facts: Facts, layout: Layout) -> Step:
    target = layout.supervisor / "venv"
    python = facts.python.get("path", settings.python)
    uv = venvs.uv_of(facts, layout)
    with_uv = all_of(
        sh(uv, "venv", "--quiet", "--no-project", "--python", python, "--", target),
        sh(uv, "pip", "install", "--quiet", "--python", target / "bin" / "python", "--", "supervisor"),
    )
    with_pip = all_of(
        sh(python, "-m", "venv", "--", target),
        sh(
            target / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--",
            "supervisor",
        ),
    )
    return Step(
        "supervisor",
        "install supervisor into a virtualenv of its own",
        block(
            when(raw(f"[ -e {quote_path(target / '.complete')} ]"), raw("unchanged 'is there'")),
            sh("rm", "-rf", "--", target),
            venvs.index_environment(settings, facts),
            venvs.either(settings, facts, layout, with_uv, with_pip),
            sh("touch", "--", target / ".complete"),
        ),
    )
