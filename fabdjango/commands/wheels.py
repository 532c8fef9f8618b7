"""
A virtualenv built once: what one host has installed, as wheels for the others.

The host that builds installs as any other. Its wheels are made from what it
has then, not from what an index would give a second time: so every source that
an installer knows will do, and nobody is asked but once. What installers write
beside a wheel's content, and a wheel's own hash, are not kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from fabdjango import onhost
from fabdjango.commands import venv
from fabdjango.escape import block, quote, quote_path, raw, sh, when
from fabdjango.exceptions import FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import Step
from fabdjango.settings import Settings

__all__ = ["ANY", "Wheels", "install_wheels", "pack_wheels", "read_wheels", "receive_wheels", "without_index"]

_CURE = "let every host build for itself: set fabdjango.venv.build to each"
_NAME = re.compile(r"[A-Za-z0-9_.+!][A-Za-z0-9_.+!-]*\.whl")
_LISTING = "wheels.json"


@dataclass(frozen=True)
class Wheels:
    """
    All that a virtualenv holds, as it travels: ``archive`` is a tar of wheels, ``digest`` its SHA-256.

    ``packages`` are name==version, ``builder`` is the host that they come from.
    """

    archive: bytes = field(repr=False)
    digest: str
    packages: tuple[str, ...]
    builder: str = ""


ANY = Wheels(b"...", 64 * "0", ("whatever==it.has",), "the building host")
"""Stands for what only a built virtualenv can give, in a dry run."""


def _folder(layout: Layout, key: str) -> PurePosixPath:
    # In the virtualenv itself: whatever clears away one that is not complete clears them too.
    return layout.venv(key) / ".wheels"


def without_index(settings: Settings, facts: Facts) -> Settings:
    """The same with an installer that is there already: exact files need no better one from an index."""
    uv = settings.venv.installer != "pip" and facts.programs.get("uv")
    return replace(settings, venv=replace(settings.venv, installer="uv" if uv else "pip"))


def pack_wheels(layout: Layout, key: str) -> Step:
    """
    Give the packages of a complete virtualenv as wheels, for the operator's side.

    Where that cannot be done, nothing is given, and the output says why.
    """
    target = layout.venv(key)
    return Step(
        "pack",
        f"wheels of virtualenv {key}",
        program=onhost.source("pack_wheels"),
        interpreter=sh(target / "bin" / "python"),
        parameters={"venv": str(target)},
        fetch=True,
        cure=_CURE,
    )


def read_wheels(archive: bytes, host: str = "") -> Wheels:
    """What ``pack_wheels`` gave; raises FabdjangoError if it is not whole, or holds anything but wheels."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            contents = {each.name: _content(tar, each) for each in tar.getmembers()}
        listing = json.loads(contents.pop(_LISTING, b"{}"))
        sums, packages = dict(listing["sums"]), tuple(map(str, listing["packages"]))
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise FabdjangoError(f"the wheels are broken: {error}", host=host, cure=_CURE) from None
    if sums != {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}:
        raise FabdjangoError("the wheels are broken: their sums do not fit", host=host, cure=_CURE)
    odd = [name for name in contents if not _NAME.fullmatch(name)]
    if odd:
        raise FabdjangoError(f"the wheels are broken: {odd[0]!r} is none", host=host, cure=_CURE)
    return Wheels(archive, hashlib.sha256(archive).hexdigest(), packages, host)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None
    if file is None:
        msg = f"{member.name} is no file"
        raise ValueError(msg)
    return file.read()


def receive_wheels(layout: Layout, key: str, wheels: Wheels) -> Step:
    """Unpack the wheels into the empty virtualenv; nothing of them is touched before they are known to be whole."""
    target, folder = layout.venv(key), _folder(layout, key)
    archive = folder / "all.tar"
    changed = "refuse 'the wheels have changed on their way, or did not arrive whole'"
    return Step(
        "wheels",
        f"wheels of virtualenv {key}, from {wheels.builder}",
        block(
            when(raw(f"[ -e {quote_path(target / '.complete')} ]"), raw("unchanged 'same requirements'")),
            sh("rm", "-rf", "--", folder),
            sh("mkdir", "--", folder),
            raw(f"cat > {quote_path(archive)}"),
            raw(f'[ "$(sha256sum < {quote_path(archive)})" = {quote(f"{wheels.digest}  -")} ] || {changed}'),
            sh("tar", "-x", "-f", archive, "-C", folder, "--no-same-owner", "--no-same-permissions"),
            sh("rm", "-f", "--", archive),
        ),
        cure="deploy again",
        feed=wheels.archive,
    )


def install_wheels(settings: Settings, facts: Facts, layout: Layout, key: str, wheels: Wheels) -> Step:
    """Install exactly the wheels that were received, ask no index, and hold the outcome against the builder's list."""
    settings = without_index(settings, facts)
    target, folder = layout.venv(key), _folder(layout, key)
    files = raw(f"{quote_path(folder)}/*.whl")
    exactly = ("--no-index", "--no-deps", "--", files)
    python = target / "bin" / "python"
    quietly = ("--quiet", "--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    with_uv = sh(venv.uv_of(facts, layout), "pip", "install", "--quiet", "--offline", "--python", python, *exactly)
    with_pip = sh(python, "-m", "pip", "install", *quietly, *exactly)
    install = venv.either(settings, facts, layout, with_uv, with_pip)
    return Step(
        "install",
        f"install {len(wheels.packages)} packages from {wheels.builder}",
        block(
            when(raw(f"[ -e {quote_path(target / '.complete')} ]"), raw("unchanged 'same requirements'")),
            # What the host tells its installers of indexes and hashes is for names, and here are files.
            raw("PIP_CONFIG_FILE=/dev/null UV_NO_CONFIG=1 UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never"),
            raw("export PIP_CONFIG_FILE UV_NO_CONFIG UV_NO_PROGRESS UV_PYTHON_DOWNLOADS"),
            raw("unset PIP_REQUIRE_HASHES UV_REQUIRE_HASHES PIP_FIND_LINKS UV_FIND_LINKS"),
            venv.timed(settings, install) if wheels.packages else raw(""),
            sh("rm", "-rf", "--", folder),
        ),
        program=onhost.source("same_packages"),
        interpreter=sh(python),
        parameters={"packages": list(wheels.packages), "builder": wheels.builder},
        cure=_CURE,
    )
