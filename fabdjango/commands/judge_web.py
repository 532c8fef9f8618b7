"""What the answers of a check mean for a site as the world sees it: facts to findings, each with its cure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import PurePosixPath

from fabdjango.commands import certificates, nginx
from fabdjango.commands.check import (
    ERROR,
    NOTE,
    OK,
    WARNING,
    Case,
    Finding,
    as_root,
    certificate_of,
    difference,
    from_error,
)
from fabdjango.exceptions import FabdjangoError
from fabdjango.plan import Put
from fabdjango.render import Templates

__all__ = ["certificate", "dns", "webserver"]


# --- from outside ------------------------------------------------------------


def dns(
    resolved: Mapping[str, Collection[str]], own: Collection[str], addresses_here: Iterable[str]
) -> Iterator[Finding]:
    """
    Whether the domains lead to the site.

    ``resolved`` is what the operator's machine was told of each domain, ``own`` the addresses of all hosts of the
    site, ``addresses_here`` those that the host itself knows of.
    """
    mine = next(iter(sorted(addresses_here, key=lambda each: ":" in each)), "ADDRESS")
    for domain, addresses in resolved.items():
        elsewhere = sorted(set(addresses) - set(own))
        record = f"{domain.replace('*', 'NAME')}. A {mine}"
        cure = f"in the DNS of the domain: {record}\nif a proxy or a load balancer stands in front, all is well"
        if not addresses:
            yield Finding("dns", WARNING, f"{domain} does not resolve", f"in the DNS of the domain: {record}")
        elif elsewhere and _may_be_translated(elsewhere, own):
            yield Finding(
                "dns", NOTE, f"{domain} resolves to {', '.join(elsewhere)}; the host has a private address only", cure
            )
        elif elsewhere:
            yield Finding(
                "dns",
                WARNING,
                f"{domain} resolves to {', '.join(elsewhere)}, which is not the host ({', '.join(sorted(own))})",
                cure,
            )
        else:
            yield Finding("dns", OK, f"{domain} resolves to {', '.join(sorted(addresses))}")


def _may_be_translated(addresses: Iterable[str], own: Iterable[str]) -> bool:
    return all(ip_address(each).is_global for each in addresses) and not any(ip_address(each).is_global for each in own)


def certificate(case: Case, now: float) -> Iterator[Finding]:
    """``now`` is the operator's time: the host's clock may be what is wrong."""
    found, (path, key) = case.look.certificate, certificate_of(case.settings)
    if found.get("hidden"):
        yield Finding("certificate", NOTE, f"{found['path']} could not be looked at: it takes root")
        return
    if found.get("error"):
        yield Finding("certificate", ERROR, f"{found['path']}: {found['error']}", _new_certificate(case))
    elif found:
        yield Finding("certificate", OK, f"{path} belongs to its key")
    if "ends" not in found:
        return
    if found["mode"] & 0o007:
        yield Finding(
            "certificate",
            WARNING,
            f"every account of the host may read the key {key}",
            as_root("chmod", "o=", PurePosixPath(key)),
        )
    yield from _names(case, found["names"])
    yield _expiry(case, float(found["begins"]), float(found["ends"]), now)


def _new_certificate(case: Case) -> str:
    if certificates.is_made(case.settings):
        return case.fab("tls.obtain")
    names = " ".join(certificates.names(case.settings))
    return f"put certificate and key of {names} there, then: {case.fab('nginx.reload')}"


def _names(case: Case, names: Iterable[str]) -> Iterator[Finding]:
    covered = {each.lower() for each in names}
    # A wildcard stands for one label.
    lacking = [
        each for each in certificates.names(case.settings) if not covered & {each, "*." + each.partition(".")[2]}
    ]
    if lacking:
        other = ", ".join(sorted(covered)) or "no name"
        text = f"the certificate is not for {', '.join(lacking)}, but for {other}"
        yield Finding("tls-names", ERROR, text, _new_certificate(case))
    else:
        yield Finding("tls-names", OK, "the certificate is for all domains")


def _expiry(case: Case, begins: float, ends: float, now: float) -> Finding:
    days = int((ends - now) // 86400)
    cure = case.fab("tls.renew") if certificates.is_made(case.settings) else _new_certificate(case)
    if now < begins:
        return Finding("tls-expiry", ERROR, "the certificate is not valid yet", cure)
    if ends <= now:
        since = f" since {-days} days" if days < -1 else ""
        return Finding("tls-expiry", ERROR, f"the certificate is over{since}", cure)
    left = f"the certificate is good for {days} days" if days else "the certificate is good for less than a day"
    return Finding("tls-expiry", WARNING, left, cure) if days < 21 else Finding("tls-expiry", OK, left)


def webserver(
    case: Case, found: nginx.Webserver, running: str, templates: Templates, host: str = ""
) -> Iterator[Finding]:
    """What root saw of nginx; ``running`` is the digest that it names of the site's file."""
    try:
        nginx.refuse_foreign(case.settings, case.layout, found, host)
        wanted = nginx.site_file(case.settings, case.layout, templates, found)
    except FabdjangoError as error:
        yield from_error("nginx", error)
        return
    state = "runs" if found.active else "does not run"
    yield Finding("nginx", OK, f"nginx {found.version} {state}, its workers as {found.user}")
    if found.test:
        yield Finding(
            "nginx-test",
            ERROR,
            f"nginx -t complains:\n{found.test}",
            "mend the file that it names, then: " + case.fab("nginx.check"),
        )
    else:
        yield Finding("nginx-test", OK, "nginx -t is content")
    try:
        nginx.refuse_unreachable(found, host)
    except FabdjangoError as error:
        yield from_error("nginx-access", error)
    yield _site_file(case, found, wanted, running)


def _site_file(case: Case, found: nginx.Webserver, wanted: Put, running: str) -> Finding:
    configure = case.fab("nginx.configure")
    if found.text is None:
        return Finding("nginx-file", WARNING, "nginx has no file of the site yet", configure)
    if found.text != wanted.content:
        text = f"{found.file_path} is not what fabric.yaml says: changed by hand, or the settings have\n"
        return Finding("nginx-file", WARNING, text + difference(found.text, wanted.content), configure)
    if found.link != "ours":
        return Finding("nginx-file", WARNING, f"{found.file_path} is not enabled", case.fab("nginx.enable"))
    if found.active and running != nginx.digest_in(found.text):
        return Finding(
            "nginx-file", WARNING, "the running nginx does not serve the site's file", case.fab("nginx.reload")
        )
    if not found.active:
        return Finding(
            "nginx-file",
            ERROR,
            "nginx does not run, so nobody reaches the site",
            as_root("systemctl", "enable", "--now", "nginx"),
        )
    if found.maintenance:
        return Finding("nginx-file", NOTE, "maintenance is on: visitors get 503", case.fab("maintenance.off"))
    return Finding("nginx-file", OK, f"{found.file_path} is what fabric.yaml says, and served")
