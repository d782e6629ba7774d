"""The judgement of one WAN, with time as an argument."""

from __future__ import annotations

import pytest

from cpe_mcp.paths.health import (
    CHECKING,
    DEAD,
    IDLE_PROBE_S,
    OFFLINE,
    RETURNING,
    SUSPECT,
    TRANSITIONS,
    UP,
    USABLE,
    Sample,
    Sampler,
    WanHealth,
)
from cpe_mcp.paths.observed import Subflow
from cpe_mcp.policy.reasons import TEXTS, Reason

pytestmark = pytest.mark.unit

STEP = 0.03
"""As often as the path manager looks while traffic runs."""
ARRIVING = Sample(open=1, segments_in=30, received=40_000, waiting_s=0, timeouts=0, rtt_s=0.03)
NOTHING = Sample(open=1, segments_in=0, received=0, waiting_s=0, timeouts=0, rtt_s=0)


class Line:
    """A WAN with a clock, and an answer to every probe after ``rtt_s`` while it is alive."""

    def __init__(self, *, return_s: float = 1.0, rtt_s: float = 0.03) -> None:
        self.now = 100.0
        self.health = WanHealth(silent_s=0.06, return_s=return_s, now=self.now)
        self.alive = True
        self.rtt_s = rtt_s
        self.probes = 0
        self._answers: list[float] = []
        self.health.present(self.now, can_probe=True)
        self.run(0.5, None)
        assert self.health.state == UP

    def run(self, seconds: float, sample: Sample | None, *, until: str = "") -> float:
        """Let time pass; returns how much did. ``until`` a state is reached."""
        started = self.now
        while self.now < started + seconds and self.health.state != (until or "never"):
            self.now += STEP
            while self._answers and self._answers[0] <= self.now:
                self._answers.pop(0)
                if self.alive:
                    self.health.answered(self.now, self.rtt_s)
            if sample is not None:
                self.health.observe(self.now, sample)
            self.health.tick(self.now)
            if self.health.probe_due(self.now):
                self.probes += 1
                if self.alive:
                    self._answers.append(self.now + self.rtt_s)
        return self.now - started


def test_silent_death_in_a_download_is_known_within_a_quarter_second() -> None:
    line = Line()
    line.run(2, ARRIVING)
    line.alive = False
    assert line.run(2, NOTHING, until=DEAD) <= 0.3
    assert line.health.reason == Reason.WAN_SILENT
    assert "silent for" in line.health.detail
    assert "probes unanswered" in line.health.detail


def test_silent_death_in_an_upload() -> None:
    line = Line()
    line.run(2, ARRIVING._replace(received=0))
    line.alive = False
    waited = 0.0
    while line.health.state != DEAD:
        waited += STEP
        line.run(STEP, NOTHING._replace(waiting_s=waited))
        assert waited < 0.35


def test_a_finished_download_costs_one_round_of_probes_and_no_alarm() -> None:
    line = Line()
    line.run(2, ARRIVING)
    before = line.probes
    line.run(10, NOTHING)
    assert line.health.state == UP
    assert line.probes - before <= 3


def test_a_retransmission_timeout_with_arrivals_is_no_doubt() -> None:
    line = Line()
    before = line.probes
    line.run(3, ARRIVING._replace(timeouts=1, waiting_s=0.4))
    assert (line.health.state, line.probes) == (UP, before)


def test_a_bloated_queue_is_not_death() -> None:
    """300 ms of queue: acknowledgements are late and probes take as long, but they come."""
    line = Line(rtt_s=0.35)
    states = set()
    for _ in range(200):
        line.run(0.15, ARRIVING._replace(rtt_s=0.35, waiting_s=0.3))
        line.run(0.09, NOTHING._replace(waiting_s=0.35))
        states.add(line.health.state)
    assert states <= {UP, SUSPECT}


def test_a_light_load_may_pause_without_being_probed() -> None:
    line = Line()
    before = line.probes
    for _ in range(20):
        line.run(0.3, ARRIVING._replace(received=500, segments_in=1))
        line.run(0.5, NOTHING)
    assert line.probes == before


def test_a_dead_line_comes_back_only_after_it_answered_for_a_while() -> None:
    line = Line(return_s=1.0)
    line.run(1, ARRIVING)
    line.alive = False
    line.run(5, NOTHING, until=DEAD)
    line.run(3, NOTHING)
    assert line.health.state == DEAD
    line.alive = True
    line.run(5, NOTHING, until=RETURNING)
    assert not line.health.is_usable()
    assert 0.9 <= line.run(5, NOTHING, until=UP) <= 1.6


def test_a_flapping_line_stays_out() -> None:
    line = Line(return_s=2.0)
    line.run(1, ARRIVING)
    line.alive = False
    line.run(5, NOTHING, until=DEAD)
    seen = set()
    for _ in range(10):
        line.alive = True
        line.run(1.0, NOTHING)
        line.alive = False
        line.run(1.0, NOTHING)
        seen.add(line.health.state)
    assert UP not in seen
    assert seen <= {DEAD, RETURNING}


def test_a_dead_line_is_probed_more_and_more_seldom() -> None:
    line = Line()
    line.run(1, ARRIVING)
    line.alive = False
    line.run(5, NOTHING, until=DEAD)
    before = line.probes
    line.run(60, NOTHING)
    assert 10 <= line.probes - before <= 20


def test_a_workers_complaint_is_checked_not_believed() -> None:
    line = Line()
    line.health.doubt(line.now, "no answer to the handshake")
    assert line.health.state == SUSPECT
    line.run(1, None)
    assert line.health.state == UP
    line.alive = False
    line.health.doubt(line.now, "no answer to the handshake")
    line.run(1, None, until=DEAD)
    assert line.health.detail.startswith("no answer to the handshake")


def test_an_idle_line_is_probed_now_and_then_and_its_death_noticed() -> None:
    line = Line()
    before = line.probes
    line.run(IDLE_PROBE_S * 4, NOTHING)
    assert 3 <= line.probes - before <= 6
    line.alive = False
    assert line.run(IDLE_PROBE_S * 2, NOTHING, until=DEAD) <= IDLE_PROBE_S + 1


def test_a_line_that_fell_silent_in_peace_is_watched_again_when_something_is_sent() -> None:
    line = Line()
    line.run(2, ARRIVING)
    line.run(10, NOTHING)
    line.alive = False
    waited = 0.0
    while line.health.state != DEAD:
        waited += STEP
        line.run(STEP, NOTHING._replace(waiting_s=waited))
        assert waited < 0.35


def test_a_subflow_that_never_gets_an_answer_on_a_living_line_is_no_storm_of_probes() -> None:
    line = Line()
    before = line.probes
    for second in range(1, 100):
        line.run(1, NOTHING._replace(waiting_s=second, timeouts=5))
    assert line.health.state == UP
    assert line.probes - before <= 20


def test_an_answer_without_a_time_leaves_the_times_alone() -> None:
    line = Line()
    line.health.doubt(line.now, "no answer to the handshake")
    before = (line.health.rtt_s, line.health.base_rtt_s)
    line.health.answered(line.now, 0.0)
    assert (line.health.state, line.health.rtt_s, line.health.base_rtt_s) == (UP, *before)


def test_whether_subflows_came_back_by_themselves() -> None:
    line = Line()
    line.run(1, ARRIVING)
    line.alive = False
    line.run(5, NOTHING, until=DEAD)
    line.alive = True
    line.run(5, NOTHING, until=UP)
    assert not line.health.is_heard_again()
    line.run(STEP, ARRIVING)
    assert line.health.is_heard_again()


def test_presence() -> None:
    line = Line()
    line.health.absent(line.now, Reason.WAN_LINK_DOWN)
    assert (line.health.state, line.health.reason) == (OFFLINE, Reason.WAN_LINK_DOWN)
    line.run(1, NOTHING)
    assert line.health.state == OFFLINE
    line.health.present(line.now, can_probe=True)
    assert line.health.state == CHECKING
    assert line.run(1, None, until=UP) <= 0.2
    line.health.absent(line.now, Reason.WAN_NO_ADDRESS)
    line.alive = False
    line.health.present(line.now, can_probe=True)
    line.run(3, None)
    assert line.health.state == DEAD


def test_without_a_concentrator_presence_is_enough() -> None:
    health = WanHealth(silent_s=0.1, return_s=1, now=0)
    health.present(1, can_probe=False)
    assert health.is_usable()


def test_the_table_is_closed_and_its_reasons_have_texts() -> None:
    for state, events in TRANSITIONS.items():
        assert set(events.values()) <= set(TRANSITIONS), state
    assert set(TRANSITIONS) >= USABLE
    for reason in (Reason.WAN_UP, Reason.WAN_SILENT, Reason.WAN_HELD_DOWN, Reason.WAN_LINK_DOWN):
        assert reason in TEXTS


def subflow(port: int, **values: int) -> Subflow:
    base = Subflow("10.1.0.2", port, "10.9.0.1", 5124, 1, 0, 0, 0, 0, 20.0, 1.0, 0, 0, 0)
    return base._replace(**values)  # type: ignore[arg-type]


def test_sampler_adds_up_what_moved_since_last_time() -> None:
    sampler = Sampler()
    sampler.take(1.0, [subflow(1, bytes_received=100, segments_in=2), subflow(2)])
    samples = sampler.take(1.1, [subflow(1, bytes_received=1100, segments_in=3), subflow(2, segments_in=4)])
    assert samples["10.1.0.2"][:3] == (2, 5, 1000)
    assert samples["10.1.0.2"].rtt_s == 0.02


def test_a_probe_of_ours_is_no_sign_of_life() -> None:
    sampler = Sampler()
    sampler.take(1.0, [])
    assert sampler.take(1.1, [subflow(1, segments_in=1)])["10.1.0.2"].segments_in == 0
    assert sampler.take(1.2, [subflow(2, segments_in=3, bytes_received=900)])["10.1.0.2"].segments_in == 3


def test_sampler_measures_how_long_sent_bytes_wait() -> None:
    sampler = Sampler()
    sampler.take(1.0, [subflow(1, bytes_acked=10)])
    assert sampler.take(2.0, [subflow(1, bytes_acked=10, unacked=5)])["10.1.0.2"].waiting_s == 0, (
        "idle time is no waiting"
    )
    assert sampler.take(2.05, [subflow(1, bytes_acked=10, unacked=5)])["10.1.0.2"].waiting_s == pytest.approx(0.05)
    assert sampler.take(2.1, [subflow(1, bytes_acked=20, unacked=5)])["10.1.0.2"].waiting_s == 0
    assert sampler.take(2.3, [subflow(1, bytes_acked=20, unacked=5)])["10.1.0.2"].waiting_s == pytest.approx(0.2)
    assert sampler.take(2.4, [subflow(1, bytes_acked=20, unacked=0)])["10.1.0.2"].waiting_s == 0
