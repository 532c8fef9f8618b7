"""Output of a failed step to what a person needs of it: the lines that matter, and a cure where one is known."""

from __future__ import annotations

import re

__all__ = ["cure_for", "excerpt", "since_start"]

_CURES: tuple[tuple[str, str, str], ...] = (
    # step, pattern in the output, cure
    ("fetch", r"could not read Username|Authentication failed|terminal prompts disabled|could not read Password", "the repository asks for a password: use an ssh address with a deploy key, or a token in the host's git credentials"),
    ("fetch", r"Permission denied \(publickey|Permission denied, please try again", "the host's key is not allowed to read the repository: add the host's ~/.ssh/id_*.pub there as a deploy key"),
    ("fetch", r"Host key verification failed", "on the host, as the account that owns the site, connect once to the repository's server: ssh -T git@…"),
    ("fetch", r"dubious ownership", "the repository belongs to another account: git config --global --add safe.directory PATH, as the account that owns the site"),
    ("fetch", r"not appear to be a git repository|Repository not found|does not exist|not found", "check fabdjango.repository, as seen from the host"),
    ("fetch", r"Could not resolve host|unable to access|Connection refused|Connection timed out|No route to host|Network is unreachable|Could not read from remote", "the host cannot reach the repository: check fabdjango.repository, and the host's way out"),
    ("fetch", r"\A\s*\Z", "the repository did not answer in time: see fabdjango.git.timeout, and the host's way out"),
    ("*", r"No space left on device|Disk quota exceeded", "the disk is full: make room on the host (df -h, df -i), then deploy again"),
    ("*", r"sudo: a password is required|sudo: .*password", "sudo asks for a password: allow the account to use sudo without one, or connect as root with fabdjango.user set"),
    ("lock", r"cannot write", "the folder belongs to another account, or cannot be made: on the host, as root: install -d -o ACCOUNT FOLDER\nor let setup make the site's place: fab -H root@HOST setup"),
    ("install", r"[Hh]ash|HASH", "the hashes do not match the files: lock the requirements again and commit the result"),
    ("install", r"No matching distribution|No solution found|not found in the package registry|unsatisfiable", "a package or version cannot be found: check the requirement files, fabdjango.venv.packages and the index options"),
    ("install", r"lockfile.*(needs to be updated|outdated)|--locked", "uv.lock does not fit pyproject.toml: run uv lock and commit the result"),
    ("install", r"error: command '.*(gcc|cc|clang)|fatal error:|failed building wheel|Failed to build|Build failure|ailed to build", "a package has to be compiled and cannot be: install the compiler or the headers that the error names on the host (apt-get install build-essential python3-dev …)"),
    ("venv", r"ensurepip", "on the host, as root: apt-get install python3-venv"),
    ("*", r"CANT_REREAD", "a program file of the host's supervisor is broken, its name stands above: mend it or move it away, then deploy again"),
    ("log", r"Address already in use|Connection in use", "another program listens on the address: see which with ss -ltnp on the host, or choose another fabdjango.gunicorn.bind"),
    ("start", r"is its address in use\?", "another program listens on the address: see which with ss -ltnp on the host, or choose another fabdjango.gunicorn.bind"),
    ("log", r"No module named|: not found$|command not found", "a program or module is not in the virtualenv: list it in the requirements, or in fabdjango.venv.packages"),
    ("restart", r"refused connection|no such file|unix://", "supervisor does not run on the host: systemctl start supervisor"),
)  # fmt: skip


def cure_for(step: str, output: str) -> str:
    """What to do about a step that failed with this output; empty if nothing is known."""
    # A program of ours says its own.
    own = re.findall(r"^cure: (.+)$", output, re.MULTILINE)
    if own:
        return str(own[-1])
    for name, pattern, cure in _CURES:
        if name in ("*", step) and re.search(pattern, output):
            return cure
    return ""


def since_start(log: str) -> str:
    """The part of gunicorn's log that its last start wrote; all of it, if no start is in there."""
    starts = [found.start() for found in re.finditer(r"^.*\bStarting gunicorn \d", log, re.MULTILINE)]
    return log[starts[-1] :] if starts else log


_TELLING = re.compile(
    r"\b(fatal )?error\b|\bError\b|Exception\b|Traceback|fatal:|FAILED|failed|cannot |not found|undefined reference|No such file",
    re.IGNORECASE,
)


def excerpt(output: str, *, most: int = 24) -> str:
    """
    The lines of ``output`` that explain a failure: those that speak of an error with their surroundings, and the last ones.

    A compiler's complaint stands far above the last line of an installer.
    """
    lines = [line.rstrip() for line in output.splitlines() if line.strip() and not line.startswith("cure: ")]
    if len(lines) <= most:
        return "\n".join(lines)
    tail = 6
    wanted = set(range(len(lines) - tail, len(lines)))
    # A compiler's own words first: file, line, error.
    precise = [
        n for n, line in enumerate(lines) if re.search(r":\d+(:\d+)?: (fatal )?error:|^\s*\w*Error:|fatal error", line)
    ]
    others = [n for n, line in enumerate(lines) if _TELLING.search(line)]
    for number in [*precise, *others]:
        for near in (number, number + 1, number - 1, number + 2):
            if len(wanted) < most and 0 <= near < len(lines):
                wanted.add(near)
    shown = []
    before = -1
    for number in sorted(wanted):
        if number != before + 1:
            shown.append(f"… {number - before - 1} more lines …")
        shown.append(lines[number][:400])
        before = number
    return "\n".join(shown)
