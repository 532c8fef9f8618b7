"""One step as the shell that does it: its files, its body, its program."""

from __future__ import annotations

import base64
import json

from fabdjango.escape import Secret, Shell, block, python_literal, quote_path, raw
from fabdjango.plan import PYTHON, ROOT, Put, Step

__all__ = ["PRELUDE", "render_body", "render_put"]

PRELUDE = r"""
LC_ALL=C.UTF-8; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH
umask 022
cd -- "$HOME" 2>/dev/null || cd /
report() { printf '\036%s %s\n' "$FABDJANGO_RUN" "$*"; }
note() { report note "$*"; }
unchanged() { report unchanged "$*"; exit 0; }
refuse() { printf '%s\n' "$*"; exit 1; }
replace() { # FILE MODE < content: an atomic replacement that leaves an equal file alone
  case $1 in */*) d=${1%/*}/;; *) d=./;; esac
  [ -d "$d" ] || mkdir -p -- "$d"
  t=$(umask 077; mktemp -- "$d.fabdjango.XXXXXX")
  if base64 -d > "$t" && chmod "$2" -- "$t"; then
    if [ -f "$1" ] && [ ! -L "$1" ] && cmp -s -- "$t" "$1" && [ "$(stat -c %a -- "$1")" = "$2" ]; then
      rm -f -- "$t"; return 0
    fi
    sync -- "$t" && mv -fT -- "$t" "$1" && changed_files=1 && return 0
  fi
  rm -f -- "$t"; printf 'cannot write %s\n' "$1"; return 1
}
changed_files=
"""
"""What every script begins with: the functions that bodies of steps may call."""


def render_put(put: Put, *, shown: bool = False) -> Shell:
    """
    The shell that replaces one file; the content is a here-document and so never an argument.

    ``shown`` is for a reader: the content gives way to its size.
    """
    size = len(put.content.encode())
    content = f"({size} bytes, hidden)" if put.secret else f"({size} bytes)"
    return raw(
        f"replace {quote_path(put.path)} {put.mode:o} <<'EOF'\n{content if shown else _base64(put.content)}\nEOF"
    )


def _base64(content: str) -> str:
    text = base64.b64encode(content.encode()).decode()
    return "\n".join(text[at : at + 76] for at in range(0, len(text), 76))


def _program(step: Step, run: str, *, shown: bool) -> Shell:
    if not step.program:
        return Shell("")
    # Root's Python takes no module from where it happens to start.
    alone = step.user == ROOT and step.interpreter != PYTHON
    interpreter = raw(f"{step.interpreter}{' -I' if alone else ''}")
    if shown:
        return raw(f"{interpreter} - # {step.program.strip().splitlines()[0].strip(chr(34))}")
    data = python_literal(json.dumps(dict(step.parameters), sort_keys=True, default=_revealed))
    mark = f"{run}_PY"
    return raw(
        f"{interpreter} - <<'{mark}'\nimport json as _json\nPARAMETERS = _json.loads({data})\n{step.program}\n{mark}"
    )


def _revealed(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    msg = f"a {type(value).__name__} is no parameter of a program"
    raise TypeError(msg)


def render_body(step: Step, run: str = "", *, shown: bool = False) -> Shell:
    """What a step runs; ``shown`` is the form for a reader, without contents of files, programs and feeds."""
    puts = (render_put(put, shown=shown) for put in step.puts)
    fed = raw(f"# reads {len(step.feed)} bytes" if shown and step.feed else "")
    return block(*puts, fed, step.body, _program(step, run, shown=shown))
