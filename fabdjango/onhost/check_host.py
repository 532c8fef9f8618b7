"""Look at what a deploy needs of the host and at what has changed on it; print it as one line of JSON. Writes nothing."""

import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import stat
import subprocess
import time
from urllib.parse import parse_qs, urlsplit

P = PARAMETERS  # noqa: F821 - set by the line before this program
os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
# What programs say is read here.
os.environ["LC_ALL"] = "C"


def run(*argv, given=None, cwd=None):
    """(status, standard output, standard error) of a command; 127 if there is none of that name."""
    try:
        done = subprocess.run(
            argv,
            input=given or b"",
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 127, "", ""
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def read(path):
    """Text of a file; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def processes():
    """The number of every process."""
    return map(int, filter(str.isdigit, os.listdir("/proc")))


def link(*parts):
    """Where a symlink leads, or an empty string if it cannot be seen."""
    try:
        return os.readlink(os.path.join(*map(str, parts)))
    except OSError:
        return ""


def name_of(uid):
    """The name of an account, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# --- as the account that logs in ------------------------------------------------


def look_clock():
    """Seconds since 1970."""
    return time.time()


def look_addresses():
    """The host's own addresses."""
    return own_addresses()


def look_memory():
    """Bytes of memory and swap that new processes can have."""
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+): +(\d+) kB$", read("/proc/meminfo"), re.M)}
    return sizes.get("MemAvailable", 0) + sizes.get("SwapFree", 0)


def look_sudo():
    """
    What sudo allows without a password: [word, lines].

    The words are root, all, list (the lines say what), password, none, missing.
    """
    if os.getuid() == 0:
        return ["root", []]
    if not shutil.which("sudo"):
        return ["missing", []]
    if run("sudo", "-n", "--", "sh", "-c", ":")[0] == 0:
        return ["all", []]
    status, said, _ = run("sudo", "-n", "-l")
    allowed = [line.strip() for line in said.splitlines() if "NOPASSWD:" in line]
    if status == 0 and allowed:
        return ["list", allowed]
    groups = set()
    for number in os.getgroups():
        try:
            groups.add(grp.getgrgid(number).gr_name)
        except KeyError:
            pass
    # sudo asks everybody for a password before it says no.
    return ["password" if groups & {"sudo", "admin", "wheel"} else "none", []]


def look_owner():
    """Whether the account that owns the site is there, and whether we may become it: here, missing, refused."""
    owner = P["owner"]
    try:
        uid = pwd.getpwnam(owner).pw_uid if owner else os.getuid()
    except KeyError:
        return "missing"
    if os.getuid() in (0, uid):
        return "here"
    return "here" if run("sudo", "-n", "-H", "-u", owner, "--", "sh", "-c", ":")[0] == 0 else "refused"


def look_versions():
    """The versions of the programs that are there."""
    found = {}
    asked = {
        "git": ("git", "--version"),
        "nginx": ("nginx", "-v"),
        "supervisor": ("supervisord", "-v"),
        "systemd": ("systemctl", "--version"),
        "sudo": ("sudo", "-V"),
    }
    for name, words in asked.items():
        if shutil.which(words[0]):
            _, said, complained = run(*words)
            number = re.search(r"\d+(\.\d+)*", said + complained)
            found[name] = number.group() if number else "?"
    return found


# --- as the account that owns the site -------------------------------------------


def look_disk():
    """Bytes free and in all, inodes free and in all, of the file system that the site is or will be on."""
    path = P["root"]
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return [found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail, found.f_files]


def look_places():
    """Of every path: what it is (file, folder, missing, hidden), its permission bits, its owner, whether we may write it."""
    return {path: place(path) for path in P["places"]}


def place(path):
    """Of a folder that is not there, whether we may make it."""
    try:
        found = os.stat(path)
    except PermissionError:
        return {"is": "hidden"}
    except OSError:
        above = os.path.dirname(path)
        while not os.path.exists(above) and above != "/":
            above = os.path.dirname(above)
        return {"is": "missing", "writes": os.access(above, os.W_OK | os.X_OK)}
    is_folder = stat.S_ISDIR(found.st_mode)
    return {
        "is": "folder" if is_folder else "file",
        "mode": stat.S_IMODE(found.st_mode),
        "owner": name_of(found.st_uid),
        "writes": os.access(path, os.W_OK | (os.X_OK if is_folder else 0)),
    }


def look_ports():
    """Who listens at each of the ports, as far as we may see: [port, account, [[pid, name, folder, unit]]]."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for words in [line.split() for line in read(table).splitlines()[1:]]:
            port = int(words[1].rpartition(":")[2], 16)
            if words[3] == "0A" and port in P["ports"]:
                found["socket:[%s]" % words[9]] = [port, name_of(int(words[7])), []]
    for pid in processes() if found else ():
        folder = "/proc/%d/fd" % pid
        try:
            open_ones = {link(folder, fd) for fd in os.listdir(folder)}
        except OSError:
            continue
        for each in open_ones & set(found):
            unit = re.search(r"/system\.slice/(?:\S*/)?([^/\s]+\.service)$", read("/proc/%d/cgroup" % pid), re.M)
            name = read("/proc/%d/comm" % pid).strip()
            found[each][2].append([pid, name, link("/proc", pid, "cwd"), unit.group(1) if unit else ""])
    return sorted(found.values())


def look_lock():
    """The first line of the lock's file if somebody has the lock, else an empty string; it is not tried, which would take it."""
    try:
        number = os.stat(P["lock"]).st_ino
    except OSError:
        return ""
    # A file system such as overlay or btrfs shows the kernel another device than it shows us.
    if re.search(r"^\d+: FLOCK +\S+ +WRITE +-?\d+ \S+:%d " % number, read("/proc/locks"), re.M):
        return (read(P["lock"]).splitlines() or ["somebody"])[0]
    return ""


def look_slot_memory():
    """Bytes of memory that gunicorn takes for the release that serves; 0 if that cannot be seen."""
    total = 0
    for pid in processes() if P["release"] else ():
        if (link("/proc", pid, "cwd") + "/").startswith(P["release"] + "/") and "gunicorn" in read(
            "/proc/%d/cmdline" % pid
        ):
            size = re.search(r"^Pss: +(\d+) kB", read("/proc/%d/smaps_rollup" % pid), re.M)
            total += int(size.group(1)) * 1024 if size else 0
    return total


def git(*words, given=None, cwd=None):
    """Standard output of git on the mirror, or an empty string."""
    status, said, _ = run("git", "--git-dir=" + P["mirror"], "-c", "core.bare=false", *words, given=given, cwd=cwd)
    return said if status == 0 else ""


def look_changed():
    """Files of the release that serves that are not as its commit has them; None if that cannot be told."""
    if not P["release"] or not P["commit"]:
        return None
    listed = git("ls-tree", "-r", "-z", P["commit"])
    if not listed:
        return None
    wanted, changed = {}, []
    for entry in filter(None, listed.split("\0")):
        head, _, name = entry.partition("\t")
        mode, _, blob = head.split()
        path = os.path.join(P["release"], name)
        if "\n" in name or any(name == each or name.startswith(each + "/") for each in P["replaced"]):
            continue
        if mode == "120000":
            target = link(path).encode("utf-8", "surrogateescape")
            same = hashlib.sha1(b"blob %d\0" % len(target) + target).hexdigest() == blob
        elif not os.path.isfile(path) or os.path.islink(path):
            same = False
        else:
            wanted[name] = blob
            continue
        changed += [] if same else [name]
    # git itself reads the files, because attributes of the commit may have changed their ends of lines.
    names = "".join(name + "\n" for name in wanted).encode("utf-8", "surrogateescape")
    words = ("--work-tree=" + P["release"], "hash-object", "--stdin-paths")
    found = git(*words, given=names, cwd=P["release"]).split() if wanted else []
    if len(found) != len(wanted):
        return None
    return sorted(changed + [name for (name, blob), now in zip(wanted.items(), found) if blob != now])


def look_database():
    """Whether something listens where DATABASE_URL points: [place, why not]; None if nobody has said where that is."""
    urls = [P["database"]]
    for path in P["env_files"]:
        urls += re.findall(r"^\s*(?:export\s+)?DATABASE_URL=[\"']?([^\s\"']+)", read(path), re.M)
    url = urlsplit(next(filter(None, urls), ""))
    if not url.scheme or url.scheme.startswith(("sqlite", "spatialite")):
        return None
    options = parse_qs(url.query)
    is_mysql = url.scheme.startswith(("mysql", "mariadb"))
    try:
        port = url.port or (3306 if is_mysql else 5432)
        host = url.hostname or (options.get("host") or [""])[0]
    except ValueError:
        return ["DATABASE_URL", "its port is not a number"]
    host = host.replace("%2f", "/").replace("%2F", "/")
    if host and not host.startswith("/"):
        return reached(socket.AF_INET, (host, port), "%s:%d" % (host, port))
    path = (options.get("unix_socket") or [""])[0] if is_mysql else ""
    path = path or ("/run/mysqld/mysqld.sock" if is_mysql else "%s/.s.PGSQL.%d" % (host or "/run/postgresql", port))
    return reached(socket.AF_UNIX, path, path)


def reached(family, address, shown):
    """Connect once, and say nothing there."""
    try:
        if family == socket.AF_INET:
            socket.create_connection(address, 5).close()
        else:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(5)
                probe.connect(address)
    except OSError as error:
        return [shown, error.strerror or str(error)]
    return [shown, ""]


# --- as whoever may read the key -----------------------------------------------------


def look_certificate():
    """The certificate that nginx is to use, and whether its key fits; ``error`` if it cannot be read."""
    path, key = P["certificate"]
    for each in (path, key):
        try:
            open(each, "rb").close()
        except OSError as error:
            return {"error": error.strerror, "path": each, "hidden": isinstance(error, PermissionError)}
    try:
        # There is no public way to read one that is no authority.
        said = ssl._ssl._test_decode_cert(path)  # noqa: SLF001
    except (ssl.SSLError, ValueError, OSError):
        return {"error": "is no certificate in PEM form", "path": path}
    found = {
        "names": [value for kind, value in said.get("subjectAltName", ()) if kind in ("DNS", "IP Address")],
        "begins": ssl.cert_time_to_seconds(said["notBefore"]),
        "ends": ssl.cert_time_to_seconds(said["notAfter"]),
        "mode": stat.S_IMODE(os.stat(key).st_mode),
    }
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key, password=lambda: "")
    except (ssl.SSLError, ValueError, OSError) as error:
        mismatch = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
        found.update(
            {"error": "does not belong to the certificate" if mismatch else "cannot be read as a key", "path": key}
        )
    return found


if P["root"].startswith("~"):
    P["root"] = os.path.expanduser(P["root"])
print(json.dumps({name: globals()["look_" + name]() for name in P["parts"]}))
