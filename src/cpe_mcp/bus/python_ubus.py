"""python-ubus 0.1.3 (``import ubus``, OpenWrt's python3-ubus) behind :class:`.interface.Bus`.

The module has one connection per process, answers a call only from within its callback, and crashes when two threads are
in it. So one thread of ours does everything with it: it sleeps on the module's socket and on a wake-up descriptor, lets
the module serve what is readable, and publishes in between. A callback waits there for the event loop's answer; the event
loop never waits for it. The module does not notice that ubusd is gone, but its socket does.

While the module itself waits for ubusd, all of Python does (seen with ``send`` and a ubusd that was stopped), and a reply
that is not UTF-8 makes it use freed memory. So objects are its business, and calls and events go over a connection of the
own client.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import logging
import os
import select
import signal
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from cpe_mcp.bus import client
from cpe_mcp.bus.interface import CALL_TIMEOUT_S, DEFAULT_SOCKET, BusError, EventHandler, ObjectMethod
from cpe_mcp.bus.wire import Status

log = logging.getLogger(__name__)

SERVE_NOW_MS = 0
"""Argument of ``loop``: serve what is readable, and return."""
LOST = select.POLLHUP | select.POLLERR | select.POLLNVAL


class PythonUbus:
    """See :class:`.interface.Bus`; made by :func:`connect`."""

    def __init__(self, module: ModuleType, socket_path: str, own: client.OwnBus) -> None:
        self._module = module
        self._own = own
        self._socket_path = socket_path
        self._loop = asyncio.get_running_loop()
        self._lost = asyncio.Event()
        self._closing = False
        self._commands: deque[tuple[Callable[[], Any], concurrent.futures.Future[Any]]] = deque()
        self._lock = threading.Lock()
        """Over the commands and whether more are taken."""
        self._ended = False
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    async def start(self) -> None:
        """Connect. Raises OSError when nobody listens there."""
        _keep_exit_codes()
        threading.Thread(target=self._run, name="ubus", daemon=True).start()
        await asyncio.shield(asyncio.wrap_future(self._opened))

    async def add(self, name: str, methods: Mapping[str, ObjectMethod]) -> None:
        """Publish an object. Raises BusError."""
        rows = {
            key: {"method": self._callback(method), "signature": dict(method.signature)}
            for key, method in methods.items()
        }
        await self._do(lambda: self._module.add(name, rows), f"publishing {name}")

    async def call(
        self, name: str, method: str, args: Mapping[str, Any], *, timeout_s: float = CALL_TIMEOUT_S
    ) -> dict[str, Any]:
        """Another object's reply. Raises BusError."""
        return await self._own.call(name, method, args, timeout_s=timeout_s)

    async def send(self, event: str, data: Mapping[str, Any]) -> None:
        """Send an event. Raises BusError."""
        await self._own.send(event, data)

    async def listen(self, pattern: str, handler: EventHandler) -> None:
        """Hear events. Raises BusError."""
        await self._own.listen(pattern, handler)

    async def subscribe(self, name: str, handler: EventHandler) -> None:
        """Hear what another object tells its subscribers. Raises BusError."""
        await self._own.subscribe(name, handler)

    async def wait_lost(self) -> None:
        """Returns when ubusd is gone."""
        either = [self._loop.create_task(wait()) for wait in (self._lost.wait, self._own.wait_lost)]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in either:
                task.cancel()

    async def close(self) -> None:
        """Leave the bus."""
        self._closing = True
        self._wake_up()
        await self._own.close()
        await asyncio.shield(asyncio.wrap_future(self._done))
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    async def _do(self, command: Callable[[], Any], what: str) -> Any:
        """Have the thread run it. Raises BusError."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if self._ended:
                raise BusError(Status.CONNECTION_FAILED, what)
            self._commands.append((command, future))
        self._wake_up()
        try:
            return await asyncio.wrap_future(future)
        except RuntimeError as error:  # what the module makes of every status
            status = Status.INVALID_ARGUMENT if "Invalid argument" in str(error) else Status.UNKNOWN_ERROR
            raise BusError(status, f"{what}: {str(error).strip()}") from None

    def _wake_up(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _callback(self, method: ObjectMethod) -> Callable[[Any, dict[str, Any]], None]:
        def called(responder: Any, args: dict[str, Any]) -> None:
            future = asyncio.run_coroutine_threadsafe(_awaited(method, args), self._loop)
            try:
                responder.reply(dict(future.result(CALL_TIMEOUT_S)))
            except BaseException as error:  # the caller gets UNKNOWN_ERROR
                future.cancel()
                log.error("a method on ubus failed: %r", error)
                raise

        return called

    # The thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            before = _connections(self._socket_path)
            self._module.connect(self._socket_path)
            descriptor = next(iter(_connections(self._socket_path) - before), None)
            if descriptor is None:
                raise OSError(f"no connection to {self._socket_path} among this process's descriptors")
            self._opened.set_result(None)
            self._serve(descriptor)
        except BaseException as error:
            if self._opened.done():
                log.exception("the ubus thread ends")
            else:
                self._opened.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
        if self._module.get_connected():
            self._module.disconnect()
        self._end()

    def _serve(self, descriptor: int) -> None:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while not self._closing:
            for ready, events in poller.poll():
                if ready == self._wake:
                    os.eventfd_read(self._wake)
                    self._run_commands()
                    self._module.loop(SERVE_NOW_MS)  # what came while a command waited for its answer
                else:
                    self._module.loop(SERVE_NOW_MS)
                    if events & LOST:
                        return

    def _run_commands(self) -> None:
        while self._commands:
            command, future = self._commands.popleft()
            try:
                future.set_result(command())
            except BaseException as error:
                future.set_exception(error)

    def _end(self) -> None:
        with self._lock:
            self._ended = True
        for _, future in self._commands:
            future.set_exception(RuntimeError("the connection is gone"))
        self._done.set_result(None)
        try:
            self._loop.call_soon_threadsafe(self._lost.set)
        except RuntimeError:
            pass  # the loop is closed: nobody waits


async def connect(socket_path: str = DEFAULT_SOCKET) -> PythonUbus:
    """A connection to ubusd through the module. Raises OSError when nobody listens there, ImportError without it."""
    own = await client.connect(socket_path)  # also because the module would wait for ever for a ubusd that hangs
    try:
        bus = PythonUbus(importlib.import_module("ubus"), socket_path, own)
    except ImportError:
        await own.close()
        raise
    try:
        await bus.start()
    except BaseException:
        await bus.close()
        raise
    return bus


async def _awaited(method: ObjectMethod, args: dict[str, Any]) -> Mapping[str, Any]:
    return await method.handler(args)


def _connections(path: str) -> set[int]:
    """Descriptors of connections to a socket of this name: the module does not tell its own."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                with socket.socket(fileno=os.dup(int(name))) as candidate:
                    peer = candidate.getpeername() if candidate.family == socket.AF_UNIX else ""
                    if isinstance(peer, str) and os.path.basename(peer) == os.path.basename(path):
                        found.add(int(name))
        except OSError:
            continue  # the listing's own descriptor, or a socket that is not connected
    return found


def _keep_exit_codes() -> None:
    """Where nobody has a handler for SIGCHLD the module installs one, and a loop of it that waits takes the exit codes of
    our children."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, _ignore)


def _ignore(number: int, frame: object) -> None:
    pass
