"""Let systemd read unit files in a folder of their own; what it says of them is the output."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

P = PARAMETERS  # noqa: F821 - set by the line before this program


def never_due():
    """A complaint for each time of a timer that lies in the past, of which verify says nothing."""
    for name, text in sorted(P["files"].items()):
        for at in re.findall("^OnCalendar=(.*)$", text, re.MULTILINE):
            asked = ["systemd-analyze", "calendar", "--", at.replace("%%", "%")]
            done = subprocess.run(asked, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if re.search(rb"Next elapse: *never", done.stdout):
                yield "%s: OnCalendar=%s is never due" % (name, at)


folder = tempfile.mkdtemp(prefix="fabdjango.")
try:
    for name, text in P["files"].items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(os.path.join(folder, name) for name in sorted(P["files"]))],
        # Ours first, so that they find each other, and then what the host has.
        env=dict(os.environ, SYSTEMD_UNIT_PATH=folder + ":", SYSTEMD_LOG_LEVEL="warning"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    # The status of older ones says little, and they complain of other units that ours name.
    stems = "|".join(re.escape(re.split(r"[.@]", name)[0]) for name in P["files"])
    named = [line for line in done.stdout.splitlines() if re.search(r"\b(%s)[@.]" % stems, line)]
    named += list(never_due())
    for line in named or (done.stdout.splitlines() if done.returncode else []):
        print(line.replace(folder + "/", ""))
    sys.exit(1 if named else 0)
finally:
    shutil.rmtree(folder, ignore_errors=True)
