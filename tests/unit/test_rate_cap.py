"""The bonded-rate cap: the token bucket and its line, the pump under it, and how workers share it. Time is an argument."""

from __future__ import annotations

import random
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_relay_pump import Wire, wire

from cpe_mcp.policy.cap_shares import LEAST, RECENT_S, CapShares, Demand, share_out
from cpe_mcp.relay.loop import Loop
from cpe_mcp.relay.pump import BLOCKED, BUFFER_BYTES, FINISHED, pump
from cpe_mcp.relay.rate_cap import BURST_S, QUANTUM_MIN_BYTES, WAKE_S, RateCap
from cpe_mcp.relay.subscriber_caps import DOWN, UP, SubscriberCaps

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-4")]

__all__ = ["wire"]
MBIT = 125_000.0
BUFFER = 65536


class Reader:
    """A flow that has ``left`` bytes to read; it reads as the pump does, up to one buffer a call."""

    def __init__(self, cap: RateCap, left: float = float("inf")) -> None:
        self.cap = cap
        self.left = left
        self.read = 0
        self.now = 0.0
        self.reads: list[int] = []

    def go(self, now: float) -> None:
        self.now = now
        self.serve()

    def serve(self) -> None:
        while self.left > 0:
            allowed = self.cap.ask(self, self.now)
            if not allowed:
                return
            count = int(min(allowed, BUFFER, self.left))
            self.cap.spend(count)
            self.reads.append(count)
            self.read += count
            self.left -= count


def run(cap: RateCap, readers: list[Reader], seconds: float, start: float = 0.0, late: float = 0.0) -> float:
    """Serve the line whenever it is due, up to ``late`` s after that. Returns the time at the end."""
    now = start
    for reader in readers:
        reader.go(now)
    while cap.waiting():
        now = cap.ready_at(now) + random.Random(now).uniform(0, late)
        if now > start + seconds:
            break
        for reader in readers:
            reader.now = now
        cap.serve(now)
    return start + seconds


@pytest.mark.parametrize("mbit", [0.5, 1, 10, 100, 1000, 10_000])
@pytest.mark.parametrize("flows", [1, 2, 7, 50])
def test_all_together_get_the_rate_and_each_the_same(mbit: float, flows: int) -> None:
    cap = RateCap(mbit * MBIT, 0.0)
    readers = [Reader(cap) for _ in range(flows)]
    run(cap, readers, 5.0, late=0.003)
    total = sum(reader.read for reader in readers)
    assert 0.97 <= total / (5 * mbit * MBIT) <= 1.05
    shares = [reader.read for reader in readers]
    slack = 2 * BUFFER if mbit >= 10 else 2 * QUANTUM_MIN_BYTES + 16384
    assert max(shares) - min(shares) <= slack + mbit * MBIT * BURST_S


def test_a_pause_of_the_loop_is_made_up_for_and_an_idle_hour_is_not() -> None:
    cap = RateCap(10 * MBIT, 0.0)
    reader = Reader(cap)
    run(cap, [reader], 2.0, late=0.03)
    assert reader.read >= 0.97 * 2 * 10 * MBIT
    cap.serve(3600.0)
    before = reader.read
    reader.go(3600.0)
    assert reader.read - before <= 10 * MBIT * BURST_S


def test_who_keeps_below_the_cap_never_waits() -> None:
    cap = RateCap(10 * MBIT, 0.0)
    reader = Reader(cap, left=0)
    for step in range(500):
        reader.left = 8 * MBIT * 0.01  # 80 % of the cap, every 10 ms
        reader.go(step * 0.01)
        assert reader.left == 0, f"held back at step {step}"
    assert cap.most_waiting == 0


def test_a_small_request_beside_many_big_ones_waits_for_one_round() -> None:
    cap = RateCap(10 * MBIT, 0.0)
    big = [Reader(cap) for _ in range(8)]
    now = run(cap, big, 1.0)
    small = Reader(cap, left=1000)
    small.go(now)
    assert small.left == 1000, "it stands behind the others"
    run(cap, [], 8 * QUANTUM_MIN_BYTES / (10 * MBIT) + 2 * WAKE_S, start=now)
    assert small.left == 0


def test_one_that_leaves_the_line_or_finds_nothing_to_read_takes_no_tokens() -> None:
    cap = RateCap(MBIT, 0.0)
    first, second, third = Reader(cap), Reader(cap), Reader(cap)
    for reader in (first, second, third):
        reader.go(0.0)
    assert cap.waiting() == 3
    cap.leave(second)
    first.left = 0  # its bytes were read away, as it were
    before = third.read
    cap.serve(cap.ready_at(0.0))
    assert (first.reads[1:], second.read) == ([], 0)
    assert third.read > before
    cap.leave(second)  # twice does nothing


def test_another_rate_holds_at_once() -> None:
    cap = RateCap(100 * MBIT, 0.0)
    reader = Reader(cap)
    now = run(cap, [reader], 1.0)
    cap.set_rate(10 * MBIT, now)
    before = reader.read
    now = run(cap, [reader], 2.0, start=now)
    assert 0.95 <= (reader.read - before) / (2 * 10 * MBIT) <= 1.05
    cap.set_rate(200 * MBIT, now)
    before = reader.read
    run(cap, [reader], 2.0, start=now)
    assert 0.95 <= (reader.read - before) / (2 * 200 * MBIT) <= 1.05


def test_bytes_that_nobody_asked_for_are_a_debt() -> None:
    cap = RateCap(MBIT, 0.0)
    cap.spend(int(MBIT))
    reader = Reader(cap)
    reader.go(0.0)
    assert reader.read == 0
    assert cap.ready_at(0.0) > 0.8
    run(cap, [reader], 2.0)
    assert reader.read <= 1.05 * MBIT


# The pump under a cap --------------------------------------------------------------------------------------------------


class Allowance:
    """A turn that gives what the test says."""

    def __init__(self, *allowed: int) -> None:
        self.allowed = list(allowed)
        self.spent: list[int] = []
        self.left = False

    def allowance(self) -> int:
        return self.allowed.pop(0) if self.allowed else 0

    def spend(self, count: int) -> None:
        self.spent.append(count)

    def leave(self) -> None:
        self.left = True


def test_the_pump_reads_no_more_than_allowed_and_forgets_no_edge(wire: Wire) -> None:
    turn: Any = Allowance(4, 3)
    wire.direction.turn = turn
    wire.left.send(b"0123456789")
    wire.edge()
    assert pump(wire.direction, wire.pipes) == BLOCKED
    assert (wire.received(), turn.spent) == (b"0123456", [4, 3])
    assert wire.source.readable, "no other edge will tell of the rest"
    turn.allowed = [100, 100]
    assert pump(wire.direction, wire.pipes) == BLOCKED
    assert (wire.received(), turn.spent) == (b"789", [4, 3, 3])
    assert not wire.source.readable


def test_the_end_comes_through_a_cap(wire: Wire) -> None:
    turn: Any = Allowance(5)
    wire.direction.turn = turn
    wire.left.send(b"01234")
    wire.left.shutdown(1)
    time.sleep(0.01)
    wire.edge(hangup=True)
    assert pump(wire.direction, wire.pipes) == BLOCKED
    turn.allowed = [5]
    assert pump(wire.direction, wire.pipes) == FINISHED
    assert wire.received() == b"01234"


def test_a_cap_that_comes_and_goes_in_the_middle_of_a_spliced_transfer(wire: Wire) -> None:
    data = random.Random(7).randbytes(4 * BUFFER_BYTES)
    got = bytearray()
    sent = 0
    for step in range(4000):
        if sent < len(data):
            try:
                sent += wire.left.send(data[sent:])
            except BlockingIOError:
                pass
        turn: Any = Allowance(*[3000] * 3)
        wire.direction.turn = turn if step % 40 >= 20 else None
        wire.pump()
        got += wire.received()
        if len(got) == len(data):
            break
    assert bytes(got) == data


# In the loop -----------------------------------------------------------------------------------------------------------


class Owner:
    def __init__(self) -> None:
        self.turn: Any = None
        self.read = 0

    def on_events(self, end: Any, mask: int) -> None:
        raise AssertionError

    def abandon(self) -> None:
        raise AssertionError

    def on_again(self) -> None:
        while allowed := self.turn.allowance():
            self.turn.spend(min(allowed, BUFFER))
            self.read += min(allowed, BUFFER)


def test_the_loops_timer_serves_the_line_and_the_demand_is_told() -> None:
    loop = Loop(on_turn=lambda: None, on_tick=lambda: False)
    caps = SubscriberCaps(loop)
    alice = caps.of("alice")
    assert caps.of("alice") is alice
    assert caps.turn(alice, DOWN, Owner()) is None, "no cap yet"
    assert caps.set("alice", (20 * MBIT, 0.0))
    assert not caps.set("alice", (16 * MBIT, 0.0)), "only another rate"
    owners = [Owner() for _ in range(3)]
    for owner in owners:
        owner.turn = caps.turn(alice, DOWN, owner)
        owner.on_again()
    assert caps.turn(alice, UP, owners[0]) is None
    assert caps.waiting() == 3
    end = loop.now + 1.0

    def stop_in_time() -> None:
        if loop.now >= end:
            loop.stop()

    loop._on_turn = stop_in_time
    loop.run()
    (row,) = caps.demands().values()
    assert row[1:] == [3, 0, 0]
    total = sum(owner.read for owner in owners)
    assert row[0] == pytest.approx(total, rel=0.2), "over about one second"
    assert 0.5 <= total / (16 * MBIT) <= 1.2
    assert caps.set("alice", (0.0, 0.0))
    for owner in owners:
        owner.turn.leave()
    assert caps.demands() == {}
    loop.finish()


def test_nothing_is_kept_of_a_subscriber_whom_nobody_holds() -> None:
    caps = SubscriberCaps(SimpleNamespace(now=0.0))  # type: ignore[arg-type]
    held = caps.of("alice")
    caps.set("alice", (MBIT, MBIT))
    caps.set("bob", (MBIT, MBIT))
    assert set(caps._by_name) == {"alice"}
    del held
    assert not caps._by_name
    assert not caps._capped


# Shares ----------------------------------------------------------------------------------------------------------------


@given(
    st.floats(1e3, 1e10),
    st.lists(st.tuples(st.floats(0, 1e10), st.integers(0, 100)).map(lambda row: Demand(*row)), min_size=1, max_size=64),
)
def test_shares_add_up_and_nobody_is_left_without(cap: float, demands: list[Demand]) -> None:
    shares = share_out(cap, demands)
    assert sum(shares) == pytest.approx(cap)
    assert all(share > 0 for share in shares)


def test_one_who_wants_more_gets_what_the_others_leave() -> None:
    assert share_out(100.0, [Demand(10, 0), Demand(20, 3)]) == pytest.approx([15, 85])
    assert share_out(100.0, [Demand(0, 0), Demand(100, 1)]) == pytest.approx([100 * LEAST, 100 * (1 - LEAST)])
    assert share_out(100.0, [Demand(60, 1), Demand(40, 3)]) == pytest.approx([25, 75]), "by flows, not by workers"
    assert share_out(90.0, [Demand(1, 0)] * 3) == pytest.approx([30, 30, 30]), "what nobody asks for is spread"


def test_a_single_download_on_one_of_four_workers_gets_nearly_all() -> None:
    shares = CapShares()
    assert shares.set_cap("alice", (100.0, 20.0))
    assert not shares.set_cap("alice", (100.0, 20.0))
    assert shares.shares("alice", (1, 2, 3, 4), 0.0) == dict.fromkeys((1, 2, 3, 4), (25.0, 5.0))
    shares.report("alice", 2, Demand(25, 1), Demand(1, 0), 10.0)
    now = shares.shares("alice", (1, 2, 3, 4), 10.1)
    assert now[2] == (100.0, 20.0)
    assert now[1] == (25.0, 5.0), "the others may begin, and are heard within a quarter of a second"
    assert shares.shares("alice", (1, 2, 3, 4), 10.01 + RECENT_S)[2] == (25.0, 5.0)


def test_only_what_changed_is_told() -> None:
    shares = CapShares()
    shares.set_cap("alice", (100.0, 0.0))
    assert set(shares.news("alice", (1, 2), 0.0)) == {1, 2}
    assert not shares.news("alice", (1, 2), 0.1)
    shares.report("alice", 1, Demand(50, 2), Demand(0, 0), 0.2)
    shares.report("alice", 2, Demand(50, 2), Demand(0, 0), 0.2)
    assert not shares.news("alice", (1, 2), 0.2)
    shares.report("alice", 2, Demand(50, 6), Demand(0, 0), 0.4)
    assert shares.news("alice", (1, 2), 0.4) == {1: (25.0, 0.0), 2: (75.0, 0.0)}
    shares.forget_worker(2)
    assert shares.news("alice", (1,), 0.4) == {1: (100.0, 0.0)}
    shares.set_cap("alice", (0.0, 0.0))
    assert shares.news("alice", (1, 2), 0.5) == {1: (0.0, 0.0), 2: (0.0, 0.0)}
    assert not shares.names()


def test_shares_follow_flows_that_wander_between_workers() -> None:
    """Four workers as the control daemon sees them: the sum stays at the cap, whoever carries the flows."""
    cap, workers = 1000.0, (1, 2, 3, 4)
    shares = CapShares()
    shares.set_cap("alice", (cap, 0.0))
    told = dict(shares.news("alice", workers, 0.0))
    dice = random.Random(3)
    total, busy = 0.0, Counter({1: 4})
    for step in range(1, 401):
        if step % 20 == 0:
            busy = Counter(dice.choices(workers, k=4))
        now = step * 0.25
        for worker, flows in busy.items():
            total += told[worker][0] * 0.25
            shares.report("alice", worker, Demand(told[worker][0], flows), Demand(0, 0), now)
            told.update(shares.news("alice", workers, now))
    assert 0.9 <= total / (cap * 100) <= 1.05
