"""The Identification Protocol's lines (RFC 1413 sections 3 to 6). Pure.

A question names a connection by two ports, that of the host which is asked first. Here a concentrator asks the router that a
connection came from, and the answer says whose it is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PORT = 113
QUESTION_MAX = 1000
"""Octets of a line (RFC 1413 section 4 wants at least so many to be taken)."""
USER_MAX = 512
"""Octets of a user id (section 6)."""
NO_USER, HIDDEN_USER, INVALID_PORT, UNKNOWN_ERROR = "NO-USER", "HIDDEN-USER", "INVALID-PORT", "UNKNOWN-ERROR"
"""Errors: there is no such connection, it is not said whose, this is no question, it is not said why."""

_PORTS = re.compile(rb"[ \t]*(\d{1,5})[ \t]*,[ \t]*(\d{1,5})[ \t]*")


class Ports(NamedTuple):
    """Which connection: the port at the host that is asked, and the one at the host that asks."""

    theirs: int
    ours: int


class Answer(NamedTuple):
    """``user`` is "" when none was told; then ``error`` says why, in the other end's word."""

    user: str
    error: str


class IdentError(ValueError):
    """The line is none of this protocol."""


def question(ports: Ports) -> bytes:
    """What is asked about a connection."""
    return b"%d, %d\r\n" % ports


def pull_question(line: bytes) -> Ports:
    """The ports that a question names, seen from who asks. Raises IdentError."""
    found = _PORTS.fullmatch(line.rstrip(b"\r\n"))
    if found is None:
        raise IdentError("no pair of ports")
    ports = Ports(int(found[1]), int(found[2]))
    if not all(0 < port < 65536 for port in ports):
        raise IdentError("a port is from 1 to 65535")
    return ports


def answer_user(ports: Ports, user: str) -> bytes:
    """The answer that tells. The type OTHER: the id is the operator's own, no name of an operating system (section 6.1)."""
    return b"%d, %d : USERID : OTHER : %s\r\n" % (*ports, user.encode())


def answer_error(ports: Ports, error: str) -> bytes:
    """The answer that does not."""
    return b"%d, %d : ERROR : %s\r\n" % (*ports, error.encode())


def pull_answer(line: bytes, ports: Ports) -> Answer:
    """What was answered to :func:`question`. Raises IdentError, also when it is about another connection."""
    parts = line.rstrip(b"\r\n").split(b":", 2)
    if len(parts) != 3 or pull_question(parts[0]) != ports:
        raise IdentError("no answer to this question")
    kind = parts[1].strip()
    if kind == b"ERROR":
        return Answer("", _text(parts[2].strip()))
    system, colon, user = parts[2].partition(b":")
    if kind != b"USERID" or not colon or not system.strip():
        raise IdentError("neither USERID nor ERROR")
    name = _text(user.strip())  # a blank before an id belongs to it (section 6.2), but many programs put one there
    if not name:
        raise IdentError("an empty user id")
    return Answer(name, "")


def fits(user: str) -> bool:
    """Whether this can be an id: printable, no blank at its ends, not too long."""
    return bool(user) and user.isprintable() and user == user.strip() and len(user.encode()) <= USER_MAX


def _text(value: bytes) -> str:
    """What may go to a status page and a log. Raises IdentError."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise IdentError("no UTF-8") from None
    if len(value) > USER_MAX or not text.isprintable():
        raise IdentError("no printable text, or too long")
    return text
