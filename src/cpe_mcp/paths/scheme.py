"""Distribution schemes: which WANs carry, which wait in backup, which have no endpoint at all (design D3, D18). Pure.

The kernel's scheduler places bytes, the concentrator's for downloads; MP_PRIO is the only word it hears from us, and it obeys
(measured on Linux 6.18). So a scheme is a choice of three places for each WAN, made anew all the time:

==========  ====================================================================================================
carrying    its endpoint is an ordinary one
in backup   its subflows are joined and carry nothing while another one lives; a switch takes 0.2 to 0.35 s
absent      no endpoint, hence no subflow, no handshake, not one byte; adding it takes 0.3 to 0.4 s and a handshake
==========  ====================================================================================================

All schemes are one machine: a list of stages, each with more WANs than the one before, and the load that moves it from one
to the next. A scheme with one stage never moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cpe_mcp.paths.rates import Rate, RateMeter
from cpe_mcp.policy.reasons import Reason

ADAPTIVE, AGGREGATE, PRIMARY_BACKUP, OVERFLOW, LOWEST_LATENCY, SINGLE = (
    "adaptive",
    "aggregate",
    "primary-backup",
    "overflow",
    "lowest-latency",
    "single",
)
SCHEMES = (ADAPTIVE, AGGREGATE, PRIMARY_BACKUP, OVERFLOW, LOWEST_LATENCY)
"""Those that are a word; SINGLE is written ``single:WAN``."""
ALONE = (PRIMARY_BACKUP, LOWEST_LATENCY, SINGLE)
"""Schemes in which one WAN carries."""

NORMAL, RESERVE, LAST_RESORT = 0, 1, 2
"""Tiers: WANs of a higher one carry only while no WAN of a lower one is healthy. A WAN whose role is backup, and one whose
quota is nearly used up, is a reserve; one whose quota is used up is the last resort."""

RTT_MARGIN = 1.25
"""A WAN overtakes another of the same preference only when its round trip is shorter by this factor: places that change with
every probe would move the first subflows and the backup flags with them."""
LEAVE_S = 3.0
"""A WAN that shall be absent waits in backup for so long first: what is on its way arrives, and connections that had only
this WAN have joined another one (0.2 s after it came)."""


class Rank(NamedTuple):
    """What WANs are ordered by."""

    tier: int
    preference: int
    rtt_s: float

    def is_ahead_of(self, other: Rank) -> bool:
        """Clearly: neither is ahead of the other when their round trips are alike."""
        if self[:2] != other[:2]:
            return self[:2] < other[:2]
        return self.rtt_s * RTT_MARGIN < other.rtt_s


def ranked(ranks: Mapping[str, Rank], before: Sequence[str]) -> list[str]:
    """WANs, best first; as they stood ``before`` unless one is clearly ahead."""
    order = [name for name in before if name in ranks]
    order += [name for name in ranks if name not in order]
    for end in range(len(order) - 1, 0, -1):
        for place in range(end):
            if ranks[order[place + 1]].is_ahead_of(ranks[order[place]]):
                order[place], order[place + 1] = order[place + 1], order[place]
    return order


class Line(NamedTuple):
    """One healthy WAN at this moment."""

    name: str
    tier: int
    preference: int
    rtt_s: float
    """The smallest of late, without the queue."""
    is_metered: bool
    meter: RateMeter
    has_queue: bool
    """Whether packets wait on it now."""


class Thresholds(NamedTuple):
    """When stages change; shares of what the carrying WANs can carry."""

    busy_share: float
    busy_s: float
    idle_share: float
    idle_s: float


class Distribution(NamedTuple):
    """The places of all healthy WANs."""

    order: tuple[str, ...] = ()
    """WANs that may take first subflows, best first."""
    carrying: frozenset[str] = frozenset()
    backup: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    reason: str = Reason.NO_WAN
    """Why it is so, for people: ``scheme_reason`` of the flows."""


NOWHERE = Distribution()


def split_scheme(scheme: str) -> tuple[str, str]:
    """``single:lte`` -> ``("single", "lte")``; ``("adaptive", "")`` for the others. Raises ValueError."""
    name, colon, wan = scheme.partition(":")
    if name == SINGLE and wan:
        return name, wan
    if name in SCHEMES and not colon:
        return name, ""
    raise ValueError(f"{scheme!r} is none of {', '.join(SCHEMES)}, single:WAN")


class Distributor:
    """Decides who carries. One per router; ``scheme`` may change between two calls."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._ranking: list[str] = []
        self._stages: list[tuple[str, ...]] = []
        self._stage = 0
        self._is_wide = False
        """The last stage was reached: WANs that come while the traffic lasts carry at once."""
        self._changing_from: float | None = None
        self._left_at: dict[str, float] = {}
        """When a WAN stopped having a reason for its endpoint."""

    def configure(self, thresholds: Thresholds) -> None:
        """Other thresholds; running flows keep the WANs they have."""
        self._thresholds = thresholds

    def update(self, now: float, scheme: str, lines: Sequence[Line]) -> Distribution:
        """The places now. ``lines``: the healthy WANs, in the order of the settings. Raises ValueError for no scheme."""
        name, only = split_scheme(scheme)
        by_name = {line.name: line for line in lines}
        order = self._order(name, lines)
        if name == SINGLE:
            order = [only] if only in by_name else []
        tier = min((by_name[wan].tier for wan in order), default=NORMAL)
        stages = _stages(name, [wan for wan in order if by_name[wan].tier == tier])
        self._move(now, stages, by_name, is_careful=name == OVERFLOW)
        if not order:
            return NOWHERE._replace(
                absent=frozenset(by_name), reason=Reason.SCHEME_SINGLE if by_name else Reason.NO_WAN
            )
        carrying = frozenset(self._stages[self._stage])
        rest = [line for line in lines if line.name not in carrying]
        unwanted = {line.name for line in rest if name == SINGLE or line.is_metered or line.tier == LAST_RESORT}
        absent = self._gone(now, unwanted, {line.name for line in lines})
        return Distribution(
            order=tuple(order),
            carrying=carrying,
            backup=frozenset(line.name for line in rest) - absent,
            absent=absent,
            reason=self._reason(name, tier),
        )

    def _order(self, name: str, lines: Sequence[Line]) -> list[str]:
        ranks = {line.name: Rank(line.tier, _preference(name, line), line.rtt_s) for line in lines}
        self._ranking = ranked(ranks, self._ranking)
        return list(self._ranking)

    def _move(self, now: float, stages: list[tuple[str, ...]], lines: Mapping[str, Line], *, is_careful: bool) -> None:
        """To the next stage or back, as the load says."""
        if stages != self._stages:
            self._stage = len(stages) - 1 if self._is_wide else min(self._stage, len(stages) - 1)
            self._stage = max(0, self._stage)
            self._stages, self._changing_from = stages, None
        if not stages:
            self._is_wide = False
            return
        carrying = [lines[wan] for wan in stages[self._stage]]
        below = [lines[wan] for wan in stages[max(0, self._stage - 1)]]
        upwards = self._stage + 1 < len(stages) and self._is_full(carrying, is_careful)
        idle_share = max(self._thresholds.idle_share, FITS_SHARE) if is_careful else self._thresholds.idle_share
        downwards = (self._stage > 0 or self._is_wide) and _load(carrying, below) < idle_share
        if not upwards and not downwards:
            self._changing_from = None
        elif self._changing_from is None:
            self._changing_from = now
        elif now - self._changing_from >= (self._thresholds.busy_s if upwards else self._thresholds.idle_s):
            self._stage = max(0, self._stage + (1 if upwards else -1))
            self._is_wide = 0 < self._stage == len(stages) - 1
            self._changing_from = None

    def _is_full(self, carrying: Sequence[Line], is_careful: bool) -> bool:
        """``is_careful``: a learnt rate is not enough, a stream below the line's rate may be the most that it has seen."""
        load = _load(carrying, carrying)
        if not is_careful:
            return load >= self._thresholds.busy_share
        return load >= self._thresholds.busy_share and _is_jammed(carrying, load)

    def _gone(self, now: float, unwanted: set[str], present: set[str]) -> frozenset[str]:
        """Those of the unwanted whose time in backup is over. One that never carried has none."""
        for name in [name for name in self._left_at if name not in present]:
            del self._left_at[name]
        for name in present - unwanted:
            self._left_at[name] = now
        return frozenset(name for name in unwanted if now - self._left_at.get(name, now - LEAVE_S) >= LEAVE_S)

    def _reason(self, name: str, tier: int) -> str:
        if tier != NORMAL and name != SINGLE:
            return Reason.SCHEME_RESERVE
        if name in (ADAPTIVE, OVERFLOW) and len(self._stages) > 1:
            return Reason.SCHEME_JOINED if self._stage else Reason.SCHEME_ROOM
        return SCHEME_REASONS[name]


SCHEME_REASONS = {
    ADAPTIVE: Reason.SCHEME_ONE,
    OVERFLOW: Reason.SCHEME_ONE,
    AGGREGATE: Reason.SCHEME_ALL,
    PRIMARY_BACKUP: Reason.SCHEME_PRIMARY,
    LOWEST_LATENCY: Reason.SCHEME_LATENCY,
    SINGLE: Reason.SCHEME_SINGLE,
}


def _preference(name: str, line: Line) -> int:
    """What counts before the round trip, within one tier."""
    if name == LOWEST_LATENCY:
        return 0
    if name in (OVERFLOW, PRIMARY_BACKUP):
        return line.preference + METERED_LAST * line.is_metered
    return line.preference


METERED_LAST = 10_000
"""Above every preference (0 to 1000): where the fixed line comes first, bytes that cost money come last."""


def _stages(name: str, order: Sequence[str]) -> list[tuple[str, ...]]:
    """The WANs of one tier, stage by stage."""
    if not order:
        return []
    if name in ALONE:
        return [(order[0],)]
    everything = tuple(order)
    if name == AGGREGATE or len(order) == 1:
        return [everything]
    if name == OVERFLOW:
        return [everything[:count] for count in range(1, len(order) + 1)]
    return [everything[:1], everything]


def _is_jammed(carrying: Sequence[Line], load: float) -> bool:
    if any(line.has_queue for line in carrying):
        return True
    # No queue is seen where the line has a shaper that keeps it short; a rate that was told is proof as well.
    return load >= TOLD_SHARE and all(line.meter.is_told() for line in carrying)


FITS_SHARE = 0.85
"""With ``overflow``: of what the WANs before can carry. Whoever leaves too early is back after busy_s; each second costs."""
TOLD_SHARE = 0.95
"""Of the rates that the settings give: headers and the shaper's own margin are the rest."""


def _load(busy: Sequence[Line], room: Sequence[Line]) -> float:
    """What ``busy`` carry as a share of what ``room`` can carry, the busier direction's."""
    rates: list[Rate] = [line.meter.rate for line in busy]
    capacities = [line.meter.capacity() for line in room]
    down = sum(rate.down for rate in rates) / sum(rate.down for rate in capacities)
    up = sum(rate.up for rate in rates) / sum(rate.up for rate in capacities)
    return max(down, up)
