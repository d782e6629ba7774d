"""RADIUS over TLS (RFC 6614): TCP to the server from here, everything of TLS in a child process (:mod:`.tls_child`).

The child lives for one exchange. OpenSSL would cost the daemon 4 MB for good, and it asks once in a session.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections import Counter
from typing import Any, NamedTuple

from cpe_mcp.aaa.carriers import MAX_PACKET_BYTES, Judge, Server, Unreachable
from cpe_mcp.paths.snapshot import WanView

TLS_PORT = 2083
"""RFC 6614 section 2.1."""
TLS_SECRET = b"radsec"
"""RFC 6614 section 2.3: the packets are protected by TLS, the secret is the same everywhere."""
COMMAND = (sys.executable, "-m", "cpe_mcp.aaa.tls_child")
START_S = 10.0
"""For a Python to start and load OpenSSL on a busy small router."""
LINE_MAX = 300
"""Of what the child says on standard error; it goes to a status page."""


class TlsFiles(NamedTuple):
    """PEM files: what proves the server, and what proves us."""

    ca: str
    cert: str
    key: str
    name: str = ""
    """What the server's certificate has to be for; "": the address that is asked."""


class TlsCarrier:
    """One connection for each exchange; ``timeout_s`` for TCP's handshake, and again for TLS and the answer."""

    needs_signature = False  # TLS signs it; RFC 6614 does not ask for more, and older servers do not send it

    def __init__(self, files: TlsFiles, *, timeout_s: float) -> None:
        self._files = files
        self._timeout_s = timeout_s

    async def exchange(
        self, server: Server, raw: bytes, judge: Judge, *, way: WanView | None, counters: Counter[str]
    ) -> Any | None:
        """See :class:`cpe_mcp.aaa.carriers.Carrier`. TCP and TLS repeat what is lost."""
        counters["requests"] += 1
        try:
            with server.open_socket(socket.SOCK_STREAM, way) as connection:
                async with asyncio.timeout(self._timeout_s):
                    await asyncio.get_running_loop().sock_connect(connection, server.sockaddr)
                data = await self._inside_tls(server, connection, raw)
        except TimeoutError:
            raise Unreachable("no answer to the TCP handshake") from None
        except OSError as error:
            raise Unreachable(os.strerror(error.errno) if error.errno else str(error)) from None
        return judge(data, True)

    async def _inside_tls(self, server: Server, connection: socket.socket, raw: bytes) -> bytes:
        files = self._files
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *(str(connection.fileno()), files.ca, files.cert, files.key),
            *(files.name or server.address, str(self._timeout_s)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(connection.fileno(),),
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            async with asyncio.timeout(START_S + 2 * self._timeout_s):
                answer, said = await process.communicate(raw)
        except TimeoutError:
            raise Unreachable("TLS took too long") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines() or ["the process for TLS ended early"]
            raise Unreachable("".join(c if c.isprintable() else " " for c in lines[-1])[:LINE_MAX])
        return answer[:MAX_PACKET_BYTES]
