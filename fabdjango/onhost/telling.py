"""A word for whoever follows a step, see the prelude of every script; a part, not a program."""

import os
import sys

# Taken out of the environment: what a project starts or imports is not to speak for us.
RUN = os.environ.pop("FABDJANGO_RUN", "")


def report(kind, text):
    """Say ``note`` or ``unchanged``; without a script around it, to nobody."""
    if RUN:
        sys.stdout.write("\036%s %s %s\n" % (RUN, kind, text))
        sys.stdout.flush()


def stop(what, cure=""):
    """Say in words what is wrong, and end with 1."""
    sys.stdout.flush()
    print(what)
    if cure:
        print("cure: " + cure)
    sys.exit(1)
