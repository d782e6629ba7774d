"""The user's firewall keeps its word about connections that would be taken: a table like fw4's, on a real kernel."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from relay_world import CLIENT4, SERVER4, World, inside
from test_interception_netns import Taken, asked, manage, say_direct
from test_interception_netns import taken as taken  # noqa: PLC0414 # fixtures
from test_interception_netns import world as world  # noqa: PLC0414

from cpe_mcp.upstream.path_manager import PathManager

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-15")]

ROOT = Path(__file__).resolve().parents[2]
FIREWALL = """
table inet fw4
delete table inet fw4
table inet fw4 {
    chain input {
        type filter hook input priority filter; policy %(input)s;
        ct state vmap { established : accept, related : accept }
        %(fragment)s
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state vmap { established : accept, related : accept }
        iifname "lan" jump forward_lan
        iifname { "w1", "w2" } jump reject_to_lan
        jump handle_reject
    }
    chain handle_reject {
        meta l4proto tcp reject with tcp reset
        reject
    }
    chain forward_lan {
        %(rules)s
        jump accept_to_wan
    }
    chain accept_to_wan {
        oifname { "w1", "w2" } counter accept
    }
    chain reject_to_wan {
        oifname { "w1", "w2" } counter jump handle_reject
    }
    chain reject_to_lan {
        oifname "lan" counter jump handle_reject
    }
    chain dstnat {
        type nat hook prerouting priority dstnat; policy accept;
        iifname "lan" jump dstnat_lan
    }
    chain dstnat_lan {
        %(redirects)s
    }
}
"""


@pytest.fixture
def server(world: World) -> int:
    """The port of one that says "direct"."""
    return world.serve(say_direct)


def load(world: World, *, rules: str = "", redirects: str = "", input: str = "accept", fragment: str = "") -> None:
    """The firewall, loaded anew as ``fw4 reload`` does."""
    text = FIREWALL % {"rules": rules, "redirects": redirects, "input": input, "fragment": fragment}
    with inside(world.router):
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def test_what_a_rule_refuses_is_refused_and_the_rest_is_taken(world: World, taken: Taken, server: int) -> None:
    other = world.serve(say_direct)
    load(world, rules=f"tcp dport {server} counter jump reject_to_wan")

    async def scenario(manager: PathManager) -> None:
        with pytest.raises(ConnectionRefusedError):
            await asked(world, SERVER4, server)
        assert await asked(world, SERVER4, other) == f"taken {SERVER4}"

    manage(world, scenario)


def test_a_reload_of_the_firewall_counts_at_once(world: World, taken: Taken, server: int) -> None:
    load(world)

    async def scenario(manager: PathManager) -> None:
        assert await asked(world, SERVER4, server) == f"taken {SERVER4}"
        load(world, rules=f"ip saddr {CLIENT4} jump reject_to_wan")
        await asyncio.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            await asked(world, SERVER4, server)
        load(world)
        await asyncio.sleep(0.5)
        assert await asked(world, SERVER4, server) == f"taken {SERVER4}"

    manage(world, scenario)


def test_a_zone_without_forwarding_to_the_wan_gets_none(world: World, taken: Taken, server: int) -> None:
    load(world, rules="jump reject_to_wan")

    async def scenario(manager: PathManager) -> None:
        with pytest.raises(ConnectionRefusedError):
            await asked(world, SERVER4, server)

    manage(world, scenario)


def test_a_rule_that_cannot_be_foreseen_leaves_its_connections_to_the_firewall(
    world: World, taken: Taken, server: int
) -> None:
    other = world.serve(say_direct)
    load(world, rules=f"tcp dport {server} limit rate over 1/day burst 1 packets drop")

    async def scenario(manager: PathManager) -> None:
        assert await asked(world, SERVER4, server) == "direct"  # the first of the day
        assert await asked(world, SERVER4, other) == f"taken {SERVER4}"

    manage(world, scenario)


def test_what_the_user_redirects_stays_redirected(world: World, taken: Taken, server: int) -> None:
    load(world, redirects=f"tcp dport 53 dnat ip to {SERVER4}:{server}")

    async def scenario(manager: PathManager) -> None:
        assert await asked(world, "11.0.0.1", 53) == "direct"
        assert await asked(world, SERVER4, server) == f"taken {SERVER4}"

    manage(world, scenario)


def test_the_fragment_lets_taken_connections_through_a_zone_that_accepts_no_input(
    world: World, taken: Taken, server: int
) -> None:
    fragment = (ROOT / "files/usr/share/nftables.d/chain-pre/input/60-cpe-mcp.nft").read_text()
    load(world, input="drop")

    async def scenario(manager: PathManager) -> None:
        with pytest.raises(TimeoutError):
            await asked(world, SERVER4, server)
        load(world, input="drop", fragment=fragment)
        await asyncio.sleep(0.5)
        assert await asked(world, SERVER4, server) == f"taken {SERVER4}"
        with pytest.raises(TimeoutError):  # not a way to the router itself
            await asked(world, "10.1.0.1", 5125)

    manage(world, scenario)


def test_chains_of_a_firewall_that_is_gone_are_gone(world: World) -> None:
    load(world)

    async def scenario(manager: PathManager) -> None:
        assert "chain fw4_forward" in listing(world)
        with inside(world.router):
            subprocess.run(["nft", "delete", "table", "inet", "fw4"], check=True)
        await asyncio.sleep(0.5)
        assert "fw4" not in listing(world)

    manage(world, scenario)


def listing(world: World) -> str:
    with inside(world.router):
        argv = ["nft", "list", "table", "inet", "cpe_mcp"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_the_adapter_tells_which_rules_it_cannot_foresee(world: World) -> None:
    load(world, rules='ip daddr 192.0.2.9 limit rate 3/second drop comment "!fw4: slow lane"')

    async def scenario(manager: PathManager) -> None:
        nft = manager._interception._nft
        assert nft is not None
        assert nft.unsure == ("slow lane",)

    manage(world, scenario)
