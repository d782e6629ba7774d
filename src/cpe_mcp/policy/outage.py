"""Whether it is the concentrator that is down, or only one WAN on the way to it. No IO, no clock.

Workers report each connection that a concentrator did not answer, with its WAN. One WAN's failures are the path
manager's business; failures over different WANs at the same time mean the concentrator, and until it is left alone every
new flow waits for it in vain.
"""

from __future__ import annotations

from collections.abc import Collection

WAN_FAILURES = 2
"""Different WANs that must have failed, or the only usable one."""
WINDOW_S = 15.0
"""How close together: two connect timeouts of 3 s and the second try of the same flow, with room."""
OUTAGE_S = 15.0
"""How long it is left alone then. The first flow after it finds out again, at a cost of one connect timeout per WAN."""


class Outages:
    """One for all concentrators, by name. ``now`` is in seconds of time.monotonic()."""

    def __init__(self) -> None:
        self._failed: dict[str, dict[str, float]] = {}

    def failed(self, concentrator: str, wan: str, usable_wans: Collection[str], now: float) -> bool:
        """No answer over this WAN. True: the concentrator is down; the count starts again then."""
        failed = self._failed.setdefault(concentrator, {})
        failed[wan] = now
        recent = [name for name, at in failed.items() if at > now - WINDOW_S and name in {*usable_wans, wan}]
        if len(recent) < min(WAN_FAILURES, max(1, len(usable_wans))):
            return False
        del self._failed[concentrator]
        return True

    def answered(self, concentrator: str) -> None:
        """It answered over some WAN, so it is not down."""
        self._failed.pop(concentrator, None)
