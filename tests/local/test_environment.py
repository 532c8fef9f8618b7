"""The environment of a site that is deployed: what is made on the host, what is set there, and what differs."""

from __future__ import annotations

import os

from tests.local.conftest import Staged
from tests.local.sample import make_project
from tests.local.stage import Stage, Watch

CANARY = f"c4n4ry-0f-th3-m1n3-{os.getpid()}"
BROKEN = f"{CANARY} broken"
WORKER = 'case "$SHOP_MODE" in *broken) exit 1;; esac; exec sleep 1000'
HAND = "# it's kept by hand\nSHOP_GREETING='hello' # to all\nif [ -e /nonexistent ]; then\n  SHOP_MODE=1\nfi"


def made(stage: Stage) -> str:
    """The one value that was made on the host."""
    name, _, value = (stage.root / "shared/generated.env").read_text().removeprefix("export ").partition("=")
    assert (name, len(value)) == ("SHOP_SECRET_KEY", len("''\n") + 50)
    return value.strip("'\n")


def test_the_environment_of_a_site(staged: Staged) -> None:
    """A value that was made stays through deploys; one that is set serves in a new release, or not at all; nobody sees any."""
    stage = staged()
    stage.repository.commit(make_project())
    stage.write("mail", f"{CANARY} mail\n")
    stage.write("asked", "")
    stage.configure(
        secrets={
            "SHOP_SECRET_KEY": "generate",
            "SHOP_MAIL": {"command": "sh -c 'echo x >> asked; cat mail'"},
        },
        django={"collectstatic": "never"},
        processes={"worker": {"command": WORKER, "startsecs": 1}},
    )
    (stage.root / "shared").mkdir(parents=True)
    shared = stage.root / "shared/.env"
    shared.write_text(HAND)
    shared.chmod(0o600)

    # Made in the first deploy, which counts as the same as the next one.
    stage.deploy()
    key, first = made(stage), stage.current
    assert stage.deploy().last.startswith(f"unchanged: {first} serves")
    assert (stage.operator / "asked").read_text() == 2 * "x\n"
    stage.fab("status")
    assert stage.fab("env.list").out.splitlines()[1:] == [
        "SHOP_GREETING    shared/.env",
        "SHOP_MAIL        fabdjango.secrets, command",
        "SHOP_MODE        shared/.env",
        "SHOP_SECRET_KEY  made on the host",
    ]
    assert (stage.operator / "asked").read_text() == 2 * "x\n", "to look asks nobody"

    with Watch(CANARY) as watch, Watch(key) as other:
        change_and_revert(stage)
        change_for_the_next_release(stage)
        # Nor does the project tell it, when it fails.
        bad = (stage.repository.path / "shop/settings.py").read_text() + "raise ValueError(f'it is {SECRET_KEY}')\n"
        stage.repository.branch("bad", {"shop/settings.py": bad})
        assert "it is ********" in stage.deploy("--commit", "bad", code=1).err
    assert made(stage) == key
    assert f"'{key}'" in (stage.private / "generated.env").read_text()

    assert min(watch.looks, other.looks) > 100
    assert watch.found | other.found == set()
    journal = (stage.root / "journal.jsonl").read_text()
    for text in (*stage.outputs, *stage.server.sessions, journal):
        assert key not in text
        assert CANARY not in text


def change_and_revert(stage: Stage) -> None:
    """Set in a new release, and then as if it had always been so; what breaks a program is taken back."""
    first, shared = stage.current, stage.root / "shared/.env"
    greeting = f"{CANARY} it's $HOME\n"
    run = stage.fab("env.set", "SHOP_GREETING", typed=f"{greeting}\n")
    second = stage.current
    assert run.last == f"SHOP_GREETING is set: {second} serves on {stage.server.address}"
    assert second != first
    assert stage.get().page["greeting"] == greeting
    assert stage.journal[-1]["variables"] == ["SHOP_GREETING"]
    assert shared.read_text() == HAND.replace("hello", greeting.replace("'", "'\\''"))
    assert oct(shared.stat().st_mode)[-3:] == "600"
    again = stage.fab("env.set", "SHOP_GREETING", typed=f"{greeting}\n")
    assert again.last == "unchanged: SHOP_GREETING is set already"

    before = shared.read_bytes()
    run = stage.fab("env.set", "SHOP_MODE", typed=BROKEN, code=3)
    assert "the previous release serves again" in run.err
    assert (stage.current, shared.read_bytes()) == (second, before)
    assert stage.get().page["release"] == second
    assert stage.deploy().last.startswith(f"unchanged: {second} serves")


def change_for_the_next_release(stage: Stage) -> None:
    """Together with settings; the difference is told before, and is none afterwards."""
    stage.fab("env.unset", "SHOP_GREETING", "--no-restart")
    stage.configure(environment={"SHOP_NEW": "1"}, gunicorn={"timeout": 31})
    out = [line for line in stage.fab("config.diff").out.splitlines() if not line.startswith("[")]
    assert out[:3] == [
        f"{stage.current} serves on {stage.server.address}; with the next release",
        "environment: added SHOP_NEW",
        "environment: removed SHOP_GREETING",
    ]
    changed = [line for line in out if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == ["-timeout = 30", "+timeout = 31"]
    stage.repository.commit({"notes/edition.py": "EDITION = '2'\n"})
    stage.deploy()
    assert stage.get().page["greeting"] is None
    assert stage.fab("config.diff").last.startswith(f"unchanged: {stage.current} serves")
