"""Asks one Ident question over TCP (RFC 1413), on the running asyncio loop."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from cpe_mcp.aaa.ident import PORT, QUESTION_MAX, Answer, IdentError, Ports, pull_answer, question

SILENT, REFUSED, NONSENSE = "silent", "refused", "nonsense"
"""Errors of our own, where RFC 1413 has words in capitals: nobody answered in time, nobody listens, or no Ident."""

AGAIN_S, AGAIN_FOR_S = 0.1, 1.0
"""Before a port that is closed is tried again, and for how long, while there is time."""


class Connection(NamedTuple):
    """The one that is asked about: its two ends as this machine sees them."""

    local: str
    local_port: int
    peer: str
    peer_port: int


async def ask(connection: Connection, *, timeout_s: float, port: int = PORT) -> Answer:
    """Whose it is, as its other end says. Never raises; asked from the address that the connection came to, since only so
    the other end knows which one is meant (section 3)."""
    ports = Ports(theirs=connection.peer_port, ours=connection.local_port)
    error = SILENT
    loop = asyncio.get_running_loop()
    end = loop.time() + AGAIN_FOR_S
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return pull_answer(await _line(connection, question(ports), port), ports)
                except OSError:  # a router that has just begun opens the port a moment after its first connection
                    error = REFUSED
                if loop.time() > end:
                    return Answer("", error)
                await asyncio.sleep(AGAIN_S)
    except TimeoutError:
        return Answer("", error)
    except (IdentError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return Answer("", NONSENSE)


async def _line(connection: Connection, asked: bytes, port: int) -> bytes:
    """What comes back. Raises OSError, and what the stream says of no line."""
    reader, writer = await asyncio.open_connection(
        connection.peer, port, local_addr=(connection.local, 0), limit=QUESTION_MAX
    )
    try:
        writer.write(asked)
        return await reader.readuntil(b"\n")
    finally:
        writer.transport.abort()
