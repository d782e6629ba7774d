"""Loads that last while something else is looked at: paced downloads, an upload, and a row of new connections."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cpe_mcp.lab.configs import SMALL_FILE
from cpe_mcp.lab.measure import size_of
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import ADDRESSES
from cpe_mcp.lab.scenarios.transfer import HTTP_PORT, READ_BYTES, SINK_PORT, STALL_S, connect, sink

STREAM_PORT = 5002
SMOOTH_S = 0.01
"""Between two pieces of a smooth stream."""
UPLOAD_TICK_S = 0.2
"""How often an upload looks whether it shall end."""


class _Pacing(socketserver.BaseRequestHandler):
    """Sends so many bytes/s as the client's first line says, a piece every so many ms, as the second says, until it goes."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            rate, every_ms = (int(word) for word in self.request.makefile("rb").readline().split())
            piece = bytes(rate * every_ms // 1000)
            due = time.monotonic()
            while True:
                self.request.sendall(piece)
                due = max(due + every_ms / 1000, time.monotonic() - 1)
                time.sleep(max(0.0, due - time.monotonic()))


class _PacingServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class Stream:
    """One download that the server paces, in a thread of its own until :meth:`stop`."""

    def __init__(self, lab: Lab, mbit_each: float, every_s: float) -> None:
        self._connection = connect(lab, "client1", ADDRESSES.server.v4, STREAM_PORT)
        self._connection.settimeout(STALL_S)
        self._connection.sendall(f"{size_of(mbit_each, 1)} {round(1000 * every_s)}\n".encode())
        self._thread = threading.Thread(target=_quietly, args=(self._receive,), daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """It was neither broken nor without a byte for STALL_S."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _receive(self) -> None:
        buffer = bytearray(READ_BYTES)
        while self._connection.recv_into(buffer):
            pass


@contextlib.contextmanager
def streams(lab: Lab, count: int, mbit_each: float, *, every_s: float = SMOOTH_S) -> Iterator[list[Stream]]:
    """So many downloads at once, each at that rate by the server's own pacing: smooth, or a burst ``every_s`` as video is."""
    with lab.enter("server"):
        server = _PacingServer((ADDRESSES.server.v4, STREAM_PORT), _Pacing)
    with server, contextlib.ExitStack() as stack:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        stack.callback(server.shutdown)
        running = []
        for _ in range(count):
            running.append(Stream(lab, mbit_each, every_s))
            stack.callback(running[-1].stop)
        yield running


class Try(NamedTuple):
    """One new connection that asks for a small file."""

    started: float
    """time.monotonic()"""
    first_byte_s: float | None
    """From before the handshake; None when it failed."""
    error: str


def try_once(lab: Lab, *, timeout_s: float, address: str = ADDRESSES.server.v4) -> Try:
    """Never raises for what goes wrong with the connection."""
    started = time.monotonic()
    try:
        with connect(lab, "client1", address, HTTP_PORT, timeout_s=timeout_s) as connection:
            connection.settimeout(max(0.01, started + timeout_s - time.monotonic()))
            connection.sendall(f"GET /{SMALL_FILE} HTTP/1.0\r\n\r\n".encode())
            first = connection.recv(READ_BYTES)
            took_s = time.monotonic() - started
            if not first.startswith(b"HTTP/1.1 200"):
                return Try(started, None, f"the server answers {first[:20]!r}")
            return Try(started, took_s, "")
    except OSError as error:
        return Try(started, None, str(error) or type(error).__name__)


class NewConnections:
    """New connections, one every ``every_s``, each in a thread of its own, until the ``with`` block ends."""

    def __init__(self, lab: Lab, *, every_s: float, timeout_s: float) -> None:
        self._lab = lab
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._tries: list[Try] = []
        self._threads: list[threading.Thread] = []
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> NewConnections:
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._clock.join()
        for thread in self._threads:
            thread.join(2 * self._timeout_s)

    def tries(self) -> list[Try]:
        """Those that are over, by the time they started."""
        with self._lock:
            return sorted(self._tries)

    def _tick(self) -> None:
        while not self._ended.wait(self._every_s):
            thread = threading.Thread(target=self._one, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _one(self) -> None:
        done = try_once(self._lab, timeout_s=self._timeout_s)
        with self._lock:
            self._tries.append(done)


@contextlib.contextmanager
def endless_upload(lab: Lab) -> Iterator[None]:
    """One connection from client1 that sends as fast as it can."""
    ended = threading.Event()
    with sink(lab), connect(lab, "client1", ADDRESSES.server.v4, SINK_PORT) as connection:

        def send() -> None:
            block = bytes(READ_BYTES)
            connection.settimeout(UPLOAD_TICK_S)
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connection.send(block)

        thread = threading.Thread(target=_quietly, args=(send,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _quietly(work: Callable[[], None]) -> None:
    """A connection that breaks is seen by the one who counts them."""
    with contextlib.suppress(OSError):
        work()
