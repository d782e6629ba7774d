"""What is written of one connection where addresses are shared (RFC 6888 section 4): who had which of our addresses and ports,
and from when to when. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

PLAIN = "@:./+"
"""What may stand in a word beside letters, digits and ``_.-~``; everything else is written as %XX, so that no name can make a
line look like another one, or like two."""


def address_line(record: Mapping[str, Any], *, with_destination: bool) -> str:
    """``subscriber=alice inner=203.0.113.5#41000 outer=192.0.2.1#51322 protocol=tcp start=... end=...``, with ``destination=``
    when that is wanted; "" for a connection that used none of our ports. Times are UTC, in ms, as ISO 8601, and of our port:
    not of a warm connection that waited before, nor of a refused peer that has not gone yet.

    ``record``: a :class:`cpe_mcp.relay.records.FlowRecord` of a concentrator, as a map. ``inner`` is where the subscriber's
    first subflow came from.
    """
    if not record.get("outer"):
        return ""
    address, port, started, seconds = record["outer"]
    fields = {
        "subscriber": quote(record["concentrator"], safe=PLAIN),
        "inner": _end(record["client"], record["client_port"]),
        "outer": _end(address, port),
        "protocol": "tcp",
        "start": _time(started),
        "end": _time(started + seconds),
    }
    if with_destination:
        fields["destination"] = _end(record["server"], record["server_port"])
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _end(address: str, port: int) -> str:
    return f"{address}#{port}"


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
