"""The speed test's sums and words: ports, what is measured in which order, goodput of what was counted. No IO, no clock.

The test is a Convert connection whose destination is the concentrator itself. The relay workers import this module, so
nothing heavy may be in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

DISCARD_PORT = 9
"""RFC 863: everything that comes is thrown away. Measures upload."""
CHARGEN_PORT = 19
"""RFC 864: something is sent until the peer closes. Measures download."""
DOWN, UP = "down", "up"
PORTS = {DOWN: CHARGEN_PORT, UP: DISCARD_PORT}
BONDED = ""
"""In place of a WAN's name: all of them together."""

SETTLE_S = 1.0
"""Not counted at the start: slow start, and for a bonded run the time until the slower lines have joined (design D18)."""
COUNTED_S = 4.0
"""Counted after that. A line of 100 Mbit/s carries 60 MB in a run of this length; twice as long changed no figure by 1 %."""
RUN_S = SETTLE_S + COUNTED_S
STALL_S = 1.0
"""Two retransmissions of a slow line; a line that is only slow brings something in this time."""
LATELY = 6
"""Samples, half a second of them, that a figure is made of to look at while nothing counts yet."""
SHORTEST_S = 1.0
"""A run that ended early says something if so much of it was counted."""
PAUSE, BURST = 0.25, 2.0
"""In units of the run's median rate: an interval below the first is a hole (bytes wait for one that was lost), one above the
second is a hole that fills. Counting that begins or ends inside makes a line faster or slower than it is."""
TRIM_SHARE = 0.25
"""Of the counted time, at most, given up at each end to begin and end outside of holes."""

IDLE, RUNNING, DONE, FAILED = "idle", "running", "done", "failed"
WAITING, STOPPED = "waiting", "stopped"
"""Of a run, besides the ones above: not begun yet; ended by hand."""

Sample = tuple[float, int]
"""``(seconds since the first byte could flow, bytes until then)``"""


class Run:
    """One direction over one WAN, or over all of them."""

    __slots__ = ("direction", "error", "mbit", "progress", "samples", "state", "wan")

    def __init__(self, wan: str, direction: str) -> None:
        self.wan = wan
        """BONDED for all together."""
        self.direction = direction
        """DOWN or UP, as the LAN sees it."""
        self.state = WAITING
        self.mbit = 0.0
        """Of what counts; while nothing does yet, of the last moments."""
        self.error = ""
        """One line for people; what a figure is worth less for, too."""
        self.progress = 0.0
        """0 to 1."""
        self.samples: list[Sample] = []

    def counted(self, elapsed_s: float, count: int) -> None:
        """So many bytes after so many seconds."""
        self.samples.append((elapsed_s, count))
        self.progress = min(1.0, round(elapsed_s / RUN_S, 3))
        self.mbit = goodput_mbit(self.samples) or _rate_mbit(self.samples[-LATELY:])

    def ended(self, error: str = "") -> None:
        """No more will be counted."""
        figure = 0.0 if has_stalled(self.samples) else goodput_mbit(self.samples)
        self.mbit = figure or 0.0
        if figure:
            self.state, self.error = DONE, error
        else:
            self.state = FAILED
            arrived = bool(self.samples) and self.samples[-1][1] > 0
            self.error = error or ("the line stopped carrying data meanwhile" if arrived else "no data came through")
        self.progress = 1.0

    def report(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "wan": self.wan,
            "direction": self.direction,
            "state": self.state,
            "progress": self.progress,
            "mbit": round(self.mbit, 1),
            "error": self.error,
        }


def goodput_mbit(samples: Sequence[Sample]) -> float | None:
    """Mbit/s of user data after SETTLE_S, from outside of a hole to outside of a hole; None: too little to say."""
    counted = [sample for sample in samples if sample[0] >= SETTLE_S]
    if not counted or counted[-1][0] - counted[0][0] < SHORTEST_S:
        return None
    ordinary = _without_holes_at_the_ends(counted)
    return _rate_mbit([ordinary[0], ordinary[-1]])


def _without_holes_at_the_ends(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Begins with an ordinary interval, and ends with one that was no pause."""
    rates = [_rate_mbit(pair) for pair in pairwise(samples)]
    usual = sorted(rates)[len(rates) // 2]
    spare_s = TRIM_SHARE * (samples[-1][0] - samples[0][0])
    begins = (n for n, rate in enumerate(rates) if PAUSE * usual <= rate <= BURST * usual)
    ends = (n + 1 for n in range(len(rates) - 1, -1, -1) if rates[n] >= PAUSE * usual)
    begin, end = next(begins, 0), next(ends, len(rates))
    if samples[begin][0] - samples[0][0] > spare_s:
        begin = 0
    if samples[-1][0] - samples[end][0] > spare_s:
        end = len(rates)
    return samples[begin : end + 1]


def has_stalled(samples: Sequence[Sample]) -> bool:
    """Whether nothing came in the last STALL_S: an average over that would tell of no line there is."""
    before = [count for elapsed_s, count in samples if elapsed_s <= samples[-1][0] - STALL_S]
    return bool(before) and samples[-1][1] <= before[-1]


def _rate_mbit(samples: Sequence[Sample]) -> float:
    """From the first to the last."""
    (begin_s, before), (end_s, after) = samples[0], samples[-1]
    return (after - before) * 8e-6 / (end_s - begin_s) if end_s > begin_s else 0.0


def plan(usable: Sequence[str], wan: str) -> list[Run]:
    """What to measure: one WAN, or each alone and then, where there are several, all together. Raises ValueError."""
    if wan and wan not in usable:
        raise ValueError(f"wan {wan!r} is not usable now; usable are: {', '.join(usable) or 'none'}")
    names = [wan] if wan else [*usable, BONDED] if len(usable) > 1 else usable
    return [Run(name, direction) for name in names for direction in (DOWN, UP)]


def state_of(runs: Sequence[Run], *, is_running: bool) -> str:
    """Of the whole test: one of IDLE, RUNNING, DONE, FAILED. One figure is enough for DONE."""
    if is_running:
        return RUNNING
    states = {run.state for run in runs}
    if not runs or STOPPED in states:
        return IDLE
    return DONE if DONE in states else FAILED


def refusal_text(code: int) -> str:
    """What an Error TLV means that answers a speed test's Connect (RFC 8803 section 4.2.8)."""
    if code in (3, 32):
        text = "the concentrator does not know this subscriber"
    elif code in (64, 65):
        text = "the concentrator is busy, perhaps with other speed tests: try again in a minute"
    elif code in (96, 97):
        text = "the concentrator offers no speed test: option speedtest of its section global is off, or it is of another make"
    else:
        text = "the concentrator refused the speed test"
    return f"{text} (Convert Error {code})"
