"""What the tasks of nginx run, after a look at the host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from fabdjango.commands import nginx as build
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.layout import layout_of
from fabdjango.namespaces import nginx
from fabdjango.recording import RecordingTransport, call, runner
from tests.conftest import sample_settings, sample_templates
from tests.namespaces.text import SITE, joined

VALUES = {**SITE, "nginx": {"domains": ["blog.example.com"]}}
LOOK: dict[str, Any] = {
    "root": "/srv/the blog",
    "program": "/usr/sbin/nginx",
    "version": "1.22.1",
    "user": "www-data",
    "folder": "/etc/nginx/sites-enabled",
    "file_path": "/etc/nginx/sites-available/blog.conf",
    "link_path": "/etc/nginx/sites-enabled/blog.conf",
    "text": None,
    "link": "",
    "ipv6": True,
    "active": True,
    "blocked": [],
}
_SETTINGS = sample_settings(VALUES)
TEXT = build.site_file(_SETTINGS, layout_of(_SETTINGS), sample_templates(), build.Webserver(**LOOK)).content
INSTALLED = {**LOOK, "text": TEXT, "link": "ours"}
LOOKING = """\
== nginx
-- nginx-look as root: look at nginx
python3 -I -S - # Look at nginx and the site's file for it; print what was found as one line of JSON. Writes nothing.
-- nginx-ask: ask the running nginx
python3 -I -S - # Ask nginx over loopback until its answer is the wanted one, or the time is over.
"""
TO_THE_PROOF = """\
-- nginx-check as root: nginx -t
nginx -t -q
-- nginx-reload as root: reload nginx
if [ -d /run/systemd/system ] && systemctl cat nginx.service >/dev/null 2>&1; then
  if systemctl is-active --quiet nginx.service; then systemctl reload nginx.service; else systemctl start nginx.service; fi
elif [ -s /run/nginx.pid ] && kill -0 "$(cat /run/nginx.pid)" 2>/dev/null; then
  nginx -s reload
else
  nginx 8>&- 9>&-
fi
-- nginx-proof as root: {title}
python3 -I -S - # Ask nginx over loopback until its answer is the wanted one, or the time is over.
"""


def transport(look: Mapping[str, Any], running: str = "", **more: str | int) -> RecordingTransport:
    """A host that is so, and whose nginx names the digest ``running``."""
    told = {"status": 200 if running else 404, "body": running}
    return RecordingTransport({"nginx-look": json.dumps(look), "nginx-ask": json.dumps(told), **more})


def test_configure() -> None:
    """File and link, read by nginx, reloaded and proven; in one session after the look."""
    host = transport(LOOK)
    call(nginx.configure, runner(host, VALUES))
    assert host.transcript == LOOKING + joined(
        f"""\
        == nginx-write (locked)
        -- nginx-write as root: write /etc/nginx/sites-available/blog.conf
        replace /etc/nginx/sites-available/blog.conf 644 <<'EOF'
        ({len(TEXT.encode())} bytes)
        EOF
        [ "$changed_files" ] || [ ! /etc/nginx/sites-enabled/blog.conf -ef /etc/nginx/sites-available/blog.conf ] || unchanged "as before"
        rm -f -- /etc/nginx/sites-enabled/.fabdjango.blog.conf
        ln -s -- /etc/nginx/sites-available/blog.conf /etc/nginx/sites-enabled/.fabdjango.blog.conf
        mv -fT -- /etc/nginx/sites-enabled/.fabdjango.blog.conf /etc/nginx/sites-enabled/blog.conf
        """
    ) + TO_THE_PROOF.format(title="the running nginx has this file")


def test_what_runs_already_is_not_reloaded() -> None:
    """Only if file, link and the running server all are as they should be."""
    host = transport(INSTALLED, build.digest_in(TEXT))
    call(nginx.configure, runner(host, VALUES))
    assert host.transcript == LOOKING
    host = transport(INSTALLED, "0a" * 32)
    call(nginx.configure, runner(host, VALUES))
    assert "-- nginx-reload" in host.transcript


@pytest.mark.parametrize("step", ["nginx-check", "nginx-reload", "nginx-proof"])
def test_what_fails_is_put_back(step: str) -> None:
    """The file and link as they were, and nginx on them."""
    host = transport(INSTALLED, "", **{step: 1})
    with pytest.raises(FabdjangoError):
        call(nginx.configure, runner(host, VALUES))
    assert host.transcript.endswith(
        "-- undo: /etc/nginx/sites-available/blog.conf as it was\n-- undo: nginx runs as before\n"
    )


def test_disable_and_enable() -> None:
    """The link goes and comes; the file stays."""
    host = transport(INSTALLED)
    call(nginx.disable, runner(host, VALUES))
    assert host.transcript == LOOKING + joined(
        """\
        == nginx-disable (locked)
        -- nginx-disable as root: remove /etc/nginx/sites-enabled/blog.conf
        if ! [ -L /etc/nginx/sites-enabled/blog.conf ]; then
        | unchanged 'it is not there'
        fi
        rm -f -- /etc/nginx/sites-enabled/blog.conf
        """
    ) + TO_THE_PROOF.format(title="the running nginx serves the site no more")
    host = transport({**INSTALLED, "link": ""})
    call(nginx.enable, runner(host, VALUES))
    assert "ln -s -- /etc/nginx/sites-available/blog.conf" in host.transcript


def test_reload() -> None:
    """Files are read first, and the running server is asked afterwards."""
    host = transport(INSTALLED)
    call(nginx.reload, runner(host, VALUES))
    assert host.transcript == LOOKING + "== nginx-check (locked)\n" + TO_THE_PROOF.format(
        title="the running nginx has this file"
    )


@pytest.mark.parametrize("task", [nginx.enable, nginx.disable, nginx.reload], ids=lambda task: task.name)
def test_without_the_sites_file(task: Any) -> None:
    """The cure is the task that writes it."""
    with pytest.raises(FabdjangoError, match="nginx has no file of the site yet") as caught:
        call(task, runner(transport(LOOK), VALUES))
    assert caught.value.cure == "fab -H deploy@web1.example.com nginx.configure"


def test_without_a_domain_no_host_is_asked() -> None:
    """There would be nothing to serve."""
    host = transport(LOOK)
    with pytest.raises(ConfigError, match=r"fabdjango\.nginx\.domains is empty"):
        call(nginx.configure, runner(host, SITE))
    assert host.transcript == ""


def test_check_status_and_logs_only_read() -> None:
    """No lock, and nothing written."""
    host = transport(INSTALLED)
    for task in (nginx.check, nginx.status, nginx.logs):
        call(task, runner(host, VALUES))
    assert host.transcript == (
        "== nginx-check\n-- nginx-check as root: nginx -t\nnginx -t -q\n"
        + LOOKING
        + "== logs\n-- logs as root: error log of nginx\ntail -n 50 -- /var/log/nginx/blog.error.log\n"
    )
