"""When the path manager looks, and what it hears before it judges: without a kernel's MPTCP, with time as it passes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterable
from typing import Any

import pytest

from cpe_mcp.paths.health import CHECK_WAIT_S, DEAD, UP, Sample
from cpe_mcp.paths.observed import DeviceView, Subflow
from cpe_mcp.settings import RouterSettings
from cpe_mcp.settings.router import WanSettings
from cpe_mcp.upstream.path_manager import METERED_SAMPLE_S, PathManager

pytestmark = pytest.mark.unit

LOOPBACK = "127.0.0.1"
SENT = 300


class Nothing:
    """Stands for what is not looked at here."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: 0


class Kernel:
    """Counters of one device and the subflows over it, and when these were looked at."""

    def __init__(self) -> None:
        self.sent = 0
        self.subflows: list[Subflow] = []
        self.looks: list[float] = []

    def counters(self, devices: Iterable[str]) -> dict[str, tuple[int, int]]:
        return dict.fromkeys(devices, (0, self.sent))

    def look(self, _: object) -> list[Subflow]:
        self.looks.append(time.monotonic())
        return self.subflows


def manager(kernel: Kernel, port: int = 5124) -> PathManager:
    """With one metered WAN that is up and idle, and one concentrator."""
    made = PathManager(
        RouterSettings(wans=(WanSettings(name="lte", device="lo", metered=True),)), on_change=lambda: None
    )
    made._endpoints = made._interception = Nothing()  # type: ignore[assignment]
    made._device_bytes, made._subflows = Nothing(), Nothing()  # type: ignore[assignment]
    made._device_bytes.read, made._subflows.read = kernel.counters, kernel.look  # type: ignore[assignment,method-assign]
    made.set_concentrators([(LOOPBACK, port)])
    wan = made._wans["lte"]
    wan.view = DeviceView("lo", 1, True, LOOPBACK, gateway4="")
    return made


@pytest.mark.requirement("5.6.2-a")
def test_the_first_bytes_after_quiet_are_looked_at_at_once_and_again_while_they_wait() -> None:
    async def scenario() -> list[float]:
        kernel = Kernel()
        made = manager(kernel)
        health = made._wans["lte"].health
        health.present(time.monotonic(), can_probe=False)
        health.answered(time.monotonic(), 0.04)
        health.observe(time.monotonic(), Sample(1, 0, 0, 0.0, 0, 0.0))
        watching = asyncio.create_task(made._watch())
        await asyncio.sleep(2 * METERED_SAMPLE_S)
        before = len(kernel.looks)
        kernel.sent += SENT
        kernel.subflows = [Subflow(LOOPBACK, 4000, "10.9.0.1", 5124, 1, 0, 1, 0, 0, 40.0, 1.0, 0, 0, 0)]
        sent_at = time.monotonic()
        await asyncio.sleep(0.5)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        made._prober.close()
        return [look - sent_at for look in kernel.looks[before:]]

    looks = asyncio.run(scenario())
    assert len(looks) >= 4, "an idle WAN is looked at every three seconds"
    assert looks[0] <= 2 * METERED_SAMPLE_S
    assert looks[3] - looks[0] <= 0.3


@pytest.mark.requirement("5.6.1-e")
def test_a_wan_that_is_dead_to_all_concentrators_is_there_for_dns_and_radius_while_no_other_is() -> None:
    async def scenario() -> tuple[list[str], list[str], list[str]]:
        made = manager(Kernel())
        health, now = made._wans["lte"].health, time.monotonic()
        health.present(now, can_probe=True)
        assert health.probe_due(now)
        before = made.last_ways()
        health.tick(now + CHECK_WAIT_S)
        assert health.state == DEAD
        dead = made.last_ways()
        health.answered(now + 2, 0.04)
        health.tick(now + 10)
        assert health.state == UP
        return tuple([wan.name for wan in found] for found in (before, dead, made.last_ways()))  # type: ignore[return-value]

    assert asyncio.run(scenario()) == ([], ["lte"], [])


def test_an_answer_that_is_there_is_heard_before_silence_is_believed() -> None:
    """The process was kept from running while the answer came."""

    async def scenario(port: int) -> str:
        made = manager(Kernel(), port)
        health = made._wans["lte"].health
        health.present(time.monotonic(), can_probe=True)
        made._turn()
        assert len(made._prober) == 1
        time.sleep(CHECK_WAIT_S + 0.05)  # nothing else runs meanwhile: that is the point
        made._turn()
        made._prober.close()
        return health.state

    with socket.create_server((LOOPBACK, 0)) as listener:
        assert asyncio.run(scenario(listener.getsockname()[1])) == UP
