"""fabdjango itself, as its README says: `fab deploy --commit=…` in a folder with a fabfile of two lines and a fabric.yaml."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.site import PROJECT, Site

__all__ = ["tool"]

FAB = str(Path(sys.executable).with_name("fab"))


class Fabdjango:
    """It has programs and a file of nginx of its own, and takes the variables from shared/.env."""

    name = "fabdjango"

    def missing(self) -> str:
        """Nothing: it is this project."""
        return ""

    def furnish(self, site: Site) -> None:
        """Write the two files; let nginx lead to the site, and systemd know its programs, as it does those of the others."""
        (site.workplace / "fabfile.py").write_text('"""The tasks."""\nfrom fabdjango import ns\n')
        # JSON is YAML.
        (site.workplace / "fabric.yaml").write_text(json.dumps({"fabdjango": self._settings(site)}, indent=1))
        for host in site.hosts:
            host.machine.run(
                f"systemctl disable --quiet --now {PROJECT}; rm -f /etc/systemd/system/{PROJECT}.service\n"
                f"rm -f /etc/nginx/sites-enabled/{PROJECT} /etc/nginx/sites-available/{PROJECT}\n"
                f"systemctl daemon-reload; systemctl reload nginx\n"
                f"mv {site.root}/shared/environment {site.root}/shared/.env"
            )
        done = subprocess.run(
            [FAB, "nginx.configure", "systemd.configure"],
            cwd=site.workplace,
            env=site.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            message = f"fab nginx.configure systemd.configure: exit {done.returncode}\n{done.stdout}{done.stderr}"
            raise RuntimeError(message)

    def deploy(self, site: Site, commit: str) -> list[str]:
        """As a person does."""
        return [FAB, "deploy", f"--commit={commit}"]

    def rollback(self, site: Site) -> list[str]:
        """As a person does."""
        return [FAB, "rollback"]

    def _settings(self, site: Site) -> dict[str, object]:
        first = site.hosts[0].name
        hosts = {
            host.name: {
                "ssh": {"address": host.address, "port": host.port},
                "roles": ["web", "primary"] if host.name == first else ["web"],
            }
            for host in site.hosts
        }
        return {
            "project": site.project,
            "repository": site.repository,
            "root": site.root,
            "user": "deploy",
            "python": site.python,
            "manager": "systemd",
            "gunicorn": {"workers": "2"},
            "nginx": {"domains": [site.domain]},
            # Every host has a database of its own.
            "django": {"check_deploy": True, "migrate": "each"},
            "ssh": {"user": "deploy", "key": [str(site.key)], "known_hosts": str(site.known_hosts)},
            "hosts": hosts,
        }


tool = Fabdjango()
