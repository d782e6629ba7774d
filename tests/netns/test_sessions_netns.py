"""Subscribers' sessions at one running concentrator: how FreeRADIUS' Accepts and cookies begin them, and what datagrams of an
operator's make of them, those that radclient sends and those that it never would."""

from __future__ import annotations

import hashlib
import io
import itertools
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import radclient
from pyrad.dictionary import Dictionary
from pyrad.packet import CoAPacket
from relay_world import CONCENTRATOR, SERVICE_PORT, World, inside, run
from test_caps_netns import CONFIG, RADIUS, SERVER, SETTLE_S, connect_message, mbit, pour, read_for
from test_concentrator_netns import SUCCESS, Concentrator
from test_dynamic_netns import DYNAMIC, PLAIN_SECRET, SERVICE, Operator, is_reset, opened
from test_radius_netns import ENTERPRISE, serving

from cpe_mcp.aaa.attributes import CONNECTIONS, DOWN_MBIT, UP_MBIT, push_concentrator
from cpe_mcp.aaa.cookie import Credential, make_cookie, make_handle
from cpe_mcp.aaa.dictionary import dictionary_text
from cpe_mcp.aaa.dynamic import (
    COA_ACK,
    COA_REQUEST,
    DISCONNECT_ACK,
    DISCONNECT_REQUEST,
    EVENT_TIMESTAMP,
    FRAMED_IP_ADDRESS,
    NAS_IDENTIFIER,
    SESSION_TIMEOUT,
    USER_NAME,
)
from cpe_mcp.lab.freeradius import PROGRAM, RadiusUser, write_config

pytestmark = [
    pytest.mark.netns,
    pytest.mark.requirement("5.3-d"),
    pytest.mark.skipif(
        shutil.which(PROGRAM) is None or shutil.which(radclient.PROGRAM) is None,
        reason="needs the programs freeradius, radclient",
    ),
]

STRICT = 5998
"""Port of the listener that needs both, cookie and address."""
NEGATIVE_S = 2
HANDLE_SECRET = "known to all concentrators of one operator"
SETTINGS = (
    CONFIG.replace("config global 'global'\n", f"config global 'global'\n    option cookie_secret '{HANDLE_SECRET}'\n")
    + f"""
config listener 'strict'
    option port '{STRICT}'
    option facing 'customer'
    option authorization 'both'

config limits 'limits'
    option error_prefix_rate '1000'
"""
    + RADIUS
    + f"    option negative_s '{NEGATIVE_S}'\n"
    + DYNAMIC
)
NOT_AUTHORIZED = bytes.fromhex("01022263 1e012000")
CONNECTIONS_FULL = bytes.fromhex("01022263 1e0140")
COOKIE_WANTED = bytes.fromhex("01042263 1e030300")
REPLAYED, STALE, MOVED, TIMED, NAMED, UNNAMED, HOME1, HOME2, ROAD, CROWD, STRANGER1, STRANGER2 = (
    f"10.1.0.{number}" for number in range(71, 83)
)
"""Source addresses. The subscriber of one that RADIUS names is "of" and the address."""
CAP_MBIT = 16
USERS = (
    *(RadiusUser(address, "ask", user=f"of {address}") for address in (REPLAYED, STALE, MOVED, TIMED, NAMED, CROWD)),
    RadiusUser(UNNAMED, "ask"),
    *(
        RadiusUser(home, "ask", user=f"of {home}", down_mbit=CAP_MBIT, reply=("CPE-MCP-Connections = 2",))
        for home in (HOME1, HOME2)
    ),
)
AT_ONCE = 10
LATER_S = 5.0
"""For what comes soon. Workers report their records every second."""

_DICTIONARY = Dictionary(io.StringIO(dictionary_text(ENTERPRISE)))
_IDENTIFIERS = itertools.cycle(range(256))


def datagram(
    code: int, user: str, *more: tuple[Any, int], address: str = "", ahead_s: float | None = 0.0, is_signed: bool = True
) -> bytes:
    """A request for this subscriber, or this address. ``ahead_s``: of its Event-Timestamp, None for none."""
    packet = CoAPacket(code, next(_IDENTIFIERS), PLAIN_SECRET.encode(), dict=_DICTIONARY)
    if is_signed:
        packet.add_message_authenticator()
    packet[NAS_IDENTIFIER] = [b"mcp-concentrator"]
    if address:
        packet[FRAMED_IP_ADDRESS] = [socket.inet_aton(address)]
    else:
        packet[USER_NAME] = [user.encode()]
    for key, value in more:
        packet[key] = [value.to_bytes(4, "big")]
    if ahead_s is not None:
        packet[EVENT_TIMESTAMP] = [int(time.time() + ahead_s).to_bytes(4, "big")]
    data: bytes = packet.RequestPacket()
    return data


def with_wrong_signature(data: bytes) -> bytes:
    """The Message-Authenticator, its first attribute, is another, and the Request Authenticator that of the whole."""
    body = data[20:22] + bytes(16) + data[38:]
    return data[:4] + hashlib.md5(data[:4] + bytes(16) + body + PLAIN_SECRET.encode()).digest() + body


class Site:
    """One concentrator, its FreeRADIUS, its operator, and servers that echo and pour."""

    def __init__(self, world: World, directory: Path, radius: subprocess.Popen[bytes]) -> None:
        self.world = world
        self.radius, self._radius_said = radius, directory / "raddb" / "output"
        self.concentrator = Concentrator(world, directory, SETTINGS)
        self.concentrator.wait()
        self.operator = Operator(world.far, directory / "raddb")
        self.echo = world.serve(echo, SERVER, 0, world.router)
        self.pour = world.serve(pour, SERVER, 0, world.router)
        with inside(world.far):
            self._senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for sender in self._senders:
            sender.settimeout(LATER_S)
            sender.connect(("127.0.0.1", 3799))

    def close(self) -> None:
        for sender in self._senders:
            sender.close()

    # The router's side ------------------------------------------------------------------------------------------------

    def served(self, address: str, service: int = SERVICE, cookie: bytes = b"", *, port: int = 0) -> socket.socket:
        """A flow that is accepted."""
        sock = opened(self.world, address, connect_message(port or self.echo, cookie), service)
        answer = sock.recv(len(SUCCESS))
        assert answer == SUCCESS, answer + sock.recv(100)
        return sock

    def refusal(self, address: str, service: int = SERVICE, cookie: bytes = b"") -> bytes:
        """All that one gets who is not; of one who is, just that."""
        answer = bytearray()
        with opened(self.world, address, connect_message(self.echo, cookie), service) as sock:
            while answer != SUCCESS and (piece := sock.recv(100)):
                answer += piece
        return bytes(answer)

    def crowd(self, address: str, answer: bytes) -> None:
        """Many connections before RADIUS says anything, which then all get this."""
        self.radius.send_signal(signal.SIGSTOP)
        try:
            socks = [opened(self.world, address, connect_message(self.echo)) for _ in range(AT_ONCE)]
            time.sleep(0.2)  # all have been read
        finally:
            self.radius.send_signal(signal.SIGCONT)
        assert [sock.recv(len(answer)) for sock in socks] == [answer] * AT_ONCE
        for sock in socks:
            sock.close()

    # The operator's side ----------------------------------------------------------------------------------------------

    def send(self, data: bytes, sender: int = 0) -> None:
        """A datagram from one of two ports, whose answer is not waited for."""
        self._senders[sender].send(data)

    def answer(self, data: bytes, sender: int = 0) -> bytes:
        """To this datagram. It is the first that comes back: none that were sent before were answered."""
        self.send(data, sender)
        answer = self._senders[sender].recv(4096)
        assert answer[1] == data[1], "Identifier"
        return answer

    # What is known of it ----------------------------------------------------------------------------------------------

    def status(self) -> Any:
        return self.concentrator.ask()

    def datagrams(self) -> Counter[str]:
        """By what came of them."""
        return Counter(self.status()["dynamic"]["counters"])

    def refusals(self) -> Counter[str]:
        """Connections by why not."""
        return Counter({row["reason"]: row["count"] for row in self.status()["refusals"]})

    def flows(self) -> list[Any]:
        """When this is answered workers have done what they were told before."""
        rows: list[Any] = self.concentrator.ask("flows")
        return rows

    def asked_about(self, address: str) -> int:
        """How many questions about it FreeRADIUS has answered."""
        return self._radius_said.read_text().count(f"[{address}")

    def terms(self, subscriber: str) -> tuple[float, float]:
        """The caps down and up, Mbit/s."""
        (row,) = [row for row in self.status()["subscribers"] if row["name"] == subscriber]
        return row["down_mbit"], row["up_mbit"]

    def until(self, met: Callable[[], bool]) -> None:
        """Wait for what comes soon."""
        end = time.monotonic() + LATER_S
        while not met():
            assert time.monotonic() < end
            time.sleep(0.02)


def echo(connection: socket.socket) -> None:
    while piece := connection.recv(100):
        connection.sendall(piece)


def talks(sock: socket.socket) -> bool:
    sock.sendall(b"hello")
    return sock.recv(100) == b"hello"


def handle(subscriber: str, ends_s: float = 600) -> Credential:
    """As AAA gives it to his router."""
    return make_handle(subscriber, HANDLE_SECRET.encode(), time.time() + ends_s)


def cookie_of(credential: Credential) -> bytes:
    return make_cookie(credential, time.time())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("sessions")
    world = World(directory, "sess", bare=True)
    command = write_config(
        str(directory / "raddb"),
        secret=PLAIN_SECRET,
        clients=["127.0.0.1"],
        address_users=USERS,
        enterprise=ENTERPRISE,
        listen=[("127.0.0.1", 1812)],
    )
    try:
        addresses = [*(user.name for user in USERS), ROAD, STRANGER1, STRANGER2]
        batch = "".join(f"address add {address}/24 dev w1\n" for address in addresses)
        run("ip", "-n", world.router, "-batch", "-", stdin=batch)
        with serving(world.far, directory / "raddb", command) as radius:
            site = Site(world, directory, radius)
            yield site
            site.close()
    finally:
        world.close()


@pytest.mark.requirement("5.3-b")
@pytest.mark.requirement("7.3-a")
def test_a_request_that_comes_again_is_answered_again_and_done_once(site: Site) -> None:
    user = f"of {REPLAYED}"
    before = site.datagrams()
    flow = site.served(REPLAYED)
    disconnect = datagram(DISCONNECT_REQUEST, user)
    ended = site.answer(disconnect)
    assert ended[0] == DISCONNECT_ACK
    assert is_reset(flow)
    flow = site.served(REPLAYED)
    assert site.asked_about(REPLAYED) == 2, "he is asked about anew"
    assert [site.answer(disconnect, sender) for sender in (0, 1)] == [ended, ended], "whoever sends it, and from where"
    site.flows()
    assert talks(flow), "who has come back stays"

    coa, later = (datagram(COA_REQUEST, user, ((ENTERPRISE, DOWN_MBIT), cap)) for cap in (CAP_MBIT, 2 * CAP_MBIT))
    changed = site.answer(coa)
    assert (changed[0], site.answer(later)[0]) == (COA_ACK, COA_ACK)
    assert [site.answer(coa, sender) for sender in (0, 1)] == [changed, changed]
    assert site.terms(user) == (2 * CAP_MBIT, 0), "an older change does not come back"
    assert site.datagrams() - before == {"disconnect-ack": 1, "coa-ack": 2, "duplicate": 4}
    assert site.asked_about(REPLAYED) == 2
    flow.close()


@pytest.mark.requirement("5.3-b")
@pytest.mark.requirement("7.3-a")
def test_what_is_stale_undated_or_not_signed_gets_no_answer_and_does_nothing(site: Site) -> None:
    user = f"of {STALE}"
    flow = site.served(STALE)
    wrong = [
        datagram(DISCONNECT_REQUEST, user, ahead_s=-400),
        datagram(DISCONNECT_REQUEST, user, ahead_s=400),
        datagram(DISCONNECT_REQUEST, user, ahead_s=None),
        datagram(DISCONNECT_REQUEST, user, is_signed=False),
        with_wrong_signature(datagram(DISCONNECT_REQUEST, user)),
    ]
    before = site.datagrams()
    for data in wrong:
        site.send(data)
    right = datagram(COA_REQUEST, user, ((ENTERPRISE, UP_MBIT), CAP_MBIT))
    assert site.answer(right)[0] == COA_ACK
    assert site.datagrams() - before == {"stale": 2, "no-timestamp": 1, "unsigned": 1, "forged": 1, "coa-ack": 1}
    site.flows()
    assert talks(flow)
    flow.close()


@pytest.mark.requirement("5.3-b")
def test_who_is_sent_to_another_concentrator_is_refused_until_he_is_called_back(site: Site) -> None:
    user = f'User-Name = "of {MOVED}"'
    flow = site.served(MOVED)
    warm = opened(site.world, MOVED, connect_message(site.echo)[:4])
    site.until(lambda: [row["concentrator"] for row in site.flows() if row["client"] == MOVED] == [f"of {MOVED}"] * 2)
    elsewhere, here = (push_concentrator(((address,), 0)).hex() for address in ("192.0.2.1", CONCENTRATOR))
    assert "CoA-ACK" in site.operator.send("coa", user, f"CPE-MCP-Concentrator = 0x{elsewhere}")
    assert is_reset(warm)
    assert site.refusal(MOVED) == NOT_AUTHORIZED
    (row,) = [row for row in site.status()["authorizations"] if row["address"] == MOVED]
    assert (row["verdict"], row["reason"], row["subscriber"]) == ("reject", "moved", f"of {MOVED}")
    assert talks(flow), "what runs goes on"
    assert "CoA-ACK" in site.operator.send(
        "coa", user, f"CPE-MCP-Concentrator = 0x{elsewhere}", f"CPE-MCP-Concentrator += 0x{here}"
    )
    site.served(MOVED).close()
    assert talks(flow)
    assert site.asked_about(MOVED) == 1, "RADIUS had no part in it"
    flow.close()


@pytest.mark.requirement("5.3-b")
def test_a_session_timeout_by_coa_has_radius_asked_again_at_its_end(site: Site) -> None:
    flow = site.served(TIMED)
    coa = datagram(COA_REQUEST, f"of {TIMED}", (SESSION_TIMEOUT, 2))
    assert site.answer(coa)[0] == COA_ACK
    site.served(TIMED).close()
    assert site.asked_about(TIMED) == 1, "until then he is known"
    site.until(lambda: TIMED not in [row["address"] for row in site.status()["authorizations"]])
    site.served(TIMED).close()
    assert site.asked_about(TIMED) == 2
    assert talks(flow), "what runs goes on"
    flow.close()


@pytest.mark.requirement("X-16")
def test_both_means_the_cookie_and_the_address_of_one_subscriber(site: Site) -> None:
    """RADIUS names the subscriber of one address; the other's goes by his cookie."""
    before = site.refusals()
    named, unnamed = (handle(f"of {address}") for address in (NAMED, UNNAMED))
    assert site.refusal(STRANGER1, STRICT, cookie_of(named)) == NOT_AUTHORIZED, "the cookie alone"
    for address in (NAMED, UNNAMED):
        assert site.refusal(address, STRICT)[:8] == COOKIE_WANTED, "the address alone"
    assert site.refusal(NAMED, STRICT, cookie_of(unnamed)) == NOT_AUTHORIZED, "another's cookie"
    for address, credential in ((NAMED, named), (UNNAMED, unnamed)):
        name, cookie = f"of {address}", cookie_of(credential)
        flow = site.served(address, STRICT, cookie)
        assert site.refusal(address, STRICT, cookie) == NOT_AUTHORIZED, "read on the way"
        names = {row["concentrator"] for row in site.flows() if row["client"] == address}
        assert names - {""} == {name}, "those who are refused have none"
        assert site.answer(datagram(COA_REQUEST, name, ((ENTERPRISE, DOWN_MBIT), CAP_MBIT)))[0] == COA_ACK
        site.served(address, STRICT, cookie_of(credential)).close()
        assert site.terms(name) == (CAP_MBIT, 0), "for what comes, too"
        assert "Disconnect-ACK" in site.operator.send("disconnect", f'User-Name = "{name}"')
        assert is_reset(flow)
        assert site.refusal(address, STRICT, cookie_of(credential)) == NOT_AUTHORIZED, "the handle is ended, too"
        site.served(address, STRICT, cookie_of(handle(name, ends_s=1200))).close()
    expected = {"not-authorized": 1, "cookie-wanted": 2, "other-subscriber": 1, "replayed-cookie": 2, "handle-ended": 2}
    site.until(lambda: site.refusals() - before == expected)


@pytest.mark.requirement("5.3-b")
@pytest.mark.requirement("X-16")
@pytest.mark.parametrize(("home", "is_home_first"), [(HOME1, True), (HOME2, False)])
def test_a_change_of_one_thing_leaves_the_rest_of_one_who_has_address_and_handle(
    site: Site, home: str, is_home_first: bool
) -> None:
    name = f"of {home}"
    credential = handle(name)

    def at_home() -> tuple[str, int, bytes]:
        return home, SERVICE, b""

    def on_the_road() -> tuple[str, int, bytes]:
        return ROAD, SERVICE_PORT, cookie_of(credential)

    def change(what: int, value: int) -> None:
        assert site.answer(datagram(COA_REQUEST, name, ((ENTERPRISE, what), value)))[0] == COA_ACK

    def are_full() -> bool:
        return all(site.refusal(*where())[:7] == CONNECTIONS_FULL for where in (at_home, on_the_road))

    ways = (at_home, on_the_road) if is_home_first else (on_the_road, at_home)
    flows = [site.served(*where(), port=site.pour) for where in ways]
    assert site.terms(name) == (CAP_MBIT, 0)
    read_for(flows, SETTLE_S)
    change(UP_MBIT, 8)
    assert site.terms(name) == (CAP_MBIT, 8)
    assert 0 < mbit(read_for(flows, 1), 1) < 1.3 * CAP_MBIT, "what runs stays capped"
    assert are_full()
    change(CONNECTIONS, 3)
    flows.append(site.served(*on_the_road(), port=site.pour))
    assert site.terms(name) == (CAP_MBIT, 8)
    change(DOWN_MBIT, 2 * CAP_MBIT)
    assert site.terms(name) == (2 * CAP_MBIT, 8)
    time.sleep(SETTLE_S)  # for the two workers to know of each other's
    assert are_full()
    for flow in flows:
        flow.close()


def test_connections_that_come_at_once_from_one_address_make_one_question(site: Site) -> None:
    site.crowd(CROWD, SUCCESS)
    assert site.asked_about(CROWD) == 1


def test_a_reject_holds_for_its_time(site: Site) -> None:
    site.crowd(STRANGER2, NOT_AUTHORIZED)
    assert site.asked_about(STRANGER2) == 1
    cookies = [cookie_of(handle("anybody")) for _ in range(AT_ONCE)]
    # At the listener that was asked workers remember, at another one only the control daemon does.
    for service, cookie in (*((SERVICE, b"") for _ in cookies), *((STRICT, cookie) for cookie in cookies)):
        assert site.refusal(STRANGER2, service, cookie) == NOT_AUTHORIZED
    assert site.asked_about(STRANGER2) == 1
    site.until(lambda: STRANGER2 not in [row["address"] for row in site.status()["authorizations"]])
    assert site.refusal(STRANGER2) == NOT_AUTHORIZED
    assert site.asked_about(STRANGER2) == 2, "it may be a subscriber's by now"


def test_a_disconnect_of_one_address_spares_a_neighbour_behind_the_same_nat(site: Site) -> None:
    mine = site.served(TIMED)
    theirs = site.served(TIMED, SERVICE_PORT, cookie_of(handle("a neighbour behind the same nat")))
    assert site.answer(datagram(DISCONNECT_REQUEST, f"of {TIMED}"))[0] == DISCONNECT_ACK
    assert is_reset(mine)
    assert talks(theirs)


def test_a_change_of_an_address_that_radius_does_not_name_holds_for_who_came_from_there(site: Site) -> None:
    flow = site.served(UNNAMED, STRICT, cookie_of(handle("a bearer")), port=site.pour)
    change = datagram(COA_REQUEST, "", ((ENTERPRISE, DOWN_MBIT), CAP_MBIT), address=UNNAMED)
    assert site.answer(change)[0] == COA_ACK
    read_for([flow], SETTLE_S)
    assert mbit(read_for([flow], 1), 1) < 1.3 * CAP_MBIT
    assert site.answer(datagram(DISCONNECT_REQUEST, "", address=UNNAMED))[0] == DISCONNECT_ACK
    assert is_reset(flow)
