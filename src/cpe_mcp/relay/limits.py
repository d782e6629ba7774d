"""What a worker lets peers make it do: rates, and how many strangers it holds. No IO; ``now`` in s is an argument.

A *stranger* is a connection whose subscriber was not accepted, from accept to its end. Everything here is bounded by its own
numbers, not by the peers' behaviour. Of those who are served only their own rate and number of flows are limited.
"""

from __future__ import annotations

import _socket
from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

KEYS_MAX = 8192
"""Prefixes, or subscribers, whose rate is remembered: about 1 MiB. The one that was not seen for longest goes first; it has
its whole burst again when it comes back, so the rates for all together are what bounds many prefixes."""
BURST_S = 2.0
"""A burst may have what comes in this time."""
KNOWN_FACTOR = 10
"""So many times the questions, and errors, of a prefix are for those of its addresses where a subscriber is served: each of
their connections that brings a cookie is a question."""
V4_BITS, V6_BITS = 32, 128


def prefix_of(address: str, v4_bits: int, v6_bits: int) -> bytes:
    """The prefix of an address as it is in a socket (no mapped one), as a key; families do not mix. Link-local addresses with
    their zone share one."""
    if ":" not in address:
        packed, drop = _socket.inet_pton(_socket.AF_INET, address), V4_BITS - v4_bits
    else:
        packed, drop = _socket.inet_pton(_socket.AF_INET6, address.partition("%")[0]), V6_BITS - v6_bits
    return (int.from_bytes(packed, "big") >> drop).to_bytes(len(packed), "big")


class Rate:
    """So many a second and not more, by the generic cell rate algorithm: the time at which the burst is whole again."""

    __slots__ = ("_ahead_s", "_each_s", "_whole_at")

    def __init__(self, per_s: float) -> None:
        """0: nothing at all."""
        self._each_s = 1.0 / per_s if per_s else 0.0
        self._ahead_s = BURST_S if per_s * BURST_S >= 1 else self._each_s
        self._whole_at = 0.0

    def takes(self, now: float) -> bool:
        """One more; False: it is too much, and does not count."""
        whole_at = max(self._whole_at, now) + self._each_s
        if not self._each_s or whole_at - now > self._ahead_s + 1e-9:
            return False
        self._whole_at = whole_at
        return True


class Rates:
    """One :class:`Rate` for each key."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._rates: dict[Hashable, Rate] = {}

    def __len__(self) -> int:
        return len(self._rates)

    def takes(self, key: Hashable, now: float) -> bool:
        """See :meth:`Rate.takes`."""
        rate = self._rates.pop(key, None)
        if rate is None:
            rate = Rate(self._per_s)
            if len(self._rates) >= KEYS_MAX:
                del self._rates[next(iter(self._rates))]
        self._rates[key] = rate
        return rate.takes(now)


Item = TypeVar("Item", bound=Hashable)


class Strangers(Generic[Item]):
    """Those that are held, the oldest first."""

    def __init__(self) -> None:
        self.total_max = 0
        self.prefix_max = 0
        self._items: dict[Item, tuple[bytes, bool]] = {}
        self._by_prefix: dict[bytes, dict[Item, None]] = {}
        self._unknown: dict[Item, None] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: Item) -> bool:
        return item in self._items

    def add(self, item: Item, prefix: bytes, *, is_known: bool) -> tuple[Item, str] | None:
        """Hold one more. Returns the one that has to go for it and why, ``prefix`` or ``total``; the caller ends it, which
        :meth:`discard` is told. ``is_known``: a subscriber is served at that address, so it goes after all others."""
        self._items[item] = prefix, is_known
        mine = self._by_prefix.setdefault(prefix, {})
        mine[item] = None
        if not is_known:
            self._unknown[item] = None
        if len(mine) > self.prefix_max:
            return next((one for one in mine if one in self._unknown), next(iter(mine))), "prefix"
        if len(self._items) > self.total_max:
            return next(iter(self._unknown or self._items)), "total"
        return None

    def discard(self, item: Item) -> None:
        """It is accepted, or over."""
        found = self._items.pop(item, None)
        if found is None:
            return
        self._unknown.pop(item, None)
        mine = self._by_prefix[found[0]]
        del mine[item]
        if not mine:
            del self._by_prefix[found[0]]


LIMIT_PREFIX = "limit:"
"""Of a worker's counter, before the name of the limit that was reached."""
HALF_OPEN, HALF_OPEN_PREFIX = "half_open", "half_open_prefix"
QUESTIONS, QUESTIONS_PREFIX = "questions", "questions_prefix"
ERRORS, ERRORS_PREFIX = "errors", "errors_prefix"
SUBSCRIBER_RATE, SUBSCRIBER_CONNECTIONS = "subscriber_rate", "subscriber_connections"


class PeerLimits:
    """The rates of one worker. Each question gives the name of the limit that was reached, or ""."""

    def __init__(self) -> None:
        self.mark = 0
        """For the sockets of accepted subscribers; 0: none."""
        self.backlog = 0
        self.subscriber_connections = 0
        self._settings: dict[str, Any] = {}
        self.configure(
            {
                "prefix_v4": V4_BITS,
                "prefix_v6": 64,
                "question_rate": 1,
                "question_prefix_rate": 1,
                "error_rate": 1,
                "error_prefix_rate": 1,
                "subscriber_rate": 0,
                "subscriber_connections": 0,
                "mark": 0,
                "backlog": 1,
            }
        )

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Other settings, shape as of ``config limits``; what was counted by the same ones stays."""
        if settings == self._settings:
            return
        self._settings = dict(settings)
        self.mark = settings["mark"]
        self.backlog = settings["backlog"]
        self.subscriber_connections = settings["subscriber_connections"]
        self._v4_bits, self._v6_bits = settings["prefix_v4"], settings["prefix_v6"]
        self._questions = Rate(settings["question_rate"]), Rates(settings["question_prefix_rate"])
        self._known = Rates(KNOWN_FACTOR * settings["question_prefix_rate"])
        self._errors = Rate(settings["error_rate"]), Rates(settings["error_prefix_rate"])
        self._known_errors = Rates(KNOWN_FACTOR * settings["error_prefix_rate"])
        self._flows = Rates(settings["subscriber_rate"]) if settings["subscriber_rate"] else None

    def prefix_of(self, address: str) -> bytes:
        """With the lengths that are set."""
        return prefix_of(address, self._v4_bits, self._v6_bits)

    def question(self, prefix: bytes, now: float, *, is_known: bool) -> str:
        """May the control daemon be asked who this is? What a prefix has too much of takes nothing from others."""
        if not (self._known if is_known else self._questions[1]).takes(prefix, now):
            return QUESTIONS_PREFIX
        return "" if is_known or self._questions[0].takes(now) else QUESTIONS

    def error(self, prefix: bytes, now: float, *, is_known: bool) -> str:
        """May a stranger be told what is wrong? As with questions, an address where a subscriber is served has a share of its
        own: a router there that has lost its clock is told the time, whatever others ask for."""
        if not (self._known_errors if is_known else self._errors[1]).takes(prefix, now):
            return ERRORS_PREFIX
        return "" if is_known or self._errors[0].takes(now) else ERRORS

    def flow(self, subscriber: str, connections: int, now: float, *, has_own_limit: bool) -> str:
        """May a subscriber open a flow, with so many connections here?"""
        if self.subscriber_connections and not has_own_limit and connections >= self.subscriber_connections:
            return SUBSCRIBER_CONNECTIONS
        if self._flows is not None and not self._flows.takes(subscriber, now):
            return SUBSCRIBER_RATE
        return ""
