"""Hosts that have met: each other's link-layer addresses are known before the first measurement."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping

from cpe_mcp.lab.processes import Processes

ANSWER_WAIT_S = 2
"""For a ping: one repetition of a neighbour request, and a slow line's RTT."""


def meet(processes: Processes, neighbours: Mapping[str, Iterable[str]]) -> None:
    """From each namespace, ping its neighbours' addresses, all at once; returns when each answered or its time is up.

    As on lines in use: no measurement begins with a neighbour's round trip, or with the second that the kernel waits
    when the first request is lost (it may be, while a fresh bridge is not yet active). Not an error when nothing comes
    back: a line may be lossy.
    """
    pings = [
        processes.popen(
            namespace,
            ["busybox", "ping", "-c", "1", "-W", str(ANSWER_WAIT_S), address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for namespace, addresses in neighbours.items()
        for address in addresses
    ]
    for ping in pings:
        ping.wait()
