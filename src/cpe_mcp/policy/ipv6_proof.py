"""Whether a concentrator reaches IPv6 servers, learnt from the flows it carried (design D14). No IO, no clock.

Convert has no message that asks for it, so use is the proof: a concentrator is trusted at first, and not for a while when
different IPv6 servers were out of its reach one after the other. Happy Eyeballs of LAN hosts would choose a broken IPv6
every time, because the worker accepts before the concentrator has tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FAILURES = 3
"""Different servers in a row: one or two may be down themselves."""
CONCENTRATORS_MAX = 64
"""Remembered of each kind, the latest: names come from the network."""
DISTRUST_S = 3600.0
"""Until it is tried again: a wrong verdict costs the users IPv6 over all WANs, a right one three failed flows an hour."""


class Ipv6Proof:
    """One for all concentrators, by name. ``now`` is in seconds of time.monotonic()."""

    def __init__(self) -> None:
        self._failed: dict[str, set[str]] = {}
        self._until: dict[str, float] = {}
        self._addresses: dict[str, frozenset[str]] = {}
        """Which concentrator a name meant."""

    def keep(self, known: Mapping[str, Iterable[str]]) -> None:
        """The names that are known now, with the addresses of each. Where a name means another concentrator than before, as
        after a CoA, what is known of the one before is not held against it."""
        before = {name: self._addresses[name] for name in (*self._failed, *self._until) if name in self._addresses}
        self._addresses = {**before, **{name: frozenset(addresses) for name, addresses in known.items()}}
        for name, addresses in before.items():
            if addresses.isdisjoint(self._addresses[name]):
                self.reached(name)

    def reaches(self, concentrator: str, now: float) -> bool:
        """Whether IPv6 flows may go there now."""
        return now >= self._until.get(concentrator, now)

    def unreachable(self, concentrator: str, server: str, now: float) -> None:
        """It answered Convert Error 97 for this IPv6 server.

        Error 65 (network failure) does not count here: a concentrator that says it is left alone as a whole.
        """
        failed = self._failed.setdefault(concentrator, set())
        failed.add(server)
        if len(failed) >= FAILURES:
            del self._failed[concentrator]
            self._until.pop(concentrator, None)
            self._until[concentrator] = now + DISTRUST_S
        for table in (self._failed, self._until):
            if len(table) > CONCENTRATORS_MAX:
                del table[next(iter(table))]

    def reached(self, concentrator: str) -> None:
        """An IPv6 server was reached, or refused by itself (Error 96), which proves the same."""
        self._failed.pop(concentrator, None)
        self._until.pop(concentrator, None)

    def next_change(self, now: float) -> float | None:
        """When time alone will change an answer; None: never."""
        return min((until for until in self._until.values() if until > now), default=None)
