"""What a worker tells the control daemon about a flow, once, when it is over (or when asked for the live ones)."""

from __future__ import annotations

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
    """``proxy``, ``direct`` or ``block``; "" for a connection that ended before it had asked for anything."""
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
