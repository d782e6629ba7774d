"""One way of one subscriber's bonded-rate cap: a token bucket, and the line of those who wait for its tokens. No IO, and time
is an argument called ``now``, in s.

All directions of the subscriber's flows ask here before they read. One that gets nothing leaves its bytes in the kernel, whose
receive window holds the sender back, and takes its place at the end of the line. The line is served from its head, one quantum
each, so every flow that has bytes gets the same, however many bytes it has.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

QUANTUM_S = 0.002
"""What a direction may read in its turn lasts so long at the cap's rate: with ten in line each has its turn every 20 ms."""
QUANTUM_MIN_BYTES, QUANTUM_MAX_BYTES = 4096, 65536
"""Less would be a system call per packet; more is more than the pump's buffer."""
BURST_S = 0.05
"""Tokens that may be saved: what a pause of the loop costs is made up for, and 5 s after a pause hold 1 % too much."""
WAKE_S = 0.004
"""Least pause between two services of a line: 250 wake-ups a second, each for as many quanta as have come together."""


class Waiter(Protocol):
    """Whoever waits for tokens."""

    def serve(self) -> None:
        """Tokens are there: ask again and read."""


class RateCap:
    """Bytes at ``rate`` per s, ``rate`` > 0. It starts full.

    A waiter asks with :meth:`ask` and tells with :meth:`spend` what it has read. Whoever has the timer calls :meth:`serve` at
    :meth:`ready_at` for as long as :meth:`waiting` is not 0.
    """

    __slots__ = (
        "_burst",
        "_filled_at",
        "_grant",
        "_line",
        "_quantum",
        "_served",
        "_tokens",
        "most_waiting",
        "rate",
        "used",
    )

    def __init__(self, rate: float, now: float) -> None:
        self._line: OrderedDict[Waiter, None] = OrderedDict()
        self._served: Waiter | None = None
        self._grant = 0
        self._filled_at = now
        self._tokens = 0.0
        self.used = 0
        """Bytes spent since somebody set this to 0."""
        self.most_waiting = 0
        """Most that stood in line at once since then."""
        self._resize(rate)
        self._tokens = self._burst

    def set_rate(self, rate: float, now: float) -> None:
        """Another rate from now on."""
        self._fill(now)
        self._resize(rate)

    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def ask(self, waiter: Waiter, now: float) -> int:
        """Bytes that may be read now. 0: none; the waiter stands in line, and its ``serve`` will be called."""
        if waiter is self._served:
            if self._grant > 0:
                return self._grant
        elif waiter in self._line:
            return 0
        elif not self._line:
            self._fill(now)
            if self._tokens >= self._quantum:
                return int(self._tokens)
        self._line[waiter] = None
        self.most_waiting = max(self.most_waiting, len(self._line))
        return 0

    def spend(self, count: int) -> None:
        """So many bytes were read. What was read without asking may be told here too: the tokens then are a debt."""
        self._tokens -= count
        self._grant -= count
        self.used += count

    def leave(self, waiter: Waiter) -> None:
        """It wants nothing more."""
        self._line.pop(waiter, None)

    def ready_at(self, now: float) -> float:
        """When the head of the line may be served."""
        return now + max(WAKE_S, (self._quantum - self._tokens) / self.rate)

    def serve(self, now: float) -> None:
        """Serve the line for as long as there are tokens. One who has used its quantum up and wants more stands at the end."""
        self._fill(now)
        while self._line and self._tokens >= self._quantum:
            waiter, _ = self._line.popitem(last=False)
            self._served, self._grant = waiter, self._quantum
            waiter.serve()
        self._served = None

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now

    def _resize(self, rate: float) -> None:
        self.rate = rate
        self._quantum = int(max(QUANTUM_MIN_BYTES, min(QUANTUM_MAX_BYTES, rate * QUANTUM_S)))
        self._burst = max(2.0 * self._quantum, rate * BURST_S)
        self._tokens = min(self._tokens, self._burst)
