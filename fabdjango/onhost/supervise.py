"""Tell supervisord, over its own interface, what becomes of the site's programs; nobody else's are touched."""

import os
import re
import signal
import sys
import time
from http.client import HTTPException
from xmlrpc.client import Fault, ProtocolError

from supervisor.options import ClientOptions

P = PARAMETERS  # noqa: F821 - set by the line before this program
STARTING, RUNNING, GONE = 10, 20, (0, 100, 200, 1000)
NOT_RUNNING = 70
WEB = P["project"] + "-web"
SLOTS = (WEB + "-a", WEB + "-b")


def report(kind, text):
    """A word for whoever follows the step, see the prelude of every script."""
    sys.stdout.write("\036%s %s %s\n" % (os.environ.get("FABDJANGO_RUN", ""), kind, text))
    sys.stdout.flush()


def fail(text):
    """End the step."""
    print(text)
    sys.exit(1)


def connect():
    """The interface that supervisorctl uses, found in the same files."""
    options = ClientOptions()
    sys.argv[0] = "/usr/bin/supervisorctl"
    options.realize((["-c", P["config"]] if P["config"] else []) + ["status"])
    return options.getServerProxy().supervisor


def programs():
    """Every program that supervisord knows, by (group, name)."""
    return {(each["group"], each["name"]): each for each in S.getAllProcessInfo()}


def lives(each):
    """True if there is a process, or will be one without being asked for."""
    return each["state"] not in GONE


def asleep(each):
    """True for the process of a slot without a release."""
    try:
        with open("/proc/%d/cmdline" % each["pid"], "rb") as file:
            return os.path.basename(file.read().split(b"\0")[0]) == b"sleep"
    except OSError:
        return False


def group_lives(pid):
    """True while a process that ``pid`` has left behind runs."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid > 1


def stop(wanted):
    """
    Stop programs all at once, each with its own time, and return when nothing is left of them.

    supervisord sees to its own child only: what that leaves behind in its process group is waited for, then killed.
    """
    begun = time.monotonic()
    waiting = {}
    for key in wanted:
        each = programs().get(key)
        if each is None or not lives(each):
            continue
        waiting[key] = each["pid"]
        try:
            S.stopProcess("%s:%s" % key, False)
        except Fault as fault:
            if fault.faultCode != NOT_RUNNING:
                raise
    stopped = sorted(waiting)
    while waiting:
        now, known = time.monotonic() - begun, programs()
        for key, pid in sorted(waiting.items()):
            limit = P["limits"].get(key[1], 300)
            if not (key in known and lives(known[key])) and not (pid and group_lives(pid)):
                del waiting[key]
            elif now > limit + 10:
                fail("%s does not end, not even when it is killed" % key[1])
            elif now > limit and pid:
                try:
                    os.killpg(pid, signal.SIGKILL)
                except OSError:
                    continue
                if key not in killed:
                    killed.add(key)
                    report("note", "%s did not stop in %d seconds and was killed" % (key[1], limit))
        time.sleep(0.05)
    return stopped


def remove(group):
    """Stop a group and take it out of supervisord."""
    stop([key for key in programs() if key[0] == group])
    S.removeProcessGroup(group)


def is_web(key):
    """True for a slot of the site, in this or in an earlier way of binding."""
    return key[1] in SLOTS and key[0].startswith(WEB + "-")


def is_ours(group):
    """
    True if a group that stands in no file any more was ours.

    Another site's name may begin with ours, so the last file of ours, or a process of the group, must say so.
    """
    if group in P["previous"]:
        return True
    members = [each for key, each in programs().items() if key[0] == group]
    return group.startswith(P["project"] + "-") and bool(members) and all(marked(each) for each in members)


def gone_processes(known):
    """The groups of ours, but for the slots, that stand in no file any more."""
    slots = {key[0] for key in known if is_web(key)}
    return [name for name in REMOVED if name in {key[0] for key in known} - slots and is_ours(name)]


def marked(each):
    """True if a process has the mark that our file gives it."""
    try:
        with open("/proc/%d/environ" % each["pid"], "rb") as file:
            return ("FABDJANGO_SITE=" + P["project"]).encode() in file.read().split(b"\0")
    except OSError:
        return False


def add(group):
    """Let supervisord know a group, which starts it."""
    try:
        S.addProcessGroup(group)
    except (ProtocolError, HTTPException) as error:
        fail("supervisord cannot take %s (is its address in use?): %s" % (group, error))


def drop_web(slot):
    """Take groups of an earlier way of binding away, unless the slot beside ``slot`` still runs a release in there."""
    for group in REMOVED:
        members = {key: each for key, each in programs().items() if key[0] == group}
        serves = [key for key, each in members.items() if key[1] != slot and lives(each) and not asleep(each)]
        if members and all(is_web(key) for key in members) and not serves:
            remove(group)
            print("%s: taken away" % group)


def wait(group, names, full):
    """Wait until programs are there, or with ``full`` until each has been up for its startsecs."""
    begun = time.monotonic()
    while True:
        known = programs()
        found = [known.get((group, name)) for name in names]
        for each in found:
            if each and each["state"] in (30, 100, 200):
                fail("%s does not stay up: %s" % (each["name"], each["spawnerr"] or each["description"]))
        if all(
            each and each["pid"] and each["state"] in ((RUNNING,) if full else (STARTING, RUNNING)) for each in found
        ):
            return
        if time.monotonic() - begun > P["patience"]:
            fail("%s does not come up" % ", ".join(names))
        time.sleep(0.05)


def start(key):
    """Start one program that supervisord knows."""
    S.startProcess("%s:%s" % key, False)


def keep_open():
    """
    Let the empty slot's program sleep on the socket that both share, unless something runs there.

    supervisord closes it with the last process of the group: whoever waited there would be refused.
    """
    beside = (P["group"], P["other"])
    each = P["held"] and programs().get(beside)
    if each and not lives(each) and not os.path.lexists(P["link"]):
        start(beside)
        wait(P["group"], [P["other"]], False)


def start_slot():
    """The slot anew, on the newest definition."""
    key, other = (P["group"], P["program"]), P["other"]
    known = programs()
    drop_web(P["program"])
    stop([each for each in known if each[1] == key[1] and each[0] != key[0] and is_web(each)])
    if key[0] in ADDED:
        beside = [name for name in known if name[1] == other and name[0] != key[0] and is_web(name)]
        serves = any(lives(known[name]) and not asleep(known[name]) for name in beside)
        add_beside(key[0], other) if P["held"] and serves and os.path.islink(P["link"]) else add(key[0])
    elif key[0] in CHANGED:
        if P["held"]:
            report("note", "the definition of %s has changed: both slots start anew" % key[0])
        remove(key[0])
        add(key[0])
    else:
        keep_open()
        stop([key])
        start(key)
    wait(key[0], [key[1]], False)
    print("%s: started" % key[1])


def add_beside(group, other):
    """
    Add the group of both slots while ``other`` serves in a group of an earlier way of binding.

    It must not run twice: the new group finds its slot empty, until its process there sleeps.
    """
    # The folder is the owner's, so its links are moved with the owner's rights only.
    owner, hidden = os.stat(P["link"], follow_symlinks=False), P["link"] + ".waits"
    root = os.geteuid() == 0
    if root:
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
    os.rename(P["link"], hidden)
    try:
        if root:
            os.seteuid(0)
        add(group)
        wait(group, [other], False)
        begun = time.monotonic()
        while not asleep(programs()[(group, other)]) and time.monotonic() - begun < P["patience"]:
            time.sleep(0.05)
    finally:
        if root:
            os.seteuid(owner.st_uid)
        os.rename(hidden, P["link"])
        if root:
            os.seteuid(0)
            os.setegid(0)


def stop_slot():
    """The slot empty."""
    keep_open()
    stopped = stop([key for key in programs() if key[1] == P["program"] and is_web(key)])
    drop_web(P["program"])
    print("%s: stopped" % P["program"]) if stopped else report("unchanged", "not running")


def restart_processes():
    """Every process stopped to its end, then started; what the site no longer has is taken away."""
    known = programs()
    # On the way back to an earlier release, a program of the later one is not there any more.
    ours = {
        name: (name, name) for name in P["programs"] if name in ADDED or ((name, name) in known and name not in REMOVED)
    }
    gone = gone_processes(known)
    stop([key for key in known if key[0] in gone or key in ours.values()])
    for group in gone:
        S.removeProcessGroup(group)
        print("%s: taken away" % group)
    for name, key in ours.items():
        if name in CHANGED:
            S.removeProcessGroup(name)
        if name in CHANGED or name in ADDED:
            add(name)
        else:
            start(key)
    for name in ours:
        wait(name, [name], True)
        print("%s: started" % name)
    if not ours and not gone:
        report("unchanged", "there are none")


def restore():
    """What stands in no file any more, as its file was taken back; a slot that serves goes on."""
    drop_web("")
    known = programs()
    gone = gone_processes(known)
    for group in gone:
        remove(group)
        print("%s: taken away" % group)


def start_all():
    """What does not run; a changed definition waits for the next deploy."""
    done = []
    for group, name in P["targets"]:
        each = programs().get((group, name))
        if group in ADDED and each is None:
            add(group)
        elif each and not lives(each):
            start((group, name))
        else:
            continue
        done.append(name)
        wait(group, [name], False)
    print("started: " + ", ".join(done)) if done else report("unchanged", "already started")


def stop_all():
    """What runs."""
    names = [name for _, name in P["targets"]]
    done = stop([key for key in programs() if key[1] in names and (is_web(key) or key[0] == key[1])])
    print("stopped: " + ", ".join(key[1] for key in done)) if done else report("unchanged", "not running")


killed = set()
try:
    S = connect()
    try:
        ADDED, CHANGED, REMOVED = S.reloadConfig()[0]
    except Fault as fault:
        if P["verb"] == "restore":
            # A file of somebody else's must not keep us from what is left of the way back.
            report("note", "supervisor cannot read its files: %s" % fault.faultString)
            sys.exit(0)
        fail("supervisor cannot read its files: %s" % re.sub("^CANT_REREAD: ", "", fault.faultString))
    {
        "start_slot": start_slot,
        "stop_slot": stop_slot,
        "processes": restart_processes,
        "restore": restore,
        "start": start_all,
        "stop": stop_all,
    }[P["verb"]]()
except (ConnectionRefusedError, FileNotFoundError) as error:
    if P["verb"] not in ("stop_slot", "stop", "restore"):
        fail("supervisord does not run: %s" % error)
    report("unchanged", "supervisord does not run, and so nothing does")
except Fault as fault:
    fail("supervisord says: %s" % fault.faultString)
except (OSError, HTTPException, ProtocolError) as error:
    fail("supervisord does not answer: %s" % error)
