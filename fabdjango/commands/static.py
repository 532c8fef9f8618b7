"""Static files: those of a release, and the store of those that earlier releases had."""

from __future__ import annotations

from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout
from fabdjango.plan import Step
from fabdjango.settings import Settings

__all__ = ["check_shared", "keep"]


def check_shared(settings: Settings, layout: Layout) -> None:
    """Raise ConfigError for a shared path inside the store of static files."""
    for text in settings.shared:
        # The store throws away what is old, and would not know that this is somebody's.
        if len(PurePosixPath(text).parts) > 1 and PurePosixPath(text).parts[0] == layout.static_store.name:
            raise ConfigError(
                f"fabdjango.shared: {text} would lie in {layout.static_store}, where static files of earlier releases are kept",
                cure="keep it in another folder of the commit, outside of static/",
            )


def keep(settings: Settings, layout: Layout, release: str, outgoing: str = "") -> Step:
    """
    ``static``: after collectstatic, before the release is complete.

    Makes ``<release>/.fabdjango/static`` a link to its STATIC_ROOT, as Django said it in django.json, and keeps the
    hashed files of ``release`` and of ``outgoing`` (the id of the one that serves, or empty) for pages that are still
    open. A release without STATIC_ROOT has nothing to do, and without a store only the link is made.
    """
    check_shared(settings, layout)
    # A project that shares a folder of that name keeps it for itself: nothing of it may age.
    own = any(PurePosixPath(text).parts[:1] == (layout.static_store.name,) for text in settings.shared)
    return Step(
        "static",
        "keep static files of earlier releases",
        program=onhost.source("static_store"),
        parameters={
            "store": "" if own else str(layout.static_store),
            "incoming": str(layout.release(release)),
            "outgoing": str(layout.release(outgoing)) if outgoing else "",
            "days": settings.django.static_days,
        },
        cure="is there room on the disk? df -h; static files that are kept too long: fabdjango.django.static_days",
    )
