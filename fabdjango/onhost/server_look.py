"""Look at the server; print what was found as one line of JSON. Writes nothing."""

import glob
import json
import os
import pwd
import grp
import re
import shutil
import stat
import subprocess
import sys

P = PARAMETERS  # noqa: F821 - set by the line before this program
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
os.environ["PATH"] = PATH


def output(*argv):
    """Standard output of a command, or an empty text if it cannot be run or fails."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


# --- the account ---------------------------------------------------------------


def account_named(name):
    """What the host knows of an account, or None."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    try:
        group = grp.getgrgid(found.pw_gid).gr_name
    except KeyError:
        group = str(found.pw_gid)
    return {"uid": found.pw_uid, "group": group, "home": found.pw_dir, "shell": found.pw_shell}


def application():
    """The account that is to run the application, unless it is the owner; None if it is not there."""
    found = account_named(P["run_as"]) if P["run_as"] not in ("", P["owner"]) else None
    if found:
        group = grp.getgrgid(pwd.getpwnam(P["run_as"]).pw_gid)
        found["member"] = P["owner"] in group.gr_mem or (OWNER or {}).get("group") == group.gr_name
    return found


def as_owner(deed):
    """What ``deed`` gives when the owner of the site does it: root must not be led to files of others by a link."""
    if OWNER is None:
        return None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.initgroups(P["owner"], pwd.getpwnam(P["owner"]).pw_gid)
            os.setgid(pwd.getpwnam(P["owner"]).pw_gid)
            os.setuid(OWNER["uid"])
            with os.fdopen(writer, "w") as file:
                file.write(json.dumps(deed()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def keys_of(home):
    """The lines of an account's authorized_keys."""
    return [line.strip() for line in (read(home + "/.ssh/authorized_keys") or "").splitlines() if line.strip()]


# --- files and folders ---------------------------------------------------------


def files(paths):
    """Digest and text of files; None for one that is not there."""
    return {path: {"digest": digest(path), "text": read(path)} if os.path.lexists(path) else None for path in paths}


def folder(path):
    """Whose a folder is and how it may be used, or None."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    is_folder = stat.S_ISDIR(found.st_mode)
    return {
        "owner": owner,
        "mode": stat.S_IMODE(found.st_mode),
        "folder": is_folder,
        "empty": is_folder and not os.listdir(path),
    }


def ancestor(path):
    """The nearest folder above a path that is there."""
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def room(path):
    """[free megabytes, free inodes (-1: not counted)] of the file system that a path is or will be on."""
    found = os.statvfs(ancestor(path))
    return [found.f_bavail * found.f_frsize // 1048576, found.f_favail if found.f_files else -1]


# --- packages and services -------------------------------------------------------


def packages(names):
    """The installed version by name; a name that an installed package provides has that one's."""
    form = "${Package}\\t${db:Status-Abbrev}\\t${Version}\\t${Provides}\\n"
    found = {}
    for line in output("dpkg-query", "--show", "--showformat", form).splitlines():
        name, status, version, provides = (line.split("\t") + [""] * 3)[:4]
        if status.strip() == "ii":
            for each in [name] + [re.split(r"[ (]", part.strip())[0] for part in provides.split(",")]:
                if each in names:
                    found[each] = version
    return found


def is_interrupted():
    """True if dpkg has been killed while it worked, or left a package half-configured."""
    left = [name for name in os.listdir("/var/lib/dpkg/updates") if name.isdigit()]
    return bool(left) or bool(output("dpkg", "--audit").strip())


def services(names):
    """ActiveState, UnitFileState and NeedDaemonReload of units that systemd knows."""
    found = {}
    wanted = "--property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload"
    for part in output("systemctl", "show", wanted, "--", *names).split("\n\n"):
        values = dict(line.partition("=")[::2] for line in part.strip().splitlines())
        if values.get("LoadState") == "loaded":
            found[values["Id"]] = [values["ActiveState"], values["UnitFileState"], values["NeedDaemonReload"]]
    return found


# --- who listens -------------------------------------------------------------------


def sockets():
    """Inode of a listening socket to its port and whether only this host can reach it."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in (read("/proc/net/" + table) or "").splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                address, _, port = words[1].rpartition(":")
                local = address.endswith("7F") if table == "tcp" else address == "0" * 24 + "01000000"
                found[words[9]] = (int(port, 16), local)
    return found


def holders(inodes):
    """Name and process id of what holds each of some sockets, the eldest process."""
    found = {}
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
        for link in glob.glob("/proc/%d/fd/*" % pid):
            try:
                inode = re.match(r"socket:\[(\d+)\]", os.readlink(link))
            except OSError:
                continue
            if inode and inode.group(1) in inodes:
                found.setdefault(inode.group(1), ((read("/proc/%d/comm" % pid) or "").strip(), pid))
    return found


def listeners():
    """[port, program, process id, whether it is for this host only] of every listening socket."""
    found = sockets()
    names = holders(found)
    return sorted({(port, *names.get(inode, ("", 0)), local) for inode, (port, local) in found.items()})


def ssh_ports():
    """Where sshd can be reached: what it listens at, systemd's socket for it, and the port of this very session."""
    found = {port for port, program, _, local in LISTENERS if program == "sshd" and not local}
    if any(program == "systemd" for _, program, _, _ in LISTENERS):
        held = output("systemctl", "show", "--property=Listen", "--", "ssh.socket")
        found |= {int(port) for port in re.findall(r"[:=](\d+) \(Stream\)", held)}
    return sorted(found | ({int(os.environ["FABDJANGO_PORT"])} - {0}))


# --- names that others have ----------------------------------------------------------


def taken():
    """Programs of supervisor, units and domains of nginx that have our names in files of others: name to file."""
    found = {}
    for path in glob.glob("/etc/supervisor/conf.d/*.conf"):
        for name in re.findall(r"^\[(?:program|fcgi-program|group):([^\]]+)\]", read(path) or "", re.M):
            if name in P["programs"] and path not in P["files"]:
                found["program " + name] = path
    for name in P["units"]:
        for place in ("/usr/lib/systemd/system", "/lib/systemd/system", "/usr/local/lib/systemd/system"):
            if os.path.exists("%s/%s" % (place, name)):
                found["unit " + name] = "%s/%s" % (place, name)
                break
    for path in glob.glob("/etc/nginx/sites-enabled/*") + glob.glob("/etc/nginx/conf.d/*.conf"):
        text = re.sub(r"#.*", "", read(path) or "")
        for words in re.findall(r"(?:^|[\s;{}])server_name\s+([^;]+);", text):
            for name in words.split():
                if name in P["domains"] and os.path.basename(path) != P["site"]:
                    found["domain " + name] = path
    return found


def os_release():
    """["debian", "12", "Debian GNU/Linux 12 (bookworm)"]."""
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', read("/etc/os-release") or "", re.M))
    return [values.get("ID", ""), values.get("VERSION_ID", ""), values.get("PRETTY_NAME", "")]


OWNER = account_named(P["owner"])
HOME = OWNER["home"] if OWNER else "/home/" + P["owner"]
ROOT = HOME + P["root"][1:] if P["root"] == "~" or P["root"].startswith("~/") else P["root"]
LOGIN = account_named(os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name)
LISTENERS = listeners()
NAMED = [HOME + path[1:] if path.startswith("~/") else path for path in P["files"]]
OWN = [path for path in NAMED if (path + "/").startswith((HOME + "/", ROOT + "/"))]
PLACES = [ROOT + "/" + name for name in P["folders"]]
python = shutil.which(P["python"]) or ""
uv_path = ":".join([PATH, HOME + "/.local/bin", HOME + "/.cargo/bin", ROOT + "/tools/bin"])

answer = {
    "privilege": "root",
    "system": os_release(),
    "systemd": os.path.isdir("/run/systemd/system"),
    "root": ROOT,
    "home": HOME,
    "account": OWNER,
    "app": application(),
    "keys": (as_owner(lambda: keys_of(HOME)) or []),
    "keys_of_login": keys_of(LOGIN["home"]) if LOGIN else [],
    "packages": packages(P["packages"]),
    "interrupted": is_interrupted(),
    "files": dict(files([path for path in NAMED if path not in OWN]), **(as_owner(lambda: files(OWN)) or {})),
    "root_programs": {path: digest(path) for path in glob.glob(P["programs_of_root"] + "/*")},
    "folders": {path: folder(path) for path in [HOME, ROOT, ancestor(ROOT), *PLACES]},
    "above": ancestor(os.path.dirname(ROOT)),
    "services": services(P["services"]) if P["services"] else {},
    "listeners": LISTENERS,
    "ssh_ports": ssh_ports(),
    "room": {path: room(path) for path in ("/", "/var", ROOT)},
    "ipv6": os.path.exists("/proc/net/if_inet6"),
    "addresses": own_addresses(),
    "python": python,
    # A Python of the owner's is not run by root.
    "python_version": list(sys.version_info[:2])
    if python and os.path.realpath(python) == os.path.realpath(sys.executable)
    else [],
    "uv": shutil.which("uv", path=uv_path) or "",
    "own_supervisord": [
        os.path.exists(ROOT + "/supervisor/supervisord.conf"),
        os.path.exists(ROOT + "/supervisor/venv/.complete"),
    ],
    "ufw": output("ufw", "status") if shutil.which("ufw") else "",
    "table": bool(output("nft", "list", "table", "inet", "fabdjango")) if shutil.which("nft") else False,
    "taken": taken(),
}
print(json.dumps(answer))
