"""Whom to believe about concentrators: the policy, every pair of sources, and attackers who have one line."""

from __future__ import annotations

import itertools

import pytest

from cpe_mcp.discovery.candidates import CandidateTable, Line
from cpe_mcp.discovery.dhcp_options import DOMAIN_MAX, push_dhcp4, push_dhcp6
from cpe_mcp.discovery.lease import Lease
from cpe_mcp.discovery.trust import (
    AGAIN_S,
    CONFIRMED_MAX,
    CONFIRMED_S,
    SETTLE_S,
    SOURCES_MAX,
    Refusal,
    Refusals,
    Trust,
    Voice,
    are_independent,
)
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings import RouterSettings, SettingsError, load_router
from cpe_mcp.settings.router import ConcentratorSettings, DiscoverySettings, WanSettings
from cpe_mcp.upstream.control import lines_of

pytestmark = [pytest.mark.unit, pytest.mark.requirement("7.3-a")]

GOOD, OTHER, EVIL = "192.0.2.1", "192.0.2.2", "203.0.113.66"
GOOD6 = "2001:db8::1"
DSL, DSL6, LTE = Voice("dhcp", "dsl", family="dhcp4"), Voice("dhcp", "dsl", family="dhcp6"), Voice("dhcp", "lte")
NOWHERE = Voice("dhcp", "")
STATIC, RADIUS, DNSSEC, DNS = (Voice(source) for source in ("static", "radius", "dnssec", "dns"))
ALL = (STATIC, RADIUS, DNSSEC, DNS, DSL, DSL6, LTE, NOWHERE)
NONE = ("none",)


def is_trusted(*voices: Voice, **policy: tuple[str, ...]) -> bool:
    trust = Trust(DiscoverySettings(**policy))  # type: ignore[arg-type]
    return trust.trusted({voice: [GOOD] for voice in voices}, 0) == {GOOD}


@pytest.mark.parametrize("voice", ALL)
def test_one_source_by_the_default(voice: Voice) -> None:
    assert is_trusted(voice) == (voice in (STATIC, RADIUS, DNSSEC))


@pytest.mark.parametrize("voice", ALL)
def test_one_source_that_the_policy_trusts_alone(voice: Voice) -> None:
    assert is_trusted(voice, trust_alone=(voice.source,), second_source=NONE)
    others = tuple({row.source for row in ALL} - {voice.source})
    assert not is_trusted(voice, trust_alone=others)


ONE_ATTACKER = {(DSL, DSL6), *((dhcp, other) for dhcp in (DSL, DSL6, LTE) for other in (DNS, NOWHERE)), (DNS, NOWHERE)}
"""Pairs that one attacker can be: both families of a line; a line and its resolver; a line and one that nobody knows."""


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ALL, 2)))
def test_every_pair_of_sources_of_which_none_is_trusted_alone(first: Voice, second: Voice) -> None:
    independent = not {(first, second), (second, first)} & ONE_ATTACKER
    assert are_independent(first, second) == are_independent(second, first) == independent
    for confirms in ALL:
        is_second = confirms.source in (first.source, second.source)
        policy = {"trust_alone": NONE, "second_source": (confirms.source,)}
        assert is_trusted(first, second, **policy) == (independent and is_second)
    assert not is_trusted(first, second, trust_alone=NONE, second_source=NONE)


def test_dhcp_of_a_marked_wan_is_enough_and_of_no_other() -> None:
    assert is_trusted(DSL._replace(is_marked=True), trust_alone=NONE, second_source=("static",))
    marked = Trust(DiscoverySettings())
    assert marked.trusted({DSL._replace(is_marked=True): [GOOD], LTE: [EVIL]}, 0) == {GOOD}


class TestMemory:
    def test_an_agreement_outlives_a_line_that_is_down(self) -> None:
        trust = Trust(DiscoverySettings())
        assert trust.trusted({DSL: [GOOD], LTE: [GOOD]}, 0) == {GOOD}
        assert trust.trusted({LTE: [GOOD]}, 60) == {GOOD}
        assert trust.trusted({}, 61) == set(), "nobody names it"
        assert trust.trusted({LTE: [GOOD]}, CONFIRMED_S - 1) == {GOOD}
        assert trust.trusted({LTE: [GOOD]}, CONFIRMED_S) == set()

    def test_who_comes_back_with_another_word_ends_it(self) -> None:
        trust = Trust(DiscoverySettings())
        trust.trusted({DSL: [GOOD], LTE: [GOOD]}, 0)
        assert trust.trusted({DSL: [], LTE: [GOOD]}, 1) == set()
        assert trust.trusted({LTE: [GOOD]}, 2) == set()

    def test_an_attacker_cannot_make_it_grow(self) -> None:
        trust = Trust(DiscoverySettings())
        many = [f"10.0.{number // 256}.{number % 256}" for number in range(2 * CONFIRMED_MAX)]
        trust.trusted({DSL: many, LTE: many}, 0)
        assert len(trust.trusted({LTE: many}, 1)) == CONFIRMED_MAX


def lease(*mcps: tuple[str, ...]) -> Lease:
    return Lease(((224, push_dhcp4(mcps).hex()),), "", 600)


def table(*static: ConcentratorSettings, **settings: object) -> CandidateTable:
    lines = {"dsl": Line("dsl"), "dsl6": Line("dsl"), "lte": Line("lte")}
    discovery = DiscoverySettings(**settings)  # type: ignore[arg-type]
    return CandidateTable(discovery, interfaces=tuple(lines), lines=lines, concentrators=static)


def addresses(t: CandidateTable, now: float = 0.0) -> list[tuple[str, ...]]:
    return [candidate.addresses for candidate in t.candidates(now)]


class TestTable:
    def test_a_rogue_on_one_line_is_refused_and_shown(self) -> None:
        t = table()
        t.learn_dhcp("dsl", 4, lease((EVIL,)), 0)
        t.learn_dhcp("lte", 4, lease((GOOD,)), 0)
        assert addresses(t) == []
        assert t.refused(0) == [Refusal("dhcp4", "dsl", (EVIL,)), Refusal("dhcp4", "lte", (GOOD,))]
        evil, good = t.status(0)["sources"]
        assert (evil["unconfirmed"], evil["reason"], evil["used"]) == ([EVIL], "unconfirmed", False)
        assert (good["unconfirmed"], good["used"]) == ([GOOD], False)

    def test_both_families_of_one_line_do_not_confirm_each_other(self) -> None:
        mapped = push_dhcp6((f"::ffff:{EVIL}",))
        passthru = (65001).to_bytes(2, "big") + len(mapped).to_bytes(2, "big") + mapped
        t = table()
        t.learn_dhcp("dsl", 4, lease((EVIL,)), 0)
        t.learn_dhcp("dsl6", 6, Lease((), passthru.hex(), 600), 0)
        assert addresses(t) == []

    def test_a_rogue_address_cannot_ride_on_a_good_one(self) -> None:
        t = table()
        t.learn_dhcp("dsl", 4, lease((EVIL, GOOD)), 0)
        t.learn_dhcp("lte", 4, lease((GOOD, OTHER), (OTHER,)), 0)
        assert addresses(t) == [(GOOD,)]

    def test_radius_confirms_dhcp_where_neither_is_enough(self) -> None:
        t = table(trust_alone=NONE, precedence=("dhcp", "radius"))
        t.learn_dhcp("dsl", 4, lease((EVIL,), (GOOD,)), 0)
        t.learn_radius([((GOOD, GOOD6), 0)], None)
        assert [(c.name, c.addresses) for c in t.candidates(0)] == [("dhcp4:dsl#2", (GOOD,))]

    def test_radius_alone_is_used_and_the_rogue_still_shown(self) -> None:
        t = table()
        t.learn_dhcp("dsl", 4, lease((EVIL,)), 0)
        t.learn_radius([((GOOD,), 0)], None)
        assert addresses(t) == [(GOOD,)]
        assert t.refused(0) == [Refusal("dhcp4", "dsl", (EVIL,))]

    def test_a_source_that_is_not_asked_confirms_nothing(self) -> None:
        t = table(trust_alone=NONE, precedence=("dhcp",))
        t.learn_dhcp("dsl", 4, lease((GOOD,)), 0)
        t.learn_radius([((GOOD,), 0)], None)
        assert addresses(t) == []

    def test_static_ones_wait_for_a_second_source_where_the_policy_says_so(self) -> None:
        t = table(ConcentratorSettings("home", address=(GOOD, OTHER)), trust_alone=NONE)
        assert (addresses(t), t.refused(0)) == ([], [Refusal("static", "home", (GOOD, OTHER))])
        t.learn_radius([((OTHER,), 0)], None)
        assert addresses(t) == [(OTHER,)]

    def test_other_settings_forget_what_was_agreed(self) -> None:
        t = table()
        t.learn_dhcp("dsl", 4, lease((GOOD,)), 0)
        t.learn_dhcp("lte", 4, lease((GOOD,)), 0)
        assert addresses(t) == [(GOOD,)]
        t.interface_changed("dsl", up=False)
        assert addresses(t) == [(GOOD,)]
        discovery = DiscoverySettings(second_source=("radius",))
        lines = {"dsl": Line("dsl"), "lte": Line("lte")}
        t.configure(discovery, interfaces=tuple(lines), lines=lines, concentrators=())
        assert addresses(t) == []


NAME = "_convert._tcp.operator.example"
DOMAIN = Lease(((225, b"Operator.example".hex()),), "", 600)


class TestNamesFromDhcp:
    """Option 225: the addresses come from DNS, the name from whoever answers DHCP."""

    def test_a_signed_name_is_worth_as_much_as_who_gave_it(self) -> None:
        t = table()
        t.learn_dhcp("dsl", 4, DOMAIN, 0)
        assert t.dns_names(0) == (NAME,)
        t.learn_dns(NAME, [((EVIL,), 5124)], 100.0, dnssec=Reason.DNSSEC_VALID)
        assert addresses(t) == [], "an attacker may own a name, and sign it"
        assert t.refused(0) == [Refusal("dns", NAME, (EVIL,))]
        t.learn_dhcp("lte", 4, DOMAIN, 0)
        assert addresses(t) == [(EVIL,)], "both lines gave it"

    def test_two_lines_that_gave_it_are_not_enough_without_signatures(self) -> None:
        t = table()
        for line in ("dsl", "lte"):
            t.learn_dhcp(line, 4, DOMAIN, 0)
        t.learn_dns(NAME, [((EVIL,), 5124)], 100.0, dnssec=Reason.DNSSEC_UNSIGNED)
        assert addresses(t) == []

    def test_a_name_of_the_settings_stays_trusted_alone(self) -> None:
        t = table(dns_name=(NAME,))
        t.learn_dhcp("dsl", 4, DOMAIN, 0)
        assert t.dns_names(0) == (NAME,)
        t.learn_dns(NAME, [((GOOD,), 5124)], 100.0, dnssec=Reason.DNSSEC_VALID)
        assert addresses(t) == [(GOOD,)]

    def test_a_marked_line_s_name_is_enough_when_it_is_signed(self) -> None:
        lines = {"dsl": Line("dsl", is_trusted=True)}
        t = CandidateTable(DiscoverySettings(), interfaces=("dsl",), lines=lines)
        t.learn_dhcp("dsl", 4, DOMAIN, 0)
        t.learn_dns(NAME, [((GOOD,), 5124)], 100.0, dnssec=Reason.DNSSEC_UNSIGNED)
        assert addresses(t) == []
        t.learn_dns(NAME, [((GOOD,), 5124)], 100.0, dnssec=Reason.DNSSEC_VALID)
        assert addresses(t) == [(GOOD,)]

    def test_it_ends_with_the_lease_and_is_forgotten_with_the_answer(self) -> None:
        t = table(trust_alone=("dns",))
        t.learn_dhcp("dsl", 4, DOMAIN, 0)
        t.learn_dns(NAME, [((GOOD,), 5124)], 9000.0)
        assert addresses(t, 599) == [(GOOD,)]
        assert addresses(t, 600) == []
        assert t.dns_names(600) == ()
        for number in range(50):
            t.learn_dhcp("dsl", 4, Lease(((225, f"d{number}.example".encode().hex()),), "", 600), 0)
            t.learn_dns(f"_convert._tcp.d{number}.example", [((GOOD,), 5124)], 9000.0)
        assert len(t.status(0)["sources"]) == 2, "the DHCP answer, and what DNS says under its name"
        t.learn_dhcp("dsl", 4, None, 0)
        assert (t.status(0)["sources"], t.dns_names(0)) == ([], ())

    def test_one_that_leaves_no_room_for_the_service_is_discarded(self) -> None:
        """A name in DNS has 253 characters at most."""
        longest = ".".join([*(["a" * 59] * 3), "a" * (DOMAIN_MAX - 180)])
        assert len(longest) == DOMAIN_MAX
        for domain, expected in ((longest, (f"_convert._tcp.{longest}",)), (f"a{longest}", ())):
            t = table()
            t.learn_dhcp("dsl", 4, Lease(((225, domain.encode().hex()),), "", 600), 0)
            assert t.dns_names(0) == expected
        assert "DHCPv4 option 225: a domain of 240 characters is too long" in t.status(0)["sources"][0]["discarded"]

    @pytest.mark.parametrize(
        "value",
        [b"", b"example", b"a b.example", b"-a.example", b"x" * 64 + b".example", b"\xff.example", b"a..example"],
    )
    def test_what_is_no_domain_is_discarded(self, value: bytes) -> None:
        t = table()
        t.learn_dhcp("dsl", 4, Lease(((225, value.hex()),), "", 600), 0)
        assert t.dns_names(0) == ()
        assert "is not a domain name" in t.status(0)["sources"][0]["discarded"]

    def test_another_code_is_a_setting_and_0_is_none(self) -> None:
        for code, expected in ((226, ()), (0, ())):
            t = table(dhcp4_name_code=code)
            t.learn_dhcp("dsl", 4, DOMAIN, 0)
            assert t.dns_names(0) == expected


class TestTelling:
    REFUSAL = Refusal("dhcp4", "dsl", (EVIL,))

    def test_once_and_not_before_it_has_lasted(self) -> None:
        refusals = Refusals()
        assert refusals.look([self.REFUSAL], 0) == []
        assert refusals.next_change(0) == SETTLE_S
        assert refusals.look([self.REFUSAL], SETTLE_S) == [self.REFUSAL]
        assert refusals.look([self.REFUSAL], SETTLE_S + 1) == []
        assert refusals.next_change(SETTLE_S + 1) is None
        assert list(refusals.shown) == [self.REFUSAL]
        assert refusals.look([], SETTLE_S + 2) == []
        assert list(refusals.shown) == []

    def test_not_at_all_when_the_second_source_was_only_late(self) -> None:
        refusals = Refusals()
        refusals.look([self.REFUSAL], 0)
        refusals.look([], 2)
        assert refusals.look([self.REFUSAL], SETTLE_S) == []

    def test_a_source_that_names_another_address_each_time_is_told_seldom(self) -> None:
        refusals = Refusals()
        told = []
        for number in range(200):
            told += refusals.look([Refusal("dhcp4", "dsl", (f"10.0.0.{number}",))], 15.0 * number)
            told += refusals.look([Refusal("dhcp4", "dsl", (f"10.0.0.{number}",))], 15.0 * number + SETTLE_S)
        assert 0 < len(told) <= 1 + 200 * 15 / AGAIN_S

    def test_a_server_that_names_another_domain_each_time_silences_nobody_for_ever(self) -> None:
        refusals = Refusals()
        many = [Refusal("dns", f"_convert._tcp.{number}.example", (EVIL,)) for number in range(SOURCES_MAX)]
        assert refusals.look(many, 0) == []
        assert refusals.look(many, SETTLE_S) == many
        assert refusals.look([self.REFUSAL], 2 * SETTLE_S) == []
        assert refusals.look([self.REFUSAL], 3 * SETTLE_S) == [], "no log is filled"
        due = refusals.next_change(3 * SETTLE_S)
        assert due == SETTLE_S + AGAIN_S
        assert refusals.look([self.REFUSAL], due) == [self.REFUSAL]
        assert refusals.look([self.REFUSAL], due + AGAIN_S) == [], "it goes on, and was told"


def test_lines_are_those_of_the_wans_and_their_ipv6_twins() -> None:
    settings = RouterSettings(
        wans=(WanSettings("dsl", device="eth1", interface="wan"), WanSettings("lte", device="wwan0", trust_dhcp=True)),
        discovery=DiscoverySettings(interface=("wan", "wan6", "wan_6", "lte", "guest")),
    )
    assert lines_of(settings) == {
        "wan": Line("dsl"),
        "wan6": Line("dsl"),
        "wan_6": Line("dsl"),
        "lte": Line("lte", is_trusted=True),
    }


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["list trust_alone 'none'", "list second_source 'none'"], "second_source.*no concentrator could ever be used"),
        (["list trust_alone 'none'", "list trust_alone 'radius'"], "trust_alone.*'none' is not allowed together"),
        (["list second_source 'dhcp'", "list second_source 'dhcp'"], "second_source.*'dhcp' is in the list twice"),
        (["list trust_alone 'ldap'"], "trust_alone.*'ldap'"),
        (["option dhcp4_name_code '224'"], "dhcp4_name_code.*is dhcp4_code already"),
        (["option dhcp4_name_code '15'"], "dhcp4_name_code.*from 224 to 254, or 0"),
        (["option dhcp4_name_code '252'"], "dhcp4_name_code.*proxy autodiscovery"),
    ],
)
def test_a_policy_that_cannot_be_names_the_option(tmp_path, lines: list[str], complaint: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "cpe-mcp"
    path.write_text("config discovery 'discovery'\n\t" + "\n\t".join(lines) + "\n")
    with pytest.raises(SettingsError, match=complaint):
        load_router(str(path))
