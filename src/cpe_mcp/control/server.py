"""The control daemon's end of the channel to its workers: asyncio, any number of workers, none of them trusted to be alive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from cpe_mcp.control.frames import HELLO, MAX_FRAME_BYTES, FrameError, pull_frame, push_frame

log = logging.getLogger(__name__)

SOCKET_MODE = 0o600
"""Only the daemon's own user may pretend to be a worker: frames carry cookies."""


class Worker:
    """One connected relay worker."""

    def __init__(self, server: ControlServer, connection: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self.index = -1
        self.pid = 0
        self.port = 0
        """Where it takes connections; 0 when it did not say."""
        self.counters: dict[str, int] = {}
        """Last ``counters`` frame."""

    def send(self, kind: str, payload: Any) -> None:
        """Send one frame. A worker that does not read any more is dropped: it will come back."""
        try:
            self._connection.send(push_frame(kind, payload))
        except OSError as error:
            log.warning("relay worker %d (pid %d) does not take frames: %s", self.index, self.pid, error.strerror)
            self._server.drop(self)

    def fileno(self) -> int:
        return self._connection.fileno()

    def receive(self) -> bytes:
        return self._connection.recv(MAX_FRAME_BYTES)

    def close(self) -> None:
        self._connection.close()


class ControlServer:
    """Listens at ``path``; calls ``on_hello(worker)`` for each worker and ``on_frame(worker, kind, payload)`` for the rest."""

    def __init__(
        self,
        path: str,
        *,
        on_hello: Callable[[Worker], None],
        on_frame: Callable[[Worker, str, Any], None],
        on_gone: Callable[[Worker], None] = lambda worker: None,
    ) -> None:
        self._path = path
        self._on_hello = on_hello
        self._on_frame = on_frame
        self._on_gone = on_gone
        self._listener: socket.socket | None = None
        self.workers: set[Worker] = set()

    def start(self) -> None:
        """Bind and serve on the running event loop. Raises OSError when the socket cannot be made."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        listener.bind(self._path)
        os.chmod(self._path, SOCKET_MODE)
        listener.listen(64)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    def broadcast(self, kind: str, payload: Any) -> None:
        """One frame to every worker that has said hello."""
        for worker in [worker for worker in self.workers if worker.pid]:
            worker.send(kind, payload)

    def drop(self, worker: Worker) -> None:
        """Forget a worker and close its connection."""
        if worker not in self.workers:
            return
        self.workers.discard(worker)
        asyncio.get_running_loop().remove_reader(worker.fileno())
        worker.close()
        self._on_gone(worker)

    def close(self) -> None:
        """Stop serving and remove the socket."""
        for worker in list(self.workers):
            self.drop(worker)
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        worker = Worker(self, connection)
        self.workers.add(worker)
        asyncio.get_running_loop().add_reader(connection.fileno(), self._readable, worker)

    def _readable(self, worker: Worker) -> None:
        while worker in self.workers:
            try:
                data = worker.receive()
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.drop(worker)
                return
            try:
                kind, payload = pull_frame(data)
            except FrameError as error:
                log.warning("relay worker %d sent %s", worker.index, error)
                continue
            if kind == HELLO:
                worker.index, worker.pid = int(payload["index"]), int(payload["pid"])
                worker.port = int(payload.get("port", 0))
                self._on_hello(worker)
            else:
                self._on_frame(worker, kind, payload)
