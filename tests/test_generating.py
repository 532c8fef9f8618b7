"""Secrets that are made on hosts: by real programs, in folders of the test's own, one for each host."""

from __future__ import annotations

import io
import re
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fabdjango import recipes
from fabdjango.body import PRELUDE, render_body
from fabdjango.commands import environment
from fabdjango.facts import read_facts
from fabdjango.fleet import Fleet
from fabdjango.generating import made, make_everywhere
from fabdjango.plan import Phase, Step
from fabdjango.recording import RecordingTransport, runner
from fabdjango.runner import Runner
from fabdjango.transport import Account, Listener, PhaseResult, StepResult
from tests.namespaces.text import SITE

SECRETS: dict[str, Any] = {"SECRET_KEY": "generate", "PEPPER": {"generate": 20}, "MAIL": {"variable": "BLOG_MAIL"}}


def ran(step: Step) -> tuple[str, str]:
    """Run a step's shell here: what it printed, and what it reported."""
    text = f"FABDJANGO_RUN=R1\n{PRELUDE}\nset -e\n{render_body(step, 'R1')}\n"
    done = subprocess.run(["sh", "-s"], input=text, capture_output=True, text=True, check=True)
    reports = re.findall("\x1eR1 (.*)", done.stdout)
    return re.sub("\x1eR1 .*\n", "", done.stdout), "\n".join(reports)


class Here(RecordingTransport):
    """A host that is a folder of this machine: its steps are run."""

    def run(self, phase: Phase, account: Account, listener: Listener) -> PhaseResult:  # noqa: ARG002
        """Run all steps, and keep what they said."""
        result = PhaseResult(phase, 0)
        for number, step in enumerate(phase.steps):
            output, _ = ran(step)
            done = StepResult(str(number), step.name, 0, "" if step.fetch else output)
            done.data = output.encode() if step.fetch else b""
            result.steps.append(done)
            self._record(step)
        return result


def host(root: Path, values: Mapping[str, Any] = SITE, **more: Any) -> Runner:
    """A host whose site is below ``root``."""
    transport = Here()
    transport.host = root.name
    return runner(transport, {**values, "root": str(root), "python": "python3", "secrets": SECRETS}, **more)


def file_of(target: Runner) -> Path:
    """Where its values are kept."""
    return Path(target.site.layout.generated_env)


def values_of(target: Runner) -> dict[str, str]:
    """What sh reads from there."""
    done = subprocess.run(
        ["sh", "-c", '. "$1"; printf "%s\\0" "$SECRET_KEY" "$PEPPER"', "sh", file_of(target)],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(("SECRET_KEY", "PEPPER"), done.stdout.split("\0"), strict=False))


def fleet(*targets: Runner) -> Fleet:
    """These hosts, the first one as the primary, as a survey has found them."""
    found = Fleet(targets, targets[0].report, primary=targets[0].site.host, parallel=1)
    for member in found.members:
        step = recipes.survey(member.runner.site, "", fetch=False, lock=False).steps[-1]
        member.facts = read_facts(ran(step)[0])
    return found


def test_a_value_is_made_once(tmp_path: Path) -> None:
    """Of the length that was asked for; what is there stays as it is, and is not even written again."""
    target = host(tmp_path / "it's one")
    step = environment.generate(target.site.settings, target.site.layout)
    output, _ = ran(step)
    assert output == "made PEPPER, SECRET_KEY\n"
    first, path = values_of(target), file_of(target)
    assert re.fullmatch(r"[A-Za-z0-9]{50}", first["SECRET_KEY"])
    assert re.fullmatch(r"[A-Za-z0-9]{20}", first["PEPPER"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = path.stat()
    assert ran(step) == ("", "unchanged all are there")
    assert path.stat() == before


def test_what_others_keep_there_stays(tmp_path: Path) -> None:
    """Only what is missing is made."""
    target = host(tmp_path / "it's one")
    path = file_of(target)
    path.parent.mkdir(parents=True)
    path.write_text("export DATABASE_URL='it'\\''s'\nexport PEPPER='old'\n")
    assert ran(environment.generate(target.site.settings, target.site.layout))[0] == "made SECRET_KEY\n"
    assert path.read_text().startswith("export DATABASE_URL='it'\\''s'\nexport PEPPER='old'\nexport SECRET_KEY='")


def test_a_deployment_makes_what_is_missing(tmp_path: Path) -> None:
    """The facts then tell the names and a digest, and nothing of the values; a second time nothing runs."""
    target = host(tmp_path / "it's one")
    (member,) = fleet(target).members
    facts = made(target, member.facts)
    assert facts.generated == ("PEPPER", "SECRET_KEY")
    assert re.fullmatch(r"[0-9a-f]{64}", facts.generated_env)
    assert not any(value in repr(facts) for value in values_of(target).values())
    assert isinstance(target.transport, Here)
    before = target.transport.transcript
    assert made(target, facts) == facts
    assert target.transport.transcript == before


@pytest.mark.parametrize("has", [0, 1, None], ids=["the primary", "another host", "nobody"])
def test_all_hosts_of_a_fleet_agree(tmp_path: Path, has: int | None) -> None:
    """Whoever has a value gives it to the others; it is in no transcript, and hidden if it were."""
    targets = [host(tmp_path / f"it's web{number}") for number in range(3)]
    if has is not None:
        made(targets[has], fleet(targets[has]).members[0].facts)
        before = values_of(targets[has])
    make_everywhere(fleet(*targets))
    first, *others = [values_of(each) for each in targets]
    assert [first, first] == others
    assert has is None or first == before
    for target in targets:
        assert isinstance(target.transport, Here)
        assert not any(value in target.transport.transcript for value in first.values())
    assert targets[0].report.redactor.hide(" ".join(first.values())) == "******** ********"


def test_hosts_that_have_them_are_left_alone(tmp_path: Path) -> None:
    """Also where they differ: a value that is in use is not replaced."""
    targets = [host(tmp_path / f"it's web{number}") for number in range(2)]
    for each in targets:
        made(each, fleet(each).members[0].facts)
    before = [values_of(each) for each in targets]
    make_everywhere(fleet(*targets))
    assert before[0] != before[1]
    assert [values_of(each) for each in targets] == before


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    """It shows what would run."""
    target = host(tmp_path / "it's one", dry=True)
    made(target, fleet(target).members[0].facts)
    assert list(tmp_path.iterdir()) == []
    shown = target.report._stream
    assert isinstance(shown, io.StringIO)
    assert "# secrets: make what is secret on the host itself: PEPPER, SECRET_KEY\n" in shown.getvalue()
