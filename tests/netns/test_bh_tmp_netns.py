"""What the upstream worker tells of its flows on a real kernel: subflows, bytes per WAN, fallback to TCP, drop."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from relay_world import SERVER4, World, run

pytestmark = pytest.mark.netns

MEGABYTES = 24
BULK = bytes(1 << 20)
STRIP = """
table inet strip {
  chain out {
    type filter hook output priority 0
    tcp flags syn reset tcp option mptcp
  }
}
"""
"""Somebody on the way who does not like MPTCP."""
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("flows"), "flows")
    try:
        world.start_upstream()
        world.start_concentrator()
        yield world
    finally:
        world.close()


@pytest.fixture
def world(shared: World) -> World:
    shared.change(pool_size=0)
    shared.up_control.frames.clear()
    return shared


def ask(world: World, kind: str, answer: str, **payload: Any) -> list[Any]:
    """All frames that answer one question."""
    number = next(_numbers)
    world.up_control.send(kind, {"id": number, **payload})
    last = world.up_control.wait(answer, lambda frame: frame["id"] == number and not frame.get("more"))
    frames = [frame for seen, frame in world.up_control.frames if seen == answer and frame["id"] == number]
    assert frames[-1] == last
    return frames


def listed(world: World, text: str = "", limit: int = 100) -> list[Any]:
    return [flow for frame in ask(world, "list", "flows", limit=limit, filter=text) for flow in frame["flows"]]


def download(connection: socket.socket) -> None:
    """Megabytes, then wait for the client's word or end."""
    for _ in range(MEGABYTES):
        connection.sendall(BULK)
    connection.recv(1)


def wait_for_the_end(connection: socket.socket) -> None:
    connection.recv(1)


def read_megabytes(client: socket.socket) -> None:
    left = MEGABYTES << 20
    while left:
        left -= len(client.recv(min(left, 1 << 20)))


@pytest.mark.requirement("X-8")
@pytest.mark.requirement("Y-7")
def test_subflows_of_a_live_flow_and_bytes_by_wan_of_a_finished_one(world: World) -> None:
    port = world.serve(download)
    with world.connect(SERVER4, port) as client:
        read_megabytes(client)
        (flow,) = listed(world, f"{SERVER4}:{port}")
        subflows = {row["wan"]: row for row in flow["subflows"]}
        assert set(subflows) == {"one", "two"}
        assert subflows["one"]["local"] == "10.1.0.1"
        assert subflows["one"]["remote"] == "10.9.0.1"
        assert subflows["one"]["rtt_ms"] > 0
        assert flow["mptcp"] is True
        assert flow["fallback"] == ""
        received = sum(row["bytes_down"] for row in flow["subflows"])
        assert MEGABYTES << 20 <= received < (MEGABYTES << 20) * 1.1
    record = world.up_control.wait_record(lambda record: record["server_port"] == port)
    counted = record["bytes_by_wan"]
    assert {name: counted[name]["down"] > 0 for name in counted} == {"one": True, "two": True}
    assert MEGABYTES << 20 <= sum(row["down"] for row in counted.values()) < (MEGABYTES << 20) * 1.1
    assert record["mptcp"] is True


@pytest.mark.parametrize("first_to_close", ["client", "server"])
def test_bytes_by_wan_are_known_whoever_closes_first(world: World, first_to_close: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(BULK)
        if first_to_close == "client":
            connection.recv(1)

    for _ in range(5):
        port = world.serve(serve)
        with world.connect(SERVER4, port) as client:
            left = len(BULK)
            while left:
                left -= len(client.recv(1 << 16))
            if first_to_close == "server":
                assert client.recv(1) == b""
        record = world.up_control.wait_record(lambda record, port=port: record["server_port"] == port)  # type: ignore[misc]
        total = sum(row["down"] for row in record["bytes_by_wan"].values())
        assert len(BULK) <= total < len(BULK) * 1.2, record


@pytest.mark.parametrize("answer", [b"", b"thanks"])
def test_bytes_by_wan_of_an_upload(world: World, answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            pass
        connection.sendall(answer)

    for _ in range(5):
        port = world.serve(serve)
        with world.connect(SERVER4, port) as client:
            for _ in range(8):
                client.sendall(BULK)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(10) == answer
        record = world.up_control.wait_record(lambda record, port=port: record["server_port"] == port)  # type: ignore[misc]
        total = sum(row["up"] for row in record["bytes_by_wan"].values())
        assert 8 * len(BULK) <= total < 8 * len(BULK) * 1.2, record


def test_a_small_flow_is_not_asked(world: World) -> None:
    port = world.serve(lambda connection: connection.sendall(b"little"))
    with world.connect(SERVER4, port) as client:
        assert client.recv(10) == b"little"
    record = world.up_control.wait_record(lambda record: record["server_port"] == port)
    assert record["bytes_by_wan"] == {}
    assert record["mptcp"] is True


def test_bytes_of_a_line_that_died_are_kept(world: World) -> None:
    """As far as the last look: the kernel forgets a subflow with its endpoint."""
    port = world.serve(download)
    with world.connect(SERVER4, port) as client:
        read_megabytes(client)
        (flow,) = listed(world, f":{port}")
        before = {row["wan"]: row["bytes_down"] for row in flow["subflows"]}
        run("ip", "-n", world.router, "mptcp", "endpoint", "flush")
        try:
            end = time.monotonic() + 3
            while len(flow["subflows"]) > 1:
                assert time.monotonic() < end
                (flow,) = listed(world, f":{port}")
        finally:
            for index in (1, 2):
                endpoint = (f"10.{index}.0.1", "dev", f"w{index}", "subflow")
                run("ip", "-n", world.router, "mptcp", "endpoint", "add", *endpoint)
    record = world.up_control.wait_record(lambda record: record["server_port"] == port)
    assert {name: row["down"] for name, row in record["bytes_by_wan"].items()} == pytest.approx(before, rel=0.05)


@pytest.mark.requirement("Y-8")
def test_a_fallback_to_tcp_is_visible(world: World) -> None:
    port = world.serve(download)
    run("ip", "netns", "exec", world.router, "nft", "-f", "-", stdin=STRIP)
    try:
        with world.connect(SERVER4, port) as client:
            read_megabytes(client)
            (flow,) = listed(world, str(port))
            assert (flow["mptcp"], flow["fallback"]) == (False, "mptcp-stripped")
            (only,) = flow["subflows"]
            assert (only["wan"], only["local"], only["remote"]) == ("one", "10.1.0.1", "10.9.0.1")
            assert only["bytes_down"] > MEGABYTES << 20
    finally:
        run("ip", "netns", "exec", world.router, "nft", "delete", "table", "inet", "strip")
    record = world.up_control.wait_record(lambda record: record["server_port"] == port)
    assert (record["mptcp"], record["fallback"]) == (False, "mptcp-stripped")
    assert record["bytes_by_wan"] == {"one": {"down": MEGABYTES << 20, "up": 0}}


LATER = """
table inet strip {
  chain out {
    type filter hook output priority 0
    oifname "w1" tcp flags & syn == 0 reset tcp option mptcp
  }
}
"""
"""Somebody who leaves handshakes alone, and takes the option out of everything after them."""
SWALLOW = """
table inet strip {
  chain in {
    type filter hook input priority 0
    iifname "w1" tcp flags & syn == syn tcp option mptcp exists drop
  }
}
"""
"""Somebody who drops what he does not know; not on the router itself, whose kernel would notice."""


@pytest.mark.requirement("Y-8")
@pytest.mark.parametrize(
    ("rules", "reason", "outcome"),
    [
        (STRIP, "mptcp-stripped", "mptcp-stripped"),
        (LATER, "mptcp-lost", "mptcp"),
        (SWALLOW, "mptcp-blackhole", "mptcp-blackhole"),
    ],
    ids=["stripped in the handshake", "lost later", "black hole"],
)
def test_each_way_to_fall_back_has_its_reason(world: World, rules: str, reason: str, outcome: str) -> None:
    world.change(connect_timeout_s=8.0)  # the kernel leaves MPTCP out of the fourth SYN, after 3 s
    before = world.up_control.counters.get(f"handshakes:one:{outcome}", 0)
    port = world.serve(lambda connection: connection.sendall(connection.recv(1) * 100_000))
    namespace = ("ip", "netns", "exec", world.far if rules == SWALLOW else world.router)
    run(*namespace, "nft", "-f", "-", stdin=rules)
    try:
        with world.connect(SERVER4, port, timeout=20.0) as client:
            client.sendall(b"x")
            left = 100_000
            while left:
                left -= len(client.recv(left))
    finally:
        run(*namespace, "nft", "delete", "table", "inet", "strip")
        world.change(connect_timeout_s=1.0)
    record = world.up_control.wait_record(lambda record: record["server_port"] == port)
    print([f for k, f in world.up_control.frames if k in ("trouble", "counters")], record)
    assert (record["action"], record["wan"], record["fallback"]) == ("proxy", "one", reason)
    end = time.monotonic() + 3
    while world.up_control.counters.get(f"handshakes:one:{outcome}", 0) <= before:
        assert time.monotonic() < end, world.up_control.counters
        time.sleep(0.1)


def test_warm_connections_that_fell_back_are_counted(world: World) -> None:
    world.change(pool_size=3)
    world.up_control.wait_counter("pool_ready", 3)
    world.up_control.wait_counter("pool_plain", 0)
    world.change(pool_size=0)
    run("ip", "netns", "exec", world.router, "nft", "-f", "-", stdin=STRIP)
    try:
        world.change(pool_size=3)
        world.up_control.wait_counter("pool_plain", 3)
    finally:
        run("ip", "netns", "exec", world.router, "nft", "delete", "table", "inet", "strip")
        world.change(pool_size=0)


def test_limit_filter_and_many_frames(world: World) -> None:
    port = world.serve(wait_for_the_end)
    clients = [world.connect(SERVER4, port) for _ in range(150)]
    try:
        for client in clients:
            client.sendall(b"")
        end = time.monotonic() + 5
        while len(flows := listed(world, limit=1000)) < 150:
            assert time.monotonic() < end, len(flows)
            time.sleep(0.1)
        assert len(ask(world, "list", "flows", limit=1000, filter="")) == 7
        assert [flow["id"] for flow in flows] == sorted((flow["id"] for flow in flows), reverse=True)
        assert len(listed(world, limit=7)) == 7
        assert len(listed(world, SERVER4, limit=1000)) == len(listed(world, "192.168.9.2", limit=1000)) == 150
        # The concentrator takes a few at a time; the others are going direct meanwhile.
        for text, key, value in (("FAR", "concentrator", "far"), ("one", "wan", "one"), ("Proxy", "action", "proxy")):
            found = {flow[key] for flow in listed(world, text, limit=1000)}
            assert found == {value}
        own_port = clients[3].getsockname()[1]
        assert [flow["client_port"] for flow in listed(world, f"192.168.9.2:{own_port}")] == [own_port]
        assert listed(world, "nothing of this") == []
    finally:
        for client in clients:
            client.close()


def test_drop_ends_one_flow_and_no_other(world: World) -> None:
    port = world.serve(lambda connection: connection.sendall(connection.recv(1)))
    with world.connect(SERVER4, port) as doomed, world.connect(SERVER4, port) as spared:
        end = time.monotonic() + 3
        while len(flows := listed(world, str(port))) < 2:
            assert time.monotonic() < end
        (number,) = [flow["id"] for flow in flows if flow["client_port"] == doomed.getsockname()[1]]
        assert ask(world, "drop", "dropped", flow=number)[0]["dropped"] is True
        with pytest.raises(ConnectionResetError):
            doomed.recv(1)
        assert ask(world, "drop", "dropped", flow=number)[0]["dropped"] is False
        spared.sendall(b"x")
        assert spared.recv(1) == b"x"
    record = world.up_control.wait_record(lambda record: record["id"] == number)
    assert record["end"] == "dropped"
