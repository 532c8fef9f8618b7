"""From one release to the next: every change is one rename, and one rename decides who has the last word."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from fabdjango.body import render_body
from fabdjango.commands import activation
from fabdjango.escape import Shell
from fabdjango.layout import Layout
from fabdjango.plan import Put, Step
from tests.conftest import LAYOUT, RELEASE, sample_templates, shell, shown


def test_place() -> None:
    """The starter of slots; an address of the project's choice is a link to the live socket."""
    assert shown(activation.place(LAYOUT, sample_templates(), "unix:/run/it's.sock")) == shell("""
        # slots: the two slots have their starter
        replace '/srv/it'"'"'s here/run/slot' 755 <<'EOF'
        (668 bytes)
        EOF
        mkdir -p -- '/srv/it'"'"'s here/slots' '/srv/it'"'"'s here/run/sockets'
        if [ "$(readlink '/run/it'"'"'s.sock')" != '/srv/it'"'"'s here/run/current.sock' ]; then
        rm -f -- '/run/.it'"'"'s.sock.new'
        ln -s -- '/srv/it'"'"'s here/run/current.sock' '/run/.it'"'"'s.sock.new'
        mv -fT -- '/run/.it'"'"'s.sock.new' '/run/it'"'"'s.sock'
        fi
    """)


MAKE = """mkdir -p -- '/srv/it'"'"'s here/slots' '/srv/it'"'"'s here/run/sockets'"""


@pytest.mark.parametrize("bind", ["127.0.0.1:8000", f"unix:{LAYOUT.live_socket}"])
def test_place_without_an_address_of_its_own(bind: str) -> None:
    """The live socket is made by the switch, and a port is no file."""
    assert activation.place(LAYOUT, sample_templates(), bind).body == MAKE


def test_place_for_an_application_with_an_account_of_its_own() -> None:
    """It makes its sockets itself, in a folder that the web server passes through, and writes nowhere else."""
    step = activation.place(LAYOUT, sample_templates(), "127.0.0.1:8000", "it's group")
    assert step.body == shell(f"""
        {MAKE}
        chgrp -- 'it'"'"'s group' '/srv/it'"'"'s here/run/sockets'
        chmod 771 -- '/srv/it'"'"'s here/run/sockets'
    """)


def test_use_and_empty_a_slot() -> None:
    """A slot only ever gets a complete release."""
    assert shown(activation.use_slot(LAYOUT, "b", RELEASE), activation.empty_slot(LAYOUT, "a")) == shell("""
        # slot: slot b is for 7-0123456789ab
        [ -e '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/release.json' ] || refuse 'releases/7-0123456789ab is not complete'
        rm -f -- '/srv/it'"'"'s here/slots/.b.new'
        ln -s -- ../releases/7-0123456789ab '/srv/it'"'"'s here/slots/.b.new'
        mv -fT -- '/srv/it'"'"'s here/slots/.b.new' '/srv/it'"'"'s here/slots/b'
        # empty-slot: slot a is empty
        rm -f -- '/srv/it'"'"'s here/slots/a'
    """)


SWITCH = """
    [ -e '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/release.json' ] || refuse 'releases/7-0123456789ab is not complete'
    rm -f -- '/srv/it'"'"'s here/.current.new'
    ln -s -- releases/7-0123456789ab '/srv/it'"'"'s here/.current.new'
    mv -fT -- '/srv/it'"'"'s here/.current.new' '/srv/it'"'"'s here/current'
    rm -f -- '/srv/it'"'"'s here/run/.current.sock.new'
    ln -s -- sockets/b.sock '/srv/it'"'"'s here/run/.current.sock.new'
    mv -fT -- '/srv/it'"'"'s here/run/.current.sock.new' '/srv/it'"'"'s here/run/current.sock'
    sync -- '/srv/it'"'"'s here' '/srv/it'"'"'s here/run'
"""


def test_switch() -> None:
    """Two renames, never a moment without a link, and on the disk before anything else happens."""
    step = activation.switch(LAYOUT, RELEASE, "b")
    assert (step.title, step.body) == ("current is releases/7-0123456789ab, in slot b", shell(SWITCH))


IF_ARMED = """[ -e '/srv/it'"'"'s here/run/activation.reverting' ] || unchanged 'the switch had not begun'\n"""


def test_switch_back() -> None:
    """The same switch, if there was one."""
    assert activation.switch_back(LAYOUT, RELEASE, "b").body == IF_ARMED + shell(SWITCH)


def test_switch_back_to_nothing() -> None:
    """Before a first deploy nothing served."""
    assert shown(
        activation.switch_back(LAYOUT, "", "")
    ) == "# switch-back: nothing serves, as before\n" + IF_ARMED + shell(
        """
        rm -f -- '/srv/it'"'"'s here/run/current.sock'
        rm -f -- '/srv/it'"'"'s here/current'
        sync -- '/srv/it'"'"'s here' '/srv/it'"'"'s here/run'
        """
    )


def test_close() -> None:
    """With one slot, no slot is live while the release is exchanged."""
    assert activation.close(LAYOUT).body == shell("""
        rm -f -- '/srv/it'"'"'s here/run/.current.sock.new'
        ln -s -- none.sock '/srv/it'"'"'s here/run/.current.sock.new'
        mv -fT -- '/srv/it'"'"'s here/run/.current.sock.new' '/srv/it'"'"'s here/run/current.sock'
    """)


def test_the_record() -> None:
    """Written as a whole and on the disk before the first change; gone at the end, whatever its state."""
    arm = activation.arm(LAYOUT, {"by": "it's me"})
    assert arm.puts == (Put(LAYOUT.run / "activation.armed", '{"by": "it\'s me"}\n'),)
    assert shown(arm, activation.forget(LAYOUT)) == shell("""
        # arm: write down the way back
        replace '/srv/it'"'"'s here/run/activation.armed' 644 <<'EOF'
        (18 bytes)
        EOF
        sync -- '/srv/it'"'"'s here/run'
        # forget: the activation is over
        rm -f -- '/srv/it'"'"'s here/run/activation.armed' '/srv/it'"'"'s here/run/activation.confirmed' '/srv/it'"'"'s here/run/activation.reverting'
    """)


def test_the_deployers_word() -> None:
    """One rename, which fails if the host has given up waiting."""
    assert shown(activation.confirm(LAYOUT), activation.revert(LAYOUT)) == shell("""
        # confirm: the new release stays
        mv -T -- '/srv/it'"'"'s here/run/activation.armed' '/srv/it'"'"'s here/run/activation.confirmed'
        sync -- '/srv/it'"'"'s here/run'
        # revert: back to the release before
        mv -T -- '/srv/it'"'"'s here/run/activation.armed' '/srv/it'"'"'s here/run/activation.reverting'
        sync -- '/srv/it'"'"'s here/run'
    """)


def test_await_word() -> None:
    """When the time is over, the host tries the same rename; what is there afterwards says whose came first."""
    assert shown(activation.await_word(LAYOUT, 60)) == shell("""
        # await: the deployer confirms
        report await 60
        n=0 alone=0
        while [ -e '/srv/it'"'"'s here/run/activation.armed' ] && [ $n -lt 50 ]; do n=$((n + 1)); sleep 0.01; done; n=0
        while [ -e '/srv/it'"'"'s here/run/activation.armed' ] && [ $alone -lt 1200 ] && [ $n -lt 288000 ]; do
          [ $((n % 20)) != 0 ] || gone=$(flock -ns '/srv/it'"'"'s here/run/lock' echo 1 || :)
          n=$((n + 1)) alone=$((gone ? alone + 1 : 0)); sleep 0.05
        done
        mv -T -- '/srv/it'"'"'s here/run/activation.armed' '/srv/it'"'"'s here/run/activation.reverting' 2>/dev/null && why=1 || why=
        [ -z "$why" ] || refuse "nobody confirmed within 60 s"
        [ -e '/srv/it'"'"'s here/run/activation.confirmed' ] || refuse "the deployer wants the release before back"
    """)


def test_begin_revert() -> None:
    """From then on a word of the deployer's comes too late."""
    assert shown(activation.begin_revert(LAYOUT)) == shell("""
        # revert: nobody can confirm any more
        if [ -e '/srv/it'"'"'s here/run/activation.armed' ]; then
          mv -T -- '/srv/it'"'"'s here/run/activation.armed' '/srv/it'"'"'s here/run/activation.reverting'
        fi
        [ -e '/srv/it'"'"'s here/run/activation.reverting' ] || unchanged 'the switch had not begun'
    """)


def test_drain() -> None:
    """At the slot's own socket."""
    step = activation.drain(LAYOUT, "b", 9)
    assert (step.name, step.parameters) == ("drain", {"path": "/srv/it's here/run/sockets/b.sock", "seconds": 9})
    with pytest.raises(ValueError, match="there is no slot"):
        activation.drain(LAYOUT, "it's", 9)


# --- on a real disk ------------------------------------------------------------


PRELUDE = """
report() { printf 'report %s\\n' "$*"; }
unchanged() { exit 0; }
refuse() { printf '%s\\n' "$*"; exit 1; }
set -e
"""


def run(step: Step) -> subprocess.CompletedProcess[str]:
    """Run the shell of a step that writes no file, as dash does."""
    body = render_body(Step(step.name, step.title, Shell(step.body)))
    return subprocess.run(["dash"], input=PRELUDE + body, capture_output=True, text=True, check=False)


def target(link: PurePosixPath) -> str:
    """What a symlink says, as it stands there."""
    return str(Path(link).readlink())


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A site with two complete releases, whose paths have a space and a quote."""
    found = Layout(PurePosixPath(tmp_path / "it's here"), "blog")
    for release in ("1-000000000001", "2-000000000002"):
        Path(found.private(release)).mkdir(parents=True)
        (Path(found.private(release)) / "release.json").write_text("{}")
    for folder in (found.run, found.slots):
        Path(folder).mkdir()
    return found


def test_switch_there_and_back(layout: Layout) -> None:
    """current and the live socket are links and stay so, however often; what is not complete is refused."""
    for release, slot in (("1-000000000001", "a"), ("2-000000000002", "b"), ("2-000000000002", "b")):
        assert run(activation.use_slot(layout, slot, release)).returncode == 0
        assert run(activation.switch(layout, release, slot)).returncode == 0
        assert target(layout.current) == f"releases/{release}"
        assert target(layout.live_socket) == f"sockets/{slot}.sock"
        assert (Path(layout.slot(slot)) / ".fabdjango" / "release.json").exists()
    assert run(activation.switch(layout, "3-000000000003", "a")).stdout == "releases/3-000000000003 is not complete\n"
    assert target(layout.current) == "releases/2-000000000002"

    back = activation.switch_back(layout, "1-000000000001", "a")
    assert run(back).returncode == 0
    assert target(layout.current) == "releases/2-000000000002", "nothing was armed, so nothing is touched"
    Path(activation.state_file(layout, "armed")).write_text("{}")
    assert run(activation.begin_revert(layout)).returncode == 0
    assert run(back).returncode == 0
    assert (target(layout.current), target(layout.live_socket)) == ("releases/1-000000000001", "sockets/a.sock")
    left = {path.name for path in Path(layout.root).rglob("*") if path.name.endswith(".new")}
    assert left == set()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("confirmed", ""),
        ("reverting", "the deployer wants the release before back\n"),
        ("", "nobody confirmed within 0 s\n"),
    ],
)
def test_one_rename_decides(layout: Layout, word: str, said: str) -> None:
    """The host believes the name that the record has by now; without a word it takes it back, and a later word fails."""
    armed = Path(activation.state_file(layout, "armed"))
    armed.write_text(json.dumps({"release": "2-000000000002"}))
    if word:
        assert run(activation.confirm(layout) if word == "confirmed" else activation.revert(layout)).returncode == 0
    awaited = run(activation.await_word(layout, 0))
    assert (awaited.returncode, awaited.stdout) == (1 if said else 0, f"report await 0\n{said}")
    assert run(activation.confirm(layout)).returncode != 0
    (left,) = Path(layout.run).iterdir()
    assert left.name == f"activation.{word or 'reverting'}"
