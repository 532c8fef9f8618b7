"""What is refused before any host is asked, and the order of what is done there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from fabdjango import recipes, switchover
from fabdjango.escape import Shell
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.facts import DjangoFacts, Reversal
from fabdjango.plan import Phase, Step
from fabdjango.recipes import Deployment, Site
from tests.conftest import LAYOUT, RELEASE, sample_facts, sample_settings, sample_templates

REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"hooks": {"before_colectstatic": ["ls"]}}, "did you mean before_collectstatic"),
    ({"hooks": {"later": ["ls"]}}, "before_ or after_ one of"),
    ({"shared": ["media/", "media/it's"]}, "take media/it's out"),
    ({"shared": ["../media"]}, "is not a path inside the commit"),
    ({"processes": {"web": {"command": "sleep 1"}}}, "another name"),
    ({"gunicorn": {"options": {"import": 1}}}, "is not the name of a gunicorn setting"),
    ({"gunicorn": {"bind": "8000"}}, "for instance bind"),
    ({"gunicorn": {"app": "blog.wsgi; id"}}, "for instance app"),
    ({"django": {"manage": "/srv/manage.py"}}, "for instance manage"),
    ({"local_settings_path": "../x.py"}, "inside the commit"),
    ({"environment": {"A-B": "1"}}, "letters, digits and _"),
    ({"root": "/srv/{project}/../../etc"}, "for instance root"),
    ({"repository": "https://ann:s3cret@example.com/blog.git"}, "deploy key"),
    ({"repository": "https://t0ken@example.com/blog.git"}, "deploy key"),
)


@pytest.mark.parametrize(("values", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_refused_before_a_host_is_asked(values: dict[str, Any], told: str) -> None:
    """The error or its cure says what to change; a password in it is not repeated."""
    with pytest.raises(ConfigError) as caught:
        recipes.check_settings(sample_settings(**values))

    text = caught.value.render()
    assert told in text
    assert "s3cret" not in text
    assert "t0ken" not in text


def test_an_account_is_no_password() -> None:
    """An ssh address names one."""
    recipes.check_settings(sample_settings(repository="ssh://git@example.com:2222/it's/blog.git"))
    recipes.check_settings(sample_settings(repository="git@example.com:it's/blog.git"))


# --- refused once the host was asked -----------------------------------------------


def refused(values: dict[str, Any] | None = None, **facts: Any) -> list[tuple[str, str]]:
    """What a deployment would be refused for: the subject, and the error's first line."""
    found = sample_facts(**facts)
    return [(subject, error.message) for subject, error in recipes.refusals(site(values or {}), found, "it's main")]


def test_every_refusal_is_told() -> None:
    """A deployment stops at the first of them."""
    assert refused() == []
    facts: dict[str, Any] = {
        "submodules": ("it's inside",),
        "lfs": True,
        "manage": False,
        "python": {},
        "disk": (1_000_000, 5),
        "sudo": False,
        "programs": {},
    }
    all_of_them = [
        ("commit", "the commit has submodules (it's inside), which a release would silently lack"),
        ("commit", "the commit has files in git LFS, of which a release would only get pointers"),
        ("commit", "the commit has no manage.py"),
        ("python", "python3 is not on the host"),
        ("manager", "supervisor is not installed on the host"),
        ("disk", "the disk is too full: 1 MB free, 50 MB needed"),
    ]
    assert refused({"supervisor": {"level": "system"}}, **facts) == all_of_them
    with pytest.raises(FabdjangoError) as caught:
        recipes.deployment(site({"supervisor": {"level": "system"}}), sample_facts(**facts), "main")
    assert caught.value.message == all_of_them[0][1]


def test_a_commit_that_nobody_knows_has_no_other_fault() -> None:
    """Of what is in it nothing can be said; files of others on the host are told all the same."""
    foreign = {"/etc/supervisor/conf.d/blog.conf": {"digest": "d", "text": "[program:it's mine]\n"}}
    assert refused(sha="", manage=False, managed=foreign) == [
        ("commit", "the repository has no branch, tag or commit it's main"),
        ("programs", "/etc/supervisor/conf.d/blog.conf is there and was not written by fabdjango"),
    ]


# --- changed by hand ----------------------------------------------------------------


def served(**managed: str) -> Deployment:
    """A deployment of what serves already; ``managed`` is what the files of the release hold now, by name."""
    facts = sample_facts(**HOST, sha="6" * 40)
    of_site = site({})
    made = recipes.deployment(of_site, facts, "main")
    texts = {put.path.name: put.content for put in recipes.own_files(of_site, facts, OLD)}
    known = {name: text for name, text in {**texts, **managed}.items() if name in ("run", "env", "web")}
    private = LAYOUT.current / ".fabdjango"
    marker = {"commit": "6" * 40, "fingerprint": made.fingerprint}
    digests = {
        str(private / name): {"digest": hashlib.sha256(text.encode()).hexdigest()} for name, text in known.items()
    }
    programs = {str(put.path): {"digest": "any", "text": put.content} for put in made.manager.files}
    return recipes.deployment(of_site, replace(facts, releases={OLD: marker}, managed={**digests, **programs}), "main")


def test_what_serves_and_is_as_it_was_made() -> None:
    """Nothing is to do."""
    assert (served().release, served().unchanged, served().touched) == (OLD, True, False)


@pytest.mark.parametrize("name", ["run", "env"])
def test_a_release_that_was_changed_by_hand(name: str) -> None:
    """It is not what it says it is, and a release is never written afterwards: a new one takes its place."""
    plan = served(**{name: "export IT='s'\n"})
    assert (plan.release, plan.unchanged, plan.touched) == (f"7-{'6' * 12}", False, True)


# --- the order of steps ----------------------------------------------------------


NGINX = {"nginx": {"domains": ["blog.example.com"]}}
OLD = "6-666666666666"
HOST: dict[str, Any] = {
    "current": OLD,
    "live_slot": "a",
    "slots": {"a": OLD},
    "releases": {OLD: {"commit": "6" * 40, "asked": {"path": "/it's old"}}},
    "highest": 6,
}


def site(values: dict[str, Any]) -> Site:
    """A site as the operator's side knows it."""
    return Site(
        sample_settings(root="/srv/it's here", **values), LAYOUT, sample_templates(), "it's web1", holder="it's me"
    )


def deployment(values: dict[str, Any] | None = None, **facts: Any) -> Deployment:
    """A deployment to a host on which a release serves, in slot a."""
    return recipes.deployment(site(values or {}), sample_facts(**{**HOST, **facts}), "main")


def names(steps: tuple[Step, ...]) -> list[str]:
    """What the steps are called."""
    return [step.name for step in steps]


BEFORE = ["still", "migrate", "slots", "configure"]
AFTER = ["await", "journal"]


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        # A socket in the file system: the switch alone brings the traffic.
        (NGINX, ["slot", "start", "health", "arm", "switch", "answer", *AFTER, "drain", "stop-old", "empty-slot"]),
        # A held socket: the slot starts again to take from it, and there is no queue of its own to drain.
        (
            {},
            ["slot", "start", "health", "arm", "switch", "open", "opened", "answer", *AFTER, "stop-old", "empty-slot"],
        ),
        # One slot: requests wait in the held socket from close to open.
        (
            {"slots": "1"},
            ["arm", "close", "stop-old", "slot", "start", "health", "switch", "open", "opened", "answer", *AFTER],
        ),
        (
            {"slots": "1", "manager": "systemd", **NGINX},
            [
                *("arm", "close", "stop-old", "slot", "start", "health", "switch", "open", "opened", "answer"),
                # Units that the settings may no longer name are looked for.
                "processes",
                *AFTER,
                "tidy",
            ],
        ),
    ],
    ids=["behind nginx", "held", "one slot", "one slot behind nginx"],
)
def test_the_order_of_an_activation(values: dict[str, Any], steps: list[str]) -> None:
    """Nothing that serves is touched before the record is written; from the journal on there is no way back."""
    phase = switchover.activate(deployment(values, systemd=True), recipes.ANY_MIGRATION)
    assert names(phase.steps) == [*BEFORE, *steps, "forget"]
    assert (phase.undo_from, phase.serving_from, phase.kept_from) == ("configure", "arm", "journal")
    assert phase.record == LAYOUT.run / "activations", "it outlives its session"


@pytest.mark.parametrize(
    ("values", "leads", "found", "steps"),
    [
        (
            {"backup_before_migrate": True},
            True,
            recipes.ANY_MIGRATION,
            ["still", "backup", "before_migrate", "migrate"],
        ),
        ({}, True, recipes.ANY_MIGRATION, ["still", "before_migrate", "migrate", "slots"]),
        ({"backup_before_migrate": True}, True, DjangoFacts(), ["still", "slots", "configure", "slot"]),
        ({"backup_before_migrate": True}, False, recipes.ANY_MIGRATION, ["still", "slots", "configure", "slot"]),
    ],
    ids=["wanted", "not wanted", "no migration", "another host migrates"],
)
def test_a_backup_before_migrations(values: dict[str, Any], leads: bool, found: DjangoFacts, steps: list[str]) -> None:
    """Before the project's own commands for that moment; if it fails, nothing has been changed."""
    plan = deployment({"database": values, "hooks": {"before_migrate": ["./it's"]}, **NGINX})
    phase = switchover.activate(replace(plan, leads=leads), found)
    assert names(phase.steps)[:4] == steps
    assert phase.undo_from == "configure"


def test_files_that_are_as_they_should_be() -> None:
    """Nobody becomes root to write them again, but whether systemd has taken them in is asked."""
    plan = deployment({"manager": "systemd", **NGINX}, systemd=True)
    for previous, guard in ((plan.manager.files, plan.manager.as_before()), ((None,), Shell(""))):
        phase = switchover.activate(replace(plan, previous_files=previous), DjangoFacts())
        assert next(step.guard for step in phase.steps if step.name == "configure") == guard


def test_old_releases_go_while_the_old_programs_stop() -> None:
    """Unless commands of the project's stand beside it, which may count on these being gone."""
    assert recipes.tidy(deployment(NGINX)).alongside
    assert not recipes.tidy(deployment({"hooks": {"before_prune": ["./it's"]}, **NGINX})).alongside


def test_what_is_looked_at_after_a_push() -> None:
    """The commit alone, or after hooks, which may have changed the host, all of it."""
    hook = {"after_fetch": ["it's mine"]}
    for hooks, steps in ((None, ["receive", "survey-commit"]), (hook, ["receive", "after_fetch", "survey"])):
        phase = recipes.receive(site({"hooks": hooks or {}}), sample_facts(**HOST), b"it's a pack", 40 * "a", "main")
        assert names(phase.steps) == steps


def test_the_other_slot_is_taken() -> None:
    """Beside the one that serves; on an empty host it is a; with one slot there is no other."""
    assert (deployment().slot, deployment().old_slot) == ("b", "a")
    assert (deployment(live_slot="b").slot, deployment(live_slot="b").old_slot) == ("a", "b")
    first = deployment(current="", live_slot="", slots={}, releases={})
    assert (first.slot, first.old_slot) == ("a", "")
    only = deployment({"slots": "1"})
    assert (only.slot, only.old_slot) == ("a", "")


def test_a_changed_variable_is_kept_once_the_release_stays() -> None:
    """The release gets it with its other settings; shared has it after the last moment at which the host could go back."""
    plan = replace(deployment(), change={"MAIL": None})
    prepared = names(recipes.prepare(plan).steps)
    assert prepared[prepared.index("settings") :][:3] == ["settings", "env", "export"]
    phase = switchover.activate(plan, recipes.ANY_MIGRATION, "env.set")
    assert names(phase.steps)[-5:] == ["journal", "env-publish", "stop-old", "empty-slot", "forget"]
    assert (phase.kept_from, "env-publish" in names(phase.undo)) == ("journal", False)


@pytest.mark.parametrize(("state", "kept"), [("confirmed", True), ("armed", False)])
def test_a_dead_change_of_a_variable_is_finished_or_undone(state: str, kept: bool) -> None:
    """The record of the activation says that there was one; shared follows what serves in the end."""
    record = {"state": state, "release": RELEASE, "from": OLD, "slot": "b", "from_slot": "a", "variables": ["MAIL"]}
    phase = switchover.recover(site({}), sample_facts(**{**HOST, "activation": record}))
    assert ("env-publish" in names(phase.steps)) is kept
    written = "\n".join(step.body for step in phase.steps if step.name == "journal")
    assert '"variables": ["MAIL"]' in written


def test_what_was_made_on_the_host_makes_another_release() -> None:
    """A release has a copy of it, and so it is part of what a release is."""
    found = (deployment(), deployment(generated_env="a"), deployment(shared_env="a"))
    assert len({plan.fingerprint for plan in found}) == 3


def test_both_releases_may_answer_at_a_held_socket() -> None:
    """Until the old one stops; behind nginx only the new one may."""
    held, linked = (switchover.activate(deployment(values), recipes.ANY_MIGRATION) for values in ({}, NGINX))
    assert next(step for step in held.steps if step.name == "answer").parameters["also"] == (OLD,)
    assert next(step for step in linked.steps if step.name == "answer").parameters["also"] == ()


@pytest.mark.parametrize(
    ("values", "facts", "undo"),
    [
        (
            NGINX,
            {},
            ["log", "revert", "switch-back", "drain-new", "stop-new", "empty-slot", "configure-back", "health-back"],
        ),
        ({}, {}, ["log", "revert", "switch-back", "stop-new", "empty-slot", "configure-back", "health-back"]),
        (
            {"slots": "1"},
            {},
            ["log", "revert", "slot-back", "switch-back", "start-back", "configure-back", "health-back"],
        ),
        (
            NGINX,
            {"current": "", "live_slot": "", "slots": {}, "releases": {}},
            ["log", "revert", "switch-back", "drain-new", "stop-new", "empty-slot", "configure-back"],
        ),
    ],
    ids=["behind nginx", "held", "one slot", "first deploy"],
)
def test_the_way_back(values: dict[str, Any], facts: dict[str, Any], undo: list[str]) -> None:
    """First nobody can confirm any more, then the traffic goes back, then the new release goes, and the old one is asked as it wants."""
    phase = switchover.activate(deployment(values, **facts), recipes.ANY_MIGRATION)
    assert names(phase.undo) == [*undo, "journal", "forget"]
    asked = [step for step in phase.undo if step.name == "health-back"]
    assert [step.parameters["path"] for step in asked] == ["/it's old"] * len(asked)
    for step in phase.undo:
        if step.name in ("switch-back", "drain-new", "slot-back", "start-back", "health-back"):
            assert "activation.reverting' ] || unchanged 'the switch had not begun'" in (step.guard or step.body), (
                step.name
            )


def test_the_record_says_the_way_back() -> None:
    """Whoever finds it needs nothing else: release, slot and the manager's files as they were."""
    plan = deployment(NGINX)
    (conf,) = plan.manager.files
    plan = deployment(NGINX, managed={str(conf.path): {"text": "; Managed by fabdjango: it's old\n"}})
    arm = next(step for step in switchover.activate(plan, recipes.ANY_MIGRATION).steps if step.name == "arm")
    assert json.loads(arm.puts[0].content) == {
        "event": "deploy",
        "release": "7-0123456789ab",
        "commit": plan.sha,
        "from": OLD,
        "by": "it's me",
        "slot": "b",
        "from_slot": "a",
        "files": {str(conf.path): "; Managed by fabdjango: it's old\n"},
        "reversed": False,
    }


# --- what a dead activation left ----------------------------------------------------


def recovery(state: str, **record: Any) -> Phase:
    """The phase that ends an activation from slot a to b, as the next deployment finds it."""
    plan = deployment(NGINX)
    arm = next(step for step in switchover.activate(plan, recipes.ANY_MIGRATION).steps if step.name == "arm")
    found = {**json.loads(arm.puts[0].content), **record, "state": state}
    host = {
        **HOST,
        "current": "7-0123456789ab",
        "live_slot": "b",
        "releases": {**HOST["releases"], "7-0123456789ab": {}},
    }
    return switchover.recover(site(NGINX), sample_facts(**host, activation=found))


@pytest.mark.parametrize("state", ["armed", "reverting"])
def test_an_activation_that_was_not_confirmed_is_undone(state: str) -> None:
    """Whatever current says by now, the record names what is put back; a file that was not there goes."""
    phase = recovery(state)
    undo = names(switchover.activate(deployment(NGINX), recipes.ANY_MIGRATION).undo)
    assert names(phase.steps) == ["slots-again", "supervisor", *undo]
    by_name = {step.name: step for step in phase.steps}
    assert by_name["switch-back"].title == f"current is releases/{OLD}, in slot a"
    assert by_name["stop-new"].title == "stop blog-web-b"
    assert by_name["configure-back"].body.splitlines()[0] == "rm -f -- /etc/supervisor/conf.d/blog.conf"
    assert phase.lock


def test_an_activation_that_was_confirmed_is_finished() -> None:
    """Its release serves and is in the journal; the old slot is left to finish, stopped and emptied."""
    phase = recovery("confirmed")
    assert names(phase.steps) == ["slots-again", "journal", "drain", "stop-old", "empty-slot", "forget"]
    assert '"release": "7-0123456789ab", "result": "serves"' in phase.steps[1].body
    assert phase.steps[3].title == "stop blog-web-a"


def test_an_activation_that_died_before_the_switch_is_cleared() -> None:
    """It left no record: what it started in the idle slot goes, and nothing else is touched."""
    facts = sample_facts(live_slot="a", slots={"a": OLD, "b": "7-0123456789ab"}, current=OLD)
    assert facts.left_behind
    phase = switchover.recover(deployment(NGINX).site, facts)
    assert names(phase.steps) == ["slots-again", "stop-old", "empty-slot"]
    assert phase.steps[1].title == "stop blog-web-b"


def test_an_early_reversal_is_written_down_first() -> None:
    """Migrations that the older release cannot live with are reversed before it starts, and applied again on the way back."""
    backwards = switchover.Backwards(("posts.0001",), (Reversal("posts", "0002", unsafe=("posts.0002: breaks it",)),))
    phase = switchover.activate(deployment(NGINX), DjangoFacts(), "rollback", backwards)
    steps = names(phase.steps)
    assert steps.index("arm") < steps.index("reverse") < steps.index("start")
    assert (names(phase.undo)[0], phase.undo_from, phase.serving_from) == ("migrate-back", "arm", "arm")
    late = switchover.Backwards(("posts.0001",), (Reversal("posts", "0002"),))
    steps = names(switchover.activate(deployment(NGINX), DjangoFacts(), "rollback", late).steps)
    assert steps.index("await") < steps.index("stop-old") < steps.index("reverse")


def test_what_was_there_before_is_written_again() -> None:
    """The manager's file comes from the record."""
    text = "; Managed by fabdjango: it's old\n"
    phase = recovery("armed", files={"/etc/supervisor/conf.d/blog.conf": text})
    (put,) = next(step for step in phase.steps if step.name == "configure-back").puts
    assert put.content == text
