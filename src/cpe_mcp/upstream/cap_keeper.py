"""Tells the relay workers what each may let through of the cap that RADIUS orders, by what they say they want."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cpe_mcp.control.frames import CAPS
from cpe_mcp.control.server import Worker
from cpe_mcp.policy.cap_shares import NO_CAP, CapShares, Demand
from cpe_mcp.relay.own_cap import OWN

BYTES_PER_S = 125_000
"""Of one Mbit/s."""


class CapKeeper:
    """``workers()`` gives those that are connected."""

    def __init__(self, workers: Callable[[], Sequence[Worker]]) -> None:
        self._workers = workers
        self._shares = CapShares()
        self.mbit = 0, 0
        """Down and up; 0: no cap."""

    def set(self, down_mbit: int, up_mbit: int) -> None:
        """Another cap; running flows follow."""
        self.mbit = down_mbit, up_mbit
        if self._shares.set_cap(OWN, (float(down_mbit * BYTES_PER_S), float(up_mbit * BYTES_PER_S))):
            self._tell()

    def joined(self, worker: Worker) -> None:
        """A worker that may know an old cap, of a control daemon before this one; the others get less now."""
        self._shares.forget_worker(worker.pid)
        if any(self.mbit):
            self._tell()
        else:
            worker.send(CAPS, {OWN: (NO_CAP, NO_CAP)})

    def left(self, worker: Worker) -> None:
        """Its share is for the others."""
        self._shares.forget_worker(worker.pid)
        self._tell()

    def demanded(self, worker: Worker, payload: Mapping[str, Sequence[Any]]) -> None:
        """What it used, and how many directions it held back."""
        for down, down_waiting, up, up_waiting in payload.values():
            self._shares.report(OWN, worker.pid, Demand(down, down_waiting), Demand(up, up_waiting), time.monotonic())
        if len(self._workers()) > 1:
            self._tell()

    def _tell(self) -> None:
        workers = {worker.pid: worker for worker in self._workers()}
        if workers:
            for pid, share in self._shares.news(OWN, workers, time.monotonic()).items():
                workers[pid].send(CAPS, {OWN: share})
