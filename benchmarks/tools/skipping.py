"""The same by somebody who has had an eye on the clock: what has not changed is left out. The limit."""

from __future__ import annotations

from benchmarks.tools.plain import Script

__all__ = ["tool"]

tool = Script("skipping")
