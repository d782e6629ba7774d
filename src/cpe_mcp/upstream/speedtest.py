"""The speed test of the router: one at a time, each run a process of its own (:mod:`.speedtest_probe`). Wiring only.

What is measured in which order, and what the counted bytes say, is :mod:`cpe_mcp.policy.speed`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from cpe_mcp.aaa.presenter import Presenter, Presenters
from cpe_mcp.control.api import ApiError
from cpe_mcp.paths.snapshot import Snapshot
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.policy.speed import BONDED, RUN_S, RUNNING, STOPPED, WAITING, Run, plan, state_of
from cpe_mcp.relay.pool import Route
from cpe_mcp.upstream.speedtest_probe import Order

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "cpe_mcp.upstream.speedtest_probe")
PAUSE_S = 0.7
"""Between two runs: what the one before has left in the queues of the line must be gone."""
START_S = 10.0
"""For Python to start on a slow router that is busy."""
ACTIONS = ("start", "status", "stop")


class Source(Protocol):
    """What this module needs of :class:`cpe_mcp.upstream.control.Control`."""

    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def presenters(self) -> Presenters: ...


class SpeedTest:
    """The test that runs, or the last one that ran."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._runs: list[Run] = []
        self._concentrator = ""
        self._task: asyncio.Task[None] | None = None

    async def answer(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """``action`` "start" (with ``wan``), "status" or "stop". Raises ApiError."""
        action, wan = args.get("action") or "status", args.get("wan") or ""
        if action not in ACTIONS:
            raise ApiError(f"action is one of {', '.join(ACTIONS)}, not {action!r}")
        if action == "start":
            self._start(str(wan))
        elif action == "stop":
            await self.stop()
        return self.report()

    def report(self) -> dict[str, Any]:
        """State and all runs."""
        return {
            "state": state_of(self._runs, is_running=self._is_running()),
            "concentrator": self._concentrator,
            "runs": [run.report() for run in self._runs],
        }

    async def stop(self) -> None:
        """End it; what was measured stays."""
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def _start(self, wan: str) -> None:
        if self._is_running():
            raise ApiError("a speed test is running already: wait for its end, or stop it")
        snapshot = self._source.snapshot
        if not snapshot.wans:
            raise ApiError(f"nothing to measure: {TEXTS[Reason.NO_WAN]}")
        if not snapshot.concentrators:
            why = TEXTS[snapshot.reason if not snapshot.proxy else Reason.NO_CONCENTRATOR]
            raise ApiError(f"nothing to measure against: {why}")
        try:
            self._runs = plan([view.name for view in snapshot.wans], wan)
        except ValueError as error:
            raise ApiError(str(error)) from None
        self._concentrator = snapshot.concentrators[0].name
        self._task = asyncio.get_running_loop().create_task(self._measure_all())

    async def _measure_all(self) -> None:
        log.info("speed test against %s begins", self._concentrator)
        try:
            for run in self._runs:
                if run is not self._runs[0]:
                    await asyncio.sleep(PAUSE_S)
                run.state = RUNNING
                await self._measure(run)
                where = run.wan or "all WANs"
                log.info("speed test, %s %s: %.1f Mbit/s%s", where, run.direction, run.mbit, _note(run.error))
        finally:
            for run in self._runs:
                if run.state in (RUNNING, WAITING):
                    run.state = STOPPED

    async def _measure(self, run: Run) -> None:
        """Once more where the concentrator wanted another cookie: nothing was measured then."""
        for is_last in (False, True):
            try:
                order, presenter = self._order(run)
            except ValueError as error:
                run.ended(str(error))
                return
            outcome, wanted = await self._run(run, order)
            cookie = bytes.fromhex(order.cookie)
            if is_last or not wanted or not presenter.refused(cookie, bytes.fromhex(wanted), time.monotonic()):
                break
        run.ended(outcome)

    async def _run(self, run: Run, order: Order) -> tuple[str, str]:
        """What went wrong, "" if nothing, and the cookie that the concentrator wanted, in hexadecimal."""
        try:
            process = await asyncio.create_subprocess_exec(
                *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        except OSError as error:
            return f"no process can be started to measure: {error.strerror}", ""
        wanted = ""
        outcome = "the measuring process ended early; the log has the details"
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(order._asdict()).encode())
            process.stdin.close()
            async with asyncio.timeout(START_S + 2 * order.timeout_s + RUN_S):
                async for line in process.stdout:
                    told = json.loads(line)
                    if "wanted" in told:
                        wanted = str(told["wanted"])
                        continue
                    if "error" not in told:
                        run.counted(told["elapsed_s"], told["bytes"])
                        continue
                    outcome = told["error"]
                    if order.mptcp and told["mptcp"] is False:
                        outcome = TEXTS[Reason.MPTCP_STRIPPED]
        except TimeoutError:
            outcome = "it took too long"
        except (OSError, ValueError, KeyError) as failure:
            log.warning("speed test: %r", failure)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return outcome, wanted

    def _order(self, run: Run) -> tuple[Order, Presenter]:
        """What to measure, as things are now: a WAN may have gone since the test began. Raises ValueError."""
        snapshot = self._source.snapshot
        views = [view for view in snapshot.wans if run.wan in (BONDED, view.name)]
        if not views:
            raise ValueError(TEXTS[Reason.NO_WAN] if run.wan == BONDED else f"wan {run.wan} is not usable any more")
        concentrators = [view for view in snapshot.concentrators if view.name == self._concentrator]
        if not concentrators:
            raise ValueError(f"concentrator {self._concentrator} is not usable any more")
        # A test is too short to learn whether the line is lossy.
        congestion_control = snapshot.lossy_congestion_control or snapshot.congestion_control
        routes = [Route(concentrators[0], view, congestion_control) for view in views]
        route = next((route for route in routes if route.address), None)
        if route is None:
            raise ValueError(TEXTS[Reason.NO_COMMON_FAMILY])
        presenter = self._source.presenters.of(route.concentrator.name, route.concentrator.credential)
        order = Order(
            direction=run.direction,
            address=route.address,
            port=route.concentrator.port,
            cookie=presenter.cookie(time.monotonic()).hex(),
            device=route.wan.device,
            source=route.source,
            mptcp=run.wan == BONDED,
            congestion_control=route.congestion_control,
            timeout_s=snapshot.connect_timeout_s,
        )
        return order, presenter


def _note(error: str) -> str:
    return f" ({error})" if error else ""
