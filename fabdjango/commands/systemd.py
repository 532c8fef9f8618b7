"""systemd: the site's programs as units of the host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands import schedule
from fabdjango.commands.manager import JOB, SLOTS, WEB, Source, mark_of, other_slot, several, socket_suffix
from fabdjango.escape import (
    Shell,
    block,
    indent,
    quote,
    quote_path,
    raw,
    sh,
    systemd_path,
    systemd_value,
    systemd_words,
)
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import ROOT, Put, Step
from fabdjango.render import Templates
from fabdjango.settings import Settings
from fabdjango.timetable import calendars

__all__ = ["UNITS", "Systemd", "find"]

UNITS = PurePosixPath("/etc/systemd/system")
"""Where an administrator's units are."""
_STAMPS = PurePosixPath("/var/lib/systemd/timers")
"""Where systemd keeps when a timer was last due; one that comes again after months has missed nothing."""


@dataclass(frozen=True)
class Systemd:
    """
    The host's systemd; see :class:`fabdjango.commands.manager.Manager`.

    ``files`` are the units of the site.
    """

    settings: Settings
    layout: Layout
    held: str = ""
    files: tuple[Put, ...] = field(default=(), repr=False)
    name: str = "systemd"

    # --- names ---

    @property
    def _project(self) -> str:
        return self.settings.project

    @property
    def socket(self) -> str:
        """The unit of the held socket, or empty."""
        return f"{self._project}-{WEB}-{socket_suffix(self.held)}.socket" if self.held else ""

    def slot(self, slot: str) -> str:
        """The unit of a slot."""
        return f"{self._project}-{WEB}@{slot}.service"

    def process(self, name: str) -> str:
        """The unit of a program of fabdjango.processes."""
        return f"{self._project}-{name}.service"

    def job(self, name: str) -> str:
        """The unit of a job of fabdjango.schedule; its timer is called as it is."""
        return f"{self._project}-{JOB}-{name}.service"

    @property
    def _jobs(self) -> tuple[str, ...]:
        return tuple(map(self.job, self.settings.schedule))

    @property
    def _timers(self) -> tuple[str, ...]:
        return tuple(f"{self._project}-{JOB}-{name}.timer" for name in self.settings.schedule)

    def _is_job(self, unit: str) -> bool:
        return unit.startswith(f"{self._project}-{JOB}-") and unit.endswith(".service")

    @property
    def needs_uv(self) -> bool:
        """Nothing is installed: a host has it."""
        return False

    @property
    def idle(self) -> str:
        """The unit that requests to a held socket start."""
        return f"{self._project}-{WEB}-idle.service"

    @property
    def enabled(self) -> tuple[str, ...]:
        """What is started when the host boots."""
        processes = map(self.process, self.settings.processes)
        return (*self._sockets(WEB), *map(self.slot, SLOTS), *processes, *self._timers)

    def _sockets(self, only: str) -> tuple[str, ...]:
        return (self.socket,) if self.held and only in ("", WEB) else ()

    def _units(self, only: str, slots: tuple[str, ...] = SLOTS) -> tuple[str, ...]:
        web = tuple(map(self.slot, slots)) if only in ("", WEB) else ()
        return (*web, *(self.process(name) for name in self.settings.processes if only in ("", name)))

    # --- the manager itself ---

    def install(self) -> tuple[Step, ...]:
        """It is there; asked whether it answers."""
        body = raw("systemctl show --property=Version >/dev/null || refuse 'systemd does not answer'")
        return (Step("systemd", "systemd runs", body, user=ROOT),)

    # --- its files ---

    def check(self) -> Step:
        """Let systemd read the units under their own names before they are installed."""
        return Step(
            "manager-check",
            "systemd reads the units",
            program=onhost.source("check_units"),
            parameters={"files": {put.path.name: put.content for put in self.files}},
        )

    def as_before(self) -> Shell:
        """Ends a step if the units are enabled as they are installed; a deploy may have died between the one and the other."""
        units, all_units = sh(*self.enabled), sh(*self.enabled, *self._jobs)
        return block(
            raw(f"stale=$(systemctl show --property=NeedDaemonReload -- {all_units} | grep -c yes) || :"),
            raw(f"enabled=$(systemctl is-enabled -- {units} 2>/dev/null | grep -cx enabled) || :"),
            raw(
                f'[ "$changed_files" ] || [ "$stale" != 0 ] || [ "$enabled" != {len(self.enabled)} ] || unchanged "as before"'
            ),
        )

    def configure(self) -> Step:
        """Install and enable the units; what runs goes on."""
        units, all_units = sh(*self.enabled), sh(*self.enabled, *self._jobs)
        body = block(
            self.as_before(),
            # Once, after both.
            raw(f"systemctl enable --quiet --no-reload -- {units}"),
            sh("systemctl", "daemon-reload"),
            raw(f"states=$(systemctl show --property=LoadState --value -- {all_units})"),
            raw("case $states in *error*|*bad*|*masked*|*not-found*) refuse 'systemd cannot load the units';; esac"),
        )
        return Step(
            "configure",
            f"install {', '.join(put.path.name for put in self.files)}",
            body,
            user=ROOT,
            puts=self.files,
            cure=f"systemctl status {' '.join(self.enabled)}",
        )

    def restore(self, previous: tuple[Put | None, ...]) -> Step:
        """The units as they were before; what has none any more is stopped, the others run on."""
        gone = [put.path.name for put, old in zip(self.files, previous, strict=True) if not old]
        # Only the name with the slot in it can be enabled and started.
        names = [
            each
            for name in gone
            for each in ([name.replace("@", f"@{slot}") for slot in SLOTS] if "@" in name else [name])
            # A run of a job that has begun goes on to its end.
            if not self._is_job(name)
        ]
        stamps = [_STAMPS / f"stamp-{name}" for name in gone if name.endswith(".timer")]
        body = block(
            raw(f"systemctl disable --now --quiet -- {sh(*names)} || :") if gone else raw(""),
            sh("rm", "-f", "--", *(UNITS / name for name in gone), *stamps) if gone else raw(""),
            sh("systemctl", "daemon-reload"),
        )
        puts = tuple(put for put in previous if put)
        return Step("configure-back", "the units as they were", body, user=ROOT, puts=puts)

    def _each_old(self, kind: str, *deed: Shell, wanted: bool = True) -> Shell:
        """
        Do something to each unit ``$u`` that has this site's mark and is not wanted any more.

        ``kind`` is socket, with the unit that it starts, timer, or service for the processes and jobs.
        Without ``wanted``, those that are wanted are meant too.
        """
        keep = [put.path.name for put in self.files] + ([self.idle] if kind == "service" else [])
        others = f"case $u in {'|'.join(dict.fromkeys(keep))}) continue;; esac" if wanted else ""
        # The names of our own units have no character that a shell would take.
        idle = f" {UNITS}/{self.idle}" if kind == "socket" else ""
        return block(
            raw(f"for f in {UNITS}/{self._project}-*.{kind}{idle}; do"),
            raw(f'  [ "$(head -n 1 -- "$f" 2>/dev/null)" = {quote("# " + mark_of(self._project))} ] || continue'),
            raw(f"  u=${{f##*/}}; {others}".rstrip("; ")),
            raw(indent(block(*deed))),
            raw("done"),
        )

    def _take_away(self, kind: str, *more: Shell) -> Shell:
        end = raw('systemctl disable --now --quiet -- "$u"')
        return block(
            self._each_old(
                kind,
                self._unless_job(end) if kind == "service" else end,
                raw('rm -f -- "$f"'),
                *more,
                raw('gone=1; printf "%s: taken away\\n" "$u"'),
            ),
            raw('[ -z "$gone" ] || systemctl daemon-reload'),
        )

    # --- its programs ---

    def start_slot(self, slot: str, *, name: str = "start") -> Step:
        """The slot anew, on the newest unit."""
        unit = self.slot(slot)
        anew = block(
            sh("systemctl", "stop", "--", unit),
            raw(f"{sh('systemctl', 'reset-failed', '--', unit)} 2>/dev/null || :"),
            self._open_socket(self.slot(other_slot(slot))),
            sh("systemctl", "start", "--", unit),
        )
        body = block(
            anew if self.held else sh("systemctl", "restart", "--", unit),
            raw(f"{sh('systemctl', 'is-active', '--quiet', '--', unit)} || refuse {quote(f'{unit} does not run')}"),
        )
        return Step(name, f"start {unit}", body, user=ROOT, cure=f"journalctl -u {unit}")

    def _open_socket(self, other: str) -> Shell:
        """
        Open the held socket.

        Where an old one has its port at another address, that and the slot that listens there must be shut first, and
        the site is down for a moment.
        """
        start = block(
            # systemd opens no socket whose own service is up.
            sh("systemctl", "stop", "--", self.idle),
            sh("systemctl", "start", "--", self.socket),
        )
        again = block(
            raw("note 'the port is taken by the old socket: both slots start anew'"),
            self._each_old("socket", raw('systemctl stop -- "$u"')),
            raw(f"runs=$({sh('systemctl', 'is-active', '--', other)}) || :"),
            sh("systemctl", "stop", "--", other),
            start,
            raw(f'[ "$runs" != active ] || {sh("systemctl", "start", "--", other)}'),
        )
        is_closed = raw(f"! {sh('systemctl', 'is-active', '--quiet', '--', self.socket)}")
        first = _if(raw(f"! {sh('systemctl', 'start', '--', self.socket)} 2>/dev/null"), again)
        return _if(is_closed, sh("systemctl", "stop", "--", self.idle), first)

    def stop_slot(self, slot: str, *, name: str = "stop-old") -> Step:
        """The slot empty; systemd itself kills what does not stop in time."""
        unit, other = self.slot(slot), self.slot(other_slot(slot))
        since = "systemctl show --property=ActiveEnterTimestampMonotonic --value --"
        body = block(
            # Two states and two times.
            raw(f"set -- $(systemctl is-active -- {sh(unit, other)}) $({since} {sh(unit, other)})"),
            sh("systemctl", "stop", "--", unit),
            raw(f"{sh('systemctl', 'reset-failed', '--', unit)} 2>/dev/null || :"),
            # A slot that is stopped for its successor was the last user of an earlier address; one that failed was not.
            _if(raw('[ "$2" = active ] && [ "$4" -gt "$3" ]'), raw("gone="), self._take_away("socket")),
            raw("case $1 in inactive|failed|unknown) unchanged 'not running';; esac"),
        )
        return Step(name, f"stop {unit}", body, user=ROOT)

    def restart_processes(self, *, name: str = "processes", back: tuple[Put | None, ...] | None = None) -> Step | None:
        """Every process stopped to its end, then started and waited for; systemd kills what does not stop in time."""
        units = self._units("", ())
        if back is None:
            more = raw("")
            left = self._stop_old() + "\n"
            timers = sh("systemctl", "start", "--", *self._timers) if self._timers else raw("")
        else:
            # What only the settings of before have was stopped, and is still there.
            more = self._each_old("service", self._unless_job(raw('set -- "$@" "$u"')))
            left = ""
            timers = self._each_old("timer", raw('systemctl start -- "$u"'), wanted=False)
        restart = self._restart(units, more) if units or more else raw("[ \"$gone\" ] || unchanged 'there are none'")
        cure = f"journalctl {' '.join(f'-u {unit}' for unit in units)}" if units else ""
        title = f"restart {', '.join(units) or 'no process'}"
        step = Step(name, title, block(raw(left.rstrip()), timers, restart), user=ROOT, cure=cure)
        if units or self._timers or back is not None:
            return step
        return replace(step, guard=self._none_are_left("there are none", self._unless_job(raw("found=1"))))

    def _none_are_left(self, why: str, found: Shell) -> Shell:
        """Where no unit is left that the settings no longer have, nobody has to become root; ``found`` is for a service."""
        return block(
            raw("found="),
            self._each_old("service", found),
            self._each_old("timer", raw("found=1")),
            raw(f"[ \"$found\" ] || unchanged '{why}'"),
        )

    def _unless_job(self, deed: Shell) -> Shell:
        """A run of a job that has begun goes on to its end."""
        return raw(f"case $u in {self._project}-{JOB}-*) ;; *) {deed};; esac")

    def _stop_old(self) -> Shell:
        """What neither processes nor schedule have any more; it is taken away once there is no way back to it."""
        stop = raw('systemctl stop -- "$u"; gone=1; printf "%s: stopped\\n" "$u"')
        return block(raw("gone="), self._each_old("service", self._unless_job(stop)), self._each_old("timer", stop))

    def tidy(self) -> Step | None:
        """Units of programs and jobs that the settings no longer have."""
        body = block(
            raw("gone="),
            self._take_away("timer", raw(f'rm -f -- {_STAMPS}/"stamp-$u"')),
            self._take_away("service"),
            raw("[ \"$gone\" ] || unchanged 'nothing is left over'"),
        )
        guard = self._none_are_left("nothing is left over", raw("found=1"))
        return Step("tidy", "units that the site no longer has go", body, user=ROOT, guard=guard)

    def _installed(self, units: tuple[str, ...]) -> Shell:
        """Those of some units that systemd knows, as ``"$@"``."""
        return block(
            raw(f"set --; for u in {sh(*units)}; do"),
            raw('  [ "$(systemctl show --property=LoadState --value -- "$u")" = not-found ] || set -- "$@" "$u"'),
            raw("done"),
        )

    def _restart(self, units: tuple[str, ...], more: Shell) -> Shell:
        """All, and what ``more`` adds to ``"$@"``, stopped before the first is started: not for a moment are there two of one."""
        startsecs = max((process.startsecs for process in self.settings.processes.values()), default=2)
        return block(
            # On the way back to an earlier release, a unit of the later one is not there any more.
            raw("set --"),
            raw(f'for u in {sh(*units)}; do [ ! -f {UNITS}/$u ] || set -- "$@" $u; done' if units else ""),
            more,
            raw("[ $# != 0 ] || unchanged 'there are none'"),
            raw('systemctl stop -- "$@"'),
            raw('systemctl reset-failed -- "$@" 2>/dev/null || :'),
            raw('systemctl start -- "$@"'),
            raw("n=0; while :; do"),
            # NRestarts counts what systemd started again by itself.
            raw('  s=$(systemctl show --property=Id,ActiveState,NRestarts -- "$@")'),
            raw(
                "  printf '%s\\n' \"$s\" | grep -qvx -e 'Id=.*' -e ActiveState=active -e NRestarts=0 -e '' || "
                f"{{ [ $n -lt {startsecs * 10:d} ] || break; n=$((n + 1)); sleep 0.1; continue; }}"
            ),
            raw("  printf '%s\\n' \"$s\"; refuse 'a process of the site does not stay up'"),
            raw("done"),
        )

    def run_job(self, name: str) -> Step:
        """The unit that its timer starts; what it says is in the journal."""
        unit, script = quote(self.job(name)), quote_path(schedule.script_path(self.layout, name))
        show = "systemctl show --value --property"
        body = block(
            raw(f"[ -e {script} ] || refuse 'the release that serves has no such job: deploy first'"),
            raw(
                f"case $({show}=LoadState -- {unit}) in loaded) ;; *) refuse 'systemd has no such job: deploy first';; esac"
            ),
            raw(f"case $({show}=ActiveState -- {unit}) in *activating) exit {schedule.LEFT_OUT};; esac"),
            raw(f"systemctl start -- {unit} 2>/dev/null || :"),
            raw("journalctl --sync"),
            raw(
                f'journalctl --no-pager --quiet --all -o cat "_SYSTEMD_INVOCATION_ID=$({show}=InvocationID -- {unit})"'
            ),
            raw(f"rc=$({show}=ExecMainStatus -- {unit})"),
            # Where it was killed, that is the number of the signal.
            raw(f"case $({show}=Result -- {unit}) in success|exit-code) exit $rc;; timeout) exit 124;; esac"),
            raw("exit $((rc + 128))"),
        )
        return Step("job", f"run {name}", body, user=ROOT)

    def start(self, only: str = "", slot: str = "a") -> Step:
        """What does not run."""
        units = (*self._sockets(only), *self._units(only, (slot,)), *(() if only else self._timers))
        body = block(
            raw(f"started=; for u in {sh(*units)}; do"),
            raw('  systemctl is-active --quiet -- "$u" && continue'),
            raw(f"  case $u in *.socket) {sh('systemctl', 'stop', '--', self.idle)};; esac") if self.held else raw(""),
            raw('  systemctl start -- "$u"; started=1; printf "%s: started\\n" "$u"'),
            raw("done"),
            raw("[ \"$started\" ] || unchanged 'already started'"),
        )
        cure = f"journalctl {' '.join(f'-u {unit}' for unit in units)}"
        return Step("start", f"start {', '.join(units)}", body, user=ROOT, cure=cure)

    def stop(self, only: str = "") -> Step:
        """What runs; the held socket goes too, as nobody would answer there."""
        units = (*self._sockets(only), *self._units(only), *(() if only else (*self._timers, *self._jobs)))
        body = block(
            self._installed(units),
            # One that systemd is about to start again runs, too.
            raw("systemctl is-active -- \"$@\" | grep -qvx -e inactive -e failed || unchanged 'not running'"),
            raw('systemctl stop -- "$@"'),
        )
        return Step("stop", f"stop {', '.join(units)}", body, user=ROOT)

    # --- looking ---

    def status(self) -> Step:
        """What systemctl says, a line a unit."""
        body = sh("systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager", "--", *self.enabled)
        return Step("status", f"systemd: {self._project}", body, user=ROOT)

    def logs(self, only: str, lines: int) -> Step:
        """The end of the journal of one program, or of both slots."""
        units = [word for unit in self._units(only) for word in ("-u", unit)]
        return Step("logs", f"log of {only}", sh("journalctl", "--no-pager", "-n", str(int(lines)), *units), user=ROOT)

    def sources(self, only: str = "") -> tuple[Source, ...]:
        """Units of the journal."""
        jobs = [name for name in self.settings.schedule if only in ("", name)]
        return tuple(
            Source(each, unit=unit)
            for each, unit in [
                *((WEB, self.slot(slot)) for slot in SLOTS if only in ("", WEB)),
                *((name, self.process(name)) for name in self.settings.processes if only in ("", name)),
                *((name, self.job(name)) for name in jobs),
            ]
        )

    def tail(self, count: int = 40, *, slot: str = "") -> Step:
        """The end of what every unit has said since it was last started, of the one slot only if it is given."""
        other = self.slot(other_slot(slot)) if slot else ""
        body = f"""for u in {sh(*(unit for unit in self._units("") if unit != other))}; do
  i=$(systemctl show --property=InvocationID --value -- "$u") || :
  [ -z "$i" ] || journalctl --no-pager -o cat -n {count:d} "_SYSTEMD_INVOCATION_ID=$i" || :
done"""
        return Step("log", "the end of the log", raw(body), user=ROOT, capture=True)


def _if(test: Shell, *commands: Shell) -> Shell:
    """As ``when``; no word of ours spans lines, so that they can be indented although they hold quotes."""
    return raw(f"if {test}; then\n{indent(block(*commands))}\nfi")


# --- finding it ---


def find(
    settings: Settings, facts: Facts, layout: Layout, templates: Templates, host: str = "", *, held: str = ""
) -> Systemd:
    """The site's units; raises FabdjangoError if the host's systemd does not run or may not be commanded."""
    if not facts.systemd:
        msg = "systemd does not run on the host"
        raise FabdjangoError(msg, host=host, cure="set fabdjango.manager to supervisor")
    if not facts.commands_root:
        msg = "the host's systemd belongs to root, and sudo asks for a password"
        cure = "set fabdjango.manager to supervisor, or allow sudo without a password"
        raise FabdjangoError(msg, host=host, cure=cure)
    named = Systemd(settings, layout, held)
    return replace(named, files=tuple(_files(named, facts, templates)))


def _files(units: Systemd, facts: Facts, templates: Templates) -> Iterator[Put]:
    settings, layout, project = units.settings, units.layout, units.settings.project
    account = _account(settings, facts, layout)

    def put(unit: str, template: str, **values: object) -> Put:
        text = templates.render(f"systemd/{template}", mark=mark_of(project), project=project, **values)
        return Put(UNITS / unit, text)

    def service(identifier: str) -> str:
        return templates.render("systemd/service.j2", identifier=identifier, **account)

    if units.held:
        yield put(units.socket, "web.socket.j2", listen=_listen(units.held), idle=units.idle)
        yield put(units.idle, "idle.service.j2")
    yield put(
        f"{project}-{WEB}@.service",
        "slot.service.j2",
        slots=systemd_path(layout.slots, "fabdjango.root"),
        command=systemd_words("/bin/sh", layout.slot_starter),
        socket=units.socket,
        stop=settings.gunicorn.graceful_timeout + 10,
        service=service(f"{project}-{WEB}-%i"),
    )
    for name, process in settings.processes.items():
        script = layout.current / ".fabdjango" / f"process-{name}"
        yield put(
            units.process(name),
            "process.service.j2",
            title=name,
            script=systemd_path(script, "fabdjango.root"),
            command=systemd_words("/bin/sh", script),
            several=several(process.command),
            stop=process.stop_timeout,
            service=service(f"{project}-{name}"),
        )
    for name, job in settings.schedule.items():
        script = schedule.script_path(layout, name)
        yield put(
            units.job(name),
            "job.service.j2",
            title=name,
            script=systemd_path(script, "fabdjango.root"),
            command=systemd_words("/bin/sh", script),
            timeout=job.timeout + 60,
            service=service(f"{project}-{JOB}-{name}"),
        )
        times = calendars(job.at, f"fabdjango.schedule.{name}.at")
        yield put(f"{project}-{JOB}-{name}.timer", "job.timer.j2", title=name, calendars=times)


def _listen(held: str) -> str:
    """The address as systemd writes it; a name is not resolved there."""
    if held.startswith("unix:"):
        return systemd_path(held.removeprefix("unix:"), "fabdjango.gunicorn.bind")
    host, _, port = held.rpartition(":")
    if host in ("", "localhost"):
        return f"127.0.0.1:{port}" if host else f"0.0.0.0:{port}"
    if not re.fullmatch(r"\d+(\.\d+){3}|\[[0-9a-fA-F:.]+\]", host):
        msg = f"fabdjango.gunicorn.bind: systemd listens at addresses only, not at the name {host}"
        raise ConfigError(msg, cure="write its address, for instance bind: 127.0.0.1:8000")
    return held


def _account(settings: Settings, facts: Facts, layout: Layout) -> dict[str, object]:
    """Who runs the site's programs, and what they may do: the values of service.j2."""
    media = PurePosixPath(settings.nginx.media)
    # A path that is not there is passed over with the -.
    writable = [systemd_words(layout.root), *([systemd_words(f"-{media}")] if media.is_absolute() else [])]
    options = []
    for name, value in settings.systemd.options.items():
        if not re.fullmatch("[A-Za-z]+", name):
            msg = f"fabdjango.systemd.options: {name!r} is not the name of a setting of systemd"
            raise ConfigError(msg, cure="write it as in systemd.exec(5), for instance MemoryMax: 512M")
        options.append(f"{name}={systemd_value(str(value), f'fabdjango.systemd.options.{name}')}")
    python = PurePosixPath(str(facts.python.get("path") or "/usr/bin/python3"))
    home = "none" if _is_home(layout.root) else "read-only" if _is_home(python) else "hidden"
    return {
        "user": systemd_value(settings.run_as or facts.user, "fabdjango.run_as"),
        "hardening": settings.systemd.hardening,
        "writable": " ".join(writable),
        "home": home,
        "options": options,
    }


def _is_home(path: PurePosixPath) -> bool:
    """True for what ProtectHome= would shut."""
    return any(path.is_relative_to(each) for each in ("/home", "/root", "/run/user"))
