"""Moves the bytes of one direction from socket to socket, without a buffer per connection.

A direction starts with recv into one shared buffer, since most flows are short and a pipe costs six system calls. After
two full buffers in a row it splices through a pooled pipe, and goes back when the source runs dry. Bytes are held here only
while the sink takes none: at most one buffer or one pipe, and nothing more is read meanwhile.
"""

from __future__ import annotations

import os
from fcntl import fcntl
from typing import TYPE_CHECKING

from cpe_mcp.relay.loop import End
from cpe_mcp.relay.sockets import widen_window

if TYPE_CHECKING:
    from cpe_mcp.relay.subscriber_caps import Turn

BUFFER_BYTES = 64 * 1024
"""Shared by all directions of a worker. A larger one falls out of the cache, a smaller one doubles the calls (measured)."""
PIPE_BYTES = 256 * 1024
"""Capacity of a pooled pipe: twice the kernel's usual 64 KiB steps were still slower, 1 MiB is the unprivileged limit."""
FULL_READS = 2
"""Full buffers in a row after which a direction is bulk."""
ROUNDS = 16
"""Work bound per direction and turn: 16 pipes are 4 MiB, about 2 ms, so that no flow keeps the others waiting longer."""
PIPES_KEPT = 64
"""Idle pipes kept for reuse; their pages are empty, two descriptors each."""
WIDEN_BYTES = 512 * 1024
"""After so much from one source its receive window is widened: the whole of the window that tcp_rmem's default of 1 MiB gives,
so the sender may be waiting for it by now. See :func:`cpe_mcp.relay.sockets.widen_window`."""
F_SETPIPE_SZ = 1031
SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

BLOCKED = 0
"""Waits for an edge."""
AGAIN = 1
"""The work bound was hit."""
FINISHED = 2
"""The source's FIN was read and every byte before it is with the sink's kernel."""
SOURCE_BROKEN = 3
SINK_BROKEN = 4

_BUFFER = bytearray(BUFFER_BYTES)
_VIEW = memoryview(_BUFFER)

Pipe = tuple[int, int]


class Pipes:
    """Free list of pipes."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self.usable = True
        """False once the kernel refused to splice; copying goes on."""

    def take(self) -> Pipe | None:
        """A pipe, empty; None when no descriptors are left or splicing is refused."""
        if self._free:
            return self._free.pop()
        if not self.usable:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl(pipe[1], F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # over the user's pipe page limit: a smaller pipe works too
        return pipe

    def give(self, pipe: Pipe, *, empty: bool) -> None:
        """Back into the list, or closed when bytes of a dead flow are in it."""
        if empty and len(self._free) < PIPES_KEPT:
            self._free.append(pipe)
        else:
            os.close(pipe[0])
            os.close(pipe[1])


class Direction:
    """One way of a flow."""

    __slots__ = (
        "eof",
        "finished",
        "full_reads",
        "in_pipe",
        "moved",
        "pipe",
        "rest",
        "sink",
        "source",
        "turn",
        "widen_at",
    )

    def __init__(self, source: End, sink: End) -> None:
        self.source = source
        self.sink = sink
        self.rest = b""
        """Read, not yet taken by the sink."""
        self.pipe: Pipe | None = None
        self.in_pipe = 0
        self.full_reads = 0
        self.eof = False
        self.finished = False
        self.moved = 0
        """Bytes read from the source."""
        self.turn: Turn | None = None
        """Its place under a cap; None: it reads what there is."""
        self.widen_at = WIDEN_BYTES
        """``moved`` at which the source's receive window is widened; -1: that is done."""

    def release(self, pipes: Pipes) -> None:
        """Give the pipe back."""
        if self.pipe is not None:
            pipes.give(self.pipe, empty=self.in_pipe == 0)
            self.pipe = None
            self.in_pipe = 0


def waits_for(direction: Direction) -> End | None:
    """The end that must do something before this direction goes on; None while it goes on, or when it is over."""
    if direction.finished:
        return None
    if not direction.sink.writable:
        return direction.sink
    return None if direction.source.readable else direction.source


def pump(direction: Direction, pipes: Pipes) -> int:
    """Move what can be moved now. Returns one of the outcomes above; after a broken one the direction is of no more use."""
    source, sink = direction.source, direction.sink
    if 0 <= direction.widen_at <= direction.moved:
        direction.widen_at = -1
        widen_window(source.sock)
    for _ in range(ROUNDS):
        if not sink.writable:
            return BLOCKED
        if direction.rest:
            try:
                sent = sink.sock.send(direction.rest)
            except BlockingIOError:
                sink.writable = False
                return BLOCKED
            except OSError:
                return SINK_BROKEN
            direction.rest = direction.rest[sent:]
        elif direction.in_pipe:
            assert direction.pipe is not None
            try:
                direction.in_pipe -= os.splice(direction.pipe[0], sink.fd, direction.in_pipe, flags=SPLICE_FLAGS)
            except BlockingIOError:
                sink.writable = False
                return BLOCKED
            except OSError:
                return SINK_BROKEN
        elif direction.eof:
            direction.release(pipes)
            return FINISHED
        elif not source.readable:
            return BLOCKED
        elif direction.turn is not None:
            outcome = _copy_allowed(direction, direction.turn)
            if outcome is not None:
                return outcome
        elif direction.full_reads >= FULL_READS:
            outcome = _fill_pipe(direction, pipes)
            if outcome is not None:
                return outcome
        else:
            outcome = _copy(direction)
            if outcome is not None:
                return outcome
    return AGAIN


def _copy_allowed(direction: Direction, turn: Turn) -> int | None:
    """:func:`_copy` under a cap. What may not be read stays readable: the edge that told of it does not come again."""
    allowed = turn.allowance()
    if not allowed:
        return BLOCKED
    before = direction.moved
    outcome = _copy(direction, min(allowed, BUFFER_BYTES))
    turn.spend(direction.moved - before)
    return outcome


def _copy(direction: Direction, size: int = BUFFER_BYTES) -> int | None:
    """One read of up to ``size`` bytes into the shared buffer and one write. None: go on."""
    source, sink = direction.source, direction.sink
    try:
        count = source.sock.recv_into(_BUFFER, size)
    except BlockingIOError:
        source.readable = False
        direction.full_reads = 0
        return BLOCKED
    except OSError:
        return SOURCE_BROKEN
    if not count:
        direction.eof = True
        return None
    direction.moved += count
    if count == size:
        direction.full_reads += 1
    else:
        direction.full_reads = 0
        # A FIN may have come with the same edge as these bytes, and no other edge will tell of it.
        source.readable = source.hangup
    try:
        sent = sink.sock.send(_VIEW[:count])
    except BlockingIOError:
        sent = 0
    except OSError:
        return SINK_BROKEN
    if sent < count:
        direction.rest = bytes(_VIEW[sent:count])
    return None


def _fill_pipe(direction: Direction, pipes: Pipes) -> int | None:
    """Splice from the source into an empty pipe. None: go on. The pipe being empty, EAGAIN means the source is dry."""
    if direction.pipe is None:
        direction.pipe = pipes.take()
        if direction.pipe is None:
            direction.full_reads = 0
            return None
    try:
        count = os.splice(direction.source.fd, direction.pipe[1], PIPE_BYTES, flags=SPLICE_FLAGS)
    except BlockingIOError:
        direction.source.readable = False
        direction.full_reads = 0
        direction.release(pipes)
        return BLOCKED
    except OSError as error:
        if error.errno == 22:  # EINVAL: this kernel does not splice such sockets; copying does the same work
            pipes.usable = False
            direction.full_reads = 0
            direction.release(pipes)
            return None
        return SOURCE_BROKEN
    if count:
        direction.in_pipe = count
        direction.moved += count
    else:
        direction.eof = True
    return None


def read_once(end: End, limit: int = BUFFER_BYTES) -> bytes | None:
    """One read, copied out: for the few bytes before relaying begins. None: nothing there; b"": FIN. Raises OSError."""
    try:
        count = end.sock.recv_into(_VIEW[:limit])
    except BlockingIOError:
        end.readable = False
        return None
    if count < limit:
        end.readable = end.hangup
    return bytes(_VIEW[:count])
