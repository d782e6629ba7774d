"""How the subflows towards the concentrators do, as the kernel tells: one sock_diag dump with TCP_INFO for all of them.

An MPTCP subflow is an ordinary TCP socket to sock_diag, so no descriptor of a relay worker is needed.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection

from cpe_mcp.kernel.netlink import Netlink, pull_attributes
from cpe_mcp.paths.observed import TCP_ESTABLISHED, Subflow

NETLINK_SOCK_DIAG = 4
TCPDIAG_GETSOCK = 18
"""struct inet_diag_req, which names no family: one walk through the kernel's table of connections for both. With
SOCK_DIAG_BY_FAMILY it takes two, and the walk is what a look costs: 0.4 ms each on a machine with much memory."""
INET_DIAG_INFO, INET_DIAG_ULP_INFO = 2, 19
ULP_INFO_MPTCP = 3
MPTCP_TOKEN_LOC, MPTCP_FLAGS = 2, 8
"""MPTCP_SUBFLOW_ATTR_*, told to CAP_NET_ADMIN since 5.6."""
FLAG_MCAP_LOC, FLAG_JOIN_LOC = 2, 8
"""MPTCP_SUBFLOW_FLAG_*: the peer has answered MP_CAPABLE, or MP_JOIN. Neither: fallen back in the handshake."""
TCP_SYN_SENT, TCP_FIN_WAIT1, TCP_CLOSE_WAIT, TCP_LAST_ACK = 2, 4, 8, 9
STATES = 1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_CLOSE_WAIT
"""States in which a subflow may carry data."""
ID = struct.Struct("!HH16s16s")
"""Source port, destination port, source, destination: in network byte order."""
MESSAGE_BYTES = 72
"""struct inet_diag_msg: 4 octets, the 48 of the socket id, 20 more."""
INFO = struct.Struct("=2xB 21xI 16xI 8xI 8xII 16xI 24xQQ 4xI")
"""struct tcp_info since 4.6: retransmits (2), unacked (24), last_data_sent (44), last_ack_recv (56), rtt and rttvar (68, 72),
rcv_rtt (92), bytes_acked and bytes_received (120, 128), segs_in (140)."""


class SubflowDump:
    """Asks the kernel. One object per namespace, used again and again."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_SOCK_DIAG)

    def close(self) -> None:
        """Give the socket back."""
        self._netlink.close()

    def read(self, remotes: Collection[tuple[str, int]]) -> list[Subflow]:
        """Subflows towards these addresses and ports."""
        found: list[Subflow] = []
        for port in {port for _, port in remotes}:
            header = struct.pack("=BBBB", 0, 0, 0, 1 << (INET_DIAG_INFO - 1))
            identity = ID.pack(0, port, bytes(16), bytes(16)) + struct.pack("=I8s", 0, b"\xff" * 8)
            tail = struct.pack("=II", STATES, 0)
            for answer in self._netlink.request(TCPDIAG_GETSOCK, header + identity + tail, dump=True):
                subflow = _pull(answer)
                if subflow is not None and (subflow.remote, subflow.remote_port) in remotes:
                    found.append(subflow)
        return found


def _pull(message: bytes) -> Subflow | None:
    attributes = pull_attributes(message[MESSAGE_BYTES:])
    info = attributes.get(INET_DIAG_INFO, b"")
    if len(info) < INFO.size:
        return None
    family = message[0]
    local_port, remote_port, local, remote = ID.unpack_from(message, 4)
    retransmits, unacked, last_sent, last_ack, rtt, rttvar, received_rtt, acked, received, segments_in = (
        INFO.unpack_from(info)
    )
    token, is_fallback = _token(attributes.get(INET_DIAG_ULP_INFO, b""))
    return Subflow(
        local=_text(family, local),
        local_port=local_port,
        remote=_text(family, remote),
        remote_port=remote_port,
        state=message[1],
        retransmits=retransmits,
        unacked=unacked,
        last_data_sent_ms=last_sent,
        last_ack_ms=last_ack,
        rtt_ms=rtt / 1000,
        rttvar_ms=rttvar / 1000,
        received_rtt_ms=received_rtt / 1000,
        bytes_acked=acked,
        bytes_received=received,
        segments_in=segments_in,
        token=token,
        is_fallback=is_fallback,
    )


def _token(ulp_info: bytes) -> tuple[int, bool]:
    """``(token, is_fallback)``"""
    row = pull_attributes(pull_attributes(ulp_info).get(ULP_INFO_MPTCP, b""))
    if len(row.get(MPTCP_TOKEN_LOC, b"")) != 4 or len(row.get(MPTCP_FLAGS, b"")) != 4:
        return 0, False
    (flags,) = struct.unpack("=I", row[MPTCP_FLAGS])
    return int(struct.unpack("=I", row[MPTCP_TOKEN_LOC])[0]), not flags & (FLAG_MCAP_LOC | FLAG_JOIN_LOC)


def _text(family: int, packed: bytes) -> str:
    if family == socket.AF_INET:
        return socket.inet_ntoa(packed[:4])
    if packed.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntoa(packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)
