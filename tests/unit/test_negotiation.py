"""Whether Multipath TCP gets through a WAN, by what was seen."""

from __future__ import annotations

from typing import Any

import pytest

from cpe_mcp.policy.negotiation import MISSING_S, RECENT, Joins, Negotiations

pytestmark = pytest.mark.unit

NO_JOINS = Joins(0, 0)
BOTH = ("dsl", "lte")


def handshakes(wan: str, **outcomes: int) -> dict[str, int]:
    return {f"handshakes:{wan}:{name.replace('_', '-')}": count for name, count in outcomes.items()}


def look(seen: Negotiations, now: float, **subflows: int) -> None:
    """Twice, as what is seen once may be a probe."""
    seen.look(now, subflows)
    seen.look(now, subflows)


def states(seen: Negotiations, now: float = 100.0, joins: Joins = NO_JOINS) -> dict[str, tuple[str, str]]:
    return {name: (row["state"], row["reason"]) for name, row in seen.report(now, BOTH, joins, {}).items()}


def evidence(seen: Negotiations, name: str, joins: Joins = NO_JOINS, **fallbacks: int) -> list[tuple[str, int, int]]:
    given = {name: {reason.replace("_", "-"): count for reason, count in fallbacks.items()}}
    rows: list[dict[str, Any]] = seen.report(100.0, BOTH, joins, given)[name]["evidence"]
    assert all(row["words"]["args"][0] == row["count"] and str(row["count"]) in row["text"] for row in rows)
    return [(row["seen"], row["count"], row["of"]) for row in rows]


WORKS, UNKNOWN = ("works", "mptcp-works"), ("unknown", "mptcp-unknown")
STRIPS, NOWHERE = ("removed", "access-strips"), ("removed", "mptcp-nowhere")


def test_nothing_is_known_at_first() -> None:
    assert states(Negotiations()) == {"dsl": UNKNOWN, "lte": UNKNOWN}
    assert evidence(Negotiations(), "dsl") == []


@pytest.mark.requirement("X-9")
def test_a_wan_is_blamed_by_comparison() -> None:
    seen = Negotiations()
    seen.count(1, handshakes("dsl", mptcp_stripped=3))
    assert states(seen)["dsl"] == NOWHERE, "the concentrator may have it off"
    seen.count(1, {**handshakes("dsl", mptcp_stripped=3), **handshakes("lte", mptcp=2)})
    assert states(seen) == {"dsl": STRIPS, "lte": WORKS}
    assert evidence(seen, "dsl") == [("mptcp-stripped", 3, 3)]
    assert evidence(seen, "lte") == [("mptcp", 2, 2)]


@pytest.mark.requirement("X-9")
def test_a_second_wan_is_judged_by_its_missing_subflows() -> None:
    seen = Negotiations()
    seen.count(1, handshakes("dsl", mptcp=8))
    look(seen, 90.0, dsl=8, lte=0)
    assert states(seen, 90.0 + MISSING_S / 2)["lte"] == UNKNOWN
    assert states(seen)["lte"] == STRIPS
    assert evidence(seen, "lte", Joins(12, 0)) == [("subflows", 0, 8), ("joins", 0, 12)]
    assert evidence(seen, "dsl") == [("mptcp", 8, 8), ("subflows", 8, 8)]
    look(seen, 101.0, dsl=8, lte=8)
    assert states(seen)["lte"] == WORKS


def test_where_the_first_wan_strips_the_others_are_not_blamed() -> None:
    """No subflow can join a connection that is plain TCP."""
    seen = Negotiations()
    seen.count(1, handshakes("dsl", mptcp_stripped=8))
    look(seen, 0.0, dsl=8, lte=0)
    assert states(seen) == {"dsl": NOWHERE, "lte": UNKNOWN}


def test_without_any_subflow_nothing_is_missing() -> None:
    seen = Negotiations()
    look(seen, 0.0, dsl=0, lte=0)
    assert states(seen) == {"dsl": UNKNOWN, "lte": UNKNOWN}


def test_a_probe_is_no_subflow() -> None:
    seen = Negotiations()
    seen.count(1, handshakes("dsl", mptcp=8))
    look(seen, 90.0, dsl=8, lte=0)
    seen.look(99.0, {"dsl": 8, "lte": 1})
    seen.look(99.5, {"dsl": 8, "lte": 0})
    assert states(seen)["lte"] == STRIPS


def test_the_newest_handshakes_decide() -> None:
    seen = Negotiations()
    seen.count(1, handshakes("dsl", mptcp=20))
    seen.count(1, handshakes("dsl", mptcp=20, mptcp_stripped=1))
    assert states(seen)["dsl"] == WORKS, "a stray packet"
    seen.count(1, handshakes("dsl", mptcp=20, mptcp_stripped=2))
    assert states(seen)["dsl"] == NOWHERE
    assert evidence(seen, "dsl") == [("mptcp-stripped", 2, RECENT), ("mptcp", 6, RECENT)]
    seen.count(1, handshakes("dsl", mptcp=21, mptcp_stripped=2))
    assert states(seen)["dsl"] == WORKS
    assert seen.totals() == {"dsl": {"mptcp-stripped": 2, "mptcp": 21}}


def test_a_worker_that_starts_again_counts_from_0() -> None:
    seen = Negotiations()
    seen.count(1, handshakes("dsl", mptcp=5))
    seen.forget_worker(1)
    seen.count(2, handshakes("dsl", mptcp=4))
    seen.count(3, handshakes("dsl", mptcp=1))
    seen.count(3, {"live": 4, "handshakes:": 1, "pool_ready": 3})
    assert seen.totals() == {"dsl": {"mptcp": 10}}


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ({"unanswered": 2}, UNKNOWN),
        ({"unanswered": 3}, NOWHERE),
        ({"mptcp": 1, "unanswered": 2}, WORKS),
        ({"mptcp_blackhole": 1}, NOWHERE),
        ({"mptcp_blackhole": 1, "mptcp": 4}, WORKS),
    ],
)
def test_handshakes_that_are_not_answered(outcomes: dict[str, int], state: tuple[str, str]) -> None:
    seen = Negotiations()
    look(seen, 0.0, dsl=0, lte=0)
    seen.count(1, handshakes("dsl", **outcomes))
    assert states(seen)["dsl"] == state


def test_unanswered_handshakes_of_a_wan_that_is_down_say_nothing() -> None:
    seen = Negotiations()
    look(seen, 0.0, lte=1)
    seen.count(1, handshakes("dsl", unanswered=8))
    assert states(seen)["dsl"] == UNKNOWN


def test_handshakes_that_got_no_answer_before_a_wan_was_up_are_not_held_against_it_later() -> None:
    seen = Negotiations()
    look(seen, 0.0, lte=1)
    seen.count(1, handshakes("dsl", unanswered=3))
    look(seen, 1.0, lte=1)
    look(seen, 2.0, lte=1, dsl=2)
    assert states(seen)["dsl"] == WORKS
    assert not [row for row in evidence(seen, "dsl") if row[0] == "unanswered"]
    look(seen, 3.0, lte=0, dsl=0)
    seen.count(1, handshakes("dsl", unanswered=6))
    assert states(seen)["dsl"] == STRIPS, "these were while it was up"


@pytest.mark.requirement("Y-8")
def test_what_fell_back_later_is_evidence_too() -> None:
    seen = Negotiations()
    seen.count(1, handshakes("dsl", mptcp=8))
    assert evidence(seen, "dsl", mptcp_lost=2) == [("mptcp", 8, 8), ("data", 2, 0)]
