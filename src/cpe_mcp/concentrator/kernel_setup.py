"""What a concentrator wants of its kernel, once at start: MPTCP limits and a few values (design D15, D19)."""

from __future__ import annotations

import logging

from cpe_mcp.kernel.mptcp import MptcpNetlink
from cpe_mcp.kernel.sysctl import Tuning, read, tune
from cpe_mcp.policy.congestion_control import Choice, choose

log = logging.getLogger(__name__)

TUNING = (
    Tuning(
        "net.mptcp.blackhole_timeout", "0", False, "a suspected black hole would silently turn MPTCP off for an hour"
    ),
    Tuning(
        "net.ipv4.tcp_rmem",
        "4096 1048576 33554432",
        True,
        "a small early reply halves the ramp at the usual default of 128 KiB; uploads of many lines need the maximum",
    ),
    Tuning("net.ipv4.tcp_wmem", "4096 16384 4194304", True, "more brings nothing and hurts with loss"),
    Tuning("net.ipv4.tcp_slow_start_after_idle", "0", False, "the second request of a connection starts at full speed"),
)


def handshakes(backlog: int) -> tuple[Tuning, ...]:
    """What a flood of SYNs meets. With cookies MPTCP is negotiated as without them, and joins too (measured on 6.18)."""
    return (
        Tuning("net.ipv4.tcp_syncookies", "1", True, "a flood of SYNs costs no memory once the backlog is full"),
        Tuning("net.ipv4.tcp_max_syn_backlog", str(backlog), True, "handshakes that may be under way"),
        Tuning("net.core.somaxconn", str(backlog), True, "connections that wait to be accepted"),
        Tuning(
            "net.ipv4.tcp_synack_retries", "3", False, "a handshake that nobody finishes is gone after 15 s, not 63"
        ),
    )


def prepare(*, max_subflows: int, tune_kernel: bool, backlog: int) -> None:
    """Set what is missing. Raises OSError where the kernel has no MPTCP or we lack the rights.

    No address is accepted from a peer and none is announced: the same limits hold for connections to servers, which must
    not learn our addresses.
    """
    mptcp = MptcpNetlink()
    try:
        mptcp.set_limits(subflows=max_subflows, add_addr_accepted=0)
    finally:
        mptcp.close()
    if tune_kernel:
        changes, problems = tune((*TUNING, *handshakes(backlog)))
        for line in changes:
            log.info("kernel: %s", line)
        for line in problems:
            log.warning("kernel: %s", line)


def congestion_control(wanted: str) -> Choice:
    """The option, given what this kernel has."""
    return choose(wanted, (read("net.ipv4.tcp_available_congestion_control") or "").split())


def own_addresses() -> list[str]:
    """Addresses of this machine, both families, as text, from the kernel's tables under /proc."""
    addresses: set[str] = set()
    with open("/proc/self/net/fib_trie", encoding="ascii") as file:
        last = ""
        for line in file:
            words = line.split()
            if words[:1] == ["|--"]:
                last = words[1]
            elif "/32 host LOCAL" in line:
                addresses.add(last)
    try:
        with open("/proc/self/net/if_inet6", encoding="ascii") as file:
            for line in file:
                digits = line.split()[0]
                addresses.add(":".join(digits[i : i + 4] for i in range(0, 32, 4)))
    except FileNotFoundError:
        pass  # a kernel without IPv6
    return sorted(addresses)
