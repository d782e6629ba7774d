"""The UDP end of dynamic authorization on the loopback: from where answers come, and where nothing is open."""

from __future__ import annotations

import asyncio
import socket

import pytest
from test_dynamic import SECRET, UNIX, checked_reply, packet

from cpe_mcp.aaa.dynamic import Decision
from cpe_mcp.aaa.dynamic_packets import DynamicAuthorization, Rules
from cpe_mcp.aaa.dynamic_server import DynamicServer

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.3-b")]

PEERS = dict.fromkeys(("127.0.0.1", "127.0.0.9", "::1"), SECRET)


def a_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))
        return int(sock.getsockname()[1])


def a_server() -> DynamicServer:
    core = DynamicAuthorization(Rules(PEERS, 32473), lambda code, attributes: Decision(44))
    return DynamicServer(core, unix=lambda: float(UNIX))


async def asked(address: str, port: int, *, source: str, timeout_s: float = 5) -> bytes:
    """The answer, which a connected socket takes from the address that it asked only."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((source, 0))
        sock.connect((address, port))
        request = packet()
        await loop.sock_sendall(sock, request)
        async with asyncio.timeout(timeout_s):
            answer = await loop.sock_recv(sock, 4096)
        checked_reply(request, answer)
        return answer


@pytest.mark.parametrize(
    ("address", "source"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.5", "127.0.0.9"), ("::1", "::1")]
)
def test_an_answer_comes_from_the_address_that_was_asked(address: str, source: str) -> None:
    async def main() -> None:
        server, port = a_server(), a_port()
        assert server.follow([("::", "")], port) == []
        try:
            assert (await asked(address, port, source=source))[0] == 44
        finally:
            server.close()

    asyncio.run(main())


def test_it_serves_where_it_is_told_and_nowhere_else() -> None:
    async def main() -> None:
        server, port = a_server(), a_port()
        assert server.follow([("127.0.0.1", "")], port) == []
        assert server.places() == [("127.0.0.1", "")]
        await asked("127.0.0.1", port, source="127.0.0.1")
        with pytest.raises(ConnectionRefusedError):
            await asked("127.0.0.5", port, source="127.0.0.1")
        server.follow([], port)
        with pytest.raises(ConnectionRefusedError):
            await asked("127.0.0.1", port, source="127.0.0.1")
        server.close()

    asyncio.run(main())


def test_a_place_that_cannot_be_opened_is_named_and_tried_again() -> None:
    async def main() -> None:
        server, port = a_server(), a_port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", port))
            wanted = [("127.0.0.1", ""), ("127.0.0.5", "")]
            assert server.follow(wanted, port) == [
                f"dynamic authorization at 127.0.0.1 port {port}: Address already in use"
            ]
            assert server.places() == [("127.0.0.5", "")]
        assert server.follow(wanted, port) == []
        assert server.places() == wanted
        server.close()

    asyncio.run(main())
