"""Metrics of a real concentrator: flows move the counters, and they survive a worker that dies and a reload."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from relay_world import CONCENTRATOR, SERVICE_PORT, World, cookies, inside
from test_concentrator_netns import CONFIG, KEY, ROUTER1, SERVER, SUCCESS, Concentrator, convert

from cpe_mcp.kernel.numbers import IPPROTO_MPTCP

pytest.importorskip("prometheus_client")  # an extra of the package

from prometheus_client.parser import text_string_to_metric_families

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-14")]

PORT, OTHER_PORT = 9524, 9525
WITH_METRICS = CONFIG.replace("\nconfig listener", f"    option metrics_port '{PORT}'\n\nconfig listener", 1)
MEGABYTE = 1_000_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "metr", bare=True)
    yield world
    world.close()


def scrape(world: World, port: int = PORT) -> dict[tuple[str, str], float]:
    """``(name, the one label's value) -> value``."""
    with inside(world.far), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text = response.read().decode()
    return {
        (sample.name.removeprefix("mcp_concentrator_"), next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def wait(world: World, condition: Callable[[dict[tuple[str, str], float]], bool]) -> dict[tuple[str, str], float]:
    """Workers tell their counters once a second."""
    end = time.monotonic() + 5
    while not condition(seen := scrape(world)):
        assert time.monotonic() < end, seen
        time.sleep(0.1)
    return seen


def open_flow(world: World, port: int, cookie: Callable[[], bytes]) -> socket.socket:
    """A flow over Multipath TCP to the server, with the Convert reply read."""
    padded = cookie()
    head = bytes([22, 1 + len(padded) // 4, 0, 0]) + padded
    connect = bytes([10, 5]) + port.to_bytes(2, "big") + bytes(10) + b"\xff\xff" + socket.inet_aton(SERVER)
    with inside(world.router):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        sock.bind((ROUTER1, 0))
    sock.settimeout(6)
    sock.connect((CONCENTRATOR, SERVICE_PORT))
    sock.sendall(bytes([1, 1 + (len(head) + len(connect)) // 4]) + b"\x22\x63" + head + connect)
    assert read(sock, len(SUCCESS)) == SUCCESS
    return sock


def read(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"the end after {len(data)} bytes"
        data += piece
    return bytes(data)


def test_flows_move_the_counters(world: World, tmp_path: Path) -> None:
    concentrator = Concentrator(world, tmp_path, WITH_METRICS)
    concentrator.wait()
    alice, mallory = cookies("alice", KEY), cookies("alice", "another-key-altogether")

    def megabyte_then_wait(connection: socket.socket) -> None:
        connection.sendall(bytes(MEGABYTE))
        connection.recv(1)

    before = scrape(world)
    assert before["up", ""] == 1
    assert before["flows_total", ""] == 0
    port = world.serve(megabyte_then_wait, SERVER, 0, world.router)
    with open_flow(world, port, alice) as flow:
        read(flow, MEGABYTE)
        seen = wait(world, lambda seen: seen["bytes_total", "down"] >= MEGABYTE)
        assert seen["flows_live", ""] == 1, "bytes are shown while the flow lives"
        assert seen["flows_total", ""] == 0
    seen = wait(world, lambda seen: seen["flows_total", ""] == 1)
    assert seen["flows_live", ""] == 0
    assert seen["bytes_total", "down"] == MEGABYTE, "and not once more at its end"
    assert seen["flows_plain_tcp_total", ""] == 0

    greeting = world.serve(lambda connection: connection.sendall(b"hello"), SERVER, 0, world.router)
    assert convert(world, SERVER, greeting, cookie=alice) == SUCCESS + b"hello"  # a plain TCP socket
    convert(world, SERVER, greeting, cookie=mallory)
    convert(world, SERVER, 9, cookie=alice)
    seen = wait(world, lambda seen: seen.get(("convert_errors_total", "96"), 0) == 1)
    assert seen["flows_plain_tcp_total", ""] == 1
    assert seen["connections_refused_total", "unknown-subscriber"] == 1
    assert seen["convert_errors_total", "32"] == 1
    assert seen["connections_refused_total", "server-refused"] == 1
    assert seen["connections_authorized_total", ""] == 3
    assert seen["authorizations_total", "control"] == 4, "a cookie is never answered from memory"
    assert seen["authorizations_total", "cache"] == 0
    assert (seen["cookies_total", "taken"], seen["cookies_total", "unknown-subscriber"]) == (3, 1)
    assert seen["cookies_remembered", ""] == 3
    # one more: the test looks whether somebody listens
    assert seen["connections_accepted_total", "internet"] == 5
    assert not [name for name, _ in seen if "subscriber" in name]

    concentrator.process.terminate()
    assert concentrator.process.wait(5) == 0
    assert "Traceback" not in concentrator.log.read_text()


def test_counters_survive_a_worker_and_the_endpoint_a_reload(world: World, tmp_path: Path) -> None:
    concentrator = Concentrator(world, tmp_path, WITH_METRICS)
    concentrator.wait()
    port = world.serve(lambda connection: connection.sendall(b"hello"), SERVER, 0, world.router)
    assert convert(world, SERVER, port, cookie=cookies("alice", KEY)) == SUCCESS + b"hello"
    wait(world, lambda seen: seen["flows_total", ""] == 1)
    os.kill(concentrator.ask()["workers"][0]["pid"], signal.SIGKILL)
    seen = wait(world, lambda seen: seen["worker_restarts_total", ""] == 1 and seen["workers", ""] == 1)
    assert seen["flows_total", ""] == 1
    assert concentrator.ask()["counters"]["flows"] >= 1

    text = concentrator.config.read_text()
    concentrator.config.write_text(text.replace(str(PORT), str(OTHER_PORT)))
    concentrator.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 5
    while True:
        with contextlib.suppress(OSError):
            assert scrape(world, OTHER_PORT)["flows_total", ""] == 1
            break
        assert time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(urllib.error.URLError):
        scrape(world)
    concentrator.config.write_text(text.replace(f"metrics_port '{PORT}'", "metrics_port '0'"))
    concentrator.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 5
    with contextlib.suppress(OSError):
        while time.monotonic() < end:
            scrape(world, OTHER_PORT)
            time.sleep(0.05)
        raise AssertionError("metrics_port 0 leaves it open")


def test_a_port_that_is_taken_ends_the_start_in_one_line(world: World, tmp_path: Path) -> None:
    with inside(world.far):
        taken = socket.create_server(("127.0.0.1", PORT))
    with taken:
        concentrator = Concentrator(world, tmp_path, WITH_METRICS)
        assert concentrator.process.wait(10) == 1
    text = concentrator.log.read_text()
    assert "metrics_port" in text
    assert "Traceback" not in text
