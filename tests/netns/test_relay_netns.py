"""Both relay workers over kernel Multipath TCP, the test being LAN client, server and control daemon."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import (
    CONCENTRATOR,
    COOKIE,
    HALF_OPEN_MAX,
    INTERCEPT_PORT,
    POOL_MAX,
    SERVER4,
    SERVER6,
    SERVICE_PORT,
    World,
    inside,
    run,
)

from cpe_mcp.aaa.cookie import own_credential
from cpe_mcp.convert import Client

pytestmark = pytest.mark.netns

BULK = os.urandom(1 << 20) * 24


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("relay"))
    try:
        world.start_upstream()
        world.start_concentrator()
        yield world
    finally:
        world.close()


@pytest.fixture
def world(shared: World) -> World:
    """The shared world as it was at first: no pool, everything proxied."""
    shared.change(pool_size=0, proxy=True, fallback="direct", reply_timeout_s=3.0)
    shared.up_control.frames.clear()
    return shared


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(1 << 16):
        data += piece
    return bytes(data)


def is_reset(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1) is None)
    except ConnectionResetError:
        return True


def echo(connection: socket.socket) -> None:
    connection.sendall(read_all(connection))


@pytest.mark.requirement("3-c")
@pytest.mark.parametrize("address", [SERVER4, SERVER6])
def test_request_and_answer_through_the_concentrator(world: World, address: str) -> None:
    seen: list[str] = []

    def answer(connection: socket.socket) -> None:
        seen.append(connection.getpeername()[0])
        request = connection.recv(100)
        connection.sendall(b"answer to " + request)

    port = world.serve(answer, address)
    with world.connect(address, port) as client:
        client.sendall(b"question")
        assert read_all(client) == b"answer to question"
    record = world.up_control.wait_record(lambda record: record["server_port"] == port)
    assert (record["action"], record["concentrator"], record["wan"], record["end"]) == ("proxy", "far", "one", "closed")
    assert (record["server"], record["server_port"], record["family"]) == (address, port, 6 if ":" in address else 4)
    assert (record["bytes_up"], record["bytes_down"]) == (8, 18)
    assert 0 <= record["first_byte_ms"] < 1000
    assert seen != ["192.168.9.2"], "the server saw the LAN client: the flow went direct"
    far = world.far_control.wait_record(lambda record: record["server_port"] == port)
    assert (far["concentrator"], far["bytes_up"], far["bytes_down"]) == ("alice", 8, 18)


def test_a_server_that_speaks_first_is_heard_at_once(world: World) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-test\r\n")
        connection.recv(1)

    port = world.serve(greet)
    started = time.monotonic()
    with world.connect(SERVER4, port) as client:
        assert client.recv(100) == b"SSH-2.0-test\r\n"
        assert time.monotonic() - started < 0.5


def test_half_close_both_ways(world: World) -> None:
    port = world.serve(echo)
    with world.connect(SERVER4, port) as client:
        client.sendall(b"first half")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"first half"

    def greet_and_close_first(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        received.append(read_all(connection))
        done.set()

    received: list[bytes] = []
    done = threading.Event()
    port = world.serve(greet_and_close_first)
    with world.connect(SERVER4, port) as client:
        assert read_all(client) == b"bye"
        client.sendall(b"but I go on")
        client.shutdown(socket.SHUT_WR)
        assert done.wait(5)
    assert received == [b"but I go on"]


def test_bulk_both_ways_uses_both_wans_and_arrives_whole(world: World) -> None:
    want = hashlib.sha256(BULK).hexdigest()
    got: list[str] = []

    def swap(connection: socket.socket) -> None:
        digest = hashlib.sha256()
        while piece := connection.recv(1 << 16):
            digest.update(piece)
        got.append(digest.hexdigest())
        connection.sendall(BULK)

    port = world.serve(swap)
    before = [transmitted(world, device) for device in ("w1", "w2")]
    with world.connect(SERVER4, port, timeout=30) as client:
        client.sendall(BULK)
        client.shutdown(socket.SHUT_WR)
        assert hashlib.sha256(read_all(client)).hexdigest() == want
    assert got == [want]
    moved = [transmitted(world, device) - was for device, was in zip(("w1", "w2"), before, strict=True)]
    assert min(moved) > 100_000, f"bytes sent by w1 and w2: {moved}"


def transmitted(world: World, device: str) -> int:
    with inside(world.router):
        lines = Path("/proc/thread-self/net/dev").read_text()
    return int(next(line for line in lines.splitlines() if line.strip().startswith(f"{device}:")).split()[9])


def test_a_slow_reader_holds_nobody_up(world: World) -> None:
    port = world.serve(lambda connection: connection.sendall(BULK))
    quick = world.serve(echo)
    with world.connect(SERVER4, port) as slow:
        time.sleep(0.5)
        with world.connect(SERVER4, quick) as client:
            client.sendall(b"quick")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"quick"
        assert hashlib.sha256(read_all(slow)).digest() == hashlib.sha256(BULK).digest()


def test_resets_go_through_both_ways(world: World) -> None:
    linger = b"\1\0\0\0\0\0\0\0"

    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with world.connect(SERVER4, world.serve(reset)) as client:
        client.sendall(b"x")
        assert is_reset(client)

    errors: list[type[BaseException]] = []
    done = threading.Event()

    def observe(connection: socket.socket) -> None:
        connection.sendall(b"ready")
        try:
            read_all(connection)
        except OSError as error:
            errors.append(type(error))
        done.set()

    client = world.connect(SERVER4, world.serve(observe))
    assert client.recv(5) == b"ready"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()
    assert done.wait(5)
    assert errors == [ConnectionResetError]


def free_port(world: World) -> int:
    with inside(world.far), socket.create_server((SERVER4, 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_refused_port_is_a_reset_and_a_direct_hint(world: World) -> None:
    port = free_port(world)
    with world.connect(SERVER4, port) as client:
        client.sendall(b"anybody?")
        assert is_reset(client)
    hint = world.up_control.wait("direct")
    assert hint == {"address": SERVER4, "port": port, "reason": "server-refused"}
    assert world.up_control.wait_record(lambda record: record["server_port"] == port)["end"] == "server-refused"


def test_an_unreachable_server_is_a_reset_and_a_direct_hint(world: World) -> None:
    with world.connect("192.0.2.77", 80) as client:
        client.sendall(b"anybody?")
        assert is_reset(client)
    assert world.up_control.wait("direct")["reason"] == "server-unreachable"


@pytest.mark.requirement("5.3-d")
def test_a_refused_subscriber_is_served_directly_with_its_bytes(world: World) -> None:
    concentrator = world.snapshot.concentrators[0]
    world.change(concentrators=(concentrator._replace(credential=own_credential("alice", "another key")),))
    try:
        port = world.serve(echo)
        with world.connect(SERVER4, port) as client:
            client.sendall(b"said before the Error TLV")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"said before the Error TLV"
        record = world.up_control.wait_record(lambda record: record["server_port"] == port)
        assert (record["action"], record["reason"]) == ("direct", "concentrator-refused")
        trouble = world.up_control.wait("trouble")
        assert (trouble["reason"], trouble["detail"]) == ("concentrator-refused", "Convert Error 32")
    finally:
        world.change(concentrators=(concentrator,))


def test_hairpin_goes_direct_and_leaves_the_concentrator_in_use(world: World) -> None:
    """Error 32 about a destination is none about the subscriber: other flows are still carried."""
    other = "10.9.9.9"
    run("ip", "-n", world.far, "address", "add", f"{other}/32", "dev", "lo")
    run("ip", "-n", world.router, "route", "add", f"{other}/32", "via", "10.1.0.2")
    world.change(pool_size=2)
    world.up_control.wait_counter("pool_ready", 2)
    client_core = Client(COOKIE)
    with inside(world.far):  # somebody else is served from that address
        someone = socket.create_connection((CONCENTRATOR, SERVICE_PORT), 2, (other, 0))
    with someone:
        someone.sendall(client_core.prefix())
        time.sleep(0.3)
        port = world.serve(echo, other)
        with world.connect(other, port) as client:
            client.sendall(b"to another subscriber")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"to another subscriber"
        record = world.up_control.wait_record(lambda record: record["server_port"] == port)
        assert (record["action"], record["reason"]) == ("direct", "destination-refused")
        assert world.up_control.wait("direct")["reason"] == "destination-refused"
        assert not [kind for kind, _ in world.up_control.frames if kind == "trouble"]


@pytest.mark.parametrize("fallback", ["direct", "block"])
def test_no_concentrator_there(world: World, fallback: str) -> None:
    concentrator = world.snapshot.concentrators[0]
    world.change(
        concentrators=(concentrator._replace(name=f"absent-{fallback}", port=SERVICE_PORT + 7),), fallback=fallback
    )
    try:
        with held(world, "upstream_worker"):  # a reset may come before connect() has returned
            client = world.connect(SERVER4, world.serve(echo))
        with client:
            if fallback == "block":
                assert is_reset(client)
            else:
                client.sendall(b"direct then")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b"direct then"
        world.up_control.wait("trouble", lambda row: row["wan"] == "two")  # the worker serves its client first
        troubles = [payload for kind, payload in world.up_control.frames if kind == "trouble"]
        assert {(row["wan"], row["reason"]) for row in troubles} == {
            ("one", "concentrator-unreachable"),
            ("two", "concentrator-unreachable"),
        }, "the second WAN was not tried"
    finally:
        world.change(concentrators=(concentrator,), fallback="direct")


@contextlib.contextmanager
def held(world: World, module: str) -> Iterator[None]:
    """The worker does not run meanwhile: what a client says is in the kernel when the worker accepts."""
    worker = next(process for process in world.processes if any(module in str(arg) for arg in process.args))  # type: ignore[union-attr]
    worker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def odd_concentrator(world: World, speech: bytes | None) -> Iterator[None]:
    """A concentrator that answers every message with the given bytes, or with silence."""

    def speak(connection: socket.socket) -> None:
        connection.recv(1000)
        if speech is not None:
            connection.sendall(speech)
        with contextlib.suppress(OSError):
            read_all(connection)

    port = world.serve(speak, CONCENTRATOR)
    good = world.snapshot.concentrators[0]
    # A name of its own: a worker repeats the same trouble with the same concentrator only after a second.
    world.change(concentrators=(good._replace(name=f"odd{port}", port=port),), reply_timeout_s=0.5)
    try:
        yield
    finally:
        world.change(concentrators=(good,), reply_timeout_s=3.0)


def test_nonsense_from_the_concentrator(world: World) -> None:
    """No client byte was sent on: direct. One was, and nothing proves that it went nowhere: reset."""
    greeting = world.serve(lambda connection: connection.sendall(b"hello"))
    with odd_concentrator(world, b"HTTP/1.1 400 Bad Request\r\n"):
        with world.connect(SERVER4, greeting) as client:
            assert client.recv(10) == b"hello"
        assert world.up_control.wait("trouble")["reason"] == "concentrator-nonsense"
        with held(world, "upstream_worker"):
            client = world.connect(SERVER4, world.serve(echo))
            client.sendall(b"must not be said twice")
        with client:
            assert is_reset(client)


def test_a_silent_concentrator(world: World) -> None:
    greeting = world.serve(lambda connection: connection.sendall(b"hello"))
    with odd_concentrator(world, None), world.connect(SERVER4, greeting) as client:
        assert client.recv(10) == b"hello"
        assert world.up_control.wait("trouble")["reason"] == "concentrator-timeout"


@pytest.mark.parametrize(
    ("error", "reason", "wait_s"),
    [("1e01403c", "concentrator-busy", 60.0), ("1e014100", "concentrator-busy", 30.0), ("1e010001", None, 0.0)],
)
def test_errors_that_leave_the_flow_to_the_router(world: World, error: str, reason: str | None, wait_s: float) -> None:
    with odd_concentrator(world, bytes.fromhex("01022263" + error)):
        with world.connect(SERVER4, world.serve(echo)) as client:
            client.sendall(b"again, please")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"again, please"
        trouble = world.up_control.wait("trouble")
        assert trouble["reason"] == (reason or "concentrator-nonsense")
        assert trouble["wait_s"] == wait_s


@pytest.mark.requirement("Y-3")
def test_a_request_does_not_wait_for_the_convert_reply(world: World) -> None:
    """One that comes after the Connect TLV has gone: the concentrator has it before it has answered."""
    heard: list[bytes] = []
    heard_all = threading.Event()

    def listen(connection: socket.socket) -> None:
        message = b""
        while not message.endswith(b"question"):
            message += connection.recv(1000)
        heard.append(message[-8:])
        heard_all.set()
        connection.sendall(bytes.fromhex("01012263") + b"answer")

    port = world.serve(listen, CONCENTRATOR)
    good = world.snapshot.concentrators[0]
    world.change(concentrators=(good._replace(name=f"slow{port}", port=port),))
    try:
        with world.connect(SERVER4, 80) as client:
            time.sleep(0.3)
            client.sendall(b"question")
            assert heard_all.wait(2), "the request waited for the reply"
            assert client.recv(100) == b"answer"
    finally:
        world.change(concentrators=(good,))


@pytest.mark.requirement("Y-3")
def test_warm_connections_carry_flows_and_are_refilled(world: World) -> None:
    world.change(pool_size=3)
    world.up_control.wait_counter("pool_ready", 3)
    port = world.serve(echo)
    for _ in range(6):
        with world.connect(SERVER4, port) as client:
            client.sendall(b"warm")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"warm"
        time.sleep(0.1)

    def of_this_test() -> list[dict[str, Any]]:
        return [record for record in world.up_control.records() if record["server_port"] == port]

    world.up_control.wait_record(lambda record: len(of_this_test()) >= 6)
    assert [record["pooled"] for record in of_this_test()] == [True] * 6
    assert {record["reason"] for record in of_this_test()} == {"pooled"}


def test_a_burst_over_the_pool_is_not_delayed(world: World) -> None:
    world.change(pool_size=2)
    world.up_control.wait_counter("pool_ready", 2)
    port = world.serve(echo)
    clients = [world.connect(SERVER4, port) for _ in range(12)]
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
        client.shutdown(socket.SHUT_WR)
    for number, client in enumerate(clients):
        assert read_all(client) == b"%d" % number
        client.close()


def test_a_dead_pool_is_not_given_to_flows(world: World) -> None:
    world.change(pool_size=4)
    world.up_control.wait_counter("pool_ready", 4)
    victim = world.processes[-1]
    victim.kill()
    victim.wait()
    world.far_control.frames.clear()
    world.processes.remove(victim)
    world.start_concentrator()
    port = world.serve(echo)
    with world.connect(SERVER4, port) as client:
        client.sendall(b"still there?")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"still there?"
    assert world.up_control.wait_record(lambda record: record["server_port"] == port)["action"] == "proxy"


def test_flows_and_new_ones_survive_a_restart_of_the_control_daemon(world: World) -> None:
    with world.connect(SERVER4, world.serve(echo)) as client:
        client.sendall(b"before ")
        world.up_control.stop()
        client.sendall(b"after")
        with world.connect(SERVER4, world.serve(echo)) as other:
            other.sendall(b"new one")
            other.shutdown(socket.SHUT_WR)
            assert read_all(other) == b"new one"
        world.up_control.frames.clear()
        world.up_control.start()
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"before after"
    world.up_control.wait("hello")
    world.up_control.wait_record(lambda record: record["bytes_up"] == 7)
    world.up_control.wait_record(lambda record: record["bytes_up"] == 12)


def test_live_flows_are_listed(world: World) -> None:
    port = world.serve(echo)
    with world.connect(SERVER4, port) as client:
        client.sendall(b"12345")
        time.sleep(0.2)
        world.up_control.send("list", {"id": 7, "limit": 10})
        flows = world.up_control.wait("flows")
        assert flows["id"] == 7
        assert [(row["server_port"], row["bytes_up"], row["end"]) for row in flows["flows"]] == [(port, 5, "")]


def test_our_own_port_is_not_served(world: World) -> None:
    with held(world, "upstream_worker"):
        client = world.connect("192.168.9.1", INTERCEPT_PORT)
    with client:
        assert is_reset(client)


def test_descriptors_are_given_back(world: World) -> None:
    def descriptors(process: subprocess.Popen[bytes]) -> int:
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    port = world.serve(echo)

    def round_trip() -> None:
        with world.connect(SERVER4, port) as client:
            client.sendall(bytes(300_000))
            client.shutdown(socket.SHUT_WR)
            assert len(read_all(client)) == 300_000

    round_trip()
    time.sleep(0.3)
    before = [descriptors(process) for process in world.processes]
    for _ in range(20):
        round_trip()
    time.sleep(0.3)
    after = [descriptors(process) for process in world.processes]
    assert all(now <= was + 4 for now, was in zip(after, before, strict=True)), (before, after)


# The concentrator's own manners, against a raw Convert client ------------------------------------------------------------


def raw(world: World, message: bytes) -> bytes:
    """What the concentrator says to these bytes until it closes; nothing where it resets."""
    answer = bytearray()
    with (
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
        inside(world.router),
        socket.create_connection((CONCENTRATOR, SERVICE_PORT), timeout=6) as sock,
    ):
        sock.sendall(message)
        while piece := sock.recv(2000):
            answer += piece
    return bytes(answer)


def message(tlvs: bytes, *, cookie: bytes = COOKIE) -> bytes:
    cookie += bytes(-len(cookie) % 4)
    head = bytes([22, 1 + len(cookie) // 4, 0, 0]) + cookie if cookie else b""
    return bytes([1, 1 + (len(head) + len(tlvs)) // 4]) + b"\x22\x63" + head + tlvs


def connect_tlv(address: str, port: int, options: bytes = b"") -> bytes:
    packed = socket.inet_pton(socket.AF_INET6, address if ":" in address else f"::ffff:{address}")
    return bytes([10, 5 + len(options) // 4]) + port.to_bytes(2, "big") + packed + options


@pytest.mark.requirement("5.2.1-b")
@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (message(connect_tlv("127.0.0.1", 80)), bytes([30, 0, 1, 0])),
        (message(b"\x63\x01\x00\x00"), bytes([30, 0, 2, 0])),
        (b"\x02\x01\x22\x63", bytes([30, 1, 0, 1])),
        (message(connect_tlv(SERVER4, 9), cookie=b""), bytes([30, 1, 32, 0])),
        (message(connect_tlv(SERVER4, 9)), bytes([30, 1, 96, 0])),
        (message(connect_tlv("192.0.2.1", 9)), bytes([30, 1, 97, 0])),
        (message(connect_tlv(SERVER4, 9, bytes([34, 2, 0, 0]))), bytes([30, 1, 33, 34])),
        (message(b"\x01\x01\x00\x00"), bytes([21, 2, 0, 0, 30, 4, 8, 0])),
    ],
    ids=["malformed", "unsupported", "version", "not-authorized", "refused", "unreachable", "option", "info"],
)
def test_the_concentrator_answers_as_the_protocol_says(world: World, request_bytes: bytes, answer: bytes) -> None:
    reply = raw(world, request_bytes)
    assert reply[:1] == b"\x01"
    assert reply[2:4] == b"\x22\x63"
    if answer[:1] == b"\x1e" and answer[2] in (1, 2):  # these echo the message, so their length varies
        assert reply[4:5] == answer[:1]
        assert reply[6:7] == answer[2:3]
    else:
        assert reply[4:] == answer


@pytest.mark.requirement("7.2-a")
def test_half_done_messages_hold_no_place(world: World) -> None:
    """As many idle handshakes as may be, and one more: a subscriber is served all the same, and the oldest has to go."""
    world.far_control.wait_counter("half_open", 0)
    with inside(world.router):
        idle = [socket.create_connection((CONCENTRATOR, SERVICE_PORT), timeout=3) for _ in range(HALF_OPEN_MAX)]
    for sock in idle:
        sock.sendall(b"\x01")
    time.sleep(0.2)
    assert raw(world, message(connect_tlv(SERVER4, 9)))[4:] == bytes([30, 1, 96, 0])
    assert is_reset(idle[0])
    assert not select.select(idle[1:], [], [], 0)[0], "more than one had to go"
    time.sleep(1.5)
    for sock in idle[1:]:
        assert is_reset(sock)
        sock.close()


@pytest.mark.requirement("7.2-a")
def test_a_message_that_trickles_in_gets_no_more_time(world: World) -> None:
    """A byte every 0.2 s of a message that would take 6 s, where one may take 1 s."""
    whole = message(connect_tlv(SERVER4, 9))
    started = time.monotonic()
    with inside(world.router):
        sock = socket.create_connection((CONCENTRATOR, SERVICE_PORT), timeout=3)
    with sock:
        for byte in whole[:30]:
            try:
                sock.send(bytes([byte]))
            except OSError:
                break
            time.sleep(0.2)
    assert 0.9 < time.monotonic() - started < 3


def test_a_warm_connection_beyond_the_subscribers_share_is_refused(world: World) -> None:
    prefix = message(connect_tlv(SERVER4, 9))[:-20]
    world.far_control.wait_counter("half_open", 0)
    with inside(world.router):
        warm = [socket.create_connection((CONCENTRATOR, SERVICE_PORT), timeout=3) for _ in range(POOL_MAX)]
    for sock in warm:
        sock.sendall(prefix)
    time.sleep(0.2)
    assert raw(world, prefix)[4:] == bytes([30, 1, 64, 5])
    warm[0].sendall(connect_tlv(SERVER4, 9))
    assert warm[0].recv(100)[4:] == bytes([30, 1, 96, 0])
    for sock in warm:
        sock.close()


def test_a_stopped_worker_resets_what_it_carried_and_leaves_the_rest_to_forwarding(tmp_path: Path) -> None:
    world = World(tmp_path, "stop")
    try:
        worker = world.start_upstream()
        world.start_concentrator()
        port = world.serve(echo)
        client = world.connect(SERVER4, port)
        client.sendall(b"cut in the middle")
        time.sleep(0.3)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(5) == 0
        assert is_reset(client)
        assert world.up_control.wait_record()["end"] == "worker-stopped"
        with world.connect(SERVER4, port) as direct:
            direct.sendall(b"fails open")
            direct.shutdown(socket.SHUT_WR)
            assert read_all(direct) == b"fails open"
    finally:
        world.close()


@pytest.mark.requirement("X-6")
@pytest.mark.parametrize("error", ["1e01403c", "1e014105", "1e012000"])
def test_a_concentrator_that_refuses_leaves_the_flow_to_the_next_one(world: World, error: str) -> None:
    """Whatever the client has said: an Error TLV proves that nothing of it went on (RFC 8803 section 4.2.8)."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(bytes.fromhex("01022263" + error))
        with contextlib.suppress(OSError):
            read_all(connection)

    good = world.snapshot.concentrators[0]
    busy = good._replace(name=f"busy-{error}", port=world.serve(refuse, CONCENTRATOR))
    world.change(concentrators=(busy, good))
    try:
        port = world.serve(echo)
        with held(world, "upstream_worker"):
            client = world.connect(SERVER4, port)
            client.sendall(b"POST once")
            client.shutdown(socket.SHUT_WR)
        with client:
            assert read_all(client) == b"POST once"
        record = world.up_control.wait_record(lambda record: record["server_port"] == port)
        assert (record["action"], record["concentrator"]) == ("proxy", "far")
        assert world.up_control.wait("trouble", lambda row: row["concentrator"] == busy.name)
    finally:
        world.change(concentrators=(good,))


@pytest.mark.requirement("X-6")
def test_a_handshake_that_is_late_does_not_hold_the_flow_up_and_what_was_said_arrives_once(world: World) -> None:
    """The first concentrator swallows everything; each of its two ways is tried, then the second one serves."""
    good = world.snapshot.concentrators[0]
    silent = good._replace(name="silent", addresses=("10.9.0.77",))  # routed to the far side, where nobody has it
    run("ip", "-n", world.far, "route", "add", "blackhole", "10.9.0.77")
    world.change(concentrators=(silent, good))
    heard: list[bytes] = []

    def listen(connection: socket.socket) -> None:
        heard.append(read_all(connection))
        connection.sendall(b"done")

    try:
        port = world.serve(listen)
        for limit_s in (3.0, 0.6):
            started = time.monotonic()
            with world.connect(SERVER4, port) as client:
                client.sendall(b"once")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b"done"
            assert time.monotonic() - started < limit_s, "the second flow had to find out by itself"
        assert heard == [b"once", b"once"]
        world.up_control.wait("trouble", lambda row: row["concentrator"] == "silent" and row["wan"] == "two")
    finally:
        run("ip", "-n", world.far, "route", "delete", "blackhole", "10.9.0.77")
        world.change(concentrators=(good,))
