"""The vocabulary of RFC 8803: its TLVs and error codes. Plain values; the bytes are made in :mod:`.wire`."""

from __future__ import annotations

import enum
from typing import NamedTuple

TCP_OPTION_MPTCP = 30
TCP_OPTION_AO = 29
IGNORED_TCP_OPTIONS = frozenset({0, 1, 2, 3, 5})
"""End of list, no-op, MSS, window scale, SACK: a Converter ignores them in a Connect TLV (RFC 8803 section 4.2.5)."""


class TlvType(enum.IntEnum):
    """TLV types of RFC 8803 section 4.2.1."""

    INFO = 1
    CONNECT = 10
    EXTENDED_TCP_HEADER = 20
    SUPPORTED_TCP_EXTENSIONS = 21
    COOKIE = 22
    ERROR = 30


class ErrorCode(enum.IntEnum):
    """Error codes of RFC 8803 section 4.2.8."""

    UNSUPPORTED_VERSION = 0
    MALFORMED_MESSAGE = 1
    UNSUPPORTED_MESSAGE = 2
    MISSING_COOKIE = 3
    NOT_AUTHORIZED = 32
    UNSUPPORTED_TCP_OPTION = 33
    RESOURCE_EXCEEDED = 64
    NETWORK_FAILURE = 65
    CONNECTION_RESET = 96
    DESTINATION_UNREACHABLE = 97


class Info(NamedTuple):
    """Client to Converter: which TCP extensions do you handle? (section 4.2.3)"""


class SupportedTcpExtensions(NamedTuple):
    """Converter to Client: the answer to Info (section 4.2.4)."""

    kinds: bytes
    """TCP option kinds, one octet each."""


class Connect(NamedTuple):
    """Client to Converter: open a connection to this server (section 4.2.5)."""

    address: bytes
    """16 octets; IPv4 as ::ffff:a.b.c.d."""
    port: int
    tcp_options: bytes = b""
    """TCP options wanted in the SYN, zero padded to whole words; b"" makes it a Base Connect."""


class ExtendedTcpHeader(NamedTuple):
    """Converter to Client: the TCP options of the server's SYN+ACK (section 4.2.6)."""

    options: bytes


class Cookie(NamedTuple):
    """Client to Converter: the proof the Converter gave out or expects (section 4.2.7)."""

    value: bytes
    """Comes back zero padded to whole words: the TLV has no octet count."""


class Error(NamedTuple):
    """Converter to Client: why not (section 4.2.8)."""

    code: int
    value: bytes = b""
    """From the octet behind the code, zero padded on the wire; for codes 1, 2 and 3 its first octet is zero."""


Tlv = Info | SupportedTcpExtensions | Connect | ExtendedTcpHeader | Cookie | Error
