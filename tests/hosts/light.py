"""
Many light hosts inside one booted host, to look at the operator's side: its sessions, its processor time, its memory.

Each has an address of its own, at which one sshd listens; the program that answers there is onhost/light.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.hosts.workplace import Workplace
    from tests.machines import Machine

__all__ = ["Measured", "addresses", "deploy", "furnish"]

PROGRAM = Path(__file__).parent / "onhost" / "light.py"


@dataclass(frozen=True)
class Measured:
    """One deploy: exit code, last line, seconds, seconds of the operator's processor, its largest memory (MB)."""

    hosts: int
    code: int
    said: str
    seconds: float
    cpu: float
    memory: float

    def __str__(self) -> str:
        each = self.cpu / self.hosts
        return f"{self.hosts:4} hosts  {self.seconds:6.2f} s  cpu {self.cpu:6.2f} s, {each:.3f} s a host  {self.memory:4.0f} MB"


def addresses(count: int) -> list[str]:
    """Addresses beside those of booted hosts."""
    return [f"198.18.{2 + number // 250}.{1 + number % 250}" for number in range(count)]


def furnish(machine: Machine, count: int, seconds: float = 0) -> None:
    """Give a booted host the addresses, and the account light, whose every session the program answers, after so long."""
    machine.run("id light 2>/dev/null || useradd --create-home --shell /bin/sh light")
    key = machine.run("cat /home/deploy/.ssh/authorized_keys").stdout.strip().splitlines()[0]
    machine.run("mkdir -p -m 700 /home/light/.ssh")
    machine.write("/opt/light.py", PROGRAM.read_text())
    machine.write(
        "/home/light/.ssh/authorized_keys", f'command="python3 -I /opt/light.py {seconds}" {key}\n', mode=0o600
    )
    machine.run("chown -R light: /home/light/.ssh")
    machine.write("/etc/ssh/sshd_config.d/light.conf", "MaxStartups 500\nMaxSessions 50\n")
    machine.run("systemctl reload ssh")
    lines = "".join(f"addr add {address}/15 dev host0\n" for address in addresses(count))
    machine.run("ip -force -batch - 2>/dev/null", given=lines, check=False)


def deploy(workplace: Workplace, machine: Machine, count: int) -> Measured:
    """Deploy to so many of them with stock `fab`, all at once."""
    key = machine.known_hosts.read_text().split(None, 1)[1]
    names = addresses(count)
    workplace.known_hosts.write_text("".join(f"{name} {key}" for name in names))
    workplace.configure(
        project="light",
        repository="git@example.com:light.git",
        root="/srv/light",
        user="light",
        manager="systemd",
        parallel=20,
        activation={"batch": "all"},
        ssh={"user": "light", "key": [str(machine.key)], "known_hosts": str(workplace.known_hosts)},
        hosts={name: {"roles": ["primary"] if name == names[0] else ["web"]} for name in names},
    )
    environ = workplace._environ()
    began = time.monotonic()
    done = subprocess.Popen(
        [Path(sys.executable).with_name("fab"), "deploy"],
        cwd=workplace.folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.stdout is not None
    said = done.stdout.read()
    _, status, usage = os.wait4(done.pid, 0)
    done.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(count, done.returncode, said, time.monotonic() - began, cpu, usage.ru_maxrss / 1024)
