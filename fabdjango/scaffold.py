"""
``python -m fabdjango init``: look at a project, ask what its files do not tell, and write fabric.yaml and fabfile.py.

Asks no host, and never overwrites. Both files are written, or neither.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invoke.vendor import yaml

from fabdjango import proposal, recipes
from fabdjango.checkout import Checkout, look
from fabdjango.configuration import Layer, resolve
from fabdjango.detection import Findings, detect, manage_files
from fabdjango.escape import nginx_domain
from fabdjango.exceptions import ConfigError
from fabdjango.inventory import split_address
from fabdjango.inventory_files import twice
from fabdjango.proposal import Answers, Entry
from fabdjango.render import Templates, template_root
from fabdjango.settings import ROOT_KEY

__all__ = ["Draft", "Wishes", "checked", "draft", "init"]

_SETTINGS, _TASKS = "fabric.yaml", "fabfile.py"
_UNTOUCHED = "nothing was written"


@dataclass(frozen=True)
class Wishes:
    """What was said on the command line; empty is not said. ``questions`` is True if there is somebody to ask."""

    host: str = ""
    domain: str = ""
    project: str = ""
    manage: str = ""
    settings: str = ""
    show: bool = False
    questions: bool = False


@dataclass(frozen=True)
class Draft:
    """What would be written, and what was found for it."""

    files: dict[str, str]
    findings: Findings
    answers: Answers
    problems: tuple[str, ...]


def init(folder: Path, wishes: Wishes) -> int:
    """
    Write the two files into ``folder``, or only show them; the exit code.

    Raises ConfigError where there is nothing to write them for.
    """
    there = _files_there(folder)
    if there and not wishes.show:
        raise _there(there)
    made = draft(look(folder), folder, wishes)
    if wishes.show:
        for name, text in made.files.items():
            sys.stdout.write(f"# --- {name}\n{text}")
        if there:
            raise _there(there)
        return 0
    _write(folder, made.files)
    sys.stdout.write("".join(f"{line}\n" for line in _told(made)))
    return 0


def draft(checkout: Checkout, folder: Path, wishes: Wishes) -> Draft:
    """The two files for what is in ``folder``, with the operator's answers in them."""
    findings = detect(checkout.snapshot, _manage(checkout, folder, wishes), wishes.settings)
    answers = _answers(findings, checkout, wishes)
    entries = proposal.propose(findings, checkout, answers)
    # The project's own folder of templates is Django's, and none of ours.
    templates = Templates(template_root().parent, {})
    text = templates.render("project/fabric.yaml.j2", lines=list(proposal.lines_of(entries)))
    problems = tuple(proposal.problems_of(findings, checkout, answers))
    files = {_SETTINGS: checked(text, entries), _TASKS: templates.render("project/fabfile.py.j2")}
    return Draft(files, findings, answers, problems)


def checked(text: str, entries: Sequence[Entry]) -> str:
    """
    The file's text, once our own reader of configuration has read it, and found what was meant.

    Raises ConfigError for a value that no deploy could take.
    """
    values = yaml.safe_load(text)[ROOT_KEY]  # type: ignore[no-untyped-call]
    meant = proposal.live_values(entries)
    if values != meant or any(True for _ in twice(text, ROOT_KEY)):
        raise ConfigError(f"{_SETTINGS} would not say what it is meant to: {values!r}, not {meant!r}", state=_UNTOUCHED)
    try:
        resolved = resolve([Layer(_SETTINGS, values)])
        recipes.check_settings(resolved.settings)
    except ConfigError as error:
        raise ConfigError(error.message, state=_UNTOUCHED, cure=error.cure) from None
    return text


# --- what is there already ---------------------------------------------------------


def _files_there(folder: Path) -> list[str]:
    """Everything that fab would take for its settings or its tasks here, also a link that leads nowhere."""
    names = [_SETTINGS, "fabric.yml", "fabric.json", "fabric.py", _TASKS, "fabfile"]
    return [name for name in names if os.path.lexists(folder / name)]


def _there(names: Sequence[str]) -> ConfigError:
    rest = [name for name in (_SETTINGS, _TASKS) if name not in names]
    others = f"; {rest[0]} was not written either" if len(rest) == 1 else ""
    are = "is there already, and stays as it is" if len(names) == 1 else "are there already, and stay as they are"
    return ConfigError(
        f"{' and '.join(names)} {are}{others}",
        state=_UNTOUCHED,
        cure="see what would have been written: python -m fabdjango init --print",
    )


# --- manage.py ---------------------------------------------------------------------


def _manage(checkout: Checkout, folder: Path, wishes: Wishes) -> str:
    """The path of manage.py from the top of the commit."""
    below = f"{checkout.below}/" if checkout.below else ""
    known = manage_files(checkout.snapshot)
    cure = _named(known, checkout.below or ".")
    if wishes.manage:
        wanted = os.path.relpath((folder / wishes.manage).resolve(), checkout.top.resolve())
        if wanted not in known:
            raise ConfigError(f"{wishes.manage} is no manage.py of Django in git", state=_UNTOUCHED, cure=cure)
        return wanted
    near = [path for path in known if path.startswith(below) and path.removeprefix(below).count("/") <= 1]
    if f"{below}manage.py" in near or len(near) == 1:
        return near[0]
    if near and wishes.questions:
        return _choose("manage.py", near)
    message = f"no Django project: there is no manage.py in {folder}, nor one folder below it"
    if near:
        message = f"there are several projects here: {', '.join(near)}"
    raise ConfigError(message, state=_UNTOUCHED, cure=cure)


def _named(known: Sequence[str], here: str) -> str:
    """How to say which project is meant, from the folder ``here``."""
    paths = [shlex.quote(os.path.relpath(path, here)) for path in known[:5]]
    if not paths:
        return "go to the folder of your manage.py, and see that .gitignore does not list it"
    return "name it: " + "\nor:      ".join(f"python -m fabdjango init --manage {path}" for path in paths)


# --- questions ---------------------------------------------------------------------


def _answers(findings: Findings, checkout: Checkout, wishes: Wishes) -> Answers:
    address = checkout.remote.address
    name = re.split(r"[/:]", address.rstrip("/"))[-1].removesuffix(".git") if address else checkout.top.name
    likely = proposal.likely_domains(findings)
    ask = _ask if wishes.questions else _take
    project = wishes.project or ask("Name of the project", proposal.name_of(name), _as_project)
    host = wishes.host or ask("Server, as in ssh (empty: later)", "", _as_host)
    domain = wishes.domain or ask(
        "Domains of the site (empty: later)", " ".join(likely), lambda text: " ".join(_as_domains(text))
    )
    return Answers(_as_project(project), _as_host(host), _as_domains(domain))


def _as_project(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", text):
        raise ConfigError(
            f"{text!r} cannot be the name of a project",
            state=_UNTOUCHED,
            cure="small letters, digits, - and _, at most 41 of them",
        )
    return text


def _as_host(text: str) -> str:
    _, address, _ = split_address(text)
    if text and (not address or re.search(r"[\s,/@]|^-", address)):
        raise ConfigError(
            f"{text!r} is not a host", state=_UNTOUCHED, cure="such as web1.example.com, or ada@192.0.2.7:2222"
        )
    return text


def _as_domains(text: str) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(nginx_domain(each) for each in re.split(r"[\s,]+", text) if each))
    except ConfigError as error:
        message = error.message.removeprefix("fabdjango.nginx.domains: ")
        raise ConfigError(message, state=_UNTOUCHED, cure="such as blog.example.com") from None


def _take(_question: str, default: str, _read: Callable[[str], Any]) -> str:
    return default


def _ask(question: str, default: str, read: Callable[[str], Any]) -> str:
    """Ask until the answer can be taken; questions stand on standard error, so that --print can be sent to a file."""
    while True:
        sys.stderr.write(f"{question}{f' [{default}]' if default else ''}: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise ConfigError("no answer", state=_UNTOUCHED, cure="answer, or say --host, --domain and --yes")
        try:
            read(line.strip() or default)
        except ConfigError as error:
            sys.stderr.write(f"  {error.message}; {error.cure}\n")
        else:
            return line.strip() or default


def _choose(what: str, choices: Sequence[str]) -> str:
    for number, each in enumerate(choices, 1):
        sys.stderr.write(f"  {number}  {each}\n")

    def read(text: str) -> None:
        if text not in map(str, range(1, len(choices) + 1)):
            raise ConfigError("that is none of them", cure=f"a number from 1 to {len(choices)}")

    return choices[int(_ask(f"Which {what}", "1", read)) - 1]


# --- writing and telling -------------------------------------------------------------


def _write(folder: Path, files: dict[str, str]) -> None:
    """All of them, whole and new, or none."""
    with contextlib.ExitStack() as undo:
        for name, text in files.items():
            try:
                _write_new(folder / name, text)
            except FileExistsError:
                raise _there([name]) from None
            except OSError as error:
                raise ConfigError(
                    f"cannot write {folder / name}: {error.strerror}",
                    state=_UNTOUCHED,
                    cure="python -m fabdjango init --print shows it",
                ) from None
            undo.callback((folder / name).unlink)
        undo.pop_all()


def _write_new(path: Path, text: str) -> None:
    """A file that appears under its name with all of its text, and only if there was none; a new name is refused as O_EXCL does."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        Path(temporary).unlink()


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def _told(made: Draft) -> Iterator[str]:
    """What the operator reads at the end."""
    findings, answers = made.findings, made.answers
    yield f"written: {' and '.join(made.files)}"
    for label, text in _summary(findings):
        yield f"  {label:<14}{text}"
    if made.problems:
        yield ""
        yield "To mend before the first deploy:"
        for problem in made.problems:
            yield f"  - {problem}"
    _, address, _ = split_address(answers.host)
    host = shlex.quote(address) if address else "HOST"
    yield ""
    if not address:
        yield "No host is in it yet: name one under hosts:, or each time in place of HOST."
    if not answers.domains:
        yield "No domain is in it yet: without nginx: domains: there is no web server in front."
    yield "Look through fabric.yaml and commit both files. Then:"
    yield f"  fab -H {host} setup"
    yield f"  fab -H {host} deploy"


def _summary(findings: Findings) -> Iterator[tuple[str, str]]:
    settings, database = findings.settings, findings.database
    yield "manage.py", findings.manage
    if settings:
        yield "settings", f"{settings.value} ({settings.place})"
    if findings.app:
        yield "application", f"{findings.app.value} ({findings.app.place})"
    if findings.requirements.file:
        yield "packages", findings.requirements.file
    if database.engine:
        yield "database", f"{database.engine.value} ({database.engine.place})"
    if database.url:
        yield "", f"from {database.url.value} ({database.url.place})"
    if findings.secret_key:
        yield "SECRET_KEY", f"from {findings.secret_key.name} ({findings.secret_key.place})"
    for service in findings.services:
        yield service.kind, f"from {service.variable} ({service.place})" if service.variable else f"({service.place})"
    for worker in findings.workers:
        yield worker.name, f"{worker.command} ({worker.place})"
