"""Whose a silence is: one WAN's, or the concentrators', whom nobody hears over any WAN. Pure.

Probes go to concentrators only (design D6), so that a WAN is judged by who may be gone himself. A concentrator whose processes
die refuses, which is life; one whose host vanishes is silent over all WANs from the same moment on. Lines do not die together.

A WAN fell silent somewhere between the last that came over it and the first probe that was not answered. Where all WANs have a
moment in common there, the concentrators are to blame; one that had died before is left out, and with one WAN alone nobody
can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cpe_mcp.paths.health import DEAD, OFFLINE, SUSPECT, UNHEARD, UP, Silence, WanHealth

TOGETHER_S = 0.3
"""A line with a long queue goes on delivering for so long when its sender is gone."""
AT_ONCE_S = 0.1
"""Silence that begins within so much on all WANs in use: three looks at the subflows. A download that has lost one of its
lines goes on over the others for longer: until the receive window is full."""


def silence_of(name: str, healths: Mapping[str, WanHealth]) -> Silence:
    """Whose the silence of this WAN is, among all; of one that is not in doubt: its own."""
    health = healths[name]
    if health.state in (OFFLINE, UP):
        return Silence.OWN
    return _silence(health, [other for key, other in healths.items() if key != name and other.state != OFFLINE])


def _silence(health: WanHealth, others: Sequence[WanHealth]) -> Silence:
    together = [other for other in others if _fell_silent_together(health, other)]
    if not together or any(other not in together and other.state != DEAD for other in others):
        return Silence.OWN
    used = [other for other in together if other.is_usable()]
    if used and health.state == SUSPECT and all(_at_once(health, other) for other in used):
        return Silence.AT_ONCE
    # One that is merely in doubt may answer yet. Who dies first meanwhile is pardoned when the last one has not answered.
    return Silence.COMMON if all(other.state in (DEAD, UNHEARD) for other in together) else Silence.OWN


def _fell_silent_together(one: WanHealth, other: WanHealth) -> bool:
    """Whether the other is silent too, and both may have fallen silent in the same moment."""
    if other.state == UP:
        return False
    return max(one.last_sign(), other.last_sign()) <= min(one.unanswered_from, other.unanswered_from) + TOGETHER_S


def _at_once(one: WanHealth, other: WanHealth) -> bool:
    return abs(one.last_sign() - other.last_sign()) <= AT_ONCE_S
