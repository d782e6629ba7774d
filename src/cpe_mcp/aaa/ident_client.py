"""Asks one Ident question over TCP (RFC 1413), on the running asyncio loop."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from cpe_mcp.aaa.ident import PORT, QUESTION_MAX, Answer, IdentError, Ports, pull_answer, question

SILENT, REFUSED, NONSENSE = "silent", "refused", "nonsense"
"""Errors of our own, where RFC 1413 has words in capitals: nobody answered in time, nobody listens, or no Ident."""


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
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                connection.peer, port, local_addr=(connection.local, 0), limit=QUESTION_MAX
            )
            writer.write(question(ports))
            line = await reader.readuntil(b"\n")
        return pull_answer(line, ports)
    except TimeoutError:
        return Answer("", SILENT)
    except OSError:
        return Answer("", REFUSED)
    except (IdentError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return Answer("", NONSENSE)
    finally:
        if writer is not None:
            writer.transport.abort()
