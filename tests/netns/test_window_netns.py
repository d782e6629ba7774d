"""The receive window of a flow that moves much, on real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from relay_world import inside, run

from cpe_mcp.kernel.numbers import IPPROTO_MPTCP
from cpe_mcp.relay.loop import End
from cpe_mcp.relay.pump import WIDEN_BYTES, Direction, Pipes, pump
from cpe_mcp.relay.sockets import BULK_WINDOW_BYTES, Socket, connect_concentrator, listen_mptcp, widen_window

pytestmark = pytest.mark.netns

RMEM = "4096 131072 16777216"
SO_RCVLOWAT = 18
PORT = 5124


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"window-{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        # The kernel's own tuning is off: on loopback it is quick enough now and then to be there before us.
        settings = (f"net.ipv4.tcp_rmem={RMEM}", "net.ipv4.tcp_moderate_rcvbuf=0")
        run("ip", "netns", "exec", name, "sysctl", "-qw", *settings)
        yield name
    finally:
        run("ip", "netns", "delete", name)


def pair(namespace: str, *, mptcp: bool) -> tuple[socket.socket, Socket]:
    """A sender and the receiver it is connected with."""
    with inside(namespace):
        listener = listen_mptcp("::", PORT, "")
        if mptcp:
            receiver = connect_concentrator("127.0.0.1", PORT, device="", source="", congestion_control="")
        else:
            receiver = Socket(socket.AF_INET, socket.SOCK_STREAM)
            receiver.connect(("127.0.0.1", PORT))
    listener.setblocking(True)
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    listener.close()
    return socket.socket(fileno=descriptor), receiver


def buffer_of(sock: Socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_an_mptcp_window_is_widened_and_the_low_water_mark_put_back(namespace: str) -> None:
    sender, receiver = pair(namespace, mptcp=True)
    with sender:
        assert buffer_of(receiver) < BULK_WINDOW_BYTES
        widen_window(receiver)
        assert buffer_of(receiver) >= BULK_WINDOW_BYTES
        assert receiver.getsockopt(socket.SOL_SOCKET, SO_RCVLOWAT) == 1
        receiver.close()


def test_plain_tcp_is_left_to_the_kernel(namespace: str) -> None:
    sender, receiver = pair(namespace, mptcp=False)
    with sender:
        before = buffer_of(receiver)
        widen_window(receiver)
        assert buffer_of(receiver) == before
        receiver.close()


def test_the_pump_widens_it_once_a_flow_has_moved_much(namespace: str) -> None:
    sender, receiver = pair(namespace, mptcp=True)
    near, far = socket.socketpair()
    with sender, near, far:
        assert receiver.proto == IPPROTO_MPTCP
        receiver.setblocking(False)
        source, sink = End(receiver, None), End(near, None)  # type: ignore[arg-type]
        direction, pipes = Direction(source, sink), Pipes()
        sink.writable = True
        moved_before = -1
        while direction.moved < WIDEN_BYTES:
            assert buffer_of(receiver) < BULK_WINDOW_BYTES, f"already after {direction.moved} bytes"
            sender.send(bytes(8192))
            source.readable = True
            pump(direction, pipes)
            far.recv(1 << 20)
            assert direction.moved > moved_before
            moved_before = direction.moved
        pump(direction, pipes)
        assert buffer_of(receiver) >= BULK_WINDOW_BYTES
        receiver.close()
