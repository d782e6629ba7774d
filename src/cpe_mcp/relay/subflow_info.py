"""What the kernel knows of one MPTCP connection's subflows, asked on the connection's own socket: bytes per line are exact
even where subflows of several connections share their addresses.

MPTCP_FULL_INFO (Linux 6.5) takes its input in the buffer that it fills, which ``getsockopt`` of Python cannot do, so libc is
called. ctypes is loaded with the first question (0.3 MB): a worker that nobody asks does not have it.
"""

from __future__ import annotations

import _socket
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from cpe_mcp.kernel.numbers import SOL_MPTCP
from cpe_mcp.relay.sockets import unmapped

if TYPE_CHECKING:
    from cpe_mcp.relay.sockets import Socket

MPTCP_INFO, MPTCP_FULL_INFO = 1, 4
SUBFLOWS_MAX = 16
"""Room in the arrays: the first subflow, eight more (the kernel's limit), and those that are just being closed."""
TCP_INFO_BYTES = 228
"""As much of struct tcp_info as is read here; the kernel copies what fits and leaves the rest 0."""
RCV_MSS, UNACKED, LOST, RTT, SND_CWND, TOTAL_RETRANS = 20, 24, 32, 68, 80, 100
BYTES_ACKED, MIN_RTT, DATA_SEGS_IN, DATA_SEGS_OUT, DELIVERY_RATE, BUSY_TIME, RCV_OOOPACK = (
    120,
    148,
    152,
    156,
    160,
    168,
    224,
)
"""Offsets in struct tcp_info. BUSY_TIME is followed by the times limited by rwnd and by sndbuf. RCV_OOOPACK: Linux 5.4."""
SUBFLOW_INFO_BYTES, LOCAL, REMOTE = 264, 8, 136
"""struct mptcp_subflow_info: an id, then the two sockaddr_storage."""
FULL_INFO = struct.Struct("=IIIIIIQQ96x")
"""struct mptcp_full_info with the struct mptcp_info of 6.18 behind it, which older kernels fill in part."""
NUM_SUBFLOWS = 16
V4_MAPPED = bytes(10) + b"\xff\xff"


class SubflowInfo(NamedTuple):
    """One subflow. Bytes are payload since it was established, without the line's own retransmissions."""

    local: str
    local_port: int
    remote: str
    remote_port: int
    rtt_ms: float
    bytes_down: int
    """Received over it."""
    bytes_up: int
    """Sent over it and acknowledged."""
    retransmits: int
    """Segments that were sent again."""
    cwnd: int
    """Congestion window of our sending half, segments."""
    unacked: int
    """Segments under way, not acknowledged yet."""
    lost: int
    """Of these, segments that the kernel holds for lost."""
    delivery_mbit: float
    """What the line delivered of ours when it was last asked to do its best, Mbit/s."""
    busy_ms: int
    """Time with something of ours to send. The two below are parts of it."""
    rwnd_limited_ms: int
    """Stopped by the peer's receive window."""
    sndbuf_limited_ms: int
    """Stopped by our own send buffer."""
    segments_in: int
    """Segments with payload that arrived."""
    segments_out: int
    """Segments with payload that were sent, those sent again included."""
    min_rtt_ms: float
    """The smallest round trip of late, without the queue."""
    segment_bytes: int
    """Payload of a full one, as seen."""
    reordered: int
    """Segments that arrived out of order: behind a lost one, or over a line that reorders."""


class LanInfo(NamedTuple):
    """The connection to the LAN device: our sending half of a plain TCP socket. Units as in :class:`SubflowInfo`."""

    rtt_ms: float
    cwnd: int
    retransmits: int
    busy_ms: int
    rwnd_limited_ms: int
    sndbuf_limited_ms: int


def speaks_mptcp(sock: Socket) -> bool:
    """Whether a connected MPTCP socket still is one, and has not fallen back to TCP. Linux 5.16; older ones cannot tell."""
    try:
        return bool(sock.getsockopt(SOL_MPTCP, MPTCP_INFO, 4))
    except OSError:
        return False


def subflow_count(sock: Socket) -> int:
    """Subflows of a connection now; 1 for plain TCP and one that fell back. Linux 5.16."""
    try:
        info = sock.getsockopt(SOL_MPTCP, MPTCP_INFO, 1)
    except OSError:
        return 1
    return 1 + info[0] if info else 1


def subflows_of(sock: Socket) -> list[SubflowInfo]:
    """All subflows of a connection, in the order they joined; empty after a fallback to TCP, and before Linux 6.5."""
    asker = _asker()
    return [_pull(*row) for row in asker.ask(sock.fileno())] if asker is not None else []


class _Asker:
    """The buffers, made once, and libc's getsockopt."""

    def __init__(self) -> None:
        import ctypes

        self._getsockopt = ctypes.CDLL(None).getsockopt
        self._by_reference = ctypes.byref
        self._subflows = ctypes.create_string_buffer(SUBFLOWS_MAX * SUBFLOW_INFO_BYTES)
        self._tcp_infos = ctypes.create_string_buffer(SUBFLOWS_MAX * TCP_INFO_BYTES)
        self._full = ctypes.create_string_buffer(FULL_INFO.size)
        self._length = ctypes.c_uint32()
        arrays = (ctypes.addressof(self._subflows), ctypes.addressof(self._tcp_infos))
        self._question = FULL_INFO.pack(0, TCP_INFO_BYTES, 0, SUBFLOW_INFO_BYTES, 0, SUBFLOWS_MAX, *arrays)

    def ask(self, fd: int) -> list[tuple[bytes, bytes]]:
        """``(subflow_info, tcp_info)`` of each subflow."""
        self._full.raw = self._question
        self._length.value = FULL_INFO.size
        if self._getsockopt(fd, SOL_MPTCP, MPTCP_FULL_INFO, self._full, self._by_reference(self._length)):
            return []
        (count,) = struct.unpack_from("=I", self._full, NUM_SUBFLOWS)
        subflows, tcp_infos = self._subflows.raw, self._tcp_infos.raw
        return [
            (
                subflows[n * SUBFLOW_INFO_BYTES : (n + 1) * SUBFLOW_INFO_BYTES],
                tcp_infos[n * TCP_INFO_BYTES : (n + 1) * TCP_INFO_BYTES],
            )
            for n in range(min(count, SUBFLOWS_MAX))
        ]


@cache
def _asker() -> Any:
    """None where Python has no ctypes (OpenWrt splits it off)."""
    try:
        return _Asker()
    except ImportError:
        return None


def lan_info(sock: Socket) -> LanInfo | None:
    """What the kernel knows of a plain TCP connection; None when it is gone."""
    try:
        info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, TCP_INFO_BYTES).ljust(TCP_INFO_BYTES, b"\0")
    except OSError:
        return None
    (rtt_us,) = struct.unpack_from("=I", info, RTT)
    (cwnd,) = struct.unpack_from("=I", info, SND_CWND)
    (retransmits,) = struct.unpack_from("=I", info, TOTAL_RETRANS)
    busy_us, rwnd_us, sndbuf_us = struct.unpack_from("=QQQ", info, BUSY_TIME)
    return LanInfo(rtt_us / 1000, cwnd, retransmits, busy_us // 1000, rwnd_us // 1000, sndbuf_us // 1000)


def syn_retransmits(sock: Socket) -> int:
    """How often the SYN of a connection that has just been established was sent again."""
    try:
        info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, TOTAL_RETRANS + 4)
        return int(struct.unpack_from("=I", info, TOTAL_RETRANS)[0])
    except (OSError, struct.error):
        return 0


def plain_info(sock: Socket) -> SubflowInfo | None:
    """The same of a plain TCP connection, or one that has fallen back to it; None when it is gone."""
    try:
        local, remote = sock.getsockname()[:2], sock.getpeername()[:2]
        info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, TCP_INFO_BYTES).ljust(TCP_INFO_BYTES, b"\0")
    except OSError:
        return None
    return _made((unmapped(local[0]), local[1]), (unmapped(remote[0]), remote[1]), info)


def _pull(addresses: bytes, info: bytes) -> SubflowInfo:
    return _made(_pull_address(addresses, LOCAL), _pull_address(addresses, REMOTE), info)


def _made(local: tuple[str, int], remote: tuple[str, int], info: bytes) -> SubflowInfo:
    segment_bytes, unacked = struct.unpack_from("=II", info, RCV_MSS)
    (lost,) = struct.unpack_from("=I", info, LOST)
    (rtt_us,) = struct.unpack_from("=I", info, RTT)
    (cwnd,) = struct.unpack_from("=I", info, SND_CWND)
    (retransmits,) = struct.unpack_from("=I", info, TOTAL_RETRANS)
    acked, received = struct.unpack_from("=QQ", info, BYTES_ACKED)
    min_rtt_us, segments_in, segments_out = struct.unpack_from("=III", info, MIN_RTT)
    delivery, busy_us, rwnd_us, sndbuf_us = struct.unpack_from("=QQQQ", info, DELIVERY_RATE)
    (reordered,) = struct.unpack_from("=I", info, RCV_OOOPACK)
    return SubflowInfo(
        *local,
        *remote,
        rtt_ms=rtt_us / 1000,
        bytes_down=received,
        bytes_up=acked,
        retransmits=retransmits,
        cwnd=cwnd,
        unacked=unacked,
        lost=lost,
        delivery_mbit=round(delivery * 8e-6, 2),
        busy_ms=busy_us // 1000,
        rwnd_limited_ms=rwnd_us // 1000,
        sndbuf_limited_ms=sndbuf_us // 1000,
        segments_in=segments_in,
        segments_out=segments_out,
        min_rtt_ms=min_rtt_us / 1000,
        segment_bytes=segment_bytes,
        reordered=reordered,
    )


def _pull_address(data: bytes, at: int) -> tuple[str, int]:
    """Address and port of a struct sockaddr; IPv4 as IPv4 also where the socket is AF_INET6."""
    (family,) = struct.unpack_from("=H", data, at)
    (port,) = struct.unpack_from("!H", data, at + 2)
    if family == _socket.AF_INET:
        return _socket.inet_ntoa(data[at + 4 : at + 8]), port
    packed = data[at + 8 : at + 24]
    if packed.startswith(V4_MAPPED):
        return _socket.inet_ntoa(packed[12:]), port
    return _socket.inet_ntop(_socket.AF_INET6, packed), port
