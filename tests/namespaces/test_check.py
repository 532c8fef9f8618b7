"""What a check runs, and how it tells what it found."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from invoke.exceptions import Exit

import fabdjango
from fabdjango.exceptions import ConfigError, ConnectError
from fabdjango.plan import Phase
from fabdjango.recording import RecordingTransport, call, runner
from fabdjango.runner import Runner
from fabdjango.transport import Account, Listener, PhaseResult
from tests.conftest import SHA
from tests.namespaces.text import CURRENT, SITE, SURVEY, joined

TOOLS = {
    name: f"/usr/bin/{name}" for name in ("git", "flock", "base64", "timeout", "supervisorctl", "supervisord", "uv")
}
SURVEYED = {**SURVEY, "os": "debian 12", "programs": TOOLS}
HOST: dict[str, Any] = {
    "addresses": ["127.0.0.1"],
    "memory": 8_000_000_000,
    "sudo": ["all", []],
    "owner": "here",
    "versions": {"git": "2.39.5"},
}
SITE_LOOK: dict[str, Any] = {"disk": [9_000_000_000, 20_000_000_000, 9, 0], "places": {}, "ports": [], "lock": ""}
LISTED = f"{SHA}\trefs/heads/it's main\nstatus 0\n"
LOOKING = "python3 -I -S - # Look at what a deploy needs of the host and at what has changed on it; print it as one line of JSON. Writes nothing."


class Host(RecordingTransport):
    """One whose clock is the operator's."""

    def __init__(
        self, survey: Mapping[str, Any] | int = 0, look: Mapping[str, Any] | None = None, **more: str | int | None
    ) -> None:
        answers: dict[str, str | int] = {
            "survey": survey or json.dumps(SURVEYED) if isinstance(survey, int) else json.dumps({**SURVEYED, **survey}),
            "repository": LISTED,
            "check-site": json.dumps(SITE_LOOK),
            "check-django": json.dumps({"messages": [], "databases": []}),
            "nginx-look": json.dumps({"root": "/srv/the blog"}),
        }
        given = {name.replace("_", "-"): answer for name, answer in more.items() if answer is not None}
        super().__init__({**answers, **given})
        self._look = dict(look or {})

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:
        """Answer with the time of now."""
        self._answers.setdefault("check-host", json.dumps({**HOST, "clock": time.time(), **self._look}))
        return super().run(phase, account, listener)


class Gone(RecordingTransport):
    """A host that cannot be reached."""

    host = "web2.example.com"

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:  # noqa: ARG002 - the protocol's form
        """Nobody is there."""
        raise ConnectError("web2 port 22 does not answer", host="web2", cure="is it up?\nlook")


def check(*hosts: RecordingTransport, values: Mapping[str, Any] = SITE, **arguments: Any) -> tuple[int, str]:
    """The exit code, and what is told."""
    targets = [runner(host, values) for host in hosts]
    code = 0
    try:
        call(fabdjango.ns["check"], *targets, commit="main", **arguments)
    except Exit as error:
        code = error.code
    return code, "".join(said(each) for each in targets)


def said(target: Runner) -> str:
    """What one host's report has."""
    stream = target.report._stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_before_the_first_deploy() -> None:
    """Two sessions; nothing is locked, and no step writes."""
    host = Host()
    code, text = check(host)
    assert host.transcript == joined(
        f"""\
        == check
        -- check-host as (login): look at the host
        {LOOKING}
        -- rights as (login): what may be done as root
        if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then echo all; else
            sudo -n -l 2>/dev/null | grep -o '/opt/fabdjango/root/[^ ,]*' || :; fi
        -- survey: look at the host and the commit
        python3 -I -S - # Look at the host and the commit; print what was found as one line of JSON. Writes nothing.
        -- repository: look at ssh://git@example.com/it's here.git
        GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20'
            timeout -k 10 300 git ls-remote --heads --tags -- 'ssh://git@example.com/it'"'"'s here.git' 2>&1 && status=0 || status=$?
        printf "status %s\\n" "$status"
        == check
        -- check-site: look at the site
        {LOOKING}
        -- check-root as root: look at what is root's
        {LOOKING}
        """
    )
    assert text == joined(
        """\
        ok       ssh: deploy is let in within 0.0 s, its key is known
        ok       account: deploy owns the site
        ok       sudo: sudo asks for no password
        ok       clock: the clock is that of this machine
        ok       system: debian 12
        ok       tools: git 2.39.5, flock, timeout
        ok       python: Python 3.11.2
        ok       uv: uv is there
        ok       disk: 9.0 GB of 20.0 GB are free
        ok       memory: 8.0 GB of memory and swap can be had
        ok       ports: nobody listens on port 8000
        ok       shared: /srv/the blog is made by the first deploy
        ok       lock: nobody deploys
        ok       releases: none serves, 0 are complete
        ok       repository: the host can read ssh://git@example.com/it's here.git
        ok       deploy: a deploy of main (0123456789ab) can begin
        0 errors, 0 warnings: a deploy of main can begin
        """
    )
    assert code == 0


def test_with_a_release_and_nginx() -> None:
    """Django is started last in the second session; the commit that serves is looked at if another one is wanted."""
    other = {**CURRENT, "releases": {"7-0123456789ab": {"commit": "f" * 40}}}
    host = Host(other)
    check(host, values={**SITE, "nginx": {"domains": ["localhost"]}})
    names = [line.partition(":")[0] for line in host.transcript.splitlines() if line[:3] in ("== ", "-- ")]
    assert names == [
        *("== check", "-- check-host as (login)", "-- rights as (login)", "-- survey", "-- repository"),
        *("== check", "-- survey", "-- check-site", "-- check-root as root", "-- nginx-look as root", "-- nginx-ask"),
        "-- check-django",
    ]


def test_without_root() -> None:
    """Nothing is asked as root, and it is said what was left out; what needs root is refused as a deploy would be."""
    host = Host({"sudo": False}, {"sudo": ["password", []]})
    code, text = check(host, values={**SITE, "supervisor": {"level": "system"}})
    assert "as root:" not in host.transcript
    assert "note     sudo: sudo asks for a password\n         | not looked at, as it takes root: " in text
    assert text.splitlines()[-4:] == [
        "ok       repository: the host can read ssh://git@example.com/it's here.git",
        "error    manager: the host's supervisor belongs to root, and sudo asks for a password",
        "         do this: set fabdjango.supervisor.level to virtualenv, or allow sudo without a password",
        "1 error, 0 warnings: manager",
    ]
    assert code == 1


def test_all_refusals_of_a_deploy() -> None:
    """Each in the place of what was else said of its subject."""
    code, text = check(Host({"disk": [1_000_000, 9], "manage": False, "lfs": True}))
    assert [line for line in text.splitlines() if line.startswith("error")] == [
        "error    commit: the commit has files in git LFS, of which a release would only get pointers",
        "error    commit: the commit has no manage.py",
        "error    disk: the disk is too full: 1 MB free, 50 MB needed",
    ]
    assert "ok       disk" not in text
    assert text.splitlines()[-1] == "3 errors, 0 warnings: commit, disk"
    assert code == 1


def test_a_commit_that_the_host_does_not_have() -> None:
    """Its files are taken to be as before."""
    _, text = check(Host(repository=f"{'e' * 40}\trefs/heads/main\nstatus 0\n"))
    assert text.splitlines()[-3:] == [
        "note     commit: main is eeeeeeeeeeee, which the host does not have yet: its files are taken to be as before",
        "ok       deploy: a deploy of main (eeeeeeeeeeee) can begin",
        "0 errors, 0 warnings: a deploy of main can begin",
    ]


def test_a_commit_that_is_no_tip() -> None:
    """A repository tells of its branches and tags only, so it may be there: a deploy fetches first."""
    host = Host({"sha": "", "ref_kind": "unknown", "manage": False})
    with contextlib.suppress(Exit):
        target = runner(host, SITE)
        call(fabdjango.ns["check"], target, commit="abc123")
    assert said(target).splitlines()[-3:] == [
        "note     commit: the host does not have abc123 yet, and a deploy would fetch first",
        "ok       deploy: a deploy of abc123 can begin",
        "0 errors, 0 warnings: a deploy of abc123 can begin",
    ]


def test_a_repository_that_cannot_be_read() -> None:
    """The host's own words, with the cure that a deploy has; that the commit is unknown is no news."""
    refused = (
        "git@example.com: Permission denied (publickey).\nfatal: Could not read from remote repository.\nstatus 128\n"
    )
    code, text = check(Host({"sha": "", "manage": False}, repository=refused))
    assert text.splitlines()[-5:] == [
        "error    repository: the host cannot read ssh://git@example.com/it's here.git",
        "         | git@example.com: Permission denied (publickey).",
        "         | fatal: Could not read from remote repository.",
        "         do this: the host's key is not allowed to read the repository: add the host's ~/.ssh/id_*.pub there as a deploy key",
        "1 error, 0 warnings: repository",
    ]
    assert code == 1


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"check_host": 127}, "error    host: check-host failed with status 127"),
        ({"survey": 1}, "error    survey: survey failed"),
        ({"check_site": 1}, "error    host: check-site failed"),
        ({"check_site": "it's broken"}, "error    check: the look at the host did not give an answer that can be read"),
    ],
)
def test_a_look_that_fails(answers: dict[str, Any], error: str) -> None:
    """What was seen before it is told."""
    code, text = check(Host(**answers))
    assert next(line for line in text.splitlines() if line.startswith("error")) == error
    assert code == 1


def test_an_owner_whom_one_may_not_be() -> None:
    """Why the survey failed is told once."""
    code, text = check(Host(1, {"owner": "refused"}))
    assert [line for line in text.splitlines() if line.startswith("error")] == [
        "error    account: deploy may not become deploy, who is to own the site, without a password"
    ]
    assert code == 1


def test_a_django_that_does_not_start() -> None:
    """The phase ends with it, and what came before counts."""
    code, text = check(Host(CURRENT, check_django=1))
    assert "error    django: Django does not start in the release that serves" in text.splitlines()
    assert "ok       lock: nobody deploys" in text.splitlines()
    assert code == 1


def test_many_hosts() -> None:
    """One that cannot be reached is a finding among others, and the sum says where they are."""
    code, text = check(Host(), Gone())
    lines = text.splitlines()
    assert "ok       deploy: a deploy of main (0123456789ab) can begin" in lines
    assert lines[-4:] == [
        "1 error, 0 warnings: web2.example.com ssh",
        "error    ssh: web2 port 22 does not answer",
        "         do this: is it up?",
        "                  look",
    ]
    assert code == 1


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object and nothing else; the exit code is the same."""
    code, text = check(Host({"manage": False}), Gone(), json=True)
    assert (code, text) == (1, "")
    out, _ = capsys.readouterr()
    found = json.loads(out)
    assert (out.count("\n"), found["errors"], found["warnings"]) == (1, 2, 0)
    assert list(found["hosts"]) == ["web1.example.com", "web2.example.com"]
    assert found["hosts"]["web2.example.com"] == {
        "findings": [
            {"subject": "ssh", "severity": "error", "text": "web2 port 22 does not answer", "cure": "is it up?\nlook"}
        ]
    }


def test_strict() -> None:
    """Warnings count too; without them it ends well."""
    warned = {"activation": {"release": "8-it's", "state": "armed"}}
    assert check(Host(warned))[0] == 0
    assert check(Host(warned), strict=True)[0] == 1
    assert check(Host(), strict=True)[0] == 0


def test_secrets_are_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    """In what a host says, in either form."""
    for as_json in (False, True):
        target = runner(Host(repository="fatal: it's canary-5up3r\nstatus 128\n"), SITE, env={"KEY": "canary-5up3r"})
        with pytest.raises(Exit):
            call(fabdjango.ns["check"], target, commit="main", json=as_json)
        text = said(target) + capsys.readouterr().out
        assert "canary" not in text
        assert "fatal: it's ********" in text


def test_what_is_no_commit_is_refused_before_any_host_is_asked() -> None:
    """It could be taken for an option."""
    host = Host()
    with pytest.raises(ConfigError, match="is not a branch, a tag or a commit"):
        call(fabdjango.ns["check"], runner(host, SITE), commit="--upload-pack=it's")
    assert host.transcript == ""
