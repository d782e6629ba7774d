"""What is seen of the WANs: subflows lost while their WAN is up, whether MPTCP gets through, and what looking costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import CONCENTRATOR, CREDENTIAL, SERVER4, SERVICE_PORT, World, inside, run
from test_upstream_netns import Router

from cpe_mcp.aaa.cookie import NO_CREDENTIAL, Credential
from cpe_mcp.aaa.presenter import Presenter
from cpe_mcp.kernel.mptcp_probe import look
from cpe_mcp.kernel.subflows import SubflowDump
from cpe_mcp.paths.observed import Subflow
from cpe_mcp.policy.handshakes import NEGOTIATED
from cpe_mcp.policy.reasons import Reason

pytestmark = pytest.mark.netns

PROBES = 500
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
RESET = f"""
table inet breaker {{
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "w1" tcp dport {SERVICE_PORT} reject with tcp reset
  }}
}}
"""
"""What a NAT does that has forgotten its connections: whatever comes from the router is answered with RST."""


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    world = World(tmp_path, "subf", bare=True)
    try:
        world.start_concentrator()
        yield Router(world, tmp_path)
    finally:
        world.close()


def subflows(world: World) -> list[Subflow]:
    with inside(world.router):
        dump = SubflowDump()
    try:
        return dump.read([(CONCENTRATOR, SERVICE_PORT)])
    finally:
        dump.close()


class Download:
    """A slow one: the bytes of a video call, so that no WAN is ever busy."""

    def __init__(self, world: World) -> None:
        self.received = 0
        port = world.serve(self._send)
        self.client = world.connect(SERVER4, port)
        threading.Thread(target=self._receive, daemon=True).start()

    @staticmethod
    def _send(connection: socket.socket) -> None:
        while True:
            connection.sendall(bytes(4000))
            time.sleep(0.02)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self.client.recv(65536):
                self.received += len(piece)


def moving(world: World, local: str) -> set[int]:
    """Tokens of the connections whose bytes came over this address in the last moment."""
    before = {subflow.key: subflow.bytes_received for subflow in subflows(world)}
    time.sleep(0.3)
    return {
        subflow.token
        for subflow in subflows(world)
        if subflow.local == local and subflow.bytes_received > before.get(subflow.key, 0) + 1000
    }


def wait_moving(world: World, local: str, seconds: float) -> int:
    end = time.monotonic() + seconds
    while not (tokens := moving(world, local)):
        assert time.monotonic() < end, f"nothing comes over {local}"
    return tokens.pop()


@pytest.mark.requirement("Y-2")
@pytest.mark.requirement("5.6.2-a")
def test_a_subflow_lost_by_a_reset_comes_back_on_the_running_connection(router: Router) -> None:
    world = router.world
    router.wait("Interception:  on")
    download = Download(world)
    token = wait_moving(world, "10.1.0.1", 5)
    assert token, "the dump knows the connection's token"
    run("ip", "netns", "exec", world.far, "nft", "-f", "-", stdin=RESET)
    end = time.monotonic() + 3
    while any(subflow.local == "10.1.0.1" and subflow.token == token for subflow in subflows(world)):
        assert time.monotonic() < end, "the subflow outlives its reset"
        time.sleep(0.02)
    run("ip", "netns", "exec", world.far, "nft", "delete", "table", "inet", "breaker")
    healed = time.monotonic()
    assert wait_moving(world, "10.1.0.1", 10) == token
    print(f"back after {time.monotonic() - healed:.2f} s")
    assert "lost their subflow" in router.log.read_text()
    before = download.received
    time.sleep(0.5)
    assert download.received > before
    assert [wan["repairs"] > 0 for wan in router_paths(router)] == [True, False]


def router_paths(router: Router) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(router.cli("--json", "paths").stdout)["wans"]
    return rows


def counters(world: World) -> dict[str, tuple[int, int]]:
    """Octets and packets of each WAN's device, both directions."""
    rows = {}
    for device in ("w1", "w2"):
        argv = ["ip", "-n", world.router, "-j", "-s", "link", "show", device]
        stats = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)[0]["stats64"]
        rows[device] = tuple(stats["rx"][name] + stats["tx"][name] for name in ("bytes", "packets"))
    return rows


@pytest.mark.requirement("X-4")
def test_what_watching_an_idle_line_costs(router: Router) -> None:
    """On a line that is not metered, with its warm connections, and on one that is: octets as the devices count them."""
    router.config.write_text(
        router.config.read_text().replace("option device 'w2'", "option device 'w2'\n option metered 1")
    )
    router.wait("Interception:  on")
    assert router.cli("reload").returncode == 0
    time.sleep(6)  # the first looks, the endpoint that goes away
    before, started = counters(router.world), time.monotonic()
    time.sleep(20)
    after, seconds = counters(router.world), time.monotonic() - started
    rates = {device: (after[device][0] - before[device][0]) / seconds for device in before}
    packets = {device: after[device][1] - before[device][1] for device in before}
    print(f"octets a second {rates}, packets {packets} in {seconds:.1f} s")
    assert rates["w1"] <= 200
    assert rates["w2"] <= 10 + 280 / seconds, "one probe may have been due"


STRIP = """
table inet strip {
  chain forward { type filter hook prerouting priority raw; iifname "w1" tcp option mptcp exists reset tcp option mptcp; }
  chain output { type filter hook postrouting priority raw; oifname "w1" tcp option mptcp exists reset tcp option mptcp; }
}
"""
"""An access network that does not like what it does not know, at the far end of line one."""


def look_over(world: World, number: int, credential: Credential = CREDENTIAL) -> str:
    with inside(world.router):
        return asyncio.run(
            look(
                device=f"w{number}",
                source=f"10.{number}.0.1",
                address=CONCENTRATOR,
                port=SERVICE_PORT,
                presenter=Presenter(credential),
            )
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "look")
    try:
        world.start_concentrator()
        yield world
    finally:
        world.close()


@pytest.mark.requirement("X-9")
def test_a_look_at_mptcp_tells_what_an_access_network_does_to_it(world: World) -> None:
    assert look_over(world, 1) == NEGOTIATED
    assert look_over(world, 2) == NEGOTIATED
    assert look_over(world, 1, credential=NO_CREDENTIAL) == NEGOTIATED, "an Error of the concentrator is an answer, too"
    run("ip", "netns", "exec", world.far, "nft", "-f", "-", stdin=STRIP)
    assert look_over(world, 1) == Reason.MPTCP_STRIPPED
    assert look_over(world, 2) == NEGOTIATED
    run("ip", "netns", "exec", world.far, "nft", "delete", "table", "inet", "strip")
    assert look_over(world, 1) == NEGOTIATED
    world.processes[0].terminate()
    world.processes[0].wait(5)
    assert look_over(world, 1) == "", "a closed port says nothing about Multipath TCP"


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.requirement("X-9")
def test_a_wan_that_strips_mptcp_is_degraded_and_used(router: Router) -> None:
    world = router.world
    run("ip", "netns", "exec", world.far, "nft", "-f", "-", stdin=STRIP)
    router.wait("Interception:  on")
    end = time.monotonic() + 10
    while (row := router_paths(router)[0])["state"] != "degraded":
        assert time.monotonic() < end, row
        time.sleep(0.1)
    assert (row["name"], row["reason"], row["usable"]) == ("one", "access-strips", True)
    assert "SYN+ACK without MPTCP" in row["detail"]
    download = Download(world)
    end = time.monotonic() + 5
    while not download.received:
        assert time.monotonic() < end, "the only other WAN would carry it alone as well: the preferred one is as good"
        time.sleep(0.1)
    assert router_paths(router)[1]["state"] == "up"


def test_what_a_look_and_a_warm_connection_cost(world: World) -> None:
    time.sleep(1)

    def cost(action: Callable[[], object]) -> list[tuple[int, int]]:
        before = counters(world)
        action()
        time.sleep(0.5)
        after = counters(world)
        return [(after[name][0] - before[name][0], after[name][1] - before[name][1]) for name in before]

    own, other = cost(lambda: look_over(world, 1))
    print(f"a look: {own} octets and packets over its WAN, {other} over the other one")
    assert own[0] <= 2000
    assert other[0] <= 1000
    concentrator = world.processes[0].pid
    before = cpu_s(concentrator)
    for _ in range(PROBES):
        with inside(world.router), contextlib.suppress(OSError):
            probe = socket.create_connection((CONCENTRATOR, SERVICE_PORT), timeout=5)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            probe.close()
    time.sleep(0.5)
    print(f"a probe: {(cpu_s(concentrator) - before) / PROBES * 1e6:.0f} us of the concentrator")
    told = [row for row in world.far_control.records() if row["end"] == Reason.CLIENT_RESET]
    assert len(told) <= 1, "at most the look's own connection: probes are no flows"
    world.far_control.wait_counter("probes", PROBES)
    world.start_upstream()
    opened = cost(lambda: world.change(pool_size=4))
    world.up_control.wait_counter("pool_ready", 4)
    closed = cost(lambda: world.change(pool_size=0))
    sums = [[part[0] / 4 for part in row] for row in (opened, closed)]
    print(f"a warm connection: {sums[0]} octets over each WAN to open it, {sums[1]} to close it")
    assert max(sums[0]) <= 2000
