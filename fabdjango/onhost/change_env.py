"""Change one variable of a file that sh sources, into another file or only on trial; no value is ever printed."""

import hashlib
import json
import os
import sys

P = PARAMETERS  # noqa: F821 - set by the line before this program
# Of a link, the file that it leads to is meant. The functions are those of env_store and env_lines, which stand before.
SOURCE, TARGET, KEPT = (
    os.path.realpath(os.path.expanduser(P[name])) if P[name] else "" for name in ("source", "target", "kept")
)
before = read_text(SOURCE)  # noqa: F821
after = before
try:
    for name, value in P["changes"].items():
        after = changed(after, name, value)  # noqa: F821
except ValueError as error:
    sys.exit("%s, %s" % (SOURCE, error))
if KEPT and os.path.exists(SOURCE):
    write_text(KEPT, before)  # noqa: F821
if TARGET:
    os.makedirs(os.path.dirname(TARGET), exist_ok=True)
    write_text(TARGET, after)  # noqa: F821
else:
    digest = hashlib.sha256(after.encode("utf-8", "surrogateescape")).hexdigest()
    print(json.dumps({"changed": after != before, "digest": digest}))
