"""UCI file syntax: text in, sections with line numbers out. What an option means is not known here (see :mod:`.load`).

The language is libuci's: one statement to a line, ``package``, ``config``, ``option`` or ``list``; words bare, in single
quotes (nothing is special inside) or in double quotes (a backslash takes the next character as it is), and pieces that
touch are one word, so ``'it'\\''s'`` is how UCI itself writes an apostrophe; ``#`` starts a comment wherever a bare word
could. Two things of libuci are refused, because in a hand-written file they are mistakes: values that run over the end
of the line, and ``;`` between statements.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

KEYWORDS = ("config", "option", "list", "package")
NAME = re.compile(r"[A-Za-z0-9_]+")
"""Names of sections and options. libuci refuses everything else, a hyphen too."""
TYPE = re.compile(r"[!-~]+")
"""Section types: any printable ASCII."""
BLANKS = " \t\r\f\v"


class SettingsError(Exception):
    """What is wrong in a settings file, as one line that a person can act on. Never holds the value of a secret."""


class Entry(NamedTuple):
    """One ``option`` or ``list`` line."""

    keyword: str
    name: str
    value: str
    line: int


class Section(NamedTuple):
    """One ``config`` line and what belongs to it."""

    type: str
    name: str
    """"" for an anonymous section."""
    line: int
    entries: tuple[Entry, ...]


def parse(text: str, file: str) -> tuple[Section, ...]:
    """The sections of a UCI file in its order. ``file`` is only for messages. Raises SettingsError."""
    sections: list[Section] = []
    entries: list[Entry] = []
    for line, content in enumerate(text.split("\n"), start=1):
        try:
            words = _words(content)
            if not words:
                continue
            keyword, *arguments = words
            if keyword == "config":
                type_, name = _config(arguments)
                entries = []
                sections.append(Section(type_, name, line, ()))
            elif keyword in ("option", "list"):
                if not sections:
                    raise _Fault(f"{keyword} stands before the first config line")
                entries.append(Entry(keyword, *_assignment(keyword, arguments), line))
                sections[-1] = sections[-1]._replace(entries=tuple(entries))
            elif keyword == "package":
                if sections or len(arguments) != 1:
                    raise _Fault("package takes one name and stands before the first config line")
            else:
                raise _Fault("a line begins with config, option, list or package" + hint(keyword, KEYWORDS))
        except _Fault as fault:
            raise SettingsError(f"{file}:{line}: {fault}") from None
    return tuple(sections)


def hint(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'X'?`` for the known word nearest to ``word``, "" when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


class _Fault(Exception):
    """A line that is not UCI. Says nothing of what the line holds: it may be half a secret."""


def _config(arguments: list[str]) -> tuple[str, str]:
    if not 1 <= len(arguments) <= 2:
        raise _Fault("config takes a section type and, if need be, a name: config TYPE 'NAME'")
    type_, name = arguments[0], arguments[1] if len(arguments) == 2 else ""
    if not TYPE.fullmatch(type_):
        raise _Fault("a section type is made of printable ASCII characters without blanks")
    if name and not NAME.fullmatch(name):
        raise _Fault(f"section name {name!r} is not allowed; letters, digits and _ only")
    return type_, name


def _assignment(keyword: str, arguments: list[str]) -> tuple[str, str]:
    if len(arguments) != 2:
        raise _Fault(
            f"{keyword} takes one name and one value on a line of its own; "
            f"a value with blanks needs quotes: {keyword} NAME 'VALUE'"
        )
    name, value = arguments
    if not NAME.fullmatch(name):
        raise _Fault(f"the name after {keyword} is made of letters, digits and _ only")
    return name, value


def _words(content: str) -> list[str]:
    words: list[str] = []
    at, end = 0, len(content)
    while at < end:
        if content[at] in BLANKS:
            at += 1
        elif content[at] == "#":
            break
        else:
            word, at = _word(content, at)
            words.append(word)
    return words


def _word(content: str, at: int) -> tuple[str, int]:
    """One word from position ``at``, and the position after it."""
    pieces: list[str] = []
    while at < len(content) and content[at] not in BLANKS and content[at] != "#":
        character = content[at]
        at += 1
        if character == "'":
            close = content.find("'", at)
            if close < 0:
                raise _Fault("a single quote ' is opened and not closed on this line")
            pieces.append(content[at:close])
            at = close + 1
        elif character == '"':
            piece, at = _double_quoted(content, at)
            pieces.append(piece)
        elif character == ";":
            raise _Fault("one statement to a line; a ; that belongs to a value needs quotes")
        elif character == "\\":
            if at == len(content):
                raise _Fault("nothing follows the backslash; a value ends on the line where it begins")
            pieces.append(content[at])
            at += 1
        else:
            pieces.append(character)
    return "".join(pieces), at


def _double_quoted(content: str, at: int) -> tuple[str, int]:
    """The inside of a double-quoted piece that begins at ``at``, and the position after its closing quote."""
    pieces: list[str] = []
    while at < len(content) and content[at] != '"':
        if content[at] == "\\":
            at += 1
        pieces.append(content[at : at + 1])
        at += 1
    if at >= len(content):
        raise _Fault('a double quote " is opened and not closed on this line')
    return "".join(pieces), at + 1
