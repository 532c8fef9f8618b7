"""Look at the host and the commit; print what was found as one line of JSON. Writes nothing."""

import configparser
import glob
import grp
import hashlib
import json
import os
import platform
import posixpath
import pwd
import re
import shutil
import subprocess
import sys

P = PARAMETERS  # noqa: F821 - set by the line before this program
ROOT = os.path.expanduser(P["root"])
MIRROR = os.path.join(ROOT, "repo.git")
PATH = (
    os.environ.get("PATH", "")
    + ":"
    + os.path.expanduser("~/.local/bin:~/.cargo/bin:")
    + os.path.join(ROOT, "tools/bin")
)


def output(*argv):
    """Standard output of a command, or None if it cannot be run or fails."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def git(*argv):
    """Output of git on the mirror."""
    return output("git", "--git-dir=" + MIRROR, *argv)


def blob(path):
    """A file of the commit as text, or None."""
    data = git("cat-file", "blob", "--end-of-options", "%s:%s" % (SHA, path)) if SHA else None
    if data is None and SHA:
        data = git("cat-file", "blob", "%s:%s" % (SHA, path))
    return None if data is None else data.decode("utf-8", "surrogateescape")


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


def closure(names):
    """Requirement files and those that they name with -r and -c: path to text, in the order of reading."""
    texts = {}
    queue = list(names)
    while queue:
        name = queue.pop(0)
        if name in texts:
            continue
        text = blob(name)
        if text is None:
            texts[name] = None
            continue
        texts[name] = text
        for line in text.splitlines():
            nested = re.match(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]*([^\s#]+)", line)
            if nested and not re.match(r"\w+://", nested.group(1)):
                queue.append(posixpath.normpath(posixpath.join(posixpath.dirname(name), nested.group(1).strip("'\""))))
    return texts


def auto_requirements():
    """The best source of requirements at the top of the commit."""
    for name in (
        "uv.lock",
        "pylock.toml",
        "requirements.txt",
        "requirements/production.txt",
        "requirements/prod.txt",
        "pyproject.toml",
        "setup.py",
    ):
        if name in TREE:
            return [name]
    return []


def requirement_facts():
    """Which files the virtualenv is built from, and a digest of all that they say."""
    names = auto_requirements() if P["requirements"] == ["auto"] else P["requirements"]
    texts = closure(names)
    extra = {
        name: blob(name)
        for name in ("pyproject.toml", "setup.py", "setup.cfg")
        if set(names) & {"uv.lock", "pyproject.toml", "setup.py"}
    }
    all_texts = dict(texts, **extra)
    missing = sorted(name for name, text in texts.items() if text is None)
    body = json.dumps(all_texts, sort_keys=True)
    hashed = any("--hash=" in (text or "") for text in texts.values())
    return {
        "sources": names,
        "missing": missing,
        "digest": hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest(),
        "hashed": hashed,
        # A requirement that is a path of the commit ties the virtualenv to the commit.
        "local": any(
            re.search(r"^\s*(-e\s|--editable|\.{1,2}(/|\s*$|\[)|file:)", text or "", re.M) for text in texts.values()
        ),
    }


def settings_module():
    """What manage.py names, or an empty string."""
    found = re.search(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""", blob(P["manage"]) or "")
    return found.group(1) if found else ""


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


def resolve(ref):
    """The commit that a branch, a tag or an id means, in this order: [sha, kind]."""
    for kind, name in (("branch", "refs/heads/" + ref), ("tag", "refs/tags/" + ref)):
        found = git("rev-parse", "--verify", "--quiet", name + "^{commit}")
        if found:
            return found.decode().strip(), kind
    if re.match(r"[0-9a-fA-F]{4,40}$", ref):
        found = git("rev-parse", "--verify", "--quiet", ref + "^{commit}")
        if found:
            return found.decode().strip(), "commit"
        candidates = (git("rev-parse", "--disambiguate=" + ref) or b"").decode().split()
        if len(candidates) > 1:
            return "", "ambiguous"
    return "", "unknown"


def is_whole(sha):
    """True if everything that a commit stands on is in the mirror: of a pack that was cut, or not enough, the commit alone may be."""
    return git("rev-list", "--objects", "--quiet", sha, "--not", "--all") is not None


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


def near_refs(ref):
    """Names of branches and tags that look like ``ref``."""
    import difflib

    names = (git("for-each-ref", "--format=%(refname:lstrip=2)") or b"").decode("utf-8", "replace").split("\n")
    return difflib.get_close_matches(ref, [name for name in names if name], n=3)


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
SHA, KIND = resolve(P["ref"]) if P["ref"] else ("", "")
if P["pushed"] and SHA and not is_whole(SHA):
    SHA, KIND = "", "unknown"
LISTING = (git("ls-tree", "-r", "-z", SHA) or b"").decode("utf-8", "surrogateescape").split("\0") if SHA else []
TREE = {}
for entry in LISTING:
    if entry:
        head, _, name = entry.partition("\t")
        TREE[name] = head.split()[0]
ATTRIBUTES = "\n".join(blob(name) or "" for name in TREE if posixpath.basename(name) == ".gitattributes")

facts = {
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
    "pip_config": pip_config(),
    "supervisor_conf_d": os.path.isdir("/etc/supervisor/conf.d"),
    "own_supervisord": os.path.exists(os.path.join(ROOT, "supervisor", "supervisord.conf")),
    "own_supervisord_installed": os.path.exists(os.path.join(ROOT, "supervisor", "venv", ".complete")),
    "current": link("current"),
    "live_slot": link("run", "current.sock")[:1] if link("run", "current.sock") in ("a.sock", "b.sock") else "",
    "slots": {slot: link("slots", slot) for slot in ("a", "b") if link("slots", slot)},
    "activation": activation(),
    "releases": releases(),
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
    "sha": SHA,
    "ref_kind": KIND,
    "near_refs": near_refs(P["ref"]) if P["ref"] and not SHA else [],
    "subject": (git("log", "-1", "--format=%h %s", SHA) or b"").decode("utf-8", "replace").strip() if SHA else "",
    "tree_size": sum(
        int(size) for size in re.findall(rb"^\d+ blob \w+ +(\d+)\t", git("ls-tree", "-r", "-l", SHA) or b"", re.M)
    )
    if SHA
    else 0,
    "tree_files": len(TREE),
    "manage": P["manage"] in TREE,
    "manage_near": [name for name in TREE if posixpath.basename(name) == "manage.py"][:3],
    "settings_module": settings_module() if SHA else "",
    "submodules": [name for name, mode in TREE.items() if mode == "160000"],
    "lfs": "filter=lfs" in ATTRIBUTES,
    "requirements": requirement_facts() if SHA else {},
    "tracked_shared": [
        name
        for name in P["shared"]
        if name.rstrip("/") in TREE or any(path.startswith(name.rstrip("/") + "/") for path in TREE)
    ],
}
sys.stdout.write(json.dumps(facts) + "\n")
