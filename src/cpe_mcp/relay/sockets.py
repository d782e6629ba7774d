"""Sockets as the relay needs them: the C type only, non-blocking, with the options that MPTCP sockets accept.

``_socket.socket`` is ``socket.socket`` without its Python layer, which costs 12 us per connection (measured): the layer adds
nothing that a worker uses.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import os
import struct
import sys
import termios

from cpe_mcp.kernel.numbers import IPPROTO_MPTCP, MARK_DSCP_SHIFT

Socket = _socket.socket

SO_REUSEPORT = 15
SO_BINDTODEVICE = 25
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
SO_MARK = 36
TCP_CONGESTION = 13
TCP_CA_NAME_MAX = 16
TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28
TCP_IS_MPTCP = 43
SOL_MPTCP, MPTCP_INFO = 284, 1
"""linux/socket.h, linux/mptcp.h: since 5.16"""
TCP_INFO_BYTES = 104
"""As much of struct tcp_info as is read here."""
TCP_INFO_OPTIONS = 5
TCP_INFO_SND_MSS = 16
TCPI_OPT_SACK = 2
TCP_KEEPIDLE_S = 60
"""With the two below: dead peers are gone after 90 s, and the NAT state of every line stays alive (it expires after 124 s at
the earliest by RFC 5382 for established flows of some gateways, 300 s on most)."""
TCP_KEEPINTVL_S = 10
TCP_KEEPCNT = 3
BULK_WINDOW_BYTES = 4 * 1024 * 1024
"""Receive window of a flow that moves much: 160 Mbit/s x 200 ms. The kernel caps it at half of tcp_rmem's maximum."""
BACKLOG = 4096
"""Asked for; the kernel caps it at net.core.somaxconn."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with time 0: close sends RST, on MPTCP MP_FASTCLOSE."""
SYN_BYTES = 140
"""The longest IP header and the longest TCP header of a saved SYN, with room; the call fails when it is too little."""
V4_MAPPED = bytes(10) + b"\xff\xff"

PENDING = (errno.EINPROGRESS, errno.EAGAIN, errno.EALREADY)
DESCRIPTORS_OUT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def listen_transparent(family: int, port: int, address: str = "") -> Socket:
    """A plain TCP listener for intercepted connections: accepts whatever destination that tproxy sends to ``address``, or
    to none. Needs CAP_NET_ADMIN."""
    sock = Socket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    sock.setsockopt(_socket.SOL_SOCKET, SO_REUSEPORT, 1)
    if family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        sock.setsockopt(_socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        sock.bind((address or "::", port))
    else:
        sock.setsockopt(_socket.SOL_IP, IP_TRANSPARENT, 1)
        sock.bind((address or "0.0.0.0", port))
    sock.setsockopt(_socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
    prepare(sock)
    sock.listen(BACKLOG)
    return sock


def listen_mptcp(address: str, port: int, device: str, backlog: int = BACKLOG) -> Socket:
    """A Multipath TCP listener on one address, IPv4 text included; ``::`` takes both families."""
    sock = Socket(_socket.AF_INET6, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK, IPPROTO_MPTCP)
    sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    sock.setsockopt(_socket.SOL_SOCKET, SO_REUSEPORT, 1)
    if device:
        sock.setsockopt(_socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode())
    prepare(sock)
    sock.bind((mapped(address), port))
    sock.listen(backlog)
    return sock


def mark(sock: Socket, number: int) -> None:
    """Set the packet mark of a connection, of all its subflows and of those to come; nothing without the right to."""
    if number:
        with contextlib.suppress(OSError):
            sock.setsockopt(_socket.SOL_SOCKET, SO_MARK, number)


def connect_concentrator(
    address: str, port: int, *, device: str, source: str, congestion_control: str, dscp: int = 0, mptcp: bool = True
) -> Socket:
    """Start a Multipath TCP connection whose first subflow leaves by ``device`` from ``source``; without ``mptcp`` it is
    plain TCP and stays there.

    AF_INET6 even for an IPv4 address: an AF_INET socket never gains IPv6 subflows (design D7). Raises OSError.
    """
    kind = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK
    sock = Socket(_socket.AF_INET6, kind, IPPROTO_MPTCP if mptcp else _socket.IPPROTO_TCP)
    try:
        if device:
            sock.setsockopt(_socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode())
        if source:
            sock.bind((mapped(source), 0))
        if congestion_control:
            sock.setsockopt(_socket.IPPROTO_TCP, TCP_CONGESTION, congestion_control.encode())
        if dscp and mptcp:
            set_mptcp_dscp(sock, dscp)
        elif dscp:
            set_dscp(sock, _socket.AF_INET6 if ":" in address else _socket.AF_INET, dscp)
        prepare(sock)
        _start(sock, (mapped(address), port))
    except OSError:
        sock.close()
        raise
    return sock


def connect_tcp(
    family: int, address: str, port: int, *, device: str = "", mptcp: bool = False, dscp: int = 0
) -> Socket:
    """Start a connection to a server. ``mptcp`` only offers it: a server that refuses gets plain TCP. Raises OSError."""
    sock = Socket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK, IPPROTO_MPTCP if mptcp else 0)
    try:
        if device:
            sock.setsockopt(_socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode())
        if dscp:
            set_dscp(sock, family, dscp)
        prepare(sock)
        _start(sock, (address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _start(sock: Socket, address: tuple[str, int]) -> None:
    result = sock.connect_ex(address)
    if result and result not in PENDING:
        raise OSError(result, os.strerror(result))


def prepare(sock: Socket) -> None:
    """Options of every relayed connection; what a listener has, the accepted ones inherit, MPTCP too (seen on 6.18).

    Nothing waits for more bytes to come (a relay adds no delay of its own), and idle peers are probed: on an MPTCP socket
    every subflow is, and TCP_USER_TIMEOUT is refused there.
    """
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, TCP_KEEPIDLE_S)
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, TCP_KEEPINTVL_S)
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, TCP_KEEPCNT)


def widen_window(sock: Socket) -> None:
    """Give an MPTCP connection that turned out to move much a receive window of BULK_WINDOW_BYTES now.

    The kernel's own tuning may come minutes too late on a warm connection: a subflow that joined long ago and sent nothing
    since measures the time since then as its round trip (its peer echoes that old timestamp), and the connection waits for
    one such round trip before it grows its buffer. Until then the window is that of tcp_rmem's default: 90 instead of
    142 Mbit/s over lines of 20 and 50 ms (seen on 6.18.44). Raising SO_RCVLOWAT grows the buffer and, other than SO_RCVBUF,
    leaves the tuning on and needs no privilege; it is put back at once.
    """
    if sock.proto != IPPROTO_MPTCP:
        return
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVLOWAT, BULK_WINDOW_BYTES)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVLOWAT, 1)
    except OSError:
        pass  # a kernel without it: slower for a while, not broken


def syn_dscp(sock: Socket) -> int:
    """DSCP of the SYN that opened an intercepted connection; 0 where the kernel has not kept it. Once: it is freed by this.

    One call of 1 us. A TCP socket cannot see the DSCP of later packets (IP_RECVTOS is for the first one read only).
    """
    try:
        syn = sock.getsockopt(_socket.IPPROTO_TCP, TCP_SAVED_SYN, SYN_BYTES)
    except OSError:
        return 0
    if len(syn) < 2:
        return 0
    traffic_class = syn[1] if syn[0] >> 4 == 4 else (syn[0] & 0xF) << 4 | syn[1] >> 4
    return traffic_class >> 2


def set_dscp(sock: Socket, family: int, dscp: int) -> None:
    """On a plain TCP socket."""
    level, option = (
        (_socket.IPPROTO_IPV6, _socket.IPV6_TCLASS)
        if family == _socket.AF_INET6
        else (_socket.IPPROTO_IP, _socket.IP_TOS)
    )
    try:
        sock.setsockopt(level, option, dscp << 2)
    except OSError:
        pass  # dead already, and a wrong colour is no reason to lose a connection


def set_mptcp_dscp(sock: Socket, dscp: int) -> None:
    """On a Multipath TCP socket: all its subflows, later ones too (seen on 6.18).

    IP_TOS reaches the IPv4 subflows. For IPv6 ones the kernel refuses IPV6_TCLASS; the mark is copied to them, and the nft
    table writes the DSCP by it.
    """
    try:
        sock.setsockopt(_socket.IPPROTO_IP, _socket.IP_TOS, dscp << 2)
        sock.setsockopt(_socket.SOL_SOCKET, SO_MARK, dscp << MARK_DSCP_SHIFT)
    except OSError:
        pass


def reset_on_close(sock: Socket) -> None:
    """The next close sends a reset."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, RESET_ON_CLOSE)
    except OSError:
        pass  # already dead: there is nobody to reset


def accept(listener: Socket, family: int, protocol: int) -> tuple[Socket, tuple[str, int]]:
    """One accepted connection, non-blocking, and its peer. Raises BlockingIOError when there is none."""
    fd, peer = listener._accept()  # type: ignore[attr-defined]
    sock = Socket(family, _socket.SOCK_STREAM, protocol, fd)
    sock.setblocking(False)
    return sock, (peer[0], peer[1])


def unacknowledged(sock: Socket) -> int:
    """Bytes that the peer has not acknowledged, sent or not; of an MPTCP connection as a whole (Linux 5.17). 0 where the
    kernel does not tell."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def socket_error(sock: Socket) -> int:
    """SO_ERROR: 0, or why a non-blocking connect failed."""
    return sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)


def mapped(address: str) -> str:
    """IPv6 text of an address: IPv4 as ``::ffff:a.b.c.d``."""
    return address if ":" in address else f"::ffff:{address}"


def unmapped(address: str) -> str:
    """The reverse: what a dual-stack listener shows for an IPv4 peer, as IPv4 text."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def pack16(family: int, address: str) -> bytes:
    """16 octets as the Connect TLV carries them (RFC 8803 section 4.2.5)."""
    if family == _socket.AF_INET:
        return V4_MAPPED + _socket.inet_aton(address)
    return _socket.inet_pton(_socket.AF_INET6, address)


def unpack16(address: bytes) -> tuple[int, str]:
    """Family and text of 16 octets."""
    if address.startswith(V4_MAPPED):
        return _socket.AF_INET, _socket.inet_ntoa(address[12:])
    return _socket.AF_INET6, _socket.inet_ntop(_socket.AF_INET6, address)


def set_congestion_control(sock: Socket, name: str) -> bool:
    """On a listener: what it accepts inherits it. On a Multipath TCP connection: all its subflows, later ones too. False:
    the kernel lacks that algorithm, or we may not take it."""
    try:
        sock.setsockopt(_socket.IPPROTO_TCP, TCP_CONGESTION, name.encode())
    except OSError:
        return False
    return True


def congestion_control(sock: Socket) -> str:
    """Its name; of a Multipath TCP connection that of its first subflow. "" when it is gone."""
    try:
        return sock.getsockopt(_socket.IPPROTO_TCP, TCP_CONGESTION, TCP_CA_NAME_MAX).partition(b"\0")[0].decode()
    except OSError:
        return ""


def is_mptcp(sock: Socket) -> bool:
    """Whether a connected socket speaks Multipath TCP now. Kernel 6.10; older ones cannot tell and answer no."""
    try:
        return sock.getsockopt(_socket.IPPROTO_TCP, TCP_IS_MPTCP) == 1
    except OSError:
        return False


def fell_back(sock: Socket) -> bool:
    """Whether a connection of a Multipath TCP listener is plain TCP: from its SYN on, or later because something on the way
    changed it. Only a connection that speaks MPTCP has MPTCP_INFO (seen on 6.18)."""
    try:
        sock.getsockopt(SOL_MPTCP, MPTCP_INFO, 4)
    except OSError:
        return True
    return False


def synack_options(sock: Socket, *, mptcp: bool) -> bytes:
    """The TCP options of the server's SYN+ACK as far as TCP_INFO tells, padded to whole words with end-of-list.

    A socket cannot see the SYN+ACK itself; RFC 8803 section 4.2.5 wants a copy, and this is what a user-space converter has.
    """
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, TCP_INFO_BYTES)
    flags, (send_mss,) = info[TCP_INFO_OPTIONS], struct.unpack_from("=I", info, TCP_INFO_SND_MSS)
    options = struct.pack("!BBH", 2, 4, min(send_mss, 0xFFFF))
    if flags & TCPI_OPT_SACK:
        options += bytes([4, 2])
    if mptcp:
        options += bytes([30, 2])
    return options + bytes(-len(options) % 4)
