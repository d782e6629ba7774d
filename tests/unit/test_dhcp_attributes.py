"""RFC 9445: concentrators as DHCP options in RADIUS attributes, and RFC 6929's fragments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpe_mcp.aaa.dhcp_attributes import join_fragments, pull_dhcp_concentrators, split_dhcp4

pytestmark = [pytest.mark.unit, pytest.mark.requirement("Y-9")]

TWO = bytes.fromhex("08 c0000201 c0000202 04 c6336401")
"""The vector of the DHCPv4 option: two MCPs."""
SIX = bytes.fromhex("20010db8000100000000000000000001")
MAPPED = bytes.fromhex("00000000000000000000ffffc0000201")
FOUND4 = [(("192.0.2.1", "192.0.2.2"), 0), (("198.51.100.1",), 0)]


def pull(*values: bytes) -> tuple[list[tuple[tuple[str, ...], int]], list[str]]:
    return pull_dhcp_concentrators(values, code4=224, code6=65001)


def option4(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def option6(code: int, value: bytes) -> bytes:
    return code.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value


def attribute(kind: int, data: bytes, more: bool = False) -> bytes:
    return bytes((kind, 0x80 if more else 0)) + data


def test_dhcpv4_options_with_others_around() -> None:
    data = b"\0\0" + option4(6, b"\1\2\3\4") + option4(224, TWO) + b"\xff" + b"ignored"
    assert pull(attribute(4, data)) == (FOUND4, [])


def test_an_option_that_is_split_over_instances_and_attributes_is_joined() -> None:
    """RFC 3396: the pieces are joined before they are read."""
    assert pull(
        attribute(4, option4(224, TWO[:3]) + option4(6, b"\1\2\3\4") + option4(224, TWO[3:7])),
        attribute(4, option4(224, TWO[7:])),
    ) == (FOUND4, [])


@pytest.mark.parametrize("at", range(1, len(TWO) + 2))
def test_a_long_attribute_in_fragments(at: int) -> None:
    data = option4(224, TWO)
    assert pull(attribute(4, data[:at], more=True), attribute(4, data[at:])) == (FOUND4, [])


def test_dhcpv6_instances_are_never_merged() -> None:
    assert pull(attribute(3, option6(65001, SIX) + option6(23, SIX)), attribute(3, option6(65001, MAPPED + SIX))) == (
        [(("2001:db8:1::1",), 0), (("192.0.2.1", "2001:db8:1::1"), 0)],
        [],
    )


def test_other_codes_and_other_extended_types_say_nothing() -> None:
    assert pull(attribute(4, option4(225, TWO)), attribute(3, option6(65002, SIX)), attribute(1, b"x")) == ([], [])


def test_a_fragment_without_its_continuation_spoils_only_itself() -> None:
    data = option4(224, TWO)
    found, errors = pull(attribute(4, data[:5], more=True), attribute(3, option6(65001, SIX)), attribute(4, data))
    assert found == [*FOUND4, (("2001:db8:1::1",), 0)]
    assert errors == ["attribute 245.4: its continuation is missing"]
    assert pull(attribute(4, data[:5], more=True))[1] == errors


@pytest.mark.parametrize("value", [b"", b"\4"])
def test_an_attribute_without_its_head(value: bytes) -> None:
    assert pull(value) == ([], [f"attribute 245: {len(value)} octets hold no extended type"])


@pytest.mark.parametrize("size", list(range(1, len(TWO) + 2)))
def test_truncated_twins(size: int) -> None:
    found, errors = pull(attribute(4, option4(224, TWO)[:size]))
    assert found == []
    assert errors == ["DHCPv4-Options: cut short in the option at octet 0"]


def test_a_malformed_value_is_left_out_by_name() -> None:
    found, errors = pull(attribute(4, option4(224, b"\3abc")), attribute(3, option6(65001, SIX[:15])))
    assert found == []
    assert [error.split(":")[0] for error in errors] == ["DHCPv4-Options", "DHCPv6-Options"]


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_garbage(values: list[bytes]) -> None:
    found, errors = pull(*values)
    assert all(addresses for addresses, _ in found)
    assert all(error.isprintable() for error in errors)
    whole, _ = join_fragments(values)
    assert len(whole) <= len(values)


@given(st.lists(st.tuples(st.integers(1, 254), st.binary(max_size=255)), max_size=5))
def test_what_was_put_together_is_taken_apart(options: list[tuple[int, bytes]]) -> None:
    assert split_dhcp4(b"".join(option4(code, value) for code, value in options)) == options
