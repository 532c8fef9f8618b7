"""Programs that run on the server: standard library only, Python 3.8 and later, sent as text on standard input."""

from __future__ import annotations

import functools
from importlib.resources import files

__all__ = ["source"]

_BACKUPS = ("backup_files", "postgresql_backup", "mysql_backup", "sqlite_backup", "site_database")
_PARTS = {
    "change_env": ("env_store", "env_lines"),
    "check_django": ("project",),
    "check_host": ("own_addresses",),
    "compare_env": ("env_store", "env_lines"),
    "database_backup": ("telling", "project", "journal", *_BACKUPS),
    "database_backups": ("telling", "backup_files"),
    "database_create": ("telling", "env_store", "postgresql_server", "mysql_server"),
    "database_restore": ("telling", "project", "journal", *_BACKUPS),
    "django_start": ("reading", "static_ahead", "project", "schema", "static_sources", "static_collect"),
    "generate_secrets": ("env_store",),
    "list_env": ("env_store", "env_lines"),
    "migrate": ("project", "schema", "journal"),
    "reverse_plan": ("project", "schema"),
    "server_look": ("reading", "own_addresses"),
    "static_store": ("reading",),
    "survey": ("reading", "env_store", "commit_facts"),
    "survey_commit": ("commit_facts",),
    "tell_secrets": ("env_store",),
}
"""What stands in front of a program, as it is sent alone and can import nothing of ours."""


@functools.cache
def source(name: str) -> str:
    """The source of the program called ``name``, without ``.py``, with the parts that it is made of."""
    program = _text(name)
    if name not in _PARTS:
        return program
    # What a program does is told by its first line, also to who looks at a dry run.
    first = program.splitlines()[0]
    return "\n".join([first, *(_text(part) for part in _PARTS[name]), program])


def _text(name: str) -> str:
    return files(__name__).joinpath(f"{name}.py").read_text(encoding="utf-8")
