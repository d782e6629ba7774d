"""Beside others who mark packets, as mwan3 and pbr do: what they send elsewhere is not taken (requirement X-15, design D13)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from relay_world import CLIENT4, SERVER4, World, run
from test_interception_netns import Taken, asked, manage, say_direct

from cpe_mcp.upstream.path_manager import PathManager

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-15")]

PBR_MARK, PBR_MASK, PBR_TABLE, PBR_RULE = "0x10000", "0xff0000", "256", "29990"
MWAN3_MARK, MWAN3_MASK, MWAN3_TABLE, MWAN3_RULE = "0x200", "0x3f00", "2", "2002"
VPN_PORT, LINE_PORT = 8443, 8444
POLICIES = f"""
table inet fw4 {{
  chain mangle_prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    ip saddr {CLIENT4} tcp dport {VPN_PORT} meta mark set meta mark or {PBR_MARK}
    ip saddr {CLIENT4} tcp dport {LINE_PORT} meta mark set meta mark or {MWAN3_MARK}
  }}
}}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "liv", bare=True)
    try:
        run("ip", "-n", world.router, "route", "add", "default", "via", "10.2.0.2", "metric", "50")
        run("ip", "-n", world.router, "link", "add", "vpn", "type", "veth", "peer", "vpn0")
        for device in ("vpn", "vpn0"):
            run("ip", "-n", world.router, "link", "set", device, "up")
        for mark, mask, table, rule, way in (
            (PBR_MARK, PBR_MASK, PBR_TABLE, PBR_RULE, ("dev", "vpn")),
            (MWAN3_MARK, MWAN3_MASK, MWAN3_TABLE, MWAN3_RULE, ("via", "10.2.0.2", "dev", "w2")),
        ):
            run("ip", "-n", world.router, "route", "add", "default", *way, "table", table)
            run("ip", "-n", world.router, "rule", "add", "pref", rule, "fwmark", f"{mark}/{mask}", "lookup", table)
        yield world
    finally:
        world.close()


@pytest.fixture
def taken(world: World) -> Iterator[Taken]:
    listener = Taken(world)
    yield listener
    listener.close()


@pytest.mark.parametrize("is_loaded_last", [False, True])
def test_a_policy_into_a_vpn_holds_and_one_for_a_line_does_not(
    world: World, taken: Taken, is_loaded_last: bool
) -> None:
    """Whoever's chain was made last: of two of one priority, the kernel runs the younger one first."""
    for port in (VPN_PORT, LINE_PORT):
        world.serve(say_direct, SERVER4, port)
    other = world.serve(say_direct, SERVER4)
    load = ("ip", "netns", "exec", world.router, "nft", "-f", "-")
    if not is_loaded_last:
        run(*load, stdin=POLICIES)

    async def scenario(manager: PathManager) -> None:
        if is_loaded_last:
            run(*load, stdin=POLICIES)
        assert await asked(world, SERVER4, other) == f"taken {SERVER4}"
        assert await asked(world, SERVER4, LINE_PORT) == f"taken {SERVER4}"
        with pytest.raises(TimeoutError):  # the VPN of this test leads nowhere
            await asked(world, SERVER4, VPN_PORT)

    manage(world, scenario)
