"""Look at the site's certificate and at the one that nginx presents; print both as one line of JSON. Writes nothing."""

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import time

P = PARAMETERS  # noqa: F821 - set by the line before this program
os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)


def run(words, given=b""):
    """(status, standard output) of a command; it is asked nothing."""
    done = subprocess.run(words, input=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def openssl(*words, given=b""):
    """The same of openssl; nothing where it is not installed."""
    return run(["openssl", *words], given) if shutil.which("openssl") else (127, "")


def day(seconds):
    """A moment as a day, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def described(pem):
    """Whose a certificate is, who issued it, and how long it is good; None if it cannot be read."""
    asked = ("-subject", "-issuer", "-startdate", "-enddate", "-nameopt", "RFC2253,-esc_msb,utf8")
    status, said = openssl("x509", "-noout", *asked, given=pem)
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if status != 0 or not {"subject", "issuer", "notBefore", "notAfter"} <= found.keys():
        return None
    named = openssl("x509", "-noout", "-ext", "subjectAltName", given=pem)[1]
    begin, end = (ssl.cert_time_to_seconds(found[name]) for name in ("notBefore", "notAfter"))
    return {
        "names": [name.lower() for name in re.findall(r"\b(?:DNS|IP Address):([^\s,]+)", named)],
        "subject": found["subject"].strip(),
        "issuer": found["issuer"].strip(),
        "not_before": day(begin),
        "not_after": day(end),
        "days": round((end - time.time()) / 86400, 2),
        "lifetime": round((end - begin) / 86400, 2),
        "fingerprint": hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest(),
    }


def read(path):
    """(certificate of a file or None, its PEM, why there is none)."""
    try:
        with open(path, "rb") as file:
            pem = BLOCK.search(file.read(10000000))
    except FileNotFoundError:
        return None, b"", "there is no certificate"
    except OSError as error:
        return None, b"", "the certificate cannot be read: %s" % error.strerror
    found = described(pem.group()) if pem else None
    return found, pem.group() if pem else b"", "" if found else "the certificate cannot be read"


def wrong_with_key(path, pem):
    """Why a key does not go with the certificate; empty if it does."""
    try:
        about = os.stat(path)
    except OSError as error:
        return "its key cannot be read: %s" % error.strerror
    if P["private"] and (about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077):
        return "its key can be read by others"
    status, public = openssl("pkey", "-pubout", "-passin", "pass:", "-in", path)
    if status != 0:
        return "its key cannot be read"
    return (
        "" if public == openssl("x509", "-noout", "-pubkey", given=pem)[1] else "its key is that of another certificate"
    )


def presented():
    """(certificate that is presented over loopback or None, why there is none)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", P["port"]), timeout=5) as link:
            with context.wrap_socket(link, server_hostname=P["host"]) as safe:
                return described(ssl.DER_cert_to_PEM_cert(safe.getpeercert(True)).encode()), ""
    except OSError as error:
        return None, error.strerror or str(error)


def timer():
    """Whether certbot is called by itself: on, off, cron or missing."""
    if not os.path.isdir("/run/systemd/system"):
        return "cron" if os.path.exists("/etc/cron.d/certbot") else "missing"
    if run(["systemctl", "cat", "certbot.timer"])[0] != 0:
        return "missing"
    return (
        "on"
        if all(run(["systemctl", word, "--quiet", "certbot.timer"])[0] == 0 for word in ("is-enabled", "is-active"))
        else "off"
    )


def text(path):
    """A file's text, or None."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


file, pem, problem = read(P["certificate"])
shown, silence = presented()
print(
    json.dumps(
        {
            "openssl": shutil.which("openssl") or "",
            "certbot": shutil.which("certbot") or "",
            "file": file,
            "problem": problem or wrong_with_key(P["key"], pem),
            "presented": shown,
            "silence": silence,
            "renewal": text(P["renewal"]),
            "timer": timer(),
        }
    )
)
