"""One direction of an emulated line: rate, delay, random loss and a tail-drop queue. No IO and no clock.

A line that keeps its delay never changes the order of packets, so one first-in-first-out queue is enough: each packet
gets its time of arrival at the far end when it enters.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from math import inf

ETHERNET_HEADER_BYTES = 14
"""Not counted: the rate of an access line is that of its IP packets."""
QUEUE_FLOOR_MS = 30.0
"""Shortest default queue; modems of short lines still buffer about this much."""
BYTES_PER_SECOND = 1_000_000 / 8
"""Of one Mbit/s."""


def default_queue_ms(rtt_ms: float) -> float:
    """One bandwidth-delay product, which is the RTT when a queue is measured in time, and at least QUEUE_FLOOR_MS."""
    return max(rtt_ms, QUEUE_FLOOR_MS)


class Direction:
    """Carries Ethernet frames one way. Times are seconds of one clock that the caller chooses."""

    __slots__ = (
        "_delay_s",
        "_draw",
        "_fifo",
        "_last_arrival",
        "_last_departure",
        "_loss",
        "_queue_s",
        "_second_per_byte",
        "blackhole",
        "bytes",
        "cut_drops",
        "loss_drops",
        "packets",
        "queue_drops",
    )

    def __init__(
        self,
        *,
        rate_mbit: float,
        delay_ms: float,
        loss_percent: float = 0.0,
        queue_ms: float = QUEUE_FLOOR_MS,
        blackhole: bool = False,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._fifo: deque[tuple[float, bytes]] = deque()
        self._last_departure = -inf
        self._last_arrival = -inf
        self._draw = draw
        self.packets = 0
        """Delivered, with ``bytes`` their IP bytes."""
        self.bytes = 0
        self.queue_drops = 0
        self.loss_drops = 0
        self.cut_drops = 0
        """Dropped by the blackhole, those that were in flight when it opened included."""
        self.blackhole = False
        self.change(
            rate_mbit=rate_mbit, delay_ms=delay_ms, loss_percent=loss_percent, queue_ms=queue_ms, blackhole=blackhole
        )

    def change(
        self,
        *,
        rate_mbit: float | None = None,
        delay_ms: float | None = None,
        loss_percent: float | None = None,
        queue_ms: float | None = None,
        blackhole: bool | None = None,
    ) -> None:
        """Change what is given. Packets that are already on the line keep their time, except in a blackhole.

        Raises ValueError with the name of a value that makes no sense; nothing is changed then.
        """
        if rate_mbit is not None and not rate_mbit > 0:
            raise ValueError(f"rate_mbit {rate_mbit}: a line needs a rate above 0")
        if delay_ms is not None and not delay_ms >= 0:
            raise ValueError(f"delay_ms {delay_ms}: must not be negative")
        if loss_percent is not None and not 0 <= loss_percent <= 100:
            raise ValueError(f"loss_percent {loss_percent}: must be 0 to 100")
        if queue_ms is not None and not queue_ms >= 0:
            raise ValueError(f"queue_ms {queue_ms}: must not be negative")
        if rate_mbit is not None:
            self._second_per_byte = 1 / (rate_mbit * BYTES_PER_SECOND)
        if delay_ms is not None:
            self._delay_s = delay_ms / 1000
        if loss_percent is not None:
            self._loss = loss_percent / 100
        if queue_ms is not None:
            self._queue_s = queue_ms / 1000
        if blackhole is not None:
            self.blackhole = blackhole
        if self.blackhole:
            self.cut_drops += len(self._fifo)
            self._fifo.clear()
            self._last_departure = -inf

    def admit(self, now: float, frame: bytes) -> None:
        """A frame enters at ``now``; it may be lost."""
        if self.blackhole:
            self.cut_drops += 1
            return
        if self._loss and self._draw() < self._loss:
            self.loss_drops += 1
            return
        departure = self._last_departure
        if departure < now:
            departure = now
        elif departure - now > self._queue_s:
            self.queue_drops += 1
            return
        departure += (len(frame) - ETHERNET_HEADER_BYTES) * self._second_per_byte
        self._last_departure = departure
        arrival = max(departure + self._delay_s, self._last_arrival)  # in order also when the delay was lowered
        self._last_arrival = arrival
        self._fifo.append((arrival, frame))

    def next_arrival(self) -> float:
        """When the next frame reaches the far end; infinity when none is on the line."""
        return self._fifo[0][0] if self._fifo else inf

    def pull_arrived(self, now: float) -> list[bytes]:
        """The frames that have reached the far end by ``now``, in order; they are counted as delivered."""
        fifo = self._fifo
        arrived: list[bytes] = []
        size = 0
        while fifo and fifo[0][0] <= now:
            frame = fifo.popleft()[1]
            size += len(frame)
            arrived.append(frame)
        self.packets += len(arrived)
        self.bytes += size - ETHERNET_HEADER_BYTES * len(arrived)
        return arrived

    def stats(self) -> dict[str, int]:
        """Counters since the line was made."""
        return {
            "packets": self.packets,
            "bytes": self.bytes,
            "queue_drops": self.queue_drops,
            "loss_drops": self.loss_drops,
            "cut_drops": self.cut_drops,
        }
