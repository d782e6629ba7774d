"""Asks a concentrator over one WAN whether it is there: a Convert message with an Info TLV (RFC 8803 section 4.2.3), over
plain TCP, which reaches no server. It shows that the service answers, not only its host. About 500 octets.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

from cpe_mcp.aaa.presenter import Presenter, heard
from cpe_mcp.convert import Client, ConvertError, Refused
from cpe_mcp.discovery.candidates import Candidate
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.policy.concentrator_health import Answer
from cpe_mcp.relay.sockets import Socket, connect_concentrator, reset_on_close, socket_error

ANSWER_S = 3.0
"""For the whole exchange of two round trips, over lines with a second of queue too; flows do not wait for the verdict."""
AGAIN_S = 0.5
"""A second question follows after so long, since the first packet may just have been lost."""
REPLY_BYTES = 1024


async def ask_over(candidate: Candidate, wans: Sequence[WanView], presenter: Presenter) -> dict[str, Answer]:
    """What it answers over each of the WANs that can ask it at all."""
    able = [(wan, *where) for wan in wans if (where := _where(candidate, wan)) is not None]
    answers = await asyncio.gather(*(_ask_twice(candidate, presenter, *row) for row in able))
    return {row[0].name: answer for row, answer in zip(able, answers, strict=True) if answer is not None}


def _where(candidate: Candidate, wan: WanView) -> tuple[str, str] | None:
    """Address to ask and source."""
    for address in candidate.addresses:
        source = wan.address6 if ":" in address else wan.address4
        if source:
            return address, source
    return None


async def _ask_twice(
    candidate: Candidate, presenter: Presenter, wan: WanView, address: str, source: str
) -> Answer | None:
    """The better one of two answers. None: the WAN itself could not ask."""
    first = asyncio.create_task(_ask(candidate, presenter, wan, address, source))
    await asyncio.wait({first}, timeout=AGAIN_S)
    if first.done():
        return first.result()
    second = asyncio.create_task(_ask(candidate, presenter, wan, address, source))
    waiting = {first, second}
    answer: Answer | None = None
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            answer = task.result()
            if answer is not None and answer.is_alive:
                for other in waiting:
                    other.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
                return answer
    return answer


async def _ask(candidate: Candidate, presenter: Presenter, wan: WanView, address: str, source: str) -> Answer | None:
    started = time.monotonic()
    try:
        sock = connect_concentrator(
            address, candidate.port, device=wan.device, source=source, congestion_control="", mptcp=False
        )
    except OSError:
        return None
    rtt_ms = 0.0
    try:
        async with asyncio.timeout(ANSWER_S):
            await _ready(sock, for_reading=False)
            error = socket_error(sock)
            if error:
                return Answer(False, 0.0, os.strerror(error))
            rtt_ms = round((time.monotonic() - started) * 1000, 1)
            cookie = presenter.cookie(time.monotonic())
            client = Client(cookie)
            sock.send(client.info())
            while True:
                await _ready(sock, for_reading=True)
                data = sock.recv(REPLY_BYTES)
                if not data:
                    return Answer(False, rtt_ms, "it closes the connection")
                answer = client.receive_data(data)
                if isinstance(answer, Refused):
                    heard(presenter, cookie, answer, time.monotonic())
                if answer is not None:
                    return Answer(True, rtt_ms)  # an Error TLV is an answer too: the workers hear it and obey
    except TimeoutError:
        return Answer(False, rtt_ms, "no Convert reply" if rtt_ms else "no answer to the handshake")
    except ConvertError as error:
        return Answer(True, rtt_ms, str(error))  # what it says is the business of whoever talks to it
    except OSError as error:
        return Answer(False, rtt_ms, error.strerror or str(error))
    finally:
        reset_on_close(sock)
        sock.close()


async def _ready(sock: Socket, *, for_reading: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    fd = sock.fileno()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = (loop.add_reader, loop.remove_reader) if for_reading else (loop.add_writer, loop.remove_writer)
    add(fd, wake)
    try:
        await ready
    finally:
        remove(fd)
