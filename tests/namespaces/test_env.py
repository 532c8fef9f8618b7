"""What the tasks of variables run, and where they refuse."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest

import fabdjango
from fabdjango.exceptions import ConfigError, FabdjangoError, FleetError, RevertedError, StepFailedError
from fabdjango.namespaces import env
from fabdjango.recording import RecordingTransport, call, runner
from fabdjango.runner import Runner
from tests.namespaces.text import CURRENT, DJANGO, SITE, answers, joined

CANARY = "it's c4n4ry"
NOTHING_NEW = json.dumps({**DJANGO, "migrations": []})
CHANGES = json.dumps({"changed": True, "digest": "d" * 64})
UNCHANGED = {"env-look": json.dumps({"changed": False, "digest": "d" * 64})}
LOOK = """\
-- env-look: look at /srv/the blog/shared/.env
python3 -I -S - # Change one variable of a file that sh sources, into another file or only on trial; no value is ever printed.
"""
EDIT = "python3 -I -S - # Change one variable of a file that sh sources, into another file or only on trial; no value is ever printed.\n"


@pytest.fixture(autouse=True)
def _typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has given a value on standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{CANARY}\n"))


def host(
    survey: Mapping[str, Any] = CURRENT,
    *,
    says: Mapping[str, str | int] = {},
    values: Mapping[str, Any] = SITE,
    name: str = "web1",
    dry: bool = False,
) -> Runner:
    """A host that serves, and whose shared/.env would be changed; steps in ``says`` answer so."""
    transport = RecordingTransport({**answers(survey), "check": NOTHING_NEW, "env-look": CHANGES, **says})
    transport.host = f"{name}.example.com"
    return runner(transport, values, dry=dry)


def said(target: Runner) -> str:
    """What its report has told."""
    found = target.report._stream
    assert isinstance(found, io.StringIO)
    return found.getvalue()


def transcript(target: Runner) -> str:
    """What ran on the host."""
    assert isinstance(target.transport, RecordingTransport)
    assert CANARY not in target.transport.transcript
    assert CANARY not in said(target)
    return target.transport.transcript


def heads(target: Runner) -> list[str]:
    """The sessions, and the steps that have to do with the environment."""
    lines = transcript(target).splitlines()
    return [line for line in lines if line.startswith(("== ", "-- env", "-- undo: stop", "-- settings", "-- journal"))]


# --- a new release ------------------------------------------------------------------


def test_set_makes_a_new_release() -> None:
    """Of the commit that serves; its copy of the file is changed, and shared follows when it serves and stays."""
    target = host()
    call(env.set, target, name="MAIL")
    assert heads(target) == [
        "== survey (locked)",
        "== env-look",
        "-- env-look: look at /srv/the blog/shared/.env",
        "== survey",
        "== prepare (locked)",
        "-- settings: environment, settings and start scripts of the release",
        "-- env: set MAIL in the release",
        "== activate (locked)",
        "== settle",
        "-- journal: write the journal",
        "-- env-publish: keep it in /srv/the blog/shared/.env",
        "== prune (locked)",
    ]
    assert '"event": "env.set"' in transcript(target)
    assert '"variables": ["MAIL"]' in transcript(target)
    assert said(target).splitlines()[-1] == "MAIL is set: 8-0123456789ab serves on web1.example.com"


def test_unset_is_the_same() -> None:
    """Nothing is asked for."""
    target = host()
    call(env.unset, target, name="MAIL")
    assert "-- env: remove MAIL in the release" in heads(target)
    assert '"event": "env.unset"' in transcript(target)
    assert said(target).splitlines()[-1] == "MAIL is removed: 8-0123456789ab serves on web1.example.com"
    assert sys.stdin.read() == f"{CANARY}\n"


@pytest.mark.parametrize(
    ("step", "kind", "code"),
    [("check", StepFailedError, 1), ("health", StepFailedError, 1), ("answer", RevertedError, 3)],
)
def test_a_value_that_breaks_the_site(step: str, kind: type[FabdjangoError], code: int) -> None:
    """What served serves, and shared was never touched."""
    target = host(says={step: 1})
    with pytest.raises(kind) as caught:
        call(env.set, target, name="MAIL")
    assert caught.value.exit_code == code
    assert "env-publish" not in transcript(target)
    assert [line for line in heads(target) if line.startswith("-- env")][1:] == ["-- env: set MAIL in the release"]


def test_what_is_so_already() -> None:
    """Nothing is changed, and no release is made."""
    target = host(says=UNCHANGED)
    call(env.set, target, name="MAIL")
    assert heads(target)[1:] == ["== env-look", "-- env-look: look at /srv/the blog/shared/.env"]
    assert said(target).splitlines()[-1] == "unchanged: MAIL is set already"


# --- without one --------------------------------------------------------------------


@pytest.mark.parametrize("survey", [CURRENT, {}], ids=["no restart", "nothing serves"])
def test_for_the_next_release(survey: dict[str, Any]) -> None:
    """The file alone."""
    target = host(survey)
    call(env.set, target, name="MAIL", no_restart=bool(survey))
    assert transcript(target).partition("== env-look\n")[2] == LOOK + joined(
        f"""\
        == env (locked)
        -- env: set MAIL in /srv/the blog/shared/.env
        {EDIT.strip()}
        """
    )
    assert said(target).splitlines()[-1] == "MAIL is set, from the next release on"


def test_a_dry_run_writes_nothing() -> None:
    """It asks for no value, and shows what would run."""
    target = host(dry=True)
    call(env.set, target, name="MAIL")
    assert heads(target) == ["== survey", "== env-look", "-- env-look: look at /srv/the blog/shared/.env", "== survey"]
    assert "# env: set MAIL in the release\n" in said(target)
    assert said(target).splitlines()[-1] == "nothing was written: this was a dry run"
    assert sys.stdin.read() == f"{CANARY}\n"


# --- many hosts ---------------------------------------------------------------------


def test_all_hosts_or_none() -> None:
    """Where it fails on one, the others put their file back."""
    one, two = host(name="web1"), host(name="web2", says={"env": 1})
    with pytest.raises(FleetError) as caught:
        call(env.set, one, two, name="MAIL", no_restart=True)
    assert caught.value.exit_code == 1
    assert caught.value.message == (
        "1 of 2 hosts: their shared/.env could not be changed, and that of the others is as it was"
    )
    assert [line for line in heads(one) if line.startswith("-- env-")][1:] == [
        "-- env-back: /srv/the blog/shared/.env as it was"
    ]
    assert transcript(one).endswith(
        joined(
            """\
            -- env-back: /srv/the blog/shared/.env as it was
            if [ -e '/srv/the blog/shared/.fabdjango.env' ]; then
            | mv -fT -- '/srv/the blog/shared/.fabdjango.env' '/srv/the blog/shared/.env'
            else
            | rm -f -- '/srv/the blog/shared/.env'
            fi
            """
        )
    )
    assert "env-back" not in transcript(two)


def test_all_hosts_get_the_same_release() -> None:
    """Also one that has the value already: they keep one id."""
    targets = host(name="web1"), host(name="web2", says=UNCHANGED)
    call(env.set, *targets, name="MAIL")
    for target in targets:
        assert "-- env: set MAIL in the release" in heads(target)
        assert "-- env-publish: keep it in /srv/the blog/shared/.env" in heads(target)
    assert said(targets[0]).splitlines()[-1] == "MAIL is set: 8-0123456789ab serves on 2 hosts"


def test_what_was_kept_for_the_way_back_goes() -> None:
    """An old value need not lie there for longer."""
    targets = host(name="web1"), host(name="web2", says=UNCHANGED)
    call(env.set, *targets, name="MAIL", no_restart=True)
    assert heads(targets[0])[-2:] == ["== env-kept (locked)", "-- env-kept: the old values are not kept"]
    assert heads(targets[1])[-1] == "-- env-look: look at /srv/the blog/shared/.env"


def test_hosts_that_serve_different_releases() -> None:
    """Which one should be made anew?"""
    older = {**CURRENT, "current": "", "slots": {}, "live_slot": ""}
    targets = host(name="web1"), host(older, name="web2")
    with pytest.raises(FabdjangoError) as caught:
        call(env.set, *targets, name="MAIL")
    assert caught.value.message == (
        "hosts serve different releases (7-0123456789ab, no release), of which no new one can be made"
    )
    assert not any("-- env:" in transcript(target) for target in targets)


# --- refused ------------------------------------------------------------------------


@pytest.mark.parametrize("task", [env.set, env.unset], ids=["set", "unset"])
@pytest.mark.parametrize(
    ("settings", "message", "cure"),
    [
        (
            {"env_file": "it's.env"},
            "the environment file it's.env is written over shared/.env by every deploy, and so MAIL is set there",
            "change it in it's.env, then deploy\nor keep all of it on the hosts: take fabdjango.env_file out of fabric.yaml",
        ),
        (
            {"environment": {"MAIL": "it's"}},
            "fabdjango.environment.MAIL sets it, and wins over shared/.env",
            "change fabdjango.environment.MAIL, then deploy",
        ),
        (
            {"secrets": {"MAIL": {"command": "pass show 'it is'"}}},
            "fabdjango.secrets.MAIL sets it, and wins over shared/.env",
            "change fabdjango.secrets.MAIL, then deploy",
        ),
    ],
)
def test_what_the_settings_say_is_not_set_on_the_host(
    task: Any, settings: dict[str, Any], message: str, cure: str
) -> None:
    """It would not count, or not for long; no value is asked for, and no host."""
    target = host(values={**SITE, **settings})
    with pytest.raises(ConfigError) as caught:
        call(task, target, name="MAIL")
    assert (caught.value.message, caught.value.cure) == (message, cure)
    assert transcript(target) == ""
    assert sys.stdin.read() == f"{CANARY}\n"


def test_one_that_was_made_on_the_host_can_be_replaced() -> None:
    """The file that is kept by hand wins over it."""
    target = host({**CURRENT, "generated": ["MAIL"]}, values={**SITE, "secrets": {"MAIL": "generate"}})
    call(env.set, target, name="MAIL")
    assert said(target).splitlines()[-1] == "MAIL is set: 8-0123456789ab serves on web1.example.com"


@pytest.mark.parametrize("name", ["A-B", "it's", "", "PWD", "1A", "A=B"])
def test_what_is_no_name(name: str) -> None:
    """No shell would take it."""
    target = host()
    with pytest.raises(ConfigError):
        call(env.set, target, name=name)
    assert transcript(target) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no value was given for MAIL"),
        ("\n", "no value was given for MAIL"),
        ("a\0b", "the value of MAIL holds a NUL or is not text"),
    ],
)
def test_no_value(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    """An empty one is likelier a mistake than a wish."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    target = host()
    with pytest.raises(ConfigError) as caught:
        call(env.set, target, name="MAIL")
    assert caught.value.message == message
    assert transcript(target) == ""


# --- list ---------------------------------------------------------------------------


def test_list_only_reads() -> None:
    """Names, where each is from, and what serves otherwise; the last source wins."""
    found = {
        "generated": ["DATABASE_URL", "KEY", "OLD"],
        "shared": ["MAIL", "KEY", "NEW"],
        "serves generated": ["DATABASE_URL", "KEY", "OLD"],
        "serves shared": ["MAIL", "KEY", "GONE"],
        "serves env": ["LANG", "MAIL"],
    }
    values = {
        **SITE,
        "environment": {"LANG": "it's", "LC_ALL": "C"},
        "secrets": {"KEY": "generate", "OTHER": "generate", "MAIL": {"file": "it's"}},
    }
    target = host(values=values, says={"env-list": json.dumps(found)})
    call(env.list, target)
    assert transcript(target) == (
        "== env-list\n-- env-list: names of variables\n"
        "python3 -I -S - # Print the names of the variables in files that sh sources, as one line of JSON; no value is looked at.\n"
    )
    assert said(target) == "[web1.example.com] env-list   ok         names of variables  0.0s\n" + joined(
        """\
        DATABASE_URL  made on the host
        GONE          nowhere                  no more from the next release on
        KEY           shared/.env
        LANG          fabdjango.environment
        LC_ALL        fabdjango.environment    from the next release on
        MAIL          fabdjango.secrets, file
        NEW           shared/.env              from the next release on
        OLD           made on the host
        OTHER         made on the host         from the next release on
        """
    )


def test_list_with_an_environment_file() -> None:
    """Its names are those that serve and that nothing else gives; what lies in shared is a copy of it."""
    found = {"generated": [], "shared": ["A"], "serves generated": [], "serves shared": [], "serves env": ["A", "B"]}
    values = {**SITE, "env_file": "it's.env", "environment": {"B": "1"}}
    target = host(values=values, says={"env-list": json.dumps(found)})
    call(fabdjango.ns["env.list"], target)
    assert said(target).splitlines()[1:] == ["A  it's.env", "B  fabdjango.environment"]
