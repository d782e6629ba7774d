"""Packets of dynamic authorization (RFC 5176): who may send one, is it authentic, fresh and new; and the answer as bytes.

Whatever fails these checks is discarded without an answer, and counted. No IO and no clock; packets are pyrad's.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple

from pyrad.dictionary import Dictionary
from pyrad.packet import CoAPacket, PacketError

from cpe_mcp.aaa.dictionary import dictionary_text
from cpe_mcp.aaa.dynamic import (
    ACCT_TERMINATE_CAUSE,
    ADMIN_RESET,
    COA_ACK,
    COA_NAK,
    COA_REQUEST,
    DISCONNECT_ACK,
    DISCONNECT_NAK,
    DISCONNECT_REQUEST,
    ERROR_CAUSE,
    EVENT_TIMESTAMP,
    PROXY_STATE,
    STATE,
    Attributes,
    Decision,
)

log = logging.getLogger(__name__)

HEADER_OCTETS = 20
MAX_PACKET_OCTETS = 4096
"""RFC 5176 section 2.3."""
ANSWERS_MAX = 16384
"""Answers kept for retransmissions, about 8 MiB; only who proves a secret takes a place. The oldest goes first."""
TOLD_EVERY_S = 60.0
"""Between two log lines about discarded packets of one kind: anybody can send them."""

NAMES = {
    COA_ACK: "coa-ack",
    COA_NAK: "coa-nak",
    DISCONNECT_ACK: "disconnect-ack",
    DISCONNECT_NAK: "disconnect-nak",
}
DUPLICATE = "duplicate"
DISCARDS = {
    "unknown-peer": "no secret belongs to its address",
    "malformed": "no RADIUS packet",
    "unexpected": "neither a CoA- nor a Disconnect-Request",
    "forged": "its authenticator is wrong: a forgery, or another secret",
    "unsigned": "no Message-Authenticator, which require_message_authenticator wants",
    "no-timestamp": "no Event-Timestamp, which require_timestamp wants",
    "stale": "its Event-Timestamp is too far from our clock: a replay, or a wrong clock",
}
"""Why a packet was discarded, by the name of its counter."""


class Rules(NamedTuple):
    """What the settings say."""

    secrets: Mapping[str, bytes]
    """By source address: who may send."""
    enterprise: int
    require_message_authenticator: bool = True
    require_timestamp: bool = True
    window_s: float = 300.0
    """How far Event-Timestamp may be from our clock, and how long a retransmission is known as one (RFC 5176 section 6.3)."""


class _Answer(NamedTuple):
    data: bytes
    until: float


class _Discarded(Exception):
    """There is no answer; one of :data:`DISCARDS`."""


class DynamicAuthorization:
    """``decide(code, attributes)`` is asked once for each request that is authentic, fresh and new."""

    def __init__(self, rules: Rules, decide: Callable[[int, Attributes], Decision]) -> None:
        self._decide = decide
        self._answers: dict[tuple[Any, ...], _Answer] = {}
        self._newest: dict[str, int] = {}
        """Highest Event-Timestamp by peer: the clock of one that has none."""
        self._told: dict[str, float] = {}
        self.counters: Counter[str] = Counter()
        """Requests by answer, retransmissions (``duplicate``) and :data:`DISCARDS`."""
        self.by_peer: dict[str, Counter[str]] = {}
        """The same for each address that has a secret."""
        self.configure(rules)

    def configure(self, rules: Rules) -> None:
        """Other settings."""
        self._rules = rules
        self._dictionary = Dictionary(io.StringIO(dictionary_text(rules.enterprise)))
        self.by_peer = {address: self.by_peer.get(address, Counter()) for address in rules.secrets}
        self._newest = {address: value for address, value in self._newest.items() if address in rules.secrets}

    def inherit(self, other: DynamicAuthorization) -> None:
        """What another one has answered and counted, as if it had been this one."""
        self._answers, self._newest, self.counters, self.by_peer = (
            other._answers,
            other._newest,
            other.counters,
            other.by_peer,
        )
        self.configure(self._rules)

    def receive(self, data: bytes, source: tuple[str, int], *, now: float, unix: float | None) -> bytes | None:
        """The answer to a datagram; None: there is none. ``unix``: time of day, None where the clock was never set."""
        address = plain_address(source[0])
        try:
            return self._answer(data, address, source[1], now, unix)
        except _Discarded as error:
            self._discard(str(error), address, now)
            return None

    def status(self) -> dict[str, Any]:
        """What came of requests, for people; ready for JSON."""
        return {
            "counters": dict(self.counters),
            "peers": [{"address": address, "counters": dict(counts)} for address, counts in self.by_peer.items()],
        }

    def _answer(self, data: bytes, address: str, port: int, now: float, unix: float | None) -> bytes:
        secret = self._rules.secrets.get(address)
        if secret is None:
            raise _Discarded("unknown-peer")
        try:
            packet = CoAPacket(packet=data[:MAX_PACKET_OCTETS], secret=secret, dict=self._dictionary)
        except PacketError:
            raise _Discarded("malformed") from None
        if packet.code not in (COA_REQUEST, DISCONNECT_REQUEST):
            raise _Discarded("unexpected")
        if not packet.VerifyCoARequest() or not self._is_signed_well(packet):
            raise _Discarded("forged")
        if self._rules.require_message_authenticator and not packet.message_authenticator:
            raise _Discarded("unsigned")
        stamps = packet.get(EVENT_TIMESTAMP, [])
        # With a timestamp the request authenticator is that of one request only: who has overheard it and sends it from
        # another port is known too. Without one, a server may well mean the same twice.
        key = (address, packet.authenticator) if stamps else (address, port, packet.id, packet.authenticator)
        self._forget_answers(now)
        known = self._answers.get(key)
        if known is not None:
            self._count(DUPLICATE, address)
            return known.data
        if not stamps and self._rules.require_timestamp:
            raise _Discarded("no-timestamp")
        ahead_s = self._ahead(stamps, address, unix)
        if ahead_s is None:
            raise _Discarded("stale")
        decision = self._decide(packet.code, {key: list(values) for key, values in packet.items()})
        answer = _push_answer(packet, decision)
        self._answers[key] = _Answer(answer, now + self._rules.window_s + max(0.0, ahead_s))
        if len(self._answers) > ANSWERS_MAX:
            del self._answers[next(iter(self._answers))]
        self._count(NAMES[decision.code], address)
        log.info("%s to %s: %s", NAMES[decision.code], address, decision.text or f"{decision.sessions} sessions")
        return answer

    def _is_signed_well(self, packet: Any) -> bool:
        """Whether Message-Authenticator, where there is one, is right (RFC 5176 section 3.4)."""
        return not packet.message_authenticator or bool(packet.verify_message_authenticator())

    def _ahead(self, stamps: list[bytes], address: str, unix: float | None) -> float | None:
        """How far Event-Timestamp is ahead of the clock, s; None: too far, either way."""
        if not stamps:
            return 0.0
        if len(stamps) > 1 or len(stamps[0]) != 4:
            return None
        stamp = int.from_bytes(stamps[0], "big")
        newest = self._newest.get(address, stamp)
        clock = float(newest) if unix is None else unix
        if abs(stamp - clock) > self._rules.window_s and (unix is not None or stamp < clock):
            return None
        self._newest[address] = max(newest, stamp)
        return stamp - clock

    def _forget_answers(self, now: float) -> None:
        while self._answers:
            oldest = next(iter(self._answers))
            if self._answers[oldest].until > now:
                return
            del self._answers[oldest]

    def _discard(self, kind: str, address: str, now: float) -> None:
        self._count(kind, address)
        if now >= self._told.get(kind, now):
            self._told[kind] = now + TOLD_EVERY_S
            log.warning("dynamic authorization: a packet from %s was discarded: %s", address, DISCARDS[kind])

    def _count(self, kind: str, address: str) -> None:
        self.counters[kind] += 1
        if address in self.by_peer:
            self.by_peer[address][kind] += 1


def plain_address(text: str) -> str:
    """An address as settings have it: IPv4 without its IPv6 mapping, no zone."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _push_answer(request: Any, decision: Decision) -> bytes:
    reply = request.CreateReply()
    reply.code = decision.code
    proxies = reply.pop(PROXY_STATE, [])
    reply.add_message_authenticator()  # before all others: it is sent first
    if proxies:
        reply[PROXY_STATE] = proxies
    if STATE in request:
        reply[STATE] = list(request.get(STATE))
    if decision.error_cause is not None:
        reply[ERROR_CAUSE] = [int(decision.error_cause).to_bytes(4, "big")]
    elif decision.code == DISCONNECT_ACK:
        reply[ACCT_TERMINATE_CAUSE] = [ADMIN_RESET.to_bytes(4, "big")]
    data: bytes = reply.ReplyPacket()
    return data
