"""The router's authentication state: every transition, and the times."""

from __future__ import annotations

import pytest

from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.aaa.session import (
    ACCEPTED,
    EXPIRE,
    MIN_SESSION_S,
    PENDING,
    REASONS,
    REJECTED,
    TIMED_OUT,
    TRANSITIONS,
    AuthSession,
)
from cpe_mcp.policy.reasons import TEXTS

pytestmark = pytest.mark.unit

RETRY_S = 30.0

ACCEPT = RadiusAnswer("accept", "welcome", session_timeout_s=100.0)
FOREVER = RadiusAnswer("accept", "")
REJECT = RadiusAnswer("reject", "no contract")
TIMEOUT = RadiusAnswer("timeout", "192.0.2.1:1812 did not answer")


def session(*answers: RadiusAnswer, now: float = 0.0) -> AuthSession:
    s = AuthSession(retry_s=RETRY_S, now=now)
    for answer in answers:
        s.asked()
        s.answered(answer, now)
    return s


def test_the_table_is_whole() -> None:
    """Every state takes every verdict; only an Accept can run out; every reason has a text."""
    states = {PENDING, ACCEPTED, REJECTED, TIMED_OUT}
    verdicts = {(state, verdict) for state in states for verdict in ("accept", "reject", "timeout")}
    assert set(TRANSITIONS) == verdicts | {(ACCEPTED, EXPIRE)}
    assert set(TRANSITIONS.values()) == states - {PENDING}
    assert set(REASONS) == states
    assert all(reason in TEXTS for reason in REASONS.values())


def test_it_asks_at_once_and_never_twice_at_a_time() -> None:
    s = session(now=7)
    assert s.ask_at(7) == 7
    assert s.view(7) == (False, "auth-pending", "")
    s.asked()
    assert s.ask_at(8) is None


def test_accept() -> None:
    s = session(ACCEPT)
    assert s.view(0) == (True, "ready", "welcome")
    assert s.ask_at(0) == 80, "it is renewed before it runs out"
    assert s.until == 100


def test_accept_without_session_timeout_holds() -> None:
    s = session(FOREVER)
    assert s.ask_at(0) is None
    assert s.view(1e9).may_proxy
    assert s.until is None


def test_a_tiny_session_timeout_does_not_make_it_ask_without_pause() -> None:
    s = session(RadiusAnswer("accept", "", session_timeout_s=0.0))
    assert s.until == MIN_SESSION_S
    assert s.ask_at(0) == 0.8 * MIN_SESSION_S


def test_reject_leaves_plain_forwarding_with_the_reason_and_asks_again_later() -> None:
    s = session(REJECT)
    assert s.view(0) == (False, "not-authorized", "no contract")
    assert s.ask_at(0) == 30


def test_timeout_likewise() -> None:
    s = session(TIMEOUT)
    assert s.view(0) == (False, "auth-timeout", "192.0.2.1:1812 did not answer")
    assert s.ask_at(0) == 30


def test_renewal_moves_the_end_without_a_gap() -> None:
    s = session(ACCEPT)
    s.asked()
    assert s.view(85).may_proxy, "while the question is open the old Accept holds"
    s.answered(ACCEPT, 85)
    assert s.until == 185
    assert s.view(184).may_proxy


def test_servers_that_are_gone_at_renewal_cost_nothing_until_the_end() -> None:
    s = session(ACCEPT)
    s.asked()
    s.answered(TIMEOUT, 80)
    assert s.view(99) == (True, "ready", TIMEOUT.reason)
    assert s.ask_at(99) == 110
    assert s.accept is ACCEPT, "its concentrators are still the ones to use"
    assert s.answer is TIMEOUT
    assert s.view(100) == (False, "auth-timeout", TIMEOUT.reason)
    assert s.accept is None
    s.asked()
    s.answered(ACCEPT, 110)
    assert s.view(110).may_proxy


def test_an_accept_that_ran_out_while_the_question_is_open() -> None:
    s = session(ACCEPT)
    s.asked()
    assert s.view(100) == (False, "auth-timeout", "welcome")
    s.answered(TIMEOUT, 101)
    assert s.view(101) == (False, "auth-timeout", TIMEOUT.reason)


def test_a_reject_at_renewal_ends_it_at_once() -> None:
    s = session(ACCEPT)
    s.asked()
    s.answered(REJECT, 80)
    assert s.view(80) == (False, "not-authorized", "no contract")
    assert s.until is None
    assert s.accept is None
    assert s.view(100).reason == "not-authorized", "the old end means nothing any more"


def test_silence_does_not_take_a_reject_back() -> None:
    s = session(REJECT, TIMEOUT)
    assert s.view(0).reason == "not-authorized"


def test_an_accept_after_a_reject() -> None:
    assert session(REJECT, ACCEPT).view(0).may_proxy


def test_hurry() -> None:
    s = session(TIMEOUT)
    s.hurry(3)
    assert s.ask_at(3) == 3
    s = session(FOREVER)
    s.hurry(3)
    assert s.ask_at(3) == 3


def test_a_concentrator_that_refuses_makes_it_ask_again_and_not_sooner_than_after_a_reject() -> None:
    s = session(FOREVER)
    assert s.ask_at(1) is None
    s.doubt(1)
    assert s.ask_at(1) == RETRY_S
    assert s.view(1).may_proxy, "nothing is taken back"
    s.doubt(500)
    assert s.ask_at(500) == RETRY_S, "one question, not one for each refusal"
    s.asked()
    s.answered(FOREVER, 500)
    s.doubt(500 + 2 * RETRY_S)
    assert s.ask_at(500 + 2 * RETRY_S) == 500 + 2 * RETRY_S
