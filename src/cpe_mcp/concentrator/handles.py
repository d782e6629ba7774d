"""Subscribers who are known by an operator's handle (:mod:`cpe_mcp.aaa.cookie`, kind 1) and perhaps by nothing else: what a
CoA- or Disconnect-Request has to know of them. No IO; ``now`` in s, monotonic, and ``unix_s`` are arguments.

A handle says who it is and until when, and no more. So a CoA-Request's terms are kept here until his last handle is over, and
a Disconnect-Request ends handles by their end: who has been accepted again since has a later one.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from cpe_mcp.concentrator.verdict import Verdict
from cpe_mcp.policy.reasons import Reason

HANDLES_MAX = 65536
"""Subscribers, 21 MiB with names of 30 octets; who brought a cookie longest ago goes first."""
ENDED_MAX = 65536
"""Of whom handles are ended that have time left, 27 MiB. None of them may be forgotten, so another is not taken."""
KEPT_S = 86400.0
"""How long after its end a handle is still known: flows that it began may run on, and a clock that is set back must not make
an ended handle good again."""


class HandleSession(NamedTuple):
    """One subscriber who came with a handle."""

    verdict: Verdict
    expires: int
    """The end of his latest handle, Unix time in s."""
    until: float
    """The same by the monotonic clock, as it was reckoned when the handle came."""


class HandleSessions:
    """Those that are known here, and those whose handles are ended."""

    def __init__(self) -> None:
        self._known: dict[str, HandleSession] = {}
        self._ended: dict[str, HandleSession] = {}
        self._gone: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def get(self, name: str) -> HandleSession | None:
        """His, if he came with a handle that is not ended."""
        return self._known.get(name)

    def bring(self, name: str, expires: int, now: float, unix_s: float) -> Verdict:
        """He came with a handle that is good until ``expires``: how he is served."""
        ended = self._ended.get(name)
        if ended is not None and expires <= ended.expires:
            return Verdict("reject", "", 0.0, Reason.HANDLE_ENDED)
        session = self._known.pop(name, None)
        if session is None:
            session = HandleSession(Verdict("accept", name, 0.0, Reason.READY), expires, now + expires - unix_s)
        elif expires > session.expires:  # he was accepted anew, and AAA has told him again where to go
            verdict = session.verdict._replace(kind="accept", reason=Reason.READY)
            session = HandleSession(verdict, expires, now + expires - unix_s)
        self._known[name] = session
        if len(self._known) > HANDLES_MAX:
            self._forget(next(iter(self._known)))
        return session.verdict

    def change(self, verdict: Verdict) -> None:
        """He is served so from now on."""
        session = self._known.get(verdict.subscriber)
        if session is not None:
            self._known[verdict.subscriber] = session._replace(verdict=verdict._replace(ttl_s=0.0))

    def has_room(self, names: int) -> bool:
        """Whether :meth:`end` can take so many."""
        return len(self._ended) + names <= ENDED_MAX

    def end(self, name: str, now: float, unix_s: float, ttl_s: float = 0.0) -> None:
        """The handles that he has come with are worth nothing any more, nor are any that end sooner. ``ttl_s``: how long AAA
        makes handles for; with it nor is any that he may have by now, whether or not it was seen here."""
        nobody = HandleSession(Verdict("reject", name, 0.0, Reason.HANDLE_ENDED), 0, now)
        known, ended = self._known.get(name, nobody), self._ended.get(name, nobody)
        possible = nobody._replace(expires=int(unix_s + ttl_s), until=now + ttl_s) if ttl_s else nobody
        last = max(known, ended, possible, key=lambda session: session.expires)
        if last.expires:
            self._ended[name] = last
        if name in self._known:
            self._forget(name)

    def tick(self, now: float) -> None:
        """Time passed."""
        for name in [name for name, session in self._known.items() if session.until + KEPT_S <= now]:
            self._forget(name)
        for name in [name for name, session in self._ended.items() if session.until + KEPT_S <= now]:
            del self._ended[name]

    def take_gone(self) -> set[str]:
        """Who is known no more since the last call."""
        gone, self._gone = self._gone - self._known.keys(), set()
        return gone

    def counts(self, now: float) -> dict[str, int]:
        """Subscribers with a handle that holds, and those whose handles were ended and would hold."""
        return {
            "known": sum(1 for session in self._known.values() if session.until > now),
            "ended": sum(1 for session in self._ended.values() if session.until > now),
        }

    def status(self, now: float, limit: int | None = None) -> list[dict[str, object]]:
        """For people, both kinds, the latest ones of each."""
        return [
            {
                "subscriber": name,
                "verdict": "reject" if is_ended else session.verdict.kind,
                "reason": Reason.HANDLE_ENDED if is_ended else session.verdict.reason,
                "left_s": round(session.until - now, 1),
                "connections": session.verdict.connections,
            }
            for is_ended, rows in ((False, self._known), (True, self._ended))
            for name, session in islice(reversed(rows.items()), limit)
            if session.until > now
        ]

    def _forget(self, name: str) -> None:
        del self._known[name]
        self._gone.add(name)
