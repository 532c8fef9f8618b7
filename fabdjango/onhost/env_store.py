"""Keep values that were made on this host in a file that sh can source; none of them is ever printed."""

import os
import re
import tempfile

ASSIGNMENT = re.compile(r"export (\w+)='((?:[^']|'\\'')*)'\n")


def read_values(path):
    """Name to value, in the order of the file; empty if there is no file."""
    return {name: value.replace("'\\''", "'") for name, value in ASSIGNMENT.findall(read_text(path))}


def read_text(path):
    """The text of a file, whatever its bytes are; empty if there is no file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write_values(path, values):
    """Replace the file as a whole; mode, owner and group of the one before stay, a new one is 0640 and its folder's owner's."""
    lines = ["export %s='%s'\n" % (name, value.replace("'", "'\\''")) for name, value in values.items()]
    write_text(path, "".join(lines))


def write_text(path, text):
    """The same for any text."""
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
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            try:
                # An owner who is not root can give it to groups of its own, such as the application's.
                os.fchown(file.fileno(), owner if os.geteuid() == 0 else -1, group)
            except PermissionError:
                pass
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
