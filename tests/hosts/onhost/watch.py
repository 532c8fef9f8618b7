"""
Watches a site's folder and its processes from inside of a host; knows the layout of the design, and none of fabdjango's code.

    watch.py watch PARAMETERS-FILE    until the file `stop` appears; writes `out`.links and `out`.processes
    watch.py orphans ROOT             the processes that have to do with the site and are nobody's; one line of JSON
    watch.py tree FOLDER              every file below a folder as git would name it; one line of JSON
"""
# It runs alone, on whatever Python a host has.
# ruff: noqa: B007, B905, BLE001, N803, PERF102, PTH104, PTH110, PTH112, PTH114, PTH115, PTH116, PTH118, PTH119, PTH120, PTH123, PTH208, RUF007, RUF059, S324, SIM115, UP031
# mypy: ignore-errors

import ctypes
import hashlib
import json
import os
import select
import struct
import sys
import time

MOVED_FROM, MOVED_TO, CREATED, DELETED = 0x40, 0x80, 0x100, 0x200
LOCKS = ("lock", "steps.lock")


# --- links ---------------------------------------------------------------


def links(P):
    """
    Look at the links a thousand times a second, and at every change of their folders.

    inotify tells each unlink, however short; looking tells what a visitor of that moment would have met.
    """
    # A host under load would look ten times a second otherwise.
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        os.nice(-19)
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_NONBLOCK)
    watched = {}
    names = {}
    for path in P["links"]:
        names.setdefault(os.path.dirname(path), set()).add(os.path.basename(path))
    seen = {
        path: {"targets": [], "absent": 0, "dangling": 0, "removed": 0, "made": 0, "was": False} for path in P["links"]
    }
    samples, worst, last = 0, 0.0, time.monotonic()
    began = last
    while not os.path.exists(P["stop"]):
        for folder in names:
            if folder not in watched.values() and os.path.isdir(folder):
                number = libc.inotify_add_watch(events, os.fsencode(folder), MOVED_FROM | MOVED_TO | CREATED | DELETED)
                watched[number] = folder
        for path, state in seen.items():
            try:
                target = os.readlink(path)
            except OSError:
                # Before the first deploy there is none.
                state["absent"] += state["was"]
                continue
            state["was"] = True
            if not os.path.exists(path):
                state["dangling"] += 1
            if not state["targets"] or state["targets"][-1][1] != target:
                state["targets"].append([time.time(), target])
        if select.select([events], [], [], 0)[0]:
            data, at = os.read(events, 65536), 0
            while at < len(data):
                number, mask, _, length = struct.unpack_from("iIII", data, at)
                name = os.fsdecode(data[at + 16 : at + 16 + length].rstrip(b"\0"))
                at += 16 + length
                state = seen.get(os.path.join(watched.get(number, ""), name))
                if state and mask & (DELETED | MOVED_FROM):
                    state["removed"] += 1
                if state and mask & CREATED:
                    state["made"] += 1
        samples += 1
        time.sleep(0.001)
        now = time.monotonic()
        worst, last = max(worst, now - last), now
    return {"links": seen, "samples": samples, "worst": worst, "rate": samples / (time.monotonic() - began)}


# --- processes -----------------------------------------------------------


def read(path):
    """The bytes of a file of /proc; none if the process is gone."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def link(path):
    """Where a link of /proc points to."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


class Processes:
    """All processes of one moment."""

    def __init__(self):
        self.parent, self.comm, self.words = {}, {}, {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                stat = read("/proc/%s/stat" % name).decode("utf-8", "replace")
                pid = int(name)
                before, _, after = stat.rpartition(")")
                fields = after.split()
                if not fields or fields[0] in "ZX":
                    continue
                self.parent[pid] = int(fields[1])
                self.comm[pid] = before.partition("(")[2]
                self.words[pid] = (
                    read("/proc/%s/cmdline" % name).rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
                )

    def ancestors(self, pid):
        """The process, its parent and so on; without PID 1."""
        chain = []
        while pid > 1 and pid not in chain and pid in self.parent:
            chain.append(pid)
            pid = self.parent[pid]
        return chain

    def unit(self, pid):
        """The service a process is in, as systemd says; empty for none."""
        for line in read("/proc/%d/cgroup" % pid).decode().splitlines():
            number, controllers, path = line.split(":", 2)
            if controllers in ("name=systemd", "") and ".service" in path:
                # The group of a service that has just ended says so behind its name.
                return next((part for part in reversed(path.split("/")) if part.endswith(".service")), "")
        return ""

    def managed(self, pid):
        """Whether a process manager answers for it: a child of supervisord, or of a unit that has a file."""
        if any(self.comm[each] == "supervisord" for each in self.ancestors(pid)):
            return True
        unit = self.unit(pid)
        if not unit or unit.startswith(("ssh", "supervisor", "user@")):
            return False
        return not os.path.exists("/run/systemd/transient/" + unit)

    def group(self, pid):
        """The process that started it all: the one below sshd's listener or below PID 1."""
        chain = self.ancestors(pid)
        for below, above in zip(chain, chain[1:]):
            if self.comm[above] == "sshd" and "listener" in self.words[above]:
                return below
        return chain[-1] if chain else pid


def descriptors(pid):
    """The files a process has open: path and whether it may write."""
    try:
        numbers = os.listdir("/proc/%d/fd" % pid)
    except OSError:
        return
    for number in numbers:
        path = link("/proc/%d/fd/%s" % (pid, number))
        if path.startswith("/"):
            flags = [
                line.split()[1]
                for line in read("/proc/%d/fdinfo/%s" % (pid, number)).splitlines()
                if line.startswith(b"flags:")
            ]
            yield path, bool(flags) and int(flags[0], 8) & 3 != 0


def below(path, root):
    """Whether a path lies in the site's folder."""
    return path == root or path.startswith(root + "/")


def processes(P):
    """Look for two writers, and for a secret on a command line."""
    root, mine = P["root"], os.getpid()
    run = root + "/run"
    told, writers, doubled, samples, known = [], {}, [], 0, {}
    while not os.path.exists(P["stop"]):
        now = Processes()
        for pid, words in now.words.items():
            if any(secret in words for secret in P["secrets"]) and pid != mine and len(told) < 20:
                told.append("%s: %s" % (now.comm[pid], words[:300]))
        groups = {}
        for pid in now.parent:
            # Most processes are the host's own; whoever is new is looked at closely.
            key = (pid, now.words[pid])
            if key not in known:
                known[key] = now.comm[pid] in ("systemd", "supervisord", "nginx", "wrk") or now.managed(pid)
            if known[key] or pid == mine:
                continue
            for path, writes in descriptors(pid):
                if writes and below(path, root) and not below(path, run):
                    groups.setdefault(now.group(pid), []).append("%s (%s)" % (now.words[pid][:100], path))
        for group, what in groups.items():
            writers[group] = writers.get(group, 0) + 1
        if len(groups) > 1 and len(doubled) < 20:
            doubled.append(groups)
        samples += 1
        time.sleep(P["pause"])
    return {"told": told, "writers": writers, "doubled": doubled, "samples": samples}


def orphans(root):
    """Processes with the site's folder in cwd, exe, arguments or open files that no manager answers for."""
    now, found = Processes(), []
    current = os.path.realpath(root + "/current")
    ours = set(now.ancestors(os.getpid()))
    for pid in now.parent:
        if pid in ours:
            continue
        places = [link("/proc/%d/cwd" % pid), link("/proc/%d/exe" % pid), *(path for path, _ in descriptors(pid))]
        touches = [path for path in places if below(path, root)]
        if not (touches or root + "/" in now.words[pid] + "/"):
            continue
        managed = now.managed(pid)
        cwd = places[0]
        if not managed:
            found.append("%d %s in %s: nobody's" % (pid, now.words[pid][:200] or now.comm[pid], cwd))
        elif below(cwd, root + "/releases") and not below(cwd, current):
            found.append("%d %s still runs %s" % (pid, now.words[pid][:200], cwd))
    return found


def tree(folder):
    """Every file below a folder: path to mode and the hash git has for its content; links by their target."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in files + [each for each in folders if os.path.islink(os.path.join(place, each))]:
            path = os.path.join(place, name)
            if os.path.islink(path):
                content, mode = os.fsencode(os.readlink(path)), "120000"
            else:
                content = read(path)
                mode = "100755" if os.stat(path).st_mode & 0o100 else "100644"
            found[os.path.relpath(path, folder)] = [
                mode,
                hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            ]
    return found


def watch(P):
    """Both at once, each with an interpreter of its own."""
    child = os.fork()
    name, work = ("links", links) if child == 0 else ("processes", processes)
    with open("%s.%s.new" % (P["out"], name), "w") as out:
        try:
            json.dump(work(P), out)
        except BaseException as error:
            json.dump({"error": repr(error)}, out)
    os.rename("%s.%s.new" % (P["out"], name), "%s.%s" % (P["out"], name))
    if child:
        os.waitpid(child, 0)


if sys.argv[1] == "watch":
    watch(json.load(open(sys.argv[2])))
else:
    print(json.dumps({"orphans": orphans, "tree": tree}[sys.argv[1]](sys.argv[2])))
