"""The Converter's half alone."""

from __future__ import annotations

import pytest
from convert_vectors import MALFORMED, V18, VECTORS, octets

from cpe_mcp.convert import (
    Connect,
    Converter,
    Error,
    ErrorCode,
    LocalError,
    PeerError,
    PrefixReceived,
    RequestReceived,
    TlvType,
)
from cpe_mcp.convert.converter import ECHO_BYTES
from cpe_mcp.convert.wire import pull_message

pytestmark = pytest.mark.unit

COOKIE = octets("a0a1a2a3 a4a5a6a7")
WITH_COOKIE_FIRST = octets("01092263 16030000 a0a1a2a3 a4a5a6a7 0a0501bb 00000000 00000000 0000ffff c0000221")


def request(data: bytes) -> RequestReceived:
    (event,) = Converter().receive_data(data)
    assert isinstance(event, RequestReceived)
    return event


def test_requests() -> None:
    connect = VECTORS["V1"][0][0]
    assert request(VECTORS["V1"][1]) == RequestReceived(connect, b"", False, b"", b"")  # type: ignore[arg-type]
    assert request(V18).trailing == b"GET /"
    assert request(VECTORS["V5"][1]) == RequestReceived(None, b"", True, b"", b"")
    assert request(VECTORS["V3"][1]).option_kinds == bytes([30, 4])
    assert request(VECTORS["V4"][1]).cookie == COOKIE, "a cookie after the Connect"
    assert request(WITH_COOKIE_FIRST).cookie == COOKIE


@pytest.mark.parametrize("data", [VECTORS[name][1] for name in ("V1", "V2", "V3", "V4", "V5")] + [WITH_COOKIE_FIRST])
def test_byte_by_byte(data: bytes) -> None:
    converter = Converter()
    events = [event for octet in data for event in converter.receive_data(bytes([octet]))]
    assert events[-1] == request(data)
    assert all(isinstance(event, PrefixReceived) for event in events[:-1])
    assert len(events) <= 2


def test_a_warm_prefix_is_told_as_soon_as_it_is_certain() -> None:
    bare = Converter()
    assert bare.receive_data(octets("01062263")) == [PrefixReceived(b"")]
    assert bare.receive_data(VECTORS["V1"][1][4:]) == [request(VECTORS["V1"][1])]
    keyed = Converter()
    assert keyed.receive_data(octets("01092263")) == [], "a cookie may follow"
    assert keyed.receive_data(octets("16030000 a0a1a2a3")) == []
    assert keyed.receive_data(octets("a4a5a6a7")) == [PrefixReceived(COOKIE)]
    assert keyed.receive_data(b"") == []
    other = Converter()
    assert other.receive_data(octets("01092263 0a05")) == [PrefixReceived(b"")], "no leading cookie"


@pytest.mark.parametrize("name", MALFORMED)
def test_what_a_client_must_not_say(name: str) -> None:
    data, code = MALFORMED[name]
    with pytest.raises(PeerError) as caught:
        Converter().receive_data(data)
    reply = caught.value.reply
    if code is None:
        assert reply == b""
        return
    pulled = pull_message(reply)
    assert pulled is not None
    (error,), _ = pulled
    assert isinstance(error, Error)
    assert error.code == code
    if code in (ErrorCode.MALFORMED_MESSAGE, ErrorCode.UNSUPPORTED_MESSAGE):
        assert error.value.startswith(b"\0" + data[:ECHO_BYTES][:4])
    else:
        assert error.value[:1] == b"\1", "the versions we speak"


@pytest.mark.parametrize("name", ["V16b", "V17"])
def test_the_echo_is_as_the_vectors_say(name: str) -> None:
    reply = VECTORS[name][1]
    with pytest.raises(PeerError) as caught:
        Converter().receive_data(reply[8:])
    assert caught.value.reply == reply


def test_the_echo_of_the_longest_message_is_cut_to_fit() -> None:
    long = octets("01ff2263 63fe0000") + bytes(1012)
    with pytest.raises(PeerError) as caught:
        Converter().receive_data(long)
    assert len(caught.value.reply) <= 1020
    assert pull_message(caught.value.reply) is not None
    assert caught.value.reply[4] == TlvType.ERROR


def ready() -> Converter:
    converter = Converter()
    converter.receive_data(VECTORS["V1"][1])
    return converter


def test_replies() -> None:
    assert ready().accept() == VECTORS["V6"][1]
    assert ready().accept(extensions=bytes([30, 34, 4, 8])) == VECTORS["V7"][1]
    assert ready().accept(extended_header=octets("020405b4 04020101")) == VECTORS["V8"][1]
    assert ready().refuse(ErrorCode.NOT_AUTHORIZED) == VECTORS["V9"][1]
    assert ready().refuse(ErrorCode.DESTINATION_UNREACHABLE, b"\1") == VECTORS["V10"][1]
    assert ready().refuse(ErrorCode.CONNECTION_RESET) == VECTORS["V11"][1]
    assert ready().refuse(ErrorCode.RESOURCE_EXCEEDED, bytes([60])) == VECTORS["V12"][1]
    assert ready().refuse(ErrorCode.MISSING_COOKIE, COOKIE) == VECTORS["V14"][1]
    assert ready().refuse(ErrorCode.UNSUPPORTED_TCP_OPTION, bytes([30, 69])) == VECTORS["V15"][1]


def test_a_peer_may_be_refused_before_its_message_is_complete_but_not_accepted() -> None:
    early = Converter()
    early.receive_data(octets("01062263"))
    with pytest.raises(LocalError, match="out of order"):
        early.accept()
    assert early.refuse(ErrorCode.NOT_AUTHORIZED) == VECTORS["V9"][1]
    with pytest.raises(LocalError):
        early.refuse(ErrorCode.NOT_AUTHORIZED)


def test_bytes_after_the_message_are_not_ours_to_read() -> None:
    converter = ready()
    with pytest.raises(LocalError):
        converter.receive_data(b"GET /")


def test_a_connect_is_a_plain_value() -> None:
    assert request(VECTORS["V2"][1]).connect == Connect(octets("20010db8 00000000 00000000 00000025"), 8080)
