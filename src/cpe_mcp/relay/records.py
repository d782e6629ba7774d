"""What a worker tells the control daemon about a flow, once, when it is over (or when asked for the live ones)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class FlowRecord(NamedTuple):
    """One flow. Sent as a map with these keys."""

    id: int
    """Counts up per worker."""
    started: float
    """Unix time in s."""
    client: str
    """Address of the LAN client; at the concentrator, of the upstream MCP."""
    client_port: int
    server: str
    server_port: int
    family: int
    """4 or 6, of the server's address."""
    concentrator: str
    """Name of the concentrator, "" for a flow that went direct; at the concentrator, the subscriber's name."""
    wan: str
    """WAN of the first subflow, "" where the routing table chose."""
    action: str
    """``proxy``, ``direct`` or ``block``, at the concentrator ``speedtest`` too; "" for a connection that ended before it had
    asked for anything."""
    reason: str
    """Why: a value of :class:`cpe_mcp.policy.reasons.Reason`."""
    pooled: bool
    """A warm connection carried it."""
    first_byte_ms: float
    """From accept to the first byte for the client, -1 when there was none."""
    bytes_up: int
    """From the client."""
    bytes_down: int
    """To the client."""
    duration_s: float
    end: str
    """How it ended: a value of Reason; "" for a live flow."""
    mptcp: bool = False
    """The connection to the concentrator was Multipath TCP, and still is or was when it ended."""
    fallback: str = ""
    """Why a proxied flow was carried over plain TCP: a value of Reason; "" for one that was not."""
    bytes_by_wan: dict[str, dict[str, int]] = {}  # noqa: RUF012 - nobody changes it
    """``{wan: {"down": n, "up": n}}`` of a proxied flow of some size, Convert's own bytes included; empty where it is not
    known. What a line carried between the last look and its death is in no WAN's sum."""
    scheme: str = ""
    """What distributes its bytes over the WANs; "" for one that was not proxied."""
    scheme_reason: str = ""
    """Why the WANs have their places under that scheme: a value of Reason."""
    outer: tuple[str, int, float, float] | None = None
    """At a concentrator that logs addresses: its own address and port towards the server, the Unix time in s from which the
    flow had them (a warm connection waits long before), and for how many s (a refused peer may go long after); None where no
    server was asked."""


def matches(text: str, parts: Iterable[str]) -> bool:
    """Whether ``text`` is in one of a flow's words, whatever the case; "" is in all."""
    wanted = text.casefold()
    return any(wanted in part.casefold() for part in parts)
