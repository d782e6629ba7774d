"""What a receiver's record of its reads says: rates, gaps, recovery, shares. Pure: no sockets and no clock.

An arrival is ``(time in s, bytes)``, one for each read that returned data; records are in order of time. Rates are in
Mbit/s of payload, decimal.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence

Arrival = tuple[float, int]

BITS_PER_MBIT = 1_000_000
RECOVERED_SHARE = 0.8
"""Of the remaining lines' rate: from there on a connection counts as recovered after a cut."""
RECOVERY_WINDOW_S, RECOVERY_HOLDS_S = 0.25, 1.0
"""Over which that rate is measured: some 5 RTTs of a slow line, and a whole second, so that one burst does not decide."""


def mbit(size: int, seconds: float) -> float:
    """The rate of ``size`` bytes in ``seconds``; 0 when no time passed."""
    return size * 8 / BITS_PER_MBIT / seconds if seconds > 0 else 0.0


def size_of(rate_mbit: float, seconds: float) -> int:
    """How many bytes go through in that time at that rate: the reverse of :func:`mbit`."""
    return int(rate_mbit * BITS_PER_MBIT / 8 * seconds)


def rate_mbit(arrivals: Sequence[Arrival], start: float, end: float) -> float:
    """The rate between two times, ``start`` excluded and ``end`` included."""
    return mbit(sum(size for time, size in arrivals if start < time <= end), end - start)


def longest_gap_s(arrivals: Sequence[Arrival], start: float, end: float) -> float:
    """The longest time without a byte that reaches into ``start`` to ``end``."""
    begin, finish = longest_gap(arrivals, start, end)
    return finish - begin


def longest_gap(
    arrivals: Sequence[Arrival], start: float, end: float, *, begins_by: float = float("inf")
) -> tuple[float, float]:
    """From when to when the longest gap was that reaches into ``start`` to ``end``, of those that began by ``begins_by``.

    A gap counts in full when it began before ``start``; one that lasts beyond ``end`` is counted up to there.
    """
    longest = (start, start)
    last = next((time for time, _ in reversed(arrivals) if time <= start), start)
    for time in [*(time for time, _ in arrivals if start < time <= end), end]:
        if last <= begins_by and time - last > longest[1] - longest[0]:
            longest = (last, time)
        last = time
    return longest


def recovery_s(arrivals: Sequence[Arrival], cut: float, rate: float, *, not_before: float = 0.0) -> float | None:
    """How long after ``cut`` the rate is back at RECOVERED_SHARE of ``rate`` (Mbit/s), and stays there: both the quarter
    second and the second that begin then have that much.

    They begin with an arrival after the cut, at ``not_before`` or later: what was under way at the cut may still arrive and
    fill a window before the pause. None when that is not reached while the record lasts.
    """
    after = [arrival for arrival in arrivals if arrival[0] > cut]
    times = [time for time, _ in after]
    totals = [0, *itertools.accumulate(size for _, size in after)]
    for place, start in enumerate(times):
        if times[-1] < start + RECOVERY_HOLDS_S:
            return None
        if start >= not_before and all(
            totals[bisect.bisect_left(times, start + window_s)] - totals[place]
            >= size_of(RECOVERED_SHARE * rate, window_s)
            for window_s in (RECOVERY_WINDOW_S, RECOVERY_HOLDS_S)
        ):
            return start - cut
    return None


def shares(amounts: Mapping[str, float]) -> dict[str, float]:
    """Each one's part of the sum, 0 to 1; all 0 when there is nothing to share."""
    total = sum(amounts.values())
    return {name: amount / total if total else 0.0 for name, amount in amounts.items()}
