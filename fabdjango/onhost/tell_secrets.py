"""Print values that were made on this host as JSON, for other hosts or to be hidden; it is read by a program, and shown to nobody."""

import json
import os
import sys

P = PARAMETERS  # noqa: F821 - set by the line before this program
VALUES = read_values(os.path.expanduser(P["path"]))  # noqa: F821 - of env_store, which stands before this program
sys.stdout.write(json.dumps({name: VALUES[name] for name in VALUES if P["names"] is None or name in P["names"]}))
