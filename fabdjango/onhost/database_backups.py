"""List the site's backups, and whether each can be read; the last line is JSON. Writes nothing."""

import calendar
import json
import os
import time

P = PARAMETERS  # noqa: F821 - set by the line before this program


def age(name, path):
    """Seconds since it was made: by its name, as a copy has another date."""
    at = made_at(name)
    made = calendar.timegm(time.strptime(at, "%Y%m%dT%H%M%SZ")) if at else os.stat(path).st_mtime
    return max(0, int(time.time() - made))


found = []
for name in backups():
    path = os.path.join(FOLDER, name)
    try:
        size, seconds = os.path.getsize(path), age(name, path)
    except OSError:
        continue
    found.append({"name": name, "size": size, "age": seconds, "problem": problem(path, suffix_of(name), P["whole"])})
print(json.dumps({"folder": FOLDER, "backups": found}))
