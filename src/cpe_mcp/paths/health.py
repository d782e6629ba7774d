"""Whether a WAN works, judged by what runs over it and by probes only when that has fallen silent (design D6).

One :class:`WanHealth` per WAN, a table of states, ``now`` in s as an argument. Nothing is ever called dead for being slow:
death needs silence on a line that was busy (or a worker's complaint, or an unanswered probe of an idle line) *and* three
more unanswered probes. What a line that works is like is told by :mod:`.quality`, what people are shown by :func:`shown`.

What a probe costs, as a device counts it (Ethernet and IPv4, seen on Linux 6.18): SYN 74, SYN+ACK 74, ACK 66 and RST 66
octets, 280 together, 360 over IPv6; one that is not answered, 74 or 94. The intervals below come from that and from what
an idle line may cost: 200 octets a second, 10 (26 MB a month) on a metered one.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from cpe_mcp.paths.observed import TCP_ESTABLISHED, Subflow
from cpe_mcp.paths.quality import Quality
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
HELD = "held"
"""Works, but died too often of late (:class:`FlapDamper`)."""
UNHEARD = "unheard"
"""No concentrator answers over it, nor over any other (:mod:`.common_silence`): they are to blame, and nothing is known of it.
Still used: DNS and RADIUS are asked over it, and what is not for a concentrator is forwarded."""

TRANSITIONS: dict[str, dict[str, str]] = {
    OFFLINE: {"present": CHECKING},
    CHECKING: {"answer": UP, "hold": HELD, "silence": DEAD, "common-silence": UNHEARD, "absent": OFFLINE},
    UP: {"doubt": SUSPECT, "absent": OFFLINE},
    SUSPECT: {"answer": UP, "silence": DEAD, "common-silence": UNHEARD, "absent": OFFLINE},
    UNHEARD: {"answer": UP, "hold": HELD, "doubt": SUSPECT, "absent": OFFLINE},
    DEAD: {"answer": RETURNING, "common-silence": UNHEARD, "absent": OFFLINE},
    RETURNING: {"steady": UP, "hold": HELD, "silence": DEAD, "common-silence": UNHEARD, "absent": OFFLINE},
    HELD: {"release": UP, "silence": DEAD, "common-silence": UNHEARD, "absent": OFFLINE},
}

USABLE = frozenset({UP, SUSPECT, UNHEARD})
"""States in which a WAN has its endpoint and takes first subflows."""

DEGRADED, HELD_DOWN, OUT_OF_QUOTA = "degraded", "held down", "out of quota"
SHOWN = {
    OFFLINE: OFFLINE,
    CHECKING: CHECKING,
    UP: UP,
    SUSPECT: UP,
    UNHEARD: UP,
    DEAD: DEAD,
    RETURNING: HELD_DOWN,
    HELD: HELD_DOWN,
}
"""State -> what people are shown. A doubt is over in a fraction of a second and most of them end well."""

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
ALL_SILENT_WAIT_S = 1.0
"""Answers are waited for so long when all WANs in use fell silent in the same moment: a machine that stood still, or the
concentrator; and there is no other WAN to move to."""
PROBE_SPACING_S = 0.03
PROBES = 3
"""Per suspicion: one may be lost."""
DEAD_PROBE_S = 0.5
"""A dead line is probed this often: with return_s, and what the kernel needs to join, a subflow is back within 2 s. 148
octets a second, none of which arrive. A metered one while the router has traffic only, else it is probed"""
DEAD_PROBE_MAX_S, DEAD_PROBE_GROWTH = 10.0, 1.5
"""more and more seldom: 7 octets a second."""
RETURN_PROBE_S = 0.25
CHECK_WAIT_S = 1.0
"""A line that just came has this long to answer; DHCP is quicker than some modems' first packets."""
IDLE_PROBE_S, IDLE_WAIT_S = 1.8, 0.45
"""An idle line is probed this often by one SYN, 156 octets a second (IPv6 200), which has this long to be answered. Then the
three others are sent: a silent death without traffic is known within 3 s."""
METERED_PROBE_S = 60.0
"""5 octets a second (IPv6 6); the rest of what it may cost is for the rare looks at MPTCP. Its death without traffic is known
within a minute, or with the first traffic."""
RECENT_S, RECENT_PROBE_S = 10.0, 0.5
"""For so long after it was busy, a line that is not metered is probed this often: a video comes in bursts, and between two of
them silence means nothing."""
ASLEEP_WAIT_S = 0.8
"""Who has not been heard for RECENT_S has this long to answer: a mobile radio wakes up in 0.1 to 0.6 s."""
RECEIVING_MBIT, RECEIVING_WAIT_S = 0.02, 1.5
"""A device that receives so much lives, whatever our own connections hear: something else fills its queues, and a probe may
wait in them for so long. Twice, since three more follow. A modem's own chatter is less."""
BASE_RTT_GROWTH, BASE_RTT_S = 1.1, 30.0
"""The smallest round trip is forgotten by this much in this time, and with one answer at most, so that a line that got slower
is seen as such, and not one that has a long queue after a long time without an answer."""
HOLD_GROWTH, HOLD_MAX_S = 2.0, 300.0
"""Each further death holds a flapping line down for twice as long, up to this."""
DEFAULT_RTT_S = 0.1
"""Assumed until something was measured."""
PATIENCE_S, PATIENCE_MAX_S = 1.0, 30.0
"""After an answered probe, sent bytes that still wait (a subflow whose state some NAT has lost) raise no new doubt for this
long, twice as long each time; the line itself is well."""


class Sample(NamedTuple):
    """All subflows of one WAN at one moment, added up."""

    open: int
    """Subflows that may carry data."""
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
    established: int = 0
    """Of the open ones, those that nobody has closed. Others are of connections that are over, and may wait for minutes for an
    answer to their FIN, where the line was gone when it was sent."""


class Silence(enum.Enum):
    """Of a WAN that is silent: whose it is."""

    OWN = "own"
    """Others are heard, or were when this one was silent already; or there is no other."""
    COMMON = "common"
    """Nothing has been heard over any since it began."""
    AT_ONCE = "at once"
    """That, and all that are in use began in the same moment."""


class FlapDamper:
    """Holds a line down that dies too often: each death and each return costs the flows a pause.

    ``count`` deaths within ``window_s`` hold it down for ``hold_s`` from the last one, each further one for twice as long as
    the one before; a ``window_s`` without any and all is forgiven. ``count`` 0: never.
    """

    def __init__(self, count: int, window_s: float, hold_s: float) -> None:
        self._hold_s = hold_s
        self._deaths: list[float] = []
        self._until = float("-inf")
        self._before: tuple[list[float], float, float] = [], self._until, hold_s
        self.configure(count, window_s, hold_s)

    def configure(self, count: int, window_s: float, hold_s: float) -> None:
        """Other settings; what is held down stays so."""
        self._count, self._window_s, self._first_hold_s = count, window_s, hold_s

    def died(self, now: float) -> None:
        """A line in use was lost."""
        self._before = [*self._deaths], self._until, self._hold_s
        self._deaths = [at for at in self._deaths if now - at < self._window_s]
        if not self._deaths:
            self._hold_s = self._first_hold_s
        self._deaths.append(now)
        if self._count and len(self._deaths) >= self._count:
            self._until = now + self._hold_s
            self._hold_s = min(HOLD_MAX_S, self._hold_s * HOLD_GROWTH)

    def pardon(self) -> None:
        """The last death was none."""
        self._deaths, self._until, self._hold_s = self._before

    def left_s(self, now: float) -> float:
        """How long it is still held down; 0: it is not."""
        return max(0.0, self._until - now)

    def deaths(self, now: float) -> int:
        """Within the window."""
        return sum(now - at < self._window_s for at in self._deaths)


NEVER_HELD = (0, 0.0, 0.0)


class WanHealth:
    """One WAN. After each call look at ``state``; :meth:`probe_due` says when to send the next probe."""

    def __init__(
        self,
        *,
        silent_s: float,
        return_s: float,
        now: float,
        flaps: tuple[int, float, float] = NEVER_HELD,
        is_metered: bool = False,
    ) -> None:
        """``flaps``: arguments of :class:`FlapDamper`."""
        self._damper = FlapDamper(*flaps)
        self.configure(silent_s=silent_s, return_s=return_s, flaps=flaps, is_metered=is_metered)
        self.is_receiving = False
        """Its device receives something now, whoever for."""
        self.is_needed = False
        """The router has traffic; a metered line's return is waited for."""
        self.silence = Silence.OWN
        """Whether the other WANs are silent too, as :mod:`.common_silence` finds it."""
        self.quality = Quality()
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
        self._silent_from: float | None = None
        """Silence counts from here, or from what arrived later; None while it has no subflow that could hear anything."""
        self._busy_at = float("-inf")
        self._answered_at = now
        self._asked_at: float | None = None
        """When the probe of an idle line was sent that has not been answered."""
        self._wait_min_s = PROBE_WAIT_MIN_S
        self._is_patient = True
        self._is_asked_for = False
        self._arrivals: list[tuple[float, int, int]] = []
        self._died_at = now
        self._is_death_counted = False
        self._is_settled = False
        """A probe was answered for this silence; silence alone is no doubt again until something arrives."""
        self._patience_s = PATIENCE_S
        self._patient_until = now
        self._doubt_from = now
        self.unanswered_from = now
        """When the first probe of this doubt was sent."""
        self._waited_s = 0.0
        """How long sent bytes had been waiting when the doubt began: on a line that slept they are a probe, too."""
        self.probes_out = 0
        """Sent since the last answer or the beginning of the doubt."""
        self._next_probe = now
        self.last_probe = float("-inf")
        self._dead_wait_s = DEAD_PROBE_S
        self._answered_from = now

    def configure(self, *, silent_s: float, return_s: float, flaps: tuple[int, float, float], is_metered: bool) -> None:
        """Other settings; what was seen stays."""
        self._silent_s = silent_s
        self._return_s = return_s
        self._damper.configure(*flaps)
        self.is_metered = is_metered

    def is_usable(self) -> bool:
        """Whether it may carry subflows."""
        return self.state in USABLE

    def is_heard_again(self) -> bool:
        """Whether subflows have come back to life by themselves since the line was found dead."""
        return self._heard > self._died_at

    def last_sign(self) -> float:
        """When anything came back over it."""
        return max(self._heard, self._answered_at)

    # What is told -----------------------------------------------------------------------------------------------------

    def present(self, now: float, *, can_probe: bool) -> None:
        """Link, address and route are there. Without a concentrator to probe that has to be enough."""
        if self.state != OFFLINE:
            return
        self._step("present", now, Reason.WAN_HELD_DOWN, "link, address and route are there")
        self._doubt(now)
        if not can_probe:
            self._step("answer", now, Reason.WAN_UP, "nothing to probe")

    def absent(self, now: float, reason: str, detail: str = "") -> None:
        """Link, address or route is gone."""
        self.without_subflows()
        if self.state != OFFLINE:
            if self.is_usable():
                self._damper.died(now)
            self._step("absent", now, reason, detail)
            self.quality.forget()
            self.quality.look_again(now)  # it may come back as a line of another network
        self.reason, self.detail = reason, detail

    def without_subflows(self) -> None:
        """It has none, or those that it has are about to go: what arrived over them says nothing of the next ones."""
        self._arrivals.clear()
        self._silent_from = None

    def observe(self, now: float, sample: Sample) -> None:
        """What the subflows show."""
        if self._silent_from is None:
            self._silent_from = now
        if sample.rtt_s:
            self.rtt_s = sample.rtt_s
        if sample.segments_in:
            self._heard = now
            self._asked_at = None
            self._is_settled = False
            self._patience_s = PATIENCE_S
            if self.state == SUSPECT:
                self._step("answer", now, Reason.WAN_UP, "traffic goes on")
            elif self.state == UNHEARD:
                self._use(now, "answer", "traffic goes on")
            self._arrivals.append((now, sample.received, sample.segments_in))
        while self._arrivals and self._arrivals[0][0] < self._heard - BUSY_WINDOW_S:
            self._arrivals.pop(0)
        if sample.segments_in and self._was_busy():
            self._busy_at = now
        silent_s = now - max(self._heard, self._silent_from)
        if self.state != UP or not sample.open or silent_s < self._silent_s:
            return
        is_waiting = sample.timeouts > 0 or sample.waiting_s > max(self._silent_s, RTT_FACTOR * self.rtt_s)
        if self._was_busy() and not self._is_settled:
            self._suspect(now, f"silent for {silent_s * 1000:.0f} ms", is_patient=False)
        elif is_waiting and now >= self._patient_until:
            detail = f"no acknowledgement for {max(sample.waiting_s, silent_s) * 1000:.0f} ms"
            self._suspect(now, detail, is_patient=not self._was_busy(), waited_s=sample.waiting_s)

    def doubt(self, now: float, detail: str) -> None:
        """A worker could not connect over it."""
        if self.state == UP:
            self._suspect(now, detail)

    def ask(self, now: float) -> None:
        """It is about to be used: see whether it still works, however seldom it is looked at otherwise."""
        if self.state == UP and self._asked_at is None:
            self._is_asked_for = True
            self._next_probe = now

    def release(self, now: float) -> None:
        """It is the only one that works: better used than held down."""
        if self.state == HELD:
            self._step("release", now, Reason.WAN_UP, "no other WAN works")

    def concentrators_heard(self, now: float) -> None:
        """Over another WAN: now silence is its own."""
        if self.state == UNHEARD:
            self._suspect(now, "a concentrator answers over another WAN")

    def concentrators_silent(self, now: float, detail: str) -> None:
        """It fell silent with all others: it is not to blame, and its death was none."""
        if self.state == DEAD and self._is_death_counted:
            self._damper.pardon()
        if "common-silence" in TRANSITIONS[self.state]:
            self._step("common-silence", now, Reason.WAN_UP, detail)
            self._dead_wait_s = DEAD_PROBE_S
            self._next_probe = min(self._next_probe, now + self._dead_wait_s)

    def answered(self, now: float, rtt_s: float, lost: int = 0) -> None:
        """A probe came back; ``rtt_s`` is 0 where that says nothing about the round-trip time. ``lost``: earlier ones that
        the same concentrator will not answer any more."""
        if rtt_s:
            self.rtt_s = rtt_s
            grown = BASE_RTT_GROWTH ** min(1.0, (now - self._answered_at) / BASE_RTT_S)
            self.base_rtt_s = min(rtt_s, self.base_rtt_s * grown)
        was_idle = self._asked_at is not None
        self._asked_at = None
        self._answered_at = now
        if self.is_usable():
            self.quality.probed(now, answered=1, lost=lost)
            if was_idle and rtt_s:
                self.quality.timed(now, rtt_s, self.base_rtt_s)
        detail = f"answered in {rtt_s * 1000:.0f} ms" if rtt_s else "answered"
        if self.state in (CHECKING, UNHEARD):
            self._is_settled = self.state == UNHEARD
            self._use(now, "answer", detail)
        elif self.state == SUSPECT:
            self._step("answer", now, Reason.WAN_UP, detail)
            self._is_settled = True
            self._patient_until = now + self._patience_s
            self._patience_s = min(PATIENCE_MAX_S, 2 * self._patience_s)
        elif self.state == DEAD:
            self._step("answer", now, Reason.WAN_HELD_DOWN, detail)
            self._answered_from = now
            self._doubt(now)
        elif self.state in (RETURNING, HELD):
            self._doubt(now)
        self.probes_out = 0
        self._next_probe = now + self._pace_s(now)

    def tick(self, now: float) -> None:
        """Time passed."""
        if self.state == UP:
            if self._asked_at is not None and now - self._asked_at >= self._idle_wait_s(now):
                self._suspect(now, f"a probe unanswered for {(now - self._asked_at) * 1000:.0f} ms")
            return
        if self.state == HELD and not self._damper.left_s(now):
            self._step("release", now, Reason.WAN_UP, f"held down for {now - self.since:.0f} s")
            return
        if self.state not in (CHECKING, SUSPECT, RETURNING, HELD):
            return
        limit_s = CHECK_WAIT_S if self.state == CHECKING else self.probe_wait_s()
        if self.state in (RETURNING, HELD):
            limit_s += self._pace_s(now)
        if self.state == SUSPECT:
            limit_s = max(self._probes_wait_s(), limit_s - self._waited_s)
            if self._is_patient and self.is_receiving:
                limit_s = max(limit_s, RECEIVING_WAIT_S)
            if self.silence == Silence.AT_ONCE:
                limit_s = max(limit_s, ALL_SILENT_WAIT_S)
        if self.probes_out and now - self._doubt_from >= limit_s:
            detail = f"{self.probes_out} probes unanswered in {(now - self._doubt_from) * 1000:.0f} ms"
            before = f"{self.detail}, " if self.state == SUSPECT else ""
            if self.silence != Silence.OWN and "common-silence" in TRANSITIONS[self.state]:
                self.concentrators_silent(now, f"{before}{detail}, nor over any other WAN")
                return
            if self.state not in (RETURNING, HELD):
                self._died_at = now
            self._is_death_counted = self.is_usable()
            if self._is_death_counted:
                self._damper.died(now)
            self._step("silence", now, Reason.WAN_SILENT, before + detail)
            self.quality.forget()
            self._dead_wait_s = DEAD_PROBE_S
            self._next_probe = now + self._dead_wait_s
        elif self.state == RETURNING and now - self._answered_from >= self._return_s:
            self._is_settled = True
            self._use(now, "steady", f"answered for {now - self._answered_from:.1f} s")

    def probe_due(self, now: float) -> bool:
        """Whether to send a probe now. The caller sends it; asking counts it as sent."""
        if self.state == OFFLINE or now < self._due_at(now):
            return False
        if self.state == UP:
            if self._asked_at is not None:
                return False
            silent_from = max(self._heard, self._answered_at)
            if now - silent_from < self._pace_s(now) and not self._is_asked_for:
                self._next_probe = silent_from + self._pace_s(now)
                return False
            self._asked_at = now
            self._is_asked_for = False
            self.probes_out = 0
        self.probes_out += 1
        self.last_probe = now
        if self.state in (DEAD, UNHEARD):
            self._next_probe = now + self._dead_wait_s
            if self.is_metered:
                self._dead_wait_s = min(DEAD_PROBE_MAX_S, self._dead_wait_s * DEAD_PROBE_GROWTH)
        elif self.state in (UP, RETURNING, HELD):
            self._next_probe = now + self._pace_s(now)
        else:
            self._next_probe = now + (PROBE_SPACING_S if self.probes_out < PROBES else self.probe_wait_s())
        return True

    def next_wake(self, now: float) -> float:
        """When :meth:`probe_due` or :meth:`tick` may have something to do, as time from now in s."""
        if self.state == OFFLINE:
            return IDLE_PROBE_S
        wake = self._due_at(now) - now
        if self.state in (CHECKING, SUSPECT, RETURNING):
            wake = min(wake, PROBE_SPACING_S)
        elif self._asked_at is not None:
            wake = self._asked_at + self._idle_wait_s(now) - now
        elif self.state == HELD:
            wake = min(wake, self._damper.left_s(now))
        return max(0.0, wake)

    def probe_wait_s(self) -> float:
        """How long an answer may take."""
        return max(self._wait_min_s, self._probes_wait_s())

    def _probes_wait_s(self) -> float:
        """The same on a line that does not sleep."""
        return max(PROBE_WAIT_MIN_S, RTT_FACTOR * self.rtt_s + PROBE_SLACK_S)

    def held_s(self, now: float) -> float:
        """How long it is still held down for flapping; 0 when it is not."""
        return self._damper.left_s(now) if self.state == HELD else 0.0

    # Inside -----------------------------------------------------------------------------------------------------------

    def _was_busy(self) -> bool:
        received = sum(received for _, received, _ in self._arrivals)
        return received >= BUSY_BYTES or sum(segments for _, _, segments in self._arrivals) >= BUSY_SEGMENTS

    def _suspect(self, now: float, detail: str, *, is_patient: bool = True, waited_s: float = 0.0) -> None:
        """``is_patient``: what the device receives speaks for it; not so for one whose own busy flows just fell silent."""
        self._is_patient = is_patient
        self._step("doubt", now, Reason.WAN_UP, detail)
        self._doubt(now)
        self._waited_s = waited_s if waited_s < ASLEEP_WAIT_S else 0.0  # a radio may have gone to sleep since

    def _doubt(self, now: float) -> None:
        """From now on answers are waited for, and the first probe is due at once."""
        self._wait_min_s = ASLEEP_WAIT_S if self._is_asleep(now) else PROBE_WAIT_MIN_S
        self._waited_s = 0.0
        self._doubt_from = now
        self.unanswered_from = now if self._asked_at is None else self._asked_at
        self.probes_out = 0
        self._asked_at = None
        self._next_probe = now

    def _use(self, now: float, event: str, detail: str) -> None:
        """It works: it is used, unless it flaps."""
        left_s = self._damper.left_s(now)
        if left_s:
            deaths = self._damper.deaths(now)
            self._step("hold", now, Reason.WAN_FLAPPING, f"lost {deaths} times of late, for {left_s:.0f} s more")
            self._doubt(now)
        else:
            self._step(event, now, Reason.WAN_UP, detail)

    def _is_asleep(self, now: float) -> bool:
        return now - max(self._heard, self._answered_at) > RECENT_S

    def _idle_wait_s(self, now: float) -> float:
        """How long the first probe after some silence may take."""
        if self.is_receiving:
            wait_s = RECEIVING_WAIT_S
        elif now - self._busy_at <= RECENT_S:
            wait_s = PROBE_WAIT_MIN_S
        else:
            wait_s = ASLEEP_WAIT_S if self._is_asleep(now) else IDLE_WAIT_S
        return max(wait_s, RTT_FACTOR * self.rtt_s + PROBE_SLACK_S)

    def _pace_s(self, now: float) -> float:
        """Between two probes of a line that is not in doubt."""
        if self.state == RETURNING:
            return RETURN_PROBE_S
        if self.is_metered:
            return DEAD_PROBE_MAX_S if self.state == HELD else METERED_PROBE_S
        return RECENT_PROBE_S if now - self._busy_at <= RECENT_S else IDLE_PROBE_S

    def _due_at(self, now: float) -> float:
        """When the next probe is due."""
        if self.state in (DEAD, UNHEARD) and self.is_needed:
            return min(self._next_probe, self.last_probe + DEAD_PROBE_S)
        return self._next_probe

    def _step(self, event: str, now: float, reason: str, detail: str) -> None:
        self.state = TRANSITIONS[self.state][event]
        self.since = now
        self.reason = reason
        self.detail = detail


def shown(health: WanHealth, *, is_out_of_quota: bool = False) -> tuple[str, str, str]:
    """``(state, reason, detail)`` for people: one of SHOWN's values, DEGRADED or OUT_OF_QUOTA."""
    state = SHOWN[health.state]
    if state == UP and is_out_of_quota:
        return OUT_OF_QUOTA, Reason.WAN_OUT_OF_QUOTA, ""
    if state == UP:
        reason, detail = health.quality.complaint()
        if reason:
            return DEGRADED, reason, detail
    return state, health.reason, health.detail


class Totals(NamedTuple):
    """One subflow at the last sample, to see what moved."""

    segments_in: int
    received: int
    acked: int
    waiting_from: float | None
    """Since when sent bytes wait without any acknowledgement; None when none wait."""


WATCHED_S = 1.0
"""Bytes that wait for longer are no news: their line was doubted and has answered."""


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
                sample.established + (subflow.state == TCP_ESTABLISHED),
            )
        self._known = known
        return samples

    def is_waited_for(self, now: float, *, is_second_look: bool) -> bool:
        """Whether sent bytes of the last dump were waiting for an acknowledgement, not for long yet.

        ``is_second_look``: only such as the dump before had found too. Of light steady traffic there is always something under
        way, and it is worth two looks, not one after the other.
        """
        waits_s = [now - row.waiting_from for row in self._known.values() if row.waiting_from is not None]
        return any((0 if is_second_look else -1) < wait_s <= WATCHED_S for wait_s in waits_s)


def _moved(subflow: Subflow, before: Totals | None) -> tuple[int, float]:
    """``(bytes, round trip in s)`` of the direction that moved more since the last sample."""
    if before is None:
        return 0, 0.0
    received, acked = subflow.bytes_received - before.received, subflow.bytes_acked - before.acked
    if received > acked:
        return received, subflow.received_rtt_ms / 1000
    return acked, subflow.rtt_ms / 1000
