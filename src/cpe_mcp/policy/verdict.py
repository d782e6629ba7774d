"""What holds a running connection back, in one reason: the ``verdict`` of ``cpe-mcp flows``. Pure.

The router sees both ends of its own pump, so it knows which side it waits for. For uploads the rest is plain: our own kernel
knows what it may send. For downloads the sender is the concentrator, and what it has to send is read from its segments:
behind a full send buffer they are all whole, while a server that delivers slowly leaves parts of one, because the
concentrator passes on what it has at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cpe_mcp.policy.decide import PROXY
from cpe_mcp.policy.reasons import TEXTS, Reason

SHORT_S = 2.0
"""A connection younger than this has not had time to fill a line; the slower ones join after paths.busy_s of load."""
QUIET_MBIT = 0.05
"""Below this nobody waits for a line."""
FULL_SHARE = 0.85
"""Of a WAN's known or learnt rate; headers and the averages over some seconds take the rest."""
CPU_SHARE = 0.9
"""Of one core, from which a relay worker is at its limit."""
BUSY_SHARE = 0.5
"""Of the time in which something had to be sent to the LAN device, or was stopped by its window."""
LOSSY_SHARE = 0.01
"""Segments sent again, or out of order, from which a line counts as lossy: below, congestion control shrugs."""
WHOLE_SHARE = 0.985
"""Of full segments, from which the sender always had more to send (measured: 0.99 and more behind a full line, 0.5 to 0.97
from a server that delivers slowly)."""
CLIENT, CONCENTRATOR = "client", "concentrator"
"""The end that a direction waits for."""


class Path(NamedTuple):
    """One subflow in the last seconds."""

    wan: str
    mbit: float
    """In the direction that is judged."""
    fill: float
    """See the module; 0 where too little came."""
    odd_share: float
    """Segments that were sent again (upload), or came out of order (download)."""
    is_idle: bool
    """Nothing of ours is under way on it."""
    load: float
    """Rate of the WAN, all traffic, as a share of what fits into it; 0 where that is not known."""
    is_known: bool
    """That share is of a rate the settings give, not of one that was learnt from traffic."""


class Evidence(NamedTuple):
    """What is known of one flow. The direction that is judged is the one that moves more, or that is stuck."""

    action: str
    reason: str
    fallback: str
    first_wan: str
    age_s: float
    is_download: bool
    mbit: float
    waits: str
    """Of that direction: CLIENT, CONCENTRATOR, or "" while it moves."""
    lan_busy: float
    """Share of the time in which something had to be sent to the LAN device."""
    lan_window: float
    """Share of that in which its receive window was full."""
    worker_busy: float
    cap_share: float
    """What all WANs carry in that direction, as a share of what the concentrator grants this subscriber; 0: no cap, or not
    known."""
    paths: tuple[Path, ...]
    """Subflows that are not in backup."""

    def is_backlogged(self) -> bool:
        """Whether the sender of a download had always more to send."""
        weight = sum(path.mbit for path in self.paths if path.fill)
        return weight > 0 and sum(path.mbit * path.fill for path in self.paths) >= WHOLE_SHARE * weight

    def full(self) -> tuple[str, ...]:
        """WANs that carry what fits into them."""
        return tuple(dict.fromkeys(path.wan for path in self.paths if path.load >= FULL_SHARE and path.mbit > 0))

    def known_full(self) -> tuple[str, ...]:
        """Those of them whose rate the settings give."""
        return tuple(name for name in self.full() if any(path.is_known for path in self.paths if path.wan == name))

    def lossy(self) -> tuple[str, ...]:
        """WANs that lose or reorder."""
        return tuple(dict.fromkeys(path.wan for path in self.paths if path.odd_share >= LOSSY_SHARE))

    def used(self) -> tuple[str, ...]:
        """WANs that carry something of it, the most first."""
        return tuple(
            dict.fromkeys(path.wan for path in sorted(self.paths, key=lambda path: -path.mbit) if path.mbit > 0)
        )


class Row(NamedTuple):
    """One row of the table: the first whose ``holds`` is true gives the verdict."""

    reason: str
    """"" means: the flow's own reason, or that of its fallback."""
    holds: Callable[[Evidence], Any]
    wans: Callable[[Evidence], tuple[str, ...]] = lambda evidence: ()


def _is_stopped_by_lan(evidence: Evidence) -> bool:
    return evidence.is_download and evidence.waits == CLIENT and evidence.lan_busy >= BUSY_SHARE


def _is_window_closed(evidence: Evidence) -> bool:
    """Our send buffer is full and nothing of it is under way: the peer's receive window is closed."""
    return bool(
        not evidence.is_download
        and evidence.waits == CONCENTRATOR
        and evidence.paths
        and all(path.is_idle for path in evidence.paths)
    )


def _has_more(evidence: Evidence) -> bool:
    """The sender has more than the lines take."""
    return evidence.is_backlogged() if evidence.is_download else evidence.waits != CLIENT


TABLE: tuple[Row, ...] = (
    Row("", lambda e: e.action != PROXY),
    Row("", lambda e: e.fallback, lambda e: (e.first_wan,)),
    Row(Reason.WORKER_BUSY, lambda e: e.worker_busy >= CPU_SHARE and e.mbit >= QUIET_MBIT),
    Row(Reason.CLIENT_FULL, lambda e: _is_stopped_by_lan(e) and e.lan_window >= BUSY_SHARE),
    Row(Reason.LAN_FULL, _is_stopped_by_lan),
    Row(Reason.SERVER_FULL, _is_window_closed),
    Row(Reason.FLOW_QUIET, lambda e: e.mbit < QUIET_MBIT),
    Row(Reason.CONCENTRATOR_CAP, lambda e: e.cap_share >= FULL_SHARE),
    Row(Reason.CLIENT_SLOW, lambda e: not e.is_download and e.waits == CLIENT),
    Row(Reason.WAN_FULL, lambda e: e.known_full(), Evidence.known_full),
    Row(Reason.WAN_FULL, lambda e: _has_more(e) and e.full(), Evidence.full),
    Row(Reason.STILL_STARTING, lambda e: e.age_s < SHORT_S),
    Row(Reason.WAN_LOSSY, lambda e: _has_more(e) and e.lossy(), Evidence.lossy),
    Row(Reason.WAN_SLOWER, _has_more, Evidence.used),
    Row(Reason.SERVER_SLOW, lambda e: True),
)


class Verdict(NamedTuple):
    """The answer."""

    reason: str
    wans: tuple[str, ...]
    """Those that the reason is about; empty where it is about none."""

    def text(self) -> str:
        """For people."""
        text = TEXTS.get(self.reason, self.reason)
        return f"{', '.join(self.wans)}: {text}" if self.wans else text


def judge(evidence: Evidence) -> Verdict:
    """The first row of the table that holds."""
    row = next(row for row in TABLE if row.holds(evidence))
    reason = row.reason or (evidence.fallback if evidence.action == PROXY else evidence.reason)
    return Verdict(reason, tuple(filter(None, row.wans(evidence))))


def evidence_of(
    flow: Mapping[str, Any],
    wans: Mapping[str, Mapping[str, Any]],
    *,
    known_mbit: Mapping[str, tuple[float, float]],
    cap_mbit: tuple[float, float] = (0.0, 0.0),
) -> Evidence:
    """From a row of ``flows`` and the rows of ``paths`` by name. ``known_mbit``: the rates in the settings, ``(down, up)``
    by WAN, 0 for unknown; ``cap_mbit``: the same of the concentrator's cap."""
    down_mbit, up_mbit = flow.get("down_mbit", 0.0), flow.get("up_mbit", 0.0)
    waits_down, waits_up = flow.get("waits_down", ""), flow.get("waits_up", "")
    is_download = down_mbit >= up_mbit
    if max(down_mbit, up_mbit) < QUIET_MBIT:  # a direction that is stuck counts, not the one that has nothing to do
        is_download = waits_down == CLIENT or waits_up != CONCENTRATOR
    way, other = ("down", 0) if is_download else ("up", 1)
    lan = flow.get("lan") or {}
    return Evidence(
        action=flow["action"],
        reason=flow["reason"],
        fallback=flow["fallback"],
        first_wan=flow["wan"],
        age_s=flow["duration_s"],
        is_download=is_download,
        mbit=down_mbit if is_download else up_mbit,
        waits=waits_down if is_download else waits_up,
        lan_busy=lan.get("busy", 0.0),
        lan_window=lan.get("rwnd_limited", 0.0),
        worker_busy=flow.get("worker_busy", 0.0),
        cap_share=sum(row[f"{way}_mbit"] for row in wans.values()) / cap_mbit[other] if cap_mbit[other] else 0.0,
        paths=tuple(
            Path(
                wan=subflow["wan"],
                mbit=subflow[f"{way}_mbit"],
                fill=subflow["fill"],
                odd_share=subflow["reordered_share" if is_download else "resent_share"],
                is_idle=subflow["unacked"] == 0,
                load=load(wans.get(subflow["wan"], {}), way),
                is_known=known_mbit.get(subflow["wan"], (0.0, 0.0))[other] > 0,
            )
            for subflow in flow["subflows"]
            if not subflow["backup"]
        ),
    )


def load(wan: Mapping[str, Any], way: str) -> float:
    """Rate of a row of ``paths`` as a share of what is known to fit, ``way`` being ``down`` or ``up``; 0 while nothing is."""
    capacity = float(wan.get(f"capacity_{way}_mbit", 0.0))
    return float(wan[f"{way}_mbit"]) / capacity if capacity > 0 else 0.0
