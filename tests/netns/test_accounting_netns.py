"""Accounting at a real FreeRADIUS: what the concentrator tells of its subscribers, also when the server was away meanwhile."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from relay_world import World
from test_caps_netns import CONFIG, RADIUS, SERVER, connect_message
from test_concentrator_netns import ROUTER1, Concentrator
from test_dynamic_netns import opened
from test_radius_netns import ENTERPRISE, SECRET, serving

from cpe_mcp.lab.freeradius import DETAIL, PROGRAM, RadiusUser, write_config

pytestmark = [
    pytest.mark.netns,
    pytest.mark.requirement("X-13"),
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="needs the program freeradius"),
]

PLAIN_SECRET = SECRET.replace("'", "")
SWITCHES = "option enabled '1'\n    option accounting '1'\n    option timeout_s '0.5'"
ACCOUNTING = RADIUS.replace("option enabled '1'", SWITCHES)
MEGABYTE = 1_000_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "acct", bare=True)
    yield world
    world.close()


def records(path: Path) -> list[dict[str, str]]:
    """Of FreeRADIUS' detail file, in the order in which they came."""
    if not path.exists():
        return []
    blocks = path.read_text().strip().split("\n\n")
    return [dict(re.findall(r"^\t(\S+) = \"?(.*?)\"?$", block, re.M)) for block in blocks if "Status-Type" in block]


def wait(path: Path, count: int, seconds: float = 8.0) -> list[dict[str, str]]:
    end = time.monotonic() + seconds
    while len(found := records(path)) < count:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def server(directory: Path, address: str) -> tuple[list[str], Path]:
    """The command of a FreeRADIUS there, and the file of what it has taken."""
    command = write_config(
        str(directory),
        secret=PLAIN_SECRET,
        clients=["127.0.0.0/8"],
        address_users=[RadiusUser(ROUTER1, "ask", user="line-0815", classes=(b"gold",))],
        enterprise=ENTERPRISE,
        listen=[(address, 1812)],
        accounting=[(address, 1813)],
    )
    return command, directory / DETAIL


def fetch(world: World, port: int) -> None:
    """MEGABYTE for the subscriber."""
    flow = opened(world, ROUTER1, connect_message(port))
    while flow.recv(1 << 16):
        pass
    flow.close()


def test_a_subscriber_from_start_to_stop_with_the_server_away_in_between(world: World, tmp_path: Path) -> None:
    command, detail = server(tmp_path / "raddb", "127.0.0.1")
    concentrator = Concentrator(world, tmp_path, CONFIG + ACCOUNTING)
    concentrator.wait()
    port = world.serve(lambda connection: connection.sendall(bytes(MEGABYTE)), SERVER, 0, world.router)
    with serving(world.far, tmp_path / "raddb", command):
        fetch(world, port)
        on, start = wait(detail, 2)
        assert (on["Acct-Status-Type"], on["NAS-Identifier"]) == ("Accounting-On", "mcp-concentrator")
        assert (start["Acct-Status-Type"], start["User-Name"]) == ("Start", "line-0815")
        assert start["Framed-IP-Address"] == ROUTER1
        assert bytes.fromhex(start["Class"].removeprefix("0x")) == b"gold"
    # The server is away; the service ends meanwhile and is given time to tell it.
    concentrator.process.terminate()
    time.sleep(1.5)
    assert concentrator.process.poll() is None, "it waits for the server a little"
    with serving(world.far, tmp_path / "raddb", command):
        assert concentrator.process.wait(6) == 0
        stop, off = wait(detail, 4)[2:]
    assert (stop["Acct-Status-Type"], stop["Acct-Session-Id"]) == ("Stop", start["Acct-Session-Id"])
    assert stop["Acct-Terminate-Cause"] == "Admin-Reboot"
    assert int(stop["Acct-Output-Octets"]) == MEGABYTE
    assert int(stop["Acct-Delay-Time"]) >= 1
    assert stop["Class"] == start["Class"]
    assert int(stop["Acct-Link-Count"]) >= 1
    assert off["Acct-Status-Type"] == "Accounting-Off"
    assert "Traceback" not in concentrator.log.read_text()


def test_another_server_takes_what_one_that_died_does_not(world: World, tmp_path: Path) -> None:
    (first, first_detail), (second, second_detail) = (
        server(tmp_path / name, address) for name, address in (("one", "127.0.0.1"), ("two", "127.0.0.2"))
    )
    two_servers = ACCOUNTING.replace("list server '127.0.0.1'", "list server '127.0.0.1'\n    list server '127.0.0.2'")
    concentrator = Concentrator(world, tmp_path, CONFIG + two_servers)
    concentrator.wait()
    port = world.serve(lambda connection: connection.sendall(bytes(MEGABYTE)), SERVER, 0, world.router)
    # The first one is there first, else the other one may get the first record and then all.
    with serving(world.far, tmp_path / "one", first) as dying, serving(world.far, tmp_path / "two", second):
        fetch(world, port)
        _, start = wait(first_detail, 2)
        dying.terminate()
        dying.wait(10)
        concentrator.process.terminate()
        assert concentrator.process.wait(6) == 0
        stop, off = wait(second_detail, 2)
    assert (stop["Acct-Status-Type"], off["Acct-Status-Type"]) == ("Stop", "Accounting-Off")
    assert stop["Acct-Session-Id"] == start["Acct-Session-Id"]
    assert int(stop["Acct-Output-Octets"]) == MEGABYTE
    assert len(records(first_detail)) == 2, "each has what it has taken, and none has it twice"
