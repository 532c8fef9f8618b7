"""Make those values that this host does not have yet, and keep them; none is ever printed, and none is made twice."""

import os
import random
import string
import sys

P = PARAMETERS  # noqa: F821 - set by the line before this program
PATH = os.path.expanduser(P["path"])
LETTERS = string.ascii_letters + string.digits


def made(length):
    """So many letters and digits, from the system's own source of chance."""
    return "".join(random.SystemRandom().choice(LETTERS) for _ in range(length))


values = read_values(PATH)  # noqa: F821 - of env_store, which stands before this program
missing = [name for name in P["lengths"] if name not in values]
if missing:
    os.makedirs(os.path.dirname(PATH), exist_ok=True)
    # What another host of the site has made already is the same here.
    values.update({name: P["given"].get(name) or made(P["lengths"][name]) for name in missing})
    write_values(PATH, values)  # noqa: F821
    print("made " + ", ".join(missing))
else:
    sys.stdout.write("\036%s unchanged %s\n" % (os.environ.get("FABDJANGO_RUN", ""), "all are there"))
