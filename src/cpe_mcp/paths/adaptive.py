"""Which WANs are in backup (design D18, first version): slower lines join when the fast one is busy, and leave again.

A slow line that takes part from the first byte makes small transfers up to five times slower; one that never takes part is
wasted. So the best healthy WAN carries alone until it has been busy for a moment. One netlink command changes all running
connections, and the peer's scheduler obeys it (MP_PRIO).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WINDOW_S = 0.4
"""Rates are averages over this: shorter ones see single bursts, longer ones come late."""
FLOOR_DOWN_MBIT, FLOOR_UP_MBIT = 4.0, 2.0
"""A line is never called busy below this, as long as nothing better was learnt: browsing is not bulk."""
DECAY_PER_S = 0.002
"""A learnt rate shrinks by half in six minutes, so that a line that got slower is learnt anew."""


RTT_MARGIN = 1.25
"""A WAN overtakes another of the same preference only when its round trip is shorter by this factor: places that change with
every probe would move the first subflows and the backup flags with them."""


class Rank(NamedTuple):
    """What WANs are ordered by."""

    is_last_resort: bool
    preference: int
    rtt_s: float

    def is_ahead_of(self, other: Rank) -> bool:
        """Clearly: neither is ahead of the other when their round trips are alike."""
        if self[:2] != other[:2]:
            return self[:2] < other[:2]
        return self.rtt_s * RTT_MARGIN < other.rtt_s


def ranked(ranks: Mapping[str, Rank], before: Sequence[str]) -> list[str]:
    """WANs, best first; as they stood ``before`` unless one is clearly ahead."""
    order = [name for name in before if name in ranks]
    order += [name for name in ranks if name not in order]
    for end in range(len(order) - 1, 0, -1):
        for place in range(end):
            if ranks[order[place + 1]].is_ahead_of(ranks[order[place]]):
                order[place], order[place + 1] = order[place + 1], order[place]
    return order


class Rate(NamedTuple):
    """Mbit/s of one WAN, all traffic of the device."""

    down: float
    up: float


class RateMeter:
    """Rate of one WAN from its byte counters, and the best rate seen."""

    def __init__(self, *, known_down_mbit: float, known_up_mbit: float) -> None:
        self._known = Rate(known_down_mbit, known_up_mbit)
        self._points: deque[tuple[float, int, int]] = deque()
        self._peak = Rate(FLOOR_DOWN_MBIT, FLOOR_UP_MBIT)
        self.rate = Rate(0.0, 0.0)

    def observe(self, now: float, received: int, sent: int) -> None:
        """The device's counters."""
        points = self._points
        if points and (received < points[-1][1] or sent < points[-1][2]):
            points.clear()  # the device was made anew
        points.append((now, received, sent))
        while len(points) > 2 and points[1][0] <= now - WINDOW_S:
            points.popleft()
        elapsed = now - points[0][0]
        if elapsed < WINDOW_S / 2:
            return
        self.rate = Rate((received - points[0][1]) * 8e-6 / elapsed, (sent - points[0][2]) * 8e-6 / elapsed)
        kept = max(0.0, 1.0 - DECAY_PER_S * (now - points[-2][0]) if len(points) > 1 else 1.0)
        self._peak = Rate(
            max(self.rate.down, self._peak.down * kept, FLOOR_DOWN_MBIT),
            max(self.rate.up, self._peak.up * kept, FLOOR_UP_MBIT),
        )

    def capacity(self) -> Rate:
        """What the line can carry: as set, or as learnt."""
        return Rate(self._known.down or self._peak.down, self._known.up or self._peak.up)


class Adaptive:
    """Decides who is in backup."""

    def __init__(self, *, busy_share: float, busy_s: float, idle_share: float, idle_s: float) -> None:
        self._busy_share = busy_share
        self._busy_s = busy_s
        self._idle_share = idle_share
        self._idle_s = idle_s
        self.joined = False
        """Slower lines take part."""
        self._primary = ""
        self._changing_from: float | None = None

    def update(
        self, now: float, order: Sequence[str], last_resort: set[str], meters: Mapping[str, RateMeter]
    ) -> set[str]:
        """WANs in backup. ``order``: healthy WANs, best first; ``last_resort``: those whose role is backup."""
        if not order:
            self._primary, self.joined, self._changing_from = "", False, None
            return set()
        primary = order[0]
        if primary != self._primary:
            # A new best line while traffic runs: what took part goes on, the next rounds decide anew.
            self._primary, self._changing_from = primary, None
        capacity = meters[primary].capacity()
        load = self._load([meters[name].rate for name in order] if self.joined else [meters[primary].rate], capacity)
        wants_change = load < self._idle_share if self.joined else load >= self._busy_share
        if not wants_change:
            self._changing_from = None
        elif self._changing_from is None:
            self._changing_from = now
        elif now - self._changing_from >= (self._idle_s if self.joined else self._busy_s):
            self.joined = not self.joined
            self._changing_from = None
        normal = [name for name in order if name not in last_resort]
        if not normal:
            return set()
        if self.joined:
            return last_resort & set(order)
        return set(order) - {primary}

    @staticmethod
    def _load(rates: Sequence[Rate], capacity: Rate) -> float:
        """Share of the primary's capacity that is in use, the busier direction's."""
        down = sum(rate.down for rate in rates) / capacity.down
        up = sum(rate.up for rate in rates) / capacity.up
        return max(down, up)
