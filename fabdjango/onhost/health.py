"""Ask the site until every worker of the wanted release has answered well, several times in a row, or the time is over."""

import http.client
import json
import os
import socket
import struct
import sys
import threading
import time
from urllib.parse import urlsplit

P = PARAMETERS  # noqa: F821 - set by the line before this program
try:
    with open(P["answer"]) as file:
        DJANGO = json.load(file)
except (OSError, ValueError):
    DJANGO = {}
HOST = P["host"] or DJANGO.get("host") or "localhost"
SOAK = P.get("soak", 0)
masters = set()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(P["bind"][len("unix:") :])
        # Whoever called listen: gunicorn's first process, however often it is started again.
        masters.add(struct.unpack("3i", self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


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
        # The live socket is a link, and the kernel knows the name that was bound.
        path = os.path.realpath(P["bind"][len("unix:") :])
        with open("/proc/net/unix") as file:
            listening = {line.split()[6] for line in file if line.rstrip().endswith(" " + path)}
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
    others = names - {P["release"]}
    if P["release"] in names and others and others <= set(P["also"]):
        # Two slots take from one socket: nobody can tell which of them this answer is from.
        return others.pop()
    return names.pop() if len(names) == 1 else ""


def from_another(answer):
    """True for an answer of a release that may answer as well: connections to one socket go to either."""
    return answer.getheader("X-Fabdjango-Release") in P["also"]


def problem():
    """Why the site is not healthy yet, or an empty string; whether waiting may help; and the worker that answered."""
    https = P["https"] == "yes"
    try:
        status, answer, body = ask(P["path"], https)
    except (OSError, http.client.HTTPException) as error:
        return "nothing answers on %s: %s" % (P["bind"], error), True, ""
    release = answer.getheader("X-Fabdjango-Release") or serving_release()
    worker = answer.getheader("X-Fabdjango-Worker", "")
    if release != P["release"]:
        if release and release in P["also"]:
            return "", False, ""
        return "the answer comes from %s, not from %s" % (release or "another program", P["release"]), True, ""
    location = answer.getheader("Location", "")
    to_https = status in (301, 302, 307, 308) and urlsplit(location).scheme == "https"
    if to_https and P["https"] == "auto" and status not in P["expect"]:
        status, answer, body = ask(P["path"], True)
        if from_another(answer):
            return "", False, ""
        location = answer.getheader("Location", "")
        if (
            status in (301, 302, 307, 308)
            and urlsplit(location).scheme == "https"
            and urlsplit(location).path == urlsplit(P["path"]).path
        ):
            return (
                (
                    "the site redirects to https even a request that a proxy marked as https (X-Forwarded-Proto)\n"
                    "cure: set SECURE_PROXY_SSL_HEADER = ('HTTP_X_FORWARDED_PROTO', 'https') in the settings, or health.expect to %d"
                    % status
                ),
                False,
                "",
            )
        https = True
    if status == 400 and 400 not in P["expect"]:
        return (
            (
                "the site answers 400 Bad Request to the host name %r\n"
                "cure: add it to ALLOWED_HOSTS in the settings, or set fabdjango.health.host to a name that is there"
                % HOST
            ),
            False,
            "",
        )
    if status not in P["expect"]:
        more = " to %s" % location if location else ""
        return (
            "%s answers %d%s, not %s\ncure: see the program's log, or set fabdjango.health"
            % (
                P["path"],
                status,
                more,
                " or ".join(map(str, P["expect"])),
            ),
            status < 500,
            "",
        )
    if P["text"] and P["text"].encode() not in body:
        return "the answer to %s does not hold the text %r" % (P["path"], P["text"]), False, ""
    url = DJANGO.get("static_url") if P["static"] else ""
    if url and not urlsplit(url).netloc:
        status, answer, body = ask(urlsplit(url).path, https)
        if from_another(answer):
            return "", False, ""
        if status != 200 or not body:
            return "the static file %s answers %d" % (urlsplit(url).path, status), False, ""
    return "", False, worker


def asked():
    """The same, whatever goes wrong on the way."""
    try:
        return problem()
    except (OSError, http.client.HTTPException) as error:
        return "the connection broke: %s" % error, True, ""


def round_of(count):
    """``count`` requests at once, so that a worker that is busy with one leaves the others to its neighbours."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(asked())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


began = time.monotonic()
strikes = 0
good = 0
heard = set()
since_good = 0.0
why = "it was not asked"
soaking = False
while True:
    # One after the other until the first good answer, then all workers at once, then one by one to see whether it stays.
    answers = round_of(P["workers"]) if good and P["workers"] > 1 and not soaking else [asked()]
    bad = [answer for answer in answers if answer[0]]
    now = time.monotonic()
    if good and not bad and len(masters) > 1:
        bad = [("it died %.0f s after its first answer, and was started again" % (now - since_good), True, "")]
    elif soaking and not bad and not P["recycles"] and len(heard | {answers[0][2]} - {""}) > P["workers"]:
        bad = [("a worker died within %.0f s of the first answer" % (now - since_good), True, "")]
    if bad:
        why, may_change, _ = bad[0]
        good = 0
        soaking = False
        heard.clear()
        masters.clear()
        # A worker that just started may answer once with an error; three times is its opinion.
        strikes = 0 if may_change else strikes + 1
        if strikes >= 3 or now - began > P["timeout"] + SOAK:
            print(why)
            sys.exit(1)
        # Nobody listens yet: that costs nothing to ask.
        time.sleep(1 if now - began >= 5 else 0.2 if strikes else 0.02)
        continue
    strikes = 0
    since_good = since_good if good else now
    good += len(answers)
    heard |= {answer[2] for answer in answers if answer[2]}
    # The kernel chooses who takes a connection, and may never choose one that is idle: 5 s are enough of a chance.
    if good >= P["consecutive"] and (len(heard) >= P["workers"] or not heard or now - since_good > 5):
        if now - since_good >= SOAK:
            break
        soaking = True
    # An answer that is good needs no rest before the next question; a worker that was not heard yet does.
    if good >= P["consecutive"]:
        time.sleep(0.2 if soaking else 0.01)
# The site's own address is asked for one answer, whoever gives it.
workers = "" if len(heard) < 2 or P["workers"] < 2 else ", %d of %d workers" % (len(heard), P["workers"])
print("%s serves on %s%s" % (P["release"], P["bind"], workers))
