"""Counting periods, steps, and clocks that are wrong."""

from __future__ import annotations

import calendar
import datetime

import pytest

from cpe_mcp.policy.quota import (
    CONFIRM_S,
    OVER,
    PERIODS_KEPT,
    SOFT,
    STEPS,
    UNDATED,
    WITHIN,
    Day,
    Usage,
    days_in,
    period,
    state_of,
)

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-5")]

EPOCH = Day(1970, 1, 1)
NOV, DEC, JAN = Day(2026, 11, 1), Day(2026, 12, 1), Day(2027, 1, 1)


@pytest.mark.parametrize("year", [1900, 2000, 2026, 2028, 2100])
@pytest.mark.parametrize("month", range(1, 13))
def test_months_are_as_long_as_they_are(year: int, month: int) -> None:
    assert days_in(year, month) == calendar.monthrange(year, month)[1]


@pytest.mark.parametrize(
    ("today", "reset_day", "start", "following"),
    [
        ("2026-11-25", 1, "2026-11-01", "2026-12-01"),
        ("2026-11-01", 1, "2026-11-01", "2026-12-01"),
        ("2026-12-31", 1, "2026-12-01", "2027-01-01"),
        ("2026-11-14", 15, "2026-10-15", "2026-11-15"),
        ("2026-11-15", 15, "2026-11-15", "2026-12-15"),
        ("2027-01-10", 15, "2026-12-15", "2027-01-15"),
        ("2026-12-20", 15, "2026-12-15", "2027-01-15"),
        ("2026-02-27", 31, "2026-01-31", "2026-02-28"),
        ("2026-02-28", 31, "2026-02-28", "2026-03-31"),
        ("2028-02-28", 31, "2028-01-31", "2028-02-29"),
        ("2028-02-29", 30, "2028-02-29", "2028-03-30"),
        ("2026-03-30", 31, "2026-02-28", "2026-03-31"),
        ("2026-04-30", 31, "2026-04-30", "2026-05-31"),
        ("2026-03-01", 29, "2026-02-28", "2026-03-29"),
    ],
)
def test_the_period_of_a_day(today: str, reset_day: int, start: str, following: str) -> None:
    assert [str(day) for day in period(Day.parse(today), reset_day)] == [start, following]


@pytest.mark.parametrize("reset_day", [1, 15, 28, 29, 30, 31])
def test_periods_follow_each_other_without_gaps(reset_day: int) -> None:
    """Every day of eight years is in the period that the day before was in, or in the one that was said to follow it."""
    day = datetime.date(2024, 1, 1)
    before = period(Day(2023, 12, 31), reset_day)
    begun = 0
    while day < datetime.date(2032, 1, 1):
        start, following = period(Day(day.year, day.month, day.day), reset_day)
        assert start <= Day(day.year, day.month, day.day) < following
        if (start, following) != before:
            assert start == before[1]
            begun += 1
        before = (start, following)
        day += datetime.timedelta(days=1)
    assert begun in (96, 97)


@pytest.mark.parametrize("text", ["", "2026-02-29", "2026-13-01", "2026-00-10", "26", "a-b-c", "0-1-1"])
def test_what_is_no_day(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not enough|^too many|^invalid literal|^[0-9]"):
        Day.parse(text)


@pytest.mark.parametrize(
    ("used", "limit", "soft", "state"),
    [
        (0, 100, 80, WITHIN),
        (79, 100, 80, WITHIN),
        (80, 100, 80, SOFT),
        (99, 100, 80, SOFT),
        (100, 100, 80, OVER),
        (5000, 100, 80, OVER),
        (99, 100, 100, WITHIN),
        (100, 100, 100, OVER),
        (5000, 0, 80, WITHIN),
    ],
)
def test_steps(used: int, limit: int, soft: int, state: str) -> None:
    assert state_of(used, limit, soft) == state
    assert state in dict(STEPS)


def test_it_counts_and_begins_anew_on_the_day() -> None:
    usage = Usage()
    usage.count(0, Day(2026, 11, 25), 1, 70)
    usage.count(1, Day(2026, 11, 30), 1, 5)
    assert usage.used(Day(2026, 11, 30), 1) == 75
    usage.count(2, DEC, 1, 3)
    assert usage.used(DEC, 1) == 3


def test_old_periods_are_forgotten() -> None:
    usage = Usage()
    for month in range(1, 13):
        usage.count(month, Day(2026, month, 5), 1, month)
    assert list(usage.periods.values()) == [10, 11, 12]
    assert len(usage.periods) == PERIODS_KEPT


def test_a_clock_that_was_never_set_counts_all_the_same() -> None:
    usage = Usage()
    usage.count(0, EPOCH, 1, 70)
    assert usage.periods == {UNDATED: 70}
    assert usage.used(EPOCH, 1) == 70
    usage.count(60, Day(2026, 11, 25), 1, 5)
    assert usage.periods == {NOV: 75}


@pytest.mark.parametrize(
    "wrong", [EPOCH, Day(2025, 3, 9), Day(2026, 10, 31)], ids=["1970", "the image's day", "the last file's day"]
)
def test_a_router_that_boots_in_the_past_goes_on(wrong: Day) -> None:
    usage = Usage({NOV: 70})
    usage.count(0, wrong, 1, 5)
    assert usage.used(wrong, 1) == 75
    usage.count(60, Day(2026, 11, 25), 1, 0)
    assert usage.used(Day(2026, 11, 25), 1) == 75


def test_back_into_a_period_that_is_known_hides_nothing_and_forward_brings_nothing_twice() -> None:
    """The clock is an hour behind just after the day, with bytes of both months on file."""
    usage = Usage({NOV: 70, DEC: 2})
    usage.count(0, Day(2026, 11, 30), 1, 5)
    assert usage.used(Day(2026, 11, 30), 1) == 77
    usage.count(60, DEC, 1, 0)
    assert usage.used(DEC, 1) == 7


def test_a_clock_that_jumps_into_the_future_and_back_loses_nothing() -> None:
    usage = Usage({NOV: 70})
    future, here = Day(2036, 1, 1), Day(2026, 11, 25)
    usage.count(0, future, 1, 5)
    usage.count(60, here, 1, 1)
    assert usage.used(here, 1) == 76
    usage.count(60 + CONFIRM_S, here, 1, 0)
    assert usage.periods == {NOV: 76}
    usage.count(90 + CONFIRM_S, DEC, 1, 4)
    assert usage.used(DEC, 1) == 4, "and the next month begins as ever"


def test_the_future_was_a_mistake_and_the_month_has_ended_meanwhile() -> None:
    usage = Usage({NOV: 70, Day(2036, 1, 1): 5})
    usage.count(0, DEC, 1, 1)
    assert usage.used(DEC, 1) == 6, "not believed yet: it goes on"
    usage.count(CONFIRM_S, DEC, 1, 0)
    assert usage.periods == {NOV: 70, DEC: 6}


def test_a_doubt_begins_anew_when_the_clock_is_right_in_between() -> None:
    usage = Usage({NOV: 70, DEC: 5})
    usage.count(0, Day(2026, 11, 30), 1, 0)
    usage.count(CONFIRM_S / 2, DEC, 1, 0)
    usage.count(CONFIRM_S, Day(2026, 11, 30), 1, 0)
    usage.count(CONFIRM_S + 60, DEC, 1, 0)
    assert usage.periods == {NOV: 70, DEC: 5}


@pytest.mark.parametrize(("before", "after"), [(1, 15), (15, 1), (31, 1), (1, 31)])
def test_another_reset_day_keeps_what_was_counted(before: int, after: int) -> None:
    usage, today = Usage(), Day(2026, 11, 20)
    usage.count(0, today, before, 70)
    usage.count(1, today, after, 5)
    assert usage.used(today, after) == 75
    usage.count(2 + CONFIRM_S, today, after, 0)
    assert usage.used(today, after) == 75
    begin = period(today, after)[1]
    usage.count(3 + CONFIRM_S, begin, after, 1)
    assert usage.used(begin, after) == 1


def test_another_reset_day_after_a_long_pause_does_not_keep_it() -> None:
    usage = Usage({NOV: 70})
    usage.count(0, Day(2027, 1, 20), 15, 5)
    assert usage.used(Day(2027, 1, 20), 15) == 5


@pytest.mark.parametrize("today", [Day(2026, 11, 25), EPOCH, Day(2026, 10, 2)])
def test_a_count_of_the_operator_replaces_ours(today: Day) -> None:
    usage = Usage({Day(2026, 10, 1): 9, NOV: 70})
    usage.correct(0, today, 1, 12)
    usage.count(1, Day(2026, 11, 25), 1, 1)
    assert usage.used(Day(2026, 11, 25), 1) == 13
