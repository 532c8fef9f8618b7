"""Capistrano 3, as Debian has it, with the steps for Django that capistrano-django has."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from benchmarks.tools.furnishing import copy_files, values

if TYPE_CHECKING:
    from benchmarks.site import Site

__all__ = ["tool"]


class Capistrano:
    """Capfile, deploy.rb and the tasks for Django are in the folder `capistrano`; the stage is written beside them."""

    name = "capistrano"

    def missing(self) -> str:
        """Ask for Debian's package."""
        return "" if shutil.which("cap") else "Capistrano is not installed: apt-get install capistrano"

    def furnish(self, site: Site) -> None:
        """Lay down what `cap install` makes, filled in."""
        copy_files(self.name, site)
        stage = site.workplace / "config/deploy/production.rb"
        stage.parent.mkdir()
        # A JSON string without # is a Ruby string.
        servers = [f'server {json.dumps(host.name)}, user: "deploy", roles: %w{{app db web}}\n' for host in site.hosts]
        settings = values(site)
        settings |= {"repo_url": settings.pop("repository"), "deploy_to": settings.pop("root")}
        stage.write_text("".join([*servers, *(f"set :{key}, {json.dumps(text)}\n" for key, text in settings.items())]))

    def deploy(self, site: Site, commit: str) -> list[str]:
        """Name the task that deploys."""
        return ["cap", "production", "deploy", f"COMMIT={commit}"]

    def rollback(self, site: Site) -> list[str]:
        """Name the task that goes back."""
        return ["cap", "production", "deploy:rollback"]


tool = Capistrano()
