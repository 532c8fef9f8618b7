"""Static files of an earlier release, linked while Django starts if they are many; in front of it, a part, not a program."""

import atexit
import os
import shutil
import signal
import stat
import subprocess
import sys

SOURCES = "static-sources.json"
# Bytes of the list of files, about 2,500 of them: fewer are linked in less time than it takes to see whether they will be wanted.
MANY = 200_000
# Where they lie until it is known that they are the right ones.
LINKED = os.path.join(os.path.dirname(PARAMETERS["answer"]), "static.linked")  # noqa: F821 - set by the line before


def link_all(source, files, target):
    """Link files from one folder into another, unless one of them is not as it was made; then false."""
    # From the folders themselves: of many thousand files, finding the way from the root each time is a third of the time.
    ours, theirs = os.open(target, os.O_RDONLY), os.open(source, os.O_RDONLY)
    try:
        for name, made in files:
            status = os.stat(name, dir_fd=theirs, follow_symlinks=False)
            if [status.st_size, status.st_mtime_ns] != made or not stat.S_ISREG(status.st_mode):
                return False
            os.link(name, name, src_dir_fd=theirs, dst_dir_fd=ours)
    finally:
        os.close(theirs)
        os.close(ours)
    return True


def link_collected(root, files):
    """Link what was collected in a folder `root` into LINKED; false if it is not all there as it was made."""
    folders = {"": []}
    for name in files:
        folder, _, base = name.rpartition("/")
        folders.setdefault(folder, []).append((base, files[name]))
    shutil.rmtree(LINKED, ignore_errors=True)
    try:
        for folder, inside in folders.items():
            os.makedirs(os.path.join(LINKED, folder), exist_ok=True)
            if not link_all(os.path.join(root, folder), inside, os.path.join(LINKED, folder)):
                return False
        for folder in folders:
            os.chmod(os.path.join(LINKED, folder), stat.S_IMODE(os.stat(os.path.join(root, folder)).st_mode))
    except OSError:
        return False
    return True


def collected_by(release):
    """What a release's static files were made of, in one word, the files, and the folder; nothing of what is not there."""
    made = read_json(os.path.join(release, ".fabdjango", SOURCES))
    root = read_json(os.path.join(release, ".fabdjango", "django.json")).get("static_root") or ""
    real = os.path.realpath(root)
    inside = bool(root) and real.startswith(os.path.realpath(release) + "/")
    return made.get("digest"), (made.get("files") or {}) if inside else {}, real


def same_virtualenv(outgoing):
    """True if a release was made for the very Python that runs this."""
    theirs = (read(os.path.join(outgoing, ".fabdjango", "venv")) or "").strip()
    return os.path.realpath(theirs) == os.path.realpath(sys.prefix)


def sources_changed(outgoing, mirror, commit, files):
    """True if a commit seems to change what static files are made of: a file of such a name, or in a folder called static."""
    before = read_json(os.path.join(outgoing, ".fabdjango", "release.json")).get("commit") or ""
    words = ["git", "--git-dir", mirror, "diff-tree", "-r", "-z", "--no-renames", "--name-only", before, commit]
    try:
        changed = subprocess.check_output(words, stderr=subprocess.DEVNULL).split(b"\0")
    except (OSError, subprocess.CalledProcessError):
        return True
    for path in filter(None, changed):
        parts = os.fsdecode(path).split("/")
        if "static" in parts or any("/".join(parts[start:]) in files for start in range(len(parts))):
            return True
    return False


def link_ahead(outgoing, mirror, commit):
    """Link what an earlier release has collected if it is likely to be wanted; true if that was done."""
    _, files, root = collected_by(outgoing)
    if not files or not same_virtualenv(outgoing) or sources_changed(outgoing, mirror, commit, files):
        return False
    return link_collected(root, files)


class Linking:
    """The process that links while this one goes on; its number is 0 if there is none."""

    def __init__(self):
        self.process = 0

    def begin(self, outgoing, mirror, commit):
        """Begin, if there is much to link."""
        try:
            if os.path.getsize(os.path.join(outgoing, ".fabdjango", SOURCES)) < MANY:
                return
        except OSError:
            return
        self.process = os.fork()
        if self.process == 0:
            done = False
            try:
                done = link_ahead(outgoing, mirror, commit)
            finally:
                # Also of an error: what this process has not done is for the other one to do, and to complain about.
                os._exit(0 if done else 1)
        # It must not go on in a release that is being removed.
        atexit.register(self.end)

    def succeeded(self):
        """Wait for its end; true if all is linked."""
        if not self.process:
            return False
        process, self.process = self.process, 0
        try:
            return os.waitpid(process, 0)[1] == 0
        except OSError:
            # The project has its children waited for in another way, and how this one ended is lost.
            return False

    def end(self):
        """Stop it, and remove what it has made and nobody has taken."""
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            self.succeeded()
        shutil.rmtree(LINKED, ignore_errors=True)


linking = Linking()
if PARAMETERS["collectstatic"] != "never" and PARAMETERS["commit"] and PARAMETERS["outgoing"]:
    linking.begin(PARAMETERS["outgoing"], PARAMETERS["mirror"], PARAMETERS["commit"])
