"""How a RADIUS request gets to a server and its answer back: datagrams here, TLS in :mod:`.tls_carrier`.

For each request there is a socket of its own, and so a random source port, bound to the WAN that is to carry it. What an
answer is worth is the asker's judgement; which server and which WAN come next must not be in here either.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol

from cpe_mcp.paths.snapshot import WanView

MAX_PACKET_BYTES = 4096
"""RFC 2865 section 3."""
UDP_PORT = 1812
"""RFC 2865 section 3."""

_IP_RECVERR, _IPV6_RECVERR = 11, 25
"""linux/in.h, linux/in6.h; Python's socket module has no names for them before 3.14."""

Judge = Callable[[bytes, bool], Any]
"""What a packet is, given whether it came from the server that was asked: the reply, or None for anything else."""


class Unreachable(Exception):
    """No request gets to this server that way. One line for people."""


class Server:
    """One server's address and how it behaved. Raises ValueError for what is no address."""

    def __init__(self, address: str, port: int) -> None:
        flags = socket.AI_NUMERICHOST  # never a look-up: it would block the loop
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=flags)
        except OSError as error:
            raise ValueError(f"{address!r} is no IP address ({error.strerror})") from None
        self.family = found[0][0]
        self.sockaddr: tuple[Any, ...] = found[0][4]
        self.address = address
        self.name = f"[{address}]:{port}" if self.family == socket.AF_INET6 else f"{address}:{port}"
        self.is_here = ip_address(address.partition("%")[0]).is_loopback
        """On this machine: no WAN is on the way."""
        self.silent_until = 0.0

    def is_source(self, source: tuple[Any, ...]) -> bool:
        return source[:2] == self.sockaddr[:2] and source[3:] == self.sockaddr[3:]

    def source_on(self, way: WanView) -> str:
        """This WAN's address towards the server; "": it has none of that family."""
        return way.address6 if self.family == socket.AF_INET6 else way.address4

    def open_socket(self, kind: int, way: WanView | None) -> socket.socket:
        """Not connected; bound to the WAN, where one is given. Raises OSError."""
        sock = socket.socket(self.family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if way is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.device.encode())
                sock.bind((self.source_on(way), 0))
        except OSError:
            sock.close()
            raise
        return sock


class Carrier(Protocol):
    """One kind of transport."""

    needs_signature: bool
    """Whether an answer without Message-Authenticator is worth nothing (CVE-2024-3596)."""

    async def exchange(
        self, server: Server, raw: bytes, judge: Judge, *, way: WanView | None, counters: Counter[str]
    ) -> Any | None:
        """What ``judge`` took for the reply; None when none came. Raises Unreachable."""


class UdpCarrier:
    """Datagrams, repeated until ``tries`` are used up; each waits ``timeout_s``."""

    needs_signature = True

    def __init__(self, *, timeout_s: float, tries: int) -> None:
        self._timeout_s = timeout_s
        self._tries = tries

    async def exchange(
        self, server: Server, raw: bytes, judge: Judge, *, way: WanView | None, counters: Counter[str]
    ) -> Any | None:
        """See :class:`Carrier`. The socket is not connected, so that an answer from another address is seen."""
        loop = asyncio.get_running_loop()
        try:
            with server.open_socket(socket.SOCK_DGRAM, way) as sock:
                # It hears of ICMP errors.
                if server.family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
                else:
                    sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
                for number in range(self._tries):
                    counters["retransmissions" if number else "requests"] += 1
                    try:
                        await loop.sock_sendto(sock, raw, server.sockaddr)
                        async with asyncio.timeout(self._timeout_s):
                            while True:
                                data, source = await loop.sock_recvfrom(sock, MAX_PACKET_BYTES)
                                reply = judge(data, server.is_source(source))
                                if reply is not None:
                                    return reply
                    except TimeoutError:
                        continue
        except OSError as error:
            raise Unreachable(error.strerror or str(error)) from None
        return None
