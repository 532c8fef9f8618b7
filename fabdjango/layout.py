"""Every path on the server. A root that starts with ``~`` stays so until the owner's home is known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from fabdjango.exceptions import ConfigError
from fabdjango.settings import Settings

__all__ = ["Layout", "layout_of"]


@dataclass(frozen=True)
class Layout:
    """The folders of one site below ``root``; ``project`` names its programs."""

    root: PurePosixPath
    project: str

    @property
    def mirror(self) -> PurePosixPath:
        """The bare clone that every release is taken from."""
        return self.root / "repo.git"

    @property
    def releases(self) -> PurePosixPath:
        """The folder of all releases."""
        return self.root / "releases"

    def release(self, release: str) -> PurePosixPath:
        """One commit, made ready."""
        return self.releases / release

    @property
    def venvs(self) -> PurePosixPath:
        """The folder of all virtualenvs."""
        return self.root / "venvs"

    def venv(self, key: str) -> PurePosixPath:
        """The virtualenv of one set of requirements."""
        return self.venvs / key

    @property
    def shared(self) -> PurePosixPath:
        """What outlives releases."""
        return self.root / "shared"

    @property
    def env_file(self) -> PurePosixPath:
        """The environment file that the next release takes a copy of."""
        return self.shared / ".env"

    @property
    def generated_env(self) -> PurePosixPath:
        """Values that were made on the host and are never shown, such as passwords; the next release takes a copy."""
        return self.shared / "generated.env"

    @property
    def local_settings(self) -> PurePosixPath:
        """The settings module that the next release takes a copy of."""
        return self.shared / "local_settings.py"

    @property
    def logs(self) -> PurePosixPath:
        """Logs of programs that the owner's own supervisord runs."""
        return self.shared / "log"

    @property
    def current(self) -> PurePosixPath:
        """The symlink to the release that serves."""
        return self.root / "current"

    @property
    def run(self) -> PurePosixPath:
        """Sockets and pid files."""
        return self.root / "run"

    @property
    def jobs(self) -> PurePosixPath:
        """What jobs leave behind: the lock, the record and the log of each; the application itself may write in it."""
        return self.run / "jobs"

    @property
    def lock(self) -> PurePosixPath:
        """The file whose flock makes one deployment the only writer."""
        return self.root / "run" / "lock"

    @property
    def steps_lock(self) -> PurePosixPath:
        """The file that every running step locks too, shared: so a step outlives its deployment's lock visibly."""
        return self.root / "run" / "steps.lock"

    @property
    def slots(self) -> PurePosixPath:
        """The folder of the symlinks from a slot to the release that runs in it."""
        return self.root / "slots"

    def slot(self, slot: str) -> PurePosixPath:
        """The symlink from the slot ``a`` or ``b`` to its release."""
        return self.slots / slot

    @property
    def slot_starter(self) -> PurePosixPath:
        """What the process manager starts for a slot: ``sh PATH SLOT [FD]``."""
        return self.run / "slot"

    @property
    def sockets(self) -> PurePosixPath:
        """The folder that the application itself may write in."""
        return self.run / "sockets"

    def private_socket(self, slot: str) -> PurePosixPath:
        """Where the application server of a slot listens for the health check, and for the proxy once it is live."""
        return self.sockets / f"{slot}.sock"

    @property
    def live_socket(self) -> PurePosixPath:
        """The symlink to the socket of the slot that has the traffic, replaced by an atomic rename."""
        return self.run / "current.sock"

    @property
    def activation(self) -> PurePosixPath:
        """The record of an activation under way, with its state as the suffix: .armed, .confirmed or .reverting."""
        return self.run / "activation"

    @property
    def static_store(self) -> PurePosixPath:
        """Static files of this and of earlier releases, for pages that are still open."""
        return self.shared / "static"

    @property
    def maintenance(self) -> PurePosixPath:
        """Exists while nginx is to answer with the maintenance page."""
        return self.run / "maintenance"

    @property
    def maintenance_page(self) -> PurePosixPath:
        """The page that nginx shows then."""
        return self.shared / "maintenance.html"

    @property
    def journal(self) -> PurePosixPath:
        """What happened here, one JSON object a line."""
        return self.root / "journal.jsonl"

    @property
    def first_deploy_done(self) -> PurePosixPath:
        """Exists once the commands of the first deploy have run."""
        return self.root / "first-deploy.done"

    @property
    def pins(self) -> PurePosixPath:
        """A file for each release that is never pruned."""
        return self.root / "pins"

    @property
    def tools(self) -> PurePosixPath:
        """A virtualenv for uv, where the host has none."""
        return self.root / "tools"

    @property
    def supervisor(self) -> PurePosixPath:
        """The owner's own supervisord: its configuration, socket and virtualenv."""
        return self.root / "supervisor"

    def private(self, release: str) -> PurePosixPath:
        """What fabdjango keeps in a release: environment, gunicorn's configuration, start scripts, marker."""
        return self.release(release) / ".fabdjango"

    def at_home(self, home: str) -> Layout:
        """The same with ``~`` replaced by ``home``, the owner's home directory."""
        text = str(self.root)
        if text == "~" or text.startswith("~/"):
            return Layout(PurePosixPath(home + text[1:]), self.project)
        return self


def layout_of(settings: Settings) -> Layout:
    """The layout that ``settings.root`` describes; a root that leaves its folder by ``..`` is refused."""
    text = settings.root.replace("{project}", settings.project)
    root = PurePosixPath(text)
    # PATH is cut at :, gunicorn's bind at a comma; supervisor expands % and takes its own folder for a pattern.
    cut = re.search(r"[:,%*?\[]", text)
    if cut:
        msg = f"fabdjango.root holds {cut.group()!r}, which a path of programs cannot carry: {text!r}"
        raise ConfigError(msg, cure=f"for instance root: /srv/{settings.project}")
    if ".." in root.parts or len(root.parts) < 2:
        msg = f"fabdjango.root must be a folder of the site's own, not {text!r}"
        raise ConfigError(msg, cure=f"for instance root: /srv/{settings.project}")
    return Layout(root, settings.project)
