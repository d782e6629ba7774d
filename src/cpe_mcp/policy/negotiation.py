"""Whether Multipath TCP gets through each WAN, and who saw what. Pure.

Two kinds of connections tell. One that begins on a WAN is answered with MPTCP in the SYN+ACK, or is not; the workers count
that. A subflow that joins over a WAN is established or never is; the kernel's list of sockets shows that, and its
counters how many joins were answered. A WAN is blamed only by comparison: when nothing gets through anywhere, it is more
likely the concentrator.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cpe_mcp.policy.handshakes import NEGOTIATED, PREFIX, UNANSWERED
from cpe_mcp.policy.reasons import TEXTS, Reason

RECENT = 8
"""Handshakes that are shown as evidence."""
NEWEST = 2
"""Of these, the last answered ones that decide: another network is noticed with the next connections, and one stray packet is
not taken for it."""
UNANSWERED_MIN = 3
"""Unanswered ones in a row say something, if the WAN answers probes meanwhile: single ones are lost packets."""
MISSING_S = 5.0
"""For so long no subflow over a WAN, although other WANs have some: a join takes one round trip after the first data, its
retransmissions 1, 3, 7 s."""
WORKS, REMOVED, UNKNOWN = "works", "removed", "unknown"


class Joins(NamedTuple):
    """The kernel's counters of joins since the daemon started."""

    sent: int
    """SYNs with MP_JOIN."""
    answered: int
    """SYN+ACKs with MP_JOIN."""


class Negotiations:
    """What has been seen of all WANs since the daemon started."""

    def __init__(self) -> None:
        self._counted: dict[tuple[int, str], int] = {}
        """By worker's process and counter name."""
        self._totals: dict[str, collections.Counter[str]] = {}
        self._recent: dict[str, collections.deque[str]] = {}
        self._subflows: dict[str, int] = {}
        self._looked_at: dict[str, int] = {}
        self._missing: dict[str, float] = {}
        """Since when a WAN has no subflow while others have."""
        self._joined: set[str] = set()
        """WANs over which a subflow was seen at the last look at which there were any."""

    def count(self, pid: int, counters: Mapping[str, int]) -> None:
        """A worker's counters since its start."""
        for name, value in counters.items():
            prefix, _, rest = name.partition(":")
            wan, _, outcome = rest.partition(":")
            if prefix != PREFIX or not outcome:
                continue
            new = value - self._counted.get((pid, name), 0)
            self._counted[pid, name] = value
            if new > 0:
                self._totals.setdefault(wan, collections.Counter())[outcome] += new
                recent = self._recent.setdefault(wan, collections.deque(maxlen=RECENT))
                recent.extend([outcome] * min(new, RECENT))

    def looked(self, name: str, outcome: str) -> None:
        """The daemon has opened a connection itself, to see whether it stays Multipath TCP."""
        self._totals.setdefault(name, collections.Counter())[outcome] += 1
        self._recent.setdefault(name, collections.deque(maxlen=RECENT)).append(outcome)

    def forget_worker(self, pid: int) -> None:
        """It has ended; its successor counts from 0."""
        for key in [key for key in self._counted if key[0] == pid]:
            del self._counted[key]

    def look(self, now: float, subflows: Mapping[str, int]) -> None:
        """Established subflows by WAN, of those WANs that have an endpoint and have been up for a while. What got no answer
        over the others says nothing of them, now or later."""
        for name in self._recent.keys() - subflows.keys():
            answered = [outcome for outcome in self._recent[name] if outcome != UNANSWERED]
            self._recent[name] = collections.deque(answered, maxlen=RECENT)
        # Seen twice: a probe is a connection for a moment, too.
        self._subflows = {name: min(count, self._looked_at.get(name, 0)) for name, count in subflows.items()}
        self._looked_at = dict(subflows)
        # Where the first subflow fell back to TCP no other can join, and that is not their WANs' fault.
        can_join = any(count and not self._has_fallen(name) for name, count in self._subflows.items())
        lacking = {name for name, count in self._subflows.items() if not count and can_join}
        for name in [name for name in self._missing if name not in lacking]:
            del self._missing[name]
        for name in lacking:
            self._missing.setdefault(name, now)
        self._joined -= lacking
        self._joined |= {name for name, count in self._subflows.items() if count and can_join}

    def totals(self) -> dict[str, dict[str, int]]:
        """Handshakes by WAN and outcome since the daemon started."""
        return {wan: dict(counts) for wan, counts in self._totals.items()}

    def report(self, now: float, wans: Iterable[str], joins: Joins, fallbacks: Mapping[str, Any]) -> dict[str, Any]:
        """By WAN: ``{"state", "reason", "text", "evidence": [{"seen", "count", "of", "text", "words"}]}``;
        "words" are for translation. ``fallbacks``: connections that were carried over plain TCP, by WAN and reason."""
        wans = list(wans)
        states = {name: self._state(now, name) for name in wans}
        works = [name for name in wans if states[name] == WORKS]
        return {
            name: _row(states[name], works, list(self._evidence(now, name, joins, fallbacks.get(name, {}))))
            for name in wans
        }

    def _state(self, now: float, name: str) -> str:
        if self._has_fallen(name) or self._is_never_answered(name) or self._is_missing(now, name):
            return REMOVED
        return WORKS if NEGOTIATED in self._recent.get(name, ()) or name in self._joined else UNKNOWN

    def _has_fallen(self, name: str) -> bool:
        newest = [outcome for outcome in self._recent.get(name, ()) if outcome != UNANSWERED][-NEWEST:]
        return bool(newest) and NEGOTIATED not in newest

    def _is_never_answered(self, name: str) -> bool:
        last = list(self._recent.get(name, ()))[-UNANSWERED_MIN:]
        return last == [UNANSWERED] * UNANSWERED_MIN and name in self._subflows

    def _is_missing(self, now: float, name: str) -> bool:
        return name in self._missing and now - self._missing[name] >= MISSING_S

    def _evidence(self, now: float, name: str, joins: Joins, fallbacks: Mapping[str, int]) -> Iterable[dict[str, Any]]:
        recent = list(self._recent.get(name, ()))
        counts = collections.Counter(recent)
        for outcome in (Reason.MPTCP_STRIPPED, Reason.MPTCP_BLACKHOLE, Reason.MPTCP_LOST, UNANSWERED, NEGOTIATED):
            if counts[outcome]:
                yield _seen(outcome, counts[outcome], len(recent))
        if fallbacks.get(Reason.MPTCP_LOST):
            yield _seen("data", fallbacks[Reason.MPTCP_LOST])
        is_missing = self._is_missing(now, name)
        if is_missing or self._subflows.get(name):
            yield _seen("subflows", self._subflows.get(name, 0), sum(self._subflows.values()))
        if is_missing and joins.sent:
            yield _seen("joins", joins.answered, joins.sent)


EVIDENCE = {
    "seen-mptcp-stripped": "%s of the last %s connections that began here got a SYN+ACK without MPTCP",
    "seen-mptcp-blackhole": "%s of the last %s connections that began here were answered only once MPTCP was left out",
    "seen-mptcp-lost": "%s of the last %s connections that began here lost MPTCP with the first data",
    "seen-unanswered": "%s of the last %s connections that began here got no answer",
    "seen-mptcp": "%s of the last %s connections that began here got a SYN+ACK with MPTCP",
    "seen-data": "%s connections that began here fell back later, while they ran",
    "seen-subflows": "%s of %s subflows that are established now are over this WAN",
    "seen-joins": "%s of %s joins that the kernel has sent over all WANs were answered with MPTCP",
}
"""What was seen, as text with its numbers: how often, and of how many."""


def _seen(seen: str, *numbers: int) -> dict[str, Any]:
    code = f"seen-{seen}"
    words = {"code": code, "args": list(numbers)}
    of = numbers[1] if len(numbers) > 1 else 0
    return {"seen": seen, "count": numbers[0], "of": of, "text": EVIDENCE[code] % numbers, "words": words}


def _row(state: str, works: list[str], evidence: list[dict[str, Any]]) -> dict[str, Any]:
    reason = {WORKS: Reason.MPTCP_WORKS, UNKNOWN: Reason.MPTCP_UNKNOWN}.get(
        state, Reason.ACCESS_STRIPS if works else Reason.MPTCP_NOWHERE
    )
    return {"state": state, "reason": reason, "text": TEXTS[reason], "evidence": evidence}
