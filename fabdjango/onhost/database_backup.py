"""Back the project's database up: a file that was read again to its end, or none; the last line is JSON."""

import json
import os
import pwd
import re
import time

P = PARAMETERS  # noqa: F821 - set by the line before this program


def make_folder():
    """The folder is this account's alone."""
    account = pwd.getpwuid(os.geteuid()).pw_name
    try:
        os.makedirs(os.path.dirname(FOLDER), exist_ok=True)
        if not os.path.isdir(FOLDER):
            os.mkdir(FOLDER, 0o700)
        if os.stat(FOLDER).st_uid != os.geteuid():
            stop("%s belongs to another account" % FOLDER, "on the host, as root: chown %s %s" % (account, FOLDER))
        os.chmod(FOLDER, 0o700)
    except OSError as error:
        cure = "on the host, as root: install -d -m 700 -o %s %s" % (account, FOLDER)
        stop("backups cannot be kept in %s: %s" % (FOLDER, error.strerror), cure)


def clear():
    """Remove what a dump that died has left."""
    for name in os.listdir(FOLDER):
        if re.fullmatch(r"\..+\.part(-journal|-wal|-shm)?", name):
            os.unlink(os.path.join(FOLDER, name))


def need_room(size):
    """Stop before a dump that cannot fit; what it will be, the one before tells best."""
    last = [os.path.getsize(os.path.join(FOLDER, name)) for name in backups() if suffix_of(name) == database.suffix]
    needed = (min(size, last[0] * 3 // 2) if last else size) + 20000000
    found = os.statvfs(FOLDER)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        stop(
            "the disk is too full for a backup: %d MB are free, %d MB are needed"
            % (free // 1000000, needed // 1000000),
            "make room, or set another fabdjango.database.backup_path, or a smaller fabdjango.database.backups",
        )


def new_name():
    """One that is not taken; the release in it is the one that serves."""
    current = os.path.basename(os.path.realpath(at_home(P["current"])))
    release = current if re.fullmatch(r"\d+-[0-9a-f]{12}", current) else "none"
    base = "%s-%s-%s" % (P["project"], time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), release)
    # Above all that are there, not the first that is free: one that was removed in this very second was older than they.
    form = re.compile(re.escape(base) + r"(?:-(\d+))?" + re.escape(database.suffix))
    found = [int(match[1] or 1) for match in map(form.fullmatch, os.listdir(FOLDER)) if match]
    return "%s%s%s" % (base, "-%d" % (max(found) + 1) if found else "", database.suffix)


def write(name):
    """The file under its name, once it is proven; why there is none, or an empty string."""
    part = os.path.join(FOLDER, ".%s.part" % name)
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        said = database.dump(part) or problem(part, database.suffix, True)
        if said:
            return said
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.rename(part, os.path.join(FOLDER, name))
        handle = os.open(FOLDER, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    except OSError as error:
        return str(error)
    finally:
        clear()
    return ""


def prune():
    """Remove backups that are older than the newest ones; what has a name of somebody's own stays."""
    old = [name for name in backups() if made_at(name)][P["keep"] :]
    removed = [name for name in old if name not in P["spare"]]
    for name in removed:
        os.unlink(os.path.join(FOLDER, name))
    return removed


def tell(name, **more):
    """The answer."""
    print(json.dumps(dict(more, name=name)), flush=True)


def work():
    """A backup from beginning to end."""
    make_folder()
    clear()
    need_room(database.size())
    link.close()
    name = new_name()
    began = time.monotonic()
    said = write(name)
    if said:
        stop("the backup failed, and there is no more of it: " + said)
    size = os.path.getsize(os.path.join(FOLDER, name))
    try:
        entry = dict(P["entry"], result="made", file=name, size=size)
        write_journal(at_home(P["journal"]), entry)
    except OSError as error:
        report("note", "the journal cannot be written: %s" % error)
    removed = prune()
    others = [alias for alias in connections if alias != "default"]
    report("note", "the database is backed up in %s, %.1f MB" % (name, size / 1e6))
    if others:
        report("note", "only the database called default is backed up, not %s" % ", ".join(others))
    tell(name, size=size, seconds=round(time.monotonic() - began, 1), removed=removed)


os.umask(0o077)
database = find_database()
if not database.exists():
    report("unchanged", "there is no database yet")
    tell("")
elif P["before_migrate"] and not missing_migrations():
    report("unchanged", "no migration is to be applied")
    tell("")
else:
    work()
