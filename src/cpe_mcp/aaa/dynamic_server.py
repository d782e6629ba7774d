"""UDP end of dynamic authorization (RFC 5176): one socket for each local address; answers leave from the one that was asked.

Only datagrams are moved here, on the running asyncio loop; what they mean is :mod:`.dynamic_packets`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from cpe_mcp.aaa.dynamic_packets import MAX_PACKET_OCTETS, DynamicAuthorization

log = logging.getLogger(__name__)

PORT = 3799
"""RFC 5176 section 2.1."""
BATCH = 32
"""Datagrams read in one turn: a flood of them must not keep the loop from everything else."""
_CONTROL_BYTES = 256
_CARRIED_BACK = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
"""The kernel's word on where a datagram came to, which says where its answer leaves from."""

Place = tuple[str, str]
"""Local address, and device or ""."""


class DynamicServer:
    """Serves ``core`` at the places of :meth:`follow`. ``unix()``: time of day, None where the clock was never set."""

    def __init__(self, core: DynamicAuthorization, *, unix: Callable[[], float | None] = time.time) -> None:
        self._core = core
        self._unix = unix
        self._sockets: dict[tuple[Place, int], socket.socket] = {}

    def follow(self, places: Iterable[Place], port: int) -> list[str]:
        """Serve there and nowhere else. Returns what could not be opened, one line each; it is tried again next time."""
        wanted = {(place, port) for place in places}
        for key in self._sockets.keys() - wanted:
            self._shut(key)
        errors = []
        for key in sorted(wanted - self._sockets.keys()):
            (address, device), _ = key
            try:
                sock = self._sockets[key] = _open(address, port, device)
            except OSError as error:
                where = f"{address} port {port}{f' on {device}' if device else ''}"
                errors.append(f"dynamic authorization at {where}: {error.strerror}")
                continue
            asyncio.get_running_loop().add_reader(sock.fileno(), self._read, sock)
        return errors

    def places(self) -> list[Place]:
        """Where it serves now."""
        return sorted(place for place, _ in self._sockets)

    def close(self) -> None:
        """Serve nowhere."""
        for key in list(self._sockets):
            self._shut(key)

    def _shut(self, key: tuple[Place, int]) -> None:
        sock = self._sockets.pop(key)
        asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()

    def _read(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data, control, _, source = sock.recvmsg(MAX_PACKET_OCTETS, _CONTROL_BYTES)
            except OSError:  # nothing more, or an ICMP error of an answer
                return
            answer = self._core.receive(data, source[:2], now=time.monotonic(), unix=self._unix())
            if answer is not None:
                back = [row for row in control if row[:2] == _CARRIED_BACK]
                with contextlib.suppress(OSError):  # the peer sends its request again
                    sock.sendmsg([answer], back, 0, source)


def _open(address: str, port: int, device: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.bind((address if ip_address(address).version == 6 else f"::ffff:{address}", port))
    except OSError:
        sock.close()
        raise
    return sock
