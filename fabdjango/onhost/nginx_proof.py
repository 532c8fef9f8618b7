"""Ask nginx over loopback until its answer is the wanted one, or the time is over."""

import http.client
import json
import os
import re
import socket
import ssl
import sys
import time

P = PARAMETERS  # noqa: F821 - set by the line before this program
ERROR_LOG = "/var/log/nginx/error.log"
OTHER = 1


def wanted_body():
    """The body that the answer must have, as bytes."""
    if not P["file"]:
        return P["body"].encode()
    try:
        with open(P["file"], "rb") as file:
            return file.read()
    except OSError:
        return b""


def wanted_certificate():
    """The first certificate of the file, as it is sent; empty if none is asked for, or none can be read."""
    if not P["certificate"]:
        return b""
    try:
        with open(P["certificate"], "rb") as file:
            found = re.search(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", file.read(10000000), re.S)
        return ssl.PEM_cert_to_DER_cert(found.group().decode()) if found else b""
    except (OSError, ValueError):
        return b""


def ask():
    """(status, body) of one request for the site's name, or OTHER if another certificate than wanted is presented."""
    link = http.client.HTTPConnection(P["host"], timeout=5)
    link.sock = socket.create_connection(("127.0.0.1", P["port"]), timeout=5)
    try:
        if P["https"]:
            # Who answers is told by the answer itself; a certificate may be self-signed, or not valid yet.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            link.sock = context.wrap_socket(link.sock, server_hostname=P["host"])
            if certificate and link.sock.getpeercert(True) != certificate:
                return OTHER, b""
        link.request("GET", P["path"], headers={"Host": P["host"], "Connection": "close"})
        answer = link.getresponse()
        return answer.status, answer.read(1000000)
    finally:
        link.close()


def ask_once():
    """The answer, or status 0 and why there is none."""
    try:
        return ask()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error).encode()


def complaints(size):
    """What nginx wrote into its error log since it had ``size`` bytes, if it is of weight."""
    try:
        with open(ERROR_LOG, "rb") as file:
            file.seek(size if os.path.getsize(ERROR_LOG) >= size else 0)
            lines = file.read(1000000).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if re.search(r"\[(emerg|alert|crit)\]", line)][-5:]


certificate = wanted_certificate()
if P["tell"]:
    status, body = ask_once()
    print(json.dumps({"status": status, "body": body[:500].decode("utf-8", "replace")}))
    sys.exit(0)
# A failed reload complains a moment before we come.
size = max(0, os.path.getsize(ERROR_LOG) - 2000) if os.path.exists(ERROR_LOG) else 0
body = wanted_body()
address = "%s://%s%s" % ("https" if P["https"] else "http", P["host"], P["path"])
began = time.monotonic()
good = 0
while True:
    status, found = ask_once()
    right = (status == P["status"] and found == body) != P["gone"] if status else P["may_close"]
    # A worker of the old configuration takes connections for a moment longer.
    good = good + 1 if right else 0
    if good >= 3:
        print("%s answers %s" % (address, "%d, as it should" % status if status else "no more"))
        sys.exit(0)
    if not right and time.monotonic() - began > P["seconds"]:
        break
    time.sleep(0.05 if right else 0.2)
if status == 0:
    print("nothing answers %s on this host: %s" % (address, found.decode("utf-8", "replace")))
elif status == OTHER:
    print("%s presents another certificate than that of %s" % (address, P["certificate"]))
elif P["gone"]:
    print("%s still answers %d with what should be gone" % (address, status))
else:
    print("%s answers %d, but not what it should: another site or an older configuration answers" % (address, status))
for line in complaints(size):
    print(line)
sys.exit(1)
