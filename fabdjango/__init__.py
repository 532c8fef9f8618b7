"""
Deploy Django over SSH with Fabric.

    from fabdjango import ns                                a fabfile with every task
    Collection(mytask, fabdjango.git, fabdjango.django)     some of them beside one's own
    fabdjango.site("blog", repository="…")                  one of several sites
"""

from __future__ import annotations

from fabdjango.collection import (
    config,
    db,
    django,
    env,
    git,
    gunicorn,
    host,
    maintenance,
    nginx,
    ns,
    release,
    schedule,
    server,
    site,
    supervisor,
    systemd,
    tls,
    venv,
)
from fabdjango.version import __version__

__all__ = [
    "__version__",
    "config",
    "db",
    "django",
    "env",
    "git",
    "gunicorn",
    "host",
    "maintenance",
    "nginx",
    "ns",
    "release",
    "schedule",
    "server",
    "site",
    "supervisor",
    "systemd",
    "tls",
    "venv",
]
