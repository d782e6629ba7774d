"""How good a WAN is that works: loss, round trip, and whether Multipath TCP gets through. Pure.

Nothing in here takes a WAN out of use. Who strips Multipath TCP takes no first subflows while two others carry together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from cpe_mcp.policy.reasons import Reason

LOSS_WINDOW, LOSS_WINDOW_S = 50, 900.0
"""Loss is counted over the last so many probes that are not older than this."""
LOSS_PROBES_MIN = 10
"""Fewer say nothing."""
LOSS_BAD, LOSS_GOOD, LOST_MIN = 0.10, 0.05, 3
"""Share of unanswered probes from which a line is called degraded, and below which no more. A probe is two packets, so that
10 % are 5 % in each direction: more than what congestion control of any kind lives with."""
SLOW_FACTOR, SLOW_SLACK_S, SLOW_S = 3.0, 0.1, 60.0
"""An idle line's round trip that is this much longer than its smallest of late, and at least by this, for so long. Of a
busy line it would only say that its queue is long."""
SOUND_MIN = 2
"""WANs that carry a connection together."""
CHECK_FIRST_S = 1.0
"""After a WAN came up: let it settle."""
CHECK_AGAIN_S, CHECK_AGAIN_METERED_S = 30.0, 600.0
"""Between two looks, whatever calls for one."""
CHECK_NO_ANSWER_S, CHECK_GROWTH = 60.0, 2.0
"""After one without an answer, then longer and longer, up to that of a line that is well."""
CHECK_YES_S, CHECK_YES_METERED_S = 6 * 3600.0, 24 * 3600.0
CHECK_STRIPPED_S, CHECK_STRIPPED_METERED_S = 600.0, 3600.0
"""Between two looks: 0.8 kB each over this WAN, and 0.5 kB over every other one that has an endpoint, by the join."""


def begins_last(strips: Mapping[str, bool]) -> frozenset[str]:
    """WANs on which no connection shall begin: those that strip Multipath TCP, if two others let it through.

    ``strips``: the usable WANs. With one other, a connection has one WAN wherever it begins; then the preferred one is best.
    """
    if sum(not is_stripping for is_stripping in strips.values()) < SOUND_MIN:
        return frozenset()
    return frozenset(name for name, is_stripping in strips.items() if is_stripping)


class Quality:
    """Of one WAN."""

    def __init__(self) -> None:
        self._probes: deque[tuple[float, int, int]] = deque(maxlen=LOSS_WINDOW)
        self._loss: float | None = None
        self._is_lossy = False
        self._slow_from: float | None = None
        self._slow = ""
        self.stripped = ""
        """How it is known that this access network removes Multipath TCP; "" while it is not."""
        self._checked_at = float("-inf")
        self._is_checking = False
        self._unanswered_s = CHECK_NO_ANSWER_S
        self._is_known = False
        """A look was answered."""
        self._wanted_at: float | None = None

    # Loss and round trip ----------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """The WAN was lost: what comes back may be another line."""
        self._probes.clear()
        self._loss = None
        self._is_lossy = False
        self._slow_from, self._slow = None, ""

    def probed(self, now: float, *, answered: int, lost: int) -> None:
        """Probes that were answered, and such that never will be."""
        self._probes.append((now, answered, lost))
        while self._probes[0][0] < now - LOSS_WINDOW_S:
            self._probes.popleft()
        answered, lost = sum(row[1] for row in self._probes), sum(row[2] for row in self._probes)
        share = self._loss = lost / (answered + lost) if answered + lost >= LOSS_PROBES_MIN else None
        if share is None:
            return
        if share >= LOSS_BAD and lost >= LOST_MIN:
            self._is_lossy = True
        elif share < LOSS_GOOD:
            self._is_lossy = False

    def timed(self, now: float, rtt_s: float, base_rtt_s: float) -> None:
        """Round trip of a probe over the idle line, and the smallest of late."""
        if rtt_s <= max(SLOW_FACTOR * base_rtt_s, base_rtt_s + SLOW_SLACK_S):
            self._slow_from, self._slow = None, ""
            return
        if self._slow_from is None:
            self._slow_from = now
        if now - self._slow_from >= SLOW_S:
            self._slow = f"{rtt_s * 1000:.0f} ms instead of {base_rtt_s * 1000:.0f} ms"

    def loss(self) -> float | None:
        """Share of the probes of late that were not answered; None while there were too few."""
        return self._loss

    def complaint(self) -> tuple[str, str]:
        """``(reason, detail)`` of what is wrong with it, the worst first; ``("", "")`` when all is well."""
        if self.stripped:
            return Reason.ACCESS_STRIPS, self.stripped
        if self._is_lossy:
            return Reason.WAN_LOSSY, f"{100 * (self.loss() or 0.0):.0f} % of the probes are not answered"
        if self._slow:
            return Reason.WAN_HIGH_RTT, self._slow
        return "", ""

    # Multipath TCP ----------------------------------------------------------------------------------------------------

    def check_due(self, now: float, *, up_since: float, is_metered: bool) -> bool:
        """Whether to look now; a yes counts as begun. ``up_since``: since when the WAN works without a break."""
        if self._is_checking:
            return False
        if self._wanted_at is None:
            due = max(up_since + CHECK_FIRST_S, self._checked_at + self._interval_s(is_metered))
        else:
            again_s = CHECK_AGAIN_METERED_S if is_metered else CHECK_AGAIN_S
            due = max(self._wanted_at, up_since + CHECK_FIRST_S, self._checked_at + again_s)
        if now < due:
            return False
        self._is_checking, self._wanted_at = True, None
        return True

    def checked(self, now: float, *, is_answered: bool) -> None:
        """The look is over."""
        self._is_checking = False
        self._checked_at = now
        self._is_known = self._is_known or is_answered
        self._unanswered_s = CHECK_NO_ANSWER_S if is_answered else self._unanswered_s * CHECK_GROWTH

    def look_again(self, now: float) -> None:
        """Something has happened that a look should explain: a fallback, another address."""
        if self._wanted_at is None:
            self._wanted_at = now

    def _interval_s(self, is_metered: bool) -> float:
        if self.stripped:
            return CHECK_STRIPPED_METERED_S if is_metered else CHECK_STRIPPED_S
        well_s = CHECK_YES_METERED_S if is_metered else CHECK_YES_S
        return well_s if self._is_known else min(well_s, self._unanswered_s)
