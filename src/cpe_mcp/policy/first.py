"""Why a new connection begins on the WAN that it begins on, and goes to that concentrator: words for what was decided. Pure.

The order itself is made in :mod:`cpe_mcp.paths.scheme`; here it is only told which of its criteria made the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cpe_mcp.paths.scheme import LOWEST_LATENCY, METERED_LAST, OVERFLOW, PRIMARY_BACKUP
from cpe_mcp.policy.quota import OVER, SOFT, WITHIN
from cpe_mcp.policy.reasons import Reason


class Standing(NamedTuple):
    """What a WAN that may begin connections is ordered by."""

    name: str
    is_reserve: bool
    """Its role is backup."""
    is_metered: bool
    preference: int
    quota: str = WITHIN
    strips: bool = False
    """It removes Multipath TCP, and others carry together without it."""


def why_wan(chosen: str, order: Sequence[Standing], scheme: str, *, bound: bool = False) -> str:
    """A value of Reason. ``order``: as the system's scheme has them, best first; ``bound``: the flow's own class has a scheme
    that binds it to one WAN."""
    if bound:
        return Reason.FIRST_LATENCY if scheme == LOWEST_LATENCY else Reason.FIRST_SCHEME
    names = [row.name for row in order]
    if len(order) < 2 or chosen not in names:
        return Reason.FIRST_ONLY
    if chosen != names[0]:
        return Reason.FIRST_FAMILY
    one, other = order[0], order[1]
    metered = METERED_LAST if scheme in (OVERFLOW, PRIMARY_BACKUP) else 0
    preference = 0 if scheme == LOWEST_LATENCY else 1
    criteria = (
        (Reason.FIRST_QUOTA, one.quota == OVER, other.quota == OVER),
        (Reason.FIRST_QUOTA, _is_soft(one), _is_soft(other)),
        (Reason.FIRST_ROLE, one.is_reserve, other.is_reserve),
        (Reason.FIRST_STRIPS, one.strips, other.strips),
        (Reason.FIRST_UNMETERED, metered * one.is_metered, metered * other.is_metered),
        (Reason.FIRST_PREFERENCE, preference * one.preference, preference * other.preference),
    )
    for reason, mine, its in criteria:
        if mine != its:
            return reason if mine < its else Reason.FIRST_SCHEME
    return Reason.FIRST_LATENCY


def _is_soft(row: Standing) -> bool:
    """Whether its quota, and not its role, makes it a reserve."""
    return row.quota == SOFT and not row.is_reserve


def why_concentrator(chosen: str, known: Sequence[str], *, by_rule: bool = False) -> str:
    """A value of Reason. ``known``: all, in order of preference, whether they can be used or not; ``by_rule``: a rule names
    it."""
    if by_rule:
        return Reason.CONCENTRATOR_RULE
    if len(known) < 2:
        return Reason.CONCENTRATOR_ONLY
    return Reason.CONCENTRATOR_FIRST if chosen == known[0] else Reason.CONCENTRATOR_NEXT
