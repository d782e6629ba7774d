"""RADIUS accounting (RFC 2866): sessions, the records that tell of them, and those that wait. No IO, no clock: ``now`` in s.

A session is somebody who uses us, not one of his TCP connections. What a record says of bytes is the sum since its session
began, so a later one of the same session makes an earlier one unnecessary, and none that waits is out of date.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple

START, STOP, INTERIM, ON, OFF = 1, 2, 3, 7, 8
"""Acct-Status-Type (RFC 2866 section 5.1)."""
USER_REQUEST, LOST_CARRIER, IDLE_TIMEOUT, SESSION_TIMEOUT, ADMIN_RESET, ADMIN_REBOOT = 1, 2, 4, 5, 6, 7
"""Acct-Terminate-Cause (RFC 2866 section 5.10)."""
MIN_INTERIM_S = 60.0
"""RFC 2869 section 5.16."""
SPOOL_MAX = 4096
"""Records that wait, about 2 MiB: a server may be away for ten minutes while 2,000 sessions begin and end."""


class Who(NamedTuple):
    """Whose session it is, as an Accept or the settings say."""

    user: str
    classes: tuple[bytes, ...] = ()
    """Class attributes of the Accept, sent back as they came (RFC 2865 section 5.25)."""
    addresses: tuple[str, ...] = ()
    interim_s: float = 0.0
    """Between two interim records, as the Accept wants it; 0: as the settings do."""
    port: str = ""
    """Which WAN of a router, NAS-Port-Id; "": all, or it is no router's."""


class Usage(NamedTuple):
    """Sums since the session began."""

    up: int = 0
    """Octets from the subscriber."""
    down: int = 0
    links: int = 0
    """Subflows or lines now, Acct-Link-Count; 0: not told."""


class Record(NamedTuple):
    """One Accounting-Request to be."""

    status: int
    at: float
    """When it was so; Acct-Delay-Time counts from then."""
    session_id: str = ""
    multi_session_id: str = ""
    who: Who = Who("")
    usage: Usage = Usage()
    seconds: float = 0.0
    cause: int = 0
    """Of a STOP."""


class _Session:
    def __init__(self, session_id: str, multi_session_id: str, who: Who, now: float) -> None:
        self.session_id = session_id
        self.multi_session_id = multi_session_id
        self.who = who
        self.usage = Usage()
        self.began = self.seen = self.told = now


class Sessions:
    """Those that are open. ``tell`` gets each record in the order in which things were."""

    def __init__(self, boot: str, *, interim_s: float, tell: Callable[[Record], None]) -> None:
        """``boot``: what no earlier life of this daemon had; session identifiers begin with it."""
        self._boot = boot
        self._interim_s = interim_s
        self._tell = tell
        self._open: dict[Hashable, _Session] = {}
        self._begun = 0

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._open

    def configure(self, interim_s: float) -> None:
        """Another interval, for those that the Accept says nothing of."""
        self._interim_s = interim_s

    def session_id(self, key: Hashable) -> str:
        """Acct-Session-Id; "" for what is not open."""
        session = self._open.get(key)
        return session.session_id if session is not None else ""

    def key_of(self, session_id: str) -> Hashable | None:
        """Whose Acct-Session-Id it is; None: of no open session."""
        return next((key for key, session in self._open.items() if session.session_id == session_id), None)

    def begin(self, now: float, key: Hashable, who: Who, *, multi: str = "") -> None:
        """Somebody uses us from now on; nothing new for one whose session is open, but what is known of him."""
        session = self._open.get(key)
        if session is not None:
            session.who, session.seen = who, now
            return
        self._begun += 1
        session_id = f"{self._boot}-{self._begun:x}"
        self._open[key] = session = _Session(session_id, multi or session_id, who, now)
        self._tell(self._record(START, session, now))

    def used(self, now: float, key: Hashable, usage: Usage) -> None:
        """The sums of now."""
        session = self._open.get(key)
        if session is not None:
            if usage[:2] != session.usage[:2]:
                session.seen = now
            session.usage = usage

    def usage(self, key: Hashable) -> Usage:
        """The sums so far."""
        session = self._open.get(key)
        return session.usage if session is not None else Usage()

    def end(self, now: float, key: Hashable, cause: int) -> None:
        """It is over."""
        session = self._open.pop(key, None)
        if session is not None:
            self._tell(self._record(STOP, session, now)._replace(cause=cause))

    def end_all(self, now: float, cause: int) -> None:
        """All are."""
        for key in list(self._open):
            self.end(now, key, cause)

    def tick(self, now: float, *, idle_s: float = float("inf")) -> None:
        """Interim records that are due; sessions in which nothing happened for ``idle_s`` end."""
        for key, session in list(self._open.items()):
            if now - session.seen >= idle_s:
                self.end(now, key, IDLE_TIMEOUT)
            elif now - session.told >= self._interval_s(session):
                session.told = now
                self._tell(self._record(INTERIM, session, now))

    def _interval_s(self, session: _Session) -> float:
        wanted = session.who.interim_s or self._interim_s
        return max(MIN_INTERIM_S, wanted) if wanted else float("inf")

    def _record(self, status: int, session: _Session, now: float) -> Record:
        return Record(
            status, now, session.session_id, session.multi_session_id, session.who, session.usage, now - session.began
        )


class Spool:
    """Records that wait for a server, oldest first, at most ``limit``."""

    def __init__(self, limit: int = SPOOL_MAX) -> None:
        self._limit = limit
        self._waiting: collections.OrderedDict[int, Record] = collections.OrderedDict()
        self._interims: dict[str, int] = {}
        """Session -> its interim record that waits."""
        self._next = 0
        self.lost = 0
        """Records for which there was no room. Not those that a later one of the same session made unnecessary."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, record: Record) -> None:
        """Last in line. One that says more than an interim of its session that waits takes that one away."""
        if record.status in (INTERIM, STOP):
            self._take(self._interims.get(record.session_id))
        self._next += 1
        self._waiting[self._next] = record
        if record.status == INTERIM:
            self._interims[record.session_id] = self._next
        if len(self._waiting) > self._limit:
            self.lost += 1
            self._take(self._least())

    def first(self) -> tuple[int, Record] | None:
        """The oldest, with its number."""
        return next(iter(self._waiting.items()), None)

    def done(self, number: int) -> None:
        """A server has it."""
        self._take(number)

    def lose(self, number: int) -> None:
        """No server will ever have it."""
        self.lost += 1
        self._take(number)

    def _take(self, number: int | None) -> None:
        record = self._waiting.pop(number, None) if number is not None else None
        if record is not None and self._interims.get(record.session_id) == number:
            del self._interims[record.session_id]

    def _least(self) -> int:
        """The one that is missed least: an interim, the oldest; else a start, since the stop says more; else the oldest."""
        for statuses in ((INTERIM,), (START, ON, OFF)):
            found = next(_with(self._waiting.items(), statuses), None)
            if found is not None:
                return found
        return next(iter(self._waiting))


def _with(rows: Iterable[tuple[int, Record]], statuses: tuple[int, ...]) -> Iterator[int]:
    return (number for number, record in rows if record.status in statuses)
