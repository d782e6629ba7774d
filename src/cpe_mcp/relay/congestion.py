"""Which congestion control a Multipath TCP connection sends with, where the settings say ``auto``: the kernel's own, until
its lines turn out to lose packets that no queue explains; from there on one that does not take loss for a full line.

Why not one for all (Linux 6.18, figures in docs/manual/figures.md): cubic is 2 to 4 % faster over clean lines and fails over
0.15 to 0.25 s sooner, but over a line that loses 1 % it keeps a tenth of the rate, and drags the bundle along. bbr keeps the
rate. A change reaches all subflows of a running connection, later ones too.

:class:`LossWatch` judges and is pure; :class:`CongestionKeeper` asks the kernel and changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from cpe_mcp.relay.sockets import set_congestion_control
from cpe_mcp.relay.subflow_info import SubflowInfo, subflows_of

if TYPE_CHECKING:
    from cpe_mcp.relay.sockets import Socket

LOOK_S = 0.5
"""Between two looks at the connections that send."""
LOOK_BYTES = 64 * 1024
"""Sent since the last look (1 Mbit/s): who sends less has no use for another congestion control, and a look costs 25 us."""
LOOKS_MAX = 64
"""Connections looked at in one go, about 1.6 ms; the others come next time."""
SEGMENTS_MIN = 100
"""Of one subflow in all looks that count: fewer say nothing about the share that was lost."""
LOSS_SHARE = 0.003
"""Of the segments sent. What cubic loses by filling a queue is a tenth of it at 100 Mbit/s, and comes with a queue."""
QUEUE_SHARE, QUEUE_MIN_MS = 0.3, 6.0
"""A round trip longer than the smallest by this share, and by this much, has a queue in it: that explains losses."""
LOOKS = 12
"""Looks that count, the last 6 s: a line that loses 1 % has few segments under way, and not in each half second loses one."""
STRIKES = 3
"""Of these, looks that found losses: what slow start loses when it ends is over in two."""
LOSSY_S = 300.0
"""Connections that begin where one was changed begin changed, for so long."""
LOSSY_MAX = 4096
"""Places remembered; the oldest goes first."""


Key = tuple[str, int, str, int]


class LossWatch:
    """One connection's subflows, look by look."""

    __slots__ = ("_looks", "_seen")

    def __init__(self) -> None:
        self._seen: dict[Key, SubflowInfo] = {}
        self._looks: dict[Key, list[tuple[int, int]]] = {}
        """Segments sent, and lost without a queue."""

    def is_losing(self, subflows: Sequence[SubflowInfo]) -> bool:
        """Whether a subflow has lost its share of segments without a queue, in several of the last looks."""
        looks: dict[Key, list[tuple[int, int]]] = {}
        for subflow in subflows:
            key, before = subflow[:4], self._seen.get(subflow[:4])
            rows = looks[key] = self._looks.get(key, [])[1 - LOOKS :]
            if before is not None:
                lost = 0 if _has_queue(subflow) else subflow.retransmits - before.retransmits
                rows.append((subflow.segments_out - before.segments_out, lost))
        self._seen = {subflow[:4]: subflow for subflow in subflows}
        self._looks = looks
        return any(_is_lossy(rows) for rows in looks.values())


def _is_lossy(looks: Sequence[tuple[int, int]]) -> bool:
    sent, lost = sum(row[0] for row in looks), sum(row[1] for row in looks)
    return sent >= SEGMENTS_MIN and lost >= LOSS_SHARE * sent and sum(row[1] > 0 for row in looks) >= STRIKES


def _has_queue(subflow: SubflowInfo) -> bool:
    return subflow.rtt_ms - subflow.min_rtt_ms > max(QUEUE_SHARE * subflow.min_rtt_ms, QUEUE_MIN_MS)


class Sender(Protocol):
    """A flow, as far as its Multipath TCP connection sends."""

    id: int
    is_robust: bool
    """It has the congestion control for lossy lines."""

    def sending(self) -> tuple[Socket | None, int]:
        """The connection, None while there is nothing to watch, and the bytes given to it so far."""

    def sends_from(self) -> str:
        """Where it begins: connections of the same place share lines."""


class CongestionKeeper:
    """One per worker."""

    def __init__(self) -> None:
        self._robust = ""
        self._watches: dict[int, tuple[int, LossWatch]] = {}
        """Flow -> bytes it had sent at the last look, and its watch."""
        self._lossy: dict[str, float] = {}
        """Place -> until when it counts as lossy."""
        self._next_look = 0.0
        self._turn = 0
        """Where to go on when there are more than LOOKS_MAX."""
        self.changed = 0
        """Connections that were changed, or began so, since start."""

    def configure(self, robust: str) -> None:
        """``robust``: the congestion control for lossy lines; "": none is changed."""
        self._robust = robust
        if not robust:
            self._watches.clear()
            self._lossy.clear()

    def begins(self, now: float, sender: Sender) -> None:
        """Its connection is about to send."""
        if self._lossy.get(sender.sends_from(), 0.0) > now:
            self._change(sender)

    def look(self, now: float, senders: Iterable[Sender]) -> None:
        """Call often; looks when it is time."""
        if not self._robust or now < self._next_look:
            return
        self._next_look = now + LOOK_S
        before, self._watches = self._watches, {}
        worth: list[tuple[Sender, Socket, int, LossWatch]] = []
        for sender in senders:
            sock, sent = sender.sending() if not sender.is_robust else (None, 0)
            if sock is None:
                continue
            last, watch = before.get(sender.id) or (0, LossWatch())
            if sent - last >= LOOK_BYTES:
                worth.append((sender, sock, sent, watch))
            if sender.id in before:
                self._watches[sender.id] = last, watch
        first = self._turn % len(worth) if len(worth) > LOOKS_MAX else 0
        self._turn = first + LOOKS_MAX
        for sender, sock, sent, watch in (worth[first:] + worth[:first])[:LOOKS_MAX]:
            self._watches[sender.id] = sent, watch
            if watch.is_losing(subflows_of(sock)):
                self._change(sender)
                self._remember(sender.sends_from(), now + LOSSY_S)

    def _change(self, sender: Sender) -> None:
        sock, _ = sender.sending()
        sender.is_robust = True
        self._watches.pop(sender.id, None)
        if sock is not None and set_congestion_control(sock, self._robust):
            self.changed += 1

    def _remember(self, place: str, until: float) -> None:
        self._lossy.pop(place, None)
        self._lossy[place] = until
        if len(self._lossy) > LOSSY_MAX:
            del self._lossy[next(iter(self._lossy))]
