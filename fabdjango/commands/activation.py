"""
From one release to the next: slots, the record of an activation under way, the switch, and the way back.

The record is a file whose suffix is its state: ``.armed`` while the new release waits to be confirmed, then
``.confirmed`` or ``.reverting``. Each change of state is one rename, so that of the deployer who confirms and the host that
reverts exactly one wins. While there is a record, a deployment died or is under way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands.manager import SLOTS
from fabdjango.escape import Shell, block, otherwise, quote, quote_path, raw, sh, when
from fabdjango.layout import Layout
from fabdjango.plan import Put, Step
from fabdjango.render import Templates

__all__ = [
    "STATES",
    "arm",
    "armed",
    "await_word",
    "begin_revert",
    "close",
    "confirm",
    "drain",
    "empty_slot",
    "find_slots_again",
    "forget",
    "place",
    "revert",
    "state_file",
    "switch",
    "switch_back",
    "use_slot",
]

STATES = ("armed", "confirmed", "reverting")


def state_file(layout: Layout, state: str) -> PurePosixPath:
    """The record in one of its states."""
    return layout.activation.with_name(f"{layout.activation.name}.{state}")


# --- slots --------------------------------------------------------------------


def place(layout: Layout, templates: Templates, bind: str, group: str = "", *, jobs: bool = False) -> Step:
    """
    What does not change from deploy to deploy: the starter of slots, the folder of sockets, and the symlink at an address of the project's choice.

    ``group`` is the group of an application that has an account of its own. With ``jobs``, there is a folder for theirs.
    """
    starter = Put(
        layout.slot_starter,
        templates.render("release/slot.j2", slots=layout.slots, live=layout.live_socket, folder=layout.sockets.name),
        0o755,
    )
    path = bind.removeprefix("unix:")
    commands = [sh("mkdir", "-p", "--", layout.slots, layout.sockets)]
    if group:
        # The web server passes through.
        commands += [sh("chgrp", "--", group, layout.sockets), sh("chmod", "771", "--", layout.sockets)]
    if jobs:
        commands += [sh("mkdir", "-p", "--", layout.jobs), *_open_jobs(layout, group)]
    if bind.startswith("unix:") and path != str(layout.live_socket):
        commands.append(
            when(
                raw(f'[ "$(readlink {quote_path(PurePosixPath(path))})" != {quote(str(layout.live_socket))} ]'),
                _link(layout.live_socket, PurePosixPath(path)),
            )
        )
    return Step("slots", "the two slots have their starter", block(*commands), puts=(starter,))


def _open_jobs(layout: Layout, group: str) -> Iterator[Shell]:
    """Whichever account has run a job first, the other may go on with its files."""
    if group:
        each = raw(f'find {quote_path(layout.jobs)} -user "$(id -un)" -exec')
        yield raw(f"{each} chgrp -- {quote(group)} '{{}}' '+'")
        yield raw(f"{each} chmod g+w -- '{{}}' '+'")
        yield sh("chmod", "2775", "--", layout.jobs)


def use_slot(layout: Layout, slot: str, release: str, *, name: str = "slot") -> Step:
    """Let a slot run a release from its next start on."""
    body = block(
        raw(
            f"[ -e {quote_path(layout.private(release) / 'release.json')} ] || refuse {quote(f'releases/{release} is not complete')}"
        ),
        _link(f"../releases/{release}", layout.slot(slot)),
    )
    return Step(name, f"slot {slot} is for {release}", body)


def find_slots_again(layout: Layout) -> Step:
    """A manager that changes how it holds the socket hides the link of the live slot for a moment; give it back its name."""
    commands = []
    for slot in SLOTS:
        hidden = layout.slots / f"{slot}.waits"
        there = raw(f"[ -L {quote_path(hidden)} ]")
        gone = raw(f"[ -L {quote_path(layout.slot(slot))} ]")
        commands.append(
            when(there, otherwise(gone, sh("rm", "-f", "--", hidden), sh("mv", "-T", "--", hidden, layout.slot(slot))))
        )
    return Step("slots-again", "both slots have their names", block(*commands))


def empty_slot(layout: Layout, slot: str, *, name: str = "empty-slot") -> Step:
    """Let a slot run nothing from its next start on."""
    return Step(name, f"slot {slot} is empty", sh("rm", "-f", "--", layout.slot(slot)))


def _link(target: PurePosixPath | str, place: PurePosixPath) -> Shell:
    """Point a symlink somewhere else by one rename; there is no moment without it."""
    staged = place.with_name(f".{place.name}.new")
    return block(
        sh("rm", "-f", "--", staged),
        sh("ln", "-s", "--", target, staged),
        # Without -T the link would be moved into the directory that the old one points to.
        sh("mv", "-fT", "--", staged, place),
    )


# --- the record ---------------------------------------------------------------


def arm(layout: Layout, record: Mapping[str, object]) -> Step:
    """Write down, so that it outlives a power cut, what is to be put back if nobody confirms."""
    put = Put(state_file(layout, "armed"), json.dumps(dict(record), sort_keys=True) + "\n")
    return Step("arm", "write down the way back", sh("sync", "--", layout.run), puts=(put,))


def confirm(layout: Layout) -> Step:
    """The deployer's word: the new release stays."""
    return Step("confirm", "the new release stays", _become(layout, "confirmed"))


def revert(layout: Layout) -> Step:
    """The deployer's word: back to the release before."""
    return Step("revert", "back to the release before", _become(layout, "reverting"))


def _become(layout: Layout, state: str) -> Shell:
    return block(
        sh("mv", "-T", "--", state_file(layout, "armed"), state_file(layout, state)), sh("sync", "--", layout.run)
    )


_LONGEST = 4 * 3600
"""Seconds that a host waits for a deployer that lives but has its hands full with others."""


def await_word(layout: Layout, seconds: int) -> Step:
    """
    Wait until the deployer has confirmed; revert if it has not ``seconds`` after it was last there.

    It is there while it holds the lock of the deployment, which goes with its process or its link.
    """
    armed, confirmed = state_file(layout, "armed"), state_file(layout, "confirmed")
    body = block(
        raw(f"report await {seconds}"),
        # A deployer that is near answers at once.
        raw("n=0 alone=0"),
        raw(f"while [ -e {quote_path(armed)} ] && [ $n -lt 50 ]; do n=$((n + 1)); sleep 0.01; done; n=0"),
        raw(f"while [ -e {quote_path(armed)} ] && [ $alone -lt {seconds * 20} ] && [ $n -lt {_LONGEST * 20} ]; do"),
        # Its lock is looked at once a second.
        raw(f"  [ $((n % 20)) != 0 ] || gone=$(flock -ns {quote_path(layout.lock)} echo 1 || :)"),
        raw("  n=$((n + 1)) alone=$((gone ? alone + 1 : 0)); sleep 0.05"),
        raw("done"),
        # One rename decides, ours or the deployer's; whose it was, the file that is there now says.
        raw(f"mv -T -- {quote_path(armed)} {quote_path(state_file(layout, 'reverting'))} 2>/dev/null && why=1 || why="),
        raw(f'[ -z "$why" ] || refuse "nobody confirmed within {seconds} s"'),
        raw(f'[ -e {quote_path(confirmed)} ] || refuse "the deployer wants the release before back"'),
    )
    return Step("await", "the deployer confirms", body)


def armed(layout: Layout) -> Shell:
    """What ends a step unless the switch may have begun; before that, the site was not touched and stays so."""
    return raw(f"[ -e {quote_path(state_file(layout, 'reverting'))} ] || unchanged 'the switch had not begun'")


def begin_revert(layout: Layout) -> Step:
    """From here on nobody can confirm any more."""
    armed, reverting = state_file(layout, "armed"), state_file(layout, "reverting")
    body = block(
        when(raw(f"[ -e {quote_path(armed)} ]"), sh("mv", "-T", "--", armed, reverting)),
        raw(f"[ -e {quote_path(reverting)} ] || unchanged 'the switch had not begun'"),
    )
    return Step("revert", "nobody can confirm any more", body)


def forget(layout: Layout) -> Step:
    """The activation is over: its record goes."""
    files = [state_file(layout, state) for state in STATES]
    return Step("forget", "the activation is over", sh("rm", "-f", "--", *files))


# --- the switch ---------------------------------------------------------------


def switch(layout: Layout, release: str, slot: str, *, name: str = "switch") -> Step:
    """Point current at a release and the live socket at its slot, each by one rename, and make it last."""
    body = block(
        raw(
            f"[ -e {quote_path(layout.private(release) / 'release.json')} ] || refuse {quote(f'releases/{release} is not complete')}"
        ),
        _link(f"releases/{release}", layout.current),
        _link(f"{layout.sockets.name}/{slot}.sock", layout.live_socket),
        sh("sync", "--", layout.root, layout.run),
    )
    return Step(name, f"current is releases/{release}, in slot {slot}", body)


def close(layout: Layout) -> Step:
    """No slot is live: requests wait in the socket that the process manager holds."""
    return Step("close", "requests wait", _link("none.sock", layout.live_socket))


def switch_back(layout: Layout, release: str, slot: str) -> Step:
    """The switch to what was recorded; to nothing if no release served before."""
    if release and slot:
        back = switch(layout, release, slot, name="switch-back")
        return Step("switch-back", back.title, block(armed(layout), back.body))
    current = _link(f"releases/{release}", layout.current) if release else sh("rm", "-f", "--", layout.current)
    body = block(sh("rm", "-f", "--", layout.live_socket), current, sh("sync", "--", layout.root, layout.run))
    return Step("switch-back", "nothing serves, as before", block(armed(layout), body))


def drain(layout: Layout, slot: str, seconds: int, *, name: str = "drain") -> Step:
    """Wait until nobody waits at the slot's own socket any more; running requests are gunicorn's to finish."""
    if slot not in SLOTS:
        msg = f"there is no slot {slot!r}"
        raise ValueError(msg)
    return Step(
        name,
        f"nobody waits at slot {slot}",
        program=onhost.source("drain"),
        parameters={"path": str(layout.private_socket(slot)), "seconds": seconds},
    )
