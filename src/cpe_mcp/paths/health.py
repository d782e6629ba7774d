"""Whether a WAN works, judged by what runs over it and by probes only when that has fallen silent (design D6).

One :class:`WanHealth` per WAN, a table of states, ``now`` in s as an argument. Nothing is ever called dead for being slow:
death needs silence on a line that was busy (or a worker's complaint) *and* unanswered probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cpe_mcp.paths.observed import Subflow
from cpe_mcp.policy.reasons import Reason

OFFLINE = "offline"
"""No link, address or default route."""
CHECKING = "checking"
"""Just came; one answer is enough, since nothing speaks against it."""
UP = "up"
SUSPECT = "suspect"
"""Fell silent; probes are out. Still used: most silences are a finished transfer."""
DEAD = "dead"
RETURNING = "returning"
"""Answers again, and is watched for ``return_s`` before it is used, so that a flapping line does not flap the flows."""

TRANSITIONS: dict[str, dict[str, str]] = {
    OFFLINE: {"present": CHECKING},
    CHECKING: {"answer": UP, "silence": DEAD, "absent": OFFLINE},
    UP: {"doubt": SUSPECT, "absent": OFFLINE},
    SUSPECT: {"answer": UP, "silence": DEAD, "absent": OFFLINE},
    DEAD: {"answer": RETURNING, "absent": OFFLINE},
    RETURNING: {"steady": UP, "silence": DEAD, "absent": OFFLINE},
}

USABLE = frozenset({UP, SUSPECT})
"""States in which a WAN has its endpoint and takes first subflows."""

BUSY_WINDOW_S = 0.5
BUSY_BYTES, BUSY_SEGMENTS = 32_000, 25
"""A line that received less of both in the last window (0.5 Mbit/s; the acknowledgements of 1 Mbit/s of upload) may be silent
for good reasons. Above that, something arrives every few milliseconds however long the queues are."""
RTT_FACTOR = 1.5
"""An acknowledgement may be late by half a round trip (delayed ACK, one burst in the queue) without meaning anything."""
PROBE_SLACK_S = 0.05
"""Added to RTT_FACTOR round trips to answer a probe."""
PROBE_WAIT_MIN_S = 0.1
"""Shorter waits mistook a scheduling hiccup for death."""
PROBE_SPACING_S = 0.03
PROBES = 3
"""Per suspicion: one may be lost."""
DEAD_PROBE_S, DEAD_PROBE_MAX_S, DEAD_PROBE_GROWTH = 0.5, 5.0, 1.5
"""A dead line is probed twice a second at first, then more and more seldom."""
RETURN_PROBE_S = 0.25
CHECK_WAIT_S = 1.0
"""A line that just came has this long to answer; DHCP is quicker than some modems' first packets."""
IDLE_PROBE_S = 30.0
"""An idle line is probed this often, three packets each: 6 octets a second."""
BASE_RTT_GROWTH = 1.1
"""The smallest round trip is forgotten by this much with every probe, so that a line that got slower is seen as such."""
DEFAULT_RTT_S = 0.1
"""Assumed until something was measured."""
PATIENCE_S, PATIENCE_MAX_S = 1.0, 30.0
"""After an answered probe, sent bytes that still wait (a subflow whose state some NAT has lost) raise no new doubt for this
long, twice as long each time; the line itself is well."""


class Sample(NamedTuple):
    """All subflows of one WAN at one moment, added up."""

    open: int
    """Subflows that are established."""
    segments_in: int
    """Segments that arrived since the last sample."""
    received: int
    """Bytes that arrived in them."""
    waiting_s: float
    """Longest time that sent bytes have been waiting for any acknowledgement, 0 when none wait."""
    timeouts: int
    """Retransmission timeouts in a row, the worst subflow's."""
    rtt_s: float
    """Smoothed, the largest of the subflows with traffic; 0 when there is none."""
    delay_s: float = 0.0
    """Round trip now, of the subflow that moved most, in its busier direction; 0 when nothing moved."""
    moved: int = 0
    """Bytes that this subflow moved."""


class WanHealth:
    """One WAN. After each call look at ``state``; :meth:`probe_due` says when to send the next probe."""

    def __init__(self, *, silent_s: float, return_s: float, now: float) -> None:
        self._silent_s = silent_s
        self._return_s = return_s
        self.state = OFFLINE
        self.since = now
        self.reason: str = Reason.WAN_LINK_DOWN
        self.detail = ""
        """How the last change came about, for the log."""
        self.rtt_s = DEFAULT_RTT_S
        """Of the last answered probe or the subflows, the queue included."""
        self.base_rtt_s = float("inf")
        """The smallest of late, without the queue: what WANs are ordered by."""
        self._heard = now
        self._arrivals: list[tuple[float, int, int]] = []
        self._died_at = now
        self._is_settled = False
        """A probe was answered for this silence; silence alone is no doubt again until something arrives."""
        self._patience_s = PATIENCE_S
        self._patient_until = now
        self._doubt_from = now
        self.probes_out = 0
        """Sent since the last answer or the beginning of the doubt."""
        self._next_probe = now
        self._dead_wait_s = DEAD_PROBE_S
        self._answered_from = now

    def is_usable(self) -> bool:
        """Whether it may carry subflows."""
        return self.state in USABLE

    def is_heard_again(self) -> bool:
        """Whether subflows have come back to life by themselves since the line was found dead."""
        return self._heard > self._died_at

    # What is told -----------------------------------------------------------------------------------------------------

    def present(self, now: float, *, can_probe: bool) -> None:
        """Link, address and route are there. Without a concentrator to probe that has to be enough."""
        if self.state != OFFLINE:
            return
        self._step("present", now, Reason.WAN_HELD_DOWN, "link, address and route are there")
        self._doubt(now)
        if not can_probe:
            self._step("answer", now, Reason.WAN_UP, "nothing to probe")

    def absent(self, now: float, reason: str) -> None:
        """Link, address or route is gone."""
        if self.state != OFFLINE:
            self._step("absent", now, reason, "")
        self.reason = reason

    def observe(self, now: float, sample: Sample) -> None:
        """What the subflows show."""
        if sample.rtt_s:
            self.rtt_s = sample.rtt_s
        if sample.segments_in:
            self._heard = now
            self._is_settled = False
            self._patience_s = PATIENCE_S
            if self.state == SUSPECT:
                self._step("answer", now, Reason.WAN_UP, "traffic goes on")
            self._arrivals.append((now, sample.received, sample.segments_in))
        while self._arrivals and self._arrivals[0][0] < self._heard - BUSY_WINDOW_S:
            self._arrivals.pop(0)
        silent_s = now - self._heard
        if self.state != UP or not sample.open or silent_s < self._silent_s:
            return
        is_waiting = sample.timeouts > 0 or sample.waiting_s > max(self._silent_s, RTT_FACTOR * self.rtt_s)
        if self._was_busy() and not self._is_settled:
            self._suspect(now, f"silent for {silent_s * 1000:.0f} ms")
        elif is_waiting and now >= self._patient_until:
            self._suspect(now, f"no acknowledgement for {max(sample.waiting_s, silent_s) * 1000:.0f} ms")

    def doubt(self, now: float, detail: str) -> None:
        """A worker could not connect over it."""
        if self.state == UP:
            self._suspect(now, detail)

    def answered(self, now: float, rtt_s: float) -> None:
        """A probe came back; ``rtt_s`` is 0 where that says nothing about the round-trip time."""
        if rtt_s:
            self.rtt_s = rtt_s
            self.base_rtt_s = min(rtt_s, self.base_rtt_s * BASE_RTT_GROWTH)
        detail = f"answered in {rtt_s * 1000:.0f} ms" if rtt_s else "answered"
        if self.state in (CHECKING, SUSPECT):
            self._step("answer", now, Reason.WAN_UP, detail)
            self._is_settled = True
            self._patient_until = now + self._patience_s
            self._patience_s = min(PATIENCE_MAX_S, 2 * self._patience_s)
        elif self.state == DEAD:
            self._step("answer", now, Reason.WAN_HELD_DOWN, detail)
            self._answered_from = now
            self._doubt(now)
        elif self.state == RETURNING:
            self._doubt(now)
        self.probes_out = 0
        self._next_probe = now + (RETURN_PROBE_S if self.state == RETURNING else IDLE_PROBE_S)

    def tick(self, now: float) -> None:
        """Time passed."""
        if self.state in (CHECKING, SUSPECT, RETURNING):
            limit_s = (
                CHECK_WAIT_S
                if self.state == CHECKING
                else self.probe_wait_s() + RETURN_PROBE_S * (self.state == RETURNING)
            )
            if self.probes_out and now - self._doubt_from >= limit_s:
                detail = f"{self.probes_out} probes unanswered in {(now - self._doubt_from) * 1000:.0f} ms"
                before = f"{self.detail}, " if self.state == SUSPECT else ""
                if self.state != RETURNING:
                    self._died_at = now
                self._step("silence", now, Reason.WAN_SILENT, before + detail)
                self._dead_wait_s = DEAD_PROBE_S
                self._next_probe = now + self._dead_wait_s
            elif self.state == RETURNING and now - self._answered_from >= self._return_s:
                self._is_settled = True
                self._step("steady", now, Reason.WAN_UP, f"answered for {now - self._answered_from:.1f} s")

    def probe_due(self, now: float) -> bool:
        """Whether to send a probe now. The caller sends it; asking counts it as sent."""
        if self.state == OFFLINE or now < self._next_probe:
            return False
        if self.state == UP:
            if now - self._heard < IDLE_PROBE_S:
                self._next_probe = self._heard + IDLE_PROBE_S
                return False
            self._suspect(now, "idle")
        self.probes_out += 1
        if self.state == DEAD:
            self._next_probe = now + self._dead_wait_s
            self._dead_wait_s = min(DEAD_PROBE_MAX_S, self._dead_wait_s * DEAD_PROBE_GROWTH)
        elif self.state == RETURNING:
            self._next_probe = now + RETURN_PROBE_S
        else:
            self._next_probe = now + (PROBE_SPACING_S if self.probes_out < PROBES else self.probe_wait_s())
        return True

    def next_wake(self, now: float) -> float:
        """When :meth:`probe_due` or :meth:`tick` may have something to do, as time from now in s."""
        if self.state == OFFLINE:
            return IDLE_PROBE_S
        wake = self._next_probe - now
        if self.state in (CHECKING, SUSPECT, RETURNING):
            wake = min(wake, PROBE_SPACING_S)
        return max(0.0, wake)

    def probe_wait_s(self) -> float:
        """How long an answer may take."""
        return max(PROBE_WAIT_MIN_S, RTT_FACTOR * self.rtt_s + PROBE_SLACK_S)

    # Inside -----------------------------------------------------------------------------------------------------------

    def _was_busy(self) -> bool:
        received = sum(received for _, received, _ in self._arrivals)
        return received >= BUSY_BYTES or sum(segments for _, _, segments in self._arrivals) >= BUSY_SEGMENTS

    def _suspect(self, now: float, detail: str) -> None:
        self._step("doubt", now, Reason.WAN_UP, detail)
        self._doubt(now)

    def _doubt(self, now: float) -> None:
        """From now on answers are waited for, and the first probe is due at once."""
        self._doubt_from = now
        self.probes_out = 0
        self._next_probe = now

    def _step(self, event: str, now: float, reason: str, detail: str) -> None:
        self.state = TRANSITIONS[self.state][event]
        self.since = now
        self.reason = reason
        self.detail = detail


class Totals(NamedTuple):
    """One subflow at the last sample, to see what moved."""

    segments_in: int
    received: int
    acked: int
    waiting_from: float | None
    """Since when sent bytes wait without any acknowledgement; None when none wait."""


class Sampler:
    """Turns successive dumps of subflows into one :class:`Sample` per local address."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, str, int], Totals] = {}

    def take(self, now: float, subflows: Sequence[Subflow]) -> dict[str, Sample]:
        """Samples by local address."""
        known: dict[tuple[str, int, str, int], Totals] = {}
        samples: dict[str, Sample] = {}
        for subflow in subflows:
            before = self._known.get(subflow.key)
            waiting_from = None
            if subflow.unacked:
                # Sent somewhere between two samples: counted from the later one, so that no idle time is blamed on the line.
                going_on = (
                    before is not None and before.waiting_from is not None and subflow.bytes_acked == before.acked
                )
                waiting_from = before.waiting_from if before is not None and going_on else now
            known[subflow.key] = Totals(subflow.segments_in, subflow.bytes_received, subflow.bytes_acked, waiting_from)
            # A new one without payload may be one of our own probes, caught between its answer and its end.
            first = 0 if subflow.bytes_received else subflow.segments_in
            segments = subflow.segments_in - (before.segments_in if before is not None else first)
            received = subflow.bytes_received - (before.received if before is not None else 0)
            sample = samples.get(subflow.local, Sample(0, 0, 0, 0.0, 0, 0.0))
            samples[subflow.local] = Sample(
                sample.open + 1,
                sample.segments_in + segments,
                sample.received + received,
                max(sample.waiting_s, now - waiting_from if waiting_from is not None else 0.0),
                max(sample.timeouts, subflow.retransmits),
                max(sample.rtt_s, subflow.rtt_ms / 1000 if segments else 0.0),
                *max((sample.moved, sample.delay_s), _moved(subflow, before))[::-1],
            )
        self._known = known
        return samples


def _moved(subflow: Subflow, before: Totals | None) -> tuple[int, float]:
    """``(bytes, round trip in s)`` of the direction that moved more since the last sample."""
    if before is None:
        return 0, 0.0
    received, acked = subflow.bytes_received - before.received, subflow.bytes_acked - before.acked
    if received > acked:
        return received, subflow.received_rtt_ms / 1000
    return acked, subflow.rtt_ms / 1000
