"""What python -m fabdjango does: begin. Everything after that is a task of fab."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fabdjango.exceptions import FabdjangoError
from fabdjango.scaffold import Wishes, init
from fabdjango.version import __version__

__all__ = ["main"]

_INIT = """\
Look at the Django project in this folder and write fabric.yaml and fabfile.py for it.

Settings module, application, packages, database, secrets, static files, uploads and workers are found by reading
the project's files; nothing of it is run. Only the server and the site's domains are asked for. Nothing that is
there is overwritten, and no host is contacted.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fabdjango",
        description="Begin with fabdjango in a Django project. Once there is a fabfile.py, everything else is a task of fab: fab --list",
    )
    parser.add_argument("--version", action="version", version=f"fabdjango {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    start = commands.add_parser(
        "init",
        help="write fabric.yaml and fabfile.py for the Django project in this folder",
        description=_INIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    start.add_argument(
        "--host", default="", metavar="HOST", help="the server, as in ssh: web1.example.com or ada@web1:2222"
    )
    start.add_argument(
        "--domain", default="", metavar="NAMES", help="the site's domains, with commas or spaces between"
    )
    start.add_argument("--project", default="", metavar="NAME", help="the project's name; otherwise the repository's")
    start.add_argument("--manage", default="", metavar="PATH", help="its manage.py, where there are several")
    start.add_argument(
        "--settings", default="", metavar="MODULE", help="its settings module for a server, if that is not found"
    )
    start.add_argument("--yes", action="store_true", help="ask nothing, and leave out what is not known")
    start.add_argument("--print", dest="show", action="store_true", help="write no file; print what would be written")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    given = _parser().parse_args(words)
    questions = sys.stdin.isatty() and not given.yes
    try:
        return init(
            Path.cwd(),
            Wishes(given.host, given.domain, given.project, given.manage, given.settings, given.show, questions),
        )
    except FabdjangoError as error:
        sys.stdout.flush()
        sys.stderr.write(error.render() + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted: nothing was written\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
