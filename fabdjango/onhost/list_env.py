"""Print the names of the variables in files that sh sources, as one line of JSON; no value is looked at."""

import json
import os
import re
import sys

P = PARAMETERS  # noqa: F821 - set by the line before this program


def names_in(path):
    """The names that a file sets; also those in lines that do more, and in a file that nobody can follow."""
    text = read_text(os.path.expanduser(path))  # noqa: F821 - of env_store, which stands before this program
    try:
        lines = lines_of(text)  # noqa: F821 - of env_lines
    except ValueError:
        return set(re.findall(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=", text, re.M))
    wild = "".join(line.text for line in lines if line.wild)
    return {line.name for line in lines if line.name} | set(re.findall(r"(?<![\w$])([A-Za-z_]\w*)\+?=", wild))


sys.stdout.write(json.dumps({name: sorted(names_in(path)) for name, path in P["files"].items()}) + "\n")
