"""Hears on ubus what netifd does with its interfaces. Where there is no netifd, nothing is heard, and nobody misses it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from cpe_mcp.bus.interface import Bus, BusError
from cpe_mcp.paths.interfaces import ADDED_EVENT, OBJECT, InterfaceView, pull_dump, pull_interface

log = logging.getLogger(__name__)


class NetifdWatch:
    """``on_change`` is told all interfaces by name, each time something happens to one; {} when nobody says any more."""

    def __init__(self, on_change: Callable[[Mapping[str, InterfaceView]], None]) -> None:
        self._on_change = on_change
        self._views: dict[str, InterfaceView] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bus: Bus | None = None

    async def attach(self, bus: Bus) -> None:
        """Listen on this new connection, and forget the one before. Raises BusError when the bus is lost already."""
        self._bus = bus
        await bus.listen(OBJECT, self._event)
        await bus.listen(ADDED_EVENT, self._appeared)
        await self._follow()

    def close(self) -> None:
        """Hear no more."""
        self._bus = None
        for task in list(self._tasks):
            task.cancel()

    async def _follow(self) -> None:
        """Subscribe to netifd as it is now, and ask for everything."""
        if self._bus is None:
            return
        try:
            await self._bus.subscribe(OBJECT, self._updated)
            await self._ask()
        except BusError as error:
            log.debug("netifd: %s", error)
            self._tell({})

    async def _ask(self) -> None:
        if self._bus is None:
            return
        try:
            self._tell(pull_dump(await self._bus.call(OBJECT, "dump", {})))
        except BusError as error:
            log.debug("netifd: %s", error)

    def _event(self, name: str, data: Mapping[str, Any]) -> None:
        """ifup, ifdown. What has changed is asked for; that something has is passed on at once."""
        view = self._views.get(str(data.get("interface")))
        if view is not None and data.get("action") == "ifdown":
            self._tell({**self._views, view.name: view._replace(is_up=False, device="")})
        self._start(self._ask())

    def _updated(self, name: str, data: Mapping[str, Any]) -> None:
        view = pull_interface(data)
        if view is not None:
            self._tell({**self._views, view.name: view})

    def _appeared(self, name: str, data: Mapping[str, Any]) -> None:
        if data.get("path") == OBJECT:  # netifd was restarted
            self._start(self._follow())

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, views: dict[str, InterfaceView]) -> None:
        if views != self._views:
            self._views = views
            self._on_change(views)
