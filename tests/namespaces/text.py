"""How transcripts are written in tests."""

import re
import textwrap


def joined(text: str) -> str:
    """``text`` without its common indent; a line that is indented goes on the one before, ``|`` keeps its indent."""
    lines = re.sub(r"\n {4,}", " ", textwrap.dedent(text))
    return re.sub(r"^\|", " ", lines, flags=re.MULTILINE)
