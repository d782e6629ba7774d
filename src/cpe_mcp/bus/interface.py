"""What the rest of the daemon sees of ubus, whichever implementation is behind it: the own :mod:`.client` or
:mod:`.python_ubus`. One contract test holds both to this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from cpe_mcp.bus.wire import Status

DEFAULT_SOCKET = "/var/run/ubus/ubus.sock"
"""Where ubusd listens on OpenWrt since 21.02."""
CALL_TIMEOUT_S = 10.0
"""For an answer to a call. A method that needs longer starts its work and is asked about it later."""

Handler = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]
"""Takes the arguments that came, gives the reply; runs in the event loop. What it raises is UNKNOWN_ERROR for the caller."""
EventHandler = Callable[[str, dict[str, Any]], None]
"""Takes the event's name and data; runs in the event loop."""


class ObjectMethod(NamedTuple):
    """A method of an object that is to be published."""

    handler: Handler
    signature: Mapping[str, int]
    """Argument -> type of :mod:`.blob`. python-ubus refuses calls with fewer, more or other arguments; the own client
    lets them through, and ``ubus -v list`` shows them with both."""


class BusError(Exception):
    """ubus said no."""

    def __init__(self, status: int, what: str) -> None:
        name = Status(status).name if status in Status.__members__.values() else str(status)
        super().__init__(f"{what}: {name}")
        self.status = status


class Bus(Protocol):
    """A connection to ubusd. Its ``connect(socket_path)`` raises OSError when nobody listens there."""

    async def add(self, name: str, methods: Mapping[str, ObjectMethod]) -> None:
        """Publish an object. Raises BusError, for instance when there is one of this name."""

    async def call(
        self, name: str, method: str, args: Mapping[str, Any], *, timeout_s: float = CALL_TIMEOUT_S
    ) -> dict[str, Any]:
        """Another object's reply; {} when it is empty. Raises BusError."""

    async def send(self, event: str, data: Mapping[str, Any]) -> None:
        """Send an event to everybody else who listens. Raises BusError."""

    async def listen(self, pattern: str, handler: EventHandler) -> None:
        """Hear events of this name, or that begin so when it ends in ``*``. Raises BusError."""

    async def subscribe(self, name: str, handler: EventHandler) -> None:
        """Hear what another object tells its subscribers; ends with that object. Raises BusError, for instance when there is
        none of this name."""

    async def wait_lost(self) -> None:
        """Returns when the connection is of no use any more."""

    async def close(self) -> None:
        """Leave the bus; what was published disappears."""
