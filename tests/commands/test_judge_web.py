"""What is said of a site as the world sees it, line by line."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from fabdjango.commands import judge_web, nginx
from fabdjango.commands.check import Look
from tests.commands.told import case, told
from tests.conftest import RELEASE, SHA, sample_templates, shell

DOMAINS = {"domains": ["blog.example.com", "*.blog.example.com"]}
TLS = {**DOMAINS, "tls": "files", "certificate": "/etc/it's.pem", "certificate_key": "/etc/it's.key"}
CURRENT: dict[str, Any] = {"current": RELEASE, "releases": {RELEASE: {"commit": SHA}}}
NOW = 1_800_000_000.0
DAY = 86_400.0


# --- the DNS -------------------------------------------------------------------


def dns(*own: str, **resolved: tuple[str, ...]) -> str:
    """What is said of the names it.example.com and so on."""
    names = {f"{name}.example.com": addresses for name, addresses in resolved.items()}
    return told(judge_web.dns(names, own, ("2001:db8::1", "192.0.2.7")))


def test_names_that_lead_to_the_host() -> None:
    """Or to any host of the site, in either version of IP."""
    assert dns("192.0.2.7", "192.0.2.8", "2001:db8::1", www=("192.0.2.8", "192.0.2.7"), it=("2001:db8::1",)) == shell("""
        ok       dns: www.example.com resolves to 192.0.2.7, 192.0.2.8
        ok       dns: it.example.com resolves to 2001:db8::1
    """)


def test_names_that_lead_elsewhere() -> None:
    """One old address of several is enough; the cure is the record."""
    assert dns("8.8.4.4", www=("8.8.4.4", "1.1.1.1"), it=()) == shell("""
        warning  dns: www.example.com resolves to 1.1.1.1, which is not the host (8.8.4.4)
                 do this: in the DNS of the domain: www.example.com. A 192.0.2.7
                          if a proxy or a load balancer stands in front, all is well
        warning  dns: it.example.com does not resolve
                 do this: in the DNS of the domain: it.example.com. A 192.0.2.7
    """)


def test_a_host_behind_a_translation_of_addresses() -> None:
    """A private address cannot be compared with a public one."""
    assert dns("10.0.0.7", www=("1.1.1.1",)).splitlines()[0] == (
        "note     dns: www.example.com resolves to 1.1.1.1; the host has a private address only"
    )
    assert dns("10.0.0.7", www=("127.0.0.1",)).startswith("warning  dns: ")


# --- certificates --------------------------------------------------------------


def certificate(settings: dict[str, Any] = TLS, **found: Any) -> str:
    """What is said of a certificate that is good for 90 days, unless it is another."""
    good = {
        "names": ["blog.example.com", "*.Blog.example.com"],
        "begins": NOW - DAY,
        "ends": NOW + 90 * DAY,
        "mode": 0o640,
    }
    return told(judge_web.certificate(case(Look(certificate={**good, **found}), {"nginx": settings}), NOW))


def test_a_certificate_in_order() -> None:
    """Its key, its names, its days."""
    assert certificate() == shell("""
        ok       certificate: /etc/it's.pem belongs to its key
        ok       tls-names: the certificate is for all domains
        ok       tls-expiry: the certificate is good for 90 days
    """)


@pytest.mark.parametrize(
    ("days", "lines"),
    [
        (21, "ok       tls-expiry: the certificate is good for 21 days"),
        (20.9, "warning  tls-expiry: the certificate is good for 20 days"),
        (0.5, "warning  tls-expiry: the certificate is good for less than a day"),
        (0, "error    tls-expiry: the certificate is over"),
        (-3, "error    tls-expiry: the certificate is over since 3 days"),
    ],
)
def test_when_a_certificate_ends(days: float, lines: str) -> None:
    """By the operator's clock."""
    found = certificate(ends=NOW + days * DAY).splitlines()
    assert found[2] == lines
    if not lines.startswith("ok"):
        there = (
            "put certificate and key of blog.example.com *.blog.example.com there, then: fab -H ada@web1 nginx.reload"
        )
        assert found[3:] == [f"         do this: {there}"]


@pytest.mark.parametrize("tls", ["self-signed", "letsencrypt"])
def test_a_certificate_that_is_ours_to_get(tls: str) -> None:
    """A task does it."""
    ours = {"domains": ["blog.example.com"], "tls": tls}
    assert certificate(ours, ends=NOW).endswith("do this: fab -H ada@web1 tls.renew")
    assert "do this: fab -H ada@web1 tls.obtain\n" in certificate(ours, names=["it.example.com"])


def test_a_certificate_that_is_not_valid_yet() -> None:
    """As with a clock that was wrong when it was made."""
    assert "error    tls-expiry: the certificate is not valid yet" in certificate(begins=NOW + 1)


def test_a_certificate_for_other_names() -> None:
    """A wildcard covers one label, and not the domain itself."""
    assert certificate(names=["*.example.com", "it.example.com"]).splitlines()[1:3] == [
        "error    tls-names: the certificate is not for *.blog.example.com, but for *.example.com, it.example.com",
        "         do this: put certificate and key of blog.example.com *.blog.example.com there, then: fab -H ada@web1 nginx.reload",
    ]
    assert "is not for blog.example.com, *.blog.example.com, but for no name" in certificate(names=[])


def test_a_key_that_everybody_may_read() -> None:
    """On the host."""
    assert certificate(mode=0o644).splitlines()[1:3] == [
        "warning  certificate: every account of the host may read the key /etc/it's.key",
        """         do this: on the host, as root: chmod o= '/etc/it'"'"'s.key'""",
    ]


def test_a_certificate_that_cannot_be_used() -> None:
    """It is not there, or has another's key; without root it may only be out of sight."""

    def only(**found: Any) -> str:
        return told(judge_web.certificate(case(Look(certificate=found), {"nginx": TLS}), NOW))

    assert only(error="No such file or directory", path="/etc/it's.pem", hidden=False) == shell("""
        error    certificate: /etc/it's.pem: No such file or directory
                 do this: put certificate and key of blog.example.com *.blog.example.com there, then: fab -H ada@web1 nginx.reload
    """)
    assert only(error="Permission denied", path="/etc/it's.key", hidden=True) == (
        "note     certificate: /etc/it's.key could not be looked at: it takes root"
    )
    assert only() == ""
    wrong = certificate(error="does not belong to the certificate", path="/etc/it's.key").splitlines()
    assert wrong[0] == "error    certificate: /etc/it's.key: does not belong to the certificate"
    assert wrong[2:] == [
        "ok       tls-names: the certificate is for all domains",
        "ok       tls-expiry: the certificate is good for 90 days",
    ]


# --- nginx -----------------------------------------------------------------------


GIVEN = case(None, {"nginx": DOMAINS}, **CURRENT)
FOUND = nginx.Webserver(
    root=str(GIVEN.layout.root),
    program="/usr/sbin/nginx",
    version="1.22.1",
    user="www-data",
    folder="/etc/nginx/sites-enabled",
    file_path="/etc/nginx/sites-available/blog.conf",
    link_path="/etc/nginx/sites-enabled/blog.conf",
    link="ours",
    active=True,
)
TEXT = nginx.site_file(GIVEN.settings, GIVEN.layout, sample_templates(), FOUND).content
INSTALLED = replace(FOUND, text=TEXT)


def webserver(found: nginx.Webserver, running: str = nginx.digest_in(TEXT)) -> str:
    """What is said of nginx."""
    return told(judge_web.webserver(GIVEN, found, running, sample_templates()))


def test_nginx_in_order() -> None:
    """The server, its files, and the site's own."""
    assert webserver(INSTALLED) == shell("""
        ok       nginx: nginx 1.22.1 runs, its workers as www-data
        ok       nginx-test: nginx -t is content
        ok       nginx-file: /etc/nginx/sites-available/blog.conf is what fabric.yaml says, and served
    """)


def test_nginx_that_complains() -> None:
    """In its own words; and folders that its workers cannot pass through."""
    assert webserver(
        replace(INSTALLED, test="nginx: [emerg] it's in /etc/nginx/x:1", blocked=("/home/it's",))
    ) == shell("""
        ok       nginx: nginx 1.22.1 runs, its workers as www-data
        error    nginx-test: nginx -t complains:
                 | nginx: [emerg] it's in /etc/nginx/x:1
                 do this: mend the file that it names, then: fab -H ada@web1 nginx.check
        error    nginx-access: nginx runs as www-data, which may not pass through /home/it's
                 do this: on the host: chmod o+x '/home/it'"'"'s'
                          or choose a fabdjango.root elsewhere, such as /srv/{project}
        ok       nginx-file: /etc/nginx/sites-available/blog.conf is what fabric.yaml says, and served
    """)


@pytest.mark.parametrize(
    ("changes", "running", "lines"),
    [
        (
            {"text": None, "link": ""},
            "",
            """
            warning  nginx-file: nginx has no file of the site yet
                     do this: fab -H ada@web1 nginx.configure
            """,
        ),
        (
            {"text": TEXT.replace("server_tokens off;", "server_tokens on; # it's mine")},
            nginx.digest_in(TEXT),
            """
            warning  nginx-file: /etc/nginx/sites-available/blog.conf is not what fabric.yaml says: changed by hand, or the settings have
                     | --- on the host
                     | +++ fabric.yaml
                     | @@ … @@
                     |      server_name blog.example.com *.blog.example.com;
                     | -    server_tokens on; # it's mine
                     | +    server_tokens off;
                     |      access_log "/var/log/nginx/blog.access.log";
                     do this: fab -H ada@web1 nginx.configure
            """,
        ),
        (
            {"link": ""},
            "",
            """
            warning  nginx-file: /etc/nginx/sites-available/blog.conf is not enabled
                     do this: fab -H ada@web1 nginx.enable
            """,
        ),
        (
            {},
            "it's another",
            """
            warning  nginx-file: the running nginx does not serve the site's file
                     do this: fab -H ada@web1 nginx.reload
            """,
        ),
        (
            {"active": False},
            "",
            """
            error    nginx-file: nginx does not run, so nobody reaches the site
                     do this: on the host, as root: systemctl enable --now nginx
            """,
        ),
        (
            {"maintenance": True},
            nginx.digest_in(TEXT),
            """
            note     nginx-file: maintenance is on: visitors get 503
                     do this: fab -H ada@web1 maintenance.off
            """,
        ),
    ],
    ids=["none", "edited", "not enabled", "another runs", "stopped", "maintenance"],
)
def test_the_sites_file(changes: dict[str, Any], running: str, lines: str) -> None:
    """What mends it is the task for it."""
    found = re.sub("@@ .+ @@", "@@ … @@", webserver(replace(INSTALLED, **changes), running))
    assert "\n".join(found.splitlines()[2:]) == shell(lines)


def test_an_nginx_that_is_not_ours() -> None:
    """Not there, or with a file of somebody else's by our name."""
    assert webserver(nginx.Webserver()) == shell("""
        error    nginx: nginx is not installed on the host
                 do this: as root: apt-get install nginx
    """)
    assert webserver(replace(FOUND, text="# it's mine\n")).splitlines()[0] == (
        "error    nginx: /etc/nginx/sites-available/blog.conf was not written by fabdjango, and is left alone"
    )
