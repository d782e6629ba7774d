"""The caps of the subscribers that a worker serves: by name, with the loop's timer, and what is told of their demand.

A cap lives as long as a remembered verdict or a flow holds it, so nothing has to be swept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from cpe_mcp.relay.rate_cap import RateCap

if TYPE_CHECKING:
    from cpe_mcp.relay.loop import Loop, Owner

DOWN, UP = 0, 1
"""Places in a pair of rates, caps or turns: towards the subscriber, from the subscriber."""


class Caps:
    """One subscriber's, in this worker; None where there is no cap."""

    __slots__ = ("__weakref__", "pair")

    def __init__(self) -> None:
        self.pair: list[RateCap | None] = [None, None]
        """DOWN and UP."""


class Turn:
    """One direction under a cap: what the pump asks before it reads."""

    __slots__ = ("_cap", "_caps", "_owner")

    def __init__(self, caps: SubscriberCaps, cap: RateCap, owner: Owner) -> None:
        self._caps = caps
        self._cap = cap
        self._owner = owner

    def allowance(self) -> int:
        """Bytes that may be read now. 0: none; ``owner.on_again()`` is called when there are."""
        count = self._cap.ask(self, self._caps.loop.now)
        if not count:
            self._caps.arm(self._cap)
        return count

    def spend(self, count: int) -> None:
        """So many were read."""
        self._cap.spend(count)

    def serve(self) -> None:
        """See :class:`cpe_mcp.relay.rate_cap.Waiter`."""
        self._caps.loop.go_on(self._owner)

    def leave(self) -> None:
        """The direction is over, or no longer under this cap."""
        self._cap.leave(self)


class SubscriberCaps:
    """All of a worker's."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        loop.on_wake = self._serve
        self._by_name: WeakValueDictionary[str, Caps] = WeakValueDictionary()
        self._capped: WeakValueDictionary[str, Caps] = WeakValueDictionary()
        """Those with a cap: the others are not even looked at."""
        self._due: list[tuple[float, int, RateCap]] = []
        """Heap of the caps in whose line somebody stands."""
        self._armed: set[RateCap] = set()
        self._pushes = 0
        self._told_at = loop.now

    def of(self, name: str) -> Caps:
        """The subscriber's; somebody has to hold it."""
        caps = self._by_name.get(name)
        if caps is None:
            caps = self._by_name[name] = Caps()
        return caps

    def set(self, name: str, rates: Sequence[float]) -> bool:
        """Rates in bytes/s, DOWN and UP, 0: no cap. True: a cap has come or gone, and running flows have to be told."""
        caps = self._by_name.get(name)
        changed = False
        if caps is not None:
            for way in (DOWN, UP):
                rate, cap = float(rates[way]), caps.pair[way]
                if rate > 0 and cap is not None:
                    cap.set_rate(rate, self.loop.now)
                elif rate > 0 or cap is not None:
                    changed = True
                    caps.pair[way] = RateCap(rate, self.loop.now) if rate > 0 else None
            if any(caps.pair):
                self._capped[name] = caps
            else:
                self._capped.pop(name, None)
        return changed

    def turn(self, caps: Caps, way: int, owner: Owner) -> Turn | None:
        """The place of one direction; None: there is no cap that way."""
        cap = caps.pair[way]
        return Turn(self, cap, owner) if cap is not None else None

    def arm(self, cap: RateCap) -> None:
        """Somebody stands in this line."""
        if cap not in self._armed:
            self._armed.add(cap)
            self._push(cap)
            self.loop.wake_at(self._due[0][0])
            self.loop.tick_soon()  # the demand is to be told

    def waiting(self) -> int:
        """Directions that are held back now."""
        return sum(cap.waiting() for cap in self._armed)

    def demands(self) -> Mapping[str, list[Any]]:
        """``{subscriber: [bytes/s down, most in line, bytes/s up, most in line]}`` since the last call, of those with any."""
        now = self.loop.now
        passed_s, self._told_at = max(now - self._told_at, 1e-3), now
        found = {}
        for name, caps in self._capped.items():
            row: list[Any] = []
            for cap in caps.pair:
                if cap is None:
                    row += (0, 0)
                    continue
                row += (cap.used / passed_s, cap.most_waiting)
                cap.used, cap.most_waiting = 0, cap.waiting()
            if any(row):
                found[name] = row
        return found

    def _push(self, cap: RateCap) -> None:
        self._pushes += 1
        heappush(self._due, (cap.ready_at(self.loop.now), self._pushes, cap))

    def _serve(self) -> None:
        now = self.loop.now
        while self._due and self._due[0][0] <= now:
            _, _, cap = heappop(self._due)
            cap.serve(now)
            if cap.waiting():
                self._push(cap)
            else:
                self._armed.discard(cap)
        if self._due:
            self.loop.wake_at(self._due[0][0])
