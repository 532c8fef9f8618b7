"""Where everything is on the server."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout, layout_of
from tests.conftest import LAYOUT, RELEASE, sample_settings


def test_every_path() -> None:
    """The whole tree of a site, below a root with a space and a quote in it."""
    places = [
        LAYOUT.mirror,
        LAYOUT.releases,
        LAYOUT.release(RELEASE),
        LAYOUT.private(RELEASE),
        LAYOUT.venvs,
        LAYOUT.venv("0a1b"),
        LAYOUT.shared,
        LAYOUT.env_file,
        LAYOUT.local_settings,
        LAYOUT.logs,
        LAYOUT.current,
        LAYOUT.run,
        LAYOUT.lock,
        LAYOUT.steps_lock,
        LAYOUT.slots,
        LAYOUT.slot("b"),
        LAYOUT.slot_starter,
        LAYOUT.private_socket("b"),
        LAYOUT.live_socket,
        LAYOUT.activation,
        LAYOUT.static_store,
        LAYOUT.maintenance,
        LAYOUT.maintenance_page,
        LAYOUT.pins,
        LAYOUT.journal,
        LAYOUT.first_deploy_done,
        LAYOUT.tools,
        LAYOUT.supervisor,
    ]
    assert [str(place) for place in places] == [
        "/srv/it's here/repo.git",
        "/srv/it's here/releases",
        "/srv/it's here/releases/7-0123456789ab",
        "/srv/it's here/releases/7-0123456789ab/.fabdjango",
        "/srv/it's here/venvs",
        "/srv/it's here/venvs/0a1b",
        "/srv/it's here/shared",
        "/srv/it's here/shared/.env",
        "/srv/it's here/shared/local_settings.py",
        "/srv/it's here/shared/log",
        "/srv/it's here/current",
        "/srv/it's here/run",
        "/srv/it's here/run/lock",
        "/srv/it's here/run/steps.lock",
        "/srv/it's here/slots",
        "/srv/it's here/slots/b",
        "/srv/it's here/run/slot",
        "/srv/it's here/run/sockets/b.sock",
        "/srv/it's here/run/current.sock",
        "/srv/it's here/run/activation",
        "/srv/it's here/shared/static",
        "/srv/it's here/run/maintenance",
        "/srv/it's here/shared/maintenance.html",
        "/srv/it's here/pins",
        "/srv/it's here/journal.jsonl",
        "/srv/it's here/first-deploy.done",
        "/srv/it's here/tools",
        "/srv/it's here/supervisor",
    ]


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("/srv/{project}", "/srv/blog"),
        ("~/it's {project}", "~/it's blog"),
        ("/srv/{other}/{project}/", "/srv/{other}/blog"),
        ("/srv/a b/./blog", "/srv/a b/blog"),
    ],
)
def test_the_root_of_the_settings(root: str, path: str) -> None:
    """{project} is filled in, and nothing else."""
    assert layout_of(sample_settings(root=root)) == Layout(PurePosixPath(path), "blog")


@pytest.mark.parametrize("root", ["/", "~/", "/srv/../etc", "~/../it's", "//", "/."])
def test_a_root_that_is_not_the_sites_own(root: str) -> None:
    """A root that is everybody's, or that leaves its folder, is refused with an example."""
    with pytest.raises(ConfigError) as caught:
        layout_of(sample_settings(root=root))
    assert caught.value.message == f"fabdjango.root must be a folder of the site's own, not {root!r}"
    assert caught.value.cure == "for instance root: /srv/blog"


@pytest.mark.parametrize("char", list(":,%*?["))
def test_a_root_that_some_grammar_would_cut(char: str) -> None:
    """PATH is cut at a colon, gunicorn's bind at a comma; supervisor expands % and looks for files by a pattern."""
    with pytest.raises(ConfigError) as caught:
        layout_of(sample_settings(root=f"/srv/it's{char}here"))
    root = f"/srv/it's{char}here"
    assert caught.value.message == f"fabdjango.root holds {char!r}, which a path of programs cannot carry: {root!r}"


def test_at_home() -> None:
    """~ is filled in once the owner's home is known, and only where it means the home."""
    at = Layout(PurePosixPath("~/it's here"), "blog").at_home("/home/ada b")
    assert at == Layout(PurePosixPath("/home/ada b/it's here"), "blog")
    assert Layout(PurePosixPath("/srv/~ x"), "blog").at_home("/home/ada") == Layout(PurePosixPath("/srv/~ x"), "blog")
