"""Certificates: what the settings may say, whether one will do, and what makes or asks for it."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from fabdjango.commands import certificates
from fabdjango.commands.certificates import Certificate, Found
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.settings import Settings
from tests.conftest import sample_settings, shell, shown

SIGNED = {"tls": "self-signed"}
ASKED = {"tls": "letsencrypt"}
FILES = {"tls": "files", "certificate": "/etc/it's.pem", "certificate_key": "/etc/it's.key"}
GOOD = Certificate(
    names=("blog.example.com",),
    subject="CN=blog.example.com",
    issuer="CN=It's a CA",
    not_before="2026-11-26",
    not_after="2027-02-24",
    days=89.9,
    lifetime=90,
    fingerprint="0a" * 32,
)
RENEWAL = """\
# renew_before_expiry = 30 days
version = 2.1.0
cert = /etc/letsencrypt/live/blog/cert.pem
[renewalparams]
server = https://acme-v02.api.letsencrypt.org/directory
authenticator = webroot
webroot_path = /var/lib/fabdjango/acme/blog,
[[webroot_map]]
blog.example.com = /var/lib/fabdjango/acme/blog
"""
HOST = Found(
    openssl="/usr/bin/openssl",
    certbot="/usr/bin/certbot",
    file=GOOD,
    presented=GOOD,
    renewal=RENEWAL,
    timer="on",
)


def settings(values: dict[str, Any], **more: Any) -> Settings:
    """A site with a domain; ``values`` are those of fabdjango.nginx."""
    return sample_settings(nginx={"domains": ["blog.example.com"], **values}, **more)


def found(**more: Any) -> Found:
    """A host where all is well with the certificate, unless said otherwise."""
    return Found(**{**vars(HOST), **more})


def good(**more: Any) -> Certificate:
    """A certificate of the site, unless said otherwise."""
    return Certificate(**{**vars(GOOD), **more})


# --- what the settings say ---------------------------------------------------


@pytest.mark.parametrize(
    ("values", "certificate", "key", "packages"),
    [
        ({}, "", "", ()),
        (FILES, "/etc/it's.pem", "/etc/it's.key", ()),
        (SIGNED, "/etc/ssl/fabdjango/blog/certificate.pem", "/etc/ssl/fabdjango/blog/key.pem", ("openssl",)),
        (
            ASKED,
            "/etc/letsencrypt/live/blog/fullchain.pem",
            "/etc/letsencrypt/live/blog/privkey.pem",
            ("openssl", "certbot"),
        ),
    ],
)
def test_places(values: dict[str, Any], certificate: str, key: str, packages: tuple[str, ...]) -> None:
    """Each way has its own, and its own Debian packages."""
    site = settings(values)
    assert certificates.places(site) == (certificate, key)
    assert certificates.packages(site) == packages
    assert certificates.packages(settings({**values, "domains": []})) == ()
    assert certificates.webroot(site) == PurePosixPath("/var/lib/fabdjango/acme/blog")


def test_names_are_each_once_and_small() -> None:
    """As nginx, the certificate and the authority have them."""
    site = settings({"domains": ["*.Blog.example.com", "blog.example.com", "BLOG.example.com"]})
    assert certificates.names(site) == ("*.blog.example.com", "blog.example.com")
    assert certificates.asked_name(site) == "fabdjango.blog.example.com"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tls": "files", "certificate": "/etc/it's.pem"}, "fabdjango.nginx.tls is files, but no certificate is named"),
        (
            {**SIGNED, "certificate_key": "/etc/it's.key"},
            "fabdjango.nginx.tls is self-signed, which has a place of its own for the certificate, but another one is named",
        ),
        (
            {**ASKED, "domains": ["blog.example.com", "*.example.com"]},
            "Let's Encrypt gives no certificate for *.example.com over http",
        ),
    ],
)
def test_settings_that_are_refused(values: dict[str, Any], message: str) -> None:
    """Before a host is asked, with what to change."""
    with pytest.raises(ConfigError) as caught:
        certificates.check_settings(settings(values))
    assert caught.value.message == message
    assert "fabdjango.nginx." in caught.value.cure


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("email", "it's me"),
        ("email", "a@b,c@d"),
        ("email", "nobody"),
        ("acme_server", "http://example.com"),
        ("acme_server", "https://a b"),
    ],
)
def test_values_that_are_refused(key: str, value: str) -> None:
    """An address with a space would be two words to whoever reads certbot's files."""
    with pytest.raises(ConfigError, match=rf"fabdjango\.nginx\.{key}"):
        settings({**ASKED, key: value})


def test_what_is_not_ours_to_make() -> None:
    """The tasks of tls say what to do instead."""
    for values, cure in (({}, "tls: letsencrypt"), (FILES, "nginx.reload")):
        with pytest.raises(ConfigError, match="so there is no certificate to make or to ask for") as caught:
            certificates.need_made(settings(values))
        assert caught.value.cure.endswith(cure)
    certificates.need_made(settings(SIGNED))


def test_with_another_certificate() -> None:
    """What serves while nginx already answers the authority."""
    site = settings(ASKED)
    used = (PurePosixPath("/etc/it's.pem"), PurePosixPath("/etc/it's.key"))
    assert certificates.with_certificate(site, used) == settings(FILES)
    assert certificates.with_certificate(site, None) == settings({})


# --- whether it will do ------------------------------------------------------


def test_the_look_is_read() -> None:
    """What a login prints before it does not matter."""
    values = {**vars(HOST), "file": vars(GOOD), "presented": None, "silence": "it's closed"}
    assert certificates.read_look(f"hello\n{json.dumps(values)}\n") == found(presented=None, silence="it's closed")
    with pytest.raises(FabdjangoError, match="did not give an answer"):
        certificates.read_look("it's broken")


@pytest.mark.parametrize(
    ("values", "there", "why"),
    [
        (SIGNED, {}, ""),
        (ASKED, {}, ""),
        (SIGNED, {"file": None, "problem": "there is no certificate"}, "there is no certificate"),
        (SIGNED, {"problem": "its key can be read by others"}, "its key can be read by others"),
        (SIGNED, {"file": good(names=())}, "it is not for blog.example.com"),
        (SIGNED, {"file": good(names=("blog.example.com", "a", "b"))}, "it is for a, b too"),
        (SIGNED, {"file": good(names=("*.example.com",))}, "it is not for blog.example.com"),
        (SIGNED, {"file": good(days=29.9, lifetime=820)}, "it is good until 2027-02-24 only"),
        (SIGNED, {"file": good(days=30, lifetime=820)}, ""),
        (SIGNED, {"file": good(days=-1)}, "it was good until 2027-02-24"),
        (ASKED, {"file": good(days=0.4, lifetime=1)}, ""),
        (ASKED, {"file": good(days=0.3, lifetime=1)}, "it is good until 2027-02-24 only"),
        (ASKED, {"renewal": None}, "certbot does not know it"),
        (
            {**ASKED, "acme_server": "https://it's.example.com/"},
            {},
            "it is from https://acme-v02.api.letsencrypt.org/directory",
        ),
        (FILES, {"file": good(names=("*.example.com", "more"))}, ""),
        (FILES, {"file": good(names=("*.com", "more"))}, "it is not for blog.example.com"),
        (FILES, {"file": good(days=1)}, ""),
        (FILES, {"file": good(days=0)}, "it was good until 2027-02-24"),
        ({**FILES, "domains": ["*.example.com"]}, {"file": good(names=("*.example.com",))}, ""),
    ],
)
def test_whether_it_will_do(values: dict[str, Any], there: dict[str, Any], why: str) -> None:
    """Ours is for the very domains and good for a while; one of others covers them and is good now."""
    assert certificates.fault(settings(values), found(**there)) == why


@pytest.mark.parametrize(
    ("values", "there", "settled"),
    [
        ({}, {"file": None}, True),
        (SIGNED, {}, True),
        (SIGNED, {"presented": None}, False),
        (SIGNED, {"presented": good(fingerprint="it's another")}, False),
        (SIGNED, {"timer": "off"}, True),
        (ASKED, {"timer": "off"}, False),
        (ASKED, {"timer": "cron"}, True),
        (FILES, {"file": good(days=1)}, True),
        (FILES, {"presented": None}, False),
        (FILES, {"file": None, "presented": None}, True),
    ],
)
def test_whether_anything_is_to_be_done(values: dict[str, Any], there: dict[str, Any], *, settled: bool) -> None:
    """Also that the running nginx has it, and that it will be renewed."""
    assert certificates.is_settled(settings(values), found(**there)) is settled


@pytest.mark.parametrize(
    ("values", "there", "message", "cure"),
    [
        (SIGNED, {"openssl": ""}, "openssl is not installed on the host", "as root: apt-get install openssl"),
        (ASKED, {"certbot": ""}, "certbot is not installed on the host", "as root: apt-get install certbot"),
        (
            ASKED,
            {"renewal": "webroot_path = /var/www/it's,\n[[webroot_map]]\na = /var/lib/fabdjango/acme/blog2\n"},
            "certbot has a certificate called blog that fabdjango did not ask for, and it is left alone",
            "see: certbot certificates\nto use it, set fabdjango.nginx.tls to files, with /etc/letsencrypt/live/blog/fullchain.pem; or choose another fabdjango.project than blog",
        ),
    ],
)
def test_what_is_refused(values: dict[str, Any], there: dict[str, Any], message: str, cure: str) -> None:
    """What cannot be made here, and what is somebody else's."""
    with pytest.raises(FabdjangoError) as caught:
        certificates.refuse(settings(values), found(**there))
    assert (caught.value.message, caught.value.cure) == (message, cure)


def test_what_is_not_refused() -> None:
    """A site that needs neither program, and one that certbot does not know yet."""
    for values in ({}, FILES, SIGNED):
        certificates.refuse(settings(values), found(certbot="", openssl="" if values != SIGNED else "/bin/openssl"))
    certificates.refuse(settings(ASKED), found(renewal=None))
    certificates.refuse(settings(ASKED), HOST)


def test_what_status_says() -> None:
    """The certificate, what is wrong with it, who renews it, and whether nginx has it."""
    assert certificates.status_lines(settings({}), Found()) == [
        "fabdjango.nginx.tls is none: the site is served over http"
    ]
    assert certificates.status_lines(settings(ASKED), HOST) == [
        "letsencrypt: /etc/letsencrypt/live/blog/fullchain.pem",
        "  for blog.example.com",
        "  issued by CN=It's a CA, good from 2026-11-26 until 2027-02-24, 89 days left",
        "certbot.timer renews it",
        "the running nginx presents it",
    ]
    other = good(names=(), issuer="CN=blog.example.com", days=3, fingerprint="0b")
    assert certificates.status_lines(settings(SIGNED), found(file=good(days=3), presented=other)) == [
        "self-signed: /etc/ssl/fabdjango/blog/certificate.pem",
        "  for blog.example.com",
        "  issued by CN=It's a CA, good from 2026-11-26 until 2027-02-24, 3 days left",
        "a new one is needed: it is good until 2027-02-24 only: fab … tls.obtain",
        "the running nginx presents another one: fab … nginx.reload",
        "  for CN=blog.example.com",
        "  signed by itself, good from 2026-11-26 until 2027-02-24, 3 days left",
    ]
    assert certificates.status_lines(settings(FILES), Found(problem="it's gone", silence="Connection refused")) == [
        "files: /etc/it's.pem",
        "a new one is needed: it's gone",
        "nginx presents no certificate: Connection refused",
    ]


# --- steps -------------------------------------------------------------------


def test_one_that_is_made() -> None:
    """By a program that gets its names as data."""
    steps = certificates.steps(settings(SIGNED), found(problem="it's gone"))
    assert shown(*steps) == shell("""
        # tls-certificate (as root): make /etc/ssl/fabdjango/blog/certificate.pem: it's gone
        python3 -I -S - # Make a certificate that is signed by its own key; a key that is there and nobody else can read is kept.
    """)
    assert steps[0].parameters == {
        "certificate": "/etc/ssl/fabdjango/blog/certificate.pem",
        "key": "/etc/ssl/fabdjango/blog/key.pem",
        "names": ("blog.example.com",),
        "days": 820,
    }


TIMER = """\
# tls-timer (as root): certbot.timer renews the certificate
if ! [ -d /run/systemd/system ]; then
  unchanged '/etc/cron.d/certbot does'
fi
if systemctl is-enabled --quiet certbot.timer && systemctl is-active --quiet certbot.timer; then
  unchanged 'it does'
fi
systemctl enable --quiet --now certbot.timer
"""


def test_one_that_is_asked_for() -> None:
    """certbot is asked nothing that it would decide by other rules; a folder of root's, and a hook that reads first."""
    site = settings(
        {
            **ASKED,
            "email": "it's@example.com",
            "acme_server": "https://ca/it's",
            "domains": ["a.example.com", "b.example.com"],
        }
    )
    assert shown(*certificates.steps(site, found(file=None, problem="it's gone"))) == TIMER + shell("""
        # tls-webroot (as root): make /var/lib/fabdjango/acme/blog
        if [ -d /var/lib/fabdjango/acme/blog ]; then
          unchanged 'it is there'
        fi
        install -d -m 755 -- /var/lib/fabdjango/acme/blog
        # tls-certificate (as root): ask for a certificate for a.example.com, b.example.com: it's gone
        timeout -k 10 600 certbot certonly --non-interactive --agree-tos --no-eff-email '--server=https://ca/it'"'"'s' '--email=it'"'"'s@example.com' --cert-name=blog --key-type=ecdsa --force-renewal --renew-with-new-domains --webroot --webroot-path=/var/lib/fabdjango/acme/blog '--deploy-hook=nginx -t -q && { systemctl reload nginx.service 2>/dev/null || nginx -s reload; }' --domain=a.example.com --domain=b.example.com
    """)


def test_what_certbot_left_half_made() -> None:
    """It would take another name beside an empty file of its own; nothing is deleted."""
    there = found(renewal="\n")
    certificates.refuse(settings(ASKED), there)
    assert certificates.fault(settings(ASKED), there) == "certbot does not know it"
    assert shown(certificates.steps(settings(ASKED), there)[2]) == shell("""
        # tls-aside (as root): set aside what certbot has left half-made
        aside=$(mktemp -d -- /etc/letsencrypt/half-made.XXXXXX)
        if [ -e /etc/letsencrypt/renewal/blog.conf ]; then
          mv -T -- /etc/letsencrypt/renewal/blog.conf "$aside"/blog.conf
        fi
        if [ -e /etc/letsencrypt/live/blog ]; then
          mv -T -- /etc/letsencrypt/live/blog "$aside"/live
        fi
        if [ -e /etc/letsencrypt/archive/blog ]; then
          mv -T -- /etc/letsencrypt/archive/blog "$aside"/archive
        fi
        note "it is in $aside"
    """)


def test_without_an_address() -> None:
    """certbot must be told so."""
    *_, step = certificates.steps(settings(ASKED), found(file=None))
    assert " --register-unsafely-without-email " in step.body
    assert "--email" not in step.body


def test_one_that_will_do_is_kept() -> None:
    """Unless a new one is wanted; what others made is theirs to renew."""
    kept = shell("""
        # tls-certificate: certificate for blog.example.com
        unchanged 'good until 2027-02-24'
    """)
    assert shown(*certificates.steps(settings(SIGNED), HOST)) == kept
    assert shown(*certificates.steps(settings(ASKED), HOST)) == TIMER + kept
    for values in (SIGNED, ASKED):
        *_, step = certificates.steps(settings(values), HOST, force=True)
        assert step.title.endswith(": a new one is wanted")
    for values in ({}, FILES):
        assert certificates.steps(settings(values), found(file=None), force=True) == ()
