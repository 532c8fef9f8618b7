"""What setup runs: after a look, in two sessions, and a look again."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fabdjango import checking, provisioning
from fabdjango.commands import nginx
from fabdjango.escape import Secret
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.layout import layout_of
from fabdjango.namespaces import server
from fabdjango.namespaces.deploy import setup
from fabdjango.plan import Phase
from fabdjango.recording import RecordingTransport, call, runner
from fabdjango.runner import Runner
from fabdjango.transport import Account, Listener, PhaseResult
from tests.conftest import sample_settings, sample_templates
from tests.namespaces.text import joined

DNS = {"blog.example.com": "192.0.2.7", "web1.example.com": "192.0.2.7"}
VALUES: dict[str, Any] = {
    "project": "blog",
    "repository": "/it's",
    "root": "/srv/the blog",
    "user": "deploy",
    "venv": {"installer": "pip"},
    "nginx": {"domains": ["blog.example.com"]},
    "server": {"skip": ["programs", "sudoers", "logs"]},
}
FOLDER = {"owner": "deploy", "mode": 0o755, "folder": True, "empty": False}
SITE = "/etc/nginx/sites-available/blog.conf"
BARE: dict[str, Any] = {
    "privilege": "root",
    "system": ["debian", "12", "Debian GNU/Linux 12 (bookworm)"],
    "systemd": True,
    "root": "/srv/the blog",
    "home": "/home/deploy",
    "above": "/srv",
    "account": None,
    "keys_of_login": ["ssh-ed25519 AAAAC3Nza it's ada"],
    "packages": {"git": "1", "ca-certificates": "1", "python3-venv": "1"},
    "folders": {"/srv": {**FOLDER, "owner": "root"}},
    "ssh_ports": [22],
}
READY: dict[str, Any] = {
    **BARE,
    "account": {"uid": 1001, "group": "deploy", "home": "/home/deploy", "shell": "/bin/bash"},
    "keys": BARE["keys_of_login"],
    "packages": {**BARE["packages"], "nginx": "1"},
    "folders": {
        **dict.fromkeys(("/srv", "/home/deploy", "/srv/the blog"), FOLDER),
        **{f"/srv/the blog/{name}": FOLDER for name in ("releases", "venvs", "shared", "run")},
    },
    "services": {"nginx.service": ["active", "enabled", "no"]},
}
NGINX: dict[str, Any] = {
    "root": "/srv/the blog",
    "program": "/usr/sbin/nginx",
    "version": "1.22.1",
    "user": "www-data",
    "folder": "/etc/nginx/sites-enabled",
    "file_path": SITE,
    "link_path": "/etc/nginx/sites-enabled/blog.conf",
    "text": None,
    "link": "",
    "active": True,
}
_SETTINGS = sample_settings(VALUES)
TEXT = nginx.site_file(_SETTINGS, layout_of(_SETTINGS), sample_templates(), nginx.Webserver(**NGINX)).content


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the operator's machine is told of names, and who asks it again."""
    told = dict(DNS)

    def ask(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if name not in told:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (told[name], 0))]

    monkeypatch.setattr("socket.getaddrinfo", ask)
    checking.addresses_of.cache_clear()
    yield told
    checking.addresses_of.cache_clear()


def answers(look: dict[str, Any], *, served: bool) -> dict[str, str | int | bytes]:
    """What a host says: with nginx and the site's file in it, or without both."""
    there = {**NGINX, "text": TEXT, "link": "ours"} if served else {"root": "/srv/the blog", "program": ""}
    asked = {"status": 200, "body": nginx.digest_in(TEXT)} if served else {"status": 0, "body": ""}
    return {"server-look": json.dumps(look), "nginx-look": json.dumps(there), "nginx-ask": json.dumps(asked)}


class Host(RecordingTransport):
    """A server that is as it should be once a phase of the given name has been through."""

    def __init__(self, look: dict[str, Any], last: str = "site") -> None:
        super().__init__(answers(look, served=False))
        self._last = last

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """Record and answer."""
        if phase.name == self._last:
            self._answers = answers(READY, served=True)
        return super().run(phase, account, listener)


LOOKING = """\
== look
-- server-look as (login): look at the server
port=${SSH_CONNECTION##* }; case $port in ''|*[!0-9]*) port=0;; esac
command -v python3 >/dev/null || refuse 'python3 is not installed on the host'
if [ "$(id -u)" = 0 ]; then as_root="env FABDJANGO_PORT=$port"
elif ! command -v sudo >/dev/null; then echo '{"privilege": "none"}'; exit 0
elif sudo -n true 2>/dev/null; then as_root="sudo -n -H env FABDJANGO_PORT=$port"
else echo '{"privilege": "password"}'; exit 0
fi
$as_root python3 -I -S - # Look at the server; print what was found as one line of JSON. Writes nothing.
-- nginx-look as (login): look at nginx
port=${SSH_CONNECTION##* }; case $port in ''|*[!0-9]*) port=0;; esac
command -v python3 >/dev/null || refuse 'python3 is not installed on the host'
if [ "$(id -u)" = 0 ]; then as_root="env FABDJANGO_PORT=$port"
elif ! command -v sudo >/dev/null; then echo '{"privilege": "none"}'; exit 0
elif sudo -n true 2>/dev/null; then as_root="sudo -n -H env FABDJANGO_PORT=$port"
else echo '{"privilege": "password"}'; exit 0
fi
$as_root python3 -I -S - # Look at nginx and the site's file for it; print what was found as one line of JSON. Writes nothing.
-- nginx-ask as (login): ask the running nginx
python3 -I -S - # Ask nginx over loopback until its answer is the wanted one, or the time is over.
"""
SERVER = joined(
    """\
    == server (locked)
    -- account as root: make the account deploy
    if ! getent passwd deploy >/dev/null; then
    if getent group deploy >/dev/null; then
    | set -- --gid deploy
    else
    | set -- --user-group
    fi
    useradd --create-home --home-dir /home/deploy --key HOME_MODE=0750 --shell /bin/bash --password '*'
        --comment 'Deploys Django sites' "$@" -- deploy
    fi
    [ "$(stat -c %U -- /home/deploy 2>/dev/null)" = deploy ] ||
        install -d -o deploy -g "$(id -gn -- deploy)" -m 750 -- /home/deploy
    -- keys as deploy: let keys log in as deploy
    replace /home/deploy/.ssh/authorized_keys 600 <<'EOF'
    (31 bytes)
    EOF
    chmod 700 -- /home/deploy/.ssh
    -- root as root: make /srv/the blog
    if [ -d '/srv/the blog' ]; then
    | chown deploy:deploy -- '/srv/the blog'
    else
    | install -d -o deploy -g deploy -m 755 -- '/srv/the blog'
    fi
    -- folders as deploy: make folders in /srv/the blog
    mkdir -p -- '/srv/the blog/releases' '/srv/the blog/venvs' '/srv/the blog/shared' '/srv/the blog/run'
    """
)
ON_SITE = joined(
    f"""\
    == site (locked)
    -- enable-nginx as root: nginx runs, also when the host boots
    systemctl enable --quiet --now -- nginx.service
    -- nginx-write as root: write {SITE}
    replace {SITE} 644 <<'EOF'
    ({len(TEXT.encode())} bytes)
    EOF
    [ "$changed_files" ] || [ ! /etc/nginx/sites-enabled/blog.conf -ef {SITE} ] || unchanged "as before"
    rm -f -- /etc/nginx/sites-enabled/.fabdjango.blog.conf
    ln -s -- {SITE} /etc/nginx/sites-enabled/.fabdjango.blog.conf
    mv -fT -- /etc/nginx/sites-enabled/.fabdjango.blog.conf /etc/nginx/sites-enabled/blog.conf
    """
)


def on(host: RecordingTransport, values: dict[str, Any] = VALUES, **more: Any) -> Runner:
    """Root's login to ``host``."""
    return runner(host, values, **{"account": Account("deploy", "root"), **more})


def said(it: Runner) -> list[str]:
    """What the operator reads, line by line."""
    stream: Any = it.report._stream
    return str(stream.getvalue()).splitlines()


def without_packages(text: str) -> str:
    """A transcript without the shell that installs packages, which tests/commands/test_server.py shows."""
    head, found, rest = text.partition("-- packages as root: install nginx\n")
    assert found
    return head + "-- account" + rest.partition("-- account")[2]


def test_a_bare_server() -> None:
    """A look, what makes the site's place, the site itself, and a look that finds nothing missing."""
    host = Host(BARE)
    it = on(host)
    call(setup, it)
    text = without_packages(host.transcript)
    assert text.startswith(LOOKING + SERVER + ON_SITE)
    assert text.endswith(LOOKING)
    assert [line for line in text.splitlines() if line.startswith("== ")] == [
        *("== look", "== server (locked)", "== site (locked)", "== look"),
    ]
    lines = said(it)
    assert lines[-1] == "set up: web1.example.com is ready, deploy with: fab -H deploy@web1.example.com deploy"
    shown = lines[lines.index("web1.example.com runs Debian GNU/Linux 12 (bookworm)") :]
    assert shown[1] == "  changes    packages: install nginx (git, python3-venv, ca-certificates)"
    assert shown[2:9] == [
        (
            "  changes    account: make the account deploy, at home in /home/deploy, without a password; "
            "let 1 more key log in as deploy: it's ada"
        ),
        *("# mode 600", "--- /dev/null", "+++ /home/deploy/.ssh/authorized_keys", "@@ -0,0 +1 @@"),
        "+ssh-ed25519 AAAAC3Nza it's ada",
        "  changes    folders: make /srv/the blog for deploy; make releases, venvs, shared, run in /srv/the blog",
    ]
    assert [line for line in shown if line.startswith(("  unchanged", "  left out"))][:9] == [
        "  left out   uv: pip installs: fabdjango.venv.installer",
        "  left out   database: fabdjango.database.engine is none",
        "  left out   secrets: fabdjango.secrets has none that are made on the host",
        "  left out   programs: it is done by hand: fabdjango.server.skip",
        "  left out   sudoers: it is done by hand: fabdjango.server.skip",
        "  left out   logs: it is done by hand: fabdjango.server.skip",
        "  left out   tls: fabdjango.nginx.tls is none",
        "  left out   firewall: fabdjango.server.firewall is none",
        "  left out   updates: fabdjango.server.updates is false",
    ]


def test_a_second_run() -> None:
    """One look, and nothing else."""
    host = RecordingTransport(answers(READY, served=True))
    it = on(host)
    call(setup, it)
    assert host.transcript == LOOKING
    assert said(it)[-1] == "unchanged: web1.example.com is set up"
    assert [line.split(":")[0] for line in said(it) if line.startswith("  unchanged")] == [
        *("  unchanged  packages", "  unchanged  account", "  unchanged  folders", "  unchanged  nginx"),
    ]


def test_a_domain_that_leads_elsewhere(names: dict[str, str]) -> None:
    """The plan says so, with the record, and setup goes on: the domain may well be moved last."""
    names["blog.example.com"] = "203.0.113.5"
    look = {**BARE, "addresses": ["192.0.2.7", "2001:db8::1"]}
    for task in (server.plan, setup):
        it = on(Host(look))
        call(task, it)
        lines = said(it)
        first = lines.index(
            "  warning  dns: blog.example.com resolves to 203.0.113.5, which is not the host (192.0.2.7, 2001:db8::1)"
        )
        assert lines[first + 1 : first + 3] == [
            "           do this: in the DNS of the domain: blog.example.com. A 192.0.2.7",
            "                    if a proxy or a load balancer stands in front, all is well",
        ]
    assert said(it)[-1].startswith("set up: ")
    del names["blog.example.com"]
    checking.addresses_of.cache_clear()
    call(server.plan, again := on(Host(look)))
    assert "  warning  dns: blog.example.com does not resolve" in said(again)


def test_a_domain_that_leads_to_another_host_of_the_site(names: dict[str, str]) -> None:
    """One of several is enough, as in a check."""
    names.update({"blog.example.com": "192.0.2.8", "web2.example.com": "192.0.2.8"})
    it = on(RecordingTransport(answers(READY, served=True)))
    it.site = replace(it.site, beside=("web1.example.com", "web2.example.com"))
    call(server.plan, it)
    assert [line for line in said(it) if "dns" in line] == []


def test_what_is_cut_off_goes_on() -> None:
    """Only what is still missing is done."""
    host = Host(READY)
    call(setup, on(host))
    assert host.transcript.startswith(LOOKING + ON_SITE.replace(_ENABLE, ""))


_ENABLE = """\
-- enable-nginx as root: nginx runs, also when the host boots
systemctl enable --quiet --now -- nginx.service
"""


def test_a_plan_and_a_dry_run_write_nothing() -> None:
    """The one tells, the other shows the shell too."""
    for task, dry in ((server.plan, False), (setup, True)):
        host = RecordingTransport(answers(BARE, served=False))
        it = on(host, dry=dry)
        call(task, it)
        assert host.transcript == LOOKING
        shell = [line for line in said(it) if line.startswith(("useradd", "mkdir", "nginx -t", "systemctl enable"))]
        assert bool(shell) is dry
        assert len([line for line in said(it) if line == "+++ /home/deploy/.ssh/authorized_keys"]) == 1
    assert said(it)[-1] == "nothing was written: this was a dry run"


def test_a_second_look_that_finds_something_missing() -> None:
    """Not believed because the steps ended well."""
    host = RecordingTransport(answers({**READY, "keys": []}, served=True))
    with pytest.raises(FabdjangoError) as caught:
        call(setup, on(host))
    assert caught.value.message == "setup went through, and does not find: let 1 more key log in as deploy: it's ada"
    assert caught.value.cure == "see what is there: fab -H deploy@web1.example.com server.plan"


@pytest.mark.parametrize(("step", "code"), [("account", 1), ("nginx-check", 1), ("nginx-proof", 3)])
def test_a_step_that_fails(step: str, code: int) -> None:
    """What is done stays; nginx gets its old file back, if it had begun to use the new one."""
    host = RecordingTransport({**answers(BARE, served=False), step: code})
    with pytest.raises(FabdjangoError) as caught:
        call(setup, on(host))
    state = {
        "account": "what was done before this stays, and the next setup goes on from there",
        "nginx-check": "what was done before this stays, and the next setup goes on from there",
        "nginx-proof": "nginx runs with the site's file as it was before",
    }
    assert (caught.value.exit_code, caught.value.state) == (code, state[step])
    assert host.transcript.endswith("-- undo: nginx runs as before\n") is (step != "account")


# --- a sudo that asks ----------------------------------------------------------


class Asking(RecordingTransport):
    """A server whose sudo asks for a password, unless the session comes with one."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts: list[Account] = []

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """Answer as root only for who has the password."""
        self.accounts.append(account)
        refused = dict.fromkeys(("server-look", "nginx-look"), '{"privilege": "password"}')
        self._answers = answers(READY, served=True) if account.password else dict(refused)
        return super().run(phase, account, listener)


def test_a_password_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden, and for all hosts; then sessions are root's."""
    asked: list[str] = []
    provisioning._asked.cache_clear()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "it's s3cret"

    monkeypatch.setattr("getpass.getpass", answer)
    for _ in range(2):
        host = Asking()
        it = on(host, account=Account("deploy", "ada"))
        call(setup, it)
        assert host.accounts == [Account("deploy", "ada"), Account("deploy", "root", password=Secret("it's s3cret"))]
        assert it.report.redactor.hide("it's s3cret") == "********"
        assert "s3cret" not in host.transcript + "".join(said(it)) + repr(host.accounts)
    assert asked == ["Password for sudo on the hosts (it is not shown): "]
    provisioning._asked.cache_clear()


def test_a_password_that_nobody_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cure names all ways."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(FabdjangoError) as caught:
        call(setup, on(Asking(), account=Account("deploy", "ada")))
    assert caught.value.message == "sudo asks ada for a password, and there is no terminal to ask on"
    assert caught.value.cure == (
        "be asked by Fabric: fab --prompt-for-sudo-password -H deploy@web1.example.com setup\n"
        "or log in as root, or allow the account sudo without a password"
    )


# --- the firewall --------------------------------------------------------------

_RULES = {"firewall": "ufw", "skip": ["nginx", "programs", "sudoers", "logs"]}
_ON = "Status: active\n22/tcp  ALLOW  Anywhere\n80/tcp  ALLOW  Anywhere\n443/tcp  ALLOW  Anywhere\n"


class Walled(RecordingTransport):
    """A server whose ufw is off until the site's phase has been through."""

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """Record and answer."""
        ufw = _ON if "== site" in self.transcript else "Status: inactive\n"
        there = {**READY, "packages": {**READY["packages"], "ufw": "1"}, "ufw": ufw}
        self._answers = {"server-look": json.dumps(there)}
        return super().run(phase, account, listener)


def test_a_firewall_stays_once_somebody_has_logged_in_through_it() -> None:
    """Between the two, the host itself would switch it off again."""
    host = Walled()
    call(setup, on(host, {**VALUES, "server": _RULES}))
    phases = [line for line in host.transcript.splitlines() if line.startswith(("== ", "-- firewall"))]
    assert phases == [
        "== look",
        "== site (locked)",
        "-- firewall as root: let ufw open what is needed, and nothing else",
        "== log in anew",
        "== firewall (locked)",
        "-- firewall-keep as root: somebody could log in: the firewall stays",
        "== look",
    ]


# --- files of the operator's side ------------------------------------------------


def test_keys_that_cannot_be_read() -> None:
    """No host is asked."""
    host = RecordingTransport()
    values = {**VALUES, "server": {"keys": ["it's/not there.pub"]}}
    with pytest.raises(ConfigError, match=r"cannot read it's/not there\.pub: No such file or directory"):
        call(setup, on(host, values))
    assert host.transcript == ""
