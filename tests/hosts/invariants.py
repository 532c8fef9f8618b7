"""
What must hold after any fault: I1 to I10 of the project's reliability page, checked by looking at a host.

Nothing of fabdjango is imported here, and nothing is believed that fabdjango says of itself. Every function gives a
list of violations, empty if there is none, so that a test can add them up and show all at once.
"""

from __future__ import annotations

import http.client
import json
import re
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from tests.hosts.workplace import Outcome
    from tests.machines import Machine

__all__ = [
    "Managed",
    "Site",
    "Watch",
    "exit_code",
    "files",
    "held",
    "migrations",
    "next_deploy",
    "orphans",
    "releases",
    "rolled_back",
    "secrets",
    "serves_within",
    "settled",
    "temporaries",
]

PROGRAM = Path(__file__).parent / "onhost" / "watch.py"
#: What a release may hold beside the files of its commit.
EXTRA = re.compile(r"(\.fabdjango|static_root)(/|$)|(^|/)(__pycache__/|local_settings\.py$)")
#: Temporaries of replaced files and links, by the names the design gives them.
TEMPORARY = r"-name '.fabdjango.*' -o -name '.current.*' -o -name '*.new' -o -name '~*'"


@dataclass(frozen=True)
class Site:
    """Where a site is, how it is asked from outside, and the operator's own copy of its repository."""

    machine: Machine
    root: str
    host: str
    repository: Path
    port: int = 80
    shared: tuple[str, ...] = ("data",)
    database: str = "shared/data/db.sqlite3"
    #: What is never absent and never dangling.
    links: tuple[str, ...] = ("current", "run/current.sock")

    def ask(self, path: str = "/") -> tuple[int, str]:
        """Ask from outside: status and body; status 0 and the reason if nothing answers."""
        link = http.client.HTTPConnection(self.machine.address, self.port, timeout=20)
        try:
            link.request("GET", path, headers={"Host": self.host})
            reply = link.getresponse()
            return reply.status, reply.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error) or type(error).__name__
        finally:
            link.close()

    def serving(self) -> str:
        """The id of the release whose page comes from outside; what came instead if it is none."""
        status, body = self.ask()
        # A link that has just come back: our own neighbour table has not learnt it yet.
        for _ in range(50):
            if status or "No route to host" not in body:
                break
            time.sleep(0.2)
            status, body = self.ask()
        found = re.match(r"HEAD (\d+-[0-9a-f]{12}) ", body)
        return found[1] if status == 200 and found else f"status {status}: {body[:200]}"

    def line(self) -> str:
        """The line of the page that comes from outside, without HEAD."""
        return self.ask()[1].partition("\n")[0].removeprefix("HEAD ")

    def current(self) -> str:
        """The id that `current` points to; empty if there is none."""
        said = self.machine.run(f"readlink {shlex.quote(self.root)}/current", check=False).stdout.strip()
        return said.rpartition("/")[2]

    def program(self, *words: str, check: bool = True) -> Any:
        """What our program on the host says of it."""
        text = " ".join(map(shlex.quote, words))
        return json.loads(self.machine.run(f"python3 - {text}", given=PROGRAM.read_text(), check=check).stdout)


class Watch:
    """
    Looks at the site's links a thousand times a second, and at all processes, while the block runs.

    `secrets` must appear on no command line. Afterwards `rate` is how often a second the links were looked at in fact, and
    `worst` the longest time (s) between two looks; unlinking is seen however short it was, as inotify tells it.
    """

    def __init__(self, site: Site, secrets: Iterable[str] = (), *, pause: float = 0.04) -> None:
        self.site = site
        self.secrets = list(secrets)
        self.pause = pause
        self.links: dict[str, dict[str, Any]] = {}
        self.rate = 0.0
        self.worst = 0.0
        self.processes: dict[str, Any] = {}
        self._place = ""

    def __enter__(self) -> Self:
        machine, root = self.site.machine, self.site.root
        self._place = place = machine.run("mktemp -d /run/watch.XXXXXX").stdout.strip()
        parameters = {
            "links": [f"{root}/{name}" for name in self.site.links],
            "root": root,
            "secrets": self.secrets,
            "stop": f"{place}/stop",
            "out": f"{place}/out",
            "pause": self.pause,
        }
        machine.write(f"{place}/parameters", json.dumps(parameters))
        machine.write(f"{place}/watch.py", PROGRAM.read_text())
        machine.run(f"cd {place}; setsid python3 watch.py watch parameters > said 2>&1 & echo $! > {place}/pid")
        machine.run(f"timeout 10 sh -c 'until [ -e {place}/out.links.new ] && [ -e {place}/out.processes.new ]; do sleep 0.02; done'")  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        machine, place = self.site.machine, self._place
        # A host that lost its power has lost the watch too.
        wait = "until [ -e out.links ] && [ -e out.processes ]; do sleep 0.05; done"
        done = machine.run(f"cd {place} && touch stop && timeout 20 sh -c '{wait}'; cat out.links out.processes said", check=False)  # fmt: skip
        found: dict[str, Any] = {}
        for line in done.stdout.replace("}{", "}\n{").splitlines():
            found |= json.loads(line) if line.startswith("{") else {"error": line}
        if "error" in found or not {"links", "doubled"} <= found.keys():
            message = f"the watch failed: {done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise AssertionError(message)
        self.links, self.rate, self.worst, self.processes = found["links"], found["rate"], found["worst"], found
        machine.run(f"rm -rf {place}")

    def violations(self) -> list[str]:
        """I2: never absent; I4: one writer; I9: no secret on a command line."""
        found = [
            f"I2: {path.removeprefix(f'{self.site.root}/')} was {what} {seen[what]} times"
            for path, seen in self.links.items()
            for what in ("absent", "dangling", "removed")
            if seen[what]
        ]
        found += [f"I4: two writers at once: {each}" for each in self.processes["doubled"]]
        return found + [f"I9: a secret on a command line: {each}" for each in self.processes["told"]]

    def targets(self, name: str = "current") -> list[str]:
        """What a link pointed to, one after the other."""
        return [target for _, target in self.links[f"{self.site.root}/{name}"]["targets"]]


# --- after a fault -----------------------------------------------------------


def serves_within(site: Site, seconds: float) -> list[str]:
    """I2: after a boot the site answers by itself."""
    deadline = time.monotonic() + seconds
    while not re.match(r"\d+-", site.serving()):
        if time.monotonic() > deadline:
            return [f"I2: {seconds:.0f} s after the boot nothing answers: {site.serving()}"]
        time.sleep(0.2)
    return []


def files(site: Site) -> list[str]:
    """I2: `current` is there, its release is marked complete, and its files are those of its commit, no more, no less."""
    current = site.current()
    sha = current.rpartition("-")[2]
    if not sha:
        return ["I2: there is no current"]
    folder = f"{site.root}/releases/{current}"
    # What a power cut leaves of a file that was never synced is its name.
    found = site.machine.run(f"test -s {folder}/.fabdjango/release.json", check=False)
    wrong = [f"I2: {current} has no marker"] if found.returncode else []
    bare = site.machine.run(f"find {folder}/.fabdjango -maxdepth 1 -type f -empty -printf '%f\\n'", check=False).stdout
    wrong += [f"I2: {current}/.fabdjango/{name} is empty" for name in bare.split() if name != "release.json"]
    listed = subprocess.run(
        ["git", "-C", site.repository, "ls-tree", "-r", "-z", sha], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        return [*wrong, f"I2: current is {current}, which is no commit"]
    rows = [line.partition("\t") for line in listed.stdout.split("\0") if line]
    wanted = {path: (meta.split()[0], meta.split()[2]) for meta, _, path in rows}
    there = {path: tuple(value) for path, value in site.program("tree", folder).items()}
    wrong += [f"I2: {current}/{path} is missing" for path in wanted.keys() - there.keys()]
    wrong += [f"I2: {current}/{path} differs from the commit" for path in wanted.keys() & there.keys() if wanted[path] != there[path]]  # fmt: skip
    more = sorted(there.keys() - wanted.keys())
    return wrong + [f"I2: {current}/{path} is not in the commit" for path in more if not (EXTRA.search(path) or path in site.shared)]  # fmt: skip


def orphans(site: Site, within: float = 60.0) -> list[str]:
    """I4: after at most `within` seconds there is no process of the site but those its manager answers for."""
    deadline = time.monotonic() + within
    while found := site.program("orphans", site.root):
        if time.monotonic() > deadline:
            return [f"I4: after {within:.0f} s: {each}" for each in found]
        time.sleep(0.5)
    return []


@dataclass(frozen=True)
class Managed:
    """I5: the managed files of a host as they were at one moment, by path: mode, owner, digest."""

    machine: Machine
    paths: tuple[str, ...]
    seen: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look at them now."""
        self.seen.update(self._look())

    def _look(self) -> dict[str, str]:
        names = " ".join(map(shlex.quote, self.paths))
        script = f'for f in {names}; do for p in $f; do [ ! -f "$p" ] || printf "%s %s %s\\n" "$p" "$(stat -c %a:%U:%G "$p")" "$(sha256sum < "$p")"; done; done'
        lines = self.machine.run(script).stdout.splitlines()
        return {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines}

    def torn(self, newer: Managed) -> list[str]:
        """Which files are now neither as they were nor as they are in `newer`, a look after a whole deploy."""
        forms = {path: {self.seen.get(path), newer.seen.get(path)} for path in {*self.seen, *newer.seen}}
        now = self._look()
        return [f"I5: {path} is neither old nor new: {now.get(path)}" for path, may in forms.items() if now.get(path) not in may]  # fmt: skip


def temporaries(site: Site) -> list[str]:
    """I5: nothing temporary is left; to be asked after the next deploy."""
    places = f"{site.root} /etc/supervisor /etc/systemd/system /etc/nginx"
    prune = r"-path '*/venvs/*' -prune -o -path '*/repo.git/*' -prune -o"
    found = site.machine.run(f"find {places} {prune} \\( {TEMPORARY} \\) -print 2>/dev/null", check=False).stdout
    return [f"I5: left over: {path}" for path in found.splitlines()]


def migrations(site: Site) -> list[str]:
    """I6: every migration was applied once, in order, the schema is that of them, and the journal tells the same."""
    program = """
import json, sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute("select app, name from django_migrations where app = 'items' order by id").fetchall()
columns = [row[1] for row in sqlite3.connect(sys.argv[1]).execute("pragma table_info(items_item)")]
print(json.dumps([["%s.%s" % row for row in rows], columns]))
"""
    said = site.machine.run(f"python3 - {site.root}/{site.database}", given=program, check=False)
    if said.returncode:
        return [f"I6: the database cannot be read: {said.stderr.strip()[-200:]}"]
    applied, columns = json.loads(said.stdout)
    wrong = [f"I6: {name} was applied {applied.count(name)} times" for name in sorted(set(applied)) if applied.count(name) > 1]  # fmt: skip
    notes = sorted(f"note{int(number)}" for number in re.findall(r"items\.(\d+)_note", " ".join(applied)))
    if notes != sorted(column for column in columns if column.startswith("note")):
        wrong.append(f"I6: the schema has {columns}, the migrations {applied}")
    return wrong + _journal_against(site, applied)


def _journal_against(site: Site, applied: list[str]) -> list[str]:
    """Compare the journal's entries of migrations (event migrate: applied, reversed) with what the database says."""
    told: list[str] = []
    wrong = []
    for number, line in enumerate(site.machine.run(f"cat {site.root}/journal.jsonl", check=False).stdout.splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            wrong.append(f"I6: line {number + 1} of the journal is no JSON: {line[:100]!r}")
            continue
        if entry.get("event") == "migrate":
            for each in entry.get("migrations", ()):
                name = each if isinstance(each, str) else f"{each['app']}.{each['name']}"
                if entry.get("result") == "reversed":
                    told = [other for other in told if other != name]
                elif name.startswith("items."):
                    told.append(name)
    if sorted(told) != sorted(applied):
        wrong.append(f"I6: the journal tells of {told}, the database has {applied}")
    return wrong


def exit_code(site: Site, code: int, said: str, *, old: str, sha: str) -> list[str]:
    """
    I7: what `fab` returned is true of what the site answers from outside, by identity.

    `old` is the id that served before, `sha` the commit that was deployed. A deployer that was killed (negative or
    above 128) has said nothing; then only one of both may serve. 2 must name the host.
    """
    serves = site.serving()
    new = serves.endswith(f"-{sha[:12]}")
    if not new and serves != old:
        return [f"I7: neither the old ({old}) nor the new ({sha[:12]}) release answers, but {serves}"]
    wrong = []
    if code == 0 and not new:
        wrong.append(f"I7: exit 0, but {serves} answers")
    if code in {1, 3} and new:
        wrong.append(f"I7: exit {code}, but the new release answers: {serves}")
    if code == 2 and site.machine.address not in said:
        wrong.append("I7: exit 2, and the host is not named")
    if code not in {0, 1, 2, 3, 130, 143} and 0 <= code < 128:
        wrong.append(f"I7: exit {code} means nothing")
    last = (said.strip().splitlines() or [""])[-1]
    if code == 0 and sha[:12] not in last:
        wrong.append(f"I7: exit 0, but the last line does not name the release: {last!r}")
    return wrong if site.current() == serves else [*wrong, f"I7: current is {site.current()}, but {serves} answers"]


def rolled_back(site: Site, outcome: Outcome, *, to: str) -> list[str]:
    """I8: a rollback ended well, and by identity it is that release which answers."""
    serves = site.serving()
    wrong = [f"I8: rollback ended with {outcome.code}: {outcome.error.strip()[-800:]}"] if outcome.code else []
    return wrong if serves == to else [*wrong, f"I8: after the rollback {serves} answers, not {to}"]


def next_deploy(site: Site, deploy: Callable[[], Outcome], sha: str, within: float = 60.0) -> list[str]:
    """I3 and I5: the next plain deploy works by itself, in time, and leaves nothing temporary."""
    began = time.monotonic()
    outcome = deploy()
    taken = time.monotonic() - began
    wrong = exit_code(site, outcome.code, outcome.output, old="", sha=sha) if outcome.code == 0 else []
    if outcome.code:
        wrong.append(f"I3: the next deploy ended with {outcome.code}: {outcome.error.strip()[-500:]}")
    if taken > within:
        wrong.append(f"I3: the next deploy took {taken:.0f} s")
    return [*wrong, *temporaries(site)]


def secrets(site: Site, canary: str, outputs: Iterable[str] = ()) -> list[str]:
    """I9: a secret is in no output, no log, no journal, no temporary file, and in no file that others may read."""
    wrong = [f"I9: the secret is in what fab said: …{said[max(0, said.index(canary) - 80) :][:100]}…" for said in outputs if canary in said]  # fmt: skip
    # By standard input, as an argument of grep would be a find of its own.
    machine, root = site.machine, site.root
    logs = machine.run(f"grep -rlaF -f - /var/log /tmp /run/user {root}/journal.jsonl {root}/run 2>/dev/null || :", given=canary).stdout  # fmt: skip
    wrong += [f"I9: the secret is in {path}" for path in logs.splitlines()]
    held = "cat > /run/canary; journalctl --sync; journalctl -o cat | grep -aF -c -f /run/canary; rm /run/canary"
    if (count := machine.run(held, given=canary, check=False).stdout.strip()) != "0":
        wrong.append(f"I9: the secret is in {count} lines of the system's journal")
    readable = machine.run(f"find {root} /etc -xdev -type f -perm -o=r -print0 2>/dev/null | xargs -0 -r grep -laF {canary[:6]}''{canary[6:]} 2>/dev/null || :").stdout  # fmt: skip
    # A file for all in a folder for none is readable by none.
    read = "runuser -u nobody -- cat {} > /dev/null 2>&1"
    open_to_all = [path for path in readable.splitlines() if not machine.run(read.format(shlex.quote(path)), check=False).returncode]  # fmt: skip
    return wrong + [f"I9: everybody can read the secret in {path}" for path in open_to_all]


def releases(site: Site, keep: int) -> list[str]:
    """I10: there are no more than `keep` + 1 releases, and no virtualenv that none of them uses."""
    names = site.machine.run(f"ls {site.root}/releases", check=False).stdout.split()
    wrong = [f"I10: {len(names)} releases, kept are {keep}: {' '.join(names)}"] if len(names) > keep + 1 else []
    script = f"ls {site.root}/venvs; echo --; cat {site.root}/releases/*/.fabdjango/venv 2>/dev/null"
    there, _, used = site.machine.run(script).stdout.partition("--")
    unused = {name for name in there.split() if name not in {path.rpartition("/")[2] for path in used.split()}}
    return wrong + [f"I10: nobody uses the virtualenv {name}" for name in sorted(unused)]


def held(violations: Iterable[str]) -> None:
    """Fail with all that was found, each on lines of its own: pytest would cut a list short."""
    found = list(violations)
    message = "\n".join(found)
    assert not found, f"{len(found)} violations\n{message}"


def settled(site: Site, *, within: float = 60.0) -> list[str]:
    """What must hold whenever nothing is under way: I2, I4 and I6."""
    return [*orphans(site, within), *files(site), *migrations(site)]
