"""The Client's half alone."""

from __future__ import annotations

import pytest
from convert_vectors import V18, VECTORS, address16, octets

from cpe_mcp.convert import Client, Cookie, Error, Established, LocalError, PeerError, Refused, push_message
from cpe_mcp.convert.client import MAX_WAIT_S, wait_s
from cpe_mcp.convert.state import CLIENT, step

pytestmark = pytest.mark.unit

SERVER = address16("192.0.2.33")
COOKIE = octets("a0a1a2a3 a4a5a6a7")


def test_messages() -> None:
    assert Client().connect(SERVER, 443) == VECTORS["V1"][1]
    assert Client().connect(address16("198.51.100.7"), 80, octets("1e020402")) == VECTORS["V3"][1]
    assert Client().info() == VECTORS["V5"][1]
    assert Client(COOKIE).connect(SERVER, 443)[:16] == octets("01092263 16030000 a0a1a2a3 a4a5a6a7")


def test_a_prefix_and_its_rest_are_the_whole_message() -> None:
    for cookie in (b"", COOKIE):
        warm = Client(cookie)
        prefix = warm.prefix()
        assert len(prefix) == 4 + (len(cookie) + 4 if cookie else 0)
        assert prefix + warm.connect(SERVER, 443) == Client(cookie).connect(SERVER, 443)


def test_a_prefix_has_announced_a_base_connect() -> None:
    warm = Client()
    warm.prefix()
    with pytest.raises(LocalError, match="Base Connect"):
        warm.connect(SERVER, 443, octets("1e020402"))
    assert warm.connect(SERVER, 443)


def asked() -> Client:
    client = Client()
    client.connect(SERVER, 443)
    return client


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("V6", Established(b"", None, None)),
        ("V7", Established(b"", bytes([30, 34, 4, 8]), None)),
        ("V8", Established(b"", None, octets("020405b4 04020101"))),
        ("V9", Refused(Error(32, b"\0"), 0.0)),
        ("V10", Refused(Error(97, b"\1"), 0.0)),
        ("V12", Refused(Error(64, b"\x3c"), 60.0)),
    ],
)
def test_replies_whole_and_byte_by_byte(name: str, answer: Established | Refused) -> None:
    data = VECTORS[name][1]
    assert asked().receive_data(data) == answer
    client = asked()
    for octet in data[:-1]:
        assert client.receive_data(bytes([octet])) is None
    assert client.receive_data(data[-1:]) == answer


def test_the_reply_is_stripped_exactly() -> None:
    assert asked().receive_data(octets("01012263") + b"SSH-2.0") == Established(b"SSH-2.0", None, None)
    assert asked().receive_data(VECTORS["V7"][1] + b"\x01\x01\x22\x63") == Established(
        b"\x01\x01\x22\x63", bytes([30, 34, 4, 8]), None
    )


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        octets("02012263"),
        octets("01002263"),
        octets("01010000"),
        octets("01022263 01000000"),
        octets("01022263 00010000"),
        octets("01022263 63010000"),
        VECTORS["V1"][1],
        VECTORS["V5"][1],
        push_message([Cookie(b"1234")]),
    ],
)
def test_what_a_converter_must_not_say(data: bytes) -> None:
    client = asked()
    with pytest.raises(PeerError):
        client.receive_data(data)


def test_a_warm_connection_may_be_refused_but_not_accepted_unasked() -> None:
    warm = Client()
    warm.prefix()
    assert warm.receive_data(VECTORS["V12"][1]) == Refused(Error(64, b"\x3c"), 60.0)
    warm = Client()
    warm.prefix()
    with pytest.raises(PeerError, match="before it was asked"):
        warm.receive_data(VECTORS["V6"][1])


@pytest.mark.parametrize(
    ("code", "value", "seconds"),
    [
        (64, "", 30),
        (64, "00", 30),
        (65, "05", 5),
        (65, "05000000 00", 5),
        (64, "00000001 2c", 300),
        (64, "ffffffff ff", MAX_WAIT_S),
        (32, "05", 0),
        (96, "", 0),
    ],
)
def test_wait(code: int, value: str, seconds: float) -> None:
    assert wait_s(Error(code, octets(value))) == seconds


def test_an_illegal_call_leaves_the_state_alone() -> None:
    client = asked()
    with pytest.raises(LocalError, match="out of order"):
        client.connect(SERVER, 443)
    assert client.receive_data(VECTORS["V6"][1]) == Established(b"", None, None)
    with pytest.raises(LocalError):
        client.receive_data(VECTORS["V9"][1])


def test_the_table_is_closed() -> None:
    for events in CLIENT.values():
        assert set(events.values()) <= set(CLIENT)
    with pytest.raises(LocalError):
        step(CLIENT, "established", "connect")
    assert V18.endswith(b"GET /")
