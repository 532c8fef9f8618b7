"""The certificate of the site."""

from __future__ import annotations

from fabdjango import webserver
from fabdjango.runner import Runner
from fabdjango.tasking import host_task

__all__ = ["obtain", "renew", "status"]


@host_task()
def obtain(runner: Runner) -> None:
    """
    Make or ask for the certificate, and let nginx present it.

    nginx.tls says how: made on the host, or got by certbot. One
    that is good for the domains is kept, so a second run changes nothing. If
    anything fails, nginx goes on as before. Reads nginx.
    """
    webserver.obtain(runner)


@host_task(help={"force": "A new one, however long the one that is there is good."})
def renew(runner: Runner, force: bool = False) -> None:
    """
    Renew the certificate if it is time to, and reload nginx.

    certbot renews by itself; what is self-signed is renewed by this and by
    nginx.configure, from 30 days before its end. Its key stays.
    """
    webserver.obtain(runner, force=force)


@host_task()
def status(runner: Runner) -> None:
    """
    Show the certificate, and which one nginx presents.
    """
    webserver.certificate_status(runner)
