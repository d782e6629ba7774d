"""TLVs to bytes and back."""

from __future__ import annotations

import pytest
from convert_vectors import VECTORS, address16, octets
from hypothesis import given
from hypothesis import strategies as st

from cpe_mcp.convert import (
    Connect,
    Cookie,
    Error,
    ExtendedTcpHeader,
    Info,
    LocalError,
    SupportedTcpExtensions,
    push_message,
)
from cpe_mcp.convert.errors import Violation
from cpe_mcp.convert.wire import MAX_WORDS, is_forbidden, pull_message, pull_option_kinds

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", VECTORS)
def test_vector_both_ways(name: str) -> None:
    tlvs, data = VECTORS[name]
    assert push_message(tlvs) == data
    assert pull_message(data) == (tlvs, len(data))
    assert pull_message(data + b"user data") == (tlvs, len(data))


@pytest.mark.parametrize("name", VECTORS)
def test_truncated_twin_waits_for_more(name: str) -> None:
    data = VECTORS[name][1]
    for length in range(len(data)):
        assert pull_message(data[:length]) is None, length


@pytest.mark.parametrize("name", [name for name in VECTORS if name != "V6"])
def test_a_message_that_ends_inside_a_tlv_is_wrong(name: str) -> None:
    data = VECTORS[name][1]
    short = bytes([1, data[1] - 1]) + data[2:-4]
    if len(short) == 4:  # all of the TLV is gone: a message without one is whole
        assert pull_message(short) == ([], 4)
    else:
        with pytest.raises(Violation):
            pull_message(short)


words = st.integers(0, 20).flatmap(lambda count: st.binary(min_size=4 * count, max_size=4 * count))
connects = st.builds(Connect, st.binary(min_size=16, max_size=16), st.integers(0, 65535), words)
messages = st.tuples(
    st.lists(st.just(Info()), max_size=1),
    st.lists(connects, max_size=1),
    st.lists(st.builds(Cookie, words), max_size=1),
    st.lists(st.builds(ExtendedTcpHeader, words), max_size=1),
    st.lists(
        st.builds(SupportedTcpExtensions, st.binary(max_size=30).map(lambda kinds: kinds.replace(b"\0", b""))),
        max_size=1,
    ),
    st.lists(st.builds(Error, st.integers(0, 255), words.map(lambda value: value + b"\7")), max_size=1),
).flatmap(lambda parts: st.permutations([tlv for part in parts for tlv in part]))


@given(messages)
def test_round_trip_in_any_order(tlvs: list[object]) -> None:
    data = push_message(tlvs)  # type: ignore[arg-type]
    pulled = pull_message(data)
    assert pulled == (list(tlvs), len(data))
    assert len(data) % 4 == 0


def test_padding_is_zero_and_comes_back() -> None:
    pulled = pull_message(push_message([Cookie(b"12345")]))
    assert pulled == ([Cookie(b"12345\0\0\0")], 16)


def test_what_does_not_fit_is_our_own_error() -> None:
    with pytest.raises(LocalError, match="COOKIE"):
        push_message([Cookie(bytes(4 * MAX_WORDS))])
    with pytest.raises(LocalError):
        push_message([Cookie(bytes(600)), Error(1, bytes(600))])
    with pytest.raises(LocalError, match="16 octets"):
        push_message([Connect(b"\x7f\0\0\1", 80)])
    with pytest.raises(LocalError):
        push_message([Connect(bytes(16), 65536)])


def test_the_longest_message() -> None:
    data = push_message([Cookie(bytes(4 * (MAX_WORDS - 3)) + b"full")])
    assert (len(data), data[1]) == (1020, 255)
    assert pull_message(data) is not None


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ("1e020402", [30, 4]),
        ("1e020000", [30]),
        ("02040000 1e020101", [30]),
        ("01010101", []),
        ("03030700 1e020000", [30][:0]),
        ("22020802", [34, 8]),
        ("", []),
    ],
)
def test_option_kinds(options: str, kinds: list[int]) -> None:
    assert list(pull_option_kinds(octets(options))) == kinds


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "127.9.9.9", "224.0.0.1", "239.255.255.255", "255.255.255.255", "0.0.0.0", "::", "::1", "ff02::1"],
)
def test_no_servers_address(text: str) -> None:
    assert is_forbidden(address16(text))


@pytest.mark.parametrize("text", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1", "::2", "223.255.255.255"])
def test_may_be_a_servers_address(text: str) -> None:
    assert not is_forbidden(address16(text))
