"""The programs for certificates on this machine: real openssl, and a real nginx that presents what was made."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fabdjango.body import render_body
from fabdjango.commands import certificates, nginx
from fabdjango.commands.certificates import Found
from fabdjango.escape import sh
from fabdjango.plan import Step
from fabdjango.settings import Settings
from tests.conftest import LAYOUT, sample_settings, sample_templates

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed here")
NAMES = ("blog.example.com", "*.blog.example.com", "192.0.2.7")


def settings(*names: str) -> Settings:
    """A site with a certificate that is made on the host."""
    return sample_settings(nginx={"domains": list(names or NAMES), "tls": "self-signed"})


def run(step: Step, **parameters: Any) -> subprocess.CompletedProcess[str]:
    """Run a step's program as it is sent, with other paths and ports."""
    step = replace(step, parameters={**step.parameters, **parameters})
    return subprocess.run(["sh"], input=render_body(step, "R"), capture_output=True, text=True, check=False)


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """Where certificate and key are to be."""
    folder = tmp_path / "it's here/blog"
    return {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}


def make(place: dict[str, str], *names: str, **more: Any) -> None:
    """Make a certificate for ``names``."""
    (step,) = certificates.steps(settings(*names), Found())
    done = run(step, **place, **more)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def look(place: dict[str, str], port: int = 1, **more: Any) -> Found:
    """What is there, and what is presented on a port of this machine."""
    done = run(certificates.look(settings()), **place, port=port, **more)
    assert (done.returncode, done.stderr) == (0, "")
    return certificates.read_look(done.stdout)


def openssl(*words: str) -> str:
    """What openssl says."""
    return subprocess.run(["openssl", *words], capture_output=True, text=True, check=True).stdout


def test_what_is_made(place: dict[str, str]) -> None:
    """P-256, for every name, 825 days at most; the key for root alone, and nothing beside the two files."""
    make(place)
    found = look(place)
    file = found.file
    assert file is not None
    assert (found.problem, file.names, file.subject, file.issuer) == (
        "",
        NAMES,
        "CN=blog.example.com",
        "CN=blog.example.com",
    )
    assert 819 < file.days <= file.lifetime == certificates.DAYS <= 825
    assert certificates.fault(settings(), found) == ""
    key, folder = Path(place["key"]), Path(place["key"]).parent
    assert sorted(each.name for each in folder.iterdir()) == ["certificate.pem", "key.pem"]
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (key, Path(place["certificate"]), folder)]
    assert modes == [0o600, 0o644, 0o755]
    assert "ASN1 OID: prime256v1" in openssl("pkey", "-noout", "-text", "-in", place["key"])
    text = openssl("x509", "-noout", "-text", "-in", place["certificate"])
    assert "Version: 3" in text
    assert "CA:FALSE" in text
    assert "TLS Web Server Authentication" in text


def test_a_client_can_trust_it(place: dict[str, str]) -> None:
    """One that was given the certificate, for its names and no others."""
    make(place)
    for name, code in (("blog.example.com", 0), ("www.blog.example.com", 0), ("other.example.com", 2)):
        words = ("verify", "-CAfile", place["certificate"], "-verify_hostname", name, place["certificate"])
        assert subprocess.run(["openssl", *words], capture_output=True, check=False).returncode == code


def test_a_renewed_one_has_the_same_key(place: dict[str, str]) -> None:
    """So that certificate and key fit each other at every moment."""
    make(place)
    before, key = look(place).file, Path(place["key"]).read_text()
    make(place, "shop.example.com")
    after = look(place).file
    assert before
    assert after
    assert (after.names, Path(place["key"]).read_text()) == (("shop.example.com",), key)
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        ("rm key.pem", "its key cannot be read: No such file or directory"),
        ("chmod 640 key.pem", "its key can be read by others"),
        ("echo it is broken > key.pem", "its key cannot be read"),
        (
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem 2>/dev/null",
            "its key is that of another certificate",
        ),
        ("rm certificate.pem", "there is no certificate"),
        ("echo it is broken > certificate.pem", "the certificate cannot be read"),
        (
            "rm certificate.pem && mkdir certificate.pem && touch certificate.pem/x",
            "the certificate cannot be read: Is a directory",
        ),
    ],
)
def test_what_is_broken_is_said(place: dict[str, str], spoil: str, problem: str) -> None:
    """And made anew, whatever a killed run has left; a folder in its place stays, and is told."""
    make(place)
    folder = Path(place["key"]).parent
    subprocess.run(["sh", "-c", f"umask 077; {spoil}"], cwd=folder, check=True)
    (folder / "key.pem.new").write_text("half of")
    (folder / "certificate.pem.new").write_text("half of")
    assert look(place).problem == problem
    if "mkdir" in spoil:
        (step,) = certificates.steps(settings(), Found())
        assert run(step, **place).returncode != 0
        return
    make(place)
    assert look(place).problem == ""
    assert len(list(folder.iterdir())) == 2


def test_one_that_ends_soon(place: dict[str, str]) -> None:
    """Within 30 days, or in the last third of one that never had so many."""
    make(place, days=29)
    assert certificates.fault(settings(), look(place)) == ""
    make(place, days=90)
    found = look(place)
    assert certificates.fault(settings(), found) == ""
    assert found.file
    late = replace(found, file=replace(found.file, days=29.5))
    assert certificates.fault(settings(), late) == f"it is good until {found.file.not_after} only"


def test_a_name_that_is_too_long_for_a_subject(place: dict[str, str]) -> None:
    """64 characters are all that it takes; the names that clients look at have no such limit."""
    name = f"{'a' * 60}.example.com"
    make(place, name)
    file = look(place).file
    assert file
    assert (file.names, file.subject) == ((name,), "CN=fabdjango")


def test_no_openssl(place: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by whoever needs it; the look itself does not break."""
    make(place)
    (tmp_path / "sh").symlink_to(str(shutil.which("sh")))
    step = certificates.look(settings())
    step = replace(
        step, program=step.program.replace(":/usr/local/sbin:/usr/sbin:/sbin", ""), interpreter=sh(sys.executable)
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    found = certificates.read_look(run(step, **place, port=1).stdout)
    assert (found.openssl, found.file) == ("", None)


# --- nginx -------------------------------------------------------------------


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(folder: Path, text: str, http: int, https: int) -> Iterator[Path]:
    """An nginx with this file of a site, on other ports; its main configuration."""
    text = text.replace("listen 80;", f"listen 127.0.0.1:{http};").replace("listen 443", f"listen 127.0.0.1:{https}")
    (folder / "site.conf").write_text(text.replace("/var/log/nginx", str(folder)))
    main = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    main.write_text(
        f"{user} daemon off; worker_processes 1; error_log {folder}/e; pid {folder}/p; events {{}}\n"
        f"http {{ access_log off; include site.conf; }}\n"
    )
    process = subprocess.Popen(["nginx", "-c", main], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield main
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed here; tests/hosts asks it too")
def test_nginx_presents_it(place: dict[str, str], tmp_path: Path) -> None:
    """And another one only after a reload, which the proof tells."""
    make(place)
    http, https = free_port(), free_port()
    site, server = settings("blog.example.com"), nginx.Webserver(ipv6=False)
    text = nginx.site_file(site, LAYOUT, sample_templates(), server).content
    for path in ("certificate", "key"):
        text = text.replace(f"/etc/ssl/fabdjango/blog/{path}.pem", place[path])
    prove = nginx.prove(site, text)
    assert prove.parameters["certificate"] == place["certificate"]
    assert look(place, https).silence == "Connection refused"
    with serving(tmp_path, text, http, https) as main:
        assert run(prove, port=https).stdout == "https://blog.example.com/.fabdjango/nginx answers 200, as it should\n"
        assert look(place, https).is_presented
        assert ssl.get_server_certificate(("127.0.0.1", https)) == Path(place["certificate"]).read_text()
        with socket.create_connection(("127.0.0.1", http)) as link:
            link.sendall(b"GET /a HTTP/1.1\r\nHost: blog.example.com\r\nConnection: close\r\n\r\n")
            assert b"\r\nLocation: https://blog.example.com/a\r\n" in link.makefile("rb").read()
        make(place, "blog.example.com")
        assert not look(place, https).is_presented
        done = run(prove, port=https, seconds=0)
        told = f"https://blog.example.com/.fabdjango/nginx presents another certificate than that of {place['certificate']}\n"
        assert (done.returncode, done.stdout[: len(told)]) == (1, told)
        subprocess.run(["nginx", "-c", main, "-s", "reload"], check=True, stderr=subprocess.DEVNULL)
        assert run(prove, port=https).returncode == 0
        found = look(place, https)
        assert found.is_presented
        assert found.presented
        assert (found.presented.names, found.presented.not_before) == (
            ("blog.example.com",),
            time.strftime("%Y-%m-%d", time.gmtime()),
        )
