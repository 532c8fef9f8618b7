"""Whether the Python of a host is one that the project and its Django want."""

from __future__ import annotations

import re

from fabdjango.escape import sh, with_env
from fabdjango.exceptions import FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.settings import Settings

__all__ = ["numbers", "refuse_unwanted", "satisfies"]

_DJANGO = ((2, 2), (3, 5)), ((3, 0), (3, 6)), ((4, 0), (3, 8)), ((5, 0), (3, 10)), ((6, 0), (3, 12))
"""From which Django on which Python is needed."""
_OWN = {"Debian 12": "3.11", "Debian 13": "3.13", "Ubuntu 22.04": "3.10", "Ubuntu 24.04": "3.12"}


def refuse_unwanted(settings: Settings, facts: Facts, layout: Layout, host: str, *, also_django: bool = False) -> None:
    """
    Raise FabdjangoError if the host has not got the Python that is set, or if the commit wants another one.

    With ``also_django``, what its Django needs counts too; that is a guess, as requirements may have several for
    several Pythons.
    """
    wants, django_wants = facts.needs
    needed = _needed_by_django(django_wants) if also_django else (0, 0)
    fitting = [name for name in facts.pythons if satisfies(name[6:], wants) and numbers(name[6:]) >= needed]
    if not facts.python:
        named = re.search(r"python(3\.\d+)$", settings.python)
        least = named[1] if named and satisfies(named[1], wants) else _least(wants, needed)
        cures = [*([_other(_best(fitting))] if fitting else []), _newer(least, facts, layout)]
        raise FabdjangoError(f"{settings.python} is not on the host", host=host, cure="\nor ".join(cures))
    version = str(facts.python.get("version", ""))
    if not satisfies(version, wants):
        why = f"the project wants Python {wants} (requires-python)"
    elif numbers(version) < needed:
        why = f"Django {django_wants} needs Python {needed[0]}.{needed[1]}"
    else:
        return
    raise FabdjangoError(
        f"{settings.python} is {version}, and {why}",
        host=host,
        cure=_other(_best(fitting)) if fitting else _newer(_least(wants, needed), facts, layout),
    )


def _needed_by_django(specifier: str) -> tuple[int, int]:
    bound = re.search(r"(?:===?|>=|~=|>)\s*(\d+)(?:\.(\d+))?", specifier)
    if not bound:
        return 0, 0
    lowest = (int(bound[1]), int(bound[2] or 0))
    return max((python for since, python in _DJANGO if since <= lowest), default=(0, 0))


def _best(names: list[str]) -> str:
    return max(names, key=numbers, default="")


def _other(name: str) -> str:
    return f"the host has another one; in fabric.yaml under fabdjango: python: {name}"


def _least(wants: str, needed: tuple[int, int]) -> str:
    """The oldest Python that would do, such as 3.12; 3 if there is none."""
    known = (f"3.{minor}" for minor in range(8, 30))
    return next((each for each in known if satisfies(f"{each}.99", wants) and numbers(each) >= needed), "3")


def _newer(version: str, facts: Facts, layout: Layout) -> str:
    """A distribution has no Python beside its own; uv brings one, into a folder that whoever runs the site can read."""
    folder, uv = layout.root / "python", facts.programs.get("uv") or "uv"
    get = with_env(
        {"UV_PYTHON_INSTALL_DIR": str(folder), "UV_PYTHON_BIN_DIR": str(folder / "bin")},
        sh(uv, "python", "install", version),
    )
    fitting = [name for name, own in _OWN.items() if numbers(own) >= numbers(version)]
    return (
        f"let uv bring a newer one, on the host, as {facts.user}: {get}\n"
        f"then, in fabric.yaml under fabdjango: python: {folder}/bin/python{version}"
        + (f"\nor take a distribution that has one: {', '.join(fitting)}" if fitting else "")
    )


# --- versions ----------------------------------------------------------------


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version such as 3.11.2."""
    return tuple(map(int, re.findall(r"\d+", version)))


def satisfies(version: str, specifier: str) -> bool:
    """Whether a released Python is one that a specifier such as ``>=3.10,<4`` asks for; what is no specifier asks for nothing."""
    have = _padded(version)
    for operator, text in re.findall(r"(===|==|~=|!=|>=|<=|<|>)\s*(\d+(?:\.\d+)*(?:\.\*)?)", specifier):
        wanted, most = _padded(text), len(numbers(text))
        same = have[:most] == wanted[:most] if text.endswith("*") else have == wanted
        held = {
            "===": same,
            "==": same,
            "!=": not same,
            "~=": have >= wanted and have[: most - 1] == wanted[: most - 1],
            ">=": have >= wanted,
            "<=": have <= wanted,
            ">": have > wanted,
            "<": have < wanted,
        }
        if not held[operator]:
            return False
    return True


def _padded(version: str) -> tuple[int, ...]:
    return (*numbers(version), 0, 0, 0, 0)[:4]
