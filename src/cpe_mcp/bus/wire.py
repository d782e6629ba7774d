"""ubus messages (ubusmsg.h): a header of eight bytes, and one blob with the message's attributes. Pure."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cpe_mcp.bus.blob import LENGTH_MASK, BlobError, pull_attrs, pull_text, push_attr, push_text

MESSAGE_MAX_BYTES = 1024 * 1024
"""UBUS_MAX_MSGLEN: ubusd hangs up on a client that sends a longer one."""
EVENT_OBJECT = 1
"""UBUS_SYSTEM_OBJECT_EVENT: ubusd's own object, where events are sent and asked for."""

_HEADER = struct.Struct(">BBHII")
HEADER_BYTES = _HEADER.size
"""Version, type, sequence number and peer, and the first word of the blob."""
_BLOB_WORD_BYTES = 4
_NUMBER = struct.Struct(">I")


class MessageType(enum.IntEnum):
    """enum ubus_msg_type."""

    HELLO = 0
    STATUS = 1
    DATA = 2
    PING = 3
    LOOKUP = 4
    INVOKE = 5
    ADD_OBJECT = 6
    REMOVE_OBJECT = 7
    SUBSCRIBE = 8
    UNSUBSCRIBE = 9
    NOTIFY = 10


class Attr(enum.IntEnum):
    """enum ubus_msg_attr."""

    STATUS = 1
    OBJPATH = 2
    OBJID = 3
    METHOD = 4
    OBJTYPE = 5
    SIGNATURE = 6
    DATA = 7
    TARGET = 8
    ACTIVE = 9
    NO_REPLY = 10
    SUBSCRIBERS = 11
    USER = 12
    GROUP = 13


class Status(enum.IntEnum):
    """enum ubus_msg_status."""

    OK = 0
    INVALID_COMMAND = 1
    INVALID_ARGUMENT = 2
    METHOD_NOT_FOUND = 3
    NOT_FOUND = 4
    NO_DATA = 5
    PERMISSION_DENIED = 6
    TIMEOUT = 7
    NOT_SUPPORTED = 8
    UNKNOWN_ERROR = 9
    CONNECTION_FAILED = 10
    NO_MEMORY = 11
    PARSE_ERROR = 12
    SYSTEM_ERROR = 13


class Header(NamedTuple):
    """What comes before a message's attributes."""

    kind: int
    """A :class:`MessageType`, or a newer one."""
    seq: int
    peer: int
    body_bytes: int
    """Length of the attributes that follow."""


Attrs = Mapping[int, memoryview]
"""Number of an attribute (:class:`Attr`) -> its payload."""


def push_message(kind: MessageType, seq: int, peer: int, attrs: Iterable[tuple[Attr, bytes]] = ()) -> bytes:
    """One message. Raises BlobError when it is longer than ubusd takes."""
    body = b"".join(push_attr(number, payload) for number, payload in attrs)
    length = _BLOB_WORD_BYTES + len(body)
    if length > MESSAGE_MAX_BYTES:
        raise BlobError(f"a message of {length} bytes; ubus takes {MESSAGE_MAX_BYTES}")
    return _HEADER.pack(0, kind, seq, peer, length) + body


def pull_header(data: bytes) -> Header:
    """The header in HEADER_BYTES bytes. Raises BlobError: the stream makes no sense from here on."""
    version, kind, seq, peer, word = _HEADER.unpack(data)
    length = word & LENGTH_MASK
    if version != 0:
        raise BlobError(f"ubus messages of version {version}; this is version 0")
    if not _BLOB_WORD_BYTES <= length <= MESSAGE_MAX_BYTES:
        raise BlobError(f"a message of {length} bytes")
    return Header(kind, seq, peer, length - _BLOB_WORD_BYTES)


def pull_attributes(body: bytes) -> dict[int, memoryview]:
    """A message's attributes; of equal ones the last counts. Raises BlobError."""
    return {number: payload for number, _named, payload in pull_attrs(body)}


def push_number(value: int) -> bytes:
    """Payload of a 32-bit attribute."""
    return _NUMBER.pack(value)


def pull_number(attrs: Attrs, number: Attr) -> int | None:
    """A 32-bit attribute; None when it is missing. Raises BlobError when it is something else."""
    payload = attrs.get(number)
    if payload is None:
        return None
    if len(payload) != _NUMBER.size:
        raise BlobError(f"attribute {number.name} has {len(payload)} bytes instead of {_NUMBER.size}")
    return int(_NUMBER.unpack(payload)[0])


def pull_string(attrs: Attrs, number: Attr) -> str | None:
    """A text attribute; None when it is missing. Raises BlobError when it is something else."""
    payload = attrs.get(number)
    return None if payload is None else pull_text(payload)


def push_string(text: str) -> bytes:
    """Payload of a text attribute."""
    return push_text(text)
