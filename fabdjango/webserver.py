"""What the tasks of nginx, tls and maintenance do on one host, between their arguments and the steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from fabdjango.commands import certificates, maintenance, nginx
from fabdjango.exceptions import FabdjangoError, RevertedError, UnknownStateError
from fabdjango.layout import Layout
from fabdjango.plan import Phase, Put, Step
from fabdjango.runner import Runner
from fabdjango.settings import Settings

__all__ = [
    "certificate_status",
    "configure",
    "disable",
    "enable",
    "maintenance_off",
    "maintenance_on",
    "obtain",
    "reload",
    "status",
]


@dataclass(frozen=True)
class _There:
    """What there is: nginx, the site's folders, the digest that the running nginx names, and the certificate."""

    server: nginx.Webserver
    layout: Layout
    running: str
    certificate: certificates.Found = field(default_factory=certificates.Found)


def _look(runner: Runner) -> _There:
    site = runner.site
    settings = site.settings
    steps: tuple[Step, ...] = (nginx.look(settings, site.layout, runner.account.owner),)
    if settings.nginx.domains:
        steps += (nginx.ask_running(settings),)
        steps += (certificates.look(settings),) if certificates.is_wanted(settings) else ()
    result = runner.run(Phase("nginx", steps, reads_only=True))
    output = {step.name: step.output for step in result.steps}
    server = nginx.read_look(output.get("nginx-look", ""))
    layout = Layout(PurePosixPath(server.root), settings.project)
    there = _There(server, layout, nginx.digest_of(output["nginx-ask"]) if output.get("nginx-ask", "").strip() else "")
    return replace(there, certificate=certificates.read_look(output["tls-look"])) if "tls-look" in output else there


def _change(runner: Runner, found: nginx.Webserver, change: Step, proof: Step, before: tuple[Step, ...] = ()) -> None:
    """Change the site's file or link, and believe it only when the running server shows it; otherwise all is put back."""
    phase = Phase(
        change.name,
        (*before, change, nginx.check(found), nginx.reload(), proof),
        undo=(nginx.restore(found), nginx.reload_back(found)),
        undo_from=change.name,
        serving_from="nginx-reload",
        lock=runner.site.lock,
    )
    try:
        runner.run(phase)
    except RevertedError as error:
        error.state = "nginx runs with the site's file as it was before"
        raise
    except UnknownStateError as error:
        target = runner.site.target
        error.cure = f"look: fab -H {target} nginx.status\nand: fab -H {target} nginx.check"
        raise


def configure(runner: Runner, *, force: bool = False) -> None:
    """
    The site's file, installed, running and proven, with its certificate; with nothing to change, nothing is reloaded.

    With ``force`` there is a new certificate in any case.
    """
    site, settings = runner.site, runner.site.settings
    nginx.need_domains(settings)
    there = _look(runner)
    nginx.refuse_foreign(settings, there.layout, there.server, site.host)
    certificates.refuse(settings, there.certificate, site.host)
    put = nginx.site_file(settings, there.layout, site.templates, there.server)
    nginx.refuse_unreachable(there.server, site.host)
    domains = ", ".join(settings.nginx.domains)
    if _runs(there, put) and certificates.is_settled(settings, there.certificate) and not force:
        runner.report.say(f"unchanged: nginx serves {domains} with this file already{_until(settings, there)}")
        return
    before = certificates.steps(settings, there.certificate, force=force)
    if settings.nginx.tls == "letsencrypt" and (force or certificates.fault(settings, there.certificate)):
        before = (*_answering(runner, there), *before)
    _change(runner, there.server, nginx.write(put, there.server.place), nginx.prove(settings, put.content), before)
    if not runner.dry:
        runner.report.say(f"configured: nginx serves {domains}", style="bold green")


def _runs(there: _There, put: Put) -> bool:
    """True if the file is there, and the running nginx has it."""
    server = there.server
    return put == server.previous and server.link == "ours" and there.running == nginx.digest_in(put.content)


def _until(settings: Settings, there: _There) -> str:
    file = there.certificate.file
    return f", and its certificate is good until {file.not_after}" if certificates.is_made(settings) and file else ""


def _answering(runner: Runner, there: _There) -> tuple[Step, ...]:
    """
    What lets nginx answer a certificate authority before the certificate is there; none if it does already.

    Until then the site is served with the certificate that it had, or over http alone.
    """
    site, settings, server = runner.site, runner.site.settings, there.server
    used = nginx.certificate_in(server.text or "") if server.link == "ours" and not server.test else None
    without = certificates.with_certificate(settings, used)
    put = nginx.site_file(without, there.layout, site.templates, server)
    if _runs(there, put):
        return ()
    return (nginx.write(put, server.place), nginx.check(server), nginx.reload(), nginx.prove(without, put.content))


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


def _ours(runner: Runner) -> _There:
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
    found = _ours(runner).server
    nginx.refuse_unreachable(found, runner.site.host)
    _change(runner, found, nginx.enable(found.place), nginx.prove(runner.site.settings, found.text or ""))


def disable(runner: Runner) -> None:
    """No link to the site's file, and a reload; an nginx that does not run is left so."""
    found = _ours(runner).server
    step = nginx.disable(found.place)
    if not found.active:
        runner.do(step)
        return
    _change(runner, found, step, nginx.prove_gone(runner.site.settings, found.text or ""))


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
