"""Why a running connection is as fast as it is: its verdict first, then what else its subflows and the WANs show. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.policy.verdict import LOSSY_SHARE

QUOTA = (Reason.WAN_QUOTA_SOFT, Reason.WAN_OUT_OF_QUOTA)


def explain_flow(flow: Mapping[str, Any], wans: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows ``{"reason", "text", "wan"}``, at least one; ``wan`` is "" where none is meant.

    ``flow``: a row of ``flows`` with its verdict; ``wans``: rows of ``paths``.
    """
    found = [(flow["verdict"], wan) for wan in flow["verdict_wans"] or [""]]
    if flow["mptcp"]:
        found += _observations(flow, wans)
    return [{"reason": reason, "text": TEXTS.get(reason, reason), "wan": wan} for reason, wan in dict.fromkeys(found)]


def _observations(flow: Mapping[str, Any], wans: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    joined = {subflow["wan"] for subflow in flow["subflows"]}
    for wan in wans:
        if not wan["usable"]:
            yield wan["reason"], wan["name"]
    if len(wans) == 1 and wans[0]["usable"]:
        yield Reason.ONE_WAN, wans[0]["name"]
    for wan in wans:
        if not wan["usable"]:
            continue
        if wan["reason"] in QUOTA and wan["place"] != "carrying":
            yield wan["reason"], wan["name"]
        elif wan["backup"]:
            yield Reason.WAN_IN_RESERVE, wan["name"]
        elif joined and wan["name"] not in joined:
            yield Reason.NOT_JOINED, wan["name"]
    for subflow in flow["subflows"]:
        if max(subflow["resent_share"], subflow["reordered_share"]) >= LOSSY_SHARE:
            yield Reason.WAN_LOSSY, subflow["wan"]
