"""DHCP options to concentrators: vectors, discards, truncated twins, garbage; and the lease file around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpe_mcp.discovery.dhcp_options import (
    MAX_HEX_CHARS,
    OptionError,
    join_instances,
    passthru_of_status,
    pull_dhcp4,
    pull_dhcp6,
    pull_hex,
    pull_passthru,
    push_dhcp4,
    push_dhcp6,
)
from cpe_mcp.discovery.lease import Lease, mcps_of_lease4, mcps_of_lease6, pull_lease

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.2.1-a")]

TWO_MCPS = bytes.fromhex("08 c0000201 c0000202 04 c6336401")
TWO_MCPS_TEXT = [("192.0.2.1", "192.0.2.2"), ("198.51.100.1",)]
V6_FIRST = bytes.fromhex("20010db8000100000000000000000001 20010db8000100000000000000000002")
V6_SECOND = bytes.fromhex("00000000000000000000ffffc0000201")
PASSTHRU = (
    bytes.fromhex("fde90020")
    + V6_FIRST
    + bytes.fromhex("0017 0010")
    + bytes(16)
    + bytes.fromhex("fde90010")
    + V6_SECOND
)
V6_TEXT = [("2001:db8:1::1", "2001:db8:1::2"), ("192.0.2.1",)]


class TestDhcp4:
    def test_vector(self) -> None:
        assert pull_dhcp4(TWO_MCPS, 224) == TWO_MCPS_TEXT
        assert push_dhcp4(TWO_MCPS_TEXT) == TWO_MCPS

    def test_every_truncated_twin_is_discarded_or_ends_between_lists(self) -> None:
        for size in range(len(TWO_MCPS)):
            if size == 9:
                assert pull_dhcp4(TWO_MCPS[:size], 224) == TWO_MCPS_TEXT[:1]
                continue
            with pytest.raises(OptionError, match="DHCPv4 option 224: "):
                pull_dhcp4(TWO_MCPS[:size], 224)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("", "empty"),
            ("00", "list length 0 at octet 0 is not a positive multiple of 4"),
            ("04 c0000201 00", "list length 0 at octet 5"),
            ("05 c0000201 01", "list length 5 at octet 0"),
            ("08 c0000201", "list length 8 at octet 0, only 4 octets follow"),
            ("fc", "only 0 octets follow"),
        ],
    )
    def test_malformed_is_discarded_as_a_whole_with_the_reason(self, value: str, reason: str) -> None:
        with pytest.raises(OptionError, match=reason) as caught:
            pull_dhcp4(bytes.fromhex(value), 230)
        assert caught.value.option == "DHCPv4 option 230"

    @pytest.mark.parametrize(
        "address", ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"]
    )
    def test_addresses_no_host_has_are_left_out(self, address: str) -> None:
        assert pull_dhcp4(push_dhcp4([(address, "192.0.2.1")]), 224) == [("192.0.2.1",)]
        assert pull_dhcp4(push_dhcp4([(address,)]), 224) == []

    @pytest.mark.parametrize("address", ["10.1.2.3", "100.64.0.1", "172.16.0.1", "192.168.7.7", "169.254.1.1"])
    def test_addresses_inside_an_operators_network_are_taken(self, address: str) -> None:
        assert pull_dhcp4(push_dhcp4([(address,)]), 224) == [(address,)]

    def test_own_addresses_are_left_out(self) -> None:
        assert pull_dhcp4(TWO_MCPS, 224, own={"192.0.2.2", "198.51.100.1"}) == [("192.0.2.1",)]

    def test_repetitions_are_left_out(self) -> None:
        value = push_dhcp4([("192.0.2.1", "192.0.2.1", "192.0.2.2"), ("192.0.2.1", "192.0.2.2")])
        assert pull_dhcp4(value, 224) == [("192.0.2.1", "192.0.2.2")]

    def test_instances_are_joined_before_parsing(self) -> None:
        """RFC 3396: the cut may be anywhere, other options may lie between."""
        mcps = [tuple(f"192.0.{block}.{host}" for host in range(1, 41)) for block in (2, 3)]
        value = push_dhcp4(mcps)
        assert len(value) > 255
        options = [(1, b"\xff\xff\xff\0"), (224, value[:255]), (6, b"\1\1\1\1"), (224, value[255:])]
        joined = join_instances(options, 224)
        assert joined == value
        assert pull_dhcp4(joined, 224) == mcps
        with pytest.raises(OptionError):
            pull_dhcp4(value[:255], 224)
        assert join_instances(options, 225) is None

    @given(st.binary(max_size=600))
    def test_garbage_gives_mcps_or_the_error(self, data: bytes) -> None:
        try:
            mcps = pull_dhcp4(data, 224)
        except OptionError:
            return
        assert all(mcps)
        assert pull_dhcp4(push_dhcp4(mcps), 224) == mcps if mcps else True

    @pytest.mark.parametrize("mcp", [(), ("192.0.2.1",) * 64, ("2001:db8::1",), ("host.example",)])
    def test_what_cannot_be_said_is_refused(self, mcp: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match=r"."):
            push_dhcp4([mcp])


class TestDhcp6:
    def test_vector(self) -> None:
        assert pull_dhcp6([V6_FIRST, V6_SECOND], 65001) == V6_TEXT
        assert push_dhcp6(V6_TEXT[0]) == V6_FIRST
        assert push_dhcp6(V6_TEXT[1]) == V6_SECOND

    def test_every_truncated_twin_is_discarded_or_ends_between_addresses(self) -> None:
        for size in range(len(V6_FIRST)):
            if size == 16:
                assert pull_dhcp6([V6_FIRST[:size]], 65001) == [V6_TEXT[0][:1]]
                continue
            with pytest.raises(OptionError, match=f"DHCPv6 option 65001: length {size} of instance 2"):
                pull_dhcp6([V6_SECOND, V6_FIRST[:size]], 65001)

    @pytest.mark.parametrize("address", ["ff02::1", "::1", "::", "fe80::1", "::ffff:127.0.0.1", "::ffff:224.0.0.1"])
    def test_addresses_no_host_has_are_left_out(self, address: str) -> None:
        assert pull_dhcp6([push_dhcp6([address, "2001:db8::1"])], 65001) == [("2001:db8::1",)]
        assert pull_dhcp6([push_dhcp6([address])], 65001) == []

    def test_own_addresses_are_left_out_in_mapped_form_too(self) -> None:
        assert pull_dhcp6([V6_FIRST, V6_SECOND], 65001, own={"192.0.2.1", "2001:db8:1::1"}) == [("2001:db8:1::2",)]

    def test_no_mcp_without_address(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            push_dhcp6([])

    @given(st.lists(st.binary(max_size=80), max_size=4))
    def test_garbage_gives_mcps_or_the_error(self, instances: list[bytes]) -> None:
        try:
            mcps = pull_dhcp6(instances, 65001)
        except OptionError:
            return
        assert pull_dhcp6([push_dhcp6(mcp) for mcp in mcps], 65001) == mcps


class TestPassthru:
    def test_every_instance_is_found(self) -> None:
        assert pull_passthru(PASSTHRU, 65001) == [V6_FIRST, V6_SECOND]
        assert pull_passthru(PASSTHRU, 23) == [bytes(16)]
        assert pull_passthru(PASSTHRU, 65002) == []
        assert pull_passthru(b"", 65001) == []

    def test_every_truncated_twin_is_discarded_or_ends_between_options(self) -> None:
        for size in range(1, len(PASSTHRU)):
            if size in (36, 56):
                assert pull_passthru(PASSTHRU[:size], 65001) == [V6_FIRST]
                continue
            with pytest.raises(OptionError, match=r"DHCPv6 passthru: cut short in the option at octet (0|36|56)$"):
                pull_passthru(PASSTHRU[:size], 65001)

    @given(st.binary(max_size=200), st.integers(0, 65535))
    def test_garbage_gives_instances_or_the_error(self, data: bytes, code: int) -> None:
        try:
            instances = pull_passthru(data, code)
        except OptionError:
            return
        assert sum(map(len, instances)) <= len(data)

    @pytest.mark.parametrize(
        ("status", "passthru"),
        [
            ({"up": True, "data": {"passthru": "fde90000", "zone": "wan"}}, "fde90000"),
            ({"up": True, "data": {"zone": "wan"}}, ""),
            ({"up": False}, ""),
            ({"data": []}, ""),
            ({"data": {"passthru": 7}}, ""),
        ],
    )
    def test_netifd_status(self, status: dict[str, object], passthru: str) -> None:
        assert passthru_of_status(status) == passthru


class TestHex:
    def test_limits(self) -> None:
        assert pull_hex("00ff", "x") == b"\0\xff"
        assert pull_hex("", "x") == b""
        assert len(pull_hex("ab" * (MAX_HEX_CHARS // 2), "x")) == MAX_HEX_CHARS // 2

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("0", "odd"),
            ("0G", "not lowercase hex"),
            ("AB", "not lowercase hex"),
            ("00 11", "not lowercase hex"),
            ("00\n", "not lowercase hex"),
            ("٠٠", "not lowercase hex"),
            ("ab" * 1024 + "ab", "at most 2048"),
        ],
    )
    def test_the_rest_is_refused_with_option_and_reason(self, text: str, reason: str) -> None:
        with pytest.raises(OptionError, match=rf"^opt224: .*{reason}"):
            pull_hex(text, "opt224")


class TestLease:
    def test_file_of_the_dhcp4_hook(self) -> None:
        lease = pull_lease(f"opt224={TWO_MCPS.hex()}\nopt230=00\nlease=3600\nuptime=100\n")
        assert lease == Lease(((224, TWO_MCPS.hex()), (230, "00")), "", 3600.0, 100.0)
        assert mcps_of_lease4(lease, 224) == TWO_MCPS_TEXT
        assert mcps_of_lease4(lease, 225) == [], "absent is not an error"
        with pytest.raises(OptionError):
            mcps_of_lease4(lease, 230)

    def test_repeated_lines_are_joined(self) -> None:
        text = TWO_MCPS.hex()
        assert mcps_of_lease4(pull_lease(f"opt224={text[:10]}\nopt224={text[10:]}\n"), 224) == TWO_MCPS_TEXT

    def test_only_the_code_that_counts_can_spoil_it(self) -> None:
        assert mcps_of_lease4(pull_lease(f"opt230=zz\nopt224={TWO_MCPS.hex()}\n"), 224) == TWO_MCPS_TEXT

    def test_file_of_the_dhcp6_side(self) -> None:
        lease = pull_lease(f"passthru={PASSTHRU.hex()}\nlease=60\n")
        assert mcps_of_lease6(lease, 65001) == V6_TEXT
        assert mcps_of_lease6(lease, 65002) == []
        with pytest.raises(OptionError, match="cut short"):
            mcps_of_lease6(lease._replace(passthru=lease.passthru[:-2]), 65001)

    def test_lease_end(self) -> None:
        assert Lease(lease_s=60, uptime_s=100).end(130) == 160
        assert Lease(lease_s=60).end(130) == 190
        assert Lease(lease_s=60, uptime_s=500).end(130) == 190, "an uptime ahead of now does not stretch the lease"
        assert Lease(uptime_s=100).end(130) is None

    @pytest.mark.parametrize(
        "line", ["opt22=00", "opt255=00", "optx=00", "opt=00", "opt²²⁴=00", "lease=-1", "lease=x", "=", "x"]
    )
    def test_unknown_lines_are_passed_over(self, line: str) -> None:
        assert pull_lease(line + "\nlease=5\n") == Lease(lease_s=5.0)

    @given(st.text(max_size=300))
    def test_garbage_never_raises(self, text: str) -> None:
        pull_lease(text)
