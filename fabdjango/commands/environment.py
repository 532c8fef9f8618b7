"""The environment of a site: its secrets, the values that are made on the host, and the variables that are kept there."""

from __future__ import annotations

from fabdjango.escape import env_name, split_words
from fabdjango.exceptions import ConfigError
from fabdjango.settings import Settings

__all__ = ["check_secrets"]

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
