"""The option ``congestion_control`` of both ends: what connections begin with, and what those over lossy lines get. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

AUTO = "auto"
ROBUST = "bbr"
"""Keeps its rate where packets are lost that no full queue explains."""


class Choice(NamedTuple):
    """Names as the kernel has them."""

    first: str
    """Of every connection; "": the kernel's default."""
    lossy: str
    """What a connection is changed to when its lines lose packets (:mod:`cpe_mcp.relay.congestion`); "": none is."""


def choose(wanted: str, available: Collection[str]) -> Choice:
    """``wanted``: the option; ``available``: what the kernel has."""
    if wanted != AUTO:
        return Choice(wanted, "")
    return Choice("", ROBUST if ROBUST in available else "")
