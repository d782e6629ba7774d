"""The speed test: discard and character generator in a real concentrator, and the router's side of it over real lines."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import CONCENTRATOR, COOKIE, SERVICE_PORT, World, inside, run
from test_upstream_netns import Router

from cpe_mcp.control.ask import ApiError
from cpe_mcp.control.ask import ask as control_ask
from cpe_mcp.control.frames import API_SOCKET
from cpe_mcp.convert import Client
from cpe_mcp.kernel.numbers import IPPROTO_MPTCP
from cpe_mcp.policy.speed import CHARGEN_PORT, DISCARD_PORT
from cpe_mcp.relay.sockets import pack16

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-10")]

SUCCESS = bytes.fromhex("01012263")
NOT_AUTHORIZED = bytes.fromhex("01022263 1e012000")
BUSY = bytes.fromhex("01022263 1e014005")
SPEEDTEST_S = 4.0
"""As the world's settings say."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "speed")
    try:
        world.start_concentrator()
        yield world
    finally:
        world.close()


def ask(
    world: World, port: int, *, cookie: bytes = COOKIE, address: str = CONCENTRATOR, mptcp: bool = True
) -> socket.socket:
    """A connection that has asked for ``port`` of the concentrator and read its reply."""
    with inside(world.router):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP if mptcp else 0)
    sock.settimeout(8)
    sock.connect((CONCENTRATOR, SERVICE_PORT))
    sock.sendall(Client(cookie).connect(pack16(socket.AF_INET, address), port))
    return sock


def read(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"the end after {len(data)} of {count}"
        data += piece
    return bytes(data)


def reply(sock: socket.socket) -> bytes:
    head = read(sock, 4)
    return head + read(sock, 4 * (head[1] - 1))


def record_of(world: World, timeout: float = 5.0) -> dict[str, Any]:
    """Of the first test that ended."""

    def has_one(rows: list[dict[str, Any]]) -> bool:
        return any(row["action"] == "speedtest" for row in rows)

    rows = world.far_control.wait("records", has_one, timeout)
    return next(row for row in rows if row["action"] == "speedtest")


def use_up(sock: socket.socket, port: int) -> None:
    """Read or send until that is no longer possible. Raises OSError for a reset."""
    while port == DISCARD_PORT:
        sock.sendall(bytes(1 << 20))
    while sock.recv(1 << 20):
        pass


@pytest.mark.parametrize("mptcp", [True, False], ids=["mptcp", "tcp"])
def test_the_generator_sends_until_the_peer_closes(world: World, mptcp: bool) -> None:
    with ask(world, CHARGEN_PORT, mptcp=mptcp) as sock:
        assert reply(sock) == SUCCESS
        assert len(read(sock, 5_000_000)) == 5_000_000
    record = record_of(world)
    assert (record["reason"], record["server"], record["server_port"]) == ("speedtest", CONCENTRATOR, CHARGEN_PORT)
    assert record["concentrator"] == "alice"
    assert record["bytes_down"] >= 5_000_000
    assert record["bytes_up"] == 0


def test_what_is_sent_to_discard_is_acknowledged_and_gone(world: World) -> None:
    with ask(world, DISCARD_PORT) as sock:
        assert reply(sock) == SUCCESS
        sock.sendall(bytes(5_000_000))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""
    record = record_of(world)
    assert (record["bytes_up"], record["bytes_down"], record["end"]) == (5_000_000, 0, "closed")


@pytest.mark.parametrize("port", [CHARGEN_PORT, DISCARD_PORT])
def test_a_test_is_cut_off_in_time(world: World, port: int) -> None:
    with ask(world, port) as sock:
        assert reply(sock) == SUCCESS
        started = time.monotonic()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # not an end that looks complete
            use_up(sock, port)
        assert SPEEDTEST_S - 0.1 <= time.monotonic() - started <= SPEEDTEST_S + 1.5
    record_of(world)


def test_a_peer_that_does_not_read_is_cut_off_too(world: World) -> None:
    with ask(world, CHARGEN_PORT) as sock:
        assert reply(sock) == SUCCESS
        record_of(world, SPEEDTEST_S + 2)


def test_others_are_refused_and_so_are_too_many(world: World) -> None:
    with ask(world, CHARGEN_PORT, cookie=b"nobody's cookie.") as sock:
        assert reply(sock) == NOT_AUTHORIZED
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            assert reply(stack.enter_context(ask(world, DISCARD_PORT))) == SUCCESS
        assert reply(stack.enter_context(ask(world, CHARGEN_PORT))) == BUSY
    end = time.monotonic() + 2
    while True:  # the places are free again
        with ask(world, DISCARD_PORT) as sock:
            if reply(sock) == SUCCESS:
                break
        assert time.monotonic() < end


def test_only_the_address_that_was_connected_to_and_only_when_switched_on(world: World) -> None:
    refused = bytes.fromhex("01022263 1e016000")
    with ask(world, CHARGEN_PORT, address="10.1.0.2") as sock:
        assert reply(sock) == refused, "another address of the same machine, where nobody listens"
    world.settings["public"] = [pack16(socket.AF_INET, "10.1.0.2")]
    world.far_control.send("settings", world.settings)
    time.sleep(0.1)
    with ask(world, CHARGEN_PORT, address="10.1.0.2") as sock:
        assert reply(sock) == SUCCESS
    world.settings["speedtest_s"] = 0.0
    world.far_control.send("settings", world.settings)
    time.sleep(0.1)
    with ask(world, CHARGEN_PORT) as sock:
        assert reply(sock) == refused


def test_other_flows_go_on_beside_two_tests_at_full_speed(world: World) -> None:
    def echo(connection: socket.socket) -> None:
        while data := connection.recv(1000):
            connection.sendall(data)

    def swallow(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            use_up(sock, CHARGEN_PORT)

    server_port = world.serve(echo)
    world.settings["speedtest_s"] = 20.0  # the echoes below take some 4 s on two cores, and no test may end meanwhile
    world.far_control.send("settings", world.settings)
    time.sleep(0.1)
    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(2):
            sock = stack.enter_context(ask(world, CHARGEN_PORT))
            assert reply(sock) == SUCCESS
            readers.append(threading.Thread(target=swallow, args=(sock,), daemon=True))
            readers[-1].start()
        other = stack.enter_context(ask(world, server_port, address="10.9.1.1"))
        assert reply(other) == SUCCESS
        slowest = 0.0
        for _ in range(50):
            started = time.monotonic()
            other.sendall(b"ping")
            assert other.recv(4) == b"ping"
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.01)
        assert all(reader.is_alive() for reader in readers), "the tests ran all the while"
        assert slowest < 0.5, "they leave room for others"
    for reader in readers:
        reader.join(5)


# The router's side ------------------------------------------------------------------------------------------------------

LINES = {"one": (40, 16), "two": (20, 8)}
"""WAN -> Mbit/s down and up, with headers."""


def shape(namespace: str, device: str, mbit: int) -> None:
    run("tc", "-n", namespace, *f"qdisc add dev {device} root tbf rate {mbit}mbit burst 20kb latency 60ms".split())


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    world = World(tmp_path, "spdr", bare=True)
    try:
        for device, (down, up) in zip(("w1", "w2"), LINES.values(), strict=True):
            shape(world.far, device, down)
            shape(world.router, device, up)
        world.settings["speedtest_s"] = 15.0
        # Pinned: bbr measures nothing that makes sense where the round trip takes microseconds.
        world.settings["congestion_control"] = "cubic"
        world.start_concentrator()
        router = Router(world, tmp_path, congestion_control="cubic")
        router.wait("one, two")
        yield router
    finally:
        world.close()


def speedtest(router: Router, **args: str) -> dict[str, Any]:
    answer: dict[str, Any] = control_ask(str(router.run_dir / API_SOCKET), "speedtest", args)
    return answer


@pytest.mark.requirement("X-10")
def test_a_router_measures_each_wan_and_all_together(router: Router) -> None:
    result = router.cli("speedtest", timeout=90)
    assert result.returncode == 0, result.stdout + result.stderr + router.log.read_text()
    runs = {(row["wan"], row["direction"]): row for row in speedtest(router)["runs"]}
    assert {(row["state"], row["progress"], row["error"]) for row in runs.values()} == {("done", 1.0, "")}, (
        result.stdout
    )
    for name, rates in LINES.items():
        for direction, rate in zip(("down", "up"), rates, strict=True):
            assert 0.85 * rate <= runs[name, direction]["mbit"] <= rate, (name, direction, result.stdout)
        assert name in result.stdout
    for number, direction in enumerate(("down", "up")):
        both = sum(rates[number] for rates in LINES.values())
        assert 1.1 * LINES["one"][number] <= runs["", direction]["mbit"] <= both, (direction, result.stdout)
    assert "all together" in result.stdout
    for secret in ("wonderland", COOKIE.hex()):
        assert secret not in result.stdout + json.dumps(speedtest(router)) + router.log.read_text()


@pytest.mark.requirement("X-10")
def test_one_at_a_time_stopped_by_hand_and_refusals_are_told(router: Router) -> None:
    assert speedtest(router) == {"state": "idle", "concentrator": "", "runs": []}
    for args, words in (({"wan": "three"}, "one, two"), ({"action": "begin"}, "start, status, stop")):
        with pytest.raises(ApiError, match=words):
            speedtest(router, **{"action": "start", **args})
    started = speedtest(router, action="start", wan="two")
    assert (started["state"], len(started["runs"])) == ("running", 2)
    with pytest.raises(ApiError, match="running already"):
        speedtest(router, action="start")
    end = time.monotonic() + 5
    while not speedtest(router)["runs"][0]["progress"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    stopped = speedtest(router, action="stop")
    assert stopped["state"] == "idle"
    assert {row["state"] for row in stopped["runs"]} == {"stopped"}
    argv = ["ps", "-o", "args=", "--ppid", str(router.daemon.pid)]
    children = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    assert "speedtest_probe" not in children, "the measuring process is gone"

    router.world.settings["speedtest_s"] = 0.0
    router.world.far_control.send("settings", router.world.settings)
    result = router.cli("--json", "speedtest", "--wan", "one", timeout=30)
    assert result.returncode == 1
    shown = json.loads(result.stdout)
    assert shown["state"] == "failed"
    assert all("offers no speed test" in row["error"] for row in shown["runs"]), shown
