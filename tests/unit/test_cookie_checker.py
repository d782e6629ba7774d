"""Which cookies a concentrator takes, with times as arguments."""

from __future__ import annotations

import pytest

from cpe_mcp.aaa.cookie import (
    EPOCH_S,
    EXPIRY_OCTETS,
    SEED_OCTETS,
    make_cookie,
    make_handle,
    own_credential,
    read_handle,
    time_of,
)
from cpe_mcp.concentrator.cookie_checker import (
    SUBSCRIBER_SHARE,
    TAKEN,
    Checked,
    CookieChecker,
)
from cpe_mcp.policy.reasons import TEXTS, Reason

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-16")]

KEYS = {"alice": b"wonderland-and-back", "bob": b"the builder's long key"}
ALICE, BOB = (own_credential(name, key.decode()) for name, key in KEYS.items())
SECRET = b"shared by the concentrators"
START = 6_000_000 * EPOCH_S
"""The first second of an epoch."""


def checker(**changes: int) -> CookieChecker:
    return CookieChecker(KEYS, SECRET, **changes)


def check(checker: CookieChecker, cookie: bytes, clock_s: float = START) -> str:
    return checker.check(cookie, clock_s, clock_s).outcome


def test_a_cookie_names_its_subscriber() -> None:
    both = checker()
    assert both.check(make_cookie(ALICE, START), START, START) == Checked(TAKEN, "alice")
    assert both.check(make_cookie(BOB, START), START, START) == Checked(TAKEN, "bob")
    assert both.counters == {TAKEN: 2}


@pytest.mark.parametrize(
    ("made", "clock", "outcome"),
    [
        (0, 0, TAKEN),
        (0, EPOCH_S - 1, TAKEN),
        (0, 2 * EPOCH_S - 1, TAKEN),
        (0, 2 * EPOCH_S, Reason.COOKIE_TIME),
        (EPOCH_S - 1, -1, TAKEN),
        (2 * EPOCH_S - 1, 0, TAKEN),
        (2 * EPOCH_S, 0, Reason.COOKIE_TIME),
        (2 * EPOCH_S, EPOCH_S, TAKEN),
        (-3e8, 0, Reason.COOKIE_TIME),
        (3e8, 0, Reason.COOKIE_TIME),
        (65536 * EPOCH_S, 0, Reason.WRONG_COOKIE),
    ],
)
def test_a_cookie_is_taken_in_its_epoch_and_beside_it(made: float, clock: float, outcome: str) -> None:
    handed = make_handle("carl", SECRET, START + 1e6)
    assert check(checker(), make_cookie(handed, START + made), START + clock) == outcome
    if outcome != Reason.WRONG_COOKIE:  # the own table has no such handle then
        assert check(checker(), make_cookie(ALICE, START + made), START + clock) == outcome


@pytest.mark.parametrize("later", [0, 1, EPOCH_S, 2 * EPOCH_S - 1])
def test_a_cookie_is_taken_once_in_this_epoch_and_the_next(later: float) -> None:
    cookie, both = make_cookie(ALICE, START), checker()
    assert check(both, cookie, START) == TAKEN
    assert check(both, cookie, START + later) == Reason.REPLAYED_COOKIE
    assert check(both, make_cookie(ALICE, START), START + later) == TAKEN, "another one of the same epoch"


def test_a_cookie_of_the_epoch_to_come_is_not_taken_again_in_it() -> None:
    cookie, both = make_cookie(ALICE, START + EPOCH_S), checker()
    assert check(both, cookie, START) == TAKEN
    for clock in (START + EPOCH_S, START + 3 * EPOCH_S - 1):
        assert check(both, cookie, clock) == Reason.REPLAYED_COOKIE


def test_a_replay_is_known_after_the_settings_were_read_again() -> None:
    cookie, before, after = make_cookie(ALICE, START), checker(), checker()
    assert check(before, cookie) == TAKEN
    after.inherit(before)
    assert check(after, cookie) == Reason.REPLAYED_COOKIE
    assert after.remembered() == 1


def test_a_clock_that_goes_back_takes_nothing_again() -> None:
    cookie, both = make_cookie(ALICE, START), checker()
    assert check(both, cookie) == TAKEN
    assert check(both, make_cookie(ALICE, START + 10 * EPOCH_S), START + 10 * EPOCH_S) == TAKEN
    assert check(both, cookie) == Reason.COOKIE_TIME


def test_forgeries_are_refused_and_remembered_nowhere() -> None:
    both = checker()
    good = make_cookie(ALICE, START)
    for forged, outcome in (
        (good[:-1] + bytes([good[-1] ^ 1]), Reason.WRONG_COOKIE),
        (good[:4] + make_cookie(BOB, START)[4:20] + good[20:], Reason.WRONG_COOKIE),
        (make_cookie(own_credential("alice", "another key"), START), Reason.UNKNOWN_SUBSCRIBER),
        (make_cookie(own_credential("mallory", KEYS["alice"].decode()), START), Reason.UNKNOWN_SUBSCRIBER),
        (make_cookie(make_handle("alice", b"another secret.", START + 60), START), Reason.UNKNOWN_SUBSCRIBER),
        (b"\1" + good[1:], Reason.WRONG_COOKIE),
        (good[:-4], Reason.WRONG_COOKIE),
        (b"garbage", Reason.WRONG_COOKIE),
    ):
        found = check(both, forged)
        assert found in (outcome, Reason.WRONG_COOKIE), "with another secret a handle may seem to hold a name"
        assert found in TEXTS
    assert both.remembered() == 0
    assert check(both, good) == TAKEN, "whoever forged spoilt nothing for alice"


@pytest.mark.requirement("Y-9")
def test_the_operators_handle_is_enough_on_any_concentrator_that_has_the_secret_until_it_expires() -> None:
    handed = make_handle("line-7", SECRET, START + 100)
    for _ in range(2):
        one = CookieChecker({}, SECRET)
        assert one.check(make_cookie(handed, START), START, START) == Checked(TAKEN, "line-7", START + 100)
    one = CookieChecker({}, SECRET)
    assert one.check(make_cookie(handed, START), START, START + 100).outcome == Reason.HANDLE_EXPIRED
    assert check(CookieChecker({}, b""), make_cookie(handed, START)) == Reason.UNKNOWN_SUBSCRIBER
    other = make_handle("line-8", SECRET, START + 100)
    stolen = other._replace(handle=handed.handle)
    assert check(one, make_cookie(stolen, START)) == Reason.WRONG_COOKIE, "another's handle without its key"


@pytest.mark.requirement("Y-9")
def test_a_handle_that_its_owner_rewrites_is_worth_nothing() -> None:
    """What is hidden in a handle can be changed bit by bit by one who knows it, as a subscriber knows the own name."""
    mine, expires = make_handle("line-7", SECRET, START + 100), START + 100
    for name, until, reads in (("line-8", expires, "another's name"), ("line-7", expires + 9999, "a later end")):
        wanted = until.to_bytes(EXPIRY_OCTETS, "big") + name.encode()
        known = expires.to_bytes(EXPIRY_OCTETS, "big") + b"line-7"
        change = bytes(one ^ other for one, other in zip(known, wanted, strict=True))
        end = SEED_OCTETS + len(change)
        hidden = bytes(one ^ other for one, other in zip(mine.handle[SEED_OCTETS:end], change, strict=True))
        rewritten = mine._replace(handle=mine.handle[:SEED_OCTETS] + hidden + mine.handle[end:])
        read = read_handle(rewritten.handle, SECRET)
        assert read is not None
        assert (read.name, read.expires) == (name, until), reads
        assert check(CookieChecker({}, SECRET), make_cookie(rewritten, START)) == Reason.WRONG_COOKIE, reads


def test_a_full_memory_refuses_and_forgets_nothing() -> None:
    small = checker(nonces_max=SUBSCRIBER_SHARE * 3)
    first = make_cookie(ALICE, START)
    assert [check(small, cookie) for cookie in (first, *(make_cookie(ALICE, START) for _ in range(2)))] == [TAKEN] * 3
    assert check(small, make_cookie(ALICE, START)) == Reason.COOKIES_FULL
    assert check(small, first) == Reason.REPLAYED_COOKIE
    assert check(small, make_cookie(BOB, START)) == TAKEN, "alice has had no more than her share"
    after = START + 2 * EPOCH_S
    assert check(small, make_cookie(ALICE, after), after) == TAKEN, "what is too old to be used again is forgotten"
    assert small.remembered() == 1


def test_a_memory_full_of_many_subscribers_cookies_refuses_everybody() -> None:
    small = CookieChecker({}, SECRET, nonces_max=8)
    people = [make_handle(f"line-{number}", SECRET, START + 1e4) for number in range(9)]
    outcomes = [check(small, make_cookie(person, START)) for person in people]
    assert outcomes == [TAKEN] * 8 + [Reason.COOKIES_FULL]


def test_the_time_is_told_where_somebody_can_make_a_cookie() -> None:
    assert time_of(checker().challenge(START) or b"") == START
    assert CookieChecker({}, SECRET).challenge(START) is not None
    assert CookieChecker({}, b"").challenge(START) is None, "nobody can make a cookie for it"
