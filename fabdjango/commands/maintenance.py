"""The maintenance page: a file that nginx shows while another file is there."""

from __future__ import annotations

from fabdjango.escape import block, quote_path, raw, sh, when
from fabdjango.layout import Layout
from fabdjango.plan import Put, Step
from fabdjango.render import Templates
from fabdjango.settings import Settings

__all__ = ["page", "put_page", "switch_off", "switch_on"]


def page(settings: Settings, layout: Layout, templates: Templates, host: str = "") -> Put:
    """The page of the project, or our own; raises ConfigError for a template that cannot be filled in."""
    values = {"project": settings.project, "host": host, "settings": settings}
    if settings.nginx.maintenance_page:
        key = "nginx.maintenance_page"
        text = templates.render_project_file(settings.nginx.maintenance_page, key, **values).text
    else:
        text = templates.render("maintenance/page.html.j2", **values)
    return Put(layout.maintenance_page, text)


def put_page(put: Put) -> Step:
    """``maintenance-page``: the page, before anybody is sent there."""
    return Step(
        "maintenance-page", f"write {put.path}", raw('[ "$changed_files" ] || unchanged "as before"'), puts=(put,)
    )


def switch_on(layout: Layout) -> Step:
    """``maintenance-on``: from the next request on, nginx answers 503 and the page; static files stay reachable."""
    return Step(
        "maintenance-on",
        "visitors get the maintenance page",
        block(
            when(raw(f"[ -f {quote_path(layout.maintenance)} ]"), raw("unchanged 'it was on'")),
            sh("mkdir", "-p", "--", layout.run),
            raw(f": > {quote_path(layout.maintenance)}"),
        ),
    )


def switch_off(layout: Layout, *, name: str = "maintenance-off") -> Step:
    """``maintenance-off``: from the next request on, nginx asks the site again."""
    return Step(
        name,
        "visitors get the site",
        block(
            when(raw(f"! [ -e {quote_path(layout.maintenance)} ]"), raw("unchanged 'it was off'")),
            sh("rm", "-f", "--", layout.maintenance),
        ),
    )
