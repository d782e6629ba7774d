"""When slower lines join and leave."""

from __future__ import annotations

import pytest

from cpe_mcp.paths.adaptive import Adaptive, Rank, RateMeter, ranked

pytestmark = pytest.mark.unit


class Lines:
    """dsl (best) and lte with meters that see the given rates."""

    def __init__(self, *, known: float = 0.0, resort: tuple[str, ...] = ()) -> None:
        self.now = 0.0
        self.order = ["dsl", "lte"]
        self.resort = set(resort)
        self.meters = {name: RateMeter(known_down_mbit=known, known_up_mbit=known / 2) for name in self.order}
        self.bytes = dict.fromkeys(self.order, 0)
        self.adaptive = Adaptive(busy_share=0.7, busy_s=0.5, idle_share=0.5, idle_s=5.0)
        self.backup: set[str] = set()

    def run(self, seconds: float, **mbit: float) -> float:
        """Rates for a time; returns when the set of backups changed last, counted from the start of this call."""
        started, changed = self.now, -1.0
        while self.now < started + seconds:
            self.now += 0.05
            for name, meter in self.meters.items():
                self.bytes[name] += round(mbit.get(name, 0.0) * 1e6 / 8 * 0.05)
                meter.observe(self.now, self.bytes[name], 0)
            backup = self.adaptive.update(self.now, self.order, self.resort, self.meters)
            if backup != self.backup:
                self.backup, changed = backup, self.now - started
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
        "resort": Rank(True, 1, 0.001),
        "far": Rank(False, 10, 0.050),
        "near": Rank(False, 10, 0.020),
        "wanted": Rank(False, 5, 0.200),
    }
    assert ranked(ranks, []) == ["wanted", "near", "far", "resort"]


def test_like_round_trips_do_not_change_places() -> None:
    near, alike, clearly = Rank(False, 10, 0.020), Rank(False, 10, 0.018), Rank(False, 10, 0.015)
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
