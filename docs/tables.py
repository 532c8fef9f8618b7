"""
The README's tables of tasks and settings, made from the code, and the one of the benchmark, as `inv bench` left it.

A table stands between two lines of the README:

    <!-- tasks: written by inv docs -->
    <!-- end of tasks -->
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import fabdjango
from fabdjango.settings import Row, setting_rows

__all__ = ["README", "benchmark_table", "renewed", "settings_table", "tasks_table"]

README = Path(__file__).parent.parent / "README.md"
RESULTS = README.parent / "benchmarks" / "results"


def renewed(text: str) -> str:
    """The text of the README with all tables as they should be; raises ValueError if one has no place there."""
    for name, lines in (("benchmark", benchmark_table()), ("tasks", tasks_table()), ("settings", settings_table())):
        begin, end = f"<!-- {name}: written by inv docs -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            message = f"the README lacks {begin} or {end}"
            raise ValueError(message)
        text = "\n".join([f"{before}{begin}", *lines, f"{end}{after}"])
    return text


def benchmark_table() -> Iterator[str]:
    """The picture and the tables that were measured last; a sentence where nothing was."""
    if not (RESULTS / "table.md").exists():
        yield "(Nothing is measured yet.)"
        return
    yield f"![Seconds that a deploy takes with each tool]({RESULTS.relative_to(README.parent)}/times.svg)"
    yield ""
    yield from (RESULTS / "table.md").read_text(encoding="utf-8").rstrip().split("\n")


def tasks_table() -> Iterator[str]:
    """Every task with its arguments and the first line of its help."""
    return _table(("task", "what it does"), (_task_row(name) for name in _task_names()))


def _task_names() -> list[str]:
    # The task that a namespace's name alone means is called so.
    names = [aliases[0] if aliases else name for name, aliases in fabdjango.ns.task_names.items()]
    return sorted(names, key=lambda name: (name.count("."), name.partition(".")[0]))


def _task_row(name: str) -> tuple[str, str]:
    task: Any = copy.copy(fabdjango.ns[name])
    # Invoke takes the help out of the task while it makes the arguments.
    task.help = dict(task.help)
    words = [name]
    for argument in task.get_arguments():
        flag = "--" + argument.name.replace("_", "-")
        if argument.positional:
            words.append(argument.name.upper())
        else:
            words.append(f"[{flag}]" if argument.kind is bool else f"[{flag}=…]")
    first_line = (task.__doc__ or "").strip().splitlines()[0]
    return f"`{' '.join(words)}`", first_line.rstrip(".")


def settings_table() -> Iterator[str]:
    """Every setting with its form, its default and its description."""
    return _table(("setting", "form", "default", "what it says"), map(_setting_row, setting_rows()))


def _setting_row(row: Row) -> tuple[str, str, str, str]:
    default = "(required)" if row.required else _default(row.default)
    text = re.sub(r"([<>*|])", r"\\\1", row.help.rstrip("."))
    return f"`{row.key.replace('*', 'NAME')}`", _form(row.kind), default, text + (" (hidden)" if row.secret else "")


def _form(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    if kind in (str, bool, int):
        return {str: "text", bool: "true or false", int: "number"}[kind]
    return "list" if get_origin(kind) is tuple else "mapping"


def _default(value: Any) -> str:
    if value in ("", (), {}):
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, Mapping):
        return f"`{', '.join(f'{key}: {item}' for key, item in value.items())}`"
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
