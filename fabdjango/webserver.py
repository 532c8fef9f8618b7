"""What the tasks of nginx, tls and maintenance do on one host, between their arguments and the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from fabdjango.commands import certificates, maintenance, nginx
from fabdjango.exceptions import FabdjangoError, RevertedError, UnknownStateError
from fabdjango.layout import Layout
from fabdjango.plan import Phase, Put, Step
from fabdjango.recipes import Site
from fabdjango.runner import Runner
from fabdjango.settings import Settings

__all__ = [
    "There",
    "certificate_status",
    "configuration",
    "configure",
    "disable",
    "enable",
    "look",
    "maintenance_off",
    "maintenance_on",
    "obtain",
    "read_look",
    "reload",
    "run",
    "status",
]


@dataclass(frozen=True)
class There:
    """What there is: nginx, the site's folders, the digest that the running nginx names, and the certificate."""

    server: nginx.Webserver
    layout: Layout
    running: str
    certificate: certificates.Found = field(default_factory=certificates.Found)

    def runs(self, put: Put) -> bool:
        """True if this file of the site is there, and the running nginx has it."""
        server = self.server
        return put == server.previous and server.link == "ours" and self.running == nginx.digest_in(put.content)


def look(site: Site, owner: str) -> tuple[Step, ...]:
    """What has to be known before a change; the outputs are for read_look."""
    settings = site.settings
    steps: tuple[Step, ...] = (nginx.look(settings, site.layout, owner),)
    if settings.nginx.domains:
        steps += (nginx.ask_running(settings),)
        steps += (certificates.look(settings),) if certificates.is_wanted(settings) else ()
    return steps


def read_look(settings: Settings, output: Mapping[str, str]) -> There:
    """The outputs of ``look`` by the names of its steps."""
    server = nginx.read_look(output.get("nginx-look", ""))
    layout = Layout(PurePosixPath(server.root), settings.project)
    there = There(server, layout, nginx.digest_of(output["nginx-ask"]) if output.get("nginx-ask", "").strip() else "")
    return replace(there, certificate=certificates.read_look(output["tls-look"])) if "tls-look" in output else there


def _look(runner: Runner) -> There:
    result = runner.run(Phase("nginx", look(runner.site, runner.account.owner), reads_only=True))
    return read_look(runner.site.settings, {step.name: step.output for step in result.steps})


def _changed(site: Site, found: nginx.Webserver, change: Step, proof: Step, before: tuple[Step, ...] = ()) -> Phase:
    """A change of the site's file or link, believed only when the running server shows it; otherwise all is put back."""
    return Phase(
        change.name,
        (*before, change, nginx.check(found), nginx.reload(), proof),
        undo=(nginx.restore(found), nginx.reload_back(found)),
        undo_from=change.name,
        serving_from="nginx-reload",
        lock=site.lock,
    )


def run(runner: Runner, phase: Phase) -> None:
    """Run a phase that brings nginx to another file; its errors say what nginx runs with, and how to look."""
    try:
        runner.run(phase)
    except RevertedError as error:
        error.state = "nginx runs with the site's file as it was before"
        raise
    except UnknownStateError as error:
        target = runner.site.target
        error.cure = f"look: fab -H {target} nginx.status\nand: fab -H {target} nginx.check"
        raise


def configuration(site: Site, there: There, *, force: bool = False) -> Phase | None:
    """
    The site's file, installed, running and proven, with its certificate; None if all of that is so already.

    With ``force`` there is a new certificate in any case. Raises FabdjangoError for what is refused.
    """
    settings, server, certificate = site.settings, there.server, there.certificate
    nginx.refuse_foreign(settings, there.layout, server, site.host)
    certificates.refuse(settings, certificate, site.host)
    put = nginx.site_file(settings, there.layout, site.templates, server)
    nginx.refuse_unreachable(server, site.host)
    if there.runs(put) and certificates.is_settled(settings, certificate) and not force:
        return None
    before = certificates.steps(settings, certificate, force=force)
    if settings.nginx.tls == "letsencrypt" and (force or certificates.fault(settings, certificate)):
        before = (*_answering(site, there), *before)
    return _changed(site, server, nginx.write(put, server.place), nginx.prove(settings, put.content), before)


def _answering(site: Site, there: There) -> tuple[Step, ...]:
    """
    What lets nginx answer a certificate authority before the certificate is there; none if it does already.

    Until then the site is served with the certificate that it had, or over http alone.
    """
    server = there.server
    used = nginx.certificate_in(server.text or "") if server.link == "ours" and not server.test else None
    until = certificates.with_certificate(site.settings, used)
    put = nginx.site_file(until, there.layout, site.templates, server)
    if there.runs(put):
        return ()
    return (nginx.write(put, server.place), nginx.check(server), nginx.reload(), nginx.prove(until, put.content))


def configure(runner: Runner, *, force: bool = False) -> None:
    """The site's file and certificate, running and proven; with nothing to change, nothing is reloaded."""
    settings = runner.site.settings
    nginx.need_domains(settings)
    there = _look(runner)
    phase = configuration(runner.site, there, force=force)
    domains = ", ".join(settings.nginx.domains)
    if phase is None:
        file = there.certificate.file if certificates.is_made(settings) else None
        until = f", and its certificate is good until {file.not_after}" if file else ""
        runner.report.say(f"unchanged: nginx serves {domains} with this file already{until}")
        return
    run(runner, phase)
    if not runner.dry:
        runner.report.say(f"configured: nginx serves {domains}", style="bold green")


def obtain(runner: Runner, *, force: bool = False) -> None:
    """The certificate, if it is missing or due or ``force`` is given, and nginx with it."""
    nginx.need_domains(runner.site.settings)
    certificates.need_made(runner.site.settings)
    configure(runner, force=force)


def certificate_status(runner: Runner) -> None:
    """Print what there is of the certificate, and what nginx presents."""
    nginx.need_domains(runner.site.settings)
    there = _look(runner)
    runner.report.show("\n".join(certificates.status_lines(runner.site.settings, there.certificate)))


def _ours(runner: Runner) -> There:
    """The same as _look, if the site's file is there; otherwise a FabdjangoError."""
    site = runner.site
    nginx.need_domains(site.settings)
    there = _look(runner)
    nginx.refuse_foreign(site.settings, there.layout, there.server, site.host)
    if there.server.text is None:
        raise FabdjangoError(
            "nginx has no file of the site yet", host=site.host, cure=f"fab -H {site.target} nginx.configure"
        )
    return there


def enable(runner: Runner) -> None:
    """The link to the site's file, and a reload."""
    site, found = runner.site, _ours(runner).server
    nginx.refuse_unreachable(found, site.host)
    run(runner, _changed(site, found, nginx.enable(found.place), nginx.prove(site.settings, found.text or "")))


def disable(runner: Runner) -> None:
    """No link to the site's file, and a reload; an nginx that does not run is left so."""
    site, found = runner.site, _ours(runner).server
    step = nginx.disable(found.place)
    if not found.active:
        runner.do(step)
        return
    run(runner, _changed(site, found, step, nginx.prove_gone(site.settings, found.text or "")))


def reload(runner: Runner) -> None:
    """Nginx on its files of now, if it takes them; proven by the site's own file."""
    found = _ours(runner).server
    proof = (nginx.prove(runner.site.settings, found.text or ""),) if found.link == "ours" else ()
    runner.do(nginx.check(found), nginx.reload(), *proof)


def status(runner: Runner) -> None:
    """Print what there is of nginx and of the site's file."""
    there = _look(runner)
    runner.report.show("\n".join(nginx.status_lines(there.server, there.running)))


def maintenance_on(runner: Runner) -> None:
    """The page and the flag, proven by asking; taken back if nginx does not show the page."""
    site = runner.site
    there = _ours(runner)
    layout = there.layout
    put = maintenance.page(site.settings, layout, site.templates, site.host)
    steps = (
        maintenance.put_page(put),
        maintenance.switch_on(layout),
        nginx.prove_maintenance(site.settings, layout, on=True),
    )
    back = () if there.server.maintenance else (maintenance.switch_off(layout, name="maintenance-back"),)
    phase = Phase("maintenance", steps, undo=back, undo_from="maintenance-on" if back else "", lock=site.lock)
    runner.run(phase)


def maintenance_off(runner: Runner) -> None:
    """No flag, proven by asking."""
    layout = _ours(runner).layout
    runner.do(maintenance.switch_off(layout), nginx.prove_maintenance(runner.site.settings, layout, on=False))
