"""Loads that last while something else is looked at: paced downloads, and a stream of new connections."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cpe_mcp.lab.configs import PACED_PATH, SMALL_FILE
from cpe_mcp.lab.measure import size_of
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import ADDRESSES
from cpe_mcp.lab.scenarios.transfer import HTTP_PORT, READ_BYTES, SINK_PORT, Content, Download, connect, sink

UPLOAD_TICK_S = 0.2
"""How often an upload looks whether it shall end."""


@contextlib.contextmanager
def paced_downloads(lab: Lab, content: Content, count: int, mbit_each: float) -> Iterator[list[Download]]:
    """So many downloads at once, each not faster than that by the server's own pacing, as video streams are."""
    path = f"{PACED_PATH}{content.path.name}?rate={size_of(mbit_each, 1)}"
    running = [Download(lab, content.size, path=path) for _ in range(count)]
    try:
        yield running
    finally:
        for download in running:
            download.stop()


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
