"""Show what the site's programs have said, from the journal and from files, and go on while somebody listens."""

import datetime as dt
import glob
import grp
import os
import pwd
import re
import select
import stat
import subprocess
import sys
import time

P = PARAMETERS  # noqa: F821 - set by the line before this program
RUN = os.environ.get("FABDJANGO_RUN", "")
MONTHS = [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"]
STAMP = re.compile(rb"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,]\d+)? ?(?:(Z)|([+-])(\d\d):?(\d\d))?")
ACCESS = re.compile(rb"\[(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\]")
BLOCK = 65536
BEAT = 5.0


def refuse(text):
    """End the step; why is no line of a log."""
    sys.stdout.flush()
    say(("\036%s note %s\n" % (RUN, text)).encode("utf-8", "surrogateescape"))
    sys.exit(1)


def epoch(parts, zone):
    """Seconds since 1970; without a zone it is the host's own time. None for what is no time."""
    try:
        if zone is None:
            return dt.datetime(*parts).timestamp()
        return dt.datetime(*parts, tzinfo=dt.timezone(zone)).timestamp()
    except (ValueError, OverflowError):
        return None


def offset(sign, hours, minutes):
    """The zone that a line names."""
    zone = dt.timedelta(hours=int(hours), minutes=int(minutes))
    return -zone if sign == b"-" else zone


def time_of(line):
    """When a line was written, by what it says itself; None if it does not."""
    found = STAMP.search(line[:60])
    if found:
        zone = dt.timedelta(0) if found.group(7) else None
        zone = offset(*found.groups()[7:]) if found.group(8) else zone
        return epoch([int(each) for each in found.groups()[:6]], zone)
    found = ACCESS.search(line[:300])
    if found and found.group(2) in MONTHS:
        day, month, year, hour, minute, second = found.groups()[:6]
        parts = [int(year), MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second)]
        return epoch(parts, offset(*found.groups()[6:]))
    return None


def since():
    """Seconds since 1970 from which on lines are wanted; None for the last ones, whenever they were written."""
    wanted = P["since"]
    if not wanted:
        return None
    if "ago" in wanted:
        return time.time() - wanted["ago"]
    zone = dt.timedelta(minutes=wanted["zone"]) if "zone" in wanted else None
    found = epoch(wanted["at"], zone)
    return refuse("there is no such time") if found is None else found


class As:
    """For as long as it lasts, with the rights of another account: what it may name, root must not open for it."""

    def __init__(self, user):
        self.user = user if os.geteuid() == 0 else ""

    def __enter__(self):
        if self.user:
            account = pwd.getpwnam(self.user)
            self.groups = os.getgroups()
            os.setgroups([each.gr_gid for each in grp.getgrall() if self.user in each.gr_mem])
            os.setegid(account.pw_gid)
            os.seteuid(account.pw_uid)

    def __exit__(self, *_):
        if self.user:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(self.groups)


class Log:
    """One file, which may not be there yet, and may be replaced by a new one while it is read."""

    def __init__(self, name, path, user):
        self.prefix = name.encode() + b" | " if P["named"] else b""
        self.path, self.user, self.file, self.rest = path, user, None, b""

    def open(self, path=None):
        """The file, or None."""
        try:
            with As(self.user):
                file = os.fdopen(os.open(path or self.path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            hint = " (on Debian the group adm may read the logs of nginx)" if os.geteuid() else ""
            refuse("cannot read %s: %s%s" % (self.path, error.strerror, hint))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            refuse("%s is not a file" % self.path)
        return file

    def say(self, data):
        """Whole lines; what has no line end yet is kept."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        say(b"".join(self.prefix + line + b"\n" for line in lines))

    def rest_of(self, file):
        """Everything from here to the end."""
        for block in iter(lambda: file.read(BLOCK), b""):
            self.say(block)

    def begin(self, lines, moment):
        """The last lines, or those since a moment; True if there is a file."""
        before = self.open(self.path + ".1") if moment is not None else None
        if before and begin_at(before, moment) is not None:
            before.seek(begin_at(before, moment))
            self.rest_of(before)
        self.file = self.open()
        if not self.file:
            return bool(before)
        if moment is None:
            self.file.seek(last_lines(self.file, lines))
        elif size_of(self.file):
            start = begin_at(self.file, moment)
            if start is None:
                refuse("the lines of %s have no time in front: leave out --since" % self.path)
            self.file.seek(start)
        self.rest_of(self.file)
        # Of a line that is being written, the rest comes in a moment.
        if self.rest and not P["follow"]:
            self.say(b"\n")
        return True

    def go_on(self):
        """What has been written in the meantime."""
        if self.file:
            if size_of(self.file) < self.file.tell():
                self.file.seek(0)
            self.rest_of(self.file)
        if not self.file or self.was_replaced():
            self.file = self.open() or self.file
            if self.file and not self.file.tell():
                self.rest_of(self.file)

    def was_replaced(self):
        """True if the path means another file now."""
        try:
            with As(self.user):
                now = os.stat(self.path)
        except OSError:
            return False
        old = os.fstat(self.file.fileno())
        return (now.st_dev, now.st_ino) != (old.st_dev, old.st_ino)


def size_of(file):
    """Bytes."""
    return os.fstat(file.fileno()).st_size


def last_lines(file, count):
    """Where the last lines of a file begin."""
    place, seen = size_of(file), 0
    while place > 0:
        start = max(0, place - BLOCK)
        file.seek(start)
        block = file.read(place - start)
        # The line end of the last line begins no line.
        if place == size_of(file) and block.endswith(b"\n"):
            block = block[:-1]
        if seen + block.count(b"\n") >= count:
            end = len(block)
            for _ in range(count - seen):
                end = block.rindex(b"\n", 0, end)
            return start + end + 1 if count else size_of(file)
        seen += block.count(b"\n")
        place = start
    return 0


def begin_at(file, moment):
    """Where the first line since a moment begins, its size if there is none; None if no line says when it was written."""
    place, told = size_of(file), False
    while place > 0:
        place = max(0, place - BLOCK * 16)
        file.seek(place)
        if place:
            file.readline()
        first = next((found for found in map(time_of, head(file)) if found is not None), None)
        told = told or first is not None
        if first is not None and first < moment:
            break
    if not told:
        return None
    file.seek(place)
    if place:
        file.readline()
    while True:
        here, line = file.tell(), file.readline()
        written = time_of(line)
        if not line or (written is not None and written >= moment):
            return here


def head(file):
    """The next lines of a file, as far as one block goes."""
    end = file.tell() + BLOCK * 16
    while file.tell() < end:
        line = file.readline()
        if not line:
            return
        yield line


def say(data):
    """To whoever asked."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def follow(logs, journal):
    """Go on until nobody listens any more: a pipe without a reader says so, and one behind sudo when it is written to."""
    poll, beaten, rest = select.poll(), time.monotonic(), b""
    poll.register(1, 0)
    if journal:
        poll.register(journal.stdout, select.POLLIN)
    while True:
        for number, flags in poll.poll(250):
            if number == 1:
                return
            data = os.read(number, BLOCK)
            *lines, rest = (rest + data).split(b"\n")
            say(b"".join(line + b"\n" for line in lines))
            if not data:
                refuse("journalctl has ended")
        for log in logs:
            log.go_on()
        if time.monotonic() - beaten > BEAT:
            beaten = time.monotonic()
            say(b"\036" + RUN.encode() + b" alive\n")


def may_read_journal():
    """True if journalctl would show more than what the account itself has said; it would not say so."""
    found = [
        path for folder in ("/var/log/journal", "/run/log/journal") for path in glob.glob(folder + "/*/system.journal")
    ]
    return os.geteuid() == 0 or not found or any(os.access(path, os.R_OK) for path in found)


def journal_words(moment):
    """The command that reads the journal."""
    words = ["journalctl", "--no-pager", "--quiet", "--all", "--no-hostname", "--output=short-iso"]
    words += ["--since=@%d" % moment] if moment is not None else ["--lines=%d" % P["lines"]]
    words += ["--follow"] if P["follow"] else []
    # Without this, following begins with the last ten.
    words += ["--no-tail"] if P["follow"] and moment is not None else []
    return words + [word for unit in P["units"] for word in ("-u", unit)]


journal = None
try:
    moment = since()
    logs = [Log(*each) for each in P["files"]]
    there = [log.begin(P["lines"], moment) for log in logs]
    if logs and not any(there) and not P["follow"]:
        refuse("there is no log yet")
    if P["units"] and not may_read_journal():
        refuse("the journal is root's: let the account into the group systemd-journal, or log in as root")
    if P["units"] and not P["follow"]:
        sys.exit(subprocess.call(journal_words(moment), stdin=subprocess.DEVNULL))
    if P["units"]:
        journal = subprocess.Popen(journal_words(moment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if P["follow"]:
        follow(logs, journal)
except BrokenPipeError:
    # Nobody listens; closing would try to write once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
finally:
    if journal:
        journal.kill()
        journal.wait()
