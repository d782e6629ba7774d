"""How fast each WAN is now, and how fast it can be: from its device's byte counters, or as the settings say. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW_S = 0.4
"""Rates are averages over this: shorter ones see single bursts, longer ones come late."""
PEAK_WINDOW_S = 0.1
"""What a line can carry shows for so long even in a transfer of 500 kB; the average over WINDOW_S of a page's transfers does
not, and would call the line full at whatever it carries. Three looks at the counters."""
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
        burst = self._since(now - PEAK_WINDOW_S)
        kept = max(0.0, 1.0 - DECAY_PER_S * (now - points[-2][0]) if len(points) > 1 else 1.0)
        self._peak = Rate(
            max(burst.down, self._peak.down * kept, FLOOR_DOWN_MBIT),
            max(burst.up, self._peak.up * kept, FLOOR_UP_MBIT),
        )

    def _since(self, start: float) -> Rate:
        """From the last look at ``start`` or before it to the newest one."""
        now, received, sent = self._points[-1]
        then, received_then, sent_then = next(
            (point for point in reversed(self._points) if point[0] <= start), self._points[0]
        )
        elapsed = now - then
        return Rate((received - received_then) * 8e-6 / elapsed, (sent - sent_then) * 8e-6 / elapsed)

    def capacity(self) -> Rate:
        """What the line can carry: as set, or as learnt."""
        return Rate(self._known.down or self._peak.down, self._known.up or self._peak.up)

    def is_told(self) -> bool:
        """Whether the settings give the rates of both directions."""
        return min(self._known) > 0


QUEUE_FACTOR = 1.4
QUEUE_MIN_S = 0.005
"""A round trip that is longer than the line's own by both is a queue. Measured on a line of 100 Mbit/s and 20 ms with 25 ms of
buffer: 42 ms when it is full, 21 to 25 ms at two thirds of its rate, with cubic and bbr alike."""
QUEUE_SMOOTHING_S = 0.3
"""Bursts of a paced sender fill a queue for less."""


class QueueMeter:
    """Whether packets wait on a line: its round trip under traffic against that without."""

    def __init__(self) -> None:
        self._delay_s = 0.0
        self._at = 0.0

    def observe(self, now: float, delay_s: float) -> None:
        """A round trip of traffic; 0 is none."""
        if not delay_s:
            return
        elapsed_s = now - self._at
        if not self._delay_s or elapsed_s > 2 * QUEUE_SMOOTHING_S:
            self._delay_s = delay_s
        else:
            self._delay_s += (delay_s - self._delay_s) * min(1.0, elapsed_s / QUEUE_SMOOTHING_S)
        self._at = now

    def has_queue(self, base_rtt_s: float) -> bool:
        """``base_rtt_s``: the line's own round trip; infinite while it is not known, and then there is no telling."""
        return self._delay_s > max(QUEUE_FACTOR * base_rtt_s, base_rtt_s + QUEUE_MIN_S)
