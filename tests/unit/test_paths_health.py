"""The judgement of one WAN, with time as an argument."""

from __future__ import annotations

import pytest

from cpe_mcp.paths.common_silence import silence_of
from cpe_mcp.paths.health import (
    ALL_SILENT_WAIT_S,
    ASLEEP_WAIT_S,
    CHECKING,
    DEAD,
    DEGRADED,
    HELD,
    HELD_DOWN,
    HOLD_MAX_S,
    IDLE_PROBE_S,
    METERED_PROBE_S,
    NEVER_HELD,
    OFFLINE,
    OUT_OF_QUOTA,
    RETURNING,
    SHOWN,
    SUSPECT,
    TRANSITIONS,
    UNHEARD,
    UP,
    USABLE,
    WATCHED_S,
    FlapDamper,
    Sample,
    Sampler,
    Silence,
    WanHealth,
    shown,
)
from cpe_mcp.paths.observed import Subflow
from cpe_mcp.paths.quality import begins_last
from cpe_mcp.policy.reasons import TEXTS, Reason

pytestmark = pytest.mark.unit

STEP = 0.03
"""As often as the path manager looks while traffic runs."""
ARRIVING = Sample(open=1, segments_in=30, received=40_000, waiting_s=0, timeouts=0, rtt_s=0.03)
NOTHING = Sample(open=1, segments_in=0, received=0, waiting_s=0, timeouts=0, rtt_s=0)


class Line:
    """A WAN with a clock, and an answer to every probe after ``rtt_s`` while it is alive."""

    def __init__(
        self,
        *,
        return_s: float = 1.0,
        rtt_s: float = 0.03,
        is_metered: bool = False,
        flaps: tuple[int, float, float] = NEVER_HELD,
    ) -> None:
        self.now = 100.0
        self.health = WanHealth(silent_s=0.06, return_s=return_s, now=self.now, flaps=flaps, is_metered=is_metered)
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
    line = Line(is_metered=True)
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


def test_a_dead_metered_line_is_probed_more_and_more_seldom() -> None:
    line = Line(is_metered=True)
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
    line = Line(is_metered=True)
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


def test_a_silent_death_without_traffic_is_known_within_three_seconds() -> None:
    for rtt_s in (0.005, 0.02, 0.05, 0.2):
        line = Line(rtt_s=rtt_s)
        line.run(20, NOTHING)
        line.alive = False
        assert line.run(10, NOTHING, until=DEAD) <= 3.0, rtt_s
        assert "a probe unanswered" in line.health.detail


def test_between_two_bursts_of_a_video_death_is_known_within_a_second() -> None:
    line = Line(rtt_s=0.05)
    for _ in range(3):
        line.run(0.2, ARRIVING)
        line.run(1.8, NOTHING)
    line.run(0.2, ARRIVING)
    line.run(0.3, NOTHING)
    line.alive = False
    assert line.run(5, NOTHING, until=DEAD) <= 1.0


def test_what_probes_of_idle_lines_cost() -> None:
    """Octets of one answered probe as a device counts them: see the module; an hour of each."""
    for is_metered, limit in ((False, 200), (True, 10)):
        for octets in (280, 360):
            line = Line(is_metered=is_metered)
            line.run(60, NOTHING)
            before = line.probes
            line.run(3600, NOTHING)
            assert (line.probes - before) * octets / 3600 <= limit


def test_an_idle_metered_line_is_probed_seldom_and_a_slow_answer_of_a_sleeping_radio_is_no_death() -> None:
    line = Line(is_metered=True, rtt_s=0.04)
    line.run(METERED_PROBE_S * 1.5, NOTHING)
    line.rtt_s = 0.7
    states = set()
    for _ in range(200):
        line.run(1, NOTHING)
        states.add(line.health.state)
    assert states <= {UP, SUSPECT}
    line.alive = False
    assert line.run(METERED_PROBE_S * 2, NOTHING, until=DEAD) <= METERED_PROBE_S + 3


def test_a_line_that_is_about_to_be_used_is_asked_first() -> None:
    line = Line(is_metered=True, rtt_s=0.04)
    line.run(METERED_PROBE_S * 1.5, NOTHING)
    line.alive = False
    line.health.ask(line.now)
    assert line.run(10, NOTHING, until=DEAD) <= 2.0, "its radio may sleep"


def test_a_line_that_comes_back_may_be_another_network() -> None:
    line = Line(is_metered=False)
    quality = line.health.quality
    line.run(5, NOTHING)
    assert quality.check_due(line.now, up_since=line.health.since, is_metered=False)
    quality.checked(line.now, is_answered=True)
    line.run(60, NOTHING)
    assert not quality.check_due(line.now, up_since=line.health.since, is_metered=False)
    line.health.absent(line.now, Reason.WAN_LINK_DOWN)
    line.health.present(line.now, can_probe=True)
    line.run(0.5, NOTHING)
    assert not quality.check_due(line.now, up_since=line.health.since, is_metered=False)
    line.run(2, NOTHING)
    assert quality.check_due(line.now, up_since=line.health.since, is_metered=False)


def test_the_first_traffic_after_idling_is_a_probe_too() -> None:
    line = Line(is_metered=True, rtt_s=0.04)
    line.run(METERED_PROBE_S * 1.5, NOTHING)
    line.alive = False
    waited = 0.0
    while line.health.state != DEAD:
        waited += STEP
        line.run(STEP, NOTHING._replace(waiting_s=waited))
        assert waited <= ASLEEP_WAIT_S + 2 * STEP, "they are a probe, too: its radio has had the time to wake up"


def test_first_traffic_that_wakes_a_radio_is_no_death() -> None:
    line = Line(is_metered=True, rtt_s=0.04)
    line.run(METERED_PROBE_S * 1.5, NOTHING)
    line.rtt_s = 0.6
    states = set()
    for waited in range(1, 24):
        line.run(STEP, NOTHING._replace(waiting_s=waited * STEP))
        states.add(line.health.state)
    assert states == {UP, SUSPECT}


def test_old_bytes_that_wait_do_not_shorten_the_time_that_a_sleeping_radio_has() -> None:
    line = Line(is_metered=True, rtt_s=0.04)
    line.run(20, NOTHING)
    line.alive = False
    line.run(STEP, NOTHING._replace(waiting_s=15))
    assert line.run(5, NOTHING._replace(waiting_s=15), until=DEAD) >= ASLEEP_WAIT_S - STEP


def states_in_silence(line: Line) -> set[str]:
    """Of a line with subflows over which nothing has come yet."""
    states = set()
    for _ in range(30):
        line.run(STEP, NOTHING)
        states.add(line.health.state)
    return states


def test_a_line_that_returns_is_not_silent_for_the_time_that_it_was_away() -> None:
    line = Line()
    line.run(2, ARRIVING)
    line.health.absent(line.now, Reason.WAN_LINK_DOWN)
    line.now += 600
    line.health.present(line.now, can_probe=True)
    line.run(0.2, None, until=UP)
    assert states_in_silence(line) == {UP}


def test_a_line_without_subflows_for_a_while_is_not_silent_for_that_time() -> None:
    """A repair, a change of address, a line that joins again: all had none."""
    line = Line()
    line.run(2, ARRIVING)
    line.health.without_subflows()
    line.run(0.3, None)
    assert states_in_silence(line) == {UP}
    line.run(1, ARRIVING)
    line.alive = False
    assert line.run(2, NOTHING, until=DEAD) <= 0.3, "what arrives again counts again"


def test_a_dead_line_that_is_not_metered_comes_back_soon_however_long_it_was_away() -> None:
    for needed, is_metered in ((False, False), (True, True)):
        line = Line(return_s=1.0, is_metered=is_metered)
        line.health.is_needed = needed
        line.run(1, ARRIVING)
        line.alive = False
        line.run(300, NOTHING)
        assert line.health.state == DEAD
        line.alive = True
        assert line.run(5, NOTHING, until=UP) <= 1.7


def test_bufferbloat_of_every_kind_is_no_death() -> None:
    """Queues that fill and drain within seconds, with probes that wait in them and with what arrives in bursts."""
    for queue_s in (0.1, 0.3, 0.6, 1.0):
        line = Line(rtt_s=0.04)
        states = set()
        for round_ in range(120):
            full = round_ % 6 < 4
            rtt_s = 0.04 + queue_s * (round_ % 6) / 4 if full else 0.04
            line.rtt_s = rtt_s
            line.run(0.25, ARRIVING._replace(rtt_s=rtt_s, waiting_s=min(rtt_s, 0.25)))
            line.run(0.12, NOTHING._replace(waiting_s=0.12))
            states.add(line.health.state)
        assert states <= {UP, SUSPECT}, queue_s


def test_a_queue_that_others_have_filled_is_no_death() -> None:
    """An upload over UDP: our own connections are idle, and their first bytes and the probes wait in its queue."""
    for queue_s in (0.3, 0.5, 0.9, 1.3):
        line = Line(rtt_s=0.03)
        line.run(20, NOTHING)
        line.health.is_receiving = True
        line.rtt_s = 0.03 + queue_s
        states = set()
        for _ in range(60):
            line.run(2, NOTHING)
            line.run(queue_s, NOTHING._replace(waiting_s=queue_s))
            line.run(STEP, ARRIVING._replace(segments_in=2, received=500, rtt_s=0.03))
            states.add(line.health.state)
        assert states <= {UP, SUSPECT}, queue_s
    line.alive = False
    assert line.run(10, NOTHING, until=DEAD) <= 5, "what arrives for others does not hide it for ever"


def test_the_smallest_round_trip_is_not_forgotten_while_no_probe_is_sent() -> None:
    line = Line(rtt_s=0.02)
    line.run(10, NOTHING)
    line.run(1200, ARRIVING._replace(rtt_s=0.3))
    line.health.answered(line.now, 0.3)
    assert line.health.base_rtt_s <= 0.02 * 1.11


class Home:
    """Lines with one clock and one concentrator, judged as the path manager does."""

    def __init__(self, *lines: Line) -> None:
        self.lines = lines
        self.healths = {str(number): line.health for number, line in enumerate(lines)}

    def run(self, seconds: float, *samples: Sample | None, until: str = "") -> float:
        """One sample for each line; returns the time until the first line has that state, or all of it."""
        started = self.lines[0].now
        while self.lines[0].now < started + seconds and self.lines[0].health.state != (until or "never"):
            for name, line, sample in zip(self.healths, self.lines, samples, strict=True):
                line.health.silence = silence_of(name, self.healths)
                before = line.health.state
                line.run(STEP, sample)
                if line.health.state == UNHEARD != before:
                    for other, health in self.healths.items():
                        if silence_of(other, self.healths) != Silence.OWN:
                            health.concentrators_silent(line.now, "together")
                elif before == UNHEARD and line.health.state == UP:
                    for health in self.healths.values():
                        health.concentrators_heard(line.now)
        return self.lines[0].now - started

    def cut(self) -> None:
        """The concentrator's host."""
        for line in self.lines:
            line.alive = False

    def states(self) -> list[str]:
        return [line.health.state for line in self.lines]


FLAPS = (2, 60, 30)


@pytest.mark.requirement("5.6.2-a")
def test_a_concentrator_that_vanishes_is_no_death_of_busy_lines() -> None:
    home = Home(Line(flaps=FLAPS), Line(rtt_s=0.05, flaps=FLAPS))
    home.run(2, ARRIVING, ARRIVING)
    home.cut()
    assert home.run(3, NOTHING, NOTHING, until=UNHEARD) <= ALL_SILENT_WAIT_S + 0.2
    home.run(60, NOTHING, NOTHING)
    assert home.states() == [UNHEARD, UNHEARD]
    assert all(line.health.is_usable() for line in home.lines)
    for line in home.lines:
        line.alive = True
    home.run(3, NOTHING, NOTHING)
    assert home.states() == [UP, UP]
    assert [flap(line) for line in home.lines] == [UP, UP], "the first death of each that counts"


def test_a_line_that_died_before_the_idle_one_was_asked_is_pardoned() -> None:
    home = Home(Line(flaps=FLAPS), Line(rtt_s=0.05, flaps=FLAPS))
    home.run(2, ARRIVING, NOTHING)
    home.cut()
    assert home.run(3, NOTHING, NOTHING, until=DEAD) <= 0.3, "one silent line alone is dead as fast as ever"
    home.lines[1].health.ask(home.lines[1].now)
    home.run(3, NOTHING, NOTHING, until=UNHEARD)
    assert home.states() == [UNHEARD, UNHEARD]
    for line in home.lines:
        line.alive = True
    home.run(3, NOTHING, NOTHING)
    assert home.states() == [UP, UP]
    assert flap(home.lines[0]) == UP, "its first death that counts"
    assert flap(home.lines[0]) == HELD


def test_a_line_whose_neighbour_lives_is_dead_as_fast_as_ever() -> None:
    home = Home(Line(), Line(rtt_s=0.05))
    home.run(2, ARRIVING, ARRIVING)
    home.lines[0].alive = False
    assert home.run(2, NOTHING, ARRIVING, until=DEAD) <= 0.3
    home.run(1, NOTHING, ARRIVING)
    home.lines[1].alive = False
    home.run(3, NOTHING, NOTHING)
    assert home.states() == [DEAD, DEAD], "the second died of its own: it was heard when the first one was silent"


def test_a_line_that_answers_while_all_seem_silent_shows_the_other_dead() -> None:
    home = Home(Line(), Line(rtt_s=0.05))
    home.run(2, ARRIVING, ARRIVING)
    home.lines[0].alive = False
    assert home.run(2, NOTHING, NOTHING, until=DEAD) <= 0.35


def test_a_machine_that_stands_still_for_half_a_second_kills_no_line() -> None:
    home = Home(Line(), Line(rtt_s=0.05))
    home.run(2, ARRIVING, ARRIVING)
    home.cut()
    home.run(0.5, NOTHING, NOTHING)
    assert home.states() == [SUSPECT, SUSPECT]
    home.run(0.1, ARRIVING, ARRIVING)
    assert home.states() == [UP, UP]


def test_when_the_concentrator_is_back_a_line_that_is_not_is_dead() -> None:
    home = Home(Line(), Line(rtt_s=0.05))
    home.run(2, ARRIVING, ARRIVING)
    home.cut()
    home.run(5, NOTHING, NOTHING)
    home.lines[0].alive = True
    home.run(3, NOTHING, NOTHING)
    assert home.states() == [UP, DEAD]


def test_a_line_alone_is_dead_when_nothing_comes_back_and_one_long_dead_is_no_witness() -> None:
    home = Home(Line(), Line(rtt_s=0.05))
    home.run(2, ARRIVING, ARRIVING)
    home.lines[1].alive = False
    home.run(20, ARRIVING, NOTHING)
    home.lines[0].alive = False
    assert home.run(2, NOTHING, NOTHING, until=DEAD) <= 0.3
    alone = Home(Line())
    alone.run(2, ARRIVING)
    alone.cut()
    assert alone.run(2, NOTHING, until=DEAD) <= 0.3


def test_who_is_not_heard_is_not_asked_more_often_than_a_dead_line() -> None:
    home = Home(Line(is_metered=True), Line(is_metered=True))
    home.run(2, ARRIVING, ARRIVING)
    home.cut()
    home.run(5, NOTHING, NOTHING, until=UNHEARD)
    before = home.lines[0].probes
    home.run(60, NOTHING, NOTHING)
    assert 8 <= home.lines[0].probes - before <= 20
    assert all(line.health.next_wake(line.now) > 2 * STEP for line in home.lines)


def flap(line: Line, *, away_s: float = 2.0, back_s: float = 3.0) -> str:
    line.run(0.5, ARRIVING)
    line.alive = False
    line.run(away_s, NOTHING)
    line.alive = True
    line.run(back_s, NOTHING)
    return line.health.state


def test_a_line_that_dies_again_and_again_is_held_down_and_a_single_death_is_not() -> None:
    line = Line(flaps=(3, 60, 5))
    assert [flap(line) for _ in range(3)] == [UP, UP, HELD]
    assert not line.health.is_usable()
    assert shown(line.health)[:2] == (HELD_DOWN, Reason.WAN_FLAPPING)
    assert 0 < line.health.held_s(line.now) <= 5
    assert line.run(10, NOTHING, until=UP) <= 5
    assert flap(line) == HELD, "the fourth within the window"
    assert line.run(20, NOTHING, until=UP) >= 5, "twice as long"
    line.run(120, NOTHING)
    assert flap(line) == UP, "forgiven"


def test_a_held_line_that_dies_is_dead_and_the_only_one_is_released() -> None:
    line = Line(flaps=(1, 60, 30))
    assert flap(line) == HELD
    line.alive = False
    assert line.run(5, NOTHING, until=DEAD) <= 3
    line.alive = True
    line.run(4, NOTHING, until=HELD)
    line.health.release(line.now)
    assert line.health.is_usable()


def test_a_link_that_flaps_is_held_down_too() -> None:
    line = Line(flaps=(3, 60, 5))
    for _ in range(3):
        line.health.absent(line.now, Reason.WAN_LINK_DOWN)
        line.run(0.5, NOTHING)
        line.health.present(line.now, can_probe=True)
        line.run(1.0, NOTHING)
    assert line.health.state == HELD


def test_the_damper_is_off_with_a_count_of_zero_and_has_a_longest_hold() -> None:
    never, soon = FlapDamper(*NEVER_HELD), FlapDamper(2, 1000, 10)
    for second in range(100):
        never.died(second)
        soon.died(second)
    assert never.left_s(100) == 0
    assert soon.left_s(99) == HOLD_MAX_S


def test_loss_is_counted_over_the_probes_of_late_and_degrades() -> None:
    line = Line()
    assert line.health.quality.loss() is None
    line.run(120, NOTHING)
    assert line.health.quality.loss() == 0
    for _ in range(6):
        line.health.answered(line.now, 0.03, lost=1)
        line.run(6, NOTHING)
    loss = line.health.quality.loss()
    assert loss is not None
    assert 0.10 <= loss <= 0.15
    assert shown(line.health)[:2] == (DEGRADED, Reason.WAN_LOSSY)
    assert line.health.is_usable()
    line.run(120, NOTHING)
    assert shown(line.health)[0] == UP


def test_a_round_trip_that_stays_long_degrades_and_is_the_usual_one_after_a_while() -> None:
    line = Line(rtt_s=0.03)
    line.run(60, NOTHING)
    line.rtt_s = 0.3
    line.run(50, NOTHING)
    assert shown(line.health)[0] == UP
    line.run(30, NOTHING)
    assert shown(line.health)[:2] == (DEGRADED, Reason.WAN_HIGH_RTT)
    assert "ms instead of" in shown(line.health)[2]
    line.run(900, NOTHING)
    assert shown(line.health)[0] == UP


def test_a_long_round_trip_under_load_is_no_complaint() -> None:
    line = Line(rtt_s=0.03)
    line.run(60, NOTHING)
    line.rtt_s = 0.4
    line.run(300, ARRIVING._replace(rtt_s=0.4))
    assert shown(line.health)[0] == UP


def test_what_people_are_shown() -> None:
    assert set(SHOWN) == set(TRANSITIONS)
    line = Line()
    assert shown(line.health)[0] == UP
    assert shown(line.health, is_out_of_quota=True)[0] == OUT_OF_QUOTA
    line.health.quality.stripped = "8 of the last 8 connections got a SYN+ACK without MPTCP"
    assert shown(line.health) == (DEGRADED, Reason.ACCESS_STRIPS, line.health.quality.stripped)
    line.health.absent(line.now, Reason.WAN_LINK_DOWN)
    assert shown(line.health, is_out_of_quota=True) == (OFFLINE, Reason.WAN_LINK_DOWN, "")


def test_a_stripping_wan_begins_no_connections_when_two_others_carry_together() -> None:
    assert begins_last({"dsl": True, "lte": False}) == set()
    assert begins_last({"dsl": True, "lte": False, "cable": False}) == {"dsl"}
    assert begins_last({"dsl": True, "lte": True, "cable": False}) == set()


def test_when_multipath_tcp_is_looked_at() -> None:
    quality = WanHealth(silent_s=0.1, return_s=1, now=0).quality
    looks: list[float] = []
    answers = True

    def day(start: float, *, is_metered: bool = False) -> int:
        before = len(looks)
        now = start
        while now < start + 86400:
            if quality.check_due(now, up_since=0, is_metered=is_metered):
                looks.append(now)
                quality.checked(now + 1, is_answered=answers)
            now += 1
        return len(looks) - before

    assert day(0) == 4
    assert 1 <= looks[0] <= 2
    assert day(86400, is_metered=True) == 1
    quality.stripped = "seen"
    assert 140 <= day(2 * 86400) <= 144
    assert 23 <= day(3 * 86400, is_metered=True) <= 24
    quality.stripped = ""
    quality.look_again(4 * 86400.0)
    quality.look_again(4 * 86400.0 + 1)
    assert day(4 * 86400) <= 5


def test_a_concentrator_that_does_not_answer_looks_is_left_alone_more_and_more() -> None:
    quality = WanHealth(silent_s=0.1, return_s=1, now=0).quality
    looks = 0
    for second in range(86400):
        if quality.check_due(second, up_since=0, is_metered=False):
            looks += 1
            quality.checked(second + 15, is_answered=False)
    assert looks <= 14


def subflow(port: int, **values: int) -> Subflow:
    base = Subflow("10.1.0.2", port, "10.9.0.1", 5124, 1, 0, 0, 0, 0, 20.0, 1.0, 0, 0, 0)
    return base._replace(**values)  # type: ignore[arg-type]


def test_sampler_adds_up_what_moved_since_last_time() -> None:
    sampler = Sampler()
    sampler.take(1.0, [subflow(1, bytes_received=100, segments_in=2), subflow(2)])
    samples = sampler.take(1.1, [subflow(1, bytes_received=1100, segments_in=3), subflow(2, segments_in=4)])
    assert samples["10.1.0.2"][:3] == (2, 5, 1000)
    assert samples["10.1.0.2"].rtt_s == 0.02


def test_what_is_closed_and_waits_for_an_answer_is_not_established() -> None:
    fin_wait1, close_wait = 4, 8
    rows = [subflow(1), subflow(2, state=fin_wait1, unacked=1), subflow(3, state=close_wait), subflow(4)]
    sample = Sampler().take(1.0, rows)["10.1.0.2"]
    assert (sample.open, sample.established) == (4, 2)


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


def test_which_bytes_are_worth_another_look_soon() -> None:
    sampler = Sampler()
    sampler.take(1.0, [subflow(1, bytes_acked=10)])
    assert not sampler.is_waited_for(1.0, is_second_look=False)
    sampler.take(2.0, [subflow(1, bytes_acked=10, unacked=5)])
    assert sampler.is_waited_for(2.0, is_second_look=False)
    assert not sampler.is_waited_for(2.0, is_second_look=True), "others than the look before had seen"
    sampler.take(2.03, [subflow(1, bytes_acked=10, unacked=5)])
    assert sampler.is_waited_for(2.03, is_second_look=True)
    sampler.take(2.1 + WATCHED_S, [subflow(1, bytes_acked=10, unacked=5)])
    assert not sampler.is_waited_for(2.1 + WATCHED_S, is_second_look=True), "not for ever"
