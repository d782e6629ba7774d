"""Destinations on their way into the nftables set of those that are left to plain forwarding (design D14).

A port scan or BitTorrent brings hundreds a second, and ``nft`` takes some milliseconds each time. Nothing else in the daemon
waits for it: the first goes at once, in a thread, and what comes meanwhile goes together in the next transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from cpe_mcp.policy.masking import shortened, without_hosts

log = logging.getLogger(__name__)

SPACING_S = 0.05
"""Between two transactions. A browser that was reset tries again after some 0.1 s."""
WAITING_MAX = 4096
"""Beyond that the oldest are dropped: they are taken once more, and refused once more."""


class DirectQueue:
    """``load`` is called in a thread, with addresses and ports; raises RuntimeError or OSError."""

    def __init__(self, load: Callable[[Sequence[tuple[str, int]]], None], complain: Callable[[str], None]) -> None:
        self._load = load
        self._complain = complain
        self._waiting: dict[tuple[str, int], None] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, address: str, port: int) -> None:
        """On the running event loop."""
        self._waiting[address, port] = None
        if len(self._waiting) > WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = list(self._waiting)
                self._waiting.clear()
                try:
                    await asyncio.to_thread(self._load, batch)
                except (RuntimeError, OSError) as error:
                    servers = ", ".join(f"{shortened(address)} port {port}" for address, port in batch)
                    log.debug("not left to plain forwarding: %s", servers)
                    why = without_hosts(str(error))
                    self._complain(f"what a concentrator refuses cannot be left to plain forwarding: {why}")
                await asyncio.sleep(SPACING_S)
        finally:
            if self._task is asyncio.current_task():
                self._task = None
