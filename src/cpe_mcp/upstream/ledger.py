"""What the flows of this daemon's life amounted to: the last records and the totals. In RAM only (design D9). Pure."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from cpe_mcp.relay.records import FlowRecord

KEPT_RECORDS = 1000
"""About 1 MB; an hour of an ordinary home."""


class Ledger:
    """Sums and keeps flow records."""

    def __init__(self) -> None:
        self._last: collections.deque[FlowRecord] = collections.deque(maxlen=KEPT_RECORDS)
        self._flows = self._pooled = self._bytes_up = self._bytes_down = 0
        self._by_action: collections.Counter[str] = collections.Counter()
        self._by_reason: collections.Counter[str] = collections.Counter()
        self._by_end: collections.Counter[str] = collections.Counter()

    def add(self, row: Mapping[str, Any]) -> FlowRecord:
        """Take one finished flow as it travels. Raises TypeError on another shape."""
        record = FlowRecord(**row)
        self._bytes_up += record.bytes_up
        self._bytes_down += record.bytes_down
        self._pooled += record.pooled
        self._flows += 1
        self._by_action[record.action] += 1
        self._by_reason[record.reason] += 1
        self._by_end[record.end] += 1
        self._last.append(record)
        return record

    def last(self, limit: int) -> list[dict[str, Any]]:
        """The newest ``limit`` records, newest first."""
        newest = list(self._last)[-limit:] if limit > 0 else []
        return [record._asdict() for record in reversed(newest)]

    def totals(self) -> dict[str, Any]:
        """Finished flows since the daemon started."""
        return {
            "flows": self._flows,
            "pooled": self._pooled,
            "bytes_up": self._bytes_up,
            "bytes_down": self._bytes_down,
            "by_action": dict(self._by_action),
            "by_reason": dict(self._by_reason),
            "by_end": dict(self._by_end),
        }
