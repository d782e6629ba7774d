"""Attacks on a concentrator while a subscriber uses it: a short version of scenario ``attacks``, with small limits."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from cpe_mcp.lab import attacks
from cpe_mcp.lab.measure import rate_mbit
from cpe_mcp.lab.namespaces import write_sysctls
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.scenarios.daemons import await_taken
from cpe_mcp.lab.scenarios.dos import COUNTED_S, NEW_MAX_MS, Attack, attack_row, prepare_host, reached
from cpe_mcp.lab.scenarios.load import try_once
from cpe_mcp.lab.scenarios.transfer import Content, Download, connect
from cpe_mcp.settings.router import DEFAULT_SERVICE_PORT

pytestmark = [pytest.mark.netns, pytest.mark.requirement("7.2-a")]

HALF_OPEN_MAX, SOURCE_RATE, PREFIX_RATE, STRANGER_RATE, ERROR_RATE, FLOW_RATE = 60, 200, 300, 500, 50, 10
LIMITS = {
    "source_rate": SOURCE_RATE,
    "prefix_rate": PREFIX_RATE,
    "stranger_rate": STRANGER_RATE,
    "error_rate": ERROR_RATE,
    "subscriber_rate": FLOW_RATE,
}
ATTACK_S = 1.0
SHARE_MIN = 0.5
"""Of the download's rate: on a busy machine the attackers take its cores; scenario attacks has the real limit."""
GROWTH_MAX_KIB = 12 * 1024
TCP_IS_MPTCP = 43
KNOCKS, KNOCK_AFTER_S = 10, 0.8
"""While the flood lasts, once its own burst is over."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("dos") as lab:
        lab.start_concentrator(general={"half_open_max": HALF_OPEN_MAX}, limits=LIMITS)
        lab.start_cpe()
        await_taken(lab)
        prepare_host(lab)
        yield lab


@pytest.fixture(scope="module")
def download(lab: Lab) -> Iterator[tuple[Download, float]]:
    """One that lasts, and its rate without an attack in Mbit/s."""
    download = Download(lab, Content(lab, 400_000_000).size)
    time.sleep(0.8)
    begins = time.monotonic()
    time.sleep(0.5)
    yield download, rate_mbit(download.arrivals, begins, time.monotonic())
    download.stop()


def open_one(sock: socket.socket) -> None:
    """The handshake is all that is wanted."""


def attacked(
    lab: Lab, download: tuple[Download, float], attack: Attack, *, knock: Callable[[socket.socket], None] | None = None
) -> dict[str, Any]:
    """What became of it; the subscriber noticed nothing. ``knock``: what its router does meanwhile with connections of its
    own."""
    knocks: list[float] = []

    def knock_often() -> None:
        time.sleep(KNOCK_AFTER_S)
        for _ in range(KNOCKS):
            started = time.monotonic()
            with reach(lab, lab.addresses.concentrator1.v4) as sock:
                knocks.append(time.monotonic() - started)
                if knock is not None:
                    knock(sock)

    thread = threading.Thread(target=knock_often)
    if knock:
        thread.start()
    row = attack_row(lab, download[0], attack, ATTACK_S)
    if knock:
        thread.join()
        assert len(knocks) == KNOCKS
        assert 1000 * max(knocks) < NEW_MAX_MS, "a handshake of the subscriber's was dropped"
    assert row["new_connections"] >= 4
    assert row["new_connections_failed"] == []
    assert row["new_worst_ms"] < NEW_MAX_MS
    assert row["mbit"] >= SHARE_MIN * download[1]
    assert download[0].is_running
    assert row["memory_kib"][1] - row["memory_kib"][0] < GROWTH_MAX_KIB
    return row


def nft(lab: Lab, *what: str) -> str:
    return lab.run("concentrator1", ["nft", "list", what[0], "inet", "mcp_concentrator", *what[1:]]).stdout


def test_a_flood_of_handshakes_ends_before_tcp_and_subscribers_have_no_part_in_its_limit(
    lab: Lab, download: tuple[Download, float]
) -> None:
    row = attacked(lab, download, Attack("syn", 5_000, "strangers", "sent"), knock=open_one)
    sent = row["did"]["sent"]
    assert sent > 4_000
    passed = sent - row["limits"]["strangers"]
    assert STRANGER_RATE <= passed <= STRANGER_RATE * (2 + row["took_s"])
    known = nft(lab, "set", "known4")
    for address in (lab.addresses.cpe_dsl.v4, lab.addresses.cpe_lte.v4):
        assert f"{address} expires" in known, "each line of the subscriber is known"
    assert "198.1" not in known


@pytest.mark.parametrize(("counter", "rate"), [("source", SOURCE_RATE), ("prefix", PREFIX_RATE)])
def test_one_address_and_one_prefix_have_limits_of_their_own(
    lab: Lab, download: tuple[Download, float], counter: str, rate: int
) -> None:
    time.sleep(2)  # for the burst of the attack before to be whole again
    row = attacked(lab, download, Attack(f"syn-{counter}", 3_000, counter, "sent"), knock=open_one)
    sent = row["did"]["sent"]
    assert sent > 2_400
    assert set(row["limits"]) == {counter}, "what is beyond it takes nothing from other strangers"
    passed = sent - row["limits"][counter]
    assert rate <= passed <= rate * (2 + row["took_s"])


def test_idle_handshakes_hold_no_place(lab: Lab, download: tuple[Download, float]) -> None:
    row = attacked(lab, download, Attack("idle", 300, "half_open", "opened"))
    assert row["did"]["opened"] > 300, "they were replaced"
    assert row["limits"]["half_open"] >= row["did"]["ended_by_the_other_side"] > 300
    counters = lab.ask_concentrator(1, "status")["counters"]
    assert counters["half_open"] <= HALF_OPEN_MAX


def test_nonsense_gets_few_answers(lab: Lab, download: tuple[Download, float]) -> None:
    before = errors_sent(lab)
    told = []

    def show_a_wrong_cookie(sock: socket.socket) -> None:
        """As a router does that has lost its clock: it must be told, or it can do nothing about it."""
        sock.sendall(bytes.fromhex("01062263 16050000") + bytes(16))
        told.append(sock.recv(100)[2:5])  # a Convert message, whose first TLV is an Error

    row = attacked(lab, download, Attack("garbage", 1_000, "errors", "opened"), knock=show_a_wrong_cookie)
    assert told == KNOCKS * [bytes.fromhex("2263 1e")], "where a subscriber is served errors have a share of their own"
    answered = errors_sent(lab) - before - KNOCKS
    assert 0 < answered <= ERROR_RATE * (2 + row["took_s"])
    # Every other message is noise, and wrong at once; of the rest many are reset before it is known that nobody sent them.
    assert answered + row["limits"]["errors"] >= 0.4 * row["did"]["sent"] > 200


def errors_sent(lab: Lab) -> int:
    counters = lab.ask_concentrator(1, "status")["counters"]
    return sum(count for name, count in counters.items() if name.startswith("error:"))


@pytest.mark.requirement("7.4-a")
def test_fragments_and_forged_sources_are_dropped(lab: Lab) -> None:
    before = reached(lab)
    to, port = lab.addresses.concentrator1.v4, DEFAULT_SERVICE_PORT
    packet = next(attacks.syn_packets(to, port, 1))
    segment = packet[20:]
    forged = packet[:12] + socket.inet_aton(to) + packet[16:]
    first = packet[:6] + struct.pack("!H", 0x2000) + packet[8:20] + segment[:24]
    second = packet[:6] + struct.pack("!H", 3) + packet[8:20] + segment[24:]
    with lab.enter("server"), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for one in (forged, first, second):
            sock.sendto(one, (to, 0))
    time.sleep(0.1)
    now = reached(lab)
    assert now["fragments"] - before["fragments"] == 2
    assert now["forged"] - before["forged"] == 1
    assert netstat(lab, "IpReasmReqds", table="snmp") == 0, "nothing was kept for reassembly"


NEXT_FRAGMENT, NEXT_TCP = 44, 6
"""Next Header values (RFC 8200)."""
SYN_HEAD = struct.pack("!HHIIBBHHH", 1024, DEFAULT_SERVICE_PORT, 0, 0, 5 << 4, 2, 65535, 0, 0)
"""Without a checksum: what gets through ends in TCP."""


def packets6(lab: Lab, sources: Iterable[str], payload: bytes = SYN_HEAD, next_header: int = NEXT_TCP) -> None:
    """Send one to the concentrator from each source, forged as it may be."""
    to = lab.addresses.concentrator1.v6
    head = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64)
    with lab.enter("server"), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for source in sources:
            packet = head + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to) + payload
            sock.sendto(packet, (to, 0))


@pytest.mark.requirement("7.4-a")
def test_fragments_and_forged_sources_of_ipv6_are_dropped(lab: Lab) -> None:
    before = reached(lab)
    first, second = (struct.pack("!BBHI", NEXT_TCP, 0, offset, 7) for offset in (1, 16 << 3))
    server = lab.addresses.server.v6
    packets6(lab, [server], first + SYN_HEAD + bytes(108), NEXT_FRAGMENT)
    packets6(lab, [server], second + bytes(20), NEXT_FRAGMENT)
    packets6(lab, [lab.addresses.concentrator1.v6])
    time.sleep(0.1)
    now = reached(lab)
    assert now["fragments"] - before["fragments"] == 2
    assert now["forged"] - before["forged"] == 1


def test_one_network_and_one_prefix_of_ipv6_have_limits_of_their_own(lab: Lab) -> None:
    """The addresses of one /64 are one source; a /56 is a prefix."""
    time.sleep(2)  # for the strangers' burst to be whole again
    before = reached(lab)
    started = time.monotonic()
    packets6(lab, (f"2001:db8:99::{number:x}" for number in range(1, 501)))
    packets6(lab, (f"2001:db8:99:{number % 4 + 1:x}::1" for number in range(400)))
    took_s = time.monotonic() - started
    time.sleep(0.1)
    limits = {name: count - before[name] for name, count in reached(lab).items() if count > before[name]}
    assert limits.keys() == {"source", "prefix"}
    assert 100 - SOURCE_RATE * took_s - 1 <= limits["source"] <= 100
    assert 200 - PREFIX_RATE * took_s - 1 <= limits["prefix"] <= 200


def netstat(lab: Lab, name: str, *, table: str = "netstat", host: str = "concentrator1") -> int:
    """A counter of a concentrator's kernel, as ``nstat`` calls it."""
    lines = lab.run(host, ["cat", f"/proc/net/{table}"]).stdout.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        prefix = names.split(":")[0]
        found = dict(zip(names.split()[1:], values.split()[1:], strict=True))
        if name.startswith(prefix) and name.removeprefix(prefix) in found:
            return int(found[name.removeprefix(prefix)])
    raise KeyError(name)


def test_multipath_tcp_and_its_joins_work_when_every_handshake_has_a_cookie(lab: Lab) -> None:
    for name, value in (("tcp_syncookies", "1"), ("tcp_synack_retries", "3"), ("tcp_max_syn_backlog", "4096")):
        found = lab.run("concentrator1", ["cat", f"/proc/sys/net/ipv4/{name}"]).stdout
        assert found.strip() == value, name
    cookies, joins = netstat(lab, "TcpExtSyncookiesRecv"), netstat(lab, "MPTcpExtMPJoinAckRx")
    write_sysctls(lab.namespace("concentrator1"), {"ipv4.tcp_syncookies": "2"})
    try:
        with reach(lab, lab.addresses.concentrator1.v4) as sock:
            sock.sendall(b"\x01")
            assert sock.getsockopt(socket.IPPROTO_TCP, TCP_IS_MPTCP) == 1
            end = time.monotonic() + 3
            while netstat(lab, "MPTcpExtMPJoinAckRx") == joins and time.monotonic() < end:
                time.sleep(0.05)
            assert netstat(lab, "MPTcpExtMPJoinAckRx") > joins
            assert netstat(lab, "TcpExtSyncookiesRecv") - cookies >= 2
        assert try_once(lab, timeout_s=3).error == ""
    finally:
        write_sysctls(lab.namespace("concentrator1"), {"ipv4.tcp_syncookies": "1"})


def test_a_connection_gets_no_more_subflows_than_it_may_have(lab: Lab) -> None:
    """The second concentrator allows none; the router tries all the same."""
    lab.start_concentrator(2, general={"max_subflows": 0})
    with reach(lab, lab.addresses.concentrator2.v4) as sock:
        sock.sendall(b"\x01")
        end = time.monotonic() + 3
        while not netstat(lab, "MPTcpExtMPJoinSynRx", host="concentrator2") and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)  # the line's round trip and a bit: the rest of the join's handshake
        assert netstat(lab, "MPTcpExtMPJoinSynRx", host="concentrator2") > 0, "the router did not even try"
        assert netstat(lab, "MPTcpExtMPJoinAckRx", host="concentrator2") == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, TCP_IS_MPTCP) == 1


def reach(lab: Lab, address: str) -> socket.socket:
    """Multipath TCP from the router, once a worker listens."""
    end = time.monotonic() + 5
    while True:
        try:
            return connect(lab, "cpe", address, DEFAULT_SERVICE_PORT, is_mptcp=True)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.requirement("X-13")
def test_a_subscriber_that_opens_flows_too_fast_is_told_to_wait(lab: Lab) -> None:
    server = socket.inet_aton(lab.addresses.server.v4)
    message = bytes.fromhex("01062263 0a050050") + bytes(10) + b"\xff\xff" + server
    before = reached(lab)["subscriber_rate"]
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(reach(lab, lab.addresses.concentrator1.v4)) for _ in range(4 * FLOW_RATE)]
        for sock in socks:
            sock.sendall(message)
        answers = [sock.recv(100)[:8] for sock in socks]
    time.sleep(COUNTED_S)
    waits = answers.count(bytes.fromhex("01022263 1e014005"))
    assert waits >= 5
    assert answers.count(bytes.fromhex("01012263")) == len(answers) - waits >= 2 * FLOW_RATE
    assert reached(lab)["subscriber_rate"] - before == waits


def test_addresses_in_its_sets_are_no_change_of_the_table(lab: Lab) -> None:
    """Else each flood would have it loaded anew, and all who are known forgotten."""
    table = "inet mcp_concentrator"
    assert "elements" in nft(lab, "set", "known4")
    lab.run("concentrator1", ["nft", f"add chain {table} other; delete chain {table} other"])
    time.sleep(0.3)  # it is told that something happened, and looks
    assert lab.ask_concentrator(1, "status")["table"] == {"wanted": True, "in_place": True, "disturbed": 0}
    assert "elements" in nft(lab, "set", "known4")


def test_the_table_goes_with_the_daemon(lab: Lab) -> None:
    assert "chain border" in nft(lab, "table")
    lab.stop_concentrator(1)
    listed = lab.run("concentrator1", ["nft", "list", "tables"]).stdout
    assert "mcp_concentrator" not in listed
