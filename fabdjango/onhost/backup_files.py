"""The folder of a site's backups, and whether one of them is whole; a part, not a program."""

# ruff: noqa: ARG001 - called by others
import gzip
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from urllib.parse import quote

NAME = re.compile(
    r"(?P<project>.+)-(?P<time>\d{8}T\d{6}Z)-(none|\d+-[0-9a-f]{12})(-(?P<number>\d+))?(?P<suffix>\.dump|\.sqlite3|\.sql\.gz)"
)
# A release may have another home than the session, and ``~`` is the session's.
HOME = os.environ.pop("FABDJANGO_HOME", "") or os.path.expanduser("~")


def at_home(path):
    """A path with its ``~`` filled in."""
    return HOME + path[1:] if path == "~" or path.startswith("~/") else path


FOLDER = at_home(PARAMETERS["folder"])


def terminated(number, frame):
    """End as after an error, so that what was begun is cleared away."""
    raise SystemExit("stopped by a signal")


for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, terminated)


def run(words, **more):
    """(status, standard output, standard error) of a program that asks nothing; it ends when we do."""
    more = {"stdout": subprocess.PIPE, "env": None, **more}
    # Where it may still run after kill -9, it must be found among those that hold the lock of the steps.
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, close_fds=False, **more)
    said = (done.stdout or b"").decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace").strip()
    return (done.returncode, *said)


def need(program, package):
    """Stop unless a program is there."""
    if not shutil.which(program):
        stop("%s is not installed on the host" % program, "on the host, as root: apt-get install %s" % package)


def suffix_of(name):
    """``.dump``, ``.sqlite3`` or ``.sql.gz``; empty for anything else."""
    return next((each for each in (".dump", ".sqlite3", ".sql.gz") if name.endswith(each)), "")


def backups():
    """The names of all backups, the newest first; those that somebody has put there under a name of their own come last."""
    try:
        names = os.listdir(FOLDER)
    except FileNotFoundError:
        return []
    found = [name for name in names if suffix_of(name) and not name.startswith(".")]
    return sorted(found, key=lambda name: (made_at(name), number_of(name), name), reverse=True)


def made_at(name):
    """The time in a backup's name, if it is one of this project's; empty otherwise."""
    found = NAME.fullmatch(name)
    return found.group("time") if found and found.group("project") == P["project"] else ""


def number_of(name):
    """Which of those of one second it is."""
    found = NAME.fullmatch(name)
    return int(found.group("number") or 1) if found else 0


def problem(path, suffix, whole):
    """What is wrong with a backup, or an empty string; read to its end if ``whole``, else its beginning only."""
    try:
        if os.path.getsize(path) == 0:
            return "it is empty"
        return {".dump": bad_dump, ".sqlite3": bad_sqlite, ".sql.gz": bad_text}[suffix](path, whole)
    except OSError as error:
        return str(error)


def bad_dump(path, whole):
    if not shutil.which("pg_restore"):
        return "pg_restore is not installed, so nobody can tell"
    status, _, said = run(["pg_restore", "--list", path], stdout=subprocess.DEVNULL)
    if status == 0 and whole:
        # The listing stands at the beginning: of what follows, only a reading to the end can tell.
        status, _, said = run(["pg_restore", "--file=/dev/null", path])
    return "" if status == 0 else said or "pg_restore cannot read it"


def bad_sqlite(path, whole):
    with open(path, "rb") as file:
        head = file.read(100)
    page = int.from_bytes(head[16:18], "big")
    page = 65536 if page == 1 else page
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        return "it is no database of SQLite"
    if os.path.getsize(path) != page * int.from_bytes(head[28:32], "big"):
        return "it is cut short"
    if not whole:
        return ""
    try:
        session = sqlite3.connect("file:%s?mode=ro&immutable=1" % quote(path), uri=True)
        try:
            rows = session.execute("PRAGMA integrity_check").fetchall()
        finally:
            session.close()
    except sqlite3.Error as error:
        return str(error)
    return "" if rows == [("ok",)] else "; ".join(str(row[0]) for row in rows[:3])


def bad_text(path, whole):
    last = b""
    with gzip.open(path, "rb") as file:
        try:
            for line in file:
                last = line if line.strip() else last
                if not whole:
                    return ""
        except (EOFError, ValueError) as error:
            return str(error)
        except Exception as error:
            # zlib's own error has no better class.
            return "%s: %s" % (type(error).__name__, error)
    return "" if last.startswith(b"-- Dump completed") else "it is cut short"
