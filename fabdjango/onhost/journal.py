"""Write what happened on this host into the site's journal; a part, not a program."""

import json
import os
import time


def write_journal(path, entry):
    """Append a line with the host's time, at once and for good."""
    line = json.dumps(dict({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, **entry))
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        # A power cut may have left half a line.
        torn = size and os.pread(handle, 1, size - 1) != b"\n"
        data = (b"\n" if torn else b"") + line.encode() + b"\n"
        if os.write(handle, data) != len(data):
            raise OSError("the disk is full")
        os.fsync(handle)
    finally:
        os.close(handle)
