"""A router's cookies towards one concentrator, with the clocks as arguments."""

from __future__ import annotations

import pytest

from cpe_mcp.aaa.cookie import (
    EPOCH_S,
    NO_CREDENTIAL,
    epoch_of,
    is_proven,
    make_challenge,
    own_credential,
    pull_cookie,
)
from cpe_mcp.aaa.presenter import RELEARN_S, Presenter, Presenters, heard
from cpe_mcp.convert import Error, ErrorCode, Refused

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-16")]

ALICE = own_credential("alice", "wonderland-and-back")
THERE_S = 1.8e9
"""The concentrator's time when ours of the monotonic clock is 0."""
YEARS_S = 1e9


def is_of(cookie: bytes, unix_s: float) -> bool:
    parts = pull_cookie(cookie)
    return parts is not None and is_proven(parts, ALICE.key, epoch_of(unix_s))


@pytest.mark.parametrize("off_s", [-YEARS_S, -2 * EPOCH_S, 2 * EPOCH_S, YEARS_S])
def test_the_time_is_learnt_from_the_concentrator(off_s: float) -> None:
    presenter = Presenter(ALICE, lambda: THERE_S + off_s)
    cookie = presenter.cookie(0.0)
    assert is_of(cookie, THERE_S + off_s), "the first guess is our own clock"
    assert presenter.refused(cookie, make_challenge(THERE_S + 1), 1.0)
    assert is_of(presenter.cookie(2.0), THERE_S + 2)
    assert is_of(presenter.cookie(5000.0), THERE_S + 5000), "it goes on by the monotonic clock"


def test_all_connections_that_were_refused_together_come_again() -> None:
    presenter = Presenter(ALICE, lambda: 0.0)
    cookies = [presenter.cookie(0.0) for _ in range(4)]
    assert [presenter.refused(cookie, make_challenge(THERE_S), 0.1) for cookie in cookies] == [True] * 4


def test_a_refusal_that_is_not_about_the_time_is_not_answered_with_another_cookie() -> None:
    presenter = Presenter(ALICE, lambda: THERE_S)
    assert not presenter.refused(presenter.cookie(0.0), make_challenge(THERE_S), 0.0)
    assert not Presenter(NO_CREDENTIAL).refused(b"", make_challenge(THERE_S), 0.0), "there is nothing to come with"


def test_a_concentrator_that_changes_its_mind_about_the_time_is_not_followed_at_once() -> None:
    presenter = Presenter(ALICE, lambda: THERE_S)
    assert presenter.refused(presenter.cookie(0.0), make_challenge(1e6), 0.0)
    assert not presenter.refused(presenter.cookie(1.0), make_challenge(2e6), 1.0)
    later = RELEARN_S + 1.0
    assert presenter.refused(presenter.cookie(later), make_challenge(2e6), later)


def test_another_makes_cookie_is_sent_back_as_it_is_until_it_is_refused() -> None:
    presenter = Presenter(NO_CREDENTIAL)
    assert presenter.cookie(0.0) == b""
    opaque = bytes.fromhex("a0a1a2a3a4a5a6a7")
    wanted = Refused(Error(ErrorCode.MISSING_COOKIE, b"\0" + opaque), 0.0)
    assert heard(presenter, b"", wanted, 0.0)
    assert presenter.cookie(99.0) == opaque
    assert not heard(presenter, opaque, wanted, 0.0), "it wants what it got"
    assert not heard(presenter, opaque, Refused(Error(ErrorCode.NOT_AUTHORIZED), 0.0), 0.0)
    assert presenter.cookie(99.0) == b""
    assert not presenter.refused(b"", b"", 0.0)


def test_each_concentrator_has_its_own_time_which_outlives_a_new_credential() -> None:
    presenters = Presenters()
    one = presenters.of("one", ALICE)
    assert one.refused(b"", make_challenge(THERE_S), 0.0)
    bob = own_credential("bob", "another key")
    assert presenters.of("one", bob) is one
    parts = pull_cookie(one.cookie(0.0))
    assert parts is not None
    assert is_proven(parts, bob.key, epoch_of(THERE_S))
    presenters.keep(["two"])
    assert presenters.of("one", ALICE) is not one
