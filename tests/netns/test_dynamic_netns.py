"""CoA and Disconnect by FreeRADIUS' radclient, to a running concentrator, during downloads."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import radclient
from relay_world import CONCENTRATOR, World, inside, run
from test_caps_netns import CONFIG, FREE_MBIT, RADIUS, SERVER, connect_message, mbit, pour, read_for
from test_concentrator_netns import ROUTER1, Concentrator
from test_radius_netns import ENTERPRISE, SECRET, serving

from cpe_mcp.kernel.numbers import IPPROTO_MPTCP
from cpe_mcp.lab.freeradius import PROGRAM, RadiusUser, write_config

pytestmark = [
    pytest.mark.netns,
    pytest.mark.requirement("5.3-b"),
    pytest.mark.skipif(
        shutil.which(PROGRAM) is None or shutil.which(radclient.PROGRAM) is None,
        reason="needs the programs freeradius, radclient",
    ),
]

NEIGHBOUR = "10.1.0.77"
SERVICE = 5999
GONE, STRANGER = "127.0.0.9", "127.0.0.3"
"""The first RADIUS server, which is not there, and an address that has no secret."""
PLAIN_SECRET = SECRET.replace("'", "")
DYNAMIC = """
config dynamic 'dynamic'
    option enabled '1'
"""


class Operator:
    """The RADIUS server's side, beside the concentrator."""

    def __init__(self, namespace: str, directory: Path) -> None:
        self._namespace, self._directory = namespace, directory

    def send(self, kind: str, *attributes: str, secret: str = PLAIN_SECRET, tries: int = 3) -> str:
        """See :func:`radclient.send`."""
        meant = 'NAS-Identifier = "mcp-concentrator"'
        return radclient.send(
            self._namespace, self._directory, "127.0.0.1:3799", kind, meant, *attributes, secret=secret, tries=tries
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "dyn", bare=True)
    try:
        run("ip", "-n", world.router, "address", "add", f"{NEIGHBOUR}/24", "dev", "w1")
        yield world
    finally:
        world.close()


def opened(world: World, address: str, message: bytes, service: int = SERVICE) -> socket.socket:
    """Multipath TCP to the concentrator, as the router of this subscriber."""
    with inside(world.router):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        sock.bind((address, 0))
    sock.settimeout(8)
    sock.connect((CONCENTRATOR, service))
    sock.sendall(message)
    return sock


def is_reset(sock: socket.socket) -> bool:
    """Within 2 s, whatever is read before."""
    deadline = time.monotonic() + 2
    sock.settimeout(2)
    try:
        while time.monotonic() < deadline and sock.recv(1 << 18):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        pass
    return False


@pytest.mark.requirement("5.3-d")
@pytest.mark.requirement("X-13")
def test_coa_and_disconnect_during_downloads(world: World, tmp_path: Path) -> None:
    two_servers = RADIUS.replace("list server '127.0.0.1'", f"list server '{GONE}'\n    list server '127.0.0.1'")
    concentrator = Concentrator(world, tmp_path, CONFIG + two_servers + DYNAMIC)
    concentrator.wait()
    command = write_config(
        str(tmp_path / "raddb"),
        secret=PLAIN_SECRET,
        clients=["127.0.0.1"],
        address_users=[RadiusUser(ROUTER1, "ask", user="line-0815"), RadiusUser(NEIGHBOUR, "ask", user="line-0816")],
        enterprise=ENTERPRISE,
        listen=[("127.0.0.1", 1812)],
    )
    operator = Operator(world.far, tmp_path / "raddb")
    message = connect_message(world.serve(pour, SERVER, 0, world.router))
    with serving(world.far, tmp_path / "raddb", command):
        alice, bob = (opened(world, address, message) for address in (ROUTER1, NEIGHBOUR))
        warm = opened(world, ROUTER1, message[:4])
        assert min(mbit([count], 1) for count in read_for([alice, bob], 1)) > FREE_MBIT / 2

        # Who cannot prove the secret changes nothing, and gets no answer.
        assert operator.send("coa", 'User-Name = "line-0815"', "CPE-MCP-Down-Mbit = 1", secret="guessed", tries=1) == ""
        assert operator.send("disconnect", 'User-Name = "line-0815"', secret="guessed", tries=1) == ""
        as_stranger = f"Packet-Src-IP-Address = {STRANGER}"
        assert operator.send("disconnect", 'User-Name = "line-0815"', as_stranger, tries=1) == ""
        # All or nothing: there is no such filter, so there is no cap either.
        refused = operator.send("coa", 'User-Name = "line-0815"', "CPE-MCP-Down-Mbit = 1", 'Filter-Id = "gold"')
        assert "CoA-NAK" in refused
        assert "Error-Cause = Invalid-Attribute-Value" in refused
        assert "Error-Cause = Session-Context-Not-Found" in operator.send("disconnect", 'User-Name = "line-0817"')
        assert "Error-Cause = Unsupported-Attribute" in operator.send(
            "coa", 'User-Name = "line-0815"', "CPE-MCP-Down-Mbit = 1", "Framed-MTU = 1400"
        )
        alices, bobs = read_for([alice, bob], 1)
        assert min(mbit([alices], 1), mbit([bobs], 1)) > FREE_MBIT / 2

        changed = operator.send(
            "coa",
            'User-Name = "line-0815"',
            "CPE-MCP-Down-Mbit = 16",
            "CPE-MCP-Connections = 2",
            "Proxy-State = 0x6162",
        )
        assert "CoA-ACK" in changed
        assert "Proxy-State = 0x6162" in changed
        read_for([alice, bob], 1.5)
        alices, bobs = read_for([alice, bob], 2)
        assert 0.9 * 16 <= mbit([alices], 2) <= 1.05 * 16
        assert mbit([bobs], 2) > FREE_MBIT

        second = opened(world, ROUTER1, message)
        assert second.recv(4) == bytes.fromhex("01012263")
        time.sleep(0.5)  # for the two workers to know of each other's
        third = opened(world, ROUTER1, message)
        assert third.recv(7) == bytes.fromhex("01022263 1e0140"), "Error 64: as many as it may have"

        ended = operator.send("disconnect", f"Framed-IP-Address = {ROUTER1}")
        assert "Disconnect-ACK" in ended
        assert "Acct-Terminate-Cause = Admin-Reset" in ended
        for sock in (alice, second, warm):
            assert is_reset(sock)
        (bobs,) = read_for([bob], 1)
        assert mbit([bobs], 1) > FREE_MBIT, "nobody else's"

        before = concentrator.ask()["radius"]["counters"]["requests"]
        with opened(world, ROUTER1, message) as again:
            assert again.recv(4) == bytes.fromhex("01012263"), "the server still says yes"
        status = concentrator.ask()
        assert status["radius"]["counters"]["requests"] == before + 1
    counted = {"coa-ack": 1, "coa-nak": 2, "disconnect-ack": 1, "disconnect-nak": 1, "forged": 2}
    gone, server = status["dynamic"]["peers"]
    assert (gone["address"], gone["counters"]) == (GONE, {})
    assert (server["address"], server["counters"]) == ("127.0.0.1", counted)
    assert status["dynamic"]["counters"] == counted | {"unknown-peer": 1}
    deadline = time.monotonic() + 3
    while not [row for row in concentrator.ask()["refusals"] if row["reason"] == "connections-full"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_filters_set_and_what_it_does_follow_accept_coa_and_disconnect(world: World, tmp_path: Path) -> None:
    """What is dropped and marked is plain traffic of the subscriber's, not for the concentrator."""
    plain = world.serve(lambda connection: connection.sendall(b"hello"), CONCENTRATOR)
    filters = (
        f"\nconfig filter 'closed'\n    list rule 'tcp dport {plain} counter drop'\n"
        "\nconfig filter 'gold'\n    option mark '16'\n"
    )
    concentrator = Concentrator(world, tmp_path, CONFIG + RADIUS + DYNAMIC + filters)
    concentrator.wait()
    run("ip", "netns", "exec", world.far, "nft", "-f", "-", stdin=OWN_RULES)
    users = [
        RadiusUser(ROUTER1, "ask", user="line-0815", reply=('Filter-Id = "closed"',)),
        RadiusUser(NEIGHBOUR, "ask", user="line-0816"),
    ]
    command = write_config(
        str(tmp_path / "raddb"),
        secret=PLAIN_SECRET,
        clients=["127.0.0.1"],
        address_users=users,
        enterprise=ENTERPRISE,
        listen=[("127.0.0.1", 1812)],
    )
    operator = Operator(world.far, tmp_path / "raddb")
    message = connect_message(world.serve(pour, SERVER, 0, world.router))
    assert is_answered(world, ROUTER1, plain)
    with serving(world.far, tmp_path / "raddb", command):
        alice, bob = (opened(world, address, message) for address in (ROUTER1, NEIGHBOUR))
        for sock in (alice, bob):
            assert sock.recv(4) == bytes.fromhex("01012263")
        assert members(world, "filter4_closed") == {ROUTER1}
        assert not is_answered(world, ROUTER1, plain)
        assert is_answered(world, NEIGHBOUR, plain), "nobody else's"

        changed = operator.send("coa", 'User-Name = "line-0815"', 'Filter-Id = "gold"')
        assert "CoA-ACK" in changed
        assert (members(world, "filter4_closed"), members(world, "filter4_gold")) == (set(), {ROUTER1})
        assert [(row["name"], row["addresses"]) for row in concentrator.ask()["filters"]] == [
            ("closed", 0),
            ("gold", 1),
        ]
        before = seen(world)
        assert is_answered(world, ROUTER1, plain)
        assert is_answered(world, NEIGHBOUR, plain)
        assert seen(world) == before + 1, "the operator's rule knows whose packet it is"

        assert "CoA-NAK" in operator.send("coa", 'User-Name = "line-0815"', 'Filter-Id = "lead"')
        assert members(world, "filter4_gold") == {ROUTER1}
        run("ip", "netns", "exec", world.far, "nft", "delete", "table", "inet", "mcp_concentrator")
        deadline = time.monotonic() + 2
        while "mcp_concentrator" not in listed(world, "tables"):
            assert time.monotonic() < deadline, "somebody took the table away, and it is not put back"
            time.sleep(0.02)
        assert members(world, "filter4_gold") == {ROUTER1}
        assert "Disconnect-ACK" in operator.send("disconnect", 'User-Name = "line-0815"')
        assert members(world, "filter4_gold") == set()
        alice.close()
        bob.close()
    concentrator.process.terminate()
    concentrator.process.wait(10)
    tables = listed(world, "tables")
    assert "mcp_concentrator" not in tables
    assert "operators_own" in tables


OWN_RULES = """
table inet operators_own {
  counter seen { }
  chain input {
    type filter hook input priority filter; policy accept;
    tcp flags & (fin | syn | rst | ack) == syn meta mark & 0x10 != 0 counter name seen
  }
}
"""


def listed(world: World, *what: str) -> str:
    argv = ["ip", "netns", "exec", world.far, "nft", "list", *what]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def members(world: World, name: str) -> set[str]:
    return set(re.findall(r"10\.[0-9.]+", listed(world, "set", "inet", "mcp_concentrator", name)))


def seen(world: World) -> int:
    found = re.search(r"packets (\d+)", listed(world, "counter", "inet", "operators_own", "seen"))
    assert found
    return int(found[1])


def is_answered(world: World, address: str, port: int) -> bool:
    """A plain connection from there, past the concentrator. A SYN is sent again after a second."""
    with (
        contextlib.suppress(TimeoutError),
        inside(world.router),
        socket.create_connection((CONCENTRATOR, port), timeout=0.5, source_address=(address, 0)) as sock,
    ):
        return sock.recv(10) == b"hello"
    return False
