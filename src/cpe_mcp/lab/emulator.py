"""The link emulator: one process that carries the frames of every emulated line of a lab between TAP devices.

A line is one TAP device in each of two network namespaces, and two :class:`~cpe_mcp.lab.line.Direction` between them.
The kernel hands over single packets (no vnet header, so no segmentation offload), and loss and queue act per packet as
on a real line.

What costs is waking up, not Python: under load a turn of the loop begins every QUANTUM_S and then moves all that is due.
Measured in a whole lab on Linux 6.18 (one core, CPU time of this process): 142 Mbit/s down over both default lines 34 %,
62 Mbit/s up 25 %, 780 Mbit/s down over one line 73 %, UDP with 215 Mbit/s each way at once 46 %. Four fifths of it are the
kernel's: its receive path, with forwarding, NAT and the client's bridge, runs inside write(). A ping over a line of
20 ms takes 20.7 ms.

The control socket takes one JSON datagram ``{"change": {LINE: {"down": {...}, "up": {...}}}, "carrier": {LINE: bool}}``
(the arguments of :meth:`Direction.change`; whether the subscriber's device has a carrier; all may be left out) and
answers the sender with ``{"lines": {LINE: {"down": counters,
"up": counters}}, "cpu_s": s}`` or ``{"error": text}``. ``down`` is towards the subscriber.

Run as ``python -m cpe_mcp.lab.emulator CONFIG``, where CONFIG is the JSON that :func:`main` describes; prints "ready".
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from math import inf
from typing import Any

from cpe_mcp.lab.line import Direction
from cpe_mcp.lab.namespaces import enter

QUANTUM_S = 0.0005
"""Shortest time between two turns under load. Half a millisecond keeps the error of an RTT below 1 ms and the load below
2,000 turns a second."""
BURST_TURNS = 4
"""Turns that may follow at once after an idle time: the answer to a single packet does not wait for a quantum."""
READS_PER_TURN = 128
"""Frames taken from one device per turn: 128 of 1500 bytes in 0.5 ms are 3 Gbit/s."""
FRAME_MAX_BYTES = 2048
NICENESS = -15
"""A line does not get slower because the machines at its ends are busy."""
CONTROL_MAX_BYTES = 65536

TUNSETIFF = 0x400454CA
TUNSETCARRIER = 0x400454E2
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
"""linux/if_tun.h; TUNSETCARRIER since 5.0"""


def open_tap(device: str) -> int:
    """A new TAP device in the calling thread's namespace; it lives as long as the descriptor. Raises OSError."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Emulator:
    """``lines``: name -> (directions by name, descriptor of the subscriber's end, descriptor of the provider's end)."""

    def __init__(self, lines: dict[str, tuple[dict[str, Direction], int, int]], control: socket.socket) -> None:
        self._lines = {name: directions for name, (directions, _, _) in lines.items()}
        self._subscribers = {name: subscriber for name, (_, subscriber, _) in lines.items()}
        self._control = control
        self._ways: list[tuple[int, Direction, int]] = []
        for directions, subscriber, provider in lines.values():
            self._ways.append((provider, directions["down"], subscriber))
            self._ways.append((subscriber, directions["up"], provider))

    def run(self) -> None:
        """Carry frames for ever."""
        ways = {source: direction for source, direction, _ in self._ways}
        exits = [(direction, target) for _, direction, target in self._ways]
        watched = [self._control.fileno(), *ways]
        read, monotonic = os.read, time.monotonic
        next_turn = 0.0
        while True:
            due = min(direction.next_arrival() for direction, _ in exits)
            started = monotonic()
            ready, _, _ = select.select(watched, (), (), None if due == inf else max(0.0, due - started))
            started = monotonic()
            for descriptor in ready:
                direction = ways.get(descriptor)
                if direction is None:
                    self._answer()
                    continue
                admit = direction.admit
                try:
                    for _ in range(READS_PER_TURN):
                        admit(started, read(descriptor, FRAME_MAX_BYTES))
                except BlockingIOError:
                    pass
            for direction, target in exits:
                if direction.next_arrival() <= started:
                    deliver(target, direction.pull_arrived(started))
            next_turn = max(next_turn, started - BURST_TURNS * QUANTUM_S) + QUANTUM_S
            pause = next_turn - monotonic()
            if pause > 0:
                time.sleep(pause)

    def _answer(self) -> None:
        data, sender = self._control.recvfrom(CONTROL_MAX_BYTES)
        if sender:
            with contextlib.suppress(OSError):  # the one who asked has gone
                self._control.sendto(json.dumps(self.answer(data)).encode(), sender)

    def answer(self, data: bytes) -> dict[str, Any]:
        """The answer to one control datagram; never raises."""
        try:
            question = json.loads(data)
            for name, directions in question.get("change", {}).items():
                for which, values in directions.items():
                    self._lines[name][which].change(**values)
            for name, present in question.get("carrier", {}).items():
                fcntl.ioctl(self._subscribers[name], TUNSETCARRIER, struct.pack("i", present))
        except KeyError as error:
            return {"error": f"no line or direction {error}; there are {', '.join(self._lines)} with down and up"}
        except (ValueError, TypeError, AttributeError) as error:
            return {"error": str(error)}
        lines = {
            name: {which: direction.stats() for which, direction in directions.items()}
            for name, directions in self._lines.items()
        }
        return {"lines": lines, "cpu_s": time.process_time()}


def deliver(target: int, frames: list[bytes]) -> None:
    """Write frames to a TAP device. One that is down takes none: they are lost, as behind an unplugged modem."""
    for frame in frames:
        try:
            os.write(target, frame)
        except OSError:
            return


def main(argv: list[str] | None = None) -> int:
    """CONFIG: ``{"control": socket path, "lines": {NAME: {"subscriber": [namespace, device], "provider": [namespace,
    device], "down": arguments of Direction, "up": the same}}}``."""
    (config_path,) = sys.argv[1:] if argv is None else argv
    os.nice(NICENESS)
    with open(config_path, encoding="utf-8") as file:
        config = json.load(file)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(config["control"])
    lines = {}
    for name, line in config["lines"].items():
        ends = []
        for namespace, device in (line["subscriber"], line["provider"]):
            with enter(namespace):
                ends.append(open_tap(device))
        directions = {which: Direction(**line[which]) for which in ("down", "up")}
        lines[name] = (directions, ends[0], ends[1])
    print("ready", flush=True)
    Emulator(lines, control).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
