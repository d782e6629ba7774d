"""Which WANs carry, wait in backup, or are absent; when slower ones join and leave."""

from __future__ import annotations

import pytest

from cpe_mcp.paths.rates import QueueMeter, RateMeter
from cpe_mcp.paths.scheme import (
    LAST_RESORT,
    LEAVE_S,
    NORMAL,
    NOWHERE,
    RESERVE,
    Distributor,
    Line,
    Rank,
    Thresholds,
    ranked,
    split_scheme,
)
from cpe_mcp.policy.reasons import Reason

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.6.2-a"), pytest.mark.requirement("X-4")]

THRESHOLDS = Thresholds(busy_share=0.7, busy_s=0.5, idle_share=0.5, idle_s=5.0)


class Lines:
    """dsl (best) and lte with meters that see the given rates."""

    def __init__(
        self,
        *more: str,
        scheme: str = "adaptive",
        known: float = 0.0,
        resort: tuple[str, ...] = (),
        tier: int = RESERVE,
        metered: tuple[str, ...] = (),
        **rtt_s: float,
    ) -> None:
        self.now = 0.0
        self.scheme = scheme
        self.order = ["dsl", "lte", *more]
        self.resort = set(resort)
        self.tier = tier
        self.metered = set(metered)
        self.rtt_s = {"dsl": 0.02, "lte": 0.05, "third": 0.08, **rtt_s}
        self.queue = True
        self.meters = {name: RateMeter(known_down_mbit=known, known_up_mbit=known / 2) for name in self.order}
        self.bytes = dict.fromkeys(self.order, 0)
        self.distributor = Distributor(THRESHOLDS)
        self.places = NOWHERE

    @property
    def carrying(self) -> set[str]:
        return set(self.places.carrying)

    @property
    def absent(self) -> set[str]:
        return set(self.places.absent)

    @property
    def order_now(self) -> list[str]:
        return list(self.places.order)

    @property
    def backup(self) -> set[str]:
        return set(self.places.backup)

    def run(self, seconds: float, **mbit: float) -> float:
        """Rates for a time; returns when the places changed last, counted from the start of this call."""
        started, changed = self.now, -1.0
        while self.now < started + seconds:
            self.now += 0.05
            for name, meter in self.meters.items():
                self.bytes[name] += round(mbit.get(name, 0.0) * 1e6 / 8 * 0.05)
                meter.observe(self.now, self.bytes[name], 0)
            lines = [
                Line(
                    name=name,
                    tier=self.tier if name in self.resort else NORMAL,
                    preference=10,
                    rtt_s=self.rtt_s[name],
                    is_metered=name in self.metered,
                    meter=self.meters[name],
                    has_queue=self.queue,
                )
                for name in self.order
            ]
            places = self.distributor.update(self.now, self.scheme, lines)
            if places[1:4] != self.places[1:4]:
                changed = self.now - started
            self.places = places
        return changed


def test_the_slower_line_waits_in_backup() -> None:
    lines = Lines()
    lines.run(5)
    assert lines.backup == {"lte"}


def test_it_joins_within_a_second_of_the_first_bulk_transfer_and_leaves_five_after() -> None:
    lines = Lines()
    lines.run(3)
    assert 0.5 <= lines.run(3, dsl=95) <= 1.2
    assert lines.backup == set()
    lines.run(5, dsl=95, lte=45)
    assert lines.backup == set()
    assert 4.9 <= lines.run(10) <= 6.0
    assert lines.backup == {"lte"}


def test_a_known_rate_decides_when_it_is_set() -> None:
    lines = Lines(known=100)
    lines.run(5, dsl=60)
    assert lines.backup == {"lte"}
    lines.run(5, dsl=80)
    assert lines.backup == set()


def test_a_stream_below_the_learnt_rate_is_not_bulk() -> None:
    lines = Lines()
    lines.run(3, dsl=95)
    lines.run(10)
    lines.run(20, dsl=25)
    assert lines.backup == {"lte"}


def test_a_short_burst_is_not_bulk() -> None:
    lines = Lines()
    for _ in range(10):
        lines.run(0.3, dsl=90)
        lines.run(1.5)
    assert lines.backup == {"lte"}


def test_a_last_resort_never_joins_while_a_normal_line_lives() -> None:
    lines = Lines(resort=("lte",))
    lines.run(10, dsl=95)
    assert lines.backup == {"lte"}
    lines.order = ["lte"]
    lines.run(1, lte=40)
    assert lines.backup == set()


def test_the_best_line_dies_in_the_middle() -> None:
    lines = Lines()
    lines.run(3, dsl=95)
    lines.order = ["lte"]
    lines.run(3, lte=45)
    assert lines.backup == set()
    lines.order = ["dsl", "lte"]
    lines.run(3, dsl=95, lte=45)
    assert lines.backup == set()


def test_order_is_role_preference_and_clearly_shorter_round_trips() -> None:
    ranks = {
        "resort": Rank(RESERVE, 1, 0.001),
        "far": Rank(NORMAL, 10, 0.050),
        "near": Rank(NORMAL, 10, 0.020),
        "wanted": Rank(NORMAL, 5, 0.200),
    }
    assert ranked(ranks, []) == ["wanted", "near", "far", "resort"]


def test_like_round_trips_do_not_change_places() -> None:
    near, alike, clearly = Rank(NORMAL, 10, 0.020), Rank(NORMAL, 10, 0.018), Rank(NORMAL, 10, 0.015)
    assert ranked({"one": near, "two": alike}, ["one", "two"]) == ["one", "two"]
    assert ranked({"one": near, "two": clearly}, ["one", "two"]) == ["two", "one"]
    assert ranked({"one": alike, "two": near}, ["two", "one"]) == ["two", "one"]
    assert ranked({"two": near}, ["one", "two"]) == ["two"]


def test_no_line_at_all() -> None:
    lines = Lines()
    lines.order = []
    lines.run(1)
    assert lines.backup == set()


def test_a_learnt_rate_is_forgotten_slowly() -> None:
    meter = RateMeter(known_down_mbit=0, known_up_mbit=0)
    total, now = 0, 0.0
    for _ in range(40):
        now += 0.05
        total += round(100e6 / 8 * 0.05)
        meter.observe(now, total, 0)
    assert meter.capacity().down == pytest.approx(100, rel=0.05)
    for _ in range(20 * 360):
        now += 0.05
        meter.observe(now, total, 0)
    assert 40 <= meter.capacity().down <= 60


def test_a_device_made_anew_is_no_negative_rate() -> None:
    meter = RateMeter(known_down_mbit=0, known_up_mbit=0)
    for step in range(10):
        meter.observe(step * 0.1, 1_000_000 * step, 0)
    meter.observe(1.0, 5, 0)
    meter.observe(1.5, 10, 0)
    assert meter.rate.down >= 0


# The schemes ----------------------------------------------------------------------------------------------------------


def test_aggregate_uses_all_normal_lines_from_the_first_byte() -> None:
    lines = Lines("third", scheme="aggregate", resort=("third",))
    lines.run(0.1)
    assert (lines.carrying, lines.backup) == ({"dsl", "lte"}, {"third"})
    assert lines.places.reason == Reason.SCHEME_ALL


@pytest.mark.parametrize("scheme", ["primary-backup", "lowest-latency"])
def test_one_line_carries_however_busy_it_is(scheme: str) -> None:
    lines = Lines(scheme=scheme)
    lines.run(20, dsl=95)
    assert (lines.carrying, lines.backup, lines.absent) == ({"dsl"}, {"lte"}, set())
    lines.order.remove("dsl")
    lines.run(0.05, lte=40)
    assert lines.carrying == {"lte"}


def test_lowest_latency_asks_for_nothing_but_the_round_trip() -> None:
    lines = Lines(scheme="lowest-latency", metered=("lte",), lte=0.01)
    lines.run(0.1)
    assert (lines.order_now, lines.carrying) == (["lte", "dsl"], {"lte"})
    assert lines.places.reason == Reason.SCHEME_LATENCY


@pytest.mark.parametrize("scheme", ["primary-backup", "overflow"])
def test_the_metered_line_comes_last_where_the_fixed_line_comes_first(scheme: str) -> None:
    lines = Lines(scheme=scheme, metered=("dsl",))
    lines.run(0.1)
    assert (lines.order_now, lines.absent) == (["lte", "dsl"], {"dsl"})


def test_a_metered_line_has_no_endpoint_until_it_is_needed_and_leaves_by_way_of_backup() -> None:
    lines = Lines(scheme="overflow", metered=("lte",))
    lines.run(3)
    assert (lines.carrying, lines.absent) == ({"dsl"}, {"lte"})
    assert lines.places.reason == Reason.SCHEME_ROOM
    lines.run(2, dsl=95)
    assert lines.carrying == {"dsl", "lte"}
    assert lines.places.reason == Reason.SCHEME_JOINED
    lines.run(5, dsl=95, lte=40)
    lines.run(5 + 0.9, dsl=10)
    assert (lines.carrying, lines.backup) == ({"dsl"}, {"lte"})
    assert lines.run(LEAVE_S + 0.2, dsl=10) <= LEAVE_S
    assert lines.absent == {"lte"}


def test_overflow_takes_one_line_after_the_other_and_gives_them_back() -> None:
    lines = Lines("third", scheme="overflow", known=100)
    lines.run(3)
    assert lines.carrying == {"dsl"}
    lines.run(3, dsl=95, lte=30)
    assert lines.carrying == {"dsl", "lte"}
    lines.run(3, dsl=95, lte=80)
    assert lines.carrying == {"dsl", "lte", "third"}
    lines.queue = False
    lines.run(6, dsl=70, lte=70)
    assert lines.carrying == {"dsl", "lte"}
    lines.run(6, dsl=70, lte=20)
    assert lines.carrying == {"dsl", "lte"}, "that would fill nine tenths of dsl"
    lines.run(6, dsl=50, lte=20)
    assert lines.carrying == {"dsl"}


def test_a_line_without_a_queue_is_not_full_whatever_was_learnt() -> None:
    lines = Lines(scheme="overflow")
    lines.queue = False
    lines.run(10, dsl=95)
    assert lines.carrying == {"dsl"}
    lines.queue = True
    lines.run(1, dsl=95)
    assert lines.carrying == {"dsl", "lte"}


def test_a_line_without_a_queue_is_full_when_it_carries_what_it_is_said_to_carry() -> None:
    lines = Lines(scheme="overflow", known=100)
    lines.queue = False
    lines.run(5, dsl=90)
    assert lines.carrying == {"dsl"}
    lines.run(2, dsl=97)
    assert lines.carrying == {"dsl", "lte"}


def test_the_adaptive_scheme_does_not_wait_for_a_queue() -> None:
    lines = Lines()
    lines.queue = False
    lines.run(2, dsl=95)
    assert lines.carrying == {"dsl", "lte"}


def test_a_queue_is_a_round_trip_well_above_the_line_s_own() -> None:
    queue, now = QueueMeter(), 0.0
    assert not queue.has_queue(0.02), "nothing ran yet"
    for delay_s, lasts_s, expected in ((0.022, 1.0, False), (0.042, 1.0, True), (0.0, 1.0, True), (0.021, 1.5, False)):
        end = now + lasts_s
        while now < end:
            now += 0.03
            queue.observe(now, delay_s)
        assert queue.has_queue(0.02) == expected, delay_s
    queue.observe(now + 0.03, 0.060)
    assert not queue.has_queue(0.02), "one burst"
    assert not queue.has_queue(float("inf")), "no telling while the line's own round trip is not known"
    near = QueueMeter()
    near.observe(0.0, 0.003)
    assert not near.has_queue(0.001), "a few milliseconds are the router itself"


def test_single_is_without_failover() -> None:
    lines = Lines(scheme="single:lte")
    lines.run(5, lte=40)
    assert (lines.order_now, lines.carrying, lines.absent) == (["lte"], {"lte"}, {"dsl"})
    lines.order.remove("lte")
    lines.run(0.1)
    assert (lines.order_now, lines.carrying, lines.absent) == ([], set(), {"dsl"})
    assert lines.places.reason == Reason.SCHEME_SINGLE


@pytest.mark.requirement("X-5")
def test_the_last_resort_has_no_endpoint_and_carries_when_nothing_else_is_left() -> None:
    lines = Lines("third", resort=("lte",), tier=LAST_RESORT)
    lines.run(5, dsl=95)
    assert lines.absent == {"lte"}
    lines.order = ["lte"]
    lines.run(0.05)
    assert (lines.carrying, lines.places.reason) == ({"lte"}, Reason.SCHEME_RESERVE)


def test_a_reserve_that_is_metered_is_absent_and_another_one_in_backup() -> None:
    lines = Lines("third", resort=("lte", "third"), metered=("third",))
    lines.run(1)
    assert (lines.backup, lines.absent) == ({"lte"}, {"third"})


def test_what_is_wide_stays_wide_when_the_best_line_dies_and_returns() -> None:
    lines = Lines()
    lines.run(3, dsl=95)
    lines.order = ["lte"]
    lines.run(3, lte=45)
    lines.order = ["dsl", "lte"]
    lines.run(0.05, lte=45)
    assert lines.carrying == {"dsl", "lte"}
    lines.order = ["lte"]
    lines.run(8)
    lines.order = ["dsl", "lte"]
    lines.run(0.05)
    assert lines.carrying == {"dsl"}, "the traffic had ended meanwhile"


def test_another_scheme_takes_effect_at_once() -> None:
    lines = Lines()
    lines.run(1)
    lines.scheme = "aggregate"
    lines.run(0.05)
    assert lines.backup == set()
    lines.scheme = "single:dsl"
    lines.run(0.05)
    assert lines.backup == {"lte"}, "what is on its way arrives"
    lines.run(LEAVE_S + 0.1)
    assert lines.absent == {"lte"}


@pytest.mark.parametrize("word", ["", "single", "single:", "fastest", "adaptive:dsl"])
def test_what_is_no_scheme(word: str) -> None:
    with pytest.raises(ValueError, match="single:WAN"):
        split_scheme(word)


def test_short_transfers_one_after_the_other_show_what_the_line_can_carry() -> None:
    """500 kB at 100 Mbit/s take 40 ms; one every 200 ms are 20 Mbit/s, which is not what the line can do."""
    meter = RateMeter(known_down_mbit=0, known_up_mbit=0)
    received = 0
    for step in range(100):
        received += 250_000 if step % 10 < 2 else 0
        meter.observe(0.02 * step, received, 0)
    assert meter.rate.down == pytest.approx(20, rel=0.3)
    assert meter.rate.down / meter.capacity().down < 0.7
