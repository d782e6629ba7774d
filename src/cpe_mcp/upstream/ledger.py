"""What the flows of this daemon's life amounted to: the last records and the totals. In RAM only (design D9). Pure."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from cpe_mcp.relay.records import FlowRecord, matches

KEPT_RECORDS = 1000
"""About 1 MB; an hour of an ordinary home."""
FIELDS = frozenset(FlowRecord._fields)


class Ledger:
    """Sums and keeps flow records."""

    def __init__(self) -> None:
        self._last: collections.deque[tuple[int, FlowRecord]] = collections.deque(maxlen=KEPT_RECORDS)
        self._flows = self._pooled = self._bytes_up = self._bytes_down = 0
        self._by_action: collections.Counter[str] = collections.Counter()
        self._by_reason: collections.Counter[str] = collections.Counter()
        self._by_end: collections.Counter[str] = collections.Counter()
        self._fallbacks: dict[str, collections.Counter[str]] = {}

    def add(self, row: Mapping[str, Any], worker: int = 0) -> FlowRecord:
        """Take one finished flow of worker number ``worker`` as it travels. Raises TypeError where something is missing.

        What a newer worker tells besides is left out.
        """
        record = FlowRecord(**{name: value for name, value in row.items() if name in FIELDS})
        self._bytes_up += record.bytes_up
        self._bytes_down += record.bytes_down
        self._pooled += record.pooled
        self._flows += 1
        self._by_action[record.action] += 1
        self._by_reason[record.reason] += 1
        self._by_end[record.end] += 1
        if record.fallback:
            self._fallbacks.setdefault(record.wan, collections.Counter())[record.fallback] += 1
        self._last.append((worker, record))
        return record

    def last(self, limit: int, text: str = "") -> list[dict[str, Any]]:
        """The newest ``limit`` records with ``text`` in client, server, concentrator, a WAN or action; newest first."""
        chosen = (pair for pair in reversed(self._last) if not text or matches(text, _words(pair[1])))
        return [{**record._asdict(), "id": f"{worker}:{record.id}"} for worker, record in islice(chosen, limit)]

    def fallbacks(self) -> dict[str, dict[str, int]]:
        """Finished flows that were proxied over plain TCP, by WAN of the first subflow and reason."""
        return {wan: dict(reasons) for wan, reasons in self._fallbacks.items()}

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


def _words(record: FlowRecord) -> Iterator[str]:
    yield f"{record.client}:{record.client_port}"
    yield f"{record.server}:{record.server_port}"
    yield record.concentrator
    yield record.wan
    yield record.action
    yield from record.bytes_by_wan
