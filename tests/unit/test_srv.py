"""SRV records to an ordered list, resolvers from netifd's file, and what a table of candidates makes of DNS."""

from __future__ import annotations

import collections
import random

import pytest

from cpe_mcp.discovery.candidates import CandidateTable
from cpe_mcp.discovery.dns_source import Resolver, parse_resolvers
from cpe_mcp.discovery.srv import RECORDS_MAX, Srv, mcps_of, ordered
from cpe_mcp.settings.router import ConcentratorSettings, DiscoverySettings

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.1-a")]

NAME = "_mptcp-convert._tcp.example.net"
A, B, C = "198.51.100.1", "198.51.100.2", "2001:db8:5::3"
HOME = ConcentratorSettings("home", address=("203.0.113.1",))


def test_lower_priority_first_and_chance_by_weight_within_one() -> None:
    records = [Srv(20, 0, 1, "spare."), Srv(10, 90, 1, "large."), Srv(10, 10, 1, "small."), Srv(10, 0, 1, "tiny.")]
    chance = random.Random(1)
    firsts = collections.Counter(ordered(records, lambda most: chance.randint(0, most))[0].target for _ in range(4000))
    assert set(firsts) == {"large.", "small.", "tiny."}
    assert 0.85 < firsts["large."] / 4000 < 0.95
    assert 0.05 < firsts["small."] / 4000 < 0.15
    assert firsts["tiny."] < 120
    order = [row.target for row in ordered(records, lambda most: most)]
    assert order == ["large.", "small.", "tiny.", "spare."]


def test_of_thousands_of_records_the_best_are_put_in_order() -> None:
    records = [Srv(10, weight, 1, f"t{weight}.") for weight in range(3000)] + [Srv(5, 0, 1, "best.")]
    order = ordered(records, lambda most: 0)
    assert len(order) == RECORDS_MAX
    assert order[0].target == "best."
    assert {row.weight for row in order[1:]} == set(range(3000 - RECORDS_MAX + 1, 3000))


def test_a_lone_dot_means_no_service() -> None:
    assert ordered([Srv(0, 0, 0, ".")], lambda most: 0) == []


def test_targets_become_mcps_without_addresses_that_cannot_be() -> None:
    records = [Srv(1, 0, 5124, "a."), Srv(2, 0, 5125, "b."), Srv(3, 0, 5124, "gone."), Srv(4, 0, 0, "a.")]
    addresses = {"a.": [A, "127.0.0.1", C], "b.": ["224.0.0.1", "fe80::1", "0.0.0.0"]}
    assert mcps_of(records, addresses) == (((A, C), 5124),)


def test_resolvers_with_the_interface_that_named_them() -> None:
    wan = "# Interface wan\nnameserver 192.0.2.53\nsearch lan\n"
    text = f"{wan}# Interface wan6\nnameserver 2001:db8::53\nnameserver fe80::1%eth1\n"
    assert parse_resolvers(text) == [Resolver("192.0.2.53", "wan"), Resolver("2001:db8::53", "wan")]
    assert parse_resolvers("nameserver 127.0.0.1\n") == [Resolver("127.0.0.1")]


TRUST = ("static", "radius", "dns")
"""Whom to believe is test_trust.py's."""


def table(*concentrators: ConcentratorSettings, **settings: object) -> CandidateTable:
    discovery = DiscoverySettings(dns_name=(NAME,), trust_alone=TRUST, **settings)  # type: ignore[arg-type]
    return CandidateTable(discovery, interfaces=("wan",), concentrators=concentrators)


def names(t: CandidateTable, now: float = 0.0) -> list[str]:
    return [candidate.name for candidate in t.candidates(now)]


def test_dns_comes_last_unless_the_settings_say_otherwise() -> None:
    t = table(HOME)
    t.learn_dns(NAME, [((A, C), 5999), ((B,), 5124)], 100.0)
    assert names(t) == ["home"]
    discovery = DiscoverySettings(dns_name=(NAME,), precedence=("dns", "static"), trust_alone=TRUST)
    t.configure(discovery, interfaces=(), concentrators=(HOME,))
    assert names(t) == [f"dns:{NAME}#1", f"dns:{NAME}#2"]
    first = t.candidates(0.0)[0]
    assert (first.addresses, first.port, first.source, first.interface) == ((A, C), 5999, "dns", "")
    assert names(t, 100.0) == ["home"], "its time is over"


@pytest.mark.requirement("7.3-a")
def test_a_name_that_is_not_set_is_not_learnt_and_one_that_was_taken_out_is_forgotten() -> None:
    t = table()
    t.learn_dns("_else._tcp.example.org", [((A,), 5124)], 100.0)
    assert names(t) == []
    t.learn_dns(NAME, [((A,), 5124)], 100.0)
    t.configure(DiscoverySettings(), interfaces=(), concentrators=())
    assert (names(t), t.status(0.0)["sources"]) == ([], [])


def test_a_failure_keeps_the_last_answer_to_its_end_and_says_why() -> None:
    t = table()
    t.dns_failed(NAME, "192.0.2.53 over wan does not answer")
    assert names(t) == []
    t.learn_dns(NAME, [((A,), 5124)], 50.0)
    t.dns_failed(NAME, "192.0.2.53 over wan does not answer")
    assert names(t, 49.0) == [f"dns:{NAME}#1"]
    (source,) = t.status(49.0)["sources"]
    assert (source["source"], source["interface"], source["used"]) == ("dns", NAME, True)
    assert source["discarded"] == "192.0.2.53 over wan does not answer"
    assert names(t, 50.0) == []


def test_an_answer_without_records_withdraws() -> None:
    t = table()
    t.learn_dns(NAME, [((A,), 5124)], 50.0)
    t.learn_dns(NAME, [], 50.0)
    assert names(t) == []


def test_a_source_that_is_left_out_is_not_used() -> None:
    t = table(precedence=("static", "radius"))
    t.learn_dns(NAME, [((A,), 5124)], 50.0)
    assert names(t) == []


@pytest.mark.requirement("5.6.3-b")
def test_a_dedicated_static_one_does_not_hide_what_others_name_for_everybody() -> None:
    gaming = ConcentratorSettings("near", address=(B,), service_class=("gaming",))
    t = table(gaming)
    t.learn_radius([((A,), 0)], None)
    t.learn_dns(NAME, [((C,), 5124)], 50.0)
    assert names(t) == ["near", "radius#1"]


@pytest.mark.requirement("5.6.3-b")
def test_radius_dedicates_one_by_its_address() -> None:
    t = table()
    t.learn_radius([((A, C), 0), ((B,), 0)], None, [("gaming", B), ("video", B), ("lost", "192.0.2.250")])
    assert [row.service_class for row in t.candidates(0.0)] == [(), ("gaming", "video")]
