"""Which running connections lack a subflow on which WAN, and when that is worth a repair. Pure.

The in-kernel path manager never makes a lost subflow anew (Linux 6.18: a RST, a NAT that forgot, a server-side timeout).
Nothing but deleting the endpoint and adding it again, at least 0.3 s later, brings it back: in 0.2 s, on every connection
that lacks it. That takes the subflow from the connections that have it, too, and costs a busy one a pause of 0.1 to 0.3 s.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from cpe_mcp.paths.observed import (
    EVENT_CLOSED,
    EVENT_CREATED,
    EVENT_ESTABLISHED,
    EVENT_SUB_CLOSED,
    EVENT_SUB_ESTABLISHED,
    MptcpEvent,
    Subflow,
)

TRAFFIC_BYTES, TRAFFIC_WINDOW_S = 2000, 1.0
"""A connection that moved less within this time (or from one look to the next, where they are rarer) is no traffic: Convert's
own words, a TLS close. Not from look to look: a busy router looks every 30 ms, in which a call of 100 kbit/s moves 400."""
TRAFFIC_S = 3.0
"""For so long after it moved something a connection counts as one with traffic: an idle router is looked at once a second."""
LACK_S = 0.3
"""A lack is believed after this: subflows come and go one after the other when an endpoint does."""
JOIN_S = 1.0
"""After its endpoint was added, or the connection opened, a subflow has this long to join, and three round trips more."""
TRIES = 2
"""Repairs that one connection can cause on one WAN: after the second one the peer, or something on the way, does not want it.
Two, because a busy sender may miss the first (measured on Linux 6.18: 9 of 76 without a pause, 0 of 148 with one)."""
HELPED_S = 10.0
"""A subflow that lived for this long after a repair was made anew by it."""
BORN_KEPT = 10_000
"""Tokens of living connections at most: the end of some is missed when too many events come at once."""
REMEMBERED = 1000
"""Connections whose tries are remembered."""
WORTH_SHARE = 0.2
"""Share of the connections with traffic that must lack the WAN before the others' pause is accepted for them at once."""
PATIENCE_S = 30.0
"""A lack this old is repaired for one connection alone."""
FREE_PAUSE_S = 5.0
"""Between two repairs of a WAN over which nobody's bytes go at the moment."""
PAUSE_S, PAUSE_MAX_S, PAUSE_GROWTH = 10.0, 600.0, 2.0
"""Between two that others feel. A NAT that kills subflows every minute costs them five pauses, then one in ten minutes."""
FORGET_S = 1200.0
"""Without a repair for this long the pause is short again."""


class Loss(NamedTuple):
    """How a connection lost a WAN."""

    at: float
    error: int
    """errno, 0 where nothing is known."""

    def cause(self) -> str:
        """For people."""
        names = {errno.ECONNRESET: "reset", errno.ETIMEDOUT: "timed out", 0: "closed or never joined"}
        return names.get(self.error, os.strerror(self.error))


class Count(NamedTuple):
    """A subflow's bytes, and since when it has moved nothing worth the name beyond them."""

    moved: int
    since: float


class Connection:
    """One MPTCP connection that we opened."""

    __slots__ = ("lost", "moved_at", "opened", "subflows")

    def __init__(self, now: float) -> None:
        self.opened = now
        self.subflows: dict[tuple[str, int, str, int], Count] = {}
        self.moved_at: dict[str, float] = {}
        """Local address -> when something moved over it."""
        self.lost: dict[str, Loss] = {}

    def has_traffic(self, now: float) -> bool:
        """Of late."""
        return any(now - at <= TRAFFIC_S for at in self.moved_at.values())

    def locals(self) -> set[str]:
        """Local addresses it has subflows on."""
        return {key[0] for key in self.subflows}


class Standing(NamedTuple):
    """How the connections with traffic stand to one local address."""

    lacking: Mapping[int, Loss]
    """By token: those that have no subflow there and could."""
    using: int
    """Connections whose bytes go over it now, beside other subflows or alone."""
    alone: int
    """Connections that have no other subflow."""
    total: int


class SubflowTracker:
    """Fed with events as they come, and with a look at all subflows now and then, which is the truth."""

    def __init__(self) -> None:
        self._connections: dict[int, Connection] = {}
        self._born: set[int] = set()
        """Tokens of all connections that became Multipath TCP, other programs' too."""
        self._fallbacks: set[tuple[str, int, str, int]] = set()
        self.unplaced_fallbacks = 0
        """Connections that closed without ever having been Multipath TCP; the kernel does not tell their WAN."""

    def __len__(self) -> int:
        return len(self._connections)

    def event(self, now: float, event: MptcpEvent) -> None:
        """The kernel tells."""
        if event.is_server:
            return
        if event.kind == EVENT_CLOSED:
            self._connections.pop(event.token, None)
            if event.token in self._born:
                self._born.discard(event.token)
            else:
                self.unplaced_fallbacks += 1
            return
        key = (event.local, event.local_port, event.remote, event.remote_port)
        if event.kind in (EVENT_CREATED, EVENT_ESTABLISHED, EVENT_SUB_ESTABLISHED):
            self._is_born(event.token)
            connection = self._connections.setdefault(event.token, Connection(now))
            connection.subflows.setdefault(key, Count(0, now))
            if len(self._connections) > BORN_KEPT:
                del self._connections[next(iter(self._connections))]
            connection.lost.pop(event.local, None)
        elif event.kind == EVENT_SUB_CLOSED and event.token in self._connections:
            connection = self._connections[event.token]
            self._lose(now, connection, key, event.error)
            loss = connection.lost.get(event.local)
            if loss is not None and event.error:  # a look may have missed it before the event told why
                connection.lost[event.local] = loss._replace(error=event.error)

    def see(self, now: float, subflows: Sequence[Subflow]) -> list[str]:
        """All subflows towards the concentrators at this moment.

        Returns the local address of each connection that has been seen as fallen back in the handshake for the first time.
        """
        seen: dict[int, dict[tuple[str, int, str, int], int]] = {}
        fallbacks = []
        for subflow in subflows:
            if subflow.is_fallback:
                fallbacks.append(subflow.key)
            elif subflow.token:
                moved = subflow.bytes_acked + subflow.bytes_received
                seen.setdefault(subflow.token, {})[subflow.key] = moved
        for token in self._connections.keys() - seen.keys():
            del self._connections[token]
        self._is_born(*seen)
        for token, rows in seen.items():
            connection = self._connections.setdefault(token, Connection(now))
            for key in connection.subflows.keys() - rows.keys():
                self._lose(now, connection, key, 0)
            counts = {}
            for key, moved in rows.items():
                count = connection.subflows.get(key) or Count(moved, now)
                if moved - count.moved >= TRAFFIC_BYTES:
                    connection.moved_at[key[0]] = now
                    count = Count(moved, now)
                elif now - count.since >= TRAFFIC_WINDOW_S:
                    count = Count(moved, now)
                counts[key] = count
                connection.lost.pop(key[0], None)
            connection.subflows = counts
        new = [key[0] for key in fallbacks if key not in self._fallbacks]
        self._fallbacks = set(fallbacks)
        return new

    def standing(self, now: float, local: str) -> Standing:
        """Of the connections with traffic, towards one of our addresses that has an endpoint."""
        lacking: dict[int, Loss] = {}
        using = alone = total = 0
        is_ipv6 = ":" in local
        for token, connection in self._connections.items():
            if not connection.has_traffic(now):
                continue
            total += 1
            there = connection.locals()
            if local in there:
                using += now - connection.moved_at.get(local, float("-inf")) <= TRAFFIC_S
                alone += len(there) == 1
            elif any((":" in other) == is_ipv6 for other in there):  # joins stay within the peer's address family
                lacking[token] = connection.lost.get(local) or Loss(connection.opened, 0)
        return Standing(lacking, using, alone, total)

    def _is_born(self, *tokens: int) -> None:
        if len(self._born) >= BORN_KEPT:
            # Of the rest, those that live count as fallen back when they end.
            self._born = set(islice(reversed(self._connections), BORN_KEPT // 2))
        self._born.update(tokens)

    @staticmethod
    def _lose(now: float, connection: Connection, key: tuple[str, int, str, int], error: int) -> None:
        if connection.subflows.pop(key, None) is not None and key[0] not in connection.locals():
            connection.lost[key[0]] = Loss(now, error)


class Repair:
    """When to delete and add the endpoint of one local address. Ask with every look; a yes counts as done."""

    def __init__(self) -> None:
        self._tried: dict[int, tuple[int, float]] = {}
        """Token -> repairs in vain so far, and when the last one was."""
        self._last = float("-inf")
        self._not_before = float("-inf")
        self._pause_s = PAUSE_S

    def due(self, now: float, standing: Standing, *, joined_from: float, rtt_s: float) -> tuple[Loss, ...]:
        """The losses that a repair now is for; empty: no repair.

        ``joined_from``: since when the endpoint exists; ``rtt_s``: of its WAN.
        """
        join_s = JOIN_S + 3 * rtt_s
        ripe = {
            token: loss
            for token, loss in standing.lacking.items()
            if now - loss.at >= (LACK_S if loss.error else join_s) and self._in_vain(token, loss) < TRIES
        }
        if not ripe or standing.alone or now - joined_from < join_s or now < self._not_before:
            return ()
        oldest_s = now - min(loss.at for loss in ripe.values())
        if standing.using and len(ripe) < WORTH_SHARE * standing.total and oldest_s < PATIENCE_S:
            return ()
        if now - self._last > FORGET_S:
            self._pause_s = PAUSE_S
        self._last = now
        if standing.using:
            self._not_before = now + self._pause_s
            self._pause_s = min(PAUSE_MAX_S, self._pause_s * PAUSE_GROWTH)
        else:
            self._not_before = now + FREE_PAUSE_S
        for token, loss in ripe.items():
            self._tried[token] = (self._in_vain(token, loss) + 1, now)
        while len(self._tried) > REMEMBERED:
            del self._tried[next(iter(self._tried))]
        return tuple(ripe.values())

    def _in_vain(self, token: int, loss: Loss) -> int:
        """Repairs that did not help this connection; one that lost the subflow again much later had been helped."""
        count, last = self._tried.get(token, (0, 0.0))
        return 0 if loss.at > last + HELPED_S else count
