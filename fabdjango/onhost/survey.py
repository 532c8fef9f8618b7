"""Look at the host and the commit; print what was found as one line of JSON. Writes nothing."""

import configparser
import functools
import glob
import grp
import json
import os
import platform
import pwd
import re
import shutil
import sys

PATH = (
    os.environ.get("PATH", "")
    + ":"
    + os.path.expanduser("~/.local/bin:~/.cargo/bin:")
    + os.path.join(ROOT, "tools/bin")
)


def os_name():
    """The distribution, such as "debian 12"."""
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', read("/etc/os-release") or "", re.M))
    return ("%s %s" % (values.get("ID", ""), values.get("VERSION_ID", ""))).strip()


def python_facts():
    """Version, implementation, platform and the parts of the Python that virtualenvs are made with."""
    program = (
        "import sys,sysconfig,json,importlib.util as u;"
        "print(json.dumps({'version':'.'.join(map(str,sys.version_info[:3])),'tag':sys.implementation.cache_tag,"
        "'platform':sysconfig.get_platform(),'ensurepip':bool(u.find_spec('ensurepip') and u.find_spec('venv')),'path':sys.executable}))"
    )
    found = output(P["python"], "-c", program)
    return json.loads(found) if found else {}


def pythons():
    """Every Python that an account of the host finds by its name."""
    names = {
        os.path.basename(path) for folder in ("/usr/bin", "/usr/local/bin") for path in glob.glob(folder + "/python3.*")
    }
    return sorted(name for name in names if re.match(r"python3\.\d+$", name))


def pip_config():
    """What the host's pip is told in its files and environment: options of [global] and [install]."""
    files = [
        "/etc/pip.conf",
        os.path.expanduser("~/.pip/pip.conf"),
        os.path.expanduser("~/.config/pip/pip.conf"),
        os.environ.get("PIP_CONFIG_FILE", ""),
    ]
    values = {}
    for path in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read([path] if path else [])
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                values.update(parser.items(section))
    for name in ("index-url", "extra-index-url", "find-links", "cert", "no-index"):
        variable = "PIP_" + name.upper().replace("-", "_")
        if os.environ.get(variable):
            values[name] = os.environ[variable]
    return {
        name: text
        for name, text in values.items()
        if name in ("index-url", "extra-index-url", "find-links", "cert", "no-index")
    }


@functools.lru_cache(maxsize=None)
def releases():
    """Every folder of releases/: its marker's content, or None where it is not complete."""
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(ROOT), "releases", "*"))):
        if os.path.isdir(path) and not os.path.islink(path):
            try:
                found[os.path.basename(path)] = json.loads(
                    read(os.path.join(path, ".fabdjango", "release.json")) or "null"
                )
            except ValueError:
                found[os.path.basename(path)] = None
    return found


def schemas():
    """For every release the digest of the migrations that it has, as Django said it; none where it said nothing."""
    found = {}
    for name in releases():
        try:
            known = json.loads(read(os.path.join(ROOT, "releases", name, ".fabdjango", "django.json")) or "{}").get(
                "known"
            )
        except ValueError:
            continue
        if known:
            found[name] = hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]
    return found


def highest_counter():
    """The highest number that a release here ever had, by its folders and by the journal."""
    names = list(releases()) + re.findall(
        r'"release": ?"(\d+-[0-9a-f]+)"', read(os.path.join(ROOT, "journal.jsonl")) or ""
    )
    return max([int(name.split("-")[0]) for name in names if re.match(r"\d+-[0-9a-f]{12}$", name)] or [0])


def journal():
    """The newest entries of the journal, oldest first; a line that a power cut left half-written is passed over."""
    found = []
    for line in (read(os.path.join(ROOT, "journal.jsonl")) or "").splitlines()[-500:]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def link(*names):
    """The last part of what a symlink below the root points to, or an empty string."""
    path = os.path.join(ROOT, *names)
    return os.path.basename(os.readlink(path)) if os.path.islink(path) else ""


def activation():
    """The record of an activation that is under way or died, with its state; empty if there is none."""
    for state in ("armed", "confirmed", "reverting"):
        text = read(os.path.join(ROOT, "run", "activation." + state))
        if text is not None:
            try:
                return dict(json.loads(text), state=state)
            except ValueError:
                return {"state": state}
    return {}


def tips():
    """The newest commits that branches, tags and earlier pushes have left in the mirror, and those of complete releases."""
    listed = git(
        "for-each-ref",
        "--sort=-creatordate",
        "--count=200",
        "--format=%(objecttype) %(objectname) %(*objecttype) %(*objectname)",
    )
    words = (listed or b"").decode("ascii", "replace").split()
    found = dict.fromkeys(sha for kind, sha in zip(words, words[1:]) if kind == "commit")
    made = [(marker or {}).get("commit") for marker in releases().values()]
    found.update(dict.fromkeys(sha for sha in made if sha and sha not in found and is_whole(sha)))
    return list(found)


def disk(path):
    """[free bytes, free inodes] of the file system that ``path`` is or will be on."""
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    stat = os.statvfs(path)
    return [stat.f_bavail * stat.f_frsize, stat.f_favail if stat.f_files else -1]


def programs():
    """Where the tools are that a deployment may use."""
    names = ("git", "uv", "supervisord", "supervisorctl", "sudo", "flock", "base64", "timeout", "cc", "curl")
    return {name: shutil.which(name, path=PATH) or "" for name in names}


def managed():
    """The digest, and unless it is secret the text, of files that fabdjango writes outside of releases."""
    found = {}
    for path, secret in P["managed"]:
        place = os.path.expanduser(path)
        found[place] = {"digest": digest(place), "text": None if secret else read(place)}
    return found


def application():
    """The account that runs the application, unless it is the owner; empty if it is not there."""
    if P["run_as"] in ("", OWNER.pw_name):
        return {}
    try:
        account = pwd.getpwnam(P["run_as"])
        group = grp.getgrgid(account.pw_gid)
    except KeyError:
        return {}
    member = os.getuid() == 0 or group.gr_gid in (os.getgid(), *os.getgroups())
    return {"home": account.pw_dir, "group": group.gr_name, "member": member}


OWNER = pwd.getpwuid(os.getuid())
facts = {
    **commit_facts(),
    "user": OWNER.pw_name,
    "home": OWNER.pw_dir,
    "app": application(),
    "root": ROOT,
    "root_exists": os.path.isdir(ROOT),
    "system": "%s %s" % (platform.system(), platform.machine()),
    "os": os_name(),
    "processors": os.cpu_count() or 1,
    "disk": disk(ROOT),
    "programs": programs(),
    "systemd": os.path.isdir("/run/systemd/system"),
    "python": python_facts(),
    "pythons": pythons(),
    "pip_config": pip_config(),
    "supervisor_conf_d": os.path.isdir("/etc/supervisor/conf.d"),
    "own_supervisord": os.path.exists(os.path.join(ROOT, "supervisor", "supervisord.conf")),
    "own_supervisord_installed": os.path.exists(os.path.join(ROOT, "supervisor", "venv", ".complete")),
    "current": link("current"),
    "live_slot": link("run", "current.sock")[:1] if link("run", "current.sock") in ("a.sock", "b.sock") else "",
    "slots": {slot: link("slots", slot) for slot in ("a", "b") if link("slots", slot)},
    "activation": activation(),
    "releases": releases(),
    "schemas": schemas(),
    "highest": highest_counter(),
    "journal": journal(),
    "pins": sorted(os.path.basename(path) for path in glob.glob(os.path.join(glob.escape(ROOT), "pins", "*"))),
    "venvs": sorted(
        os.path.basename(os.path.dirname(path))
        for path in glob.glob(os.path.join(glob.escape(ROOT), "venvs", "*", ".complete"))
    ),
    "first_deploy_done": os.path.exists(os.path.join(ROOT, "first-deploy.done")),
    "mirror": os.path.exists(os.path.join(MIRROR, "HEAD")),
    "tips": tips() if P["pushed"] else [],
    "managed": managed(),
    "shared_env": digest(os.path.join(ROOT, "shared", ".env")),
    "generated": sorted(read_values(os.path.join(ROOT, "shared", "generated.env"))),  # noqa: F821 - of env_store
    "generated_env": digest(os.path.join(ROOT, "shared", "generated.env")),
    "shared_local_settings": digest(os.path.join(ROOT, "shared", "local_settings.py")),
}
sys.stdout.write(json.dumps(facts) + "\n")
