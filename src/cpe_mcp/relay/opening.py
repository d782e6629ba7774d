"""How a flow finds a concentrator that answers: handshakes one after the other, the next one begun while the one before is
late, and the first that is answered carries the flow.

No flow is carried twice by this: a handshake carries nothing of the flow, and the Connect TLV is said on the one connection
that won. The others are kept as witnesses until they are answered or given up, since they tell who is alive.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from cpe_mcp.policy.reasons import Reason
from cpe_mcp.relay.loop import End
from cpe_mcp.relay.sockets import reset_on_close, socket_error

if TYPE_CHECKING:
    from cpe_mcp.relay.pool import Route
    from cpe_mcp.relay.upstream_worker import UpstreamWorker

LATE_S = 0.25
"""A handshake or an acknowledgement that takes longer is late: above the retransmission timeout of lines up to 50 ms."""
LATE_RTTS = 3.0
"""And on slower lines: that many of their round trips without a queue."""
QUEUED_RTTS = 2.0
"""And on lines with a queue: that many of the round trips that were seen of late."""
WAYS_MAX = 6
"""Handshakes of one flow: three concentrators over two WANs."""
TLS_HANDSHAKE, TLS_MAJOR, TLS_HEADER_BYTES = 22, 3, 5
"""RFC 8446 section 5.1."""
SAFE_METHODS = (b"GET ", b"HEAD ")
"""RFC 9110 section 9.2.2: what is idempotent may be said again by whoever lost the connection."""


def late_s(route: Route, recent_rtt_s: float) -> float:
    """After how long an answer over this route is late."""
    return max(LATE_S, LATE_RTTS * route.wan.base_rtt_ms / 1000, QUEUED_RTTS * recent_rtt_s)


def is_repeatable(data: bytes) -> bool:
    """Whether a client's first bytes may arrive twice: nothing, TLS handshake records (which hold no word of the application),
    or one HTTP request that asks for something and changes nothing."""
    if data.startswith(SAFE_METHODS):
        head, end, rest = data.partition(b"\r\n\r\n")
        return not rest and (bool(end) or len(head) == len(data))
    while data:
        if data[0] != TLS_HANDSHAKE or data[1:2] not in (b"", bytes([TLS_MAJOR])):
            return False
        data = data[TLS_HEADER_BYTES + int.from_bytes(data[3:5], "big") :]
    return True


class Asker(Protocol):
    """The flow."""

    def opened(self, end: End, route: Route, fallback: str) -> None:
        """A handshake was answered; the end is the flow's from here on."""

    def nobody_answers(self, detail: str) -> None:
        """Every way was tried."""

    def abandon(self) -> None:
        """See :class:`cpe_mcp.relay.loop.Owner`."""


class Attempt:
    """One handshake."""

    __slots__ = ("_asker", "_opening", "_started", "_worker", "deadline", "end", "is_doubtful", "route")

    def __init__(self, worker: UpstreamWorker, opening: Opening, route: Route, dscp: int) -> None:
        """Raises OSError."""
        self._worker = worker
        self._opening: Opening | None = opening
        self._asker: Asker | None = opening.asker
        self.route = route
        self._started = worker.loop.now
        self.deadline = worker.loop.now + worker.snapshot.connect_timeout_s
        self.is_doubtful = False
        self.end = End(route.open(dscp), self)
        worker.loop.add(self.end)

    def on_events(self, end: End, mask: int) -> None:
        """The handshake is over."""
        if not (end.writable or end.hangup):
            return
        opening, self._opening = self._opening, None
        self._worker.handshake_took(self.route.wan.name, self._worker.loop.now - self._started)
        error = socket_error(end.sock)
        if error:
            self.failed(os.strerror(error))
            if opening is not None:
                opening.refused(self, os.strerror(error))
            return
        fallback = "" if self.route.bound else self._worker.handshake(self.route.wan.name, end.sock)
        if opening is None:
            self._worker.answered(self.route)
            self.drop()
        else:
            opening.answered(self, fallback)

    def on_again(self) -> None:
        """It never hits a work bound."""

    def abandon(self) -> None:
        """See :class:`cpe_mcp.relay.loop.Owner`. What was raised came out of the flow, if one waits for it."""
        asker = self._asker
        self.drop()
        if asker is not None:
            asker.abandon()

    def late(self) -> None:
        """Not answered within :func:`late_s`."""
        self.is_doubtful = True
        self._worker.doubt(self.route, "no answer to the handshake yet")

    def give_up(self) -> None:
        """Not answered in time at all."""
        if not self.route.bound and not self._worker.is_doubted(self.route):
            # It answers over another WAN, so this says something about Multipath TCP on this one.
            self._worker.handshake(self.route.wan.name, None)
        self.failed("no answer to the handshake")

    def failed(self, detail: str) -> None:
        """Tell, and forget it."""
        name, wan = self.route.concentrator.name, self.route.wan.name
        self._worker.trouble(name, wan, Reason.CONCENTRATOR_UNREACHABLE, 0.0, detail)
        self.drop()

    def testify(self) -> None:
        """The flow goes on without it."""
        self._opening = self._asker = None
        self._worker.witnesses.add(self)

    def drop(self) -> None:
        """Close it."""
        self._opening = self._asker = None
        self._worker.witnesses.discard(self)
        reset_on_close(self.end.sock)
        self._worker.loop.close(self.end)


class Opening:
    """The handshakes of one flow. ``routes``: where to, in order; not empty."""

    __slots__ = ("_attempts", "_detail", "_dscp", "_next", "_routes", "_worker", "asker")

    def __init__(self, worker: UpstreamWorker, asker: Asker, routes: Sequence[Route], dscp: int) -> None:
        self._worker = worker
        self.asker = asker
        self._routes = list(routes[:WAYS_MAX])
        self._dscp = dscp
        self._attempts: list[Attempt] = []
        self._next = 0.0
        self._detail = ""

    def begin(self) -> None:
        """Start the next handshake that can be started."""
        while self._routes:
            route = self._routes.pop(0)
            try:
                attempt = Attempt(self._worker, self, route, self._dscp)
            except OSError as error:
                self._detail = error.strerror or str(error)
                name, wan = route.concentrator.name, route.wan.name
                self._worker.trouble(name, wan, Reason.CONCENTRATOR_UNREACHABLE, 0.0, self._detail)
                continue
            self._attempts.append(attempt)
            self._next = self._worker.loop.now + self._worker.late_s(route)
            return
        if not self._attempts:
            self.asker.nobody_answers(self._detail)

    def due(self) -> float:
        """When :meth:`tick` has something to do."""
        times = [attempt.deadline for attempt in self._attempts]
        if self._routes or any(not attempt.is_doubtful for attempt in self._attempts):
            times.append(self._next)
        return min(times)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if now >= self._next:
            for attempt in self._attempts:
                if not attempt.is_doubtful:
                    attempt.late()
        for attempt in [attempt for attempt in self._attempts if attempt.deadline <= now]:
            self._attempts.remove(attempt)
            self._detail = "no answer to the handshake"
            attempt.give_up()
        # Without an attempt under way there is nothing to wait for: a handshake may be given up before it is late.
        if not self._attempts or (now >= self._next and self._routes):
            self.begin()

    def answered(self, winner: Attempt, fallback: str) -> None:
        """One handshake was answered."""
        self._attempts.remove(winner)
        self.leave()
        self.asker.opened(winner.end, winner.route, fallback)

    def refused(self, attempt: Attempt, detail: str) -> None:
        """One was answered with a reset."""
        self._attempts.remove(attempt)
        self._detail = detail
        self.begin()

    def leave(self) -> None:
        """The flow needs no more of them."""
        for attempt in self._attempts:
            attempt.testify()
        self._attempts = []
        self._routes = []

    def concentrators(self) -> set[str]:
        """Names of those that may still answer."""
        return {a.route.concentrator.name for a in self._attempts} | {route.concentrator.name for route in self._routes}
