"""The DSCP of a LAN connection on all that is sent for it, counted packet by packet where it arrives."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import CONCENTRATOR, CREDENTIAL, SERVER4, SERVER6, SERVICE_PORT, World, inside, run

from cpe_mcp.kernel.nft import Interception, Nft
from cpe_mcp.paths.snapshot import ConcentratorView
from cpe_mcp.settings.router import DscpSettings
from cpe_mcp.upstream.snapshot_builder import dscp_table

pytestmark = pytest.mark.netns

EF, AF41 = 46, 34
CONCENTRATOR6 = "2001:db8:c0::1"
PRESERVE = dscp_table(DscpSettings())
SIZE = 400_000
MANUAL = Path(__file__).parents[2] / "docs/manual/rules.md"
COUNTERS = """
table inet seen {
  chain to_concentrator {
    type filter hook prerouting priority raw; policy accept;
    tcp dport != 5124 return
    ip dscp ef counter comment "v4 ef"
    ip dscp af41 counter comment "v4 af41"
    ip dscp cs0 counter comment "v4 none"
    ip6 dscp ef counter comment "v6 ef"
    ip6 dscp cs0 counter comment "v6 none"
  }
}
"""
ANSWERS = """
table inet seen {
  chain from_concentrator {
    type filter hook prerouting priority raw; policy accept;
    tcp sport != 5124 return
    ip dscp ef counter comment "v4 ef"
    ip dscp cs0 counter comment "v4 none"
  }
}
"""
LAN = """
table inet seen {
  chain lan {
    type filter hook input priority filter; policy accept;
    iifname != "lan" return
    meta l4proto != tcp return
    ip dscp ef counter comment "v4 ef"
    ip6 dscp ef counter comment "v6 ef"
  }
}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("dscp"), "dscp")
    try:
        world.snapshot = world.snapshot._replace(dscp=PRESERVE)
        run("ip", "-n", world.far, "address", "add", f"{CONCENTRATOR6}/128", "dev", "lo")
        run("ip", "netns", "exec", world.far, "nft", "-f", "-", stdin=COUNTERS)
        run("ip", "netns", "exec", world.client, "nft", "-f", "-", stdin=LAN)
        world.start_upstream()
        world.start_concentrator()
        yield world
    finally:
        world.close()


def counted(namespace: str) -> dict[str, int]:
    """Packets by comment."""
    argv = ["ip", "netns", "exec", namespace, "nft", "-j", "list", "ruleset"]
    rows = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)["nftables"]
    return {
        row["rule"]["comment"]: int(part["counter"]["packets"])
        for row in rows
        if "rule" in row
        for part in row["rule"]["expr"]
        if "counter" in part
    }


def difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after}


def upload(world: World, dscp: int, address: str = SERVER4) -> None:
    """Send SIZE bytes with that DSCP and wait for the server's word that it has them."""

    def swallow(connection: socket.socket) -> None:
        left = SIZE
        while left > 0:
            left -= len(connection.recv(65536))
        connection.sendall(b"done")

    port = world.serve(swallow, address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(world.client), socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(8)
        if family == socket.AF_INET6:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
        else:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        client.connect((address, port))
        client.sendall(bytes(SIZE))
        assert client.recv(10) == b"done"


@pytest.mark.requirement("5.6.5-a")
@pytest.mark.parametrize("pool_size", [0, 2])
def test_the_dscp_of_a_lan_connection_reaches_the_concentrator_and_comes_back(world: World, pool_size: int) -> None:
    world.change(pool_size=pool_size)
    if pool_size:
        world.up_control.wait_counter("pool_ready", pool_size)
    far, lan = counted(world.far), counted(world.client)
    upload(world, EF)
    at_concentrator = difference(far, counted(world.far))
    assert at_concentrator["v4 ef"] > SIZE / 65536
    assert at_concentrator["v4 ef"] > 3 * at_concentrator["v4 none"], at_concentrator
    assert difference(lan, counted(world.client))["v4 ef"] > 0, "the answers to the device"
    world.change(pool_size=0)


@pytest.mark.requirement("5.6.5-a")
@pytest.mark.parametrize("pool_size", [0, 2])
def test_the_manuals_table_makes_the_concentrator_answer_alike(world: World, pool_size: int) -> None:
    (table,) = re.findall(r"^table inet mcp_dscp \{.*?^\}", MANUAL.read_text(), re.M | re.S)
    run("ip", "netns", "exec", world.far, "nft", "-f", "-", stdin=table)
    run("ip", "netns", "exec", world.router, "nft", "-f", "-", stdin=ANSWERS)
    try:
        world.change(pool_size=pool_size)
        if pool_size:
            world.up_control.wait_counter("pool_ready", pool_size)
        before = counted(world.router)
        upload(world, EF)
        answers = difference(before, counted(world.router))
        assert answers["v4 ef"] > answers["v4 none"], answers
    finally:
        world.change(pool_size=0)
        run("ip", "netns", "exec", world.far, "nft", "delete", "table", "inet", "mcp_dscp")
        run("ip", "netns", "exec", world.router, "nft", "delete", "table", "inet", "seen")


@pytest.mark.requirement("5.6.5-a")
def test_unmarked_connections_stay_unmarked(world: World) -> None:
    far = counted(world.far)
    upload(world, 0)
    at_concentrator = difference(far, counted(world.far))
    assert at_concentrator["v4 ef"] == at_concentrator["v4 af41"] == 0
    assert at_concentrator["v4 none"] > 5


@pytest.mark.requirement("5.6.5-a")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (DscpSettings(map=(f"{EF}:{AF41}",)), "v4 af41"),
        (DscpSettings(mode="set", value=AF41), "v4 af41"),
        (DscpSettings(mode="off"), "v4 none"),
    ],
)
def test_remarking(world: World, settings: DscpSettings, expected: str) -> None:
    world.change(dscp=dscp_table(settings))
    far = counted(world.far)
    upload(world, EF)
    at_concentrator = difference(far, counted(world.far))
    assert max(at_concentrator, key=lambda name: at_concentrator[name]) == expected, at_concentrator
    assert at_concentrator["v4 ef"] == 0
    world.change(dscp=PRESERVE)


@pytest.mark.requirement("5.6.5-a")
def test_ipv6_subflows_are_marked_by_the_table(world: World) -> None:
    plan = Interception(
        lan=(),
        wans=("w1", "w2"),
        wan_networks=(),
        concentrators=((CONCENTRATOR6, SERVICE_PORT),),
        port=5125,
        active4=False,
        active6=False,
        any_destination=True,
        pass_mptcp=False,
        dscp=True,
    )
    nft = Nft()
    with inside(world.router):
        nft.apply(plan, verify=False)
    try:
        world.change(concentrators=(ConcentratorView("far", (CONCENTRATOR6,), SERVICE_PORT, CREDENTIAL, True),))
        far = counted(world.far)
        upload(world, EF, SERVER6)
        at_concentrator = difference(far, counted(world.far))
        assert at_concentrator["v6 ef"] > 3 * at_concentrator["v6 none"], at_concentrator
    finally:
        with inside(world.router):
            nft.remove()
        world.change(concentrators=(ConcentratorView("far", (CONCENTRATOR,), SERVICE_PORT, CREDENTIAL, True),))


@pytest.mark.requirement("5.6.5-a")
def test_a_direct_connection_keeps_its_dscp(world: World) -> None:
    def tos_of_first(connection: socket.socket) -> None:
        connection.sendall(b"%d" % (connection.getsockopt(socket.IPPROTO_TCP, 28, 140)[1] >> 2))

    with inside(world.far):
        listener: Any = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.IPPROTO_TCP, 27, 1)
        listener.bind((SERVER4, 0))
        listener.listen()
    world.change(proxy=False, reason="no-concentrator")
    try:
        with inside(world.client), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, EF << 2)
            client.connect(listener.getsockname())
            accepted, _ = listener.accept()
            with accepted:
                tos_of_first(accepted)
            assert client.recv(10) == b"%d" % EF
    finally:
        listener.close()
        world.change(proxy=True, reason="ready")
        time.sleep(0.1)
