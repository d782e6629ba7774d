"""Both halves joined in memory, through every outcome, in pieces of every size."""

from __future__ import annotations

import pytest
from convert_vectors import address16, octets

from cpe_mcp.convert import (
    Client,
    Converter,
    Cookie,
    ErrorCode,
    Established,
    PeerError,
    PrefixReceived,
    Refused,
    RequestReceived,
)

pytestmark = pytest.mark.unit

SERVER = address16("198.51.100.7")
COOKIE = octets("0102030405060708")


class Pair:
    """A client and a converter with a wire between that cuts everything into pieces of ``size`` octets."""

    def __init__(self, size: int, cookie: bytes = b"") -> None:
        self.size = size
        self.client = Client(cookie)
        self.converter = Converter()

    def up(self, data: bytes) -> list[PrefixReceived | RequestReceived]:
        """To the converter, until its request is complete; what follows is user data."""
        events: list[PrefixReceived | RequestReceived] = []
        for start in range(0, len(data), self.size):
            events += self.converter.receive_data(data[start : start + self.size])
        return events

    def down(self, data: bytes) -> Established | Refused:
        for start in range(0, len(data), self.size):
            answer = self.client.receive_data(data[start : start + self.size])
            if answer is not None:
                return answer
        raise AssertionError("the reply was not complete")


sizes = pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 24, 2000])


@sizes
def test_success(size: int) -> None:
    pair = Pair(size)
    request = pair.up(pair.client.connect(SERVER, 80))[-1]
    assert isinstance(request, RequestReceived)
    assert request.connect is not None
    assert (request.connect.address, request.connect.port) == (SERVER, 80)
    assert pair.down(pair.converter.accept()) == Established(b"", None, None)


@sizes
def test_information(size: int) -> None:
    pair = Pair(size)
    request = pair.up(pair.client.info())[-1]
    assert isinstance(request, RequestReceived)
    assert request.info
    answer = pair.down(pair.converter.accept(extensions=bytes([30, 4])))
    assert isinstance(answer, Established)
    assert answer.extensions == bytes([30, 4])


@sizes
def test_extended_connect(size: int) -> None:
    pair = Pair(size)
    request = pair.up(pair.client.connect(SERVER, 80, octets("1e020402")))[-1]
    assert isinstance(request, RequestReceived)
    assert request.option_kinds == bytes([30, 4])
    answer = pair.down(pair.converter.accept(extended_header=octets("020405b4")))
    assert isinstance(answer, Established)
    assert answer.extended_header == octets("020405b4")


@sizes
@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error(size: int, code: ErrorCode) -> None:
    pair = Pair(size)
    pair.up(pair.client.connect(SERVER, 80))
    answer = pair.down(pair.converter.refuse(code, bytes([9])))
    assert isinstance(answer, Refused)
    assert answer.error.code == code
    assert answer.wait_s == (9 if code in (64, 65) else 0)


@sizes
def test_a_cookie_is_asked_for_and_brought(size: int) -> None:
    first = Pair(size)
    request = first.up(first.client.connect(SERVER, 80))[-1]
    assert isinstance(request, RequestReceived)
    assert request.cookie == b""
    refused = first.down(first.converter.refuse(ErrorCode.MISSING_COOKIE, COOKIE))
    assert isinstance(refused, Refused)
    second = Pair(size, cookie=refused.error.value[1:])
    request = second.up(second.client.connect(SERVER, 80))[-1]
    assert isinstance(request, RequestReceived)
    assert request.cookie == COOKIE


@sizes
@pytest.mark.parametrize("cookie", [b"", COOKIE])
def test_a_warm_connection(size: int, cookie: bytes) -> None:
    pair = Pair(size, cookie)
    assert pair.up(pair.client.prefix()) == [PrefixReceived(cookie)]
    request = pair.up(pair.client.connect(SERVER, 80))[-1]
    assert isinstance(request, RequestReceived)
    assert request.cookie == cookie
    assert pair.down(pair.converter.accept()) == Established(b"", None, None)


def test_an_error_of_the_codec_reaches_the_client() -> None:
    pair = Pair(2000)
    with pytest.raises(PeerError) as caught:
        pair.up(pair.client.connect(address16("127.0.0.1"), 80))
    answer = pair.down(caught.value.reply)
    assert isinstance(answer, Refused)
    assert answer.error.code == ErrorCode.MALFORMED_MESSAGE
    assert Cookie(COOKIE).value == COOKIE
