"""systemd as the process manager: its units, and what it is told."""

from __future__ import annotations

import subprocess
from pathlib import PurePosixPath
from typing import Any

import pytest

from fabdjango import onhost
from fabdjango.commands import managers, systemd
from fabdjango.exceptions import ConfigError, FabdjangoError, RefusedValueError
from fabdjango.layout import Layout
from fabdjango.plan import Put
from tests.conftest import LAYOUT, sample_facts, sample_settings, sample_templates, shell, shown

PROCESSES = {
    "worker": {"command": "celery -A 'it is' worker", "stop_timeout": 90, "startsecs": 3},
    "beat": {"command": "cd 'a b'; exec beat"},
}


def found(held: str = "", layout: Layout = LAYOUT, facts: dict[str, Any] | None = None, **more: Any) -> systemd.Systemd:
    """The sample site's units; ``more`` is settings."""
    given = {"systemd": True, **(facts or {})}
    return systemd.find(sample_settings(more), sample_facts(**given), layout, sample_templates(), "web1", held=held)


def unit(units: systemd.Systemd, name: str) -> list[str]:
    """The settings of one of the site's units, without comments."""
    (put,) = [put for put in units.files if put == Put(systemd.UNITS / name, put.content)]
    return [line for line in put.content.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"systemd": False}, "systemd does not run on the host"),
        ({"sudo": False}, "the host's systemd belongs to root, and sudo asks for a password"),
    ],
)
def test_a_host_without_it(facts: dict[str, Any], message: str) -> None:
    """The cure names the other manager."""
    with pytest.raises(FabdjangoError) as caught:
        found(facts=facts)
    assert (caught.value.message, caught.value.host) == (message, "web1")
    assert "fabdjango.manager to supervisor" in caught.value.cure


def test_the_units() -> None:
    """One template for both slots, and a unit for each process, with its own time to stop."""
    units = found(processes=PROCESSES)
    assert [put.path.name for put in units.files] == ["blog-web@.service", "blog-worker.service", "blog-beat.service"]
    slot = unit(units, "blog-web@.service")
    for line in (
        "ConditionPathExists=/srv/it's here/slots/%i",
        'ExecStart=/bin/sh "/srv/it\'s here/run/slot" %i',
        "User=ada",
        "KillMode=mixed",
        "TimeoutStopSec=40",
        "WantedBy=multi-user.target",
    ):
        assert line in slot
    for name, lines in {"worker": {"KillMode=mixed", "TimeoutStopSec=90"}, "beat": {"KillMode=control-group"}}.items():
        start = f'ExecStart=/bin/sh "/srv/it\'s here/current/.fabdjango/process-{name}"'
        assert {start, *lines} <= set(unit(units, f"blog-{name}.service"))


@pytest.mark.parametrize(
    ("held", "name", "listen"),
    [
        ("127.0.0.1:8000", "blog-web-8000.socket", "127.0.0.1:8000"),
        ("localhost:8000", "blog-web-8000.socket", "127.0.0.1:8000"),
        (":80", "blog-web-any-80.socket", "0.0.0.0:80"),
        ("[::1]:80", "blog-web-___1_-80.socket", "[::1]:80"),
        ("unix:/srv/it's here/run/current.sock", "blog-web-socket.socket", "/srv/it's here/run/current.sock"),
    ],
)
def test_a_held_socket(held: str, name: str, listen: str) -> None:
    """The slots get it as number 3; what a request starts is neither of them."""
    units = found(held)
    lines = unit(units, name)
    assert lines[lines.index("[Socket]") + 1] == f"ListenStream={listen}"
    assert "Service=blog-web-idle.service" in lines
    assert "ExecStart=/bin/true" in unit(units, "blog-web-idle.service")
    assert {f"Sockets={name}", 'ExecStart=/bin/sh "/srv/it\'s here/run/slot" %i 3'} < set(
        unit(units, "blog-web@.service")
    )


def test_systemd_does_not_resolve_names() -> None:
    """An address is what it listens at."""
    with pytest.raises(ConfigError, match=r"listens at addresses only, not at the name web1$"):
        found("web1:8000")


@pytest.mark.parametrize(
    ("root", "python", "line"),
    [
        ("/srv/blog", "/usr/bin/python3", "ProtectHome=yes"),
        ("/srv/blog", "/home/ada/.pyenv/bin/python3", "ProtectHome=read-only"),
        ("/home/ada/blog", "/usr/bin/python3", ""),
    ],
)
def test_home_is_shut_unless_the_site_needs_it(root: str, python: str, line: str) -> None:
    """The site itself may be in there, or its Python."""
    lines = unit(
        found(layout=Layout(type(LAYOUT.root)(root), "blog"), facts={"python": {"path": python}}), "blog-web@.service"
    )
    assert [each for each in lines if each.startswith("ProtectHome")] == ([line] if line else [])


def test_hardening_and_options() -> None:
    """The site's folder and its media may be written; none leaves it all out; options come last, and so they win."""
    full = unit(found(nginx={"media": "/var/it's media"}), "blog-web@.service")
    assert 'ReadWritePaths="/srv/it\'s here" "-/var/it\'s media"' in full
    none = unit(found(systemd={"hardening": "none", "options": {"MemoryMax": "50%"}}), "blog-web@.service")
    assert none[-3:] == ["MemoryMax=50%%", "[Install]", "WantedBy=multi-user.target"]
    assert not [line for line in none if line.startswith(("Protect", "Private", "Restrict", "NoNew"))]


@pytest.mark.parametrize(
    ("name", "value"), [("MemoryMax", "1G\nExecStartPre=/bin/it"), ("Memory-Max", "1G"), ("Environment", 'A="it is"')]
)
def test_options_that_would_be_something_else(name: str, value: str) -> None:
    """A line of another kind is never added."""
    with pytest.raises((ConfigError, RefusedValueError), match=r"fabdjango\.systemd\.options"):
        found(systemd={"options": {name: value}})


def test_check() -> None:
    """Under their own names, in a folder of their own."""
    units = found()
    step = units.check()
    assert step.parameters == {"files": {"blog-web@.service": units.files[0].content}}
    assert step.program == onhost.source("check_units")


def test_configure_and_restore() -> None:
    """Enabled, and loaded, also if a deploy died before that; what was not there before is taken away."""
    assert (
        shown(found().configure()).splitlines()[4:]
        == shell("""
        stale=$(systemctl show --property=NeedDaemonReload -- blog-web@a.service blog-web@b.service | grep -c yes) || :
        enabled=$(systemctl is-enabled -- blog-web@a.service blog-web@b.service 2>/dev/null | grep -cx enabled) || :
        [ "$changed_files" ] || [ "$stale" != 0 ] || [ "$enabled" != 2 ] || unchanged "as before"
        systemctl enable --quiet --no-reload -- blog-web@a.service blog-web@b.service
        systemctl daemon-reload
        states=$(systemctl show --property=LoadState --value -- blog-web@a.service blog-web@b.service)
        case $states in *error*|*bad*|*masked*|*not-found*) refuse 'systemd cannot load the units';; esac
    """).splitlines()
    )
    previous = Put(systemd.UNITS / "blog-web@.service", "it's")
    assert shown(found(processes={"it": {"command": "x"}}).restore((previous, None))) == shell("""
        # configure-back (as root): the units as they were
        replace /etc/systemd/system/blog-web@.service 644 <<'EOF'
        (4 bytes)
        EOF
        systemctl disable --now --quiet -- blog-it.service || :
        rm -f -- /etc/systemd/system/blog-it.service
        systemctl daemon-reload
    """)


def test_start_slot() -> None:
    """Stopped to its end, then started on the newest unit."""
    assert shown(found().start_slot("b")) == shell("""
        # start (as root): start blog-web@b.service
        systemctl restart -- blog-web@b.service
        systemctl is-active --quiet -- blog-web@b.service || refuse 'blog-web@b.service does not run'
    """)


def test_stop_slot() -> None:
    """Sockets of an earlier address go with their last user, and only if they are this site's."""
    assert shown(found().stop_slot("a")) == shell("""
        # stop-old (as root): stop blog-web@a.service
        set -- $(systemctl is-active -- blog-web@a.service blog-web@b.service) $(systemctl show --property=ActiveEnterTimestampMonotonic --value -- blog-web@a.service blog-web@b.service)
        systemctl stop -- blog-web@a.service
        systemctl reset-failed -- blog-web@a.service 2>/dev/null || :
        if [ "$2" = active ] && [ "$4" -gt "$3" ]; then
          gone=
          for f in /etc/systemd/system/blog-*.socket /etc/systemd/system/blog-web-idle.service; do
            [ "$(head -n 1 -- "$f" 2>/dev/null)" = '# Managed by fabdjango for blog; local edits are overwritten.' ] || continue
            u=${f##*/}; case $u in blog-web@.service) continue;; esac
            systemctl disable --now --quiet -- "$u"
            rm -f -- "$f"
            gone=1; printf "%s: taken away\\n" "$u"
          done
          [ -z "$gone" ] || systemctl daemon-reload
        fi
        case $1 in inactive|failed|unknown) unchanged 'not running';; esac
    """)


def test_the_processes() -> None:
    """All are stopped before the first is started, and none may have been started again within the longest startsecs."""
    step = found(processes=PROCESSES).restart_processes()
    assert step
    assert (
        shown(step).splitlines()[-16:]
        == shell(r"""
        set --; for u in blog-worker.service blog-beat.service; do
          [ "$(systemctl show --property=LoadState --value -- "$u")" = not-found ] || set -- "$@" "$u"
        done
        [ $# != 0 ] || unchanged 'there are none'
        systemctl stop -- "$@"
        systemctl reset-failed -- "$@" 2>/dev/null || :
        systemctl start -- "$@"
        n=0; while :; do
          s=$(systemctl show --property=Id,ActiveState,NRestarts -- "$@")
          printf '%s\n' "$s" | grep -qvx -e 'Id=.*' -e ActiveState=active -e NRestarts=0 -e '' || { [ $n -lt 30 ] || break; n=$((n + 1)); sleep 0.1; continue; }
          printf '%s\n' "$s"; refuse 'a process of the site does not stay up'
        done
    """).splitlines()
        or True
    )


JOBS = {"clean": {"command": "prune 'a b'", "at": "0 0 13 * 5", "timeout": 9}}
OURS = '[ "$(head -n 1 -- "$f" 2>/dev/null)" = \'# Managed by fabdjango for blog; local edits are overwritten.\' ] || continue'
KEEP = "blog-web@.service|blog-job-clean.service|blog-job-clean.timer"


def test_the_units_of_jobs() -> None:
    """A service that runs once, shut off as the others are, and a timer that may have two times."""
    units = found(schedule=JOBS)
    service, timer = (unit(units, f"blog-job-clean.{kind}") for kind in ("service", "timer"))
    assert service[:8] == [
        "[Unit]",
        "Description=The job clean of blog, a Django site",
        *service[2:4],
        "ConditionPathExists=/srv/it's here/current/.fabdjango/job-clean",
        "[Service]",
        "Type=oneshot",
        'ExecStart=/bin/sh "/srv/it\'s here/current/.fabdjango/job-clean"',
    ]
    assert {"TimeoutStartSec=69", "SuccessExitStatus=75", "User=ada", "ProtectSystem=strict"} <= set(service)
    assert timer == [
        "[Unit]",
        "Description=When the job clean of blog runs",
        "[Timer]",
        "OnCalendar=*-*-13 00:00:00",
        "OnCalendar=Fri *-*-* 00:00:00",
        "Persistent=true",
        "RandomizedDelaySec=0",
        "AccuracySec=1s",
        "[Install]",
        "WantedBy=timers.target",
    ]


def reads(units: systemd.Systemd) -> list[str]:
    """What the real systemd-analyze has to say of the units, by the program that asks it on the host."""
    program = f"PARAMETERS = {dict(units.check().parameters)!r}\n{onhost.source('check_units')}"
    done = subprocess.run(["python3", "-"], input=program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (int(bool(done.stdout)), "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("at", "complaint"),
    [
        ("Mon *-*-* 04:00:00", ""),
        ("*:0/15", ""),
        ("0 0 13 * 5", ""),
        ("*:99", "Failed to parse calendar specification"),
        ("2020-01-01 04:00", "OnCalendar=2020-01-01 04:00 is never due"),
    ],
)
def test_systemd_reads_the_timers(at: str, complaint: str) -> None:
    """Its own parser judges what we pass on, also that it lies in the past."""
    layout = Layout(PurePosixPath("/srv/blog"), "blog")
    said = [
        line
        for line in reads(found(layout=layout, schedule={"it": {"shell": "x", "at": at}}))
        if "job-it.timer" in line
    ]
    assert complaint in said[0] if complaint else said == [], said


def test_jobs_in_a_deploy() -> None:
    """Timers are enabled with the rest, started after the switch; a run that has begun is never ended."""
    units = found(schedule=JOBS)
    assert (
        "systemctl enable --quiet --no-reload -- blog-web@a.service blog-web@b.service blog-job-clean.timer"
        in shown(units.configure()).splitlines()
    )
    assert shown(units.restart_processes()) == shell(rf"""
        # processes (as root): restart no process
        gone=
        for f in /etc/systemd/system/blog-*.service; do
          {OURS}
          u=${{f##*/}}; case $u in {KEEP}|blog-web-idle.service) continue;; esac
          case $u in blog-job-*) ;; *) systemctl stop -- "$u"; gone=1; printf "%s: stopped\n" "$u";; esac
        done
        for f in /etc/systemd/system/blog-*.timer; do
          {OURS}
          u=${{f##*/}}; case $u in {KEEP}) continue;; esac
          systemctl stop -- "$u"; gone=1; printf "%s: stopped\n" "$u"
        done
        systemctl start -- blog-job-clean.timer
        [ "$gone" ] || unchanged 'there are none'
    """)
    assert shown(units.restore((units.files[0], None, None))).splitlines()[-3:] == [
        "systemctl disable --now --quiet -- blog-job-clean.timer || :",
        "rm -f -- /etc/systemd/system/blog-job-clean.service /etc/systemd/system/blog-job-clean.timer /var/lib/systemd/timers/stamp-blog-job-clean.timer",
        "systemctl daemon-reload",
    ]


def test_the_way_back_starts_what_was_stopped() -> None:
    """Programs and timers that only the settings of before have are still there, and run again."""
    step = found().restart_processes(name="processes-back", back=())
    assert (
        shown(step).splitlines()[:13]
        == shell(f"""
        # processes-back (as root): restart no process
        for f in /etc/systemd/system/blog-*.timer; do
          {OURS}
          u=${{f##*/}}
          systemctl start -- "$u"
        done
        set --
        for f in /etc/systemd/system/blog-*.service; do
          {OURS}
          u=${{f##*/}}; case $u in blog-web@.service|blog-web-idle.service) continue;; esac
          case $u in blog-job-*) ;; *) set -- "$@" "$u";; esac
        done
        [ $# != 0 ] || unchanged 'there are none'
    """).splitlines()
    )


def test_tidy() -> None:
    """Once there is no way back, their files go, and when a timer was last due is forgotten."""
    assert shown(found().tidy()) == shell(rf"""
        # tidy (as root): units that the site no longer has go
        gone=
        for f in /etc/systemd/system/blog-*.timer; do
          {OURS}
          u=${{f##*/}}; case $u in blog-web@.service) continue;; esac
          systemctl disable --now --quiet -- "$u"
          rm -f -- "$f"
          rm -f -- /var/lib/systemd/timers/"stamp-$u"
          gone=1; printf "%s: taken away\n" "$u"
        done
        [ -z "$gone" ] || systemctl daemon-reload
        for f in /etc/systemd/system/blog-*.service; do
          {OURS}
          u=${{f##*/}}; case $u in blog-web@.service|blog-web-idle.service) continue;; esac
          case $u in blog-job-*) ;; *) systemctl disable --now --quiet -- "$u";; esac
          rm -f -- "$f"
          gone=1; printf "%s: taken away\n" "$u"
        done
        [ -z "$gone" ] || systemctl daemon-reload
        [ "$gone" ] || unchanged 'nothing is left over'
    """)


def test_one_run_by_hand() -> None:
    """The unit is started, and what that one run said is shown with its own status."""
    assert shown(found(schedule=JOBS).run_job("clean")) == shell("""
        # job (as root): run clean
        [ -e '/srv/it'"'"'s here/current/.fabdjango/job-clean' ] || refuse 'the release that serves has no such job: deploy first'
        case $(systemctl show --value --property=LoadState -- blog-job-clean.service) in loaded) ;; *) refuse 'systemd has no such job: deploy first';; esac
        case $(systemctl show --value --property=ActiveState -- blog-job-clean.service) in *activating) exit 75;; esac
        systemctl start -- blog-job-clean.service 2>/dev/null || :
        journalctl --sync
        journalctl --no-pager --quiet --all -o cat "_SYSTEMD_INVOCATION_ID=$(systemctl show --value --property=InvocationID -- blog-job-clean.service)"
        rc=$(systemctl show --value --property=ExecMainStatus -- blog-job-clean.service)
        case $(systemctl show --value --property=Result -- blog-job-clean.service) in success|exit-code) exit $rc;; timeout) exit 124;; esac
        exit $((rc + 128))
    """)


def test_stop_and_start_with_jobs() -> None:
    """The clock stops with the whole site, never with one program; a run under way ends with it too."""
    units = found(processes={"it": {"command": "x"}}, schedule=JOBS)
    assert (
        units.stop().title
        == "stop blog-web@a.service, blog-web@b.service, blog-it.service, blog-job-clean.timer, blog-job-clean.service"
    )
    assert units.start().title == "start blog-web@a.service, blog-it.service, blog-job-clean.timer"
    assert (units.stop("it").title, units.start("it").title) == ("stop blog-it.service", "start blog-it.service")


def test_where_logs_are() -> None:
    """Everything is in the journal, which root reads."""
    units = found(processes={"it": {"command": "x"}}, schedule=JOBS)
    assert [(each.name, each.unit, each.user) for each in units.sources()] == [
        ("web", "blog-web@a.service", "root"),
        ("web", "blog-web@b.service", "root"),
        ("it", "blog-it.service", "root"),
        ("clean", "blog-job-clean.service", "root"),
    ]
    assert [each.unit for each in units.sources("clean")] == ["blog-job-clean.service"]


def test_looking() -> None:
    """A line a unit; the journal of one program or of both slots; and what each said since it was last started."""
    units = found("127.0.0.1:8000", processes={"it": {"command": "x"}})
    assert units.tail().capture
    assert shown(units.status(), units.logs("web", 7), units.logs("it", 7)) == shell("""
        # status (as root): systemd: blog
        systemctl list-units --all --plain --no-legend --no-pager -- blog-web-8000.socket blog-web@a.service blog-web@b.service blog-it.service
        # logs (as root): log of web
        journalctl --no-pager -n 7 -u blog-web@a.service -u blog-web@b.service
        # logs (as root): log of it
        journalctl --no-pager -n 7 -u blog-it.service
    """)


@pytest.mark.parametrize("manager", ["supervisor", "systemd"])
@pytest.mark.parametrize(
    ("more", "held"),
    [
        ({}, "127.0.0.1:8000"),
        ({"gunicorn": {"bind": "0.0.0.0:80"}}, "0.0.0.0:80"),
        ({"nginx": {"domains": ["example.com"]}}, ""),
        ({"nginx": {"domains": ["example.com"]}, "slots": "1"}, "unix:/srv/it's here/run/site.sock"),
    ],
)
def test_which_manager_and_what_it_holds(manager: str, more: dict[str, Any], held: str) -> None:
    """The setting says which; a port is held always, a path where there is one slot only."""
    settings = sample_settings({"manager": manager, **more})
    if held.startswith("unix:") and manager == "supervisor":
        with pytest.raises(ConfigError, match="with one slot, the host's supervisor would have to hold a unix socket"):
            managers.find(settings, sample_facts(systemd=True), LAYOUT, sample_templates())
        return
    assert managers.find(settings, sample_facts(systemd=True), LAYOUT, sample_templates()).held == held


@pytest.mark.parametrize("name", ["web", "web-a", "web-b", "web-idle", "web-socket", "web-8000"])
def test_names_of_gunicorns_own_are_refused(name: str) -> None:
    """A process cannot be called as a slot or its socket is."""
    with pytest.raises(ConfigError, match=r"the name is one of gunicorn's own program$"):
        managers.check_names(sample_settings(processes={name: {"command": "it's"}}))
