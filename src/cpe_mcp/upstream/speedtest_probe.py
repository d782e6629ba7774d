"""One run of the speed test, as a process of its own: it blocks, and it may use a core that nothing else needs.

``python -m cpe_mcp.upstream.speedtest_probe`` reads one order from standard input (:class:`Order` as a JSON object: the cookie
is a secret, and a command line is not) and prints JSON lines: ``{"elapsed_s": s, "bytes": n}`` ten times a second, and at
last ``{"error": text, "mptcp": true/false/null}``, text being "" when nothing went wrong.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys
import termios
import time
from typing import NamedTuple

from cpe_mcp.convert import Client, ConvertError, ErrorCode, Established
from cpe_mcp.kernel.numbers import IPPROTO_MPTCP
from cpe_mcp.policy.speed import DOWN, PORTS, RUN_S, refusal_text
from cpe_mcp.relay.sockets import RESET_ON_CLOSE, SO_BINDTODEVICE, TCP_CONGESTION, TCP_IS_MPTCP, mapped, pack16

SAMPLE_S = 0.1
BLOCK_BYTES = 256 * 1024
REPLY_BYTES = 4096


class Order(NamedTuple):
    """What to measure."""

    direction: str
    """DOWN or UP of :mod:`cpe_mcp.policy.speed`."""
    address: str
    """Of the concentrator."""
    port: int
    cookie: str
    """Convert Cookie in hexadecimal, "" for none."""
    device: str
    """The first subflow's; of plain TCP, the only one's."""
    source: str
    mptcp: bool
    congestion_control: str
    timeout_s: float
    """For the handshake, and for the reply."""


class ProbeError(Exception):
    """One line that says why there is nothing to measure."""


def connect(order: Order) -> socket.socket:
    """A connection to the concentrator. Raises OSError."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP if order.mptcp else 0)
    try:
        sock.settimeout(order.timeout_s)
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, order.device.encode())
        # What is still queued at the end of a run would be in the way of the next one.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        if order.congestion_control:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, order.congestion_control.encode())
        if order.source:
            sock.bind((mapped(order.source), 0))
        sock.connect((mapped(order.address), order.port))
    except OSError:
        sock.close()
        raise
    return sock


def request(sock: socket.socket, order: Order) -> int:
    """Ask for the test. Returns how many of its bytes came with the reply. Raises ProbeError, OSError."""
    convert = Client(bytes.fromhex(order.cookie))
    family = socket.AF_INET6 if ":" in order.address else socket.AF_INET
    sock.sendall(convert.connect(pack16(family, order.address), PORTS[order.direction]))
    while True:
        data = sock.recv(REPLY_BYTES)
        if not data:
            raise ProbeError("the concentrator closed the connection instead of answering")
        try:
            answer = convert.receive_data(data)
        except ConvertError as error:
            raise ProbeError(f"the concentrator's answer was not Convert: {error}") from None
        if isinstance(answer, Established):
            return len(answer.trailing)
        if answer is not None:
            if answer.error.code == ErrorCode.MISSING_COOKIE:
                print(json.dumps({"wanted": answer.error.value[1:].hex()}), flush=True)
            raise ProbeError(refusal_text(int(answer.error.code)))


def download(sock: socket.socket, received: int) -> None:
    """Read for RUN_S and tell how much. Raises OSError."""
    buffer = bytearray(BLOCK_BYTES)
    started = time.monotonic()
    tell(0.0, received)
    told = 0.0
    sock.settimeout(SAMPLE_S)
    while told < RUN_S:
        try:
            count = sock.recv_into(buffer)
            if not count:
                raise ConnectionResetError
            received += count
        except TimeoutError:
            pass
        elapsed_s = time.monotonic() - started
        if elapsed_s >= told + SAMPLE_S:
            told = elapsed_s
            tell(told, received)


def upload(sock: socket.socket) -> None:
    """Send for RUN_S and tell how much was acknowledged. Raises OSError."""
    block = memoryview(os.urandom(BLOCK_BYTES))
    sent = 0
    started = time.monotonic()
    tell(0.0, 0)
    told = 0.0
    sock.settimeout(SAMPLE_S)
    while told < RUN_S:
        try:
            sent += sock.send(block)
        except TimeoutError:
            pass
        elapsed_s = time.monotonic() - started
        if elapsed_s >= told + SAMPLE_S:
            told = elapsed_s
            tell(told, sent - unacknowledged(sock))


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that were sent off and not acknowledged (SIOCOUTQ; on MPTCP since Linux 5.17)."""
    try:
        (count,) = struct.unpack("=i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return 0
    return int(count)


def is_mptcp(sock: socket.socket) -> bool | None:
    """Whether it is Multipath TCP now; None where the kernel cannot tell (before 6.10)."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, TCP_IS_MPTCP) == 1
    except OSError:
        return None


def tell(elapsed_s: float, count: int) -> None:
    """One line of progress."""
    print(json.dumps({"elapsed_s": round(elapsed_s, 4), "bytes": count}), flush=True)


def measure(order: Order) -> tuple[str, bool | None]:
    """``(error, mptcp)``: the last line."""
    try:
        sock = connect(order)
    except TimeoutError:
        return "the concentrator did not answer", None
    except OSError as error:
        return f"no connection to the concentrator: {error.strerror or error}", None
    with sock:
        try:
            received = request(sock, order)
            if order.direction == DOWN:
                download(sock, received)
            else:
                upload(sock)
        except ProbeError as error:
            return str(error), None
        except TimeoutError:
            return "the concentrator did not answer in time", None
        except OSError as error:
            return f"the connection broke: {error.strerror or 'it was closed'}", None
        return "", is_mptcp(sock)


def main() -> int:
    """One order, one run."""
    order = Order(**json.loads(sys.stdin.read()))
    try:
        error, mptcp = measure(order)
        print(json.dumps({"error": error, "mptcp": mptcp}), flush=True)
    except (BrokenPipeError, KeyboardInterrupt):
        # Who asked has gone. Python must not write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
