"""Why a RADIUS server gave no answer, as data (design D8): a code and its arguments, so that the UI can say it in another
language. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Trouble = dict[str, Any]
"""``{"code": one of TROUBLES, "args": [...]}``; an argument is a text, or a trouble of its own. Ready for JSON."""

TROUBLES = {
    "server-over": "%s over %s",
    "server-silent": "%s did not answer",
    "server-unreachable": "%s is unreachable (%s)",
    "server-no-family": "%s: no WAN that may carry the question has an address of its family",
    "server-no-secret": "%s did not answer: is it running, does it know this client and the same secret?",
    "server-unsigned": "%s answers without Message-Authenticator: bring it up to date (CVE-2024-3596)",
    "server-forged": "%s gave an answer that does not prove the secret: is radius.secret the same at both ends?",
    "server-elsewhere": "%s answered from another address: make it answer from the one it was asked at",
    "question-no-way": "no WAN that may carry the question is up",
    "accounting-no-way": "no WAN that may carry it is up",
    "session-ended": "the server has ended the session (Disconnect-Request)",
}
"""Each ``%s`` takes the next argument."""


def say(code: str, *arguments: str | Trouble) -> Trouble:
    """One trouble."""
    return {"code": code, "args": [*arguments]}


def asked(server: str, wan: str) -> str | Trouble:
    """Who was asked, as an argument; ``wan`` "": by whatever way."""
    return say("server-over", server, wan) if wan else server


def read(troubles: Iterable[Trouble]) -> str:
    """All of them for people."""
    return "; ".join(map(_read, troubles))


def _read(trouble: Trouble) -> str:
    arguments = [_read(argument) if isinstance(argument, dict) else argument for argument in trouble["args"]]
    return TROUBLES[trouble["code"]] % tuple(arguments)
