"""How a value is asked for."""

from __future__ import annotations

import os
import pty
import sys

PROGRAM = """
from fabdjango.variables import _asked
print("it has", len(_asked("MAIL").reveal()), "characters")
"""


def test_a_value_is_typed_unseen() -> None:
    """On a terminal of its own, which shows nothing of what is typed."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM])  # noqa: S606 - there is no shell to start
    seen = b""
    while b"MAIL: " not in seen:
        seen += os.read(terminal, 1000)
    os.write(terminal, b"it's s3cret\n")
    try:
        while data := os.read(terminal, 1000):
            seen += data
    except OSError:
        # So Linux tells that nobody writes there any more.
        pass
    finally:
        os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0
    assert seen.decode().split() == ["MAIL:", "it", "has", "11", "characters"]
