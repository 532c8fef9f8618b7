"""Read a file of variables that sh sources, and change one of them; every other line stays as it is, byte by byte."""

import re

# One word after NAME=, in the parts that sh joins: quoted in one way or the other, escaped, or bare.
WORD = re.compile(r"""(?:'[^']*'|"(?:[^"\\]|\\.)*"|\\.|[^ \t\n'"\\;&|<>()])*""", re.S)
PART = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^'"\\]+)""", re.S)
START = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=")
END = re.compile(r"[ \t]*(?:(?<=[ \t])#[^\n]*)?(?:\n|\Z)")
CLOSED = {
    "'": re.compile(r"'[^']*'"),
    '"': re.compile(r'"(?:[^"\\]|\\.)*"', re.S),
    "\\": re.compile(r"\\.", re.S),
}
# Nothing happens in these, whatever stands around them.
TAME = re.compile(r"[ \t\r]*(?:#[^\n]*|export(?:[ \t]+\w+)+[ \t\r]*|set[ \t]+[-+]\w[ \t\r]*)?(?:\n|\Z)")


class Line:
    """
    One line as sh sees it, which may span several.

    ``name`` is set for a plain assignment, with ``value``, or None where sh
    would have to work it out, and where its word ``begins`` and ``ends``. A
    line that is ``wild`` may do anything.
    """

    def __init__(self, text, wild=False, name="", value=None, begins=0, ends=0):
        self.text = text
        self.wild = wild
        self.name = name
        self.value = value
        self.begins = begins
        self.ends = ends


def lines_of(text):
    """All lines; joined they are ``text`` again. Raises ValueError with the number of a line whose end cannot be seen."""
    found = []
    at = 0
    while at < len(text):
        end = line_end(text, at)
        found.append(line_of(text[at:end]))
        at = end
    return found


def line_end(text, start):
    """Where the line that begins at ``start`` ends, behind its newline."""
    at = start
    while at < len(text):
        char = text[at]
        if char == "\n":
            return at + 1
        if char == "#" and (at == start or text[at - 1] in " \t\n;&|()"):
            at = text.find("\n", at) if "\n" in text[at:] else len(text)
        elif char in "'\"\\":
            closed = CLOSED[char].match(text, at)
            if not closed:
                raise ValueError(problem(text, at, "what is quoted there is not closed"))
            at = closed.end()
        elif text.startswith("<<", at):
            raise ValueError(problem(text, at, "a here-document begins there"))
        else:
            at += 1
    if text[at - 1] == "\n":
        raise ValueError(problem(text, start, "it goes on after the end of the file"))
    return at


def problem(text, at, what):
    """A sentence about a line, without a word of it."""
    return "line %d: %s" % (text.count("\n", 0, at) + 1, what)


def line_of(text):
    """One line, looked at."""
    start = START.match(text)
    if start:
        word = WORD.match(text, start.end())
        if END.fullmatch(text, word.end()):
            value = value_of(word.group(), "export" in text[: start.start(1)])
            return Line(text, name=start.group(1), value=value, begins=word.start(), ends=word.end())
    return Line(text, wild=not TAME.fullmatch(text))


def value_of(word, exported):
    """What the word after NAME= means; None if sh expands something in it."""
    if word.startswith("~"):
        return None
    found = []
    for single, double, escaped, bare in PART.findall(word):
        if re.search(r"(?:^|[^\\])(?:\\\\)*[$`]", double) or re.search(r"[$`]", bare):
            return None
        # Behind export, these make file names in some shells; behind a colon, ~ is a home.
        if re.search(r":~|[*?\[]" if exported else ":~", bare):
            return None
        found.append(
            single or re.sub(r'\\([$`"\\\n])', unescaped, double) or (escaped if escaped != "\n" else "") or bare
        )
    return "".join(found)


def unescaped(found):
    """What stands behind a backslash in double quotes; of a line end, nothing."""
    return found.group(1).strip("\n")


def values_in(text):
    """Name to value, the last one of each; to its word in a tuple, where only sh knows the value."""
    return {
        line.name: (line.text[line.begins : line.ends],) if line.value is None else line.value
        for line in lines_of(text)
        if line.name
    }


def changed(text, name, value):
    """
    The text with ``name`` set to ``value``, or without it if that is None; the same text if it is so already.

    Raises ValueError if a line stands in the way that does more than to assign.
    """
    lines = lines_of(text)
    mine = [number for number, line in enumerate(lines) if line.name == name]
    if value is None:
        return removed(lines, name, mine)
    if mine and counts(lines, mine[-1], name):
        line = lines[mine[-1]]
        if line.value != value:
            line.text = line.text[: line.begins] + quoted(value) + line.text[line.ends :]
        return "".join(each.text for each in lines)
    return "%s%s%s=%s\n" % (text, "" if not text or text.endswith("\n") else "\n", name, quoted(value))


def stands_free(lines, number):
    """True if the line is not within an if, a loop or a function: no line that does more is both before and behind it."""
    wild = [each for each, line in enumerate(lines) if line.wild]
    return not wild or number < wild[0] or number > wild[-1]


def counts(lines, number, name):
    """True if the line is sure to give ``name`` its last value."""
    other = re.compile(r"(?<!\w)%s(?!\w)|(?:^|[\s;&|({`])(?:\.|source|eval)\s" % name)
    behind = [line for line in lines[number + 1 :] if line.wild and other.search(line.text)]
    return stands_free(lines, number) and not behind


def removed(lines, name, mine):
    """The text without the lines of ``name``."""
    named = re.compile(r"(?<!\w)%s\+?=" % name)
    for number, line in enumerate(lines):
        if (line.wild and named.search(line.text)) or (number in mine and not stands_free(lines, number)):
            before = "".join(each.text for each in lines[:number])
            raise ValueError(problem(before, len(before), "%s is in lines that do more than to assign" % name))
    return "".join(line.text for number, line in enumerate(lines) if number not in mine)


def quoted(value):
    """One word of sh that means ``value``."""
    return "'" + value.replace("'", "'\\''") + "'"
