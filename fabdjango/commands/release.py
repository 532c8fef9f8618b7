"""Releases: their names, what fabdjango keeps in them, and the switch from one to the next."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands import django, gunicorn, schedule, venv
from fabdjango.escape import Secret, Shell, block, env_assignments, otherwise, quote, quote_path, raw, sh, when
from fabdjango.exceptions import ConfigError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import Put, Step
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = [
    "PLACEHOLDER",
    "ask_health",
    "check_shared",
    "clear_leftovers",
    "complete",
    "counter",
    "early_hook",
    "fingerprint_of",
    "hook",
    "how_to_ask",
    "journal",
    "journal_undone",
    "link_settings",
    "link_shared",
    "new_id",
    "pin",
    "private_files",
    "prune",
    "publish_settings",
    "run_first",
    "shared_path",
    "still_as_surveyed",
    "unpin",
    "write_private",
]

PLACEHOLDER = "0-000000000000"
"""Stands for the release's id where two releases are compared."""
_ID = re.compile(r"\d+-[0-9a-f]{12}")


def new_id(facts: Facts, sha: str) -> str:
    """``<counter>-<sha12>``: the order of releases is the counter's, never a clock's."""
    return f"{facts.highest + 1}-{sha[:12]}"


def counter(release: str) -> int:
    """The number that orders releases; 0 for a folder of somebody else's."""
    number = release.partition("-")[0]
    return int(number) if number.isdigit() else 0


def read_id(text: str) -> str:
    """``text``, if it has the form of a release's id."""
    if not _ID.fullmatch(text):
        msg = f"{text!r} is not the id of a release"
        raise ConfigError(msg, cure="see the releases with: fab … status")
    return text


def shared_path(text: str) -> PurePosixPath:
    """A path of the commit that lives in shared; absolute paths and ``..`` are refused."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0] == ".fabdjango":
        msg = f"fabdjango.shared: {text!r} is not a path inside the commit"
        raise ConfigError(msg, cure="for instance shared: [media/, db.sqlite3]")
    return path


def check_shared(names: Iterable[str]) -> None:
    """Refuse a shared path inside another one: its link would be written through the other's."""
    paths = [shared_path(name) for name in names]
    for path in paths:
        for other in paths:
            if path != other and path.is_relative_to(other):
                msg = f"fabdjango.shared: {path} lies inside {other}, which is shared as a whole already"
                raise ConfigError(msg, cure=f"take {path} out of fabdjango.shared")


# --- what is kept in a release -----------------------------------------------


def private_files(
    settings: Settings,
    facts: Facts,
    layout: Layout,
    templates: Templates,
    *,
    release: str,
    key: str,
    env: Mapping[str, Secret],
    local_settings: str | None,
) -> tuple[Put, ...]:
    """
    Everything that makes the release a thing of its own: environment, settings, start scripts.

    They are copies: what is uploaded later changes nothing that serves.
    """
    private = layout.private(release)
    directory = django.directory_of(settings, layout.release(release))
    settings_module = settings.django.settings or facts.settings_module
    values = {**settings.environment, **{name: secret.reveal() for name, secret in env.items()}}
    run = templates.render(
        "release/run.j2",
        home=facts.home,
        user=facts.user,
        app=settings.run_as if facts.app else "",
        app_home=str(facts.app.get("home", "")),
        venv=layout.venv(key),
        venv_bin=layout.venv(key) / "bin",
        python_path=directory,
        release=release,
        settings_module=settings_module,
        # Later ones win.
        env_files=[private / name for name in ("generated.env", "shared.env", "env")],
        directory=directory,
    )
    puts = [
        Put(private / "run", run, 0o755),
        Put(private / "venv", f"{layout.venv(key)}\n"),
        Put(private / "env", env_assignments(values), 0o640, secret=True),
        gunicorn.configure(settings, facts, layout, templates, release, directory),
        Put(private / "web", _start(templates, private, gunicorn.start_words(layout, release)), 0o755),
    ]
    puts += [
        Put(private / f"process-{name}", _start(templates, private, sh("sh", "-c", process.command)), 0o755)
        for name, process in settings.processes.items()
    ]
    puts += [
        Put(private / f"job-{name}", schedule.start_script(settings, layout, templates, release, name), 0o755)
        for name in settings.schedule
    ]
    if local_settings is not None:
        puts.append(Put(private / "local_settings.py", local_settings, 0o640, secret=True))
    return tuple(puts)


def _start(templates: Templates, private: PurePosixPath, words: Shell) -> str:
    return templates.render("release/start.j2", run=private / "run", words=words)


def write_private(settings: Settings, layout: Layout, release: str, puts: tuple[Put, ...], group: str = "") -> Step:
    """
    Write them, and copy what was made on the host, and the environment and settings files that somebody keeps in shared by hand.

    ``group`` is the group of an application with an account of its own, which may read them.
    """
    private = layout.private(release)
    # Hooks of this moment run where manage.py will be.
    directory = django.directory_of(settings, layout.release(release))
    body = [sh("chmod", "750", private), sh("mkdir", "-p", "--", directory)]
    body.append(_copy_if_there(layout.generated_env, private / "generated.env"))
    if not settings.env_file:
        body.append(_copy_if_there(layout.env_file, private / "shared.env"))
    if not settings.local_settings:
        body.append(_copy_if_there(layout.local_settings, private / "local_settings.py"))
    if group:
        body.append(sh("chgrp", "-R", "--", group, private))
    return Step("settings", "environment, settings and start scripts of the release", block(*body), puts=puts)


def _copy_if_there(source: PurePosixPath, target: PurePosixPath) -> Shell:
    return when(raw(f"[ -f {quote_path(source)} ]"), sh("install", "-m", "640", "--", source, target))


def link_settings(settings: Settings, facts: Facts, layout: Layout, release: str) -> Step:
    """Put local_settings.py where Django finds it; a release without one stays as its commit is."""
    private = layout.private(release)
    settings_module = settings.django.settings or facts.settings_module
    target = layout.release(release) / django.local_settings_target(settings, settings_module)
    return Step(
        "link-settings",
        f"link {target.name} beside the settings",
        block(
            when(raw(f"! [ -f {quote_path(private / 'local_settings.py')} ]"), raw("unchanged 'there is none'")),
            sh("mkdir", "-p", "--", target.parent),
            sh("rm", "-f", "--", target),
            sh("ln", "-s", "--", private / "local_settings.py", target),
        ),
    )


def publish_settings(layout: Layout, env: Mapping[str, Secret], local_settings: str | None) -> Step | None:
    """Keep what now serves as the site's settings files, so that whoever looks into shared sees the truth."""
    text = env_assignments({name: secret.reveal() for name, secret in env.items()}) if env else None
    if text is None and local_settings is None:
        return None
    return replace(
        django.put_settings(layout, text, local_settings), name="publish", title="keep the settings in shared"
    )


def fingerprint_of(sha: str, key: str, puts: Iterable[Put], more: object) -> str:
    """
    What makes two releases the same: commit, virtualenv, rendered files, and ``more`` (anything JSON can say).

    ``puts`` must have been rendered for PLACEHOLDER.
    """
    parts = [sha, key, [[str(put.path), put.content, put.mode] for put in puts], more]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def link_shared(settings: Settings, layout: Layout, release: str, group: str = "") -> Step | None:
    """
    Paths that outlive releases, as links; what the commit has there is taken along once, then replaced.

    ``group`` is the group of an application with an account of its own, which may write there.
    """
    if not settings.shared:
        return None
    commands = []
    for text in settings.shared:
        path = shared_path(text)
        place, target = layout.shared / path, layout.release(release) / path
        begun = place.with_name(f".fabdjango.{place.name}")
        first = f"! [ -e {quote_path(place)} ] && [ -e {quote_path(target)} ] && ! [ -L {quote_path(target)} ]"
        commands += [
            sh("mkdir", "-p", "--", place.parent, target.parent),
            # A copy that was cut short never counts as the shared one.
            when(
                raw(first),
                sh("rm", "-rf", "--", begun),
                sh("cp", "-a", "--", target, begun),
                sh("mv", "-T", "--", begun, place),
            ),
            sh("mkdir", "-p", "--", place) if text.endswith("/") else Shell(""),
            *_open_for(group, layout, place, folder=text.endswith("/")),
            sh("rm", "-rf", "--", target),
            sh("ln", "-s", "--", place, target),
        ]
    return Step("links", f"link {', '.join(settings.shared)}", block(*commands))


def _open_for(group: str, layout: Layout, place: PurePosixPath, *, folder: bool) -> Iterator[Shell]:
    """Let the application write a shared path; SQLite and whoever replaces a file write in its folder, which shared itself cannot be."""
    if not group:
        return
    if not folder:
        yield when(raw(f"[ -O {quote_path(place)} ]"), sh("chgrp", "--", group, place), sh("chmod", "g+w", "--", place))
    around = place if folder else place.parent
    if around != layout.shared:
        yield when(
            raw(f"[ -O {quote_path(around)} ]"), sh("chgrp", "--", group, around), sh("chmod", "2775", "--", around)
        )


def complete(layout: Layout, release: str, key: str, marker: Mapping[str, object]) -> Step:
    """Mark virtualenv and release as whole; from now on nothing writes into them."""
    private = layout.private(release)
    return Step(
        "complete",
        f"release {release} is complete",
        block(
            venv.mark_complete(layout, key),
            sh("sync", "-f", "--", layout.release(release)),
            raw(
                f"printf '%s\\n' {quote(json.dumps(dict(marker), sort_keys=True))} > {quote_path(private / 'release.json.new')}"
            ),
            # A power cut must not leave a marker that says nothing.
            sh("sync", "--", private / "release.json.new"),
            sh("mv", "-fT", "--", private / "release.json.new", private / "release.json"),
            sh("sync", "--", private),
        ),
    )


def clear_leftovers(facts: Facts, layout: Layout) -> Step | None:
    """Remove what a dead deployment left: releases and virtualenvs that were never completed."""
    half = [
        layout.release(name) for name, marker in sorted(facts.releases.items()) if not marker and name != facts.current
    ]
    stale = raw(
        f"find {quote_path(layout.venvs)} -mindepth 1 -maxdepth 1 -type d ! -exec test -e '{{}}/.complete' ';' -exec rm -rf -- '{{}}' '+' 2>/dev/null || :"
    )
    temporary = raw(
        f"rm -rf -- {quote_path(layout.root)}/.current.* {quote_path(layout.run)}/.*.new {quote_path(layout.shared)}/.fabdjango.*"
    )
    if not facts.root_exists:
        return None
    removed = (
        raw("note " + quote(f"removed {', '.join(path.name for path in half)}, which were never completed"))
        if half
        else Shell("")
    )
    nothing = Shell("") if half else raw("unchanged 'nothing was left'")
    return Step(
        "recover",
        "clear what a dead deployment left",
        block(*(sh("rm", "-rf", "--", path) for path in half), stale, temporary, removed, nothing),
    )


# --- the switch --------------------------------------------------------------


def still_as_surveyed(facts: Facts, layout: Layout, new_release: str = "") -> Step:
    """
    Refuse if another deployment came in since the survey; clear the place of ``new_release``, if one is to be made.

    Without this, two that chose the same id would write into one directory.
    """
    expected = f"releases/{facts.current}" if facts.current else ""
    moved = "another deployment changed the site in the meantime: deploy again"
    commands = [raw(f'[ "$(readlink {quote_path(layout.current)})" = {quote(expected)} ] || refuse {quote(moved)}')]
    if new_release:
        marker = layout.private(new_release) / "release.json"
        commands.append(raw(f"[ ! -e {quote_path(marker)} ] || refuse {quote(moved)}"))
        commands.append(sh("rm", "-rf", "--", layout.release(new_release)))
    return Step("still", "the site is as it was surveyed", block(*commands))


def how_to_ask(settings: Settings, layout: Layout, workers: int = 1) -> dict[str, object]:
    """Where and how the site is asked by these settings; a release keeps its own, for a revert to it."""
    health = settings.health
    return {
        "bind": gunicorn.bind_of(settings, layout),
        "path": health.path,
        "expect": health.expect,
        "text": health.text,
        "host": health.host,
        "https": health.https,
        "static": health.static,
        "workers": workers,
    }


def ask_health(
    settings: Settings,
    layout: Layout,
    release: str,
    *,
    name: str = "health",
    title: str = "",
    timeout: int | None = None,
    how: Mapping[str, object] | None = None,
    slot: str = "",
    also: tuple[str, ...] = (),
) -> Step:
    """
    Ask until ``release`` answers well, ``health.consecutive`` times in a row; ``timeout`` is seconds.

    With ``slot`` its private socket is asked, and all workers, else the public
    address, where ``also`` are releases that may answer as well.
    ``how`` is what how_to_ask said for an older release; the settings of now may not fit it.
    """
    asked = {**how_to_ask(settings, layout), **(how or {})}
    if slot:
        asked["bind"] = f"unix:{layout.private_socket(slot)}"
        asked |= {"soak": settings.health.soak, "recycles": settings.gunicorn.max_requests > 0}
    else:
        asked["workers"] = 1
    return Step(
        name,
        title or f"{release} answers {asked['path']}" + (f" in slot {slot}" if slot else ""),
        raw(f"cd -- {quote_path(layout.root)}"),
        program=onhost.source("health"),
        interpreter=raw(f'"$(cat -- {quote_path(layout.private(release) / "venv")})"/bin/python -I -S'),
        parameters={
            **asked,
            "also": also,
            "consecutive": settings.health.consecutive,
            "timeout": settings.health.timeout if timeout is None else timeout,
            "release": release,
            "releases": str(layout.releases),
            "answer": str(layout.private(release) / "django.json"),
        },
        capture=True,
    )


# --- hooks, records, pruning -------------------------------------------------


def hook(settings: Settings, moment: str, release_path: PurePosixPath) -> tuple[Step, ...]:
    """The project's own commands at a moment such as ``before_migrate``, in the release with its environment."""
    return tuple(
        _own_command(settings, moment, f"fabdjango.hooks.{moment}", command, django.in_release(release_path))
        for command in settings.hooks.get(moment, ())
    )


def early_hook(settings: Settings, layout: Layout, moment: str) -> tuple[Step, ...]:
    """Before the new release exists, hooks run in the one that serves; on the first deploy, in the root."""
    current = layout.current / ".fabdjango" / "run"
    enter = block(
        sh("mkdir", "-p", "--", layout.root),
        raw(f"cd -- {quote_path(layout.root)}"),
        raw(f"set --; [ ! -e {quote_path(current)} ] || set -- /bin/sh {quote_path(current)}"),
    )
    steps = (
        _own_command(settings, moment, f"fabdjango.hooks.{moment}", command, raw('"$@"'))
        for command in settings.hooks.get(moment, ())
    )
    return tuple(replace(step, body=block(enter, step.body)) for step in steps)


def _own_command(settings: Settings, name: str, key: str, command: str, within: Shell) -> Step:
    timeout = raw(f"timeout -k 10 {settings.django.timeout}")
    return Step(
        name,
        f"{name}: {command.strip().splitlines()[0] if command.strip() else '(empty)'}",
        raw(f"{timeout} {within} {sh('sh', '-ec', command)}"),
        cure=f"it is the project's own command: {key}",
    )


def run_first(settings: Settings, layout: Layout, release_path: PurePosixPath) -> tuple[Step, ...]:
    """The commands of the first deploy, and the record that they have run."""
    within = django.in_release(release_path)
    steps = [
        _own_command(settings, "first-deploy", "fabdjango.first_deploy", command, within)
        for command in settings.first_deploy
    ]
    if not steps:
        return ()
    done = Step("first-deploy", "record that this was the first deploy", sh("touch", "--", layout.first_deploy_done))
    return (*steps, done)


def journal(layout: Layout, entry: Mapping[str, object], *, name: str = "journal") -> Step:
    """Append what happened, with the host's own time, so that it outlives a power cut."""
    return Step(name, "write the journal", block(_line(layout, entry), sh("sync", "--", layout.journal)))


def _line(layout: Layout, entry: Mapping[str, object]) -> Shell:
    line = json.dumps(dict(entry), sort_keys=True)
    path = quote_path(layout.journal)
    # What a full disk or a power cut left half-written must not swallow this one.
    ended = raw(f'[ ! -s {path} ] || [ -z "$(tail -c 1 -- {path})" ] || printf "\\n" >> {path}')
    return block(
        ended, raw(f'printf \'{{"time": "%s", %s\\n\' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" {quote(line[1:])} >> {path}')
    )


def journal_undone(layout: Layout, entry: Mapping[str, object], reverting: PurePosixPath) -> Step:
    """Append that a release was reverted, or, if it never had the traffic, that it failed; ``reverting`` tells which."""
    told = otherwise(
        raw(f"[ -e {quote_path(reverting)} ]"),
        _line(layout, {**entry, "result": "reverted"}),
        _line(layout, {**entry, "result": "failed"}),
    )
    return Step("journal", "write the journal", block(told, sh("sync", "--", layout.journal)))


def prune(settings: Settings, layout: Layout, current: str, proven: Iterable[str]) -> Step:
    """
    Remove old releases and the virtualenvs that none of the kept ones uses.

    ``proven`` are the releases that have served, the last one last. The current one stays, and the last one that served
    before it, those that are pinned, and those that a process still uses.
    """
    return Step(
        "prune",
        f"keep {settings.keep_releases} releases",
        program=onhost.source("prune"),
        parameters={
            "root": str(layout.root),
            "keep": settings.keep_releases,
            "current": current,
            "proven": [release for release in proven if release != current] + [current],
        },
    )


def pin(layout: Layout, release: str) -> Step:
    """Keep a release for ever."""
    path = layout.pins / release
    body = block(
        raw(f"[ -d {quote_path(layout.release(release))} ] || refuse {quote(f'there is no release {release}')}"),
        raw(f"[ ! -e {quote_path(path)} ] || unchanged 'it was'"),
        sh("mkdir", "-p", "--", layout.pins),
        sh("touch", "--", path),
    )
    return Step("pin", f"{release} is kept", body)


def unpin(layout: Layout, release: str) -> Step:
    """Let a release grow old like any other."""
    path = layout.pins / release
    body = block(raw(f"[ -e {quote_path(path)} ] || unchanged 'it was not pinned'"), sh("rm", "-f", "--", path))
    return Step("unpin", f"{release} is kept no longer than others", body)
