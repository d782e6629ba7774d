"""A subscriber's limit of connections: counted in each worker, told between them."""

from __future__ import annotations

import pytest

from cpe_mcp.concentrator.connection_counts import ConnectionCounts
from cpe_mcp.relay.connection_limits import ConnectionLimits

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-13")]


def test_the_limit_is_a_subscribers_own() -> None:
    limits = ConnectionLimits()
    assert [limits.take("alice", 2) for _ in range(3)] == [True, True, False]
    assert limits.take("bob", 1)
    limits.give_back("alice")
    assert limits.take("alice", 2)
    assert limits.take("alice", 3), "another limit, which came with another verdict"
    assert not limits.take("alice", 1)


def test_what_other_workers_have_counts() -> None:
    limits = ConnectionLimits()
    limits.set_elsewhere({"alice": 2, "bob": 5})
    assert not limits.take("alice", 2)
    assert limits.take("alice", 3)
    limits.set_elsewhere({"alice": 0})
    assert limits.take("alice", 2)
    assert not limits.take("bob", 5)


def test_only_news_are_told_and_everything_to_a_new_daemon() -> None:
    limits = ConnectionLimits()
    limits.take("alice", 5)
    limits.take("alice", 5)
    limits.take("bob", 5)
    limits.take("carl", 0)
    assert limits.news() == {"alice": 2, "bob": 1}, "carl has no limit"
    assert limits.news() == {}
    limits.give_back("bob")
    limits.give_back("carl")
    assert limits.news() == {"bob": 0}
    limits.set_elsewhere({"alice": 9})
    limits.forget_told()
    assert limits.news() == {"alice": 2}
    assert limits.take("alice", 3), "what the daemon before had said is no longer believed"


def test_a_limit_that_comes_later_counts_what_runs() -> None:
    limits = ConnectionLimits()
    for _ in range(3):
        assert limits.take("alice", 0)
    assert not limits.take("alice", 3)
    assert limits.news() == {"alice": 3}
    other = ConnectionLimits()
    other.take("alice", 0)
    other.set_elsewhere({"alice": 3, "bob": 1})
    assert other.news() == {"alice": 1}, "the limit came to another worker; bob has nothing here"
    assert not other.take("alice", 4)


def test_counts_of_the_others() -> None:
    counts = ConnectionCounts()
    counts.report(1, {"alice": 3, "bob": 1})
    counts.report(2, {"alice": 2})
    assert counts.elsewhere(1, ["alice", "bob"]) == {"alice": 2, "bob": 0}
    assert counts.elsewhere(3, ["alice", "carl"]) == {"alice": 5, "carl": 0}
    counts.report(1, {"alice": 0})
    assert counts.elsewhere(2, ["alice"]) == {"alice": 0}
    assert list(counts.forget_worker(2)) == ["alice"]
    assert list(counts.names()) == ["bob"]
    counts.report(1, {"bob": 0, "nobody": 0})
    assert list(counts.names()) == [], "nothing is kept of who has none"
