"""Rates, gaps and recovery from a record of reads, at the edges of their definitions."""

from __future__ import annotations

import pytest

from cpe_mcp.lab.measure import longest_gap, longest_gap_s, mbit, rate_mbit, recovery_s, shares, size_of

pytestmark = pytest.mark.unit

MBIT = 125_000
"""Bytes."""


def test_rates_and_sizes_are_each_others_reverse() -> None:
    assert mbit(MBIT, 1.0) == 1.0
    assert size_of(1.0, 1.0) == MBIT
    assert mbit(size_of(142.0, 15.0), 15.0) == pytest.approx(142.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time_is_no_rate(seconds: float) -> None:
    assert mbit(MBIT, seconds) == 0.0


def test_the_start_of_a_rate_is_excluded_and_its_end_included() -> None:
    arrivals = [(1.0, MBIT), (2.0, MBIT), (3.0, MBIT), (4.0, MBIT)]
    assert rate_mbit(arrivals, 1.0, 3.0) == pytest.approx(1.0)
    assert rate_mbit(arrivals, 4.0, 5.0) == 0.0
    assert rate_mbit([], 0.0, 1.0) == 0.0
    assert rate_mbit(arrivals, 2.0, 2.0) == 0.0


def test_the_longest_gap_is_between_two_reads() -> None:
    assert longest_gap_s([(1.0, 1), (1.2, 1), (1.7, 1), (1.8, 1)], 1.0, 2.0) == pytest.approx(0.5)


def test_a_gap_that_began_earlier_counts_in_full() -> None:
    assert longest_gap_s([(0.2, 1), (1.5, 1), (1.9, 1)], 1.0, 2.0) == pytest.approx(1.3)


def test_a_gap_that_lasts_is_counted_up_to_the_end() -> None:
    assert longest_gap_s([(1.1, 1), (9.0, 1)], 1.0, 2.0) == pytest.approx(0.9)


def test_a_read_at_the_start_ends_what_was_before() -> None:
    assert longest_gap_s([(0.2, 1), (1.0, 1), (1.1, 1)], 1.0, 1.2) == pytest.approx(0.1)


def test_without_reads_the_whole_time_is_a_gap() -> None:
    assert longest_gap_s([], 1.0, 3.0) == pytest.approx(2.0)


def steady(start: float, end: float, rate: float, step: float = 0.001) -> list[tuple[float, int]]:
    """Reads every ``step`` s at a rate in Mbit/s."""
    count = round((end - start) / step)
    return [(start + step * (number + 1), size_of(rate, step)) for number in range(count)]


def test_a_rate_that_never_fell_is_back_at_once() -> None:
    assert recovery_s(steady(0.0, 3.0, 100.0), 1.0, 100.0) == pytest.approx(0.0, abs=0.02)


def test_recovery_after_a_pause() -> None:
    arrivals = steady(0.0, 1.0, 100.0) + steady(1.5, 3.0, 100.0)
    assert recovery_s(arrivals, 1.0, 100.0) == pytest.approx(0.5, abs=0.02)


def test_a_crawl_before_the_rate_is_back_counts() -> None:
    arrivals = steady(0.0, 1.0, 100.0) + steady(1.3, 2.0, 20.0) + steady(2.0, 4.0, 100.0)
    found = recovery_s(arrivals, 1.0, 100.0)
    assert found is not None
    # the quarter second that begins 0.06 s before the crawl ends has four fifths
    assert found == pytest.approx(0.94, abs=0.02)


@pytest.mark.parametrize(("rate", "recovers"), [(79.0, False), (81.0, True)])
def test_four_fifths_of_the_rate_count_as_recovered(rate: float, recovers: bool) -> None:
    assert (recovery_s(steady(1.0, 5.0, rate), 1.0, 100.0) is not None) is recovers


def test_what_came_before_the_cut_does_not_count() -> None:
    assert recovery_s(steady(0.0, 1.0, 1000.0), 1.0, 100.0) is None
    assert recovery_s([], 1.0, 100.0) is None


def test_one_burst_does_not_decide() -> None:
    burst = [(1.1, size_of(100.0, 0.3))]
    assert recovery_s([*burst, *steady(1.1, 4.0, 30.0)], 1.0, 100.0) is None
    found = recovery_s([*burst, *steady(2.0, 4.0, 100.0)], 1.0, 100.0)
    assert found == pytest.approx(1.0, abs=0.02)


def test_a_record_that_ends_too_soon_proves_nothing() -> None:
    assert recovery_s(steady(1.0, 1.9, 100.0), 1.0, 100.0) is None


def test_shares() -> None:
    assert shares({"dsl": 3.0, "lte": 1.0}) == {"dsl": 0.75, "lte": 0.25}
    assert shares({"dsl": 0.0, "lte": 0.0}) == {"dsl": 0.0, "lte": 0.0}
    assert shares({}) == {}


def test_recovery_comes_after_the_pause_however_much_arrives_before_it() -> None:
    burst = [(0.01 * step, 1_000_000) for step in range(1, 26)]
    later = [(0.70 + 0.01 * step, 100_000) for step in range(200)]
    gap = longest_gap([*burst, *later], 0.0, 1.0)
    assert gap == pytest.approx((0.25, 0.70))
    assert recovery_s([*burst, *later], 0.0, 50.0) == pytest.approx(0.01)
    assert recovery_s([*burst, *later], 0.0, 50.0, not_before=gap[1]) == pytest.approx(0.70)


def test_a_stall_long_after_the_trouble_is_not_the_pause_that_recovery_waits_for() -> None:
    """A pause of 80 ms at once, and one of 83 ms 2.6 s later, as seen once beside a change of address."""
    arrivals = [*steady(-1.0, 0.0, 100.0), *steady(0.08, 2.6, 100.0), *steady(2.683, 5.0, 100.0)]
    overall = longest_gap(arrivals, 0.0, 3.0)
    struck = longest_gap(arrivals, 0.0, 3.0, begins_by=1.0)
    assert overall[0] == pytest.approx(2.6, abs=0.01)
    assert list(struck) == pytest.approx([0.0, 0.081], abs=0.01)
    assert recovery_s(arrivals, 0.0, 100.0, not_before=struck[1]) == pytest.approx(0.08, abs=0.02)
