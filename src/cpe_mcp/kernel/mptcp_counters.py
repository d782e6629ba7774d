"""The kernel's counters of Multipath TCP in this namespace, since it was made: line ``MPTcpExt`` of /proc/net/netstat."""

from __future__ import annotations

NETSTAT = "/proc/net/netstat"
JOIN_SYN_TX, JOIN_SYNACK_RX = "MPJoinSynTx", "MPJoinSynAckRx"


def mptcp_counters(path: str = NETSTAT) -> dict[str, int]:
    """By name; empty where the kernel has no MPTCP. Raises OSError. MPJoinSynTx: Linux 6.12 (and 6.6 with its fixes)."""
    with open(path, encoding="ascii") as file:
        rows = [line.split()[1:] for line in file if line.startswith("MPTcpExt:")]
    return dict(zip(rows[0], map(int, rows[1]), strict=False)) if len(rows) == 2 else {}
