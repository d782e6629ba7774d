"""Refused destinations go to nftables together, and nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from cpe_mcp.kernel.nft import Nft
from cpe_mcp.paths.observed import Observed
from cpe_mcp.settings.router import RouterSettings
from cpe_mcp.upstream.direct_queue import WAITING_MAX, DirectQueue
from cpe_mcp.upstream.interception_keeper import InterceptionKeeper
from cpe_mcp.upstream.path_manager import PathManager

pytestmark = pytest.mark.unit

NFT_S = 0.02
"""What one call of nft takes here."""


class Table:
    """Slow, as nft is."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, int]]] = []
        self.error: Exception | None = None

    def load(self, servers: Sequence[tuple[str, int]]) -> None:
        assert threading.current_thread() is not threading.main_thread()
        time.sleep(NFT_S)
        if self.error is not None:
            raise self.error
        self.batches.append(list(servers))


def test_the_first_goes_at_once_and_what_comes_meanwhile_goes_together() -> None:
    table, complaints = Table(), list[str]()

    async def scan() -> float:
        queue = DirectQueue(table.load, complaints.append)
        slowest_s = 0.0
        for port in range(200):
            started = time.monotonic()
            queue.add("192.0.2.1", port)
            await asyncio.sleep(0)
            slowest_s = max(slowest_s, time.monotonic() - started)
        await asyncio.sleep(4 * NFT_S + 0.1)
        queue.add("192.0.2.2", 1)
        await asyncio.sleep(4 * NFT_S + 0.1)
        return slowest_s

    slowest_s = asyncio.run(scan())
    assert slowest_s < NFT_S, "the loop goes on"
    assert [len(batch) for batch in table.batches] == [1, 199, 1]
    assert not complaints


def test_a_refusal_is_told_and_the_next_goes_on() -> None:
    table, complaints = Table(), list[str]()
    table.error = RuntimeError("nft refused: no room")

    async def work() -> None:
        queue = DirectQueue(table.load, complaints.append)
        queue.add("192.0.2.1", 80)
        await asyncio.sleep(2 * NFT_S + 0.1)
        table.error = None
        queue.add("192.0.2.1", 81)
        await asyncio.sleep(2 * NFT_S + 0.1)

    asyncio.run(work())
    assert len(complaints) == 1
    assert table.batches == [[("192.0.2.1", 81)]]


def test_what_waits_is_bounded_and_forgotten_at_the_end() -> None:
    table = Table()

    async def work() -> None:
        queue = DirectQueue(table.load, lambda line: None)
        for number in range(WAITING_MAX + 10):
            queue.add("192.0.2.1", number)
        assert len(queue._waiting) == WAITING_MAX
        queue.close()
        await asyncio.sleep(0.01)

    asyncio.run(work())
    assert not table.batches


def test_one_transaction_for_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    nft = Nft()
    monkeypatch.setattr(nft, "_run", loaded.append)
    nft.add_direct([("192.0.2.1", 80), ("2001:db8::1", 443), ("192.0.2.1", 81)], 59.6)
    assert loaded == [
        "add element inet cpe_mcp direct4 { 192.0.2.1 . 80 timeout 60s, 192.0.2.1 . 81 timeout 60s }\n"
        "add element inet cpe_mcp direct6 { 2001:db8::1 . 443 timeout 60s }\n"
    ]


# Who waits for nft -----------------------------------------------------------------------------------------------------


def test_lines_are_seen_to_before_nft_and_the_loop_goes_on_meanwhile() -> None:
    done: list[str] = []

    def slow() -> None:
        done.append("nft begins")
        time.sleep(0.2)
        done.append("nft ends")

    async def work() -> None:
        paths = PathManager(RouterSettings(), on_change=lambda: None)
        nothing = Observed({}, frozenset(), frozenset())
        paths._routes = SimpleNamespace(observe=lambda names: nothing, apply=lambda plan: [])
        paths._endpoints = SimpleNamespace(apply=lambda *args: done.append("endpoints"))  # type: ignore[assignment]
        paths._interception.apply = slow  # type: ignore[method-assign]
        reconciling = asyncio.create_task(paths._reconcile())
        while "nft begins" not in done:
            await asyncio.sleep(0.01)
        done.append("judged")
        await reconciling
        paths._thread.shutdown()

    asyncio.run(work())
    assert done[-4:] == ["endpoints", "nft begins", "judged", "nft ends"]


class Loaded:
    """Stands for nft: remembers the plans, and takes its time for the first."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.active: list[bool] = []
        self.verified: list[bool] = []

    def apply(self, plan: Any, *, verify: bool) -> bool:
        is_first = not self.begun.is_set()
        self.begun.set()
        self.verified.append(verify)
        time.sleep(0.1 if is_first else 0)
        self.active.append(plan.active4)
        return True

    def remove(self) -> None:
        self.active.append(False)


@pytest.fixture
def keeper() -> InterceptionKeeper:
    keeper = InterceptionKeeper(RouterSettings(), complain=lambda line: None, on_change=lambda: None)
    keeper._nft = Loaded()  # type: ignore[assignment]
    return keeper


def test_the_switch_is_the_last_word_while_a_thread_loads(keeper: InterceptionKeeper) -> None:
    nft: Any = keeper._nft
    loading = threading.Thread(target=keeper.apply)
    loading.start()
    nft.begun.wait()
    keeper.take(True, False)
    loading.join()
    assert nft.active == [False, True]


def test_a_table_is_not_loaded_again_after_it_was_removed(keeper: InterceptionKeeper) -> None:
    nft: Any = keeper._nft
    keeper.take(True, False)
    keeper.remove()
    keeper.apply()
    assert nft.active == [True, False]
    assert keeper.counters() == {}


def test_somebodys_touch_while_a_table_is_loaded_is_looked_at_next_time(keeper: InterceptionKeeper) -> None:
    nft: Any = keeper._nft
    loading = threading.Thread(target=keeper.apply)
    loading.start()
    nft.begun.wait()
    keeper.touched()
    loading.join()
    keeper.apply()
    keeper.apply()
    assert nft.verified == [False, True, False]
