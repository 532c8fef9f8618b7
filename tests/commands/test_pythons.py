"""Which Python a project wants, and what is said where the host has another one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from fabdjango.commands import pythons
from fabdjango.exceptions import FabdjangoError
from tests.conftest import LAYOUT, sample_facts, sample_settings


def refused(setting: str = "python3", **facts: Any) -> tuple[str, str]:
    """The message and its cure."""
    with pytest.raises(FabdjangoError) as caught:
        pythons.refuse_unwanted(sample_settings(python=setting), sample_facts(**facts), LAYOUT, "it's web1")
    return caught.value.message, caught.value.cure


def test_another_python_of_the_host() -> None:
    """The newest that fits is named; one that fits already is taken as it is."""
    found = ("python3.10", "python3.12", "python3.13", "python3.14")
    assert refused(needs=(">=3.12,<3.14", ""), pythons=found) == (
        "python3 is 3.11.2, and the project wants Python >=3.12,<3.14 (requires-python)",
        "the host has another one; in fabric.yaml under fabdjango: python: python3.13",
    )
    pythons.refuse_unwanted(sample_settings(), sample_facts(needs=("~=3.11", ">=6")), LAYOUT, "it's web1")


def test_no_other_python() -> None:
    """uv can bring one, into the site's own folder; which distribution has it is said, if one has."""
    assert refused(needs=(">=3.12", ""), programs={"uv": "/opt/uv"}, user="it's me")[1] == (
        "let uv bring a newer one, on the host, as it's me: "
        """UV_PYTHON_INSTALL_DIR='/srv/it'"'"'s here/python' UV_PYTHON_BIN_DIR='/srv/it'"'"'s here/python/bin' """
        "/opt/uv python install 3.12\n"
        "then, in fabric.yaml under fabdjango: python: /srv/it's here/python/bin/python3.12\n"
        "or take a distribution that has one: Debian 13, Ubuntu 24.04"
    )
    assert refused(needs=("==3.14.*", ""))[1].endswith("python: /srv/it's here/python/bin/python3.14")


def test_a_python_that_there_is_not() -> None:
    """With one that there is, if the project can live with it; otherwise as for one that is too old."""
    told, cure = refused("python3.14", python={}, pythons=("python3.11",))
    assert told == "python3.14 is not on the host"
    assert cure.splitlines()[0] == "the host has another one; in fabric.yaml under fabdjango: python: python3.11"
    assert cure.splitlines()[1].startswith("or let uv bring a newer one, on the host, as ada: ")
    assert cure.splitlines()[1].endswith("uv python install 3.14")
    told, cure = refused("it's python", python={}, pythons=("python3.11",), needs=(">=3.12", ""))
    assert told == "it's python is not on the host"
    assert cure.splitlines()[0].endswith("uv python install 3.12")


# --- versions ----------------------------------------------------------------


_NUMBERS = st.lists(st.integers(0, 12), min_size=2, max_size=3).map(lambda parts: ".".join(map(str, parts)))
_CLAUSES = st.one_of(
    st.tuples(st.sampled_from([">=", "<=", ">", "<", "==", "!=", "~="]), _NUMBERS).map("".join),
    st.tuples(st.sampled_from(["==", "!="]), _NUMBERS).map(lambda pair: f"{pair[0]} {pair[1]}.*"),
)


@given(version=_NUMBERS, clauses=st.lists(_CLAUSES, max_size=3))
@example(version="3.10.4", clauses=["<=3.10"])
@example(version="3.10.4", clauses=[">3.10"])
@example(version="3.10.0", clauses=["==3.10"])
@example(version="3.10.4", clauses=["==3.10.*"])
@example(version="3.10.4", clauses=["!=3.10.*"])
def test_what_a_specifier_asks_for(version: str, clauses: list[str]) -> None:
    """As packaging has it, which is what installers ask."""
    specifier = ", ".join(clauses)
    assert pythons.satisfies(version, specifier) == SpecifierSet(specifier).contains(version)


def test_what_is_no_specifier_asks_for_nothing() -> None:
    """An installer will say more of it."""
    assert pythons.satisfies("3.11.2", "it's not one")
