"""The last three minutes of each WAN, one sample a second, for the graph. In RAM only (design D9). Pure."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

INTERVAL_S = 1.0
SAMPLES = 180
"""What LuCI's own realtime graphs show on a wide screen."""
GAP_S = 10.0
"""Without a sample for longer the machine has slept: what lies before is not continued."""

Series = tuple[collections.deque[float], collections.deque[float]]


class History:
    """Fed with byte counters, tells rates."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}
        self._counted: dict[str, tuple[int, int]] = {}
        self._at: float | None = None
        self._taken = 0

    def observe(self, now: float, counters: Mapping[str, tuple[int, int]]) -> None:
        """``name -> (bytes up, bytes down)`` of every WAN at ``now``, once each INTERVAL_S. A WAN left out is forgotten."""
        spent = None if self._at is None else now - self._at
        if spent is not None and spent > GAP_S:
            self._series.clear()
            self._taken, spent = 0, None
        self._at = now
        if spent is not None and spent > 0:
            self._taken = min(self._taken + 1, SAMPLES)
            for name, (up, down) in counters.items():
                before = self._counted.get(name, (up, down))
                # A counter that went back belongs to a new device of the same name.
                rates = (max(0, down - before[1]) * 8e-6 / spent, max(0, up - before[0]) * 8e-6 / spent)
                for series, rate in zip(self._of(name), rates, strict=True):
                    series.append(round(rate, 3))
        self._counted = dict(counters)
        for name in [name for name in self._series if name not in counters]:
            del self._series[name]

    def wans(self) -> list[dict[str, Any]]:
        """Rows ``{"name", "down_mbit", "up_mbit"}``; all lists are of one length, the newest sample is last."""
        return [
            {"name": name, "down_mbit": list(down), "up_mbit": list(up)} for name, (down, up) in self._series.items()
        ]

    def _of(self, name: str) -> Series:
        """The WAN's series; that of a new one begins with zeros, so that all can be drawn on top of each other."""
        if name not in self._series:
            silence = [0.0] * (self._taken - 1)
            self._series[name] = (collections.deque(silence, SAMPLES), collections.deque(silence, SAMPLES))
        return self._series[name]
