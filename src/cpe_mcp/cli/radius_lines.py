"""What ``cpe-mcp status`` says of RADIUS, one line for each thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpe_mcp.cli.table import duration


def radius_lines(status: Mapping[str, Any]) -> dict[str, str]:
    """Heading -> text, of the answer of ``status``; what is not in use has no line."""
    radius = status["radius"]
    lines = {"RADIUS": _verdict(radius, status["warnings"])}
    if not radius["enabled"]:
        return lines
    server = f"{radius['server']} answered" if radius["server"] else "none has answered"
    lines["RADIUS server"] = f"{server}, asked over {radius['transport'].upper()}"
    times = [
        f"{text} {duration(max(0.0, seconds))}"
        for text, seconds in (
            ("what it said holds for another", radius["expires_s"]),
            ("asked again in", radius["asks_again_s"]),
        )
        if seconds is not None
    ]
    if times:
        lines["RADIUS times"] = ", ".join(times)
    cap = radius["cap"]
    if any(cap.values()):
        down, up = (f"{mbit} Mbit/s" if mbit else "no limit" for mbit in (cap["down_mbit"], cap["up_mbit"]))
        lines["Rate cap"] = f"{down} down, {up} up for all that goes through concentrators, as RADIUS says"
    return lines | _accounting(radius["accounting"]) | _dynamic(radius["dynamic"])


def counted(counters: Mapping[str, int]) -> str:
    """``2 coa-ack, 1 stale``"""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counters.items())) or "none yet"


def _verdict(radius: Mapping[str, Any], warnings: list[str]) -> str:
    """What came of asking, and what the server said, or why none did, unless a warning says it already."""
    detail = radius["detail"]
    return f"{radius['text']} ({detail})" if detail and detail not in warnings else str(radius["text"])


def _accounting(accounting: Mapping[str, Any] | None) -> dict[str, str]:
    """12 records sent, 1 waits (no server answered), 0 lost"""
    if not accounting or not accounting["enabled"]:
        return {}
    waits = f"{accounting['waiting']} {'waits' if accounting['waiting'] == 1 else 'wait'}"
    why = f" ({accounting['trouble']})" if accounting["trouble"] else ""
    return {"Accounting": f"{accounting['sent']} records sent, {waits}{why}, {accounting['lost']} lost"}


def _dynamic(dynamic: Mapping[str, Any] | None) -> dict[str, str]:
    """Where CoA- and Disconnect-Requests are taken, and what came of those that did."""
    if not dynamic:
        return {}
    return {"Changes": f"taken at {', '.join(dynamic['addresses']) or 'no address'}: {counted(dynamic['counters'])}"}
