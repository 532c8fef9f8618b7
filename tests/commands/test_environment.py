"""The environment of a site: which secrets can be had, and what is kept on the host."""

from __future__ import annotations

from typing import Any

import pytest

from fabdjango.body import render_body
from fabdjango.commands import environment
from fabdjango.escape import Secret
from fabdjango.exceptions import ConfigError
from fabdjango.settings import SecretSource
from tests.conftest import LAYOUT, RELEASE, sample_facts, sample_settings, shell, shown

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


# --- values that are made on the host ---------------------------------------------

HOSTS: dict[str, Any] = {"KEY": "generate", "B": {"generate": 20}, "MAIL": {"file": "it's"}}


def test_missing() -> None:
    """Those that are to be made on the host, and nothing that has its own source."""
    settings = sample_settings(secrets=HOSTS)
    assert environment.missing(settings, sample_facts(generated=("B", "OTHER"))) == ("KEY",)
    assert environment.missing(settings, sample_facts(generated=("B", "KEY"))) == ()


def test_generate() -> None:
    """A program, whose parameters no reader sees; what another host has is a secret in them too."""
    step = environment.generate(sample_settings(secrets=HOSTS), LAYOUT, {"B": Secret("it's c4n4ry")})
    assert shown(step) == shell("""
        # secrets: make what is secret on the host itself: B, KEY
        export FABDJANGO_RUN
        python3 -I -S - # Make those values that this host does not have yet, and keep them; none is ever printed, and none is made twice.
    """)
    assert step.parameters == {
        "path": "/srv/it's here/shared/generated.env",
        "lengths": {"B": 20, "KEY": 50},
        "given": {"B": Secret("it's c4n4ry")},
    }
    assert "c4n4ry" not in repr(step)
    assert "c4n4ry" in render_body(step, "R1")


def test_tell() -> None:
    """It is fetched: no report and no record of the phase has it."""
    step = environment.tell(LAYOUT, {"KEY", "B"})
    assert step.fetch
    assert step.parameters == {"path": "/srv/it's here/shared/generated.env", "names": ["B", "KEY"]}
    assert environment.read_told(b'{"KEY": "it\'s"}') == {"KEY": Secret("it's")}
    assert environment.read_told(b"") == {}


def test_what_was_made_is_known_to_be_hidden() -> None:
    """Everything that is kept there; where nothing is to be made, nothing is asked."""
    (step,) = environment.hide_made(sample_settings(secrets=HOSTS), LAYOUT)
    assert (step.fetch, step.parameters["names"]) == (True, None)
    assert environment.hide_made(sample_settings(secrets={"MAIL": {"file": "it's"}}), LAYOUT) == ()
    assert environment.hide_made(sample_settings(database={"engine": "sqlite"}), LAYOUT) == ()
    (step,) = environment.hide_made(sample_settings(database={"engine": "postgresql"}), LAYOUT)
    assert (step.fetch, step.parameters["names"]) == (True, None)


def test_the_names_of_a_database_are_no_secret() -> None:
    """They are words such as the project's name, which every line may hold; its password is one, also by itself."""
    variables = {"DB": "name", "WHO": "user", "HOST": "host", "PORT": "port", "URL": "url", "PW": "password"}
    settings = sample_settings(secrets=HOSTS, database={"engine": "postgresql", "variables": variables})
    url = "postgres://blog:it%27s@127.0.0.1:5432/blog"
    values = {"KEY": "c4n4ry", "DB": "blog", "WHO": "blog", "HOST": "127.0.0.1", "PORT": "5432", "URL": url, "PW": "it's", "OLD": "x y"}  # fmt: skip
    told = {name: Secret(value) for name, value in values.items()}
    assert list(environment.to_hide(settings, told)) == ["c4n4ry", url, "it%27s", "it's", "it's", "x y"]
    # A variable of the database that the settings no longer make known is still what it was.
    assert list(environment.to_hide(sample_settings(), {"DATABASE_URL": Secret(url)})) == [url, "it%27s", "it's"]


# --- variables that are kept on the host ------------------------------------------


def test_variables_are_changed_by_a_program() -> None:
    """Their values are in no form for a reader, and in no repr; a title names them."""
    change = {"MAIL": Secret("it's c4n4ry"), "OLD": None}
    steps = (
        environment.try_change(LAYOUT, change),
        environment.change_release(LAYOUT, RELEASE, change),
        environment.publish(LAYOUT, RELEASE),
        environment.change_shared(LAYOUT, change, keep=True),
    )
    program = "python3 -I -S - # Change one variable of a file that sh sources, into another file or only on trial; no value is ever printed."
    assert shown(*steps).replace(program, "(it)") == shell("""
        # env-look: look at /srv/it's here/shared/.env
        (it)
        # env: set MAIL, remove OLD in the release
        (it)
        # env-publish: keep it in /srv/it's here/shared/.env
        (it)
        # env: set MAIL, remove OLD in /srv/it's here/shared/.env
        (it)
    """)
    assert "c4n4ry" not in repr(steps)
    paths = [{name: step.parameters[name] for name in ("source", "target", "kept")} for step in steps]
    shared, copy = "/srv/it's here/shared/.env", f"/srv/it's here/releases/{RELEASE}/.fabdjango/shared.env"
    assert paths == [
        {"source": shared, "target": "", "kept": ""},
        {"source": shared, "target": copy, "kept": ""},
        {"source": copy, "target": shared, "kept": ""},
        {"source": shared, "target": shared, "kept": "/srv/it's here/shared/.fabdjango.env"},
    ]
