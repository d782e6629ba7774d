"""How much of a WAN's monthly volume is used, and what follows (requirement X-5, draft section 5.6.1). Pure.

Days are those of the router's own time zone and come as an argument. A router has no clock of its own: it boots in 1970, or
at the time of its newest file, and is right only after NTP. So bytes are kept by counting period, and no date takes any
away: a date before the newest known period is not believed, the newest period goes on; when the clock insists for CONFIRM_S,
periods that it says are in the future have been a mistake, and their bytes move to the present one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

WITHIN, SOFT, OVER = "within", "soft", "over"

CREDIBLE_FROM_YEAR = 2025
"""No router runs this package earlier: a clock that says so was not set."""
CONFIRM_S = 24 * 3600.0
"""How long a clock must say that the newest period has not begun before it is believed. NTP mends a wrong clock sooner."""
PERIODS_KEPT = 3
FULL_PERCENT = 100.0

STEPS: tuple[tuple[str, str], ...] = (
    (OVER, "last resort: used only while no other WAN is healthy"),
    (SOFT, "counts as role backup: used only while no normal WAN is healthy"),
    (WITHIN, "no restriction"),
)
"""State -> what follows, the worst first; :func:`state_of` says when."""


class Day(NamedTuple):
    """A date of the proleptic Gregorian calendar; compares as dates do."""

    year: int
    month: int
    day: int

    def __str__(self) -> str:
        """``2026-11-25``"""
        return f"{self.year:04}-{self.month:02}-{self.day:02}"

    @classmethod
    def parse(cls, text: str) -> Day:
        """The reverse of ``str``. Raises ValueError."""
        year, month, day = (int(part) for part in text.split("-"))
        if not (1 <= year <= 9999 and 1 <= month <= 12 and 1 <= day <= days_in(year, month)):
            raise ValueError(text)
        return cls(year, month, day)


def days_in(year: int, month: int) -> int:
    """Of a month."""
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def period(today: Day, reset_day: int) -> tuple[Day, Day]:
    """``(first day, first day of the next one)`` of the counting period that ``today`` is in.

    ``reset_day`` is 1 to 31; a month that has no such day begins its period on its last one.
    """
    here = _start(today.year, today.month, reset_day)
    if today >= here:
        return here, _start(*_following(today.year, today.month), reset_day)
    return _start(*_preceding(today.year, today.month), reset_day), here


def state_of(used: int, limit: int, soft_percent: float) -> str:
    """WITHIN, SOFT or OVER; bytes. A limit of 0 is none."""
    if not limit:
        return WITHIN
    percent = FULL_PERCENT * used / limit
    if percent >= FULL_PERCENT:
        return OVER
    return SOFT if percent >= soft_percent else WITHIN


class Usage:
    """Bytes of one WAN. ``now`` is time.monotonic(), ``today`` what the clock says, which may be nonsense."""

    def __init__(self, periods: Mapping[Day, int] | None = None) -> None:
        self.periods: dict[Day, int] = dict(periods or {})
        """First day of a period -> bytes. Before any credible date there is one: UNDATED."""
        self._back_from: float | None = None
        """Since when the clock has said that the newest period has not begun."""

    def count(self, now: float, today: Day, reset_day: int, counted: int) -> None:
        """That many bytes have passed; also to be called with 0, for the day."""
        start = self._current(now, today, reset_day)
        self.periods[start] = self.periods.get(start, 0) + counted

    def used(self, today: Day, reset_day: int) -> int:
        """Bytes of the period, of whose day :meth:`count` has been told. Those of later periods, made by a clock that was wrong
        or hidden by one that is, count too."""
        if not self.periods:
            return 0
        start, newest = period(today, reset_day)[0], max(self.periods)
        if start in self.periods:
            return sum(count for begin, count in self.periods.items() if begin >= start)
        return self.periods[newest]

    def correct(self, now: float, today: Day, reset_day: int, used: int) -> None:
        """The period's bytes are these."""
        start = self._current(now, today, reset_day)
        self.periods = {begin: count for begin, count in self.periods.items() if begin < start}
        self.periods[start] = used

    def _current(self, now: float, today: Day, reset_day: int) -> Day:
        """The period that is counted in. Begins one, and takes a mistaken one back, when that is due."""
        newest = max(self.periods, default=UNDATED)
        if not is_credible(today):
            self._back_from = None
            return newest
        start = period(today, reset_day)[0]
        if newest == UNDATED:
            self.periods[start] = self.periods.pop(UNDATED, 0)
        elif start > newest:
            # Another reset day since: nobody knows which part of the bytes is older than it, so that all stay.
            is_moved = period(newest, reset_day)[0] != newest and start < _month_after(newest)
            self.periods[start] = self.periods.pop(newest) if is_moved else 0
            for begin in sorted(self.periods)[:-PERIODS_KEPT]:
                del self.periods[begin]
        elif start < newest:
            if self._back_from is None:
                self._back_from = now
            if now - self._back_from < CONFIRM_S:
                return newest
            later = [begin for begin in self.periods if begin > start]
            self.periods[start] = self.periods.get(start, 0) + sum(self.periods.pop(begin) for begin in later)
        self._back_from = None
        return start


UNDATED = Day(1, 1, 1)


def is_credible(today: Day) -> bool:
    """Whether the clock can be right at all."""
    return today.year >= CREDIBLE_FROM_YEAR


def _start(year: int, month: int, reset_day: int) -> Day:
    return Day(year, month, min(reset_day, days_in(year, month)))


def _month_after(day: Day) -> Day:
    return _start(*_following(day.year, day.month), day.day)


def _following(year: int, month: int) -> tuple[int, int]:
    return (year + 1, 1) if month == 12 else (year, month + 1)


def _preceding(year: int, month: int) -> tuple[int, int]:
    return (year - 1, 12) if month == 1 else (year, month - 1)
