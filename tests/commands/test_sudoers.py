"""What the owner of a site may do as root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from fabdjango import onhost, privileged
from fabdjango.commands import managers, sudoers
from fabdjango.commands.manager import Manager
from fabdjango.escape import Shell, raw
from fabdjango.exceptions import FabdjangoError
from fabdjango.plan import ROOT, Put, Step
from tests.conftest import LAYOUT, sample_facts, sample_settings, sample_templates

PROCESSES = {"worker": {"command": "echo 'it is'"}}


def manager(name: str, **values: Any) -> Manager:
    """The site's programs under supervisor or systemd."""
    settings = sample_settings({"manager": name, "processes": PROCESSES, **values})
    return managers.find(settings, sample_facts(systemd=True), LAYOUT, sample_templates())


@pytest.mark.parametrize("name", ["supervisor", "systemd"])
def test_one_program_for_each_deed_of_root(name: str) -> None:
    """What a deployment does as root is in it, under whichever name a step has there; each program says what it is for."""
    found = manager(name)
    puts = {put.path: put for put in sudoers.programs(found, LAYOUT)}
    wanted = [
        found.start_slot("b", name="start-back"),
        found.stop_slot("a", name="stop-new"),
        found.restart_processes(name="processes-back"),
        found.restore(found.files),
        found.tail(slot="a"),
    ]
    for step in wanted:
        assert step
        put = privileged.program(step, LAYOUT.steps_lock)
        assert puts[put.path] == put
        assert put.content.splitlines()[:3] == [
            "#!/bin/sh",
            "# Managed by fabdjango; local edits are overwritten.",
            f"# {step.title}",
        ]
    assert {str(path.parent) for path in puts} == {"/opt/fabdjango/root"}
    assert all(re.fullmatch(r"[a-z0-9-]+\.[0-9a-f]{16}", path.name) for path in puts)
    assert {put.mode for put in puts.values()} == {0o755}


def test_nothing_as_root_needs_no_program() -> None:
    """A supervisor of the owner's own."""
    assert sudoers.programs(manager("supervisor", supervisor={"level": "virtualenv"}), LAYOUT) == ()


def test_other_settings_are_other_programs() -> None:
    """What the list of one was allowed for is not what the other would do."""
    one, two = (
        {put.path for put in sudoers.programs(manager("systemd", gunicorn={"graceful_timeout": seconds}), LAYOUT)}
        for seconds in (30, 31)
    )
    assert one - two
    assert two - one


def test_the_rules() -> None:
    """As sudo reads them: constant paths, no argument, no pattern."""
    puts = [
        Put(privileged.FOLDER / "stop-blog-web-a.0123456789abcdef", ""),
        Put(privileged.FOLDER / "start.fedcba9876543210", ""),
    ]
    assert sudoers.rules("blog", "deploy", puts) == Put(
        PurePosixPath("/etc/sudoers.d/fabdjango-blog"),
        "# Managed by fabdjango\n"
        "# What deploy may do as root for blog: run these programs, which belong to root, and nothing else.\n"
        "deploy ALL=(root) NOPASSWD: /opt/fabdjango/root/start.fedcba9876543210\n"
        "deploy ALL=(root) NOPASSWD: /opt/fabdjango/root/stop-blog-web-a.0123456789abcdef\n",
        0o440,
    )


@pytest.mark.parametrize("name", ["supervisor", "systemd"])
def test_what_the_list_lacks_is_refused(name: str) -> None:
    """Before anything is changed, with the cure; as long as sudo allows everything, no list is asked for."""
    found = manager(name)
    puts = [str(put.path) for put in sudoers.programs(found, LAYOUT)]
    facts = replace(sample_facts(), sudo=False, root_programs=tuple(puts))
    sudoers.refuse_unlisted(found, facts, LAYOUT, found.files, "deploy@web1")
    sudoers.refuse_unlisted(found, replace(facts, sudo=True, root_programs=()), LAYOUT, found.files, "deploy@web1")
    with pytest.raises(
        FabdjangoError, match=r"is a list for other settings than these: 1 programs are not in it"
    ) as caught:
        sudoers.refuse_unlisted(
            found, replace(facts, root_programs=tuple(puts[1:])), LAYOUT, found.files, "deploy@web1"
        )
    assert caught.value.cure == "renew it, as root or with full sudo: fab -H root@web1 setup"
    before = [None, *found.files[1:]]
    with pytest.raises(
        FabdjangoError, match=f"{found.files[0].path} is not as these settings say, and {facts.user} may not change it"
    ):
        sudoers.refuse_unlisted(found, facts, LAYOUT, before, "deploy@web1")


# --- one program -------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> PurePosixPath:
    """The lock that steps join, with the token of a deployment."""
    path = tmp_path / "it's here" / "steps.lock"
    path.parent.mkdir()
    path.write_text("T1\n")
    return PurePosixPath(path)


def run(put: Put, folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a file of its own."""
    path = folder / put.path.name
    path.write_text(put.content)
    path.chmod(put.mode)
    return subprocess.run(
        [path, *words],
        env={**os.environ, **environ},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_program_reports_and_joins_the_lock(tmp_path: Path, site: PurePosixPath) -> None:
    """With its token it holds the lock while it runs; with another's it does nothing; without one there is no deployment."""
    body = raw('note "it is"; flock -n "$0" true; readlink /proc/$$/fd/9 || :')
    put = privileged.program(Step("step", "it's a step", body, user=ROOT), site)
    assert run(put, tmp_path, "R1", "T1").stdout == f"\036R1 note it is\n{site}\n"
    assert run(put, tmp_path, "R1", "").stdout == "\036R1 note it is\n"
    lost = run(put, tmp_path, "R1", "T2")
    assert (lost.returncode, lost.stdout) == (94, "this deployment has lost its lock\n")


@pytest.mark.parametrize("words", [("R1;id", "T1"), ("R1", "$(id)"), ("R1\nid", "T1"), ("../R1", "T1"), ("R1", "T 1")])
def test_arguments_are_words(tmp_path: Path, site: PurePosixPath, words: tuple[str, str]) -> None:
    """Whoever may run it chooses them."""
    put = privileged.program(Step("step", "it's a step", raw("echo ran"), user=ROOT), site)
    done = run(put, tmp_path, *words)
    assert (done.returncode, done.stdout) == (64, "")


def test_nothing_of_the_caller_takes_part(tmp_path: Path, site: PurePosixPath) -> None:
    """Neither its folder, nor its PATH, nor modules that lie there."""
    for name in ("json.py", "id", "sitecustomize.py"):
        (tmp_path / name).write_text("#!/bin/sh\necho mine\n" if name == "id" else "print('mine')\n")
        (tmp_path / name).chmod(0o755)
    step = Step(
        "step",
        "it's a step",
        Shell("pwd; command -v id"),
        user=ROOT,
        program="import json; print(json.dumps(PARAMETERS))",
    )
    put = privileged.program(replace(step, parameters={"it's": 1}), site)
    done = run(
        put, tmp_path, "R1", "T1", PATH=f"{tmp_path}:/usr/bin:/bin", PYTHONPATH=str(tmp_path), HOME=str(tmp_path)
    )
    assert done.stdout == f'/\n{shutil.which("id", path="/usr/bin:/bin")}\n{{"it\'s": 1}}\n'


def test_what_others_have_left_is_seen_and_ended(tmp_path: Path, site: PurePosixPath) -> None:
    """By the lock that it holds; any other word than look and end is refused."""
    put = privileged.steps_program(onhost.source("orphans"), site)
    with subprocess.Popen(["flock", "-s", site, "sleep", "60"]) as held:
        for words in (("unlock", "1"), ("end", "1;id"), ("end", "")):
            assert run(put, tmp_path, *words).returncode == 64
        assert run(put, tmp_path, "look", "1").stdout == ""
        assert held.poll() is None
        said = run(put, tmp_path, "end", "1").stdout
        held.wait(10)
    assert re.fullmatch(r"(sleep|flock) \(\d+\)\n", said)
