"""Keep values that were made on this host in a file that sh can source; none of them is ever printed."""

import os
import re
import tempfile

ASSIGNMENT = re.compile(r"export (\w+)='((?:[^']|'\\'')*)'\n")


def read_values(path):
    """Name to value, in the order of the file; empty if there is no file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    return {name: value.replace("'\\''", "'") for name, value in ASSIGNMENT.findall(text)}


def write_values(path, values):
    """Replace the file as a whole; mode, owner and group of the one before stay, a new one is 0640 and its folder's owner's."""
    folder = os.path.dirname(path)
    try:
        before = os.stat(path, follow_symlinks=False)
        mode, owner, group = before.st_mode & 0o777, before.st_uid, before.st_gid
    except FileNotFoundError:
        around = os.stat(folder)
        mode, owner, group = 0o640, around.st_uid, around.st_gid
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".fabdjango.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            for name, value in values.items():
                file.write("export %s='%s'\n" % (name, value.replace("'", "'\\''")))
            file.flush()
            os.fchmod(file.fileno(), mode)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner, group)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
