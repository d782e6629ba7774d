"""Who may use this concentrator: the decision and what is remembered of it. No IO; ``now`` in s is an argument.

Nobody by default (design D16). A listener needs a cookie (:mod:`.cookie_checker`), as every one does that faces the Internet,
or a source address that is known from the subscriber table or from RADIUS, or both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from cpe_mcp.aaa.answer import ACCEPT, REJECT, RadiusAnswer
from cpe_mcp.aaa.session import MIN_SESSION_S, RENEW_SHARE
from cpe_mcp.concentrator.cookie_checker import TAKEN, CookieChecker
from cpe_mcp.concentrator.handles import HandleSessions
from cpe_mcp.concentrator.verdict import Verdict, both
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings.concentrator import ADDRESS, BOTH, RadiusSettings, SubscriberSettings

SILENCE_S = 5.0
"""How long a RADIUS silence counts: long enough not to ask for every connection, short enough to notice its return."""
TABLE_S = 60.0
"""How long a verdict from the table holds in a worker; a changed table is sent to them anyway."""
SESSIONS_MAX = 65536
"""Addresses with an Accept, about 30 MiB; the oldest goes first. Only an Accept takes a place here: whoever comes from many
addresses that RADIUS does not know throws nobody out."""
REFUSALS_MAX = 16384
"""Addresses with a Reject or a silence; the oldest goes first, and is asked about again."""
BEARERS_MAX = 64
"""Subscribers remembered of one address that RADIUS accepts without a name; who came longest ago goes first."""
LAPSED_S = 86400.0
"""How long an address whose Accept has run out is still known: a Disconnect-Request may mean flows that run on from then."""


class AskRadius(NamedTuple):
    """No verdict yet: RADIUS has to be asked about the address, and :meth:`Authorizer.learn` told."""

    proven: Verdict | None = None
    """What the cookie has brought; then :func:`.verdict.both` makes the verdict of the two."""


class Session(NamedTuple):
    """One source address that RADIUS has accepted, and what it said."""

    address: str
    verdict: Verdict
    since: float
    until: float
    scheme: str = ""
    """For the router; the concentrator follows what the router makes of it, and only shows it."""
    filters: tuple[str, ...] = ()
    ends: float = 0.0
    """When its Session-Timeout is over, and with it what its filters do; ``until`` is sooner after settings were read again."""
    is_lapsed: bool = False
    """Its time is over, and that was told."""


class _Refusal(NamedTuple):
    verdict: Verdict
    until: float


class Authorizer:
    """The table of subscribers and what RADIUS said."""

    def __init__(
        self, subscribers: Iterable[SubscriberSettings], radius: RadiusSettings, cookie_secret: str = ""
    ) -> None:
        self._radius = radius
        keys: dict[str, bytes] = {}
        self._disabled: set[str] = set()
        self._table: dict[str, Verdict] = {}
        self._prefixes: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]] = []
        for subscriber in subscribers:
            if not subscriber.enabled:
                self._disabled.add(subscriber.name)
                continue
            cap_mbit = (subscriber.down_mbit, subscriber.up_mbit)
            self._table[subscriber.name] = Verdict(
                "accept", subscriber.name, TABLE_S, Reason.READY, cap_mbit, subscriber.connections
            )
            if subscriber.key:
                keys[subscriber.name] = subscriber.key.encode()
            self._prefixes += [(ipaddress.ip_network(text), subscriber.name) for text in subscriber.address]
        self._prefixes.sort(key=lambda row: -row[0].prefixlen)
        self.cookies = CookieChecker(keys, cookie_secret.encode())
        self.handles = HandleSessions()
        self._sessions: dict[str, Session] = {}
        self._by_subscriber: dict[str, set[str]] = {}
        """Addresses of each subscriber that RADIUS knows."""
        self._bearers: dict[str, dict[str, None]] = {}
        """Of an address whose subscriber RADIUS does not name: who came from there with cookies."""
        self._refusals: dict[str, _Refusal] = {}
        self._unfiltered: set[str] = set()
        self._ended: set[str] = set()

    def judge(
        self, *, address: str, cookie: bytes, needs: str, now: float, clock_s: float, unix_s: float
    ) -> Verdict | AskRadius:
        """The verdict on one connection; ``needs`` is what its listener needs. A cookie is used up by this. For ``clock_s`` and
        ``unix_s`` see :mod:`.cookie_checker`."""
        proven = None
        if cookie:
            proven = self._judge_cookie(cookie, now, clock_s, unix_s)
            if proven.kind != "accept" or needs != BOTH:
                return proven
        elif needs != ADDRESS:
            return self._tell_time(Reason.COOKIE_WANTED, clock_s)
        verdict = self._judge_address(address, now)
        if verdict is None:
            return AskRadius(proven)
        return self.both(proven, verdict, address)

    def both(self, proven: Verdict | None, known: Verdict, address: str) -> Verdict:
        """See :func:`.verdict.both`; who it is is remembered with the address."""
        verdict = both(proven, known, address)
        if verdict.kind == "accept" and address in self._sessions and verdict.subscriber != known.subscriber:
            bearers = self._bearers.setdefault(address, {})
            bearers.pop(verdict.subscriber, None)
            bearers[verdict.subscriber] = None
            if len(bearers) > BEARERS_MAX:
                del bearers[next(iter(bearers))]
        return verdict

    def _judge_address(self, address: str, now: float) -> Verdict | None:
        """None: RADIUS has to be asked."""
        name = self.table_name_of(address)
        if name:
            return self._table[name]
        if not self._radius.enabled:
            return Verdict("reject", "", TABLE_S, Reason.UNKNOWN_ADDRESS)
        for row in (self._sessions.get(address), self._refusals.get(address)):
            if row is not None and row.until > now:
                return row.verdict._replace(ttl_s=row.until - now)
        return None

    def inherit(self, other: Authorizer, now: float) -> None:
        """Settings were read again: RADIUS is asked anew about everybody, and ``other``'s sessions are still known."""
        self.cookies.inherit(other.cookies)
        self.handles = other.handles
        for session in other._sessions.values():
            self._put(session._replace(until=min(session.until, now), is_lapsed=True))

    def wants_renewal(self, address: str, now: float) -> bool:
        """Whether to ask again although an Accept holds: it ends soon, and connections come from there."""
        session = self._sessions.get(address)
        if session is None:
            return False
        return session.since + RENEW_SHARE * (session.until - session.since) <= now < session.until

    def wants_terms(self, address: str, subscriber: str, now: float) -> bool:
        """Whether RADIUS may know terms for a subscriber who has proven himself: it was not asked about his address."""
        if not self._radius.enabled or subscriber in self._table or self.table_name_of(address):
            return False
        return all(
            row is None or row.until <= now for row in (self._sessions.get(address), self._refusals.get(address))
        )

    def is_known(self, address: str) -> bool:
        """Whether RADIUS has accepted this address lately, if it does now or not."""
        return address in self._sessions

    def learn(self, address: str, answer: RadiusAnswer, now: float) -> Verdict:
        """RADIUS answered, or did not. Silence takes back no Accept that holds."""
        radius = self._radius
        if answer.verdict == ACCEPT:
            wanted_s = answer.session_timeout_s
            ttl_s = radius.positive_s if wanted_s is None else wanted_s or MIN_SESSION_S
            cap_mbit = (float(answer.down_mbit), float(answer.up_mbit))
            verdict = Verdict("accept", answer.user or address, ttl_s, Reason.READY, cap_mbit, answer.connections)
            self._refusals.pop(address, None)
            self._put(Session(address, verdict, now, now + ttl_s, answer.scheme, answer.filters, now + ttl_s))
            if len(self._sessions) > SESSIONS_MAX:
                self.withdraw(next(iter(self._sessions)))
            return verdict
        if answer.verdict == REJECT:
            self.withdraw(address)
            verdict = Verdict("reject", "", radius.negative_s, Reason.NOT_AUTHORIZED)
        else:
            session = self._sessions.get(address)
            if session is not None and session.until > now:
                return session.verdict._replace(ttl_s=session.until - now)
            verdict = Verdict("reject", "", SILENCE_S, Reason.AUTH_TIMEOUT)
        self._refusals.pop(address, None)
        self._refusals[address] = _Refusal(verdict, now + verdict.ttl_s)
        if len(self._refusals) > REFUSALS_MAX:
            del self._refusals[next(iter(self._refusals))]
        return verdict

    # Sessions ---------------------------------------------------------------------------------------------------------

    def session(self, address: str) -> Session | None:
        """That of this address, lapsed or not."""
        return self._sessions.get(address)

    def names_at(self, session: Session) -> tuple[str, ...]:
        """Whose flows the session of an address is about: not those of everybody who comes from there."""
        return (session.verdict.subscriber, *self._bearers.get(session.address, ()))

    def addresses_of(self, subscriber: str) -> frozenset[str]:
        """Of a subscriber that RADIUS knows."""
        return frozenset(self._by_subscriber.get(subscriber, ()))

    def table_row(self, name: str) -> Verdict | None:
        """How this subscriber of the table is served."""
        return self._table.get(name)

    def table_name_of(self, address: str) -> str:
        """Whose prefix of the table this address is in; "": nobody's."""
        source = ipaddress.ip_address(address)
        for network, name in self._prefixes:
            if source.version == network.version and source in network:
                return name
        return ""

    def replace(self, sessions: Iterable[Session], table: Mapping[str, Verdict], handles: Iterable[Verdict]) -> None:
        """These sessions, these subscribers of the table, and these who came with a handle, are served so from now on."""
        for session in sessions:
            bearers = self._bearers.get(session.address)
            self._put(session)
            if bearers:
                self._bearers[session.address] = bearers
        self._table |= table
        for verdict in handles:
            self.handles.change(verdict)

    def withdraw(self, address: str) -> None:
        """Nothing is known of this address any more; RADIUS is asked at its next connection."""
        self._refusals.pop(address, None)
        session = self._sessions.pop(address, None)
        if session is not None:
            self._bearers.pop(address, None)
            self._unfilter(session)
            name = session.verdict.subscriber
            self._by_subscriber[name].discard(address)
            if not self._by_subscriber[name]:
                del self._by_subscriber[name]
                self._ended.add(name)

    def expired(self, now: float) -> list[str]:
        """Addresses whose verdict has run out, each told once."""
        self.handles.tick(now)
        gone = [address for address, row in self._refusals.items() if row.until <= now]
        for address in gone:
            del self._refusals[address]
        for address, session in list(self._sessions.items()):
            if session.until + LAPSED_S <= now:
                self.withdraw(address)
                continue
            is_lapsed = session.until <= now
            if is_lapsed and not session.is_lapsed:
                gone.append(address)
            filters = session.filters if session.ends > now else ()
            if session.filters and not filters:
                self._unfilter(session)
            self._sessions[address] = session._replace(is_lapsed=is_lapsed, filters=filters)
        return gone

    def take_unfiltered(self) -> list[str]:
        """Addresses that had filters when their session ended, since the last call, and have none now."""
        gone = [address for address in self._unfiltered if not self.filters_of(address)]
        self._unfiltered.clear()
        return gone

    def unfilter_again(self, addresses: Iterable[str]) -> None:
        """What :meth:`take_unfiltered` gave could not be carried out."""
        self._unfiltered.update(addresses)

    def take_ended(self) -> list[str]:
        """Subscribers whose last session has ended, or is long over, since the last call, and who have none now."""
        self._ended |= self.handles.take_gone()
        gone = [name for name in self._ended if not self.is_served(name)]
        self._ended.clear()
        return gone

    def is_served(self, subscriber: str) -> bool:
        """Whether he is in the table, or known from RADIUS or by a handle."""
        return subscriber in self._by_subscriber or subscriber in self._table or subscriber in self.handles

    def counts(self, now: float) -> dict[str, int]:
        """Addresses that have an Accept now, those that are refused, and those whose Accept is over and still known."""
        accepted = sum(1 for session in self._sessions.values() if session.until > now)
        refused = sum(1 for row in self._refusals.values() if row.until > now)
        return {"accepted": accepted, "refused": refused, "lapsed": len(self._sessions) - accepted}

    def filters_of(self, address: str) -> tuple[str, ...]:
        """Names of the filters that RADIUS wants for it."""
        session = self._sessions.get(address)
        return session.filters if session is not None else ()

    def status(self, now: float, limit: int | None = None) -> list[dict[str, object]]:
        """What RADIUS said of whom, for people: the latest ones of each kind."""
        rows: list[dict[str, object]] = []
        known: list[tuple[str, Session | _Refusal]] = []
        for table in (self._sessions, self._refusals):
            known += islice(reversed(table.items()), limit)
        for address, row in known:
            if row.until <= now:
                continue
            session = row if isinstance(row, Session) else None
            rows.append(
                {
                    "address": address,
                    "verdict": row.verdict.kind,
                    "subscriber": row.verdict.subscriber,
                    "reason": row.verdict.reason,
                    "left_s": round(row.until - now, 1),
                    "connections": row.verdict.connections,
                    "scheme": session.scheme if session is not None else "",
                    "filters": list(session.filters) if session is not None else [],
                }
            )
        return rows

    def _unfilter(self, session: Session) -> None:
        if session.filters:
            self._unfiltered.add(session.address)

    def _put(self, session: Session) -> None:
        """Last in line: the one that was accepted longest ago goes first."""
        self.withdraw(session.address)
        self._sessions[session.address] = session
        self._by_subscriber.setdefault(session.verdict.subscriber, set()).add(session.address)

    def _judge_cookie(self, cookie: bytes, now: float, clock_s: float, unix_s: float) -> Verdict:
        checked = self.cookies.check(cookie, clock_s, unix_s)
        name = checked.subscriber
        if checked.outcome == Reason.COOKIE_TIME:
            return self._tell_time(Reason.COOKIE_TIME, clock_s)
        if checked.outcome == Reason.COOKIES_FULL:
            return Verdict("later", "", 0.0, Reason.COOKIES_FULL)
        if checked.outcome != TAKEN:
            return Verdict("reject", "", 0.0, checked.outcome)
        if name in self._table:
            return self._table[name]._replace(ttl_s=0.0)
        if name in self._disabled:
            return Verdict("reject", "", 0.0, Reason.UNKNOWN_SUBSCRIBER)
        before = self.handles.get(name)
        brought = self.handles.bring(name, checked.expires, now, unix_s)
        if brought.kind != "accept":
            return brought
        is_called_back = before is not None and before.verdict.reason == Reason.MOVED
        for address in sorted(self._by_subscriber.get(name, ())):  # what RADIUS says of one of his addresses
            session = self._sessions[address]
            if is_called_back and session.verdict.reason == Reason.MOVED:
                self.withdraw(address)
            elif session.until > now:
                return session.verdict._replace(ttl_s=0.0)
        return brought

    def _tell_time(self, reason: str, clock_s: float) -> Verdict:
        """Error 3 with the time, from which the router makes another cookie; an Error 32 where nobody could make one."""
        challenge = self.cookies.challenge(clock_s)
        if challenge is None:
            return Verdict("reject", "", 0.0, reason)
        return Verdict("missing-cookie", "", 0.0, reason, cookie=challenge)
