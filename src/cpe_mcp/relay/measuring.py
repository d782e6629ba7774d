"""The concentrator's end of a speed test: discard (RFC 863) and character generator (RFC 864), served by the worker itself.

No server is connected to, and a test costs no memory beyond its socket's buffers. It takes its turn like any other flow:
a bounded number of system calls, then the others.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cpe_mcp.policy.reasons import Reason
from cpe_mcp.policy.speed import CHARGEN_PORT
from cpe_mcp.relay.flow import MEASURING
from cpe_mcp.relay.pump import ROUNDS

if TYPE_CHECKING:
    from cpe_mcp.relay.loop import End
    from cpe_mcp.relay.relaying import Flow
    from cpe_mcp.relay.subscriber_caps import Turn

BLOCK_BYTES = 64 * 1024
"""As much as the pump moves with one call."""
PER_SUBSCRIBER = 2
"""Speed tests of one subscriber at a time in one worker: one is what a router runs, the other is one it has just left."""

_block = memoryview(os.urandom(BLOCK_BYTES))
"""What is sent, again and again. Random, so that nothing on the way that compresses makes the line look faster."""
_waste = bytearray(BLOCK_BYTES)


class Measuring:
    """One test; owner of its flow's accepted end from :meth:`start` on."""

    __slots__ = ("_end", "_flow", "_reply", "is_sending", "moved", "turn")

    def __init__(self, flow: Flow, port: int, reply: bytes, moved: int) -> None:
        """``reply`` goes first; ``moved``: bytes of the peer that were read already."""
        self._flow = flow
        self._end = flow.near
        self._reply = reply
        self.is_sending = port == CHARGEN_PORT
        self.moved = moved
        """Bytes sent, or thrown away."""
        self.turn: Turn | None = None
        """Its place under the subscriber's cap: a test shows what the subscriber gets."""

    def carried(self) -> tuple[int, int]:
        """Bytes up and down."""
        return (0, self.moved) if self.is_sending else (self.moved, 0)

    def start(self) -> None:
        """Take the end over."""
        self._end.owner = self
        self.on_again()

    def on_events(self, end: End, mask: int) -> None:
        """An edge."""
        self.on_again()

    def abandon(self) -> None:
        """See :class:`cpe_mcp.relay.loop.Owner`."""
        self._flow.abandon()

    def on_again(self) -> None:
        """A turn's share of work. The peer ends a test by closing, usually with a reset: what is under way has no use."""
        flow, end = self._flow, self._end
        if flow.state != MEASURING:
            return
        try:
            if self._reply and end.writable:
                self._reply = self._reply[end.sock.send(self._reply) :]
            if not self._reply and (self._send() if self.is_sending else self._discard()):
                flow.close(Reason.CLOSED)
        except BlockingIOError:
            end.writable = False
        except OSError:
            flow.close(Reason.CLOSED, reset=True)

    def _send(self) -> bool:
        """True: the peer has closed. Raises OSError."""
        end = self._end
        if end.hangup:
            return True
        for _ in range(ROUNDS):
            if not end.writable:
                return False
            block, turn = _block, self.turn
            if turn is not None:
                allowed = turn.allowance()
                if not allowed:
                    return False
                block = _block[:allowed]
            sent = end.sock.send(block)
            self.moved += sent
            if turn is not None:
                turn.spend(sent)
        self._flow.worker.loop.again(self)
        return False

    def _discard(self) -> bool:
        """True: the peer has closed. Raises OSError."""
        end = self._end
        for _ in range(ROUNDS):
            if not end.readable:
                return False
            size, turn = BLOCK_BYTES, self.turn
            if turn is not None:
                size = min(size, turn.allowance())
                if not size:
                    return False
            try:
                count = end.sock.recv_into(_waste, size)
            except BlockingIOError:
                end.readable = False
                return False
            if not count:
                return True
            self.moved += count
            if turn is not None:
                turn.spend(count)
        self._flow.worker.loop.again(self)
        return False
