"""Who is known by a handle: his terms, and the handles that a Disconnect-Request has ended."""

from __future__ import annotations

import pytest

from cpe_mcp.concentrator import handles
from cpe_mcp.concentrator.handles import KEPT_S, HandleSessions
from cpe_mcp.concentrator.verdict import Verdict
from cpe_mcp.policy.reasons import TEXTS, Reason

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.3-b"), pytest.mark.requirement("X-16")]

UNIX_S = 1_800_000_000.0
"""When the monotonic clock shows 0."""


def bring(found: HandleSessions, name: str, ends_s: int, now: float = 0.0) -> Verdict:
    """He comes at ``now`` with a handle that is good until ``ends_s``, by the monotonic clock."""
    return found.bring(name, int(UNIX_S) + ends_s, now, UNIX_S + now)


def end(found: HandleSessions, name: str, now: float = 0.0, ttl_s: float = 0.0) -> None:
    found.end(name, now, UNIX_S + now, ttl_s)


def test_who_comes_with_a_handle_is_known_until_its_end_and_a_day_more() -> None:
    found = HandleSessions()
    assert bring(found, "line-7", 60) == Verdict("accept", "line-7", 0.0, Reason.READY)
    bring(found, "line-7", 90, 30.0)
    bring(found, "line-7", 60, 40.0)
    session = found.get("line-7")
    assert session is not None
    assert session.until == 90, "an older one takes nothing back"
    assert found.counts(89.0) == {"known": 1, "ended": 0}
    found.tick(90.0)
    assert "line-7" in found
    assert found.counts(90.0) == {"known": 0, "ended": 0}
    assert found.status(90.0, 9) == []
    assert found.take_gone() == set()
    found.tick(90.0 + KEPT_S)
    assert "line-7" not in found
    assert found.take_gone() == {"line-7"}
    assert found.take_gone() == set()


def test_a_change_holds_for_later_handles_but_being_sent_away_does_not() -> None:
    found = HandleSessions()
    verdict = bring(found, "line-7", 60)
    found.change(verdict._replace(kind="reject", reason=Reason.MOVED, cap_mbit=(5.0, 0.0), connections=3))
    for _ in range(2):
        assert bring(found, "line-7", 60).reason == Reason.MOVED
    verdict = bring(found, "line-7", 61)
    assert (verdict.kind, verdict.reason, verdict.cap_mbit, verdict.connections) == ("accept", "ready", (5.0, 0.0), 3)
    found.change(verdict._replace(subscriber="line-8"))
    assert "line-8" not in found, "only who is known"


def test_a_disconnect_ends_the_handles_that_were_seen_and_earlier_ones() -> None:
    found = HandleSessions()
    bring(found, "line-7", 60)
    bring(found, "line-7", 90)
    bring(found, "line-8", 60)
    end(found, "line-7")
    assert "line-7" not in found
    assert found.take_gone() == {"line-7"}
    for ends_s in (30, 60, 90):
        verdict = bring(found, "line-7", ends_s)
        assert (verdict.kind, verdict.reason) == ("reject", Reason.HANDLE_ENDED)
    assert bring(found, "line-8", 60).kind == "accept", "nobody else's"
    assert found.counts(0.0) == {"known": 1, "ended": 1}
    assert found.status(10.0, 1) == [
        {"subscriber": "line-8", "verdict": "accept", "reason": "ready", "left_s": 50.0, "connections": 0},
        {"subscriber": "line-7", "verdict": "reject", "reason": "handle-ended", "left_s": 80.0, "connections": 0},
    ]
    assert Reason.HANDLE_ENDED in TEXTS
    assert bring(found, "line-7", 91).kind == "accept", "he was accepted anew"
    assert bring(found, "line-7", 90).kind == "reject", "the old one stays ended"


def test_where_it_is_known_how_long_handles_are_made_for_those_that_were_not_seen_are_ended_too() -> None:
    found = HandleSessions()
    bring(found, "line-7", 60)
    end(found, "line-7", 10.0, ttl_s=100.0)
    end(found, "line-8", 10.0, ttl_s=100.0)
    for name in ("line-7", "line-8"):
        assert bring(found, name, 110, 10.0).reason == Reason.HANDLE_ENDED, "it was made before"
        assert bring(found, name, 111, 11.0).kind == "accept"
    assert found.counts(109.0) == {"known": 2, "ended": 2}
    end(found, "line-8", 12.0)
    assert bring(found, "line-8", 111, 12.0).reason == Reason.HANDLE_ENDED
    found.tick(111.0 + KEPT_S)
    assert found.counts(0.0) == {"known": 0, "ended": 0}


def test_a_shorter_time_takes_no_end_back() -> None:
    found = HandleSessions()
    end(found, "line-7", 0.0, ttl_s=100.0)
    end(found, "line-7", 0.0, ttl_s=10.0)
    assert bring(found, "line-7", 100).reason == Reason.HANDLE_ENDED


def test_an_ended_handle_stays_ended_when_the_clock_is_set_back_for_a_day() -> None:
    found = HandleSessions()
    bring(found, "line-7", 60)
    end(found, "line-7")
    found.tick(60.0 + KEPT_S - 1)
    assert found.bring("line-7", int(UNIX_S) + 60, 60.0 + KEPT_S - 1, UNIX_S).reason == Reason.HANDLE_ENDED
    found.tick(60.0 + KEPT_S)
    assert found.bring("line-7", int(UNIX_S) + 60, 60.0 + KEPT_S, UNIX_S).kind == "accept"


def test_the_one_who_came_longest_ago_is_forgotten_and_nothing_that_was_ended_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handles, "HANDLES_MAX", 3)
    monkeypatch.setattr(handles, "ENDED_MAX", 2)
    found = HandleSessions()
    for name in ("a", "b", "c", "a", "d"):
        bring(found, name, 60)
    assert [name for name in "abcd" if name in found] == ["a", "c", "d"]
    assert found.take_gone() == {"b"}
    assert found.has_room(2)
    assert not found.has_room(3)
    end(found, "a")
    end(found, "nobody")
    assert found.has_room(1)
    assert not found.has_room(2)
    for name in ("e", "f", "g", "h"):
        bring(found, name, 60)
    assert bring(found, "a", 60).reason == Reason.HANDLE_ENDED
