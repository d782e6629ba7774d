"""Who may say what when, as tables. The machines in :mod:`.client` and :mod:`.converter` keep one word of state each.

An event that a state does not list is a LocalError: it is our own call that came out of order, since what a peer may send
wrongly is found while its message is read.
"""

from __future__ import annotations

from cpe_mcp.convert.errors import LocalError

Table = dict[str, dict[str, str]]

START = "start"
PREFIXED = "prefixed"
ASKED = "asked"
ESTABLISHED = "established"
REFUSED = "refused"
READING = "reading"
REQUESTED = "requested"
BROKEN = "broken"

CLIENT: Table = {
    START: {"prefix": PREFIXED, "connect": ASKED, "info": ASKED, "error": REFUSED, "violation": BROKEN},
    PREFIXED: {"connect": ASKED, "error": REFUSED, "violation": BROKEN},
    ASKED: {"success": ESTABLISHED, "error": REFUSED, "violation": BROKEN},
    ESTABLISHED: {},
    REFUSED: {},
    BROKEN: {},
}
"""A Converter may refuse a warm connection before it was asked for anything, so ``error`` is legal from the start."""

CONVERTER: Table = {
    READING: {"request": REQUESTED, "refuse": REFUSED, "violation": BROKEN},
    REQUESTED: {"accept": ESTABLISHED, "refuse": REFUSED},
    ESTABLISHED: {},
    REFUSED: {},
    BROKEN: {},
}


def step(table: Table, state: str, event: str) -> str:
    """The state after ``event``. Raises LocalError for one that the state does not know; the state is then unchanged."""
    following = table[state].get(event)
    if following is None:
        raise LocalError(f"{event} is out of order in state {state}")
    return following
