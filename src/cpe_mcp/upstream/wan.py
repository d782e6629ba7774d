"""One managed WAN: its settings, and what the control daemon knows of it."""

from __future__ import annotations

from typing import Any

from cpe_mcp.paths.health import RECEIVING_MBIT, UP, WanHealth, shown
from cpe_mcp.paths.observed import DeviceView
from cpe_mcp.paths.rates import QueueMeter, RateMeter
from cpe_mcp.paths.scheme import LAST_RESORT, NORMAL, RESERVE, Line
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.policy.quota import OVER, SOFT, WITHIN
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings.router import WanSettings

STRIPPED_LAST = 100_000
"""Added to the preference of a WAN that strips Multipath TCP: a connection that begins there has only this WAN."""
RTT_STEP_MS = 5.0
"""Steps in which the workers are told round trips."""
QUIET_S = 0.5
"""What is sent after nothing was sent for so long is first traffic."""
PROBED_S = 1.0
"""For so long after a probe of ours what is sent is its end, and the line is being asked anyway."""
QUOTA_TIERS = {WITHIN: NORMAL, SOFT: RESERVE, OVER: LAST_RESORT}


class Wan:
    """One managed WAN."""

    def __init__(self, settings: WanSettings, health: WanHealth, meter: RateMeter) -> None:
        self.settings = settings
        self.health = health
        self.meter = meter
        self.queue = QueueMeter()
        self.view: DeviceView | None = None
        self.received = 0
        self.sent = 0
        self.subflows = 0
        """Established ones at the last look; a connection that fell back to TCP counts as one."""
        self._counted_from: tuple[int, int] | None = None
        self._sent_at = float("-inf")
        self.repairs = 0
        """Times that lost subflows were made anew."""
        self.probe_target = 0
        """Place of the concentrator that answered last."""
        self.is_accused = False
        """A worker had no answer over it: it or the concentrator is dead, and the first probe shall tell which."""
        self.complaint = ""
        """What was last said to be wrong with it."""
        self.quota = WITHIN

    @property
    def name(self) -> str:
        """UCI section name."""
        return self.settings.name

    @property
    def device(self) -> str:
        """Its network device."""
        return self.settings.device

    def tier(self) -> int:
        """The later one of what its role and its quota say."""
        return max(RESERVE if self.settings.role == "backup" else NORMAL, QUOTA_TIERS[self.quota])

    def shown(self) -> tuple[str, str, str]:
        """State, reason and detail for people."""
        state, reason, detail = shown(self.health, is_out_of_quota=self.quota == OVER)
        if state == UP and self.quota == SOFT:
            return state, Reason.WAN_QUOTA_SOFT, ""
        return state, reason, detail

    def line(self, *, comes_last: bool) -> Line:
        """As the schemes see it. ``comes_last``: connections shall begin on others."""
        settings = self.settings
        return Line(
            name=settings.name,
            tier=self.tier(),
            preference=settings.preference + STRIPPED_LAST * comes_last,
            rtt_s=self.health.base_rtt_s,
            is_metered=settings.is_metered(),
            meter=self.meter,
            has_queue=self.queue.has_queue(self.health.base_rtt_s),
        )

    def count(self, now: float, received: int, sent: int) -> bool:
        """The device's counters; they begin anew when the device is made anew.

        Whether the first bytes after a while were sent, and not by a probe.
        """
        before, sent_before = self._counted_from, self.sent
        if before is not None and received >= before[0] and sent >= before[1]:
            self.received += received - before[0]
            self.sent += sent - before[1]
        self._counted_from = received, sent
        self.meter.observe(now, self.received, self.sent)
        self.health.is_receiving = self.meter.rate.down >= RECEIVING_MBIT
        if self.sent == sent_before:
            return False
        quiet_s, self._sent_at = now - self._sent_at, now
        return quiet_s >= QUIET_S and now - self.health.last_probe >= PROBED_S

    def worker_view(self) -> WanView | None:
        """As the relay workers see it; None while it has no addresses."""
        view = self.view
        if view is None:
            return None
        return WanView(
            self.name,
            view.name,
            view.address4 if view.gateway4 is not None else "",
            view.address6 if view.gateway6 is not None else "",
            rounded_rtt_ms(self.health.base_rtt_s),
        )

    def row(self, now: float) -> dict[str, Any]:
        """For people."""
        view, health, meter = self.view, self.health, self.meter
        state, reason, detail = self.shown()
        loss = health.quality.loss()
        return {
            "name": self.name,
            "device": self.device,
            "state": state,
            "reason": reason,
            "detail": detail,
            "held_s": round(health.held_s(now), 1),
            "loss_percent": None if loss is None else round(100 * loss, 1),
            "since_s": round(now - health.since, 1),
            "rtt_ms": round(health.rtt_s * 1000, 1),
            "down_mbit": round(meter.rate.down, 2),
            "up_mbit": round(meter.rate.up, 2),
            "capacity_down_mbit": round(meter.capacity().down, 1),
            "capacity_up_mbit": round(meter.capacity().up, 1),
            "subflows": self.subflows,
            "repairs": self.repairs,
            "metered": self.settings.is_metered(),
            "address4": view.address4 if view else "",
            "address6": view.address6 if view else "",
            "networks": list(view.networks) if view else [],
        }


def rounded_rtt_ms(rtt_s: float) -> float:
    """For the snapshot, which must not be another one with every probe; 0 while nothing is known."""
    return max(1.0, round(rtt_s * 1000 / RTT_STEP_MS)) * RTT_STEP_MS if rtt_s < float("inf") else 0.0
