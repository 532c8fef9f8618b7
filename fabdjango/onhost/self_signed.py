"""Make a certificate that is signed by its own key; a key that is there and nobody else can read is kept."""

import ipaddress
import os
import stat
import subprocess
import sys

P = PARAMETERS  # noqa: F821 - set by the line before this program
CONFIG = """\
[req]
prompt = no
string_mask = utf8only
distinguished_name = subject
x509_extensions = extensions
[subject]
CN = %s
[extensions]
subjectAltName = %s
subjectKeyIdentifier = hash
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
"""


def openssl(*words, given=""):
    """Run openssl, or end with what it complains of."""
    done = subprocess.run(["openssl", *words], input=given.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit("openssl %s: %s" % (words[0], done.stdout.decode("utf-8", "replace")))


def is_usable(key):
    """True if a key is ours alone, and openssl can read it."""
    try:
        about = os.lstat(key)
    except OSError:
        return False
    own = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077
    words = ["openssl", "pkey", "-noout", "-passin", "pass:", "-in", key]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return own and subprocess.run(words, **quiet).returncode == 0


def install(new, path, mode):
    """Put a file that was made beside its place there, whole."""
    handle = os.open(new, os.O_RDONLY)
    os.fchmod(handle, mode)
    os.fsync(handle)
    os.close(handle)
    os.rename(new, path)


def entry(name):
    """A name as openssl's configuration has it."""
    try:
        return "IP:%s" % ipaddress.ip_address(name)
    except ValueError:
        return "DNS:%s" % name


certificate, key = P["certificate"], P["key"]
os.makedirs(os.path.dirname(key), mode=0o755, exist_ok=True)
os.umask(0o077)
made, new = certificate + ".new", key + ".new"
for path in (made, new):
    if os.path.lexists(path):
        os.unlink(path)
signer = key
if not is_usable(key):
    signer = new
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", new)
# A subject's name is 64 characters at most; clients look at the others alone.
first = P["names"][0] if len(P["names"][0]) <= 64 else "fabdjango"
config = CONFIG % (first, ",".join(map(entry, P["names"])))
words = ("-new", "-x509", "-sha256", "-days", str(P["days"]), "-key", signer, "-out", made, "-config", "/dev/stdin")
openssl("req", *words, given=config)
if signer == new:
    install(new, key, 0o600)
install(made, certificate, 0o644)
