"""What a deploy runs, from the first question to the last line."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

import fabdjango
from fabdjango.escape import Redactor
from fabdjango.exceptions import ConfigError, FabdjangoError, RevertedError, StepFailedError
from fabdjango.recording import RecordingTransport, call, runner
from fabdjango.report import Report
from tests.namespaces.text import CURRENT, DJANGO, SITE, answers

GOLDEN = Path(__file__).parent.parent / "golden"
BLOG = {
    **SITE,
    "shared": ["media/", "db.sqlite3"],
    "hooks": {"before_collectstatic": ["npm ci && npm run build"]},
    "first_deploy": ["python manage.py loaddata 'first posts'"],
}

BY = {"by": "ann@laptop", "event": "deploy"}
JOURNAL: list[dict[str, Any]] = [
    {**BY, "release": "5-555555555555", "result": "serves", "time": "2026-01-01T12:00:00Z"},
    {**BY, "release": "6-666666666666", "result": "failed", "time": "2026-02-01T12:00:00Z"},
    {**BY, "release": "7-0123456789ab", "result": "serves", "time": "2026-03-01T12:00:00Z"},
    {
        **BY,
        "event": "migrate",
        "release": "7-0123456789ab",
        "migrations": ["it's.0001"],
        "result": "reversed",
        "time": "2026-03-02T12:00:00Z",
    },
]
SERVED: dict[str, Any] = {
    **CURRENT,
    "releases": {
        **CURRENT["releases"],
        "5-555555555555": {"commit": "5" * 40, "venv": "it's two"},
        "6-666666666666": {"commit": "6" * 40, "venv": "it's two"},
        "8-888888888888": None,
    },
    "journal": JOURNAL,
    "pins": ["5-555555555555"],
}


def test_the_first_deploy_as_a_whole() -> None:
    """Four sessions, and every word that the host's shell gets to read."""
    transport = RecordingTransport(answers())
    call(fabdjango.ns["deploy"], runner(transport, BLOG, env={"SECRET_KEY": "canary-5up3r-53cr3t"}), commit="main")
    golden = GOLDEN / "deploy.txt"
    if os.environ.get("FABDJANGO_GOLDEN"):
        golden.write_text(transport.transcript, encoding="utf-8")

    assert transport.transcript == golden.read_text(encoding="utf-8")
    heads = [line for line in transport.transcript.splitlines() if line.startswith("== ")]
    # What is pruned goes with the confirmation, so that a deploy needs four sessions.
    assert heads == [
        "== survey (locked)",
        "== prepare (locked)",
        "== activate (locked)",
        "== settle",
        "== prune (locked)",
    ]
    assert "canary" not in transport.transcript


def test_a_step_that_fails_before_the_switch_changes_nothing() -> None:
    """The unfinished release is removed, and no other phase follows."""
    transport = RecordingTransport(answers(install=1))

    with pytest.raises(StepFailedError) as caught:
        call(fabdjango.ns["deploy"], runner(transport, BLOG), commit="main")

    assert (caught.value.exit_code, caught.value.state) == (1, "nothing that serves was touched")
    assert transport.transcript.endswith("-- undo: remove the unfinished release 1-0123456789ab\n")


def test_a_release_that_does_not_answer_never_gets_the_traffic() -> None:
    """In its own slot nothing that serves is touched, so the exit code is 1; every step back asks whether the switch had begun."""
    transport = RecordingTransport(answers(health=1))

    with pytest.raises(StepFailedError) as caught:
        call(fabdjango.ns["deploy"], runner(transport, BLOG), commit="main")

    assert (caught.value.exit_code, caught.value.state) == (
        1,
        "nothing serves, as before; migrations were applied",
    )
    undone = transport.transcript.rpartition("-- health")[2]
    assert [line for line in undone.splitlines() if line.startswith("-- undo")] == [
        "-- undo: the end of the log",
        "-- undo: nobody can confirm any more",
        "-- undo: nothing serves, as before",
        "-- undo: stop blog-web-a",
        "-- undo: slot a is empty",
        "-- undo: /etc/supervisor/conf.d/blog.conf as it was",
        "-- undo: write the journal",
        "-- undo: the activation is over",
    ]


def test_a_release_that_fails_in_public_is_taken_back() -> None:
    """From the switch on, the exit code is 3; the one before is asked, too."""
    transport = RecordingTransport(answers(SERVED, answer=1))

    with pytest.raises(RevertedError) as caught:
        call(fabdjango.ns["deploy"], runner(transport, BLOG), commit="main")

    assert (caught.value.exit_code, caught.value.state) == (
        3,
        "reverted: the previous release serves again, and was asked",
    )
    undone = transport.transcript.rpartition("-- answer")[2]
    assert [line for line in undone.splitlines() if line.startswith("-- undo")] == [
        "-- undo: the end of the log",
        "-- undo: nobody can confirm any more",
        "-- undo: current is releases/7-0123456789ab, in slot b",
        "-- undo: stop blog-web-a",
        "-- undo: slot a is empty",
        "-- undo: /etc/supervisor/conf.d/blog.conf as it was",
        "-- undo: restart blog-worker",
        "-- undo: 7-0123456789ab answers /",
        "-- undo: write the journal",
        "-- undo: the activation is over",
    ]


# --- migrations that would break the release that serves ----------------------


UNSAFE = json.dumps(
    {
        **DJANGO,
        "migrations": [
            {
                "app": "posts",
                "name": "0002_it",
                "operations": ["Remove field it's from post"],
                "unsafe": ["posts.0002_it removes the column it's, which the release that serves reads"],
            }
        ],
    }
)


def test_a_migration_that_would_break_the_old_release_is_refused() -> None:
    """Before it is applied; the cures are two deploys, a flag for once, and a setting for good."""
    transport = RecordingTransport(answers(SERVED, check=UNSAFE))

    with pytest.raises(StepFailedError) as caught:
        call(fabdjango.ns["deploy"], runner(transport, SITE), commit="main")

    assert caught.value.message == (
        "1 of the migrations would break the release that serves, 7-0123456789ab, until the new one has the traffic"
    )
    assert caught.value.output == "posts.0002_it removes the column it's, which the release that serves reads"
    assert caught.value.state == "no migration was applied, nothing that serves was touched"
    assert caught.value.cure.splitlines()[1:] == [
        "or, if a short breakage is fine: fab … deploy --allow-migrations",
        "or for good, in fabric.yaml under fabdjango: django: allow_migrations: [posts.0002_it]",
    ]
    assert "== activate" not in transport.transcript


@pytest.mark.parametrize(
    ("survey", "values", "arguments"),
    [
        ("served", {}, {"allow_migrations": True}),
        ("served", {"django": {"allow_migrations": ["posts.0002_it"]}}, {}),
        ("served", {"django": {"migrate": "never"}}, {}),
        ("first", {}, {}),
    ],
)
def test_a_migration_that_may_break_it(survey: str, values: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Said for once or for good, never applied by us, or on a first deploy, where nothing serves."""
    transport = RecordingTransport(answers(SERVED if survey == "served" else {}, check=UNSAFE))
    call(fabdjango.ns["deploy"], runner(transport, {**SITE, **values}), commit="main", **arguments)
    assert "== activate" in transport.transcript


# --- rollback -----------------------------------------------------------------


def rolled_back(survey: dict[str, Any], reversal: list[dict[str, Any]] | None = None, **arguments: Any) -> list[str]:
    """The phases and steps of a rollback, after the survey."""
    known = json.dumps({**DJANGO, "known": ["posts.0001_initial"]})
    more = {"known": known, "plan-reversal": json.dumps({"migrations": reversal or []})}
    transport = RecordingTransport(answers({**SERVED, **survey}, **more))
    call(fabdjango.ns["rollback"], runner(transport, SITE), **arguments)
    heads = [line for line in transport.transcript.splitlines() if line.startswith(("== ", "-- "))]
    return [
        line.partition(":")[0]
        for line in heads[heads.index("== known") if "== known" in heads else heads.index("== activate (locked)") :]
    ]


ACTIVATED = [
    "-- slots",
    "-- configure as root",
    "-- slot",
    "-- start as root",
    "-- health",
    "-- arm",
    "-- switch",
    "-- open as root",
    "-- opened",
    "-- answer",
    "-- processes as root",
    "-- await",
    "== settle",
    "-- confirm",
    "-- journal",
    "-- stop-old as root",
    "-- empty-slot",
]
LEFT = ["-- forget", "== prune (locked)", "-- prune"]
LOOKED = ["== known", "-- known", "== reversal", "-- plan-reversal", "== activate (locked)", "-- still"]
REVERSAL = {"app": "posts", "name": "0002", "operations": ["it's"], "unsafe": [], "reversible": True, "reason": ""}


def test_rollback_goes_to_the_last_other_release_that_served() -> None:
    """Not to the one that failed, though it is newer; through the same slots and questions as a deploy."""
    assert rolled_back({}) == [*LOOKED, *ACTIVATED, *LEFT]
    transport = RecordingTransport(answers(SERVED))
    call(fabdjango.ns["rollback"], runner(transport, SITE), code_only=True)
    assert "-- slot: slot a is for 5-555555555555\n" in transport.transcript


def test_rollback_to_a_release_with_the_same_migrations_does_not_ask_the_database() -> None:
    """Nothing that the newer code knows could be too much for the older one; what is not known is asked."""
    same = {"5-555555555555": "d", "7-0123456789ab": "d"}
    assert rolled_back({"schemas": same}) == [*LOOKED[4:], *ACTIVATED, *LEFT]
    assert rolled_back({"schemas": {**same, "7-0123456789ab": "e"}}) == [*LOOKED, *ACTIVATED, *LEFT]
    assert rolled_back({"schemas": {"7-0123456789ab": "d"}}) == [*LOOKED, *ACTIVATED, *LEFT]


def test_rollback_without_another_release_is_refused() -> None:
    """One that never answered is no way back; it can be named."""
    with pytest.raises(FabdjangoError, match="no other release has ever served here") as caught:
        rolled_back({"journal": JOURNAL[1:]})
    assert caught.value.cure == "complete releases: 5-555555555555, 6-666666666666, 7-0123456789ab"
    assert "-- switch" in rolled_back({"journal": JOURNAL[1:]}, to="6-666666666666")
    with pytest.raises(FabdjangoError, match="there is no complete release 8-888888888888"):
        rolled_back({}, to="8-888888888888")
    with pytest.raises(ConfigError, match="two different ways"):
        rolled_back({}, migrations=True, code_only=True)


def test_rollback_behind_a_migration_is_refused_in_words() -> None:
    """Each migration with what would become of it, and both ways to go on."""
    with pytest.raises(FabdjangoError) as caught:
        rolled_back({}, [REVERSAL])
    assert (caught.value.message, caught.value.output) == (
        "5-555555555555 is older than the database: it lacks 1 migration",
        "posts.0002: can be reversed",
    )
    assert caught.value.cure == (
        "reverse them on the way: fab … rollback --migrations\n"
        "leave the database as it is (the older code can live with them): fab … rollback --code-only"
    )


def test_rollback_never_reverses_what_loses_data() -> None:
    """Also when it is asked to."""
    barred = {**REVERSAL, "unsafe": ["it's needed"], "reason": "3 rows would be lost"}
    with pytest.raises(FabdjangoError) as caught:
        rolled_back({}, [barred, REVERSAL], migrations=True)
    assert (caught.value.message, caught.value.output) == (
        "5-555555555555 is older than the database: it lacks 2 migrations, of which 1 must not be reversed",
        "posts.0002: 3 rows would be lost\nposts.0002: can be reversed",
    )
    assert caught.value.cure == (
        "leave the database as it is (the older code may fail on them): fab … rollback --code-only"
    )


def test_when_migrations_are_reversed() -> None:
    """After the newer code is gone; before the switch only if the older code could not live with them."""
    assert rolled_back({}, [REVERSAL], migrations=True) == [*LOOKED, *ACTIVATED, "-- reverse", *LEFT]
    needed = {**REVERSAL, "unsafe": ["it's needed"]}
    assert rolled_back({}, [needed], migrations=True) == [
        *LOOKED,
        "-- arm",
        "-- reverse",
        *(line for line in ACTIVATED if line != "-- arm"),
        *LEFT,
    ]


# --- looking back --------------------------------------------------------------


def said(task: str, **arguments: Any) -> str:
    """What a task tells of a host with a history, without the steps."""
    stream = io.StringIO()
    it = runner(RecordingTransport(answers(SERVED)), SITE)
    it.report = Report("web1", Redactor(()), stream=stream)
    call(fabdjango.ns[task], it, **arguments)
    return "".join(line for line in stream.getvalue().splitlines(keepends=True) if " ok  " not in line)


def test_releases() -> None:
    """What became of each, by the journal; migrations applied or reversed later do not change when it began to serve."""
    assert said("releases") == (
        "    8-888888888888       not complete\n"
        " -> 7-0123456789ab       serves, since 2026-03-01T12:00:00Z, slot b\n"
        "    6-666666666666       failed\n"
        "    5-555555555555       served, 2026-01-01T12:00:00Z, pinned\n"
    )


def test_history_and_journal(capsys: pytest.CaptureFixture[str]) -> None:
    """For people, and for programs."""
    assert said("history", count=2) + said("journal", count=1) + capsys.readouterr().out == (
        "2026-03-01T12:00:00Z  deploy    7-0123456789ab      serves, by ann@laptop\n"
        "2026-03-02T12:00:00Z  migrate   7-0123456789ab      reversed, 1 migrations, by ann@laptop\n"
        '{"by": "ann@laptop", "event": "migrate", "migrations": ["it\'s.0001"], "release": "7-0123456789ab", '
        '"result": "reversed", "time": "2026-03-02T12:00:00Z"}\n'
    )


def test_unlock_only_shows_unless_it_is_forced() -> None:
    """Looking takes no lock, or nobody would ever see who holds it."""
    transport = RecordingTransport({})
    call(fabdjango.ns["unlock"], runner(transport, SITE))
    call(fabdjango.ns["unlock"], runner(transport, SITE), force=True)
    heads = [line for line in transport.transcript.splitlines() if line.startswith(("== ", "-- "))]
    assert heads == ["== lock", "-- lock: who holds the lock", "== unlock", "-- unlock: end what holds the lock"]


def test_waiting_for_another_deployment() -> None:
    """A flag for once beside the setting."""
    it = runner(RecordingTransport(answers(SERVED)), SITE)
    assert it.site.lock.wait == 0
    call(fabdjango.ns["restart"], it, wait=600)
    assert it.site.lock.wait == 600
