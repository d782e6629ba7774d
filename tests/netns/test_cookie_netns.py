"""Cookies between a real worker of a router and a real concentrator."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from relay_world import INTERCEPT_PORT, World, cookies, run
from test_concentrator_netns import CONFIG, KEY, SERVER, SUCCESS, Concentrator, convert

from cpe_mcp.aaa.cookie import Credential, make_cookie, own_credential

pytestmark = [pytest.mark.netns, pytest.mark.requirement("X-16")]

SECRET = "known to all concentrators of one operator"
WORKERS = CONFIG.replace(
    "config global 'global'\n", f"config global 'global'\n option workers '2'\n option cookie_secret '{SECRET}'\n"
)
REFUSED = bytes.fromhex("01022263 1e012000")
YEARS_BACK = """
import sys, time
real = time.time
time.time = lambda: real() - 1e9
from cpe_mcp.relay.upstream_worker import main
sys.exit(main(sys.argv[1:]))
"""
"""A worker of a router that believes it is the year 1995."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "cook")
    view = world.snapshot.concentrators[0]._replace(credential=own_credential("alice", KEY))
    world.snapshot = world.snapshot._replace(concentrators=(view,))
    # What answers from the server's address goes back to the LAN, too.
    run("ip", "-n", world.router, "route", "add", "192.168.9.0/24", "dev", "lan", "table", "202")
    try:
        yield world
    finally:
        world.close()


@pytest.fixture
def concentrator(world: World, tmp_path: Path) -> Concentrator:
    concentrator = Concentrator(world, tmp_path, WORKERS)
    concentrator.wait()
    return concentrator


def outcomes(concentrator: Concentrator) -> dict[str, int]:
    return dict(concentrator.ask()["cookies"]["outcomes"])


@pytest.mark.parametrize("pool_size", [0, 3])
def test_a_router_whose_clock_is_years_off_gets_through(
    world: World, concentrator: Concentrator, pool_size: int
) -> None:
    port = world.serve(lambda connection: connection.sendall(b"hello"), SERVER, 0, world.router)
    world.snapshot = world.snapshot._replace(pool_size=pool_size)
    argv = ["--run-dir", str(world.directory / "up"), "--port", str(INTERCEPT_PORT)]
    process = subprocess.Popen(["ip", "netns", "exec", world.router, sys.executable, "-c", YEARS_BACK, *argv])
    world.processes.append(process)
    world.up_control.wait("hello")
    if pool_size:
        world.up_control.wait_counter("pool_ready", pool_size)
        end = time.monotonic() + 3
        while outcomes(concentrator).get("taken") != pool_size:
            assert time.monotonic() < end, outcomes(concentrator)
            time.sleep(0.02)
    for _ in range(2):
        with world.connect(SERVER, port) as client:
            assert client.recv(100) == b"hello"
    world.up_control.wait_record(lambda row: len(world.up_control.records()) == 2)
    assert [row["action"] for row in world.up_control.records()] == ["proxy", "proxy"], (
        "nothing of it was left to plain forwarding"
    )
    assert not [kind for kind, _ in world.up_control.frames if kind == "trouble"]
    found = outcomes(concentrator)
    assert found["cookie-time"] == max(1, pool_size), "only the first ones were of the wrong time"
    assert found.keys() == {"taken", "cookie-time"}


def test_a_cookie_that_was_read_on_the_way_is_worth_nothing(world: World, concentrator: Concentrator) -> None:
    port = world.serve(lambda connection: connection.sendall(b"hello"), SERVER, 0, world.router)
    for stolen in (cookies("alice", KEY)(), make_cookie(handed(concentrator), time.time())):
        assert convert(world, SERVER, port, cookie=same(stolen)) == SUCCESS + b"hello"
        for _ in range(6):  # whichever worker gets it
            assert convert(world, SERVER, port, cookie=same(stolen)) == REFUSED
    assert outcomes(concentrator) == {"taken": 2, "replayed-cookie": 12}
    assert concentrator.ask()["cookies"]["remembered"] == 2
    assert {row["name"] for row in concentrator.ask()["subscribers"]} <= {"alice", "line-7"}


def same(cookie: bytes) -> Callable[[], bytes]:
    return lambda: cookie


def handed(concentrator: Concentrator) -> Credential:
    """What the command gives RADIUS for line-7."""
    argv = [sys.executable, "-m", "cpe_mcp.concentrator.daemon", "handle", "line-7", "--ttl", "60"]
    argv += ["--config", str(concentrator.config)]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.fullmatch(r"CPE-MCP-Handle = 0x([0-9a-f]+),\nCPE-MCP-Subscriber-Key = 0x([0-9a-f]{64})\n", shown)
    assert found is not None, shown
    return Credential("", bytes.fromhex(found[2]), bytes.fromhex(found[1]))
