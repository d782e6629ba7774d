"""Subflows of real connections that are lost while their WAN is up: seen, and made anew."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import CONCENTRATOR, SERVER4, SERVICE_PORT, World, inside, run
from test_upstream_netns import Router

from cpe_mcp.kernel.subflows import SubflowDump
from cpe_mcp.paths.observed import Subflow

pytestmark = pytest.mark.netns

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
