"""How often something may be done that many events ask for: some at once, then one per interval. Pure."""

from __future__ import annotations


class Pace:
    """``burst`` at once; each is given back after ``interval_s``."""

    def __init__(self, burst: int, interval_s: float) -> None:
        self._interval_s = interval_s
        self._ahead_s = (burst - 1) * interval_s
        self._used_until = float("-inf")

    def wait_s(self, now: float) -> float:
        """Until the next one may be done; 0: now."""
        return max(0.0, self._used_until - self._ahead_s - now)

    def took(self, now: float) -> None:
        """One was done."""
        self._used_until = max(self._used_until, now) + self._interval_s
