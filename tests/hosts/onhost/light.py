"""
A host so light that a hundred fit into one: it answers every script of a deployment as a host does on which all goes well.

It is the forced command of an account: what is measured with it is the operator's side, over a real sshd. It runs
nothing of the script, but says of each step that it began and ended, in order, and keeps records of activations.
"""
# It runs alone, on whatever Python a host has.
# ruff: noqa: PTH123, SIM115, S108, UP031, PTH118, PTH103
# mypy: ignore-errors

import gzip
import json
import os
import re
import sys

FOLDER = "/tmp/light"
OLD = "7-" + 12 * "7"
SHA = os.environ.get("LIGHT_SHA", 40 * "8")
SURVEY = {
    "user": "light", "home": "/home/light", "root": "/srv/light", "processors": 2, "disk": [9000000000, 500000],
    "programs": {"uv": "/usr/bin/uv", "systemctl": "/usr/bin/systemctl"}, "system": "Linux x86_64", "sudo": True, "systemd": True,
    "python": {"version": "3.11.2", "tag": "cpython-311", "platform": "linux-x86_64", "path": "/usr/bin/python3", "ensurepip": True},
    "sha": SHA, "subject": "8888888 Another one", "manage": True, "settings_module": "light.settings",
    "requirements": {"sources": ["requirements.txt"], "missing": [], "digest": 64 * "d", "hashed": False, "local": False},
    "current": OLD, "releases": {OLD: {"release": OLD, "commit": 40 * "7", "venv": "0123"}}, "slots": {"b": OLD}, "live_slot": "b",
    "highest": 7, "first_deploy_done": True,
}  # fmt: skip
DJANGO = {
    "migrations": [],
    "static_root": "/srv/light/static",
    "static_url": "",
    "host": "example.com",
    "checks": [],
    "notes": [],
}
ANSWERS = {"survey": json.dumps(SURVEY), "check": json.dumps(DJANGO)}


def report(run, *words):
    """A line that only the deployer takes for one."""
    return "\036%s %s\n" % (run, " ".join(words))


def played(run, text):
    """What the steps of a script say, up to the one that waits for a word, and what they say after it."""
    before, after, into = [], [], None
    for label, name in re.findall(r"^report begin (\d+|decision) (\S+)$", text, re.MULTILINE):
        into = before if into is None else into
        into.append(report(run, "begin", label, name))
        into.append(ANSWERS[name] + "\n" if name in ANSWERS else "")
        if name == "await":
            into.append(report(run, "await", "60"))
            into = after
        into.append(report(run, "end", label, "0"))
    return "".join(before), "".join(after)


def say(text):
    """To the deployer, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


size = sys.stdin.buffer.readline()
if not size:
    # A session that was opened ahead and is not needed.
    sys.exit(95)
script = gzip.decompress(sys.stdin.buffer.read(int(size))).decode()
os.makedirs(FOLDER, exist_ok=True)
run = re.search(r"^FABDJANGO_RUN=(\w+)$", script, re.MULTILINE)[1]
first, _, rest = script.partition("\nreport follow\n")
if rest:
    following, _, then = rest.partition("\nreport followed\n")
    record, offset = re.search(r"(\w+)\.log", following)[1], int(re.search(r"tail -c \+(\d+)", following)[1])
    say(played(run, first)[0] + report(run, "follow"))
    say(open(os.path.join(FOLDER, record)).read()[offset - 1 :] + report(run, "followed"))
    say(played(run, then)[0])
elif "start a program that outlives this session" in script:
    before, after = played(run, script)
    with open(os.path.join(FOLDER, run), "w") as file:
        file.write(before + after + report(run, "exit", "0"))
    say(before)
    sys.stdin.buffer.read()
else:
    say(played(run, script)[0])
    if 'report exit "${kept:-0}"' in script:
        say(report(run, "exit", "0"))
        sys.stdin.buffer.read()
