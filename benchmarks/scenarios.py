"""What is done with each tool, and with how much."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.project import GROWN, SMALL, Size

__all__ = ["GROUPS", "SCENARIOS", "Scenario", "chosen"]


@dataclass(frozen=True)
class Scenario:
    """
    One thing that a team does with its deploys.

    `deed` is `first` (on a host that has none yet), `code` or `requirements` (the commit changes that), `same` (the commit that
    serves already), or `rollback` (of a commit that changed code).
    """

    name: str
    deed: str
    hosts: int = 1
    size: Size = SMALL

    @property
    def commits(self) -> str:
        """The kind of commit that it wants a new one of."""
        return "requirements" if self.deed == "requirements" else "code"

    @property
    def is_grown(self) -> bool:
        """True if the project has thousands of files."""
        return self.size != SMALL


_SMALL = (
    Scenario("first", "first"),
    Scenario("code-only", "code"),
    Scenario("same", "same"),
    Scenario("requirements", "requirements"),
    Scenario("rollback", "rollback"),
)
_GROWN = tuple(Scenario(f"growth-{each.name}", each.deed, size=GROWN) for each in _SMALL)
_MANY = (Scenario("ten-hosts", "code", hosts=10),)
SCENARIOS = {each.name: each for each in (*_SMALL, *_MANY, *_GROWN)}
GROUPS = {"growth": tuple(each.name for each in _GROWN), "all": tuple(SCENARIOS)}


def chosen(words: str) -> tuple[Scenario, ...]:
    """Read names with commas between them; `growth` and `all` stand for several. Raises ValueError."""
    names = [name for word in words.split(",") if word for name in GROUPS.get(word, (word,))]
    unknown = sorted({*names} - {*SCENARIOS})
    if unknown or not names:
        message = f"no scenario is called {', '.join(map(repr, unknown)) or repr(words)}; there are {', '.join((*SCENARIOS, *GROUPS))}"
        raise ValueError(message)
    return tuple(scenario for name, scenario in SCENARIOS.items() if name in names)
