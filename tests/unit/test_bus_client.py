"""The own ubus client against servers that are not ubusd, or not themselves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cpe_mcp.bus import client
from cpe_mcp.bus.interface import BusError
from cpe_mcp.bus.wire import Attr, MessageType, Status, push_message, push_number

HELLO = push_message(MessageType.HELLO, 0, 0x1000)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def against(path: Path, serve: Serve, test: Callable[[], Awaitable[None]]) -> None:
    """Run a test beside a server."""

    async def main() -> None:
        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_unix_server(served, path)
        try:
            async with asyncio.timeout(10):
                await test()
        finally:
            server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"", "no greeting"),
        (HELLO[:5], "no greeting"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no greeting"),
        (push_message(MessageType.STATUS, 0, 0), "type 1 instead of a greeting"),
    ],
)
def test_no_greeting(tmp_path: Path, sent: bytes, text: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)

    async def test() -> None:
        with pytest.raises(OSError, match=text):
            await client.connect(str(tmp_path / "socket"))

    against(tmp_path / "socket", serve, test)


def test_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test() -> None:
        with pytest.raises(OSError, match="silence"):
            await client.connect(str(tmp_path / "socket"))

    monkeypatch.setattr(client, "HELLO_TIMEOUT_S", 0.1)
    against(tmp_path / "socket", serve, test)


def test_garbage_ends_the_connection_and_every_wait(tmp_path: Path) -> None:
    chance = random.Random(7)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await reader.read(1)
        writer.write(b"\x01" + chance.randbytes(200))
        await writer.drain()
        await reader.read()

    async def test() -> None:
        bus = await client.connect(str(tmp_path / "socket"))
        with pytest.raises(BusError) as caught:
            await bus.call("x", "y", {})
        assert caught.value.status == Status.CONNECTION_FAILED
        await bus.wait_lost()
        await bus.close()

    against(tmp_path / "socket", serve, test)


def test_messages_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    """Whole messages of any type with any content, then the answer that is waited for."""
    chance = random.Random(8)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await reader.read(1)
        for _ in range(300):
            kind, body = chance.randrange(14), chance.randbytes(4 * chance.randrange(12))
            head = bytes([0, kind]) + chance.randbytes(6) + (4 + len(body)).to_bytes(4, "big")
            writer.write(head + body)
            numbers = [(Attr(chance.randrange(1, 14)), chance.randbytes(chance.randrange(9))) for _ in range(3)]
            writer.write(push_message(MessageType(chance.randrange(11)), chance.randrange(2, 9), 0, numbers))
        writer.write(push_message(MessageType.STATUS, 1, 0, [(Attr.STATUS, push_number(Status.NOT_FOUND))]))
        await reader.read()

    async def test() -> None:
        bus = await client.connect(str(tmp_path / "socket"))
        with pytest.raises(BusError, match="NOT_FOUND"):
            await bus.call("x", "y", {})
        await bus.close()

    against(tmp_path / "socket", serve, test)
