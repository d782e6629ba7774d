"""SYN probes: does anything come back over one WAN? A TCP handshake with a concentrator, closed by RST at once.

It costs four packets of 52 to 60 octets, and tells the round-trip time. Who sent the probe decides how long to wait; it is
given up for good after :data:`LIFE_S`, or a given time.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

SO_BINDTODEVICE = 25
TCP_SYNCNT = 7
TCP_INFO = 11
TCP_INFO_TOTAL_RETRANS = 100
"""Offset in struct tcp_info."""
LIFE_S = 3.0
"""One retransmission, 1 s after the SYN, and time for its answer; an answer that comes even later is of no use."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Answer(NamedTuple):
    """A probe that came back, with SYN+ACK or RST."""

    wan: str
    address: str
    """Of the concentrator."""
    rtt_s: float
    """0 where it says nothing: the SYN was sent twice, and nobody knows which of the two was answered."""
    lost: int
    """Probes to the same concentrator that were sent before this one and not answered before it: a line keeps the order."""


class _Probe(NamedTuple):
    wan: str
    address: str
    sent: float
    is_timed: bool
    end: asyncio.TimerHandle


class Prober:
    """Probes under way. ``on_answer`` for every one that is answered."""

    def __init__(self, on_answer: Callable[[Answer], None]) -> None:
        self._on_answer = on_answer
        self._under_way: dict[socket.socket, _Probe] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def send(
        self,
        wan: str,
        *,
        device: str,
        source: str,
        address: str,
        port: int,
        is_timed: bool = True,
        life_s: float = LIFE_S,
    ) -> bool:
        """One SYN. False when it cannot even be sent (no route, no address, no descriptor).

        ``is_timed`` False: the answer counts, its time does not. With ``life_s`` below 1 the SYN is sent only once.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptor is left
            return False
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 1)
            sock.bind((source, 0))
            sock.connect((address, port))
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            return False
        loop = asyncio.get_running_loop()
        end = loop.call_later(life_s, self._close, sock)
        self._under_way[sock] = _Probe(wan, address, time.monotonic(), is_timed, end)
        loop.add_writer(sock.fileno(), self._answered, sock)
        return True

    def drop(self, wan: str) -> None:
        """Stop waiting for this WAN's probes."""
        for sock in [sock for sock, probe in self._under_way.items() if probe.wan == wan]:
            self._close(sock)

    def poll(self) -> None:
        """Hear the answers that are there already: who was kept from running meanwhile must not take them for missing."""
        if not self._under_way:
            return
        by_descriptor = {sock.fileno(): sock for sock in self._under_way}
        ready = select.poll()
        for descriptor in by_descriptor:
            ready.register(descriptor, select.POLLOUT)
        for descriptor, _ in ready.poll(0):
            if by_descriptor[descriptor] in self._under_way:  # an answer ends the other probes of its WAN
                self._answered(by_descriptor[descriptor])

    def close(self) -> None:
        """Stop waiting for all."""
        for sock in list(self._under_way):
            self._close(sock)

    def _answered(self, sock: socket.socket) -> None:
        probe = self._under_way[sock]
        now = time.monotonic()
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        info = sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, TCP_INFO_TOTAL_RETRANS + 4)
        (retransmitted,) = struct.unpack_from("=I", info, TCP_INFO_TOTAL_RETRANS)
        self._close(sock)
        if error not in (0, errno.ECONNREFUSED):  # a RST came from the other side as well
            return
        lost = sum(other[:2] == probe[:2] and other.sent < probe.sent for other in self._under_way.values()) + bool(
            retransmitted
        )
        is_timed = probe.is_timed and not retransmitted
        self._on_answer(Answer(probe.wan, probe.address, now - probe.sent if is_timed else 0.0, lost))

    def _close(self, sock: socket.socket) -> None:
        probe = self._under_way.pop(sock, None)
        if probe is not None:
            probe.end.cancel()
            asyncio.get_running_loop().remove_writer(sock.fileno())
            sock.close()
