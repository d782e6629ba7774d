"""What of people stands in logs and reports: networks, and nothing smaller; and who writes what into the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from cpe_mcp.policy.masking import shortened, without_hosts
from cpe_mcp.upstream.control import Control
from cpe_mcp.upstream.direct_queue import DirectQueue

pytestmark = [pytest.mark.unit, pytest.mark.requirement("7.1-a")]


@pytest.mark.parametrize(
    ("address", "short"),
    [
        ("192.0.2.55", "192.0.2.x"),
        ("2001:db8:aa:bb::1", "2001:db8:aa:x"),
        ("::ffff:192.0.2.55", "::ffff:192.0.2.x"),
        ("::1", "0:0:0:x"),
        ("", ""),
        ("a name", "a name"),
    ],
)
def test_shortened(address: str, short: str) -> None:
    assert shortened(address) == short


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("to 203.0.113.5, from:192.168.1.20.", "to 203.0.113.x, from:192.168.1.x."),
        ("192.0.2.1:443 192.0.2.10 192.0.2.100", "192.0.2.x:443 192.0.2.10 192.0.2.x"),
        ('"server": "2001:db8:1:2::80"', '"server": "2001:db8:1:x"'),
        ("server:2001:db8:1:2::80: no route", "server:2001:db8:1:x: no route"),
        ("[2001:db8:1:2::80]:443 2001:db8::9%eth0", "[2001:db8:1:x]:443 2001:db8:0:x%eth0"),
        ("::ffff:10.2.3.4 64:ff9b::10.2.3.4", "::ffff:10.2.3.x 64:ff9b::10.2.3.x"),
        ("mac:00:53:00:12:34:56,00:53:00:AB:CD:EF", "mac:00:53:00:x,00:53:00:x"),
        ("10.0.0.0/8 192.168.1.0/24 fc00::/7 ::/0", "10.0.0.0/8 192.168.1.0/24 fc00::/7 ::/0"),
        ("192.168.1.20/32 192.168.1.16/28", "192.168.1.x/32 192.168.1.x/28"),
        ("2001:db8:1:5600::/56 2001:db8:2:3:4:5:6:7/128", "2001:db8:1:x/56 2001:db8:2:x/128"),
        ("{ 10.1.0.1-10.1.0.9, fe80::5054:ff:fe12:3456 }", "{ 10.1.0.x-10.1.0.x, fe80:0:0:x }"),
        ("0.0.0.0 127.0.0.1 :: ::1 224.0.0.1", "0.0.0.0 127.0.0.1 :: ::1 224.0.0.1"),
        ("Linux 6.18.44 at 03:15:22.250 +00:00", "Linux 6.18.44 at 03:15:22.250 +00:00"),
        ("1.2.3.4.5 999.1.1.1 12345::1 a::b::c", "1.2.3.4.5 999.1.1.1 12345::1 a::b::c"),
    ],
)
def test_hosts_go_and_networks_stay(text: str, without: str) -> None:
    assert without_hosts(text, kept={"192.0.2.10"}) == without
    assert without_hosts(without, kept={"192.0.2.10"}) == without, "once is as often as one likes"


VISITED = "198.51.100.77"
log = logging.getLogger("cpe_mcp.test")


def test_the_log_of_the_router_has_no_server_that_somebody_visits(caplog: pytest.LogCaptureFixture) -> None:
    """What is left to plain forwarding is told at level debug, and what nft says above it when it does not take that."""

    def refuse(servers: Sequence[tuple[str, int]]) -> None:
        raise RuntimeError(f"nft refused: {servers} is odd")

    async def leave() -> None:
        queue = DirectQueue(refuse, log.warning)
        paths = SimpleNamespace(add_direct=queue.add)
        settings = SimpleNamespace(general=SimpleNamespace(direct_s=60.0))
        control: Any = SimpleNamespace(paths=paths, left_direct={}, now=0.0, settings=settings)
        Control._direct(control, control, {"address": VISITED, "port": 443, "reason": "server-refused"})
        while sum("198.51.100" in line for line in caplog.messages) < 3:
            await asyncio.sleep(0.01)
        queue.close()

    with caplog.at_level(logging.DEBUG, logger="cpe_mcp"):
        caplog.clear()
        asyncio.run(asyncio.wait_for(leave(), 5))
    own = [row.getMessage() for row in caplog.records if row.name != "asyncio"]
    assert len(own) == 3
    for line in own:
        assert "198.51.100.x" in line
        assert VISITED not in line
