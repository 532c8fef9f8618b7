"""The packages that the project asks for: a few real ones, fetched once and kept, and any number of made ones."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

__all__ = ["DEPENDENCIES", "MADE", "REQUIRED", "folder", "made_wheel", "uv"]

#: What requirements.txt names, and what these need. Of shopdep there is a version for each commit that asks for a new one.
REQUIRED = (
    *("Django==5.2.*", "whitenoise==6.*", "gunicorn>=23", "dj-database-url", "djangorestframework"),
    *("django-filter", "Markdown", "requests"),
)
DEPENDENCIES = 200
#: Made packages of the grown project: with the real ones about 150.
MADE = 135
MODULES = 20

PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")


def folder() -> Path:
    """Give the folder of all wheels, in the user's cache; the first time asks this machine's package index."""
    recipe = repr((REQUIRED, DEPENDENCIES, MADE, MODULES, platform.machine()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fabdjango" / "benchmark"
    target = cache / f"wheels-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if not target.is_dir():
        unfinished = target.with_name(f"{target.name}.{os.getpid()}")
        _download(unfinished)
        _make(unfinished)
        unfinished.rename(target)
    return target


def uv() -> Path:
    """Give this machine's uv, which runs alone on any Linux."""
    from uv import find_uv_bin

    return Path(find_uv_bin())


def made_wheel(name: str, version: str, files: dict[str, str]) -> bytes:
    """Make a wheel of pure Python from the text of its files; the same bytes each time."""
    info = f"{name}-{version}.dist-info"
    whole = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: made\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in whole.items()) + f"{info}/RECORD,,\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in {**whole, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return content.getvalue()


def _digest(text: str) -> str:
    encoded = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    return f"sha256={encoded}"


def _download(target: Path) -> None:
    tags = [word for name in PLATFORMS for word in ("--platform", f"{name}_{platform.machine()}")]
    python = ("--only-binary=:all:", "--python-version", "3.11")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--dest", target, *python, *tags, *REQUIRED], check=True
    )


def _make(target: Path) -> None:
    for number in range(1, DEPENDENCIES + 1):
        wheel = made_wheel("shopdep", str(number), {"shopdep.py": f"VERSION = {number}\n"})
        (target / f"shopdep-{number}-py3-none-any.whl").write_bytes(wheel)
    text = "".join(f"def function_{number}(value):\n    return value + {number}\n\n\n" for number in range(60))
    for number in range(MADE):
        name = f"made{number:03}"
        files = {f"{name}/module_{each:02}.py": text for each in range(MODULES)} | {f"{name}/__init__.py": ""}
        (target / f"{name}-1-py3-none-any.whl").write_bytes(made_wheel(name, "1", files))
