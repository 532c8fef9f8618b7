"""List the jobs of the schedule: when each runs next, when it ran last, and how that ended. Writes nothing."""

import datetime as dt
import os
import subprocess

P = PARAMETERS  # noqa: F821 - set by the line before this program
FORM = "%Y-%m-%d %H:%M:%S"


def record(path):
    """The words of a record by their first: began and ended."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return {}
    return {words[0]: words[1:] for words in lines if len(words) == 3 and words[1].isdigit()}


def is_held(path):
    """True if a process has the lock of a job; it is not tried, as a run that begins now would find it taken."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks") as file:
            held = [line.split() for line in file]
    except OSError:
        return False
    return any(words[1] == "FLOCK" and words[5].split(":")[-1] == str(inode) for words in held if words[1] != "->")


def local(seconds):
    """Seconds since 1970 as the host's own time."""
    return dt.datetime.fromtimestamp(int(seconds)).strftime(FORM)


def last(job):
    """When the last run began, and how it ended."""
    found = record(job["record"])
    if "began" not in found:
        return "-", "never ran"
    began, ended = int(found["began"][0]), found.get("ended")
    if ended is None or int(ended[0]) < began:
        return local(began), "runs" if not job["lock"] or is_held(job["lock"]) else "was cut off"
    took = "%d s" % (int(ended[0]) - began)
    told = {"0": "ok", "124": "took too long and was ended"}.get(ended[1], "failed with status " + ended[1])
    return local(began), "%s, %s" % (told, took)


def next_of_timer(timer):
    """What systemd says."""
    words = ["systemctl", "show", "--property=NextElapseUSecRealtime", "--value", "--", timer]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, universal_newlines=True)
    parts = done.stdout.split()
    return " ".join(parts[1:3]) if len(parts) >= 3 else "-"


def next_by(times, now):
    """The next minute that is meant, as cron sees it."""
    day = now.date()
    for _ in range(366 * 9):
        week = (day.weekday() + 1) % 7 in times["weekdays"]
        month = day.day in times["days"]
        if day.month in times["months"] and ((week or month) if times["either"] else (week and month)):
            for hour in times["hours"]:
                for minute in times["minutes"]:
                    found = dt.datetime(day.year, day.month, day.day, hour, minute)
                    if found > now:
                        return found.strftime(FORM)
        day += dt.timedelta(days=1)
    return "-"


def following(job):
    """When a job runs next; a dash if nothing would start it."""
    if job["timer"]:
        return next_of_timer(job["timer"])
    return next_by(job["times"], dt.datetime.now()) if os.path.exists(P["crontab"]) else "-"


rows = [("job", "at", "next", "last", "")]
rows += [(job["name"], job["at"], following(job)) + last(job) for job in P["jobs"]]
widths = [max(len(row[n]) for row in rows) for n in range(4)]
for row in rows:
    print("  ".join([cell.ljust(width) for cell, width in zip(row, widths)] + [row[4]]).rstrip())
