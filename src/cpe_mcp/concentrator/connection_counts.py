"""How many connections of a subscriber with a limit each worker has, to tell every worker what the others have. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping


class ConnectionCounts:
    """Workers are known by number."""

    def __init__(self) -> None:
        self._by_subscriber: dict[str, dict[int, int]] = {}

    def report(self, worker: int, counts: Mapping[str, int]) -> None:
        """What a worker has now of these subscribers."""
        for name, count in counts.items():
            if count:
                self._by_subscriber.setdefault(name, {})[worker] = count
            else:
                self._drop(name, worker)

    def forget_worker(self, worker: int) -> Collection[str]:
        """It has gone; returns the subscribers whose counts are others now."""
        names = [name for name, counts in self._by_subscriber.items() if worker in counts]
        for name in names:
            self._drop(name, worker)
        return names

    def names(self) -> Collection[str]:
        """Subscribers with any."""
        return list(self._by_subscriber)

    def elsewhere(self, worker: int, names: Collection[str]) -> dict[str, int]:
        """What the other workers have of these."""
        found = {}
        for name in names:
            counts = self._by_subscriber.get(name, {})
            found[name] = sum(counts.values()) - counts.get(worker, 0)
        return found

    def _drop(self, name: str, worker: int) -> None:
        counts = self._by_subscriber.get(name, {})
        counts.pop(worker, None)
        if not counts:
            self._by_subscriber.pop(name, None)
