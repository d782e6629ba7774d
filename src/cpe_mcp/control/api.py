"""The question socket of the daemons: one JSON object per line in, one out. The CLI asks here (:mod:`.ask`);
ubus forwards here.

``{"method": "status", "args": {}}`` is answered by ``{"result": ...}`` or ``{"error": "..."}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cpe_mcp.control.ask import MAX_LINE_BYTES, ApiError

__all__ = ["ApiError", "ApiServer", "Method"]

log = logging.getLogger(__name__)

Method = Callable[[Mapping[str, Any]], Awaitable[Any]]

SOCKET_MODE = 0o600


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
        except KeyError:
            return {"error": f"no such method; there are {', '.join(sorted(self._methods))}"}
        except (ValueError, TypeError, AttributeError):
            return {"error": 'a request is one line {"method": NAME, "args": {...}}'}
        if not isinstance(args, dict):
            return {"error": "args of a request is an object"}
        try:
            return {"result": await method(args)}
        except ApiError as error:
            return {"error": str(error)}
        except Exception:
            log.exception("method %s failed", name)
            return {"error": f"method {name} failed: a fault in the daemon, its log has the details"}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.LimitOverrunError, ValueError):
            while line := await reader.readline():
                writer.write(json.dumps(await self.answer(line)).encode() + b"\n")
                await writer.drain()
        writer.close()
