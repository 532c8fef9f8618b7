"""Remove releases beyond the newest ones and virtualenvs that none of the kept releases uses."""

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


names = [name for name in os.listdir(RELEASES) if re.match(r"\d+-[0-9a-f]{12}$", name)]
whole = sorted((name for name in names if marker(name)), key=counter, reverse=True)
keep = set(whole[: P["keep"]]) | {P["current"]}
if P["current"] in whole and P["current"] not in whole[: P["keep"]]:
    keep.discard(whole[P["keep"] - 1])
paths = used()
removed = []
for name in names:
    path = os.path.join(RELEASES, name)
    if name not in keep and not is_used(path, paths):
        shutil.rmtree(path, ignore_errors=True)
        removed.append(name)
kept = {(marker(name) or {}).get("venv") for name in os.listdir(RELEASES)}
for key in os.listdir(VENVS):
    path = os.path.join(VENVS, key)
    if key not in kept and not is_used(path, paths):
        shutil.rmtree(path, ignore_errors=True)
        removed.append("virtualenv " + key)
print("removed " + ", ".join(removed) if removed else "nothing to remove")
