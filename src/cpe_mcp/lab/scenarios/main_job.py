"""The main job: one download and one upload over both lines, and how soon the first byte is there."""

from __future__ import annotations

from typing import Any

from cpe_mcp.lab.measure import mbit, shares, size_of
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import LINK_NAMES
from cpe_mcp.lab.scenarios.transfer import Content, Download, put

SLACK = 4
"""A transfer may take this many times as long as it should before it is given up."""


def line_bytes(lab: Lab, direction: str) -> dict[str, int]:
    """IP bytes that each line has delivered so far; ``down`` is towards the subscriber."""
    return {name: lab.link(name).stats()[direction]["bytes"] for name in LINK_NAMES}


def plain_sum_mbit(report: dict[str, Any], direction: str) -> float:
    """What plain TCP reaches over each line alone, added up. Raises LabError when it was not measured."""
    rates = [wan.get("tcp_mbit") for wan in report["wans"].values()]
    if not all(rates):
        raise LabError("the lines were not measured alone, so there is nothing to compare with")
    return float(sum(rate[direction] for rate in rates))


def download(lab: Lab, report: dict[str, Any], content: Content, direction: str, seconds: float) -> dict[str, Any]:
    """One download with the package that takes about so long: the contract's figures and a few more. Raises LabError."""
    whole = plain_sum_mbit(report, direction)
    size = min(content.size, size_of(whole, seconds))
    before = line_bytes(lab, direction)
    received = Download(lab, size).wait(SLACK * seconds)
    return {
        "bytes": received.size,
        "sha256_ok": received.sha256 == content.sha256(size),
        **_rates(received.size, received.seconds, whole),
        "steady_mbit": round(received.steady_mbit, 1),
        "gap_ms": round(received.gap_ms),
        "rates_mbit": received.rates_mbit,
        **_by_wan(lab, direction, before),
        "error": received.error,
    }


def upload(lab: Lab, report: dict[str, Any], content: Content, direction: str, seconds: float) -> dict[str, Any]:
    """One upload with the package, by curl, in the same way. Raises LabError."""
    whole = plain_sum_mbit(report, direction)
    size = min(content.size, size_of(whole, seconds))
    before = line_bytes(lab, direction)
    sent = put(lab, content, size, timeout_s=SLACK * seconds)
    return {
        "bytes": sent.size,
        "sha256_ok": sent.sha256 == content.sha256(size),
        **_rates(sent.size, sent.seconds, whole),
        **_by_wan(lab, direction, before),
    }


def _rates(size: int, seconds: float, whole: float) -> dict[str, float]:
    rate = mbit(size, seconds)
    return {"seconds": round(seconds, 2), "mbit": round(rate, 1), "efficiency": round(rate / whole, 3)}


def _by_wan(lab: Lab, direction: str, before: dict[str, int]) -> dict[str, Any]:
    carried = {name: count - before[name] for name, count in line_bytes(lab, direction).items()}
    return {"bytes_by_wan": carried, "share_by_wan": {name: round(part, 3) for name, part in shares(carried).items()}}
