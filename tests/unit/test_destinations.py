"""What a concentrator may connect to: the rules compiled, and looked up as a relay worker does."""

from __future__ import annotations

import ipaddress

import pytest
from convert_vectors import address16

from cpe_mcp.concentrator.destination_rules import compile_rows
from cpe_mcp.policy.destinations import DestinationTable

pytestmark = pytest.mark.unit


def table(*, allow: tuple[str, ...] = (), deny: tuple[str, ...] = (), own: tuple[str, ...] = ()) -> DestinationTable:
    return DestinationTable(compile_rows(allow=allow, deny=deny, own=own))


DEFAULT = table()


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "8.8.8.8", "11.0.0.1", "172.32.0.1", "192.167.255.255", "2606:4700::1111", "2a00::1"]
)
def test_global_addresses_are_reachable(text: str) -> None:
    assert DEFAULT.is_reachable(address16(text))


@pytest.mark.parametrize(
    "text",
    [
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "64:ff9b:1::a00:1",
        "100::1",
        "2001::1",
        "2001:10::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_what_is_not_global_is_refused(text: str) -> None:
    assert not DEFAULT.is_reachable(address16(text))


@pytest.mark.parametrize("text", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1"])
def test_refused_in_every_form_that_embeds_it(text: str) -> None:
    number = int(ipaddress.IPv4Address(text))
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number)
    six_to_four = ipaddress.IPv6Address(int(ipaddress.IPv6Address("2002::")) | number << 80 | 1)
    for form in (nat64, six_to_four):
        assert not DEFAULT.is_reachable(form.packed), form


def test_a_global_address_through_nat64_is_reachable() -> None:
    assert DEFAULT.is_reachable(address16("64:ff9b::808:808"))


def test_allow_wins_over_what_is_refused_by_default() -> None:
    allowed = table(allow=("10.20.0.0/24", "2001:db8:20::/64", "192.168.0.0/16"))
    assert allowed.is_reachable(address16("10.20.0.30"))
    assert allowed.is_reachable(address16("2001:db8:20::30"))
    assert allowed.is_reachable(address16("192.168.3.3")), "exactly a default refusal"
    assert not allowed.is_reachable(address16("10.21.0.1"))


def test_deny_and_own_addresses_win_over_everything() -> None:
    rules = table(allow=("10.0.0.0/8",), deny=("10.0.0.0/8", "8.8.0.0/16"), own=("1.1.1.1", "2606:4700::1111"))
    assert not rules.is_reachable(address16("10.1.1.1"))
    assert not rules.is_reachable(address16("8.8.8.8"))
    assert not rules.is_reachable(address16("1.1.1.1"))
    assert not rules.is_reachable(address16("2606:4700::1111"))
    assert rules.is_reachable(address16("1.1.1.2"))


def test_an_allowed_part_of_a_denied_prefix_stays_denied() -> None:
    rules = table(allow=("8.8.8.0/24",), deny=("8.8.0.0/16",))
    assert not rules.is_reachable(address16("8.8.8.8"))


def test_own_address_inside_an_allowed_prefix_is_denied() -> None:
    rules = table(allow=("10.20.0.0/24",), own=("10.20.0.10",))
    assert not rules.is_reachable(address16("10.20.0.10"))
    assert rules.is_reachable(address16("10.20.0.11"))


def test_an_empty_table_reaches_nothing_and_a_broken_row_is_an_error() -> None:
    empty = DestinationTable({"allow": [], "deny": []})
    assert not empty.is_reachable(address16("1.1.1.1"))
    with pytest.raises(ValueError, match="destination row"):
        DestinationTable({"allow": [[b"\1\1\1\1", 32]], "deny": []})
