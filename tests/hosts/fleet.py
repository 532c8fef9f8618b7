"""Five hosts that serve one shop, behind a load balancer on the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.hosts.invariants import Site
from tests.hosts.shop import DOMAIN, ROOT, furnish

if TYPE_CHECKING:
    from tests.hosts.shop import Release, Shop
    from tests.hosts.workplace import Outcome, Running, Workplace
    from tests.machines import Machine

__all__ = ["BALANCER", "FleetStage"]

#: The load balancer answers for this name, and asks all hosts for the shop.
BALANCER = "all.example.com"
_BALANCER = """\
upstream all {{ {servers} keepalive 32; }}
server {{
    listen 80;
    server_name {balancer};
    client_max_body_size 10m;
    location / {{
        proxy_pass http://all;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host {domain};
        proxy_next_upstream off;
        proxy_read_timeout 60s;
    }}
}}
"""


class FleetStage:
    """
    One operator, and hosts that serve the same commit; the first is the primary.

    Each has a database of its own, so that all that holds of one host can be looked at on each; the process managers
    take turns.
    """

    def __init__(self, machines: list[Machine], workplace: Workplace, shop: Shop) -> None:
        self.machines = machines
        self.workplace = workplace
        self.shop = shop
        self.sites = [Site(machine, ROOT, DOMAIN, shop.repository.bare) for machine in machines]
        self.said: list[str] = []
        workplace.know(*machines)
        self.configure()

    def configure(self, **more: object) -> None:
        """Set fabric.yaml back to what it is for every test, with `more` laid over it."""
        hosts = {
            machine.address: {
                "roles": ["web", "primary"] if machine is self.machines[0] else ["web"],
                "manager": ("systemd", "supervisor")[number % 2],
            }
            for number, machine in enumerate(self.machines)
        }
        ssh = {"user": "deploy", "key": [str(self.machines[0].key)], "known_hosts": str(self.workplace.known_hosts)}
        settings = self.shop.settings("systemd", hosts=hosts, django={"migrate": "each"}, **more)
        self.workplace.configure(**{**settings, "ssh": {**ssh, **dict(more.get("ssh") or {})}})  # type: ignore[call-overload]

    def install(self) -> None:
        """The first deploy, with nginx in front of each host, and the load balancer."""
        for machine in self.machines:
            furnish(machine)
            machine.run("rm -f /etc/nginx/sites-enabled/default; systemctl enable --now nginx")
        release = self.shop.next()
        self.shop.hand_over(self.workplace, release)
        self.fab("nginx.configure").ended()
        self.deploy(release).ended()
        servers = " ".join(f"server {machine.address}:80 max_fails=0;" for machine in self.machines)
        text = _BALANCER.format(servers=servers, balancer=BALANCER, domain=DOMAIN)
        self.machines[0].write("/etc/nginx/conf.d/balancer.conf", text)
        self.machines[0].run("nginx -t && systemctl reload nginx")

    @property
    def serving(self) -> list[str]:
        """What each host answers from outside."""
        return [site.serving() for site in self.sites]

    def fab(self, *task: str) -> Outcome:
        """Run a task on all hosts of the inventory."""
        outcome = self.workplace.fab(*task)
        self.said += [outcome.output, outcome.error]
        return outcome

    def deploy(self, release: Release, *flags: str) -> Outcome:
        """Deploy a release everywhere, to the end."""
        self.shop.hand_over(self.workplace, release)
        return self.fab("deploy", f"--commit={release.sha}", *flags)

    def start(self, release: Release, **environ: str) -> Running:
        """Begin to deploy a release everywhere."""
        self.shop.hand_over(self.workplace, release)
        return self.workplace.start("deploy", f"--commit={release.sha}", **environ)
