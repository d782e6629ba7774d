"""The speed test's sums: what is measured in which order, and what the counted bytes say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cpe_mcp.policy.speed import (
    BONDED,
    DONE,
    DOWN,
    FAILED,
    IDLE,
    RUN_S,
    RUNNING,
    STOPPED,
    UP,
    Run,
    goodput_mbit,
    plan,
    refusal_text,
    state_of,
)

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-10")]


def test_the_first_second_does_not_count() -> None:
    slow_start = [(0.1 * n, 1000 * n) for n in range(11)]
    steady = [(1.0 + 0.1 * n, 10_000 + 1_250_000 * n) for n in range(1, 41)]
    assert goodput_mbit(slow_start + steady) == pytest.approx(100.0)


@pytest.mark.parametrize("samples", [[], [(0.5, 9)], [(1.0, 1)], [(0.2, 5), (1.5, 10**6), (2.4, 10**8)]])
def test_too_little_gives_no_figure(samples: list[tuple[float, int]]) -> None:
    assert goodput_mbit(samples) is None


def _line(mbit: float, *, held: Sequence[tuple[float, float]] = ()) -> list[tuple[float, int]]:
    """Samples of a line; what arrives within one of ``held`` shows at the end of it, all at once."""
    samples = []
    for tenth in range(int(RUN_S * 10) + 1):
        shown = next((begin for begin, end in held if begin < tenth / 10 < end), tenth / 10)
        samples.append((tenth / 10, int(shown * mbit / 8e-6)))
    return samples


@pytest.mark.parametrize("hole", [(0.8, 1.2), (0.95, 1.15), (0.6, 1.5), (4.75, 9.0), (4.85, 9.0), (2.0, 2.5)])
def test_a_hole_where_counting_begins_or_ends_does_not_change_the_figure(hole: tuple[float, float]) -> None:
    assert goodput_mbit(_line(40.0, held=[hole])) == pytest.approx(40.0, rel=0.02)


def test_a_line_that_is_mostly_holes_is_counted_as_a_whole() -> None:
    tens = [(second / 10, 500_000 * (second // 10)) for second in range(51)]
    assert goodput_mbit(tens) == pytest.approx(4.0, rel=0.01)


def test_each_wan_alone_and_then_all_together() -> None:
    runs = [(run.wan, run.direction) for run in plan(["dsl", "lte"], "")]
    assert runs == [("dsl", DOWN), ("dsl", UP), ("lte", DOWN), ("lte", UP), (BONDED, DOWN), (BONDED, UP)]
    assert [(run.wan, run.direction) for run in plan(["dsl"], "")] == [("dsl", DOWN), ("dsl", UP)]
    assert [(run.wan, run.direction) for run in plan(["dsl", "lte"], "lte")] == [("lte", DOWN), ("lte", UP)]
    with pytest.raises(ValueError, match=r"cable.*dsl, lte"):
        plan(["dsl", "lte"], "cable")


def test_a_run_and_the_whole() -> None:
    good, bad = Run("dsl", DOWN), Run("dsl", UP)
    assert state_of([], is_running=False) == IDLE
    for second in range(6):
        good.counted(float(second), second * 10**6)
    assert (good.progress, good.report()["mbit"]) == (1.0, 8.0)
    assert good.progress == min(1.0, 5 / RUN_S)
    assert state_of([good, bad], is_running=True) == RUNNING
    good.ended()
    bad.ended("no route")
    assert (good.state, bad.state, bad.error) == (DONE, FAILED, "no route")
    assert state_of([good, bad], is_running=False) == DONE
    assert state_of([bad], is_running=False) == FAILED
    bad.state = STOPPED
    assert state_of([good, bad], is_running=False) == IDLE


def test_what_is_shown_before_anything_counts() -> None:
    run = Run("dsl", DOWN)
    run.counted(0.0, 0)
    assert run.mbit == 0.0
    for tenth in range(1, 10):
        run.counted(tenth / 10, 0 if tenth < 4 else (tenth - 4) * 100_000)
    assert run.mbit == pytest.approx(8.0)
    run.ended()
    assert (run.mbit, run.state) == (0.0, FAILED), "it ended before it had said anything"


def test_a_line_that_breaks_off_has_no_figure() -> None:
    run = Run("lte", DOWN)
    for tenth in range(51):
        run.counted(tenth / 10, min(tenth, 35) * 600_000)
    run.ended()
    assert (run.state, run.mbit) == (FAILED, 0.0)
    assert "stopped" in run.error


def test_a_run_without_bytes_has_failed_and_says_so() -> None:
    run = Run("dsl", DOWN)
    for second in range(6):
        run.counted(float(second), 0)
    run.ended()
    assert (run.state, run.mbit) == (FAILED, 0.0)
    assert run.error


@pytest.mark.parametrize(
    ("code", "words"),
    [(32, "subscriber"), (3, "subscriber"), (64, "busy"), (96, "speedtest"), (97, "speedtest"), (1, "refused")],
)
def test_refusals_are_sentences(code: int, words: str) -> None:
    assert words in refusal_text(code)
    assert str(code) in refusal_text(code)
