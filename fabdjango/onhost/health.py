"""Ask the site until the answer comes from the wanted release, or the time is over."""

import http.client
import json
import os
import socket
import sys
import time
from urllib.parse import urlsplit

P = PARAMETERS  # noqa: F821 - set by the line before this program
try:
    with open(P["answer"]) as file:
        DJANGO = json.load(file)
except (OSError, ValueError):
    DJANGO = {}
HOST = P["host"] or DJANGO.get("host") or "localhost"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(P["bind"][len("unix:") :])


def connection():
    """A connection to where gunicorn listens; an address for all interfaces is asked on this host."""
    if P["bind"].startswith("unix:"):
        return UnixConnection("localhost", timeout=10)
    host, _, port = P["bind"].rpartition(":")
    host = host.strip("[]")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return http.client.HTTPConnection(host, int(port), timeout=10)


def ask(path, https):
    """(status, headers, body) of one request."""
    link = connection()
    try:
        headers = {
            "Host": HOST,
            "X-Fabdjango-Probe": "1",
            "User-Agent": "fabdjango health check",
            "Connection": "close",
        }
        if https:
            headers["X-Forwarded-Proto"] = "https"
        link.request("GET", path, headers=headers)
        answer = link.getresponse()
        return answer.status, answer, answer.read(5000000)
    finally:
        link.close()


def serving_release():
    """The release whose directory is the working directory of the process that listens, for a site without our header."""
    listening = set()
    if P["bind"].startswith("unix:"):
        with open("/proc/net/unix") as file:
            listening = {line.split()[6] for line in file if line.rstrip().endswith(" " + P["bind"][5:])}
    else:
        port = "%04X" % int(P["bind"].rpartition(":")[2])
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            try:
                with open(table) as file:
                    rows = [line.split() for line in file]
                listening |= {row[9] for row in rows[1:] if row[1].endswith(":" + port) and row[3] == "0A"}
            except OSError:
                pass
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            sockets = {os.readlink("/proc/%s/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%s/fd" % pid)}
            if sockets & {"socket:[%s]" % inode for inode in listening}:
                found.add(os.readlink("/proc/%s/cwd" % pid))
        except OSError:
            continue
    inside = P["releases"] + "/"
    names = {path[len(inside) :].split("/")[0] for path in found if path.startswith(inside)}
    return names.pop() if len(names) == 1 else ""


def problem():
    """Why the site is not healthy yet, or an empty string; and whether waiting may help."""
    https = P["https"] == "yes"
    try:
        status, answer, body = ask(P["path"], https)
    except (OSError, http.client.HTTPException) as error:
        return "nothing answers on %s: %s" % (P["bind"], error), True
    release = answer.getheader("X-Fabdjango-Release") or serving_release()
    if release != P["release"]:
        return "the answer comes from %s, not from %s" % (release or "another program", P["release"]), True
    location = answer.getheader("Location", "")
    to_https = status in (301, 302, 307, 308) and urlsplit(location).scheme == "https"
    if to_https and P["https"] == "auto" and status not in P["expect"]:
        status, answer, body = ask(P["path"], True)
        location = answer.getheader("Location", "")
        if (
            status in (301, 302, 307, 308)
            and urlsplit(location).scheme == "https"
            and urlsplit(location).path == urlsplit(P["path"]).path
        ):
            return (
                "the site redirects to https even a request that a proxy marked as https (X-Forwarded-Proto)\n"
                "cure: set SECURE_PROXY_SSL_HEADER = ('HTTP_X_FORWARDED_PROTO', 'https') in the settings, or health.expect to %d"
                % status
            ), False
        https = True
    if status == 400 and 400 not in P["expect"]:
        return (
            "the site answers 400 Bad Request to the host name %r\n"
            "cure: add it to ALLOWED_HOSTS in the settings, or set fabdjango.health.host to a name that is there" % HOST
        ), False
    if status not in P["expect"]:
        more = " to %s" % location if location else ""
        return "%s answers %d%s, not %s\ncure: see the program's log, or set fabdjango.health" % (
            P["path"],
            status,
            more,
            " or ".join(map(str, P["expect"])),
        ), status < 500
    if P["text"] and P["text"].encode() not in body:
        return "the answer to %s does not hold the text %r" % (P["path"], P["text"]), False
    url = DJANGO.get("static_url") if P["static"] else ""
    if url and not urlsplit(url).netloc:
        status, answer, body = ask(urlsplit(url).path, https)
        if status != 200 or not body:
            return "the static file %s answers %d" % (urlsplit(url).path, status), False
    return "", False


began = time.monotonic()
strikes = 0
why = "it was not asked"
while True:
    try:
        why, may_change = problem()
    except (OSError, http.client.HTTPException) as error:
        why, may_change = "the connection broke: %s" % error, True
    if not why:
        print("%s serves on %s" % (P["release"], P["bind"]))
        sys.exit(0)
    # A worker that just started may answer once with an error; three times is its opinion.
    strikes = 0 if may_change else strikes + 1
    if strikes >= 3 or time.monotonic() - began > P["timeout"]:
        break
    time.sleep(0.2 if time.monotonic() - began < 5 else 1)
print(why)
sys.exit(1)
