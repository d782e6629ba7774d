"""TLVs to bytes and back (RFC 8803 section 4.1 and 4.2). ``push_x`` makes bytes, ``pull_x`` reads them.

A pull function gets a whole message and raises :class:`Violation` for anything it must not hold; only
:func:`pull_header` copes with too little.
"""

from __future__ import annotations

from collections.abc import Iterable

from cpe_mcp.convert.errors import LocalError, Violation
from cpe_mcp.convert.tlv import (
    IGNORED_TCP_OPTIONS,
    Connect,
    Cookie,
    Error,
    ErrorCode,
    ExtendedTcpHeader,
    Info,
    SupportedTcpExtensions,
    Tlv,
    TlvType,
)

VERSION = 1
MAGIC = b"\x22\x63"
"""8803: tells a Convert message from anything else."""
WORD_BYTES = 4
HEADER_BYTES = 4
MAX_WORDS = 255
"""Total Length is one octet that counts words, the header's included."""
MAX_TLV_WORDS = 254
BASE_CONNECT_WORDS = 5
ADDRESS_BYTES = 16

BARE_REPLY = bytes([VERSION, 1]) + MAGIC
"""A success with nothing to add."""
BASE_REQUEST = bytes([VERSION, 1 + BASE_CONNECT_WORDS]) + MAGIC + bytes([TlvType.CONNECT, BASE_CONNECT_WORDS])
"""How a message begins that holds a Base Connect and nothing else."""


def push_header(words: int) -> bytes:
    """The fixed header of a message with so many words of TLVs."""
    if words >= MAX_WORDS:
        raise LocalError(f"a Convert message holds {MAX_WORDS - 1} words of TLVs, not {words}")
    return bytes([VERSION, 1 + words]) + MAGIC


def push_message(tlvs: Iterable[Tlv]) -> bytes:
    """A whole message. Raises LocalError when it would be longer than 1020 octets."""
    body = b"".join(push_tlv(tlv) for tlv in tlvs)
    return push_header(len(body) // WORD_BYTES) + body


def push_tlv(tlv: Tlv) -> bytes:
    """One TLV, padded to whole words."""
    if isinstance(tlv, Connect):
        return push_connect(tlv.address, tlv.port, tlv.tcp_options)
    if isinstance(tlv, Error):
        return _push(TlvType.ERROR, bytes([tlv.code]) + tlv.value)
    if isinstance(tlv, Cookie):
        return _push(TlvType.COOKIE, b"\0\0" + tlv.value)
    if isinstance(tlv, SupportedTcpExtensions):
        return _push(TlvType.SUPPORTED_TCP_EXTENSIONS, b"\0\0" + tlv.kinds)
    if isinstance(tlv, ExtendedTcpHeader):
        return _push(TlvType.EXTENDED_TCP_HEADER, b"\0\0" + tlv.options)
    return _push(TlvType.INFO, b"\0\0")


def push_connect(address: bytes, port: int, tcp_options: bytes = b"") -> bytes:
    """A Connect TLV; 16 octets of address."""
    if len(address) != ADDRESS_BYTES or not 0 <= port <= 0xFFFF:
        raise LocalError(f"Connect takes 16 octets and a port, not {address!r} and {port}")
    return _push(TlvType.CONNECT, port.to_bytes(2, "big") + address + tcp_options)


def _push(kind: TlvType, value: bytes) -> bytes:
    words = -(-(2 + len(value)) // WORD_BYTES)
    if words > MAX_TLV_WORDS:
        raise LocalError(f"{kind.name} TLV of {words} words; {MAX_TLV_WORDS} fit a message")
    return bytes([kind, words]) + value + bytes(words * WORD_BYTES - 2 - len(value))


def pull_header(data: bytes) -> int | None:
    """Octets of the whole message; None while the header is not complete. Raises Violation."""
    if len(data) < HEADER_BYTES:
        return None
    if data[2:4] != MAGIC:
        raise Violation(f"magic number {data[2:4].hex()}: this is not Convert", ErrorCode.MALFORMED_MESSAGE)
    if data[0] != VERSION:
        raise Violation(f"version {data[0]}", ErrorCode.UNSUPPORTED_VERSION)
    if data[1] == 0:
        raise Violation("Total Length 0", None)
    return data[1] * WORD_BYTES


def pull_message(data: bytes) -> tuple[list[Tlv], int] | None:
    """TLVs and octets consumed; None while the message is not complete. Raises Violation."""
    length = pull_header(data)
    if length is None or len(data) < length:
        return None
    tlvs: list[Tlv] = []
    seen: set[int] = set()
    offset = HEADER_BYTES
    while offset < length:
        end = offset + data[offset + 1] * WORD_BYTES
        if end == offset or end > length:
            raise Violation(f"TLV of type {data[offset]} does not fit the message", ErrorCode.MALFORMED_MESSAGE)
        if data[offset] in seen:
            raise Violation(f"TLV of type {data[offset]} twice", ErrorCode.MALFORMED_MESSAGE)
        seen.add(data[offset])
        tlvs.append(pull_tlv(data[offset:end]))
        offset = end
    return tlvs, length


def pull_tlv(data: bytes) -> Tlv:
    """One TLV that fills ``data``. Raises Violation."""
    kind = data[0]
    if kind == TlvType.CONNECT:
        if len(data) < BASE_CONNECT_WORDS * WORD_BYTES:
            raise Violation("Connect TLV is too short", ErrorCode.MALFORMED_MESSAGE)
        return Connect(data[4:20], int.from_bytes(data[2:4], "big"), data[20:])
    if kind == TlvType.ERROR:
        return Error(data[2], data[3:])
    if kind == TlvType.COOKIE:
        return Cookie(data[4:])
    if kind == TlvType.SUPPORTED_TCP_EXTENSIONS:
        return SupportedTcpExtensions(data[4:].replace(b"\0", b""))
    if kind == TlvType.EXTENDED_TCP_HEADER:
        return ExtendedTcpHeader(data[4:])
    if kind == TlvType.INFO:
        if len(data) != WORD_BYTES:
            raise Violation("Info TLV is too long", ErrorCode.MALFORMED_MESSAGE)
        return Info()
    raise Violation(f"TLV of unknown type {kind}", ErrorCode.UNSUPPORTED_MESSAGE)


def pull_option_kinds(options: bytes) -> bytes:
    """Kinds of the TCP options of an Extended Connect, those to be ignored left out. Raises Violation.

    MPTCP and timestamps may be asked for but not spelled out, since the Converter makes them itself (section 4.2.5).
    """
    kinds = bytearray()
    offset = 0
    while offset < len(options):
        kind = options[offset]
        if kind == 0:
            break
        if kind == 1:
            offset += 1
            continue
        length = options[offset + 1] if offset + 1 < len(options) else 0
        if length < 2 or offset + length > len(options):
            raise Violation(f"TCP option {kind} does not fit the Connect TLV", ErrorCode.MALFORMED_MESSAGE)
        if kind in (8, 30) and length > 2:
            raise Violation(f"TCP option {kind} with content in the Connect TLV", ErrorCode.MALFORMED_MESSAGE)
        if kind not in IGNORED_TCP_OPTIONS:
            kinds.append(kind)
        offset += length
    return bytes(kinds)


def is_forbidden(address: bytes) -> bool:
    """Multicast, broadcast, loopback and unspecified addresses, in IPv4-mapped form too (section 4.2.5)."""
    if address.startswith(bytes(10) + b"\xff\xff"):
        first = address[12]
        return first in (0, 127) or 224 <= first <= 239 or address[12:] == b"\xff\xff\xff\xff"
    return address[0] == 0xFF or (address[:15] == bytes(15) and address[15] in (0, 1))
