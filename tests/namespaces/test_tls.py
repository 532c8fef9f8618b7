"""What the tasks of tls run, and nginx.configure with a certificate, after a look at the host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from fabdjango.commands import nginx as build
from fabdjango.exceptions import ConfigError, FabdjangoError, RevertedError, StepFailedError
from fabdjango.layout import layout_of
from fabdjango.namespaces import nginx, tls
from fabdjango.recording import RecordingTransport, call, runner
from tests.conftest import sample_settings, sample_templates
from tests.namespaces.test_nginx import LOOK
from tests.namespaces.text import SITE

CERTIFICATE = {
    "names": ["blog.example.com"],
    "subject": "CN=blog.example.com",
    "issuer": "CN=It's a CA",
    "not_before": "2026-11-26",
    "not_after": "2027-02-24",
    "days": 89.5,
    "lifetime": 90,
    "fingerprint": "0a" * 32,
}
NONE: dict[str, Any] = {
    "openssl": "/usr/bin/openssl",
    "certbot": "/usr/bin/certbot",
    "file": None,
    "problem": "there is no certificate",
    "presented": None,
    "silence": "Connection refused",
    "renewal": None,
    "timer": "on",
}
RENEWAL = "server = https://acme-v02.api.letsencrypt.org/directory\nwebroot_path = /var/lib/fabdjango/acme/blog,\n"
THERE = {**NONE, "file": CERTIFICATE, "problem": "", "presented": CERTIFICATE, "silence": "", "renewal": RENEWAL}


def values(kind: str, **more: Any) -> dict[str, Any]:
    """What fabric.yaml has for a site with TLS of this kind."""
    return {**SITE, "nginx": {"domains": ["blog.example.com"], "tls": kind, **more}}


def text_of(kind: str, **more: Any) -> str:
    """The file of nginx for it."""
    settings = sample_settings(values(kind, **more))
    return build.site_file(settings, layout_of(settings), sample_templates(), build.Webserver(**LOOK)).content


def host(certificate: Mapping[str, Any], text: str | None = None, **more: str | int) -> RecordingTransport:
    """A host with this certificate, whose nginx runs with this file."""
    look = LOOK if text is None else {**LOOK, "text": text, "link": "ours"}
    running = build.digest_in(text) if text else ""
    told = {"status": 200 if running else 404, "body": running}
    answers = {"nginx-look": json.dumps(look), "nginx-ask": json.dumps(told), "tls-look": json.dumps(certificate)}
    return RecordingTransport({**answers, **more})


def steps(transport: RecordingTransport) -> list[str]:
    """The titles of all that ran after the look, without the shell."""
    lines = transport.transcript.splitlines()
    return [line.removeprefix("-- ") for line in lines if line.startswith("-- ")][3:]


WRITE = "nginx-write as root: write /etc/nginx/sites-available/blog.conf"
TO_THE_PROOF = [
    WRITE,
    "nginx-check as root: nginx -t",
    "nginx-reload as root: reload nginx",
    "nginx-proof as root: the running nginx has this file",
]
MADE = "tls-certificate as root: make /etc/ssl/fabdjango/blog/certificate.pem: "
ASKED = [
    "tls-timer as root: certbot.timer renews the certificate",
    "tls-webroot as root: make /var/lib/fabdjango/acme/blog",
    "tls-certificate as root: ask for a certificate for blog.example.com: ",
]


def asked(why: str) -> list[str]:
    """What asks for a certificate."""
    return [*ASKED[:2], ASKED[2] + why]


@pytest.mark.parametrize("task", [nginx.configure, tls.obtain, tls.renew], ids=lambda task: task.name)
def test_one_that_is_made_comes_first(task: Any) -> None:
    """nginx would not take a file whose certificate is not there."""
    transport = host(NONE)
    call(task, runner(transport, values("self-signed")))
    assert transport.transcript.startswith(
        "== nginx\n"
        "-- nginx-look as root: look at nginx\n"
        "python3 -I -S - # Look at nginx and the site's file for it; print what was found as one line of JSON. Writes nothing.\n"
        "-- nginx-ask: ask the running nginx\n"
        "python3 -I -S - # Ask nginx over loopback until its answer is the wanted one, or the time is over.\n"
        "-- tls-look as root: look at the certificate\n"
        "python3 -I -S - # Look at the site's certificate and at the one that nginx presents; print both as one line of JSON. Writes nothing.\n"
        "== nginx-write (locked)\n"
    )
    assert steps(transport) == [MADE + "there is no certificate", *TO_THE_PROOF]


@pytest.mark.parametrize("kind", ["self-signed", "letsencrypt", "files"])
def test_what_is_there_and_presented_is_left_alone(kind: str) -> None:
    """No step runs after the look, and nothing is reloaded."""
    more = {"certificate": "/etc/it's.pem", "certificate_key": "/etc/it's.key"} if kind == "files" else {}
    for task in (nginx.configure, tls.obtain, tls.renew):
        if kind == "files" and task is not nginx.configure:
            continue
        transport = host(THERE, text_of(kind, **more))
        call(task, runner(transport, values(kind, **more)))
        assert steps(transport) == []


@pytest.mark.parametrize("kind", ["self-signed", "letsencrypt", "files"])
def test_nginx_must_present_what_is_there(kind: str) -> None:
    """A certificate that was renewed without a reload is not served yet."""
    more = {"certificate": "/etc/it's.pem", "certificate_key": "/etc/it's.key"} if kind == "files" else {}
    old = {**CERTIFICATE, "fingerprint": "0b" * 32}
    transport = host({**THERE, "presented": old}, text_of(kind, **more))
    call(nginx.configure, runner(transport, values(kind, **more)))
    kept = "tls-certificate: certificate for blog.example.com"
    before = {"self-signed": [kept], "letsencrypt": [ASKED[0], kept], "files": []}[kind]
    assert steps(transport) == [*before, *TO_THE_PROOF]


def test_the_first_time_nginx_answers_over_http() -> None:
    """So that the authority gets its answer; then certbot; then TLS."""
    transport = host(NONE)
    call(tls.obtain, runner(transport, values("letsencrypt")))
    assert steps(transport) == [*TO_THE_PROOF, *asked("there is no certificate"), *TO_THE_PROOF]
    sizes = [len(text_of(kind).encode()) for kind in ("none", "letsencrypt")]
    assert [line for line in transport.transcript.splitlines() if line.endswith(" bytes)")] == [
        f"({size} bytes)" for size in sizes
    ]


def test_a_site_that_answers_already_is_not_touched_before() -> None:
    """Over https too, with the certificate that it had: visitors do not notice."""
    for running in (text_of("letsencrypt"), text_of("self-signed")):
        transport = host({**THERE, "problem": "its key is that of another certificate"}, running)
        call(tls.obtain, runner(transport, values("letsencrypt")))
        assert steps(transport) == [*asked("its key is that of another certificate"), *TO_THE_PROOF]


def test_a_new_domain_is_answered_for_with_the_old_certificate() -> None:
    """The file of nginx gets the name first, then the authority is asked."""
    both = ["blog.example.com", "www.blog.example.com"]
    transport = host(THERE, text_of("letsencrypt"))
    call(tls.obtain, runner(transport, values("letsencrypt", domains=both)))
    assert steps(transport) == [
        *TO_THE_PROOF,
        *ASKED[:2],
        "tls-certificate as root: ask for a certificate for blog.example.com, www.blog.example.com: it is not for www.blog.example.com",
        *TO_THE_PROOF,
    ]
    sizes = [line for line in transport.transcript.splitlines() if line.endswith(" bytes)")]
    assert sizes == [f"({len(text_of('letsencrypt', domains=both).encode())} bytes)"] * 2


def test_a_refusal_of_the_authority_leaves_the_site_as_it_was() -> None:
    """File and link are put back if they were changed; if not, nothing was touched."""
    transport = host(NONE, None, **{"tls-certificate": 1})
    with pytest.raises(RevertedError) as reverted:
        call(tls.obtain, runner(transport, values("letsencrypt")))
    assert reverted.value.state == "nginx runs with the site's file as it was before"
    assert "port 80" in reverted.value.cure
    assert transport.transcript.endswith("-- undo: no file of the site, as before\n-- undo: nginx runs as before\n")
    transport = host({**THERE, "problem": "it's gone"}, text_of("letsencrypt"), **{"tls-certificate": 1})
    with pytest.raises(StepFailedError) as failed:
        call(tls.obtain, runner(transport, values("letsencrypt")))
    assert (failed.value.exit_code, failed.value.state) == (1, "nothing that serves was touched")
    assert "undo" not in transport.transcript


@pytest.mark.parametrize("kind", ["self-signed", "letsencrypt"])
def test_a_renewal_that_is_forced(kind: str) -> None:
    """A new one, although the old one will do."""
    transport = host(THERE, text_of(kind))
    call(tls.renew, runner(transport, values(kind)), force=True)
    why = "a new one is wanted"
    assert steps(transport) == [*([MADE + why] if kind == "self-signed" else asked(why)), *TO_THE_PROOF]


def test_a_renewal_by_nobody_is_mended() -> None:
    """The timer is switched on; the certificate stays."""
    transport = host({**THERE, "timer": "off"}, text_of("letsencrypt"))
    call(tls.obtain, runner(transport, values("letsencrypt")))
    assert steps(transport)[:2] == [ASKED[0], "tls-certificate: certificate for blog.example.com"]


@pytest.mark.parametrize("task", [tls.obtain, tls.renew], ids=lambda task: task.name)
@pytest.mark.parametrize("kind", ["none", "files"])
def test_without_a_certificate_of_ours_no_host_is_asked(task: Any, kind: str) -> None:
    """There is nothing to make or to ask for."""
    more = {"certificate": "/etc/it's.pem", "certificate_key": "/etc/it's.key"} if kind == "files" else {}
    transport = host(NONE)
    with pytest.raises(ConfigError, match=f"nginx.tls is {kind}"):
        call(task, runner(transport, values(kind, **more)))
    assert transport.transcript == ""


def test_what_is_missing_is_said_before_anything_is_written() -> None:
    """certbot, for one."""
    transport = host({**NONE, "certbot": ""})
    with pytest.raises(FabdjangoError, match="certbot is not installed on the host"):
        call(nginx.configure, runner(transport, values("letsencrypt")))
    assert steps(transport) == []


def test_status_only_reads() -> None:
    """No lock, and nothing written; without TLS, no certificate is looked at."""
    transport = host(THERE, text_of("letsencrypt"))
    call(tls.status, runner(transport, values("letsencrypt")))
    assert (steps(transport), "locked" in transport.transcript) == ([], False)
    transport = host(THERE, text_of("none"))
    call(tls.status, runner(transport, values("none")))
    assert "tls-look" not in transport.transcript
