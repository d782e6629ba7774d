"""The concentrator's relay workers as child processes: started, started again when they die, ended with the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence

log = logging.getLogger(__name__)

BACKOFF_S, BACKOFF_MAX_S = 0.2, 10.0
"""Pause before a worker that died is started again; doubled while it dies young."""
STEADY_S = 10.0
"""A worker that lived this long did not die young."""
STOP_S = 5.0
"""For a worker to end after SIGTERM: it only resets its flows."""


class WorkerProcesses:
    """``count`` workers. Each is its own process, so that one that dies takes only its own flows along."""

    def __init__(self, command: Sequence[str], count: int) -> None:
        self._command = list(command)
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self.restarts = 0

    def start(self) -> None:
        """Start them all, on the running event loop."""
        self._tasks = [asyncio.create_task(self._keep(index)) for index in range(self._count)]

    async def stop(self) -> None:
        """SIGTERM to each, and wait."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep(self, index: int) -> None:
        pause_s = BACKOFF_S
        while True:
            started = time.monotonic()
            process = await asyncio.create_subprocess_exec(*self._command, "--index", str(index))
            try:
                code = await process.wait()
            finally:
                await _end(process)
            self.restarts += 1
            log.warning("relay worker %d (pid %d) ended with %d and is started again", index, process.pid, code)
            pause_s = BACKOFF_S if time.monotonic() - started > STEADY_S else min(pause_s * 2, BACKOFF_MAX_S)
            await asyncio.sleep(pause_s)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def worker_command(run_dir: str) -> list[str]:
    """The command line without the worker's index."""
    return [
        sys.executable,
        "-m",
        "cpe_mcp.relay.concentrator_worker",
        "--run-dir",
        run_dir,
        "--parent",
        str(os.getpid()),
    ]
