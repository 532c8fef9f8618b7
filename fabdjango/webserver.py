"""What the tasks of nginx and maintenance do on one host, between their arguments and the steps."""

from __future__ import annotations

from pathlib import PurePosixPath

from fabdjango.commands import maintenance, nginx
from fabdjango.exceptions import FabdjangoError, RevertedError, UnknownStateError
from fabdjango.layout import Layout
from fabdjango.plan import Phase, Step
from fabdjango.runner import Runner

__all__ = ["configure", "disable", "enable", "maintenance_off", "maintenance_on", "reload", "status"]


def _look(runner: Runner) -> tuple[nginx.Webserver, Layout, str]:
    """What there is, the site's folders, and the digest that the running nginx names."""
    site = runner.site
    steps: tuple[Step, ...] = (nginx.look(site.settings, site.layout, runner.account.owner),)
    if site.settings.nginx.domains:
        steps += (nginx.ask_running(site.settings),)
    result = runner.run(Phase("nginx", steps, reads_only=True))
    output = {step.name: step.output for step in result.steps}
    found = nginx.read_look(output.get("nginx-look", ""))
    running = nginx.digest_of(output["nginx-ask"]) if output.get("nginx-ask", "").strip() else ""
    return found, Layout(PurePosixPath(found.root), site.settings.project), running


def _change(runner: Runner, found: nginx.Webserver, change: Step, proof: Step) -> None:
    """Change the site's file or link, and believe it only when the running server shows it; otherwise all is put back."""
    phase = Phase(
        change.name,
        (change, nginx.check(found), nginx.reload(), proof),
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


def configure(runner: Runner) -> None:
    """The site's file, installed, running and proven; with nothing to change, nothing is reloaded."""
    site = runner.site
    nginx.need_domains(site.settings)
    found, layout, running = _look(runner)
    nginx.refuse_foreign(site.settings, layout, found, site.host)
    put = nginx.site_file(site.settings, layout, site.templates, found)
    nginx.refuse_unreachable(found, site.host)
    if put == found.previous and found.link == "ours" and running == nginx.digest_in(put.content):
        runner.report.say(f"unchanged: nginx serves {', '.join(site.settings.nginx.domains)} with this file already")
        return
    _change(runner, found, nginx.write(put, found.place), nginx.prove(site.settings, put.content))
    if not runner.dry:
        runner.report.say(f"configured: nginx serves {', '.join(site.settings.nginx.domains)}", style="bold green")


def _ours(runner: Runner) -> tuple[nginx.Webserver, Layout, str]:
    """The same as _look, if the site's file is there; otherwise a FabdjangoError."""
    site = runner.site
    nginx.need_domains(site.settings)
    found, layout, running = _look(runner)
    nginx.refuse_foreign(site.settings, layout, found, site.host)
    if found.text is None:
        raise FabdjangoError(
            "nginx has no file of the site yet", host=site.host, cure=f"fab -H {site.target} nginx.configure"
        )
    return found, layout, running


def enable(runner: Runner) -> None:
    """The link to the site's file, and a reload."""
    found, _, _ = _ours(runner)
    nginx.refuse_unreachable(found, runner.site.host)
    _change(runner, found, nginx.enable(found.place), nginx.prove(runner.site.settings, found.text or ""))


def disable(runner: Runner) -> None:
    """No link to the site's file, and a reload; an nginx that does not run is left so."""
    found, _, _ = _ours(runner)
    step = nginx.disable(found.place)
    if not found.active:
        runner.do(step)
        return
    _change(runner, found, step, nginx.prove_gone(runner.site.settings, found.text or ""))


def reload(runner: Runner) -> None:
    """Nginx on its files of now, if it takes them; proven by the site's own file."""
    found, _, _ = _ours(runner)
    proof = (nginx.prove(runner.site.settings, found.text or ""),) if found.link == "ours" else ()
    runner.do(nginx.check(found), nginx.reload(), *proof)


def status(runner: Runner) -> None:
    """Print what there is of nginx and of the site's file."""
    found, _, running = _look(runner)
    runner.report.show("\n".join(nginx.status_lines(found, running)))


def maintenance_on(runner: Runner) -> None:
    """The page and the flag, proven by asking; taken back if nginx does not show the page."""
    site = runner.site
    found, layout, _ = _ours(runner)
    put = maintenance.page(site.settings, layout, site.templates, site.host)
    steps = (
        maintenance.put_page(put),
        maintenance.switch_on(layout),
        nginx.prove_maintenance(site.settings, layout, on=True),
    )
    back = () if found.maintenance else (maintenance.switch_off(layout, name="maintenance-back"),)
    phase = Phase("maintenance", steps, undo=back, undo_from="maintenance-on" if back else "", lock=site.lock)
    runner.run(phase)


def maintenance_off(runner: Runner) -> None:
    """No flag, proven by asking."""
    _, layout, _ = _ours(runner)
    runner.do(maintenance.switch_off(layout), nginx.prove_maintenance(runner.site.settings, layout, on=False))
