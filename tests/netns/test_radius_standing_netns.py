"""What ``cpe-mcpd`` makes of a real FreeRADIUS that is silent, refuses, is followed by another one, or changes its mind."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import radclient
from test_accounting_netns import wait
from test_radius_netns import serving

from cpe_mcp.aaa.attributes import Concentrator, push_concentrator
from cpe_mcp.lab.configs import NFT_TABLE
from cpe_mcp.lab.freeradius import DETAIL, RadiusUser, write_config
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab, check_machine
from cpe_mcp.lab.plan import ADDRESSES
from cpe_mcp.lab.scenarios.daemons import POLL_S, await_status, flows_to, status
from cpe_mcp.lab.scenarios.transfer import Talk, answers, fetch_small, greeting_server
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings.router import DEFAULT_DHCP4_CODE, DEFAULT_DHCP6_CODE, DEFAULT_ENTERPRISE

pytestmark = [pytest.mark.netns, pytest.mark.requirement("5.3-b")]

FIRST: Concentrator = ((ADDRESSES.concentrator1.v4,), 0)
SECOND: Concentrator = ((ADDRESSES.concentrator2.v4,), 0)
OWN = {"own": {"address": list(ADDRESSES.concentrator1)}}
"""A concentrator of the user's, which decides by itself."""
ONE_WAY = {"dsl": {"operator_network": False}}
"""RADIUS is asked over lte only."""
IMPATIENT = {"timeout_s": 0.5, "tries": 1, "retry_s": 1}
SESSION_S = 5
"""The shortest Session-Timeout that counts."""
ROUNDED_S = 0.1
"""``expires_s`` is rounded to that."""
TALK_PORT, GAME_PORT = 7777, 27015
DOWN_MBIT, UP_MBIT = 24, 8
"""Of what the lines carry (150 down, 65 up) a fraction."""
SERVER, RADIUS = ADDRESSES.server.v4, ADDRESSES.radius.v4
AFTER_SETTINGS_S = 0.1
"""Within which a worker has read a snapshot."""
NO_CONTRACT = "no contract for this line"
DHCP4 = bytes((DEFAULT_DHCP4_CODE, 5, 4)) + socket.inet_pton(socket.AF_INET, ADDRESSES.concentrator1.v4)
DHCP6 = b"".join(number.to_bytes(2, "big") for number in (DEFAULT_DHCP6_CODE, 16)) + socket.inet_pton(
    socket.AF_INET6, ADDRESSES.concentrator2.v6
)
USERS = (
    RadiusUser("alice", "wonderland", concentrators=(FIRST,), classes=(b"gold",)),
    RadiusUser("brief", "candle", session_timeout_s=SESSION_S),
    RadiusUser("bob", "builder", accept=False, message=NO_CONTRACT),
    RadiusUser("gina", "four", reply=(f"DHCPv4-Options = 0x{DHCP4.hex()}",)),
    RadiusUser("hugo", "six", reply=(f"DHCPv6-Options = 0x{DHCP6.hex()}",)),
)
PASSWORDS = {user.name: user.password for user in USERS}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        check_machine()
    except LabError as error:
        pytest.skip(str(error))
    with Lab(f"rst{os.getpid()}", radius_users=USERS, dhcp4_mcps=None, dhcp6_mcp=None) as lab:
        for number in (1, 2):
            homes = {"home": {"address": [*ADDRESSES.dsl, *ADDRESSES.lte]}}
            lab.start_concentrator(number, radius={"enabled": False}, subscribers=homes)
        with greeting_server(lab, "server", SERVER, TALK_PORT), greeting_server(lab, "server", SERVER, GAME_PORT):
            yield lab


@pytest.fixture
def router(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.stop_cpe()


def start(router: Lab, username: str, **options: Any) -> None:
    """The router of this subscriber; ``options`` are those of section radius."""
    known = {"username": username, "password": PASSWORDS[username], **IMPATIENT}
    concentrators = OWN if username in ("brief", "bob") else None
    router.start_cpe(radius={**known, **options}, wans=ONE_WAY, concentrators=concentrators)


@contextlib.contextmanager
def silence(router: Lab) -> Iterator[None]:
    """Whatever is asked of the server gets lost."""
    rules = "table inet silent {\nchain in {\ntype filter hook input priority 0\nudp dport 1812 drop\n}\n}\n"
    router.run("radius", ["nft", "-f", "-"], input=rules)
    try:
        yield
    finally:
        router.run("radius", ["nft", "delete", "table", "inet", "silent"])


def await_taken(router: Lab) -> Mapping[str, Any]:
    return await_status(router, "connections are taken", lambda now: now["interception"]["on"] and now["proxy"])


def await_reason(router: Lab, reason: str) -> Mapping[str, Any]:
    return await_status(router, f"RADIUS: {reason}", lambda now: now["radius"]["reason"] == reason)


def carried(router: Lab) -> list[str]:
    """What became of each connection to the web server that the router took."""
    return [row["action"] for row in flows_to(router, SERVER, 80)]


def seen_as(router: Lab, port: int = TALK_PORT) -> str:
    """Whose address a new connection has at the server."""
    with Talk(router, "client1", SERVER, port) as talk:
        return talk.seen_as


def test_an_accept_holds_through_silence_to_its_end_and_then_connections_go_direct(router: Lab) -> None:
    start(router, "brief")
    now = await_taken(router)
    assert now["radius"]["accepted"]
    with Talk(router, "client1", SERVER, TALK_PORT) as talk, silence(router):
        assert talk.seen_as == ADDRESSES.concentrator1.v4
        began = time.monotonic()
        left_s = status(router)["radius"]["expires_s"]
        assert 0 < left_s <= SESSION_S
        while (now := status(router))["radius"]["accepted"]:
            assert now["interception"]["on"], now["interception"]
            assert time.monotonic() < began + left_s + 2
            time.sleep(POLL_S)
        assert time.monotonic() > began + left_s - ROUNDED_S, "not when it was renewed in vain"
        now = await_status(router, "connections are forwarded", lambda now: not now["interception"]["on"])
        assert (now["reason"], now["interception"]["reason"]) == (Reason.AUTH_TIMEOUT, Reason.AUTH_TIMEOUT)
        assert now["radius"]["reason"] == Reason.AUTH_TIMEOUT
        assert f"{RADIUS}:1812 over lte" in now["radius"]["detail"], "who is silent is named"
        assert seen_as(router) == ADDRESSES.cpe_dsl.v4
        assert answers(talk, 3), "what runs goes on"
    await_taken(router)
    assert seen_as(router) == ADDRESSES.concentrator1.v4


def test_silence_blocks_where_the_settings_say_so_until_a_server_answers(router: Lab) -> None:
    with silence(router):
        start(router, "brief", on_timeout="block")
        now = await_reason(router, Reason.AUTH_TIMEOUT)
        assert (now["reason"], now["fallback"], now["proxy"]) == (Reason.AUTH_TIMEOUT, "block", False)
        await_status(router, "connections are taken to be refused", lambda now: now["interception"]["on"])
        assert not fetch_small(router, timeout_s=2)
    await_taken(router)
    assert fetch_small(router)
    assert "proxy" in carried(router)


def test_through_silence_to_concentrators_that_decide_by_themselves_where_the_settings_say_so(router: Lab) -> None:
    with silence(router):
        start(router, "brief", on_timeout="proxy")
        now = await_reason(router, Reason.AUTH_TIMEOUT)
        assert not now["radius"]["accepted"], "it is not hidden"
        assert await_taken(router)["reason"] == Reason.READY
        assert seen_as(router) == ADDRESSES.concentrator1.v4


def test_a_reject_is_plain_forwarding_by_default_and_what_the_server_says_is_shown(router: Lab) -> None:
    start(router, "bob", on_timeout="proxy")
    now = await_reason(router, Reason.NOT_AUTHORIZED)
    assert (now["reason"], now["fallback"]) == (Reason.NOT_AUTHORIZED, "direct")
    assert (now["radius"]["accepted"], now["radius"]["detail"]) == (False, NO_CONTRACT)
    await_status(router, "two WANs", lambda now: sum(wan["usable"] for wan in now["wans"]) == 2)
    assert status(router)["interception"]["reason"] == Reason.NOT_AUTHORIZED
    assert seen_as(router) == ADDRESSES.cpe_dsl.v4


@pytest.mark.requirement("X-16")
def test_a_second_server_answers_for_one_that_is_silent_and_its_accept_is_in_force(router: Lab, tmp_path: Path) -> None:
    command = write_config(
        str(tmp_path / "raddb"),
        secret=router.radius.secret,
        clients=[ADDRESSES.lte.v4],
        users=[RadiusUser("alice", PASSWORDS["alice"], concentrators=(SECOND,), scheme="aggregate")],
        enterprise=DEFAULT_ENTERPRISE,
        listen=[(SERVER, 1812)],
    )
    with serving(router.namespace("server"), tmp_path / "raddb", command), silence(router):
        start(router, "alice", server=[RADIUS, SERVER])
        now = await_taken(router)
    assert (now["radius"]["server"], now["radius"]["accepted"]) == (f"{SERVER}:1812", True)
    assert now["radius"]["counters"] == {"requests": 2, "answers": 1}, "the first one was asked before"
    assert now["scheme"]["name"] == "aggregate"
    assert seen_as(router) == ADDRESSES.concentrator2.v4


@pytest.mark.parametrize(("username", "place"), [("gina", "concentrator1"), ("hugo", "concentrator2")])
@pytest.mark.requirement("5.2.1-a")
def test_dhcp_options_in_an_accept_lead_to_the_concentrator_that_is_used(
    router: Lab, username: str, place: str
) -> None:
    """RFC 9445: 245.4 and 245.3."""
    start(router, username)
    (row,) = await_taken(router)["concentrators"]
    addresses = ADDRESSES.of(place)
    assert row["source"] == "radius"
    assert row["addresses"] == [addresses.v4 if username == "gina" else addresses.v6]
    assert seen_as(router) == addresses.v4


@pytest.mark.requirement("X-13")
@pytest.mark.skipif(shutil.which(radclient.PROGRAM) is None, reason="needs the program radclient")
def test_coa_moves_new_connections_caps_them_and_gives_classes_by_the_sessions_of_accounting(router: Lab) -> None:
    detail = router.directory / "radius" / DETAIL
    games = {"games": {"action": "proxy", "dest_port": [GAME_PORT], "concentrator": "gaming"}}
    radius = {"username": "alice", "password": PASSWORDS["alice"], "dynamic": True, "accounting": True}
    router.start_cpe(radius=radius, rules=games)
    opened = f"ip saddr {RADIUS} udp dport 3799 accept"
    router.run("cpe", ["nft", "insert", "rule", "inet", NFT_TABLE, "input", *opened.split()])
    await_taken(router)
    started = {row.get("NAS-Port-Id"): row["Acct-Session-Id"] for row in wait(detail, 4)[1:]}
    target = f"{ADDRESSES.cpe_lte.v4}:3799"

    def coa(*attributes: str) -> str:
        meant = 'NAS-Identifier = "cpe-mcp"'
        place = router.namespace("radius"), router.directory / "radius"
        return radclient.send(*place, target, "coa", meant, *attributes, secret=router.radius.secret)

    def changed(*attributes: str) -> Mapping[str, Any]:
        before = status(router)["generation"]
        assert "CoA-ACK" in coa(*attributes)
        now = await_status(router, "another snapshot", lambda now: now["generation"] > before)
        time.sleep(AFTER_SETTINGS_S)
        return now

    total, of_dsl = (f'Acct-Session-Id = "{started[port]}"' for port in (None, "dsl"))
    to_first, to_second = (f"CPE-MCP-Concentrator += 0x{push_concentrator(row).hex()}" for row in (FIRST, SECOND))
    assert "Error-Cause = Session-Context-Not-Found" in coa('Acct-Session-Id = "of-another-life"', to_second)
    with Talk(router, "client1", SERVER, TALK_PORT) as talk:
        assert talk.seen_as == ADDRESSES.concentrator1.v4
        now = changed(total, to_second)
        assert [row["addresses"] for row in now["concentrators"]] == [list(SECOND[0])]
        assert seen_as(router) == ADDRESSES.concentrator2.v4
        assert answers(talk, 3), "what runs stays where it is"

        changed(of_dsl, to_first, to_second, f'CPE-MCP-Service-Class = "gaming {ADDRESSES.concentrator2.v4}"')
        assert seen_as(router) == ADDRESSES.concentrator1.v4
        assert seen_as(router, GAME_PORT) == ADDRESSES.concentrator2.v4
        assert answers(talk, 3)

    multi = f'Acct-Multi-Session-Id = "{started[None]}"'
    assert "CoA-ACK" in coa(multi, f"CPE-MCP-Down-Mbit = {DOWN_MBIT}", f"CPE-MCP-Up-Mbit = {UP_MBIT}")
    size = 3_000_000
    router.serve_file("capped", size)
    down, up = ["-o", "/dev/null"], ["-T", "-"]
    assert 0.7 * DOWN_MBIT < curl_mbit(router, size, "/capped", *down) < 1.1 * DOWN_MBIT
    assert 0.7 * UP_MBIT < curl_mbit(router, size // 3, "/upload/capped", *up) < 1.1 * UP_MBIT
    assert set(carried(router)) == {"proxy"}


def curl_mbit(router: Lab, size: int, path: str, *options: str) -> float:
    """Rate of a transfer, handshake included."""
    started = time.monotonic()
    url = f"http://{SERVER}{path}"
    data = "\0" * size if "-T" in options else None
    router.run("client1", ["curl", "-sf", *options, url], input=data, timeout=20)
    return size * 8e-6 / (time.monotonic() - started)
