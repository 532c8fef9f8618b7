"""What collected static files are made of, and those of an earlier release that were made of the same; a part, not a program."""

import hashlib
import json
import os
import stat
import subprocess

# What else decides what collectstatic makes: settings of Django and of WhiteNoise, by the beginnings of their names.
SETTINGS = ("DEBUG", "FILE_UPLOAD_", "FORCE_SCRIPT_NAME", "MEDIA_URL", "STATIC", "STORAGES", "WHITENOISE_")
# Finders and storages that take nothing into account beside files and settings.
KNOWN = ("builtins", "django", "whitenoise")
FINDERS = ("FileSystemFinder", "AppDirectoriesFinder")


def tracked(mirror, commit):
    """The files of a commit and the names of their contents, as git knows them."""
    words = ["git", "--git-dir", mirror, "ls-tree", "-r", "-z", "--full-tree", commit]
    found = {}
    for line in subprocess.check_output(words).split(b"\0"):
        entry, _, path = line.partition(b"\t")
        if entry.startswith(b"100"):
            found[os.fsdecode(path)] = entry.split()[2].decode()
    return found


def identity(path, release, known):
    """What a file is: its content's name in the commit, else its content if it is of the release, else its date."""
    status = os.lstat(path)
    inside = path[len(release) + 1 :] if path.startswith(release + "/") else ""
    if inside in known and stat.S_ISREG(status.st_mode):
        return [known[inside]]
    status = os.stat(path)
    if inside:
        with open(path, "rb") as file:
            return [hashlib.sha256(file.read()).hexdigest()]
    return [path, status.st_size, status.st_mtime_ns]


def ingredients(release, known):
    """All that collectstatic works on; None if it may work on something else."""
    from django.apps import apps
    from django.conf import settings
    from django.contrib.staticfiles.finders import get_finders
    from django.contrib.staticfiles.storage import staticfiles_storage
    from django.core.management import get_commands

    if get_commands().get("collectstatic") != "django.contrib.staticfiles":
        return None
    # Not type(): the object stands for another one.
    kinds = staticfiles_storage.__class__.__mro__
    if any(kind.__module__.split(".")[0] not in KNOWN for kind in kinds):
        return None
    values = {}
    for name in dir(settings):
        if name.startswith(SETTINGS):
            values[name] = repr(getattr(settings, name)).replace(release + "/", "")
    if any(" at 0x" in value for value in values.values()):
        return None
    files, folders = [], {}
    for finder in get_finders():
        if type(finder).__module__ != "django.contrib.staticfiles.finders" or type(finder).__name__ not in FINDERS:
            return None
        for name, storage in finder.list(apps.get_app_config("staticfiles").ignore_patterns):
            folder, base = os.path.split(storage.path(name))
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            place = os.path.join(folders[folder], base)
            files.append([getattr(storage, "prefix", None) or "", name, *identity(place, release, known)])
    attributes = {path: blob for path, blob in known.items() if path.rpartition("/")[2] == ".gitattributes"}
    return [[kind.__qualname__ for kind in kinds], values, files, attributes]


def digest_of(release, mirror, commit):
    """One word for all that collectstatic works on in a release; empty if that cannot be known."""
    try:
        found = ingredients(release, tracked(mirror, commit))
    except Exception:
        # What is wrong with them is for collectstatic to say.
        return ""
    return hashlib.sha256(json.dumps([os.path.realpath(sys.prefix), found]).encode()).hexdigest() if found else ""


def collected(root):
    """Every file below STATIC_ROOT, with its size and date."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.stat(os.path.join(folder, name))
            found[os.path.relpath(os.path.join(folder, name), root)] = [status.st_size, status.st_mtime_ns]
    return found


def write_sources(release, digest, files):
    """Keep what the release's static files were made of, and which they are, for the release after it."""
    place = os.path.join(release, ".fabdjango", SOURCES)
    with open(place + ".new", "w", encoding="utf-8") as file:
        json.dump({"digest": digest, "files": files}, file)
    os.replace(place + ".new", place)


def take_over(outgoing, digest, root):
    """
    Link the files that an earlier release has collected to ``root``; which these are, none if they cannot be taken.

    They can if they were made of the same, are all there as they were made, and ``root`` is not there yet.
    """
    made, files, before = collected_by(outgoing)
    try:
        if not files or made != digest or os.path.lexists(root):
            return {}
        if not linking.succeeded() and not link_collected(before, files):
            return {}
        os.makedirs(os.path.dirname(root), exist_ok=True)
        os.rename(LINKED, root)
    except OSError:
        return {}
    finally:
        linking.end()
    return files
