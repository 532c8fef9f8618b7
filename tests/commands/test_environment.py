"""The environment of a site: which secrets can be had, and what is kept on the host."""

from __future__ import annotations

from typing import Any

import pytest

from fabdjango.commands import environment
from fabdjango.exceptions import ConfigError
from fabdjango.settings import SecretSource
from tests.conftest import sample_settings

# --- settings -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ({"MAIL": {}}, "fabdjango.secrets.MAIL says nothing, and a value is had from one place"),
        (
            {"MAIL": {"file": "it's", "variable": "V"}},
            "fabdjango.secrets.MAIL names file and variable, and a value is had from one place",
        ),
        ({"MAIL": {"generate": 1001}}, "fabdjango.secrets.MAIL.generate is 1001 characters, more than 1000"),
        ({"MAIL": {"command": " "}}, "fabdjango.secrets.MAIL.command is empty"),
        ({"MAIL": {"command": "echo 'it"}}, 'cannot split "echo \'it" into words: No closing quotation'),
        ({"MA-IL": {"generate": 50}}, "'MA-IL' is not a name for an environment variable"),
        ({"UID": "generate"}, "the environment variable UID belongs to the shell itself"),
    ],
)
def test_a_secret_that_cannot_be_had(secrets: dict[str, Any], message: str) -> None:
    """Before any host is asked."""
    with pytest.raises(ConfigError) as caught:
        environment.check_secrets(sample_settings(secrets=secrets))
    assert caught.value.message == message


def test_one_word_is_a_whole_secret() -> None:
    """Also where a stage says more, or less, about one of the same name: it replaces it."""
    found = sample_settings(secrets={"KEY": "generate", "MAIL": {"command": "pass show 'it is'"}})
    environment.check_secrets(found)
    assert found.secrets == {"KEY": SecretSource(generate=50), "MAIL": SecretSource(command="pass show 'it is'")}
