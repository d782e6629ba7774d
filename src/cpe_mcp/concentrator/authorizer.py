"""Who may use this concentrator: the decision and what is remembered of it. No IO; ``now`` in s is an argument.

Nobody by default (design D16). On a listener that faces the Internet only a valid cookie counts; on one that faces customers
a known source address does too, known from the subscriber table or from RADIUS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from cpe_mcp.aaa.answer import ACCEPT, REJECT, RadiusAnswer
from cpe_mcp.aaa.cookie import check_cookie, subscriber_of
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings.concentrator import RadiusSettings, SubscriberSettings

SILENCE_S = 5.0
"""How long a RADIUS silence counts: long enough not to ask for every connection, short enough to notice its return."""
TABLE_S = 60.0
"""How long a verdict from the table holds in a worker; a changed table is sent to them anyway."""
CACHE_MAX = 65536
"""Addresses remembered, about 20 MiB; the oldest goes first."""

NO_CAP = (0.0, 0.0)


class Verdict(NamedTuple):
    """What a worker is told."""

    kind: str
    """``accept`` or ``reject``."""
    subscriber: str
    """Name in the table, or what RADIUS calls it, or its address."""
    ttl_s: float
    reason: str
    cap_mbit: tuple[float, float] = NO_CAP
    """Of an accepted subscriber, down and up; 0: none."""


class _Remembered(NamedTuple):
    verdict: Verdict
    until: float


class Authorizer:
    """The table of subscribers and what RADIUS said."""

    def __init__(self, subscribers: Iterable[SubscriberSettings], radius: RadiusSettings) -> None:
        self._radius = radius
        self._keys: dict[str, str] = {}
        self._caps: dict[str, tuple[float, float]] = {}
        self._prefixes: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]] = []
        for subscriber in subscribers:
            if not subscriber.enabled:
                continue
            self._caps[subscriber.name] = (subscriber.down_mbit, subscriber.up_mbit)
            if subscriber.key:
                self._keys[subscriber.name] = subscriber.key
            self._prefixes += [(ipaddress.ip_network(text), subscriber.name) for text in subscriber.address]
        self._prefixes.sort(key=lambda row: -row[0].prefixlen)
        self._remembered: dict[str, _Remembered] = {}

    def judge(self, *, address: str, cookie: bytes, facing: str, now: float) -> Verdict | None:
        """The verdict, or None: ask RADIUS about the address and tell :meth:`learn`."""
        if cookie:
            return self._judge_cookie(cookie)
        if facing != "customer":
            return Verdict("reject", "", TABLE_S, Reason.COOKIE_WANTED)
        source = ipaddress.ip_address(address)
        for network, name in self._prefixes:
            if source.version == network.version and source in network:
                return self._accept(name)
        if not self._radius.enabled:
            return Verdict("reject", "", TABLE_S, Reason.UNKNOWN_ADDRESS)
        remembered = self._remembered.get(address)
        if remembered is not None and remembered.until > now:
            return remembered.verdict._replace(ttl_s=remembered.until - now)
        return None

    def learn(self, address: str, answer: RadiusAnswer, now: float) -> Verdict:
        """RADIUS answered, or did not."""
        radius = self._radius
        if answer.verdict == ACCEPT:
            ttl_s = answer.session_timeout_s or radius.positive_s
            cap_mbit = (float(answer.down_mbit), float(answer.up_mbit))
            verdict = Verdict("accept", answer.user or address, ttl_s, Reason.READY, cap_mbit)
        elif answer.verdict == REJECT:
            verdict = Verdict("reject", "", radius.negative_s, Reason.NOT_AUTHORIZED)
        else:
            verdict = Verdict("reject", "", SILENCE_S, Reason.AUTH_TIMEOUT)
        self._remembered.pop(address, None)
        self._remembered[address] = _Remembered(verdict, now + verdict.ttl_s)
        if len(self._remembered) > CACHE_MAX:
            del self._remembered[next(iter(self._remembered))]
        return verdict

    def expired(self, now: float) -> list[str]:
        """Addresses whose verdict has run out; they are forgotten here."""
        gone = [address for address, row in self._remembered.items() if row.until <= now]
        for address in gone:
            del self._remembered[address]
        return gone

    def status(self, now: float) -> list[dict[str, object]]:
        """What RADIUS said of whom, for people."""
        return [
            {
                "address": address,
                "verdict": row.verdict.kind,
                "subscriber": row.verdict.subscriber,
                "reason": row.verdict.reason,
                "left_s": round(row.until - now, 1),
            }
            for address, row in self._remembered.items()
        ]

    def _judge_cookie(self, cookie: bytes) -> Verdict:
        name = subscriber_of(cookie)
        key = self._keys.get(name) if name is not None else None
        if name is None or key is None:
            return Verdict("reject", "", TABLE_S, Reason.UNKNOWN_SUBSCRIBER)
        if not check_cookie(cookie, key):
            return Verdict("reject", "", TABLE_S, Reason.WRONG_COOKIE)
        return self._accept(name)

    def _accept(self, name: str) -> Verdict:
        return Verdict("accept", name, TABLE_S, Reason.READY, self._caps[name])
