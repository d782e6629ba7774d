"""Live flows as they travel from a worker to the control daemon: what happened of late, and that a frame holds them."""

from __future__ import annotations

from typing import Any

import pytest
import subflows

from cpe_mcp.control.frames import MAX_FRAME_BYTES, push_frame
from cpe_mcp.relay.records import FlowRecord
from cpe_mcp.relay.subflow_info import LanInfo, SubflowInfo
from cpe_mcp.relay.upstream_worker import Mark, recent_lan, recent_subflow
from cpe_mcp.relay.worker import FLOWS_PER_FRAME

pytestmark = pytest.mark.unit

SUBFLOW = subflows.SUBFLOW._replace(
    bytes_down=1_000_000,
    bytes_up=500_000,
    retransmits=10,
    segments_in=1000,
    segments_out=400,
    min_rtt_ms=18.0,
    reordered=20,
)
LAN = LanInfo(rtt_ms=1.0, cwnd=10, retransmits=0, busy_ms=1000, rwnd_limited_ms=500, sndbuf_limited_ms=0)


def mark(at: float, subflow: SubflowInfo | None = SUBFLOW, lan: LanInfo | None = LAN) -> Mark:
    return Mark(at, 0, 0, lan, at, {subflow[:4]: subflow} if subflow is not None else {})


def test_a_subflow_of_late() -> None:
    later = SUBFLOW._replace(
        bytes_down=SUBFLOW.bytes_down + 1_400_000,
        bytes_up=SUBFLOW.bytes_up + 140_000,
        segments_in=2000,
        reordered=30,
        retransmits=11,
    )
    row = recent_subflow(mark(10.0), mark(12.0, later), later)
    assert (row["down_mbit"], row["up_mbit"]) == (5.6, 0.56)
    assert (row["fill"], row["reordered_share"], row["resent_share"]) == (1.0, 0.01, 0.01)


def test_a_subflow_that_is_new_counts_from_nothing() -> None:
    row = recent_subflow(mark(10.0, None), mark(12.0), SUBFLOW)
    assert (row["down_mbit"], row["fill"], row["reordered_share"]) == (4.0, 0.714, 0.02)


def test_few_segments_say_nothing() -> None:
    later = SUBFLOW._replace(segments_in=1010, bytes_down=SUBFLOW.bytes_down + 1000)
    assert recent_subflow(mark(10.0), mark(12.0, later), later)["fill"] == 0.0


def test_the_lan_of_late() -> None:
    later = LAN._replace(busy_ms=2000, rwnd_limited_ms=1250)
    row = recent_lan(mark(10.0), mark(12.0, lan=later))
    assert (row["busy"], row["rwnd_limited"]) == (0.5, 0.75)
    assert recent_lan(mark(10.0), mark(12.0, lan=None)) == {}


def test_the_largest_flows_fit_a_frame() -> None:
    """Long addresses, nine subflows, large numbers."""
    address = "2001:0db8:1111:2222:3333:4444:5555:6666"
    big = 1 << 40
    changes: dict[str, Any] = {name: big for name, value in SUBFLOW._asdict().items() if isinstance(value, int)}
    subflow = SUBFLOW._replace(**{**changes, "local": address, "remote": address, "local_port": 65535})
    rows: list[dict[str, Any]] = [{"wan": "a_wan_of_long_name", **recent_subflow(mark(0.0), mark(2.0), subflow)}] * 9
    record = FlowRecord(
        *(
            big,
            1795610690.7,
            address,
            65535,
            address,
            65535,
            6,
            "a concentrator of a rather long name",
            "a_wan_of_long_name",
        ),
        *("proxy", "concentrator-unreachable", False, 123456.7, big, big, 123456.7, "concentrator-unreachable"),
        bytes_by_wan={f"a_wan_of_long_name{n}": {"down": big, "up": big} for n in range(9)},
        scheme="single:a_wan_of_long_name",
        scheme_reason="scheme-wan-unusable",
    )
    others = {"up_mbit": 1.1, "down_mbit": 1.1, "waits_up": "concentrator", "waits_down": "concentrator"}
    flow = {
        **record._asdict(),
        **others,
        "lan": recent_lan(mark(0.0), mark(1.0)),
        "worker_busy": 0.123,
        "subflows": rows,
    }
    frame = push_frame("flows", {"id": big, "flows": [flow] * FLOWS_PER_FRAME, "more": True})
    assert MAX_FRAME_BYTES / 2 < len(frame) < MAX_FRAME_BYTES
