"""``mcp-concentrator`` as its owner starts it: one configuration file, one command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from relay_world import CONCENTRATOR, SERVER4, SERVICE_PORT, World, cookies, inside

from cpe_mcp.aaa.cookie import time_of
from cpe_mcp.control.ask import ask
from cpe_mcp.control.frames import API_SOCKET
from cpe_mcp.convert import Client
from cpe_mcp.relay.sockets import pack16

pytestmark = pytest.mark.netns

KEY = "wonderland-and-back-again"
ROUTER1 = "10.1.0.1"
SERVER = "10.2.0.1"
"""On the router's other line: an address of the concentrator would be refused as such."""
CONFIG = f"""
config global 'global'
    option run_dir '@RUN@'
    option congestion_control ''

config listener 'internet'
    option port '{SERVICE_PORT}'

config listener 'customers'
    option port '5999'
    option facing 'customer'

config destinations 'destinations'
    list allow '10.2.0.0/24'

config subscriber 'alice'
    option key '{KEY}'

config subscriber 'line'
    list address '{ROUTER1}/32'
"""


class Concentrator:
    """The daemon in the far namespace of a world."""

    def __init__(self, world: World, directory: Path, config: str = CONFIG) -> None:
        self.world = world
        self.run_dir = directory / "run"
        self.config = directory / "mcp-concentrator"
        self.config.write_text(config.replace("@RUN@", str(self.run_dir)))
        self.log = directory / "log"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "cpe_mcp.concentrator.daemon", "--config", str(self.config), "--foreground"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(["ip", "netns", "exec", self.world.far, *argv], stdout=log, stderr=log)
        self.world.processes.append(process)
        return process

    def ask(self, method: str = "status") -> Any:
        return ask(str(self.run_dir / API_SOCKET), method)

    def wait(self, listeners: int = 2) -> None:
        end = time.monotonic() + 5
        while True:
            with contextlib.suppress(OSError):
                if self.ask()["workers"]:
                    break
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
        if listeners:
            self.world.wait_listening(CONCENTRATOR, SERVICE_PORT)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "conc", bare=True)
    yield world
    world.close()


def convert(
    world: World,
    address: str,
    port: int,
    *,
    cookie: Callable[[], bytes] = bytes,
    service: int = SERVICE_PORT,
    half_close: bool = False,
) -> bytes:
    """Ask for a server as a router would; everything that comes back until the end."""
    padded = cookie()
    head = bytes([22, 1 + len(padded) // 4, 0, 0]) + padded if padded else b""
    connect = bytes([10, 5]) + port.to_bytes(2, "big") + bytes(10) + b"\xff\xff" + socket.inet_aton(address)
    message = bytes([1, 1 + (len(head) + len(connect)) // 4]) + b"\x22\x63" + head + connect
    answer = bytearray()
    with (
        inside(world.router),
        socket.create_connection((CONCENTRATOR, service), timeout=6, source_address=(ROUTER1, 0)) as sock,
    ):
        sock.sendall(message)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while piece := sock.recv(2000):
                answer += piece
    return bytes(answer)


SUCCESS = bytes.fromhex("01012263")
IDLE_S = 0.8
"""Less than the 2 s that a refused peer has to go."""


@pytest.mark.requirement("X-16")
@pytest.mark.requirement("5.3-e")
def test_who_is_served(world: World, tmp_path: Path) -> None:
    concentrator = Concentrator(world, tmp_path)
    concentrator.wait()
    port = world.serve(lambda connection: connection.sendall(b"hello"), SERVER, 0, world.router)
    alice, mallory = cookies("alice", KEY), cookies("alice", "another-key-altogether")
    assert convert(world, SERVER, port, cookie=alice) == SUCCESS + b"hello"
    refused = bytes.fromhex("01022263 1e012000")
    assert convert(world, SERVER, port, cookie=mallory) == refused
    wanted = convert(world, SERVER, port)
    assert wanted[:8] == bytes.fromhex("01042263 1e030300"), "no cookie on the Internet side"
    there_s = time_of(wanted[8:])
    assert there_s is not None
    assert abs(there_s - time.time()) < 5
    assert convert(world, SERVER, port, service=5999) == SUCCESS + b"hello", "a subscriber's address on its side"
    status = concentrator.ask()
    end = time.monotonic() + 3
    while time.monotonic() < end and len(status["subscribers"]) < 2:
        time.sleep(0.05)
        status = concentrator.ask()
    assert {row["name"]: row["flows"] for row in status["subscribers"]} == {"alice": 1, "line": 1}
    assert {row["reason"] for row in status["refusals"]} == {"unknown-subscriber", "cookie-wanted"}


@pytest.mark.requirement("5.3-e")
def test_a_listener_for_customers_is_not_reached_from_the_side_of_the_internet(world: World, tmp_path: Path) -> None:
    sides = "".join(
        f"\nconfig interface '{name}'\n    option device '{name}'\n    option facing '{facing}'\n"
        for name, facing in (("w1", "internet"), ("w2", "customer"))
    )
    concentrator = Concentrator(world, tmp_path, CONFIG.replace(f"{ROUTER1}/32", "10.0.0.0/8") + sides)
    concentrator.wait()
    port = world.serve(lambda connection: connection.sendall(b"hello"), SERVER, 0, world.router)
    assert convert(world, SERVER, port, cookie=cookies("alice", KEY)) == SUCCESS + b"hello"
    with pytest.raises(ConnectionRefusedError):
        convert(world, SERVER, port, service=5999)
    rows = {row["name"]: row["count"] for row in concentrator.ask()["limits"]["reached"]}
    end = time.monotonic() + 12
    while not rows["side"] and time.monotonic() < end:
        time.sleep(0.2)
        rows = {row["name"]: row["count"] for row in concentrator.ask()["limits"]["reached"]}
    assert rows["side"] == 1
    concentrator.config.write_text(concentrator.config.read_text().replace("option device 'w1'", "option device 'w9'"))
    concentrator.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 5
    while "settings read again" not in concentrator.log.read_text() and time.monotonic() < end:
        time.sleep(0.05)
    assert convert(world, SERVER, port, service=5999) == SUCCESS + b"hello", "a device of no side is on both"


NEAR_W1, NEAR_W2 = "2001:db8:1::2", "2001:db8:2::2"
"""The concentrator's IPv6 addresses on the router's two lines."""
SIDES = f"""
config global 'global'
    option run_dir '@RUN@'

config interface 'uplink'
    option device 'w1'

config interface 'access'
    option device 'w2'
    option facing 'customer'

config listener 'mapped'
    option facing 'customer'
    option port '5998'
    list address '::ffff:{CONCENTRATOR}'

config listener 'home'
    option facing 'customer'

config listener 'roaming'
    list address '0.0.0.0'
    option device 'w1'

config subscriber 'alice'
    option key '{KEY}'
"""


def is_open(world: World, address: str, port: int) -> bool:
    with inside(world.router):
        try:
            socket.create_connection((address, port), timeout=2).close()
        except ConnectionRefusedError:
            return False
    return True


@pytest.mark.requirement("5.3-e")
@pytest.mark.requirement("7.2-a")
def test_sides_hold_for_ipv6_and_mapped_listeners_and_outlive_a_flushed_ruleset(world: World, tmp_path: Path) -> None:
    concentrator = Concentrator(world, tmp_path, SIDES)
    concentrator.wait()

    def doors() -> dict[str, bool]:
        return {
            "mapped from the Internet": is_open(world, CONCENTRATOR, 5998),
            "IPv4 from the Internet": is_open(world, CONCENTRATOR, SERVICE_PORT),
            "IPv6 from the Internet": is_open(world, NEAR_W1, SERVICE_PORT),
            "IPv6 from customers": is_open(world, NEAR_W2, SERVICE_PORT),
        }

    as_wanted = {
        "mapped from the Internet": False,
        "IPv4 from the Internet": True,
        "IPv6 from the Internet": False,
        "IPv6 from customers": True,
    }
    assert doors() == as_wanted
    assert concentrator.ask()["table"] == {"wanted": True, "in_place": True, "disturbed": 0}
    nft = ["ip", "netns", "exec", world.far, "nft"]
    for number, command in enumerate(("flush ruleset", "flush chain inet mcp_concentrator sides"), 1):
        subprocess.run([*nft, *command.split()], check=True)
        end = time.monotonic() + 2
        while concentrator.ask()["table"] != {"wanted": True, "in_place": True, "disturbed": number}:
            assert time.monotonic() < end, command
            time.sleep(0.02)
        assert doors() == as_wanted
    assert concentrator.log.read_text().count("it is put back") == 2


@pytest.mark.requirement("5.6.7-a")
@pytest.mark.requirement("7.1-a")
def test_the_address_log_says_what_the_server_saw_and_no_more(world: World, tmp_path: Path) -> None:
    path = tmp_path / "logs/addresses.log"
    section = f"\nconfig address_log 'address_log'\n    option enabled '1'\n    option file '{path}'\n"
    concentrator = Concentrator(world, tmp_path, CONFIG + section)
    concentrator.wait()
    seen: list[tuple[str, int]] = []

    def greet(connection: socket.socket) -> None:
        seen.append(connection.getpeername()[:2])
        connection.sendall(b"hello")

    port = world.serve(greet, SERVER, 0, world.router)
    assert convert(world, SERVER, port, cookie=cookies("alice", KEY)) == SUCCESS + b"hello"
    convert(world, SERVER, port)  # refused: it used no address of ours
    end = time.monotonic() + 3
    while not (path.exists() and path.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    (line,) = path.read_text().splitlines()
    words = dict(word.split("=", 1) for word in line.split())
    assert words.keys() == {"subscriber", "inner", "outer", "protocol", "start", "end"}
    assert words["subscriber"] == "alice"
    assert words["inner"].startswith(f"{ROUTER1}#")
    assert [words["outer"]] == [f"{address}#{number}" for address, number in seen]
    assert words["start"] <= words["end"]
    assert f"#{port}" not in line, "where it went to is nobody's business"
    assert concentrator.ask()["address_log"]["written"] == 1


@pytest.mark.requirement("5.6.7-a")
def test_the_address_log_has_who_scans_ports_and_for_no_longer_than_a_port_was_theirs(
    world: World, tmp_path: Path
) -> None:
    """A server that refuses or says nothing has seen our address and port too. A warm connection has no port before it asks for
    a server, and one that was refused none any more, however long it stays."""
    path = tmp_path / "addresses.log"
    section = f"\nconfig address_log 'address_log'\n    option enabled '1'\n    option file '{path}'\n"
    option = "option congestion_control ''"
    concentrator = Concentrator(
        world, tmp_path, CONFIG.replace(option, f"{option}\n    option connect_timeout_s '0.5'") + section
    )
    concentrator.wait()
    alice = cookies("alice", KEY)
    nobody, silent = "10.2.0.1", "10.2.0.250"
    assert convert(world, silent, 23, cookie=alice) == bytes.fromhex("01022263 1e016101")
    client = Client(alice())
    with inside(world.router):
        sock = socket.create_connection((CONCENTRATOR, SERVICE_PORT), timeout=6, source_address=(ROUTER1, 0))
    with sock:
        sock.sendall(client.prefix())
        time.sleep(IDLE_S)
        asked = time.time()
        sock.sendall(client.connect(pack16(socket.AF_INET, nobody), 9))
        assert sock.recv(100) == bytes.fromhex("01022263 1e016000")
        time.sleep(IDLE_S)
    end = time.monotonic() + 3
    while not (path.exists() and len(path.read_text().splitlines()) == 2) and time.monotonic() < end:
        time.sleep(0.05)
    lines = [dict(word.split("=", 1) for word in line.split()) for line in path.read_text().splitlines()]
    assert [line["subscriber"] for line in lines] == ["alice", "alice"]
    assert {line["outer"].partition("#")[0] for line in lines} == {"10.2.0.2"}
    assert all(int(line["outer"].partition("#")[2]) for line in lines)
    start, end_of_it = (datetime.fromisoformat(lines[1][name]).timestamp() for name in ("start", "end"))
    assert start > asked - IDLE_S * 0.75, "not since it was warm"
    assert end_of_it < asked + IDLE_S * 0.75, "not until the refused peer has gone"


@pytest.mark.requirement("7.2-a")
def test_what_is_reachable(world: World, tmp_path: Path) -> None:
    concentrator = Concentrator(world, tmp_path)
    concentrator.wait()
    alice = cookies("alice", KEY)
    prohibited = bytes.fromhex("01022263 1e01610d")
    assert convert(world, "10.3.0.1", 80, cookie=alice) == prohibited, "not global, not allowed"
    assert convert(world, CONCENTRATOR, 22, cookie=alice) == prohibited, "its own address"
    assert convert(world, "10.2.0.2", 22, cookie=alice) == prohibited, "its own, though the prefix is allowed"
    assert convert(world, SERVER, 9, cookie=alice) == bytes.fromhex("01022263 1e016000"), "allowed, and nobody there"


@pytest.mark.requirement("X-10")
def test_speed_tests_are_served_unless_switched_off(world: World, tmp_path: Path) -> None:
    option = "option congestion_control ''"
    config = CONFIG.replace(option, f"{option}\n    list public_address '192.0.2.10'")
    concentrator = Concentrator(world, tmp_path, config)
    concentrator.wait()
    alice = cookies("alice", KEY)
    mallory = cookies("alice", "another-key-altogether")
    assert convert(world, CONCENTRATOR, 9, cookie=alice, half_close=True) == SUCCESS
    assert convert(world, "192.0.2.10", 9, cookie=alice, half_close=True) == SUCCESS, "what leads here through NAT"
    assert convert(world, CONCENTRATOR, 9, cookie=mallory) == bytes.fromhex("01022263 1e012000")
    prohibited = bytes.fromhex("01022263 1e01610d")
    assert convert(world, "192.0.2.10", 22, cookie=alice) == prohibited, "like an own address"
    assert convert(world, "10.2.0.2", 9, cookie=alice) == prohibited, "not the one that was connected to"
    text = concentrator.config.read_text()
    concentrator.config.write_text(text.replace(option, f"{option}\n    option speedtest '0'"))
    concentrator.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert convert(world, CONCENTRATOR, 9, cookie=alice) == prohibited
    assert convert(world, CONCENTRATOR, 19, cookie=alice) == prohibited


def test_hairpin_is_refused(world: World, tmp_path: Path) -> None:
    config = CONFIG.replace("list allow '10.2.0.0/24'", "list allow '10.1.0.0/24'")
    concentrator = Concentrator(world, tmp_path, config)
    concentrator.wait()
    alice = cookies("alice", KEY)
    assert convert(world, ROUTER1, 80, cookie=alice) == bytes.fromhex("01022263 1e012000")


def test_default_deny(world: World, tmp_path: Path) -> None:
    concentrator = Concentrator(world, tmp_path, "config global 'global'\n    option run_dir '@RUN@'\n")
    concentrator.wait()
    assert convert(world, SERVER4, 80) == bytes.fromhex("01022263 1e012000")
    assert "nobody is served" in concentrator.log.read_text()


def test_a_worker_that_dies_is_back_and_none_is_left_at_the_end(world: World, tmp_path: Path) -> None:
    concentrator = Concentrator(world, tmp_path)
    concentrator.wait()
    first = concentrator.ask()["workers"][0]["pid"]
    os.kill(first, signal.SIGKILL)
    end = time.monotonic() + 2
    while [worker["pid"] for worker in concentrator.ask()["workers"]] in ([], [first]):
        assert time.monotonic() < end
        time.sleep(0.02)
    second = concentrator.ask()["workers"][0]["pid"]
    concentrator.process.terminate()
    assert concentrator.process.wait(5) == 0
    assert not Path(f"/proc/{second}").exists()
    assert list(concentrator.run_dir.iterdir()) == []


def test_workers_do_not_outlive_a_killed_daemon(world: World, tmp_path: Path) -> None:
    concentrator = Concentrator(world, tmp_path)
    concentrator.wait()
    worker = concentrator.ask()["workers"][0]["pid"]
    concentrator.process.kill()
    concentrator.process.wait()
    end = time.monotonic() + 3
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_reload_serves_a_new_subscriber_and_refuses_a_broken_file(world: World, tmp_path: Path) -> None:
    concentrator = Concentrator(world, tmp_path)
    concentrator.wait()
    bob = cookies("bob", "bobs-own-long-key")
    port = world.serve(lambda connection: connection.sendall(b"hello"), SERVER, 0, world.router)
    assert convert(world, SERVER, port, cookie=bob)[4:7] == bytes.fromhex("1e0120")
    text = concentrator.config.read_text()
    concentrator.config.write_text(text + "config subscriber 'bob'\n    option key 'bobs-own-long-key'\n")
    concentrator.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert convert(world, SERVER, port, cookie=bob) == SUCCESS + b"hello"
    concentrator.config.write_text(text.replace("option port", "option prot", 1))
    concentrator.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert "settings not read again" in concentrator.log.read_text()
    assert convert(world, SERVER, port, cookie=bob) == SUCCESS + b"hello"


def run_command(*args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "cpe_mcp.concentrator.daemon", *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def test_the_command_line(world: World, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("config listener 'a'\n    option port '99999'\n")
    result = run_command("--config", str(wrong))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "port" in result.stderr
    assert "99999" in result.stderr
    assert run_command("status", "--run-dir", str(tmp_path / "nowhere")).returncode == 3
    concentrator = Concentrator(world, tmp_path)
    concentrator.wait()
    shown = run_command("status", "--run-dir", str(concentrator.run_dir))
    assert shown.returncode == 0
    assert "listener internet: :: port 5124, faces internet" in shown.stdout
    assert KEY not in shown.stdout + concentrator.log.read_text()
    assert json.loads(run_command("status", "--json", "--run-dir", str(concentrator.run_dir)).stdout)["listeners"]
