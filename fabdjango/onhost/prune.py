"""Remove releases beyond the newest that have served, and virtualenvs that none of the kept releases uses."""

import json
import os
import re
import shutil

P = PARAMETERS  # noqa: F821 - set by the line before this program
ROOT = P["root"]
RELEASES = os.path.join(ROOT, "releases")
VENVS = os.path.join(ROOT, "venvs")


def used():
    """Every path that a process works in or runs from."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cwd", "exe"):
            try:
                found.add(os.readlink("/proc/%s/%s" % (pid, name)))
            except OSError:
                pass
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                found |= set(file.read().decode("utf-8", "surrogateescape").split("\0"))
        except OSError:
            pass
    return found


def is_used(path, paths):
    """True if a process works in ``path`` or runs from it."""
    return any(each == path or each.startswith(path + "/") for each in paths)


def marker(release):
    """What the release says of itself, or None."""
    try:
        with open(os.path.join(RELEASES, release, ".fabdjango", "release.json")) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def counter(release):
    """The number that orders releases."""
    return int(release.split("-")[0])


def listing(folder):
    """The names in a folder; none if it is not there."""
    try:
        return os.listdir(os.path.join(ROOT, folder))
    except OSError:
        return []


def remove(path, proof):
    """Remove a folder, beginning with what says that it is whole: a removal that is cut short leaves nothing that looks so."""
    try:
        os.unlink(os.path.join(path, proof))
    except OSError:
        pass
    shutil.rmtree(path, ignore_errors=True)


names = [name for name in listing("releases") if re.match(r"\d+-[0-9a-f]{12}$", name)]
whole = sorted((name for name in names if marker(name)), key=counter, reverse=True)
# A release that failed counts for nothing. One that is newer than the current one may be waiting for its turn.
served = [name for name in whole if name in P["proven"] or name == P["current"]]
waiting = [name for name in names if name not in served and counter(name) > counter(P["current"])]
last_good = [name for name in P["proven"] if name in whole and name != P["current"]][-1:]
newest = served[: P["keep"]]
needed = {P["current"], *last_good}
# The current one may be an old one, after a rollback: it takes the place of the oldest that was kept.
spare = [name for name in reversed(newest) if name not in needed]
keep = set(newest) | needed
keep -= set(spare[: len(keep) - P["keep"]] if len(keep) > P["keep"] else [])
# Pinned ones take nobody's place.
keep |= set(listing("pins")) | set(waiting)
paths = used()
removed = []
for name in names:
    path = os.path.join(RELEASES, name)
    if name not in keep and not is_used(path, paths):
        remove(path, ".fabdjango/release.json")
        removed.append(name)
kept = {(marker(name) or {}).get("venv") for name in listing("releases")}
for key in listing("venvs"):
    path = os.path.join(VENVS, key)
    if key not in kept and not is_used(path, paths):
        remove(path, ".complete")
        removed.append("virtualenv " + key)
print("removed " + ", ".join(removed) if removed else "nothing to remove")
