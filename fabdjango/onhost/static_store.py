"""Keep static files of earlier releases reachable, and name the folder of this release's."""

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time

P = PARAMETERS  # noqa: F821 - set by the line before this program
RELEASE = P["incoming"]
PRIVATE = os.path.join(RELEASE, ".fabdjango")
STORE = P["store"]
# Beside the store: there, a temporary that a dead deployment left is found and removed by the next one.
STAGE = os.path.join(os.path.dirname(STORE), ".fabdjango.static")
# When files of the store were last part of a serving release. Not their dates: they share those with releases.
AGES = os.path.join(os.path.dirname(STORE), ".static-ages.json")
MANIFEST = "staticfiles.json"
LINKED = "static-linked.json"
# A part that is all digits is a date or a version more often than a hash.
HASHED = re.compile(r"\.(?![0-9]+\.)[0-9a-f]{8,32}(\.[A-Za-z0-9_]+){1,2}$")
# Vite and Rollup write theirs in letters and digits, which a word seldom mixes.
BUNDLED = re.compile(r"-(?=[a-z]*[A-Z0-9_-])(?![0-9]+\.)[A-Za-z0-9_-]{8}(\.[A-Za-z0-9_]+){1,2}$")

# An earlier release had a folder of this name, or a file where this one has a folder.
IN_THE_WAY = (FileExistsError, NotADirectoryError, IsADirectoryError)


def fail(what, cure):
    """Say in words what is wrong, and stop."""
    print(what)
    print("cure: " + cure)
    sys.exit(1)


def static_root(release):
    """STATIC_ROOT of a release as Django said it, or an empty string."""
    return (
        str(read_json(os.path.join(release, ".fabdjango", "django.json")).get("static_root") or "") if release else ""
    )


def is_inside(path, folder):
    """True for a real path in a real folder, or that folder itself."""
    return path == folder or path.startswith(folder + os.sep)


def files_of(folder):
    """Every file below a folder: its path from there, and its status; links to folders are not entered."""
    found = {}
    queue = [""]
    while queue:
        below = queue.pop()
        try:
            entries = os.scandir(os.path.join(folder, below))
        except OSError:
            continue
        with entries:
            for entry in entries:
                name = below + entry.name
                if entry.is_dir(follow_symlinks=False):
                    queue.append(name + "/")
                elif entry.is_file():
                    found[name] = entry
    return found


def hashed_names(folder, files, release):
    """The files that a page of this very release can name by their hash; not those that came from the store."""
    linked = set(read_json(os.path.join(release, ".fabdjango", LINKED)).get("names", ()))
    # What django-compressor and bundlers write is in no manifest of Django's, or there under another name.
    looks = {name for name in files if HASHED.search(name) or BUNDLED.search(name)} - linked
    paths = read_json(os.path.join(folder, MANIFEST)).get("paths")
    if not isinstance(paths, dict):
        return looks
    named = {value for key, value in paths.items() if isinstance(value, str) and value != key}
    # WhiteNoise puts compressed files beside them, which the manifest does not list.
    named |= {name + more for name in named for more in (".gz", ".br", ".zst")}
    return looks | (named & files.keys())


def add_to_store(folder, files, names):
    """Give the store files that it lacks: as a second name of the release's own where that can be, else as a copy."""
    shutil.rmtree(STAGE, ignore_errors=True)
    if not names:
        return
    # A name that outlives a power cut without its content would stay empty for ever: no file is replaced here.
    subprocess.check_call(["sync", "-f", "--", folder])
    # A link to a file goes where the file is: a second name of the link would lead elsewhere.
    copied = [name for name in names if files[name].is_symlink() or not link_to_store(folder, files[name], name)]
    if copied:
        copy_to_store(folder, copied)


def link_to_store(folder, entry, name):
    """Give a release's file a second name in the store; false if the two are not on one file system, or it may not be."""
    place = os.path.join(STORE, name)
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.link(os.path.join(folder, name), place)
        if stat.S_IMODE(entry.stat().st_mode) != 0o644:
            os.chmod(place, 0o644)
    except IN_THE_WAY:
        return True
    except OSError:
        return False
    return True


def copy_to_store(folder, names):
    """Copy files to the store: all of them first, then one sync, then the renames."""
    os.makedirs(STAGE)
    try:
        for number, name in enumerate(names):
            staged = os.path.join(STAGE, str(number))
            shutil.copyfile(os.path.join(folder, name), staged)
            os.chmod(staged, 0o644)
        subprocess.check_call(["sync", "-f", "--", STAGE])
        for number, name in enumerate(names):
            place = os.path.join(STORE, name)
            try:
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.rename(os.path.join(STAGE, str(number)), place)
            except IN_THE_WAY:
                continue
    finally:
        shutil.rmtree(STAGE, ignore_errors=True)


def last_served(files, kept):
    """When each stored file that is not to be kept was last part of a serving release, in seconds since 1970."""
    ages = read_json(AGES)
    # What is not listed was still served when the list was made; without one, the store is of a time when dates told.
    return {
        name: ages.get("left", {}).get(name) or ages.get("at") or entry.stat().st_mtime
        for name, entry in files.items()
        if name not in kept
    }


def remove_old(left):
    """Remove stored files that were part of no serving release for the given days; gives their names."""
    limit = time.time() - P["days"] * 86400
    old = [name for name in left if left[name] < limit]
    for name in old:
        os.unlink(os.path.join(STORE, name))
    for folder, _, _ in os.walk(STORE, topdown=False):
        if folder != STORE:
            try:
                os.rmdir(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    return old


def link_into(folder, names):
    """Give the release what only the store has, for a server such as WhiteNoise that looks into STATIC_ROOT alone."""
    made = []
    for name in names:
        place = os.path.join(folder, name)
        # A folder of the release may have become a file, or the other way round.
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            continue
        if os.path.lexists(place):
            continue
        try:
            os.link(os.path.join(STORE, name), place)
        except OSError:
            staged = place + ".fabdjango"
            shutil.copyfile(os.path.join(STORE, name), staged)
            os.rename(staged, place)
        made.append(name)
    return made


def write(path, value):
    """Replace a file of JSON."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


def point_at(target):
    """Make the release's link to its STATIC_ROOT, and let nginx pass through the folder that it is in."""
    link = os.path.join(PRIVATE, "static")
    if os.path.lexists(link + ".new"):
        os.unlink(link + ".new")
    os.symlink(target, link + ".new")
    os.replace(link + ".new", link)
    # Names can be passed, not listed; what is secret there is not readable for others by its own mode.
    os.chmod(PRIVATE, stat.S_IMODE(os.stat(PRIVATE).st_mode) | 0o001)


root = static_root(RELEASE)
if not root:
    print("no static files were collected")
    sys.exit(0)
if not os.path.isabs(root) or not os.path.isdir(root):
    fail(
        "STATIC_ROOT of the release is %s, which is not a folder" % root,
        'set STATIC_ROOT = BASE_DIR / "static" in the settings',
    )
real, home = os.path.realpath(root), os.path.realpath(RELEASE)
if not is_inside(real, home):
    if os.path.exists(os.path.join(root, MANIFEST)):
        fail(
            "STATIC_ROOT is %s, outside of the release, and has a manifest in it: a worker of the release that serves "
            "would read the manifest of the new one and give its pages the wrong names" % root,
            'set STATIC_ROOT = BASE_DIR / "static" in the settings, so that each release has its own'
            + (", and take it out of fabdjango.shared" if is_inside(os.path.abspath(root), RELEASE) else ""),
        )
    point_at(root)
    print("%s is outside of the release and used as it is" % root)
    sys.exit(0)

if not STORE:
    point_at(root)
    print("files of earlier releases are not kept: fabdjango.shared has a folder where they would be")
    sys.exit(0)
os.makedirs(STORE, exist_ok=True)
incoming = files_of(root)
own = hashed_names(root, incoming, RELEASE)
kept = set(own)
before = static_root(P["outgoing"])
if before and os.path.isdir(before) and is_inside(os.path.realpath(before), os.path.realpath(P["outgoing"])):
    outgoing = files_of(before)
    leaving = hashed_names(before, outgoing, P["outgoing"])
    kept |= leaving
else:
    outgoing, leaving = {}, set()
stored = files_of(STORE)
new = sorted(own - stored.keys())
add_to_store(root, incoming, new)
# The release before this one may have been deployed before there was a store.
late = sorted(leaving - stored.keys() - own)
add_to_store(before, outgoing, late)
left = last_served(stored, kept)
removed = set(remove_old(left))
write(AGES, {"at": int(time.time()), "left": {name: left[name] for name in left if name not in removed}})
linked_before = read_json(os.path.join(PRIVATE, LINKED)).get("names", [])
linked = link_into(root, sorted((stored.keys() | set(late)) - removed - incoming.keys()))
write(os.path.join(PRIVATE, LINKED), {"names": sorted({*linked_before, *linked})})
point_at(root)
print(
    "%d static files, %d with a hash in their name, %d new in the store; %d of earlier releases stay reachable, %d are gone"
    % (len(incoming), len(own), len(new), len(linked), len(removed))
)
