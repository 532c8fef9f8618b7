"""Compare what a release was made with and what the next one would be; print names as one line of JSON, and nothing of any value."""

import ast
import json
import os
import sys

P = PARAMETERS  # noqa: F821 - set by the line before this program


def text_of(path):
    """The text of a file; of one that is not there, nothing."""
    return read_text(os.path.expanduser(path))  # noqa: F821 - of env_store, which stands before this program


def environment(texts):
    """Name to value, or to the word where only sh knows it; later texts win. Lines that do more count as one name."""
    found = {}
    for text in texts:
        try:
            found.update(values_in(text))  # noqa: F821 - of env_lines
            wild = "".join(line.text for line in lines_of(text) if line.wild)  # noqa: F821
        except ValueError:
            wild = text
        if wild:
            found["(lines that do more than to assign)"] = wild
    return found


def module(text):
    """Top-level name of a settings module to what is done with it there; other statements count as one name."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError):
        # Perhaps a Python newer than ours can read it.
        return {"(the whole file)": text}
    found = {}
    for statement in statements:
        for name in names_of(statement) or ["(other lines)"]:
            found[name] = found.get(name, "") + ast.dump(statement)
    return found


def names_of(node):
    """The names that a statement or a target gives a value to."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
        node = node.value
    if isinstance(node, ast.Name):
        return [node.id]
    targets = getattr(node, "targets", None) or getattr(node, "elts", None) or [getattr(node, "target", None)]
    return [name for target in targets if target for name in names_of(target)]


def differences(old, new):
    """The names that only one of them has, or that differ."""
    return {
        "added": sorted(set(new) - set(old)),
        "removed": sorted(set(old) - set(new)),
        "changed": sorted(name for name in set(old) & set(new) if old[name] != new[name]),
    }


serves = environment([text_of(path) for path in P["serves"]])
configured = environment([text_of(path) for path in P["files"]] + [P["env"]])
configured.update({name: "" for name in P["generate"] if name not in configured})
settings = text_of(P["local_settings_file"]) if P["local_settings"] is None else P["local_settings"]
answer = {
    "environment": differences(serves, configured),
    "local_settings.py": differences(module(text_of(P["local_settings_serves"])), module(settings)),
}
sys.stdout.write(json.dumps(answer) + "\n")
