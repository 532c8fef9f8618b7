"""An SQLite database of a project, into a file and back; a part, not a program."""

# ruff: noqa: ARG001 - called by others
import os
import sqlite3
import time
from urllib.parse import quote

BUSY = (5, 6)
"""SQLITE_BUSY and SQLITE_LOCKED, which Python has no names for before 3.11."""


class SqliteBackup:
    """The database behind a connection of Django's."""

    suffix = ".sqlite3"

    def __init__(self, link):
        self.path = str(link.settings_dict["NAME"])
        if not os.path.isabs(self.path):
            self.path = os.path.abspath(self.path)
        if ":memory:" in self.path or "mode=memory" in self.path:
            stop("the database is in memory, so there is nothing to keep")

    def exists(self):
        """Whether there is anything to keep: whoever only asks leaves an empty file."""
        return os.path.exists(self.path) and os.path.getsize(self.path) > 0

    def size(self):
        """Bytes of the database, with what is still in its log."""
        return sum(os.path.getsize(path) for path in (self.path, self.path + "-wal") if os.path.exists(path))

    def dump(self, path):
        """Write the file; why it failed, or an empty string."""
        return self._copy(self.path, "rw", path, "rwc", alone=True)

    def restore(self, path):
        """Put the backup in the place of all that is there, in one transaction; who has the file open sees it at once."""
        return self._copy(path, "ro&immutable=1", self.path, "rwc")

    def _copy(self, source, how, target, mode, alone=False):
        give_up = time.monotonic() + P["lock_timeout"]

        def progress(status, remaining, total):
            if status in BUSY and time.monotonic() > give_up:
                raise TimeoutError("waited %d seconds for a lock of the database, in vain" % P["lock_timeout"])

        try:
            old = sqlite3.connect("file:%s?mode=%s" % (quote(source), how), uri=True, timeout=P["lock_timeout"])
            new = sqlite3.connect("file:%s?mode=%s" % (quote(target), mode), uri=True, timeout=P["lock_timeout"])
            try:
                # All pages in one go: it is one state of the database, whoever writes meanwhile.
                old.backup(new, progress=progress, sleep=0.1)
                if alone:
                    # One file, without a log beside it.
                    new.execute("PRAGMA journal_mode=DELETE").fetchone()
            finally:
                new.close()
                old.close()
        except (sqlite3.Error, OSError, TimeoutError) as error:
            return "%s: %s" % (type(error).__name__, error)
        return ""
