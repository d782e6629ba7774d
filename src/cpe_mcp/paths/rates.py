"""How fast each WAN is now, and how fast it can be: from its device's byte counters, or as the settings say. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW_S = 0.4
"""Rates are averages over this: shorter ones see single bursts, longer ones come late."""
FLOOR_DOWN_MBIT, FLOOR_UP_MBIT = 4.0, 2.0
"""A line is never called busy below this, as long as nothing better was learnt: browsing is not bulk."""
DECAY_PER_S = 0.002
"""A learnt rate shrinks by half in six minutes, so that a line that got slower is learnt anew."""


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

    def known(self) -> Rate:
        """The rates that the settings give, 0 for one that is learnt."""
        return self._known
