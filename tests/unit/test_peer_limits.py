"""What a worker lets peers make it do: rates, and how many strangers it holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cpe_mcp.relay import limits
from cpe_mcp.relay.limits import PeerLimits, Rate, Rates, Strangers, prefix_of
from cpe_mcp.settings.concentrator import LimitSettings

pytestmark = [pytest.mark.unit, pytest.mark.requirement("7.2-a")]


def test_a_rate_gives_its_burst_and_then_so_many_a_second() -> None:
    rate = Rate(10)
    assert sum(rate.takes(100.0) for _ in range(100)) == 20
    assert sum(rate.takes(101.0) for _ in range(100)) == 10
    assert sum(rate.takes(200.0) for _ in range(100)) == 20, "no more than a burst is saved"


def test_a_rate_of_nothing_and_a_small_one() -> None:
    assert not Rate(0).takes(5.0)
    slow = Rate(0.25)
    assert [slow.takes(now) for now in (10.0, 11.0, 14.0)] == [True, False, True]


def test_as_many_rates_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEYS_MAX", 10)
    rates = Rates(1)
    assert [rates.takes("noisy", 0.0) for _ in range(3)] == [True, True, False]
    for number in range(1000):
        rates.takes(number, 0.0)
        assert not rates.takes("noisy", 0.0), "who goes on is not forgotten"
    assert len(rates) == 10


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8:0:1::1", "2001:db8:0:ff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:100::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("0.0.0.0", "::", False),
    ],
)
def test_prefixes(one: str, other: str, is_same: bool) -> None:
    assert (prefix_of(one, 24, 56) == prefix_of(other, 24, 56)) is is_same


@pytest.fixture
def strangers() -> Strangers[str]:
    strangers: Strangers[str] = Strangers()
    strangers.total_max, strangers.prefix_max = 4, 2
    return strangers


def test_the_oldest_of_a_prefix_goes_first(strangers: Strangers[str]) -> None:
    assert strangers.add("a1", b"a", is_known=False) is None
    assert strangers.add("b1", b"b", is_known=False) is None
    assert strangers.add("a2", b"a", is_known=False) is None
    assert strangers.add("a3", b"a", is_known=False) == ("a1", "prefix")


def test_the_oldest_goes_when_there_are_too_many_but_subscribers_addresses_last(strangers: Strangers[str]) -> None:
    strangers.add("subscriber", b"s", is_known=True)
    for name in ("a", "b", "c"):
        assert strangers.add(name, name.encode(), is_known=False) is None
    for name, goes in (("d", "a"), ("e", "b"), ("f", "c"), ("g", "d")):
        assert strangers.add(name, name.encode(), is_known=False) == (goes, "total")
        strangers.discard(goes)
        assert len(strangers) == 4
    assert "subscriber" in strangers


def test_nothing_is_kept_of_who_has_gone(strangers: Strangers[str]) -> None:
    for number in range(1000):
        strangers.add(str(number), str(number).encode(), is_known=bool(number % 2))
        strangers.discard(str(number))
        strangers.discard(str(number))
    assert (strangers._items, strangers._by_prefix, strangers._unknown) == ({}, {}, {})


def peers(**settings: Any) -> PeerLimits:
    found = PeerLimits()
    found.configure({**dataclasses.asdict(LimitSettings()), "mark": 0, **settings})
    return found


def test_a_prefix_that_asks_too_much_takes_nothing_from_others() -> None:
    found = peers(question_rate=20, question_prefix_rate=10)
    got = [found.question(b"noisy", 0.0, is_known=False) for _ in range(1000)]
    assert (got.count(""), got.count(limits.QUESTIONS_PREFIX)) == (20, 980)
    assert found.question(b"other", 0.0, is_known=False) == ""


def test_many_prefixes_together_have_a_limit_that_subscribers_addresses_have_no_part_in() -> None:
    found = peers(question_rate=20)
    got = [found.question(str(number).encode(), 0.0, is_known=False) for number in range(1000)]
    assert (got.count(""), got.count(limits.QUESTIONS)) == (40, 960)
    assert found.question(b"subscriber", 0.0, is_known=True) == ""


def test_errors_are_limited_by_prefix_and_together() -> None:
    found = peers(error_rate=10, error_prefix_rate=2)
    got = [found.error(bytes([prefix]), 0.0, is_known=False) for prefix in range(10) for _ in range(10)]
    assert got.count("") == 20
    assert got.count(limits.ERRORS_PREFIX) == 60
    assert got.count(limits.ERRORS) == 20


@pytest.mark.requirement("X-16")
def test_a_router_that_lost_its_clock_is_told_the_time_however_many_others_ask() -> None:
    """At an address where its subscriber was served, Error 3 has a share of its own."""
    found = peers(error_rate=10, error_prefix_rate=2)
    while found.error(b"noisy", 0.0, is_known=False) != limits.ERRORS_PREFIX or found.error(
        b"other", 0.0, is_known=False
    ):
        pass
    got = [found.error(b"noisy", 0.0, is_known=True) for _ in range(100)]
    assert got.count("") == limits.KNOWN_FACTOR * 2 * limits.BURST_S
    assert set(got[-1:]) == {limits.ERRORS_PREFIX}
    assert found.error(b"another", 0.0, is_known=True) == ""
    assert peers(error_prefix_rate=0).error(b"p", 0.0, is_known=True) == limits.ERRORS_PREFIX


def test_a_subscribers_flows_are_limited_in_rate_and_number() -> None:
    found = peers(subscriber_rate=5, subscriber_connections=3)
    assert [found.flow("alice", 0, 0.0, has_own_limit=False) for _ in range(11)] == [""] * 10 + [limits.SUBSCRIBER_RATE]
    assert found.flow("bob", 0, 0.0, has_own_limit=False) == ""
    assert found.flow("bob", 3, 0.0, has_own_limit=False) == limits.SUBSCRIBER_CONNECTIONS
    assert found.flow("bob", 3, 0.0, has_own_limit=True) == "", "its own limit is asked elsewhere"
    assert peers(subscriber_rate=0, subscriber_connections=0).flow("bob", 10**6, 0.0, has_own_limit=False) == ""


def test_the_same_settings_again_forget_nothing() -> None:
    found = peers(error_prefix_rate=1)
    while not found.error(b"p", 0.0, is_known=False):
        pass
    found.configure({**dataclasses.asdict(LimitSettings()), "mark": 0, "error_prefix_rate": 1})
    assert found.error(b"p", 0.0, is_known=False) == limits.ERRORS_PREFIX


@pytest.mark.requirement("X-16")
def test_each_cookie_of_a_subscriber_is_a_question_and_strangers_of_the_prefix_take_none_of_them() -> None:
    found = peers(question_prefix_rate=10)
    for _ in range(1000):
        found.question(b"noisy", 0.0, is_known=False)
    got = [found.question(b"noisy", 0.0, is_known=True) for _ in range(1000)]
    assert got.count("") == limits.KNOWN_FACTOR * 10 * limits.BURST_S
