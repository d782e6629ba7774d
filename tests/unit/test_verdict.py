"""The verdict of a running connection, row by row of its table."""

from __future__ import annotations

from typing import Any

import pytest

from cpe_mcp.policy.reasons import TEXTS
from cpe_mcp.policy.verdict import SHORT_S, TABLE, evidence_of, judge

pytestmark = pytest.mark.unit


def subflow(wan: str, **changes: Any) -> dict[str, Any]:
    """In the middle of a download."""
    row = {"wan": wan, "backup": False, "down_mbit": 5.0, "up_mbit": 0.0, "fill": 0.8, "unacked": 0}
    return {**row, "resent_share": 0.0, "reordered_share": 0.0, **changes}


def flow(**changes: Any) -> dict[str, Any]:
    """A download over two lines that waits for the server."""
    row: dict[str, Any] = {"action": "proxy", "reason": "pooled", "fallback": "", "wan": "dsl", "duration_s": 10.0}
    row |= {"down_mbit": 10.0, "up_mbit": 0.1, "waits_down": "concentrator", "waits_up": "client", "worker_busy": 0.2}
    row |= {"lan": {"busy": 0.1, "rwnd_limited": 0.0}, "subflows": [subflow("dsl"), subflow("lte")]}
    return row | changes


def wan(name: str, **changes: Any) -> dict[str, Any]:
    idle = {"down_mbit": 5.0, "up_mbit": 0.1, "capacity_down_mbit": 50.0, "capacity_up_mbit": 10.0}
    return {"name": name, **idle, **changes}


UPLOAD: dict[str, Any] = {"down_mbit": 0.1, "up_mbit": 8.0, "waits_up": "concentrator"}
UPLOADING: dict[str, Any] = {"down_mbit": 0.0, "up_mbit": 4.0, "fill": 0.0, "unacked": 20}
FULL = {"down_mbit": 48.0, "up_mbit": 9.5}
WHOLE = [subflow("dsl", fill=1.0), subflow("lte", fill=0.99)]
UP = [subflow("dsl", **UPLOADING), subflow("lte", **UPLOADING)]
TAKES_NO_MORE = {"waits_down": "client", "lan": {"busy": 1.0, "rwnd_limited": 0.1}}

CASES: list[tuple[str, dict[str, Any], dict[str, Any], str, list[str]]] = [
    ("direct", {"action": "direct", "reason": "rule-direct", "subflows": []}, {}, "rule-direct", []),
    ("fell back", {"fallback": "mptcp-stripped", "subflows": []}, {}, "mptcp-stripped", ["dsl"]),
    ("CPU", {"worker_busy": 0.95}, {}, "worker-busy", []),
    ("CPU busy with others", {"worker_busy": 0.95, "down_mbit": 0.0, "up_mbit": 0.0}, {}, "flow-quiet", []),
    ("slow reader", {"waits_down": "client", "lan": {"busy": 1.0, "rwnd_limited": 0.9}}, {}, "client-full", []),
    (
        "reader that stopped",
        {"waits_down": "client", "lan": {"busy": 1.0, "rwnd_limited": 1.0}, "down_mbit": 0.0, "up_mbit": 0.0},
        {},
        "client-full",
        [],
    ),
    ("Wi-Fi", TAKES_NO_MORE, {"dsl": FULL}, "lan-full", []),
    (
        "a moment's wait for the LAN",
        {**TAKES_NO_MORE, "lan": {"busy": 0.2, "rwnd_limited": 0.9}},
        {},
        "server-slow",
        [],
    ),
    ("server does not read", {**UPLOAD, "subflows": [{**row, "unacked": 0} for row in UP]}, {}, "server-full", []),
    (
        "server that stopped reading",
        {**UPLOAD, "down_mbit": 0.0, "up_mbit": 0.0, "subflows": [{**row, "unacked": 0, "up_mbit": 0.0} for row in UP]},
        {},
        "server-full",
        [],
    ),
    ("nothing to do", {"down_mbit": 0.01, "up_mbit": 0.0}, {"dsl": FULL}, "flow-quiet", []),
    ("slow device", {**UPLOAD, "waits_up": "client", "subflows": UP}, {"dsl": FULL}, "client-slow", []),
    ("full, and known", {}, {"dsl": {**FULL, "known": True}}, "wan-full", ["dsl"]),
    ("full, as far as learnt", {"subflows": WHOLE}, {"lte": FULL}, "wan-full", ["lte"]),
    ("both full", {"subflows": WHOLE}, {"dsl": FULL, "lte": FULL}, "wan-full", ["dsl", "lte"]),
    ("the most ever seen, but no queue", {}, {"dsl": FULL, "lte": FULL}, "server-slow", []),
    ("full, but not by this flow", {"subflows": [subflow("dsl", fill=1.0)]}, {"lte": FULL}, "wan-slower", ["dsl"]),
    ("upload, full", {**UPLOAD, "subflows": UP}, {"dsl": FULL}, "wan-full", ["dsl"]),
    ("young", {"duration_s": SHORT_S / 2}, {}, "still-starting", []),
    ("young and full", {"duration_s": SHORT_S / 2, "subflows": WHOLE}, {"dsl": FULL}, "wan-full", ["dsl"]),
    ("losses", {"subflows": [subflow("dsl", fill=1.0, reordered_share=0.02)]}, {}, "wan-lossy", ["dsl"]),
    ("losses that do not matter", {"subflows": [subflow("dsl", reordered_share=0.02)]}, {}, "server-slow", []),
    (
        "upload, losses",
        {**UPLOAD, "subflows": [subflow("lte", **UPLOADING, resent_share=0.05)]},
        {},
        "wan-lossy",
        ["lte"],
    ),
    ("a line that got slower", {"subflows": [subflow("lte", fill=1.0)]}, {}, "wan-slower", ["lte"]),
    (
        "backup subflows say nothing",
        {"subflows": [subflow("dsl"), subflow("lte", backup=True, fill=1.0, reordered_share=0.5)]},
        {"lte": FULL},
        "server-slow",
        [],
    ),
    ("slow server", {}, {}, "server-slow", []),
    ("before Linux 6.5 nothing is known of subflows", {"subflows": []}, {"dsl": FULL}, "server-slow", []),
]


@pytest.mark.requirement("Y-6")
@pytest.mark.parametrize(
    ("changes", "wans", "reason", "named"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_verdicts(changes: dict[str, Any], wans: dict[str, Any], reason: str, named: list[str]) -> None:
    rows = {name: wan(name, **wans.get(name, {})) for name in ("dsl", "lte")}
    known = {name: (50.0, 10.0) for name, row in wans.items() if row.get("known")}
    verdict = judge(evidence_of(flow(**changes), rows, known_mbit=known))
    assert (verdict.reason, list(verdict.wans)) == (reason, named)
    assert verdict.text() == ", ".join(named) + ": " * bool(named) + TEXTS[reason]


@pytest.mark.parametrize(("mbit", "reason"), [(6.0, "concentrator-cap"), (3.0, "server-slow")])
def test_the_cap_of_the_concentrator_is_for_all_connections_together(mbit: float, reason: str) -> None:
    rows = {name: wan(name, down_mbit=mbit) for name in ("dsl", "lte")}
    evidence = evidence_of(flow(down_mbit=2.0), rows, known_mbit={}, cap_mbit=(12.0, 2.0))
    assert judge(evidence).reason == reason


def test_every_row_of_the_table_has_a_case() -> None:
    reached = {case[3] for case in CASES} | {"concentrator-cap"}
    assert {row.reason for row in TABLE if row.reason} <= reached


def test_a_flow_of_an_older_worker_has_a_verdict() -> None:
    old = {"action": "proxy", "reason": "pooled", "fallback": "", "wan": "dsl", "duration_s": 3.0, "subflows": []}
    assert judge(evidence_of(old, {}, known_mbit={})).reason == "flow-quiet"
