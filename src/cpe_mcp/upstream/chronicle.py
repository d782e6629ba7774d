"""Once a second takes what the WANs carried into the records, less often which subflows they have, and writes the metrics
file when it is due."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from cpe_mcp.upstream.history import INTERVAL_S, History

log = logging.getLogger(__name__)

LOOKS_S = 3.0
"""Between two looks at the subflows that each WAN has."""
METRICS_FILE = "cpe-mcp.prom"
METRICS_MODE = 0o644
"""The exporter that reads it is another user; there is nothing in it that the others may not know."""


class Chronicle:
    """``counters()``: bytes (up, down) of each WAN; ``look()``: takes note of the subflows; ``status()``: the answer of that
    name; ``metrics()``: the directory and how often in s, 0 for never."""

    def __init__(
        self,
        history: History,
        *,
        counters: Callable[[], dict[str, tuple[int, int]]],
        look: Callable[[], None],
        status: Callable[[], Awaitable[dict[str, Any]]],
        metrics: Callable[[], tuple[str, float]],
    ) -> None:
        self._history = history
        self._counters = counters
        self._look = look
        self._status = status
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._written = ""
        self._complained = ""

    def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, and remove the metrics file: figures of a daemon that has gone are not true any more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._remove()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = written = next_look = loop.time()
        while True:
            now = loop.time()
            self._history.observe(now, self._counters())
            if now >= next_look:
                next_look = now + LOOKS_S
                self._look()
            directory, every_s = self._metrics()
            if not every_s:
                self._remove()
            elif not self._written or now - written >= every_s - INTERVAL_S / 2:
                written = now
                await self._write(directory)
            due = max(due + INTERVAL_S, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _write(self, directory: str) -> None:
        """In one step: a reader never sees half a file."""
        from cpe_mcp.upstream.metrics import exposition

        path = os.path.join(directory, METRICS_FILE)
        temporary = f"{path}.new"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), METRICS_MODE)
                file.write(exposition(await self._status()))
            os.replace(temporary, path)
        except OSError as error:
            if error.strerror != self._complained:
                self._complained = error.strerror or ""
                log.warning("metrics cannot be written to %s: %s", path, error.strerror)
            return
        self._written = path

    def _remove(self) -> None:
        if self._written:
            with contextlib.suppress(OSError):
                os.unlink(self._written)
            self._written = ""
