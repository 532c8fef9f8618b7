"""Read files that need not be there."""

import hashlib
import json


def read(path):
    """Text of a file, or None."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def digest(path):
    """SHA-256 of a file in hexadecimal, or an empty string."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def read_json(path):
    """What a file of JSON holds; an empty mapping for none, and for one that cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
