"""
A check on a real host: one thing after the other is broken, is found with its cure, and is mended by it where that is a command.

The tests tell one story in their order: from a host that is not ready for the site to one that serves it. Every run tells
it of Debian 12, the nightly one of Debian 13 too.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.hosts.workplace import Outcome, Workplace, wait_for

if TYPE_CHECKING:
    from tests.hosts.workplace import Daemon, Repository
    from tests.machines import Machine

ROOT = "/srv/it's checked"
HERE = shlex.quote(ROOT)
CERTIFICATE, KEY = "/etc/ssl/certs/it is.pem", "/etc/ssl/private/it is.key"
APACHE = "[Service]\nExecStart=/usr/bin/python3 -m http.server 80\n[Install]\nWantedBy=multi-user.target\n"
STRICT = """
SECURE_HSTS_SECONDS, SECURE_HSTS_INCLUDE_SUBDOMAINS, SECURE_HSTS_PRELOAD = 300, True, True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
"""


@dataclass
class Site:
    """The host, the operator's folder, and the project that is to serve there."""

    machine: Machine
    workplace: Workplace
    repository: Repository

    def fab(self, *words: str, login: str = "deploy") -> Outcome:
        """Run a task on the host."""
        return self.workplace.fab("-i", self.machine.key, "-H", f"{login}@{self.machine.address}", *words)

    def found(self, *words: str, code: int = 0, login: str = "deploy") -> dict[str, dict[str, str]]:
        """The warnings and errors of a check, by subject; there is one of each at most."""
        outcome = self.fab("check", "--json", *words, login=login).ended(code)
        assert outcome.error == ""
        (host,) = json.loads(outcome.output)["hosts"].values()
        bad = [each for each in host["findings"] if each["severity"] in ("warning", "error")]
        by_subject = {each["subject"]: each for each in bad}
        assert len(by_subject) == len(bad), bad
        return by_subject

    def do(self, cure: str) -> None:
        """Type what a cure says, line by line, as who it says."""
        for line in cure.splitlines():
            who, _, command = line.removeprefix("then: ").partition(": ")
            if line.removeprefix("then: ").startswith("fab -H "):
                _, _, target, *words = line.removeprefix("then: ").split()
                assert target == f"deploy@{self.machine.address}"
                self.fab(*words).ended()
            else:
                assert who.startswith("on the host"), line
                self.machine.run(command, user=who.partition(", as ")[2] or "root")

    def certify(self, days: int = 90, names: str = "") -> None:
        """A new certificate with its key, for the address and localhost unless other names are given."""
        names = names or f"IP:{self.machine.address},DNS:localhost"
        self.machine.run(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days {days} -subj /CN=it"
            f" -addext 'subjectAltName={names}' -keyout '{KEY}' -out '{CERTIFICATE}' 2>/dev/null && chmod 600 '{KEY}'"
        )


@pytest.fixture(scope="module", params=["bookworm", pytest.param("trixie", marks=pytest.mark.nightly)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A project behind nginx with https, of which the host has nothing yet."""
    machine: Machine = request.getfixturevalue(request.param)
    daemon: Daemon = request.getfixturevalue("daemon")
    workplace = Workplace(tmp_path_factory.mktemp("check") / "work")
    workplace.know(machine)
    repository = daemon.repository(f"checked-{request.param}")
    repository.sample(1)
    settings = (repository.tree / "blog/settings.py").read_text()
    repository.write("blog/settings.py", settings + STRICT)
    repository.commit("Settings that Django has nothing to say of")
    workplace.environ["KEY"] = "it's a secret that is long enough to be taken for one, and no other"
    (workplace.folder / "production.env").write_text('BLOG_SECRET_KEY="{{ env.KEY }}"\n')
    workplace.configure(
        project="checked",
        repository=repository.url,
        root=ROOT,
        user="deploy",
        manager="systemd",
        env_file="production.env",
        environment={"BLOG_ALLOWED_HOSTS": f"{machine.address},localhost"},
        shared=["data/"],
        gunicorn={"workers": "1"},
        nginx={
            "domains": [machine.address],
            "tls": "files",
            "hsts": 300,
            "certificate": CERTIFICATE,
            "certificate_key": KEY,
        },
    )
    machine.run("rm -f /etc/nginx/sites-enabled/default; systemctl stop nginx")
    machine.write("/etc/systemd/system/apache-like.service", APACHE)
    machine.run("systemctl enable --now apache-like")
    assert wait_for(lambda: machine.run("ss -ltn | grep -q ':80 '", check=False).returncode == 0, 10)
    found = Site(machine, workplace, repository)
    yield found
    found.fab("systemd.remove")
    machine.run(f"systemctl disable --now nginx apache-like; rm -rf {HERE} /etc/nginx/sites-*/checked.conf")


def test_before_the_first_deploy(site: Site) -> None:
    """What is in the way, all at once; nothing is made by looking."""
    found = site.found(code=1)
    assert {subject: each["severity"] for subject, each in found.items()} == {
        "ports": "error",
        "certificate": "error",
        "nginx-file": "warning",
    }
    assert found["ports"]["text"].startswith("python3 (process ")
    assert found["ports"]["text"].endswith(") listens on port 80, which is for nginx")
    assert found["ports"]["cure"] == "on the host, as root: systemctl disable --now apache-like.service"
    assert found["certificate"]["text"] == f"{CERTIFICATE}: No such file or directory"
    assert site.machine.run("ls /srv").stdout.count("checked") == 0

    site.do(found["ports"]["cure"])
    site.certify()
    found = site.found()
    assert list(found) == ["nginx-file"]
    site.do(found["nginx-file"]["cure"])
    assert site.found() == {}
    site.fab("deploy").ended()


@pytest.fixture(scope="module")
def serving(site: Site) -> Site:
    """The same site when it serves, also where the beginning of the story was not among the chosen tests."""
    if site.machine.run(f"test -e {HERE}/current", check=False).returncode:
        test_before_the_first_deploy(site)
    return site


def test_a_site_in_order(serving: Site) -> None:
    """Nothing is to be said, with one login and two sessions; root finds as much, and nothing is written."""
    look = (
        f"find {HERE} /etc/nginx /etc/systemd/system /etc/supervisor /var/log/nginx -printf '%p %T@ %s %m %u\\n'"
        " | grep -v -e access.log | sort"
    )
    before, cursor = serving.machine.run(look).stdout, serving.machine.cursor()
    assert serving.found("--strict") == {}
    assert serving.machine.sessions_since(cursor) == (1, 2)
    assert serving.found("--strict", login="root") == {}
    assert serving.machine.run(look).stdout == before
    text = serving.fab("check").ended().output
    assert text.splitlines()[-1] == "0 errors, 0 warnings: a deploy of main can begin"
    assert "\nok       tls-expiry: the certificate is good for 89 days\n" in text
    assert f"\nok       dns: {serving.machine.address} resolves to {serving.machine.address}\n" in text


BROKEN = {
    "an edited site of nginx": (
        "sed -i 's/server_tokens off/server_tokens on/' /etc/nginx/sites-available/checked.conf",
        ("warning", "nginx-file", "-    server_tokens on;\n+    server_tokens off;"),
    ),
    "nginx that does not run": (
        "systemctl stop nginx",
        ("error", "nginx-file", "nginx does not run, so nobody reaches the site"),
    ),
    "a folder that nginx may not enter": (
        f"chmod o= {HERE}",
        ("error", "nginx-access", f"nginx runs as www-data, which may not pass through {ROOT}"),
    ),
    "an edited unit": (
        "sed -i 's/^Restart=always/Restart=no/' /etc/systemd/system/checked-web@.service",
        ("warning", "programs", "-Restart=no\n+Restart=always"),
    ),
    "a unit that is gone": (
        "rm /etc/systemd/system/checked-web@.service",
        ("warning", "programs", "is not there: what it starts does not start again"),
    ),
    "a secret that everybody may read": (
        f"chmod 644 {HERE}/shared/.env",
        ("warning", "secrets", f"every account of the host may read {ROOT}/shared/.env"),
    ),
    "a folder of root's": (
        f"chown root {HERE}/releases",
        ("error", "shared", f"deploy may not write {ROOT}/releases, which belongs to root"),
    ),
    "a database of root's": (
        f"chown root {HERE}/shared/data/db.sqlite3",
        ("error", "database", "may not write "),
    ),
    "an edited file of the release": (
        f"echo '# mine' >> {HERE}/current/blog/urls.py",
        ("warning", "release", "were changed by hand:\nblog/urls.py"),
    ),
    "a key that everybody may read": (
        f"chmod 644 '{KEY}'",
        ("warning", "certificate", f"every account of the host may read the key {KEY}"),
    ),
    "an edited file of ours in the release": (
        f"echo '# mine' >> {HERE}/current/.fabdjango/gunicorn.conf.py",
        ("warning", "config", "gunicorn.conf.py was changed by hand\n"),
    ),
}


#: One of nginx, one of the manager, one of the site's folders, one of the release; the nightly run does all.
ALWAYS = (
    "an edited site of nginx",
    "a unit that is gone",
    "a folder of root's",
    "an edited file of ours in the release",
)


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.nightly) for name in BROKEN]
)
def test_what_is_broken_is_found_and_mended(serving: Site, name: str) -> None:
    """Exactly that, and after its cure nothing is to be said."""
    how, (severity, subject, text) = BROKEN[name]
    serving.machine.run(how)
    found = serving.found(code=1 if severity == "error" else 0)
    assert [(each["severity"], each["subject"]) for each in found.values()] == [(severity, subject)]
    assert text in found[subject]["text"]
    serving.do(found[subject]["cure"].partition("\nor ")[0])
    assert serving.found() == {}


@pytest.mark.parametrize(
    ("days", "names", "severity", "subject", "text"),
    [
        (1, "", "warning", "tls-expiry", "the certificate is good for less than a day"),
        (90, "DNS:*.example.com", "error", "tls-names", ", but for *.example.com"),
    ],
)
def test_a_certificate_that_will_not_do(
    serving: Site, days: int, names: str, severity: str, subject: str, text: str
) -> None:
    """Whoever gives certificates has to give another one."""
    serving.certify(days, names)
    try:
        found = serving.found(code=1 if severity == "error" else 0)
        assert [(each["severity"], each["subject"]) for each in found.values()] == [(severity, subject)]
        assert found[subject]["text"].endswith(text)
    finally:
        serving.certify()
    assert serving.found() == {}


def test_a_key_of_another_certificate(serving: Site) -> None:
    """nginx would not start with it, and says so too."""
    serving.machine.run(
        f"cp '{KEY}' /root/key; openssl ecparam -genkey -name prime256v1 -noout -out '{KEY}'; chmod 600 '{KEY}'"
    )
    try:
        found = serving.found(code=1)
        assert {subject: each["severity"] for subject, each in found.items()} == {
            "certificate": "error",
            "nginx-test": "error",
        }
        assert found["certificate"]["text"] == f"{KEY}: does not belong to the certificate"
        assert "key values mismatch" in found["nginx-test"]["text"]
    finally:
        serving.machine.run(f"mv /root/key '{KEY}'")


def test_a_domain_that_leads_elsewhere(serving: Site) -> None:
    """As the operator's machine is told; the record that it should have is the cure."""
    config = serving.workplace.config
    nginx = config["nginx"]
    assert isinstance(nginx, dict)
    serving.workplace.config = {**config, "nginx": {**nginx, "domains": [serving.machine.address, "localhost"]}}
    try:
        found = serving.found()
        assert {subject: each["severity"] for subject, each in found.items()} == {
            "dns": "warning",
            "nginx-file": "warning",
        }
        assert found["dns"]["text"].startswith("localhost resolves to ")
        assert found["dns"]["text"].endswith(f"which is not the host ({serving.machine.address})")
        assert found["dns"]["cure"].startswith(f"in the DNS of the domain: localhost. A {serving.machine.address}\n")
    finally:
        serving.workplace.config = config


def test_somebody_deploys(serving: Site) -> None:
    """He is named, and his lock stays his."""
    serving.machine.run(f"systemd-run -q -u holder --uid=deploy flock {HERE}/run/lock sleep 600")
    try:
        assert wait_for(lambda: serving.machine.run("grep -q FLOCK /proc/locks", check=False).returncode == 0, 10)
        found = serving.found(code=1)
        assert list(found) == ["lock"]
        assert found["lock"]["text"].startswith("another deployment is running: ")
    finally:
        serving.machine.run("systemctl stop holder")


def test_without_sudo(serving: Site) -> None:
    """What only root may see is left out and named; that systemd belongs to root stops a deploy."""
    serving.machine.run("mv /etc/sudoers.d/deploy /root/")
    try:
        outcome = serving.fab("check").ended(1)
        lines = outcome.output.splitlines()
        assert "note     sudo: deploy may not use sudo" in lines
        assert (
            "         | not looked at, as it takes root: what listens for other accounts, nginx, the key of the certificate"
            in lines
        )
        assert "error    manager: the host's systemd belongs to root, and sudo asks for a password" in lines
        assert lines[-1] == "1 error, 0 warnings: manager"
    finally:
        serving.machine.run("mv /root/deploy /etc/sudoers.d/")


def test_an_owner_that_there_is_not(serving: Site) -> None:
    """Nothing else can be looked at; the cure makes the account."""
    config = serving.workplace.config
    serving.workplace.config = {**config, "user": "checker", "project": "other", "root": "/srv/other"}
    try:
        found = serving.found(code=1, login="root")
        assert [(each["subject"], each["text"]) for each in found.values()] == [
            ("account", "there is no account checker, which is to own the site")
        ]
        serving.do(found["account"]["cure"])
        assert list(serving.found(login="root")) == ["nginx-file"]
    finally:
        serving.workplace.config = config
        serving.machine.run("userdel -r checker 2>/dev/null || :")
