"""What a client's first bytes may be said twice."""

from __future__ import annotations

import pytest

from cpe_mcp.relay.opening import is_repeatable

pytestmark = pytest.mark.unit

HELLO = bytes([22, 3, 1, 0, 5]) + b"hello"


@pytest.mark.parametrize(
    "data",
    [b"", HELLO, HELLO * 2, HELLO[:7], b"\x16", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD / HTTP/1.0\r\n", b"GET /"],
)
def test_harmless_twice(data: bytes) -> None:
    assert is_repeatable(data)


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n\r\n",
        b"transfer 100",
        HELLO + bytes([23, 3, 3, 0, 2]) + b"0rtt",  # early data of TLS 1.3
        bytes([22, 2]) + HELLO,
        b"\x17",
    ],
)
def test_not_twice(data: bytes) -> None:
    assert not is_repeatable(data)
