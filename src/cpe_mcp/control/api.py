"""The question socket of the daemons: one JSON object per line in, one out. The CLI asks here; ubus forwards here.

``{"method": "status", "args": {}}`` is answered by ``{"result": ...}`` or ``{"error": "..."}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Method = Callable[[Mapping[str, Any]], Awaitable[Any]]

SOCKET_MODE = 0o600
MAX_LINE_BYTES = 4 * 1024 * 1024
"""A list of 10,000 flows takes about 3 MB."""
ASK_TIMEOUT_S = 10.0


class ApiError(Exception):
    """What a method raises to answer with a plain sentence instead of a result."""


class ApiServer:
    """Answers the given methods on a Unix socket."""

    def __init__(self, path: str, methods: Mapping[str, Method]) -> None:
        self._path = path
        self._methods = dict(methods)
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Bind and serve. Raises OSError when the socket cannot be made."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MAX_LINE_BYTES)
        os.chmod(self._path, SOCKET_MODE)

    async def close(self) -> None:
        """Stop serving and remove the socket."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    async def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to one request line; never raises."""
        try:
            request = json.loads(line)
            name, args = request["method"], request.get("args") or {}
            method = self._methods[name]
        except KeyError as error:
            return {"error": f"no method {error}; there are {', '.join(sorted(self._methods))}"}
        except (ValueError, TypeError, AttributeError):
            return {"error": 'a request is one line {"method": NAME, "args": {...}}'}
        try:
            return {"result": await method(args)}
        except ApiError as error:
            return {"error": str(error)}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.LimitOverrunError, ValueError):
            while line := await reader.readline():
                writer.write(json.dumps(await self.answer(line)).encode() + b"\n")
                await writer.drain()
        writer.close()


def ask(path: str, method: str, args: Mapping[str, Any] | None = None, *, timeout_s: float = ASK_TIMEOUT_S) -> Any:
    """Ask a running daemon and wait. Raises ApiError with its sentence, OSError when it does not run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(path)
        connection.sendall(json.dumps({"method": method, "args": dict(args or {})}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer = json.loads(lines.readline(MAX_LINE_BYTES) or b'{"error": "the daemon closed the connection"}')
    if "error" in answer:
        raise ApiError(answer["error"])
    return answer["result"]
