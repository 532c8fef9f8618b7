"""Certificates: where the one of a site is, whether it will do, and how it is made or asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from fabdjango import onhost
from fabdjango.escape import Shell, block, nginx_domain, quote_path, raw, sh, when
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import json_line
from fabdjango.plan import ROOT, Step
from fabdjango.settings import Settings

__all__ = [
    "Certificate",
    "Found",
    "asked_name",
    "check_settings",
    "fault",
    "is_kept",
    "is_made",
    "is_settled",
    "is_wanted",
    "look",
    "names",
    "need_made",
    "packages",
    "places",
    "read_look",
    "refuse",
    "status_lines",
    "steps",
    "webroot",
    "with_certificate",
]

DAYS = 820
"""How long a self-signed certificate lasts; some clients take none of more than 825 days."""
RENEWED = 30
"""Days before its end that a certificate is renewed; one that lasts less than three times as long, in its last third."""
_MADE = PurePosixPath("/etc/ssl/fabdjango")
_CERTBOT = PurePosixPath("/etc/letsencrypt")
# Not below the site's root: certbot writes there as root, and the site's owner could lead it elsewhere.
_WEBROOTS = PurePosixPath("/var/lib/fabdjango/acme")
_HOOK = "nginx -t -q && { systemctl reload nginx.service 2>/dev/null || nginx -s reload; }"
_SECONDS = 600
"""How long certbot may take."""


# --- what the settings say ---------------------------------------------------


def is_wanted(settings: Settings) -> bool:
    """True if the site is served over https."""
    return settings.nginx.tls != "none"


def is_made(settings: Settings) -> bool:
    """True if the certificate is ours to make or to ask for."""
    return settings.nginx.tls in ("self-signed", "letsencrypt")


def names(settings: Settings) -> tuple[str, ...]:
    """The host names of the site, each once, in small letters."""
    return tuple(dict.fromkeys(map(nginx_domain, settings.nginx.domains)))


def asked_name(settings: Settings) -> str:
    """A name by which the site can be asked: any one below a wildcard is the site's."""
    return names(settings)[0].replace("*", "fabdjango")


def places(settings: Settings) -> tuple[str, str]:
    """Where the certificate with its chain and its key are on the host; empty where the site has none."""
    project = settings.project
    if settings.nginx.tls == "self-signed":
        return str(_MADE / project / "certificate.pem"), str(_MADE / project / "key.pem")
    if settings.nginx.tls == "letsencrypt":
        live = _CERTBOT / "live" / project
        return str(live / "fullchain.pem"), str(live / "privkey.pem")
    return settings.nginx.certificate, settings.nginx.certificate_key


def with_certificate(settings: Settings, used: tuple[PurePosixPath, PurePosixPath] | None) -> Settings:
    """The same site served with another certificate and key, or over http alone."""
    if used is None:
        return replace(settings, nginx=replace(settings.nginx, tls="none"))
    certificate, key = map(str, used)
    return replace(settings, nginx=replace(settings.nginx, tls="files", certificate=certificate, certificate_key=key))


def webroot(settings: Settings) -> PurePosixPath:
    """The folder that nginx answers a certificate authority from."""
    return _WEBROOTS / settings.project


def packages(settings: Settings) -> tuple[str, ...]:
    """Debian's packages that the site's certificate needs."""
    wanted = {"self-signed": ("openssl",), "letsencrypt": ("openssl", "certbot")}
    return wanted.get(settings.nginx.tls, ()) if settings.nginx.domains else ()


def check_settings(settings: Settings) -> None:
    """Raise ConfigError for a certificate that nobody could find, make or ask for."""
    nginx = settings.nginx
    if nginx.tls == "files" and not (nginx.certificate and nginx.certificate_key):
        raise ConfigError(
            "fabdjango.nginx.tls is files, but no certificate is named",
            cure="set fabdjango.nginx.certificate and fabdjango.nginx.certificate_key to paths on the host",
        )
    if is_made(settings) and (nginx.certificate or nginx.certificate_key):
        raise ConfigError(
            f"fabdjango.nginx.tls is {nginx.tls}, which has a place of its own for the certificate, but another one is named",
            cure="remove fabdjango.nginx.certificate and certificate_key, or set fabdjango.nginx.tls to files",
        )
    wildcards = [name for name in nginx.domains if name.startswith("*")]
    if nginx.tls == "letsencrypt" and wildcards:
        raise ConfigError(
            f"Let's Encrypt gives no certificate for {wildcards[0]} over http",
            cure="list the names one by one, or get the certificate over DNS and set fabdjango.nginx.tls to files",
        )


def need_made(settings: Settings) -> None:
    """Raise ConfigError if the certificate is not ours to make or to ask for."""
    if not is_made(settings):
        raise ConfigError(
            f"fabdjango.nginx.tls is {settings.nginx.tls}, so there is no certificate to make or to ask for",
            cure="renewed files are taken over by: fab … nginx.reload"
            if is_wanted(settings)
            else "in fabric.yaml:  fabdjango: nginx: tls: letsencrypt",
        )


# --- what there is -----------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """
    One certificate.

    ``not_before`` and ``not_after`` are days such as 2026-11-26, ``days`` those that are left, by the host's own
    clock, and ``lifetime`` all of them. ``fingerprint`` is its SHA-256.
    """

    names: tuple[str, ...] = ()
    subject: str = ""
    issuer: str = ""
    not_before: str = ""
    not_after: str = ""
    days: float = 0
    lifetime: float = 0
    fingerprint: str = ""

    @property
    def is_due(self) -> bool:
        """True if it is time to renew it."""
        return self.days < min(RENEWED, self.lifetime / 3)


@dataclass(frozen=True)
class Found:
    """
    What was found on a host.

    ``openssl`` and ``certbot`` are programs, or empty. ``file`` is the certificate at the site's place, and ``problem``
    why there is none that can be used, or what is wrong with its key. ``presented`` is what the running nginx shows to
    a client, and ``silence`` why it shows nothing. ``renewal`` is certbot's file for the site, ``timer`` whether it renews
    by itself: on, off, cron or missing.
    """

    openssl: str = ""
    certbot: str = ""
    file: Certificate | None = None
    problem: str = ""
    presented: Certificate | None = None
    silence: str = ""
    renewal: str | None = None
    timer: str = ""

    @property
    def is_presented(self) -> bool:
        """True if the running nginx has the certificate of the file."""
        return bool(self.file and self.presented and self.file.fingerprint == self.presented.fingerprint)


def look(settings: Settings) -> Step:
    """What there is of the site's certificate, and what the running nginx presents; its output is for read_look."""
    certificate, key = places(settings)
    return Step(
        "tls-look",
        "look at the certificate",
        user=ROOT,
        program=onhost.source("certificate_look"),
        parameters={
            "certificate": certificate,
            "key": key,
            "private": settings.nginx.tls == "self-signed",
            "renewal": str(_renewal(settings)),
            "host": asked_name(settings),
            "port": 443,
        },
        capture=True,
        cure="certificates belong to root: allow the account that logs in sudo without a password",
    )


def _renewal(settings: Settings) -> PurePosixPath:
    return _CERTBOT / "renewal" / f"{settings.project}.conf"


def read_look(output: str) -> Found:
    """The line of JSON of ``look``; raises FabdjangoError if it is not there."""
    values = json_line(output, "look at the certificate")
    file, presented = (_certificate(values.pop(name, None)) for name in ("file", "presented"))
    return Found(file=file, presented=presented, **values)


def _certificate(values: Mapping[str, Any] | None) -> Certificate | None:
    return Certificate(**{**values, "names": tuple(values["names"])}) if values else None


# --- what it is worth --------------------------------------------------------


def refuse(settings: Settings, found: Found, host: str = "") -> None:
    """Raise FabdjangoError if the certificate can neither be judged nor made here, or if certbot has another one of that name."""
    programs = {"openssl": found.openssl, "certbot": found.certbot}
    missing = [package for package in packages(settings) if not programs[package]]
    if missing:
        raise FabdjangoError(
            f"{missing[0]} is not installed on the host",
            host=host,
            cure=f"as root: apt-get install {' '.join(missing)}",
        )
    ours = re.compile(rf"= {re.escape(str(webroot(settings)))},?\s*$", re.MULTILINE)
    if settings.nginx.tls == "letsencrypt" and (found.renewal or "").strip() and not ours.search(found.renewal or ""):
        raise FabdjangoError(
            f"certbot has a certificate called {settings.project} that fabdjango did not ask for, and it is left alone",
            host=host,
            cure=f"see: certbot certificates\nto use it, set fabdjango.nginx.tls to files, with {places(settings)[0]}; "
            f"or choose another fabdjango.project than {settings.project}",
        )


def fault(settings: Settings, found: Found) -> str:
    """Why the certificate will not do, or not for long; empty if it will."""
    file = found.file
    if file is None or found.problem:
        return found.problem or "there is no certificate"
    if other := _other_names(settings, file):
        return other
    if settings.nginx.tls == "letsencrypt":
        if not (found.renewal or "").strip():
            return "certbot does not know it"
        server = re.search(r"^server = (.*)$", found.renewal or "", re.MULTILINE)
        if server and server[1].strip() != settings.nginx.acme_server:
            return f"it is from {server[1].strip()}"
    if file.days <= 0:
        return f"it was good until {file.not_after}"
    return f"it is good until {file.not_after} only" if file.is_due and is_made(settings) else ""


def _other_names(settings: Settings, file: Certificate) -> str:
    """How its names are not the site's; one that is not ours to make may have more of them, and wildcards."""
    have, wanted = set(file.names), names(settings)
    if is_made(settings):
        lacking = [name for name in wanted if name not in have]
    else:
        lacking = [name for name in wanted if name not in have and f"*.{name.partition('.')[2]}" not in have]
    if lacking:
        return f"it is not for {', '.join(lacking)}"
    more = sorted(have - set(wanted)) if is_made(settings) else ()
    return f"it is for {', '.join(more)} too" if more else ""


def is_settled(settings: Settings, found: Found) -> bool:
    """True if there is nothing to do about the certificate, and the running nginx has it."""
    if not is_wanted(settings):
        return True
    if not is_made(settings):
        # What cannot be read here is nginx's to judge.
        return found.file is None or found.is_presented
    return not fault(settings, found) and found.is_presented and is_kept(settings, found)


def is_kept(settings: Settings, found: Found) -> bool:
    """True if nothing is to be done for the certificate to be renewed by itself, or if nothing can be."""
    return settings.nginx.tls != "letsencrypt" or found.timer != "off"


def status_lines(settings: Settings, found: Found) -> list[str]:
    """What there is, for a person: the certificate, whether it will do, who renews it, and what nginx presents."""
    if not is_wanted(settings):
        return ["fabdjango.nginx.tls is none: the site is served over http"]
    lines = [f"{settings.nginx.tls}: {places(settings)[0]}"]
    if found.file:
        lines += _described(found.file)
    if why := fault(settings, found):
        lines.append(f"a new one is needed: {why}" + (": fab … tls.obtain" if is_made(settings) else ""))
    if settings.nginx.tls == "letsencrypt" and found.file:
        lines.append(_TIMERS.get(found.timer, found.timer))
    if found.presented is None:
        lines.append(f"nginx presents no certificate: {found.silence}")
    elif found.is_presented:
        lines.append("the running nginx presents it")
    else:
        lines += ["the running nginx presents another one: fab … nginx.reload", *_described(found.presented)]
    return lines


_TIMERS = {
    "on": "certbot.timer renews it",
    "cron": "/etc/cron.d/certbot renews it",
    "off": "nobody renews it: certbot.timer is off: fab … tls.obtain",
    "missing": "nobody renews it: there is no certbot.timer",
}


def _described(certificate: Certificate) -> list[str]:
    own = certificate.subject == certificate.issuer
    since, until = certificate.not_before, certificate.not_after
    signed = "signed by itself" if own else f"issued by {certificate.issuer}"
    return [
        f"  for {', '.join(certificate.names) or certificate.subject}",
        f"  {signed}, good from {since} until {until}, {int(certificate.days)} days left",
    ]


# --- steps -------------------------------------------------------------------


def steps(settings: Settings, found: Found, *, force: bool = False) -> tuple[Step, ...]:
    """
    What makes or asks for the certificate; with ``force`` also if the one that is there will do.

    For letsencrypt, nginx must answer http for every domain by then. None where the certificate is not ours to make.
    """
    why = fault(settings, found) or ("a new one is wanted" if force else "")
    if not is_made(settings):
        return ()
    first = () if settings.nginx.tls == "self-signed" else (_timer(),)
    if not why:
        return (*first, _keep(settings, found))
    if settings.nginx.tls == "self-signed":
        return (_make(settings, why),)
    # certbot fills this file last, and takes another name for the certificate where there is one that it cannot read.
    half_made = found.renewal is not None and not found.renewal.strip()
    aside = (_set_aside(settings),) if half_made else ()
    return (*first, _make_webroot(settings), *aside, _ask(settings, why))


def _keep(settings: Settings, found: Found) -> Step:
    until = found.file.not_after if found.file else ""
    return Step(
        "tls-certificate", f"certificate for {', '.join(names(settings))}", sh(raw("unchanged"), f"good until {until}")
    )


def _make(settings: Settings, why: str) -> Step:
    certificate, key = places(settings)
    return Step(
        "tls-certificate",
        f"make {certificate}: {why}",
        user=ROOT,
        program=onhost.source("self_signed"),
        parameters={"certificate": certificate, "key": key, "names": names(settings), "days": DAYS},
    )


def _timer() -> Step:
    timer = "certbot.timer"
    is_on = f"systemctl is-enabled --quiet {timer} && systemctl is-active --quiet {timer}"
    return Step(
        "tls-timer",
        f"{timer} renews the certificate",
        block(
            when(raw("! [ -d /run/systemd/system ]"), raw("unchanged '/etc/cron.d/certbot does'")),
            when(raw(is_on), raw("unchanged 'it does'")),
            sh("systemctl", "enable", "--quiet", "--now", timer),
        ),
        user=ROOT,
        cure=f"see: systemctl status {timer}",
    )


def _make_webroot(settings: Settings) -> Step:
    folder = webroot(settings)
    return Step(
        "tls-webroot",
        f"make {folder}",
        block(
            when(raw(f"[ -d {quote_path(folder)} ]"), raw("unchanged 'it is there'")),
            sh("install", "-d", "-m", "755", "--", folder),
        ),
        user=ROOT,
    )


def _set_aside(settings: Settings) -> Step:
    renewal = _renewal(settings)
    left = {renewal.name: renewal, **{each: _CERTBOT / each / settings.project for each in ("live", "archive")}}
    moves = (
        when(raw(f"[ -e {quote_path(path)} ]"), raw(f'mv -T -- {quote_path(path)} "$aside"/{quote_path(name)}'))
        for name, path in left.items()
    )
    return Step(
        "tls-aside",
        "set aside what certbot has left half-made",
        block(
            raw(f"aside=$(mktemp -d -- {quote_path(_CERTBOT / 'half-made.XXXXXX')})"),
            *moves,
            raw('note "it is in $aside"'),
        ),
        user=ROOT,
    )


def _ask(settings: Settings, why: str) -> Step:
    nginx = settings.nginx
    # Whether it is time was decided before; certbot would decide by other rules.
    words: list[str | PurePosixPath] = [
        *("certonly", "--non-interactive", "--agree-tos", "--no-eff-email", f"--server={nginx.acme_server}"),
        f"--email={nginx.email}" if nginx.email else "--register-unsafely-without-email",
        *(f"--cert-name={settings.project}", "--key-type=ecdsa", "--force-renewal", "--renew-with-new-domains"),
        *("--webroot", f"--webroot-path={webroot(settings)}", f"--deploy-hook={_HOOK}"),
        *(f"--domain={name}" for name in names(settings)),
    ]
    return Step(
        "tls-certificate",
        f"ask for a certificate for {', '.join(names(settings))}: {why}",
        _certbot(*words),
        user=ROOT,
        cure="does every domain lead to this host, and does port 80 answer from outside?\n"
        "on the host: /var/log/letsencrypt/letsencrypt.log has more\n"
        "to try without using up the limits: fabdjango.nginx.acme_server: https://acme-staging-v02.api.letsencrypt.org/directory",
    )


def _certbot(*words: str | PurePosixPath) -> Shell:
    return sh("timeout", "-k", "10", _SECONDS, "certbot", *words)
