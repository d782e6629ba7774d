"""Tells on ubus what changed: looks after every change of the control's, at most a few times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cpe_mcp.bus.events import ACCEPTED, OFF, WAITING, ConcentratorView, PathView, View, differences
from cpe_mcp.policy.reasons import TEXTS
from cpe_mcp.upstream.control import Control

SETTLE_S = 0.2
"""Changes come in bursts, as when a line goes: one look for all of them. Short against what a person notices."""


class Radius(Protocol):
    """What this module needs of :class:`cpe_mcp.upstream.authenticator.Authenticator`."""

    def status(self) -> dict[str, Any]: ...


class Announcer:
    """``radius()`` gives today's authenticator, ``send(event, data)`` tells."""

    def __init__(
        self, control: Control, *, radius: Callable[[], Radius], send: Callable[[str, Mapping[str, Any]], None]
    ) -> None:
        self._control = control
        self._radius = radius
        self._send = send
        self._before: View | None = None
        self._timer: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Something may be another: look soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        after = self._view()
        if self._before is not None:
            for event, data in differences(self._before, after, TEXTS):
                self._send(event, data)
        self._before = after

    def _view(self) -> View:
        control, radius = self._control, self._radius().status()
        usable = {wan.name for wan in control.paths.wans()}
        paths = {
            row["name"]: PathView(row["name"] in usable, row["state"], row["reason"], row["quota"]["state"])
            for row in control.paths.report()
        }
        concentrators = {
            row["name"]: ConcentratorView(row["usable"], row["reason"])
            for row in control.concentrators()["concentrators"]
        }
        auth = OFF if not radius["enabled"] else ACCEPTED if radius["accepted"] else WAITING
        return View(paths, concentrators, auth, "" if radius["accepted"] else radius["reason"], control.refusals.shown)
