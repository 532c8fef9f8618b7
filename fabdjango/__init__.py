"""
Deploy Django over SSH with Fabric.

    from fabdjango import ns                                a fabfile with every task
    Collection(mytask, fabdjango.git, fabdjango.django)     some of them beside one's own
    fabdjango.site("blog", repository="…")                  one of several sites
"""

from __future__ import annotations

import sys

# fab forbids bytecode, for the sake of the folder of the fabfile, and uv installs none: ours would be compiled anew each
# time. Who has forbidden it with -B or PYTHONDONTWRITEBYTECODE is heard.
_forbidden = sys.dont_write_bytecode
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from fabdjango.collection import (  # noqa: E402
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
from fabdjango.version import __version__  # noqa: E402

sys.dont_write_bytecode = _forbidden

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
