"""
The order of steps. Each recipe reads as a list.

A site is what the operator knows, facts what the host said; together they give
phases. Nothing here runs.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from fabdjango import onhost
from fabdjango.commands import (
    database,
    django,
    environment,
    git,
    gunicorn,
    managers,
    nginx,
    pythons,
    static,
    sudoers,
    venv,
)
from fabdjango.commands import release as releases
from fabdjango.commands.manager import MARK, Manager, other_slot
from fabdjango.commands.wheels import Wheels, install_wheels, pack_wheels, receive_wheels, without_index
from fabdjango.escape import Secret, block, env_assignments, quote, quote_path, raw, sh
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import DjangoFacts, Facts, Migration
from fabdjango.layout import Layout, layout_of
from fabdjango.plan import LOGIN, Lock, Phase, Put, Step
from fabdjango.privileged import FOLDER
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = [
    "ANY_MIGRATION",
    "HOOKABLE",
    "Deployment",
    "Private",
    "Site",
    "assumed",
    "check_hooks",
    "check_settings",
    "confirm",
    "deployment",
    "edited",
    "give_wheels",
    "make_secrets",
    "own_files",
    "prepare",
    "receive",
    "redeployment",
    "refusals",
    "renamed",
    "survey",
    "tell_secrets",
    "tidy",
    "with_hooks",
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
_PREPARED = HOOKABLE[HOOKABLE.index("settings") : HOOKABLE.index("migrate")]


@dataclass(frozen=True)
class Private:
    """
    What the operator's side has that nobody may see.

    ``secrets`` are those that are not made on the host, ``env_file`` is what that file says, rendered;
    ``local_settings`` is the settings module, or None.
    """

    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    env_file: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    local_settings: str | None = field(default=None, repr=False)

    @property
    def env(self) -> Mapping[str, Secret]:
        """All variables of it; the file wins."""
        return {**self.secrets, **self.env_file}


@dataclass(frozen=True)
class Site:
    """What the operator's side knows of one site on one host, before the host is asked."""

    settings: Settings
    layout: Layout
    templates: Templates
    host: str = ""
    target: str = ""
    holder: str = ""
    task: str = ""
    token: str = ""
    private: Callable[[], Private] = field(default=Private, repr=False)
    """Asks for it, possibly somebody with a passphrase; what needs it says so before a host is contacted."""
    clone: Path = Path()
    """A folder of the operator's clone, for git.transfer: push."""
    allow_dirty: bool = False
    """A commit is sent from a clone with work that is not in it."""
    elsewhere: frozenset[str] = frozenset()
    """Names of programs and jobs that are for the primary only, which this host is not."""
    folder: Path = Path()
    """Where paths on the operator's side start from."""
    beside: tuple[str, ...] = ()
    """What all hosts of the stage are connected at."""

    @property
    def pushes(self) -> bool:
        """Commits come from the operator's clone, and the host fetches nothing."""
        return self.settings.git.transfer == "push"

    def on(self, facts: Facts) -> Site:
        """The same with the folders as the host has them: a ``~`` is filled in."""
        return replace(self, layout=Layout(PurePosixPath(facts.root), self.settings.project))

    @property
    def lock(self) -> Lock:
        """What makes this run of the tool the only writer of the site."""
        layout = self.layout
        return Lock(
            layout.lock, layout.steps_lock, self.holder, self.token, wait=self.settings.lock_wait, task=self.task
        )


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
    manager: Manager
    previous_files: tuple[Put | None, ...]
    slot: str
    unchanged: bool = False
    touched: bool = False
    """What serves is this, but somebody has changed its files by hand: a new release takes its place."""
    change: environment.Change = field(default_factory=dict)
    """Variables of shared/.env that the release has otherwise than shared, which follows once it serves."""
    leads: bool = True
    """Its host is the one that migrates, and on the first deploy runs the project's first commands."""

    @property
    def layout(self) -> Layout:
        """The site's folders, with the home directory filled in."""
        return self.site.layout

    @property
    def path(self) -> PurePosixPath:
        """The release directory."""
        return self.layout.release(self.release)

    @property
    def old_slot(self) -> str:
        """The slot of the release that has served so far; empty if there is none beside the new one."""
        return self.facts.live_slot if self.facts.live_slot != self.slot else ""

    @property
    def has_files(self) -> bool:
        """The survey has found the manager's files on the host as they should be."""
        return self.previous_files == self.manager.files

    @property
    def bind(self) -> str:
        """Where the site is asked from outside."""
        return gunicorn.bind_of(self.site.settings, self.layout)


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
    managers.check_names(settings)
    managers.check_account(settings)
    nginx.check_settings(settings)
    database.check_settings(settings, layout_of(settings))
    static.check_shared(settings, layout_of(settings))
    env_assignments(settings.environment)
    environment.check_secrets(settings)


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
    """
    Fetch, unless commits are pushed, and learn everything that decisions need; with ``fetch`` and ``lock`` off, nothing is written.
    """
    settings, layout = site.settings, site.layout
    steps: list[Step] = [_tools(), _room(layout), _rights()]
    if fetch and not site.pushes:
        steps += [
            *releases.early_hook(settings, layout, "before_fetch"),
            git.fetch_mirror(settings, layout),
            *releases.early_hook(settings, layout, "after_fetch"),
        ]
    steps += environment.hide_made(settings, layout)
    steps.append(_look(site, ref))
    return Phase("survey", tuple(steps), lock=site.lock if lock else None, hold=lock, reads_only=not lock)


def _look(site: Site, ref: str) -> Step:
    settings = site.settings
    return Step(
        "survey",
        "look at the host and the commit",
        program=onhost.source("survey"),
        parameters={
            **_commit_parameters(site, ref),
            "python": settings.python,
            "managed": [[str(path), secret] for path, secret in _managed(site)],
            "run_as": settings.run_as,
        },
        capture=True,
    )


def _look_at_commit(site: Site, ref: str) -> Step:
    return Step(
        "survey-commit",
        "look at the commit",
        program=onhost.source("survey_commit"),
        parameters=_commit_parameters(site, ref),
        capture=True,
    )


def _commit_parameters(site: Site, ref: str) -> dict[str, object]:
    settings = site.settings
    return {
        "root": str(site.layout.root),
        "ref": git.read_ref(ref) if ref else "",
        "requirements": settings.venv.requirements,
        "manage": settings.django.manage,
        "shared": settings.shared,
        "pushed": site.pushes,
    }


def receive(site: Site, facts: Facts, pack: bytes, sha: str, branch: str) -> Phase:
    """
    Take a commit that the mirror lacks from the operator's clone, and look at it, under the lock that was won before.

    The host has been looked at already, and is looked at again only after hooks, which may have changed it.
    """
    settings, layout = site.settings, site.layout
    keep = [marker["commit"] for marker in facts.releases.values() if marker and "commit" in marker]
    before, after = (releases.early_hook(settings, layout, name) for name in ("before_fetch", "after_fetch"))
    again = _look(site, sha) if before or after else _look_at_commit(site, sha)
    return Phase("receive", (*before, git.receive(layout, pack, sha, branch, keep), *after, again), lock=site.lock)


def make_secrets(site: Site, facts: Facts, given: Mapping[str, Secret] = {}) -> Phase:
    """Make the secrets of the host itself, of ``given`` the same that another host has, and look again, under the lock that was won before."""
    layout = site.on(facts).layout
    step = environment.generate(site.settings, layout, given)
    again = _look(site, facts.sha)
    return Phase("secrets", (step, environment.tell(layout), again), lock=site.lock)


def tell_secrets(site: Site, facts: Facts, names: Iterable[str]) -> Phase:
    """Fetch secrets of the host itself, for other hosts; nothing is written."""
    return Phase("secrets", (environment.tell(site.on(facts).layout, names),), lock=site.lock)


def _managed(site: Site) -> list[tuple[PurePosixPath, bool]]:
    private = site.layout.current / ".fabdjango"
    shown = [
        *managers.places(site.settings, site.layout),
        site.layout.slot_starter,
        private / "gunicorn.conf.py",
        private / "run",
        private / "web",
        *(private / f"process-{name}" for name in site.settings.processes),
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


def _rights() -> Step:
    """What the account that logs in may do as root: everything, or the programs that the host keeps for it."""
    allowed = f"grep -o {quote(f'{FOLDER}/[^ ,]*')}"
    body = raw(
        'if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then echo all; else '
        f"sudo -n -l 2>/dev/null | {allowed} || :; fi"
    )
    return Step("rights", "what may be done as root", body, user=LOGIN, capture=True)


def _room(layout: Layout) -> Step:
    """Refuse a full disk before anything is written; what a release needs beyond that is known after the survey."""
    body = block(
        raw(f"d={quote_path(layout.root)}"),
        raw('while [ ! -d "$d" ]; do d=$(dirname -- "$d"); done'),
        raw("set -- $(stat -f -c '%a %S %c %d' -- \"$d\")"),
        raw(
            '[ $(($1 * $2 / 1048576)) -ge 20 ] || refuse "the disk is full: $(($1 * $2 / 1048576)) MB are free for $d"'
        ),
        raw('[ "$3" = 0 ] || [ "$4" -ge 500 ] || refuse "the file system of $d is out of inodes: $4 are left"'),
    )
    return Step("room", "the disk has room", body, cure="make room on the host: df -h, df -i")


# --- decide ------------------------------------------------------------------


def deployment(site: Site, facts: Facts, ref: str, *, release: str = "") -> Deployment:
    """
    Everything that follows from settings and facts; raises FabdjangoError for what would fail on the way.

    ``release`` is the id if it is not to be chosen here.
    """
    site = site.on(facts)
    settings, layout, host = site.settings, site.layout, site.host
    for _, refusal in refusals(site, facts, ref):
        raise refusal
    key = venv.key_of(settings, facts, facts.sha)
    manager = managers.find(settings, facts, layout, site.templates, host)
    previous = tuple(refuse_foreign(facts, put, host) for put in manager.files)
    by_hand = [
        facts.generated_env,
        "" if settings.env_file else facts.shared_env,
        "" if settings.local_settings else facts.shared_local_settings,
    ]
    more = [settings.shared, settings.hooks, settings.django.__dict__, settings.local_settings_path, by_hand]
    fingerprint = releases.fingerprint_of(facts.sha, key, own_files(site, facts, releases.PLACEHOLDER), more)
    serves = bool(facts.live_slot) and facts.slots.get(facts.live_slot) == facts.current
    is_made = facts.current_marker.get("fingerprint") == fingerprint
    touched = is_made and bool(edited(facts, layout, own_files(site, facts, facts.current)))
    if not release:
        release = facts.current if is_made and not touched else releases.new_id(facts, facts.sha)
    return Deployment(
        site,
        facts,
        facts.sha,
        release,
        key,
        fingerprint,
        own_files(site, facts, release),
        manager,
        previous,
        _slot_for(settings, facts),
        unchanged=is_made and not touched and serves and previous == manager.files,
        touched=touched,
    )


def own_files(site: Site, facts: Facts, release: str) -> tuple[Put, ...]:
    """What a release of the commit of ``facts`` is given beside its commit, by the settings of now."""
    site = site.on(facts)
    private = site.private()
    return releases.private_files(
        site.settings,
        facts,
        site.layout,
        site.templates,
        release=release,
        key=venv.key_of(site.settings, facts, facts.sha),
        env=private.env,
        local_settings=private.local_settings,
    )


def edited(facts: Facts, layout: Layout, puts: Iterable[Put]) -> tuple[Put, ...]:
    """Those of ``puts``, files of the release that serves, which are not on the host as they were written."""

    def found(put: Put) -> str | None:
        return (facts.managed.get(str(layout.current / ".fabdjango" / put.path.name)) or {}).get("digest")

    return tuple(put for put in puts if found(put) not in (None, hashlib.sha256(put.content.encode()).hexdigest()))


def renamed(plan: Deployment, release: str) -> Deployment:
    """The same under another id, as all hosts of a fleet have one."""
    if release == plan.release:
        return plan
    return replace(plan, release=release, private=own_files(plan.site, plan.facts, release), unchanged=False)


def redeployment(site: Site, facts: Facts, release: str) -> Deployment:
    """A complete release once more, as its marker describes it; nothing of it is made anew."""
    site = site.on(facts)
    managers.refuse_other(site.settings, facts, site.layout, site.host)
    marker = facts.releases.get(release) or {}
    manager = managers.find(site.settings, facts, site.layout, site.templates, site.host)
    previous = tuple(refuse_foreign(facts, put, site.host) for put in manager.files)
    sudoers.refuse_unlisted(manager, facts, site.layout, previous, site.target, site.host)
    return Deployment(
        site,
        facts,
        marker.get("commit", ""),
        release,
        marker.get("venv", ""),
        marker.get("fingerprint", ""),
        (),
        manager,
        previous,
        _slot_for(site.settings, facts),
    )


def _slot_for(settings: Settings, facts: Facts) -> str:
    """Where the next release runs: beside the one that serves, or in its place where there is one slot only."""
    return (facts.live_slot or "a") if settings.slots == "1" else other_slot(facts.live_slot)


# --- what is refused ----------------------------------------------------------


def refusals(site: Site, facts: Facts, ref: str) -> Iterator[tuple[str, FabdjangoError]]:
    """Every reason for which deployment() raises, the first one first, each after a word for what it is about."""
    site = site.on(facts)
    settings, layout, host = site.settings, site.layout, site.host
    yield from (("commit", error) for error in _faults_of_commit(settings, facts, ref, host))
    yield from _refused("account", lambda: _refuse_account(settings, facts, host))
    yield from _refused("python", lambda: pythons.refuse_unwanted(settings, facts, layout, host))
    yield from _refused("requirements", lambda: venv.refuse_hopeless(settings, facts, host))
    yield from _refused("manager", lambda: managers.find(settings, facts, layout, site.templates, host))
    yield from _refused("manager", lambda: managers.refuse_other(settings, facts, layout, host))
    yield from _refused("programs", lambda: _refuse_programs(site, facts))
    yield from _refused("disk", lambda: _refuse_full_disk(facts, host))


def _refused(subject: str, check: Callable[[], object]) -> Iterator[tuple[str, FabdjangoError]]:
    try:
        check()
    except FabdjangoError as error:
        yield subject, error


def _refuse_programs(site: Site, facts: Facts) -> None:
    try:
        manager = managers.find(site.settings, facts, site.layout, site.templates, site.host)
    except FabdjangoError:
        # That is told by itself.
        return
    previous = tuple(refuse_foreign(facts, put, site.host) for put in manager.files)
    sudoers.refuse_unlisted(manager, facts, site.layout, previous, site.target, site.host)


def _faults_of_commit(settings: Settings, facts: Facts, ref: str, host: str) -> Iterator[FabdjangoError]:
    if not facts.sha:
        yield _unknown_ref(facts, ref, host)
        return
    if facts.submodules:
        msg = f"the commit has submodules ({', '.join(facts.submodules[:3])}), which a release would silently lack"
        yield FabdjangoError(msg, host=host, cure="vendor them, or list them as requirements (git+https://…@commit)")
    if facts.lfs:
        msg = "the commit has files in git LFS, of which a release would only get pointers"
        yield FabdjangoError(msg, host=host, cure="keep such files out of git, for instance in shared")
    if not facts.manage:
        near = f"manage: {facts.manage_near[0]}" if facts.manage_near else "manage: path/to/manage.py"
        msg = f"the commit has no {settings.django.manage}"
        yield FabdjangoError(msg, host=host, cure=f"set it in fabric.yaml under fabdjango: django: {near}")
    elif not (settings.django.settings or facts.settings_module):
        msg = f"no settings module: {settings.django.manage} names none"
        yield ConfigError(msg, host=host, cure="set it in fabric.yaml under fabdjango: django: settings: blog.settings")


def _unknown_ref(facts: Facts, ref: str, host: str) -> FabdjangoError:
    if facts.ref_kind == "ambiguous":
        msg = f"{ref} is the beginning of several commits"
        return FabdjangoError(msg, host=host, cure="give more of the commit's id")
    msg = f"the repository has no branch, tag or commit {ref}"
    near = f"did you mean {' or '.join(facts.near_refs)}?\n" if facts.near_refs else ""
    return FabdjangoError(msg, host=host, cure=f"{near}push it first, or check the spelling")


def _refuse_account(settings: Settings, facts: Facts, host: str) -> None:
    if settings.run_as in ("", facts.user) or facts.app.get("member"):
        return
    if not facts.app:
        msg = f"the host has no account {settings.run_as}, which is to run the application"
        cure = f"as root: adduser --system --group {settings.run_as}; adduser {facts.user} {settings.run_as}"
    else:
        msg = (
            f"{facts.user} is not in the group {facts.app_group}, so that {settings.run_as} could not read its settings"
        )
        cure = f"as root: adduser {facts.user} {facts.app_group}"
    raise FabdjangoError(msg, host=host, cure=f"{cure}\nor let setup do it")


def _refuse_full_disk(facts: Facts, host: str) -> None:
    free, inodes = facts.disk
    needed = 2 * facts.tree_size + 50_000_000
    if free < needed:
        msg = f"the disk is too full: {free // 1_000_000} MB free, {needed // 1_000_000} MB needed"
        raise FabdjangoError(msg, host=host, cure="make room, for instance with a smaller fabdjango.keep_releases")
    if 0 <= inodes < facts.tree_files + 2000:
        msg = f"the file system has {inodes} inodes left, too few for a release"
        raise FabdjangoError(msg, host=host, cure="remove small files; df -i shows where")


def refuse_foreign(facts: Facts, put: Put, host: str) -> Put | None:
    """The file as it is on the host, or None; raises FabdjangoError if somebody else wrote it."""
    text = (facts.managed.get(str(put.path)) or {}).get("text")
    if text is None:
        return None
    if MARK not in text:
        msg = f"{put.path} is there and was not written by fabdjango"
        raise FabdjangoError(msg, host=host, cure="rename the file, or choose another fabdjango.project")
    return replace(put, content=text)


# --- prepare -----------------------------------------------------------------


def export(plan: Deployment) -> Iterator[Step]:
    """The commit in a directory of its own, with its settings and its links into shared."""
    settings, facts, layout = plan.site.settings, plan.facts, plan.layout
    yield from releases.early_hook(settings, layout, "before_settings")
    yield releases.write_private(settings, layout, plan.release, plan.private, plan.facts.app_group)
    if plan.change:
        yield environment.change_release(layout, plan.release, plan.change)
    yield from _after(plan, "settings")
    yield from with_hooks(plan, git.export_release(layout, plan.release, plan.sha))
    yield releases.link_settings(settings, facts, layout, plan.release)
    yield from with_hooks(plan, releases.link_shared(settings, layout, plan.release, plan.facts.app_group), "links")


def _virtualenv(plan: Deployment, wheels: Wheels | None) -> Iterator[Step]:
    settings, facts, layout = plan.site.settings, plan.facts, plan.layout
    lacks = plan.key not in facts.venvs and not wheels
    uv = venv.get_uv(settings, facts, layout) if lacks or plan.manager.needs_uv else None
    if uv:
        yield uv
    if wheels:
        settings = without_index(settings, facts)
    yield from with_hooks(plan, venv.create_venv(settings, facts, layout, plan.key))
    if wheels:
        yield receive_wheels(layout, plan.key, wheels)
        yield from with_hooks(plan, install_wheels(settings, facts, layout, plan.key, wheels))
    else:
        yield from with_hooks(plan, venv.install_requirements(settings, facts, layout, plan.key, plan.path))


def _completed(plan: Deployment) -> Iterator[Step]:
    settings, facts, layout = plan.site.settings, plan.facts, plan.layout
    app = gunicorn.app_of(settings, settings.django.settings or facts.settings_module)
    yield from _before(plan, "check")
    yield from _before(plan, "collectstatic")
    # What hooks have made of the files is not known: then no static files are taken from the release before.
    made = any(moment.partition("_")[2] in _PREPARED for moment in settings.hooks)
    yield django.start(
        settings,
        plan.path,
        app,
        mirror=layout.mirror,
        commit="" if made else plan.sha,
        outgoing=layout.release(facts.current) if facts.current else None,
    )
    yield from _after(plan, "check")
    yield from _after(plan, "collectstatic")
    yield static.keep(settings, layout, plan.release, facts.current)
    yield from plan.manager.install()
    yield _checked(plan)
    yield releases.complete(layout, plan.release, plan.key, marker_of(plan))


def _checked(plan: Deployment) -> Step:
    """What the manager has read once needs not be read again."""
    step = plan.manager.check()
    return replace(step, guard=raw("unchanged 'as before'")) if plan.has_files else step


def prepare(plan: Deployment, *, wheels: Wheels | None = None) -> Phase:
    """
    A complete release beside the one that serves. Nothing that serves is touched.

    With ``wheels``, the virtualenv is made of them, and no index is asked. They
    are fed to a step, so this run of the tool must have won the site's lock before.
    """
    recover = releases.clear_leftovers(plan.facts, plan.layout)
    still = releases.still_as_surveyed(plan.facts, plan.layout, plan.release)
    steps = (*([recover] if recover else []), still, *export(plan), *_virtualenv(plan, wheels), *_completed(plan))
    return Phase("prepare", steps, undo=(discard(plan),), undo_from="settings", lock=plan.site.lock, followed=True)


def give_wheels(plan: Deployment) -> Phase:
    """The packages of a complete virtualenv, for hosts that lack it; nothing is written."""
    return Phase("wheels", (pack_wheels(plan.layout, plan.key),), lock=plan.site.lock)


def finish(plan: Deployment) -> Phase:
    """The rest of prepare for a release that was checked out by hand."""
    return Phase("finish", tuple(_completed(plan)), lock=plan.site.lock)


def marker_of(plan: Deployment) -> dict[str, object]:
    """What a release says of itself."""
    return {
        "release": plan.release,
        "commit": plan.sha,
        "venv": plan.key,
        "fingerprint": plan.fingerprint,
        "python": plan.facts.python.get("version", ""),
        "settings": plan.site.settings.django.settings or plan.facts.settings_module,
        "asked": releases.how_to_ask(
            plan.site.settings, plan.layout, gunicorn.workers_of(plan.site.settings, plan.facts)
        ),
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


# --- after it -----------------------------------------------------------------


def tidy(plan: Deployment) -> Phase:
    """Remove what nobody needs any more; a failure here is a warning."""
    steps = with_hooks(plan, releases.prune(plan.site.settings, plan.layout, plan.release, plan.facts.proven))
    # The project's own commands may count on the old programs being gone.
    return Phase("prune", steps, lock=plan.site.lock, alongside=len(steps) == 1)


def confirm(plan: Deployment) -> Phase:
    """See whether the release that is already current serves."""
    step = releases.ask_health(plan.site.settings, plan.layout, plan.release, timeout=10)
    return Phase("confirm", (step,), reads_only=True)


# --- hooks -------------------------------------------------------------------


def _before(plan: Deployment, name: str) -> tuple[Step, ...]:
    return releases.hook(plan.site.settings, f"before_{name}", plan.path)


def _after(plan: Deployment, name: str) -> tuple[Step, ...]:
    return releases.hook(plan.site.settings, f"after_{name}", plan.path)


def with_hooks(plan: Deployment, step: Step | None, name: str = "") -> tuple[Step, ...]:
    """A step between the project's own commands for the moments before and after it."""
    name = name or (step.name if step else "")
    return (*_before(plan, name), *([step] if step else []), *_after(plan, name))
