"""
A farm of real Debian hosts with systemd and sshd, without Docker or a cloud.

Each host is a systemd-nspawn container on an overlay of a shared image, with its own address on our own bridge:

    FARM/NAME/machine.json   what is known of the host; a folder without it is the rest of a killed start
    FARM/NAME/root           the host's file system, merged from the image and the folder `upper`
    FARM/NAME/console.log    what systemd-nspawn and the boot said
    FARM/operator_key        the operator's key, which root and deploy of every host accept

Another process finds the same hosts again through these files, see `running`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.machine_image import (
    DEBIAN_PACKAGES,
    DEPLOY_ID,
    MachineError,
    apt_options,
    apt_sources,
    build_image,
    ca_bundle,
    command,
    locked,
    missing_tools,
    pip_settings,
    proxies,
    resolv_conf,
    shared_folders,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "DEBIAN_PACKAGES",
    "Machine",
    "MachineError",
    "build_image",
    "down",
    "last_removal",
    "missing_tools",
    "network",
    "running",
    "up",
]

FARM = Path("/var/lib/fabdjango-hosts")
LOCK = FARM / "lock"
REMOVED = FARM / "removed"
KEY = FARM / "operator_key"
BEFORE = FARM / "settings_before.json"

# The addresses are of the benchmarking range (RFC 2544), which is in no real network.
BRIDGE = "fabdj0"
NETWORK = "198.18.0.0/16"
GATEWAY = "198.18.0.1"
TABLE = "fabdjango_hosts"
MOST = 250

# A path MTU below that of the bridge would stall downloads: the segment size is clamped to it.
NAT = f"""
table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip saddr {NETWORK} ip daddr != {NETWORK} masquerade
    }}
    chain forward {{
        type filter hook forward priority filter;
        ip saddr {NETWORK} tcp flags syn tcp option maxseg size set rt mtu
    }}
}}
"""
# Every systemd takes several inotify instances, and all hosts share root's 128.
SETTINGS = {"net/ipv4/ip_forward": 1, "fs/inotify/max_user_instances": 4096}

LONGEST_NAME = 12  # the host's end of the link is called vb-NAME, and 15 bytes is what Linux allows
BOOT_SECONDS = 90.0
APPEAR_SECONDS = 20.0
OVERLAYFS = "794c7630"  # what stat prints for it
TIMED_OUT = 124  # what coreutils' timeout returns

HOST_NETWORK = """\
[Match]
Name=host0

[Network]
Address={address}/16
Gateway={gateway}
LinkLocalAddressing=no
IPv6AcceptRA=no
ConfigureWithoutCarrier=yes
IgnoreCarrierLoss=yes
"""

# Several systemds in one cgroup kill each other's services: each host is started in one of its own.
START = """
for folder in "$1" "$2"; do mkdir -p "$folder" && echo $$ > "$folder/cgroup.procs" || exit; done
shift 2
exec "$@"
"""


@dataclass
class Machine:
    """
    One Debian host: reachable by SSH at `address` as root and as deploy, who may sudo without a password.

    `key` is the operator's private key, `known_hosts` the host's real keys under its address and its name.
    `leader_pid` is the host's PID 1 and `nspawn_pid` its container manager as this machine counts them, 0 when the
    power is off. `owner` names the process that booted it; when that one is gone, the next `up` throws the host away
    unless `keep`.
    """

    name: str
    address: str
    suite: str
    variant: str
    owner: str
    keep: bool = False
    nspawn_pid: int = 0
    leader_pid: int = 0

    @property
    def place(self) -> Path:
        """The folder of this machine that has all there is of the host."""
        return FARM / self.name

    @property
    def root(self) -> Path:
        """The host's file system on this machine, without its tmpfs folders (/run, /tmp)."""
        return self.place / "root"

    @property
    def key(self) -> Path:
        """The operator's private key."""
        return KEY

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file with this host's keys."""
        return self.place / "known_hosts"

    @property
    def log(self) -> Path:
        """What systemd-nspawn and the boot said."""
        return self.place / "console.log"

    def run(
        self, script: str, user: str = "root", *, check: bool = True, timeout: float = 120, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """
        Run `script` in a login shell of `user`, by a way in that no sshd counts.

        `given` is its standard input, `timeout` is in seconds. Raises MachineError if it fails and `check` is set,
        or if it takes too long; then it is killed inside of the host too.
        """
        shell = ("runuser", "--login", user, "--command", script)
        clean = ("env", "--ignore-environment", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
        begun = time.monotonic()
        done = self._enter("timeout", "--kill-after=5", str(timeout), *clean, *shell, given=given)
        if done.returncode == TIMED_OUT and time.monotonic() - begun >= timeout:
            message = f"{self.name}: {script}\ntook longer than {timeout} s"
            raise MachineError(message)
        if check and done.returncode:
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            message = f"{self.name}: {script}\nexit status {done.returncode}\n{said}"
            raise MachineError(message)
        return done

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of root inside of the host, also in its tmpfs folders; the folders above it are made."""
        words = (shlex.quote(path), shlex.quote(f"{path}.new"), f"{mode:04o}")
        script = 'set -eu; mkdir -p -- "$(dirname -- {0})"; umask 077; cat > {1}; chmod {2} {1}; mv -fT -- {1} {0}'
        self.run(script.format(*words), given=text)

    def boot(self) -> None:
        """Switch the power on, on the file system as it is, and wait until systemd and sshd are up."""
        self.power_on()
        self.wait_until_up()

    def reboot(self) -> None:
        """Shut systemd down in good order and boot the same file system again, at the same address."""
        self._is_on()
        os.kill(self.nspawn_pid, signal.SIGTERM)
        if not _wait(lambda: not _nspawn_pid(self.root), 30):
            self.kill()
        self.boot()

    def kill(self) -> None:
        """Switch the power off hard; `boot` switches it on again."""
        nspawn = _nspawn_pid(self.root)
        leader = _leader_pid(nspawn)
        if leader:
            os.kill(leader, signal.SIGKILL)
        # Without its leader nspawn tidies up and ends by itself; one that is still starting has no leader yet.
        if nspawn and not (leader and _wait(lambda: not _nspawn_pid(self.root), 10)):
            with suppress(ProcessLookupError):
                os.kill(nspawn, signal.SIGKILL)
            _wait(lambda: not _nspawn_pid(self.root), 10)
        self.nspawn_pid = self.leader_pid = 0
        for folder in _cgroups(self.name):
            _remove_cgroup(folder)

    def cut(self) -> None:
        """Pull the network cable; nothing inside of the host notices more than the silence."""
        command("ip", "link", "set", f"vb-{self.name}", "down")

    def mend(self) -> None:
        """Plug the network cable in again."""
        command("ip", "link", "set", f"vb-{self.name}", "up")

    def cursor(self) -> str:
        """Mark this moment in the host's journal, for `sessions_since`."""
        shown = self.run("journalctl --sync; journalctl --quiet --lines 1 --output cat --show-cursor").stdout
        return shown.rpartition("-- cursor: ")[2].strip()

    def sessions_since(self, cursor: str) -> tuple[int, int]:
        """Count the logins sshd accepted and the sessions (commands, shells, subsystems) it started since `cursor`."""
        since = f"--quiet --output cat --after-cursor {shlex.quote(cursor)}"
        said = self.run(f"journalctl --sync; journalctl {since} -t sshd -t sshd-session").stdout
        kinds = (r"^Accepted \S+ for ", r"^Starting session: ")
        logins, sessions = (len(re.findall(kind, said, re.MULTILINE)) for kind in kinds)
        return logins, sessions

    def processor_seconds(self) -> float:
        """Tell how much processor time all programs of the host have taken since it was switched on."""
        told = (_cgroups(self.name)[1] / "cpu.stat").read_text()
        return int(re.search(r"^usage_usec (\d+)$", told, re.MULTILINE)[1]) / 1e6  # type: ignore[index]

    def power_on(self) -> None:
        """Start systemd-nspawn and do not wait for anything."""
        shared = [str(folder).replace("\\", "\\\\").replace(":", "\\:") for folder in shared_folders()]
        words = [
            *("setsid", "--fork", "sh", "-c", START, "sh", *map(str, _cgroups(self.name))),
            *("systemd-nspawn", "--quiet", "--settings=no", "--boot", "--register=no", "--keep-unit"),
            *(f"--directory={self.root}", f"--machine={self.name}", f"--network-bridge={BRIDGE}"),
            *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
            *(f"--bind-ro={folder}" for folder in shared),
        ]
        # setsid --fork hands the host to PID 1: it outlives us, and leaves us no child to wait for.
        with self.log.open("wb") as log:
            subprocess.run(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)

    def wait_until_up(self, seconds: float = BOOT_SECONDS) -> None:
        """Wait until systemd is through with booting and sshd listens; raises MachineError after `seconds`."""
        begun, seen = time.monotonic(), False
        while time.monotonic() < begun + seconds:
            nspawn = _nspawn_pid(self.root)
            # Between our call and its first moment there is a shell, which on a busy machine may take its time.
            if not nspawn and (seen or time.monotonic() > begun + APPEAR_SECONDS):
                break
            seen = seen or bool(nspawn)
            self.nspawn_pid, self.leader_pid = nspawn, _leader_pid(nspawn) if nspawn else 0
            if self.leader_pid and _listens_on_ssh(self.leader_pid) and self._state() in {"running", "degraded"}:
                self.save()
                return
            time.sleep(0.1)
        why = "systemd-nspawn ended" if not _nspawn_pid(self.root) else f"it is not up after {seconds:.0f} s"
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        message = f"{self.name}: {why}. The end of {self.log}:\n{tail}"
        raise MachineError(message)

    def save(self) -> None:
        """Write down what is known, for other processes."""
        new = self.place / "machine.json.new"
        new.write_text(json.dumps(asdict(self), indent=1))
        new.rename(self.place / "machine.json")

    def _state(self) -> str:
        """Ask systemd how far it is: initializing, starting, running, degraded."""
        return self._enter("timeout", "10", "systemctl", "is-system-running").stdout.strip()

    def _is_on(self) -> None:
        """Raise MachineError unless our pids are still those of this host: pids come again."""
        if not self.leader_pid or _leader_pid(_nspawn_pid(self.root)) != self.leader_pid:
            message = f"{self.name} is switched off"
            raise MachineError(message)

    def _enter(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in all the namespaces of the host."""
        self._is_on()
        return subprocess.run(
            ["nsenter", "--target", str(self.leader_pid), "--all", "--", *words],
            input=given or "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )


def up(
    count: int, suite: str = "bookworm", variant: str = "prepared", prefix: str = "web", *, keep: bool = False
) -> list[Machine]:
    """
    Boot `count` new hosts beside those that run, and give them once systemd and sshd of all are up.

    They are called `prefix` and the next free numbers. `keep` lets them live longer than this process; otherwise the
    next `up` throws them away after it. Raises MachineError with the end of the log; then none of them is left.
    """
    reason = missing_tools()
    if reason:
        raise MachineError(reason)
    image = build_image(suite, variant)
    machines: list[Machine] = []
    try:
        with locked(LOCK):
            _remove_leftovers()
            _network_up()
            _make_key()
            for name, address in _free_names(prefix, count):
                machines.append(Machine(name, address, suite, variant, _birth(os.getpid()), keep))
                _furnish(machines[-1], image)
                # Who had the address before may be remembered by its hardware address for a minute.
                command("ip", "neigh", "flush", "to", address, "dev", BRIDGE)
                machines[-1].power_on()
        for machine in machines:
            machine.wait_until_up()
    except BaseException:
        down(machines)
        raise
    return machines


def down(machines: Iterable[Machine] | None = None) -> None:
    """
    Throw hosts away: these, or without `machines` all there are, also half-made ones of a killed process.

    When none is left, so are bridge, address translation and kernel settings.
    """
    if not FARM.exists():
        return
    with locked(LOCK):
        for name in _names() if machines is None else [machine.name for machine in machines]:
            _remove(name)
        if not _names():
            _network_down()


@contextmanager
def network() -> Iterator[None]:
    """
    Have GATEWAY as an address of this machine, whether or not there is a host; in the block nobody takes it away.

    What listens there by the end of the block goes on when the address goes and comes again.
    """
    with locked(LOCK):
        _network_up()
        yield


def last_removal() -> float:
    """When a host of this machine was last thrown away, in seconds since 1970; 0 if none was."""
    return REMOVED.stat().st_mtime if REMOVED.exists() else 0.0


def running() -> list[Machine]:
    """Give the hosts that run on this machine, whichever process booted them."""
    known = [machine for machine in map(_read, _names()) if machine]
    return [machine for machine in known if machine.leader_pid and _nspawn_pid(machine.root) == machine.nspawn_pid]


def _names() -> list[str]:
    """Name the hosts that have a folder, finished or not."""
    return sorted(folder.name for folder in FARM.iterdir() if folder.is_dir()) if FARM.is_dir() else []


def _read(name: str) -> Machine | None:
    """Read what was written down of a host; None if its start did not get as far."""
    try:
        return Machine(**json.loads((FARM / name / "machine.json").read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def _free_names(prefix: str, count: int) -> list[tuple[str, str]]:
    """Choose names and addresses that no host has."""
    numbers = range(1, MOST + 1)
    taken = {machine.address for machine in map(_read, _names()) if machine}
    names = [f"{prefix}{number}" for number in numbers if not (FARM / f"{prefix}{number}").exists()][:count]
    addresses = [address for address in (f"198.18.1.{number}" for number in numbers) if address not in taken][:count]
    if not all(re.fullmatch(rf"[a-z][a-z0-9-]{{,{LONGEST_NAME - 1}}}", name) for name in names):
        message = f"{prefix!r} makes no host names: small letters, digits and -, at most {LONGEST_NAME} with the number"
        raise MachineError(message)
    if not len(names) == len(addresses) == count:
        message = f"there is no room for {count} more hosts: {MOST} is the most"
        raise MachineError(message)
    return list(zip(names, addresses, strict=True))


def _furnish(machine: Machine, image: Path) -> None:
    """Make the folder and the file system of a host, and all that is its own in there."""
    for folder in (machine.root, machine.place / "layer"):
        folder.mkdir(parents=True)
    machine.save()
    layer = machine.place / "layer"
    if command("stat", "--file-system", "--format=%t", layer).stdout.strip() == OVERLAYFS:
        # An overlay cannot be the upper layer of another one, memory can.
        command("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", layer)
    for folder in (layer / "upper", layer / "work"):
        folder.mkdir()
    lower = str(image).replace("\\", "\\\\").replace(":", "\\:")
    # Nothing here outlives the farm, so unmounting need not wait for the disk: seconds for each host.
    options = f"lowerdir={lower},upperdir={layer / 'upper'},workdir={layer / 'work'},volatile"
    command("mount", "-t", "overlay", "-o", options, "overlay", machine.root)

    etc = machine.root / "etc"
    names = f"127.0.0.1 localhost\n127.0.1.1 {machine.name}\n"
    proxied = proxies()
    files = {
        "hostname": f"{machine.name}\n",
        "hosts": names,
        # An uninitialized id makes systemd enable every service, nginx too.
        "machine-id": f"{uuid.uuid4().hex}\n",
        "resolv.conf": resolv_conf(),
        "systemd/network/10-host0.network": HOST_NETWORK.format(address=machine.address, gateway=GATEWAY),
        "apt/apt.conf.d/90fabdjango-tests": "".join(f"{option}\n" for option in apt_options()),
        "environment": "".join(f'{name}="{value}"\n' for name, value in proxied.items()),
        "profile.d/fabdjango-tests.sh": "".join(f"export {n}={shlex.quote(v)}\n" for n, v in proxied.items()),
        **{path.removeprefix("/etc/"): text for path, text in pip_settings().items()},
    }
    sources = apt_sources(machine.suite)
    if sources:
        files["apt/sources.list"] = "".join(f"{line}\n" for line in sources)
    for path, text in files.items():
        target = etc / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Some images have a link to /run here, which would lead into this machine's /run.
        target.unlink(missing_ok=True)
        target.write_text(text)
    bundle = ca_bundle()
    if bundle:
        shutil.copyfile(bundle, etc / "ssl/certs/ca-certificates.crt")
    _hand_out_keys(machine)


def _hand_out_keys(machine: Machine) -> None:
    """Give the host keys of its own, write them into known_hosts, and let the operator in."""
    lines = []
    for kind in ("ed25519", "ecdsa"):
        file = machine.root / f"etc/ssh/ssh_host_{kind}_key"
        command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", machine.name, "-f", file)
        public = file.with_suffix(".pub").read_text().split()
        lines.append(f"{machine.address},{machine.name} {public[0]} {public[1]}\n")
    machine.known_hosts.write_text("".join(lines))
    for home, owner in (("root", 0), ("home/deploy", DEPLOY_ID)):
        folder = machine.root / home / ".ssh"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
        keys = folder / "authorized_keys"
        keys.write_text(KEY.with_suffix(".pub").read_text())
        keys.chmod(0o600)
        for path in (folder, keys):
            os.chown(path, owner, owner)


def _make_key() -> None:
    """Make the operator's key, unless there is one."""
    if not KEY.with_suffix(".pub").exists():
        KEY.unlink(missing_ok=True)
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", KEY)


def _remove_leftovers() -> None:
    """Throw away the hosts of processes that are gone."""
    for name in _names():
        machine = _read(name)
        if not machine or not (machine.keep or _birth(int(machine.owner.partition("@")[0])) == machine.owner):
            _remove(name)


def _remove(name: str) -> None:
    """Throw a host away, however far its start got."""
    machine = _read(name) or Machine(name, "", "", "", "")
    machine.kill()
    for mount in (machine.root, machine.place / "layer"):
        if os.path.ismount(mount) and command("umount", mount, check=False).returncode:
            command("umount", "--lazy", mount)
    command("rm", "-rf", "--one-file-system", "--", machine.place)
    REMOVED.touch()


def _network_up() -> None:
    """Make the bridge, the address translation and the kernel settings, unless they are there."""
    if not BEFORE.exists():
        before = {name: Path("/proc/sys", name).read_text().strip() for name in SETTINGS}
        BEFORE.write_text(json.dumps(before))
    for name, value in SETTINGS.items():
        setting = Path("/proc/sys", name)
        setting.write_text(str(max(value, int(setting.read_text()))))
    if not Path("/sys/class/net", BRIDGE).exists():
        command("ip", "link", "add", BRIDGE, "address", "02:00:c6:12:00:01", "type", "bridge")
    command("ip", "address", "replace", f"{GATEWAY}/16", "dev", BRIDGE)
    command("ip", "link", "set", BRIDGE, "up")
    command("nft", "--file", "-", given=NAT)


def _network_down() -> None:
    """Take away what `_network_up` made."""
    command("nft", "delete", "table", "ip", TABLE, check=False)
    command("ip", "link", "delete", BRIDGE, check=False)
    for folder in {folder.parent for folder in _cgroups("any")}:
        _remove_cgroup(folder)
    if BEFORE.exists():
        for name, value in json.loads(BEFORE.read_text()).items():
            Path("/proc/sys", name).write_text(value)
        BEFORE.unlink()


def _cgroups(name: str) -> tuple[Path, Path]:
    """Give a host's folders in the systemd and the unified hierarchy; they are one and the same in a pure v2 tree."""
    tree = Path("/sys/fs/cgroup")
    if (tree / "cgroup.procs").exists():
        return tree / "fabdjango" / name, tree / "fabdjango" / name
    unified = tree / "unified" if (tree / "unified").is_dir() else tree / "systemd"
    return tree / "systemd" / "fabdjango" / name, unified / "fabdjango" / name


def _remove_cgroup(folder: Path) -> None:
    """Remove a cgroup and those in it, once the last killed processes have left them."""

    def gone() -> bool:
        for path, _, _ in os.walk(folder, topdown=False):
            with suppress(OSError):
                Path(path).rmdir()
        return not folder.exists()

    _wait(gone, 5)


def _birth(pid: int) -> str:
    """Name a living process so that no later one has the same name; empty when it is gone."""
    with suppress(OSError):
        state, *_, born = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]
        return f"{pid}@{born}" if state not in {"Z", "X"} else ""
    return ""


def _nspawn_pid(root: Path) -> int:
    """
    Find the systemd-nspawn of the host with this root by its command line; 0 if there is none.

    It is setsid and then sh before it becomes systemd-nspawn, and its child looks the same before it becomes the host.
    """
    ours = f"--directory={root}".encode()
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if ours in words and Path(os.fsdecode(words[0])).name in {"setsid", "sh", "systemd-nspawn"}:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return next((pid for pid, parent in parents.items() if parent not in parents), 0)


def _leader_pid(nspawn: int) -> int:
    """Find the child of a systemd-nspawn that is PID 1 in a namespace of its own; 0 if there is none yet."""
    with suppress(OSError):
        for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split() if nspawn else ():
            status = Path(f"/proc/{child}/status").read_text()
            if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE):
                return int(child)
    return 0


def _listens_on_ssh(leader: int) -> bool:
    """Look whether a host listens on port 22, without connecting: sshd of Debian 13 punishes who says nothing."""
    tables = [Path(f"/proc/{leader}/net/{table}") for table in ("tcp", "tcp6")]
    with suppress(OSError):
        return any(re.search(r"^ *\d+: [0-9A-F]+:0016 \S+ 0A ", table.read_text(), re.MULTILINE) for table in tables)
    return False


def _wait(what: Callable[[], object], seconds: float) -> bool:
    """Ask again and again for at most `seconds`; tells whether the answer became true."""
    for _ in range(math.ceil(seconds / 0.05)):
        if what():
            return True
        time.sleep(0.05)
    return bool(what())
