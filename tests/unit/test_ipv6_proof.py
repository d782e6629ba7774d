"""Trust in a concentrator's IPv6: how many failures take it away, and what gives it back."""

from __future__ import annotations

import pytest

from cpe_mcp.policy.ipv6_proof import CONCENTRATORS_MAX, DISTRUST_S, FAILURES, Ipv6Proof

pytestmark = pytest.mark.unit

SERVERS = [f"2001:db8::{number}" for number in range(1, FAILURES + 1)]


def distrusted(now: float = 100.0) -> Ipv6Proof:
    proof = Ipv6Proof()
    for server in SERVERS:
        proof.unreachable("far", server, now)
    return proof


def test_it_is_trusted_at_first() -> None:
    assert Ipv6Proof().reaches("far", 0.0)


def test_the_last_of_the_failures_takes_trust_away_not_the_one_before() -> None:
    proof = Ipv6Proof()
    for server in SERVERS[:-1]:
        proof.unreachable("far", server, 100.0)
        assert proof.reaches("far", 100.0)
    proof.unreachable("far", SERVERS[-1], 100.0)
    assert not proof.reaches("far", 100.0)


def test_one_server_that_is_down_counts_once() -> None:
    proof = Ipv6Proof()
    for _ in range(10 * FAILURES):
        proof.unreachable("far", SERVERS[0], 100.0)
    assert proof.reaches("far", 100.0)


def test_a_server_that_was_reached_starts_the_count_again() -> None:
    proof = Ipv6Proof()
    for server in SERVERS[:-1]:
        proof.unreachable("far", server, 100.0)
    proof.reached("far")
    proof.unreachable("far", SERVERS[-1], 100.0)
    assert proof.reaches("far", 100.0)


def test_distrust_ends_at_its_time_and_not_before() -> None:
    proof = distrusted(100.0)
    assert not proof.reaches("far", 100.0 + DISTRUST_S - 0.001)
    assert proof.reaches("far", 100.0 + DISTRUST_S)


def test_after_that_one_failure_is_not_enough_again() -> None:
    proof = distrusted(100.0)
    later = 101.0 + DISTRUST_S
    proof.unreachable("far", SERVERS[0], later)
    assert proof.reaches("far", later)


def test_a_reached_server_ends_distrust_at_once() -> None:
    proof = distrusted()
    proof.reached("far")
    assert proof.reaches("far", 100.0)
    assert proof.next_change(100.0) is None


def test_concentrators_are_judged_apart() -> None:
    proof = distrusted()
    assert proof.reaches("near", 100.0)
    proof.reached("near")
    assert not proof.reaches("far", 100.0)


def test_another_concentrator_under_the_same_name_is_trusted_at_first() -> None:
    proof = Ipv6Proof()
    proof.keep({"radius#1": ["192.0.2.1", "2001:db8::11"]})
    for server in SERVERS:
        proof.unreachable("radius#1", server, 100.0)
    proof.keep({})
    proof.keep({"radius#1": ["2001:db8::11"]})
    assert not proof.reaches("radius#1", 100.0), "it is the same, known by less"
    proof.keep({"radius#1": ["192.0.2.2"]})
    assert proof.reaches("radius#1", 100.0)
    for server in SERVERS[:-1]:
        proof.unreachable("radius#1", server, 100.0)
    proof.keep({"radius#1": ["192.0.2.3"]})
    proof.unreachable("radius#1", SERVERS[-1], 100.0)
    assert proof.reaches("radius#1", 100.0), "nor do failures of the one before count"


def test_the_next_change_is_the_earliest_end_of_distrust_to_come() -> None:
    proof = distrusted(100.0)
    for server in SERVERS:
        proof.unreachable("near", server, 50.0)
    assert proof.next_change(100.0) == 50.0 + DISTRUST_S
    assert proof.next_change(50.0 + DISTRUST_S) == 100.0 + DISTRUST_S
    assert proof.next_change(100.0 + DISTRUST_S) is None
    assert Ipv6Proof().next_change(0.0) is None


@pytest.mark.requirement("7.2-a")
def test_names_that_come_and_go_fill_no_memory() -> None:
    proof = Ipv6Proof()
    for number in range(10 * CONCENTRATORS_MAX):
        for server in SERVERS:
            proof.unreachable(f"concentrator-{number}", server, 100.0)
        proof.unreachable(f"other-{number}", SERVERS[0], 100.0)
    assert (len(proof._failed), len(proof._until)) == (CONCENTRATORS_MAX, CONCENTRATORS_MAX)
    assert not proof.reaches(f"concentrator-{10 * CONCENTRATORS_MAX - 1}", 100.0), "the latest are remembered"
