"""setup: what it finds missing, what it refuses, and which shell mends it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from fabdjango.commands import certificates, firewall, server, server_steps
from fabdjango.commands.certificates import Certificate
from fabdjango.commands.nginx import Webserver
from fabdjango.commands.public_keys import missing_keys, name_of_key, read_keys
from fabdjango.commands.server import Part
from fabdjango.commands.server_found import (
    Found,
    Situation,
    as_login,
    look,
    read_look,
    wanted_packages,
    wants_nginx,
    webserver_of,
)
from fabdjango.commands.server_refused import refuse
from fabdjango.exceptions import ConfigError, FabdjangoError, RefusedValueError
from fabdjango.plan import LOGIN, Lock, Put
from fabdjango.recipes import Site
from fabdjango.webserver import There, configuration
from tests.conftest import LAYOUT, sample_settings, sample_templates, shell, shown

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC1CjNEjSBdpEuH33mGjIW it's ada"
OTHER = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAI bob@laptop"
ROOT_FOLDER = {"owner": "root", "mode": 0o755, "folder": True, "empty": False}
OURS = {"owner": "deploy", "mode": 0o755, "folder": True, "empty": False}
BARE = Found(
    privilege="root",
    system=("debian", "12", "Debian GNU/Linux 12 (bookworm)"),
    systemd=True,
    root=str(LAYOUT.root),
    home="/home/deploy",
    above="/srv",
    keys_of_login=("# mine", KEY),
    packages={"ca-certificates": "20230311"},
    folders={"/srv": ROOT_FOLDER},
    listeners=((22, "sshd", 300, False),),
    ssh_ports=(22,),
    room={"/": [9000, 500_000], str(LAYOUT.root): [9000, -1]},
    python="/usr/bin/python3",
    python_version=(3, 11),
)
NGINX = Webserver(
    program="/usr/sbin/nginx",
    version="1.22.1",
    user="www-data",
    folder="/etc/nginx/sites-enabled",
    file_path="/etc/nginx/sites-available/blog.conf",
    link_path="/etc/nginx/sites-enabled/blog.conf",
)
SITE = {"user": "deploy", "nginx": {"domains": ["blog.example.com"]}}


def found(**more: Any) -> Found:
    """A server as a hosting company hands it over, unless said otherwise."""
    return replace(BARE, **more)


def situation(
    values: Mapping[str, Any] | None = None, it: Found = BARE, webserver: Webserver | None = None, **more: Any
) -> Situation:
    """Everything that decisions take; ``values`` stand as in fabric.yaml, over those of a small site."""
    settings = sample_settings({**SITE, **(values or {})})
    there = webserver_of(settings, webserver or Webserver(), it)
    return Situation(settings, LAYOUT, sample_templates(), "deploy", it, there, **more)


def decided(it: Situation) -> tuple[Part, ...]:
    """The parts of a server that is not refused; nginx serves the site if it has its file already."""
    refuse(it)
    return server.decide(it if it.webserver.link == "ours" else serving(it))


def serving(it: Situation) -> Situation:
    """The same with what brings nginx to the site's file, if it is to have one."""
    if not wants_nginx(it.settings):
        return it
    certificate = replace(it.certificate, openssl="/usr/bin/openssl", certbot="/usr/bin/certbot")
    site = Site(it.settings, it.layout, it.templates)
    return replace(it, serving=configuration(site, There(it.expected, it.layout, "", certificate)))


def done(values: Mapping[str, Any] | None = None, **more: Any) -> Situation:
    """The same once setup has been through, with a difference if one is wanted."""
    before = serving(situation(values))
    parts = server.decide(before)
    puts = {str(put.path): put for part in parts for step in part.steps for put in step.puts}
    site = puts.pop(before.webserver.file_path, Put(PurePosixPath(), ""))
    puts |= {str(put.path): put for part in parts for put in part.shown or ()}
    files = {path: {"text": put.content, "digest": put.digest} for path, put in puts.items()}
    services = [
        *("nginx.service", "supervisor.service", firewall.UNIT.name, "apt-daily.timer", "apt-daily-upgrade.timer"),
        *(f"blog-{name}.service" for name in ("web@a", "web@b", "worker")),
        *("cron.service", "blog-job-tidy.timer"),
    ]
    after = {
        "account": {"uid": 1001, "group": "deploy", "home": "/home/deploy", "shell": "/bin/bash"},
        "keys": (KEY,),
        "packages": dict.fromkeys(wanted_packages(before.settings), "1.0"),
        "files": files,
        "root_programs": {path: each["digest"] for path, each in files.items() if path.startswith("/opt/")},
        "folders": {
            "/srv": ROOT_FOLDER,
            "/home/deploy": OURS,
            str(LAYOUT.root): OURS,
            **{str(LAYOUT.root / name): OURS for name in ("releases", "venvs", "shared", "run")},
        },
        "services": {name: ["active", "enabled", "no"] for name in services},
        "listeners": ((22, "sshd", 300, False), (80, "nginx", 301, False)),
        "uv": "/usr/bin/uv",
        "table": True,
        "ufw": UFW,
    }
    webserver = replace(
        before.webserver, program="/usr/sbin/nginx", version="1.22.1", text=site.content, link="ours", active=True
    )
    return situation(values, found(**{**after, **more}), webserver)


UFW = """Status: active

To                         Action      From
--                         ------      ----
22/tcp                     ALLOW       Anywhere
80/tcp                     LIMIT       Anywhere
443                        ALLOW IN    Anywhere                   # it's https
8000/tcp                   DENY        Anywhere
5432/tcp                   ALLOW       192.0.2.0/24
22/tcp (v6)                ALLOW       Anywhere (v6)
"""


def changes(parts: tuple[Part, ...]) -> dict[str, tuple[str, ...] | str]:
    """What changes of each part, or what is there; why it is left out begins with a dash."""
    return {part.name: part.changes or (f"- {part.left_out}" if part.left_out else part.there) for part in parts}


# --- what is decided ---------------------------------------------------------


def test_a_bare_server() -> None:
    """Everything is missing, and each part says so in its own words."""
    assert changes(decided(situation())) == {
        "packages": ("install git, python3-venv, nginx, supervisor, sudo, logrotate",),
        "account": (
            "make the account deploy, at home in /home/deploy, without a password",
            "let 1 more key log in as deploy: it's ada",
        ),
        "folders": (
            "make /srv/it's here for deploy",
            "make releases, venvs, shared, run in /srv/it's here",
        ),
        "uv": ("install uv in /srv/it's here/tools, or let pip install where it cannot be had",),
        "database": "- fabdjango.database.engine is none",
        "secrets": "- fabdjango.secrets has none that are made on the host",
        "programs": (
            "let supervisor run, also when the host boots",
            "write /etc/supervisor/conf.d/blog.conf",
        ),
        "sudoers": ("write /etc/sudoers.d/fabdjango-blog",),
        "nginx": (
            "let nginx run, also when the host boots",
            "serve blog.example.com with /etc/nginx/sites-available/blog.conf",
        ),
        "logs": ("write /etc/logrotate.d/fabdjango-blog",),
        "tls": "- fabdjango.nginx.tls is none",
        "firewall": "- fabdjango.server.firewall is none",
        "updates": "- fabdjango.server.updates is false",
    }


EVERYTHING = {
    "manager": "systemd",
    "processes": {"worker": {"command": "celery -A blog 'worker'"}},
    "schedule": {"tidy": {"at": "daily", "command": "clearsessions"}},
    "venv": {"installer": "uv"},
    "server": {"firewall": "nftables", "updates": True, "packages": ["libpq-dev"]},
}


@pytest.mark.parametrize(
    "values", [{}, EVERYTHING, {"server": {"firewall": "ufw"}, "schedule": EVERYTHING["schedule"]}]
)
def test_what_is_as_it_should_be_is_left_alone(values: dict[str, Any]) -> None:
    """A second run has no steps."""
    parts = decided(done(values))
    assert [part for part in parts if part.changes or part.steps] == []
    assert server.base(parts, LOCK) is None
    assert server.on_site(done(values), parts, LOCK) is None


def test_what_is_there_is_told() -> None:
    """A line for each part."""
    assert changes(decided(done(EVERYTHING))) == {
        "packages": "git, python3-venv, ca-certificates, nginx, sudo, logrotate, nftables, unattended-upgrades, libpq-dev",
        "account": "deploy, with 1 key",
        "folders": "/srv/it's here",
        "uv": "/usr/bin/uv",
        "database": "- fabdjango.database.engine is none",
        "secrets": "- fabdjango.secrets has none that are made on the host",
        "programs": "systemd",
        "sudoers": "deploy may run 19 programs as root",
        "nginx": "nginx 1.22.1",
        "logs": "/etc/logrotate.d/fabdjango-blog",
        "tls": "- fabdjango.nginx.tls is none",
        "firewall": "nftables: 22, 80, 443",
        "updates": "/etc/apt/apt.conf.d/52fabdjango-updates",
    }


@pytest.mark.parametrize(
    ("values", "there", "part", "told"),
    [
        ({}, {"interrupted": True}, "packages", ("finish what dpkg was interrupted in",)),
        ({"server": {"packages": ["gcc"]}}, {"packages": {}}, "packages", ("install git, python3-venv, ca-certificates, supervisor, sudo, logrotate, gcc",)),
        ({}, {"keys": ()}, "account", ("let 1 more key log in as deploy: it's ada",)),
        ({}, {"folders": {"/srv": ROOT_FOLDER, str(LAYOUT.root): {**ROOT_FOLDER, "empty": True}}}, "account", ("make the home /home/deploy",)),
        ({}, {"folders": {"/srv": ROOT_FOLDER, str(LAYOUT.root): {**ROOT_FOLDER, "empty": True}}}, "folders", ("give /srv/it's here to deploy", "make releases, venvs, shared, run in /srv/it's here")),
        ({}, {"services": {"nginx.service": ["active", "enabled", "no"], "supervisor.service": ["active", "disabled", "no"]}}, "programs", ("let supervisor run, also when the host boots",)),
        ({}, {"services": {"nginx.service": ["failed", "enabled", "no"], "supervisor.service": ["active", "enabled", "no"]}}, "nginx", ("let nginx run, also when the host boots",)),
        ({"schedule": EVERYTHING["schedule"]}, {"services": {"cron.service": ["inactive", "enabled", "no"], "supervisor.service": ["active", "enabled", "no"]}}, "programs", ("let cron run, also when the host boots",)),
        ({"manager": "systemd"}, {"services": {"blog-web@a.service": ["inactive", "enabled", "yes"], "blog-web@b.service": ["inactive", "enabled", "no"]}}, "programs", ("enable blog-web@a.service",)),
        ({}, {"root_programs": {}}, "sudoers", ("write 15 programs of root",)),
        ({"supervisor": {"level": "virtualenv"}}, {}, "sudoers", "- nothing is done as root: supervisor in a virtualenv belongs to deploy"),
        ({"run_as": "www-blog"}, {}, "account", ("make the account www-blog for the application",)),
        ({"run_as": "www-blog"}, {"app": {"uid": 900, "group": "www", "member": False}}, "account", ("make deploy a member of the group of www-blog",)),
        ({"run_as": "www-blog"}, {"app": {"uid": 900, "group": "www", "member": True}}, "account", "deploy, with 1 key; www-blog"),
        ({"server": {"firewall": "nftables"}}, {"table": False}, "firewall", ("load /etc/fabdjango/firewall.nft",)),
        ({"server": {"firewall": "nftables"}}, {"ssh_ports": (22, 2222)}, "firewall", ("change /etc/fabdjango/firewall.nft",)),
        ({"server": {"firewall": "nftables"}}, {"services": {firewall.UNIT.name: ["active", "enabled", "no"], firewall.REVERT: ["active", "", "no"]}}, "firewall", ("keep it on",)),
        ({"server": {"firewall": "ufw"}}, {"ufw": "Status: inactive\n", "ssh_ports": (2222,)}, "firewall", ("allow 80, 443, 2222", "let ufw shut all others")),
        ({"server": {"firewall": "ufw"}}, {"ssh_ports": (22, 8000)}, "firewall", ("allow 8000",)),
        ({"server": {"updates": True}}, {"services": {"apt-daily.timer": ["inactive", "disabled", "no"]}}, "updates", ("enable apt-daily.timer",)),
        ({"secrets": {"SECRET_KEY": "generate", "A": {"file": "a"}}}, {}, "secrets", "- the first deploy makes SECRET_KEY, the same on every host"),
        ({"server": {"skip": ["nginx", "logs"]}}, {}, "nginx", "- it is done by hand: fabdjango.server.skip"),
        ({"nginx": {"domains": []}}, {}, "nginx", "- fabdjango.nginx.domains is empty"),
        ({"venv": {"installer": "pip"}}, {"uv": ""}, "uv", "- pip installs: fabdjango.venv.installer"),
        ({"supervisor": {"level": "virtualenv"}}, {}, "logs", "- the site's own supervisord rotates them"),
    ],
)  # fmt: skip
def test_what_is_missing(values: dict[str, Any], there: dict[str, Any], part: str, told: object) -> None:
    """Each difference is seen, and nothing else of its part is done."""
    assert changes(decided(done(values, **there)))[part] == told


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"nginx": {"domains": [], "tls": "self-signed"}}, "git python3-venv ca-certificates supervisor sudo logrotate"),
        ({"manager": "systemd"}, "git python3-venv ca-certificates nginx sudo logrotate"),
        ({"supervisor": {"level": "virtualenv"}}, "git python3-venv ca-certificates nginx logrotate"),
        ({"schedule": EVERYTHING["schedule"]}, "git python3-venv ca-certificates nginx supervisor cron sudo logrotate"),
        ({"server": {"skip": ["programs", "sudoers", "nginx", "logs"], "firewall": "ufw"}}, "git python3-venv ca-certificates ufw"),
        ({"server": {"skip": ["firewall", "updates"], "firewall": "ufw", "updates": True}}, "git python3-venv ca-certificates nginx supervisor sudo logrotate"),
        ({"nginx": {"domains": ["a.example.com"], "tls": "letsencrypt"}}, "git python3-venv ca-certificates nginx openssl certbot supervisor sudo logrotate"),
        ({"nginx": {"domains": ["a.example.com"], "tls": "letsencrypt"}, "server": {"skip": ["tls"]}}, "git python3-venv ca-certificates nginx supervisor sudo logrotate"),
        ({"server": {"packages": ["g++", "git"], "updates": True}}, "git python3-venv ca-certificates nginx supervisor sudo logrotate unattended-upgrades g++"),
    ],
)  # fmt: skip
def test_which_packages(values: dict[str, Any], names: str) -> None:
    """What the settings need, once each."""
    assert wanted_packages(sample_settings({**SITE, **values})) == tuple(names.split())


UBUNTU = [("ubuntu", "22.04", "Ubuntu 22.04.5 LTS"), ("ubuntu", "24.04", "Ubuntu 24.04.3 LTS")]


@pytest.mark.parametrize("system", UBUNTU)
@pytest.mark.parametrize(
    "values",
    [
        EVERYTHING,
        {
            "nginx": {"domains": ["a.example.com"], "tls": "letsencrypt"},
            "schedule": EVERYTHING["schedule"],
            "database": {"engine": "postgresql"},
            "server": {"firewall": "ufw", "updates": True},
        },
    ],
)
def test_ubuntu_is_set_up_as_debian_is(values: dict[str, Any], system: tuple[str, str, str]) -> None:
    """The same packages, which it has under the same names, the same files and the same steps."""
    assert decided(situation(values, found(system=system))) == decided(situation(values))


def test_what_was_installed_in_another_way_stays() -> None:
    """Debian's is not installed beside it; what dpkg has only unpacked is not there yet."""
    it = situation(it=found(own_supervisord=(True, True)), webserver=NGINX)
    assert changes(decided(it))["packages"] == ("install git, python3-venv, sudo, logrotate",)
    it = situation(webserver=replace(NGINX, folder="", test="no nginx.conf"))
    assert changes(decided(it)) == changes(decided(situation()))


# --- what is refused ---------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "there", "message", "cure"),
    [
        ({}, {"privilege": "none"}, "setup needs root: the account that logs in is not root, and sudo is not installed on the host", "log in as root: fab -H root@web1.example.com setup"),
        ({}, {"system": ("fedora", "41", "Fedora Linux 41")}, "the host runs Fedora Linux 41, and setup is for Debian 12 and 13, Ubuntu 22.04 and 24.04", "prepare it by hand, see the README; a deploy works on any Linux that has what it needs"),
        ({}, {"system": ("debian", "11", "")}, "the host runs debian 11, and setup is for Debian 12 and 13, Ubuntu 22.04 and 24.04", "prepare it by hand, see the README; a deploy works on any Linux that has what it needs"),
        ({}, {"listeners": ((443, "h2o", 8, False), (80, "apache2", 7, False))}, "port 80 is taken by apache2 (process 7), and nginx is to listen there", "if nobody needs what it serves, stop it for good; on the host, as root, for instance: systemctl disable --now apache2\nor let it serve the site: leave fabdjango.nginx.domains empty, and proxy from it to fabdjango.gunicorn.bind"),
        ({}, {"room": {"/var": [999, -1]}}, "the disk of /var is too small: 999 MB are free, and 1000 are wanted", "make room (df -h), or ask for less: fabdjango.server.disk"),
        ({}, {"room": {"/": [9000, 19_999]}}, "the file system of / has 19999 inodes left, and 20000 are wanted", "remove small files; df -i shows where"),
        ({}, {"account": {"uid": 0, "group": "root", "home": "/home/deploy", "shell": "/bin/sh"}}, "the account deploy is there and is root by another name", "choose another one as fabdjango.user"),
        ({}, {"account": {"uid": 33, "group": "x", "home": "/nonexistent", "shell": "/bin/sh"}, "home": "/nonexistent"}, "the account deploy is there and has the home /nonexistent", "choose another one as fabdjango.user"),
        ({}, {"account": {"uid": 33, "group": "x", "home": "/home/deploy", "shell": "/usr/sbin/nologin"}}, "the account deploy is there and may not log in: its shell is /usr/sbin/nologin", "choose another one as fabdjango.user"),
        ({}, {"account": {"uid": 33, "group": "x", "home": "/home/deploy", "shell": "/bin/sh"}, "folders": {"/home/deploy": {**OURS, "owner": "ada"}}}, "the account deploy is there and has the home /home/deploy, which belongs to ada", "choose another one as fabdjango.user"),
        ({"server": {"skip": ["account"]}}, {}, "the account deploy is not there, and fabdjango.server.skip leaves it to you", "as root: adduser --disabled-password --gecos '' deploy"),
        ({}, {"folders": {str(LAYOUT.root): {**OURS, "owner": "ada"}}}, "/srv/it's here belongs to ada, and the site is deploy's", """as root: chown -R deploy: '/srv/it'"'"'s here'\nor choose another fabdjango.root"""),
        ({}, {"folders": {str(LAYOUT.root / "run"): {**OURS, "folder": False}}}, "/srv/it's here/run is there and is no folder", "move it away"),
        ({}, {"folders": {"/srv": {**OURS, "owner": "ada"}}}, "/srv belongs to ada, so setup makes no folder for deploy there", """make it by hand, as root: install -d -o deploy -- '/srv/it'"'"'s here'\nor choose another fabdjango.root"""),
        ({}, {"taken": {"domain blog.example.com": "/etc/nginx/conf.d/it.conf"}}, "the domain blog.example.com is taken on the host, by /etc/nginx/conf.d/it.conf", "take it out of there, or choose another fabdjango.nginx.domains"),
        ({}, {"taken": {"program blog-web-a": "/etc/supervisor/conf.d/it.conf"}}, "the program blog-web-a is taken on the host, by /etc/supervisor/conf.d/it.conf", "take it out of there, or choose another fabdjango.project than blog"),
        ({}, {"files": {"/etc/supervisor/conf.d/blog.conf": {"text": "; mine\n", "digest": ""}}}, "/etc/supervisor/conf.d/blog.conf is there and was not written by fabdjango", "move it away, choose another fabdjango.project, or see to it by hand: fabdjango.server.skip"),
        ({}, {"files": {"/etc/nginx/sites-available/blog.conf": {"text": "# mine\n", "digest": ""}}}, "/etc/nginx/sites-available/blog.conf was not written by fabdjango, and is left alone", "move it away, or choose another fabdjango.project than blog"),
        ({"server": {"skip": ["packages"]}}, {}, "nginx is not installed on the host", "as root: apt-get install nginx"),
        ({"server": {"skip": ["packages"]}, "nginx": {"domains": []}}, {}, "supervisor is not installed on the host", "on the host, as root: apt-get install supervisor\nor set fabdjango.supervisor.level to virtualenv"),
        ({"server": {"firewall": "ufw"}}, {"ssh_ports": ()}, "nobody can tell where sshd listens on this host, and a firewall would lock you out", "leave fabdjango.server.firewall at none"),
    ],
)  # fmt: skip
def test_what_is_refused(values: dict[str, Any], there: dict[str, Any], message: str, cure: str) -> None:
    """Before anything is touched, with what is in the way and what to do."""
    if "supervisor" in message:
        values = {**values, "supervisor": {"level": "system"}}
    with pytest.raises(FabdjangoError) as caught:
        decided(situation(values, found(**there), host="web1.example.com"))
    assert (caught.value.message, caught.value.cure) == (message, cure)
    assert (caught.value.host, caught.value.exit_code) == ("web1.example.com", 1)


def test_root_is_no_account_of_a_site() -> None:
    """Not even where it is written down."""
    with pytest.raises(
        FabdjangoError, match=r"fabdjango\.user is root, and setup gives the site an account of its own"
    ):
        decided(replace(situation(), owner="root"))


def test_a_full_disk_does_not_matter_where_nothing_is_to_do() -> None:
    """A server that serves may well be full."""
    assert not [part for part in decided(done({}, room={"/": [3, 3]})) if part.changes]


def test_folders_that_nginx_may_not_pass_through() -> None:
    """A home is opened, if the site is in there; other folders are not ours to open."""
    it = situation({"root": "~/it's here"}, found(root="/home/deploy/it's here", above="/home/deploy"))
    it = replace(it, layout=replace(LAYOUT, root=PurePosixPath("/home/deploy/it's here")))
    assert changes(decided(it))["folders"] == (
        "make /home/deploy/it's here for deploy",
        "make releases, venvs, shared, run in /home/deploy/it's here",
        "let nginx pass through /home/deploy",
    )
    assert decided(replace(it, webserver=replace(NGINX, blocked=("/home/deploy",))))
    with pytest.raises(FabdjangoError, match="nginx runs as www-data, which may not pass through /srv"):
        decided(situation(webserver=replace(NGINX, blocked=("/srv",))))


@pytest.mark.parametrize("char", '"\\{}')
def test_a_root_that_logrotate_cannot_carry(char: str) -> None:
    """Said before anything is touched."""
    it = situation()
    it = replace(it, layout=replace(LAYOUT, root=PurePosixPath(f"/srv/a{char}b")))
    with pytest.raises(RefusedValueError, match="which logrotate cannot carry"):
        decided(it)


# --- certificates ------------------------------------------------------------

SELF_SIGNED = {"nginx": {"domains": ["blog.example.com"], "tls": "self-signed"}}


def test_a_certificate_is_made_before_nginx_uses_it() -> None:
    """Told beside the other parts, done between nginx's steps."""
    it = serving(situation(SELF_SIGNED))
    parts = {part.name: part for part in server.decide(it)}
    assert parts["tls"] == Part("tls", changes=("make a certificate: there is no certificate",))
    assert [step.name for step in parts["nginx"].steps] == [
        *("enable-nginx", "tls-certificate", "nginx-write", "nginx-check", "nginx-reload", "nginx-proof"),
    ]
    there = Certificate(names=("blog.example.com",), not_after="2029-02-03", days=800, lifetime=820)
    after = done(SELF_SIGNED, listeners=((443, "nginx", 1, False),))
    after = replace(after, certificate=certificates.Found(file=there))
    assert changes(decided(after))["tls"] == "/etc/ssl/fabdjango/blog/certificate.pem, good until 2029-02-03"
    by_hand = {**SELF_SIGNED, "server": {"skip": ["tls"]}}
    assert changes(decided(situation(by_hand)))["tls"] == "- it is done by hand: fabdjango.server.skip"
    with pytest.raises(FabdjangoError, match="port 443 is taken by h2o"):
        decided(situation(SELF_SIGNED, found(listeners=((443, "h2o", 8, False),))))


# --- keys --------------------------------------------------------------------


def test_keys_of_the_operators_side() -> None:
    """They win over those of the account that sets up; lines that are there stay as they are."""
    text = 'from="192.0.2.1",no-pty ' + OTHER
    path = "/home/deploy/.ssh/authorized_keys"
    it = done({}, keys=(text,), files={path: {"text": text, "digest": "x"}})
    it = replace(it, keys=(KEY, OTHER, KEY))
    (step,) = decided(it)[1].steps
    assert step.puts == (Put(PurePosixPath(path), f"{text}\n{KEY}\n", 0o600),)
    assert (step.user, step.title) == ("deploy", "let keys log in as deploy")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "fabdjango.server.keys names it's mine, which is a private key"),
        (f"# a comment\n\n{KEY}\nssh-ed25519\n", "fabdjango.server.keys: key 2 of it's mine is not a public key"),
        ("ssh-rsa AAAA;rm -rf\n", "fabdjango.server.keys: key 1 of it's mine is not a public key"),
    ],
)
def test_files_that_are_no_public_keys(text: str, said: str) -> None:
    """A private key is not sent anywhere."""
    with pytest.raises(ConfigError) as caught:
        read_keys(text, "it's mine")
    assert caught.value.message == said


def test_lines_of_keys() -> None:
    """Which are the same, and whose they are."""
    line = f'command="echo it\'s",no-pty {OTHER}'
    assert read_keys(f"\n# it's\n{KEY}\n  {line}\n", "it's mine") == (KEY, line)
    assert missing_keys([KEY, OTHER], [line]) == [KEY]
    assert [name_of_key(each) for each in (KEY, line, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5")] == [
        "it's ada",
        "bob@laptop",
        "C3NzaC1lZDI1NTE5",
    ]


# --- Python ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pyproject", "note"),
    [
        ("", ""),
        ('requires-python = ">=3.10"', ""),
        ('requires-python = "<4,>=3.11"', ""),
        ("requires-python = '~=3.12'", "python3 of the host is 3.11, and the project's pyproject.toml asks for ~=3.12: a deploy will be refused, and say what to do"),
        ('[project]\nrequires-python=">= 3.13, <4"\n', "python3 of the host is 3.11, and the project's pyproject.toml asks for >= 3.13, <4: a deploy will be refused, and say what to do"),
    ],
)  # fmt: skip
def test_a_python_that_is_too_old(pyproject: str, note: str) -> None:
    """It is only said: another Python may be installed by hand."""
    assert server.python_note(sample_settings(), BARE, pyproject) == note


# --- the shell ---------------------------------------------------------------

LOCK = Lock(PurePosixPath("/run/it's/lock"), PurePosixPath("/run/it's/steps.lock"))


def test_how_packages_are_installed() -> None:
    """What was interrupted is finished first, another apt is waited for, and nothing is removed."""
    assert shown(server_steps.install_packages(["git", "g++"])) == shell(
        """
        # packages (as root): install git, g++
        export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l UCF_FORCE_CONFFOLD=1
        log=$(mktemp)
        run() { : >"$log"; "$@" >>"$log" 2>&1 9>&- & pid=$!; tail -n +1 -f -s 0.2 --pid=$pid -- "$log"; wait $pid; }
        patiently() {
          n=0; until run "$@"; do
            grep -q -e 'Could not get lock' -e 'was locked by' -- "$log" && [ $n -lt 60 ] || exit 1
            n=$((n + 1)); sleep 5
          done
        }
        patiently dpkg --configure -a --force-confdef --force-confold
        patiently apt-get -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold update
        patiently apt-get -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold --no-install-recommends --no-remove install -- git g++
        rm -f -- "$log"
        """
    )


@pytest.mark.parametrize(
    ("behaviour", "status", "told"),
    [
        ("echo done", 0, ["done"]),
        ("echo 'E: broken'; exit 100", 1, ["E: broken"]),
        ('[ -e "$0.seen" ] || { touch "$0.seen"; echo "E: Could not get lock x"; exit 100; }; echo done', 0, ["E: Could not get lock x", "done"]),
    ],
)  # fmt: skip
def test_another_apt_is_waited_for(tmp_path: Path, behaviour: str, status: int, told: list[str]) -> None:
    """Any other failure is one at once, and all is shown."""
    for name, body in {"dpkg": ":", "apt-get": behaviour, "sleep": ":"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    words = server_steps.install_packages([]).body.replace("dpkg --configure", "apt-get --configure")
    done = subprocess.run(
        ["sh", "-e"],
        input=words,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()) == (status, told)


def test_how_an_account_is_made() -> None:
    """Twice is once; its home too, should that have been cut off."""
    assert shown(server_steps.make_account("deploy", "/home/it's")) == shell(
        """
        # account (as root): make the account deploy
        if ! getent passwd deploy >/dev/null; then
        if getent group deploy >/dev/null; then
          set -- --gid deploy
        else
          set -- --user-group
        fi
        useradd --create-home --home-dir '/home/it'"'"'s' --key HOME_MODE=0750 --shell /bin/bash --password '*' --comment 'Deploys Django sites' "$@" -- deploy
        fi
        [ "$(stat -c %U -- '/home/it'"'"'s' 2>/dev/null)" = deploy ] || install -d -o deploy -g "$(id -gn -- deploy)" -m 750 -- '/home/it'"'"'s'
        """
    )


def test_how_the_account_of_an_application_is_made() -> None:
    """Nobody logs in to it, and what belongs to its group is the owner's to read."""
    assert shown(server_steps.make_app_account("www-blog", "deploy")) == shell(
        """
        # application (as root): make the account www-blog, and deploy a member of its group
        if ! getent passwd www-blog >/dev/null; then
        if getent group www-blog >/dev/null; then
          set -- --gid www-blog
        else
          set -- --user-group
        fi
        useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --comment 'Runs a Django site' "$@" -- www-blog
        fi
        usermod --append --groups "$(id -gn -- www-blog)" -- deploy
        """
    )


def test_how_folders_are_made() -> None:
    """The top one by root where root's folder is above it, all else by their owner."""
    it = situation()
    assert shown(*decided(it)[2].steps) == shell(
        """
        # root (as root): make /srv/it's here
        if [ -d '/srv/it'"'"'s here' ]; then
          chown deploy:deploy -- '/srv/it'"'"'s here'
        else
          install -d -o deploy -g deploy -m 755 -- '/srv/it'"'"'s here'
        fi
        # folders (as deploy): make folders in /srv/it's here
        mkdir -p -- '/srv/it'"'"'s here/releases' '/srv/it'"'"'s here/venvs' '/srv/it'"'"'s here/shared' '/srv/it'"'"'s here/run'
        """
    )
    own = replace(it, found=found(folders={"/srv": OURS}))
    assert shown(server_steps.make_root(own)) == shell(
        """
        # root (as deploy): make /srv/it's here
        mkdir -p -- '/srv/it'"'"'s here'
        """
    )
    assert shown(server_steps.open_home("deploy", "/home/it's")) == shell(
        """
        # home (as deploy): let nginx pass through /home/it's
        chmod o+x -- '/home/it'"'"'s'
        """
    )


def test_the_site_in_one_session_with_a_way_back_for_nginx() -> None:
    """What comes after nginx is done in any case; all is under the site's lock."""
    it = serving(situation({"server": {"firewall": "ufw", "updates": True}}))
    parts = decided(it)
    first, second = server.base(parts, server.setup_lock("ada@laptop", "T-it's")), server.on_site(it, parts, LOCK)
    run = PurePosixPath("/run/fabdjango/setup")
    assert first is not None
    assert second is not None
    assert first.lock == Lock(run / "lock", run / "steps.lock", "ada@laptop", "T-it's", task="setup")
    assert [step.name for step in first.steps] == ["packages", "account", "keys", "root", "folders", "uv"]
    assert [step.name for step in second.steps] == [
        *("enable-supervisor", "supervisor", "manager-check", "configure", "sudoers"),
        *("enable-nginx", "nginx-write", "nginx-check", "nginx-reload", "nginx-proof"),
        *("logs", "firewall", "updates"),
    ]
    assert (second.undo_from, second.serving_from, second.kept_from) == ("nginx-write", "nginx-reload", "logs")
    assert [step.name for step in second.undo] == ["nginx-write-back", "nginx-reload-back"]
    assert second.lock == LOCK
    # Where the site is not there yet nobody is its owner, so the steps name their account.
    assert {step.user for step in first.steps} == {"root", "deploy"}


def test_how_logs_and_updates_are_seen_to() -> None:
    """logrotate reads its file, and Debian's own timers run."""
    put = Put(PurePosixPath("/etc/it's"), "# it\n")
    assert shown(server_steps.rotate_logs(put), server_steps.update_daily(put, ["apt-daily.timer"])) == shell(
        """
        # logs (as root): write /etc/it's
        replace '/etc/it'"'"'s' 644 <<'EOF'
        (5 bytes)
        EOF
        out=$(logrotate --debug --state /dev/null '/etc/it'"'"'s' 2>&1) || refuse "$out"
        # updates (as root): security updates install themselves
        replace '/etc/it'"'"'s' 644 <<'EOF'
        (5 bytes)
        EOF
        systemctl enable --quiet --now -- apt-daily.timer
        """
    )


# --- the firewall ------------------------------------------------------------


def test_ufw() -> None:
    """Ports are allowed before it is switched on, and it is switched off again if nobody says keep."""
    assert firewall.allowed_by_ufw(UFW) == {22, 80, 443}
    assert firewall.allowed_by_ufw(UFW.replace("active", "inactive")) == frozenset()
    assert shown(
        firewall.on_ufw([22, 443], active=False), firewall.on_ufw([443], active=True), firewall.keep()
    ) == shell(
        """
        # firewall (as root): let ufw open what is needed, and nothing else
        ufw allow 22/tcp
        ufw allow 443/tcp
        systemctl stop -- fabdjango-firewall-revert.timer 2>/dev/null || :
        systemctl reset-failed -- fabdjango-firewall-revert.service 2>/dev/null || :
        systemd-run --quiet --unit=fabdjango-firewall-revert --on-active=120 -- /bin/sh -c 'ufw --force disable'
        ufw --force enable
        # firewall (as root): let ufw open what is needed, and nothing else
        ufw allow 443/tcp
        # firewall-keep (as root): somebody could log in: the firewall stays
        if ! systemctl is-active --quiet -- fabdjango-firewall-revert.timer; then
          unchanged 'it was kept before'
        fi
        systemctl stop -- fabdjango-firewall-revert.timer
        """
    )


def test_nftables() -> None:
    """The rules are read before they are used, and taken back if nobody says keep."""
    rules, unit = firewall.files(sample_templates(), [22, 80, 443])
    assert shown(replace(firewall.on_nftables((rules, unit)), puts=())) == shell(
        """
        # firewall (as root): let nftables open what is needed, and nothing else
        nft --check --file /etc/fabdjango/firewall.nft
        systemctl stop -- fabdjango-firewall-revert.timer 2>/dev/null || :
        systemctl reset-failed -- fabdjango-firewall-revert.service 2>/dev/null || :
        systemd-run --quiet --unit=fabdjango-firewall-revert --on-active=120 -- /bin/sh -c 'systemctl disable --now fabdjango-firewall.service'
        systemctl daemon-reload
        systemctl enable --quiet -- fabdjango-firewall.service
        systemctl restart -- fabdjango-firewall.service
        """
    )
    assert "        tcp dport { 22, 80, 443 } accept\n" in rules.content
    assert "ExecStart=/usr/sbin/nft --file /etc/fabdjango/firewall.nft\n" in unit.content


@pytest.mark.skipif(not shutil.which("nft"), reason="nftables is not installed here; tests/hosts asks it too")
def test_nftables_takes_its_rules(tmp_path: Path) -> None:
    """Read by nft itself."""
    rules, _ = firewall.files(sample_templates(), [22, 80, 443])
    (tmp_path / "rules").write_text(rules.content)
    done = subprocess.run(["nft", "--check", "--file", tmp_path / "rules"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- looking -----------------------------------------------------------------


def test_the_look() -> None:
    """By sudo where it asks for no password, and telling how it is where it does."""
    it = situation()
    step = as_login(look(it.settings, LAYOUT, "deploy"))
    assert shown(step) == shell(
        """
        # server-look (as (login)): look at the server
        port=${SSH_CONNECTION##* }; case $port in ''|*[!0-9]*) port=0;; esac
        command -v python3 >/dev/null || refuse 'python3 is not installed on the host'
        if [ "$(id -u)" = 0 ]; then as_root="env FABDJANGO_PORT=$port"
        elif ! command -v sudo >/dev/null; then echo '{"privilege": "none"}'; exit 0
        elif sudo -n true 2>/dev/null; then as_root="sudo -n -H env FABDJANGO_PORT=$port"
        else echo '{"privilege": "password"}'; exit 0
        fi
        $as_root python3 -I -S - # Look at the server; print what was found as one line of JSON. Writes nothing.
        """
    )
    # What needs no root, needs no owner either, who may not be there yet.
    assert as_login(replace(step, user="")) == replace(step, user=LOGIN)


def test_reading_the_look() -> None:
    """The last line that is JSON; lists are tuples where they are compared."""
    told = {"privilege": "root", "system": ["debian", "12", "it's"], "listeners": [[80, "nginx", 7, False]], "new": 1}
    it = read_look(f"warning\n{json.dumps(told)}\n")
    assert it == Found(privilege="root", system=("debian", "12", "it's"), listeners=((80, "nginx", 7, False),))
    with pytest.raises(FabdjangoError, match="did not give an answer"):
        read_look("sudo: it's broken\n")


@pytest.mark.parametrize("value", ["tsl", "packages ", ""])
def test_a_part_that_there_is_not(value: str) -> None:
    """Misspelt, it would be done after all."""
    with pytest.raises(ConfigError, match=r"fabdjango\.server\.skip must be one of packages, account"):
        sample_settings(server={"skip": [value]})


@pytest.mark.parametrize("value", ["-o", "Git", "a b", "x", "a;b", "$(id)"])
def test_names_that_are_no_packages(value: str) -> None:
    """They would be options of apt."""
    with pytest.raises(ConfigError, match=r"fabdjango\.server\.packages must be the name of a Debian package"):
        sample_settings(server={"packages": [value]})
