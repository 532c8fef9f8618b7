"""Hold the packages of a virtualenv against those of the host that built them."""

import importlib.metadata
import sys

P = PARAMETERS  # noqa: F821 - set by the line before this program
# What a virtualenv made with pip has from the beginning.
SEEDS = ("pip", "setuptools", "wheel")

found = {"%s==%s" % (each.metadata["Name"], each.version) for each in importlib.metadata.distributions()}
missing = sorted(set(P["packages"]) - found)
more = sorted(each for each in found - set(P["packages"]) if each.split("==")[0].lower() not in SEEDS)
if missing or more:
    print("the packages are not those of %s: missing %s; too many %s" % (P["builder"], missing, more))
    print("cure: set fabdjango.venv.build to each, and deploy again")
    sys.exit(1)
