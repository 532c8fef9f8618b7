"""What a fleet decides: who switches when, under which id, and what is said when hosts fail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

import fabdjango
from fabdjango.deploying import one_id
from fabdjango.exceptions import ConfigError, ConnectError, FabdjangoError, FleetError
from fabdjango.fleet import Fleet, batch_size
from fabdjango.plan import Phase
from fabdjango.recording import RecordingTransport, call, runner
from fabdjango.runner import Runner
from fabdjango.transport import Account, Listener, PhaseResult
from tests.conftest import SHA
from tests.namespaces.text import CURRENT, DJANGO, SITE, answers

OLD = "7-0123456789ab"
#: A host that serves release 7 of another commit than the one that is deployed.
SERVES: dict[str, Any] = {**CURRENT, "releases": {OLD: {"release": OLD, "commit": "7" * 40, "venv": "it's one"}}}
NEW = "8-0123456789ab"
BEFORE = "6-666666666666"
#: A host that was away when the others got release 7.
BEHIND: dict[str, Any] = {
    **SERVES,
    "current": BEFORE,
    "releases": {BEFORE: {"commit": "6" * 40, "venv": "it's two"}},
    "slots": {"b": BEFORE},
    "highest": 6,
}


def host(name: str, survey: Mapping[str, Any] = SERVES, **more: str | int) -> Runner:
    """A host of the fleet that answers so."""
    transport = RecordingTransport(answers(survey, **more))
    transport.host = f"{name}.example.com"
    return runner(transport, SITE)


class Away(RecordingTransport):
    """A host that nobody reaches."""

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:  # noqa: ARG002
        """There is no session."""
        raise ConnectError(f"{self.host} port 22 does not answer", host=self.host)


def away(name: str) -> Runner:
    """A host of the fleet that nobody reaches."""
    transport = Away()
    transport.host = f"{name}.example.com"
    return runner(transport, SITE)


def phases(target: Runner) -> list[str]:
    """The sessions of a host, and what was decided of it."""
    assert isinstance(target.transport, RecordingTransport)
    lines = target.transport.transcript.splitlines()
    return [
        line.removeprefix("== ").removeprefix("-- ").partition(" (")[0].partition(":")[0]
        for line in lines
        if line.startswith(("== ", "-- confirm", "-- revert:"))
    ]


def deploy(*targets: Runner, **flags: object) -> FabdjangoError | None:
    """Deploy to the hosts, the first one as the primary; the error that it ended with."""
    try:
        call(fabdjango.ns["deploy"], *targets, commit="main", **flags)
    except FabdjangoError as error:
        return error
    return None


def said(target: Runner) -> str:
    """What a host's report has told."""
    return str(target.report._stream.getvalue())  # type: ignore[union-attr]


WHOLE = ["survey", "prepare", "activate", "settle", "confirm", "prune"]


# --- the way to a new release ---------------------------------------------------


def test_every_host_is_confirmed_once_all_have_switched() -> None:
    """The same phases everywhere, one id, and migrations of the primary only."""
    hosts = [host("web1"), host("web2"), host("web3")]

    assert deploy(*hosts) is None

    assert [phases(each) for each in hosts] == [WHOLE] * 3
    transcripts = [each.transport.transcript for each in hosts]  # type: ignore[attr-defined]
    assert [text.count("\n-- migrate: ") for text in transcripts] == [1, 0, 0]
    assert all(f"releases/{NEW}" in text for text in transcripts)
    assert said(hosts[0]).endswith(f"\ndeployed: {NEW} serves on 3 hosts\n")


def test_a_host_that_serves_it_already_is_only_asked() -> None:
    """Its marker has the fingerprint of what would be deployed; the other hosts get its id."""
    first = host("web1", {})
    assert deploy(first) is None
    text = first.transport.transcript  # type: ignore[attr-defined]
    assert "releases/1-0123456789ab" in text


@pytest.mark.parametrize(
    ("batch", "hosts", "size"),
    [("1", 5, 1), ("2", 5, 2), ("all", 5, 5), ("25%", 5, 1), ("25%", 50, 12), ("100%", 3, 3), ("1%", 3, 1)],
)
def test_the_size_of_a_batch(batch: str, hosts: int, size: int) -> None:
    """Of a part there is at least one host."""
    assert batch_size(batch, hosts) == size


def test_the_primary_switches_alone_and_first() -> None:
    """Wherever it stands in the inventory."""
    hosts = [host(f"web{number}") for number in range(1, 6)]
    fleet = Fleet(hosts, hosts[0].report, primary="web3.example.com", batch="2")

    names = [[each.host.partition(".")[0] for each in batch] for batch in fleet.batches(fleet.members)]

    assert names == [["web3"], ["web1", "web2"], ["web4", "web5"]]


# --- one id -----------------------------------------------------------------------


def chosen(*surveys: Mapping[str, Any]) -> str:
    """The id that a deploy to hosts with these surveys chooses."""
    from fabdjango import recipes
    from fabdjango.surveying import look

    plans = []
    for survey in surveys:
        target = host("web", survey)
        plans.append(recipes.deployment(target.site, look(target, "main", fetch=False), "main"))
    return one_id(plans)


def unchanged(release: str) -> dict[str, Any]:
    """A host that serves this very commit and configuration under an id."""
    from fabdjango import recipes
    from fabdjango.surveying import look

    target = host("web", {})
    plan = recipes.deployment(target.site, look(target, "main", fetch=False), "main")
    marker = {"release": release, "commit": SHA, "venv": "it's one", "fingerprint": plan.fingerprint}
    return {**CURRENT, "current": release, "releases": {release: marker}, "slots": {"b": release}, "highest": 7}


def test_a_new_id_is_above_all_that_any_host_has_had() -> None:
    """Not the newest of one host, and no clock: a host whose clock is a day off has no say in the order."""
    tomorrow = {"event": "deploy", "release": OLD, "result": "serves", "time": "2099-01-02T00:00:00Z"}
    yesterday = {**tomorrow, "time": "1999-01-01T00:00:00Z"}
    assert (
        chosen({**SERVES, "journal": [tomorrow]}, {**SERVES, "highest": 11, "journal": [yesterday]})
        == "12-0123456789ab"
    )


def test_hosts_that_agree_keep_their_id() -> None:
    """And a host that was away gets the same."""
    assert chosen(unchanged("7-0123456789ab"), unchanged("7-0123456789ab"), BEHIND) == "7-0123456789ab"


def test_hosts_that_disagree_get_a_new_one() -> None:
    """The same commit under two ids is one deployment too many."""
    assert chosen(unchanged("7-0123456789ab"), unchanged("6-0123456789ab")) == "8-0123456789ab"


def test_an_id_that_means_something_else_elsewhere_is_not_taken() -> None:
    """A complete release of that name, with another configuration."""
    other = {
        **SERVES,
        "releases": {**SERVES["releases"], "9-0123456789ab": {"fingerprint": "it's another"}},
        "highest": 9,
    }
    assert chosen(unchanged("9-0123456789ab"), other) == "10-0123456789ab"


def test_an_id_whose_files_were_changed_by_hand_is_not_taken() -> None:
    """On one host of two: both get a new one."""
    touched = {
        **unchanged("7-0123456789ab"),
        "managed": {f"{SITE['root']}/current/.fabdjango/run": {"digest": "it's mine"}},
    }
    assert chosen(unchanged("7-0123456789ab"), touched) == "8-0123456789ab"


# --- when hosts fail -----------------------------------------------------------------


def test_a_failure_before_any_switch_touches_no_host() -> None:
    """Every host's own error is told, then where all of them stand."""
    hosts = [host("web1"), host("web2", install=1), host("web3", export=1)]

    error = deploy(*hosts)

    assert isinstance(error, FleetError)
    assert [phases(each) for each in hosts] == [["survey", "prepare"]] * 3
    assert error.render() == (
        "Error: install failed\n"
        " host: web2.example.com\n"
        " step: install requirements.txt\n"
        "\n"
        "Error: export failed\n"
        " host: web3.example.com\n"
        " step: export 0123456789ab into releases/8-0123456789ab\n"
        " do this: see whether the disk is full: df -h, df -i\n"
        "\n"
        "Error: 2 of 3 hosts: the release could not be made ready\n"
        " hosts:\n"
        f"   | web1.example.com  serves {OLD}, as before\n"
        f"   | web2.example.com  serves {OLD}, as before\n"
        f"   | web3.example.com  serves {OLD}, as before\n"
        " state: nothing that serves was touched on any host (exit 1)"
    )


def test_a_primary_that_does_not_answer_stops_it_there() -> None:
    """No other host has switched, and none does."""
    hosts = [host("web1", health=1), host("web2")]

    error = deploy(*hosts)

    assert isinstance(error, FleetError)
    assert (error.exit_code, error.state) == (1, "nothing that serves was touched on any host")
    assert phases(hosts[1]) == ["survey", "prepare"]


@pytest.mark.parametrize("step", ["health", "answer"])
def test_those_that_have_switched_go_back(step: str) -> None:
    """Whether the one that failed had the traffic or not: every host serves what it did before."""
    failing: dict[str, Any] = {step: 1}
    hosts = [host("web1"), host("web2"), host("web3", SERVES, **failing), host("web4")]

    error = deploy(*hosts)

    assert isinstance(error, FleetError)
    assert (error.exit_code, error.state) == (3, "every host serves again what it did before")
    assert [phases(each) for each in hosts] == [
        ["survey", "prepare", "activate", "settle", "revert"],
        ["survey", "prepare", "activate", "settle", "revert"],
        ["survey", "prepare", "activate"],
        ["survey", "prepare"],
    ]
    last = "as before" if step == "health" else "again"
    assert list(error.table) == [
        f"web1.example.com  serves {OLD} again",
        f"web2.example.com  serves {OLD} again",
        f"web3.example.com  serves {OLD}{',' if last == 'as before' else ''} {last}",
        f"web4.example.com  serves {OLD}, as before",
    ]


def test_a_host_that_is_away_stops_a_deploy() -> None:
    """By default; it is named, with the way to go on without it."""
    hosts = [host("web1"), away("web2")]

    error = deploy(*hosts)

    assert isinstance(error, FleetError)
    assert error.render() == (
        "Error: web2.example.com port 22 does not answer\n"
        " host: web2.example.com\n"
        "\n"
        "Error: 1 of 2 hosts cannot be reached\n"
        " hosts:\n"
        f"   | web1.example.com  serves {OLD}, as before\n"
        "   | web2.example.com  cannot be reached, and was not touched\n"
        " state: nothing was changed on any host (exit 1)\n"
        " do this: mend them, or go on without them: fab … deploy --skip-unreachable\n"
        "          they are brought up later by: fab deploy --catch-up"
    )
    assert phases(hosts[0]) == ["survey"]


def test_going_on_without_a_host_is_said_in_the_last_line() -> None:
    """The others are deployed to."""
    hosts = [host("web1"), away("web2"), host("web3")]

    assert deploy(*hosts, skip_unreachable=True) is None

    assert said(hosts[0]).endswith(
        f"\ndeployed: {NEW} serves on 2 hosts; skipped: web2.example.com (later: fab deploy --catch-up)\n"
    )


def test_migrations_wait_for_the_primary() -> None:
    """Without it nobody applies them, so nothing is switched."""
    hosts = [away("web1"), host("web2"), host("web3")]

    error = deploy(*hosts, skip_unreachable=True)

    assert error is not None
    assert error.exit_code == 1
    assert error.message == (
        "migrations are to be applied on web2.example.com (posts.0001_initial), and the primary, which does it, "
        "is not among these hosts"
    )
    assert phases(hosts[1]) == ["survey", "prepare"]


def test_without_migrations_the_primary_may_be_away() -> None:
    """There is nothing that only it may do."""
    none = json.dumps({**DJANGO, "migrations": []})
    hosts = [away("web1"), host("web2", check=none), host("web3", check=none)]

    assert deploy(*hosts, skip_unreachable=True) is None


def test_catching_up_touches_only_those_that_are_behind() -> None:
    """They get the commit and the id of the others, which are surveyed and no more."""
    none = json.dumps({**DJANGO, "migrations": []})
    hosts = [host("web1"), host("web2"), host("web3", BEHIND, check=none)]

    assert deploy(*hosts, catch_up=True) is None

    assert [phases(each)[2:] for each in hosts] == [["confirm"], ["confirm"], WHOLE[1:]]
    assert f"releases/{OLD}" in hosts[2].transport.transcript  # type: ignore[attr-defined]
    assert said(hosts[0]).endswith(f"\ndeployed: {OLD} serves on 3 hosts\n")


# --- a rollback -------------------------------------------------------------------------


SERVED: dict[str, Any] = {
    **SERVES,
    "releases": {**SERVES["releases"], **BEHIND["releases"]},
    "journal": [{"event": "deploy", "release": release, "result": "serves"} for release in (BEFORE, OLD)],
}


def test_all_go_back_to_what_the_primary_served_before() -> None:
    """By the journal; the database is asked on the primary only."""
    known = json.dumps({**DJANGO, "known": ["posts.0001_initial"]})
    hosts = [
        host("web1", SERVED, known=known, **{"plan-reversal": json.dumps({"migrations": []})}),
        host("web2", SERVED),
    ]

    call(fabdjango.ns["rollback"], *hosts)

    assert phases(hosts[1]) == ["survey", "activate", "settle", "confirm", "prune"]
    assert said(hosts[0]).endswith("\nrolled back: 6-666666666666 serves on 2 hosts\n")


def test_a_release_that_one_host_has_not_got_is_refused() -> None:
    """Before anything is switched."""
    hosts = [host("web1", SERVED), host("web2")]

    with pytest.raises(FleetError) as caught:
        call(fabdjango.ns["rollback"], *hosts)

    assert caught.value.exit_code == 1
    assert [each.message for each in caught.value.errors] == ["there is no complete release 6-666666666666"]
    assert phases(hosts[0]) == ["survey"]


# --- what an operator does by hand -----------------------------------------------


def test_the_first_exit_code_of_several() -> None:
    """A command that failed on some hosts ends as it did on the first of them, and all are told."""
    targets = [host("web1"), host("web2", command=7), host("web3", command=9)]
    with pytest.raises(FleetError) as caught:
        call(fabdjango.host["run"], *targets, command="it's one")
    assert caught.value.exit_code == 7
    assert caught.value.render().splitlines() == [
        "Error: ended with status 7: it's one",
        " host: web2.example.com",
        "",
        "Error: ended with status 9: it's one",
        " host: web3.example.com",
        "",
        "Error: 2 of 3 hosts: it failed",
    ]
    assert phases(targets[2]) == ["command"]


def test_logs_of_what_is_elsewhere() -> None:
    """Of several hosts, only those are asked that have the program."""
    one, two = host("web1"), host("web2")
    two.site = replace(two.site, settings=replace(two.site.settings, processes={}), elsewhere=frozenset({"worker"}))
    call(fabdjango.ns["logs"], one, two, name="worker")
    assert (phases(one), phases(two)) == (["survey", "logs"], [])
    with pytest.raises(ConfigError, match=r"^--lines is a number of lines, without --since$"):
        call(fabdjango.ns["logs"], one, lines=5, since="1 min")
    with pytest.raises(ConfigError, match=r"^--name is for programs, and --which for nginx$"):
        call(fabdjango.ns["logs"], one, name="web", which="error")
