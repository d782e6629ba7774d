"""The worker's end of the control channel: non-blocking, never fatal, reconnects by itself.

A worker must go on serving flows while no control daemon is there, so nothing here raises for a missing peer: frames that
cannot be sent are dropped, except flow records, which wait in a bounded queue.
"""

from __future__ import annotations

import collections
import errno
import socket
from typing import Any

from cpe_mcp.control.frames import MAX_FRAME_BYTES, FrameError, pull_frame, push_frame

RECONNECT_S = 0.5
"""Between two tries to reach the control daemon: a restart is noticed at once by a person's measure, and costs nothing."""
QUEUE_MAX = 256
"""Frames kept while the daemon is away or slow; the oldest go first."""


class WorkerEnd:
    """``fileno()`` changes with every reconnect: register again whenever :meth:`tick` returns True."""

    def __init__(self, path: str, hello: bytes) -> None:
        self._path = path
        self._hello = hello
        self._socket: socket.socket | None = None
        self._queue: collections.deque[bytes] = collections.deque(maxlen=QUEUE_MAX)
        self._next_try = 0.0

    def fileno(self) -> int:
        """The descriptor to watch for reading, -1 while not connected."""
        return self._socket.fileno() if self._socket is not None else -1

    def tick(self, now: float) -> bool:
        """Connect when it is time to. True: there is a new descriptor to watch."""
        if self._socket is not None:
            self._flush()
            return False
        if now < self._next_try:
            return False
        self._next_try = now + RECONNECT_S
        candidate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            candidate.connect(self._path)
            candidate.send(self._hello)
        except OSError:
            candidate.close()
            return False
        self._socket = candidate
        self._flush()
        return True

    def send(self, kind: str, payload: Any, *, keep: bool = False) -> None:
        """Send one frame. ``keep``: queue it when it cannot go now; otherwise it is dropped then."""
        frame = push_frame(kind, payload)
        if keep:
            self._queue.append(frame)
            self._flush()
        elif self._socket is not None and not self._queue:
            try:
                self._socket.send(frame)
            except BlockingIOError:
                pass
            except OSError:
                self.close()

    def receive(self) -> list[tuple[str, Any]]:
        """All frames that are readable now. An empty list and fileno() -1: the daemon has gone."""
        frames: list[tuple[str, Any]] = []
        while self._socket is not None:
            try:
                data = self._socket.recv(MAX_FRAME_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.close()
                break
            try:
                frames.append(pull_frame(data))
            except FrameError:
                continue  # a daemon of another version: what it says is not understood, and must not stop traffic
        return frames

    def close(self) -> None:
        """Drop the connection; closing removes the descriptor from any epoll set."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _flush(self) -> None:
        while self._queue and self._socket is not None:
            try:
                self._socket.send(self._queue[0])
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    self.close()
                return
            self._queue.popleft()
