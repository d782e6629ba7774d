"""Why a running connection is as fast as it is: what its subflows and the WANs show, as reasons. Pure.

The rates of a WAN are those of its whole device, since that is what decides whether a slower line helps (design D18).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cpe_mcp.policy.decide import PROXY
from cpe_mcp.policy.reasons import TEXTS, Reason

SHORT_S = 2.0
"""A connection younger than this has not had time to fill a line; the slower ones join after paths.busy_s of load."""
RESENT_SHARE = 0.01
"""Retransmitted segments among those that were sent, from which a line counts as lossy: below, congestion control shrugs."""
SEGMENT_BYTES = 1400


def explain_flow(
    flow: Mapping[str, Any], wans: Sequence[Mapping[str, Any]], *, busy_percent: float
) -> list[dict[str, str]]:
    """Rows ``{"reason", "text", "wan"}``, at least one; ``wan`` is "" where none is meant.

    ``flow``: a row of ``flows``; ``wans``: rows of ``paths``; ``busy_percent``: the setting of section paths.
    """
    found = list(_reasons(flow, wans, busy_percent))
    if not found:
        found = [(Reason.NOT_LIMITED_HERE, "")]
    return [{"reason": reason, "text": TEXTS.get(reason, reason), "wan": wan} for reason, wan in found]


def _reasons(
    flow: Mapping[str, Any], wans: Sequence[Mapping[str, Any]], busy_percent: float
) -> Iterator[tuple[str, str]]:
    if flow["action"] != PROXY:
        yield flow["reason"], ""
        return
    if flow["fallback"]:
        yield flow["fallback"], flow["wan"]
        return
    is_young = flow["duration_s"] < SHORT_S
    if is_young:
        yield Reason.STILL_STARTING, ""
    joined = {subflow["wan"] for subflow in flow["subflows"]}
    usable = [wan for wan in wans if wan["usable"]]
    for wan in wans:
        if not wan["usable"]:
            yield wan["reason"], wan["name"]
    if len(usable) == 1 and len(wans) == 1:
        yield Reason.ONE_WAN, usable[0]["name"]
    for wan in usable:
        if joined and wan["name"] not in joined:
            yield Reason.NOT_JOINED, wan["name"]
        elif wan["backup"]:
            yield Reason.WAN_IN_RESERVE, wan["name"]
        elif not is_young and _load(wan) >= busy_percent:
            yield Reason.WAN_FULL, wan["name"]
    for subflow in flow["subflows"]:
        if subflow["retransmits"] * SEGMENT_BYTES > RESENT_SHARE * max(subflow["bytes_up"], 100 * SEGMENT_BYTES):
            yield Reason.WAN_LOSSY, subflow["wan"]


def _load(wan: Mapping[str, Any]) -> float:
    """Percent of what is known to fit, of the fuller direction; 0 while nothing is known."""
    loads = [
        100 * wan[f"{direction}_mbit"] / wan[f"capacity_{direction}_mbit"]
        for direction in ("down", "up")
        if wan[f"capacity_{direction}_mbit"] > 0
    ]
    return max(loads, default=0.0)
