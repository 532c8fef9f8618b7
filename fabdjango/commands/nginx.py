"""nginx: the site's file, and how the running server is brought to it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fabdjango import onhost
from fabdjango.commands import certificates, gunicorn
from fabdjango.commands.manager import MARK
from fabdjango.escape import Shell, block, nginx_domain, nginx_name, nginx_value, printable, quote_path, raw, sh, when
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import json_line
from fabdjango.layout import Layout
from fabdjango.plan import ROOT, Put, Step
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = [
    "MANAGED",
    "Place",
    "Webserver",
    "ask_running",
    "certificate_in",
    "check",
    "check_settings",
    "digest_in",
    "digest_of",
    "disable",
    "enable",
    "logs",
    "look",
    "need_domains",
    "prove",
    "prove_gone",
    "prove_maintenance",
    "read_look",
    "refuse_foreign",
    "refuse_unreachable",
    "reload",
    "reload_back",
    "restore",
    "site_file",
    "status_lines",
    "write",
]

MANAGED = f"# {MARK}"
_MARK = re.compile(
    r"^# fabdjango site (?P<project>\S+) in (?P<root>.*), digest (?P<digest>[0-9a-f]{64})$", re.MULTILINE
)
_LOGS = PurePosixPath("/var/log/nginx")
_SECONDS = 10
"""How long the running server may take to show a new configuration."""


# --- what there is -----------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """The site's file and the link to it that nginx includes; where a host has no sites-enabled, the link is in conf.d."""

    file: PurePosixPath
    link: PurePosixPath


@dataclass(frozen=True)
class Webserver:
    """
    What was found on a host.

    ``test`` is what ``nginx -t`` complained of, ``user`` the account of its workers, ``folder`` the one it includes.
    ``text`` is the site's file, or None; ``link`` is ``ours``, ``other`` or empty for none. ``blocked`` are the folders
    that the workers cannot pass through. ``root`` is the site's, with the home directory filled in.
    """

    root: str = ""
    program: str = ""
    version: str = ""
    test: str = ""
    user: str = ""
    folder: str = ""
    file_path: str = ""
    link_path: str = ""
    text: str | None = None
    link: str = ""
    ipv6: bool = True
    active: bool = False
    maintenance: bool = False
    blocked: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        """Where the site's file is, or will be."""
        return Place(PurePosixPath(self.file_path), PurePosixPath(self.link_path))

    @property
    def managed(self) -> bool:
        """True if the site's file is there and is ours."""
        return bool(self.text and self.text.startswith(MANAGED))

    @property
    def previous(self) -> Put | None:
        """The site's file as it is."""
        return None if self.text is None else Put(self.place.file, self.text)


def look(settings: Settings, layout: Layout, owner: str) -> Step:
    """What there is of nginx; its output is for read_look."""
    paths = (layout.run, layout.releases, layout.static_store, _media(settings, layout))
    return Step(
        "nginx-look",
        "look at nginx",
        user=ROOT,
        program=onhost.source("nginx_look"),
        parameters={
            "project": settings.project,
            "root": str(layout.root),
            "owner": owner,
            "paths": [str(path.relative_to(layout.root) if layout.root in path.parents else path) for path in paths],
        },
        capture=True,
        cure="nginx belongs to root: allow the account that logs in sudo without a password",
    )


def read_look(output: str) -> Webserver:
    """The line of JSON of ``look``; raises FabdjangoError if it is not there."""
    found = json_line(output, "look at nginx")
    known = {item.name for item in dataclasses.fields(Webserver)}
    values: dict[str, Any] = {
        name: tuple(value) if name == "blocked" else value for name, value in found.items() if name in known
    }
    return Webserver(**values)


def digest_of(output: str) -> str:
    """The digest that the running nginx named, from the output of ``ask_running``; empty if another one answered."""
    found = json_line(output, "look at nginx")
    text = str(found.get("body", "")).strip()
    return text if found.get("status") == 200 and re.fullmatch(r"[0-9a-f]{64}", text) else ""


# --- what is refused ---------------------------------------------------------


def check_settings(settings: Settings) -> None:
    """Raise ConfigError for what nginx could not serve; nothing is asked where fabdjango.nginx.domains is empty."""
    nginx = settings.nginx
    if not nginx.domains:
        return
    for name in nginx.domains:
        nginx_domain(name)
    certificates.check_settings(settings)
    if nginx.media_url and nginx.media_url == nginx.static_url:
        raise ConfigError(
            f"fabdjango.nginx.media_url and static_url are both {nginx.media_url}", cure="choose another media_url"
        )
    if ".." in PurePosixPath(nginx.media).parts or not nginx.media.strip("/"):
        raise ConfigError(
            f"fabdjango.nginx.media must be a folder of uploaded files, not {nginx.media!r}",
            cure="for instance media: media",
        )


def need_domains(settings: Settings) -> None:
    """Raise ConfigError if nginx has nothing to serve, and for what check_settings refuses."""
    if not settings.nginx.domains:
        raise ConfigError(
            "fabdjango.nginx.domains is empty, so nginx has nothing to serve",
            cure="in fabric.yaml:  fabdjango: nginx: domains: [blog.example.com]",
        )
    check_settings(settings)


def refuse_foreign(settings: Settings, layout: Layout, found: Webserver, host: str = "") -> None:
    """Raise FabdjangoError if there is no nginx to configure, or if files of that name are somebody else's."""
    if not found.program:
        raise FabdjangoError("nginx is not installed on the host", host=host, cure="as root: apt-get install nginx")
    if not found.folder:
        raise FabdjangoError(
            "nginx includes neither /etc/nginx/sites-enabled nor /etc/nginx/conf.d",
            host=host,
            output=found.test,
            cure="add to the http block of /etc/nginx/nginx.conf: include /etc/nginx/conf.d/*.conf;",
        )
    if found.link == "other" or (found.text is not None and not found.managed):
        path = found.link_path if found.link == "other" else found.file_path
        raise FabdjangoError(
            f"{path} was not written by fabdjango, and is left alone",
            host=host,
            cure=f"move it away, or choose another fabdjango.project than {settings.project}",
        )
    mark = _MARK.search(found.text or "")
    if mark and mark["root"] != str(layout.root):
        raise FabdjangoError(
            f"{found.file_path} belongs to another site, in {mark['root']}",
            host=host,
            cure=f"choose another fabdjango.project than {settings.project}",
        )


def refuse_unreachable(found: Webserver, host: str = "") -> None:
    """Raise FabdjangoError if the workers of nginx cannot get to the site's socket or files."""
    if found.blocked:
        folders = sh(*(PurePosixPath(path) for path in found.blocked))
        raise FabdjangoError(
            f"nginx runs as {found.user}, which may not pass through {', '.join(found.blocked)}",
            host=host,
            cure=f"on the host: chmod o+x {folders}\nor choose a fabdjango.root elsewhere, such as /srv/{{project}}",
        )


# --- the file ----------------------------------------------------------------


def _media(settings: Settings, layout: Layout) -> PurePosixPath:
    return layout.shared / settings.nginx.media


def _upstream(settings: Settings, layout: Layout) -> str:
    bind = gunicorn.bind_of(settings, layout)
    if bind.startswith("unix:"):
        return bind
    host, _, port = bind.rpartition(":")
    # An address for all interfaces is reached over loopback.
    loopback = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - read, not bound
    return f"{loopback.get(host, host)}:{port}"


def site_file(settings: Settings, layout: Layout, templates: Templates, found: Webserver) -> Put:
    """
    The site's file, which names its own digest; a project's own template must begin and answer as ours does.

    ``layout`` has the home directory filled in. Raises ConfigError or RefusedValueError for what nginx cannot carry.
    """
    need_domains(settings)
    values = _values(settings, layout, ipv6=found.ipv6)

    def render(digest: str) -> str:
        return templates.render("nginx/site.conf.j2", digest=digest, **values)

    digest = hashlib.sha256(render("0" * 64).encode()).hexdigest()
    text = render(digest)
    mark = _MARK.search(text)
    if not text.startswith(MANAGED) or not mark or text.count(digest) < 2:
        raise ConfigError(
            "the template nginx/site.conf.j2 of the project does not say that fabdjango manages it, and with which digest",
            cure="take over its first two lines and location = /.fabdjango/nginx from fabdjango's own template",
        )
    return Put(found.place.file, text)


def _values(settings: Settings, layout: Layout, *, ipv6: bool) -> Mapping[str, object]:
    nginx = settings.nginx
    name = f"fabdjango_{nginx_name(settings.project)}"
    headers = [
        f"X-Content-Type-Options ${name}_nosniff",
        f"Referrer-Policy ${name}_referrer",
        f"X-Frame-Options ${name}_frame",
    ]
    tls = certificates.is_wanted(settings)
    certificate, key = certificates.places(settings)
    hsts = nginx.hsts if tls else 0
    if hsts:
        headers.append(f"Strict-Transport-Security ${name}_hsts")
    return {
        "project": settings.project,
        "root": printable(str(layout.root), "fabdjango.root"),
        "own": name,
        "domains": " ".join(certificates.names(settings)),
        "upstream": nginx_value(_upstream(settings, layout), "gunicorn.bind"),
        "websockets": settings.gunicorn.interface == "asgi",
        "headers": headers,
        "frame_options": nginx_value("" if nginx.frame_options == "none" else nginx.frame_options),
        "hsts": hsts,
        "tls": tls,
        "ipv6": ipv6,
        "certificate": nginx_value(certificate, "nginx.certificate"),
        "certificate_key": nginx_value(key, "nginx.certificate_key"),
        "access_log": nginx_value(_LOGS / f"{settings.project}.access.log"),
        "error_log": nginx_value(_LOGS / f"{settings.project}.error.log"),
        "max_body": nginx.max_body,
        "read_timeout": nginx.read_timeout,
        "gzip": nginx.gzip,
        "static_url": nginx.static_url,
        "static_pattern": _pattern(nginx.static_url),
        "media_url": nginx.media_url,
        "media_pattern": _pattern(nginx.media_url),
        "media": nginx_value(_media(settings, layout), "nginx.media"),
        "media_private": [nginx_value(f"{nginx.media_url}{folder.rstrip('/')}/") for folder in nginx.media_private],
        "root_folder": nginx_value(layout.root, "fabdjango.root"),
        "acme": nginx_value(certificates.webroot(settings)),
        "maintenance": nginx_value(layout.maintenance, "fabdjango.root"),
        "maintenance_page": nginx_value(layout.maintenance_page, "fabdjango.root"),
    }


def _pattern(url: str) -> str:
    return url.rstrip("/").replace(".", "\\.")


# --- steps -------------------------------------------------------------------


def write(put: Put, place: Place) -> Step:
    """``nginx-write``: the file, and the link by which nginx includes it."""
    return Step(
        "nginx-write",
        f"write {put.path}",
        block(
            raw(f'[ "$changed_files" ] || [ ! {_is_linked(place)} ] || unchanged "as before"'),
            _link(place),
        ),
        user=ROOT,
        puts=(put,),
    )


def _is_linked(place: Place) -> Shell:
    return raw(f"{quote_path(place.link)} -ef {quote_path(place.file)}")


def _link(place: Place) -> Shell:
    # nginx includes no file whose name begins with a dot.
    staged = place.link.with_name(f".fabdjango.{place.link.name}")
    return block(
        sh("rm", "-f", "--", staged),
        sh("ln", "-s", "--", place.file, staged),
        sh("mv", "-fT", "--", staged, place.link),
    )


def enable(place: Place) -> Step:
    """``nginx-enable``: the link to the site's file."""
    return Step(
        "nginx-enable",
        f"link {place.link}",
        block(when(raw(f"[ {_is_linked(place)} ]"), raw("unchanged 'it is'")), _link(place)),
        user=ROOT,
    )


def disable(place: Place) -> Step:
    """``nginx-disable``: take the link away; the file stays."""
    return Step(
        "nginx-disable",
        f"remove {place.link}",
        block(
            when(raw(f"! [ -L {quote_path(place.link)} ]"), raw("unchanged 'it is not there'")),
            sh("rm", "-f", "--", place.link),
        ),
        user=ROOT,
    )


def restore(found: Webserver) -> Step:
    """``nginx-write-back``: file and link as they were found."""
    place = found.place
    link = _link(place) if found.link == "ours" else sh("rm", "-f", "--", place.link)
    if found.previous is None:
        return Step(
            "nginx-write-back",
            "no file of the site, as before",
            block(link, sh("rm", "-f", "--", place.file)),
            user=ROOT,
        )
    return Step("nginx-write-back", f"{place.file} as it was", link, user=ROOT, puts=(found.previous,))


def check(found: Webserver | None = None) -> Step:
    """``nginx-check``: let nginx read all its files."""
    broken = found is not None and bool(found.test)
    return Step(
        "nginx-check",
        "nginx -t",
        sh("nginx", "-t", "-q"),
        user=ROOT,
        cure="nginx did not take its files before this either: mend those first" if broken else "",
    )


# A daemon must not inherit our locks.
_SIGNAL = """if [ -d /run/systemd/system ] && systemctl cat nginx.service >/dev/null 2>&1; then
  if systemctl is-active --quiet nginx.service; then systemctl reload nginx.service; else systemctl start nginx.service; fi
elif [ -s /run/nginx.pid ] && kill -0 "$(cat /run/nginx.pid)" 2>/dev/null; then
  nginx -s reload
else
  nginx 8>&- 9>&-
fi"""
_STOP = """if [ -d /run/systemd/system ] && systemctl cat nginx.service >/dev/null 2>&1; then
  systemctl stop nginx.service
else
  nginx -s stop
fi"""


def reload() -> Step:
    """``nginx-reload``: nginx on its new files; one that does not run is started."""
    return Step(
        "nginx-reload",
        "reload nginx",
        raw(_SIGNAL),
        user=ROOT,
        cure="see: journalctl -u nginx -n 30, and /var/log/nginx/error.log",
    )


def reload_back(found: Webserver) -> Step:
    """``nginx-reload-back``: after ``restore``; nginx is stopped if it did not run before."""
    body = raw(_SIGNAL) if found.active else raw(f"{_STOP} 2>/dev/null || :")
    # Where the files of others are broken nothing was reloaded, and nothing can be.
    still = raw(
        "nginx -t -q || { note 'nginx was not reloaded: it does not take its files without ours either'; exit 0; }"
    )
    return Step("nginx-reload-back", "nginx runs as before", block(still, body), user=ROOT)


def _ask(settings: Settings, **parameters: object) -> dict[str, object]:
    tls = certificates.is_wanted(settings)
    return {
        "https": tls,
        "port": 443 if tls else 80,
        "host": certificates.asked_name(settings),
        "path": "/.fabdjango/nginx",
        "status": 200,
        "body": "",
        "file": "",
        "certificate": "",
        "gone": False,
        "may_close": False,
        "seconds": _SECONDS,
        "tell": False,
        **parameters,
    }


def ask_running(settings: Settings) -> Step:
    """Ask once with which digest the running nginx serves the site; its output is for digest_of."""
    return Step(
        "nginx-ask",
        "ask the running nginx",
        program=onhost.source("nginx_proof"),
        parameters=_ask(settings, tell=True),
        capture=True,
    )


def _proof(settings: Settings, title: str, **parameters: object) -> Step:
    return Step(
        "nginx-proof",
        title,
        user=ROOT,
        program=onhost.source("nginx_proof"),
        parameters=_ask(settings, **parameters),
        cure="does another site of this nginx have the same domain, or does another program listen on the port?\n"
        "see: nginx -T, ss -ltnp, /var/log/nginx/error.log",
    )


def prove(settings: Settings, text: str) -> Step:
    """
    ``nginx-proof``: the running server names the digest of ``text``; a reload may say ok and keep the old one.

    Where ``text`` has one certificate, the server must present it as it is now.
    """
    used = certificate_in(text)
    return _proof(
        settings,
        "the running nginx has this file",
        body=f"{digest_in(text)}\n",
        certificate=str(used[0]) if used else "",
    )


def prove_gone(settings: Settings, text: str) -> Step:
    """``nginx-proof``: the running server no longer serves ``text``."""
    return _proof(
        settings, "the running nginx serves the site no more", body=f"{digest_in(text)}\n", gone=True, may_close=True
    )


def prove_maintenance(settings: Settings, layout: Layout, *, on: bool) -> Step:
    """``nginx-proof``: the site answers 503 and the maintenance page, or no longer does."""
    title = "the site answers 503 and the maintenance page" if on else "the maintenance page is gone"
    return _proof(settings, title, path="/", status=503, file=str(layout.maintenance_page), gone=not on)


def digest_in(text: str) -> str:
    """The digest that a file of ours names, or an empty string."""
    mark = _MARK.search(text)
    return mark["digest"] if mark else ""


def certificate_in(text: str) -> tuple[PurePosixPath, PurePosixPath] | None:
    """The certificate and the key that a file of ours names, or None if there is none, or more than one."""
    found = re.findall(r'^\s*ssl_certificate "(.+)";\s+ssl_certificate_key "(.+)";$', text, re.MULTILINE)
    if len(found) != 1:
        return None
    certificate, key = (PurePosixPath(re.sub(r"\\(.)", r"\1", path)) for path in found[0])
    return certificate, key


def logs(settings: Settings, which: str, lines: int) -> Step:
    """The end of the site's ``error`` or ``access`` log."""
    if which not in ("error", "access"):
        raise ConfigError(f"nginx has no log {which!r} of the site", cure="it has: error, access")
    path = _LOGS / f"{settings.project}.{which}.log"
    return Step("logs", f"{which} log of nginx", sh("tail", "-n", lines, "--", path), user=ROOT)


def status_lines(found: Webserver, running: str) -> list[str]:
    """What there is, for a person: the server, the site's file, and whether the one runs with the other."""
    if not found.program:
        return ["nginx is not installed"]
    lines = [f"nginx {found.version} {'runs' if found.active else 'does not run'}, its workers as {found.user}"]
    if found.text is None:
        return [*lines, "the site has no file there: fab … nginx.configure"]
    state = "enabled" if found.link == "ours" else "not enabled"
    if found.active and found.link == "ours":
        wanted = digest_in(found.text)
        state += (
            ", and served"
            if wanted and running == wanted
            else ", but the running nginx does not serve it: nginx.reload"
        )
    lines.append(f"{found.file_path} is {state}")
    if found.maintenance:
        lines.append("maintenance is on: visitors get 503")
    if found.test:
        lines.append(f"nginx -t complains:\n{found.test}")
    return lines
