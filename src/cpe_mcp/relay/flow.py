"""The life of one flow, as tables: what a state is left by, and for where. No sockets, no clock.

A flow is one accepted connection and the one opened for it. The workers keep the state and call :func:`step`; an event that
a state does not know is a bug of ours and raises, it is never caused by a peer.
"""

from __future__ import annotations

NEW = "new"
"""Accepted; nothing has been opened for it yet."""
CONNECTING = "connecting"
"""Upstream MCP: the handshake with the concentrator is under way. Concentrator: with the server."""
WAITING = "waiting"
"""Upstream MCP: the Connect TLV is out, the Convert reply is not here. Client bytes stay in the kernel."""
DIRECT = "direct"
"""Upstream MCP: the handshake with the server itself is under way, past every concentrator (design D4)."""
READING = "reading"
"""Concentrator: the Convert message is not complete; between a warm connection's prefix and its Connect TLV too."""
AUTHORIZING = "authorizing"
"""Concentrator: the message is complete, the control daemon has not said yet whether the peer may use us."""
DRAINING = "draining"
"""Concentrator: the reply that ends the connection is out; we wait for the peer to close, since closing first with its
bytes unread would send a reset that overtakes the reply (RFC 8803 section 4.1)."""
MEASURING = "measuring"
"""Concentrator: a speed test, served by the worker itself."""
RELAYING = "relaying"
"""Bytes go both ways."""
CLOSED = "closed"

Table = dict[str, dict[str, str]]

UPSTREAM: Table = {
    NEW: {"take": WAITING, "open": CONNECTING, "go_direct": DIRECT, "close": CLOSED},
    CONNECTING: {"connected": WAITING, "open": CONNECTING, "go_direct": DIRECT, "close": CLOSED},
    WAITING: {"established": RELAYING, "open": CONNECTING, "go_direct": DIRECT, "close": CLOSED},
    DIRECT: {"connected": RELAYING, "close": CLOSED},
    RELAYING: {"close": CLOSED},
}
"""``take``: a warm connection was there; ``open``: one is opened, for the first time or on another WAN."""

CONCENTRATOR: Table = {
    READING: {"request": AUTHORIZING, "refuse": DRAINING, "close": CLOSED},
    AUTHORIZING: {"open": CONNECTING, "measure": MEASURING, "refuse": DRAINING, "close": CLOSED},
    MEASURING: {"close": CLOSED},
    CONNECTING: {"connected": RELAYING, "refuse": DRAINING, "close": CLOSED},
    DRAINING: {"close": CLOSED},
    RELAYING: {"close": CLOSED},
}
"""``refuse`` covers every reply after which no bytes are relayed: an Error TLV, and the answer to a lone Info TLV."""


def step(table: Table, state: str, event: str) -> str:
    """The state after ``event``. Raises KeyError for an event that the state does not know."""
    return table[state][event]
