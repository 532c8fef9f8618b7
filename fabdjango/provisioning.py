"""What setup does on one host: look, decide, refuse, show the plan, do it, and look again."""

from __future__ import annotations

import functools
import getpass
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from fabdjango import webserver
from fabdjango.checking import addresses_of, judge_domains, lines_of
from fabdjango.commands import certificates, database, firewall, server, server_found, server_refused
from fabdjango.commands.check import OK
from fabdjango.commands.public_keys import read_keys
from fabdjango.commands.server import Part
from fabdjango.commands.server_found import Situation, wants_nginx
from fabdjango.escape import Secret
from fabdjango.exceptions import (
    ConfigError,
    ConnectError,
    FabdjangoError,
    RevertedError,
    StepFailedError,
)
from fabdjango.layout import Layout
from fabdjango.plan import ROOT, Phase
from fabdjango.recipes import Site
from fabdjango.report import difference
from fabdjango.runner import Runner
from fabdjango.transport import Account

__all__ = ["setup", "show"]


def setup(runner: Runner) -> None:
    """Make of the host what its settings say; raises FabdjangoError if a second look finds something missing."""
    report = runner.report
    before = _look(runner)
    parts = server.decide(before)
    _tell(runner, before, parts)
    if runner.dry:
        _show_shell(runner, before, parts)
        return
    if not any(part.changes for part in parts):
        report.say(f"unchanged: {runner.site.host} is set up", style="bold green")
        return
    _do(runner, before, parts)
    _keep_firewall(runner, parts)
    _join_groups(runner, parts)
    left = [part for part in server.decide(_look(runner)) if part.changes and part.certain]
    if left:
        raise FabdjangoError(
            f"setup went through, and does not find: {'; '.join(change for part in left for change in part.changes)}",
            host=runner.site.host,
            state="what serves was not touched",
            cure=f"see what is there: fab -H {runner.site.target} server.plan",
        )
    report.say(
        f"set up: {runner.site.host} is ready, deploy with: fab -H {runner.site.target} deploy", style="bold green"
    )


def show(runner: Runner) -> None:
    """What is there and what setup would change."""
    found = _look(runner)
    _tell(runner, found, server.decide(found))


# --- looking -----------------------------------------------------------------


def _look(runner: Runner) -> Situation:
    site = runner.site
    settings, owner = site.settings, runner.account.owner
    keys = _keys(runner)
    steps = (
        server_found.look(settings, site.layout, owner),
        *(webserver.look(site, owner) if wants_nginx(settings) else ()),
        *(database.find_lacking(settings, site.layout, owner) if "database" not in settings.server.skip else ()),
    )
    result = runner.run(Phase("look", tuple(map(server_found.as_login, steps)), reads_only=True))
    output = {step.name: step.output for step in result.steps}
    found = server_found.read_look(output.get("server-look", ""))
    if found.privilege == "password":
        _become_root(runner)
        return _look(runner)
    layout = Layout(PurePosixPath(found.root or site.layout.root), settings.project)
    it = Situation(settings, layout, site.templates, owner, found, keys=keys, host=site.host)
    if found.privilege == ROOT and "database-look" in output:
        it = replace(it, lacking=database.read_lacking(output["database-look"]))
    if found.privilege == ROOT and "nginx-look" in output:
        there = webserver.read_look(settings, output)
        it = replace(it, webserver=server_found.webserver_of(settings, there.server, found))
        server_refused.refuse(it)
        return replace(it, certificate=there.certificate, serving=_serving(site, it, there))
    server_refused.refuse(it)
    return it


def _serving(site: Site, it: Situation, there: webserver.There) -> Phase | None:
    """What brings nginx to the site's file and certificate, once the packages are there."""
    settings, certificate = it.settings, there.certificate
    if "tls" in settings.server.skip and certificates.is_made(settings):
        place, key = map(PurePosixPath, certificates.places(settings))
        settings = certificates.with_certificate(settings, (place, key))
    if "packages" not in settings.server.skip:
        certificate = replace(certificate, openssl="to come", certbot="to come")
    expected = replace(there, server=it.expected, layout=it.layout, certificate=certificate)
    return webserver.configuration(replace(site, settings=settings, layout=it.layout), expected)


def _become_root(runner: Runner) -> None:
    """Ask for sudo's password, once for all hosts; raises FabdjangoError where there is nobody to ask."""
    site, account = runner.site, runner.account
    if not sys.stdin.isatty():
        raise FabdjangoError(
            f"sudo asks {account.login} for a password, and there is no terminal to ask on",
            host=site.host,
            cure=f"be asked by Fabric: fab --prompt-for-sudo-password -H {site.target} setup\n"
            "or log in as root, or allow the account sudo without a password",
        )
    password = _asked()
    runner.report.redactor.add(password.reveal())
    runner.account = Account(account.owner, ROOT, account.fence, password)


@functools.cache
def _asked() -> Secret:
    return Secret(getpass.getpass("Password for sudo on the hosts (it is not shown): "))


def _keys(runner: Runner) -> tuple[str, ...]:
    """The public keys that fabdjango.server.keys names on the operator's side."""
    lines: list[str] = []
    for name in runner.site.settings.server.keys:
        path = runner.site.folder / Path(name).expanduser()
        try:
            lines += read_keys(path.read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"fabdjango.server.keys: cannot read {path}: {getattr(error, 'strerror', None) or error}",
                cure="name public key files, such as ~/.ssh/id_ed25519.pub",
            ) from None
    return tuple(lines)


# --- telling -----------------------------------------------------------------


def _tell(runner: Runner, it: Situation, parts: tuple[Part, ...]) -> None:
    """A line a part, and the difference to every file."""
    report, present = runner.report, _present(it)
    report.say(f"{runner.site.host} runs {it.found.system[2]}", style="bold")
    for part in parts:
        if part.left_out:
            report.say(f"  left out   {part.name}: {part.left_out}", style="dim")
        elif not part.changes:
            report.say(f"  unchanged  {part.name}: {part.there}", style="dim")
        else:
            there = f" ({part.there})" if part.there else ""
            report.say(f"  changes    {part.name}: {'; '.join(part.changes)}{there}", style="yellow")
        if not runner.dry:
            for put in part.files if part.changes else ():
                if put.content != (present.get(str(put.path)) or {}).get("text"):
                    report.show("\n".join(difference(put, present.get(str(put.path)))))
    note = server.python_note(it.settings, it.found, _pyproject(runner))
    if note:
        report.say(f"  note: {note}", style="yellow")
    _tell_domains(runner, it)


def _tell_domains(runner: Runner, it: Situation) -> None:
    """Domains that do not lead to the site yet: setup goes on, as DNS may well come last."""
    places = {runner.site.settings.ssh.address or runner.site.host, *runner.site.beside}
    own = {*it.found.addresses, *(address for place in places for address in addresses_of(place))}
    for found in judge_domains(it.settings.nginx.domains, own, it.found.addresses):
        for line in lines_of(found) if found.severity != OK else ():
            runner.report.say(f"  {line}", style="yellow")


def _pyproject(runner: Runner) -> str:
    try:
        return (runner.site.clone / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _present(it: Situation) -> dict[str, Any]:
    """Digest and text of the files that are there."""
    found = {path: each for path, each in it.found.files.items() if each}
    previous = it.webserver.previous
    return {**found, str(previous.path): {"digest": previous.digest, "text": previous.content}} if previous else found


def _phases(runner: Runner, it: Situation, parts: tuple[Part, ...]) -> list[Phase]:
    site = runner.site
    lock = server.setup_lock(site.holder, site.token, site.settings.lock_wait)
    own = replace(site, layout=it.layout)
    return [phase for phase in (server.base(parts, lock), server.on_site(it, parts, own.lock)) if phase]


def _show_shell(runner: Runner, it: Situation, parts: tuple[Part, ...]) -> None:
    present = _present(it)
    for phase in _phases(runner, it, parts):
        runner.report.show_phase(phase, present)
    runner.report.say("\nnothing was written: this was a dry run", style="bold")


# --- doing -------------------------------------------------------------------


def _do(runner: Runner, it: Situation, parts: tuple[Part, ...]) -> None:
    for phase in _phases(runner, it, parts):
        # The account that owns the site is made here.
        account = replace(runner.account, fence=None, owner=ROOT if phase.name == "server" else runner.account.owner)
        try:
            webserver.run(replace(runner, account=account), phase)
        except RevertedError:
            raise
        except StepFailedError as error:
            error.state = "what was done before this stays, and the next setup goes on from there"
            raise


def _keep_firewall(runner: Runner, parts: tuple[Part, ...]) -> None:
    """Log in anew through a firewall that was switched on or changed, and only then let it stay."""
    if not any(step.name == "firewall" for part in parts for step in part.steps):
        return
    try:
        runner.transport.reconnect()
    except ConnectError as error:
        error.state = "the host opens its firewall again by itself within two minutes; all else is set up"
        raise
    runner.run(Phase("firewall", (firewall.keep(),), lock=runner.site.lock))


def _join_groups(runner: Runner, parts: tuple[Part, ...]) -> None:
    """An account has become a member of a group: a connection of its own does not know that yet, a new one does."""
    if any(step.name == "application" for part in parts for step in part.steps):
        runner.transport.reconnect()
