"""A case to judge, and findings as the operator reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fabdjango.checking import lines_of
from fabdjango.commands.check import Case, Finding, Look
from tests.conftest import LAYOUT, sample_facts, sample_settings

__all__ = ["case", "told"]


def case(look: Look | None = None, settings: dict[str, Any] | None = None, **facts: Any) -> Case:
    """The sample site on its host, as ada, who owns it."""
    found = sample_facts(**facts)
    return Case(sample_settings(settings or {}), LAYOUT, found, look or Look(), "ada@web1", "ada", "ada")


def told(*findings: Finding | Iterable[Finding]) -> str:
    """Every line of them."""
    flat = [one for each in findings for one in ([each] if isinstance(each, Finding) else each)]
    return "\n".join(line for each in flat for line in lines_of(each))
