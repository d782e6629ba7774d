"""A speed test whose concentrator wants another cookie: once more, with what was learnt."""

from __future__ import annotations

import asyncio
import time

import pytest

from cpe_mcp.aaa.cookie import EPOCH_S, epoch_of, make_challenge, own_credential, pull_cookie
from cpe_mcp.aaa.presenter import Presenters
from cpe_mcp.paths.snapshot import EMPTY, ConcentratorView, WanView
from cpe_mcp.policy.speed import Run, plan
from cpe_mcp.upstream.speedtest import SpeedTest
from cpe_mcp.upstream.speedtest_probe import Order

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-16")]

ALICE = own_credential("alice", "wonderland-and-back")


class Source:
    """A router with one line and one concentrator."""

    snapshot = EMPTY._replace(
        wans=(WanView("dsl", "eth1", "198.51.100.2", ""),),
        concentrators=(ConcentratorView("far", ("192.0.2.1",), 5124, ALICE, True),),
    )

    def __init__(self) -> None:
        self.presenters = Presenters()


class Probe(SpeedTest):
    """Without processes: a concentrator that takes only cookies of its own time."""

    def __init__(self, off_s: float) -> None:
        super().__init__(Source())
        self._concentrator = "far"
        self.off_s = off_s
        self.epochs: list[int] = []

    async def _run(self, run: Run, order: Order) -> tuple[str, str]:
        parts = pull_cookie(bytes.fromhex(order.cookie))
        assert parts is not None
        self.epochs.append(parts.epoch)
        there_s = time.time() + self.off_s
        if abs(parts.epoch - (epoch_of(there_s) & 0xFFFF)) <= 1:
            return "", ""
        return "refused", make_challenge(there_s).hex()


@pytest.mark.parametrize(("off_s", "tries"), [(0.0, 1), (100 * EPOCH_S, 2)])
def test_a_test_is_repeated_once_with_the_concentrators_time(off_s: float, tries: int) -> None:
    probe, run = Probe(off_s), plan(["dsl"], "dsl")[0]
    asyncio.run(probe._measure(run))
    assert len(probe.epochs) == tries
    assert run.error != "refused"


def test_a_concentrator_that_is_never_content_is_not_asked_for_ever() -> None:
    class Grumbler(Probe):
        async def _run(self, run: Run, order: Order) -> tuple[str, str]:
            await super()._run(run, order)
            return "refused", make_challenge(time.time() + 1e6 * len(self.epochs)).hex()

    probe, run = Grumbler(1e6), plan(["dsl"], "dsl")[0]
    asyncio.run(probe._measure(run))
    assert len(probe.epochs) == 2
    assert run.error == "refused"
