"""The environment of a site: its secrets, the values that are made on the host, and the variables that are kept there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands import database
from fabdjango.escape import Secret, env_assignments, env_name, otherwise, quote_path, raw, sh, split_words
from fabdjango.exceptions import ConfigError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import Step
from fabdjango.settings import Settings

__all__ = [
    "Change",
    "change_release",
    "change_shared",
    "check_secrets",
    "compare",
    "difference_lines",
    "forget_kept",
    "generate",
    "hide_made",
    "list_names",
    "missing",
    "publish",
    "put_back",
    "read_told",
    "read_trial",
    "refuse_managed",
    "source_lines",
    "tell",
    "to_hide",
    "try_change",
]

Change = Mapping[str, Secret | None]
"""Variables to set, or with None to remove."""

_LONGEST = 1000


def check_secrets(settings: Settings) -> None:
    """Raise ConfigError for a secret that is had from nowhere or from two places, or whose name no variable can have."""
    for name, source in settings.secrets.items():
        key = f"fabdjango.secrets.{env_name(name)}"
        given = [each for each in ("generate", "command", "file", "variable") if getattr(source, each)]
        if len(given) != 1:
            found = f"names {' and '.join(given)}" if given else "says nothing"
            cure = f"give one: secrets: {{{name}: {{generate: 50}}}}, or command, file or variable"
            raise ConfigError(f"{key} {found}, and a value is had from one place", cure=cure)
        if source.generate > _LONGEST:
            raise ConfigError(f"{key}.generate is {source.generate} characters, more than {_LONGEST}", cure="take 50")
        if source.command and not split_words(source.command, "pass show blog/mail"):
            raise ConfigError(f"{key}.command is empty", cure="for instance command: pass show blog/mail")


# --- values that are made on the host ---------------------------------------------


def missing(settings: Settings, facts: Facts) -> tuple[str, ...]:
    """The secrets that are to be made on the host and are not there yet."""
    return tuple(name for name in _lengths(settings) if name not in facts.generated)


def hide_made(settings: Settings, layout: Layout) -> tuple[Step, ...]:
    """The step that learns what was made on the host, so that no output shows it; none if nothing is made there."""
    return (tell(layout),) if _lengths(settings) or database.has_password(settings) else ()


def _lengths(settings: Settings) -> dict[str, int]:
    return {name: source.generate for name, source in sorted(settings.secrets.items()) if source.generate}


def generate(settings: Settings, layout: Layout, given: Mapping[str, Secret] = {}) -> Step:
    """
    Make those values that are not there yet, of ``given`` the same that another host of the site has.

    None is made anew, whatever the settings say by now, and none is told.
    """
    lengths = _lengths(settings)
    return Step(
        "secrets",
        f"make what is secret on the host itself: {', '.join(lengths) or 'nothing'}",
        # The program reports by itself.
        raw("export FABDJANGO_RUN"),
        program=onhost.source("generate_secrets"),
        parameters={"path": str(layout.generated_env), "lengths": lengths, "given": dict(given)},
    )


def tell(layout: Layout, names: Iterable[str] | None = None) -> Step:
    """
    Values that were made on the host, or all of them, for read_told: for other hosts, and to hide them in what the project prints.

    They are fetched, so that no report sees them.
    """
    return Step(
        "tell-secrets",
        "learn what is to be hidden" if names is None else "values for the other hosts",
        program=onhost.source("tell_secrets"),
        parameters={"path": str(layout.generated_env), "names": None if names is None else sorted(names)},
        fetch=True,
    )


def read_told(data: bytes) -> dict[str, Secret]:
    """The values by name; none if nothing arrived."""
    return {name: Secret(value) for name, value in json.loads(data or b"{}").items()}


def to_hide(settings: Settings, told: Mapping[str, Secret]) -> Iterator[str]:
    """
    What of read_told must never be seen: all but the database's name, role and address, which are words that every line may hold.

    Of the database's url the password by itself too.
    """
    plain = database.plain_variables(settings)
    for name, value in told.items():
        if name not in plain:
            yield from database.secret_parts(value.reveal())


# --- variables that are kept on the host ------------------------------------------


def refuse_managed(settings: Settings, name: str) -> None:
    """Raise ConfigError for a variable that the operator's side sets: what shared/.env says of it would not count."""
    env_name(name)
    source = settings.secrets.get(name)
    if settings.env_file:
        raise ConfigError(
            f"the environment file {settings.env_file} is written over shared/.env by every deploy, and so {name} is set there",
            cure=f"change it in {settings.env_file}, then deploy\n"
            "or keep all of it on the hosts: take fabdjango.env_file out of fabric.yaml",
        )
    if name in settings.environment or (source and not source.generate):
        key = f"fabdjango.{'environment' if name in settings.environment else 'secrets'}.{name}"
        raise ConfigError(f"{key} sets it, and wins over shared/.env", cure=f"change {key}, then deploy")


def _change(name: str, title: str, changes: Change, source: PurePosixPath, **paths: PurePosixPath) -> Step:
    given: dict[str, object] = {"target": "", "kept": "", **{key: str(path) for key, path in paths.items()}}
    return Step(
        name,
        title,
        program=onhost.source("change_env"),
        parameters={"source": str(source), "changes": dict(changes), **given},
        cure=f"look at {source} on the host: it is read by sh",
    )


def _told(changes: Change) -> str:
    return ", ".join(f"{'remove' if value is None else 'set'} {name}" for name, value in changes.items())


def try_change(layout: Layout, changes: Change) -> Step:
    """What would become of shared/.env, for read_trial; nothing is written."""
    step = _change("env-look", f"look at {layout.env_file}", changes, layout.env_file)
    return replace(step, capture=True)


def read_trial(output: str) -> tuple[bool, str]:
    """Whether shared/.env would change, and the digest that it would have."""
    found = json.loads(output.strip().splitlines()[-1])
    return bool(found["changed"]), str(found["digest"])


def change_release(layout: Layout, release: str, changes: Change) -> Step:
    """The release's own copy of shared/.env, changed; shared itself follows once the release serves."""
    target = layout.private(release) / "shared.env"
    return _change("env", f"{_told(changes)} in the release", changes, layout.env_file, target=target)


def publish(layout: Layout, release: str) -> Step:
    """What serves now as shared/.env, so that the next release takes it too."""
    source = layout.private(release) / "shared.env"
    return _change("env-publish", f"keep it in {layout.env_file}", {}, source, target=layout.env_file)


def change_shared(layout: Layout, changes: Change, *, keep: bool) -> Step:
    """Change shared/.env for the next release; with ``keep``, the file as it was is kept beside it for put_back."""
    kept = {"kept": _kept(layout)} if keep else {}
    title = f"{_told(changes)} in {layout.env_file}"
    return _change("env", title, changes, layout.env_file, target=layout.env_file, **kept)


def _kept(layout: Layout) -> PurePosixPath:
    return layout.shared / ".fabdjango.env"


def put_back(layout: Layout) -> Step:
    """The file as it was before change_shared."""
    kept, path = _kept(layout), layout.env_file
    back = otherwise(raw(f"[ -e {quote_path(kept)} ]"), sh("mv", "-fT", "--", kept, path), sh("rm", "-f", "--", path))
    return Step("env-back", f"{path} as it was", back)


def forget_kept(layout: Layout) -> Step:
    """Remove what was kept for put_back."""
    return Step("env-kept", "the old values are not kept", sh("rm", "-f", "--", _kept(layout)))


def list_names(layout: Layout) -> Step:
    """The names in all files of variables, of shared and of the release that serves; for source_lines."""
    private = layout.current / ".fabdjango"
    files = {
        "generated": layout.generated_env,
        "shared": layout.env_file,
        **{f"serves {name}": private / f"{name}.env" for name in ("generated", "shared")},
        "serves env": private / "env",
    }
    return Step(
        "env-list",
        "names of variables",
        program=onhost.source("list_env"),
        parameters={"files": {name: str(path) for name, path in files.items()}},
        capture=True,
    )


def source_lines(settings: Settings, output: str) -> Iterator[tuple[str, str, str]]:
    """Name, where its value is from, and whether what serves differs in having it; the last source wins."""
    found = {name: set(names) for name, names in json.loads(output.strip().splitlines()[-1]).items()}
    own = {name: _source_of(settings, name) for name in settings.secrets}
    made = {name for name, source in settings.secrets.items() if source.generate}
    serves = found["serves generated"] | found["serves shared"] | found["serves env"]
    sources = dict.fromkeys(found["generated"] | made, "made on the host")
    if not settings.env_file:
        sources |= dict.fromkeys(found["shared"], "shared/.env")
    sources |= dict.fromkeys(settings.environment, "fabdjango.environment")
    sources |= {name: text for name, text in own.items() if name not in made}
    if settings.env_file:
        # Its names are known of what serves; to know more, its template would have to be filled in.
        sources |= {name: settings.env_file for name in found["serves env"] if name not in sources}
    for name in sorted({*sources, *serves}):
        note = "" if name in sources and name in serves else "from the next release on"
        yield name, sources.get(name, "nowhere"), note if name in sources else "no more from the next release on"


def _source_of(settings: Settings, name: str) -> str:
    source = settings.secrets[name]
    kind = next(each for each in ("generate", "command", "file", "variable") if getattr(source, each))
    return f"fabdjango.secrets, {kind}"


# --- what serves, and what is configured ----------------------------------------


def compare(
    settings: Settings, layout: Layout, release: str, env: Mapping[str, Secret], local_settings: str | None
) -> Step:
    """The names of variables and settings that differ between a release and the next one; for difference_lines."""
    private = layout.private(release)
    values = {**settings.environment, **{name: secret.reveal() for name, secret in env.items()}}
    return Step(
        "compare",
        "compare the settings with those that serve",
        program=onhost.source("compare_env"),
        parameters={
            "serves": [str(private / name) for name in ("generated.env", "shared.env", "env")],
            "files": [str(layout.generated_env), *([] if settings.env_file else [str(layout.env_file)])],
            "env": Secret(env_assignments(values)),
            "generate": list(_lengths(settings)),
            "local_settings": None if local_settings is None else Secret(local_settings),
            "local_settings_file": str(layout.local_settings),
            "local_settings_serves": str(private / "local_settings.py"),
        },
        capture=True,
    )


def difference_lines(output: str) -> Iterator[str]:
    """A line a name: added, removed or changed."""
    for what, found in json.loads(output.strip().splitlines()[-1]).items():
        for word in ("added", "removed", "changed"):
            yield from (f"{what}: {word} {name}" for name in found[word])
