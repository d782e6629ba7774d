"""The router's own cap: what each worker is told, and what a worker does with it."""

from __future__ import annotations

from typing import Any

import pytest

from cpe_mcp.control.frames import CAPS
from cpe_mcp.relay.own_cap import OWN, OwnCap
from cpe_mcp.relay.subscriber_caps import DOWN, UP
from cpe_mcp.upstream.cap_keeper import BYTES_PER_S, CapKeeper

pytestmark = pytest.mark.unit


class FakeWorker:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.sent: list[tuple[str, Any]] = []

    def send(self, kind: str, payload: Any) -> None:
        self.sent.append((kind, payload))

    def last(self) -> tuple[float, float]:
        """Mbit/s that it was told last."""
        kind, payload = self.sent[-1]
        assert kind == CAPS
        down, up = payload[OWN]
        return down / BYTES_PER_S, up / BYTES_PER_S


class World:
    """Workers come and go."""

    def __init__(self) -> None:
        self.workers: list[Any] = []
        self.keeper = CapKeeper(lambda: self.workers)

    def join(self, pid: int) -> FakeWorker:
        worker = FakeWorker(pid)
        self.workers.append(worker)
        self.keeper.joined(worker)  # type: ignore[arg-type]
        return worker

    def leave(self, worker: Any) -> None:
        self.workers.remove(worker)
        self.keeper.left(worker)


def test_one_worker_gets_all_of_it_and_hears_when_it_ends() -> None:
    world = World()
    worker = world.join(1)
    assert worker.last() == (0, 0), "it may have the cap of a control daemon before this one"
    world.keeper.set(100, 20)
    assert worker.last() == (100, 20)
    told = len(worker.sent)
    world.keeper.set(100, 20)
    assert len(worker.sent) == told, "asking again changes nothing"
    world.keeper.set(0, 0)
    assert worker.last() == (0, 0)
    assert world.keeper.mbit == (0, 0)


def test_several_share_it_by_what_they_want() -> None:
    world = World()
    first, second = world.join(1), world.join(2)
    world.keeper.set(100, 20)
    assert first.last() == second.last() == (50, 10)
    world.keeper.demanded(first, {OWN: [6e6, 3, 0.0, 0]})  # type: ignore[arg-type]
    world.keeper.demanded(second, {OWN: [0.0, 0, 0.0, 0]})  # type: ignore[arg-type]
    assert first.last()[0] > 80
    world.leave(second)
    assert first.last() == (100, 20)


def test_a_worker_that_comes_later_is_told() -> None:
    world = World()
    first = world.join(1)
    world.keeper.set(100, 0)
    second = world.join(2)
    assert first.last() == second.last() == (50, 0)


class FakeLoop:
    now = 0.0

    def __init__(self) -> None:
        self.moved: list[Any] = []
        self.on_wake: Any = None

    def again(self, flow: Any) -> None:
        self.moved.append(flow)

    def wake_at(self, when: float) -> None:
        pass

    def tick_soon(self) -> None:
        pass


class FakeDirection:
    turn: Any = None


class FakeRelaying:
    def __init__(self) -> None:
        self.down, self.up = FakeDirection(), FakeDirection()


class FakeFlow:
    def __init__(self, action: str = "proxy", *, is_relaying: bool = True) -> None:
        self.action = action
        self.relaying: Any = FakeRelaying() if is_relaying else None


def test_a_worker_without_a_cap_holds_nobody_back_and_loads_nothing() -> None:
    loop: Any = FakeLoop()
    cap = OwnCap(loop)
    flow: Any = FakeFlow()
    cap.set((0, 0), [flow])
    assert cap.turns(flow) == (None, None)
    assert cap.demands() == {}
    assert loop.on_wake is None


def test_a_cap_holds_for_running_proxied_flows_too_and_not_for_direct_ones() -> None:
    loop: Any = FakeLoop()
    cap = OwnCap(loop)
    proxied: Any = FakeFlow()
    direct: Any = FakeFlow("direct")
    early: Any = FakeFlow(is_relaying=False)
    cap.set((1e6, 0), [proxied, direct, early])
    turn = proxied.relaying.down.turn
    assert turn is not None
    assert proxied.relaying.up.turn is None, "no cap that way"
    assert (direct.relaying.down.turn, direct.relaying.up.turn) == (None, None)
    assert cap.turns(early)[DOWN] is not None
    assert cap.turns(early)[UP] is None
    allowed = turn.allowance()
    assert 0 < allowed < 1e6
    turn.spend(10_000_000)
    assert turn.allowance() == 0, "what it had is spent"
    loop.now = 1.0
    assert cap.demands()[OWN][0] == 10_000_000
    cap.set((0, 0), [proxied, direct, early])
    assert proxied.relaying.down.turn is None
    assert proxied in loop.moved, "it goes on"
