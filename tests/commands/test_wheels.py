"""The shell by which a virtualenv that one host has built comes to another one, and what is refused on its way."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest

from fabdjango.commands import wheels
from fabdjango.commands.wheels import Wheels
from fabdjango.exceptions import FabdjangoError
from tests.conftest import KEY, LAYOUT, sample_facts, sample_settings, shell, shown

NO_UV = sample_facts(programs={"git": "/usr/bin/git"})
WHEELS = Wheels(b"12345", "ab" * 32, ("alpha==1.0", "beta==2.0"), "it's web1")


def test_pack() -> None:
    """By the virtualenv's own Python, which knows where its files are; the output is a file."""
    step = wheels.pack_wheels(LAYOUT, KEY)
    assert shown(step) == shell("""
        # pack: wheels of virtualenv 00112233aabbccdd
        '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' - # Make wheels again of all that is installed in a virtualenv; standard output is a tar of them and of their sums.
    """)
    assert step.fetch
    assert step.parameters == {"venv": "/srv/it's here/venvs/00112233aabbccdd"}


def test_receive() -> None:
    """Into the virtualenv, so that they go with it; into a file first, which is whole before anything reads it."""
    step = wheels.receive_wheels(LAYOUT, KEY, WHEELS)
    assert shown(step) == shell("""
        # wheels: wheels of virtualenv 00112233aabbccdd, from it's web1
        # reads 5 bytes
        if [ -e '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete' ]; then
          unchanged 'same requirements'
        fi
        rm -rf -- '/srv/it'"'"'s here/venvs/00112233aabbccdd/.wheels'
        mkdir -- '/srv/it'"'"'s here/venvs/00112233aabbccdd/.wheels'
        cat > '/srv/it'"'"'s here/venvs/00112233aabbccdd/.wheels/all.tar'
        [ "$(sha256sum < '/srv/it'"'"'s here/venvs/00112233aabbccdd/.wheels/all.tar')" = 'abababababababababababababababababababababababababababababababab  -' ] || refuse 'the wheels have changed on their way, or did not arrive whole'
        tar -x -f '/srv/it'"'"'s here/venvs/00112233aabbccdd/.wheels/all.tar' -C '/srv/it'"'"'s here/venvs/00112233aabbccdd/.wheels' --no-same-owner --no-same-permissions
        rm -f -- '/srv/it'"'"'s here/venvs/00112233aabbccdd/.wheels/all.tar'
    """)
    assert step.feed == b"12345"


INSTALL = """
    # install: install 2 packages from it's web1
    if [ -e '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete' ]; then
      unchanged 'same requirements'
    fi
    PIP_CONFIG_FILE=/dev/null UV_NO_CONFIG=1 UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
    export PIP_CONFIG_FILE UV_NO_CONFIG UV_NO_PROGRESS UV_PYTHON_DOWNLOADS
    unset PIP_REQUIRE_HASHES UV_REQUIRE_HASHES PIP_FIND_LINKS UV_FIND_LINKS
    timeout -k 10 1800 {command} -- '/srv/it'"'"'s here/venvs/00112233aabbccdd/.wheels'/*.whl
    rm -rf -- '/srv/it'"'"'s here/venvs/00112233aabbccdd/.wheels'
    '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' - # Hold the packages of a virtualenv against those of the host that built them.
"""
UV = """/usr/bin/uv pip install --quiet --offline --python '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' --no-index --no-deps"""
PIP = """'/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -m pip install --quiet --disable-pip-version-check --no-input --progress-bar off --no-index --no-deps"""


def test_install_with_uv() -> None:
    """These files and no others; options of the settings and addresses of indexes are for the host that builds."""
    settings = sample_settings(
        venv={"options": ["--no-binary", ":all:"], "index_url": "https://ada:it's@example.com/", "bootstrap": ["wheel"]}
    )
    step = wheels.install_wheels(settings, sample_facts(), LAYOUT, KEY, WHEELS)
    assert shown(step) == shell(INSTALL.format(command=UV))
    assert step.parameters == {"packages": ["alpha==1.0", "beta==2.0"], "builder": "it's web1"}


@pytest.mark.parametrize("installer", ["auto", "uv", "pip"])
def test_install_with_pip(installer: str) -> None:
    """Where there is no uv, none is fetched for files that pip can install as well."""
    settings = sample_settings(venv={"installer": installer})
    facts = sample_facts() if installer == "pip" else NO_UV
    assert shown(wheels.install_wheels(settings, facts, LAYOUT, KEY, WHEELS)) == shell(INSTALL.format(command=PIP))


def test_nothing_to_install() -> None:
    """A virtualenv may be empty."""
    body = wheels.install_wheels(sample_settings(), sample_facts(), LAYOUT, KEY, Wheels(b"1", "ab" * 32, ())).body
    assert "pip" not in body.replace("PIP", "")


def house(contents: dict[str, bytes], listing: object = None, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar as a host gives it."""
    if listing is None:
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        listing = {"packages": ["alpha==1.0"], "sums": sums}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in {**contents, "wheels.json": json.dumps(listing).encode()}.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.REGTYPE if name == "wheels.json" else kind
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def test_read() -> None:
    """The archive as it is, its digest, and what is in it."""
    archive = house({"alpha-1.0+it.1-py3-none-any.whl": b"it's a wheel"})
    found = wheels.read_wheels(archive, "web1")
    assert found == Wheels(archive, hashlib.sha256(archive).hexdigest(), ("alpha==1.0",), "web1")
    assert "it's a wheel" not in repr(found)


GOOD = house({"alpha-1.0-py3-none-any.whl": b"it's a wheel"})


BROKEN = {
    "nothing": b"",
    "a part": GOOD[:700],
    "no listing": GOOD[:1024],
    "another byte": GOOD.replace(b"it's a wheel", b"it's a wheek"),
    "not listed": house({"alpha-1.0-py3-none-any.whl": b"it's a wheel"}, {"packages": [], "sums": {}}),
    "no sums": house({"alpha-1.0-py3-none-any.whl": b""}, {"packages": []}),
    "an odd listing": house({"alpha-1.0-py3-none-any.whl": b""}, []),
    "a way out": house({"../alpha-1.0-py3-none-any.whl": b""}),
    "a path": house({"/etc/alpha.whl": b""}),
    "an option": house({"-alpha.whl": b""}),
    "no wheel": house({"alpha.sh": b""}),
    "a link": house({"alpha-1.0-py3-none-any.whl": b""}, kind=tarfile.SYMTYPE),
    "a folder": house({"alpha-1.0-py3-none-any.whl": b""}, kind=tarfile.DIRTYPE),
}


@pytest.mark.parametrize("archive", BROKEN.values(), ids=BROKEN)
def test_broken_wheels_are_refused(archive: bytes) -> None:
    """Cut short, changed, or with something in it that no other host should unpack."""
    with pytest.raises(FabdjangoError, match="the wheels are broken") as caught:
        wheels.read_wheels(archive, "web1")
    assert caught.value.host == "web1"
    assert "set fabdjango.venv.build to each" in caught.value.cure
