"""This worker's share of the cap that RADIUS orders for the router's own subscriber.

What it takes is loaded with the first cap: most routers never have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpe_mcp.relay.loop import Loop
    from cpe_mcp.relay.relaying import Flow
    from cpe_mcp.relay.subscriber_caps import Caps, SubscriberCaps, Turn

OWN = ""
"""The subscriber's name in frames: there is just one."""


class OwnCap:
    """Holds back the proxied flows of one worker. Without a cap it costs nothing."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._all: SubscriberCaps | None = None
        self._caps: Caps | None = None

    def set(self, rates: Sequence[float], flows: Iterable[Flow]) -> None:
        """Bytes/s down and up, 0: no cap. One that came or went holds for ``flows``, those that run, too."""
        if self._all is None:
            if not any(rates):
                return
            from cpe_mcp.relay.subscriber_caps import SubscriberCaps

            self._all = SubscriberCaps(self._loop)
            self._caps = self._all.of(OWN)
        if not self._all.set(OWN, rates):
            return
        for flow in flows:
            if flow.relaying is None:
                continue
            turns = self.turns(flow)
            for direction, turn in zip((flow.relaying.down, flow.relaying.up), turns, strict=True):
                if direction.turn is not None:
                    direction.turn.leave()
                direction.turn = turn
            self._loop.again(flow)

    def turns(self, flow: Flow) -> tuple[Turn | None, Turn | None]:
        """Places of down and up; None: there is no cap that way, or the flow goes direct and is none of the concentrator's."""
        if self._all is None or self._caps is None or flow.action != "proxy":
            return None, None
        from cpe_mcp.relay.subscriber_caps import DOWN, UP

        return self._all.turn(self._caps, DOWN, flow), self._all.turn(self._caps, UP, flow)

    def demands(self) -> Mapping[str, list[Any]]:
        """For the control daemon, as a frame ``demand`` has it; empty while nothing was carried under a cap."""
        return self._all.demands() if self._all is not None else {}
