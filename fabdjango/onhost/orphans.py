"""Find what still holds the locks of a site, or end it; one line for each on standard output."""

import os
import signal
import sys
import time

P = PARAMETERS  # noqa: F821 - set by the line before this program
FILES = {os.path.realpath(os.path.expanduser(P[name])) for name in ("steps", "deployment") if P.get(name)}
OWN = int(P.get("own", 0))


def read(pid, name):
    """Text of a file of a process, or nothing."""
    try:
        with open("/proc/%d/%s" % (pid, name), "rb") as file:
            return file.read().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def parent(pid):
    """The process that started it, or 0."""
    # The name may hold spaces and brackets.
    words = read(pid, "stat").rpartition(")")[2].split()
    return int(words[1]) if len(words) > 1 else 0


def session(pid):
    """The session that a process belongs to, or 0."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def ancestors(pid):
    """A process and all that it descends from."""
    found = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        pid = parent(pid)
    return found


def name_of(pid):
    """How a process is called; its words may hold what nobody should read."""
    return read(pid, "comm").strip() or "?"


def holders():
    """Every process that has one of the files open, as far as we may see, without ourselves."""
    found = set()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            links = {os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)}
        except OSError:
            continue
        if links & FILES:
            found.add(pid)
    # Who only waits for the lock is a shell with flock as its child.
    waiting = {pid for pid in found if name_of(pid) == "flock"}
    return found - ancestors(os.getpid()) - {OWN} - waiting - {parent(pid) for pid in waiting}


def activation(pid):
    """(run, folder of its record) if the process leads a detached activation."""
    words = read(pid, "cmdline").split("\0")
    if len(words) > 5 and words[3] == "sh" and words[2].startswith(": fabdjango;") and session(pid) == pid:
        return words[4], os.path.dirname(words[5])
    return None


def gone(find, seconds):
    """Wait until ``find`` finds nothing; False if it does after so many seconds."""
    end = time.monotonic() + seconds
    while find():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def tell(pids, number):
    """Send a signal to all that we may."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass


def end(find):
    """TERM, three seconds, KILL; the names of what was ended."""
    names = {}
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = find()
        names.update({pid: name_of(pid) for pid in pids})
        tell(pids, number)
        if gone(find, 3):
            break
    return ["%s (%d)" % (names[pid], pid) for pid in sorted(names)]


def unlock():
    """End the lease and what runs in sessions; let activations undo."""
    leaders = {pid: found[0] for pid, found in ((pid, activation(pid)) for pid in holders()) if found}
    ended = end(lambda: {pid for pid in holders() if session(pid) not in leaders})
    if ended:
        print("ended: " + ", ".join(ended))
    for run in leaders.values():
        print("told the activation %s to undo" % run)
    tell(leaders, signal.SIGTERM)
    if not gone(lambda: holders() & set(leaders), 60):
        print("the activation has not ended within 60 seconds; it goes on by itself")
        sys.exit(1)
    if leaders:
        print("it has ended")


if P["mode"] == "unlock":
    unlock()
elif P["mode"] == "look":
    for each in sorted(filter(None, map(activation, holders()))):
        print("%s %s" % each)
else:
    for line in end(holders):
        print(line)
