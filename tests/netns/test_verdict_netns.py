"""What holds a real connection back, on lines of a real rate: the verdict of ``cpe-mcp flows``."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from relay_world import SERVER4, World, run
from test_answers_netns import question
from test_flows_netns import STRIP
from test_upstream_netns import Router

pytestmark = pytest.mark.netns

RATES_MBIT = {"w1": 20, "w2": 10}
BURST = bytes(64 * 1024)
SETTLED_S = 4.0
"""Two looks of the worker, and slow start is over."""


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    directory = tmp_path_factory.mktemp("verdict")
    world = World(directory, "verd", bare=True)
    try:
        for device, rate in RATES_MBIT.items():
            for namespace in (world.router, world.far):
                shape = ("tbf", "rate", f"{rate}mbit", "burst", "10kb", "latency", "40ms")
                run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", *shape)
        world.start_concentrator()
        router = Router(world, directory, congestion_control="cubic")
        router.wait("Interception:  on")
        yield router
    finally:
        world.close()


def flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(BURST)


def dribble(size: int, pause_s: float) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        while True:
            connection.sendall(bytes(size))
            time.sleep(pause_s)

    return serve


def swallow(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def dribble_read(client: socket.socket) -> None:
    while client.recv(8192):
        time.sleep(0.05)


def wait_for_ever(connection: socket.socket) -> None:
    stop = threading.Event()
    stop.wait(30)


@contextlib.contextmanager
def running(
    router: Router, serve: Callable[[socket.socket], None], use: Callable[[socket.socket], None]
) -> Iterator[int]:
    """A connection of the LAN client to a server; gives the server's port."""
    port = router.world.serve(serve)
    with router.world.connect(SERVER4, port) as client:

        def work() -> None:
            with contextlib.suppress(OSError):
                use(client)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield port
        finally:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def seen(router: Router, port: int) -> dict[str, Any]:
    flows: list[dict[str, Any]] = question(router, "flows", filter=f":{port}")["flows"]
    assert len(flows) == 1
    return flows[0]


def wait_for_verdict(router: Router, port: int, verdict: str, wans: set[str]) -> None:
    time.sleep(SETTLED_S)
    end = time.monotonic() + 10
    while (flow := seen(router, port))["verdict"] != verdict or set(flow["verdict_wans"]) != wans:
        assert time.monotonic() < end, json.dumps(flow)
        time.sleep(1.0)


@pytest.mark.requirement("Y-6")
@pytest.mark.parametrize(
    ("serve", "use", "verdict", "wans"),
    [
        pytest.param(flood, swallow, "wan-full", {"one", "two"}, id="download, lines full"),
        pytest.param(dribble(4000, 0.02), swallow, "server-slow", set(), id="download, slow server"),
        pytest.param(dribble(65536, 0.1), swallow, "server-slow", set(), id="download, server in bursts"),
        pytest.param(flood, dribble_read, "client-full", set(), id="download, slow reader"),
        pytest.param(swallow, flood, "wan-full", {"one", "two"}, id="upload, lines full"),
        pytest.param(swallow, dribble(4000, 0.02), "client-slow", set(), id="upload, slow client"),
        pytest.param(wait_for_ever, flood, "server-full", set(), id="upload, server does not read"),
        pytest.param(wait_for_ever, wait_for_ever, "flow-quiet", set(), id="idle"),
    ],
)
def test_what_holds_a_connection_back(
    router: Router,
    serve: Callable[[socket.socket], None],
    use: Callable[[socket.socket], None],
    verdict: str,
    wans: set[str],
) -> None:
    with running(router, serve, use) as port:
        wait_for_verdict(router, port, verdict, wans)


@pytest.mark.requirement("Y-6")
def test_the_lan_holds_a_connection_back(router: Router) -> None:
    shape = ("tbf", "rate", "3mbit", "burst", "10kb", "latency", "100ms")
    run("tc", "-n", router.world.router, "qdisc", "add", "dev", "lan", "root", *shape)
    try:
        with running(router, flood, swallow) as port:
            wait_for_verdict(router, port, "lan-full", set())
    finally:
        run("tc", "-n", router.world.router, "qdisc", "del", "dev", "lan", "root")


@pytest.mark.requirement("Y-8")
def test_a_connection_that_fell_back_says_so(router: Router) -> None:
    namespace = ("ip", "netns", "exec", router.world.router)
    run(*namespace, "nft", "-f", "-", stdin=STRIP)
    try:
        router.restart_worker()  # its warm connections are of before
        router.wait("1 connected")
        with running(router, flood, swallow) as port:
            wait_for_verdict(router, port, "mptcp-stripped", {"one"})
            shown = router.cli("flows", "--filter", f":{port}").stdout
            assert "mptcp-stripped: one: the concentrator was reached over plain TCP only" in shown
            assert "one: 10.1.0.1:" in shown
        end = time.monotonic() + 5
        while "one" not in (counted := question(router, "status")["fallbacks"]):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert counted == {"one": {"mptcp-stripped": 1}}
        assert "warning: 1 connections over one were plain TCP: mptcp-stripped" in router.cli("status").stdout
    finally:
        run(*namespace, "nft", "delete", "table", "inet", "strip")
