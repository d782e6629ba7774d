"""Frames between relay worker and control daemon: names and codec. The table of shapes is in docs/architecture.md."""

from __future__ import annotations

from typing import Any

import msgpack

from cpe_mcp.control import places

HELLO = "hello"
SNAPSHOT = "snapshot"
SETTINGS = "settings"
RECORDS = "records"
COUNTERS = "counters"
DIRECT = "direct"
TROUBLE = "trouble"
ANSWERED = "answered"
LIST = "list"
FLOWS = "flows"
DROP = "drop"
DROPPED = "dropped"
AUTHORIZE = "authorize"
AUTHORIZED = "authorized"
FORGET = "forget"
CAPS = "caps"
DEMAND = "demand"
USAGE = "usage"
CONNECTIONS = "connections"

CONTROL_SOCKET = places.CONTROL_SOCKET
API_SOCKET = places.API_SOCKET

MAX_FRAME_BYTES = 160 * 1024
"""Largest datagram either side sends; below the 208 KiB default of net.core.wmem_default, which bounds a seqpacket."""


CAPS_PER_FRAME = 256
"""Subscribers in a ``caps``, ``demand`` or ``connections``: with the longest names that RADIUS has, 253 octets, some 75 KiB."""


class FrameError(ValueError):
    """A datagram that is not a frame."""


def push_frame(kind: str, payload: Any) -> bytes:
    """One frame as bytes. Raises FrameError when it would not fit a datagram."""
    data: bytes = msgpack.packb([kind, payload], use_bin_type=True)
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"frame {kind} has {len(data)} bytes, the limit is {MAX_FRAME_BYTES}")
    return data


def pull_frame(data: bytes) -> tuple[str, Any]:
    """Kind and payload of one datagram. Raises FrameError on anything else."""
    try:
        frame = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"not msgpack: {error}") from error
    if not isinstance(frame, list) or len(frame) != 2 or not isinstance(frame[0], str):
        raise FrameError("a frame is an array of a kind and a payload")
    return frame[0], frame[1]
