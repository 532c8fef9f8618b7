"""
The order of steps. Each recipe reads as a list.

A site is what the operator knows, facts what the host said; together they give
phases. Nothing here runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands import django, git, gunicorn, supervisor, venv
from fabdjango.commands import release as releases
from fabdjango.escape import Secret, block, env_assignments, quote, raw, sh
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import DjangoFacts, Facts, Migration
from fabdjango.layout import Layout, layout_of
from fabdjango.plan import Phase, Put, Step
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = [
    "ANY_MIGRATION",
    "HOOKABLE",
    "Deployment",
    "Site",
    "activate",
    "assumed",
    "check_hooks",
    "check_settings",
    "confirm",
    "deployment",
    "prepare",
    "survey",
    "tidy",
]

HOOKABLE = (
    "fetch",
    "settings",
    "export",
    "links",
    "venv",
    "install",
    "check",
    "collectstatic",
    "migrate",
    "switch",
    "restart",
    "health",
    "prune",
)
"""The steps that hooks can stand before and after."""


@dataclass(frozen=True)
class Site:
    """What the operator's side knows of one site on one host, before the host is asked."""

    settings: Settings
    layout: Layout
    templates: Templates
    host: str = ""
    target: str = ""
    holder: str = ""
    env: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    local_settings: str | None = field(default=None, repr=False)

    @property
    def supervisor_files(self) -> tuple[PurePosixPath, ...]:
        """Where the site's file for supervisor may be."""
        name = f"{self.settings.project}.conf"
        return (PurePosixPath("/etc/supervisor/conf.d") / name, self.layout.supervisor / "conf.d" / name)


@dataclass(frozen=True)
class Deployment:
    """One commit on its way to one host: everything that was decided before the first change."""

    site: Site
    facts: Facts
    sha: str
    release: str
    key: str
    fingerprint: str
    private: tuple[Put, ...]
    daemon: supervisor.Supervisord
    program_file: Put
    previous_program_file: Put | None
    unchanged: bool = False

    @property
    def layout(self) -> Layout:
        """The site's folders, with the home directory filled in."""
        return self.site.layout

    @property
    def path(self) -> PurePosixPath:
        """The release directory."""
        return self.layout.release(self.release)


ANY_MIGRATION = DjangoFacts(migrations=(Migration("…", "…", ("whatever the plan says",)),))
"""Stands for the answer that only a prepared release can give."""


def assumed(site: Site, facts: Facts, sha: str) -> Facts:
    """Facts of a commit that the host does not have yet, as far as settings and the last commit tell them."""
    auto = site.settings.venv.requirements == ("auto",)
    sources = ["requirements.txt"] if auto else list(site.settings.venv.requirements)
    return replace(
        facts,
        sha=sha,
        subject="",
        manage=True,
        settings_module=facts.settings_module or f"{site.settings.project}.settings",
        requirements=facts.requirements or {"sources": sources, "digest": ""},
    )


def check_settings(settings: Settings) -> None:
    """Raise ConfigError for what could only fail later, when a host has been asked already."""
    check_hooks(settings)
    git.check_repository(settings)
    releases.check_shared(settings.shared)
    somewhere = layout_of(settings).at_home("/home/owner")
    gunicorn.app_of(settings, settings.django.settings or "project.settings")
    gunicorn.bind_of(settings, somewhere)
    gunicorn.check_options(settings)
    django.directory_of(settings, somewhere.current)
    django.local_settings_target(settings, settings.django.settings or "project.settings")
    supervisor.check_names(settings)
    env_assignments(settings.environment)


def check_hooks(settings: Settings) -> None:
    """Raise ConfigError for a hook that no step would ever call."""
    known = [f"{when}_{name}" for name in HOOKABLE for when in ("before", "after")]
    for moment in settings.hooks:
        if moment not in known:
            close = difflib.get_close_matches(moment, known, n=2)
            msg = f"fabdjango.hooks.{moment} is not a moment of a deploy"
            raise ConfigError(
                msg,
                cure=f"did you mean {' or '.join(close)}?"
                if close
                else "before_ or after_ one of: " + ", ".join(HOOKABLE),
            )


# --- look --------------------------------------------------------------------


def survey(site: Site, ref: str, *, fetch: bool = True, lock: bool = True) -> Phase:
    """Fetch, and learn everything that decisions need; with ``fetch`` and ``lock`` off, nothing is written."""
    settings, layout = site.settings, site.layout
    steps: list[Step] = [_tools()]
    if fetch:
        steps += [
            *releases.early_hook(settings, layout, "before_fetch"),
            git.fetch_mirror(settings, layout),
            *releases.early_hook(settings, layout, "after_fetch"),
        ]
    steps.append(
        Step(
            "survey",
            "look at the host and the commit",
            program=onhost.source("survey"),
            parameters={
                "root": str(layout.root),
                "ref": git.read_ref(ref) if ref else "",
                "python": settings.python,
                "requirements": settings.venv.requirements,
                "manage": settings.django.manage,
                "shared": settings.shared,
                "managed": [[str(path), secret] for path, secret in _managed(site)],
            },
            capture=True,
        )
    )
    return Phase("survey", tuple(steps), lock=layout.lock if lock else None, holder=site.holder, reads_only=not fetch)


def _managed(site: Site) -> list[tuple[PurePosixPath, bool]]:
    private = site.layout.current / ".fabdjango"
    shown = [
        *site.supervisor_files,
        site.layout.supervisor / "supervisord.conf",
        private / "gunicorn.conf.py",
        private / "run",
        private / "web",
    ]
    hidden = [private / "env", private / "local_settings.py", site.layout.env_file, site.layout.local_settings]
    return [*((path, False) for path in shown), *((path, True) for path in hidden)]


def _tools() -> Step:
    needed = ("git", "python3", "flock", "base64", "timeout")
    body = raw(
        f'for t in {sh(*needed)}; do command -v "$t" >/dev/null || refuse "$t is not installed on the host"; done'
    )
    return Step(
        "tools",
        "the host has what a deployment needs",
        body,
        cure="on the host, as root: apt-get install git python3-venv",
    )


# --- decide ------------------------------------------------------------------


def deployment(site: Site, facts: Facts, ref: str, *, release: str = "") -> Deployment:
    """
    Everything that follows from settings and facts; raises FabdjangoError for what would fail on the way.

    ``release`` is the id if it is not to be chosen here.
    """
    site = replace(site, layout=Layout(PurePosixPath(facts.root), site.settings.project))
    settings, layout, host = site.settings, site.layout, site.host
    _refuse_unknown_ref(facts, ref, host)
    _refuse_commit(settings, facts, host)
    venv.refuse_hopeless(settings, facts, host)
    key = venv.key_of(settings, facts, facts.sha)
    daemon = supervisor.find(settings, facts, layout, host)
    program_file = supervisor.configuration(settings, facts, layout, site.templates, daemon)
    previous = refuse_foreign(facts, program_file, host)

    def files(release: str) -> tuple[Put, ...]:
        return releases.private_files(
            settings,
            facts,
            layout,
            site.templates,
            release=release,
            key=key,
            env=site.env,
            local_settings=site.local_settings,
        )

    by_hand = [
        "" if settings.env_file else facts.shared_env,
        "" if settings.local_settings else facts.shared_local_settings,
    ]
    more = [settings.shared, settings.hooks, settings.django.__dict__, settings.local_settings_path, by_hand]
    fingerprint = releases.fingerprint_of(facts.sha, key, files(releases.PLACEHOLDER), more)
    same = facts.current_marker.get("fingerprint") == fingerprint and bool(previous) and previous == program_file
    if not release:
        release = (
            facts.current
            if facts.current_marker.get("fingerprint") == fingerprint
            else releases.new_id(facts, facts.sha)
        )
    _refuse_full_disk(facts, host)
    return Deployment(
        site,
        facts,
        facts.sha,
        release,
        key,
        fingerprint,
        files(release),
        daemon,
        program_file,
        previous,
        unchanged=same,
    )


def _refuse_unknown_ref(facts: Facts, ref: str, host: str) -> None:
    if facts.sha:
        return
    if facts.ref_kind == "ambiguous":
        msg = f"{ref} is the beginning of several commits"
        raise FabdjangoError(msg, host=host, cure="give more of the commit's id")
    msg = f"the repository has no branch, tag or commit {ref}"
    near = f"did you mean {' or '.join(facts.near_refs)}?\n" if facts.near_refs else ""
    raise FabdjangoError(msg, host=host, cure=f"{near}push it first, or check the spelling")


def _refuse_commit(settings: Settings, facts: Facts, host: str) -> None:
    if facts.submodules:
        msg = f"the commit has submodules ({', '.join(facts.submodules[:3])}), which a release would silently lack"
        raise FabdjangoError(msg, host=host, cure="vendor them, or list them as requirements (git+https://…@commit)")
    if facts.lfs:
        msg = "the commit has files in git LFS, of which a release would only get pointers"
        raise FabdjangoError(msg, host=host, cure="keep such files out of git, for instance in shared")
    if not facts.manage:
        near = f"manage: {facts.manage_near[0]}" if facts.manage_near else "manage: path/to/manage.py"
        msg = f"the commit has no {settings.django.manage}"
        raise FabdjangoError(msg, host=host, cure=f"set it in fabric.yaml under fabdjango: django: {near}")
    if not (settings.django.settings or facts.settings_module):
        msg = f"no settings module: {settings.django.manage} names none"
        raise ConfigError(msg, host=host, cure="set it in fabric.yaml under fabdjango: django: settings: blog.settings")


def _refuse_full_disk(facts: Facts, host: str) -> None:
    free, inodes = facts.disk
    needed = 2 * facts.tree_size + 50_000_000
    if free < needed:
        msg = f"the disk is too full: {free // 1_000_000} MB free, {needed // 1_000_000} MB needed"
        raise FabdjangoError(msg, host=host, cure="make room, for instance with a smaller fabdjango.keep_releases")
    if 0 <= inodes < facts.tree_files + 2000:
        msg = f"the file system has {inodes} inodes left, too few for a release"
        raise FabdjangoError(msg, host=host, cure="remove small files; df -i shows where")


def refuse_foreign(facts: Facts, program_file: Put, host: str) -> Put | None:
    """The file as it is on the host, or None; raises FabdjangoError if somebody else wrote it."""
    text = (facts.managed.get(str(program_file.path)) or {}).get("text")
    if text is None:
        return None
    if "Managed by fabdjango" not in text:
        msg = f"{program_file.path} is there and was not written by fabdjango"
        raise FabdjangoError(msg, host=host, cure="rename the file, or choose another fabdjango.project")
    return replace(program_file, content=text)


# --- prepare -----------------------------------------------------------------


def export(plan: Deployment) -> Iterator[Step]:
    """The commit in a directory of its own, with its settings and its links into shared."""
    settings, facts, layout = plan.site.settings, plan.facts, plan.layout
    yield from releases.early_hook(settings, layout, "before_settings")
    yield releases.write_private(settings, layout, plan.release, plan.private)
    yield from _after(plan, "settings")
    yield from _with_hooks(plan, git.export_release(layout, plan.release, plan.sha))
    yield releases.link_settings(settings, facts, layout, plan.release)
    yield from _with_hooks(plan, releases.link_shared(settings, layout, plan.release), "links")


def _virtualenv(plan: Deployment) -> Iterator[Step]:
    settings, facts, layout = plan.site.settings, plan.facts, plan.layout
    uv = (
        venv.get_uv(settings, facts, layout)
        if plan.key not in facts.venvs or plan.daemon.level == "virtualenv"
        else None
    )
    if uv:
        yield uv
    yield from _with_hooks(plan, venv.create_venv(settings, facts, layout, plan.key))
    yield from _with_hooks(plan, venv.install_requirements(settings, facts, layout, plan.key, plan.path))


def _completed(plan: Deployment) -> Iterator[Step]:
    settings, facts, layout = plan.site.settings, plan.facts, plan.layout
    app = gunicorn.app_of(settings, settings.django.settings or facts.settings_module)
    yield from _before(plan, "check")
    yield from _before(plan, "collectstatic")
    yield django.start(settings, plan.path, app)
    yield from _after(plan, "check")
    yield from _after(plan, "collectstatic")
    yield from supervisor.install(settings, facts, layout, plan.site.templates, plan.daemon)
    yield supervisor.check(layout, plan.daemon, plan.program_file)
    yield releases.complete(layout, plan.release, plan.key, marker_of(plan))


def prepare(plan: Deployment) -> Phase:
    """A complete release beside the one that serves. Nothing that serves is touched."""
    recover = releases.clear_leftovers(plan.facts, plan.layout)
    still = releases.still_as_surveyed(plan.facts, plan.layout, plan.release)
    steps = (*([recover] if recover else []), still, *export(plan), *_virtualenv(plan), *_completed(plan))
    return Phase(
        "prepare", steps, undo=(discard(plan),), undo_from="settings", lock=plan.layout.lock, holder=plan.site.holder
    )


def finish(plan: Deployment) -> Phase:
    """The rest of prepare for a release that was checked out by hand."""
    return Phase("finish", tuple(_completed(plan)), lock=plan.layout.lock, holder=plan.site.holder)


def marker_of(plan: Deployment) -> dict[str, object]:
    """What a release says of itself."""
    return {
        "release": plan.release,
        "commit": plan.sha,
        "venv": plan.key,
        "fingerprint": plan.fingerprint,
        "python": plan.facts.python.get("version", ""),
        "settings": plan.site.settings.django.settings or plan.facts.settings_module,
        "asked": releases.how_to_ask(plan.site.settings, plan.layout),
        "by": plan.site.holder,
    }


def discard(plan: Deployment) -> Step:
    """Undo what was begun of a release."""
    target = plan.layout.venv(plan.key)
    return Step(
        "discard",
        f"remove the unfinished release {plan.release}",
        block(
            sh("rm", "-rf", "--", plan.path),
            raw(f"[ -e {quote(str(target / '.complete'))} ] || {sh('rm', '-rf', '--', target)}"),
        ),
    )


# --- activate ----------------------------------------------------------------


def activate(plan: Deployment, found: DjangoFacts, event: str = "deploy") -> Phase:
    """
    Migrate, switch, restart, and believe it only when the new release answers; else put everything back.

    ``event`` is what the journal calls it: deploy, activate or rollback.
    """
    settings, facts, layout, daemon = plan.site.settings, plan.facts, plan.layout, plan.daemon
    migrate = settings.django.migrate == "once" and bool(found.migrations)
    first = () if facts.first_deploy_done or facts.current else releases.run_first(settings, layout, plan.path)
    entry = {
        "event": event,
        "release": plan.release,
        "commit": plan.sha,
        "from": facts.current,
        "by": plan.site.holder,
    }
    steps: list[Step | None] = [
        releases.still_as_surveyed(facts, layout),
        *(_migrate(plan, {**entry, "event": "migrate"}, found) if migrate else ()),
        *first,
        *_with_hooks(plan, releases.switch_current(layout, plan.release)),
        supervisor.configure(daemon, plan.program_file),
        *_with_hooks(plan, supervisor.restart(settings, daemon)),
        supervisor.wait_running(settings, daemon),
        *_with_hooks(plan, releases.ask_health(settings, layout, plan.release)),
        releases.journal(layout, {**entry, "result": "serves"}),
        releases.publish_settings(layout, plan.site.env, plan.site.local_settings) if event == "deploy" else None,
    ]
    back = (
        releases.switch_current(layout, facts.current, name="switch-back")
        if facts.current
        else releases.switch_to_nothing(layout)
    )
    undo = [
        supervisor.tail(settings, daemon),
        back,
        supervisor.restore(settings, daemon, plan.previous_program_file),
        releases.ask_health(settings, layout, facts.current, name="health-back", how=facts.current_marker.get("asked"))
        if facts.current
        else None,
        releases.journal(layout, {**entry, "result": "reverted"}),
    ]
    return Phase(
        "activate",
        _present(steps),
        undo=_present(undo),
        undo_from="switch",
        serving=True,
        record=layout.run / "activations",
        lock=layout.lock,
        holder=plan.site.holder,
    )


def _migrate(plan: Deployment, entry: Mapping[str, object], found: DjangoFacts) -> tuple[Step, ...]:
    # Written down at once: whatever becomes of the release, the database has them.
    names = [f"{each.app}.{each.name}" for each in found.migrations]
    record = releases.journal(plan.layout, {**entry, "result": "applied", "migrations": names})
    return (*_with_hooks(plan, django.migrate(plan.site.settings, plan.path)), record)


def tidy(plan: Deployment) -> Phase:
    """Remove what nobody needs any more; a failure here is a warning."""
    steps = _with_hooks(plan, releases.prune(plan.site.settings, plan.layout, plan.release))
    return Phase("prune", tuple(steps), lock=plan.layout.lock, holder=plan.site.holder)


def confirm(plan: Deployment) -> Phase:
    """See whether the release that is already current serves."""
    settings = plan.site.settings
    steps = (
        supervisor.wait_running(settings, plan.daemon, 5),
        releases.ask_health(settings, plan.layout, plan.release, timeout=10),
    )
    return Phase("confirm", steps, reads_only=True)


# --- hooks -------------------------------------------------------------------


def _before(plan: Deployment, name: str) -> tuple[Step, ...]:
    return releases.hook(plan.site.settings, f"before_{name}", plan.path)


def _after(plan: Deployment, name: str) -> tuple[Step, ...]:
    return releases.hook(plan.site.settings, f"after_{name}", plan.path)


def _with_hooks(plan: Deployment, step: Step | None, name: str = "") -> tuple[Step, ...]:
    name = name or (step.name if step else "")
    return (*_before(plan, name), *([step] if step else []), *_after(plan, name))


def _present(steps: Iterable[Step | None]) -> tuple[Step, ...]:
    return tuple(step for step in steps if step is not None)
