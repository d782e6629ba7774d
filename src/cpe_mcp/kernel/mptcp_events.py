"""What the kernel's MPTCP path manager tells: connections and subflows that came and went (family ``mptcp_pm``, group
``mptcp_pm_events``, Linux 5.12 and later). Told of every MPTCP socket of the namespace, whichever path manager serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

from cpe_mcp.kernel.mptcp import NETLINK_GENERIC
from cpe_mcp.kernel.netlink import HEADER, NETLINK_ADD_MEMBERSHIP, RECEIVE_BYTES, SOL_NETLINK, pull_attributes
from cpe_mcp.paths.observed import MptcpEvent

GROUP = "mptcp_pm_events"
GENL_HEADER_BYTES = 4
"""Command, version and two octets that are reserved."""
# enum mptcp_event_attr. Numbers are in host order, ports in network order (seen on 6.18).
TOKEN, _FAMILY, _LOC_ID, _REM_ID, SADDR4, SADDR6, DADDR4, DADDR6, SPORT, DPORT, BACKUP, ERROR = range(1, 13)
FLAGS, _TIMEOUT, IF_IDX, RESET_REASON, _RESET_FLAGS, SERVER_SIDE = range(13, 19)
FLAG_SERVER_SIDE = 2
"""Bit of FLAGS since 6.18; the attribute SERVER_SIDE says the same before."""
BUFFER_BYTES = 1024 * 1024
"""Hundreds of subflows may end with one endpoint, within one turn of the event loop. The kernel caps it at rmem_max for who
may not force it."""
SO_RCVBUFFORCE = 33


def pull_event(body: bytes) -> MptcpEvent | None:
    """One generic netlink message without its netlink header; None for what is no event of a connection (listeners)."""
    if len(body) < GENL_HEADER_BYTES:
        return None
    row = pull_attributes(body[GENL_HEADER_BYTES:])
    token = _number(row, TOKEN, "=I")
    if token is None:
        return None
    flags = _number(row, FLAGS, "=H") or 0
    return MptcpEvent(
        kind=body[0],
        token=token,
        local=_address(row, SADDR4, SADDR6),
        local_port=_number(row, SPORT, "!H") or 0,
        remote=_address(row, DADDR4, DADDR6),
        remote_port=_number(row, DPORT, "!H") or 0,
        is_backup=bool(_number(row, BACKUP, "=B")),
        error=_number(row, ERROR, "=B") or 0,
        reset_reason=_number(row, RESET_REASON, "=I") or 0,
        is_server=bool(flags & FLAG_SERVER_SIDE or _number(row, SERVER_SIDE, "=B")),
    )


def pull_events(data: bytes) -> Iterator[MptcpEvent]:
    """All events of one datagram; what is malformed is passed over."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, *_ = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            return
        event = pull_event(data[offset + HEADER.size : offset + length])
        if event is not None:
            yield event
        offset += (length + 3) & ~3


def _number(row: dict[int, bytes], kind: int, form: str) -> int | None:
    value = row.get(kind, b"")
    return int(struct.unpack(form, value)[0]) if len(value) == struct.calcsize(form) else None


def _address(row: dict[int, bytes], kind4: int, kind6: int) -> str:
    """IPv4 as such even on an IPv6 socket; "" when there is none."""
    packed = row.get(kind4, b"")
    if len(packed) == 4:
        return socket.inet_ntoa(packed)
    packed = row.get(kind6, b"")
    if len(packed) != 16:
        return ""
    if packed.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntoa(packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


class MptcpEvents:
    """``on_event`` for each one; ``on_overrun`` when some were lost, so that the truth has to be looked up."""

    def __init__(self, group: int, *, on_event: Callable[[MptcpEvent], None], on_overrun: Callable[[], None]) -> None:
        """``group``: number of :data:`GROUP`, of :attr:`cpe_mcp.kernel.mptcp.MptcpNetlink.groups`. Raises OSError."""
        self._on_event = on_event
        self._on_overrun = on_overrun
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_GENERIC)
        try:
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except OSError:
            self._socket.close()
            raise

    def start(self) -> None:
        """Hear, on the running event loop."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Unsubscribe."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS; the next call succeeds
                self._on_overrun()
                return
            for event in pull_events(data):
                self._on_event(event)
