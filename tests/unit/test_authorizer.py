"""Who may use a concentrator, with time as an argument."""

from __future__ import annotations

from typing import Any

import pytest

from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.aaa.cookie import make_cookie as cookie_of
from cpe_mcp.aaa.cookie import make_handle, own_credential, time_of
from cpe_mcp.concentrator import authorizer as module
from cpe_mcp.concentrator.authorizer import SILENCE_S, AskRadius, Authorizer
from cpe_mcp.concentrator.verdict import Verdict, both
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings.concentrator import RadiusSettings, SubscriberSettings

pytestmark = pytest.mark.unit

ALICE = SubscriberSettings(name="alice", key="wonderland-and-back", address=("10.11.0.0/24", "2001:db8:11::/64"))
UNIX_S = 1.8e9
OFF = RadiusSettings()
ON = RadiusSettings(enabled=True, positive_s=600, negative_s=60)


def judge(
    authorizer: Authorizer,
    *,
    cookie: bytes = b"",
    needs: str = "address",
    address: str = "10.9.9.9",
    now: float = 0.0,
) -> Any:
    verdict = authorizer.judge(
        address=address, cookie=cookie, needs=needs, now=now, clock_s=UNIX_S + now, unix_s=UNIX_S + now
    )
    return verdict if isinstance(verdict, Verdict) else None


def make_cookie(name: str, key: str) -> bytes:
    return cookie_of(own_credential(name, key), UNIX_S)


@pytest.mark.requirement("X-16")
def test_a_cookie_made_with_the_key_is_enough_everywhere() -> None:
    authorizer = Authorizer([ALICE], OFF)
    for needs in ("cookie", "address"):
        verdict = judge(authorizer, cookie=make_cookie("alice", "wonderland-and-back"), needs=needs)
        assert (verdict.kind, verdict.subscriber) == ("accept", "alice")


@pytest.mark.requirement("X-4")
def test_the_cap_comes_with_the_verdict_from_table_and_radius() -> None:
    capped = SubscriberSettings(
        name="carl", key="long-enough-key", address=("10.12.0.0/24",), down_mbit=50.5, up_mbit=10
    )
    authorizer = Authorizer([ALICE, capped], ON)
    assert judge(authorizer, cookie=make_cookie("carl", "long-enough-key")).cap_mbit == (50.5, 10)
    assert judge(authorizer, address="10.12.0.9").cap_mbit == (50.5, 10)
    assert judge(authorizer, address="10.11.0.9").cap_mbit == (0, 0)
    assert judge(authorizer) is None
    verdict = authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", user="x", down_mbit=300), 0.0)
    assert verdict.cap_mbit == (300, 0)
    assert judge(authorizer, now=1.0).cap_mbit == (300, 0), "remembered"
    assert authorizer.learn("10.9.9.9", RadiusAnswer("reject", "", down_mbit=300), 2.0).cap_mbit == (0, 0)


def test_wrong_cookies() -> None:
    authorizer = Authorizer([ALICE, SubscriberSettings(name="gone", enabled=False, key="long-enough-key")], OFF)
    for cookie, reason in (
        (make_cookie("alice", "another-wonderland"), Reason.UNKNOWN_SUBSCRIBER),
        (make_cookie("alice", "wonderland-and-back")[:-1] + b"?", Reason.WRONG_COOKIE),
        (make_cookie("mallory", "wonderland-and-back"), Reason.UNKNOWN_SUBSCRIBER),
        (make_cookie("gone", "long-enough-key"), Reason.UNKNOWN_SUBSCRIBER),
        (b"nonsense", Reason.WRONG_COOKIE),
    ):
        verdict = judge(authorizer, cookie=cookie, address="10.11.0.5")
        assert (verdict.kind, verdict.reason) == ("reject", reason), "a wrong cookie is not mended by a known address"
        assert reason in TEXTS


@pytest.mark.requirement("X-16")
def test_the_internet_side_wants_a_cookie_whatever_the_address() -> None:
    for radius in (OFF, ON):
        verdict = judge(Authorizer([ALICE], radius), needs="cookie", address="10.11.0.5")
        assert (verdict.kind, verdict.reason) == ("missing-cookie", Reason.COOKIE_WANTED)
        assert time_of(verdict.cookie) == UNIX_S


@pytest.mark.parametrize("address", ["10.11.0.77", "2001:db8:11::1"])
def test_a_subscribers_prefix_on_the_customer_side(address: str) -> None:
    verdict = judge(Authorizer([ALICE], ON), address=address)
    assert (verdict.kind, verdict.subscriber) == ("accept", "alice")


def test_the_longest_prefix_names_the_subscriber() -> None:
    bob = SubscriberSettings(name="bob", address=("10.11.0.128/25",))
    assert judge(Authorizer([ALICE, bob], OFF), address="10.11.0.200").subscriber == "bob"


def test_nobody_by_default() -> None:
    verdict = judge(Authorizer([], OFF))
    assert (verdict.kind, verdict.reason) == ("reject", Reason.UNKNOWN_ADDRESS)


@pytest.mark.requirement("5.3-d")
def test_radius_is_asked_once_and_remembered() -> None:
    authorizer = Authorizer([], ON)
    assert judge(authorizer, now=0) is None
    learnt = authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", session_timeout_s=120.0, user="line-7"), 0)
    assert (learnt.kind, learnt.subscriber, learnt.ttl_s) == ("accept", "line-7", 120.0)
    assert judge(authorizer, now=100).ttl_s == pytest.approx(20)
    assert judge(authorizer, now=121) is None, "Session-Timeout is over"


def test_an_accept_without_session_timeout_holds_as_set() -> None:
    authorizer = Authorizer([], ON)
    authorizer.learn("10.9.9.9", RadiusAnswer("accept", ""), 0)
    assert judge(authorizer, now=599).subscriber == "10.9.9.9"
    assert judge(authorizer, now=601) is None


def test_a_session_timeout_of_nothing_is_a_short_one() -> None:
    authorizer = Authorizer([], ON)
    authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", session_timeout_s=0.0), 0)
    assert judge(authorizer, now=4).kind == "accept"
    assert judge(authorizer, now=5) is None


@pytest.mark.requirement("X-16")
def test_of_cookie_and_address_what_is_known_of_the_subscriber_himself_comes_first() -> None:
    proven = Verdict("accept", "line-7", 0.0, Reason.READY, (5.0, 0.0), 3)
    nobodys = Verdict("accept", "10.9.9.9", 60.0, Reason.READY, (20.0, 9.0), 0)
    verdict = both(proven, nobodys, "10.9.9.9")
    assert verdict == Verdict("accept", "line-7", 0.0, Reason.READY, (5.0, 9.0), 3)
    his = nobodys._replace(subscriber="line-7")
    assert both(proven, his, "10.9.9.9").cap_mbit == (20.0, 9.0), "AAA says it of him"
    ended = Verdict("reject", "", 0.0, Reason.WITHDRAWN)
    assert both(ended, his, "10.9.9.9") == ended


def test_a_reject_holds_for_a_while_and_a_silence_briefly() -> None:
    authorizer = Authorizer([], ON)
    authorizer.learn("10.9.9.9", RadiusAnswer("reject", "go away"), 0)
    assert judge(authorizer, now=59).reason == Reason.NOT_AUTHORIZED
    assert judge(authorizer, now=61) is None
    authorizer.learn("10.9.9.9", RadiusAnswer("timeout", "no answer"), 100)
    assert judge(authorizer, now=100 + SILENCE_S / 2).reason == Reason.AUTH_TIMEOUT
    assert judge(authorizer, now=101 + SILENCE_S) is None


def test_what_has_run_out_is_told_once() -> None:
    authorizer = Authorizer([], ON)
    authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", session_timeout_s=10.0), 0)
    assert [row["verdict"] for row in authorizer.status(5)] == ["accept"]
    assert authorizer.expired(5) == []
    assert authorizer.expired(11) == ["10.9.9.9"]
    assert authorizer.expired(11) == []


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_MAX", 3)
    monkeypatch.setattr(module, "REFUSALS_MAX", 2)
    authorizer = Authorizer([], ON)
    for host in range(5):
        authorizer.learn(f"10.9.9.{host}", RadiusAnswer("accept", ""), 0)
        authorizer.learn(f"10.8.8.{host}", RadiusAnswer("reject", ""), 0)
    addresses = [row["address"] for row in authorizer.status(1)]
    assert addresses == ["10.9.9.4", "10.9.9.3", "10.9.9.2", "10.8.8.4", "10.8.8.3"]
    assert [row["address"] for row in authorizer.status(1, 1)] == ["10.9.9.4", "10.8.8.4"]


@pytest.mark.requirement("5.3-d")
@pytest.mark.requirement("7.4-a")
def test_strangers_from_many_addresses_throw_no_subscriber_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_MAX", 50)
    monkeypatch.setattr(module, "REFUSALS_MAX", 50)
    authorizer = Authorizer([], ON)
    authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", user="line-7"), 0)
    for number in range(1000):
        verdict = "reject" if number % 2 else "timeout"
        authorizer.learn(f"10.66.{number // 250}.{number % 250}", RadiusAnswer(verdict, ""), 0)
    assert judge(authorizer, now=1).subscriber == "line-7"


def test_an_accept_is_renewed_before_its_end_and_silence_takes_nothing_back() -> None:
    authorizer = Authorizer([], ON)
    authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", session_timeout_s=100.0), 0)
    assert [authorizer.wants_renewal("10.9.9.9", now) for now in (0, 79, 80, 99, 100)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert not authorizer.wants_renewal("10.9.9.8", 80)
    kept = authorizer.learn("10.9.9.9", RadiusAnswer("timeout", ""), 90)
    assert (kept.kind, kept.ttl_s) == ("accept", 10)
    assert judge(authorizer, now=95).kind == "accept"
    assert authorizer.learn("10.9.9.9", RadiusAnswer("timeout", ""), 101).reason == Reason.AUTH_TIMEOUT
    assert authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", session_timeout_s=100.0), 110).kind == "accept"
    assert authorizer.learn("10.9.9.9", RadiusAnswer("reject", ""), 191).reason == Reason.NOT_AUTHORIZED
    assert judge(authorizer, now=192).kind == "reject", "a Reject takes back what held"


def test_who_was_accepted_is_known_for_a_day_after() -> None:
    authorizer = Authorizer([], ON)
    authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", session_timeout_s=10.0, user="line-7"), 0)
    authorizer.learn("10.9.9.8", RadiusAnswer("reject", ""), 0)
    assert authorizer.expired(11) == ["10.9.9.9"]
    assert judge(authorizer, now=12) is None
    assert authorizer.is_known("10.9.9.9")
    assert not authorizer.is_known("10.9.9.8")
    assert authorizer.addresses_of("line-7") == {"10.9.9.9"}
    assert authorizer.expired(11 + module.LAPSED_S) == ["10.9.9.8"], "told once"
    assert not authorizer.is_known("10.9.9.9")
    assert authorizer.addresses_of("line-7") == frozenset()


def test_other_settings_ask_anew_and_still_know_who_was_here() -> None:
    before, after = Authorizer([], ON), Authorizer([], ON)
    before.learn("10.9.9.9", RadiusAnswer("accept", "", user="line-7"), 0)
    after.inherit(before, 5)
    assert judge(after, now=6) is None
    assert after.addresses_of("line-7") == {"10.9.9.9"}
    assert after.expired(6) == [], "workers were told to forget all"


@pytest.mark.requirement("5.3-b")
def test_filters_end_with_the_session_that_had_them() -> None:
    authorizer = Authorizer([], ON)
    for host in range(4):
        answer = RadiusAnswer("accept", "", session_timeout_s=10.0 + 10 * host, filters=("gold",))
        authorizer.learn(f"10.9.9.{host}", answer, 0)
    assert authorizer.filters_of("10.9.9.0") == ("gold",)
    authorizer.expired(11)
    authorizer.learn("10.9.9.1", RadiusAnswer("reject", ""), 11)
    authorizer.learn("10.9.9.2", RadiusAnswer("accept", "", filters=("silver",)), 11)
    assert sorted(authorizer.take_unfiltered()) == ["10.9.9.0", "10.9.9.1"]
    assert authorizer.take_unfiltered() == []
    assert [authorizer.filters_of(f"10.9.9.{host}") for host in range(4)] == [(), (), ("silver",), ("gold",)]


@pytest.mark.requirement("5.6.7-a")
def test_filters_end_with_the_session_timeout_also_when_settings_were_read_again_meanwhile() -> None:
    before = Authorizer([], ON)
    before.learn("10.9.9.9", RadiusAnswer("accept", "", session_timeout_s=300.0, filters=("gold",)), 0)
    authorizer = Authorizer([], ON)
    authorizer.inherit(before, 100)
    authorizer.expired(299)
    assert authorizer.filters_of("10.9.9.9") == ("gold",)
    authorizer.expired(300)
    assert authorizer.take_unfiltered() == ["10.9.9.9"]
    assert authorizer.filters_of("10.9.9.9") == ()
    authorizer.unfilter_again(["10.9.9.9"])
    assert authorizer.take_unfiltered() == ["10.9.9.9"], "it could not be done the first time"


@pytest.mark.requirement("X-13")
def test_the_limit_of_connections_comes_with_the_verdict() -> None:
    carl = SubscriberSettings(name="carl", key="long-enough-key", connections=7)
    authorizer = Authorizer([ALICE, carl], ON)
    assert judge(authorizer, cookie=make_cookie("carl", "long-enough-key")).connections == 7
    assert judge(authorizer, cookie=make_cookie("alice", "wonderland-and-back")).connections == 0
    assert authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", connections=9), 0.0).connections == 9
    assert judge(authorizer, now=1.0).connections == 9


@pytest.mark.requirement("X-16")
def test_both_wants_the_cookie_and_the_address_of_the_same_subscriber() -> None:
    bob = SubscriberSettings(name="bob", key="the builder's long key", address=("10.12.0.0/24",))
    authorizer = Authorizer([ALICE, bob], OFF)

    def verdict(name: str, key: str, address: str) -> tuple[str, str]:
        cookie = make_cookie(name, key) if name else b""
        found = judge(authorizer, cookie=cookie, address=address, needs="both")
        return found.kind, found.reason

    assert verdict("alice", ALICE.key, "10.11.0.5") == ("accept", Reason.READY)
    assert verdict("alice", ALICE.key, "10.12.0.5") == ("reject", Reason.OTHER_SUBSCRIBER)
    assert verdict("alice", ALICE.key, "10.99.0.5") == ("reject", Reason.UNKNOWN_ADDRESS)
    assert verdict("alice", bob.key, "10.11.0.5") == ("reject", Reason.UNKNOWN_SUBSCRIBER)
    assert verdict("", "", "10.11.0.5") == ("missing-cookie", Reason.COOKIE_WANTED)


@pytest.mark.requirement("X-16")
def test_both_asks_radius_whose_address_it_is() -> None:
    authorizer = Authorizer([ALICE], ON)
    cookie = make_cookie("alice", ALICE.key)
    asked = authorizer.judge(address="10.9.9.9", cookie=cookie, needs="both", now=0.0, clock_s=UNIX_S, unix_s=UNIX_S)
    assert isinstance(asked, AskRadius)
    assert asked.proven is not None
    for user, outcome in (("alice", "accept"), ("", "accept"), ("bob", "reject")):
        learnt = authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", user=user, down_mbit=7), 0.0)
        found = both(asked.proven, learnt, "10.9.9.9")
        assert found.kind == outcome, f"RADIUS calls it {user!r}"
        if outcome == "accept":
            assert (found.subscriber, found.cap_mbit, found.ttl_s) == ("alice", (7, 0), 0.0)
    learnt = authorizer.learn("10.9.9.9", RadiusAnswer("reject", ""), 0.0)
    assert both(asked.proven, learnt, "10.9.9.9").reason == Reason.NOT_AUTHORIZED


@pytest.mark.requirement("Y-9")
def test_a_subscriber_by_handle_is_served_as_its_section_or_radius_says_and_not_when_switched_off() -> None:
    secret = "shared by the concentrators"
    rows = [SubscriberSettings(name="carl", address=("10.13.0.0/24",), down_mbit=3)]
    rows.append(SubscriberSettings(name="gone", enabled=False, key="long-enough-key"))
    authorizer = Authorizer(rows, ON, secret)
    authorizer.learn("10.9.9.9", RadiusAnswer("accept", "", user="dora", down_mbit=7, connections=5), 0.0)

    def verdict(name: str) -> Any:
        return judge(authorizer, cookie=cookie_of(make_handle(name, secret.encode(), UNIX_S + 60), UNIX_S))

    assert (verdict("carl").subscriber, verdict("carl").cap_mbit) == ("carl", (3, 0))
    assert (verdict("dora").cap_mbit, verdict("dora").connections) == ((7, 0), 5)
    assert (verdict("eve").kind, verdict("eve").cap_mbit) == ("accept", (0, 0))
    assert verdict("gone").reason == Reason.UNKNOWN_SUBSCRIBER
    assert verdict("eve").ttl_s == 0, "a cookie's verdict is of one connection"


def test_where_nobody_can_make_a_cookie_a_stranger_gets_a_plain_refusal() -> None:
    assert judge(Authorizer([ALICE], OFF), needs="cookie").kind == "missing-cookie"
    assert judge(Authorizer([], OFF), needs="cookie").kind == "reject"
