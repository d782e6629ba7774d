"""Kernel values the router's side wants, each with its reason (design D19). Applied by :mod:`cpe_mcp.kernel.sysctl`."""

from __future__ import annotations

from cpe_mcp.kernel.sysctl import Tuning

ROUTER = (
    Tuning(
        "net.mptcp.blackhole_timeout", "0", False, "a suspected black hole would silently turn MPTCP off for an hour"
    ),
    Tuning(
        "net.ipv4.tcp_rmem",
        "4096 1048576 16777216",
        True,
        "a small early reply halves the ramp at the usual default of 128 KiB; the maximum covers 300 Mbit/s x 200 ms twice",
    ),
    Tuning("net.ipv4.tcp_wmem", "4096 16384 4194304", True, "more brings nothing and hurts with loss"),
)
