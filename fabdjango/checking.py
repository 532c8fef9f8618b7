"""
A check: what would stop a deploy, and what is not as it should be, on all hosts at once.

At most two sessions a host. No lock is taken and nothing is written. A host that cannot be reached is a finding too.
"""

from __future__ import annotations

import functools
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from fabdjango import recipes
from fabdjango.commands import activation, check, git, judge_host, judge_site, judge_web, nginx
from fabdjango.commands.check import ERROR, NOTE, OK, WARNING, Case, Finding, Look, from_error
from fabdjango.diagnosis import cure_for, excerpt
from fabdjango.exceptions import ConnectError, FabdjangoError
from fabdjango.facts import Facts
from fabdjango.fleet import Fleet, Member
from fabdjango.plan import OWNER, Phase, Step
from fabdjango.recipes import Deployment
from fabdjango.runner import Runner
from fabdjango.script import Event
from fabdjango.surveying import chosen, found_by
from fabdjango.transport import PhaseResult, StepResult

__all__ = ["Findings", "addresses_of", "as_json", "judge_domains", "lines_of", "look_at_all", "tell"]


@dataclass
class Findings:
    """What a check found, by host."""

    ref: str
    by_host: dict[str, list[Finding]] = field(default_factory=dict)

    def of(self, severity: str) -> list[tuple[str, Finding]]:
        """All findings of one severity, each with its host."""
        return [(host, each) for host, found in self.by_host.items() for each in found if each.severity == severity]


def look_at_all(fleet: Fleet, ref: str, *, quiet: bool = False) -> Findings:
    """
    Everything that is to be said of every host before a deploy of ``ref`` (the branch of the settings, if empty).

    ``quiet`` keeps what goes on from the terminal.
    """
    ref = git.read_ref(ref or fleet.members[0].runner.site.settings.branch)
    visits = {member.host: _Visit(member.runner, ref, quiet=quiet) for member in fleet.members}

    def look(member: Member) -> None:
        visits[member.host].look()

    for member in fleet.each(look):
        assert member.error is not None  # noqa: S101 - for the type checker
        visits[member.host].findings.append(from_error("check", member.error))
    own = {address for each in visits.values() for address in each.addresses}
    for each in visits.values():
        each.look_from_outside(own)
    return Findings(ref, {host: each.findings for host, each in visits.items()})


# --- one host ----------------------------------------------------------------


@dataclass
class _Heard:
    """What one session said: the output of every step that ended well, the error of the one that did not."""

    result: PhaseResult
    outputs: Mapping[str, str]
    error: FabdjangoError | None
    began: float
    told: float
    """The operator's time when the first step began, and when it ended."""


class _Visit:
    """One host: the questions in their order, and what follows from the answers."""

    def __init__(self, runner: Runner, ref: str, *, quiet: bool) -> None:
        self.runner = runner
        self.ref = ref
        self.findings: list[Finding] = []
        self._case: Case | None = None
        self._quiet = quiet

    # --- what is asked ---

    def look(self) -> None:
        """Ask the host, and judge what it says."""
        # What the operator's side lacks is told before the host is asked.
        self.runner.site.private()
        commit, sha_known = self._commit()
        started = time.time()
        try:
            first = self._hear(*self._first_questions(commit))
        except ConnectError as error:
            self.findings.append(from_error("ssh", error))
            return
        if "check-host" not in first.outputs:
            self._failed(first, "host")
            return
        look = check.read_look(first.outputs["check-host"])
        case = self._case = self._case_of(Facts(), look)
        self.findings += judge_host.link(case, first.began - started)
        self.findings.append(judge_host.clock(case, first.began, first.told))
        if "survey" not in first.outputs:
            if look.owner == "here":
                self._failed(first, "survey")
            return
        self._look_further(found_by(self.runner, first.result), first, look, commit, sha_known)

    def _commit(self) -> tuple[str, bool]:
        """What the survey is to look for, and whether it makes sense to look; commits that are pushed are known here."""
        if not self.runner.site.pushes:
            return self.ref, True
        try:
            commit = chosen(self.runner, self.ref)
        except FabdjangoError as error:
            self.findings.append(from_error("repository", error))
            return "", False
        assert commit is not None  # noqa: S101 - for the type checker; it pushes
        self.findings.append(Finding("repository", OK, f"{self.ref} is {commit.sha[:12]} in your clone"))
        return commit.sha, True

    def _first_questions(self, commit: str) -> Iterator[Step]:
        site, account = self.runner.site, self.runner.account
        yield check.look_at_host(site.layout, account.owner)
        survey = recipes.survey(site, commit, fetch=False, lock=False)
        yield from (step for step in survey.steps if step.name in ("rights", "survey", "tell-secrets"))
        if not site.pushes:
            yield check.ask_repository(site.settings)

    def _look_further(self, facts: Facts, first: _Heard, look: Look, commit: str, sha_known: bool) -> None:
        second = self._hear(*self._second_questions(facts, look))
        case = self._case = self._case_of(facts, check.read_look(*(first.outputs["check-host"], *_looks(second))))
        own = facts
        if "survey" in second.outputs:
            own = replace(found_by(self.runner, second.result), sudo=facts.sudo, root_programs=facts.root_programs)
        self.findings += judge_host.host(case)
        self.findings += judge_site.site(case)
        self.findings += self._judge_drift(case, own)
        self.findings += self._judge_django(case, second)
        self.findings += self._judge_nginx(case, second)
        if second.error and not self._is_django(second):
            self._failed(second, "host")
        self._judge_deploy(case, own, first, commit, sha_known)

    def _second_questions(self, facts: Facts, look: Look) -> Iterator[Step]:
        site = self.runner.site.on(facts)
        settings, layout = site.settings, site.layout
        serves = str(facts.current_marker.get("commit", ""))
        if serves and serves != facts.sha:
            yield recipes.survey(site, serves, fetch=False, lock=False).steps[-1]
        yield check.look_at_site(settings, layout, facts, self._database_url())
        if look.may_be_root:
            yield check.look_as_root(settings, layout, facts)
        if settings.nginx.domains:
            if look.may_be_root:
                yield nginx.look(settings, layout, self.runner.account.owner)
            yield nginx.ask_running(settings)
        if serves:
            # Last, because it is the one that may well fail; as the application, if that is possible.
            account = settings.run_as if look.may_be_root and facts.app else OWNER
            yield check.start_django(settings, layout, facts.current, account)

    def _database_url(self) -> str:
        site = self.runner.site
        secret = site.private().env.get("DATABASE_URL")
        return secret.reveal() if secret else site.settings.environment.get("DATABASE_URL", "")

    def _hear(self, *steps: Step) -> _Heard:
        """Run steps in one session, whatever becomes of them; raises ConnectError."""
        runner, phase = self.runner, Phase("check", steps, reads_only=True)
        times = {"begin": time.time()}

        def listen(event: Event, step: StepResult | None) -> None:
            if step is not None and step.name == steps[0].name and event.kind in ("begin", "end"):
                times[event.kind] = time.time()
            if event.kind == "begin" and step is not None and not self._quiet:
                runner.report.doing(next(each.title for each in steps if each.name == step.name))

        result = runner.transport.run(phase, runner.account, listen)
        runner.report.close()
        error = None if result.status == 0 else runner.error(result)
        outputs = {step.name: step.output for step in result.steps if step.status == 0}
        return _Heard(result, outputs, error, times["begin"], times.get("end", time.time()))

    def _case_of(self, facts: Facts, look: Look) -> Case:
        site, account = self.runner.site, self.runner.account
        layout = site.on(facts).layout if facts.root else site.layout
        return Case(site.settings, layout, facts, look, site.target, account.login, account.owner)

    def _failed(self, heard: _Heard, subject: str) -> None:
        if heard.error:
            self.findings.append(from_error(subject, heard.error))

    # --- what follows ---

    def _judge_drift(self, case: Case, own: Facts) -> Iterator[Finding]:
        """``own`` is the survey of the commit that serves."""
        facts = case.facts
        if not facts.current_marker:
            return
        plan = self._plan_of_current(own)
        if plan is None:
            yield Finding("config", NOTE, f"{facts.current} could not be compared with fabric.yaml")
            return
        by_hand = plan.fingerprint == facts.current_marker.get("fingerprint")
        yield from judge_site.edited(case, recipes.edited(facts, case.layout, plan.private), by_hand=by_hand)
        starter = activation.place(case.layout, plan.site.templates, plan.bind).puts
        configure = f"{case.settings.manager}.configure"
        yield from judge_site.programs(
            case, [*((put, configure) for put in plan.manager.files), *((put, "restart") for put in starter)]
        )

    def _plan_of_current(self, own: Facts) -> Deployment | None:
        try:
            return recipes.deployment(self.runner.site, own, own.sha, release=own.current)
        except FabdjangoError:
            return None

    def _is_django(self, heard: _Heard) -> bool:
        failed = heard.result.failed
        return failed is not None and failed.name == "check-django"

    def _judge_django(self, case: Case, heard: _Heard) -> Iterator[Finding]:
        if "check-django" in heard.outputs:
            yield from judge_site.django(case, check.read_started(heard.outputs["check-django"]))
        elif self._is_django(heard):
            failed = heard.result.failed
            assert failed is not None  # noqa: S101 - for the type checker
            yield judge_site.django_failed(case, failed.output, cure_for("check", failed.output))

    def _judge_nginx(self, case: Case, heard: _Heard) -> Iterator[Finding]:
        if check.certificate_of(case.settings):
            yield from judge_web.certificate(case, heard.told)
        if "nginx-look" not in heard.outputs:
            return
        found = nginx.read_look(heard.outputs["nginx-look"])
        running = nginx.digest_of(heard.outputs["nginx-ask"]) if heard.outputs.get("nginx-ask", "").strip() else ""
        yield from judge_web.webserver(case, found, running, self.runner.site.templates, self.runner.site.host)

    def _judge_deploy(self, case: Case, own: Facts, first: _Heard, commit: str, sha_known: bool) -> None:
        """What a deploy would be refused for takes the place of what else was said of the same subject."""
        site = self.runner.site
        wanted, notes = self._wanted(case.facts, own, first, commit, sha_known)
        refused = [from_error(subject, error) for subject, error in recipes.refusals(site, wanted, self.ref)]
        replaced = {each.subject for each in refused}
        self.findings = [each for each in self.findings if each.subject not in replaced]
        self.findings += [*notes, *refused]
        if not any(each.severity == ERROR for each in self.findings):
            try:
                plan = recipes.deployment(site, wanted, self.ref)
            except FabdjangoError as error:
                self.findings.append(from_error("deploy", error))
            else:
                sha = "" if plan.sha == _NOBODYS else f" ({plan.sha[:12]})"
                self.findings.append(Finding("deploy", OK, f"a deploy of {self.ref}{sha} can begin"))

    def _wanted(
        self, facts: Facts, own: Facts, first: _Heard, commit: str, sha_known: bool
    ) -> tuple[Facts, list[Finding]]:
        """The facts of the commit that would be deployed; of one that the host does not have, as far as they can be told."""
        site, notes = self.runner.site, []
        sha = commit if site.pushes else facts.sha
        if not site.pushes:
            status, said = check.read_repository(first.outputs.get("repository", ""))
            if status == 0:
                notes.append(Finding("repository", OK, f"the host can read {site.settings.repository}"))
                sha = git.read_listing(said, self.ref) or facts.sha
            else:
                notes.append(_unread(site.settings.repository, said))
                sha_known = bool(facts.sha)
        if sha_known and not sha and facts.ref_kind == "unknown" and _IS_COMMIT.fullmatch(self.ref):
            # A repository tells only where its branches and tags are.
            sha_known = False
            notes.append(
                Finding("commit", NOTE, f"the host does not have {self.ref} yet, and a deploy would fetch first")
            )
        if not sha_known:
            return recipes.assumed(site, own if own.sha else facts, _NOBODYS), notes
        if not sha or sha == facts.sha:
            return facts, notes
        text = f"{self.ref} is {sha[:12]}, which the host does not have yet: its files are taken to be as before"
        return recipes.assumed(site, own if own.sha else facts, sha), [*notes, Finding("commit", NOTE, text)]

    # --- from outside ---

    @property
    def addresses(self) -> set[str]:
        """Where the host is, as itself and the operator see it."""
        site = self.runner.site
        there = set(addresses_of(site.settings.ssh.address or site.host))
        return there | set(self._case.look.addresses if self._case else ())

    def look_from_outside(self, own: Iterable[str]) -> None:
        """What the DNS says, as the operator's machine hears it; ``own`` is the addresses of all hosts."""
        if self._case:
            self.findings += judge_domains(self._case.settings.nginx.domains, own, self._case.look.addresses)


_IS_COMMIT = re.compile("[0-9a-fA-F]{4,40}")
_NOBODYS = "0" * 40
"""Stands for a commit of which nothing can be told."""


def _looks(heard: _Heard) -> list[str]:
    return [heard.outputs[name] for name in ("check-site", "check-root") if name in heard.outputs]


def _unread(repository: str, said: str) -> Finding:
    cure = cure_for("fetch", said) or "check fabdjango.repository, as seen from the host"
    return Finding("repository", ERROR, f"the host cannot read {repository}\n{excerpt(said)}".rstrip(), cure)


def judge_domains(domains: Iterable[str], own: Iterable[str], addresses_here: Iterable[str]) -> list[Finding]:
    """What is to be said of the DNS of ``domains``, as this machine is told it; the addresses are those of judge_web.dns."""
    resolved = {each: addresses_of(each.replace("*", "fabdjango")) for each in domains}
    return list(judge_web.dns(resolved, set(own), addresses_here))


@functools.cache
def addresses_of(name: str) -> tuple[str, ...]:
    """The addresses of a name, as this machine is told; none if it does not resolve."""
    try:
        found = socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))


# --- how it is told ------------------------------------------------------------


_STYLES = {OK: "green", NOTE: "", WARNING: "yellow", ERROR: "bold red"}


def lines_of(found: Finding) -> list[str]:
    """A finding as the operator reads it: a line, what belongs to it, and what to do."""
    text, *more = found.text.split("\n")
    cured = found.cure.split("\n") if found.cure and found.severity != OK else []
    return [
        f"{found.severity:<8} {found.subject}: {text}",
        *(f"         | {line}" for line in more),
        *(f"         {'        ' if number else 'do this:'} {line}" for number, line in enumerate(cured)),
    ]


def tell(fleet: Fleet, found: Findings) -> None:
    """Every finding of every host, and the sum as the last line."""
    for member in fleet.members:
        for each in found.by_host[member.host]:
            for line in lines_of(each):
                member.runner.report.say(line, style=_STYLES[each.severity])
    errors, warnings = found.of(ERROR), found.of(WARNING)
    style = "bold red" if errors else "bold yellow" if warnings else "bold green"
    fleet.tell.say(summary(found, alone=fleet.alone), style=style)


def summary(found: Findings, *, alone: bool) -> str:
    """How many errors and warnings there are, and where; without errors, that a deploy can begin."""
    errors, warnings = found.of(ERROR), found.of(WARNING)
    named = dict.fromkeys(each.subject if alone else f"{host} {each.subject}" for host, each in errors)
    verdict = ", ".join(named) or f"a deploy of {found.ref} can begin"
    return f"{_count(len(errors), 'error')}, {_count(len(warnings), 'warning')}: {verdict}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def as_json(found: Findings, hide: Callable[[str], str]) -> str:
    """All of it as one JSON object; every text has been through ``hide``."""

    def told(each: Finding) -> dict[str, str]:
        return {"subject": each.subject, "severity": each.severity, "text": hide(each.text), "cure": hide(each.cure)}

    hosts = {host: {"findings": [told(each) for each in those]} for host, those in found.by_host.items()}
    return hide(json.dumps({"hosts": hosts, "errors": len(found.of(ERROR)), "warnings": len(found.of(WARNING))}))
