"""blobmsg and the ubus header: bytes as libubox lays them out, there and back, cut short, and at random."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from cpe_mcp.bus.blob import DEPTH_MAX, BlobError, pull_attrs, pull_table, pull_text, push_attr, push_table, push_text
from cpe_mcp.bus.wire import (
    HEADER_BYTES,
    MESSAGE_MAX_BYTES,
    Attr,
    MessageType,
    pull_attributes,
    pull_header,
    pull_number,
    pull_string,
    push_message,
    push_number,
    push_string,
)

# A table {"a": 1, "text": "hi", "on": true}: word (name, type, length), length of the name, name, padding, value.
TABLE_BYTES = bytes.fromhex(
    "85 00 00 0c 0001 61 00 0000000183 00 00 0f 0004 74657874 00 00 686900 0087 00 00 0d 0002 6f6e 00 000000 01 000000"
)
VALUES: dict[str, Any] = {
    "text": "Gr\u00fc\u00dfe",
    "empty": "",
    "on": True,
    "off": False,
    "none": None,
    "small": -5,
    "int32": [2**31 - 1, -(2**31)],
    "int64": [2**31, -(2**63), 2**63 - 1],
    "half": 0.5,
    "table": {"a": {"b": [1, "x", None, {"c": []}]}},
    "no rows": [],
    "no fields": {},
}


def test_bytes_are_those_of_libubox() -> None:
    assert push_table({"a": 1, "text": "hi", "on": True}) == TABLE_BYTES
    assert pull_table(TABLE_BYTES) == {"a": 1, "text": "hi", "on": True}


def test_there_and_back() -> None:
    assert pull_table(push_table(VALUES)) == VALUES
    assert pull_table(b"") == {}


def test_what_has_no_place_on_the_bus_becomes_something_that_has() -> None:
    assert pull_table(push_table({"a": math.nan, "b": math.inf, "c": (1, 2), "d": "x\0y"})) == {
        "a": None,
        "b": None,
        "c": [1, 2],
        "d": "x\ufffdy",
    }
    assert pull_text(push_text("\udcff")) == "?"


@pytest.mark.parametrize("value", [2**63, b"bytes", object(), {1, 2}])
def test_what_cannot_travel_is_refused(value: Any) -> None:
    with pytest.raises(BlobError):
        push_table({"a": value})


def test_depth_is_limited_both_ways() -> None:
    deep: Any = []
    for _ in range(DEPTH_MAX - 1):
        deep = [deep]
    data = push_table({"a": deep})
    assert pull_table(data) == {"a": deep}
    with pytest.raises(BlobError, match="deeper"):
        push_table({"a": [deep]})
    with pytest.raises(BlobError, match="deeper"):
        pull_table(b"\x82" + (len(data) + 8).to_bytes(3, "big") + b"\0\x01b\0" + data)


def test_every_truncation_is_an_error_or_a_shorter_table() -> None:
    data = push_table(VALUES)
    whole = list(VALUES)
    for cut in range(len(data)):
        try:
            got = pull_table(data[:cut])
        except BlobError:
            continue
        assert list(got) == whole[: len(got)]
        assert len(got) < len(whole)


def test_random_changes_never_raise_anything_else() -> None:
    chance = random.Random(1)
    data = push_table(VALUES)
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            pull_table(bytes(changed))
        except BlobError:
            pass
    for _ in range(3000):
        try:
            pull_attributes(chance.randbytes(chance.randint(0, 60)))
            pull_table(chance.randbytes(chance.randint(0, 60)))
        except BlobError:
            pass


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("8500000b 0001 61 00 000000"),  # a number of three bytes
        bytes.fromhex("8300000a 0001 61 00 6869 0000"),  # a text without its end
        bytes.fromhex("8300000c 00ff 61 00 68690000"),  # a name longer than its field
        bytes.fromhex("8300000c 0001 61 62 68690000"),  # a name without its end
        bytes.fromhex("8f00000c 0001 61 00 00000001"),  # a type that does not exist
        bytes.fromhex("85000003 0001 61 00"),  # shorter than its own head
    ],
)
def test_malformed_fields_are_refused(data: bytes) -> None:
    with pytest.raises(BlobError):
        pull_table(data)


def test_attributes() -> None:
    data = push_attr(3, b"abcde") + push_attr(7, b"")
    assert [(number, named, bytes(payload)) for number, named, payload in pull_attrs(data)] == [
        (3, False, b"abcde"),
        (7, False, b""),
    ]
    assert len(data) % 4 == 0


def test_a_message_there_and_back() -> None:
    data = push_message(
        MessageType.INVOKE, 0x1234, 0xDEADBEEF, [(Attr.OBJID, push_number(77)), (Attr.METHOD, push_string("status"))]
    )
    header = pull_header(data[:HEADER_BYTES])
    assert header == (MessageType.INVOKE, 0x1234, 0xDEADBEEF, len(data) - HEADER_BYTES)
    attrs = pull_attributes(data[HEADER_BYTES:])
    assert pull_number(attrs, Attr.OBJID) == 77
    assert pull_string(attrs, Attr.METHOD) == "status"
    assert pull_number(attrs, Attr.STATUS) is None
    with pytest.raises(BlobError, match="METHOD"):
        pull_number(attrs, Attr.METHOD)


def test_a_message_longer_than_ubusd_takes_is_not_sent() -> None:
    fits = b"x" * (MESSAGE_MAX_BYTES - 8)
    push_message(MessageType.DATA, 1, 1, [(Attr.DATA, fits)])
    with pytest.raises(BlobError, match="1048576"):
        push_message(MessageType.DATA, 1, 1, [(Attr.DATA, fits + b"x")])


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("01 00 0000 00000001 00000004", "version 1"),
        ("00 00 0000 00000001 00000003", "3 bytes"),
        ("00 00 0000 00000001 00200000", "bytes"),
    ],
)
def test_a_header_that_makes_no_sense(head: str, text: str) -> None:
    with pytest.raises(BlobError, match=text):
        pull_header(bytes.fromhex(head))
