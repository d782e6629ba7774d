"""What the two kinds of flow have in common: two ends, two directions between them, one record when it is over."""

from __future__ import annotations

import _socket
from typing import TYPE_CHECKING, Any

from cpe_mcp.policy.reasons import Reason
from cpe_mcp.relay.flow import CLOSED, Table, step
from cpe_mcp.relay.loop import End, Loop
from cpe_mcp.relay.pump import AGAIN, BLOCKED, FINISHED, SOURCE_BROKEN, Direction, Pipes, pump, waits_for
from cpe_mcp.relay.records import FlowRecord, matches
from cpe_mcp.relay.sockets import congestion_control, reset_on_close

if TYPE_CHECKING:
    from cpe_mcp.relay.sockets import Socket
    from cpe_mcp.relay.subscriber_caps import Turn
    from cpe_mcp.relay.worker import Worker

NEAR = "near"
"""The end that was accepted broke."""
FAR = "far"
"""The end that was opened broke."""
DONE = "done"
"""Both FINs went through."""


class Relaying:
    """Two directions between the accepted (near) and the opened (far) end."""

    __slots__ = ("_loop", "_pipes", "down", "up")

    def __init__(self, loop: Loop, pipes: Pipes, near: End, far: End) -> None:
        self._loop = loop
        self._pipes = pipes
        self.up = Direction(near, far)
        self.down = Direction(far, near)

    def move(self, owner: Flow) -> str | None:
        """Pump both ways. Returns DONE, or which end broke, or None: call again on the next edge."""
        up, down = self.up, self.down
        again = False
        for direction in (up, down):
            if direction.finished:
                continue
            outcome = pump(direction, self._pipes)
            if outcome == BLOCKED:
                continue
            if outcome == AGAIN:
                again = True
            elif outcome == FINISHED:
                direction.finished = True
                if up.finished and down.finished:
                    return DONE  # close sends the FIN itself
                owner.on_half_closed()
                try:
                    direction.sink.sock.shutdown(_socket.SHUT_WR)
                except OSError:
                    return FAR if direction is up else NEAR
            else:
                return NEAR if (outcome == SOURCE_BROKEN) is (direction is up) else FAR
        if again:
            self._loop.again(owner)
        return None

    def waits(self) -> tuple[str, str]:
        """``(up, down)``: the end that each direction waits for now, NEAR or FAR; "" while it moves or when it has ended."""
        up, down = waits_for(self.up), waits_for(self.down)
        return (
            "" if up is None else NEAR if up is self.up.source else FAR,
            "" if down is None else NEAR if down is self.down.sink else FAR,
        )

    def release(self) -> None:
        """Give the pipes back and leave the line; the flow is over."""
        for direction in (self.up, self.down):
            direction.release(self._pipes)
            if direction.turn is not None:
                direction.turn.leave()
                direction.turn = None


class Flow:
    """One accepted connection and the one opened for it. Subclasses bring the states before RELAYING."""

    __slots__ = (
        "accepted",
        "action",
        "client",
        "deadline",
        "far",
        "first_byte",
        "id",
        "is_robust",
        "near",
        "pooled",
        "reason",
        "relaying",
        "server",
        "server_family",
        "state",
        "table",
        "worker",
    )

    def __init__(self, worker: Worker, table: Table, state: str, sock: Socket, client: tuple[str, int]) -> None:
        self.worker = worker
        self.table = table
        self.state = state
        self.id = worker.next_id()
        self.client = client
        self.server: tuple[str, int] = ("", 0)
        self.server_family = _socket.AF_INET
        self.accepted = worker.loop.now
        self.first_byte = -1.0
        self.deadline = 0.0
        """When :meth:`on_deadline` is due, as long as the flow is in ``worker.unsettled``."""
        self.action = ""
        """What the record says; "" until something was decided."""
        self.reason = ""
        self.pooled = False
        self.is_robust = False
        """Its Multipath TCP connection has the congestion control for lossy lines."""
        self.near = End(sock, self)
        self.near.readable = self.near.writable = True  # worth a try before the first edge
        self.far: End | None = None
        self.relaying: Relaying | None = None
        worker.live[self.id] = self
        worker.unsettled.add(self)

    def on_events(self, end: End, mask: int) -> None:
        """An edge; ``end`` holds what it said."""
        raise NotImplementedError

    def on_deadline(self) -> None:
        """The state has lasted too long."""
        raise NotImplementedError

    def on_again(self) -> None:
        """Move bytes."""
        relaying = self.relaying
        if relaying is None:
            return
        outcome = relaying.move(self)
        if self.first_byte < 0 and relaying.down.moved:
            self.first_byte = self.worker.loop.now
        if outcome is None:
            return
        if outcome == DONE:
            self.close(Reason.CLOSED)
        else:
            self.close(self.end_reason(outcome), reset=True)

    def abandon(self) -> None:
        """See :class:`cpe_mcp.relay.loop.Owner`: end it as any other, and where even that fails forget it."""
        worker = self.worker
        try:
            if self.state != CLOSED:
                self.close(Reason.INTERNAL_ERROR, reset=True)
                return
        except Exception:
            worker.broke(None)
        self.state = CLOSED
        worker.unsettled.discard(self)
        worker.live.pop(self.id, None)
        relaying, self.relaying = self.relaying, None
        for side in (self.near, self.far):
            if side is not None:
                worker.loop.close(side)
        if relaying is not None:
            relaying.release()

    def on_half_closed(self) -> None:
        """One direction has ended; soon the kernel may forget what it knows of the subflows."""

    def end_reason(self, broken: str) -> str:
        """Why the flow ended when NEAR or FAR broke."""
        raise NotImplementedError

    def peer_names(self) -> tuple[str, str]:
        """``(concentrator, wan)`` for the record."""
        raise NotImplementedError

    def sending(self) -> tuple[Socket | None, int]:
        """See :class:`cpe_mcp.relay.congestion.Sender`."""
        raise NotImplementedError

    def sends_from(self) -> str:
        """See :class:`cpe_mcp.relay.congestion.Sender`."""
        raise NotImplementedError

    def relay(
        self,
        up: bytes,
        down: bytes,
        *,
        moved_up: int,
        moved_down: int,
        turns: tuple[Turn | None, Turn | None] = (None, None),
    ) -> None:
        """Begin to relay. ``up`` and ``down`` were read already and go first; ``moved_*`` counts all that was read so far;
        ``turns``: the places of down and up under a cap."""
        assert self.far is not None
        self.worker.unsettled.discard(self)
        self.relaying = Relaying(self.worker.loop, self.worker.pipes, self.near, self.far)
        self.relaying.up.rest = up
        self.relaying.up.moved = moved_up
        self.relaying.down.rest = down
        self.relaying.down.moved = moved_down
        self.relaying.down.turn, self.relaying.up.turn = turns
        self.worker.congestion.begins(self.worker.loop.now, self)
        self.on_again()

    def is_reset(self) -> bool:
        """Whether the client has sent RST (a mere FIN is read by the pump, in its place)."""
        return self.near.hangup and self.near.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR) != 0

    def drop_far(self) -> None:
        """Reset and forget the opened end."""
        if self.far is not None:
            reset_on_close(self.far.sock)
            self.worker.loop.close(self.far)
            self.far = None

    def close(self, end: str, *, reset: bool = False) -> None:
        """The flow is over; ``reset`` both ends, or let the kernel send what it holds and then FIN."""
        self.state = step(self.table, self.state, "close")
        worker = self.worker
        if self.relaying is not None:
            self.relaying.release()
        for side in (self.near, self.far):
            if side is not None:
                if reset:
                    reset_on_close(side.sock)
                worker.loop.close(side)
        worker.unsettled.discard(self)
        worker.live.pop(self.id, None)
        worker.ended(self.record(end))
        self.relaying = None

    def stop(self) -> None:
        """The worker ends: reset both sides, since a FIN would pass a cut transfer off as a complete one."""
        self.close(Reason.WORKER_STOPPED, reset=True)

    def matches(self, text: str) -> bool:
        """Whether ``text`` is part of client, server, concentrator or subscriber, WAN, or action."""
        ends = (f"{self.client[0]}:{self.client[1]}", f"{self.server[0]}:{self.server[1]}")
        return matches(text, (*ends, *self.peer_names(), self.action))

    def describe(self) -> dict[str, Any]:
        """The live flow, as the answer to ``list`` carries it."""
        sock, _ = self.sending()
        return {
            **self.record("")._asdict(),
            "congestion_control": congestion_control(sock) if sock is not None else "",
        }

    def record(self, end: str) -> FlowRecord:
        """The flow as a record; ``end`` is "" while it lives."""
        relaying, now = self.relaying, self.worker.loop.now
        concentrator, wan = self.peer_names()
        return FlowRecord(
            id=self.id,
            started=round(self.accepted + self.worker.unix_offset, 3),
            client=self.client[0],
            client_port=self.client[1],
            server=self.server[0],
            server_port=self.server[1],
            family=6 if self.server_family == _socket.AF_INET6 else 4,
            concentrator=concentrator,
            wan=wan,
            action=self.action,
            reason=self.reason,
            pooled=self.pooled,
            first_byte_ms=round((self.first_byte - self.accepted) * 1000, 1) if self.first_byte >= 0 else -1.0,
            bytes_up=relaying.up.moved if relaying is not None else 0,
            bytes_down=relaying.down.moved if relaying is not None else 0,
            duration_s=round(now - self.accepted, 3),
            end=end,
        )
