"""
nginx's file of a sample site, and the maintenance page, as they are rendered.

FABDJANGO_GOLDEN=1 writes them anew; the difference is for a person to read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fabdjango.commands import maintenance, nginx
from fabdjango.settings import Settings
from tests.conftest import LAYOUT, sample_settings, sample_templates

HERE = Path(__file__).parent
SERVER = nginx.Webserver(
    file_path="/etc/nginx/sites-available/blog.conf", link_path="/etc/nginx/sites-enabled/blog.conf"
)
TLS = {"tls": "files", "certificate": "/etc/ssl/it's.pem", "certificate_key": "/etc/ssl/it's.key", "hsts": 300}


def _settings(values: dict[str, Any], **more: Any) -> Settings:
    return sample_settings(nginx={"domains": ["blog.example.com", "*.blog.example.com"], **values}, **more)


def rendered() -> dict[str, str]:
    """Every template's text, by the name of its golden file."""
    templates = sample_templates()
    return {
        "nginx.conf": nginx.site_file(_settings({}), LAYOUT, templates, SERVER).content,
        "nginx.tls.conf": nginx.site_file(
            _settings(TLS, gunicorn={"interface": "asgi", "bind": "127.0.0.1:8001"}), LAYOUT, templates, SERVER
        ).content,
        "nginx.self-signed.conf": nginx.site_file(_settings({"tls": "self-signed"}), LAYOUT, templates, SERVER).content,
        "nginx.letsencrypt.conf": nginx.site_file(
            _settings({"tls": "letsencrypt", "domains": ["blog.example.com", "www.blog.example.com"], "hsts": 300}),
            LAYOUT,
            templates,
            SERVER,
        ).content,
        "maintenance.html": maintenance.page(_settings({}), LAYOUT, templates).content,
    }


@pytest.mark.parametrize("name", rendered())
def test_golden(name: str) -> None:
    """The text is what was reviewed."""
    path = HERE / name
    if os.environ.get("FABDJANGO_GOLDEN"):
        path.write_text(rendered()[name], encoding="utf-8")
    assert rendered()[name] == path.read_text(encoding="utf-8")
