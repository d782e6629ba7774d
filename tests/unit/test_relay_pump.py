"""The pump over real socket pairs: bytes, half-close, back-pressure, splice, broken ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from cpe_mcp.relay.loop import End
from cpe_mcp.relay.pump import (
    AGAIN,
    BLOCKED,
    BUFFER_BYTES,
    FINISHED,
    PIPE_BYTES,
    ROUNDS,
    SINK_BROKEN,
    SOURCE_BROKEN,
    Direction,
    Pipes,
    pump,
    read_once,
)

pytestmark = pytest.mark.unit


class Nobody:
    def on_events(self, end: End, mask: int) -> None:
        raise AssertionError("no loop here")

    def on_again(self) -> None:
        raise AssertionError("no loop here")

    def abandon(self) -> None:
        raise AssertionError("no loop here")


class Wire:
    """``left`` and ``right`` belong to the test; the direction goes from left's peer to right's peer."""

    def __init__(self) -> None:
        self.left, source = tcp_pair()
        sink, self.right = tcp_pair()
        self.sockets = [self.left, source, sink, self.right]
        self.source, self.sink = End(source, Nobody()), End(sink, Nobody())
        self.direction = Direction(self.source, self.sink)
        self.pipes = Pipes()
        self.edge()

    def edge(self, *, hangup: bool = False) -> None:
        """What epoll would say now: both ends may have news."""
        self.source.readable = self.sink.writable = True
        self.source.hangup = self.source.hangup or hangup

    def pump(self) -> int:
        self.edge()
        return pump(self.direction, self.pipes)

    def received(self) -> bytes:
        self.right.setblocking(False)
        data = bytearray()
        try:
            while piece := self.right.recv(1 << 20):
                data += piece
        except BlockingIOError:
            pass
        return bytes(data)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    other.setblocking(False)
    one.setblocking(False)
    return one, other


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    for sock in wire.sockets:
        sock.close()


def test_moves_bytes_and_waits(wire: Wire) -> None:
    wire.left.send(b"hello")
    assert wire.pump() == BLOCKED
    assert wire.received() == b"hello"
    assert wire.direction.moved == 5
    assert not wire.source.readable


def test_bytes_and_fin_in_one_edge_are_both_seen(wire: Wire) -> None:
    wire.left.send(b"last words")
    wire.left.shutdown(socket.SHUT_WR)
    wire.edge(hangup=True)
    assert pump(wire.direction, wire.pipes) == FINISHED
    assert wire.received() == b"last words"


def test_short_read_without_hangup_spends_no_second_call(wire: Wire) -> None:
    wire.left.send(b"x")
    assert wire.pump() == BLOCKED
    assert wire.source.readable is False


def test_nothing_is_read_while_the_sink_takes_nothing(wire: Wire) -> None:
    wire.left.send(b"held")
    wire.source.readable, wire.sink.writable = True, False
    assert pump(wire.direction, wire.pipes) == BLOCKED
    assert wire.direction.moved == 0


def send_until_full(sock: socket.socket) -> int:
    total = 0
    try:
        while True:
            total += sock.send(bytes(1 << 16))
    except BlockingIOError:
        return total


def test_back_pressure_holds_at_most_one_buffer_and_loses_nothing(wire: Wire) -> None:
    sent = 0
    outcome = AGAIN
    for _ in range(400):
        sent += send_until_full(wire.left)
        outcome = wire.pump()
        if outcome == BLOCKED and not wire.sink.writable:
            break
    assert not wire.sink.writable, "the sink never filled"
    assert len(wire.direction.rest) <= BUFFER_BYTES
    assert wire.direction.in_pipe <= PIPE_BYTES
    wire.left.shutdown(socket.SHUT_WR)
    got = 0
    for _ in range(10_000):
        got += len(wire.received())
        wire.edge(hangup=True)
        if pump(wire.direction, wire.pipes) == FINISHED:
            break
    got += len(wire.received())
    assert got == sent


def test_bulk_goes_through_a_pipe_that_is_given_back(wire: Wire) -> None:
    data = os.urandom(4 * BUFFER_BYTES)
    received = bytearray()
    offset, taken = 0, []
    take = wire.pipes.take
    wire.pipes.take = lambda: taken.append(take()) or taken[-1]  # type: ignore[method-assign, func-returns-value]
    while len(received) < len(data):
        if offset < len(data):
            try:
                offset += wire.left.send(data[offset:])
            except BlockingIOError:
                pass
        wire.pump()
        received += wire.received()
    assert bytes(received) == data
    assert taken, "two full buffers did not make it splice"
    wire.pump()
    assert wire.direction.pipe is None
    assert take() in taken, "the pipe was not given back"


def test_work_bound(wire: Wire) -> None:
    """A source that never runs dry gives the others their turn."""
    for sock in wire.sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    while True:
        for _ in range(20):
            send_until_full(wire.left)
        before = wire.direction.moved
        outcome = wire.pump()
        assert wire.direction.moved - before <= ROUNDS * PIPE_BYTES
        if outcome == AGAIN:
            break
        wire.received()


def test_reset_of_the_source(wire: Wire) -> None:
    wire.left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.left.close()
    assert wire.pump() == SOURCE_BROKEN


def test_reset_of_the_sink(wire: Wire) -> None:
    wire.right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.right.close()
    wire.left.send(b"too late")
    assert wire.pump() == SINK_BROKEN


def test_without_pipes_it_copies(wire: Wire) -> None:
    wire.pipes.usable = False
    wire.direction.full_reads = 2
    wire.left.send(b"copied")
    assert wire.pump() == BLOCKED
    assert wire.received() == b"copied"


def test_a_pipe_with_a_dead_flow_in_it_is_not_reused() -> None:
    pipes = Pipes()
    pipe = pipes.take()
    assert pipe is not None
    os.write(pipe[1], b"somebody's secret")
    pipes.give(pipe, empty=False)
    with pytest.raises(OSError):  # noqa: PT011
        os.fstat(pipe[0])
    clean = pipes.take()
    assert clean is not None
    pipes.give(clean, empty=True)
    assert pipes.take() == clean
    os.close(clean[0])
    os.close(clean[1])


def test_read_once(wire: Wire) -> None:
    assert read_once(wire.source) is None
    wire.left.send(b"abc")
    wire.edge()
    assert read_once(wire.source, 2) == b"ab"
    assert wire.source.readable, "a full read may have left something"
    assert read_once(wire.source, 2) == b"c"
    wire.left.shutdown(socket.SHUT_WR)
    assert read_once(wire.source) == b""
