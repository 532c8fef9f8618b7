"""The environment of a site: its secrets, the values that are made on the host, and the variables that are kept there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fabdjango import onhost
from fabdjango.escape import Secret, env_name, raw, split_words
from fabdjango.exceptions import ConfigError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import Step
from fabdjango.settings import Settings

__all__ = ["check_secrets", "generate", "missing", "tell"]

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


def tell(layout: Layout, names: Iterable[str]) -> Step:
    """Values that were made on the host as JSON, for other hosts; it is fetched, so that no report sees it."""
    return Step(
        "tell-secrets",
        "values for the other hosts",
        program=onhost.source("tell_secrets"),
        parameters={"path": str(layout.generated_env), "names": sorted(names)},
        fetch=True,
    )
