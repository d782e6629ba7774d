"""A small raw netlink client: what generic netlink and sock_diag need and pyroute2 does not offer.

One request, its answers, the kernel's own error text (extended ACK). Blocking, but the kernel answers within microseconds.
"""

from __future__ import annotations

import os
import socket
import struct

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_ACK_TLVS = 0x200
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_ADD_MEMBERSHIP = 270, 11, 1
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
ERROR_MESSAGE_ATTRIBUTE = 1
RECEIVE_BYTES = 256 * 1024
"""A dump message has at most 32 KiB; more just saves calls."""
OVERRUN = -1
"""In place of a type: messages were lost."""


class NetlinkError(OSError):
    """The kernel refused a request; ``str()`` holds its own words where it gave any."""


def push_attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four octets."""
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def pull_attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by type, the nested flag taken off; the last of several wins."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def read_messages(sock: socket.socket) -> list[tuple[int, bytes]]:
    """``(type, body)`` of all that a non-blocking socket has; the type is :data:`OVERRUN` where some were lost."""
    found: list[tuple[int, bytes]] = []
    while True:
        try:
            data = sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return found
        except OSError:  # ENOBUFS; the next call succeeds
            return [*found, (OVERRUN, b"")]
        offset = 0
        while offset + HEADER.size <= len(data):
            length, kind, *_ = HEADER.unpack_from(data, offset)
            found.append((kind, data[offset + HEADER.size : offset + length]))
            offset += max(HEADER.size, (length + 3) & ~3)


class Netlink:
    """One netlink socket of a protocol (NETLINK_GENERIC 16, NETLINK_SOCK_DIAG 4, NETLINK_ROUTE 0)."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def request(self, kind: int, payload: bytes, *, dump: bool = False) -> list[bytes]:
        """Payloads of the answers, without the netlink header. Raises NetlinkError."""
        self._sequence += 1
        flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else NLM_F_ACK)
        header = HEADER.pack(HEADER.size + len(payload), kind, flags, self._sequence, 0)
        self._socket.send(header + payload)
        answers: list[bytes] = []
        while True:
            data = self._socket.recv(RECEIVE_BYTES)
            offset = 0
            while offset + HEADER.size <= len(data):
                length, answer, flags, sequence, _ = HEADER.unpack_from(data, offset)
                body = data[offset + HEADER.size : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_ERROR:
                    _check(body, flags)
                    return answers
                if answer == NLMSG_DONE:
                    return answers
                answers.append(body)


def _check(body: bytes, flags: int) -> None:
    """Raise what an ACK says; 0 is success."""
    (number,) = struct.unpack_from("=i", body)
    if number == 0:
        return
    text = os.strerror(-number)
    if flags & NLM_F_ACK_TLVS:
        words = pull_attributes(body[4 + HEADER.size :]).get(ERROR_MESSAGE_ATTRIBUTE)
        if words is None:  # without NETLINK_CAP_ACK the request itself is in between
            (request_bytes,) = struct.unpack_from("=I", body, 4)
            words = pull_attributes(body[4 + request_bytes :]).get(ERROR_MESSAGE_ATTRIBUTE)
        if words:
            text = f"{text}: {words.rstrip(bytes(1)).decode(errors='replace')}"
    raise NetlinkError(-number, text)
