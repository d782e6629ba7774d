"""The Client's half: one object per connection to a Converter (RFC 8803 section 5, the CPE's side)."""

from __future__ import annotations

from typing import NamedTuple

from cpe_mcp.convert.errors import LocalError, PeerError, Violation
from cpe_mcp.convert.state import ASKED, CLIENT, PREFIXED, START, step
from cpe_mcp.convert.tlv import Cookie, Error, ErrorCode, ExtendedTcpHeader, Info, SupportedTcpExtensions
from cpe_mcp.convert.wire import (
    BARE_REPLY,
    BASE_CONNECT_WORDS,
    WORD_BYTES,
    pull_message,
    push_connect,
    push_header,
    push_tlv,
)

DEFAULT_WAIT_S = 30.0
"""Errors 64 and 65 with a delay of 0 mean at least 30 s (section 4.2.8)."""
MAX_WAIT_S = 86400.0
"""A longer one is a mistake or malice: a day off is as good as for ever."""


class Established(NamedTuple):
    """The server accepted; from here on the stream is the server's."""

    trailing: bytes
    """User data that came with the reply."""
    extensions: bytes | None
    """TCP option kinds the Converter handles, where it was asked."""
    extended_header: bytes | None
    """TCP options of the server's SYN+ACK, where it told."""


class Refused(NamedTuple):
    """An Error TLV; the Client resets the connection."""

    error: Error
    wait_s: float
    """How long to leave the Converter alone: codes 64 and 65 only, else 0."""


class Client:
    """Makes the message and reads the reply."""

    __slots__ = ("_buffer", "_cookie", "_state")

    def __init__(self, cookie: bytes = b"") -> None:
        self._cookie = push_tlv(Cookie(cookie)) if cookie else b""
        self._buffer = b""
        self._state = START

    def prefix(self) -> bytes:
        """The fixed header with its final Total Length and the Cookie TLV; a Base Connect must follow (design D2)."""
        self._state = step(CLIENT, self._state, "prefix")
        return push_header(BASE_CONNECT_WORDS + len(self._cookie) // WORD_BYTES) + self._cookie

    def connect(self, address: bytes, port: int, tcp_options: bytes = b"") -> bytes:
        """The message that asks for a server, or what of it :meth:`prefix` left out."""
        tlv = push_connect(address, port, tcp_options)
        prefixed = self._state == PREFIXED
        if prefixed and tcp_options:
            raise LocalError("the prefix has announced a Base Connect")
        self._state = step(CLIENT, self._state, "connect")
        if prefixed:
            return tlv
        return push_header((len(tlv) + len(self._cookie)) // WORD_BYTES) + self._cookie + tlv

    def info(self) -> bytes:
        """The message that asks only which extensions the Converter handles."""
        self._state = step(CLIENT, self._state, "info")
        tlv = push_tlv(Info())
        return push_header((len(tlv) + len(self._cookie)) // WORD_BYTES) + self._cookie + tlv

    def receive_data(self, data: bytes) -> Established | Refused | None:
        """The Converter's answer, None while it is not complete. Raises PeerError; the Client must reset then."""
        if self._buffer:
            data = self._buffer + data
        if self._state == ASKED and data.startswith(BARE_REPLY):
            self._state = step(CLIENT, self._state, "success")
            return Established(data[len(BARE_REPLY) :], None, None)
        try:
            return self._reply(data)
        except Violation as violation:
            self._state = step(CLIENT, self._state, "violation")
            raise PeerError(str(violation)) from None

    def _reply(self, data: bytes) -> Established | Refused | None:
        message = pull_message(data)
        if message is None:
            self._buffer = data
            return None
        tlvs, length = message
        self._buffer = b""
        extensions: bytes | None = None
        extended_header: bytes | None = None
        for tlv in tlvs:
            if isinstance(tlv, Error):
                self._state = step(CLIENT, self._state, "error")
                return Refused(tlv, wait_s(tlv))
            if isinstance(tlv, SupportedTcpExtensions):
                extensions = tlv.kinds
            elif isinstance(tlv, ExtendedTcpHeader):
                extended_header = tlv.options
            else:
                raise Violation(f"a Converter does not send {type(tlv).__name__}", ErrorCode.MALFORMED_MESSAGE)
        if self._state != ASKED:
            raise Violation("the Converter answered before it was asked", None)
        self._state = step(CLIENT, self._state, "success")
        return Established(data[length:], extensions, extended_header)


def wait_s(error: Error) -> float:
    """The delay of Errors 64 and 65, s. The RFC gives the field no width: one octet, or all of them as one number."""
    if error.code not in (ErrorCode.RESOURCE_EXCEEDED, ErrorCode.NETWORK_FAILURE):
        return 0.0
    value = error.value
    seconds = int.from_bytes(value, "big") if any(value[1:]) else (value[0] if value else 0)
    return min(float(seconds), MAX_WAIT_S) or DEFAULT_WAIT_S
