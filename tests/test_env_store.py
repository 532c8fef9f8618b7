"""The file of values that were made on the host."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabdjango import onhost


@pytest.fixture(scope="module")
def store() -> dict[str, Any]:
    """The functions of the program."""
    scope: dict[str, Any] = {}
    exec(compile(onhost.source("env_store"), "env_store", "exec"), scope)  # noqa: S102 - our own program
    return scope


VALUES = st.dictionaries(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True),
    st.text(st.characters(exclude_characters="\0", codec="utf-8")),
)


@given(values=VALUES)
def test_what_is_written_is_read_back(
    values: dict[str, str], store: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Quotes, newlines and everything else that a value may hold."""
    path = tmp_path_factory.mktemp("store") / "generated.env"
    store["write_values"](str(path), values)
    assert store["read_values"](str(path)) == values


def test_sh_reads_the_same(store: dict[str, Any], tmp_path: Path) -> None:
    """It is what a release sources."""
    path = tmp_path / "generated.env"
    store["write_values"](str(path), {"KEY": "it's $HOME\n`id`"})
    done = subprocess.run(
        ["sh", "-c", '. "$1"; printf %s "$KEY"', "sh", path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "it's $HOME\n`id`"


def test_a_new_file_is_for_owner_and_group(store: dict[str, Any], tmp_path: Path) -> None:
    """0640; a mode that was chosen since stays, and nothing is left beside the file."""
    path = tmp_path / "generated.env"
    assert store["read_values"](str(path)) == {}
    store["write_values"](str(path), {"KEY": "1"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    store["write_values"](str(path), {"KEY": "2"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
