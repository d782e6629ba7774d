"""SYN probes: does anything come back over one WAN? A TCP handshake with a concentrator, closed by RST at once.

It costs three packets of 40 to 60 octets, tells the round-trip time, and reaches no application. Kernel timeouts play no
part: who sent the probe decides how long to wait.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable

SO_BINDTODEVICE = 25
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Prober:
    """Probes under way. ``on_answer(wan, rtt_s)`` for every one that is answered, with SYN+ACK or RST."""

    def __init__(self, on_answer: Callable[[str, float], None]) -> None:
        self._on_answer = on_answer
        self._under_way: dict[socket.socket, tuple[str, float]] = {}

    def send(self, wan: str, *, device: str, source: str, address: str, port: int) -> bool:
        """One SYN. False when the WAN cannot even send it (no route, no address)."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.bind((source, 0))
            sock.connect((address, port))
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            return False
        self._under_way[sock] = (wan, time.monotonic())
        asyncio.get_running_loop().add_writer(sock.fileno(), self._answered, sock)
        return True

    def drop(self, wan: str) -> None:
        """Stop waiting for this WAN's probes."""
        for sock in [sock for sock, (name, _) in self._under_way.items() if name == wan]:
            self._close(sock)

    def close(self) -> None:
        """Stop waiting for all."""
        for sock in list(self._under_way):
            self._close(sock)

    def _answered(self, sock: socket.socket) -> None:
        wan, sent = self._under_way[sock]
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._close(sock)
        if error in (0, 111):  # ECONNREFUSED came from the other side as well
            self._on_answer(wan, time.monotonic() - sent)

    def _close(self, sock: socket.socket) -> None:
        del self._under_way[sock]
        asyncio.get_running_loop().remove_writer(sock.fileno())
        sock.close()
