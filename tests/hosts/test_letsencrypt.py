"""Certificates from an ACME server: Debian's certbot against Pebble, which is Let's Encrypt's own server for tests."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests import machines
from tests.hosts.workplace import Outcome, Workplace, wait_for
from tests.machines import Machine

ROOT = "/srv/the blog"
DOMAIN = "blog.example.com"
# It leads to the operator's side of the bridge, where nothing listens on port 80.
ELSEWHERE = "elsewhere.example.com"
DIRECTORY = "https://localhost:14000/dir"
TRUST = "/etc/pebble/certificate.pem"
PEBBLE = {
    "pebble": {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": TRUST,
        "privateKey": "/etc/pebble/key.pem",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
}
START = f"""
set -eu
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout /etc/pebble/key.pem -out {TRUST} 2>/dev/null
systemd-run --quiet --unit=names pebble-challtestsrv -dns01=127.0.0.1:8053 -defaultIPv4=127.0.0.1 -defaultIPv6= \
    -http01= -https01= -tlsalpn01= -management=127.0.0.1:8055
systemd-run --quiet --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0 \
    pebble -config /etc/pebble/config.json -dnsserver 127.0.0.1:8053
# Debian's certbot trusts what the host trusts.
cp {TRUST} /usr/local/share/ca-certificates/pebble.crt && update-ca-certificates >/dev/null
rm -f /etc/nginx/sites-enabled/default
"""
ANSWERS = f"curl -sf {DIRECTORY} >/dev/null && curl -s 127.0.0.1:8055 >/dev/null"
INSTALL = "apt-get update -q && apt-get install -q -y --no-install-recommends certbot pebble openssl"


@dataclass
class Site:
    """One host with nginx, certbot and an ACME server, and the operator's folder."""

    machine: Machine
    workplace: Workplace

    def fab(self, *words: str) -> Outcome:
        """Run a task on the host as deploy, who may sudo."""
        return self.workplace.fab("-H", f"deploy@{self.machine.address}", "-i", self.machine.key, *words)

    def configure(self, *domains: str, project: str = "blog", **nginx: Any) -> None:
        """Say what fabric.yaml has; the certificate of an ACME server unless said otherwise."""
        nginx = {
            "domains": domains,
            "tls": "letsencrypt",
            "acme_server": DIRECTORY,
            "email": "ops@example.com",
            **nginx,
        }
        root = ROOT.replace("blog", project)
        self.workplace.configure(project=project, repository="/nowhere", root=root, nginx=nginx)

    def presented(self) -> str:
        """The fingerprint of the certificate that a client from outside gets for the site."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        pem = ssl.get_server_certificate((self.machine.address, 443))
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    def trusted(self, name: str = DOMAIN) -> str:
        """What nginx answers to a client who trusts the ACME server's root, and checks the name."""
        ask = f"curl -s --cacert /tmp/roots.pem --resolve {name}:443:127.0.0.1 https://{name}/.fabdjango/nginx"
        roots = "curl -sk https://127.0.0.1:15000/roots/0 > /tmp/roots.pem"
        return self.machine.run(f"{roots} && {ask}", check=False).stdout

    def state(self) -> str:
        """What is in the folders of nginx and certbot, and which master and workers run."""
        return self.machine.run(
            "ls -lAR --time-style=full-iso /etc/nginx/sites-* /etc/letsencrypt/live /etc/letsencrypt/renewal;"
            " cat /etc/nginx/sites-available/*; pgrep nginx"
        ).stdout

    def files(self) -> str:
        """The site's files of nginx, without their times."""
        return self.machine.run("cd /etc/nginx && ls sites-* && cat sites-available/*").stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A Debian 12 host with nginx, certbot and Pebble, whose names all lead to the host itself but one."""
    workplace = Workplace(tmp_path_factory.mktemp("acme") / "work")
    booted = machines.up(1, "bookworm", "prepared", "acme")
    try:
        machine = booted[0]
        workplace.know(machine)
        machine.run(INSTALL, timeout=280)
        machine.write("/etc/pebble/config.json", json.dumps(PEBBLE))
        machine.run(START)
        assert wait_for(lambda: machine.run(ANSWERS, check=False).returncode == 0, 20)
        told = json.dumps({"host": ELSEWHERE, "addresses": [machines.GATEWAY]})
        machine.run(f"curl -sf --data '{told}' 127.0.0.1:8055/add-a")
        yield Site(machine, workplace)
    finally:
        machines.down(booted)


def test_a_domain_that_leads_elsewhere(site: Site) -> None:
    """The authority's reason is told, and nothing is left of a site that there was not before."""
    site.configure(DOMAIN, ELSEWHERE)
    before = site.files()
    outcome = site.fab("tls.obtain").ended(3)
    assert ELSEWHERE in outcome.quoted
    assert "connection refused" in outcome.quoted
    assert "nginx runs with the site's file as it was before (exit 3)" in outcome.complaint
    assert "does every domain lead to this host" in outcome.complaint
    assert site.files() == before


# What certbot has when it is killed before it is through with a new certificate.
HALF_MADE = """
cd /etc/letsencrypt && mkdir -p live/blog archive/blog renewal && : > renewal/blog.conf
ln -s ../../archive/blog/fullchain1.pem live/blog/fullchain.pem
"""


def test_from_nothing_to_https(site: Site) -> None:
    """By one command: http for the authority, the certificate, https; a second one changes nothing."""
    site.configure(DOMAIN)
    site.machine.run(HALF_MADE)
    assert "configured: nginx serves blog.example.com" in site.fab("nginx.configure").ended().output
    assert re.fullmatch(r"[0-9a-f]{64}\n", site.trusted())
    told = site.fab("tls.status").ended().output
    assert (
        "letsencrypt: /etc/letsencrypt/live/blog/fullchain.pem\n  for blog.example.com\n  issued by CN=Pebble" in told
    )
    assert "certbot.timer renews it\nthe running nginx presents it" in told
    before = site.state()
    for task in ("nginx.configure", "tls.obtain", "tls.renew"):
        assert site.fab(task).ended().last_line.startswith("unchanged: nginx serves blog.example.com")
    assert site.state() == before
    owners = site.machine.run("cd /var/lib/fabdjango/acme && find . -printf '%M %u %P\\n' | sort").stdout
    assert owners == "drwxr-xr-x root \ndrwxr-xr-x root blog\n"


def test_what_the_timer_runs_is_presented_at_once(site: Site) -> None:
    """certbot reloads nginx by the hook that it was given; not if nginx would not take its files."""
    before = site.presented()
    site.machine.run("systemctl start certbot.service")
    assert site.presented() == before
    renew = "certbot renew --no-random-sleep-on-renew --force-renewal 2>&1"
    site.machine.run(renew)
    assert wait_for(lambda: site.presented() != before, 10)
    second = site.presented()
    site.machine.write("/etc/nginx/conf.d/broken.conf", "it is broken\n")
    reloads = "journalctl -q --sync; journalctl -q -u nginx | grep -c Reloaded"
    counted = site.machine.run(reloads).stdout
    try:
        assert "Hook 'deploy-hook' reported error code 1" in site.machine.run(renew).stdout
        assert (site.machine.run(reloads).stdout, site.presented()) == (counted, second)
    finally:
        site.machine.run("rm /etc/nginx/conf.d/broken.conf")
    # What was renewed without a reload is presented by the next run.
    site.fab("tls.obtain").ended()
    third = site.presented()
    assert third != second
    site.fab("tls.renew", "--force").ended()
    assert site.presented() != third


def test_a_new_domain(site: Site) -> None:
    """One that leads elsewhere leaves the site as it was, with its certificate; one that leads here is in the next one."""
    before, files = site.presented(), site.files()
    site.configure(DOMAIN, ELSEWHERE)
    outcome = site.fab("nginx.configure").ended(3)
    assert ELSEWHERE in outcome.quoted
    assert (site.presented(), site.files()) == (before, files)
    site.configure(DOMAIN, f"www.{DOMAIN}")
    site.fab("nginx.configure").ended()
    assert site.trusted(f"www.{DOMAIN}") == site.trusted()
    assert site.trusted()


def test_from_self_signed_to_an_authority(site: Site) -> None:
    """Another site; https all the while."""
    name = "shop.example.com"
    site.configure(name, project="shop", tls="self-signed")
    site.fab("nginx.configure").ended()
    assert site.trusted(name) == ""
    site.configure(name, project="shop")
    outcome = site.fab("--dry", "tls.obtain").ended()
    assert "certbot certonly --non-interactive" in outcome.output
    assert site.trusted(name) == ""
    site.fab("tls.obtain").ended()
    assert site.trusted(name)
    assert site.trusted(name) != site.trusted()
