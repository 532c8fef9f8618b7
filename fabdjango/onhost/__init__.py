"""Programs that run on the server: standard library only, Python 3.8 and later, sent as text on standard input."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["source"]


def source(name: str) -> str:
    """The source of the program called ``name``, without ``.py``."""
    return files(__name__).joinpath(f"{name}.py").read_text(encoding="utf-8")
