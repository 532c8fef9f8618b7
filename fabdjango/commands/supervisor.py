"""supervisor: Debian's service, or a supervisord of the owner's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands import venv as venvs
from fabdjango.escape import Shell, all_of, block, quote, quote_path, raw, sh, supervisor_value, supervisor_words, when
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import OWNER, ROOT, Put, Step
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = [
    "Supervisord",
    "check",
    "check_names",
    "configuration",
    "configure",
    "find",
    "install",
    "logs",
    "restart",
    "restore",
    "start",
    "status",
    "stop",
    "wait_running",
]


@dataclass(frozen=True)
class Supervisord:
    """
    The supervisord that runs the site.

    ``level`` is system, user or virtualenv; ``user`` is who may command it;
    ``control`` the words of its supervisorctl; ``conf_path`` the file of this site.
    """

    level: str
    user: str
    control: Shell
    daemon: Shell
    conf_path: PurePosixPath
    log_dir: PurePosixPath


def find(settings: Settings, facts: Facts, layout: Layout, host: str = "") -> Supervisord:
    """Choose the level, as the setting says or as the host allows; raises FabdjangoError if it is not there."""
    level = settings.supervisor.level
    name = settings.project
    system_ready = facts.supervisor_conf_d and bool(facts.programs.get("supervisorctl"))
    if level == "auto":
        if facts.own_supervisord:
            level = "virtualenv" if facts.own_supervisord_installed else "user"
        elif system_ready and facts.sudo:
            level = "system"
        else:
            level = "user" if facts.programs.get("supervisord") else "virtualenv"
    if level == "system":
        if not system_ready:
            msg = "supervisor is not installed on the host"
            raise FabdjangoError(
                msg,
                host=host,
                cure="on the host, as root: apt-get install supervisor\nor set fabdjango.supervisor.level to virtualenv",
            )
        if not facts.sudo:
            msg = "the host's supervisor belongs to root, and sudo asks for a password"
            raise FabdjangoError(
                msg, host=host, cure="set fabdjango.supervisor.level to virtualenv, or allow sudo without a password"
            )
        conf = PurePosixPath("/etc/supervisor/conf.d") / f"{name}.conf"
        return Supervisord(
            level, ROOT, sh("supervisorctl"), sh("supervisord"), conf, PurePosixPath("/var/log/supervisor")
        )
    if level == "user" and not facts.programs.get("supervisord"):
        msg = "supervisor is not installed on the host"
        raise FabdjangoError(
            msg,
            host=host,
            cure="on the host, as root: apt-get install supervisor\nor set fabdjango.supervisor.level to virtualenv",
        )
    base = layout.supervisor
    programs = base / "venv" / "bin"
    python = programs / "python"
    control = sh(python, "-m", "supervisor.supervisorctl") if level == "virtualenv" else sh("supervisorctl")
    daemon = sh(python, "-m", "supervisor.supervisord") if level == "virtualenv" else sh("supervisord")
    config = sh("-c", base / "supervisord.conf")
    return Supervisord(
        level,
        OWNER,
        raw(f"{control} {config}"),
        raw(f"{daemon} {config}"),
        base / "conf.d" / f"{name}.conf",
        layout.logs,
    )


def check_names(settings: Settings) -> None:
    """Raise ConfigError for a program that would be called as gunicorn's is."""
    if "web" in settings.processes:
        msg = "fabdjango.processes.web: web is the name of gunicorn's own program"
        raise ConfigError(msg, cure="choose another name for the program")


def configuration(settings: Settings, facts: Facts, layout: Layout, templates: Templates, daemon: Supervisord) -> Put:
    """The site's programs as one group; their commands are constant paths, so a release's values never stand in it."""
    name = settings.project
    private = layout.current / ".fabdjango"
    user = supervisor_value(facts.user, "fabdjango.user") if daemon.level == "system" else ""

    def program(program_name: str, script: str, startsecs: int, stopwaitsecs: int, *, group: bool) -> dict[str, object]:
        return {
            "name": program_name,
            "command": supervisor_words("/bin/sh", private / script),
            "user": user,
            "startsecs": startsecs,
            "stopwaitsecs": stopwaitsecs,
            "stopasgroup": group,
            "log": supervisor_value(daemon.log_dir / f"{program_name}.log", "the path of a log"),
        }

    programs = [
        program(
            f"{name}-web", "web", settings.supervisor.startsecs, settings.gunicorn.graceful_timeout + 10, group=False
        )
    ]
    for each, process in settings.processes.items():
        # A shell that waits for its last command does not pass the signal on.
        several = bool(re.search(r"[;&|<>\n()]", process.command))
        programs.append(
            program(f"{name}-{each}", f"process-{each}", process.startsecs, process.stop_timeout, group=several)
        )
    return Put(daemon.conf_path, templates.render("supervisor/program.conf.j2", programs=programs, group=name))


def install(
    settings: Settings, facts: Facts, layout: Layout, templates: Templates, daemon: Supervisord
) -> tuple[Step, ...]:
    """Make supervisor and its daemon be there and run."""
    if daemon.level == "system":
        return (
            Step(
                "supervisor",
                "supervisor runs",
                block(
                    raw(f"{daemon.control} pid >/dev/null || refuse 'the supervisor service does not run'"),
                    # One broken file of anybody's would stop us after the switch; nothing is applied by reading.
                    _reread(daemon),
                ),
                user=ROOT,
                cure="systemctl enable --now supervisor",
            ),
        )
    steps = []
    if daemon.level == "virtualenv":
        steps.append(_install_in_virtualenv(settings, facts, layout))
    base = layout.supervisor
    config = Put(base / "supervisord.conf", templates.render("supervisor/supervisord.conf.j2"))
    if len(f"{base}/supervisor.sock.123456") > 107:
        msg = f"the path {base}/supervisor.sock is too long for a socket"
        raise FabdjangoError(msg, cure="choose a shorter fabdjango.root")
    body = block(
        sh("mkdir", "-p", "--", base / "conf.d", layout.logs),
        # Whatever a program says of itself, a secret in a traceback too, stands there.
        sh("chmod", "750", "--", layout.logs),
        when(raw(f"{daemon.control} pid >/dev/null 2>&1"), raw("unchanged 'it runs'")),
        # The daemon must not inherit our lock.
        raw(f"{daemon.daemon} 9>&-"),
        raw(
            f"n=0; until {daemon.control} pid >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 100 ] || refuse 'supervisord does not come up'; sleep 0.1; done"
        ),
    )
    return (*steps, Step("supervisor", "supervisord of the site's own runs", body, puts=(config,)))


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


def check(layout: Layout, daemon: Supervisord, put: Put) -> Step:
    """Let supervisor's own parser read the new file before it can harm the programs of others."""
    python = (
        sh(layout.supervisor / "venv" / "bin" / "python")
        if daemon.level == "virtualenv"
        else raw('"$(sed -n \'1s/^#! *\\([^ ]*\\).*/\\1/p\' "$(command -v supervisord)")"')
    )
    return Step(
        "supervisor-check",
        f"supervisor reads {put.path.name}",
        program=onhost.source("check_supervisor"),
        interpreter=python,
        parameters={"text": put.content, "name": put.path.name},
    )


def configure(daemon: Supervisord, put: Put) -> Step:
    """Replace the site's file; the programs of others stay as they are, and so do ours until a restart."""
    return Step(
        "configure",
        f"write {put.path}",
        raw('[ "$changed_files" ] || unchanged "as before"'),
        user=daemon.user,
        puts=(put,),
    )


def _reread(daemon: Supervisord) -> Shell:
    """Let supervisor read all its files; it says 0 when it cannot read one."""
    return block(
        raw(f"out=$({daemon.control} reread) || {{ printf '%s\\n' \"$out\"; exit 1; }}"),
        raw('case $out in *ERROR*) printf "%s\\n" "$out"; exit 1;; esac'),
    )


def restart(settings: Settings, daemon: Supervisord, *, name: str = "restart") -> Step:
    """Start the group anew: by update if its file changed, else by restart; never both, that would be down time twice."""
    group = settings.project
    update = raw(f"changed=$({daemon.control} update {quote(group)}) || {{ printf '%s\\n' \"$changed\"; exit 1; }}")
    body = block(
        _reread(daemon),
        update,
        raw(
            f'if [ "$changed" ]; then printf "%s\\n" "$changed"; else {daemon.control} restart {quote(group + ":*")}; fi'
        ),
    )
    return Step(name, f"restart {group}:*", body, user=daemon.user)


def restore(settings: Settings, daemon: Supervisord, previous: Put | None) -> Step:
    """Put the site's file back as it was; without one before, take the group away again."""
    group = quote(settings.project)
    if previous is None:
        body = block(
            sh("rm", "-f", "--", daemon.conf_path),
            raw(f"{daemon.control} reread >/dev/null || :"),
            raw(f"{daemon.control} update {group} || :"),
        )
        return Step("restart-back", "no program of the site, as before", body, user=daemon.user)
    again = restart(settings, daemon)
    return Step("restart-back", "restart the previous release", again.body, user=daemon.user, puts=(previous,))


def wait_running(settings: Settings, daemon: Supervisord, seconds: int = 60) -> Step:
    """Wait until every program has stayed up for its startsecs; update and status both say 0 for programs that die."""
    group = quote(settings.project + ":*")
    body = f"""n=0
while :; do
  s=$({daemon.control} status {group}) || :
  case $s in *FATAL*|*"no such"*|*refused*) printf '%s\\n' "$s"; refuse 'a program of the site does not stay up';; esac
  printf '%s\\n' "$s" | grep -qv ' RUNNING ' || break
  n=$((n + 1)); [ $n -lt {seconds * 5} ] || {{ printf '%s\\n' "$s"; refuse 'the programs of the site do not come up'; }}
  sleep 0.2
done"""
    return Step(
        "running",
        f"{settings.project}:* stays up",
        raw(body),
        user=daemon.user,
        cure="the end of the program's log stands above",
    )


def tail(settings: Settings, daemon: Supervisord, count: int = 40) -> Step:
    """The end of every log of the site; for the report of a failure."""
    names = [f"{settings.project}-web", *(f"{settings.project}-{name}" for name in settings.processes)]
    files = [daemon.log_dir / f"{name}.log" for name in names]
    return Step(
        "log",
        "the end of the log",
        raw(f"tail -q -n {count} -- {' '.join(quote_path(path) for path in files)} 2>/dev/null || :"),
        user=daemon.user,
        capture=True,
    )


def _verb(settings: Settings, daemon: Supervisord, verb: str, as_it_was: str, only: str) -> Step:
    """``start`` or ``stop``; supervisorctl calls it an error when nothing is to do, which it is not."""
    target = f"{settings.project}:{settings.project}-{only}" if only else f"{settings.project}:*"
    body = block(
        raw(f"out=$({daemon.control} {sh(verb, target)}) && done=1 || done="),
        raw('printf "%s\\n" "$out"'),
        raw(f'[ "$done" ] || [ -z "$(printf "%s\\n" "$out" | grep -v {quote(as_it_was)})" ]'),
        raw(f"case $out in ''|*{quote(as_it_was)}*) unchanged {quote(as_it_was)};; esac"),
    )
    return Step(verb, f"{verb} {target}", body, user=daemon.user)


def start(settings: Settings, daemon: Supervisord, only: str = "") -> Step:
    """Start the site's programs, or one of them; those that run stay as they are."""
    return _verb(settings, daemon, "start", "already started", only)


def stop(settings: Settings, daemon: Supervisord, only: str = "") -> Step:
    """Stop the site's programs, or one of them."""
    return _verb(settings, daemon, "stop", "not running", only)


def status(settings: Settings, daemon: Supervisord) -> Step:
    """What supervisor says of the site's programs."""
    return Step(
        "status",
        f"supervisor: {settings.project}",
        raw(f"{daemon.control} status {quote(settings.project + ':*')} || [ $? = 3 ]"),
        user=daemon.user,
    )


def logs(settings: Settings, daemon: Supervisord, only: str, lines: int) -> Step:
    """The end of one program's log."""
    return Step(
        "logs",
        f"log of {only}",
        raw(f"tail -n {lines} -- {quote_path(daemon.log_dir / f'{settings.project}-{only}.log')}"),
        user=daemon.user,
    )
