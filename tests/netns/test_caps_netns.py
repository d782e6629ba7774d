"""A subscriber's cap in the real relay, over Multipath TCP: all flows together, both ways, while others are not touched."""

from __future__ import annotations

import contextlib
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import CONCENTRATOR, SERVER4, SERVICE_PORT, Control, World, cookies, inside, is_by
from test_concentrator_netns import ROUTER1, Concentrator
from test_radius_netns import ENTERPRISE, SECRET, serving

from cpe_mcp.aaa.cookie import make_cookie, own_credential
from cpe_mcp.convert import Client
from cpe_mcp.kernel.numbers import IPPROTO_MPTCP
from cpe_mcp.lab.freeradius import PROGRAM, RadiusUser, write_config
from cpe_mcp.policy.speed import CHARGEN_PORT, DISCARD_PORT
from cpe_mcp.relay.sockets import pack16

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-4"), pytest.mark.requirement("5.6.2-a")]

MBIT = 125_000
CREDENTIALS = {"alice": own_credential("alice", "wonderland"), "bob": own_credential("bob", "builder")}
CAPS: dict[str, tuple[float, float]] = {}
SETTLE_S = 0.5
"""Before counting: what the sockets' buffers take at once is over."""
FREE_MBIT = 150
"""Far above every cap here, and a fraction of what the namespaces carry."""


def accept_all(control: Control, kind: str, payload: Any) -> None:
    """Alice and bob, with their caps."""
    if kind == "authorize":
        names = [name for name, credential in CREDENTIALS.items() if is_by(payload["cookie"], credential)]
        verdict = {"id": payload["id"], "address": payload["address"], "verdict": "accept", "subscriber": names[0]}
        answer = {"ttl_s": 60.0, "cookie": b"", "reason": "ready", "caps": CAPS.get(names[0], (0, 0))}
        control.send("authorized", verdict | answer)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "caps")
    world.far_control.answers = accept_all
    CAPS.clear()
    try:
        yield world
    finally:
        world.close()


def convert(world: World, name: str, address: str, port: int) -> socket.socket:
    """A flow of this subscriber, as its router would open it: Multipath TCP to the concentrator."""
    return opened(
        world, Client(make_cookie(CREDENTIALS[name], time.time())).connect(pack16(socket.AF_INET, address), port)
    )


def opened(world: World, message: bytes, service: int = SERVICE_PORT) -> socket.socket:
    with inside(world.router):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        sock.bind((ROUTER1, 0))
    sock.settimeout(8)
    sock.connect((CONCENTRATOR, service))
    sock.sendall(message)
    return sock


def pour(connection: socket.socket) -> None:
    """A server that sends all it can."""
    data = bytes(65536)
    while True:
        connection.sendall(data)


class Sink:
    """A server that takes all it gets, and counts."""

    def __init__(self) -> None:
        self.taken = 0

    def __call__(self, connection: socket.socket) -> None:
        waste = bytearray(65536)
        while count := connection.recv_into(waste):
            self.taken += count


def read_for(sockets: list[socket.socket], seconds: float) -> list[int]:
    """Bytes that each of them got in that time."""
    counts = dict.fromkeys(sockets, 0)
    waste = bytearray(1 << 18)
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                with contextlib.suppress(BlockingIOError):
                    counts[key.fileobj] += key.fileobj.recv_into(waste)  # type: ignore[index, union-attr]
    return list(counts.values())


def mbit(counts: list[int] | int, seconds: float) -> float:
    return (counts if isinstance(counts, int) else sum(counts)) / seconds / MBIT


@contextlib.contextmanager
def writing(sockets: list[socket.socket]) -> Iterator[None]:
    """All of them write all they can."""
    stopped = threading.Event()

    def work(sock: socket.socket) -> None:
        data = bytes(65536)
        sock.settimeout(0.2)
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                sock.send(data)

    threads = [threading.Thread(target=work, args=(sock,), daemon=True) for sock in sockets]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_all_downloads_of_a_subscriber_together_and_nobody_else(world: World) -> None:
    """Alice's flows come through the router's own relay; bob is another router's subscriber, without a cap."""
    CAPS["alice"] = (24 * MBIT, 0)
    world.start_concentrator()
    world.start_upstream()
    port = world.serve(pour)
    alice = [world.connect(SERVER4, port) for _ in range(6)]
    read_for(alice, SETTLE_S)
    counts = read_for(alice, 4)
    assert 0.9 * 24 <= mbit(counts, 4) <= 1.05 * 24
    assert min(counts) >= 0.7 * max(counts), "each has the same"
    bob = convert(world, "bob", SERVER4, port)
    *counts, bobs = read_for([*alice, bob], 3)
    assert 0.9 * 24 <= mbit(counts, 3) <= 1.05 * 24
    assert mbit(bobs, 3) > FREE_MBIT, "a cap is nobody else's"
    world.far_control.wait("demand", lambda demands: demands["alice"][1] >= 1)
    assert all("bob" not in payload for kind, payload in world.far_control.frames if kind == "demand")
    for sock in (*alice, bob):
        sock.close()
    world.far_control.wait_counter("held_back", 0)


def test_uploads_and_both_ways_at_once(world: World) -> None:
    CAPS["alice"] = (30 * MBIT, 10 * MBIT)
    world.start_concentrator()
    world.start_upstream()
    sink = Sink()
    down_port, up_port = world.serve(pour), world.serve(sink)
    downloads = [world.connect(SERVER4, down_port) for _ in range(2)]
    with writing([world.connect(SERVER4, up_port) for _ in range(3)]):
        read_for(downloads, SETTLE_S)
        before = sink.taken
        counts = read_for(downloads, 4)
        assert 0.9 * 10 <= mbit(sink.taken - before, 4) <= 1.05 * 10
    assert 0.9 * 30 <= mbit(counts, 4) <= 1.05 * 30


def test_caps_change_under_running_flows(world: World) -> None:
    world.start_concentrator()
    port = world.serve(pour)
    flows = [convert(world, "alice", SERVER4, port) for _ in range(3)]
    assert mbit(read_for(flows, 1), 1) > FREE_MBIT
    for cap in (12, 36):
        world.far_control.send("caps", {"alice": (cap * MBIT, 0), "nobody": (1, 1)})
        read_for(flows, 1.5)  # what was in the buffers before runs out
        counts = read_for(flows, 3)
        assert 0.9 * cap <= mbit(counts, 3) <= 1.05 * cap
    world.far_control.send("caps", {"alice": (0, 0)})
    read_for(flows, SETTLE_S)
    counts = read_for(flows, 1)
    assert mbit(counts, 1) > FREE_MBIT
    assert min(counts) > 0, "each one goes on"


def test_a_flow_that_ends_under_a_cap_ends_well(world: World) -> None:
    """Every byte arrives, and the end of the stream too, although most of it waits for tokens."""
    CAPS["alice"] = (16 * MBIT, 16 * MBIT)
    world.start_concentrator()
    world.start_upstream()
    data = bytes(range(256)) * 6000  # 1.5 MB

    def mirror(connection: socket.socket) -> None:
        heard = bytearray()
        while piece := connection.recv(65536):
            heard += piece
        connection.sendall(heard)

    port = world.serve(mirror)
    for _ in range(2):
        with world.connect(SERVER4, port) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = bytearray()
            while piece := sock.recv(65536):
                answer += piece
        assert bytes(answer) == data
    record = world.far_control.wait_record(lambda record: record["bytes_up"] == len(data))
    assert (record["bytes_down"], record["end"]) == (len(data), "closed")


@pytest.mark.requirement("X-10")
def test_a_speed_test_shows_the_cap(world: World) -> None:
    CAPS["alice"] = (20 * MBIT, 8 * MBIT)
    world.start_concentrator()
    with convert(world, "alice", CONCENTRATOR, CHARGEN_PORT) as down:
        read_for([down], SETTLE_S)
        assert 0.9 * 20 <= mbit(read_for([down], 2.5), 2.5) <= 1.05 * 20
    up = convert(world, "alice", CONCENTRATOR, DISCARD_PORT)
    with writing([up]):
        time.sleep(3)
    up.close()
    record = world.far_control.wait_record(lambda record: record["bytes_up"] > 0)
    assert 0.9 * 8 <= mbit(record["bytes_up"], record["duration_s"]) <= 1.1 * 8, "a burst more in so short a time"


# The daemon ------------------------------------------------------------------------------------------------------------

CONFIG = f"""
config global 'global'
    option run_dir '@RUN@'
    option congestion_control ''
    option workers '2'

config listener 'internet'
    option port '{SERVICE_PORT}'

config listener 'customers'
    option port '5999'
    option facing 'customer'

config destinations 'destinations'
    list allow '10.2.0.0/24'
"""
TABLE = f"""
config subscriber 'alice'
    option key 'wonderland-and-back'
    option down_mbit '32'
    option up_mbit '8.5'

config subscriber 'line'
    list address '{ROUTER1}/32'
"""
RADIUS = f"""
config radius 'radius'
    option enabled '1'
    list server '127.0.0.1'
    option secret "{SECRET.replace("'", "")}"
    option password 'ask'
    option enterprise '{ENTERPRISE}'
"""
SERVER = "10.2.0.1"


def connect_message(port: int, cookie: bytes = b"") -> bytes:
    return Client(cookie).connect(pack16(socket.AF_INET, SERVER), port)


def status_line(concentrator: Concentrator, name: str) -> str:
    argv = [sys.executable, "-m", "cpe_mcp.concentrator.daemon", "status", "--run-dir", str(concentrator.run_dir)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    return next(line for line in lines if line.startswith(f"subscriber {name}:"))


@pytest.fixture
def bare_world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "capsd", bare=True)
    try:
        yield world
    finally:
        world.close()


def test_two_workers_share_a_cap_and_a_reload_changes_it(bare_world: World, tmp_path: Path) -> None:
    world, cookie = bare_world, cookies("alice", "wonderland-and-back")
    concentrator = Concentrator(world, tmp_path, CONFIG + TABLE)
    concentrator.wait()
    port = world.serve(pour, SERVER, 0, world.router)
    flows = [opened(world, connect_message(port, cookie()))]
    read_for(flows, 1.5)
    assert 0.9 * 32 <= mbit(read_for(flows, 3), 3) <= 1.05 * 32, "one flow, which only one worker carries, gets all"
    flows += [opened(world, connect_message(port, cookie())) for _ in range(9)]
    read_for(flows, 1.5)
    counts = read_for(flows, 4)
    assert 0.9 * 32 <= mbit(counts, 4) <= 1.05 * 32
    assert min(counts) >= 0.5 * max(counts), "each has the same, whichever worker carries it"
    free = opened(world, connect_message(port), 5999)
    assert mbit(read_for([free], 1), 1) > FREE_MBIT
    free.close()
    assert status_line(concentrator, "alice").endswith(", capped at 32 Mbit/s down and 8.5 Mbit/s up")
    concentrator.config.write_text(concentrator.config.read_text().replace("'32'", "'64'"))
    concentrator.process.send_signal(signal.SIGHUP)
    read_for(flows, 1.5)
    assert 0.9 * 64 <= mbit(read_for(flows, 3), 3) <= 1.05 * 64, "running flows too"


@contextlib.contextmanager
def freeradius(namespace: str, directory: Path, user: RadiusUser) -> Iterator[None]:
    command = write_config(
        str(directory),
        secret=SECRET.replace("'", ""),
        clients=["127.0.0.1"],
        address_users=[user],
        enterprise=ENTERPRISE,
        listen=[("127.0.0.1", 1812)],
    )
    with serving(namespace, directory, command):
        yield


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="needs the program freeradius")
def test_radius_says_the_cap_and_another_answer_changes_it(bare_world: World, tmp_path: Path) -> None:
    world = bare_world
    concentrator = Concentrator(world, tmp_path, CONFIG + RADIUS)
    concentrator.wait()
    port = world.serve(pour, SERVER, 0, world.router)
    user = RadiusUser(ROUTER1, "ask", user="line-0815", session_timeout_s=3, down_mbit=20)
    with freeradius(world.far, tmp_path / "raddb1", user):
        flow = opened(world, connect_message(port), 5999)
        read_for([flow], 1.5)
    assert 0.9 * 20 <= mbit(read_for([flow], 2), 2) <= 1.05 * 20
    assert status_line(concentrator, "line-0815").endswith(", capped at 20 Mbit/s down")
    with freeradius(world.far, tmp_path / "raddb2", user._replace(down_mbit=40)):
        another = opened(world, connect_message(port), 5999)  # after Session-Timeout: the question is asked again
        read_for([flow, another], 1.5)
        counts = read_for([flow, another], 2)
    assert 0.9 * 40 <= mbit(counts, 2) <= 1.05 * 40
    assert counts[0] >= 0.6 * counts[1], "the flow that ran before has its half of it"
