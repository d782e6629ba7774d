"""The log line of a connection that has ended."""

from __future__ import annotations

import logging

import pytest

from cpe_mcp.relay.records import FlowRecord
from cpe_mcp.settings.router import LoggingSettings
from cpe_mcp.upstream.flow_log import flow_line, log_flow

pytestmark = pytest.mark.unit

RECORD = FlowRecord(
    id=7,
    started=0.0,
    client="192.168.1.7",
    client_port=50123,
    server="2001:db8:1:2::3",
    server_port=443,
    family=6,
    concentrator="home",
    wan="dsl",
    action="proxy",
    reason="pooled",
    pooled=True,
    first_byte_ms=20.0,
    bytes_up=10,
    bytes_down=2000,
    duration_s=1.5,
    end="closed",
)


def test_addresses_are_masked_or_whole() -> None:
    whole = flow_line(RECORD, is_masked=False)
    assert whole == (
        "flow client=192.168.1.7#50123 server=2001:db8:1:2::3#443 action=proxy reason=pooled concentrator=home wan=dsl "
        "down=2000 up=10 seconds=1.5 end=closed"
    )
    masked = flow_line(RECORD, is_masked=True)
    assert "192.168.1.7" not in masked
    assert "1:2::3" not in masked
    assert "50123" not in masked
    assert "action=proxy" in masked
    assert "concentrator" not in flow_line(RECORD._replace(concentrator="", wan=""), is_masked=True)


def test_the_switch_and_its_independence_of_the_level(caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        log_flow(RECORD, LoggingSettings(flows=False))
        assert caplog.records == []
        log_flow(RECORD, LoggingSettings(flows=True))
        assert [record.getMessage()[:5] for record in caplog.records] == ["flow "]
    finally:
        root.setLevel(before)
