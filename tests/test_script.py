"""A phase is run by real shells, and what it reports is read back."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fabdjango.body import render_body, render_put
from fabdjango.escape import quote, raw, sh
from fabdjango.plan import Lock, Phase, Put, Step
from fabdjango.script import (
    FAILED,
    LOCKED,
    REVERT_FAILED,
    REVERTED,
    Event,
    EventParser,
    bootstrap,
    framed,
    render_script,
)
from tests.test_escape import HOSTILE, carried

RUN = "R0123456789abcdef"
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")


@pytest.fixture(params=["dash", "bash"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    """A place where sh is one of the shells that servers have."""
    programs = tmp_path / "it's bin"
    programs.mkdir()
    (programs / "sh").symlink_to(str(shutil.which(request.param)))
    return Host(tmp_path / "it's here", f"{programs}:{os.environ['PATH']}")


class Host:
    """Runs phases in ``folder`` as a session of SSH would."""

    def __init__(self, folder: Path, path: str) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.environ = {"PATH": path, "HOME": str(folder)}

    def begin(
        self,
        script: str,
        *,
        feeds: tuple[bytes, ...] = (),
        out: IO[bytes] | int = subprocess.PIPE,
        keep: bool = False,
    ) -> subprocess.Popen[bytes]:
        """A session that has sent ``script`` and small ``feeds``; with ``keep``, its standard input stays open."""
        sent = framed(script) if script else b""
        process = subprocess.Popen(
            ["/bin/sh", "-c", bootstrap()],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=self.environ,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(sent + b"".join(feeds))
        if keep:
            process.stdin.flush()
            return process
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, phase: Phase, *, owner: str = "", login: str = "") -> tuple[int, list[Event]]:
        """The exit status of a phase and everything it said."""
        process = self.begin(render_script(phase, run=RUN, owner=owner, login=login), feeds=phase.feeds)
        out, _ = process.communicate(timeout=60)
        return process.returncode, events_of(out)

    def do(self, *steps: Step) -> list[tuple[str, str, str]]:
        """What a phase of these steps says; it must end well."""
        status, events = self.run(Phase("phase", steps))
        assert status == 0, events
        return told(events)


@pytest.fixture
def shared(host: Host) -> Iterator[Host]:
    """The same host in a folder that any account can enter and write into: pytest shuts its own, whenever another run of it begins."""
    with tempfile.TemporaryDirectory() as folder:
        there = Host(Path(folder) / "it's here", host.environ["PATH"])
        programs = Path(folder) / "it's bin"
        shutil.copytree(host.environ["PATH"].split(":")[0], programs, symlinks=True)
        there.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        for each in (Path(folder), there.folder):
            each.chmod(0o777)
        yield there


def events_of(*chunks: bytes) -> list[Event]:
    """The events of output that came in chunks."""
    parser = EventParser(RUN)
    return [event for chunk in chunks for event in parser.feed(chunk)] + list(parser.close())


def told(events: list[Event]) -> list[tuple[str, str, str]]:
    """Events as tuples, to compare with."""
    return [(event.kind, event.label, event.text) for event in events]


def step(name: str, *body: str, **more: object) -> Step:
    """A step of these lines of shell."""
    return Step(name, f"it's {name}", raw("\n".join(body)), **more)  # type: ignore[arg-type]


# --- steps ------------------------------------------------------------------------


def test_a_phase_tells_what_it_does(host: Host) -> None:
    """Begin, output, notes, unchanged and end, in order; a step that is unchanged stops there."""
    said = host.do(
        step("one", 'echo "it\'s" here', "echo there >&2", "note look \"at\" 'this'"),
        step("two", "unchanged 'as  before'", "echo not reached"),
        step("three"),
    )
    assert said == [
        ("begin", "0", "one"),
        ("output", "0", "it's here"),
        ("output", "0", "there"),
        ("note", "0", "look at this"),
        ("end", "0", "0"),
        ("begin", "1", "two"),
        ("unchanged", "1", "as  before"),
        ("end", "1", "0"),
        ("begin", "2", "three"),
        ("end", "2", "0"),
    ]


def test_the_first_failure_ends_a_step_and_the_phase(host: Host) -> None:
    """set -e inside of a step, and no step after one that failed."""
    status, events = host.run(
        Phase("phase", (step("one", "echo 'a b'", "(exit 3)", "echo not reached"), step("two", "echo not reached")))
    )
    assert status == FAILED
    assert told(events) == [("begin", "0", "one"), ("output", "0", "a b"), ("end", "0", "3")]


def test_a_step_that_refuses(host: Host) -> None:
    """Its words are its output."""
    status, events = host.run(Phase("phase", (step("one", 'refuse "it\'s not there"'),)))
    assert (status, told(events)[1:]) == (FAILED, [("output", "0", "it's not there"), ("end", "0", "1")])


def test_steps_do_not_touch_each_other(host: Host) -> None:
    """Neither variables nor the working directory of a step reach the next, and none has anything to read."""
    said = host.do(
        step("one", "x='a b'; cd /; export PATH=/nowhere"),
        step("two", 'echo "[${x-unset}] $(basename "$PWD") [$(cat)]"'),
    )
    assert ("output", "1", "[unset] it's here []") in said


def test_the_locale_of_a_step(host: Host) -> None:
    """Programs speak English in UTF-8, whatever the account has set."""
    host.environ["LC_ALL"] = "de_DE"
    assert ("output", "0", "C.UTF-8 ü") in host.do(step("one", 'echo "$LC_ALL ü"'))


@settings(max_examples=20)
@given(words=st.lists(carried, max_size=10))
@example(words=[word for word in HOSTILE if word not in ("\0", "\udcff")])
def test_words_reach_a_program_through_the_whole_of_it(
    words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bootstrap, script and step leave every word of a command as it was."""
    folder = tmp_path_factory.mktemp("words")
    host = Host(folder / "it's here", os.environ["PATH"])
    host.do(Step("show", "show", raw(sh("/usr/bin/printf", "%s\\0", "first", *words) + " > words")))
    assert (host.folder / "words").read_bytes().decode().split("\0")[1:-1] == words


def test_a_program_and_its_parameters(host: Host) -> None:
    """A program of Python comes on standard input with its parameters, and neither is ever an argument."""
    program = "import sys\nprint(sys.argv, PARAMETERS['words'], open('/proc/self/cmdline').read().split('\\0')[1:])\n"
    parameters = {"words": [word for word in HOSTILE if word != "\udcff"]}
    said = host.do(Step("show", "show", program=program, parameters=parameters))
    assert said[1] == ("output", "0", f"['-'] {parameters['words']} ['-I', '-S', '-', '']")


def test_a_program_runs_after_the_shell_of_its_step(host: Host) -> None:
    """Where the shell has gone, with the interpreter that the step names; a failing one fails the step."""
    it = Step(
        "show",
        "show",
        sh("cd", "/usr"),
        program="import os\nprint(os.getcwd())\nraise SystemExit(7)",
        interpreter=raw("exec python3 -S"),
    )
    status, events = host.run(Phase("phase", (it,)))
    assert (status, told(events)[1:]) == (FAILED, [("output", "0", "/usr"), ("end", "0", "7")])


# --- the way back -------------------------------------------------------------------


def phase_with_undo(*bodies: str, serving: bool, undo: tuple[str, str] = ("echo a", "echo b")) -> Phase:
    """Steps 0, 1, 2 of which 1 and later are undone."""
    steps = tuple(step(f"step{number}", body) for number, body in enumerate(bodies))
    back = (step("back0", undo[0]), step("back1", undo[1]))
    return Phase("phase", steps, undo=back, undo_from="step1", serving_from="step1" if serving else "")


@pytest.mark.parametrize("serving", [False, True])
def test_nothing_is_undone_before_something_was_done(host: Host, *, serving: bool) -> None:
    """A failure before undo_from leaves everything alone; a site that was not touched is not reverted."""
    status, events = host.run(phase_with_undo("false", ":", ":", serving=serving))
    assert (status, told(events)) == (FAILED, [("begin", "0", "step0"), ("end", "0", "1")])


@pytest.mark.parametrize(("serving", "code"), [(False, FAILED), (True, REVERTED)])
@pytest.mark.parametrize("failing", [1, 2])
def test_the_undo_runs_in_its_order(host: Host, failing: int, code: int, *, serving: bool) -> None:
    """From undo_from on, a failure runs every step of the undo; the code tells whether the site was touched."""
    bodies = [":", ":", ":"]
    bodies[failing] = "exit 5"
    status, events = host.run(phase_with_undo(*bodies, serving=serving))
    assert status == code
    assert told(events)[-7:] == [
        ("end", str(failing), "5"),
        ("begin", "u0", "back0"),
        ("output", "u0", "a"),
        ("end", "u0", "0"),
        ("begin", "u1", "back1"),
        ("output", "u1", "b"),
        ("end", "u1", "0"),
    ]


@pytest.mark.parametrize(("serving", "code"), [(False, FAILED), (True, REVERT_FAILED)])
def test_an_undo_goes_on_after_a_failure(host: Host, code: int, *, serving: bool) -> None:
    """What can be put back is put back, and the code says that it was not all."""
    status, events = host.run(phase_with_undo(":", "false", ":", serving=serving, undo=("exit 4", "echo 'a b'")))
    assert status == code
    assert told(events)[-5:] == [
        ("begin", "u0", "back0"),
        ("end", "u0", "4"),
        ("begin", "u1", "back1"),
        ("output", "u1", "a b"),
        ("end", "u1", "0"),
    ]


def test_what_is_written_down_for_good() -> None:
    """From the step that touches the site on, and on the way back, the record is on the disk before a step begins."""
    steps = tuple(Step(name, name, sh("true")) for name in ("it's", "arm", "switch"))
    phase = Phase("phase", steps, undo=(Step("back", "back"),), serving_from="arm", record=PurePosixPath("/srv/it's"))
    lines = render_script(phase, run=RUN).splitlines()
    durable = [lines[at - 1] for at, line in enumerate(lines) if line.endswith('sync -- "$record"')]
    assert durable == ["report begin u0 back", "report begin 1 arm", "report begin 2 switch"]


@pytest.mark.parametrize("field", ["serving_from", "kept_from"])
def test_an_unknown_level(field: str) -> None:
    """A plan that names a step that it does not have is a bug, found before anything runs."""
    with pytest.raises(ValueError, match="not in list"):
        render_script(Phase("phase", (step("one"),), **{field: "it's"}), run=RUN)  # type: ignore[arg-type]


def test_without_undo_from_everything_is_undone(host: Host) -> None:
    """An empty undo_from is the first step."""
    status, events = host.run(Phase("phase", (step("one", "false"),), undo=(step("back", 'echo "it\'s back"'),)))
    assert (status, told(events)[-2:]) == (FAILED, [("output", "u0", "it's back"), ("end", "u0", "0")])


def test_an_unknown_undo_from() -> None:
    """A plan that names a step that it does not have is a bug, found before anything runs."""
    with pytest.raises(ValueError, match="not in list"):
        render_script(Phase("phase", (step("one"),), undo=(step("two"),), undo_from="it's"), run=RUN)


@pytest.mark.parametrize("run", ["", "R 1", "R;id", "R\n", "R'"])
def test_the_word_of_a_run(run: str) -> None:
    """It stands unquoted in many places, so it is letters and digits."""
    with pytest.raises(Exception, match="is not a name"):
        render_script(Phase("phase", ()), run=run)


# --- a script that does not arrive --------------------------------------------------


def test_a_script_that_was_cut_does_nothing(tmp_path: Path) -> None:
    """Wherever the link breaks while the script is sent, none of it runs."""
    host = Host(tmp_path / "it's here", os.environ["PATH"])
    phase = Phase("phase", (step("one", "touch done", "echo '\n#end of script\n'"), step("two", "touch done")))
    script = framed(render_script(phase, run=RUN))
    cuts = range(len(script))
    shell = 'for cut in $CUTS; do head -c "$cut" script | sh -c "$BOOT" >>out 2>&1; [ ! -e done ] || { echo "$cut"; exit 1; }; done'
    (host.folder / "script").write_bytes(script)
    boot = subprocess.run(
        ["/bin/sh", "-c", f'set -- {bootstrap()}; printf %s "$3"'], capture_output=True, check=True
    ).stdout
    environ = {**host.environ, "CUTS": " ".join(map(str, cuts)), "BOOT": boot.decode()}
    done = subprocess.run(["/bin/sh", "-c", shell], env=environ, cwd=host.folder, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert b"\036" not in (host.folder / "out").read_bytes()
    assert host.run(phase)[0] == 0
    assert (host.folder / "done").exists()


def test_an_empty_script(host: Host) -> None:
    """A link that broke at once is neither a success nor the failure of a step."""
    process = host.begin("")
    process.communicate(timeout=10)
    assert process.returncode == 95


# --- reports ------------------------------------------------------------------------


def test_output_that_looks_like_a_report(host: Host) -> None:
    """A program does not know the word of the run, so it cannot speak for us."""
    said = host.do(
        step("one", "printf '\\036end 0 0\\n'", "printf '\\036R0 end 0 1\\n\\036 note x\\n'", "env"),
        step("two", r"printf 'half a line'; note 'a b'", r"printf 'no end'"),
    )
    assert said[:4] == [
        ("begin", "0", "one"),
        ("output", "0", "\x1eend 0 0"),
        ("output", "0", "\x1eR0 end 0 1"),
        ("output", "0", "\x1e note x"),
    ]
    # Not in the environment either, where a program could find it.
    assert not [text for kind, _, text in said if kind == "output" and RUN in text]
    assert said[-5:] == [
        ("begin", "1", "two"),
        ("output", "1", "half a line"),
        ("note", "1", "a b"),
        ("output", "1", "no end"),
        ("end", "1", "0"),
    ]


OUTPUT = (
    f"\x1e{RUN} begin 0 one\nit's\r\nüber ☃\n\nhalf\x1e{RUN} note a b\n\x1e{RUN} unchanged\n\x1e{RUN} end 0 0\n"
    f"\x1eR9 end 0 0\n\x1e{RUN} begin u1 two\nlast"
).encode() + b"\xff"
EVENTS = [
    ("begin", "0", "one"),
    ("output", "0", "it's"),
    ("output", "0", "über ☃"),
    ("output", "0", ""),
    ("output", "0", "half"),
    ("note", "0", "a b"),
    ("unchanged", "0", ""),
    ("end", "0", "0"),
    ("output", "", "\x1eR9 end 0 0"),
    ("begin", "u1", "two"),
    ("output", "u1", "last\ufffd"),
]


@given(cuts=st.lists(st.integers(0, len(OUTPUT)), max_size=30))
@example(cuts=list(range(len(OUTPUT))))
def test_chunks_may_be_cut_anywhere(cuts: list[int]) -> None:
    """How the network cuts the output makes no difference."""
    places = [0, *sorted(cuts), len(OUTPUT)]
    chunks = [OUTPUT[a:b] for a, b in itertools.pairwise(places)]
    assert told(events_of(*chunks)) == EVENTS


@given(noise=st.lists(st.binary(max_size=30), max_size=5))
def test_noise_is_output(noise: list[bytes]) -> None:
    """Whatever a program prints is output, and the reports around it are still heard."""
    begin, end = f"\x1e{RUN} begin 0 it\n".encode(), f"\x1e{RUN} end 0 3\n".encode()
    events = events_of(begin, *noise, end)
    assert told(events)[0] == ("begin", "0", "it")
    assert told(events)[-1] == ("end", "0", "3")
    assert {event.kind for event in events[1:-1]} <= {"output"}


def test_a_line_that_will_be_read_again() -> None:
    """After the link broke, reading goes on at the start of the line that was cut."""
    parser = EventParser(RUN)
    assert told(list(parser.feed(b"whole\nit's ha"))) == [("output", "", "whole")]
    assert parser.forget() == len("it's ha")
    assert told(list(parser.feed(b"it's half\n"))) == [("output", "", "it's half")]


# --- files --------------------------------------------------------------------------


def put(path: Path, content: str, mode: int = 0o644, *, secret: bool = False) -> Step:
    """A step that replaces one file and says whether it changed."""
    body = raw('[ "$changed_files" ] || unchanged "as before"')
    return Step("put", "put", body, puts=(Put(PurePosixPath(path), content, mode, secret),))


def leftovers(folder: Path) -> list[str]:
    """Temporary files of ours."""
    return [path.name for path in folder.rglob(".fabdjango.*")]


def test_a_file_is_replaced_as_a_whole(host: Host) -> None:
    """New, changed, other mode: written; the same: left alone. Every text arrives, the folder is made."""
    path = host.folder / "a b" / "it's"
    for content in ("", "no end", "it's\n\n'EOF'\nEOF\n$(id) `id` \\ \0 ü ☃\r\n", "x" * 70000):
        assert ("unchanged", "0", "as before") not in host.do(put(path, content))
        assert path.read_bytes() == content.encode()
        inode = path.stat().st_ino
        assert ("unchanged", "0", "as before") in host.do(put(path, content))
        assert path.stat().st_ino == inode
    assert ("unchanged", "0", "as before") not in host.do(put(path, content, 0o640))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert leftovers(host.folder) == []


@settings(max_examples=15)
@given(content=st.text().filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text)))
def test_any_text_arrives(content: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Byte by byte."""
    host = Host(tmp_path_factory.mktemp("text") / "it's here", os.environ["PATH"])
    host.do(put(host.folder / "it's", content))
    assert (host.folder / "it's").read_bytes() == content.encode()


def test_a_file_is_never_seen_half_written_or_open(host: Host) -> None:
    """A rename: who has the old file keeps it; a link is replaced, and what it points to stays."""
    path, other = host.folder / "it's", host.folder / "other"
    other.write_text("other")
    path.symlink_to(other)
    host.do(put(path, "new", 0o600, secret=True))
    assert (path.is_symlink(), path.read_text(), other.read_text()) == (False, "new", "other")
    with path.open() as old:
        host.do(put(path, "newer", 0o600))
        assert old.read() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_stands_in_the_way(host: Host) -> None:
    """It is not replaced, and nothing is put into it."""
    path = host.folder / "it's"
    path.mkdir()
    status, events = host.run(Phase("phase", (put(path, "new"),)))
    assert (status, told(events)[-2]) == (FAILED, ("output", "0", f"cannot write {path}"))
    assert (list(path.iterdir()), leftovers(host.folder)) == ([], [])


def small_disk(folder: Path) -> bool:
    """Mount a file system of 64 KiB on ``folder``, if this machine lets us."""
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    return os.getuid() == 0 and subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture
def full(host: Host) -> Iterator[tuple[Path, str]]:
    """A folder where no large file fits, and the shell that makes it so."""
    folder = host.folder / "full disk"
    folder.mkdir()
    mounted = small_disk(folder)
    yield folder, "" if mounted else "ulimit -f 64"
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(host: Host, full: tuple[Path, str]) -> None:
    """The old file stays as it was, and no temporary is left."""
    folder, limit = full
    path = folder / "it's"
    host.do(put(path, "good"))
    large = put(path, "x" * 100_000)
    script = render_script(Phase("phase", (large,)), run=RUN)
    process = host.begin(script.replace("umask 022", f"umask 022; {limit or ':'}", 1))
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, told(events_of(out))[-2]) == (FAILED, ("output", "0", f"cannot write {path}"))
    assert (path.read_text(), leftovers(folder)) == ("good", [])


def test_what_a_reader_sees_of_a_file() -> None:
    """A dry run shows size and mode, and of a secret file that it is hidden."""
    path = PurePosixPath("/srv/it's here/.env")
    assert render_put(Put(path, "it's secret", 0o640, secret=True), shown=True) == (
        "replace '/srv/it'\"'\"'s here/.env' 640 <<'EOF'\n(11 bytes, hidden)\nEOF"
    )
    assert render_put(Put(path, "ü", 0o755), shown=True) == (
        "replace '/srv/it'\"'\"'s here/.env' 755 <<'EOF'\n(2 bytes)\nEOF"
    )
    assert repr(Put(path, "it's secret", 0o640, secret=True)) == (
        'Put("/srv/it\'s here/.env", 11 hidden characters, 640)'
    )
    assert "it's secret" not in repr(Step("a", "b", puts=(Put(path, "it's secret", secret=True),)))


def test_what_runs_for_a_file() -> None:
    """The content is base64 in a here-document, and so never on a command line."""
    assert render_put(Put(PurePosixPath("~/it's here"), "it's\n" * 20, 0o600)) == (
        "replace \"$HOME\"/'it'\"'\"'s here' 600 <<'EOF'\n"
        "aXQncwppdCdzCml0J3MKaXQncwppdCdzCml0J3MKaXQncwppdCdzCml0J3MKaXQncwppdCdzCml0\n"
        "J3MKaXQncwppdCdzCml0J3MKaXQncwppdCdzCml0J3MKaXQncwppdCdzCg==\n"
        "EOF"
    )


def test_what_a_reader_sees_of_a_step() -> None:
    """Shell as it is; of a program, what runs it and its first line."""
    it = Step("it", "it", sh("ls", "a b"), program='"""Ask the site. It\'s long."""\nx = 1\n', parameters={"a": "it's"})
    assert render_body(it, shown=True) == "ls 'a b'\npython3 -I -S - # Ask the site. It's long."
    assert render_body(it, "R1") == (
        "ls 'a b'\n"
        "python3 -I -S - <<'R1_PY'\n"
        "import json as _json\n"
        'PARAMETERS = _json.loads(\'{"a": "it\\\'s"}\')\n'
        '"""Ask the site. It\'s long."""\n'
        "x = 1\n"
        "\n"
        "R1_PY"
    )


# --- bytes in, bytes out ------------------------------------------------------------

BYTES = bytes(range(256)) * 40 + RUN.encode() + b"\n\n\n"
SUM = hashlib.sha256(BYTES).hexdigest()


@pytest.mark.parametrize("owner", ["", pytest.param("nobody", marks=AS_ROOT)])
def test_steps_that_are_fed(shared: Host, owner: str) -> None:
    """Each reads its own bytes to their end, whatever the others left unread; the rest have nothing on standard input."""
    phase = Phase(
        "it's fed",
        (
            step("none", "wc -c"),
            step("one", "sha256sum", feed=BYTES),
            step("ignores", "echo 'it is not read'", feed=BYTES),
            step("peeks", "head -c 3", 'note "it\'s"; exit 0', feed=b"it's" * 5000),
            step("closes", "exec <&-; sleep 0.01", feed=BYTES),
            step("nothing", "wc -c; [ ! -e /proc/self/fd/6 ]"),
            step("last", "sha256sum", "unchanged 'a b'", feed=BYTES),
        ),
    )
    status, events = shared.run(phase, owner=owner, login="root" if owner else "")
    assert (status, told(events)) == (
        0,
        [
            ("begin", "0", "none"),
            ("output", "0", "0"),
            ("end", "0", "0"),
            ("begin", "1", "one"),
            ("output", "1", f"{SUM}  -"),
            ("end", "1", "0"),
            ("begin", "2", "ignores"),
            ("output", "2", "it is not read"),
            ("end", "2", "0"),
            ("begin", "3", "peeks"),
            ("output", "3", "it'"),
            ("note", "3", "it's"),
            ("end", "3", "0"),
            ("begin", "4", "closes"),
            ("end", "4", "0"),
            ("begin", "5", "nothing"),
            ("output", "5", "0"),
            ("end", "5", "0"),
            ("begin", "6", "last"),
            ("output", "6", f"{SUM}  -"),
            ("unchanged", "6", "a b"),
            ("end", "6", "0"),
        ],
    )


@pytest.mark.parametrize("owner", ["", pytest.param("nobody", marks=AS_ROOT)])
def test_a_fed_step_that_fails(shared: Host, owner: str) -> None:
    """Its status is its own, and nothing that follows is fed."""
    phase = Phase("phase", (step("one", "head -c 1; exit 6", feed=BYTES), step("two", "cat", feed=BYTES)))
    status, events = shared.run(phase, owner=owner, login="root" if owner else "")
    assert (status, told(events)) == (FAILED, [("begin", "0", "one"), ("output", "0", "\0"), ("end", "0", "6")])


@pytest.mark.parametrize("owner", ["", pytest.param("nobody", marks=AS_ROOT)])
def test_a_step_that_gives_a_file(shared: Host, owner: str) -> None:
    """Its bytes come first and in base64; what it says comes behind them, also when it fails."""
    says = step("one", 'echo "it\'s" >&2', "cat", "note a b", "printf 'no end' >&2", feed=BYTES, fetch=True)
    fails = step("two", "printf abc", 'refuse "it\'s not"', fetch=True)
    phase = Phase("phase", (says, step("none", "unchanged 'no file'", fetch=True), fails))
    status, events = shared.run(phase, owner=owner, login="root" if owner else "")
    encoded = base64.b64encode(BYTES).decode()
    assert (status, told(events)) == (
        FAILED,
        [
            ("begin", "0", "one"),
            ("output", "0", encoded[:8192]),
            ("output", "0", encoded[8192:]),
            ("fetched", "0", ""),
            ("output", "0", "it's"),
            ("note", "0", "a b"),
            ("output", "0", "no end"),
            ("end", "0", "0"),
            ("begin", "1", "none"),
            ("fetched", "1", ""),
            ("unchanged", "1", "no file"),
            ("end", "1", "0"),
            ("begin", "2", "two"),
            ("output", "2", "YWJj"),
            ("fetched", "2", ""),
            ("output", "2", "it's not"),
            ("end", "2", "1"),
        ],
    )


def test_where_nothing_can_be_fed_or_fetched() -> None:
    """A detached script has no standard input, one that is to win the lock hears heartbeats there."""
    fed, fetching = step("one", "cat", feed=b"it's"), step("one", "cat", fetch=True)
    lock = Lock(PurePosixPath("/srv/it's/lock"), PurePosixPath("/srv/it's/steps"))
    for phase, said in (
        (Phase("p", (fed,), lock=lock), "the phase p cannot feed a step: it is to win the lock"),
        (Phase("p", (fed,), record=PurePosixPath("/r")), "the phase p cannot feed a step: it is detached"),
        (Phase("p", (fetching,), record=PurePosixPath("/r")), "the phase p cannot fetch from a step: it is detached"),
        (Phase("p", (), undo=(fed,)), "the undo of the phase p can neither feed a step nor fetch from one"),
    ):
        with pytest.raises(ValueError, match=f"^{said}$"):
            render_script(phase, run=RUN)


def test_a_feed_is_never_shown() -> None:
    """Neither as a value nor to a reader, who is told its size."""
    it = step("one", "cat > 'it is'", feed=b"hidden")
    assert "hidden" not in repr(it)
    assert render_body(it, shown=True) == "# reads 6 bytes\ncat > 'it is'"
    assert render_body(it) == "cat > 'it is'"


# --- the lock -----------------------------------------------------------------------


def locked(host: Host, *bodies: str, holder: str = "ada's laptop $(id)") -> Phase:
    """A phase that holds the lock of the site in the host's folder."""
    run = PurePosixPath(host.folder / "site" / "run")
    return Phase("phase", (step("one", *bodies),), lock=Lock(run / "lock", run / "steps.lock", holder, "T1"))


def wait_for(path: Path) -> None:
    """Wait until ``path`` is there."""
    give_up = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_the_lock_belongs_to_one(host: Host) -> None:
    """A second run is told who has it and since when, and does nothing; it is free when the first has ended."""
    first = host.begin(render_script(locked(host, "touch 'it has begun'; cat <fifo"), run=RUN), keep=True)
    os.mkfifo(host.folder / "fifo")
    wait_for(host.folder / "it has begun")
    status, events = host.run(locked(host, "touch never"))
    assert status == LOCKED
    assert [event.kind for event in events] == ["begin", "output", "end"]
    assert events[0] == Event("begin", "lock", "lock")
    assert events[1].text.startswith("ada's laptop $(id), phase, since 20")
    assert events[2] == Event("end", "lock", "1")
    assert not (host.folder / "never").exists()
    (host.folder / "fifo").write_text("")
    first.communicate(timeout=10)
    assert first.returncode == 0
    assert host.run(locked(host, ":"))[0] == 0


def test_a_killed_run_leaves_no_lock(host: Host) -> None:
    """The kernel frees it with the last process; nobody has to clear it away."""
    os.mkfifo(host.folder / "fifo")
    first = host.begin(render_script(locked(host, 'touch "it\'s begun"; cat <fifo'), run=RUN))
    wait_for(host.folder / "it's begun")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=10)
    assert host.run(locked(host, ":", holder="it's me"))[0] == 0
    assert (host.folder / "site/run/lock").read_text().startswith("it's me, phase, since 20")


@AS_ROOT
def test_a_folder_that_cannot_be_made(host: Host, tmp_path: Path) -> None:
    """The lock step fails in words, before anything else."""
    (host.folder / "site").write_text("a file in the way")
    status, events = host.run(locked(host, "touch never"))
    assert (status, told(events)) == (
        FAILED,
        [
            ("begin", "lock", "lock"),
            ("output", "lock", f"cannot write {host.folder}/site/run/lock: permission denied"),
            ("end", "lock", "1"),
        ],
    )


# --- another account ----------------------------------------------------------------


@AS_ROOT
def test_steps_of_another_account(shared: Host) -> None:
    """Root runs the owner's steps as the owner and root's as root, with the same words, notes and files."""
    path = shared.folder / "it's nobody's"
    one = Step(
        "one",
        "one",
        raw("id -un; note \"it's me\"; printf '%s\\n' " + " ".join(map(quote, ("a  b", "$(id)", "'")))),
        puts=(Put(PurePosixPath(path), "it's\n", 0o640),),
        program="print(PARAMETERS['it'])",
        parameters={"it": "it's $HOME"},
    )
    phase = Phase("phase", (one, step("two", "id -un", user="root"), step("three", "unchanged 'a b'")))
    status, events = shared.run(phase, owner="nobody", login="root")
    assert (status, told(events)) == (
        0,
        [
            ("begin", "0", "one"),
            ("output", "0", "nobody"),
            ("note", "0", "it's me"),
            ("output", "0", "a  b"),
            ("output", "0", "$(id)"),
            ("output", "0", "'"),
            ("output", "0", "it's $HOME"),
            ("end", "0", "0"),
            ("begin", "1", "two"),
            ("output", "1", "root"),
            ("end", "1", "0"),
            ("begin", "2", "three"),
            ("unchanged", "2", "a b"),
            ("end", "2", "0"),
        ],
    )
    assert pwd.getpwuid(path.stat().st_uid).pw_name == "nobody"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("it's\n", 0o640)


@AS_ROOT
def test_a_failing_step_of_another_account(shared: Host) -> None:
    """Its status is the step's, and the undo runs as the same account."""
    phase = Phase("phase", (step("one", "echo 'a b'", "exit 6"),), undo=(step("back", "id -un"),), serving_from="one")
    status, events = shared.run(phase, owner="nobody", login="root")
    assert (status, told(events)[1:]) == (
        REVERTED,
        [
            ("output", "0", "a b"),
            ("end", "0", "6"),
            ("begin", "u0", "back"),
            ("output", "u0", "nobody"),
            ("end", "u0", "0"),
        ],
    )


@AS_ROOT
def test_the_folder_of_another_account(shared: Host) -> None:
    """Root makes the site's folder for its owner."""
    mine = sh("touch", shared.folder / "site/it's mine")
    status, _ = shared.run(locked(shared, mine), owner="nobody", login="root")
    assert status == 0
    owners = {
        pwd.getpwuid((shared.folder / name).stat().st_uid).pw_name for name in ("site", "site/run", "site/it's mine")
    }
    assert owners == {"nobody"}


def test_how_somebody_becomes_another() -> None:
    """Root by su, others by sudo without a password; the text travels on standard input either way."""
    phase = Phase("phase", (Step("one", "one", sh("echo", "it's")),))
    as_root = render_script(phase, run=RUN, owner="ada", login="root").splitlines()
    assert "su -s /bin/sh ada -c 'eval \"$(cat)\"' 2>&1 8<&- <<'R0123456789abcdef_AS'" in as_root
    by_sudo = render_script(phase, run=RUN, owner="ada", login="bob").splitlines()
    assert "sudo -n -H -u ada -- sh -c 'eval \"$(cat)\"' 2>&1 8<&- <<'R0123456789abcdef_AS'" in by_sudo
    as_self = render_script(phase, run=RUN, owner="ada", login="ada").splitlines()
    assert as_self[-9:] == [
        "set -e",
        "echo 'it'\"'\"'s'",
        ") </dev/null 2>&1 8<&-",
        "rc=$?",
        "report end 0 $rc",
        "[ $rc = 0 ] || leave 90",
        'leave "${kept:-0}"',
        "}",
        "#end of script",
    ]
