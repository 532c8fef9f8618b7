"""An Ansible playbook, with pipelining, ControlPersist, a fork for each host and no gathering of facts."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from benchmarks.tools.furnishing import copy_files, program, values

if TYPE_CHECKING:
    from benchmarks.site import Site

__all__ = ["tool"]


class Ansible:
    """Two playbooks and their ansible.cfg are in the folder `ansible`; the inventory is written beside them."""

    name = "ansible"

    def missing(self) -> str:
        """Ask for ansible-core, of the extra `bench`."""
        if program("ansible-playbook").exists():
            return ""
        return "ansible-core is not installed: .venv/bin/pip install -e '.[bench]'"

    def furnish(self, site: Site) -> None:
        """Lay the playbooks and the inventory down."""
        copy_files(self.name, site)
        (site.workplace / "inventory.yml").write_text(json.dumps({"all": self._inventory(site)}, indent=1))

    def deploy(self, site: Site, commit: str) -> list[str]:
        """Name the playbook that deploys."""
        return [*self._playbook(site), "--extra-vars", f"commit={commit}", "deploy.yml"]

    def rollback(self, site: Site) -> list[str]:
        """Name the playbook that goes back."""
        return [*self._playbook(site), "rollback.yml"]

    def _playbook(self, site: Site) -> list[str]:
        # "If you have the processing power available and want to use more forks": the default is 5 hosts at once.
        # https://docs.ansible.com/ansible/latest/playbook_guide/playbooks_strategies.html#setting-the-number-of-forks
        return [str(program("ansible-playbook")), "--forks", str(max(5, len(site.hosts)))]

    def _inventory(self, site: Site) -> dict[str, object]:
        return {
            "hosts": {host.name: {} for host in site.hosts},
            "vars": {
                **values(site),
                # Naming it spares Ansible the search for it on each host.
                # https://docs.ansible.com/ansible/latest/reference_appendices/interpreter_discovery.html
                "ansible_python_interpreter": "/usr/bin/python3",
                # OpenSSH takes the home of the account that runs it, whatever HOME says.
                "ansible_ssh_common_args": f"-F {shlex.quote(str(site.ssh_config))}",
            },
        }


tool = Ansible()
