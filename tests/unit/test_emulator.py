"""The emulated line and the emulator's control answers, on a clock that the test moves."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from cpe_mcp.lab.emulator import Emulator
from cpe_mcp.lab.line import ETHERNET_HEADER_BYTES, Direction, default_queue_ms

pytestmark = pytest.mark.unit

FULL = bytes(1500 + ETHERNET_HEADER_BYTES)
TRANSMISSION_S = 1500 * 8 / 12e6
"""Of one full packet at 12 Mbit/s: 1 ms."""


def direction(**changes: Any) -> Direction:
    values: dict[str, Any] = {"rate_mbit": 12, "delay_ms": 10, "queue_ms": 30}
    return Direction(**{**values, **changes})


def draws(*values: float) -> Callable[[], float]:
    rest = iter(values)
    return lambda: next(rest)


def test_one_packet_takes_transmission_and_delay() -> None:
    line = direction()
    line.admit(100.0, FULL)
    assert line.next_arrival() == pytest.approx(100.0 + TRANSMISSION_S + 0.010)
    assert line.pull_arrived(line.next_arrival() - 1e-6) == []
    assert line.pull_arrived(line.next_arrival()) == [FULL]
    assert line.next_arrival() == inf


def test_rate_counts_ip_bytes_only() -> None:
    line = direction(delay_ms=0)
    line.admit(0.0, bytes(ETHERNET_HEADER_BYTES))
    assert line.next_arrival() == 0.0


def test_burst_leaves_at_the_rate_and_in_order() -> None:
    line = direction()
    frames = [bytes([number]) + FULL[1:] for number in range(10)]
    for frame in frames:
        line.admit(0.0, frame)
    arrivals = []
    arrived: list[bytes] = []
    while line.next_arrival() < inf:
        arrivals.append(line.next_arrival())
        arrived += line.pull_arrived(arrivals[-1])
    assert arrived == frames
    assert arrivals == pytest.approx([0.010 + TRANSMISSION_S * (number + 1) for number in range(10)])


def test_idle_line_gives_no_credit() -> None:
    line = direction()
    line.admit(0.0, FULL)
    line.pull_arrived(1.0)
    line.admit(50.0, FULL)
    line.admit(50.0, FULL)
    assert len(line.pull_arrived(50.0 + 0.010 + TRANSMISSION_S)) == 1


def test_tail_drop_at_the_queue_limit() -> None:
    line = direction(queue_ms=29.5)
    for _ in range(100):
        line.admit(0.0, FULL)
    # A packet enters as long as what is before it is no longer than the limit.
    assert len(line.pull_arrived(inf)) == 30
    assert line.stats()["queue_drops"] == 70


def test_queue_drains_with_time() -> None:
    line = direction(queue_ms=29.5)
    for _ in range(100):
        line.admit(0.0, FULL)
    for _ in range(100):
        line.admit(0.010, FULL)
    assert len(line.pull_arrived(inf)) == 30 + 10


def test_loss_follows_the_draw_and_keeps_the_line_free() -> None:
    line = direction(loss_percent=50, draw=draws(0.49, 0.5, 0.1, 0.9))
    for _ in range(4):
        line.admit(0.0, FULL)
    assert line.stats()["loss_drops"] == 2
    assert len(line.pull_arrived(0.010 + 2 * TRANSMISSION_S)) == 2, "lost packets take no time on the line"


def test_no_draw_without_loss() -> None:
    line = direction(draw=draws())
    line.admit(0.0, FULL)
    assert len(line.pull_arrived(inf)) == 1


def test_blackhole_takes_what_is_in_flight_and_what_comes() -> None:
    line = direction()
    line.admit(0.0, FULL)
    line.admit(0.0, FULL)
    line.change(blackhole=True)
    line.admit(0.1, FULL)
    assert line.pull_arrived(inf) == []
    assert line.stats() == {"packets": 0, "bytes": 0, "queue_drops": 0, "loss_drops": 0, "cut_drops": 3}
    line.change(blackhole=False)
    line.admit(0.2, FULL)
    assert line.next_arrival() == pytest.approx(0.2 + 0.010 + TRANSMISSION_S), "the old queue is gone"


def test_changed_rate_holds_for_the_next_packet() -> None:
    line = direction(delay_ms=0)
    line.admit(0.0, FULL)
    line.change(rate_mbit=6)
    line.admit(0.0, FULL)
    assert len(line.pull_arrived(TRANSMISSION_S)) == 1
    assert line.next_arrival() == pytest.approx(TRANSMISSION_S + 2 * TRANSMISSION_S)


def test_lower_delay_does_not_overtake() -> None:
    line = direction(delay_ms=100)
    line.admit(0.0, b"first" + FULL)
    line.change(delay_ms=1)
    line.admit(0.0, b"second" + FULL)
    assert [frame[:5] for frame in line.pull_arrived(inf)] == [b"first", b"secon"]
    assert line.next_arrival() == inf


def test_counters_are_of_delivered_ip_bytes() -> None:
    line = direction()
    line.admit(0.0, FULL)
    assert line.stats()["bytes"] == 0
    line.pull_arrived(inf)
    assert (line.stats()["packets"], line.stats()["bytes"]) == (1, 1500)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"rate_mbit": 0}, "rate_mbit"),
        ({"rate_mbit": float("nan")}, "rate_mbit"),
        ({"delay_ms": -1}, "delay_ms"),
        ({"loss_percent": 101}, "loss_percent"),
        ({"queue_ms": -1}, "queue_ms"),
    ],
)
def test_senseless_values_are_named_and_change_nothing(values: dict[str, Any], word: str) -> None:
    line = direction(delay_ms=0)
    with pytest.raises(ValueError, match=word):
        line.change(**{"rate_mbit": 1, **values})
    line.admit(0.0, FULL)
    assert line.next_arrival() == pytest.approx(TRANSMISSION_S)


def test_default_queue_is_one_bdp_or_the_floor() -> None:
    assert default_queue_ms(20) == 30
    assert default_queue_ms(50) == 50


@pytest.fixture
def emulator() -> Emulator:
    left, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return Emulator({"dsl": ({"down": direction(), "up": direction()}, -1, -1)}, left)


def test_control_changes_and_counts(emulator: Emulator) -> None:
    answer = emulator.answer(json.dumps({"change": {"dsl": {"down": {"rate_mbit": 5}}}}).encode())
    assert set(answer["lines"]["dsl"]) == {"down", "up"}
    assert answer["lines"]["dsl"]["down"]["packets"] == 0
    assert answer["cpu_s"] >= 0


@pytest.mark.parametrize(
    "question",
    [
        b"nonsense",
        b"[]",
        b'{"change": {"cable": {"down": {}}}}',
        b'{"change": {"dsl": {"sideways": {}}}}',
        b'{"change": {"dsl": {"down": {"rate_mbit": -1}}}}',
        b'{"change": {"dsl": {"down": {"colour": 1}}}}',
        b'{"change": {"dsl": {"down": {"rate_mbit": "fast"}}}}',
        b'{"carrier": {"cable": true}}',
        b'{"carrier": {"dsl": true}}',
    ],
)
def test_control_answers_bad_questions_with_an_error(emulator: Emulator, question: bytes) -> None:
    assert set(emulator.answer(question)) == {"error"}
