"""A subflow that has done nothing yet, for tests to say what it did."""

from __future__ import annotations

from cpe_mcp.relay.subflow_info import SubflowInfo

SUBFLOW = SubflowInfo(
    local="10.1.0.1",
    local_port=41000,
    remote="10.9.0.1",
    remote_port=5124,
    rtt_ms=20.0,
    bytes_down=0,
    bytes_up=0,
    retransmits=0,
    cwnd=10,
    unacked=0,
    lost=0,
    delivery_mbit=10.0,
    busy_ms=900,
    rwnd_limited_ms=0,
    sndbuf_limited_ms=0,
    segments_in=0,
    segments_out=0,
    min_rtt_ms=20.0,
    segment_bytes=1400,
    reordered=0,
)
