"""How the relay workers of a concentrator divide a subscriber's cap among them. Pure; ``now`` in s is an argument.

The kernel spreads a subscriber's connections over the workers as it likes, so an even split would give a single download a
fraction of what was bought. Each worker says four times a second what it used and how many directions it held back, and gets
its share by that. One that has carried nothing lately may begin with an even share, before it is asked about.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

HEADROOM = 1.5
"""A worker that held nobody back gets what it used, times this: its flows may grow."""
LEAST = 0.05
"""Of the cap, for one that used next to nothing: a request is not held up."""
RECENT_S = 0.7
"""A worker that has said nothing for so long carries nothing: two reports may be late or lost."""
LITTLE = 0.01
"""Of the cap: a smaller change of a share is not told."""
NO_CAP = 0.0

Rates = tuple[float, float]
"""Bytes/s towards the subscriber, and from it; NO_CAP where there is none."""


class Demand(NamedTuple):
    """Of one worker, one way."""

    used: float
    """Bytes/s."""
    waiting: int
    """Most directions that were held back at once; 0: the share sufficed."""


def share_out(cap: float, demands: Sequence[Demand]) -> list[float]:
    """The share of each, which add up to ``cap``: those that want little get it, the rest share by how many wait there."""
    wants = [float("inf") if row.waiting else max(row.used * HEADROOM, cap * LEAST) for row in demands]
    weights = [max(1, row.waiting) for row in demands]
    shares = [0.0] * len(demands)
    left, unmet = cap, set(range(len(demands)))
    while unmet:
        unit = left / sum(weights[i] for i in unmet)
        met = {i for i in unmet if wants[i] <= unit * weights[i]}
        if not met:
            for i in unmet:
                shares[i] = unit * weights[i]
            return shares
        for i in met:
            shares[i] = wants[i]
            left -= wants[i]
        unmet -= met
    return [share + left / len(shares) for share in shares]


class CapShares:
    """All caps, and the workers' demands; workers are known by number."""

    def __init__(self) -> None:
        self._caps: dict[str, Rates] = {}
        self._reports: dict[str, dict[int, tuple[float, tuple[Demand, Demand]]]] = {}
        """By subscriber and worker, with the time."""
        self._told: dict[str, dict[int, Rates]] = {}

    def cap(self, subscriber: str) -> Rates:
        """The whole cap."""
        return self._caps.get(subscriber, (NO_CAP, NO_CAP))

    def names(self) -> Collection[str]:
        """Who has one."""
        return self._caps.keys()

    def set_cap(self, subscriber: str, cap: Rates) -> bool:
        """True: it is another one than before."""
        if cap == self.cap(subscriber):
            return False
        if any(cap):
            self._caps[subscriber] = cap
        else:
            del self._caps[subscriber]
            self._reports.pop(subscriber, None)
        self._told.pop(subscriber, None)
        return True

    def report(self, subscriber: str, worker: int, down: Demand, up: Demand, now: float) -> None:
        """What a worker said."""
        if subscriber in self._caps:
            self._reports.setdefault(subscriber, {})[worker] = (now, (down, up))

    def is_used(self, subscriber: str, since: float) -> bool:
        """Whether a worker has carried anything under it from then on."""
        return any(told > since for told, _ in self._reports.get(subscriber, {}).values())

    def forget_worker(self, worker: int) -> None:
        """It has gone."""
        for reports in self._reports.values():
            reports.pop(worker, None)
        for told in self._told.values():
            told.pop(worker, None)

    def news(self, subscriber: str, workers: Collection[int], now: float) -> Mapping[int, Rates]:
        """The shares of those that were told another one before, by more than a little; they count as told now."""
        cap = self.cap(subscriber)
        if not any(cap):
            return dict.fromkeys(workers, cap)
        told = self._told.setdefault(subscriber, {})
        found = {}
        for worker, share in self.shares(subscriber, workers, now).items():
            before = told.get(worker)
            if before is None or any(abs(share[way] - before[way]) > LITTLE * cap[way] for way in (0, 1)):
                found[worker] = told[worker] = share
        return found

    def shares(self, subscriber: str, workers: Collection[int], now: float) -> Mapping[int, Rates]:
        """What each of these workers may let through now."""
        cap = self.cap(subscriber)
        recent = {
            worker: demands
            for worker, (told, demands) in self._reports.get(subscriber, {}).items()
            if worker in workers and now - told < RECENT_S
        }
        rows = {worker: [cap[0] / len(workers), cap[1] / len(workers)] for worker in workers}
        for way in (0, 1):
            for worker, share in zip(recent, share_out(cap[way], [row[way] for row in recent.values()]), strict=True):
                rows[worker][way] = share
        return {worker: (row[0], row[1]) for worker, row in rows.items()}
