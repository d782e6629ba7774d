"""When a concentrator counts as dead, when it is asked, and when it is used again."""

from __future__ import annotations

import itertools

import pytest

from cpe_mcp.policy.concentrator_health import (
    ASK_MAX_S,
    DEAD,
    HOLD_MAX_S,
    HOLD_S,
    MEMORY_S,
    REGULAR_S,
    SUSPECT,
    UP,
    Answer,
    ConcentratorHealth,
)

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-6")]

ALIVE, SILENT = Answer(True, 20.0), Answer(False, 0.0, "no answer to the handshake")


def health() -> ConcentratorHealth:
    health = ConcentratorHealth()
    health.keep({"near": 1, "far": 2}, 0.0)
    return health


def killed(health: ConcentratorHealth, now: float) -> None:
    health.silent("near", now, "dsl: nothing")
    health.asked("near", {"dsl": SILENT, "lte": SILENT}, now)


def test_silence_is_a_reason_to_ask_and_not_yet_to_condemn() -> None:
    h = health()
    assert h.due(1.0) == []
    h.silent("near", 1.0, "dsl: no answer")
    assert (h.state("near"), h.is_usable("near"), h.due(1.0)) == (SUSPECT, True, ["near"])
    h.asking("near")
    assert h.due(1.0) == []
    h.silent("near", 1.1, "dsl: no answer")
    assert h.due(1.1) == [], "asked twice for one doubt"


def test_one_wan_that_answers_is_enough() -> None:
    h = health()
    h.silent("near", 1.0, "")
    h.asked("near", {"dsl": SILENT, "lte": ALIVE}, 2.0)
    assert h.state("near") == UP
    assert h.due(2.0) == []


def test_dead_when_it_answers_over_none() -> None:
    h = health()
    killed(h, 10.0)
    assert (h.state("near"), h.is_usable("near"), h.is_usable("far")) == (DEAD, False, True)
    assert h.next_wake() == 10.0 + HOLD_S


def test_not_being_able_to_ask_says_nothing() -> None:
    h = health()
    h.silent("near", 1.0, "")
    h.asked("near", {}, 1.0)
    assert h.state("near") == SUSPECT
    assert h.due(1.0) == []
    assert h.due(3.0) == ["near"]


def test_it_is_used_again_when_it_answers_after_its_hold_off() -> None:
    h = health()
    killed(h, 10.0)
    h.asked("near", {"dsl": ALIVE}, 10.0 + HOLD_S / 2)
    assert not h.is_usable("near")
    h.asked("near", {"dsl": ALIVE}, 10.0 + HOLD_S)
    assert h.is_usable("near")


def test_a_flow_that_still_gets_an_answer_makes_it_be_asked_and_not_used() -> None:
    h = health()
    killed(h, 10.0)
    h.asked("near", {"dsl": SILENT}, 20.0)
    h.asked("near", {"dsl": SILENT}, 30.0)
    h.heard("near", 30.1)
    assert not h.is_usable("near")
    assert h.due(30.1) == ["near"]


def test_flapping_keeps_it_away_for_longer_each_time_and_peace_mends_it() -> None:
    h = ConcentratorHealth()
    h.keep({"near": 1}, 0.0)
    now, holds = 0.0, []
    for _ in range(9):
        killed(h, now)
        wake = h.next_wake()
        assert wake is not None
        holds.append(wake - now)
        h.asked("near", {"dsl": ALIVE}, wake)
        assert h.is_usable("near")
        now = wake + 0.1
    assert holds == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])
    assert holds[-1] == pytest.approx(HOLD_MAX_S)
    later = now + MEMORY_S
    killed(h, later)
    h.asked("near", {"dsl": ALIVE}, later + HOLD_S)
    assert h.is_usable("near")


def test_a_long_outage_is_asked_about_less_and_less_but_for_ever() -> None:
    h = ConcentratorHealth()
    h.keep({"near": 1}, 0.0)
    killed(h, 0.0)
    times = []
    for _ in range(10):
        wake = h.next_wake()
        assert wake is not None
        times.append(wake)
        h.asked("near", {"dsl": SILENT}, wake)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == ASK_MAX_S


def test_one_that_nobody_hears_of_is_asked_now_and_then() -> None:
    h = health()
    h.heard("near", 30.0)
    assert h.due(REGULAR_S) == ["far"]
    h.asked("far", {"dsl": SILENT}, REGULAR_S)
    assert not h.is_usable("far"), "a dead spare is known before it is needed"


def test_another_one_of_the_same_name_starts_afresh() -> None:
    h = health()
    killed(h, 1.0)
    h.keep({"near": 1, "far": 2}, 2.0)
    assert not h.is_usable("near")
    h.keep({"near": 3, "far": 2}, 2.0)
    assert h.is_usable("near")
    h.asked("gone", {"dsl": SILENT}, 2.0)
    assert h.is_usable("gone")


def test_the_report_is_for_people() -> None:
    h = health()
    killed(h, 10.0)
    report = h.report("near", 10.5)
    assert (report["state"], report["deaths"], report["asks_again_s"]) == (DEAD, 1, 0.5)
    assert report["wans"][0] == {"name": "dsl", "answers": False, "rtt_ms": 0.0, "detail": SILENT.detail, "ago_s": 0}
