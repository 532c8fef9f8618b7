"""The commit in the mirror that is to be deployed, and what its files say; a part, not a program."""

import difflib
import hashlib
import json
import os
import posixpath
import re
import subprocess

P = PARAMETERS  # noqa: F821 - set by the line before this program
ROOT = os.path.expanduser(P["root"])
MIRROR = os.path.join(ROOT, "repo.git")


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


def needs(sources):
    """What the commit asks of Python by itself, and of Django in its requirements; empty where it does not say."""
    texts = {name: blob(name) or "" for name in ("pyproject.toml", "setup.cfg", *sources)}
    python = re.search(r"^requires-python\s*=\s*[\"']([^\"']+)", texts["pyproject.toml"], re.M)
    python = python or re.search(r"^python_requires\s*=\s*(.+)$", texts["setup.cfg"], re.M)
    django = ""
    for name in sources:
        locked = re.search(r"^name = \"django\"\nversion = \"([^\"]+)\"", texts[name], re.M | re.I)
        listed = re.search(r"^[\s\"']*django(?:\[[^\]]*\])?\s*([=~<>!][^;#\"'\n]*)", texts[name], re.M | re.I)
        django = django or ("==" + locked.group(1) if locked else listed.group(1) if listed else "")
    return [python.group(1).strip() if python else "", django.strip()]


def settings_module():
    """What manage.py names, or an empty string."""
    found = re.search(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""", blob(P["manage"]) or "")
    return found.group(1) if found else ""


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


def near_refs(ref):
    """Names of branches and tags that look like ``ref``."""
    names = (git("for-each-ref", "--format=%(refname:lstrip=2)") or b"").decode("utf-8", "replace").split("\n")
    return difflib.get_close_matches(ref, [name for name in names if name], n=3)


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


def commit_facts():
    """What decisions need to know of the commit; of one that is not there, its name's neighbours."""
    requirements = requirement_facts() if SHA else {}
    return {
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
        "requirements": requirements,
        "needs": needs(requirements["sources"]) if SHA else ["", ""],
        "tracked_shared": [
            name
            for name in P["shared"]
            if name.rstrip("/") in TREE or any(path.startswith(name.rstrip("/") + "/") for path in TREE)
        ],
    }
