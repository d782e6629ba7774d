"""Keeps the daemon's private object on ubus, through restarts of ubusd, and tells events.

The object ``cpe-mcp.daemon`` has every method of the question socket. Each takes one argument, ``args``: a table of the
method's own arguments, and answers ``{"reply": {...}}`` or ``{"error": CODE, "text": ...}``. That one form works with both
implementations behind :mod:`.interface`. People and LuCI use the public object ``cpe-mcp`` of rpcd's plugin, which
forwards to here and takes arguments as one would write them.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import logging
import math
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cpe_mcp.bus import client
from cpe_mcp.bus.blob import ALIGN, TABLE
from cpe_mcp.bus.interface import DEFAULT_SOCKET, Bus, BusError, ObjectMethod
from cpe_mcp.bus.wire import MESSAGE_MAX_BYTES
from cpe_mcp.control.ask import ApiError

log = logging.getLogger(__name__)

OBJECT = "cpe-mcp.daemon"
RECONNECT_S = 1.0
"""After a connection was lost: ubusd comes back within a second or two, and the object within five."""
ABSENT_S = 30.0
"""Where ubusd never was: on a Debian machine it will not come."""
REFUSED_S = 5.0
"""When ubusd does not let us: another daemon has the name, or an access list is in the way."""
EVENTS_MAX = 64
"""Events that wait for the bus; more are dropped, the oldest first: nobody acts on old news."""

REFUSED, FAILED, TOO_LONG = "refused", "failed", "too-long"
"""Errors: the question was wrong, ``text`` says how; the daemon is at fault, its log has the details; the answer does not
fit a message."""
REPLY_MAX_BYTES = MESSAGE_MAX_BYTES - 4096
"""Ours; the rest is for the plugin's and ubusd's own words around it."""
FIELD_BYTES = 20
"""At most, of a field without its name's and text's letters: its word, the name's length and end, a number, padding."""

SOCKET_VARIABLE = "CPE_MCP_UBUS_SOCKET"
CLIENT_VARIABLE = "CPE_MCP_UBUS_CLIENT"
OWN, PYTHON_UBUS, NONE = "own", "python-ubus", "none"
"""For tests: where ubusd listens, and which client is used; without it python-ubus where that is installed, else our own."""

Connect = Callable[[str], Awaitable[Bus]]
Method = Callable[[Mapping[str, Any]], Awaitable[Any]]


class BusService:
    """``methods`` by name, as the question socket has them: they raise ApiError for a wrong question."""

    def __init__(
        self, methods: Mapping[str, Method], *, socket_path: str | None = None, connect: Connect | None = None
    ) -> None:
        self._methods = {
            name: ObjectMethod(functools.partial(self._answer, name, method), {"args": TABLE})
            for name, method in methods.items()
        }
        self._socket_path = socket_path or os.environ.get(SOCKET_VARIABLE, DEFAULT_SOCKET)
        self._connect = connect or choose_client()
        self._events: deque[tuple[str, dict[str, Any]]] = deque(maxlen=EVENTS_MAX)
        self._event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._said = ""
        self.on_connected: Callable[[Bus], Awaitable[None]] | None = None
        """Awaited with each new connection, for what else needs the bus. What it raises ends the connection."""

    def start(self) -> None:
        """Begin; never fails, and never waits."""
        if self._connect is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._connect))

    async def stop(self) -> None:
        """Leave the bus."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def send(self, event: str, data: Mapping[str, Any]) -> None:
        """Tell an event, if there is a bus to tell it on."""
        if self._task is not None:
            self._events.append((event, PlainCopy().of(data)))
            self._event.set()

    async def _run(self, connect: Connect) -> None:
        pause = ABSENT_S
        while True:
            try:
                bus = await connect(self._socket_path)
            except OSError as error:
                self._say_once(f"no ubus at {self._socket_path}: {str(error).strip()}")
                self._events.clear()
            else:
                pause = RECONNECT_S
                try:
                    await bus.add(OBJECT, self._methods)
                    self._said = ""
                    log.info("on ubus as %s", OBJECT)
                    if self.on_connected is not None:
                        await self.on_connected(bus)
                    await self._serve(bus)
                    self._say_once("ubus is gone; waiting for it")
                except BusError as error:
                    self._say_once(f"ubus: {error}; trying again every {REFUSED_S:.0f} s")
                    pause = REFUSED_S
                finally:
                    await bus.close()
            await asyncio.sleep(pause)

    async def _serve(self, bus: Bus) -> None:
        """Send events until the connection is lost."""
        lost = asyncio.get_running_loop().create_task(bus.wait_lost())
        lost.add_done_callback(lambda _: self._event.set())
        try:
            while not lost.done():
                await self._event.wait()
                self._event.clear()
                while self._events and not lost.done():
                    event, data = self._events.popleft()
                    try:
                        await bus.send(event, data)
                    except BusError as error:
                        log.debug("ubus: %s", error)
        finally:
            lost.cancel()

    def _say_once(self, line: str) -> None:
        if line != self._said:
            self._said = line
            log.info("%s", line)

    async def _answer(self, name: str, method: Method, args: Mapping[str, Any]) -> Mapping[str, Any]:
        inner = args.get("args") or {}
        copy = PlainCopy()
        try:
            if not isinstance(inner, Mapping):
                raise ApiError("args is a table")
            reply = copy.of(await method(inner))
        except ApiError as error:
            return {"error": REFUSED, "text": str(error)}
        except Exception:
            log.exception("method %s failed", name)
            return {"error": FAILED, "text": f"method {name} failed: a fault in the daemon, its log has the details"}
        if copy.size > REPLY_MAX_BYTES:
            return {
                "error": TOO_LONG,
                "text": f"the answer has {copy.size} bytes, ubus takes {REPLY_MAX_BYTES}: ask with a smaller limit",
            }
        return {"reply": reply}


class PlainCopy:
    """A value made of what both implementations carry alike: JSON's types, names that are text, no NaN, no zero bytes,
    whole UTF-8. ``size`` is what it takes in a message, in bytes, rounded up."""

    def __init__(self) -> None:
        self.size = 0

    def of(self, value: Any) -> Any:
        """The copy."""
        self.size += FIELD_BYTES
        if isinstance(value, str):
            data = value.replace("\0", "\ufffd").encode("utf-8", "replace")
            self.size += len(data)
            return data.decode()
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, Mapping):
            self.size += sum(len(str(name)) + ALIGN for name in value)
            return {str(name): self.of(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(inner) for inner in value]
        return value


def choose_client() -> Connect | None:
    """python-ubus where it is installed, else our own client; None: no ubus at all is wanted."""
    wanted = os.environ.get(CLIENT_VARIABLE, "")
    if wanted == NONE:
        return None
    spec = None if wanted == OWN else importlib.util.find_spec("ubus")
    if spec is None or spec.origin is None:  # not there, or just a folder of that name
        return client.connect
    return _connect_python_ubus


async def _connect_python_ubus(socket_path: str) -> Bus:
    from cpe_mcp.bus import python_ubus  # loads libubus: only where ubus is used

    try:
        return await python_ubus.connect(socket_path)
    except ImportError as error:
        log.debug("python-ubus is of no use (%s); the own client does it", error)
        return await client.connect(socket_path)
