"""The Converter's half: one object per connection of a Client (RFC 8803 section 5, the network's side)."""

from __future__ import annotations

from typing import NamedTuple

from cpe_mcp.convert.errors import PeerError, Violation
from cpe_mcp.convert.state import CONVERTER, READING, step
from cpe_mcp.convert.tlv import (
    Connect,
    Cookie,
    Error,
    ErrorCode,
    ExtendedTcpHeader,
    Info,
    SupportedTcpExtensions,
    TlvType,
)
from cpe_mcp.convert.wire import (
    BARE_REPLY,
    BASE_CONNECT_WORDS,
    BASE_REQUEST,
    HEADER_BYTES,
    MAX_TLV_WORDS,
    VERSION,
    WORD_BYTES,
    is_forbidden,
    pull_header,
    pull_message,
    pull_option_kinds,
    push_message,
)

ECHO_BYTES = (MAX_TLV_WORDS - 1) * WORD_BYTES
"""What an Error TLV can echo of a message: all of it but the last words of the longest ones."""
BASE_REQUEST_BYTES = (1 + BASE_CONNECT_WORDS) * WORD_BYTES


class PrefixReceived(NamedTuple):
    """Header and Cookie TLV are here, the rest is outstanding: enough to authenticate a warm connection."""

    cookie: bytes
    """b"" when there will be none."""


class RequestReceived(NamedTuple):
    """The whole message."""

    connect: Connect | None
    """None: the Client only asks for information."""
    option_kinds: bytes
    """Kinds of the TCP options an Extended Connect asks for, without those a Converter ignores."""
    info: bool
    """The extensions are wanted in the reply."""
    cookie: bytes
    trailing: bytes
    """User data that followed the message."""


Event = PrefixReceived | RequestReceived


class Converter:
    """Reads the message and makes the reply."""

    __slots__ = ("_buffer", "_prefix_told", "_state")

    def __init__(self) -> None:
        self._buffer = b""
        self._prefix_told = False
        self._state = READING

    def receive_data(self, data: bytes) -> list[Event]:
        """What these bytes completed. Raises PeerError, whose ``reply`` is to be sent before closing."""
        if self._state != READING:
            step(CONVERTER, self._state, "request")
        if self._buffer:
            data = self._buffer + data
        try:
            event = self._pull(data)
        except Violation as violation:
            self._state = step(CONVERTER, self._state, "violation")
            raise PeerError(str(violation), _answer(violation, data)) from None
        if isinstance(event, RequestReceived):
            self._state = step(CONVERTER, self._state, "request")
            self._buffer = b""
        else:
            self._buffer = data
        return [event] if event is not None else []

    def accept(self, *, extensions: bytes | None = None, extended_header: bytes | None = None) -> bytes:
        """The reply that says that the server accepted."""
        self._state = step(CONVERTER, self._state, "accept")
        if extensions is None and extended_header is None:
            return BARE_REPLY
        tlvs: list[ExtendedTcpHeader | SupportedTcpExtensions] = []
        if extended_header is not None:
            tlvs.append(ExtendedTcpHeader(extended_header))
        if extensions is not None:
            tlvs.append(SupportedTcpExtensions(extensions))
        return push_message(tlvs)

    def refuse(self, code: ErrorCode, value: bytes = b"") -> bytes:
        """The reply with an Error TLV; for Missing Cookie ``value`` is the cookie itself."""
        self._state = step(CONVERTER, self._state, "refuse")
        return push_message([Error(code, b"\0" + value if code == ErrorCode.MISSING_COOKIE else value)])

    def _pull(self, data: bytes) -> Event | None:
        if len(data) >= BASE_REQUEST_BYTES and data.startswith(BASE_REQUEST):  # nearly every message
            connect = Connect(data[8:24], int.from_bytes(data[6:8], "big"))
            _check_server(connect)
            return RequestReceived(connect, b"", False, b"", data[BASE_REQUEST_BYTES:])
        message = pull_message(data)
        if message is None:
            return self._pull_prefix(data)
        tlvs, length = message
        connect_tlv: Connect | None = None
        kinds = cookie = b""
        info = False
        for tlv in tlvs:
            if isinstance(tlv, Connect):
                _check_server(tlv)
                connect_tlv, kinds = tlv, pull_option_kinds(tlv.tcp_options)
            elif isinstance(tlv, Cookie):
                cookie = tlv.value
            elif isinstance(tlv, Info):
                info = True
            elif isinstance(tlv, Error):
                raise Violation(
                    f"the Client sent Error {tlv.code}", None
                )  # answering an Error with an Error never ends
            else:
                raise Violation(f"a Client does not send {type(tlv).__name__}", ErrorCode.UNSUPPORTED_MESSAGE)
        if connect_tlv is None and not info:
            raise Violation("neither Connect nor Info", ErrorCode.MALFORMED_MESSAGE)
        return RequestReceived(connect_tlv, kinds, info, cookie, data[length:])

    def _pull_prefix(self, data: bytes) -> PrefixReceived | None:
        """Once: as soon as it is certain whether the message begins with a cookie, and that is here."""
        length = pull_header(data)
        if length is None or self._prefix_told:
            return None
        cookie = b""
        if length > BASE_REQUEST_BYTES:  # else there is room for a Base Connect only
            if len(data) < HEADER_BYTES + 2:
                return None
            if data[HEADER_BYTES] == TlvType.COOKIE:
                end = HEADER_BYTES + data[HEADER_BYTES + 1] * WORD_BYTES
                if len(data) < end:
                    return None
                cookie = data[HEADER_BYTES + WORD_BYTES : end]
        self._prefix_told = True
        return PrefixReceived(cookie)


def _check_server(connect: Connect) -> None:
    if is_forbidden(connect.address):
        raise Violation("Connect to an address that is no server's", ErrorCode.MALFORMED_MESSAGE)
    if connect.port == 0:
        raise Violation("Connect to port 0", ErrorCode.MALFORMED_MESSAGE)


def _answer(violation: Violation, data: bytes) -> bytes:
    if violation.code is None:
        return b""
    if violation.code == ErrorCode.UNSUPPORTED_VERSION:
        return push_message([Error(violation.code, bytes([VERSION]))])
    length = data[1] * WORD_BYTES or len(data)
    return push_message([Error(violation.code, b"\0" + data[: min(length, ECHO_BYTES)])])
