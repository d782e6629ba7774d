"""blob and blobmsg, the tagged binary data of libubox, to and from Python values. Pure.

An *attribute* is a big-endian word (bit 31: it has a name; bits 30-24: its number or type; bits 23-0: its length in bytes
with this word, without padding), its payload, and zeros up to a multiple of four. A *field* is an attribute with a name
in front of its payload: length of the name (two bytes), the name, a zero byte, zeros up to a multiple of four. A *table*
is fields one after the other. The layout is that of libubox ``blob.h`` and ``blobmsg.h``.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

ARRAY, TABLE, STRING, INT64, INT32, INT16, BOOL, DOUBLE = 1, 2, 3, 4, 5, 6, 7, 8
"""Types of fields (enum blobmsg_type). A truth value travels as the 8-bit integer; nothing else uses that one."""
NULL = 0
"""A field without a value (BLOBMSG_TYPE_UNSPEC): JSON's null."""

ALIGN = 4
HAS_NAME = 0x80000000
NUMBER_SHIFT = 24
NUMBER_MASK = 0x7F
LENGTH_MASK = 0x00FFFFFF
DEPTH_MAX = 32
"""Tables within tables: as deep as json-c, which prints them for everybody, goes by default."""

_WORD = struct.Struct(">I")
_NAME_LENGTH = struct.Struct(">H")
_NUMBERS = {
    INT64: struct.Struct(">q"),
    INT32: struct.Struct(">i"),
    INT16: struct.Struct(">h"),
    DOUBLE: struct.Struct(">d"),
}
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class BlobError(ValueError):
    """Not a blob, or a value that cannot become one."""


def push_attr(number: int, payload: bytes, *, named: bool = False) -> bytes:
    """One attribute with its padding. Raises BlobError when it is too long."""
    length = _WORD.size + len(payload)
    if length > LENGTH_MASK:
        raise BlobError(f"an attribute of {length} bytes; there is room for {LENGTH_MASK}")
    word = (HAS_NAME if named else 0) | number << NUMBER_SHIFT | length
    return _WORD.pack(word) + payload + _PADDING[length % ALIGN]


def pull_attrs(data: bytes | memoryview) -> Iterator[tuple[int, bool, memoryview]]:
    """(number, whether it has a name, payload) of each attribute. Raises BlobError where one does not fit."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        if len(view) - at < _WORD.size:
            raise BlobError(f"{len(view) - at} bytes where an attribute begins")
        (word,) = _WORD.unpack_from(view, at)
        length = word & LENGTH_MASK
        padded = length + -length % ALIGN
        if length < _WORD.size or padded > len(view) - at:
            raise BlobError(f"an attribute of {length} bytes in {len(view) - at}")
        yield word >> NUMBER_SHIFT & NUMBER_MASK, bool(word & HAS_NAME), view[at + _WORD.size : at + length]
        at += padded


def push_table(values: Mapping[str, Any]) -> bytes:
    """The fields of a table. Values: None, bool, int (64 bits), float, str, and lists and mappings of those.

    A number that is not finite becomes null, because JSON has none; a zero byte in a text becomes U+FFFD, because texts
    end at it. Raises BlobError for what cannot travel."""
    return b"".join(_push_field(name, value, DEPTH_MAX) for name, value in values.items())


def pull_table(data: bytes | memoryview) -> dict[str, Any]:
    """A table's fields; attributes without a name are passed over, of equal names the last counts. Raises BlobError."""
    return _pull_table(data, DEPTH_MAX)


def push_text(text: str) -> bytes:
    """A text's payload: UTF-8 that ends in a zero byte."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace") + b"\0"


def pull_text(payload: bytes | memoryview) -> str:
    """The text of such a payload, up to its first zero byte. Raises BlobError when none ends it."""
    data = bytes(payload)
    if not data.endswith(b"\0"):
        raise BlobError("a text without its end")
    return data[: data.index(0)].decode("utf-8", "replace")


@functools.lru_cache(maxsize=512)  # the names of our replies, some hundred, come again in every row
def _push_name(name: str) -> bytes:
    text = push_text(name)
    if len(text) > 0xFFFF:
        raise BlobError(f"a name of {len(text)} bytes")
    head = _NAME_LENGTH.pack(len(text) - 1) + text
    return head + _PADDING[len(head) % ALIGN]


def _push_field(name: str, value: Any, depth: int) -> bytes:
    kind, payload = _push_value(value, depth)
    return push_attr(kind, _push_name(name) + payload, named=True)


def _push_value(value: Any, depth: int) -> tuple[int, bytes]:
    if isinstance(value, str):
        return STRING, push_text(value)
    if value is None:
        return NULL, b""
    if isinstance(value, bool):
        return BOOL, b"\1" if value else b"\0"
    if isinstance(value, int):
        kind = INT32 if -(2**31) <= value < 2**31 else INT64
        try:
            return kind, _NUMBERS[kind].pack(value)
        except struct.error:
            raise BlobError(f"{value} does not fit 64 bits") from None
    if isinstance(value, float):
        return (DOUBLE, _NUMBERS[DOUBLE].pack(value)) if math.isfinite(value) else (NULL, b"")
    if depth == 0:
        raise BlobError(f"tables within tables deeper than {DEPTH_MAX}")
    if isinstance(value, Mapping):
        return TABLE, b"".join(_push_field(str(name), inner, depth - 1) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ARRAY, b"".join(_push_field("", inner, depth - 1) for inner in value)
    raise BlobError(f"a value of type {type(value).__name__}")


def _pull_table(data: bytes | memoryview, depth: int) -> dict[str, Any]:
    table = {}
    for kind, named, payload in pull_attrs(data):
        if named:
            name, inner = _pull_name(payload)
            table[name] = _pull_value(kind, inner, depth)
    return table


def _pull_array(data: memoryview, depth: int) -> list[Any]:
    values = []
    for kind, named, payload in pull_attrs(data):
        inner = _pull_name(payload)[1] if named else payload
        values.append(_pull_value(kind, inner, depth))
    return values


def _pull_name(payload: memoryview) -> tuple[str, memoryview]:
    if len(payload) < _NAME_LENGTH.size:
        raise BlobError("a field without its name")
    (length,) = _NAME_LENGTH.unpack_from(payload)
    end = _NAME_LENGTH.size + length + 1
    padded = end + -end % ALIGN
    if padded > len(payload) or payload[end - 1] != 0:
        raise BlobError(f"a name of {length} bytes in a field of {len(payload)}")
    return bytes(payload[_NAME_LENGTH.size : end - 1]).decode("utf-8", "replace"), payload[padded:]


def _pull_value(kind: int, payload: memoryview, depth: int) -> Any:
    if kind == STRING:
        return pull_text(payload)
    if kind in _NUMBERS:
        number = _NUMBERS[kind]
        if len(payload) != number.size:
            raise BlobError(f"a number of type {kind} in {len(payload)} bytes")
        return number.unpack(payload)[0]
    if kind == BOOL:
        if len(payload) != 1:
            raise BlobError(f"a truth value in {len(payload)} bytes")
        return payload[0] != 0
    if kind == NULL:
        return None
    if kind not in {TABLE, ARRAY}:
        raise BlobError(f"a field of the unknown type {kind}")
    if depth == 0:
        raise BlobError(f"tables within tables deeper than {DEPTH_MAX}")
    return _pull_table(payload, depth - 1) if kind == TABLE else _pull_array(payload, depth - 1)
