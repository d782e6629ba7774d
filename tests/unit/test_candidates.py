"""The table of candidates: who wins, who is merged, what ends when."""

from __future__ import annotations

import json

import pytest

from cpe_mcp.discovery.candidates import BLOCKS_MAX, CandidateTable, Line
from cpe_mcp.discovery.dhcp_options import push_dhcp4, push_dhcp6
from cpe_mcp.discovery.lease import Lease
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings.router import ConcentratorSettings, DiscoverySettings

pytestmark = pytest.mark.unit

ONE, TWO, THREE = "192.0.2.1", "192.0.2.2", "198.51.100.3"
SIX = "2001:db8::1"
HOME = ConcentratorSettings(name="home", address=("203.0.113.1", "2001:db8:f::1"), subscriber="alice", key="s3cret-key")

LINES = {name: Line(name, is_trusted=True) for name in ("wan", "wwan", "wan6")}


def lease4(
    *mcps: tuple[str, ...], code: int = 224, lease_s: float | None = 600, uptime_s: float | None = None
) -> Lease:
    return Lease(((code, push_dhcp4(mcps).hex()),), "", lease_s, uptime_s)


def lease6(*mcps: tuple[str, ...], lease_s: float | None = 600) -> Lease:
    values = [push_dhcp6(mcp) for mcp in mcps]
    passthru = b"".join((65001).to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for value in values)
    return Lease((), passthru.hex(), lease_s)


def table(*concentrators: ConcentratorSettings, settings: DiscoverySettings | None = None) -> CandidateTable:
    """Its WANs are trusted: whom to believe is test_trust.py's."""
    interfaces = ("wan", "wwan", "wan6")
    return CandidateTable(
        settings or DiscoverySettings(), interfaces=interfaces, lines=LINES, concentrators=concentrators
    )


def names(candidates: CandidateTable, now: float = 0.0) -> list[str]:
    return [candidate.name for candidate in candidates.candidates(now)]


class TestSources:
    @pytest.mark.requirement("5.2.1-a")
    def test_a_dhcp_answer_becomes_candidates_of_its_interface(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE, TWO), (THREE,)), 0)
        first, second = t.candidates(0)
        assert first == ("dhcp4:wan#1", (ONE, TWO), 5124, "dhcp4", "wan", "", "", False, ())
        assert (second.name, second.addresses) == ("dhcp4:wan#2", (THREE,))

    @pytest.mark.requirement("5.2.1-a")
    def test_static_wins_over_dhcp_and_radius_alone(self) -> None:
        t = table(HOME)
        t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
        t.learn_radius([((TWO,), 0)], None)
        (home,) = t.candidates(0)
        assert home == ("home", HOME.address, 5124, "static", "", "alice", "s3cret-key", False, ())

    @pytest.mark.requirement("5.3-f")
    def test_all_that_are_known_are_kept_from_the_lan_and_nothing_that_is_not_believed(self) -> None:
        t = table(HOME)
        t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
        t.learn_dhcp("elsewhere", 4, lease4((THREE,)), 0)
        t.learn_radius([((TWO,), 443)], 60)
        home = [(address, 5124) for address in HOME.address]
        assert names(t) == ["home"]
        assert t.endpoints(0) == (*home, (TWO, 443), (ONE, 5124))
        assert t.endpoints(61) == (*home, (ONE, 5124))
        t.learn_dhcp("wan", 4, None, 62)
        assert t.endpoints(62) == tuple(home)
        distrusted = table(HOME, settings=DiscoverySettings(trust_alone=("radius",)))
        assert names(distrusted) == []
        assert distrusted.endpoints(0) == tuple(home)

    def test_a_blocked_static_one_is_not_replaced_by_a_lesser_source(self) -> None:
        t = table(HOME)
        t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
        t.blocked("home", 60, "concentrator-nonsense")
        assert t.usable(0) == ()

    def test_dhcp_override(self) -> None:
        t = table(HOME, settings=DiscoverySettings(dhcp_override=True))
        assert names(t) == ["home"]
        t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
        assert names(t) == ["dhcp4:wan#1"]
        t.learn_radius([((TWO,), 0)], None)
        assert names(t) == ["radius#1"]

    def test_radius_beats_dhcp_until_it_ends(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
        t.learn_radius([((TWO, SIX), 4000), ((THREE,), 0)], 100)
        assert [(c.name, c.addresses, c.port) for c in t.candidates(99)] == [
            ("radius#1", (TWO, SIX), 4000),
            ("radius#2", (THREE,), 5124),
        ]
        assert names(t, 100) == ["dhcp4:wan#1"]

    def test_an_accept_without_concentrators_withdraws_the_last_ones(self) -> None:
        t = table()
        t.learn_radius([((TWO,), 0)], 100)
        t.learn_radius([], 200)
        assert names(t) == []

    def test_disabled_static_ones_and_those_without_address_do_not_count(self) -> None:
        t = table(ConcentratorSettings(name="off", enabled=False, address=(ONE,)), ConcentratorSettings(name="empty"))
        assert names(t) == []

    def test_dhcp_switched_off(self) -> None:
        t = table(settings=DiscoverySettings(dhcp=False))
        t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
        assert names(t) == []

    @pytest.mark.requirement("7.3-a")
    def test_an_interface_that_is_not_trusted_is_shown_but_not_used(self) -> None:
        t = table()
        t.learn_dhcp("hotel", 4, lease4((ONE,)), 0)
        assert names(t) == []
        (source,) = t.status(0)["sources"]
        assert (source["interface"], source["concentrators"], source["used"]) == ("hotel", [[ONE]], False)

    def test_codes_and_port_are_settings(self) -> None:
        t = table(settings=DiscoverySettings(dhcp4_code=230, service_port=4443))
        t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
        assert names(t) == []
        t.learn_dhcp("wan", 4, lease4((ONE,), code=230), 0)
        assert t.candidates(0)[0].port == 4443

    def test_own_addresses_are_no_candidates(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE,), (TWO,)), 0, own={ONE})
        assert [c.addresses for c in t.candidates(0)] == [(TWO,)]


class TestOrder:
    def test_interfaces_in_their_order_then_the_preferred_family(self) -> None:
        for prefer, expected in (
            ("ipv4", ["dhcp4:wan#1", "dhcp6:wan#1", "dhcp4:wwan#1"]),
            ("ipv6", ["dhcp6:wan#1", "dhcp4:wan#1", "dhcp4:wwan#1"]),
        ):
            t = table(settings=DiscoverySettings(prefer=prefer))
            t.learn_dhcp("wwan", 4, lease4((THREE,)), 0)
            t.learn_dhcp("wan", 6, lease6((SIX,)), 0)
            t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
            assert names(t) == expected

    def test_family_preference_within_a_candidate_keeps_the_given_order_otherwise(self) -> None:
        mixed = (SIX, TWO, "2001:db8::2", ONE)
        for prefer, expected in (
            ("ipv4", (TWO, ONE, SIX, "2001:db8::2")),
            ("ipv6", (SIX, "2001:db8::2", TWO, ONE)),
        ):
            t = table(settings=DiscoverySettings(prefer=prefer))
            t.learn_radius([(mixed, 0)], None)
            assert t.candidates(0)[0].addresses == expected

    def test_static_addresses_stay_as_the_user_wrote_them(self) -> None:
        t = table(ConcentratorSettings(name="home", address=(SIX, ONE)))
        assert t.candidates(0)[0].addresses == (SIX, ONE)


class TestMerge:
    def test_the_same_mcp_through_two_interfaces_is_one_candidate_and_two_rows(self) -> None:
        t = table()
        t.learn_dhcp("wwan", 4, lease4((TWO, ONE)), 0)
        t.learn_dhcp("wan", 4, lease4((ONE,), (THREE,)), 0)
        assert [(c.name, c.addresses) for c in t.candidates(0)] == [
            ("dhcp4:wan#1", (ONE, TWO)),
            ("dhcp4:wan#2", (THREE,)),
        ]
        assert [source["used"] for source in t.status(0)["sources"]] == [True, True]
        t.learn_dhcp("wan", 4, None, 1)
        assert [(c.name, c.addresses) for c in t.candidates(1)] == [("dhcp4:wwan#1", (TWO, ONE))]

    def test_an_answer_may_show_that_two_are_one(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE,), (TWO,), (THREE,)), 0)
        t.learn_dhcp("wan6", 6, lease6((SIX, f"::ffff:{TWO}", f"::ffff:{ONE}")), 0)
        assert [(c.name, c.addresses) for c in t.candidates(0)] == [
            ("dhcp4:wan#1", (ONE, TWO, SIX)),
            ("dhcp4:wan#3", (THREE,)),
        ]

    def test_two_subscribers_of_one_static_concentrator_stay_two(self) -> None:
        t = table(HOME, ConcentratorSettings(name="work", address=HOME.address, subscriber="bob", key="k"))
        assert names(t) == ["home", "work"]


class TestLife:
    def test_a_row_ends_with_its_lease(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE,), lease_s=60), 1000)
        assert names(t, 1059.9) == ["dhcp4:wan#1"]
        assert t.next_change(1000) == 1060
        assert names(t, 1060) == []
        assert t.next_change(1060) is None

    def test_an_old_file_is_not_trusted_beyond_its_lease(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE,), lease_s=60, uptime_s=900), 1000)
        assert names(t, 1000) == []

    def test_a_renewal_moves_the_end_and_may_change_or_withdraw_the_list(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE,), lease_s=60), 0)
        t.learn_dhcp("wan", 4, lease4((TWO,), lease_s=60), 30)
        assert [c.addresses for c in t.candidates(80)] == [(TWO,)]
        t.learn_dhcp("wan", 4, Lease(lease_s=60), 60)
        assert names(t, 60) == [], "no option: explicit mode is off on that interface"

    def test_a_row_does_not_count_while_its_interface_is_down(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
        t.learn_dhcp("wwan", 4, lease4((TWO,)), 0)
        t.interface_changed("wan", up=False)
        assert names(t) == ["dhcp4:wwan#1"]
        t.interface_changed("wan", up=True)
        assert names(t) == ["dhcp4:wan#1", "dhcp4:wwan#1"]

    def test_a_malformed_option_keeps_the_last_value_to_its_own_end_and_says_why(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE,), lease_s=60), 0)
        t.learn_dhcp("wan", 4, Lease(((224, "08c0000201"),), "", 60), 30)
        assert names(t, 59) == ["dhcp4:wan#1"]
        (source,) = t.status(59)["sources"]
        assert source["discarded"] == "DHCPv4 option 224: list length 8 at octet 0, only 4 octets follow"
        assert names(t, 60) == []
        t.learn_dhcp("wan", 4, lease4((ONE,)), 61)
        assert t.status(61)["sources"][0]["discarded"] == ""

    def test_a_first_option_that_is_malformed_names_nobody(self) -> None:
        t = table()
        t.learn_dhcp("wan6", 6, Lease((), "fde9", 60), 0)
        assert names(t) == []
        assert t.status(0)["sources"][0]["discarded"] == "DHCPv6 passthru: cut short in the option at octet 0"


class TestBlocks:
    def test_a_blocked_candidate_is_left_alone_until_then(self) -> None:
        t = table()
        t.learn_dhcp("wan", 4, lease4((ONE,), (TWO,)), 0)
        t.blocked("dhcp4:wan#1", 60, "concentrator-nonsense")
        assert [c.name for c in t.usable(59)] == ["dhcp4:wan#2"]
        assert names(t, 59) == ["dhcp4:wan#1", "dhcp4:wan#2"]
        assert t.next_change(0) == 60
        assert t.status(50)["concentrators"][0] == {
            "name": "dhcp4:wan#1",
            "addresses": [ONE],
            "port": 5124,
            "source": "dhcp4",
            "interface": "wan",
            "subscriber": "",
            "foreign": False,
            "service_class": [],
            "usable": False,
            "reason": "concentrator-nonsense",
            "wait_s": 10.0,
        }
        assert [c.name for c in t.usable(60)] == ["dhcp4:wan#1", "dhcp4:wan#2"]

    def test_the_longer_wait_holds_until_it_answers(self) -> None:
        t = table(HOME)
        t.blocked("home", 60, "concentrator-busy")
        t.blocked("home", 30, "concentrator-nonsense")
        assert t.block_of("home", 40) == (60, "concentrator-busy")
        t.unblock("home")
        assert t.block_of("home", 40) is None

    @pytest.mark.requirement("5.3-b")
    def test_another_credential_is_shown_to_those_that_refused_the_last_and_to_no_others(self) -> None:
        t = table(HOME)
        t.blocked("home", 60, Reason.CONCENTRATOR_REFUSED)
        t.blocked("other", 60, Reason.CONCENTRATOR_BUSY)
        t.unblock_all(Reason.CONCENTRATOR_REFUSED)
        assert t.block_of("home", 40) is None
        assert t.block_of("other", 40) == (60, Reason.CONCENTRATOR_BUSY)

    @pytest.mark.requirement("7.2-a")
    def test_names_that_come_and_go_fill_no_memory(self) -> None:
        t = table(HOME)
        for number in range(10 * BLOCKS_MAX):
            t.blocked(f"dhcp4:wan{number}#1", 60.0 + number, "concentrator-nonsense")
        assert len(t._blocks) == BLOCKS_MAX
        assert t.block_of(f"dhcp4:wan{10 * BLOCKS_MAX - 1}#1", 60.0) is not None

    def test_a_block_does_not_pass_to_another_concentrator_of_that_name(self) -> None:
        t = table(HOME)
        t.blocked("home", 60, "concentrator-nonsense")
        t.configure(DiscoverySettings(), interfaces=("wan",), lines=LINES, concentrators=[HOME])
        assert t.usable(0) == (), "the same settings again change nothing"
        other = ConcentratorSettings(name="home", address=(ONE,))
        t.configure(DiscoverySettings(), interfaces=("wan",), lines=LINES, concentrators=[other])
        assert [c.addresses for c in t.usable(0)] == [(ONE,)]
        t.configure(DiscoverySettings(), interfaces=("wan",), lines=LINES, concentrators=[])
        t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
        t.blocked("dhcp4:wan#1", 60, "concentrator-nonsense")
        t.learn_dhcp("wan", 4, lease4((ONE,)), 5)
        assert t.usable(5) == (), "a renewal with the same list changes nothing"
        t.learn_dhcp("wan", 4, lease4((TWO,)), 6)
        assert [c.addresses for c in t.usable(6)] == [(TWO,)]


def test_status_is_json_and_holds_no_key() -> None:
    t = table(HOME)
    t.learn_dhcp("wan", 4, lease4((ONE,)), 0)
    text = json.dumps(t.status(0))
    assert "home" in text
    assert "s3cret-key" not in text
    assert "s3cret-key" not in repr(t.candidates(0))
