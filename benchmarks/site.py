"""
What every tool has to bring about, and what it finds: the same host, prepared once and not timed.

    http  nginx, for all paths, to the unix socket SOCKET
    unit  shop.service of systemd: gunicorn of CURRENT/venv with two workers, in CURRENT, as `deploy`; enabled, not started
    /srv/shop                     empty but for shared/environment; `deploy` owns it
    /srv/shop/shared/environment  NAME=value lines, for sh and for systemd; the database file goes into shared/ too
    /srv/shop/current             a link that the tool makes: the release that serves
    /opt/shop-wheels              every package that a requirements.txt can ask for; pip and uv look there and nowhere else
    /usr/local/bin/uv             uv

A release is the commit in a folder of its own, with `venv` in it, the folder or a link to one.
"""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.machines import Machine

__all__ = ["DOMAIN", "ENVIRONMENT", "ROOT", "SOCKET", "UNIT", "WHEELS", "Host", "Site", "lay_out", "prepare"]

PROJECT = "shop"
DOMAIN = "shop.example.com"
ROOT = "/srv/shop"
WHEELS = "/opt/shop-wheels"
SOCKET = "/run/shop/gunicorn.sock"
ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "shop.settings",
    "SHOP_SECRET_KEY": "fA7mHq0ZtWv3-of-the-benchmark-only-9sJx2bNkRd5yUeLc8gPo",
    "SHOP_ALLOWED_HOSTS": f"{DOMAIN},localhost",
    "SHOP_DATABASE": f"{ROOT}/shared/db.sqlite3",
}

NGINX = f"""\
server {{
    listen 80 default_server;
    server_name {DOMAIN};
    location / {{
        proxy_pass http://unix:{SOCKET};
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-For $remote_addr;
    }}
}}
"""

PIP = f"[global]\nno-index = true\nfind-links = {WHEELS}\n"
UV = f'no-index = true\nfind-links = ["{WHEELS}"]\n'

UNIT = f"""\
[Unit]
Description=gunicorn of the shop
After=network.target

[Service]
Type=notify
User=deploy
Group=deploy
RuntimeDirectory=shop
WorkingDirectory={ROOT}/current
EnvironmentFile={ROOT}/shared/environment
ExecStart={ROOT}/current/venv/bin/python -m gunicorn --workers 2 --bind unix:{SOCKET} shop.wsgi:application
ExecReload=/bin/kill -s HUP $MAINPID
KillMode=mixed
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Host:
    """One host: what to ssh to, which is a relay of ours, and the machine behind it, which only the measuring side knows."""

    name: str
    address: str
    port: int
    machine: Machine


@dataclass(frozen=True)
class Site:
    """
    What a tool is to deploy, and where.

    `workplace` is a folder of the tool's own, and its home. `ssh_config` is `.ssh/config` in there: programs that go by
    HOME find it, OpenSSH wants `-F`. It names the hosts with account, port, `key` and `known_hosts`, so `ssh -F … NAME` works.
    """

    workplace: Path
    hosts: tuple[Host, ...]
    ssh_config: Path
    key: Path
    known_hosts: Path
    environ: dict[str, str]
    repository: str
    root: str = ROOT
    domain: str = DOMAIN
    wheels: str = WHEELS
    python: str = "python3"
    settings_module: str = ENVIRONMENT["DJANGO_SETTINGS_MODULE"]
    project: str = PROJECT


def lay_out(workplace: Path, hosts: tuple[Host, ...], repository: str) -> Site:
    """Make the operator's folder of one tool: keys, known hosts, ssh_config, and an environment with nothing of this user's."""
    ssh = workplace / ".ssh"
    ssh.mkdir(parents=True)
    ssh.chmod(0o700)
    key, known_hosts, ssh_config = ssh / "key", ssh / "known_hosts", ssh / "config"
    shutil.copyfile(hosts[0].machine.key, key)
    key.chmod(0o600)
    known_hosts.write_text("".join(map(_known, hosts)))
    files = f"    User deploy\n    IdentityFile {key}\n    IdentitiesOnly yes\n    UserKnownHostsFile {known_hosts}\n"
    ssh_config.write_text(
        "".join(f"Host {host.name}\n    HostName {host.address}\n    Port {host.port}\n{files}" for host in hosts)
    )
    environ = {"HOME": str(workplace), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    return Site(workplace, hosts, ssh_config, key, known_hosts, environ, repository)


def _known(host: Host) -> str:
    """The lines of known_hosts for the relay in front of a host."""
    keys = [line.partition(" ")[2] for line in host.machine.known_hosts.read_text().splitlines()]
    return "".join(f"[{host.address}]:{host.port},{host.name} {key}\n" for key in keys)


def prepare(machine: Machine, wheels: Path, uv: Path) -> None:
    """Make a new machine what the head of this page says; `wheels` and `uv` are this machine's own files."""
    shutil.copytree(wheels, machine.root / WHEELS[1:], dirs_exist_ok=True)
    shutil.copy2(uv, machine.root / "usr/local/bin/uv")
    machine.write("/etc/pip.conf", PIP)
    machine.write("/etc/uv/uv.toml", UV)
    machine.write(f"/etc/nginx/sites-available/{PROJECT}", NGINX)
    machine.write(f"/etc/systemd/system/{PROJECT}.service", UNIT)
    environment = "".join(f"{name}={shlex.quote(value)}\n" for name, value in ENVIRONMENT.items())
    machine.write(f"{ROOT}/shared/environment", environment, 0o640)
    machine.run(
        f"chown -R deploy:deploy {ROOT}\n"
        "rm -f /etc/nginx/sites-enabled/default\n"
        f"ln -sf ../sites-available/{PROJECT} /etc/nginx/sites-enabled/{PROJECT}\n"
        f"systemctl daemon-reload; systemctl --quiet enable --now nginx; systemctl --quiet enable {PROJECT}"
    )
