"""Ident (RFC 1413) between the real daemons of a lab, across the router's firewall."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from cpe_mcp.lab.configs import NFT_TABLE
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import ADDRESSES
from cpe_mcp.lab.scenarios.daemons import POLL_S, await_status

pytestmark = [pytest.mark.netns, pytest.mark.requirement("5.3-c")]

RECORD_S = 5.0
"""A refused router may take 2 s to close, and then its record is sent."""
IDENT = "tcp dport 113 accept"
"""Of the user's firewall, wider than it should be: what is left is our own defence."""
LOSES_THE_FIRST = """table inet lossy {
	chain c {
		type filter hook prerouting priority raw;
		tcp dport 113 meta nfproto ipv4 numgen inc mod 1000 == 0 counter drop
		tcp dport 113 meta nfproto ipv6 numgen inc mod 1000 == 0 counter drop
	}
}"""
"""Question's first packet of each family: a SYN."""
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 113), 3) as sock:
        sock.sendall(b"1, 2\\r\\n")
        print(sock.recv(1000).decode().strip() or "nothing")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("ident") as lab:
        lab.run("cpe", ["nft", "insert", "rule", "inet", NFT_TABLE, "input", *IDENT.split()])
        lab.start_concentrator(ident={"mode": "require"})
        lab.start_cpe(ident={"enabled": True})
        yield lab


def asked(lab: Lab, host: str, address: str) -> str:
    """What the host gets at the Ident port."""
    return lab.run(host, [sys.executable, "-c", ASK, address], timeout=10).stdout.strip()


def test_a_concentrator_that_requires_ident_serves_a_router_that_answers(lab: Lab) -> None:
    await_status(lab, "warm connections are ready", lambda now: now["pool"]["ready"] > 0)
    ident = lab.ask_concentrator(1, "status")["ident"]
    users = [row["user"] for row in ident["addresses"]]
    assert users in ([lab.radius.subscriber], 2 * [lab.radius.subscriber]), "of the best line, in one family or both"
    assert ident["counters"] == {"told": len(users)}, "one question for an address, whatever number of connections"
    status = lab.ask("status")["ident"]
    assert ADDRESSES.cpe_dsl.v4 in status["addresses"]
    assert status["counters"] == {"answered": len(users)}
    shown = lab.run("cpe", [sys.executable, "-m", "cpe_mcp.cli.main", "--run-dir", str(lab.cpe_run_dir), "status"])
    assert f": {len(users)} answered" in shown.stdout


def test_others_find_the_port_closed_and_the_concentrator_hears_of_its_own_connections_only(lab: Lab) -> None:
    await_status(  # DHCP tells each family's by itself
        lab,
        "both addresses of the concentrator are known",
        lambda now: {*ADDRESSES.concentrator1} <= {a for row in now["concentrators"] for a in row["addresses"]},
    )
    deadline = time.monotonic() + RECORD_S  # and the table follows a moment later
    while (answer := asked(lab, "concentrator1", ADDRESSES.cpe_dsl.v4)) == "ConnectionRefusedError":
        assert time.monotonic() < deadline
    assert answer == "1, 2 : ERROR : NO-USER"
    for address in (ADDRESSES.cpe_dsl.v4, ADDRESSES.cpe_dsl.v6):
        assert asked(lab, "server", address) == "ConnectionRefusedError"
    counters = lab.ask("status")["ident"]["counters"]
    assert set(counters) == {"answered"}, "no stranger came as far as the daemon"


def test_a_router_that_says_nothing_or_another_name_is_not_served(lab: Lab) -> None:
    lab.stop_cpe()
    lab.stop_concentrator()
    lab.start_concentrator(ident={"mode": "require"})
    lab.start_cpe(ident={"enabled": True, "user": "mallory"})
    await_status(
        lab,
        "the concentrator refuses",
        lambda now: bool(now["concentrators"]) and now["concentrators"][0]["reason"] == "concentrator-refused",
    )
    assert "mallory" in {row["user"] for row in lab.ask_concentrator(1, "status")["ident"]["addresses"]}
    deadline = time.monotonic() + RECORD_S
    while not (refusals := lab.ask_concentrator(1, "status")["refusals"]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    assert [row["reason"] for row in refusals] == ["ident-failed"]
    assert lab.ask("status")["pool"]["ready"] == 0


def test_a_router_is_served_although_the_first_packet_of_the_question_was_lost(lab: Lab) -> None:
    """The kernel sends it again after a second, and the one question is answered in time."""
    lab.stop_cpe()
    lab.stop_concentrator()
    lab.start_concentrator(ident={"mode": "require"})
    lab.run("cpe", ["nft", "-f", "-"], input=LOSES_THE_FIRST)
    lab.start_cpe(ident={"enabled": True})
    await_status(lab, "warm connections are ready", lambda now: now["pool"]["ready"] > 0)
    rules = lab.run("cpe", ["nft", "list", "table", "inet", "lossy"]).stdout
    assert "counter packets 1 bytes" in rules, rules
    deadline = time.monotonic() + RECORD_S
    while not (counters := lab.ask_concentrator(1, "status")["ident"]["counters"]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    assert set(counters) == {"told"}
    status = await_status(lab, "they stay", lambda now: now["pool"]["ready"] > 0)
    assert status["concentrators"][0]["usable"], "it was not sent away"
