"""setup on bare hosts: from nothing to a site that serves, refused, cut off, repeated; with and without sudo's password."""

from __future__ import annotations

import contextlib
import http.client
import os
import pty
import re
import shlex
import signal
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import machines
from tests.hosts.faults import PAUSE
from tests.hosts.workplace import Daemon, Outcome, Repository, Workplace, answer, wait_for
from tests.machines import Machine

DOMAIN = "blog.example.com"
PASSWORD = 'it\'s a canary: 5up3r "secret"'  # noqa: S105 - of an account of a host that is thrown away
SECRET = "it's not a secret, but long enough to be accepted as one"  # noqa: S105
LEDGER = """
dpkg-query -W | sort | sha256sum
find /etc /home /srv /usr/local /var/lib/dpkg /var/spool -xdev -type f -newer /root/began 2>/dev/null
find /srv /home -xdev | sort
getent passwd; getent group; ls -A /run/fabdjango 2>&1
systemctl list-unit-files --no-legend --no-pager | sort | sha256sum
"""
#: Who runs since when, and when apt was last asked for anything.
RUNNING = """
systemctl show --property=Id,MainPID,ActiveEnterTimestampMonotonic nginx supervisor ssh blog-web@a blog-web@b
ps -C nginx,supervisord,gunicorn,python,python3,sh -o pid=,lstart=,comm= | grep -v ' sh$'
stat -c '%n %y' /var/log/apt/history.log /var/lib/apt/lists/lock /var/lib/dpkg/status
"""


@dataclass
class Server:
    """One bare host, and the operator's folder."""

    machine: Machine
    workplace: Workplace
    repository: Repository

    def configure(self, **settings: Any) -> None:
        """Say what fabric.yaml has: a small site unless said otherwise."""
        given = {
            "project": "blog",
            "repository": self.repository.url,
            "user": "site",
            "nginx": {"domains": [DOMAIN]},
            "schedule": {"tidy": {"at": "7 4 * * *", "command": "clearsessions"}},
            "shared": ["data/", "media/"],
            "environment": {"BLOG_SECRET_KEY": SECRET, "BLOG_ALLOWED_HOSTS": f"{DOMAIN},shop.example.com"},
            **settings,
        }
        self.workplace.configure(**given)

    def words(self, *words: str | Path, login: str = "root") -> tuple[str | Path, ...]:
        """The words of a fab on this host."""
        return ("-H", f"{login}@{self.machine.address}", "-i", self.machine.key, *words)

    def fab(self, *words: str | Path, login: str = "root") -> Outcome:
        """Run a task."""
        return self.workplace.fab(*self.words(*words, login=login))

    def run(self, script: str, *, check: bool = True) -> str:
        """What a script of root says."""
        return self.machine.run(script, check=check, timeout=300).stdout

    def exists(self, path: str) -> bool:
        """Look at a file, also in /run."""
        return Path(f"/proc/{self.machine.leader_pid}/root{path}").exists()

    def scripts(self) -> list[int]:
        """The process ids, on the host, of every shell that runs one of our programs."""
        return [int(pid) for pid in self.run("pgrep -f '[#]end of script'", check=False).split()]

    def cut_off(self, pause: str, *words: str | Path, **where: str) -> None:
        """Run setup up to a moment, then kill the operator's fab and everything of it on the host, at once."""
        begun = self.workplace.start(*self.words("setup", *words, login=where.get("login", "root")), **{PAUSE: pause})
        files = ("/run/fabdjango/setup/paused", f"{where.get('root', '/srv/blog')}/run/paused")

        def paused() -> str:
            return next((path for path in files if self.exists(path)), "")

        def reached() -> bool:
            return bool(paused()) or begun.process.poll() is not None

        try:
            assert wait_for(reached, 120), f"{pause} was not reached"
            assert paused(), begun.wait()
            begun.process.send_signal(signal.SIGKILL)
            assert begun.wait().code == -signal.SIGKILL
            # One that was about to tell of the pause has died of that already.
            self.run(f"kill -9 {shlex.join(map(str, self.scripts()))}", check=False)
            assert wait_for(lambda: not self.scripts(), 10)
        finally:
            self.run(f"rm -f {shlex.join(files)}")

    def status(self, host: str = DOMAIN, path: str = "/") -> int:
        """The status that nginx answers with, asked from outside."""
        return answer(self.machine, 80, path, host)[0]

    def https_status(self, host: str) -> int:
        """The same over https, whoever signed the certificate."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        link = http.client.HTTPSConnection(self.machine.address, timeout=10, context=context)
        with contextlib.closing(link):
            link.request("GET", "/", headers={"Host": host})
            return link.getresponse().status


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Debian 12 host that has Python, sshd and sudo."""
    (machine,) = machines.up(1, "bookworm", "bare", "setup")
    yield _server(machine, tmp_path_factory.mktemp("setup"))
    machines.down([machine])


def _server(machine: Machine, folder: Path) -> Server:
    workplace = Workplace(folder / "work")
    workplace.know(machine)
    machine.run("touch /root/began")
    return Server(machine, workplace, Repository("none", folder / "none.git", "git://nowhere/none.git"))


def with_site(server: Server, daemon: Daemon) -> str:
    """A repository that the host reaches; its commit."""
    server.repository = daemon.repository(f"blog-{server.machine.name}")
    return server.repository.sample(1)


# --- refused -----------------------------------------------------------------


def refused(server: Server, /, login: str = "root", **settings: Any) -> str:
    """What a setup says that touches nothing."""
    server.configure(**settings)
    before = server.run(LEDGER)
    outcome = server.fab("setup", login=login).ended(1)
    assert "exit 1" in outcome.complaint
    assert server.run(LEDGER) == before
    return outcome.error


def test_another_distribution(server: Server) -> None:
    """Named, and nothing touched."""
    server.run(
        "cp --remove-destination /etc/os-release /root/kept; sed -i 's/^ID=.*/ID=arch/; s/^PRETTY_NAME=.*/PRETTY_NAME=\"Arch Linux\"/' /etc/os-release; touch -d @1 /etc/os-release /usr/lib/os-release"
    )
    try:
        said = refused(server)
    finally:
        server.run("cat /root/kept > /etc/os-release; touch -d @1 /usr/lib/os-release")
    assert "the host runs Arch Linux, and setup is for Debian 12 and 13, Ubuntu 22.04 and 24.04" in said


@pytest.mark.parametrize(
    ("version", "pretty"), [("22.04", "Ubuntu 22.04.5 LTS"), ("24.04", "Ubuntu 24.04.3 LTS")], ids=["22.04", "24.04"]
)
def test_what_calls_itself_ubuntu(server: Server, version: str, pretty: str) -> None:
    """The plan is that of Debian; with its way to start sshd by a socket, a firewall opens the ports of that."""
    release = f'PRETTY_NAME="{pretty}"\nNAME="Ubuntu"\nVERSION_ID="{version}"\nID=ubuntu\nID_LIKE=debian\n'
    server.run("cp --remove-destination /etc/os-release /root/kept")
    server.machine.write("/etc/os-release", release)
    server.machine.write("/etc/systemd/system/ssh.socket.d/more.conf", "[Socket]\nListenStream=2222\n")
    server.run("systemctl daemon-reload; systemctl stop ssh.service; systemctl start ssh.socket")
    try:
        server.configure(server={"firewall": "nftables"})
        plan = server.fab("server.plan").ended().output
    finally:
        server.run(
            "rm -r /etc/systemd/system/ssh.socket.d; systemctl stop ssh.socket; systemctl daemon-reload;"
            "systemctl start ssh.service; cp --remove-destination /root/kept /etc/os-release; touch -d @1 /etc/os-release"
        )
    assert f"{server.machine.address} runs {pretty}" in plan
    assert "  changes    packages: install git, python3-venv, nginx, supervisor, cron, logrotate, nftables" in plan
    assert re.search(r"^\+.* 22, 80, (443, )?2222 ", plan, re.MULTILINE), plan


def test_another_program_on_port_80(server: Server) -> None:
    """By its name."""
    server.run("cp /usr/bin/python3 /run/apache2; systemd-run -q -u squatter /run/apache2 -m http.server 80")
    try:
        assert wait_for(lambda: answer(server.machine, 80)[0] == 200, 20)
        said = refused(server)
    finally:
        server.run("systemctl stop squatter; rm /run/apache2")
    assert re.search(r"port 80 is taken by apache2 \(process \d+\), and nginx is to listen there", said)


def test_things_in_the_way(server: Server) -> None:
    """A disk that is too small, files of others, folders of others, accounts that are no sites', and no way to be root."""
    assert "MB are free, and 999999999 are wanted" in refused(server, server={"disk": 999_999_999})
    assert "fabdjango.user is root" in refused(server, user="root")
    assert "the account www-data is there and " in refused(server, user="www-data")
    cases = {
        "/etc/nginx/sites-available/blog.conf": "was not written by fabdjango, and is left alone",
        "/etc/supervisor/conf.d/blog.conf": "is there and was not written by fabdjango",
        "/etc/logrotate.d/fabdjango-blog": "is there and was not written by fabdjango",
    }
    for path, message in cases.items():
        server.machine.write(path, "# somebody's\n")
        try:
            assert f"{path} {message}" in refused(server)
        finally:
            server.run(f"rm {path}")
    server.machine.write("/etc/supervisor/conf.d/other.conf", "[program:blog-web-a]\ncommand=true\n")
    server.machine.write("/etc/nginx/conf.d/other.conf", f"server {{ server_name x.org {DOMAIN}; }}\n")
    try:
        assert "the program blog-web-a is taken on the host, by /etc/supervisor/conf.d/other.conf" in refused(server)
        server.run("rm /etc/supervisor/conf.d/other.conf")
        assert f"the domain {DOMAIN} is taken on the host, by /etc/nginx/conf.d/other.conf" in refused(server)
    finally:
        server.run("rm -rf /etc/supervisor /etc/nginx")
    server.run("install -d -o deploy /srv/blog")
    try:
        assert "/srv/blog belongs to deploy, and the site is site's" in refused(server)
    finally:
        server.run("rmdir /srv/blog")


def test_no_sudo(server: Server) -> None:
    """Nobody to ask for a password; no sudo at all; and a password that does not help."""
    server.run(
        "useradd -m -s /bin/bash eve; install -d -m 700 -o eve -g eve /home/eve/.ssh;"
        "install -m 600 -o eve -g eve /home/deploy/.ssh/authorized_keys /home/eve/.ssh/"
    )
    said = refused(server, login="eve")
    assert "sudo asks eve for a password, and there is no terminal to ask on" in said
    assert "fab --prompt-for-sudo-password -H eve@" in said
    server.run("mv /usr/bin/sudo /usr/bin/sudo.away")
    try:
        assert (
            "setup needs root: the account that logs in is not root, and sudo is not installed on the host"
            in refused(server, login="eve")
        )
    finally:
        server.run("mv /usr/bin/sudo.away /usr/bin/sudo")
    server.run(f"echo eve:{shlex.quote(PASSWORD)} | chpasswd")
    outcome = server.fab("-f", given_password(server, PASSWORD), "setup", login="eve").ended(1)
    assert "sudo does not let eve become root with this password" in outcome.error
    assert "eve is not in the sudoers file" in outcome.quoted
    assert "canary" not in outcome.error + outcome.output


def given_password(server: Server, password: str) -> Path:
    """A file for fab -f that says what --prompt-for-sudo-password would have asked for."""
    path = server.workplace.folder / "sudo.yaml"
    path.write_text(f"sudo: {{password: {password.replace(chr(39), chr(39) * 2).join(chr(39) * 2)}}}\n")
    return path


# --- cut off, again and again ----------------------------------------------------

#: Pauses dpkg when what apt has unpacked is about to be configured, once.
HALFWAY = """pre-invoke=[ ! -e /run/halfway ] || ! grep -q '^Status: install ok unpacked' /var/lib/dpkg/status || { mv /run/halfway /run/halfway.now; while [ -e /run/halfway.now ]; do sleep 0.05; done; }
"""


def test_a_plan_writes_nothing(server: Server) -> None:
    """Neither it nor a dry run."""
    server.configure()
    before = server.run(LEDGER)
    plan, dry = server.fab("server.plan").ended(), server.fab("--dry", "setup").ended()
    assert "  changes    packages: install git, python3-venv, nginx, supervisor, cron, logrotate" in plan.output
    assert "+++ /etc/supervisor/conf.d/blog.conf" in plan.output
    assert "useradd --create-home --home-dir /home/site" in dry.output
    assert server.run(LEDGER) == before


def test_cut_off_while_dpkg_works(server: Server) -> None:
    """Everything dies with packages unpacked and not configured; dpkg says so, and the next one finishes."""
    server.cut_off("before:packages")
    server.machine.write("/etc/dpkg/dpkg.cfg.d/halfway", HALFWAY)
    server.run("touch /run/halfway")
    begun = server.workplace.start(*server.words("setup"))
    assert wait_for(lambda: server.exists("/run/halfway.now"), 120)
    begun.process.send_signal(signal.SIGKILL)
    begun.wait()
    for name in ("apt-get", "dpkg"):
        server.run(f"kill -9 $(pgrep -x {name})", check=False)
    server.run(f"kill -9 {shlex.join(map(str, server.scripts()))}", check=False)
    server.run("rm -f /run/halfway* /etc/dpkg/dpkg.cfg.d/halfway")
    assert wait_for(lambda: not server.scripts(), 10)
    assert "unpacked" in server.run("dpkg-query -W -f '${Status}\\n' | sort | uniq -c")
    assert "packages: finish what dpkg was interrupted in" in server.fab("server.plan").ended().output


@pytest.mark.parametrize(
    "pause",
    [
        *("after:packages", "after:account", "before:root", "before:uv"),
        *(
            "before:configure",
            "after:configure",
            "after:sudoers",
            "after:nginx-write",
            "before:nginx-proof",
            "after:logs",
        ),
    ],
)
def test_cut_off(server: Server, pause: str) -> None:
    """Each one goes on where the last was killed, and is killed later itself."""
    server.configure()
    server.cut_off(pause)


def test_cut_off_while_uv_is_installed(server: Server) -> None:
    """Only fab and our script die: what they ran goes on, and the next one sees to it."""
    server.run("rm -rf /srv/blog/tools")
    begun = server.workplace.start(*server.words("setup"))
    assert wait_for(lambda: "pip install" in server.run("pgrep -u site -a python", check=False), 60)
    begun.process.send_signal(signal.SIGKILL)
    begun.wait()
    server.run(f"kill -9 {shlex.join(map(str, server.scripts()))}", check=False)
    assert "uv" in server.fab("server.plan").ended().output


def test_the_next_one_finishes(server: Server) -> None:
    """Nothing is there twice, nothing is left over, and dpkg has nothing to complain of."""
    outcome = server.fab("setup").ended()
    assert re.search(r"^(set up|unchanged): ", outcome.last_line)
    assert server.run("dpkg --audit; dpkg-query -W -f '${db:Status-Abbrev}\\n' | sort -u") == "ii \n"
    assert (
        server.run("grep -c ^site: /etc/passwd /etc/group /etc/shadow")
        == "/etc/passwd:1\n/etc/group:1\n/etc/shadow:1\n"
    )
    assert server.run("getent shadow site").split(":")[1] == "*"
    assert server.run("cat ~site/.ssh/authorized_keys") == server.run("cat ~root/.ssh/authorized_keys")
    assert server.run("stat -c '%U:%G %a' ~site ~site/.ssh ~site/.ssh/authorized_keys /srv/blog /srv/blog/shared") == (
        "site:site 750\nsite:site 700\nsite:site 600\nsite:site 755\nsite:site 755\n"
    )
    assert server.run("find / -xdev -name '.fabdjango.*'") == ""
    assert server.run("grep -l server_name /etc/nginx/sites-enabled/*") == (
        "/etc/nginx/sites-enabled/blog.conf\n/etc/nginx/sites-enabled/default\n"
    )
    assert server.status() == 502


# --- it serves -------------------------------------------------------------------


def test_from_bare_to_a_site_that_serves(server: Server, daemon: Daemon) -> None:
    """The second command, as root: the account that setup made needs no sudo for it."""
    commit = with_site(server, daemon)
    server.configure()
    server.fab("deploy", f"--commit={commit}").ended()
    assert answer(server.machine, 80, "/", DOMAIN)[0] == 200
    assert server.run("supervisorctl status | awk '{print $1, $2}'") == "blog-web-a RUNNING\n"
    assert server.run("ps -o user= -p $(supervisorctl pid blog-web-a)") == "site\n"


def test_a_second_setup_changes_nothing(server: Server) -> None:
    """No restart, no apt, one login and one session; by whichever account."""
    for login in ("root", "deploy"):
        server.configure()
        before, cursor = server.run(RUNNING) + server.run("cat /etc/nginx/sites-enabled/*"), server.machine.cursor()
        outcome = server.fab("setup", login=login).ended()
        assert outcome.last_line == f"unchanged: {server.machine.address} is set up"
        assert not re.search("^  changes", outcome.output, re.MULTILINE)
        assert server.run(RUNNING) + server.run("cat /etc/nginx/sites-enabled/*") == before
        assert server.machine.sessions_since(cursor) == (1, 1)
    # An account that may become root by sudo deploys for the one that may not.
    assert "serves on" in server.fab("deploy", login="deploy").ended().last_line
    assert server.status() == 200


def test_what_was_changed_by_hand_is_shown_and_put_right(server: Server) -> None:
    """Only that, as a difference."""
    server.run("sed -i 's/startsecs=1/startsecs=7/' /etc/supervisor/conf.d/blog.conf; systemctl disable -q nginx")
    before = server.run("systemctl show --property=MainPID nginx supervisor")
    outcome = server.fab("setup").ended()
    assert "-startsecs=7" in outcome.output
    assert re.findall(r"^  changes    (\w+)", outcome.output, re.MULTILINE) == ["programs", "nginx"]
    assert server.run("systemctl is-enabled nginx") == "enabled\n"
    assert server.run("systemctl show --property=MainPID nginx supervisor") == before
    assert server.status() == 200


# --- a second site, by a sudo that asks, with systemd and a firewall -------------

SHOP: dict[str, Any] = {
    "project": "shop",
    "user": "shop",
    "run_as": "www-shop",
    "root": "/srv/it's shop",
    "manager": "systemd",
    "processes": {"worker": {"command": "sleep 'a b' || sleep 1000"}},
    "schedule": {"tidy": {"at": "daily", "command": "clearsessions"}},
    "nginx": {"domains": ["shop.example.com"], "tls": "self-signed"},
    "server": {"firewall": "nftables", "updates": True},
}


def test_a_password_for_sudo(server: Server) -> None:
    """Wrong, it is one try and an error; right, it does all; and it is in no command line, environment or journal."""
    server.run(
        f"useradd -m -s /bin/bash ada; echo ada:{shlex.quote(PASSWORD)} | chpasswd;"
        "echo 'ada ALL=(ALL:ALL) ALL' > /etc/sudoers.d/ada; install -d -m 700 -o ada -g ada /home/ada/.ssh;"
        "install -m 600 -o ada -g ada /home/deploy/.ssh/authorized_keys /home/ada/.ssh/"
    )
    server.configure(**SHOP)
    cursor = server.machine.cursor()
    outcome = server.fab("-f", given_password(server, "it's wrong"), "setup", login="ada").ended(1)
    assert "sudo does not let ada become root with this password" in outcome.error
    journal = f"journalctl --sync; journalctl -q -o cat --after-cursor {shlex.quote(cursor)} -t sudo"
    assert re.findall(r"\d+ incorrect password attempts?", server.run(journal)) == ["1 incorrect password attempt"]
    begun = server.workplace.start(
        *server.words("-f", given_password(server, PASSWORD), "setup", login="ada"), **{PAUSE: "before:account"}
    )
    assert wait_for(lambda: server.exists("/run/fabdjango/setup/paused"), 120), begun.wait()
    assert "canary" not in server.run("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    server.run("rm /run/fabdjango/setup/paused")
    outcome = begun.wait().ended()
    assert outcome.last_line.startswith(f"set up: {server.machine.address} is ready")
    assert "canary" not in outcome.output + outcome.error
    assert "canary" not in server.run(f"journalctl -q --after-cursor {shlex.quote(cursor)}; cat /var/log/apt/*.log")
    assert server.run("systemctl is-enabled shop-web@a shop-worker fabdjango-firewall") == "enabled\n" * 3
    assert server.run("id -nG shop") == "shop www-shop\n"


def test_being_asked_on_a_terminal(server: Server) -> None:
    """Once, and nothing that is typed is shown; a second run changes nothing."""
    server.configure(**SHOP)
    code, shown = on_terminal(server, "Password for sudo on the hosts", PASSWORD, *server.words("setup", login="ada"))
    assert (code, "canary" in shown) == (0, False), shown
    assert f"unchanged: {server.machine.address} is set up" in shown
    assert shown.count("Password") == 1
    words = ("--prompt-for-sudo-password", *server.words("server.plan", login="ada"))
    code, shown = on_terminal(server, "sudo", PASSWORD, *words)
    assert (code, "canary" in shown, "  unchanged  packages" in shown) == (0, False, True), shown


def on_terminal(server: Server, question: str, reply: str, *words: str | Path) -> tuple[int, str]:
    """Run fab on a terminal of its own, and type a reply where the question has been asked."""
    fab = Path(sys.executable).with_name("fab")
    environ = server.workplace._environ()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(server.workplace.folder)
        os.execve(fab, ["fab", *map(str, words)], environ)  # noqa: S606
    shown, typed = b"", False
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:
            break
        shown += chunk
        if not typed and question.encode() in shown:
            os.write(terminal, f"{reply}\n".encode())
            typed = True
        if not chunk:
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode(errors="replace")


def test_the_firewall(server: Server) -> None:
    """What is not needed is shut, for new connections; it comes back with the host, and twice is once."""
    server.run("systemd-run -q -u other python3 -m http.server 8123")
    try:
        assert wait_for(lambda: "8123" in server.run("ss -ltn"), 10)
        assert answer(server.machine, 8123)[0] == 0
        assert server.status() == 200
    finally:
        server.run("systemctl stop other")
    assert server.run("systemctl is-active fabdjango-firewall-revert.timer", check=False) == "inactive\n"


def test_a_firewall_that_nobody_could_log_in_through(server: Server) -> None:
    """The host opens again by itself, unless somebody has logged in anew; that may be the next setup."""
    server.configure(**{**SHOP, "server": {**SHOP["server"], "updates": False}})
    server.run("nft delete table inet fabdjango; systemctl stop fabdjango-firewall", check=False)
    given = given_password(server, PASSWORD)
    server.cut_off("before:firewall-keep", "-f", given, login="ada", root="/srv/it's shop")
    assert server.run("systemctl is-active fabdjango-firewall-revert.timer") == "active\n"
    outcome = server.fab("-f", given, "setup", login="ada").ended()
    assert "  changes    firewall: keep it on" in outcome.output
    assert server.run("systemctl is-active fabdjango-firewall-revert.timer", check=False) == "inactive\n"
    server.run("nft delete table inet fabdjango; systemctl stop fabdjango-firewall", check=False)
    server.cut_off("before:firewall-keep", "-f", given, login="ada", root="/srv/it's shop")
    # As if two minutes had passed.
    server.run("systemctl start --wait fabdjango-firewall-revert.service")
    assert server.run("nft list tables") == ""
    assert server.run("systemctl is-enabled fabdjango-firewall", check=False) == "disabled\n"
    assert server.fab("-f", given, "setup", login="ada").ended().last_line.startswith("set up: ")


def test_two_sites_side_by_side(server: Server, daemon: Daemon) -> None:
    """The second one's owner may run a few programs as root and nothing else; the first one never noticed."""
    commit = with_site(server, daemon)
    server.configure(**SHOP)
    server.fab("deploy", f"--commit={commit}", login="shop").ended()
    assert server.status("shop.example.com") == 308
    assert server.https_status("shop.example.com") == 200
    assert server.run("ps -o user= -p $(systemctl show --property=MainPID --value shop-web@a)") == "www-shop\n"
    assert "all " in server.fab("server.doctor", login="shop").ended().last_line
    # By whom it is deployed does not matter.
    server.fab("-f", given_password(server, PASSWORD), "deploy", f"--commit={commit}", login="ada").ended()
    assert server.status() == 200
    given = given_password(server, PASSWORD)
    last = f"unchanged: {server.machine.address} is set up"
    assert server.fab("-f", given, "setup", login="ada").ended().last_line == last
    server.configure()
    assert server.fab("setup").ended().last_line == last


def test_logs_that_the_application_writes(server: Server) -> None:
    """Rotated although they belong to an account that the owner is not, and written on in the same file."""
    folder = shlex.quote("/srv/it's shop/shared/log")
    server.run(
        f"install -d -o shop -g www-shop -m 2775 {folder}; cd {folder}; umask 002; runuser -u www-shop -- sh -c '"
        'exec 9>> "a b.log"; echo first >&9; touch ready; while [ -e ready ]; do sleep 0.05; done; echo second >&9\' &'
        "while [ ! -e ready ]; do sleep 0.05; done; logrotate -f /etc/logrotate.d/fabdjango-shop; rm ready; wait"
    )
    assert server.run(f"cd {folder}; tail -v *") == "==> a b.log <==\nsecond\n\n==> a b.log.1 <==\nfirst\n"


@pytest.mark.nightly
def test_debian_13(tmp_path: Path, daemon: Daemon) -> None:
    """Two commands, by an account with sudo's password, whose sudo takes a terminal for every command."""
    (machine,) = machines.up(1, "trixie", "bare", "setup")
    try:
        server = _server(machine, tmp_path)
        server.run(f"echo deploy:{shlex.quote(PASSWORD)} | chpasswd; sed -i s/NOPASSWD:// /etc/sudoers.d/deploy")
        commit = with_site(server, daemon)
        given = given_password(server, PASSWORD)
        server.configure(**{**SHOP, "server": {"firewall": "ufw", "updates": True}})
        server.fab("-f", given, "setup", login="deploy").ended()
        server.fab("-f", given, "deploy", f"--commit={commit}", login="deploy").ended()
        assert server.https_status("shop.example.com") == 200
        outcome = server.fab("-f", given, "setup", login="deploy").ended()
        assert outcome.last_line == f"unchanged: {machine.address} is set up"
    finally:
        machines.down([machine])
