"""Does Multipath TCP get through over one WAN? One connection to the concentrator over it, on which it is asked what it can
do (Convert Info TLV), and two looks at what the kernel has made of it: after the handshake, and after the first data, with
which a fallback may still come (RFC 8684 section 3.7).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time

from cpe_mcp.aaa.presenter import Presenter, heard
from cpe_mcp.convert import Client, ConvertError, Refused
from cpe_mcp.kernel.numbers import IPPROTO_MPTCP, SOL_MPTCP
from cpe_mcp.kernel.probe import RESET_ON_CLOSE
from cpe_mcp.policy.handshakes import NEGOTIATED, UNANSWERED
from cpe_mcp.policy.reasons import Reason

TCP_INFO, TCP_INFO_TOTAL_RETRANS = 11, 100
MPTCP_INFO = 1
"""Linux 5.16; older kernels cannot tell."""
SYNS_WITH_MPTCP = 2
"""Retransmitted SYNs that still ask for it (net.mptcp.syn_retrans_before_tcp_fallback, 2 where it is not there)."""
CONNECT_S = 15.0
"""Three SYNs with the option and one without it: 1 + 2 + 4 s."""
REPLY_S = 5.0
REPLY_BYTES = 1024


async def look(*, device: str, source: str, address: str, port: int, presenter: Presenter) -> str:
    """NEGOTIATED, UNANSWERED, the reason of a fallback, or "" when nothing can be said. Takes a few round trips, or until it
    is given up. Never raises OSError."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, IPPROTO_MPTCP) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.bind((_mapped(source), 0))
            if sock.connect_ex((_mapped(address), port)) and not await _until_writable(sock, CONNECT_S):
                return UNANSWERED
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                return UNANSWERED if error == errno.ETIMEDOUT else ""
            return await _talk(sock, presenter)
        except OSError:
            return ""


async def _talk(sock: socket.socket, presenter: Presenter) -> str:
    if not speaks_mptcp(sock):
        return Reason.MPTCP_BLACKHOLE if _retransmitted(sock) > SYNS_WITH_MPTCP else Reason.MPTCP_STRIPPED
    cookie = presenter.cookie(time.monotonic())
    client = Client(cookie)
    sock.send(client.info())
    try:
        async with asyncio.timeout(REPLY_S):
            data = await asyncio.get_running_loop().sock_recv(sock, REPLY_BYTES)
    except TimeoutError:
        return ""
    if not data:
        return ""
    outcome = NEGOTIATED if speaks_mptcp(sock) else Reason.MPTCP_LOST
    with contextlib.suppress(ConvertError):  # what it says is the business of whoever talks to it
        answer = client.receive_data(data)
        if isinstance(answer, Refused):
            heard(presenter, cookie, answer, time.monotonic())
    return outcome


def speaks_mptcp(sock: socket.socket) -> bool:
    """Whether a connected MPTCP socket has not fallen back to TCP."""
    try:
        return bool(sock.getsockopt(SOL_MPTCP, MPTCP_INFO, 4))
    except OSError:
        return False


async def _until_writable(sock: socket.socket, seconds: float) -> bool:
    """asyncio's own connect refuses MPTCP sockets (seen with Python 3.11)."""
    loop = asyncio.get_running_loop()
    writable = loop.create_future()
    loop.add_writer(sock.fileno(), _settle, writable)
    try:
        async with asyncio.timeout(seconds):
            await writable
    except TimeoutError:
        return False
    finally:
        loop.remove_writer(sock.fileno())
    return True


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _retransmitted(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, TCP_INFO_TOTAL_RETRANS + 4)
    return int(struct.unpack_from("=I", info, TCP_INFO_TOTAL_RETRANS)[0])


def _mapped(address: str) -> str:
    return address if ":" in address else f"::ffff:{address}"
