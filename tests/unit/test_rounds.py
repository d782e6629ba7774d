"""The tasks that judge the WANs and reconcile outlive a round that fails."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cpe_mcp.kernel.probe import Prober
from cpe_mcp.settings.router import RouterSettings
from cpe_mcp.upstream import rounds as module
from cpe_mcp.upstream.path_manager import PathManager
from cpe_mcp.upstream.rounds import OTHER_S, PATIENCE_S, PAUSE_MAX_S, PAUSE_S, REPEAT_S, Rounds

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-4")]


class Interrupted(Exception):
    """As pyroute2's are: no OSError."""


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


def fail(rounds: Rounds, error: Exception) -> None:
    with rounds.round():
        raise error


def test_a_failure_is_said_once_with_its_traceback_and_shown_until_a_round_succeeds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    rounds = Rounds("judging", lambda why: None)
    for _ in range(50):
        fail(rounds, Interrupted("dump"))
        clock.now += 0.1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.records[0].exc_info
    assert "Interrupted('dump')" in rounds.problem
    assert rounds.pause_s() == PAUSE_MAX_S
    with rounds.round():
        pass
    assert (rounds.problem, rounds.pause_s()) == ("", 0.0)
    fail(rounds, Interrupted("dump"))
    assert rounds.pause_s() == PAUSE_S
    assert len(caplog.records) == 1
    fail(rounds, Interrupted("another"))
    assert len(caplog.records) == 1
    clock.now += OTHER_S
    fail(rounds, Interrupted("another"))
    clock.now += REPEAT_S
    fail(rounds, Interrupted("another"))
    assert len(caplog.records) == 3


def test_who_has_failed_for_long_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    told: list[str] = []
    rounds = Rounds("judging", told.append)
    fail(rounds, Interrupted("x"))
    clock.now += PATIENCE_S - 1
    fail(rounds, Interrupted("x"))
    with rounds.round():
        pass
    clock.now += 2
    fail(rounds, Interrupted("x"))
    assert not told, "one that succeeds in between is not hopeless"
    clock.now += PATIENCE_S
    fail(rounds, Interrupted("x"))
    assert told == ["judging: Interrupted('x')"]


def test_a_cancelled_task_is_no_failure() -> None:
    rounds = Rounds("judging", lambda why: None)
    with pytest.raises(asyncio.CancelledError), rounds.round():
        raise asyncio.CancelledError
    assert not rounds.problem


class Paths(PathManager):
    """Without a kernel; counts what it does."""

    def __init__(self, failures: list[Exception]) -> None:
        super().__init__(RouterSettings(), on_change=lambda: None)
        self.failures = failures
        self.turns = self.reconciled = 0
        self._endpoints = SimpleNamespace(pause_s=lambda: 0.0, apply=lambda *args: None)  # type: ignore[assignment]
        self._device_bytes = SimpleNamespace(read=self._no_bytes)  # type: ignore[assignment]
        self._interception.look_at_bridges = lambda: None  # type: ignore[method-assign]
        self._next_look = float("inf")

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def _no_bytes(self, devices: object) -> dict[str, tuple[int, int]]:
        self._fail()
        return {}

    def _next_wake_s(self) -> float:
        return 0.0

    def _turn(self) -> None:
        self.turns += 1

    async def _reconcile(self) -> None:
        self._fail()
        self.reconciled += 1


async def _until(task: Any, condition: Callable[[], bool]) -> None:
    running = asyncio.create_task(task)
    try:
        async with asyncio.timeout(5):
            while not condition():
                assert not running.done()
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), Interrupted("dump"), KeyError("x")])
def test_wans_are_judged_again_after_a_round_that_failed(error: Exception) -> None:
    paths = Paths([error, error])
    asyncio.run(_until(paths._watch(), lambda: paths.turns > 2))
    assert paths.warnings() == []


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), Interrupted("dump"), KeyError("x")])
def test_what_could_not_be_reconciled_is_soon_tried_again(error: Exception) -> None:
    paths = Paths([error, error])
    paths._dirty.set()
    asyncio.run(_until(paths._keep(), lambda: paths.reconciled == 1))
    assert paths.warnings() == []


def test_a_probe_for_which_no_descriptor_is_left_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*args: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    prober = Prober(lambda answer: None)
    monkeypatch.setattr("socket.socket", none_left)
    assert not prober.send("dsl", device="eth1", source="10.1.0.2", address="10.9.0.1", port=5124)
    assert len(prober) == 0


def test_people_are_shown_that_wans_are_not_judged() -> None:
    paths = Paths([KeyError("x")] * 100)
    asyncio.run(_until(paths._watch(), lambda: len(paths.failures) < 99))
    assert paths.warnings() == ["judging the WANs: KeyError('x')"]
